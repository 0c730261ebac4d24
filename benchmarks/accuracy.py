"""Full accuracy against LAPACK, the normal equations, scikit-learn and lsmr: time and backward error.

    python benchmarks/accuracy.py [--quick] [--parts speed,families,nist,sparse] [--redraw]

writes accuracy.json, accuracy.md and accuracy.svg to benchmarks/results/, or, if any option makes it less than the
whole benchmark, to a temporary folder. About half an hour, most of it the peers', and 6 GiB of memory. Into a folder
named by --out, parts may be measured one by one: those left out stay as accuracy.json there has them.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import accuracy_figure
import accuracy_report
import accuracy_targets
import hard_problems
import sparse_solve
import speed
from answers import intelex
from harness import RESULTS, write

COMMAND = "python benchmarks/accuracy.py"
PARTS = ("speed", "families", "nist", "sparse")
SHAPES = ((1_000_000, 64), (500_000, 256), (100_000, 1000))
HARD, SEEDS = (4000, 60), range(10)
SPARSE = (3_000_000, 1000)
QUICK_SHAPES = ((20_000, 16),)
QUICK_HARD, QUICK_EVERY = (800, 20), 8
QUICK_SPARSE = (30_000, 100)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small problems, few of them: does it still run?")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--redraw", action="store_true", help="measure nothing: tables and figure from accuracy.json")
    parser.add_argument("--out", type=Path, help="folder to write to")
    return parser.parse_args()


def measure(parts: list[str], quick: bool) -> dict[str, Any]:
    if unknown := set(parts) - set(PARTS):
        raise SystemExit(f"--parts must be some of {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    repeats = 1 if quick else 5
    data: dict[str, Any] = {"notes": [], "seconds_in_all": {}}
    if intelex() is None:
        data["notes"].append("scikit-learn-intelex is not installed, and so is not in the tables.")
    began = time.perf_counter()

    def done(what: str) -> None:
        nonlocal began
        gc.collect()
        data["seconds_in_all"][what] = round(time.perf_counter() - began, 1)
        print(f"{what}: {data['seconds_in_all'][what]} s in all", flush=True)
        began = time.perf_counter()

    for m, n in (QUICK_SHAPES if quick else SHAPES) if "speed" in parts else ():
        for label, condition in speed.CONDITIONS.items():
            part = speed.compared(m, n, condition, repeats)
            data.setdefault("speed", {}).setdefault(f"{m}x{n}", {})[label] = part
            done(f"speed {m}x{n}, {label}")
    if "sparse" in parts:
        data["sparse"] = sparse_solve.against_lsmr(*(QUICK_SPARSE if quick else SPARSE), repeats)
        done("sparse")
    if "nist" in parts:
        data["nist"] = hard_problems.reference_sets()
        done("nist")
    if "families" in parts:
        shape, seeds, every = (QUICK_HARD, range(1), QUICK_EVERY) if quick else (HARD, SEEDS, 1)
        data["families"] = hard_problems.all_families(*shape, seeds, every)
        done("families")
    return data


def main() -> None:
    asked = arguments()
    whole = not asked.quick and asked.parts == ",".join(PARTS)
    folder = asked.out or (RESULTS if whole else Path(tempfile.gettempdir()) / "rpcls-benchmarks")
    if asked.redraw:
        data = json.loads((folder / "accuracy.json").read_text(encoding="utf-8"))
        about = data.pop("machine")
        del data["command"]
    else:
        data, about = measure(asked.parts.split(","), asked.quick), None
    if asked.out and not asked.redraw and (asked.out / "accuracy.json").exists():
        before = json.loads((asked.out / "accuracy.json").read_text(encoding="utf-8"))
        data["seconds_in_all"] = {**before["seconds_in_all"], **data["seconds_in_all"]}
        data = {**{part: before[part] for part in PARTS if part in before}, **data}
    data["checks"] = [{**check._asdict(), "met": check.met} for check in accuracy_targets.checks(data)]
    text = accuracy_report.render(data)
    folder.mkdir(parents=True, exist_ok=True)
    if "speed" in data:
        accuracy_figure.draw(data, folder / "accuracy.svg")
    write("accuracy", COMMAND, "Full accuracy, and what it costs", data, text, folder, about)


if __name__ == "__main__":
    main()
