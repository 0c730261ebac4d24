"""The small dense factorisations behind the solvers: float64, never larger than the sketch.

Powers of two scale everything (exactly), so squares neither overflow nor underflow. Two factorisations answer
every question that the solvers ask of a matrix M (t × n):

* `Factor`: M⁺z and (MᵀM)⁺g from a triangular factor. Rank is decided on columns of unit norm, so the scaling of
  the columns never costs rank; a deficient M gets its minimum-norm answer in the caller's units.
* `Spectrum`: M = UΣVᵀ of M as it stands, for the models that are not equivariant under column scaling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = [
    "Factor",
    "Spectrum",
    "condition_number",
    "exponent_of",
    "gram_spectrum",
    "spectrum",
    "times_power",
    "triangle",
]

_ROOM = 400  # exponents that may be added or squared without leaving the range of float64


def exponent_of(M: np.ndarray, axis: int | None = None) -> Any:
    """The e with max|M|·2^-e in [0.5, 1), by column if ``axis=0``; 0 where M is zero. An int, or an int array."""
    largest = np.max(np.abs(M), axis=axis, initial=0.0)
    e = np.where(largest > 0, np.frexp(largest)[1], 0)
    return int(e) if axis is None else e.astype(np.int64)


def times_power(M: Any, exponent: Any) -> Any:
    """M·2^exponent in float64; exact unless the result is subnormal or too large (then it is 0 or infinite)."""
    exponent = np.asarray(exponent)
    with np.errstate(over="ignore", under="ignore"):
        if exponent.ndim == 0 and abs(int(exponent)) < 1000:
            return np.multiply(M, 2.0 ** int(exponent), dtype=np.float64)
        return np.ldexp(np.asarray(M, np.float64), np.clip(exponent, -5000, 5000).astype(np.int32))


def condition_number(s: np.ndarray) -> float:
    """Largest over smallest singular value; infinite when the smallest is zero, 1 for an empty or zero matrix."""
    if s.size == 0 or s[0] == 0:
        return 1.0
    return float(s[0] / s[-1]) if s[-1] > 0 else float("inf")


def triangle(*blocks: np.ndarray) -> np.ndarray:
    """R of the Householder QR of [blocks[0] blocks[1] …], float64.

    Parameters
    ----------
    blocks : (t, ·) arrays
        Copied side by side, in float64.

    Returns
    -------
    (min(t, p), p) array
        p is the total number of columns. Cost 2tp² flops.
    """

    t = blocks[0].shape[0]
    widths = [block.shape[1] for block in blocks]
    buffer = np.empty((t, sum(widths)), order="F")
    start = 0
    for block, width in zip(blocks, widths, strict=True):
        buffer[:, start : start + width] = block
        start += width
    return triangle_in_place(buffer) if buffer.size else buffer[: min(buffer.shape)]


def triangle_in_place(buffer: np.ndarray) -> np.ndarray:
    """`triangle` of a Fortran-ordered float64 array that it overwrites."""
    from scipy.linalg import lapack

    work = int(lapack.dgeqrf_lwork(*buffer.shape)[0])
    factored, _, _, info = lapack.dgeqrf(buffer, lwork=work, overwrite_a=1)
    if info != 0:
        raise RuntimeError(f"LAPACK geqrf returned {info}")
    return np.triu(factored[: min(buffer.shape)])


def _svd(M: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Economy SVD; gesdd, and the slower gesvd in the rare case that it does not converge."""
    from scipy.linalg import LinAlgError, svd

    try:
        return svd(M, full_matrices=False, check_finite=False, lapack_driver="gesdd")
    except LinAlgError:
        return svd(M, full_matrices=False, check_finite=False, lapack_driver="gesvd")


