"""FullyCompressed: sketch-and-solve, min ‖SAx − Sb‖."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..accuracy import Inference
from ..factor import Factor
from ..linalg import product, times_power
from ..solution import Status
from .base import Answer, OnePass, Summary, nonnegative
from .reduced import Reduced

__all__ = ["FullyCompressed"]


@dataclass(frozen=True)
class FullyCompressed(OnePass):
    """Classical sketch-and-solve: minimise ½‖SAx − Sb‖² + ½·ridge·‖x‖².

    Parameters
    ----------
    ridge : float, default 0.0
        λ ≥ 0, in the units of A². Rank is decided on [SA; √λ I].

    Notes
    -----
    QR of the sketch, 2d(n + k)n flops, and the singular values of R, 8n³/3 flops; memory d(n + k) float64. (On a card,
    up to a condition number of 10⁴, Cholesky of SAᵀSA and refinement, to the same accuracy in less time.) `rank` and
    `condition` in the Solution are those of SA with columns of unit norm (to the nearest power of two); singular
    values at or below max(d, n)·ε of the largest are zero (ε of SA's dtype). If that leaves rank < n (always for
    d < n and no ridge), x is the minimum-norm answer and the status is SKETCH_RANK_DEFICIENT.

    Guarantee: if S keeps norms on range([A b]) within a factor 1 ± η, then ‖b − Ax‖ ≤ (1 + η)/(1 − η)·min‖b − Ax‖. For
    a Gaussian S and no ridge, E‖A(x − x*)‖² = ‖b − Ax*‖²·n/(d − n − 1) [1]_: consistent systems are solved exactly.
    `residual_norm_estimate` is ‖SAx − Sb‖·√(d(d−1)/((d−f)(d−f−1))), f = n or the degrees of freedom of the ridge;
    unbiased (squared) for Gaussian S and no ridge; None unless d > f + 1.

    References
    ----------
    .. [1] D. Ahfock, W. Astle, S. Richardson, "Statistical properties of sketching algorithms", Biometrika 108
       (2021) 283, doi:10.1093/biomet/asaa062.

    Examples
    --------
    >>> import numpy as np, rpcls
    >>> A = np.random.default_rng(0).standard_normal((2000, 10))
    >>> c = rpcls.compress(A, A @ np.ones(10), rng=0)
    >>> c.solve(rpcls.FullyCompressed()).x.round(6)
    array([1., 1., 1., 1., 1., 1., 1., 1., 1., 1.])
    """

    ridge: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "ridge", nonnegative(self.ridge, "ridge"))

    def _solve(self, summary: Summary) -> Answer:
        reduced = Reduced(summary, self.ridge)
        factor, x, df = reduced.factor, reduced.full(), reduced.degrees_of_freedom
        missed = np.linalg.norm(summary.q - product(summary.P, x), axis=0)
        status, details = rank_status(factor.rank, summary)
        return Answer(
            x=x,
            shift=summary.b - summary.a,
            statuses=[status] * summary.k,
            details=[details] * summary.k,
            condition=factor.condition,
            rank=factor.rank,
            estimate=times_power(missed * summary.inflation(df), summary.b),
            inference=self._inference(summary, factor, x, missed),
        )

    def _inference(self, summary: Summary, factor: Factor, x: np.ndarray, missed: np.ndarray) -> Inference | None:
        freedom = summary.d - summary.n
        if self.ridge or not factor.full or freedom < 1 or summary.sampled:
            return None
        noise = missed / math.sqrt(freedom)
        return Inference(factor, x, summary.b - summary.a, noise, 0.0, freedom, summary.thinning)


def rank_status(rank: int, summary: Summary) -> tuple[Status, str]:
    d, n = summary.d, summary.n
    if rank == n:
        return Status.OK, ""
    return Status.SKETCH_RANK_DEFICIENT, f"Its rank is {rank}, n is {n}, sketch_size is {d}."
