"""The picture of adapters_real.json: held-out share against parameters, and against seconds beside Adam."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from figure import STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# colours of Okabe and Ito; a family keeps its marker, so that it is found without colour too
_LOOKS: dict[str, tuple[str, str]] = {
    "LoRA": ("#D55E00", "o"),
    "MELoRA": ("#D55E00", "s"),
    "LoRAXS": ("#D55E00", "^"),
    "LoRETTA": ("#D55E00", "D"),
    "LoRTA": ("#D55E00", "v"),
    "AdaMix": ("#D55E00", "P"),
    "LoHa": ("#CC79A7", "o"),
    "VeRA": ("#0072B2", "o"),
    "NOLA": ("#0072B2", "s"),
    "RandLoRA": ("#0072B2", "^"),
    "SpaRTA": ("#009E73", "o"),
    "SaRA": ("#009E73", "s"),
    "DynamicSubset": ("#009E73", "^"),
    "FourierFT": ("#E69F00", "o"),
    "C3A": ("#E69F00", "s"),
    "FineGates": ("#56B4E9", "o"),
    "ETHERPlus": ("#56B4E9", "s"),
    "truncated SVD": ("#777777", "X"),
    "EoRA": ("#222222", "x"),
}


def draw(data: dict[str, Any], path: Path) -> None:
    """Write the picture; the format follows the file's name."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(12, 8.4), layout="constrained")
        above, below = figure.subfigures(2, 1, height_ratios=[1.5, 1])
        _by_parameters(above.subplots(), data["families"])
        panels = below.subplots(1, len(data["descents"]), squeeze=False)[0]
        for axes, (name, part) in zip(panels, data["descents"].items(), strict=True):
            _by_seconds(axes, name, part)
        panels[0].set_ylabel("explained, held-out")
        panels[-1].legend(frameon=False, fontsize=8.5, loc="lower right")
        figure.savefig(path, facecolor="white", metadata={"Date": None} if path.suffix == ".svg" else None)


def _by_parameters(axes: Axes, rows: list[dict[str, Any]]) -> None:
    for label, (colour, marker) in _LOOKS.items():
        its = sorted((r["parameters"], r["explained"]) for r in rows if r["label"] == label)
        if its:
            x, y = zip(*its, strict=True)
            width = 2.0 if label == "LoRA" else 1.0
            hollow = "none" if label == "EoRA" else colour
            axes.plot(x, y, marker=marker, color=colour, mfc=hollow, lw=width, ms=7 if width > 1 else 5.5, label=label)
    lowest = min(r["explained"] for r in rows if r["label"] in _LOOKS)
    axes.set(xscale="log", xlabel="parameters", ylabel="explained, held-out", ylim=(min(-0.02, lowest - 0.01), None))
    axes.set_title("A rounding error of 3 bits in an attention matrix: what adapters make up for")
    axes.grid(which="major")
    axes.legend(ncols=1, frameon=False, fontsize=8.5, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _by_seconds(axes: Axes, name: str, part: dict[str, Any]) -> None:
    for (kind, run), (colour, marker) in zip(part["adam"].items(), (("#555555", "s"), ("#999999", "^")), strict=True):
        axes.plot(run["seconds"], run["explained"], marker=marker, color=colour, ms=4, label=f"Adam, {kind}")
    own = part["rpcls"]
    axes.plot(
        own["seconds"], own["explained"], marker="o", color="#D55E00", ms=5, lw=1.8, label="rpcls, C and R included"
    )
    axes.set(xscale="log", xlabel="seconds", ylim=(0, None))
    axes.set_title(name)
    axes.grid(which="major")