def _column_exponents(M: np.ndarray) -> np.ndarray:
    """The e with ‖column‖·2^-e in [0.71, 1.42): unit norm, as nearly as a power of two can; 0 for a zero column."""
    first = exponent_of(M, axis=0)
    norms = np.linalg.norm(times_power(M, -first), axis=0)
    return first + np.rint(np.log2(np.where(norms > 0, norms, 1.0))).astype(np.int64)


def scaled_singular_values(M: np.ndarray) -> np.ndarray:
    """Singular values of M with its columns at unit norm (to the nearest power of two), largest first."""
    from scipy.linalg import svdvals

    if M.size == 0:
        return np.zeros(min(M.shape))
    return svdvals(times_power(M, -_column_exponents(M)), check_finite=False)


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
        2-norm condition number of the matrix on which the rank was decided.

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
            self._e = _column_exponents(R) + given
        else:
            sizes = (exponent_of(R, axis=0) + given)[R.any(axis=0)]
            self._e = np.full(n, sizes.max() if sizes.size else 0)
        Rs = times_power(R, given - self._e)
        self._R: np.ndarray | None = None
        if t >= n:
            s = svdvals(Rs, check_finite=False) if n else np.zeros(0)
            if _rank(s, tolerance) == n:
                self.rank, self.condition, self._R = n, condition_number(s), Rs[:n]
                return
        U, s, Vt = _svd(Rs)
        self.rank = r = _rank(s, tolerance)
        self.condition = condition_number(s)
        self._U, self._s = U[:, :r], s[:r]
        # K = D·V₁ in units of 2^top; exponents far below the top are clipped and given back to x afterwards.
        used = R.any(axis=0)
        self._top = int(self._e[used].max()) if used.any() else 0
        self._e = np.where(used, self._e, self._top)
        clipped = np.maximum(self._e - self._top, -_ROOM)
        self._lift = clipped - (self._e - self._top)
        K = times_power(Vt[:r].T, clipped[:, None])
        order = np.argsort(-np.max(np.abs(K), axis=1, initial=0.0), kind="stable")
        if r:
            Q, self._T, self._pivots = qr(K[order], mode="economic", pivoting=True, check_finite=False)
            self._Q = np.empty_like(Q)
            self._Q[order] = Q
        else:
            self._Q, self._T, self._pivots = np.zeros((n, 0)), np.zeros((0, 0)), np.zeros(0, np.intp)

    @property
    def full(self) -> bool:
        return self._R is not None

    def pinv(self, Z: np.ndarray) -> np.ndarray:
        """M⁺ applied to right-hand sides in the coordinates of R: the minimum-norm minimiser of ‖Rx − z‖, (n, k)."""

        if self._R is not None:
            return times_power(_solve(self._R, Z[: self.n]), -self._e[:, None])
        w = (self._U.T @ Z) / self._s[:, None]
        y = self._Q @ _solve(self._T, w[self._pivots], transpose=True)
        return times_power(y, self._lift[:, None] - self._top)

    def gram_pinv(self, g: np.ndarray) -> np.ndarray:
        """(MᵀM)⁺g, (n, k), for g (n, k); the part of g outside the range of Mᵀ is dropped."""
        if self._R is not None:
            half = _solve(self._R, times_power(g, -self._e[:, None]), transpose=True)
            return times_power(_solve(self._R, half), -self._e[:, None])
        lifted = times_power(g, self._lift[:, None] - self._top)
        v = np.empty((self.rank, g.shape[1]))
        v[self._pivots] = _solve(self._T, self._Q.T @ lifted)
        w = v / np.square(self._s)[:, None]
        y = self._Q @ _solve(self._T, w[self._pivots], transpose=True)
        return times_power(y, self._lift[:, None] - self._top)

    def leverages(self, M: np.ndarray) -> np.ndarray:
        """Squared row norms of MR⁻¹, (t,), for the M that R came from; it must have full rank."""
        half = _solve(self._R, times_power(M, -self._e).T, transpose=True)  # type: ignore[arg-type]
        return np.sum(np.square(half), axis=0)


