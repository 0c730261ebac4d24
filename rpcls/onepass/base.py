"""What the one-pass solvers share: safe units on the way in, a Solution in the caller's units on the way out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from ..accuracy import thinning
from ..errors import ConvergenceWarning, InvalidTypeError, InvalidValueError, SketchWarning, warn
from ..linalg import exponent_of, product, times_power, used_columns, without
from ..sketches import SRHT, Gaussian, RowSampling, SampledRows
from ..solution import ErrorBound, Solution, Status

if TYPE_CHECKING:
    from ..accuracy import Inference
    from ..compressed import CompressedProblem

__all__ = ["Answer", "OnePass", "Summary", "nonnegative", "warn_if_coherent"]


def nonnegative(value: Any, name: str) -> float:
    """`value` as a finite float ≥ 0, or the error that says so."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InvalidTypeError(f"{name} must be a real number, got {type(value).__name__} {value!r}")
    number = float(value)
    if not (math.isfinite(number) and number >= 0):
        raise InvalidValueError(f"{name} must be finite and at least 0, got {value!r}")
    return number


@dataclass(frozen=True)
class Summary:
    """A CompressedProblem in float64, with two dimensions everywhere and every array of order one.

    P·2^a, q·2^b, g·2^c are SA, Sb and Aᵀb in the caller's units; the exponents b and c belong to one right-hand side
    each, so problems of different size do not disturb one another.

    Attributes
    ----------
    P : (d, n) array
        On a card if SA is.
    q : (d, k) array
    g : (n, k) array
    btb : (k,) array
        ‖b‖² in the units of q, squared.
    a : int
    b, c : (k,) int arrays
    tolerance : float
        max(d, n) times the machine epsilon of SA's dtype: NumPy's rank rule at the precision that the sketch has.
    """

    problem: CompressedProblem
    P: Any
    q: np.ndarray
    g: np.ndarray
    btb: np.ndarray
    a: int
    b: np.ndarray
    c: np.ndarray
    tolerance: float

    @classmethod
    def of(cls, problem: CompressedProblem) -> Summary:
        d, n = problem.SA.shape
        ea, eb = problem.exponents
        SA, Sb, Atb = problem.SA, problem.Sb.reshape(d, -1), problem.Atb.reshape(n, -1)
        tolerance = max(d, n) * float(np.finfo(problem.dtype).eps)
        constant = problem.constant_columns(tolerance)
        a, b, c = exponent_of(SA), exponent_of(Sb, axis=0), exponent_of(Atb, axis=0)
        P, q, g = times_power(SA, -a), times_power(Sb, -b), times_power(Atb, -c)
        P = without(P, constant)
        g[constant] = 0.0
        btb = times_power(np.atleast_1d(np.asarray(problem.btb, np.float64)), -2 * b)
        return cls(problem, P, q, g, btb, a + ea, b + eb, c + ea + eb, tolerance)

    @property
    def d(self) -> int:
        return self.P.shape[0]

    @property
    def n(self) -> int:
        return self.P.shape[1]

    @property
    def k(self) -> int:
        return self.q.shape[1]

    @property
    def sampled(self) -> bool:
        """Whether S picks rows of A, which says nothing about the rows that it did not pick."""
        return isinstance(self.problem.operator.family, RowSampling | SampledRows)

    @property
    def thinning(self) -> float:
        """What drawing the rows of S without replacement takes off variances: 1, and less for an SRHT."""
        operator = self.problem.operator
        return thinning(self.d, operator.m) if isinstance(operator.family, SRHT) else 1.0

    def residual_estimate(self, x: np.ndarray, shift: np.ndarray, df: Any) -> np.ndarray:
        """‖b − Ax‖ in the caller's units, for an x that met the sketch through P but not q; NaN unless d > df + 1.

        Leaving out one row of the sketch turns its prediction pᵢᵀx into pᵢᵀx/(1 − hᵢ), with mean leverage df/d. So
        ‖q − √F·Px‖² and ‖b‖² − 2gᵀx + F‖Px‖² with F = (1 − df/d)⁻² both estimate ‖b − Ax‖²; their standard errors
        are about √(2/d) times ‖b − Ax‖² and times ‖Ax‖². The smaller one is taken.

        Parameters
        ----------
        x : (n, k) array
        shift : (k,) int array
            x·2^shift is in the caller's units.
        df : float or (k,) array
            Trace of the map from the rows of the sketch to their predictions.
        """
        df = np.broadcast_to(np.asarray(df, np.float64), (self.k,))
        df = np.where(self.d - df > 1, df, np.nan)
        root = 1.0 / (1.0 - df / self.d)
        Px = times_power(product(self.P, x), self.a + shift - self.b) * root
        sketched = np.sum(np.square(self.q - Px), axis=0)
        signal = np.sum(np.square(Px), axis=0)
        gx = times_power(np.sum(self.g * x, axis=0), self.c + shift - 2 * self.b)
        exact = np.maximum(self.btb - 2 * gx + signal, 0.0)
        return times_power(np.sqrt(np.where(signal < sketched, exact, sketched)), self.b)

    def inflation(self, df: Any) -> np.ndarray:
        """√(d(d−1)/((d−f)(d−f−1))), which turns ‖q − Px‖ into an estimate of ‖b − Ax‖ for an x fitted to q with f
        degrees of freedom: unbiased, when squared, for least squares under a Gaussian sketch. NaN unless d > f + 1."""
        d, df = self.d, np.broadcast_to(np.asarray(df, np.float64), (self.k,))
        df = np.where(d - df > 1, df, np.nan)
        return np.sqrt(d * (d - 1) / ((d - df) * (d - df - 1)))


