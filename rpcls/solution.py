"""Solution, Status and ErrorBound: what a solver returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np

from .errors import InvalidTypeError, InvalidValueError, NotConvergedError

__all__ = ["ErrorBound", "Solution", "Status"]


class Status(Enum):
    """How a solve ended; each member's value is the sentence that says so.

    `ok` is true when x is the answer that was asked for. `worst` picks the status of a solution that has
    several right-hand sides.

    Examples
    --------
    >>> import numpy as np, rpcls
    >>> status = rpcls.lstsq(np.ones((5, 2)), np.arange(5.0)).status
    >>> status.name, status.ok
    ('MINIMUM_NORM', True)
    >>> status.value
    'A is rank-deficient; x is the least-squares solution of minimum norm.'
    """

    OK = "The solution is what was asked for."
    ZERO_GRADIENT = "Aᵀb is zero, so x = 0 is the exact answer."
    SHRUNK_TO_ZERO = "rho is so large that x = 0 is the exact answer of the robust model; lower rho."
    MINIMUM_NORM = "A is rank-deficient; x is the least-squares solution of minimum norm."
    SKETCH_RANK_DEFICIENT = (
        "The sketch SA has numerical rank below n; x is the minimum-norm answer of the compressed problem, which "
        "need not be near the least-squares solution. Raise sketch_size above n; if A itself is rank-deficient, "
        "ask for a full-accuracy solver or add a ridge."
    )
    UNFITTED = (
        "rho is so small that x lies in the null space of the sketch and fits nothing that the sketch saw. "
        "Raise rho, raise sketch_size above n, or use rho='loo'."
    )
    OUT_OF_RANGE = "x is too large for its dtype, and partly infinite; rescale A or b."
    NOT_CONVERGED = (
        "The solver stopped before it met its tolerance; x is its best iterate. Raise sketch_size, or ask for "
        "solver='precondition'."
    )

    @property
    def ok(self) -> bool:
        """Whether x is the answer that was asked for."""
        return self in _OK

    @classmethod
    def worst(cls, statuses: list[Status]) -> Status:
        """The last of them in the order of this class; OK for none."""
        return max(statuses, key=list(cls).index, default=cls.OK)


_OK = frozenset({Status.OK, Status.ZERO_GRADIENT, Status.SHRUNK_TO_ZERO, Status.MINIMUM_NORM})


@dataclass(frozen=True)
class ErrorBound:
    """Bounds on the error ‖A(x − x*)‖, each of which holds with probability at least `confidence`.

    Parameters
    ----------
    lower, upper : float or (k,) array
        In the units of b.
    confidence : float
        In (0, 1].

    Examples
    --------
    >>> import rpcls
    >>> rpcls.ErrorBound(lower=0.1, upper=0.3, confidence=0.95).upper
    0.3
    """

    lower: Any
    upper: Any
    confidence: float


@dataclass(frozen=True, eq=False, repr=False)
class Solution:
    """An answer to min ‖Ax − b‖ and what is known about it.

    Attributes
    ----------
    x : (n,) or (n, k) array, in A's dtype
    status : Status
    solver : the solver value that made it
    sweeps : int
        How often the rows were read, the compress sweep included.
    residual_norm : float, (k,) array or None
        ‖b − Ax − intercept‖ (weighted, if there were weights); None when no sweep measured it.
    residual_norm_estimate : float, (k,) array or None
        The same, estimated from the summary alone; None when the summary cannot tell.
    error_estimate : ErrorBound or None
    condition : float or None
        2-norm condition number of the matrix that was factorised (A or its sketch).
    rank : int or None
        Its numerical rank.
    rho, mu : float, (k,) array or None
        Robust solvers: the absolute uncertainty radius used, and the multiplier μ of the solution formula.
    intercept : float, (k,) array or None
    columns : tuple of str or None
        The names of A's columns, when the input had them.
    sketch : SketchOperator or None
        The operator behind the summary; None when no sketch was used.
    timings : mapping of str to float
        Seconds by phase: "compress", "solve", "total".
    details : str
        What this case adds to the sentence of `status`; often empty.
    inference : record or None
        What `interval` needs; None where there are no intervals.

    Examples
    --------
    >>> import numpy as np, rpcls
    >>> A = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]])
    >>> solution = rpcls.lstsq(A, np.array([1.0, 3.0, 5.0])).raise_for_status()
    >>> solution.x.round(12), solution.rank, solution.sweeps
    (array([1., 2.]), 2, 1)
    """

    x: Any
    status: Status
    solver: Any
    sweeps: int
    residual_norm: Any = None
    residual_norm_estimate: Any = None
    error_estimate: ErrorBound | None = None
    condition: float | None = None
    rank: int | None = None
    rho: Any = None
    mu: Any = None
    intercept: Any = None
    columns: tuple[str, ...] | None = None
    sketch: Any = None
    timings: Mapping[str, float] = field(default_factory=dict)
    details: str = ""
    inference: Any = None

    @property
    def message(self) -> str:
        """The sentence of the status, and the figures of this case."""
        return f"{self.status.value} {self.details}".rstrip()

    def raise_for_status(self) -> Solution:
        """Return self if `status.ok`.

        Raises
        ------
        NotConvergedError
            With the sentence of the status, which says what to do.
        """
        if not self.status.ok:
            raise NotConvergedError(self.message)
        return self

    def interval(self, v: Any, level: float = 0.9) -> tuple[Any, Any]:
        """A confidence interval for vᵀx*, x* the least-squares solution, over the draws of the sketch.

        For `FullyCompressed` and `PartiallyCompressed`, whose distribution under a Gaussian S is known [1]_, [2]_.
        With G = (SA)ᵀSA and d − n degrees of freedom of Student's t: for full, around vᵀx with the variance
        ‖SAx − Sb‖²·vᵀG⁻¹v/(d − n); for partial, whatever its `scale`, around (d − n)/d·vᵀx with the variance
        (d − n)/d²·(‖SAx‖²·vᵀG⁻¹v + (vᵀx)²), x the raw answer. An SRHT, whose rows are drawn without replacement, has
        1 − d/m′ times that. It covers what the sketch adds, not the noise in b.

        Parameters
        ----------
        v : (n,) array_like
            A combination of coefficients; the intercept is not among them.
        level : float in (0, 1), default 0.9
            How often such intervals hold vᵀx*.

        Returns
        -------
        lower, upper : float or (k,) array

        Raises
        ------
        InvalidValueError, InvalidTypeError
            Any other solver, a ridge, sampled rows, partial compression by a CountSketch, d ≤ n, a sketch of lower
            rank than n; or an argument that does not fit.

        References
        ----------
        .. [1] L. Zhang, J. Lee, E. Dobriban, "A framework for statistical inference via randomized algorithms",
           arXiv:2307.11255.
        .. [2] F. Wang, L. Zhang, E. Dobriban, "Inference in randomized least squares and PCA via normality of
           quadratic forms", arXiv:2404.00912.
        """
        if isinstance(level, bool) or not isinstance(level, int | float | np.number):
            raise InvalidTypeError(f"level must be a float, got {type(level).__name__} {level!r}")
        if not 0 < level < 1:
            raise InvalidValueError(f"level must be in (0, 1), got {level!r}")
        v = np.asarray(v, np.float64)
        if v.shape != self.x.shape[:1] or not np.isfinite(v).all():
            raise InvalidValueError(f"v must be finite, of shape {self.x.shape[:1]}, got {v!r} of shape {v.shape}")
        if self.inference is None:
            raise InvalidValueError(
                "interval is for FullyCompressed() and PartiallyCompressed(), without ridge, from a sketch of full "
                "rank with sketch_size > n, and not for sampled rows, nor for partial compression by CountSketch(); "
                f"got {self.solver!r}, sketch {self.sketch!r}, rank {self.rank} for n = {len(v)}"
            )
        low, high = self.inference.interval(v, float(level))
        return (float(low[0]), float(high[0])) if self.x.ndim == 1 else (low, high)

    def __repr__(self) -> str:
        parts = [
            f"x: {self.x.dtype} {self.x.shape}",
            f"status={self.status.name}",
            f"solver={self.solver!r}",
            f"sweeps={self.sweeps}",
        ]
        for name in ("intercept", "residual_norm", "residual_norm_estimate", "rho", "rank", "condition"):
            value = getattr(self, name)
            if value is not None:
                parts.append(f"{name}={_short(value)}")
        return f"Solution({', '.join(parts)})"


def _short(value: Any) -> str:
    if np.ndim(value) == 0:
        return f"{value:.4g}"
    values = [f"{v:.4g}" for v in np.ravel(value)[:3]]
    return f"[{', '.join(values)}{', …' if np.size(value) > 3 else ''}]"
