"""The problem as the solvers that go back to the rows see it: sweeps, counted, and a factor of the sketch."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from ..factor import SQUARED, Factor, eliminated
from ..kernels import on_card, on_host
from ..linalg import (
    as_float64,
    gram,
    product,
    times_power,
    triangle,
    with_penalty,
    with_ridge,
    without,
)
from ..solution import ErrorBound, Solution, Status

if TYPE_CHECKING:
    from ..compressed import CompressedProblem
    from ..sources import Source

__all__ = ["Posed", "extreme", "factored", "start"]


FINE = 2  # backward error, in rounding units, that is as good as any
NEAR = 10  # and one that will do where refinement gains no more
_MANY = 128  # columns from which the QR factorisation of the sketch is dear beside a sweep
_ELIMINATED = 1e13  # condition number up to which elimination has digits to spare
_LOST = 1000  # rounding units: what Aᵀr has in directions that A lacks to its numerical rank stays well below


class Posed:
    """½‖Ax − b‖² + ½λ‖x‖² by its sweeps; with k right-hand sides everywhere.

    Parameters
    ----------
    problem : CompressedProblem, optional
        A summary of the source: Aᵀb and ‖b‖, and which columns centring has left nothing of but rounding errors. They
        are taken to be zero. Without one, whoever makes a Posed sets `Atb` and `b_norm`.

    Attributes
    ----------
    sweeps : int
        Sweeps so far, the one that compressed included.
    x, slope, residual : (n, k), (n, k), (k,) arrays
        Where the last `gradient` was, Aᵀ(b − Ax) − λx and ‖b − Ax‖ there; x = 0 before the first.
    """

    def __init__(self, source: Source, problem: CompressedProblem | None, ridge: float, sweeps: int) -> None:
        self.source, self.ridge, self.sweeps = source, ridge, sweeps
        self.Atb, self.b_norm = np.zeros((source.n_columns, source.n_rhs)), np.zeros(source.n_rhs)
        self.constant, self.lost_digits = np.zeros(source.n_columns, bool), np.zeros_like(self.Atb)
        if problem is not None:
            self.Atb = problem.Atb.reshape(self.Atb.shape)
            self.b_norm = np.sqrt(np.atleast_1d(np.asarray(problem.btb, np.float64)))
            self.constant = constant_columns(problem)
            if problem.means is not None:  # what centring may have cost Aᵀb
                a_mean, b_mean = (np.abs(np.atleast_1d(mean)) for mean in problem.means)
                self.lost_digits = 8 * np.finfo(np.float64).eps * problem.weight * np.multiply.outer(a_mean, b_mean)
        self.x, self.slope, self.residual = np.zeros_like(self.Atb), self.Atb, self.b_norm
        self.unit = float(np.finfo(source.dtype).eps) / 2

    @property
    def k(self) -> int:
        return self.Atb.shape[1]

    def gradient(self, x: np.ndarray) -> np.ndarray:
        """Aᵀ(b − Ax) − λx, (n, k), from residuals formed row by row."""
        self.sweeps += 1
        squares, g = self.source.gradient(x if self.source.rhs_shape else x[:, 0])
        self.residual = np.sqrt(np.atleast_1d(squares))
        self.x, self.slope = x, g.reshape(x.shape) - self.ridge * x
        self.slope[self.constant] = 0.0
        return self.slope

    def normal(self, p: Any) -> Any:
        """(AᵀA + λI)p, there where p is."""
        self.sweeps += 1
        found = self.source.normal(p)
        return found + self.ridge * p if self.ridge else found

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Ax, float64, with k columns whatever the source's own right-hand sides are."""
        self.sweeps += 1
        return self.source.product(x)

    def gram(self, R: Any, *, single: bool = False) -> tuple[Any, np.ndarray]:
        """(AR⁻¹)ᵀ(AR⁻¹) + λR⁻ᵀR⁻¹, there where the rows are, and (AR⁻¹)ᵀb; `single`: products in float32."""
        self.sweeps += 1
        M, z = self.source.gram(R, single=True) if single else self.source.gram(R)
        if self.ridge:
            M = with_penalty(M, R, self.ridge)
        return M, z

    def size(self, factor: Factor, x: np.ndarray) -> np.ndarray:
        """‖x‖, (k,), in the units in which the columns of A have unit norm."""
        return np.linalg.norm(times_power(x, factor.exponents[:, None]), axis=0)

    def backward_error(
        self, factor: Factor, x: np.ndarray, h: np.ndarray, slope: np.ndarray | None = None, *, bound: bool = False
    ) -> np.ndarray:
        """The Karlson–Waldén estimate of the backward error, (k,), relative to the Frobenius norm of unit-norm columns.

        h = PᵀAᵀ(b − Ax). Within 0.8–1.5 of the exact value at d = 4n, and rounded up by at most 2: the sketch stands
        for A, and the residual norm, that of the last `gradient`, for ‖b‖ where ‖b‖ is larger than ‖A‖_F‖x‖. With
        `bound`, or where that is small enough, an upper bound that needs no factorisation, nor a product with R where
        `slope`, the Aᵀ(b − Ax) − λx of h, is given.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            root = factor.size / np.hypot(self.residual, factor.size * self.size(factor, x))  # √s of the formula
            tau = root * self.residual
            error = root * factor.shifted_bound(h, tau, slope) / factor.size
            if not (bound or np.all(error <= FINE * self.unit)):
                error = root * factor.shifted(h, tau) / factor.size
        return np.where(h.any(axis=0), np.nan_to_num(error, nan=np.inf), 0.0)

    def certified(self, x: np.ndarray, h: np.ndarray, slope: np.ndarray, c: float, rtol: float) -> np.ndarray:
        """Whether ‖A(x − x*)‖ ≤ rtol·‖Ax*‖ + 10u‖b‖, (k,), if ‖A(x − x*)‖ ≤ c‖h‖, h = PᵀAᵀ(b − Ax), slope = P⁻ᵀh."""
        error = c * np.linalg.norm(h, axis=0)
        squares = np.sum(x * self.Atb - np.abs(x) * self.lost_digits - self.ridge * x * x, axis=0)
        Ax = np.sqrt(np.maximum(squares - np.sum(x * slope, axis=0), 0.0))
        return error <= rtol * np.maximum(Ax - error, 0.0) + self.floor

    def lost(self, factor: Factor) -> bool:
        """Whether the sketch has lower rank than A: the last gradient is not in its row space, beyond rounding.

        Aᵀr is in A's row space whatever r is.
        """
        return bool(np.any(factor.missed(self.slope) > _LOST * self.unit * factor.size * self.residual))

    @property
    def floor(self) -> np.ndarray:
        """10u‖b‖, (k,): no certificate says less."""
        return 10 * self.unit * self.b_norm

    def solution(
        self,
        solver: Any,
        x: np.ndarray,
        factor: Factor | None,
        status: Status,
        details: str,
        began: float,
        *,
        problem: CompressedProblem | None = None,
        upper: np.ndarray | None = None,
        confidence: float = 1.0,
    ) -> Solution:
        """The Solution with this x (n, k), in the dtype and with the dimensions of the caller's A and b.

        Parameters
        ----------
        factor : Factor or None
            None: no residual was measured.
        upper : (k,) array, optional
            Of the error, at this confidence.
        """
        source = self.source

        def squeeze(value: Any) -> Any:
            return value if source.rhs_shape else float(value[0])

        if status is Status.OK and not self.Atb.any():
            status = Status.ZERO_GRADIENT
        intercept = None
        if source.intercept and source.means is not None:
            intercept = squeeze(np.atleast_1d(source.means[1]) - source.means[0] @ x)
        bound = None
        if upper is not None:
            bound = ErrorBound(squeeze(np.zeros_like(upper)), squeeze(upper), confidence)
        with np.errstate(over="ignore"):
            x = x.astype(source.dtype)
        if not np.isfinite(x).all():
            status, details = Status.OUT_OF_RANGE, ""
        timings = {} if problem is None else problem.timings
        return Solution(
            x=x if source.rhs_shape else x[:, 0],
            status=status,
            solver=solver,
            sweeps=self.sweeps,
            residual_norm=None if factor is None else squeeze(self.residual),
            error_estimate=bound,
            condition=None if factor is None else factor.condition,
            rank=None if factor is None else factor.rank,
            intercept=intercept,
            columns=source.columns,
            sketch=None if problem is None else problem.operator,
            timings={**timings, "solve": time.perf_counter() - began},
            details=details,
        )


def extreme(problem: CompressedProblem) -> bool:
    """Whether norms of columns or of b are so far from 1 that products of three of them may leave the range."""
    norms = np.append(problem.column_norms, np.sqrt(problem.btb))
    norms = norms[norms > 0]
    return problem.exponents != (0, 0) or bool(norms.size and (norms.max() > 1e100 or norms.min() < 1e-100))


def constant_columns(problem: CompressedProblem) -> np.ndarray:
    """Which columns of a centred problem are rounding errors of what was constant, (n,)."""
    return problem.constant_columns(max(64, problem.sketch_size) * float(np.finfo(problem.dtype).eps))


def start(problem: CompressedProblem, ridge: float, tolerance: float, *, scaled: bool) -> tuple[Factor, np.ndarray]:
    """The factor of the sketch [SA; √λI], and the x (n, k) that minimises ‖SAx − Sb‖² + λ‖x‖².

    Parameters
    ----------
    problem : CompressedProblem
        With exponents (0, 0).
    tolerance : float
        For the numerical rank, on columns of unit norm if `scaled`.
    """
    SA = as_float64(problem.SA)
    Sb = problem.Sb.astype(np.float64).reshape(len(SA), -1)
    SA = without(SA, constant_columns(problem))
    n = SA.shape[1]
    if scaled and n >= _MANY and not on_card(SA):
        quick = _by_cholesky(SA, Sb, ridge, tolerance)
        if quick is not None:
            return quick
    if ridge:
        SA = with_ridge(SA, math.sqrt(ridge))
        Sb = np.vstack([Sb, np.zeros((n, Sb.shape[1]))])
    return factored(SA, Sb, tolerance, scaled=scaled)


def factored(M: Any, q: np.ndarray, tolerance: float, *, scaled: bool = True) -> tuple[Factor, np.ndarray]:
    """The factor of M (d, n) and the x (n, k) that minimises ‖Mx − q‖; by QR where nothing faster is as safe."""
    n = M.shape[1]
    if scaled and n >= _MANY:
        quick = _there(M, q, tolerance) if on_card(M) else _by_elimination(M, q, tolerance)
        if quick is not None:
            return quick
    T = triangle(M, q)[: min(n, len(M))]
    factor = Factor.of(T[:, :n], tolerance, scaled=scaled)
    return factor, factor.pinv(on_host(T[:, n:]))


def _by_cholesky(SA: np.ndarray, Sb: np.ndarray, ridge: float, tolerance: float) -> tuple[Factor, np.ndarray] | None:
    """`start` from the Gram matrix of SA, a quarter of the time; None unless it is far from losing digits that matter.

    The digits that it does lose are those of the start and of the preconditioner, not of the answer.
    """
    some = SA[: 2 * SA.shape[1]]
    if len(some) < len(SA) and not Factor.by_cholesky(gram(some, ridge), tolerance, 10 * SQUARED):
        return None  # a quarter of the rows tell
    factor = Factor.by_cholesky(gram(SA, ridge), tolerance, SQUARED)
    return factor and (factor, factor.gram_pinv(product(SA, Sb, transpose=True)))


def _there(M: Any, q: np.ndarray, tolerance: float) -> tuple[Factor, np.ndarray] | None:
    from ..factor.card import factored_there  # only where there is an array on a card

    return factored_there(M, q, tolerance)


def _by_elimination(M: np.ndarray, q: np.ndarray, tolerance: float) -> tuple[Factor, np.ndarray] | None:
    """`factored` faster than by QR; None where that has no digits to spare."""
    found = eliminated(M, q)
    if found is None:
        return None
    factor = Factor.of(found[0], tolerance)
    return (factor, factor.pinv(found[1])) if factor.full and factor.condition <= _ELIMINATED else None
