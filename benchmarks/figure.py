"""The picture of compress.json: rpcls and its peers, in reads of A, one panel a shape."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import dense
import targets
from harness import median
from report import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {"CountSketch": "#0072B2", "SparseSign(8)": "#D55E00", "SRHT": "#009E73"}  # Okabe and Ito
_INK, _SOFT, _PEER = "#222222", "#6b6b6b", "#8a8a8a"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": _SOFT,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "svg.fonttype": "path",
    "svg.hashsalt": "rpcls",
}
# (line, the sketch that colours it or "" for a peer, jobs of which the fastest is drawn, work of its target)
_Line = tuple[str, str, tuple[str, ...], str]


def _lines() -> list[tuple[str, list[_Line]]]:
    groups: list[tuple[str, list[_Line]]] = []
    for name in dense.SKETCHES:
        lines: list[_Line] = [
            (f"rpcls compress, {name}", name, (f"rpcls compress, {name}",), f"compress, {name}"),
            ("    Fortran order", name, (f"rpcls compress, {name}, Fortran order",), ""),
            ("    float32", name, (f"rpcls compress, {name}, float32",), ""),
            ("SciPy S @ A, same S", "", tuple(f"SciPy {form} @ A, {name}" for form in ("CSC", "CSR")), ""),
        ]
        if name == "CountSketch":
            lines.append(("SciPy clarkson_woodruff_transform", "", (dense.CWT,), ""))
        lines.append(("scikit-learn SparseRandomProjection", "", (dense.PROJECTION[name],), ""))
        groups.append((name, lines))
    transforms: list[_Line] = [
        ("rpcls compress, SRHT", "SRHT", ("rpcls compress, SRHT",), ""),
        ("SciPy DCT of the columns", "", ("SciPy DCT of the columns",), ""),
    ]
    solves: list[_Line] = [
        (f"rpcls robust-partial, {rho}, {name}", name, (f"rpcls robust-partial, {rho}, {name}",), aim)
        for name in dense.SKETCHES
        for rho, aim in (("rho given", f"robust-partial, rho given, {name}"), ("rho='loo'", ""))
    ]
    solves += [
        ("SciPy Clarkson–Woodruff and lstsq", "", (dense.CWT_LSTSQ,), ""),
        ("normal equations, Cholesky", "", (dense.NORMAL,), ""),
        ("LAPACK gelsd", "", (dense.GELSD,), ""),
    ]
    return [*groups, ("SRHT", transforms), ("solve", solves)]


def draw(data: dict[str, Any], path: Path) -> None:
    """Write the picture; the format follows the file's name."""
    import matplotlib
    from matplotlib.figure import Figure

    shapes = data["dense"]
    limits = {(check.work, check.shape): check.limit for check in targets.checks(data) if check.unit == "reads"}
    lines = _lines()
    with matplotlib.rc_context(STYLE):
        height = 0.215 * (sum(len(group) for _, group in lines) + len(lines)) + 0.9
        figure = Figure(figsize=(3.3 + 3.0 * len(shapes), height), layout="constrained")
        panels = figure.subplots(1, len(shapes), squeeze=False, sharey=True, sharex=True)[0]
        for axes, (shape, part) in zip(panels, shapes.items(), strict=True):
            _panel(axes, shape, part, lines, limits)
        names, places, mine = _rows(lines)
        panels[0].set_yticks(places, names)
        for label, own in zip(panels[0].get_yticklabels(), mine, strict=True):
            label.set_color(_COLOURS.get(own, _INK))
            label.set_horizontalalignment("left")
        panels[0].tick_params(axis="y", pad=225)
        panels[0].invert_yaxis()
        low, high = panels[0].get_xlim()
        panels[0].set_xlim(low / 1.15, high * 2.2)  # room for the last number
        figure.supxlabel("reads of A", fontsize=9.5)
        figure.savefig(path, facecolor="white", metadata={"Date": None} if path.suffix == ".svg" else None)


def _rows(lines: list[tuple[str, list[_Line]]]) -> tuple[list[str], list[float], list[str]]:
    names, places, mine, place = [], [], [], 0.0
    for _, group in lines:
        for name, sketch, _, _ in group:
            names.append(name)
            places.append(place)
            mine.append(sketch)
            place += 1
        place += 0.7
    return names, places, mine


def _panel(
    axes: Axes, shape: str, part: dict[str, Any], lines: list[tuple[str, list[_Line]]], limits: dict[Any, float]
) -> None:
    seconds = {name: median(times) for name, times in part["seconds"].items()}
    _, places, _ = _rows(lines)
    flat = [line for _, group in lines for line in group]
    for place, (_, sketch, jobs, aim) in zip(places, flat, strict=True):
        found = [value for name, value in seconds.items() if name in jobs or name.startswith(f"{jobs[0]}, length")]
        if not found:
            continue
        reads = min(found) / part["read_seconds"]
        colour = _COLOURS.get(sketch, _PEER)
        axes.plot([1, reads], [place, place], color=colour, lw=4.5, solid_capstyle="butt", alpha=0.85)
        axes.plot([reads], [place], "o", color=colour, ms=5.5)
        if (aim, shape) in limits:
            limit = limits[aim, shape]
            axes.plot([limit, limit], [place - 0.42, place + 0.42], color=_INK, lw=1.6)
        right = max(reads, limits.get((aim, shape), 1.0), 1.0)
        axes.annotate(f"{reads:.2f}" if reads < 10 else f"{reads:.0f}", (right, place), (5, 0), va="center", fontsize=8,
                      textcoords="offset points", color=_INK if sketch else _SOFT)  # fmt: skip
    axes.set_xscale("log")
    axes.axvline(1, color=_INK, lw=1)
    axes.grid(axis="x")
    axes.set_title(shown(shape))
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: "")
