"""The problem as the solvers that go back to the rows see it: sweeps, counted, and a factor of the sketch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..factor import Factor
from ..linalg import times_power, triangle

if TYPE_CHECKING:
    from ..compressed import CompressedProblem
    from ..sources import Source

__all__ = ["Posed", "start"]


FINE = 4  # backward error, in rounding units, that is as good as any
_MANY = 512  # columns from which the QR factorisation of the sketch costs more than a few sweeps
_SQUARED = 1e4  # condition number up to which a Gram matrix serves to precondition


class Posed:
    """½‖Ax − b‖² + ½λ‖x‖² by its sweeps; with k right-hand sides everywhere.

    Attributes
    ----------
    sweeps : int
        Sweeps so far, the one that compressed included.
    residual : (k,) array
        ‖b − Ax‖ at the last `gradient`.
    """

    def __init__(self, source: Source, Atb: Any, btb: Any, ridge: float, sweeps: int) -> None:
        self.source, self.ridge, self.sweeps = source, ridge, sweeps
        self.Atb = np.asarray(Atb, np.float64).reshape(source.n_columns, -1)
        self.b_norm = np.sqrt(np.atleast_1d(np.asarray(btb, np.float64)))
        self.residual = self.b_norm
        self.unit = float(np.finfo(source.dtype).eps) / 2

    @property
    def k(self) -> int:
        return self.Atb.shape[1]

    def gradient(self, x: np.ndarray) -> np.ndarray:
        """Aᵀ(b − Ax) − λx, (n, k), from residuals formed row by row."""
        self.sweeps += 1
        squares, g = self.source.gradient(x if self.source.rhs_shape else x[:, 0])
        self.residual = np.sqrt(np.atleast_1d(squares))
        return g.reshape(x.shape) - self.ridge * x

    def normal(self, p: np.ndarray) -> np.ndarray:
        """(AᵀA + λI)p."""
        self.sweeps += 1
        return self.source.normal(p) + self.ridge * p

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Ax, float64, with k columns whatever the source's own right-hand sides are."""
        self.sweeps += 1
        return self.source.product(x)

    def gram(self, R: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """(AR⁻¹)ᵀ(AR⁻¹) + λR⁻ᵀR⁻¹ and (AR⁻¹)ᵀb."""
        from scipy.linalg import solve_triangular

        self.sweeps += 1
        M, z = self.source.gram(R)
        if self.ridge:
            inverse = np.eye(len(M)) if R is None else solve_triangular(R, np.eye(len(M)))
            M = M + self.ridge * (inverse.T @ inverse)
        return M, z

    def backward_error(self, factor: Factor, x: np.ndarray, h: np.ndarray, *, bound: bool = False) -> np.ndarray:
        """The Karlson–Waldén estimate of the backward error, (k,), relative to the Frobenius norm of unit-norm columns.

        h = PᵀAᵀ(b − Ax). Within 0.8–1.5 of the exact value at d = 4n, and rounded up by at most √2: the sketch stands
        for A. The residual norm is that of the last `gradient`. With `bound`, or where that is small enough, an upper
        bound that needs no factorisation.
        """
        x_norm = np.linalg.norm(times_power(x, factor.exponents[:, None]), axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            root = factor.size / np.hypot(self.b_norm, factor.size * x_norm)  # √s of the formula
            tau = root * self.residual
            error = np.nan_to_num(root * factor.shifted_bound(h, tau) / factor.size)
            if bound or np.all(error <= FINE * self.unit):
                return error
            return np.nan_to_num(root * factor.shifted(h, tau) / factor.size)


def start(problem: CompressedProblem, ridge: float, tolerance: float, *, scaled: bool) -> tuple[Factor, np.ndarray]:
    """The factor of the sketch [SA; √λI], and the x (n, k) that minimises ‖SAx − Sb‖² + λ‖x‖².

    Parameters
    ----------
    problem : CompressedProblem
        With exponents (0, 0).
    tolerance : float
        For the numerical rank, on columns of unit norm if `scaled`.
    """
    SA = np.asarray(problem.SA, np.float64)
    Sb = problem.Sb.astype(np.float64).reshape(len(SA), -1)
    constant = problem.constant_columns(problem.sketch_size * float(np.finfo(problem.dtype).eps))
    if constant.any():
        SA = np.where(constant, 0.0, SA)
    n = SA.shape[1]
    if scaled and n >= _MANY:
        quick = _by_cholesky(SA, Sb, ridge, tolerance)
        if quick is not None:
            return quick
    if ridge:
        SA = np.vstack([SA, math.sqrt(ridge) * np.eye(n)])
        Sb = np.vstack([Sb, np.zeros((n, Sb.shape[1]))])
    T = triangle(SA, Sb)[: min(n, len(SA))]
    factor = Factor(T[:, :n], tolerance, scaled=scaled)
    return factor, factor.pinv(T[:, n:])


def _by_cholesky(SA: np.ndarray, Sb: np.ndarray, ridge: float, tolerance: float) -> tuple[Factor, np.ndarray] | None:
    """`start` from the Gram matrix of SA, a quarter of the time; None unless it is far from losing digits that matter.

    The digits that it does lose are those of the start and of the preconditioner, not of the answer.
    """
    from scipy.linalg import LinAlgError, blas, cholesky

    G = blas.dsyrk(1.0, SA.T)
    if ridge:
        G[np.diag_indices(len(G))] += ridge
    e = np.rint(0.5 * np.log2(np.maximum(np.diag(G), np.finfo(np.float64).tiny))).astype(np.int64)
    try:
        R = cholesky(times_power(G, -e[:, None] - e), overwrite_a=True, check_finite=False)
    except LinAlgError:
        return None
    factor = Factor(R, tolerance, exponents=e)
    if not (factor.full and factor.condition <= _SQUARED):
        return None
    return factor, factor.gram_pinv(SA.T @ Sb)
