"""Factor: M⁺ and (MᵀM)⁺ from a triangular factor of M, whatever the scaling of its columns and whatever its rank."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..kernels import on_card, on_host
from ..linalg import (
    column_exponents,
    condition_number,
    economy_svd,
    exponent_of,
    numerical_rank,
    scaled_cholesky,
    times_power,
)
from .triangles import triangle_with_shift

__all__ = ["SQUARED", "SURE", "Factor"]

SQUARED = 1e4  # condition number up to which a Gram matrix keeps digits enough to precondition, or to refine
_ROOM = 400  # exponents that may be added or squared without leaving the range of float64


class Factor:
    """M⁺ and (MᵀM)⁺ for M with the triangular (or any small) factor R, MᵀM = RᵀR.

    Parameters
    ----------
    R : (t, n) float64 array
        Upper triangular when t = n.
    tolerance : float
        Singular values of R at or below ``tolerance`` times the largest are zero.
    scaled : bool, default True
        Decide that on columns of unit norm. The minimum norm is that of x itself either way.
    exponents : (n,) int array, optional
        R stands for R·2^exponents, by column.

    Attributes
    ----------
    rank : int
    condition : float
        2-norm condition number of the matrix on which the rank was decided; from 512 columns on, and far from 1/ε,
        within some per cent.
    norm, size : float
        Its 2-norm and its Frobenius norm.

    Notes
    -----
    At full rank both maps are triangular solves, which column scaling does not touch. Otherwise, with the scaled
    M = UΣV₁ᵀ, the caller's M is UΣKᵀ with K = D·V₁, D the column scales; the pivoted QR of K, its rows sorted by size
    (stable for rows of any scaling: Cox & Higham, "Stability of Householder QR factorization for weighted least
    squares problems", 1998), gives the minimum-norm solution of Kᵀx = w. Cost: the singular values, 8n³/3 flops;
    about five times that when deficient.
    """

    def __init__(
        self, R: np.ndarray, tolerance: float, *, scaled: bool = True, exponents: np.ndarray | None = None
    ) -> None:
        from scipy.linalg import qr, svdvals

        t, n = R.shape
        self.n = n
        given = np.zeros(n, np.int64) if exponents is None else exponents
        if scaled:
            self._e = column_exponents(R) + given
        else:
            sizes = (exponent_of(R, axis=0) + given)[R.any(axis=0)]
            self._e = np.full(n, sizes.max() if sizes.size else 0)
        Rs = times_power(R, given - self._e)
        self._R: Any = None
        self._shifts: dict[int, Any] = {}
        if t >= n:
            s = _extreme_singular_values(Rs, tolerance) if t == n >= _MANY else None
            if s is None:
                s = svdvals(Rs, check_finite=False) if n else np.zeros(0)
            if numerical_rank(s, tolerance) == n or len(s) < n:
                self.rank, self.condition, self._R = n, condition_number(s), np.ascontiguousarray(Rs[:n])
                self.norm, self.size = float(s[0]) if n else 0.0, float(np.linalg.norm(Rs))
                return
        U, s, Vt = economy_svd(Rs)
        self.rank = r = numerical_rank(s, tolerance)
        self.condition = condition_number(s)
        self.norm, self.size = float(s[0]) if s.size else 0.0, float(np.linalg.norm(s[:r]))
        self._U, self._s = U[:, :r], s[:r]
        # K = D·V₁ in units of 2^top; exponents far below the top are clipped and given back to x afterwards.
        used = R.any(axis=0)
        self._top = int(self._e[used].max()) if used.any() else 0
        self._e = np.where(used, self._e, self._top)
        clipped = np.maximum(self._e - self._top, -_ROOM)
        self._lift = clipped - (self._e - self._top)
        K = times_power(Vt[:r].T, clipped[:, None])
        K[~used] = 0.0  # and so exactly is x there
        order = np.argsort(-np.max(np.abs(K), axis=1, initial=0.0), kind="stable")
        if r:
            Q, self._T, self._pivots = qr(K[order], mode="economic", pivoting=True, check_finite=False)
            self._Q = np.empty_like(Q)
            self._Q[order] = Q
        else:
            self._Q, self._T, self._pivots = np.zeros((n, 0)), np.zeros((0, 0)), np.zeros(0, np.intp)

    @classmethod
    def of(cls, R: Any, tolerance: float, *, exponents: np.ndarray | None = None, scaled: bool = True) -> Factor:
        """The factor of R, kept on the card if R is there and beyond doubt of full rank."""
        if on_card(R):
            from .card import CardFactor

            there = CardFactor.of_full_rank(R, tolerance, exponents) if scaled else None
            if there is not None:
                return there
        return cls(on_host(R), tolerance, scaled=scaled, exponents=exponents)

    @classmethod
    def by_cholesky(cls, G: Any, tolerance: float, most: float) -> Factor | None:
        """The factor of a Gram matrix G = MᵀM; None unless it has full rank and a condition number of M up to `most`.

        It costs a quarter of the QR factorisation of M, and of every digit of the condition number loses two.
        """
        found = scaled_cholesky(G)
        if found is None:
            return None
        if on_card(G):
            from .card import CardFactor

            factor = CardFactor.of_full_rank(found[0], tolerance, found[1])
        else:
            factor = cls(found[0], tolerance, exponents=found[1])
        return factor if factor is not None and factor.full and factor.condition <= most else None

    @property
    def full(self) -> bool:
        return self._R is not None

    def pinv(self, Z: np.ndarray) -> np.ndarray:
        """M⁺ applied to right-hand sides in the coordinates of R: the minimum-norm minimiser of ‖Rx − z‖, (n, k)."""
        return self.half(Z[: self.n] if self._R is not None else self._U.T @ Z)

    def gram_pinv(self, g: np.ndarray) -> np.ndarray:
        """(MᵀM)⁺g, (n, k), for g (n, k); the part of g outside the range of Mᵀ is dropped."""
        return self.half(self.half_transpose(g))

    def half(self, Y: np.ndarray) -> np.ndarray:
        """PY, (n, k), for Y (rank, k): P is the P of MP with orthonormal columns, R⁻¹ at full rank, and PPᵀ = (MᵀM)⁺.

        The columns of P span the row space of M, so that every PY has minimum norm.
        """
        if self._R is not None:
            return times_power(self._solved(Y), -self._e[:, None])
        w = Y / self._s[:, None]
        y = self._Q @ _solve(self._T, w[self._pivots], transpose=True)
        return times_power(y, self._lift[:, None] - self._top)

    def half_transpose(self, G: np.ndarray) -> np.ndarray:
        """PᵀG, (rank, k), for G (n, k)."""
        if self._R is not None:
            return self._solved(times_power(G, -self._e[:, None]), transpose=True)
        lifted = times_power(G, self._lift[:, None] - self._top)
        v = np.empty((self.rank, G.shape[1]))
        v[self._pivots] = _solve(self._T, self._Q.T @ lifted)
        return v / self._s[:, None]

    def around(self, normal: Callable[[Any], Any], Y: np.ndarray) -> tuple[np.ndarray, ...]:
        """PY, N·PY and PᵀN·PY for N = `normal`, which takes and gives arrays where R is, or in host memory."""
        Z = self.half(Y)
        NZ = normal(Z)
        return Z, NZ, self.half_transpose(NZ)

    def missed(self, G: np.ndarray) -> np.ndarray:
        """‖·‖, (k,), of the part of G·2^-e that is not in the row space of M·2^-e; zero at full rank."""
        if self._R is not None:
            return np.zeros(G.shape[1])
        lifted = times_power(G, self._lift[:, None] - self._top)
        rest = lifted - self._Q @ (self._Q.T @ lifted)
        return np.linalg.norm(times_power(rest, (self._top - self._e - self._lift)[:, None]), axis=0)

    @property
    def triangle(self) -> np.ndarray:
        """R of M itself, (n, n); at full rank only."""
        if self._R is None:
            raise ValueError("a factor of deficient rank has no triangle")
        return times_power(self._R, self._e)

    @property
    def exponents(self) -> np.ndarray:
        """The e, (n,), that bring the columns of M·2^-e near unit norm."""
        return self._e

    def shifted(self, Y: np.ndarray, tau: np.ndarray) -> np.ndarray:
        """‖(M̂ᵀM̂ + τ²I)^(−½)·M̂ᵀu‖, (k,), for u = Y in the coordinates of MP, M̂ = M·2^-e; τ (k,), rounded down to √2ⁱ.

        An n × n factorisation for every τ that it has not met before.
        """
        if self._R is None:
            return np.linalg.norm(Y * (self._s[:, None] / np.hypot(self._s[:, None], tau)), axis=0)
        out = np.linalg.norm(Y, axis=0)
        for j, value in enumerate(tau):
            if value > np.finfo(np.float64).eps * self.size:
                power = int(np.floor(2 * np.log2(value)))
                out[j] = np.linalg.norm(self._damped(power, self._multiplied(Y[:, j : j + 1], transpose=True)))
        return out

    def shifted_bound(self, Y: np.ndarray, tau: np.ndarray, G: np.ndarray | None = None) -> np.ndarray:
        """An upper bound on `shifted`, min(‖u‖, ‖M̂ᵀu‖/τ), that needs no factorisation; G = Mᵀu, if at hand."""
        if self._R is None:
            return self.shifted(Y, tau)
        U = self._multiplied(Y, transpose=True) if G is None else times_power(G, -self._e[:, None])
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.fmin(np.linalg.norm(Y, axis=0), np.linalg.norm(U, axis=0) / tau)

    def inverse_squares(self) -> float:
        """‖M⁺‖_F²."""
        return float(np.sum(np.square(self.pinv(np.eye(len(self._R if self._R is not None else self._U))))))

    # -- at full rank: what is done with R where it is ----------------------------------------------------------------

    def _solved(self, Y: np.ndarray, *, transpose: bool = False) -> np.ndarray:
        """R⁻¹Y or R⁻ᵀY, R with columns at unit norm."""
        assert self._R is not None
        return _solve(self._R, Y, transpose=transpose)

    def _multiplied(self, Y: np.ndarray, *, transpose: bool = False) -> np.ndarray:
        """RY or RᵀY: without BLAS, whose threads would spin into the next sweep."""
        out = np.array(Y.T, order="C")
        (_kernels().multiply_transposed if transpose else _kernels().multiply)(self._R, out)
        return out.T

    def _damped(self, power: int, u: np.ndarray) -> np.ndarray:
        """T⁻ᵀu for the T of `_with_shift`."""
        return _solve(self._with_shift(power), u, transpose=True)

    def _with_shift(self, power: int) -> Any:
        """The triangle of [R; τI], τ² = 2^power."""
        if power not in self._shifts:
            self._shifts[power] = self._shifted_triangle(2.0 ** (power / 2))
        return self._shifts[power]

    def _shifted_triangle(self, tau: float) -> Any:
        assert self._R is not None
        return np.ascontiguousarray(triangle_with_shift(self._R, tau))


_MANY = 512  # columns from which all singular values are dear beside the sweeps
SURE = 0.1  # the share of the largest condition number of full rank up to which an estimate will do


def _extreme_singular_values(R: np.ndarray, tolerance: float) -> np.ndarray | None:
    """The largest and smallest singular value of a triangle by power iteration, within some per cent; O(n²).

    None where they do not put the rank beyond doubt.
    """
    R = np.ascontiguousarray(R)
    if not R.diagonal().all():
        return None
    ends = []
    for there, back in (
        (_kernels().multiply, _kernels().multiply_transposed),
        (_kernels().solve_transposed, _kernels().solve),
    ):
        x, size = np.cos(np.arange(len(R)))[None], 0.0  # any vector that no structure of R is orthogonal to
        for _ in range(6):
            x /= np.linalg.norm(x)
            there(R, x)
            size = float(np.linalg.norm(x))
            back(R, x)
        ends.append(size)
    return np.array([ends[0], 1 / ends[1]]) if ends[0] * ends[1] * tolerance < SURE else None


def _kernels() -> Any:
    from ..kernels.cpu import triangular  # brings numba: only when used

    return triangular


_FEW = 4  # vectors that are solved for one by one, without BLAS and its threads


def _solve(R: np.ndarray, Z: np.ndarray, *, transpose: bool = False) -> np.ndarray:
    if R.shape[0] == 0 or Z.shape[1] == 0:
        return np.zeros((R.shape[0], Z.shape[1]))
    if Z.shape[1] <= _FEW:
        X = np.array(Z.T, np.float64, order="C")
        (_kernels().solve_transposed if transpose else _kernels().solve)(np.ascontiguousarray(R), X)
        return X.T
    from scipy.linalg import solve_triangular

    return solve_triangular(R, Z, trans="T" if transpose else "N", check_finite=False)
