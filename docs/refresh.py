"""Take the figures of a study and of the benchmarks over into README.md, docs/benchmarks.md, docs/accuracy.md.

    rpcls study && python docs/refresh.py [rpcls-study]

Copies the study's table and picture to docs/study/, and rewrites what stands between the markers
`<!-- NAME:begin -->` and `<!-- NAME:end -->` of these pages. Without a folder it uses the table that is there already.
tests/test_readme.py fails when a page disagrees with the files.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

from rpcls.study.figures import solver_label
from rpcls.study.findings import Grid, grids, number, seconds
from rpcls.study.machine import describe_machine
from rpcls.study.methods import label_of
from rpcls.study.table import StudyTable, Summary

ROOT = Path(__file__).resolve().parent.parent
STUDY = ROOT / "docs" / "study"
RESULTS = ROOT / "benchmarks" / "results"
PAGES = ("README.md", "docs/benchmarks.md", "docs/accuracy.md")
RESULTS_SHOWN = (  # in docs/benchmarks.md
    "compress", "accuracy", "which_solver", "gpu", "adapters", "adam", "token_sketch",
)  # fmt: skip
SKETCH = "SparseSign(nnz_per_column=8)"
_TOLD = ("processor", "cores usable", "Python", "numpy", "scipy", "numba", "BLAS")


def take_over(folder: Path) -> None:
    """Copy results.csv and the picture of a study, and note the machine, which must be this one."""
    STUDY.mkdir(parents=True, exist_ok=True)
    for name in ("results.csv", "tradeoff.svg"):
        shutil.copyfile(folder / name, STUDY / name)
    facts = describe_machine()
    told = {name: facts[name] for name in _TOLD if name in facts}
    (STUDY / "machine.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def sections(page: str) -> dict[str, str]:
    """What belongs between the markers of a page, from the committed files alone."""
    if page == "docs/benchmarks.md":
        return {name: _result(name, page) for name in RESULTS_SHOWN}
    table = StudyTable.from_csv(STUDY / "results.csv")
    machine = json.loads((STUDY / "machine.json").read_text(encoding="utf-8"))
    summary = table.summary()
    if page == "docs/accuracy.md":
        return {"ladder": f"{_ladder(summary, table.targets)}\n\n{_about(machine)} Made by `rpcls study`."}
    solvers = _result("which_solver", page).split("\n\n")
    del solvers[1]  # the machine, which matters to timings only
    return {
        "errors": "\n\n".join(_errors(grid) for grid in grids(summary) if grid.sketch == SKETCH),
        "costs": f"{_costs(summary, table.targets)}\n\n{_about(machine)}",
        "map": "\n\n".join(solvers),
        "benchmarks": _result("compress", page).partition("\n\n## ")[0],  # the rest is for docs/benchmarks.md
        "accuracy": _result("accuracy", page).partition("\n\n## ")[0],
        "gpu": _card(_result("gpu", page).split("\n\n")),
    }


def rewritten(text: str, page: str) -> str:
    """A page with every section brought up to date."""
    for name, body in sections(page).items():
        pattern = rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)"
        text, count = re.subn(pattern, lambda match, body=body: f"{match[1]}{body}\n{match[2]}", text, flags=re.DOTALL)
        if count != 1:
            raise SystemExit(f"{page} needs exactly one pair of markers for {name!r}, has {count}")
    return text


def _result(name: str, page: str) -> str:
    """A file of benchmarks/results/, less its title, as part of a page: one heading lower, links from there."""
    text = (RESULTS / f"{name}.md").read_text(encoding="utf-8").strip().partition("\n\n")[2]
    folder = Path(os.path.relpath(RESULTS, (ROOT / page).parent)).as_posix()
    text = re.sub(r"\]\((?![a-z]+:|#)", f"]({folder}/", text)
    return text if page == "README.md" else re.sub(r"^## ", "### ", text, flags=re.MULTILINE)


def _card(parts: list[str]) -> str:
    """Sweeps, the map of solvers, and rows of the host."""
    shown = ("Written by", "card ", "Copy bandwidth", "| sweep", "| float64", "Which solver", "Compress under")
    return "\n\n".join(part for part in parts if part.startswith(shown))


def _errors(grid: Grid) -> str:
    lines = [f"| **{grid.target}**, d = | " + " | ".join(f"{ratio:.3g}n" for ratio in grid.ratios) + " |"]
    lines.append("| --- |" + " ---: |" * len(grid.ratios))
    best = [min(e for e in line if e is not None) for line in grid.errors]
    for i, solver in enumerate(grid.solvers):
        cells = [number(line[i]) for line in grid.errors]
        cells = [f"**{c}**" if line[i] == b else c for c, line, b in zip(cells, grid.errors, best, strict=True)]
        lines.append(f"| {solver_label(solver)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _costs(summary: list[Summary], targets: tuple[str, ...]) -> str:
    """Time of each method at d = 4n and memory at the largest d, on the first target: they hardly depend on it."""
    mine = [s for s in summary if s.target == targets[0] and s.seconds is not None]
    largest = max(s.d_over_n or 0.0 for s in mine)
    peaks = {(s.solver, s.sketch): s.peak_mib for s in mine if s.d_over_n in (None, largest)}
    lines = [
        f"| method | sweeps | first sweep | the rest | total | error ({targets[0]}) "
        f"| peak memory above A, d = {largest:.3g}n or its own |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    alone = [s for s in mine if s.d_over_n is None]
    alone.sort(key=lambda s: -s.error.median if s.error else 0.0)
    sketched = [s for s in mine if s.d_over_n is not None and abs(s.d_over_n - 4) < 0.01 and s.solver != "partial-raw"]
    for s in [*sorted(sketched, key=lambda s: s.sketch or ""), *alone]:
        name = solver_label(s.solver).split(" (")[0] + (f", {label_of(s.sketch)}" if s.sketch else "")
        size = "" if s.d_over_n is None else f", d = {s.d_over_n:.3g}n"
        peak = peaks.get((s.solver, s.sketch))
        sweep, solve = (None if v is None else v.median for v in (s.compress_seconds, s.solve_seconds))
        if sweep is None:
            solve = None
        total = s.seconds.median if s.seconds else None
        sweeps = "–" if s.sweeps is None else str(s.sweeps)
        cells = (sweeps, seconds(sweep), seconds(solve), seconds(total), number(s.error.median if s.error else None))
        lines.append(f"| {name}{size} | {' | '.join(cells)} | {'–' if peak is None else f'{peak:.0f} MiB'} |")
    return "\n".join(lines)


def _ladder(summary: list[Summary], targets: tuple[str, ...]) -> str:
    """Sweeps, time and error of every method that has no sketch size, on all targets."""
    by_target = {(s.solver, s.target): s for s in summary if s.d_over_n is None and s.error and s.seconds}
    names = [name for name, target in by_target if target == targets[0]]
    names.sort(key=lambda name: -by_target[name, targets[0]].error.median)  # type: ignore[union-attr]
    lines = [
        "| method | " + " | ".join(f"{t}: sweeps | time | error" for t in targets) + " |",
        "| --- |" + " ---: | ---: | ---: |" * len(targets),
    ]
    for name in names:
        cells = []
        for s in (by_target.get((name, target)) for target in targets):
            sweeps = "–" if s is None or s.sweeps is None else str(s.sweeps)
            time, error = (None, None) if s is None or not s.seconds or not s.error else (s.seconds, s.error)
            cells += [sweeps, seconds(time.median if time else None), number(error.median if error else None)]
        lines.append(f"| {solver_label(name)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _about(machine: dict[str, str]) -> str:
    cores = machine.get("cores usable", "?")
    versions = ", ".join(
        f"{name} {value}" for name, value in machine.items() if name not in ("processor", "cores usable")
    )
    return f"Medians, on {cores} cores of {machine.get('processor', 'an unknown processor')}; {versions}."


if __name__ == "__main__":
    if len(sys.argv) > 1 or (ROOT / "rpcls-study" / "results.csv").exists():
        take_over(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "rpcls-study")
    for name in PAGES:
        path = ROOT / name
        path.write_text(rewritten(path.read_text(encoding="utf-8"), name), encoding="utf-8")
