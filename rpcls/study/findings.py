"""What a study found, in sentences and small tables that are computed from its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .figures import pareto_front, solver_label
from .methods import is_rung, label_of
from .table import StudyTable, Summary

__all__ = ["Grid", "findings", "grids", "number", "seconds"]


@dataclass(frozen=True)
class Grid:
    """Median errors of one target under one sketch: a line for every size, a column for every solver."""

    target: str
    sketch: str
    ratios: tuple[float, ...]
    solvers: tuple[str, ...]
    errors: tuple[tuple[float | None, ...], ...]

    def column(self, solver: str) -> dict[float, float]:
        """d/n → median error of one solver."""
        if solver not in self.solvers:
            return {}
        i = self.solvers.index(solver)
        return {r: e for r, line in zip(self.ratios, self.errors, strict=True) if (e := line[i]) is not None}


def number(value: float | None) -> str:
    """An error as people write it: three digits, or a power of ten where it is rounding."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e4:
        return f"{value:#.3g}".rstrip(".")
    return f"{value:.1e}"


def seconds(value: float | None) -> str:
    """A time with its unit."""
    if value is None:
        return "–"
    return f"{value:#.3g}".rstrip(".") + " s" if value >= 0.1 else f"{value * 1e3:#.3g}".rstrip(".") + " ms"


def grids(summary: Sequence[Summary]) -> list[Grid]:
    """One for every target and sketch that has results."""
    found: dict[tuple[str, str], dict[tuple[float, str], float]] = {}
    for s in summary:
        if s.sketch and s.d_over_n is not None and s.error is not None:
            found.setdefault((s.target, s.sketch), {})[s.d_over_n, s.solver] = s.error.median
    out = []
    for (target, sketch), errors in found.items():
        ratios = tuple(sorted({ratio for ratio, _ in errors}))
        solvers = tuple(dict.fromkeys(solver for _, solver in errors))
        lines = tuple(tuple(errors.get((ratio, solver)) for solver in solvers) for ratio in ratios)
        out.append(Grid(target, sketch, ratios, solvers, lines))
    return out


def findings(table: StudyTable) -> list[tuple[str, str]]:
    """(target, sentence): who wins at which size, and what the exact answer costs."""
    summary = table.summary()
    out = []
    first = {}
    for grid in grids(summary):
        first.setdefault(grid.target, grid)
    for target in table.targets:
        known = next((p for p in table.problems if p.target == target), None)
        name = target if known is None else f"{target} (R² = {known.r2:.2f})"
        grid = first.get(target)
        if grid is not None:
            out.append((name, f"with {label_of(grid.sketch)}, {_winners(grid)}.{_insulation(grid)}"))
        exact = _exact(summary, target)
        if exact:
            out.append((name, exact))
    return out


def _winners(grid: Grid) -> str:
    """ "the smallest error is that of X up to d = 2n (0.12 at 1.2n) and of Y from 4n on (0.05 at 10n)"."""
    runs: list[tuple[str, list[tuple[float, float]]]] = []
    for ratio, line in zip(grid.ratios, grid.errors, strict=True):
        error, solver = min((e, s) for e, s in zip(line, grid.solvers, strict=True) if e is not None)
        if not runs or runs[-1][0] != solver:
            runs.append((solver, []))
        runs[-1][1].append((ratio, error))

    def span(points: list[tuple[float, float]]) -> str:
        (low, first), (high, last) = points[0], points[-1]
        if len(points) == 1:
            return f"at d = {low:.3g}n ({number(first)})"
        return f"from d = {low:.3g}n ({number(first)}) to {high:.3g}n ({number(last)})"

    if len(runs) == 1 and len(grid.ratios) > 1:
        return f"{solver_label(runs[0][0])} has the smallest error at every size, {span(runs[0][1])}"
    return "the smallest error is that of " + ", then of ".join(f"{solver_label(s)} {span(p)}" for s, p in runs)


def _insulation(grid: Grid) -> str:
    """How robust partial compression compares with the two models it is made of, at the smallest size and later."""
    robust, full, partial = (grid.column(s) for s in ("robust-partial", "full", "partial-raw"))
    common = sorted(set(robust) & set(full))
    if not common:
        return ""
    least = common[0]
    others = [f"{number(full[least])} for full"]
    if least in partial:
        others.append(f"{number(partial[least])} for raw partial")
    text = f" At d = {least:.3g}n robust partial errs by {number(robust[least])}, against {' and '.join(others)}"
    wins = [r for r in common if full[r] < robust[r]]
    if not wins:
        return f"{text}; it stays ahead of full up to {common[-1]:.3g}n."
    if wins == common:
        return f"{text}; full is ahead of it at every size."
    return f"{text}; full is ahead of it from {wins[0]:.3g}n on."


def _exact(summary: Sequence[Summary], target: str) -> str:
    points = [s for s in summary if s.target == target]
    alone = [s for s in points if s.d_over_n is None and s.seconds is not None and s.error is not None]
    steps = [s for s in alone if is_rung(s.solver) and s.solver != "precondition"]
    exact = [s for s in alone if s not in steps]
    if not exact:
        return ""

    def told(some: Sequence[Summary], form: str) -> str:
        return ", ".join(
            form.format(solver_label(s.solver), seconds(s.seconds.median), number(s.error.median))  # type: ignore
            for s in some
        )

    front = [s for s in pareto_front(points) if s.d_over_n is not None]
    text = "full accuracy takes " + told(exact, "{} {} (error {})")
    if steps:
        text += "; stopped once certified, " + told(steps, "{} takes {} (error {})").replace("precondition, ", "")
    if not front:
        return text + "; no sketched answer is both faster and better than x = 0."
    ends = [front[0]] if len(front) == 1 else [front[0], front[-1]]
    return f"{text}; the Pareto front of the sketched answers goes from {' to '.join(map(_place, ends))}."


def _place(s: Summary) -> str:
    assert s.seconds is not None and s.error is not None
    sketch = f", {label_of(s.sketch)}" if s.sketch else ""
    return (
        f"{solver_label(s.solver)}{sketch} at {s.d_over_n:.3g}n in {seconds(s.seconds.median)} "
        f"(error {number(s.error.median)})"
    )
