"""The small dense factorisations behind the solvers: float64, never larger than the sketch, there where the sketch is.

Powers of two scale everything (exactly), so squares neither overflow nor underflow. Three factorisations answer
every question that the solvers ask of a matrix M (t × n):

* `Factor`, in a file of its own: M⁺z and (MᵀM)⁺g from a triangular factor. Rank is decided on columns of unit norm, so
  the scaling of the columns never costs rank; a deficient M gets its minimum-norm answer in the caller's units.
* `Spectrum`: M = UΣVᵀ of M as it stands, for the models that are not equivariant under column scaling.
* `GramRidge`, in ridge.py: for the same models, MᵀM in tridiagonal form, where that keeps enough digits.

A matrix on a card, a CuPy array, stays there, and so do its factors; vectors and columns of vectors are NumPy arrays
wherever the matrix is. Functions without `np.ndarray` in their signature take both kinds of matrices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .kernels import on_card, on_host

__all__ = [
    "Spectrum",
    "as_float64",
    "cholesky",
    "cholesky_solver",
    "column_exponents",
    "column_norms",
    "condition_number",
    "constant_tolerance",
    "economy_svd",
    "exponent_of",
    "gram",
    "inverse",
    "ldexp",
    "less_outer",
    "numerical_rank",
    "product",
    "rank_tolerance",
    "scaled_cholesky",
    "scaled_gram",
    "spectrum",
    "times_power",
    "triangle",
    "used_columns",
    "with_penalty",
    "with_ridge",
    "without",
]


def _card() -> Any:
    from .kernels.cuda import algebra  # only where there is an array on a card

    return algebra


def exponent_of(M: Any, axis: int | None = None) -> Any:
    """The e with max|M|·2^-e in [0.5, 1), by column if ``axis=0``; 0 where M is zero. An int, or an int array."""
    if on_card(M):
        top, bottom = _card().extremes(M, axis)
    else:
        top, bottom = np.max(M, axis=axis, initial=0.0), np.min(M, axis=axis, initial=0.0)
    largest = np.maximum(np.maximum(top, 0.0), -bottom)
    e = np.where(largest > 0, np.frexp(largest)[1], 0)
    return int(e) if axis is None else e.astype(np.int64)


def times_power(M: Any, exponent: Any) -> Any:
    """M·2^exponent in float64; exact unless the result is subnormal or too large (then it is 0 or infinite).

    On a card the exponent is an integer, or one of every column.
    """
    exponent = np.asarray(exponent)
    if on_card(M):
        return _card().ldexp(M.astype(np.float64, copy=False), exponent)
    with np.errstate(over="ignore", under="ignore"):
        if exponent.ndim == 0 and abs(int(exponent)) < 1000:
            return np.multiply(M, 2.0 ** int(exponent), dtype=np.float64)
        if exponent.size == 0 or np.max(np.abs(exponent)) < 1000:
            return np.multiply(M, np.ldexp(1.0, exponent.astype(np.int32)), dtype=np.float64)
        return np.ldexp(np.asarray(M, np.float64), np.clip(exponent, -5000, 5000).astype(np.int32))


def ldexp(M: Any, exponent: int) -> Any:
    """M·2^exponent in M's dtype."""
    return _card().ldexp(M, exponent) if on_card(M) else np.ldexp(M, exponent)


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


def product(M: Any, X: np.ndarray, *, transpose: bool = False) -> np.ndarray:
    """MX, or MᵀX, for a float64 M, best in C or Fortran order, and a few columns X, by SciPy's BLAS.

    NumPy brings another, and the threads of each, once woken, spin for a tenth of a second and keep those of the other
    from running: between two factorisations, `@` would cost several times more.
    """
    if M.size == 0:
        return np.zeros((M.shape[transpose], X.shape[1]))
    if on_card(M):
        return _card().product(M, X, transpose=transpose)
    from scipy.linalg.blas import dgemm

    return dgemm(1.0, M, X, trans_a=transpose) if M.flags.f_contiguous else dgemm(1.0, M.T, X, trans_a=not transpose)


def as_float64(M: Any) -> Any:
    return M.astype(np.float64, order="C", copy=False)


