"""NormalEquations: AᵀAx = Aᵀb, where the condition number allows it, and refinement."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConvergenceWarning, InvalidTypeError, warn
from ..factor import Factor
from ..linalg import rank_tolerance, times_power
from ..sketches import CountSketch
from ..solution import Solution, Status
from .by_gram import refine
from .direct import checked_settings
from .posed import Posed

if TYPE_CHECKING:
    from ..compressed import CompressedProblem
    from ..sources import Source

__all__ = ["NormalEquations"]

_ATTEMPTED = 1e6  # condition number up to which "auto" stays with AᵀA once it has it: refinement still converges


@dataclass(frozen=True)
class NormalEquations:
    """Cholesky of AᵀA with columns at unit norm, refined from explicit residuals: two sweeps, mn² flops.

    Parameters
    ----------
    ridge : float, default 0.0
        λ ≥ 0 in ½‖Ax − b‖² + ½λ‖x‖², in the units of A²; a free intercept is not penalised.

    Notes
    -----
    The Gram matrix certifies itself: rounding moves its eigenvalues by little more than mε of the largest (much less in
    practice), so a computed condition number of A up to 10⁴ is true, no sketch is needed, and one refinement gives a
    backward error of the order of the rounding unit. Above that every refinement gains a factor of about 1/(κ²ε), and
    from κ of 10⁷ nothing; the status is then NOT_CONVERGED. ``solver="auto"`` leaves this way at 10⁶.

    A sparse A costs the sum of the squared numbers of entries of its rows, and n³/3 flops.

    Numbers too large or small for squares in float64, and an A of lower rank, end in NOT_CONVERGED as well. With an
    intercept, a first sweep finds the means.

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
        solution = self.attempt(source, math.inf)
        assert solution is not None
        if not solution.status.ok:
            warn(solution.message, ConvergenceWarning)
        return solution

    def attempt(self, source: Source, limit: float = _ATTEMPTED) -> Solution | None:
        """The Solution, without a warning; None if the condition number is not certified to be below `limit`."""
        began = time.perf_counter()
        sweeps = 0
        if source.intercept and source.means is None:
            source.compress(CountSketch().sample(1, rng=0))
            sweeps = 1
        posed = Posed(source, np.zeros((source.n_columns, source.n_rhs)), np.zeros(source.n_rhs), self.ridge, sweeps)
        M, posed.Atb = posed.gram(None)
        factor = _factor(M, rank_tolerance(source.dtype))
        if factor is None or factor.condition > limit:
            if limit < math.inf:
                return None
            x, details = np.zeros_like(posed.Atb), "AᵀA is not numerically positive definite."
            return posed.solution(self, x, None, Status.NOT_CONVERGED, details, began)
        x = factor.gram_pinv(posed.Atb)
        posed.b_norm = np.linalg.norm(factor.half_transpose(posed.Atb), axis=0)  # ‖Ax‖, until a residual is at hand
        x, h, converged = refine(posed, factor, x, factor.gram_pinv, extra=False)
        if not converged and limit < math.inf:
            return None
        status, details = Status.OK, ""
        if not converged:
            status, details = Status.NOT_CONVERGED, f"The condition number is about {factor.condition:.1e}."
        upper = None
        if converged and not self.ridge:
            upper = 1.01 * np.linalg.norm(h, axis=0) + 10 * posed.unit * np.hypot(posed.b_norm, posed.residual)
        return posed.solution(self, x, factor, status, details, began, upper=upper)


def _factor(M: np.ndarray, tolerance: float) -> Factor | None:
    """The Cholesky factor of M, its columns brought to unit norm; None where there is none, or its rank is in doubt."""
    from scipy.linalg import LinAlgError, cholesky

    squares = np.diag(M)
    if not np.isfinite(M).all() or not np.all((squares > 1e-200) & (squares < 1e200)):
        return None
    e = np.rint(0.5 * np.log2(squares)).astype(np.int64)
    try:
        R = cholesky(times_power(M, -e[:, None] - e), overwrite_a=True, check_finite=False)
    except LinAlgError:
        return None
    factor = Factor(R, tolerance, exponents=e)
    return factor if factor.full else None
