"""What the benchmarks share: timing in reads of A, peak memory in a child process, and the results file."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

RESULTS = Path(__file__).parent / "results"
_QUIET = 0.2  # seconds in which the threads of an earlier BLAS call stop spinning: OpenBLAS's do for 0.11 s


class Timed(NamedTuple):
    """What one round of jobs over one matrix took."""

    read: float  # seconds of a plain read of the matrix, median
    fastest: float  # and the fastest of them
    seconds: dict[str, list[float]]  # job → wall times, in the order of the rounds

    def as_data(self) -> dict[str, Any]:
        """For the results file."""
        return {"read_seconds": self.read, "fastest_read_seconds": self.fastest, "seconds": self.seconds}


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def median(times: list[float]) -> float:
    return sorted(times)[len(times) // 2]


def in_turn(
    A: np.ndarray,
    jobs: Mapping[str, Callable[[], Any]],
    repeats: int,
    budget: float = 4.0,
    once: Iterable[str] = (),
) -> Timed:
    """Time jobs in turn, round after round, so that whatever else the machine does falls on all of them alike.

    Every job warms up once, apart; one that would take more than `budget` seconds for all repeats gets fewer, at
    least three. Those named in `once` run once, cold. Between jobs there is a pause, and every round begins with
    plain reads of A, whose median is the unit: like the jobs, a read is faster or slower from one round to the next.
    """
    flat = A.reshape(-1) if A.flags.c_contiguous else A.T.reshape(-1)
    once = set(once)
    runs: dict[str, int] = {}
    for name, job in jobs.items():
        if name in once:
            runs[name] = 1
        else:
            took = _seconds(job)
            runs[name] = repeats if repeats <= 3 else int(np.clip(budget / took, 3, repeats))
    reads: list[float] = []
    times: dict[str, list[float]] = {name: [] for name in jobs}
    np.dot(flat, flat)
    for turn in range(max(runs.values(), default=0)):
        reads += (_seconds(lambda: np.dot(flat, flat), pause=0.0) for _ in range(3))
        for name, job in jobs.items():
            if turn < runs[name]:
                times[name].append(_seconds(job))
    read = median(reads)
    for name, taken in times.items():
        print(f"  {name}: {median(taken) * 1e3:.1f} ms, {median(taken) / read:.2f} reads", flush=True)
    return Timed(read, min(reads), times)


def _seconds(job: Callable[[], Any], pause: float = _QUIET) -> float:
    time.sleep(pause)
    began = time.perf_counter()
    job()
    return time.perf_counter() - began


def peak_bytes(setup: str, work: str) -> int:
    """How far `work` raises the peak memory of a fresh process above what stands after `setup` (and its garbage)."""
    program = f"""
import ctypes, gc
{setup}
gc.collect()
try:
    ctypes.CDLL(None).malloc_trim(0)  # what the allocator kept of the garbage must not hide what `work` needs
except (OSError, AttributeError):
    pass
def now():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
open("/proc/self/clear_refs", "w").write("5")
before = now()
{work}
print(now() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the child process that measures memory failed:\n{done.stderr}")
    return int(done.stdout.split()[-1])


def machine() -> dict[str, Any]:
    """The machine and the versions behind a results file."""
    from importlib.metadata import version

    import rpcls

    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    packages = ("numpy", "scipy", "numba", "scikit-learn")
    return {
        "processor": model,
        "cores": cores(),
        "python": platform.python_version(),
        "rpcls": rpcls.__version__,
        **{package: version(package) for package in packages},
    }


def table(header: list[str], rows: Iterable[Iterable[Any]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "| " + " | ".join("---" for _ in header) + " |"]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def write(
    name: str,
    command: str,
    title: str,
    data: dict[str, Any],
    text: str,
    folder: Path = RESULTS,
    about: dict[str, Any] | None = None,
    *,
    tell: bool = True,
) -> None:
    """NAME.json with everything and NAME.md to read, in benchmarks/results/ unless another folder is given.

    `about` is the machine of the figures, by default this one. `tell` prints the text, too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    about = about or machine()
    (folder / f"{name}.json").write_text(json.dumps({"command": command, "machine": about, **data}, indent=1) + "\n")
    stamp = ", ".join(f"{key} {value}" for key, value in about.items())
    (folder / f"{name}.md").write_text(f"# {title}\n\nWritten by `{command}`.\n\n{stamp}\n\n{text}\n")
    if tell:
        print(f"\n{text}\n\nwritten: {folder / name}.md and .json")
