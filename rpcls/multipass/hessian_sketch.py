"""IterativeHessianSketch: steps of fixed length with the Hessian of a sketch and the exact gradient."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from ..accuracy import certifiable, certificate_factor, check_certifiable, checked_confidence
from ..errors import ConvergenceWarning, InvalidTypeError, InvalidValueError, warn
from ..factor import Factor
from ..linalg import rank_tolerance
from ..planning import checked_rtol
from ..sketches import SampledRows, SparseSign
from ..solution import Solution, Status
from .direct import Direct, checked_settings
from .posed import FINE, Posed, extreme, start

if TYPE_CHECKING:
    from ..compressed import CompressedProblem
    from ..sources import Source

__all__ = ["IterativeHessianSketch"]

Sketches = Literal["fixed", "fresh"]
Steps = Literal["tuned", "plain"]

_PATIENCE = 8  # steps without halving ‖h‖; converging steps never took more at d ≥ 4n, but for a few draws in 1000
_GROWN = 100  # times the least ‖h‖ so far; converging momentum overshot by 11 at most


@dataclass(frozen=True)
class IterativeHessianSketch:
    """Iterative Hessian sketch: x ← x + α(SAᵀSA)⁻¹Aᵀ(b − Ax) + β(x − x_before), from zero [1]_.

    Newton's method with the Hessian of a sketch; its first plain step is raw `PartiallyCompressed`. Residuals are
    formed row by row. `SketchAndPrecondition` takes conjugate gradients by the same sweeps: as many at most, no α and β
    to be wrong for the draw, and backward stable. Prefer it, unless inner products between steps are to be avoided.

    Parameters
    ----------
    sketches : {"fixed", "fresh"}, default "fixed"
        One sketch for all steps, one sweep each; or a new one for every step, two sweeps each.
    steps : {"tuned", "plain"}, default "tuned"
        "tuned", with γ = n/d (n the rank): α = (1 − γ)², and on a fixed sketch heavy-ball momentum β = γ [2]_; fresh
        sketches gain nothing from momentum, β = 0. "plain": α = 1, β = 0, as published.
    ridge : float, default 0.0
        λ ≥ 0 in ½‖Ax − b‖² + ½λ‖x‖², in the units of A²; a free intercept is not penalised.
    rtol : float in (0, 1) or None, default None
        Stop once ‖A(x − x*)‖ ≤ rtol·‖Ax*‖ + 10u‖b‖ is certified, u = 1.1e-16 (6e-8 for float32). None: once the
        backward error is some rounding units.
    confidence : float in [0.9, 0.999], default 0.99
        Of the certificate, for one sketch.
    max_sweeps : int, default 100
        At least 2: the first compresses, the second measures a step.

    Notes
    -----
    The default sketch is SparseSign(8) with 16n + 64 rows. Rates, γ = n/d; figures by
    ``benchmarks/hessian_sketch.py``, 200 draws a case, n from 2 to 60, even and coherent rows:

    * Fixed sketch, tuned: ‖A(x_t − x*)‖ = γ^(t/2)·‖Ax*‖ in the median of draws, 22 steps for 13 digits at d = 16n. A
      draw that takes lengths on the range of A beyond 1 ± √γ is slower, or diverges: up to 9 % of draws at d = 4n,
      3.5 % at 8n, 0.5 % at 16n, none at 16n + 64, where the slowest had 0.65 a step. Small n is the worst.
    * Fresh sketches, tuned: √γ a step in the mean square over draws, from d = 2n on. No draw can spoil it.
    * Plain steps: (1 − √γ)⁻² − 1 a step on a fixed sketch, so they diverge below d = 12n, and in up to 5 % of draws
      at 16n; the square root of γ(1 + γ − γ²)/(1 − γ)³ on fresh ones, which need d ≥ 4n.

    Divergence and stagnation show in ‖h‖, h = R⁻ᵀAᵀ(b − Ax), R the triangle of SA. Then, and at `max_sweeps`, x is the
    best iterate with the status NOT_CONVERGED. From condition numbers of about 10⁶ on, and for a large residual, steps
    without `rtol` end so, at backward errors of up to 10⁻¹²: iterative sketching is forward stable, its x as good as
    the conditioning allows, but not backward stable [3]_.

    Units of A or b beyond 10^±100 go to LAPACK, which `Solution.details` says. Without `rng` the sketch is that of
    rng=0: the same call gives the same answer. Cost beyond the sweeps: a QR factorisation of each sketch, 2dn² flops.

    References
    ----------
    .. [1] M. Pilanci, M. J. Wainwright, "Iterative Hessian sketch", JMLR 17 (2016) 53, arXiv:1411.0347.
    .. [2] J. Lacotte, M. Pilanci, "Optimal randomized first-order methods for least-squares problems", ICML 2020,
       arXiv:2002.09488.
    .. [3] E. N. Epperly, "Fast and forward stable randomized algorithms for linear least-squares problems", SIAM J.
       Matrix Anal. Appl. 45 (2024), arXiv:2311.04362.

    Examples
    --------
    >>> import numpy as np, rpcls
    >>> rng = np.random.default_rng(0)
    >>> A, b = rng.standard_normal((10_000, 20)), rng.standard_normal(10_000)
    >>> solution = rpcls.lstsq(A, b, rpcls.IterativeHessianSketch(rtol=1e-3))
    >>> exact = rpcls.lstsq(A, b, "direct").x
    >>> bool(np.linalg.norm(A @ (solution.x - exact)) <= 1e-3 * np.linalg.norm(A @ exact)), solution.sweeps
    (True, 6)
    """

    sketches: Sketches = "fixed"
    steps: Steps = "tuned"
    ridge: float = 0.0
    rtol: float | None = None
    confidence: float = 0.99
    max_sweeps: int = 100

    def __post_init__(self) -> None:
        for name, allowed in (("sketches", get_args(Sketches)), ("steps", get_args(Steps))):
            if getattr(self, name) not in allowed:
                choices = " or ".join(repr(value) for value in allowed)
                raise InvalidValueError(f"{name} must be {choices}, got {getattr(self, name)!r}")
        object.__setattr__(self, "ridge", checked_settings(self.ridge, None)["ridge"])
        object.__setattr__(self, "rtol", checked_rtol(self.rtol))
        object.__setattr__(self, "confidence", checked_confidence(self.confidence))
        most = self.max_sweeps
        if isinstance(most, bool) or not isinstance(most, int | np.integer):
            raise InvalidTypeError(f"max_sweeps must be an int, got {type(most).__name__} {most!r}")
        if most < 2:
            raise InvalidValueError(
                f"max_sweeps must be at least 2, to compress and to measure a step, got {most}; for one sweep take "
                "rpcls.PartiallyCompressed()"
            )
        object.__setattr__(self, "max_sweeps", int(most))

    def sketch(self, shape: tuple[int | None, int], dtype: Any) -> tuple[SparseSign, int]:
        """SparseSign() and 16n + 64 rows."""
        return SparseSign(), 16 * shape[1] + 64

    def solve(self, problem: CompressedProblem | None, source: Source | None) -> Solution:
        """Solve with further sweeps over the rows.

        Parameters
        ----------
        problem : CompressedProblem
            The summary of the rows of `source`, under the first sketch.
        source : a source of rows
            `rpcls.lstsq` makes it.

        Raises
        ------
        InvalidTypeError
            `source` is None: a summary does not hold the rows.
        InvalidValueError
            A sketch size of n or less; `rtol` with a sketch that allows no certificate: CountSketch, sampled rows;
            fresh sketches of rows that were sampled by their leverage.

        Warns
        -----
        ConvergenceWarning
            If ``status.ok`` is False.
        """
        if source is None or problem is None:
            raise InvalidTypeError(
                f"{type(self).__name__} needs the rows of A, got only a summary; call rpcls.lstsq(A, b, solver), or "
                "solve the summary with a one-pass solver such as rpcls.PartiallyCompressed()"
            )
        began = time.perf_counter()
        self._check(problem)
        if extreme(problem):
            solution = Direct(self.ridge).solve(None, source)
            details = f"{solution.details} By LAPACK: the units of A or b are extreme.".strip()
            return replace(solution, solver=self, sweeps=solution.sweeps + problem.sweeps, details=details)
        solution = _Run(self, problem, source).solution(began)
        if not solution.status.ok:
            warn(solution.message, ConvergenceWarning)
        return solution

    def _check(self, problem: CompressedProblem) -> None:
        d, n = problem.SA.shape
        if d <= n:
            raise InvalidValueError(
                f"sketch_size must exceed n = {n} for {type(self).__name__}, got {d}; leave it None for 16n + 64 = "
                f"{16 * n + 64}"
            )
        if self.rtol is not None:
            check_certifiable(problem.operator)
        if self.sketches == "fresh" and isinstance(problem.operator.family, SampledRows):
            raise InvalidValueError(
                "fresh sketches need a family to draw them from, got rows that were sampled by their leverage; pass "
                "rpcls.SparseSign(), or sketches='fixed'"
            )


class _Run:
    """The iteration, for k right-hand sides at once; every array has a column for each.

    Attributes
    ----------
    x, g, size, residual : (n, k), (n, k), (k,), (k,) arrays
        The best iterate by ‖h‖, h = PᵀAᵀ(b − Ax); its gradient, that ‖h‖ and ‖b − Ax‖.
    met : (k,) bool array
        Accurate enough.
    """

    def __init__(self, solver: IterativeHessianSketch, problem: CompressedProblem, source: Source) -> None:
        self.solver, self.problem, self.source = solver, problem, source
        self.posed = Posed(source, problem, solver.ridge, problem.sweeps)
        self.factor = self._factor(problem)
        self.c = certificate_factor("any", *problem.SA.shape, confidence=solver.confidence)
        self.x, self.g, self.residual = np.zeros_like(self.posed.Atb), self.posed.Atb, self.posed.b_norm
        self.size = np.linalg.norm(self.factor.half_transpose(self.g), axis=0)
        self.met = self.size == 0
        self.taken, self.cut_off = 0, False
        self._iterate()

    def _factor(self, problem: CompressedProblem) -> Factor:
        return start(problem, self.solver.ridge, rank_tolerance(problem.dtype), scaled=True)[0]

    def _iterate(self) -> None:
        posed, fresh = self.posed, self.solver.sketches == "fresh"
        gamma = self.factor.rank / self.problem.sketch_size
        alpha, beta = ((1 - gamma) ** 2, 0.0 if fresh else gamma) if self.solver.steps == "tuned" else (1.0, 0.0)
        x, g, move = self.x, self.g, np.zeros_like(self.x)
        mark, since = self.size, np.zeros(posed.k, int)
        done = self.met.copy()
        while not done.all():
            redraw = fresh and self.taken > 0
            if posed.sweeps + redraw >= self.solver.max_sweeps:
                self.cut_off = True
                break
            if redraw:
                self.factor = self._factor(self._again())
            move = alpha * self.factor.gram_pinv(g) + beta * move
            x = np.where(done, x, x + move)
            g = posed.gradient(x)
            self.taken += 1
            h = self.factor.half_transpose(g)
            size = np.linalg.norm(h, axis=0)
            met = ~done & self._enough(x, h, g)
            better = ~done & ((size < self.size) | met)
            self.x, self.g = np.where(better, x, self.x), np.where(better, g, self.g)
            self.size = np.where(better, size, self.size)
            self.residual = np.where(better, posed.residual, self.residual)
            self.met |= met
            halved = size <= mark / 2
            mark, since = np.where(halved, size, mark), np.where(halved, 0, since + 1)
            done |= met | ~(size <= _GROWN * self.size) | (since >= _PATIENCE)

    def _again(self) -> CompressedProblem:
        """The problem under another draw of the sketch."""
        S = self.problem.operator
        again = self.source.compress(S.family.sample(S.sketch_size, m=S.m, rng=S.key.fold(self.taken)))
        self.posed.sweeps += again.sweeps
        return again.centered() if self.source.intercept else again

    def _enough(self, x: np.ndarray, h: np.ndarray, g: np.ndarray) -> np.ndarray:
        posed, rtol = self.posed, self.solver.rtol
        fine = posed.backward_error(self.factor, x, h, g, bound=True) <= FINE * posed.unit
        return fine if rtol is None else fine | posed.certified(x, h, g, self.c, rtol)

    def solution(self, began: float) -> Solution:
        posed, factor, problem = self.posed, self.factor, self.problem
        h = factor.half_transpose(self.g)
        posed.residual = self.residual
        error = posed.backward_error(factor, self.x, h)
        fine = self.met | (error <= 10 * posed.unit)
        worst = error.max(initial=0.0)
        details = f"{self.taken} steps, backward error {worst:.1e}."
        status = Status.OK
        if not fine.all():
            status = Status.NOT_CONVERGED
            details = f"{details} {self._trouble(worst)}"
        elif posed.lost(factor):
            status = Status.SKETCH_RANK_DEFICIENT
        elif factor.rank < factor.n:
            status = Status.MINIMUM_NORM
            details = f"Its rank is {factor.rank}, its shape {problem.shape}. {details}"
        upper = None
        if factor.full and certifiable(problem.operator):
            upper = self.c * self.size + posed.floor
        return posed.solution(
            self.solver, self.x, factor, status, details, began,
            problem=problem, upper=upper, confidence=self.solver.confidence,
        )  # fmt: skip

    def _trouble(self, error: float) -> str:
        if self.cut_off:
            return f"They were cut off by max_sweeps = {self.solver.max_sweeps}; raise it."
        if error > self.posed.unit**0.5:
            d, n = self.problem.SA.shape
            return f"They do not converge at sketch_size = {d} for n = {n}; at 16n + 64 tuned steps do."
        return "Rounding stopped them."
