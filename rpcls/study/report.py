"""The report of a study: one HTML page that needs nothing else, not even a network."""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from .figures import draw, solver_label, write
from .findings import Grid, findings, grids, number, seconds
from .methods import label_of
from .table import Spread, StudyTable, Summary

__all__ = ["write_report"]

_CSS = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; color: #222; background: #fff;
  margin: 0 auto; max-width: 1180px; padding: 2rem 1.5rem 4rem; }
h1 { font-size: 1.7rem; margin: 0 0 .2rem; } h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; }
p, li { max-width: 75ch; } .sub { color: #666; margin-top: 0; }
.findings { background: #f6f8fa; border-left: 4px solid #D55E00; padding: .6rem 1.2rem; margin: 1.2rem 0; }
.findings li { margin: .3rem 0; max-width: 100ch; } .findings ul { padding-left: 1.2rem; }
.warn { background: #fff4e5; border-left: 4px solid #E69F00; padding: .6rem 1.2rem; }
figure { margin: 1rem 0; } figure img { width: 100%; height: auto; }
figcaption { color: #555; font-size: .9rem; max-width: 95ch; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; margin: .4rem 0; }
th, td { padding: .22rem .55rem; text-align: right; border-bottom: 1px solid #e6e6e6; white-space: nowrap; }
th { font-weight: 600; color: #444; border-bottom: 2px solid #bbb; vertical-align: bottom; }
th:first-child, td:first-child, td.text, th.text { text-align: left; }
th.narrow { white-space: normal; max-width: 5.2rem; }
td.best { font-weight: 700; background: #e8f3ec; } td.wrap { white-space: normal; min-width: 20rem; text-align: left; }
.range { color: #777; font-size: .85em; } .bad { color: #b00020; font-weight: 600; }
.pair { display: flex; flex-wrap: wrap; gap: 0 2.5rem; } .grids th, .grids td { padding: .25rem .5rem; }
details summary { cursor: pointer; color: #0b5394; margin: .6rem 0; }
code { background: #f2f2f2; padding: .1em .3em; border-radius: 3px; font-size: .9em; }
"""


def write_report(table: StudyTable, path: str | os.PathLike[str]) -> Path:
    """Write the page; see `StudyTable.report`."""
    path = Path(path)
    path.write_text(_page(table), encoding="utf-8")
    return path


def _page(table: StudyTable) -> str:
    summary = table.summary()
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>rpcls study: {escape(', '.join(table.targets))}</title><style>{_CSS}</style></head><body>",
        "<h1>Least squares from a sketch: error against time</h1>",
        f'<p class="sub">{escape(_subtitle(table))}</p>',
        _notices(table),
        _findings(table),
        _pictures(table),
        _grids(grids(summary)),
        _reading(),
        _summary_table(summary),
        _failures(table),
        _facts(table),
        _all_rows(table),
        "</body></html>",
    ]
    return "\n".join(part for part in parts if part)


def _subtitle(table: StudyTable) -> str:
    sizes = dict.fromkeys(f"{p.m:,} × {p.n:,} {p.dtype}".replace(",", "\u202f") for p in table.problems)
    targets = f"{'targets' if len(table.targets) != 1 else 'target'} {', '.join(table.targets) or 'none'}"
    return ", ".join(filter(None, [*sizes, targets, f"{len(table)} runs", table.machine.get("date", "")]))


def _notices(table: StudyTable) -> str:
    notices = []
    if table.interrupted:
        notices.append("The study was interrupted; this page shows what was finished.")
    if table.failures:
        notices.append(f"{len(table.failures)} of {len(table)} runs failed; they are listed below.")
    return f'<p class="warn">{escape(" ".join(notices))}</p>' if notices else ""


def _findings(table: StudyTable) -> str:
    items = "".join(f"<li><b>{escape(name)}</b>: {escape(sentence)}</li>" for name, sentence in findings(table))
    meaning = "Relative error is ‖A(x − x*)‖ / ‖Ax*‖ throughout; x* is the exact least-squares solution."
    return f'<div class="findings"><ul>{items}</ul><p>{meaning}</p></div>' if items else ""


def _pictures(table: StudyTable) -> str:
    if not any(row.relative_error is not None for row in table):
        return ""
    captions = {
        "size": (
            "Error against sketch size",
            "Median over the repeats; the band spans their range. The error of x = 0 is 1 (dotted line): above it, a "
            "method does worse than no answer at all. The SciPy transform is its own sketch and is repeated in every "
            "row for comparison.",
        ),
        "time": (
            "Error against time",
            "Every method at every sketch size: the larger the marker, the larger the sketch; thin bars span the "
            "repeats. On the broad grey line lie the methods that no other beats in both time and error. Diamonds on a "
            "line: sketch and precondition, stopped at the named certified error, and at full accuracy.",
        ),
    }
    out = []
    for kind, (title, caption) in captions.items():
        figure = draw(table, kind)
        image = io.BytesIO()
        write(figure, image, "svg")
        data = base64.b64encode(image.getvalue()).decode("ascii")
        out.append(
            f'<h2>{title}</h2><figure><img alt="{escape(title)}" src="data:image/svg+xml;base64,{data}">'
            f"<figcaption>{caption}</figcaption></figure>"
        )
    return "\n".join(out)


def _grids(found: Sequence[Grid]) -> str:
    if not found:
        return ""
    out = ["<h2>Who wins where</h2><p>Median relative error; the smallest in each line is marked.</p>"]
    for grid in found:
        head = "".join(f'<th class="narrow">{escape(solver_label(s))}</th>' for s in grid.solvers)
        lines = []
        for ratio, errors in zip(grid.ratios, grid.errors, strict=True):
            known = [e for e in errors if e is not None]
            cells = "".join(
                f"<td{' class=best' if e is not None and e == min(known) else ''}>{number(e)}</td>" for e in errors
            )
            lines.append(f"<tr><td>{ratio:.3g}n</td>{cells}</tr>")
        out.append(
            f'<div class="scroll"><h3>{escape(grid.target)}, {escape(label_of(grid.sketch))}</h3>'
            f"<table><thead><tr><th>d</th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
        )
    return f'{out[0]}<div class="pair grids">{"".join(out[1:])}</div>'


def _reading() -> str:
    return """<h2>How to read this</h2>
<ul>
<li><b>Relative error</b> says how far the fitted values are from the best ones: 0.1 means that a tenth of the signal is
lost, 1 is the error of x = 0. <b>Residual ratio</b> is ‖b − Ax‖ / ‖b − Ax*‖; on noisy data it can be close to 1 where
the error is large, because most of the residual is noise that no x removes.</li>
<li><b>d</b> is the number of rows of the sketch SA, in multiples of n, the number of columns of A.</li>
<li><b>Full</b> compression solves min ‖SAx − Sb‖: its error follows the <i>noise</i>, so it is good where R² is high.
<b>Partial</b> compression keeps Aᵀb exact: its error follows the <i>signal</i>, whatever the noise; “best-scaled”
multiplies its answer by (d−n)(d−n−3)/(d(d−1)). The <b>robust</b> forms of both expect SA to be wrong by some ρ, by
default chosen from the sketch alone; that keeps them useful at small d.
<b>Combined</b> weighs full against partial compression.</li>
<li><b>Precondition</b> goes back to the rows, with a sketch of its own choice, until ‖A(x − x*)‖ ≤ rtol·‖Ax*‖ is
certified, or without rtol until the backward error is rounding. <b>Refined normal equations</b> are AᵀAx = Aᵀb and a
second look at the rows. x* is known to more digits than float64 has (for condition numbers up to 10⁶).</li>
<li><b>Time</b> is the wall time of the sweep over A (“compress”) plus the solve. Solvers that share a sketch are each
charged with the whole sweep. The reference x*, loading and compilation are not counted.</li>
<li><b>Peak memory</b> is what a method allocated above the data at the largest sketch size: in a process of its own,
or, where the settings name a card as the device, by the growth of CuPy's memory pool there.</li>
</ul>"""


def _summary_table(summary: list[Summary]) -> str:
    if not summary:
        return ""
    columns = [
        "method",
        "sketch",
        "d",
        "error",
        "residual ratio",
        "compress",
        "solve",
        "total",
        "sweeps",
        "peak memory",
    ]
    head = "".join(f"<th>{c}</th>" if i > 1 else f'<th class="text">{c}</th>' for i, c in enumerate(columns))
    out = ["<h2>All methods</h2><p>Medians over the repeats, with the range of the errors and times.</p>"]
    for target in dict.fromkeys(s.target for s in summary):
        lines = "".join(_summary_line(s) for s in summary if s.target == target)
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"
        out.append(f'<h3>{escape(target)}</h3><div class="scroll">{table}</div>')
    return "\n".join(out)


def _summary_line(s: Summary) -> str:
    failed = f' <span class="bad">{s.failures} of {s.runs} failed</span>' if s.failures else ""
    odd = [status for status in s.statuses if status not in ("OK", "ERROR")]
    status = f' <span class="range">{escape(", ".join(odd))}</span>' if odd else ""
    cells = [
        escape(solver_label(s.solver)) + status + failed,
        escape(label_of(s.sketch)) if s.sketch else "",
        "" if s.sketch_size is None or s.d_over_n is None else f"{s.sketch_size} = {s.d_over_n:.3g}n",
        _spread(s.error, number),
        _spread(s.residual_ratio, _ratio, ranged=False),
        _spread(s.compress_seconds, seconds, ranged=False),
        _spread(s.solve_seconds, seconds, ranged=False),
        _spread(s.seconds, seconds),
        "" if s.sweeps is None else str(s.sweeps),
        "" if s.peak_mib is None else f"{s.peak_mib:,.0f} MiB" if s.peak_mib >= 10 else f"{s.peak_mib:.1f} MiB",
    ]
    return (
        "<tr>"
        + "".join(f"<td>{c}</td>" if i > 1 else f'<td class="text">{c}</td>' for i, c in enumerate(cells))
        + "</tr>"
    )


def _ratio(value: float) -> str:
    return f"{value:.3f}" if value < 100 else number(value)


def _spread(spread: Spread | None, form: Any, ranged: bool = True) -> str:
    if spread is None:
        return ""
    text = form(spread.median)
    if ranged and spread.low != spread.high:
        text += f' <span class="range">{form(spread.low).removesuffix(" s")}–{form(spread.high)}</span>'
    return text


def _failures(table: StudyTable) -> str:
    """Errors and warnings, each message once, with the methods that gave it."""
    groups: dict[str, list[str]] = {}
    for row in table:
        if row.message:
            size = "" if row.d_over_n is None else f" at {row.d_over_n:.3g}n"
            where = f"{solver_label(row.solver)}{f', {label_of(row.sketch)}' if row.sketch else ''}{size}"
            groups.setdefault(row.message, []).append(f"{row.target}: {where}")
    if not groups:
        return ""
    lines = "".join(
        f'<tr><td class="wrap">{escape(message)}</td>'
        f'<td class="wrap">{escape("; ".join(dict.fromkeys(where)))}</td></tr>'
        for message, where in groups.items()
    )
    return (
        '<h2>Failures, warnings, remarks</h2><div class="scroll"><table><thead><tr><th>message</th>'
        f'<th class="text">where</th></tr></thead><tbody>{lines}</tbody></table></div>'
    )


def _facts(table: StudyTable) -> str:
    problems = "".join(
        _pairs(
            f"Target {p.target}",
            {
                "rows × columns": f"{p.m:,} × {p.n:,}".replace(",", "\u202f"),
                "condition number of A": f"{p.condition:.4g}" + ("" if p.rank == p.n else f" (rank {p.rank})"),
                "R²": f"{p.r2:.4f}",
                "SNR ‖Ax*‖² / ‖b − Ax*‖²": "infinite (consistent)" if math.isinf(p.snr) else f"{p.snr:.3g}",
            },
            p.description,
        )
        for p in table.problems
    )
    return (
        f'<h2>Data, settings, machine</h2><div class="pair">{problems}</div><div class="pair">'
        f"{_pairs('Settings', dict(table.settings))}{_pairs('Machine and versions', dict(table.machine))}</div>"
    )


def _pairs(title: str, facts: dict[str, str], note: str = "") -> str:
    if not facts:
        return ""
    lines = "".join(f'<tr><td>{escape(k)}</td><td class="text">{escape(v)}</td></tr>' for k, v in facts.items())
    words = f'<p style="max-width: 32rem">{escape(note)}</p>' if note else ""
    return f"<div><h3>{escape(title)}</h3>{words}<table>{lines}</table></div>"


def _all_rows(table: StudyTable) -> str:
    names = [
        "target", "solver", "sketch", "sketch_size", "seed", "compress_seconds", "solve_seconds", "sweeps",
        "relative_error", "residual_ratio", "status",
    ]  # fmt: skip
    head = "".join(f"<th>{name}</th>" for name in names)
    lines = "".join(f"<tr>{_cells(getattr(row, name) for name in names)}</tr>" for row in table)
    return (
        f'<details><summary>All {len(table)} runs</summary><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div></details>"
    )


def _cells(values: Iterable[Any]) -> str:
    def text(value: Any) -> str:
        if value is None:
            return ""
        return f"{value:.4g}" if isinstance(value, float) else escape(str(value))

    return "".join(f"<td>{text(value)}</td>" for value in values)
