"""What ``solver="auto"`` stands for: the cheapest safe way by the plan."""

from __future__ import annotations

from typing import Any

import numpy as np

from .factor import Factor
from .linalg import exponent_of, gram, rank_tolerance, times_power
from .multipass import Direct, NormalEquations, SketchAndPrecondition
from .planning import NORMAL_CONDITION, plan
from .sources import Source

__all__ = ["automatic"]


def automatic(source: Source, rtol: float | None, *, sketched: bool, ranked: bool) -> tuple[Any, int | None]:
    """The solver value and the sketch size that it is given.

    Parameters
    ----------
    source : Source
    rtol : float or None
    sketched : bool
        Whether the caller named a sketch or its size, and so wants one used.
    ranked : bool
        Whether the caller gave an rcond: the normal equations decide no rank.
    """
    if not source.rereadable:
        return Direct(), None
    m, n = source.shape
    wide = plan((n, m), dtype=source.dtype, **source.place) if m is not None and m < n and rtol is None else None
    if wide is not None and wide.choice.solver != "direct":
        return SketchAndPrecondition(), None
    condition = None
    if rtol is None and not sketched and not ranked:
        condition = guessed_condition(source) if source.stored is None else 1.0  # to find out costs little
    way = plan(
        source.shape,
        rtol=rtol,
        dtype=source.dtype,
        nnz=source.stored,
        n_rhs=source.n_rhs,
        condition=condition,
        **source.place,
    ).choice
    if way.solver == "normal":
        return NormalEquations(), None
    if way.solver == "direct" and not sketched:
        return Direct(), None
    return SketchAndPrecondition(route="auto" if way.route is None else way.route), way.sketch_size  # type: ignore


def guessed_condition(source: Source) -> float | None:
    """The condition number of 2n rows from all over A, with columns of unit norm, where it is at most 10⁴; else None.

    A guess, which decides what is tried first and nothing else.
    """
    rows = source.some_rows(2 * source.n_columns)
    if rows is None or not np.isfinite([float(rows.max()), float(rows.min())]).all():
        return None
    if source.intercept:
        rows = rows - rows.sum(axis=0) / len(rows)
    rows = times_power(rows, -exponent_of(rows, axis=0))
    factor = Factor.by_cholesky(gram(rows), rank_tolerance(source.dtype), NORMAL_CONDITION)
    return None if factor is None else factor.condition
