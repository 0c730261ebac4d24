"""CombinedCompressed: the best mixture of full and partial compression."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import SketchWarning, warn
from ..linalg import product, times_power
from .base import Answer, OnePass, Summary, warn_if_coherent
from .full import rank_status
from .reduced import Reduced

__all__ = ["CombinedCompressed"]


@dataclass(frozen=True)
class CombinedCompressed(OnePass):
    """w·x_full + (1 − w)·α·x_partial with the weight w of least expected error, estimated from the summary.

    The error of full compression goes with the residual, that of partial compression with the signal, and under a
    Gaussian sketch the two are uncorrelated: their mixture is better than either, and needs no knowledge of which of
    the two is.

    Warns
    -----
    SketchWarning
        d ≤ r + 3, r = rank(SA), where the moments are infinite: x is that of full compression. Or the sketch is a
        CountSketch that left very uneven rows, to which the moments do not apply.

    Notes
    -----
    For Gaussian S, E‖A(x_full − x*)‖² = F = ‖b − Ax*‖²·r/(d − r − 1), and for α = (d−r)(d−r−3)/(d(d−1)),
    E‖A(αx_partial − x*)‖² = H = κ‖Ax*‖² with κ = 1 − (d−r)(d−r−3)/((d−1)(d−r−1)); w = H/(F + H) has error FH/(F + H).
    Plugged in are ‖SAx_full − Sb‖²·d/(d − r) for ‖b − Ax*‖², and max((Aᵀb)ᵀx_full, 0) for ‖Ax*‖². At n = 50 that is
    within 3 % of the best w; at n ≈ 10, d = 1.5n and far more noise than signal it can double the squared error.

    One factorisation, as in `FullyCompressed`, at its cost. `rank`, `condition` and the status
    SKETCH_RANK_DEFICIENT are as there. `residual_norm_estimate` is the root of the estimates of ‖b − Ax*‖² +
    FH/(F + H); None unless d > r + 1.

    References
    ----------
    .. [1] P. Dhillon, Y. Lu, D. P. Foster, L. Ungar, "New subsampling algorithms for fast least squares regression",
       NIPS 2013, which mixes estimates of the two kinds (Uluru); the weight used here is derived from the moments.

    Examples
    --------
    >>> import numpy as np, rpcls
    >>> rng = np.random.default_rng(0)
    >>> A = rng.standard_normal((5000, 50))
    >>> c = rpcls.compress(A, A @ np.ones(50) + 7 * rng.standard_normal(5000), sketch_size=200, rng=0)
    >>> exact = np.linalg.lstsq(A, A @ np.ones(50) + 0, rcond=None)[0]
    >>> solvers = rpcls.FullyCompressed(), rpcls.PartiallyCompressed(), rpcls.CombinedCompressed()
    >>> errors = [np.linalg.norm(A @ (c.solve(solver).x - exact)) for solver in solvers]
    >>> bool(errors[2] < min(errors[:2]))
    True
    """

    def _solve(self, summary: Summary) -> Answer:
        d = summary.d
        reduced = Reduced(summary)
        factor, full, partial = reduced.factor, reduced.full(), reduced.partial()
        r = factor.rank
        status, details = rank_status(r, summary)
        shift = summary.b - summary.a
        missed = np.linalg.norm(summary.q - product(summary.P, full), axis=0)
        noise = np.square(missed) * (d / (d - r)) if d > r else np.full(summary.k, np.nan)
        if d > r + 3:
            if factor.full:
                warn_if_coherent(summary, factor.half, factor.rank, "the weight of CombinedCompressed()")
            alpha = (d - r) * (d - r - 3) / (d * (d - 1))
            kappa = 1 - alpha * d / (d - r - 1)
            aligned = np.sum(summary.g * full, axis=0)
            signal = np.maximum(times_power(aligned, summary.c - summary.a - summary.b), 0.0)
            theirs, ours = kappa * signal, noise * (r / (d - r - 1))
            weight = np.divide(theirs, theirs + ours, out=np.ones(summary.k), where=theirs + ours > 0)
            partial = times_power(partial, summary.c - 2 * summary.a - shift)
            x = weight * full + (1 - weight) * alpha * partial
        else:
            if status.ok:
                warn(
                    f"CombinedCompressed() needs sketch_size > n + 3, got sketch_size = {d} for rank {r}: the moments "
                    "that weigh full against partial compression are infinite, and x is that of full compression. "
                    "Raise sketch_size (4n is the default), or use RobustPartiallyCompressed().",
                    SketchWarning,
                )
            x, weight = full, np.ones(summary.k)
        estimate = np.sqrt(noise * (1 + weight * (r / (d - r - 1)))) if d > r + 1 else np.full(summary.k, np.nan)
        return Answer(
            x=x,
            shift=shift,
            statuses=[status] * summary.k,
            details=[details] * summary.k,
            condition=factor.condition,
            rank=r,
            estimate=times_power(estimate, summary.b),
        )
