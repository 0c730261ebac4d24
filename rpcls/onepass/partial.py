"""PartiallyCompressed: the Hessian from the sketch, the gradient exact."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from ..accuracy import Inference
from ..errors import InvalidValueError, SketchWarning, warn
from ..factor import Factor
from ..linalg import product
from .base import Answer, OnePass, Summary, nonnegative, warn_if_coherent
from .full import rank_status
from .reduced import Reduced

__all__ = ["PartiallyCompressed"]

Scale = Literal["raw", "debiased", "best"]


@dataclass(frozen=True)
class PartiallyCompressed(OnePass):
    """Partial compression: minimise ½‖SAx‖² − (Aᵀb)ᵀx + ½·ridge·‖x‖², then scale x by α.

    It is one step of the iterative Hessian sketch from zero [1]_. (Elsewhere "partial sketch" can mean something
    else.) Unlike `FullyCompressed` its error is relative to ‖Ax*‖, not to the residual: better on noisy data, and not
    exact on consistent systems.

    Parameters
    ----------
    scale : {"best", "debiased", "raw"}, default "best"
        The factor α. For Gaussian S, with r = rank(SA): "raw" 1, with E x = d/(d−r−1)·x*; "debiased" (d−r−1)/d, so
        that E x = x*; "best" (d−r)(d−r−3)/(d(d−1)), the smallest E‖A(x − x*)‖², about (1 − r/d)², with error about
        √(r/d)·‖Ax*‖. They are as good for `SparseSign(8)`.
    ridge : float, default 0.0
        λ ≥ 0, in the units of A². r above is then the degrees of freedom f = Σσ²/(σ²+λ), and "best" is multiplied by
        gᵀy/‖SAy‖² for the unscaled y: α minimises the leave-one-row-out estimate of ‖A(αy − x*)‖. "Debiased" is
        unbiased for the ridge solution of A at λ/(1 − f/d), up to O(1/d).

    Warns
    -----
    SketchWarning
        The scale is not "raw", and d ≤ r + 3, where the moments are infinite: x is left unscaled. Or the sketch is a
        CountSketch that left very uneven rows, to which the moments do not apply.

    Notes
    -----
    Factorised as in `FullyCompressed`, at 2dn² + 8n³/3 flops; memory dn float64. `rank`, `condition` and
    the status SKETCH_RANK_DEFICIENT are as in `FullyCompressed`; x is then (SAᵀSA)⁺Aᵀb.

    Guarantee: if |‖Sy‖² − ‖y‖²| ≤ ε‖y‖² on range(A), the raw x has ‖A(x − x*)‖ ≤ ε/(1 − ε)·‖Ax*‖.
    `residual_norm_estimate` leaves out one row of the sketch at a time; None unless d > r + 1.

    References
    ----------
    .. [1] M. Pilanci, M. J. Wainwright, "Iterative Hessian sketch", JMLR 17 (2016) 53, arXiv:1411.0347.
    .. [2] S. Becker, B. Kawas, M. Petrik, K. N. Ramamurthy, "Robust partially-compressed least-squares",
       arXiv:1510.04905.

    Examples
    --------
    >>> import numpy as np, rpcls
    >>> rng = np.random.default_rng(0)
    >>> A = rng.standard_normal((5000, 10))
    >>> c = rpcls.compress(A, A @ np.ones(10) + 10 * rng.standard_normal(5000), sketch_size=400, rng=0)
    >>> best, raw = c.solve(rpcls.PartiallyCompressed()), c.solve(rpcls.PartiallyCompressed("raw"))
    >>> np.round(best.x[0] / raw.x[0], 4)  # (400 − 10)(400 − 13)/(400·399)
    np.float64(0.9457)
    """

    scale: Scale = "best"
    ridge: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.scale, str) or self.scale not in get_args(Scale):
            raise InvalidValueError(f"scale must be 'raw', 'debiased' or 'best', got {self.scale!r}")
        object.__setattr__(self, "ridge", nonnegative(self.ridge, "ridge"))

    def _solve(self, summary: Summary) -> Answer:
        reduced = Reduced(summary, self.ridge)
        factor, y, ridge, df = reduced.factor, reduced.partial(), reduced.ridge, reduced.degrees_of_freedom
        status, details = rank_status(factor.rank, summary)
        if self.scale != "raw" and factor.full and ridge == 0:
            warn_if_coherent(summary, factor.half, factor.rank, f"scale={self.scale!r}")
        x = y * self._alpha(summary, y, df, ridge, quiet=not status.ok)
        shift = summary.c - 2 * summary.a
        return Answer(
            x=x,
            shift=shift,
            statuses=[status] * summary.k,
            details=[details] * summary.k,
            condition=factor.condition,
            rank=factor.rank,
            estimate=summary.residual_estimate(x, shift, df),
            inference=self._inference(summary, factor, y),
        )

    def _inference(self, summary: Summary, factor: Factor, y: np.ndarray) -> Inference | None:
        d, freedom = summary.d, summary.d - summary.n
        single = getattr(summary.problem.operator.family, "nnz_per_column", None) == 1
        if self.ridge or not factor.full or freedom < 1 or summary.sampled or single:
            return None
        noise = np.linalg.norm(product(summary.P, y), axis=0) * (math.sqrt(freedom) / d)
        shift = summary.c - 2 * summary.a
        return Inference(factor, y * (freedom / d), shift, noise, 1 / math.sqrt(freedom), freedom, summary.thinning)

    def _alpha(self, summary: Summary, y: np.ndarray, df: float, ridge: float, *, quiet: bool) -> np.ndarray | float:
        d = summary.d
        if self.scale == "raw":
            return 1.0
        if d - df <= 3:
            if not quiet:
                warn(
                    f"scale={self.scale!r} needs sketch_size > n + 3, got sketch_size = {d} with {df:.4g} degrees of "
                    "freedom: the moments of x are infinite, and x is left unscaled. Raise sketch_size (4n is the "
                    "default), add a ridge, or use RobustPartiallyCompressed().",
                    SketchWarning,
                )
            return 1.0
        if self.scale == "debiased":
            return (d - df - 1) / d
        alpha = (d - df) * (d - df - 3) / (d * (d - 1))
        if ridge == 0:
            return alpha
        fitted = np.sum(np.square(product(summary.P, y)), axis=0)
        return alpha * np.divide(np.sum(summary.g * y, axis=0), fitted, out=np.ones(summary.k), where=fitted > 0)