def with_penalty(M: Any, R: Any, ridge: float) -> Any:
    """M + ridge·R⁻ᵀR⁻¹, R None for I."""
    if on_card(M):
        return _card().with_penalty(M, R, ridge)
    if R is None:
        return M + ridge * np.eye(len(M))
    X = inverse(R)
    return M + ridge * (X.T @ X)


def column_norms(M: Any) -> np.ndarray:
    return _card().column_norms(M) if on_card(M) else np.linalg.norm(M, axis=0)


def used_columns(M: Any) -> np.ndarray:
    """Which columns are not zero."""
    return _card().used_columns(M) if on_card(M) else M.any(axis=0)


def without(M: Any, columns: np.ndarray) -> Any:
    """M with these columns, a boolean mask, at zero."""
    if not columns.any():
        return M
    return _card().without(M, columns) if on_card(M) else np.where(columns, 0.0, M)


def less_outer(M: Any, u: np.ndarray, v: np.ndarray) -> Any:
    """M − uvᵀ."""
    return _card().less_outer(M, u, v) if on_card(M) else M - np.multiply.outer(u, v)


def with_ridge(M: Any, root: float) -> Any:
    """[M; root·I]."""
    return _card().with_ridge(M, root) if on_card(M) else np.vstack([M, root * np.eye(M.shape[1])])


def gram(M: Any, ridge: float = 0.0) -> Any:
    """The upper triangle of MᵀM + ridge·I, C-ordered M in host memory; below it anything."""
    if on_card(M):
        return _card().gram(M, ridge)
    from scipy.linalg import blas

    G = blas.dsyrk(1.0, M.T)
    if ridge:
        G[np.diag_indices(len(G))] += ridge
    return G


def cholesky(G: Any) -> Any:
    """R with RᵀR = G, from the upper triangle of G, which may be overwritten; None unless it is positive definite."""
    if on_card(G):
        return _card().cholesky(G)
    import scipy.linalg

    try:
        return scipy.linalg.cholesky(G, overwrite_a=True, check_finite=False)
    except scipy.linalg.LinAlgError:
        return None


def scaled_gram(G: Any, e: np.ndarray) -> Any:
    """2^-e·G·2^-e."""
    return _card().scaled(G, -e, -e) if on_card(G) else times_power(G, -e[:, None] - e)


def scaled_cholesky(G: Any) -> tuple[Any, np.ndarray] | None:
    """R and e with RᵀR = 2^-e·G·2^-e, whose diagonal is near one; None unless G is positive definite."""
    squares = on_host(G.diagonal())
    e = np.rint(0.5 * np.log2(np.maximum(squares, np.finfo(np.float64).tiny))).astype(np.int64)
    R = cholesky(scaled_gram(G, e))
    return None if R is None else (R, e)


def cholesky_solver(G: Any) -> Callable[[np.ndarray], np.ndarray] | None:
    """Z ↦ G⁻¹Z, or None unless G is positive definite."""
    if on_card(G):
        R = _card().cholesky(G)
        return None if R is None else lambda Z: _card().solve(R, _card().solve(R, Z, transpose=True))
    from scipy.linalg import LinAlgError, cho_factor, cho_solve

    try:
        C = cho_factor(G, check_finite=False)
    except LinAlgError:
        return None
    return lambda Z: cho_solve(C, Z, check_finite=False)


def inverse(R: Any) -> Any:
    """R⁻¹ of an upper triangle."""
    if on_card(R):
        return _card().inverse(R)
    from scipy.linalg import solve_triangular

    return solve_triangular(R, np.eye(len(R)), check_finite=False)


def triangle(*blocks: Any) -> Any:
    """R of the Householder QR of [blocks[0] blocks[1] …], float64, on the card if blocks[0] is there.

    Parameters
    ----------
    blocks : (t, ·) arrays
        Copied side by side, in float64; all but the first are in host memory.

    Returns
    -------
    (min(t, p), p) array
        p is the total number of columns. Cost 2tp² flops.
    """
    if on_card(blocks[0]):
        return _card().triangle(*blocks)
    buffer = fortran_ordered(*blocks)
    return triangle_in_place(buffer) if buffer.size else buffer[: min(buffer.shape)]


