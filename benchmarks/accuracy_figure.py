"""The picture of accuracy.json: backward error against time, one panel a shape."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from answers import AUTO, CG, GELSD, GELSY, GRAM, INTELEX, NE, NUMPY, OWN_NORMAL, RTOL, SKLEARN
from figure import STYLE
from harness import median
from report import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# colours of Okabe and Ito for rpcls, greys for the others; the marker tells them apart without colour
_LOOKS: dict[str, tuple[str, str, float]] = {
    AUTO: ("#D55E00", "o", 11),
    RTOL: ("#CC79A7", "D", 7),
    GRAM: ("#0072B2", "s", 7),
    CG: ("#009E73", "^", 7.5),
    OWN_NORMAL: ("#E69F00", "v", 7.5),
    NE: ("#222222", "X", 8),
    INTELEX: ("#777777", "P", 8),
    GELSD: ("#555555", "<", 7),
    GELSY: ("#555555", ">", 7),
    NUMPY: ("#999999", "h", 7),
    SKLEARN: ("#999999", "p", 7),
}
_NO_ANSWER = 3.0  # where an answer that does not exist is drawn
_LEVELS = {"3e2": "hollow: condition number 300", "1e12": "filled: condition number 10¹²"}


def draw(data: dict[str, Any], path: Path) -> None:
    """Write the picture; the format follows the file's name."""
    import matplotlib
    from matplotlib.figure import Figure

    shapes = data["speed"]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1.6 + 3.6 * len(shapes), 4.6), layout="constrained")
        panels = figure.subplots(1, len(shapes), squeeze=False, sharey=True)[0]
        for axes, (shape, conditions) in zip(panels, shapes.items(), strict=True):
            _panel(axes, shape, conditions)
        panels[0].set_ylabel("backward error, relative")
        panels[len(panels) // 2].set_xlabel("seconds", fontsize=9.5)  # above the legend, which lies outside
        handles, names = panels[-1].get_legend_handles_labels()
        figure.legend(
            handles, names, loc="outside lower center", ncols=6, frameon=False, fontsize=8.5, handletextpad=0.2,
            title="; ".join(_LEVELS.values()), title_fontsize=8.5,
        )  # fmt: skip
        figure.savefig(path, facecolor="white", metadata={"Date": None} if path.suffix == ".svg" else None)


def _panel(axes: Axes, shape: str, conditions: dict[str, Any]) -> None:
    for label, part in conditions.items():
        for name, (colour, marker, size) in _LOOKS.items():
            if name not in part["seconds"]:
                continue
            error = part["answers"][name]["backward"]
            filled = label == "1e12"
            axes.plot(
                [median(part["seconds"][name])],
                [_NO_ANSWER if error is None else max(error, 1e-18)],
                marker,
                ms=size,
                mec=colour,
                mfc=colour if filled else "none",
                mew=1.3,
                alpha=0.9,
                ls="none",
                label=name if filled else None,
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(3e-19, 30)  # the least that is drawn, and no marker cut
    axes.axhline(2.0**-53, color="#222222", lw=0.8, ls=(0, (4, 3)))
    ticks = [1e-16, 1e-12, 1e-8, 1e-4, 1.0]
    axes.set_yticks(ticks)
    axes.grid(which="major")
    axes.set_title(shown(shape))
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: "")
