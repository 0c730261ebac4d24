"""The pictures of a study: error against sketch size, and the Pareto front of error against time."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import InvalidValueError, MissingDependencyError
from .methods import BASELINES, LADDER, is_rung, label_of
from .table import Problem, StudyTable, Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw", "pareto_front", "require_matplotlib", "solver_label", "write"]

# Okabe and Ito's palette, which colour-blind readers can tell apart; the markers differ as well.
_COLOURS = {
    "robust-partial": "#D55E00",
    "full": "#0072B2",
    "partial": "#E69F00",
    "partial-raw": "#8C6BB1",
    "robust-full": "#009E73",
    "scipy-cwt": "#222222",
    "partial-debiased": "#CC79A7",
    "combined": "#56B4E9",
    "robust-partial-sweep": "#7F3B08",
}
_FULL = "#B5005B"  # solvers of rpcls that go back to the rows
_SPARE = ("#CC79A7", "#56B4E9", "#7F7F00", "#8B4513")
_LABELS = {
    "full": "full (sketch and solve)",
    "partial-raw": "partial, raw",
    "partial-debiased": "partial, debiased",
    "partial": "partial, best-scaled",
    "robust-full": "robust full",
    "robust-partial": "robust partial",
    "robust-partial-sweep": "robust partial, two sweeps",
    "normal": "refined normal equations",
    "direct": "direct (QR)",
    "hessian-sketch": "iterative Hessian sketch",
    **{name: name.replace("-", ", rtol ", 1) for name in LADDER},
    **{name: baseline.label for name, baseline in BASELINES.items()},
}
_MARKERS = "o^sDvP"
_HEIGHTS = {"size": 3.6, "time": 4.8}  # inches
_OFFSETS = {"left": (-7, 0), "right": (7, 0), "above": (0, 11)}
_LEAST = 1e-17  # errors of exactly zero are drawn here
_INK, _SOFT, _FAINT = "#222222", "#6b6b6b", "#d9d9d9"
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _SOFT,
    "axes.labelcolor": _INK,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "grid.color": "#ececec",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "rpcls",
}


def solver_label(name: str) -> str:
    """The name of a solver or baseline as people read it."""
    return _LABELS.get(name, label_of(name))


def pareto_front(points: Sequence[Summary]) -> list[Summary]:
    """The methods that no other method beats in both median time and median error, fastest first.

    x = 0 takes no time and has relative error 1, so a method that does worse is not on the front.
    """
    timed = [p for p in points if p.seconds is not None and p.error is not None and p.error.median < 1.0]
    timed.sort(key=lambda p: (p.seconds.median, p.error.median))  # type: ignore[union-attr]
    front: list[Summary] = []
    for point in timed:
        if not front or point.error.median < front[-1].error.median:  # type: ignore[union-attr]
            front.append(point)
    return front


def require_matplotlib(purpose: str) -> None:
    """Raise MissingDependencyError unless Matplotlib can be imported."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError.for_package("Matplotlib", "study", purpose) from error


