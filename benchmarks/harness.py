"""What the benchmarks share: timing in reads of A, peak memory in a child process, and the results file."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"


def seconds(work: Callable[[], Any], repeats: int = 5, warm_up: int = 1) -> list[float]:
    """Wall times of `work`, warm-up apart, sorted."""
    for _ in range(warm_up):
        work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return sorted(times)


def median(times: list[float]) -> float:
    return times[len(times) // 2]


def one_read(A: np.ndarray, repeats: int = 9) -> float:
    """Seconds of the fastest multi-threaded np.dot(f, f) over A's memory: the unit of every table."""
    flat = A.reshape(-1) if A.flags.c_contiguous else A.T.reshape(-1)
    return seconds(lambda: np.dot(flat, flat), repeats)[0]


def peak_bytes(setup: str, work: str) -> int:
    """How far `work` raises the peak memory of a fresh process above what stands after `setup` (and its garbage)."""
    program = f"""
import gc, resource
{setup}
gc.collect()
def now():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
open("/proc/self/clear_refs", "w").write("5")
before = now()
{work}
print(now() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def machine() -> dict[str, Any]:
    """The machine and the versions behind a results file."""
    from importlib.metadata import version

    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    packages = ("rpcls", "numpy", "scipy", "numba", "scikit-learn")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": model,
        "cores": cores,
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def table(header: list[str], rows: Iterable[Iterable[Any]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "| " + " | ".join("---" for _ in header) + " |"]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def write(name: str, command: str, title: str, data: dict[str, Any], text: str) -> None:
    """results/NAME.json with everything, results/NAME.md to read."""
    RESULTS.mkdir(exist_ok=True)
    about = machine()
    (RESULTS / f"{name}.json").write_text(json.dumps({"command": command, "machine": about, **data}, indent=1) + "\n")
    stamp = ", ".join(f"{key} {value}" for key, value in about.items())
    (RESULTS / f"{name}.md").write_text(f"# {title}\n\nWritten by `{command}`.\n\n{stamp}\n\n{text}\n")
    print(f"\n{text}\n\nwritten: {RESULTS / name}.md and .json")
