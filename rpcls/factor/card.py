"""CardFactor: a Factor of full rank whose triangle stays on the card, and gives and takes vectors of the host."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..kernels.cuda import algebra
from ..linalg import cholesky, column_norms, condition_number, gram, times_power, triangle, with_ridge
from .host import SURE, Factor

__all__ = ["CardFactor"]

_BY_INVERSE = 1e11  # condition number up to which the inverse, corrected once, solves as well as substitution
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

    @classmethod
    def of_full_rank(cls, R: Any, tolerance: float, exponents: np.ndarray | None) -> CardFactor | None:
        """The factor of R·2^exponents; None unless it is, without doubt, of full rank by that tolerance."""
        t, n = R.shape
        norms = column_norms(R) if t >= n else np.zeros(n)
        if not np.all((norms > 1 / _RANGE) & (norms < _RANGE)):
            return None
        own = np.rint(np.log2(norms)).astype(np.int64)
        R = algebra.scaled(R[:n], None, -own)
        X = algebra.inverse(R)
        s = algebra.extreme_singular_values(R, X)
        if not s[0] * tolerance < SURE * s[1]:
            return None
        return cls(R, X, own if exponents is None else own + exponents, s)

    def gram_pinv(self, g: np.ndarray) -> np.ndarray:
        if self.condition > _BY_INVERSE:
            return super().gram_pinv(g)
        e = -self._e[:, None]
        return times_power(algebra.gram_solved(self._R, self._X, times_power(g, e)), e)

    def inverse_squares(self) -> float:
        return float(np.sum(np.square(np.ldexp(column_norms(self._X.T), -self._e))))

    def _solved(self, Y: np.ndarray, *, transpose: bool = False) -> np.ndarray:
        if self.condition > _BY_INVERSE:
            return algebra.solve(self._R, Y, transpose=transpose)
        return algebra.solved(self._R, self._X, Y, transpose=transpose)

    def _multiplied(self, Y: np.ndarray, *, transpose: bool = False) -> np.ndarray:
        return algebra.product(self._R, Y, transpose=transpose)

    def _shifted_triangle(self, tau: float) -> Any:
        # by Cholesky where τ is large enough for squares to show it
        T = cholesky(gram(self._R, tau**2)) if tau > 1e-5 * self.size else None
        return triangle(with_ridge(self._R, tau)) if T is None else T

    def _damped(self, power: int, u: np.ndarray) -> np.ndarray:
        return algebra.solve(self._with_shift(power), u, transpose=True)
