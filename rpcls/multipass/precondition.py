"""SketchAndPrecondition: Householder QR's accuracy at any condition number, in a few sweeps."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

from ..accuracy import certifiable, certificate_factor, check_certifiable, checked_confidence
from ..errors import ConvergenceWarning, InvalidTypeError, InvalidValueError, warn
from ..factor import Factor
from ..linalg import rank_tolerance
from ..planning import NORMAL_CONDITION, checked_rtol, precondition_plan
from ..sketches import SparseSign
from ..solution import Solution, Status
from .by_gram import solve_gram
from .direct import Direct, checked_settings
from .iterate import staged
from .posed import Posed, extreme, start
from .underdetermined import minimum_norm

if TYPE_CHECKING:
    from ..compressed import CompressedProblem
    from ..sources import Source

__all__ = ["SketchAndPrecondition"]

Route = Literal["auto", "gram", "cg"]


@dataclass(frozen=True)
class SketchAndPrecondition:
    """As accurate as Householder QR at any condition number: a sketch gives the triangle R of a preconditioner AR⁻¹.

    One sweep compresses A; its R is so near A's that AR⁻¹ has singular values within 1 ± √(n/d). Then

    * "gram": one sweep forms (AR⁻¹)ᵀ(AR⁻¹) by triangular solves and BLAS 3 (AᵀA itself where the sketch certifies a
      condition number below 10⁴), and one refines x from an explicit residual: three sweeps, about twice the flops of
      the normal equations.
    * "cg": conjugate gradients on R⁻ᵀAᵀAR⁻¹ from the sketched solution, one sweep an iteration, 20 to 40 in all, in
      stages that begin from explicit residuals.

    Parameters
    ----------
    route : {"auto", "gram", "cg"}, default "auto"
        "auto" takes the cheaper by the table of rates (`rpcls.plan` shows it); sparse A always "cg".
    ridge : float, default 0.0
        λ ≥ 0 in ½‖Ax − b‖² + ½λ‖x‖², in the units of A²; a free intercept is not penalised.
    rcond : float in [0, 1) or None, default None
        None: the rank is decided on columns of unit norm (to the nearest power of two) at 30ε of the largest singular
        value, and at lower rank x is the least-squares solution of minimum norm. A number: NumPy's rule on A as given;
        if the sketch does not put every singular value well above it, LAPACK decides.
    rtol : float in (0, 1) or None, default None
        Stop "cg" once ‖A(x − x*)‖ ≤ rtol·‖Ax*‖ + 10u‖b‖ is certified, u = 1.1e-16 (6e-8 for float32).
    confidence : float in [0.9, 0.999], default 0.99
        Of the certificate.
    refine : {"standard", "extra"}, default "standard"
        "extra" adds a refinement: iterations stopped on the backward error may leave a forward error that is ten times
        that of QR, within the bound of the conditioning; this removes it.

    Notes
    -----
    The answer has backward error of the order of the rounding unit, on coherent matrices and at condition numbers from
    1 to 10¹⁵ [1]_. The probability that a sparse sign sketch fails is small but not proven to be; a failed sketch shows
    as a stagnating backward error, or as a gradient outside its row space. Then, in this order, a second sketch of
    twice the size and ζ is drawn, and LAPACK (`Direct`) is called; `Solution.details` says so. LAPACK is also called
    for rows that are not many more than the columns, and for units beyond 10^±100.

    Memory beyond A: d(n + k) float64 for the sketch, a few n² and blocks of some megabytes. Without `rng` the sketch is
    that of rng=0: the same call gives the same answer.

    References
    ----------
    .. [1] E. N. Epperly, M. Meier, Y. Nakatsukasa, "Fast randomized least-squares solvers can be just as accurate and
       stable as classical direct solvers", arXiv:2406.03468.

    Examples
    --------
    >>> import numpy as np, rpcls
    >>> t = np.linspace(-1, 1, 20_000)
    >>> A = np.polynomial.legendre.legvander(t, 9) @ np.vander(np.linspace(1, 2, 10))  # condition 5e9
    >>> solution = rpcls.lstsq(A, A @ np.ones(10), rpcls.SketchAndPrecondition())
    >>> solution.sweeps, bool(np.allclose(A @ solution.x, A @ np.ones(10), rtol=1e-13))
    (3, True)
    """

    route: Route = "auto"
    ridge: float = 0.0
    rcond: float | None = None
    rtol: float | None = None
    confidence: float = 0.99
    refine: Literal["standard", "extra"] = "standard"

    def __post_init__(self) -> None:
        for name, allowed in (("route", get_args(Route)), ("refine", ("standard", "extra"))):
            if getattr(self, name) not in allowed:
                choices = ", ".join(repr(value) for value in allowed)
                raise InvalidValueError(f"{name} must be one of {choices}, got {getattr(self, name)!r}")
        for name, value in checked_settings(self.ridge, self.rcond).items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "confidence", checked_confidence(self.confidence))
        object.__setattr__(self, "rtol", checked_rtol(self.rtol))

    def sketch(self, shape: tuple[int | None, int], dtype: Any, **place: Any) -> tuple[Any, int] | None:
        """SparseSign() and the planned sketch size; None where A has too few rows for a sketch to help.

        `place` as for `rpcls.plan`: device and from_host.
        """
        way = precondition_plan(shape, self.route, self.rtol, **place)
        return None if way is None or way.sketch_size is None else (SparseSign(), way.sketch_size)

    def solve(self, problem: CompressedProblem | None, source: Source | None) -> Solution:
        """Solve with further sweeps over the rows.

        Parameters
        ----------
        problem : CompressedProblem or None
            The summary of the rows of `source`; None: LAPACK.
        source : a source of rows
            `rpcls.lstsq` makes it.

        Raises
        ------
        InvalidTypeError
            `source` is None: a summary does not hold the rows.
        InvalidValueError
            `rtol` with a sketch that allows no certificate: CountSketch, sampled rows.

        Warns
        -----
        ConvergenceWarning
            If ``status.ok`` is False.
        """
        if source is None:
            raise InvalidTypeError(
                f"{type(self).__name__} needs the rows of A, got only a summary; call rpcls.lstsq(A, b, solver), or "
                "solve the summary with a one-pass solver such as rpcls.RobustPartiallyCompressed()"
            )
        began = time.perf_counter()
        if problem is None:
            wide = self._minimum_norm(source, began)
            if wide is not None:
                return wide
            return self._direct(source, "A has too few rows for a sketch to help", 0)
        if extreme(problem):
            return self._direct(source, "the units of A or b are extreme", problem.sweeps)
        if self.rtol is not None:
            check_certifiable(problem.operator)
        if self.rcond is not None:
            given, _ = start(problem, self.ridge, self.rcond, scaled=False)
            scaled, _ = start(problem, self.ridge, rank_tolerance(source.dtype), scaled=True)
            if not (given.full and scaled.full and given.condition * 4 * self.rcond <= 1):
                return self._direct(source, "the sketch cannot decide a rank by this rcond", problem.sweeps)
        found = self._attempt(problem, source, problem.sweeps)
        if not found.converged:
            spent, why = found.posed.sweeps, "lost directions of A" if found.lost else "stagnated"
            problem = _second_sketch(problem, source)
            found = self._attempt(problem, source, spent + 1, f"The first sketch {why}; this is from a second. ")
        if not found.converged:
            return self._direct(source, "two sketches failed", found.posed.sweeps)
        return self._solution(problem, source, found, began)

    def _attempt(self, problem: CompressedProblem, source: Source, sweeps: int, details: str = "") -> _Found:
        posed = Posed(source, problem, self.ridge, sweeps)
        factor, x = start(problem, self.ridge, rank_tolerance(source.dtype), scaled=True)
        route = self.route
        if route == "auto":
            planned = precondition_plan(source.shape, route, self.rtol, **source.place)
            route = planned.route if planned is not None and source.stored is None else "cg"
        if route == "gram" and factor.full:
            plain = factor.condition <= NORMAL_CONDITION
            x, h, converged = solve_gram(posed, factor, plain=plain, extra=self.refine == "extra")
            if converged:
                how = "AᵀA, certified by the sketch" if plain else "the Gram matrix of AR⁻¹"
                return _Found(posed, factor, x, h, True, f"{details}By {how}, and refinement.")
            factor, x = start(problem, self.ridge, rank_tolerance(source.dtype), scaled=True)
        enough = None if self.rtol is None else self._enough(posed, problem)
        x, h, converged = staged(posed, factor, x, enough, extra=self.refine == "extra")
        lost = posed.lost(factor)
        return _Found(posed, factor, x, h, converged and not lost, f"{details}By conjugate gradients.", lost)

    def _enough(self, posed: Posed, problem: CompressedProblem) -> Any:
        """Whether ‖A(x − x*)‖ ≤ rtol·‖Ax*‖ + 10u‖b‖ is certified, from x, h and the slope."""
        rtol = self.rtol
        assert rtol is not None
        d, n = problem.SA.shape
        kinds = ("any" if self.ridge else "full", "iterate")
        first, later = (certificate_factor(kind, d, n, confidence=self.confidence) for kind in kinds)
        calls = 0

        def enough(x: np.ndarray, h: np.ndarray, slope: np.ndarray) -> np.ndarray:
            nonlocal calls
            calls += 1
            return posed.certified(x, h, slope, first if calls == 1 else later, rtol)

        return enough

    def _solution(self, problem: CompressedProblem, source: Source, found: _Found, began: float) -> Solution:
        posed, factor = found.posed, found.factor
        status, details = Status.OK, found.details
        if factor.rank < factor.n:
            status = Status.MINIMUM_NORM
            details = f"Its rank is {factor.rank}, its shape {problem.shape}. {details}"
        upper = None
        if factor.full and problem.sketch_size > factor.n and certifiable(problem.operator):
            c = certificate_factor("any", *problem.SA.shape, confidence=self.confidence)
            upper = c * np.linalg.norm(found.h, axis=0) + posed.floor
        solution = posed.solution(
            self, found.x, factor, status, details, began, problem=problem, upper=upper, confidence=self.confidence
        )
        if not solution.status.ok:
            warn(solution.message, ConvergenceWarning)
        return solution

    def _minimum_norm(self, source: Source, began: float) -> Solution | None:
        """The answer for many more columns than rows, with the columns sketched; None: leave it to LAPACK."""
        m, n = source.shape
        way = None if m is None or not 0 < m < n else precondition_plan((n, m), "cg", None, **source.place)
        if way is None or way.sketch_size is None or self.ridge or self.rcond is not None:
            return None
        found = minimum_norm(source, way.sketch_size)
        if found is None:
            return None
        one = not source.rhs_shape
        with np.errstate(over="ignore"):
            x = found.x.astype(source.dtype)
        return Solution(
            x=x[:, 0] if one else x,
            status=Status.MINIMUM_NORM if found.x.any() else Status.ZERO_GRADIENT,
            solver=self,
            sweeps=found.sweeps,
            residual_norm=float(found.residual[0]) if one else found.residual,
            condition=found.factor.condition,
            rank=found.factor.rank,
            columns=source.columns,
            sketch=found.operator,
            timings={"solve": time.perf_counter() - began},
            details=f"Its rank is {found.factor.rank}, its shape {source.shape}. By conjugate gradients on AAᵀ.",
        )

    def _direct(self, source: Source, reason: str, sweeps: int) -> Solution:
        solution = Direct(self.ridge, self.rcond).solve(None, source)
        details = f"{solution.details} By LAPACK: {reason}.".strip()
        return replace(solution, solver=self, sweeps=solution.sweeps + sweeps, details=details)


class _Found(NamedTuple):
    posed: Posed
    factor: Factor
    x: np.ndarray
    h: np.ndarray
    converged: bool
    details: str
    lost: bool = False  # the sketch has lower rank than A


def _second_sketch(problem: CompressedProblem, source: Source) -> CompressedProblem:
    """Of twice the size and twice the nonzeros a column, and of other draws."""
    family = SparseSign(16)
    size = max(2 * problem.sketch_size, 8 * source.n_columns, family.minimum_size)
    again = source.compress(family.sample(size, rng=problem.operator.key.fold(1)))
    return again.centered() if source.intercept else again
