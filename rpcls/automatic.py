"""What ``solver="auto"`` stands for: the cheapest safe way by the plan."""

from __future__ import annotations

from typing import Any

from .multipass import Direct, NormalEquations, SketchAndPrecondition
from .planning import PlannedSolver, plan
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

    def cheapest(condition: float | None) -> PlannedSolver:
        return plan(
            source.shape,
            rtol=rtol,
            dtype=source.dtype,
            nnz=source.stored,
            n_rhs=source.n_rhs,
            condition=condition,
            **source.place,
        ).choice

    way = cheapest(None if sketched or ranked else 1.0)
    if way.solver == "normal" and source.stored is None:  # with sparse rows to find out costs little
        way = cheapest(source.guessed_condition)
    if way.solver == "normal":
        return NormalEquations(), None
    if way.solver == "direct" and not sketched:
        return Direct(), None
    return SketchAndPrecondition(route="auto" if way.route is None else way.route), way.sketch_size  # type: ignore
