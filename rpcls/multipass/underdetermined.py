"""Fewer rows than columns: the solution of minimum norm, by sketching the columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..factor import Factor
from ..linalg import rank_tolerance
from ..sketches import SparseSign
from .iterate import conjugate_gradients
from .posed import Posed, start

if TYPE_CHECKING:
    from ..sources import Source

__all__ = ["MinimumNorm", "minimum_norm"]

_STAGES = 4
_MOST = 100


class MinimumNorm(NamedTuple):
    """x (n, k) with Ax = b to rounding and ‖x‖ least, ‖b − Ax‖ (k,), the sketch of Aᵀ, its factor, and the sweeps."""

    x: np.ndarray
    residual: np.ndarray
    factor: Factor
    operator: object
    sweeps: int


def minimum_norm(source: Source, size: int) -> MinimumNorm | None:
    """x = Aᵀz with AAᵀz = b, by conjugate gradients on PᵀAAᵀP, P from a sketch of Aᵀ.

    Parameters
    ----------
    source : Source
        Of one matrix without weights or intercept; m < n.
    size : int
        Rows of the sketch of Aᵀ.

    Returns
    -------
    MinimumNorm or None
        None where the source has no transpose, where A is not of full row rank, and where refinement stagnates.

    Notes
    -----
    Every stage begins from b − Ax. What rounding leaves of x outside the row space is of the order of u times the
    condition number, as with LAPACK.
    """
    across = source.transposed(None)
    if across is None:
        return None
    problem = across.compress(SparseSign().sample(size, rng=0))
    if problem.exponents != (0, 0):
        return None
    factor, _ = start(problem, 0.0, rank_tolerance(source.dtype), scaled=True)
    if not factor.full:
        return None
    b = source.right_hand_sides()
    posed = Posed(across, problem, 0.0, 1)
    unit, scale = posed.unit, np.linalg.norm(problem.column_norms)

    def normal(p: np.ndarray) -> np.ndarray:
        return factor.half_transpose(posed.normal(factor.half(p)))

    small = np.zeros(b.shape[1])
    x, r = np.zeros((source.n_columns, b.shape[1])), b.copy()
    previous = np.full(b.shape[1], np.inf)
    for stage in range(_STAGES):
        h = factor.half_transpose(r)
        if stage == 0:
            small = (
                4 * unit * np.linalg.norm(h, axis=0)
            )  # of x's size, for every stage: so small a ρ has Rᵀρ at rounding
        y, _ = conjugate_gradients(
            normal, h, lambda i, step, p, y, rho, s=small: np.linalg.norm(rho, axis=0) <= s, _MOST
        )
        x = x + posed.predict(factor.half(y))
        turned = source.transposed(x)
        assert turned is not None
        r = b - turned.gradient(np.zeros(h.shape))[1].reshape(b.shape)
        posed.sweeps += 1
        size_r = np.linalg.norm(r, axis=0)
        floor = unit * (scale * np.linalg.norm(x, axis=0) + np.linalg.norm(b, axis=0))
        if np.all(size_r <= floor):
            return MinimumNorm(x, size_r, factor, problem.operator, posed.sweeps)
        if np.any((size_r > previous / 2) & (size_r > 30 * floor)):
            return None
        previous = size_r
    return MinimumNorm(x, previous, factor, problem.operator, posed.sweeps)
