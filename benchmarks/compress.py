"""One sweep against its peers: compress and the whole one-pass solve, in reads of A.

    python benchmarks/compress.py [--quick] [--shapes 500000x256,...] [--csr 1000000x1000] [--parts csr,...]

writes compress.json, compress.md and compress.svg to benchmarks/results/, or, if any option makes it less than the
whole benchmark, to a temporary folder. One read is a multi-threaded np.dot(f, f) over the entries of A,
measured in the same rounds; times are medians, jobs run in turn. About ten minutes and 6 GiB of memory.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import dense
import figure
import processes
import report
import sparse_rows
import targets
from harness import RESULTS, write

COMMAND = "python benchmarks/compress.py"
PARTS = ("dense", "csr", "families", "memory", "process")
SHAPES = ((1_000_000, 64), (500_000, 256), (100_000, 1000))
CSR = (10_000_000, 1000)
QUICK_SHAPES = ((50_000, 64), (20_000, 256), (10_000, 1000))
QUICK_CSR = (100_000, 1000)


def shape_of(text: str) -> tuple[int, int]:
    m, n = map(int, text.split("x"))
    return m, n


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--shapes", help="of dense A, such as 20000x64,20000x256; d = 4n; where A fits the cache, a read means little"
    )
    parser.add_argument("--csr", help="shape of the sparse A")
    parser.add_argument(
        "--quick", action="store_true", help="small shapes, three repeats, no LAPACK: does it still run?"
    )
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--redraw", action="store_true", help="measure nothing: tables and figure from compress.json")
    parser.add_argument("--out", type=Path, help="folder to write to")
    return parser.parse_args()


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    quick = asked.quick
    repeats = 3 if quick else 7
    shapes = [shape_of(text) for text in asked.shapes.split(",")] if asked.shapes else QUICK_SHAPES if quick else SHAPES
    csr = shape_of(asked.csr) if asked.csr else QUICK_CSR if quick else CSR
    parts = asked.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        raise SystemExit(f"--parts must be some of {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    data: dict[str, Any] = {"seconds_in_all": {}}
    began = time.perf_counter()

    def done(what: str) -> None:
        nonlocal began
        gc.collect()
        data["seconds_in_all"][what] = round(time.perf_counter() - began, 1)
        print(f"{what}: {data['seconds_in_all'][what]} s in all", flush=True)
        began = time.perf_counter()

    for m, n in shapes if "dense" in parts else ():
        data.setdefault("dense", {})[f"{m}x{n}"] = dense.against_peers(m, n, repeats, quick)
        done(f"dense {m}x{n}")
    if "csr" in parts:
        data["csr"] = sparse_rows.against_peers(*csr, repeats)
        done(f"csr {csr[0]}x{csr[1]}")
    if "families" in parts:
        data["families"] = dense.all_families(*shapes[0], repeats)
        done("families")
    if "memory" in parts:
        data["peak_MiB"] = {f"{m}x{n}": processes.peak_mib(m, n) for m, n in shapes}
        if "csr" in parts:
            data["peak_MiB_csr"] = {f"{csr[0]}x{csr[1]}": processes.peak_mib(*csr, csr=True)}
        done("memory")
    if "process" in parts:
        data["milliseconds"] = processes.milliseconds()
        done("process")
    return data


def main() -> None:
    asked = arguments()
    whole = not (asked.quick or asked.shapes or asked.csr or asked.parts != ",".join(PARTS))
    folder = asked.out or (RESULTS if whole else Path(tempfile.gettempdir()) / "rpcls-benchmarks")
    if asked.redraw:
        data = json.loads((folder / "compress.json").read_text())
        about = data.pop("machine")
        if "seconds_in_all" not in data:
            raise SystemExit(f"{folder / 'compress.json'} was written by an older benchmark; measure again")
        del data["command"]
    else:
        data, about = measure(asked), None
    data["checks"] = [{**check._asdict(), "met": check.met} for check in targets.checks(data)]
    text = report.render(data)
    if "dense" in data:
        folder.mkdir(parents=True, exist_ok=True)
        figure.draw(data, folder / "compress.svg")
    write("compress", COMMAND, "One sweep against its peers", data, text, folder, about)


if __name__ == "__main__":
    main()
