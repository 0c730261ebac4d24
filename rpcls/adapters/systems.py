"""Positive semidefinite systems: one, many small ones, and those that are only known by their product."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

__all__ = ["Solved", "conjugate_gradients", "inverse_root", "root", "solve", "solve_batch", "used"]

_EPS = float(np.finfo(np.float64).eps)
# Pivots of M at unit diagonal, and of M relative to its largest entry, above which Cholesky shows full rank. M's own
# rounding errors are relative to its largest entry, or larger: a small unknown needs more of a margin.
_SAFE_PIVOT, _SAFE_ABSOLUTE, _SAFE_ALONE = 1e-10, 1e-12, 1e-5


class Solved(NamedTuple):
    """The solution of Mx = m, of minimum norm where M is singular, and the numerical rank of M."""

    x: np.ndarray
    rank: int


def _cutoff(values: np.ndarray) -> np.ndarray:
    """Eigenvalues at or below this are rounding errors of the largest, which comes last."""
    return (1000 + 16 * values.shape[-1]) * _EPS * np.maximum(values[..., -1:], 0.0)


def used(diagonal: np.ndarray) -> np.ndarray:
    """Which of many one-by-one systems are not zero up to rounding errors of the largest."""
    return diagonal > 1000 * _EPS * diagonal.max(initial=0.0)


def _scales(diagonal: np.ndarray) -> np.ndarray:
    """The power of two nearest to 1/√diagonal; 1 where it is zero."""
    positive = diagonal > 0
    return np.where(positive, np.exp2(-np.rint(0.5 * np.log2(np.where(positive, diagonal, 1.0)))), 1.0)


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
    from scipy.linalg import eigh, lapack

    diagonal = np.diagonal(M)
    used = diagonal > 0
    if not used.all():  # unknowns without effect are zero in the minimum-norm solution
        x = np.zeros_like(m, dtype=np.float64)
        rank = 0
        if used.any():
            x[used], rank = solve(M[np.ix_(used, used)], m[used])
        return Solved(x, rank)
    if M.shape[0] == 0:
        return Solved(np.zeros_like(m, dtype=np.float64), 0)
    s = _scales(diagonal)
    columns = m.reshape(len(m), -1)
    factor, info = lapack.dpotrf(M * s * s[:, None], lower=1, overwrite_a=1, clean=0)
    if info == 0 and _safe(np.diagonal(factor) ** 2, diagonal, s):
        x, info = lapack.dpotrs(factor, columns * s[:, None], lower=1, overwrite_b=1)
        return Solved((x * s[:, None]).reshape(m.shape), M.shape[0])
    values, vectors = eigh(M, check_finite=False, driver="evd")
    kept = values > _cutoff(values)
    V = vectors[:, kept]
    return Solved((V @ ((V.T @ columns) / values[kept, None])).reshape(m.shape), int(kept.sum()))


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


def inverse_root(C: np.ndarray) -> np.ndarray:
    """W with WWᵀ = C⁺ for symmetric positive semidefinite C: (i, rank of C).

    Cholesky and a triangular inverse, 2i³/3 flops, if C is well conditioned at unit diagonal; else eigenvectors.
    """
    from scipy.linalg import eigh, lapack

    diagonal = np.diagonal(C)
    if len(C) and (diagonal > 0).all():
        s = _scales(diagonal)
        factor, info = lapack.dpotrf(C * s * s[:, None], lower=1, overwrite_a=1, clean=1)
        if info == 0 and _safe(np.diagonal(factor) ** 2, diagonal, s):
            inverse, _ = lapack.dtrtri(factor, lower=1, overwrite_c=1)
            return inverse.T * s[:, None]
    values, vectors = eigh(C, check_finite=False, driver="evd") if len(C) else (np.zeros(0), np.zeros((0, 0)))
    kept = values > _cutoff(values) if len(C) else np.zeros(0, bool)
    return vectors[:, kept] / np.sqrt(values[kept])


def root(C: np.ndarray) -> np.ndarray:
    """W with WWᵀ = C for symmetric positive semidefinite C: Cholesky's factor, or scaled eigenvectors."""
    from scipy.linalg import eigh, lapack

    if len(C) == 0:
        return C
    factor, info = lapack.dpotrf(C, lower=1, clean=1)
    if info == 0:
        return factor
    values, vectors = eigh(C, check_finite=False, driver="evd")
    return vectors * np.sqrt(np.maximum(values, 0.0))


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