def draw(table: StudyTable, kind: str = "both") -> Figure:
    """Draw a study; see `StudyTable.plot`."""
    if kind not in ("both", "size", "time"):
        raise InvalidValueError(f"kind must be 'both', 'size' or 'time', got {kind!r}")
    require_matplotlib("StudyTable.plot()")
    import matplotlib
    from matplotlib.figure import Figure

    look = _Look(table)
    targets = table.targets or ("no rows",)
    rows: list[tuple[str, str | None]] = []
    if kind in ("both", "size"):
        sketches = look.drawn_sketches()
        rows += [("size", sketch) for sketch in (sketches[:1] if kind == "both" else sketches)]
    if kind in ("both", "time"):
        rows.append(("time", None))

    with matplotlib.rc_context(_STYLE):
        figure = Figure(
            figsize=(5.6 * len(targets) + 0.8, sum(_HEIGHTS[what] for what, _ in rows) + 0.7), layout="constrained"
        )
        figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08)  # type: ignore[union-attr]
        heights = [_HEIGHTS[what] for what, _ in rows]
        parts = figure.subfigures(len(rows), 1, squeeze=False, height_ratios=heights)[:, 0]  # so labels in one row
        # do not narrow another
        for part, (what, sketch) in zip(parts, rows, strict=True):
            axes = part.subplots(1, len(targets), squeeze=False)[0]
            for ax, target in zip(axes, targets, strict=True):
                points = [s for s in look.summary if s.target == target]
                problem = look.problems.get(target)
                if what == "size":
                    _size_panel(ax, points, look, sketch, problem)
                else:
                    _time_panel(ax, points, look)
                known = "" if problem is None else f"  ·  R² = {problem.r2:.2f}"
                ax.set_title(target + known + (f"  ·  {label_of(sketch)}" if sketch else ""))
            axes[0].set_ylabel("relative error  ‖A(x − x*)‖ / ‖Ax*‖")
            _share_limits(axes, errors_only=what == "size")
        handles = look.legend() if kind != "size" else []
        if handles:
            figure.legend(handles=handles, loc="outside lower center", ncols=-(-len(handles) // 2), fontsize=9)
    return figure


def write(figure: Figure, path: str | os.PathLike[str] | BinaryIO, kind: str | None = None) -> None:
    """Write a figure; without `kind`, the suffix of the path is the format."""
    import matplotlib

    if kind is None:
        kind = Path(str(path)).suffix.lower()[1:]
        if kind not in figure.canvas.get_supported_filetypes():
            raise InvalidValueError(f"plot writes .svg, .png or .pdf by the suffix of the path, got {path!s}")
    with matplotlib.rc_context(_STYLE):
        figure.savefig(path, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None)


class _Look:
    """Colours, markers and order, the same in every panel."""

    def __init__(self, table: StudyTable) -> None:
        self.summary = table.summary()
        self.problems: dict[str, Problem] = {p.target: p for p in table.problems}
        self.sketches = list(dict.fromkeys(s.sketch for s in self.summary if s.sketch and s.solver not in BASELINES))
        self.solvers = list(dict.fromkeys(s.solver for s in self.summary if s.sketch and s.solver not in BASELINES))
        others = [name for name in self.solvers if name not in _COLOURS]
        self.colours = {**_COLOURS, **{name: _SPARE[i % len(_SPARE)] for i, name in enumerate(others)}}

    def marker(self, sketch: str | None) -> str:
        return _MARKERS[self.sketches.index(sketch) % len(_MARKERS)] if sketch in self.sketches else "x"

    def series(self, points: list[Summary], sketch: str | None) -> dict[str, list[Summary]]:
        """solver → its points under one sketch, by sketch size; the SciPy transform counts with every sketch."""
        found: dict[str, list[Summary]] = {}
        for point in points:
            if point.error is None or point.d_over_n is None:
                continue
            if point.sketch == sketch or point.solver in BASELINES:
                found.setdefault(point.solver, []).append(point)
        for line in found.values():
            line.sort(key=lambda p: p.d_over_n or 0.0)
        return found

    def drawn_sketches(self) -> list[str | None]:
        """The sketches with at least one result."""
        return [s for s in self.sketches if any(p.sketch == s and p.error for p in self.summary)] or [None]

    def legend(self) -> list[Any]:
        from matplotlib.lines import Line2D

        names = [*self.solvers, *(["scipy-cwt"] if any(s.solver == "scipy-cwt" for s in self.summary) else [])]
        handles = [
            Line2D([], [], color=self.colours[n], lw=2.4, label=solver_label(n), ls=":" if n in BASELINES else "-")
            for n in names
        ]
        handles += [
            Line2D([], [], color=_SOFT, marker=self.marker(s), ls="", label=label_of(s))
            for s in self.drawn_sketches()
            if s
        ]
        if any(is_rung(s.solver) for s in self.summary):
            handles.append(
                Line2D([], [], color=_FULL, marker="D", ms=6, markeredgecolor="white", lw=2.2, label="precondition")
            )
        if handles:
            handles.append(Line2D([], [], color="#b0b0b0", lw=5, alpha=0.6, label="Pareto front"))
        return handles


def _size_panel(ax: Axes, points: list[Summary], look: _Look, sketch: str | None, problem: Problem | None) -> None:
    series = look.series(points, sketch)
    ratios = sorted({p.d_over_n for line in series.values() for p in line if p.d_over_n})
    ends = []
    for solver in sorted(series, key=lambda s: (s == "robust-partial", s not in BASELINES)):
        line, colour, hero = series[solver], look.colours[solver], solver == "robust-partial"
        x = [p.d_over_n or 0.0 for p in line]
        spreads = [p.error for p in line if p.error]
        middle = [s.median for s in spreads]
        ax.fill_between(x, [s.low for s in spreads], [s.high for s in spreads], color=colour, alpha=0.16, lw=0)
        ax.plot(
            x, middle, color=colour, lw=3.0 if hero else 1.8, ls=":" if solver in BASELINES else "-",
            zorder=4 if hero else 3, marker=None if solver in BASELINES else look.marker(sketch), ms=7 if hero else 5,
            markeredgecolor="white", markeredgewidth=0.8,
        )  # fmt: skip
        ends.append((middle[-1], solver, colour, hero))
    _error_axis(ax, left=True)
    ax.set_xscale("log")
    if ratios:
        from matplotlib.ticker import FixedLocator, NullLocator

        ax.set_xlim(ratios[0] * 0.92, ratios[-1] * 1.06 if len(ratios) > 1 else ratios[0] * 1.1)
        ax.xaxis.set_major_locator(FixedLocator(_apart(ratios)))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:.3g}n")
    sizes = (
        ""
        if problem is None
        else f"   (n = {problem.n:,}, m = {problem.m:,})".replace(", m", "; m").replace(",", "\u2009")
    )
    ax.set_xlabel(f"sketch size d{sizes.replace(';', ',')}")
    ax.grid(True, axis="both")
    ax._rpcls_ends = ends  # type: ignore[attr-defined]


def _time_panel(ax: Axes, points: list[Summary], look: _Look) -> None:
    for one in look.sketches:
        for solver, line in look.series(points, one).items():
            if solver in BASELINES:
                continue
            _cloud(ax, line, look.colours[solver], look.marker(one), hero=solver == "robust-partial")
    _cloud(ax, look.series(points, None).get("scipy-cwt", []), look.colours["scipy-cwt"], "x", hero=False)
    ax.set_xscale("log")
    _error_axis(ax, left=False)
    ax.set_xlabel("wall time, seconds (compress + solve)")
    ax.grid(True, axis="both")
    alone = [p for p in points if p.d_over_n is None and p.seconds is not None and p.error is not None]
    rungs = sorted((p for p in alone if is_rung(p.solver)), key=lambda p: -p.error.median)  # type: ignore[union-attr]
    _ladder(ax, rungs)
    for p in alone:
        if not is_rung(p.solver):
            colour, marker = (_INK, "X") if p.solver in BASELINES else (_FULL, "*")
            place = "above" if p.solver == "lapack" else "left"
            _named_point(ax, p, solver_label(p.solver), colour, marker, place)
    ax._rpcls_front = pareto_front(points)  # type: ignore[attr-defined]


def _ladder(ax: Axes, rungs: list[Summary]) -> None:
    """Sketch and precondition, from the first certified digit to the last: a connected line."""
    if not rungs:
        return
    x = [p.seconds.median for p in rungs]  # type: ignore[union-attr]
    y = [max(p.error.median, _LEAST) for p in rungs]  # type: ignore[union-attr]
    ax.plot(x, y, color=_FULL, lw=2.2, zorder=5)
    for p in rungs:
        name = solver_label(p.solver)
        _named_point(ax, p, name.removeprefix("precondition, "), _FULL, "D", "right")


def _named_point(ax: Axes, p: Summary, name: str, colour: str, marker: str, place: str) -> None:
    """A method that has no sketch size: its name stands beside its marker; bars span the repeats."""
    s, e = p.seconds, p.error
    assert s is not None and e is not None
    low, middle, high = (max(v, _LEAST) for v in (e.low, e.median, e.high))
    ax.plot([s.low, s.high], [middle, middle], color=colour, lw=0.8, alpha=0.5, zorder=4)
    ax.plot([s.median, s.median], [low, high], color=colour, lw=0.8, alpha=0.5, zorder=4)
    size = 11 if marker == "*" else 7
    ax.plot([s.median], [middle], marker, color=colour, ms=size, markeredgecolor="white", markeredgewidth=0.7, zorder=6)
    ax.annotate(
        name, (s.median, middle), xytext=_OFFSETS[place], textcoords="offset points", zorder=7,
        ha={"left": "right", "right": "left"}.get(place, "center"), va="center", fontsize=8.5, color=colour,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.8},
    )  # fmt: skip


