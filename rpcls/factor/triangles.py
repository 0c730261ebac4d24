"""Triangles of QR factorisations that are had for less than Householder's way costs."""

from __future__ import annotations

import numpy as np

from ..linalg import cholesky, fortran_ordered

__all__ = ["eliminated", "triangle_with_shift"]


def triangle_with_shift(R: np.ndarray, tau: float) -> np.ndarray:
    """The triangle of the QR factorisation of [R; τI], R (n, n) upper triangular; 2n³/3 flops."""
    from scipy.linalg import lapack

    n = len(R)
    T, _, _, info = lapack.dtpqrt(
        n, min(n, 32), np.array(R, order="F"), np.asfortranarray(tau * np.eye(n)), overwrite_a=1, overwrite_b=1
    )
    if info != 0:
        raise RuntimeError(f"LAPACK tpqrt returned {info}")
    return np.triu(T)


_WELL_CONDITIONED = 1e-6  # in the 1-norm; some 1e-5 to 1e-4 for matrices without structure, and the square loses twice


def eliminated(M: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """R and Z (n, k) with RᵀR = MᵀM and RᵀZ = Mᵀq by Peters and Wilkinson's method [1]_: M = LU, LᵀL = CᵀC, R = CU.

    M is (t, n), t ≥ n. L is well conditioned whatever the scaling and the near dependence of M's columns; None where it
    is not, or a pivot is zero. Cost 2tn² flops as that of QR, but in products of matrices.

    References
    ----------
    .. [1] G. Peters, J. H. Wilkinson, "The least squares problem and pseudo-inverses", Computer Journal 13, 1970,
       doi:10.1093/comjnl/13.3.309.
    """
    from scipy.linalg import blas, lapack

    n = M.shape[1]
    L, pivots, info = lapack.dgetrf(fortran_ordered(M), overwrite_a=1)
    if info != 0:
        return None
    U = np.triu(L[:n])
    L[:n] = np.tril(L[:n], -1)
    L[:n][np.diag_indices(n)] = 1.0
    C = cholesky(blas.dsyrk(1.0, L, trans=1))
    if C is None:
        return None
    if lapack.dtrcon(C)[0] < _WELL_CONDITIONED:
        return None
    Z = blas.dtrsm(1.0, C, blas.dgemm(1.0, L, lapack.dlaswp(q, pivots), trans_a=1), trans_a=1)
    return blas.dtrmm(1.0, C, U, overwrite_b=1), Z
