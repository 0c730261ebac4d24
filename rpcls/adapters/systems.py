"""Positive semidefinite systems: one, many small ones, and those that are only known by their product.

`solve`, `solve_diagonal`, `root` and `inverse_root` work where their arrays are, on the host or on a card.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .places import module_of

__all__ = ["Solved", "conjugate_gradients", "inverse_root", "root", "solve", "solve_batch", "solve_diagonal", "used"]

_EPS = float(np.finfo(np.float64).eps)
# Pivots of M at unit diagonal, and of M relative to its largest entry, above which Cholesky shows full rank. M's own
# rounding errors are relative to its largest entry, or larger: a small unknown needs more of a margin.
_SAFE_PIVOT, _SAFE_ABSOLUTE, _SAFE_ALONE = 1e-10, 1e-12, 1e-5


class Solved(NamedTuple):
    """The solution of Mx = m, of minimum norm where M is singular, and the numerical rank of M."""

    x: Any
    rank: int


def _cutoff(values: Any) -> Any:
    """Eigenvalues at or below this are rounding errors of the largest, which comes last."""
    return (1000 + 16 * values.shape[-1]) * _EPS * module_of(values).maximum(values[..., -1:], 0.0)


def used(diagonal: np.ndarray) -> np.ndarray:
    """Which of many one-by-one systems are not zero up to rounding errors of the largest."""
    return diagonal > (1000 * _EPS * diagonal.max() if len(diagonal) else 0.0)


def solve_diagonal(M: Any, m: Any) -> Solved:
    """`solve` for a diagonal M, given as (k,)."""
    there, xp = used(M), module_of(M)
    return Solved(xp.where(there, m / xp.where(there, M, 1.0), 0.0), int(there.sum()))


def _scales(diagonal: Any) -> Any:
    """The power of two nearest to 1/√diagonal; 1 where it is zero."""
    xp, positive = module_of(diagonal), diagonal > 0
    return xp.where(positive, xp.exp2(-xp.rint(0.5 * xp.log2(xp.where(positive, diagonal, 1.0)))), 1.0)


def _safe(pivots: np.ndarray, diagonal: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Whether the squared pivots of M at unit diagonal show that M has full rank."""
    absolute = (pivots / scales**2).min(axis=-1) > _SAFE_ABSOLUTE * diagonal.max(axis=-1)
    least = pivots.min(axis=-1)
    return (least > _SAFE_ALONE) | ((least > _SAFE_PIVOT) & absolute)


def solve(M: np.ndarray, m: np.ndarray) -> Solved:
    """The minimum-norm least-squares solution of Mx = m for symmetric positive semidefinite M.

    Parameters
    ----------
    M : (k, k) array
    m : (k,) or (k, p) array

    Notes
    -----
    Cholesky of M at unit diagonal, k³/3 flops; if its pivots do not show full rank, the eigendecomposition, about 9k³,
    with eigenvalues below (1000 + 16k)·eps times the largest taken as zero.
    """
    xp, diagonal = module_of(M), M.diagonal()
    used = diagonal > 0
    if not bool(used.all()):  # unknowns without effect are zero in the minimum-norm solution
        x = xp.zeros(m.shape)
        rank = 0
        if bool(used.any()):
            x[used], rank = solve(M[used][:, used], m[used])
        return Solved(x, rank)
    if M.shape[0] == 0:
        return Solved(xp.zeros(m.shape), 0)
    s = _scales(diagonal)
    columns = m.reshape(len(m), -1)
    factor = _cholesky(M * s * s[:, None])
    if factor is not None and bool(_safe(xp.square(factor.diagonal()), diagonal, s)):
        x = _substitute(factor, columns * s[:, None])
        return Solved((x * s[:, None]).reshape(m.shape), M.shape[0])
    values, vectors = _eigh(M)
    kept = values > _cutoff(values)
    V = vectors[:, kept]
    return Solved((V @ ((V.T @ columns) / values[kept][:, None])).reshape(m.shape), int(kept.sum()))


def _cholesky(M: Any, *, clean: bool = False) -> Any:
    """The lower triangle, or None. Unless clean, M may be overwritten, and what is above the diagonal is noise."""
    if module_of(M) is not np:
        from ..kernels.cuda import algebra

        R = algebra.cholesky(M)
        return None if R is None else R.T
    from scipy.linalg import lapack

    factor, info = lapack.dpotrf(M, lower=1, overwrite_a=not clean, clean=clean)
    return factor if info == 0 else None


def _substitute(factor: Any, columns: Any) -> Any:
    """(LLᵀ)⁻¹ of the columns, which may be overwritten."""
    if module_of(factor) is not np:
        from ..kernels.cuda.device import solve_triangular

        R = factor.T
        return solve_triangular(R, solve_triangular(R, columns, trans="T"), trans="N")
    from scipy.linalg import lapack

    return lapack.dpotrs(factor, columns, lower=1, overwrite_b=1)[0]