def _cloud(ax: Axes, line: list[Summary], colour: str, marker: str, hero: bool) -> None:
    """One method at its sketch sizes: the larger the marker, the larger the sketch; bars span the repeats."""
    line = [p for p in line if p.seconds is not None and p.error is not None]
    if not line:
        return
    x = [p.seconds.median for p in line]  # type: ignore[union-attr]
    y = [p.error.median for p in line]  # type: ignore[union-attr]
    zorder = 5 if hero else 3
    ax.plot(
        x, y, color=colour, lw=1.6 if hero else 0.9, alpha=0.75, zorder=zorder - 1, ls=":" if marker == "x" else "-"
    )
    for p, xi, yi in zip(line, x, y, strict=True):
        s, e = p.seconds, p.error
        assert s is not None and e is not None
        ax.plot([s.low, s.high], [yi, yi], color=colour, lw=0.8, alpha=0.5, zorder=zorder - 1)
        ax.plot([xi, xi], [e.low, e.high], color=colour, lw=0.8, alpha=0.5, zorder=zorder - 1)
    sizes = [(2.4 + 1.5 * math.log2(max(p.d_over_n or 1.0, 1.0) + 0.2)) ** 2 for p in line]
    edge = {} if marker == "x" else {"edgecolors": "white", "linewidths": 0.7}
    ax.scatter(x, y, s=sizes, marker=marker, color=colour, zorder=zorder, **edge)


