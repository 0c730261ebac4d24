"""CardFactor: a Factor of full rank whose triangle stays on the card, and gives and takes vectors of the host."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..kernels.cuda import algebra
from ..linalg import cholesky, column_norms, condition_number, gram, times_power, triangle, with_ridge
from .host import SURE, Factor

__all__ = ["CardFactor", "certain_factor", "factored_there"]

_BY_INVERSE = 1e11  # condition number up to which the inverse, corrected once, solves as well as substitution
_BY_PRODUCTS = 512  # columns from which products and Cholesky factors take less time than QR,
_ORTHOGONAL = 1e12  # and condition number up to which they give as good a factor
_KNOWN = 1e6  # τ‖R⁻¹‖ up to which I + τ²R⁻ᵀR⁻¹ shows τ
_RANGE = 1e100  # norms of columns beyond this, or below its inverse, are left to the host


class CardFactor(Factor):
    """`Factor` of an upper triangle on a card.

    Solves by the explicit inverse, as long as one correction makes them as good as substitution: they are made twice
    in every iteration, between sweeps that take no longer.

    Parameters
    ----------
    R : (n, n) CuPy array
        Upper triangular, its columns of norm about one.
    X : (n, n) CuPy array
        R⁻¹.
    exponents : (n,) int array
        The columns are those of R·2^exponents.
    s : (2,) array
        Largest and smallest singular value of R.
    """

    def __init__(self, R: Any, X: Any, exponents: np.ndarray, s: np.ndarray) -> None:
        self.n = self.rank = len(R)
        self.condition, self.norm = condition_number(s), float(s[0])
        self.size = float(np.linalg.norm(column_norms(R)))
        self._R, self._X, self._e, self._shifts = R, X, exponents, {}
        self._scales: Any = None

    @classmethod
    def of_full_rank(
        cls, R: Any, tolerance: float, exponents: np.ndarray | None, inverse: Any = None
    ) -> CardFactor | None:
        """The factor of R·2^exponents, R⁻¹ perhaps at hand; None unless it is, without doubt, of full rank."""
        t, n = R.shape
        norms = column_norms(R) if t >= n else np.zeros(n)
        if not np.all((norms > 1 / _RANGE) & (norms < _RANGE)):
            return None
        own = np.rint(np.log2(norms)).astype(np.int64)
        R = algebra.scaled(R[:n], None, -own)
        X = algebra.inverse(R) if inverse is None or own.any() else inverse
        s = algebra.extreme_singular_values(R, X)
        if not s[0] * tolerance < SURE * s[1]:
            return None
        return cls(R, X, own if exponents is None else own + exponents, s)

    def gram_pinv(self, g: np.ndarray) -> np.ndarray:
        if self.condition > _BY_INVERSE:
            return super().gram_pinv(g)
        e = -self._e[:, None]
        return times_power(algebra.gram_solved(self._R, self._X, times_power(g, e)), e)

    def around(self, normal: Callable[[Any], Any], Y: np.ndarray) -> tuple[np.ndarray, ...]:
        if self.condition > _BY_INVERSE:
            return super().around(normal, Y)
        if self._scales is None:
            self._scales = algebra.on_same_card(self._R, np.ldexp(1.0, -self._e))
        return algebra.around(self._R, self._X, self._scales, normal, Y)

    def condition_as_given(self, norm: float) -> float:
        """‖M‖₂‖M⁻¹‖₂ of M in its own units, where ‖M‖₂ = norm; by power iteration, within some per cent."""
        if not np.ptp(self._e):  # no column was scaled otherwise than the others
            return math.ldexp(norm, -int(self._e[0])) * self.condition / self.norm
        x, size = np.cos(np.arange(self.n))[:, None], 1.0  # any vector that no structure of M is orthogonal to
        for _ in range(6):
            x = self.gram_pinv(x / np.linalg.norm(x))
            size = float(np.linalg.norm(x))
        return norm * math.sqrt(size)

    def inverse_squares(self) -> float:
        return float(np.sum(np.square(np.ldexp(column_norms(self._X.T), -self._e))))

    def _solved(self, Y: np.ndarray, *, transpose: bool = False) -> np.ndarray:
        if self.condition > _BY_INVERSE:
            return algebra.solve(self._R, Y, transpose=transpose)
        return algebra.solved(self._R, self._X, Y, transpose=transpose)

    def _multiplied(self, Y: np.ndarray, *, transpose: bool = False) -> np.ndarray:
        return algebra.product(self._R, Y, transpose=transpose)

    def _shifted_triangle(self, tau: float) -> Any:
        # by Cholesky where τ is large enough for squares to show it, or small enough beside R
        if tau > 1e-5 * self.size:
            T = cholesky(gram(self._R, tau**2))
        elif tau * self.condition <= _KNOWN * self.norm and self.condition <= _BY_INVERSE:
            T = algebra.shifted(self._R, self._X, tau)
        else:
            T = None
        return triangle(with_ridge(self._R, tau)) if T is None else T

    def _damped(self, power: int, u: np.ndarray) -> np.ndarray:
        return algebra.solve(self._with_shift(power), u, transpose=True)


def factored_there(M: Any, q: np.ndarray, tolerance: float) -> tuple[CardFactor, np.ndarray] | None:
    """The factor of M (d, n) on a card and the x (n, k) that minimises ‖Mx − q‖, by products of matrices.

    None where QR takes no longer, and where M is too ill-conditioned. What digits are lost are those of a start and of
    a preconditioner.
    """
    found = algebra.triangle_of_products(M, q) if len(M) >= M.shape[1] >= _BY_PRODUCTS else None
    if found is None:
        return None
    R, inverse, exponents, z = found
    factor = CardFactor.of_full_rank(R, tolerance, exponents, inverse)
    return None if factor is None or factor.condition > _ORTHOGONAL else (factor, factor.pinv(z))


def certain_factor(M: Any, tolerance: float) -> CardFactor | None:
    """The factor of a tall M on a card; None unless M is, without doubt, of full rank."""
    found = factored_there(M, np.zeros((len(M), 1)), tolerance)
    return found[0] if found else CardFactor.of_full_rank(triangle(M), tolerance, None)
