"""The small dense factorisations behind the solvers: float64, never larger than the sketch.

Powers of two scale everything (exactly), so squares neither overflow nor underflow. Two factorisations answer
every question that the solvers ask of a matrix M (t × n):

* `Factor`, in a file of its own: M⁺z and (MᵀM)⁺g from a triangular factor. Rank is decided on columns of unit norm, so
  the scaling of the columns never costs rank; a deficient M gets its minimum-norm answer in the caller's units.
* `Spectrum`: M = UΣVᵀ of M as it stands, for the models that are not equivariant under column scaling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = [
    "Spectrum",
    "column_exponents",
    "condition_number",
    "constant_tolerance",
    "economy_svd",
    "exponent_of",
    "gram_spectrum",
    "numerical_rank",
    "rank_tolerance",
    "spectrum",
    "times_power",
    "triangle",
]


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
        if exponent.size == 0 or np.max(np.abs(exponent)) < 1000:
            return np.multiply(M, np.ldexp(1.0, exponent.astype(np.int32)), dtype=np.float64)
        return np.ldexp(np.asarray(M, np.float64), np.clip(exponent, -5000, 5000).astype(np.int32))


def rank_tolerance(dtype: Any) -> float:
    """Singular values, relative to the largest and on columns of unit norm, at or below which rank is lost: 15ε.

    What rounding leaves of a zero singular value is below 2ε in A and was below 10ε in its sketch, up to 600 columns
    and two million rows. NumPy's max(m, n)·ε would cut at 2e-10 for a million rows, where QR still has a backward error
    of 1e-16.
    """
    return 15 * float(np.finfo(dtype).eps)


def constant_tolerance(dtype: Any) -> float:
    """Standard deviation, relative to the mean, up to which centring has left a column nothing but rounding errors.

    Sums and factorisations of a million rows leave a constant column up to 1500ε, ε that of float64.
    """
    return max(rank_tolerance(dtype), 4096 * float(np.finfo(np.float64).eps))


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


def economy_svd(M: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Economy SVD; gesdd, and the slower gesvd in the rare case that it does not converge."""
    from scipy.linalg import LinAlgError, svd

    try:
        return svd(M, full_matrices=False, check_finite=False, lapack_driver="gesdd")
    except LinAlgError:
        return svd(M, full_matrices=False, check_finite=False, lapack_driver="gesvd")


def column_exponents(M: np.ndarray) -> np.ndarray:
    """The e with ‖column‖·2^-e in [0.71, 1.42): unit norm, as nearly as a power of two can; 0 for a zero column."""
    first = exponent_of(M, axis=0)
    norms = np.linalg.norm(times_power(M, -first), axis=0)
    return first + np.rint(np.log2(np.where(norms > 0, norms, 1.0))).astype(np.int64)


def scaled_singular_values(M: np.ndarray) -> np.ndarray:
    """Singular values of M with its columns at unit norm (to the nearest power of two), largest first."""
    from scipy.linalg import svdvals

    if M.size == 0:
        return np.zeros(min(M.shape))
    return svdvals(times_power(M, -column_exponents(M)), check_finite=False)


def numerical_rank(s: np.ndarray, tolerance: float) -> int:
    return int(np.count_nonzero(s > tolerance * s[0])) if s.size and s[0] > 0 else 0


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
    U, s, Vt = economy_svd(M) if M.size else (np.zeros((len(M), 0)), np.zeros(0), np.zeros((0, n)))
    rank = numerical_rank(s, tolerance)
    if 0 < rank < len(s):  # small singular values may be the units of the columns, and none the less significant
        rank = max(rank, min(numerical_rank(scaled_singular_values(M), tolerance), int(np.count_nonzero(s))))
    Utz = U.T @ z
    outside = z - U[:, :rank] @ Utz[:rank]
    tail = T[n:, n:] if d >= n else np.zeros((0, q.shape[1]))
    q_rest = np.hypot(np.linalg.norm(outside, axis=0), np.linalg.norm(tail, axis=0))
    if rank == d:
        q_rest = np.zeros_like(q_rest)
    return Spectrum(s[:rank], Vt[:rank].T, Utz[:rank], q_rest, condition_number(s), certified=True)
