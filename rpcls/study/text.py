"""A study as plain text, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from .figures import solver_label
from .findings import grids, number, seconds
from .methods import label_of
from .table import StudyTable

__all__ = ["as_text"]


def as_text(table: StudyTable) -> str:
    """Median errors by sketch size and solver, the baselines below, and what failed."""
    summary = table.summary()
    blocks = []
    for target in table.targets:
        known = next((p for p in table.problems if p.target == target), None)
        title = target if known is None else f"{target}: {known.m} × {known.n}, R² = {known.r2:.3f}"
        lines = [title + "; median ‖A(x − x*)‖ / ‖Ax*‖, * marks the best"]
        for grid in grids([s for s in summary if s.target == target]):
            rows = [["d", *(solver_label(s) for s in grid.solvers)]]
            for ratio, errors in zip(grid.ratios, grid.errors, strict=True):
                best = min(e for e in errors if e is not None)
                rows.append([f"{ratio:.3g}n", *(number(e) + ("*" if e == best else " ") for e in errors)])
            lines += [f"  {label_of(grid.sketch)}", *_aligned(rows)]
        others = [s for s in summary if s.target == target and not s.sketch and s.error and s.seconds]
        if others:
            rows = [["with a sketch of their own, or none", "d", "error ", "time"]]
            for s in others:
                assert s.error is not None and s.seconds is not None
                size = "" if s.d_over_n is None else f"{s.d_over_n:.3g}n"
                rows.append([solver_label(s.solver), size, number(s.error.median) + " ", seconds(s.seconds.median)])
            lines += _aligned(rows)
        blocks.append("\n".join(lines))
    failures = {(r.target, r.solver, r.sketch, r.sketch_size, r.message) for r in table.failures}
    if failures:
        shown = [f"  {t}, {solver_label(s)}, {k or 'no sketch'}, d = {d}: {m}" for t, s, k, d, m in failures]
        blocks.append("\n".join([f"{len(table.failures)} of {len(table)} runs failed:", *sorted(shown)[:10]]))
    if table.interrupted:
        blocks.append("Interrupted: these are the runs that were finished.")
    return "\n\n".join(blocks) if blocks else "No runs."


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "    "
        + "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
