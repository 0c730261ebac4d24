"""(PᵀP + μI)⁻¹h for as many μ as a search asks for, from one factorisation.

Two ways: `SingularRidge` from the singular values and vectors of P, accurate to rounding in P; and `GramRidge`, from
PᵀP reduced to tridiagonal form, several times faster and half the digits, so that its answers have to be checked. On a
card the second is a `SingularRidge` of the eigenvectors of PᵀP: reduction alone would take as long there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .kernels import on_card
from .linalg import condition_number, gram, product

__all__ = ["GramRidge", "Ridge", "SingularRidge"]


class Ridge(Protocol):
    """P = UΣVᵀ as far as the robust models need it, for right-hand sides h (n, k) in the range of Pᵀ.

    Attributes
    ----------
    s : (r,) array
        The nonzero singular values, largest first; r is the numerical rank.
    c : (r, k) array
        Vᵀh, up to the sign of each row.
    condition : float
        Largest over smallest of all min(d, n) singular values.
    certified : bool
        Whether answers are accurate without a check.
    """

    @property
    def s(self) -> np.ndarray: ...

    @property
    def c(self) -> np.ndarray: ...

    @property
    def condition(self) -> float: ...

    @property
    def certified(self) -> bool: ...

    def at(self, mu: np.ndarray) -> np.ndarray:
        """V(Σ² + μI)⁻¹Vᵀh, (n, k), for μ (k,) ≥ 0."""
        ...

    def half(self, Y: np.ndarray) -> np.ndarray:
        """BY, (n, p), for Y (r, p): some B with BBᵀ = (PᵀP)⁺, so that the columns of PB are orthonormal."""
        ...


@dataclass(frozen=True)
class SingularRidge:
    """`Ridge` from singular vectors V (n, r), which may be on a card."""

    s: np.ndarray
    c: np.ndarray
    condition: float
    V: Any
    certified: bool = True

    def at(self, mu: np.ndarray) -> np.ndarray:
        return product(self.V, self.c / (np.square(self.s)[:, None] + mu))

    def half(self, Y: np.ndarray) -> np.ndarray:
        return product(self.V, Y / self.s[:, None])


_LEAST = 64  # columns below which the accurate way is as fast
_FLOOR = 1e-11  # smallest eigenvalue, relative to the largest, that the Gram matrix shows to a few digits


@dataclass(frozen=True)
class GramRidge:
    """`Ridge` from PᵀP = QTQᵀ, T tridiagonal: the eigenvectors of T are never formed, those of PᵀP still less."""

    s: np.ndarray
    c: np.ndarray
    condition: float
    _Q: tuple[np.ndarray, np.ndarray]  # Householder vectors and their factors
    _T: tuple[np.ndarray, np.ndarray]  # diagonal (n,) and subdiagonal (n − 1,)
    _h: np.ndarray  # Qᵀh
    certified: bool = False

    @classmethod
    def of(
        cls, P: Any, h: np.ndarray, condition_at: Callable[[float], float | None] | None = None
    ) -> GramRidge | SingularRidge | None:
        """The ridge path of P (d, n) and h (n, k), d ≥ n, at dn² + 4n³/3 flops and O(n²) for each of the k.

        Parameters
        ----------
        P, h : arrays
        condition_at : function, optional
            Of ‖P‖₂: the condition number of a P on a card, asked for if it is above 3e5; None if P may be deficient.
            Then the path is that of the eigenvalues that PᵀP shows, which serves a μ far above the others.

        Returns
        -------
        GramRidge, or SingularRidge if P is on a card, or None
            None when P is not tall, small enough for the accurate way, or has a condition number above 3e5.
        """
        d, n = P.shape
        if d < n or n < _LEAST:
            return None
        if on_card(P):
            return _by_eigenvectors(P, h, condition_at)
        from scipy.linalg import blas, lapack

        from .kernels.cpu import tridiagonal

        G = blas.dsyrk(1.0, P.T, lower=1)
        work = int(lapack.dsytrd_lwork(n, lower=1)[0])
        packed, diagonal, beside, factors, _ = lapack.dsytrd(G, lower=1, lwork=work, overwrite_a=1)
        Q = np.asfortranarray(packed[1:, :-1]), factors
        turned = _times(Q, h, transpose=True)
        values, c = diagonal.copy(), np.array(turned, order="C")
        if not tridiagonal.diagonalise(values, np.append(beside, 0.0), c):
            return None
        order = np.argsort(-values, kind="stable")
        values, c = values[order], c[order]
        if not values[-1] > _FLOOR * values[0]:
            return None
        s = np.sqrt(values)
        return cls(s, c, condition_number(s), Q, (diagonal, beside), turned)

    def at(self, mu: np.ndarray) -> np.ndarray:
        from scipy.linalg import lapack

        diagonal, beside = self._T
        columns = [lapack.dptsv(diagonal + m, beside, self._h[:, j])[2] for j, m in enumerate(mu)]
        return _times(self._Q, np.column_stack(columns))

    def half(self, Y: np.ndarray) -> np.ndarray:
        from scipy.linalg import lapack, solve_banded

        pivots, multipliers, _ = lapack.dpttrf(*self._T)  # T = LDLᵀ, and so B = QL⁻ᵀD^(−½)
        bands = np.vstack([np.append(0.0, multipliers), np.ones_like(pivots)])
        return _times(self._Q, solve_banded((0, 1), bands, Y / np.sqrt(pivots)[:, None], check_finite=False))


def _by_eigenvectors(
    P: Any, h: np.ndarray, condition_at: Callable[[float], float | None] | None
) -> SingularRidge | None:
    from .kernels.cuda import algebra

    values, V = algebra.eigenvectors(gram(P))
    s = np.sqrt(np.maximum(values, 0.0))
    condition: float | None = condition_number(s)
    if not values[-1] > _FLOOR * values[0]:
        condition = condition_at(float(s[0])) if condition_at else None
        if condition is None:
            return None
        s = np.maximum(s, s[0] / condition)
    return SingularRidge(s, product(V, h, transpose=True), condition, V, certified=False)


def _times(Q: tuple[np.ndarray, np.ndarray], X: np.ndarray, *, transpose: bool = False) -> np.ndarray:
    """QX or QᵀX, (n, k), for the Q that `dsytrd` leaves: the first row is not touched."""
    from scipy.linalg import lapack

    way = "T" if transpose else "N"
    tail = np.asfortranarray(X[1:])
    work = int(lapack.dormqr("L", way, *Q, tail, -1)[1][0])
    out = np.empty(X.shape)
    out[0], out[1:] = X[0], lapack.dormqr("L", way, *Q, tail, work)[0]
    return out