def _inverse(factor: Any) -> Any:
    """L⁻¹ of a lower triangle, which may be overwritten."""
    if module_of(factor) is not np:
        from ..kernels.cuda import algebra

        return algebra.inverse(factor.T).T
    from scipy.linalg import lapack

    return lapack.dtrtri(factor, lower=1, overwrite_c=1)[0]


def _eigh(M: Any) -> tuple[Any, Any]:
    if (xp := module_of(M)) is not np:
        return xp.linalg.eigh(M)
    from scipy.linalg import eigh

    return eigh(M, check_finite=False, driver="evd")


def solve_batch(M: np.ndarray, m: np.ndarray) -> Solved:
    """`solve` for a stack of systems of one size; the rank is that of all together.

    Parameters
    ----------
    M : (b, k, k) array
    m : (b, k) array
    """
    count, k = m.shape
    if count == 0 or k == 0:
        return Solved(np.zeros((count, k)), 0)
    diagonal = np.diagonal(M, axis1=1, axis2=2)
    s = _scales(diagonal)
    scaled = M * s[:, :, None] * s[:, None, :]
    x, rank = np.empty((count, k)), 0
    try:
        L = np.linalg.cholesky(scaled)
        safe = _safe(np.diagonal(L, axis1=1, axis2=2) ** 2, diagonal, s)
    except np.linalg.LinAlgError:  # of any
        safe = np.linalg.eigvalsh(scaled)[:, 0] > _SAFE_ALONE
    if safe.any():
        x[safe] = np.linalg.solve(scaled[safe], (m * s)[safe][:, :, None])[:, :, 0] * s[safe]
        rank += int(safe.sum()) * k
    if not safe.all():
        values, V = np.linalg.eigh(M[~safe])
        kept = values > _cutoff(values)
        inverse = np.divide(1.0, values, out=np.zeros_like(values), where=kept)
        x[~safe] = np.einsum("bij,bj->bi", V, inverse * np.einsum("bij,bi->bj", V, m[~safe]))
        rank += int(kept.sum())
    return Solved(x, rank)


def inverse_root(C: Any) -> Any:
    """W with WWᵀ = C⁺ for symmetric positive semidefinite C: (i, rank of C).

    Cholesky and a triangular inverse, 2i³/3 flops, if C is well conditioned at unit diagonal; else eigenvectors.
    """
    xp, diagonal = module_of(C), C.diagonal()
    if len(C) == 0:
        return C
    if bool((diagonal > 0).all()):
        s = _scales(diagonal)
        factor = _cholesky(C * s * s[:, None], clean=True)
        if factor is not None and bool(_safe(xp.square(factor.diagonal()), diagonal, s)):
            return _inverse(factor).T * s[:, None]
    values, vectors = _eigh(C)
    kept = values > _cutoff(values)
    return vectors[:, kept] / xp.sqrt(values[kept])


def root(C: Any) -> Any:
    """W with WWᵀ = C for symmetric positive semidefinite C: Cholesky's factor, or scaled eigenvectors."""
    if len(C) == 0:
        return C
    if (factor := _cholesky(C, clean=True)) is not None:
        return factor
    (values, vectors), xp = _eigh(C), module_of(C)
    return vectors * xp.sqrt(xp.maximum(values, 0.0))


def conjugate_gradients(
    product: Callable[[np.ndarray], np.ndarray],
    rhs: np.ndarray,
    precondition: Callable[[np.ndarray], np.ndarray],
    start: np.ndarray,
    *,
    tol: float,
    max_iterations: int,
) -> tuple[np.ndarray, int]:
    """Preconditioned conjugate gradients for Mx = rhs from `start`; xᵀMx − 2xᵀrhs falls at every iteration.

    Parameters
    ----------
    product, precondition : callables on arrays of rhs's shape
        x ↦ Mx, and x ↦ an approximation of M⁻¹x; symmetric positive semidefinite.
    tol : float
        Stop when the preconditioned residual is below `tol` times that of rhs.
    max_iterations : int

    Returns
    -------
    x : array of rhs's shape
    iterations : int
    """
    x = start.copy()
    r = rhs - product(x) if start.any() else rhs.copy()
    z = precondition(r)
    goal = tol**2 * abs(float(np.vdot(rhs, precondition(rhs))))
    p, rz = z, float(np.vdot(r, z))
    for iteration in range(max_iterations):
        if rz <= goal:
            return x, iteration
        Mp = product(p)
        curvature = float(np.vdot(p, Mp))
        if not curvature > 0:
            return x, iteration
        step = rz / curvature
        x += step * p
        r -= step * Mp
        z = precondition(r)
        rz, before = float(np.vdot(r, z)), rz
        p = z + (rz / before) * p
    return x, max_iterations
