"""NormalEquations: AᵀAx = Aᵀb, where the condition number allows it, and refinement."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import ConvergenceWarning, InvalidTypeError, warn
from ..factor import Factor
from ..kernels import on_host
from ..linalg import rank_tolerance
from ..planning import SINGLE_CONDITION, single_pays
from ..sketches import CountSketch
from ..solution import Solution, Status
from .by_gram import MOST, SETTLED, refine
from .direct import checked_settings
from .posed import Posed

if TYPE_CHECKING:
    from ..compressed import CompressedProblem
    from ..sources import Source

__all__ = ["NormalEquations"]

_ATTEMPTED = 1e6  # condition number up to which "auto" stays with AᵀA once it has it: refinement still converges
_SEEN = 1e7  # condition number from which AᵀA cannot tell full rank from lower
_UNITS = 1e100  # norms beyond this, or below its inverse, have products that may leave the range


class _Way(NamedTuple):
    """How the Gram matrix is made, up to what condition number it is relied on, a bound on 1/σ_min(AR⁻¹), and how
    it is refined."""

    single: bool
    limit: float
    slack: float
    settled: float
    most: int


_DOUBLE = _Way(False, math.inf, 1.01, SETTLED, MOST)
# Products in float32 were seen to move eigenvalues by 5·10⁻⁹ to 4·10⁻⁷ of the largest, by κ² times that beside the
# smallest: a refinement gains six digits or none, and the last one counts on three.
_SINGLE = _Way(True, 1e3, 1.5, 1e-13, 12)


@dataclass(frozen=True)
class NormalEquations:
    """Cholesky of AᵀA with columns at unit norm, refined from explicit residuals: two sweeps, mn² flops.

    With 500 columns and more, dense rows in host memory and a condition number that a few rows say is low, the flops
    are in float32, and there are three to six sweeps in all.

    Parameters
    ----------
    ridge : float, default 0.0
        λ ≥ 0 in ½‖Ax − b‖² + ½λ‖x‖², in the units of A²; a free intercept is not penalised.

    Notes
    -----
    The Gram matrix certifies itself: rounding moves its eigenvalues by little more than mε of the largest (much less in
    practice), so a computed condition number of A up to 10⁴ is true, no sketch is needed, and one refinement gives a
    backward error of the order of the rounding unit. Above that every refinement gains a factor of about 1/(κ²ε), and
    from κ of 10⁷ nothing; the status is then NOT_CONVERGED. ``solver="auto"`` leaves this way at 10⁶. Products in
    float32 are relied on up to κ of 10³, and float64 takes their place where refinement stagnates.

    A sparse A costs the sum of the squared numbers of entries of its rows, and n³/3 flops.

    Units beyond 10^±100, and an A of lower rank, end in NOT_CONVERGED as well. With an intercept, a first sweep finds
    the means.

    Examples
    --------
    >>> import numpy as np, rpcls
    >>> rng = np.random.default_rng(0)
    >>> A = rng.standard_normal((5000, 10))
    >>> solution = rpcls.lstsq(A, A @ np.ones(10), rpcls.NormalEquations())
    >>> solution.sweeps, bool(np.allclose(solution.x, 1, rtol=1e-14))
    (2, True)
    """

    ridge: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "ridge", checked_settings(self.ridge, None)["ridge"])

    def sketch(self, shape: tuple[int | None, int], dtype: Any) -> None:
        """None: no compress sweep."""
        return

    def solve(self, problem: CompressedProblem | None, source: Source | None) -> Solution:
        """Solve from the rows; `problem` is not used.

        Raises
        ------
        InvalidTypeError
            `source` is None: a summary does not hold the rows.

        Warns
        -----
        ConvergenceWarning
            If ``status.ok`` is False.
        """
        if source is None:
            raise InvalidTypeError(
                "NormalEquations needs the rows of A, got only a summary; call rpcls.lstsq(A, b, "
                "rpcls.NormalEquations()), or solve the summary with a one-pass solver"
            )
        solution, _ = self.attempt(source, math.inf)
        assert solution is not None
        if not solution.status.ok:
            warn(solution.message, ConvergenceWarning)
        return solution

    def attempt(self, source: Source, limit: float = _ATTEMPTED) -> tuple[Solution | None, int]:
        """The Solution, without a warning, and the sweeps made.

        Unless `limit` is infinite: None where it is not OK, or the condition number not certified to be below `limit`.
        """
        began = time.perf_counter()
        means = source.compress(CountSketch().sample(1, rng=0)) if source.intercept else None
        posed = Posed(source, None, self.ridge, 0 if means is None else 1)
        ways = [_DOUBLE]
        if _single_pays(source):
            ways.insert(0, _SINGLE)
        for way in ways:
            x, h, details = np.zeros_like(posed.Atb), None, "AᵀA is not numerically positive definite."
            M, posed.Atb = posed.gram(None, single=way.single)
            factor = _factor(M, source.dtype, 0.0 if means is None else means.column_norms)
            if factor is not None and factor.condition <= min(limit, way.limit):
                x, h, details = _refined(posed, factor, way)
            if h is not None:
                break
        if h is None and limit < math.inf:
            return None, posed.sweeps
        upper = None
        if h is not None and not self.ridge:
            upper = way.slack * np.linalg.norm(h, axis=0) + 10 * posed.unit * np.hypot(posed.b_norm, posed.residual)
        status = Status.NOT_CONVERGED if h is None else Status.OK
        return posed.solution(self, x, factor, status, details, began, upper=upper), posed.sweeps


def _single_pays(source: Source) -> bool:
    if source.place or not single_pays(source.n_columns, source.n_rhs, source.stored):
        return False
    return source.guessed_condition is not None and source.guessed_condition <= SINGLE_CONDITION


def _refined(posed: Posed, factor: Factor, way: _Way) -> tuple[np.ndarray, np.ndarray | None, str]:
    """x, h = R⁻ᵀAᵀ(b − Ax) before its last step, and nothing to add; or the best x, None, and why."""
    fit = factor.half_transpose(posed.Atb)  # of the norm of Ax
    largest, extreme = np.max(np.abs(fit), axis=0), "The units of b are extreme."
    if not np.all((largest == 0) | ((largest > 1 / _UNITS) & (largest < _UNITS))):
        return np.zeros_like(posed.Atb), None, extreme
    posed.b_norm = np.linalg.norm(fit, axis=0)
    x, h, converged = refine(
        posed,
        factor,
        factor.half(fit),
        factor.gram_pinv,
        extra=False,
        most=way.most,
        settled=way.settled,
        bound=True,  # seen within 2.3 of the estimate up to κ of 10⁷
    )
    if not np.isfinite(posed.residual).all() or (not (posed.residual + largest).all() and _any_rhs(posed)):
        return x, None, extreme
    return x, h if converged else None, "" if converged else f"The condition number is about {factor.condition:.1e}."


def _any_rhs(posed: Posed) -> bool:
    """Whether b is not zero where its squares are, by one more sweep."""
    posed.sweeps += 1
    return posed.source.any_rhs()


def _factor(M: Any, dtype: Any, norms: Any) -> Factor | None:
    """The Cholesky factor of M, its columns brought to unit norm; None where there is none, or its rank is in doubt.

    Of a column of norm `norms` before centring, M may hold nothing but rounding errors: that, too, is doubt.
    """
    squares = on_host(M.diagonal())
    if not np.all((squares > 1 / _UNITS**2) & (squares < _UNITS**2)):
        return None
    if not np.all(squares > 4096 * np.finfo(np.float64).eps * np.square(norms)):
        return None
    return Factor.by_cholesky(M, max(rank_tolerance(dtype), 1 / _SEEN), math.inf)