@dataclass
class Answer:
    """What a solver found: x·2^shift, rho, mu and the estimate (NaN where there is none) are in the caller's units."""

    x: np.ndarray
    shift: np.ndarray
    statuses: list[Status]
    details: list[str]
    condition: float
    rank: int
    estimate: np.ndarray
    rho: np.ndarray | None = None
    mu: np.ndarray | None = None
    inference: Inference | None = None
    error: ErrorBound | None = None
    sweeps: int = 0  # after the one that compressed


@dataclass(frozen=True)
class OnePass:
    """Base of the solvers that need nothing but a CompressedProblem: one sweep in all.

    A subclass says how in ``_solve(summary) -> Answer``, or in ``_answer(summary, source)`` if it may go back to the
    rows.
    """

    def sketch(self, shape: tuple[int, int], dtype: Any) -> tuple[Any, int]:
        """The family and the sketch size that this solver wants by default: SparseSign(), max(4n, 2ζ)."""
        from ..sizes import default_sketch_size
        from ..sketches import SparseSign

        family = SparseSign()
        return family, default_sketch_size(shape[1], family)

    def solve(self, problem: CompressedProblem, source: Any = None) -> Solution:
        """Solve from the summary.

        Parameters
        ----------
        problem : CompressedProblem
            What one `rpcls.compress` sweep left.
        source : a source of rows, optional
            Only `RobustPartiallyCompressed("sweep")` reads it.

        Returns
        -------
        Solution

        Raises
        ------
        InvalidTypeError
            `problem` is not a CompressedProblem.

        Warns
        -----
        ConvergenceWarning
            If ``status.ok`` is False.
        """
        from ..compressed import CompressedProblem

        if not isinstance(problem, CompressedProblem):
            raise InvalidTypeError(
                f"{type(self).__name__} solves a CompressedProblem, got {type(problem).__name__}; "
                "make one with rpcls.compress(A, b)"
            )
        started = time.perf_counter()
        summary = Summary.of(problem)
        solution = _solution(self, summary, self._answer(summary, source), started)
        if not solution.status.ok:
            warn(solution.message, ConvergenceWarning)
        return solution

    def _answer(self, summary: Summary, source: Any) -> Answer:
        return self._solve(summary)

    def _solve(self, summary: Summary) -> Answer:
        raise NotImplementedError