def fortran_ordered(*blocks: np.ndarray) -> np.ndarray:
    """[blocks[0] blocks[1] …], copied, float64 and Fortran-ordered; half the time of one assignment."""
    buffer = np.empty((len(blocks[0]), sum(block.shape[1] for block in blocks)), order="F")
    for first in range(0, len(buffer), _ROWS):
        rows, start = slice(first, first + _ROWS), 0
        for block in blocks:
            buffer[rows, start : start + block.shape[1]] = block[rows]
            start += block.shape[1]
    return buffer


_ROWS = 256  # copied at a time, so that the cache holds a line of each


def triangle_in_place(buffer: np.ndarray) -> np.ndarray:
    """`triangle` of a Fortran-ordered float64 array that it overwrites."""
    from scipy.linalg import lapack

    work = int(lapack.dgeqrf_lwork(*buffer.shape)[0])
    factored, _, _, info = lapack.dgeqrf(buffer, lwork=work, overwrite_a=1)
    if info != 0:
        raise RuntimeError(f"LAPACK geqrf returned {info}")
    return np.triu(factored[: min(buffer.shape)])


def economy_svd(M: Any) -> tuple[Any, np.ndarray, Any]:
    """Economy SVD; gesdd, and the slower gesvd in the rare case that it does not converge.

    Of a matrix on a card, U and Vᵀ stay there, unless cuSOLVER does not converge.
    """
    from scipy.linalg import LinAlgError, svd

    if on_card(M):
        try:
            return _card().economy_svd(M)
        except np.linalg.LinAlgError:
            M = on_host(M)
    try:
        return svd(M, full_matrices=False, check_finite=False, lapack_driver="gesdd")
    except LinAlgError:
        return svd(M, full_matrices=False, check_finite=False, lapack_driver="gesvd")


def column_exponents(M: Any) -> np.ndarray:
    """The e with ‖column‖·2^-e in [0.71, 1.42): unit norm, as nearly as a power of two can; 0 for a zero column."""
    first = exponent_of(M, axis=0)
    norms = column_norms(times_power(M, -first))
    return first + np.rint(np.log2(np.where(norms > 0, norms, 1.0))).astype(np.int64)


def scaled_singular_values(M: Any) -> np.ndarray:
    """Singular values of M with its columns at unit norm (to the nearest power of two), largest first."""
    from scipy.linalg import svdvals

    if M.size == 0:
        return np.zeros(min(M.shape))
    scaled = times_power(M, -column_exponents(M))
    return _card().singular_values(scaled) if on_card(M) else svdvals(scaled, check_finite=False)


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
        On a card if P is.
    Utq : (r, k) array
        Uᵀq.
    q_rest : (k,) array
        ‖q − UUᵀq‖.
    condition : float
        Largest over smallest of all min(d, n) singular values.
    """

    s: np.ndarray
    V: Any
    Utq: np.ndarray
    q_rest: np.ndarray
    condition: float


def spectrum(P: Any, q: np.ndarray, tolerance: float) -> Spectrum:
    """The spectrum of P by QR of [P q] and the SVD of the triangle, where P is; accurate to rounding in P.

    Parameters
    ----------
    P : (d, n) array
    q : (d, k) array
    tolerance : float
        The numerical rank is the number of singular values, with columns at unit norm, above ``tolerance`` times
        the largest; that many of the largest singular values of P itself are kept.
    """
    d, n = P.shape
    tail = np.zeros((0, q.shape[1]))
    M, z = P, q
    if d >= n:
        T = triangle(P, q)
        M, right = T[:n, :n], on_host(T[:, n:])
        z, tail = right[:n], right[n:]
    U, s, Vt = economy_svd(M) if M.size else (np.zeros((len(M), 0)), np.zeros(0), np.zeros((0, n)))
    rank = numerical_rank(s, tolerance)
    if 0 < rank < len(s):  # small singular values may be the units of the columns, and none the less significant
        rank = max(rank, min(numerical_rank(scaled_singular_values(M), tolerance), int(np.count_nonzero(s))))
    Utz = product(U, z, transpose=True)
    outside = z - product(U[:, :rank], Utz[:rank])
    q_rest = np.hypot(np.linalg.norm(outside, axis=0), np.linalg.norm(tail, axis=0))
    if rank == d:
        q_rest = np.zeros_like(q_rest)
    V = Vt[:rank].T if on_card(Vt) else np.ascontiguousarray(Vt[:rank].T)
    return Spectrum(s[:rank], V, Utz[:rank], q_rest, condition_number(s))