def _error_axis(ax: Axes, left: bool) -> None:
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(_plain_error)
    ax.axhline(1.0, color=_SOFT, lw=0.9, ls=(0, (1, 2)), zorder=1)
    ax.annotate(
        "as wrong as x = 0", (0.0 if left else 0.66, 1.0), xycoords=("axes fraction", "data"), xytext=(4, 3),
        textcoords="offset points", ha="left" if left else "center", fontsize=8, color=_SOFT, zorder=6,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.8},
    )  # fmt: skip


def _plain_error(value: float, _: Any = None) -> str:
    return f"{value:g}" if 1e-3 <= value < 1e4 else f"{value:.0e}".replace("e-0", "e-")


def _share_limits(row: Any, errors_only: bool) -> None:
    """One error axis for a row of panels, then everything that needs the limits: labels, fronts, baselines."""
    errors = [
        float(v)
        for ax in row
        for line in ax.get_lines()
        if line.get_label().startswith("_child")
        for v in line.get_ydata()
        if math.isfinite(float(v)) and v > 0
    ]
    low, high = (min(errors), max(errors)) if errors else (0.1, 1.0)
    pad = min(max((high / low) ** 0.08, 1.25), 4.0)
    for ax in row:
        ax.set_ylim(low / pad, high * pad)
        if errors_only:
            _label_ends(ax)
        else:
            _draw_front(ax)


def _label_ends(ax: Axes) -> None:
    """Names at the right end of the lines, pushed apart where they would overlap."""
    ends = sorted(ax._rpcls_ends)  # type: ignore[attr-defined]
    low, high = (math.log(v) for v in ax.get_ylim())
    places = [(math.log(value) - low) / (high - low) for value, *_ in ends]
    gap = 0.062
    for _ in range(60):
        for i in range(len(places) - 1):
            overlap = gap - (places[i + 1] - places[i])
            if overlap > 0:
                places[i] -= overlap / 2
                places[i + 1] += overlap / 2
    for (value, solver, colour, hero), place in zip(ends, places, strict=True):
        ax.annotate(
            solver_label(solver), (1.0, (math.log(value) - low) / (high - low)), xycoords="axes fraction",
            xytext=(1.055, place), textcoords="axes fraction", color=colour, va="center", fontsize=9,
            fontweight="bold" if hero else "normal", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.7, "shrinkA": 1, "shrinkB": 1, "relpos": (0, 0.5)},
        )  # fmt: skip


def _draw_front(ax: Axes) -> None:
    """The Pareto front as a broad grey staircase."""
    bottom, _ = ax.get_ylim()
    front = ax._rpcls_front  # type: ignore[attr-defined]
    low, high = ax.get_xlim()
    ax.set_xlim(low / 1.1, high * 1.3)  # room for the name of the last
    if front:
        x = [p.seconds.median for p in front]
        y = [max(p.error.median, bottom / 10) for p in front]
        ax.step([*x, ax.get_xlim()[1]], [*y, y[-1]], where="post", color="#b0b0b0", lw=5, alpha=0.6, zorder=1.5)
    _plain_seconds(ax)


def _plain_seconds(ax: Axes) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = ax.get_xlim()
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 1e4 else (1.0,)))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())


def _apart(ratios: list[float]) -> list[float]:
    """Tick places: all sizes, less those whose labels would touch."""
    kept: list[float] = []
    for ratio in ratios:
        if not kept or math.log(ratio / kept[-1]) > 0.055 * math.log(ratios[-1] / ratios[0]) + 1e-9:
            kept.append(ratio)
    return kept
