"""Take the figures of a study and of the benchmarks over into README.md.

    rpcls study && python docs/refresh.py [rpcls-study]

Copies the study's table and picture to docs/study/, and rewrites what stands between the markers
`<!-- NAME:begin -->` and `<!-- NAME:end -->` of README.md. Without a folder it uses the table that is there already.
tests/test_readme.py fails when README.md disagrees with the files.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

from rpcls.study.figures import solver_label
from rpcls.study.findings import Grid, grids, number, seconds
from rpcls.study.machine import describe_machine
from rpcls.study.methods import BASELINES, label_of
from rpcls.study.table import StudyTable, Summary

ROOT = Path(__file__).resolve().parent.parent
STUDY = ROOT / "docs" / "study"
BENCHMARKS = {"map": "which_solver", "benchmarks": "compress"}  # section of README.md: file in benchmarks/results/
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


def sections() -> dict[str, str]:
    """What belongs between the markers, from the committed files alone."""
    table = StudyTable.from_csv(STUDY / "results.csv")
    machine = json.loads((STUDY / "machine.json").read_text(encoding="utf-8"))
    summary = table.summary()
    found = {
        "errors": "\n\n".join(_errors(grid) for grid in grids(summary) if grid.sketch == SKETCH),
        "costs": f"{_costs(summary, table.targets)}\n\n{_about(machine)}",
    }
    for section, name in BENCHMARKS.items():
        path = ROOT / "benchmarks" / "results" / f"{name}.md"
        if path.exists():
            paragraphs = path.read_text(encoding="utf-8").strip().split("\n\n")[1:]  # less its title
            if section == "map":
                del paragraphs[1]  # the machine, which matters to timings only
            found[section] = "\n\n".join(paragraphs)
    return found


def rewritten(text: str) -> str:
    """README.md with every section brought up to date."""
    for name, body in sections().items():
        pattern = rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)"
        text, count = re.subn(pattern, lambda match, body=body: f"{match[1]}{body}\n{match[2]}", text, flags=re.DOTALL)
        if count != 1:
            raise SystemExit(f"README.md needs exactly one pair of markers for {name!r}, has {count}")
    return text


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
        f"| method | sweep | solve | total | error ({targets[0]}) | peak memory above A, d = {largest:.3g}n |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    exact = [s for s in mine if s.solver in BASELINES and s.d_over_n is None]
    sketched = [s for s in mine if s.d_over_n is not None and abs(s.d_over_n - 4) < 0.01 and s.solver != "partial-raw"]
    for s in [*exact, *sorted(sketched, key=lambda s: s.sketch or "")]:
        name = solver_label(s.solver).split(" (")[0] + (f", {label_of(s.sketch)}" if s.sketch else "")
        size = "" if s.d_over_n is None else f", d = {s.d_over_n:.3g}n"
        peak = peaks.get((s.solver, s.sketch))
        sweep, solve = (None if v is None else v.median for v in (s.compress_seconds, s.solve_seconds))
        if sweep is None:
            solve = None
        cells = (seconds(sweep), seconds(solve), seconds(s.seconds.median), number(s.error.median if s.error else None))
        lines.append(f"| {name}{size} | {' | '.join(cells)} | {'–' if peak is None else f'{peak:.0f} MiB'} |")
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
    readme = ROOT / "README.md"
    readme.write_text(rewritten(readme.read_text(encoding="utf-8")), encoding="utf-8")