def _rank(s: np.ndarray, tolerance: float) -> int:
    return int(np.count_nonzero(s > tolerance * s[0])) if s.size and s[0] > 0 else 0


def _solve(R: np.ndarray, Z: np.ndarray, *, transpose: bool = False) -> np.ndarray:
    from scipy.linalg import solve_triangular

    if R.shape[0] == 0 or Z.shape[1] == 0:
        return np.zeros((R.shape[0], Z.shape[1]))
    return solve_triangular(R, Z, trans="T" if transpose else "N", check_finite=False)


@dataclass(frozen=True)
class Spectrum:
    """Singular values and right singular vectors of P, and what the robust models need of q and g.

    Attributes
    ----------
    s : (r,) array
        The nonzero singular values, largest first; r is the numerical rank.
    V : (n, r) array
    Utq : (r, k) array
        Uᵀq.
    q_rest : (k,) array
        ‖q − UUᵀq‖.
    condition : float
        Largest over smallest of all min(d, n) singular values.
    certified : bool
        True: from Householder and SVD. False: from the Gram matrix, so the caller checks its answer.
    """

    s: np.ndarray
    V: np.ndarray
    Utq: np.ndarray
    q_rest: np.ndarray
    condition: float
    certified: bool


_GRAM_LEAST = 64  # columns below which the accurate way is as fast
_GRAM_FLOOR = 1e-11  # smallest eigenvalue, relative to the largest, that the Gram matrix shows to a few digits


def gram_spectrum(P: np.ndarray, q: np.ndarray) -> Spectrum | None:
    """The spectrum of P by the eigendecomposition of PᵀP: a third of the time, half the digits.

    Returns
    -------
    Spectrum or None
        None when P is not tall, small enough for the accurate way, or has a condition number above 3e5.
    """
    from scipy.linalg import eigh

    d, n = P.shape
    if d < n or n < _GRAM_LEAST:
        return None
    values, vectors = eigh(P.T @ P, check_finite=False, driver="evd", overwrite_a=True)
    if not values[0] > _GRAM_FLOOR * values[-1]:
        return None
    s, V = np.sqrt(values[::-1]), vectors[:, ::-1]
    Utq = (V.T @ (P.T @ q)) / s[:, None]
    q_rest = np.linalg.norm(q - P @ (V @ (Utq / s[:, None])), axis=0)
    return Spectrum(s, V, Utq, q_rest, condition_number(s), certified=False)


def spectrum(P: np.ndarray, q: np.ndarray, tolerance: float) -> Spectrum:
    """The spectrum of P by QR of [P q] and the SVD of the triangle; accurate to rounding in P.

    Parameters
    ----------
    P : (d, n) array
    q : (d, k) array
    tolerance : float
        The numerical rank is the number of singular values, with columns at unit norm, above ``tolerance`` times
        the largest; that many of the largest singular values of P itself are kept.
    """
    d, n = P.shape
    if d >= n:
        T = triangle(P, q)
        M, z = T[:n, :n], T[:n, n:]
    else:
        M, z = P, q
    U, s, Vt = _svd(M) if M.size else (np.zeros((len(M), 0)), np.zeros(0), np.zeros((0, n)))
    rank = _rank(s, tolerance)
    if 0 < rank < len(s):  # small singular values may be the units of the columns, and none the less significant
        rank = max(rank, min(_rank(scaled_singular_values(M), tolerance), int(np.count_nonzero(s))))
    Utz = U.T @ z
    outside = z - U[:, :rank] @ Utz[:rank]
    tail = T[n:, n:] if d >= n else np.zeros((0, q.shape[1]))
    q_rest = np.hypot(np.linalg.norm(outside, axis=0), np.linalg.norm(tail, axis=0))
    if rank == d:
        q_rest = np.zeros_like(q_rest)
    return Spectrum(s[:rank], Vt[:rank].T, Utz[:rank], q_rest, condition_number(s), certified=True)