def _solution(solver: OnePass, summary: Summary, answer: Answer, started: float) -> Solution:
    problem = summary.problem
    one = problem.Atb.ndim == 1
    unseen = ~used_columns(summary.P)[:, None] & (summary.g == 0)
    answer.x[unseen] = 0.0  # exactly, not to rounding
    zero = np.asarray(~summary.g.any(axis=0) & ~answer.x.any(axis=0))
    statuses = [Status.ZERO_GRADIENT if z else s for z, s in zip(zero, answer.statuses, strict=True)]
    status = Status.worst(statuses)
    details = next((text for s, text in zip(statuses, answer.details, strict=True) if s is status), "")
    if not one and status is not Status.OK:
        many = sum(s is status for s in statuses)
        details = f"{details} ({many} of {len(statuses)} right-hand sides.)".strip()

    def squeeze(value: Any) -> Any:
        return value if value is None or not one else float(value[0])

    x = times_power(answer.x, answer.shift)
    intercept = None
    if problem.means is not None:
        ea, eb = problem.exponents
        a_mean, b_mean = problem.means
        own = times_power(answer.x, answer.shift + (ea - eb))  # in the units of the summary, where the means are
        intercept = times_power(np.atleast_1d(b_mean) - a_mean @ own, eb)
    seconds = {**problem.timings, "solve": time.perf_counter() - started}
    with np.errstate(over="ignore"):
        x = x.astype(problem.dtype)
    if not np.isfinite(x).all():
        status, details = Status.OUT_OF_RANGE, ""
    return Solution(
        x=x[:, 0] if one else x,
        status=status,
        solver=solver,
        sweeps=problem.sweeps + answer.sweeps,
        residual_norm_estimate=squeeze(None if np.isnan(answer.estimate).all() else answer.estimate),
        error_estimate=answer.error,
        condition=answer.condition,
        rank=answer.rank,
        rho=squeeze(answer.rho),
        mu=squeeze(answer.mu),
        intercept=squeeze(intercept),
        columns=problem.columns,
        sketch=problem.operator,
        timings=seconds,
        details=details,
        inference=answer.inference,
    )


_PROBES = 64  # beyond as many columns, leverages are estimated
_UNEVEN = 1.4


def warn_if_coherent(summary: Summary, half: Callable[[np.ndarray], np.ndarray], rank: int, what: str) -> None:
    """One SketchWarning when a CountSketch met rows of very uneven leverage.

    For every other family, and for CountSketch on rows that are alike, the d rows of the sketch have nearly the
    same leverage, r/d with a relative variance of about 2/r; a few rows of A that CountSketch keeps to themselves show
    as leverages near one. ``half(Y)`` is BY, (n, p), with the columns of PB orthonormal. The leverages are the squared
    row norms of PB, or, from p normal probes Ω, about those of PBΩ/√p, whose squares are too large by 1 + 2/p. For
    CountSketch only; 2dn·min(r, 64) flops.
    """
    operator = summary.problem.operator
    if getattr(operator.family, "nnz_per_column", None) != 1 or rank == 0:
        return
    probes, excess = np.eye(rank), 1.0
    if rank > _PROBES:
        S = Gaussian().sample(_PROBES, m=rank, rng=operator.key.fold(0))
        probes, excess = S.toarray().T, 1 + 2 / _PROBES
    h = np.sum(np.square(product(summary.P, half(probes))), axis=1)
    unevenness = summary.d * np.sum(np.square(h)) / (excess * rank**2)
    if unevenness > _UNEVEN * (1 + 2 / rank):
        warn(
            f"{what} assumes that the rows of the sketch are alike, but CountSketch left them uneven (mean squared "
            f"leverage {unevenness:.2g} times the square of the mean): a few rows of A carry much of the weight. "
            "Use SparseSign(), or give the scale or rho yourself.",
            SketchWarning,
        )
