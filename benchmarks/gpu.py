"""Sweeps and solvers on an NVIDIA card, beside the copy bandwidth that the card has in the same run.

    python benchmarks/gpu.py [--quick]

Needs CuPy and a card. Kernels are timed by device events after a warm-up, whole calls by the wall clock; medians.
Bandwidths count the bytes of A once for each sweep, those of a copy twice: read and written.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from harness import RESULTS, median, table, write

import rpcls
from rpcls.sketches.device import sweep
from rpcls.sources import source_of

COMMAND = "python benchmarks/gpu.py"
TALL, MIDDLE, WIDE = (16_000_000, 256), (4_000_000, 256), (400_000, 2000)  # float32, float64, float64
WANTED = {"CountSketch": 0.60, "SparseSign(8)": 0.30, "gradient": 0.80, "AᵀAp": 0.80}  # of the copy bandwidth
REPEATS = 7


def card(cp: Any) -> dict[str, Any]:
    """The card, its driver and the versions behind a results file."""
    told = cp.cuda.runtime.getDeviceProperties(cp.cuda.Device().id)
    return {
        "card": told["name"].decode(),
        "memory GiB": round(told["totalGlobalMem"] / 2**30),
        "driver": cp.cuda.runtime.driverGetVersion(),
        "CUDA": cp.cuda.runtime.runtimeGetVersion(),
        "python": platform.python_version(),
        **{package.__name__: package.__version__ for package in (rpcls, np, cp)},
    }


def event_seconds(cp: Any, job: Callable[[], Any]) -> list[float]:
    """Times of a job by events of the card, after one warm-up."""
    job()
    begin, end = cp.cuda.Event(), cp.cuda.Event()
    times = []
    for _ in range(REPEATS):
        begin.record()
        job()
        end.record()
        end.synchronize()
        times.append(cp.cuda.get_elapsed_time(begin, end) * 1e-3)
    return times


def wall_seconds(cp: Any, job: Callable[[], Any], repeats: int = 3) -> list[float]:
    job()
    times = []
    for _ in range(repeats):
        cp.cuda.Device().synchronize()
        began = time.perf_counter()
        job()
        cp.cuda.Device().synchronize()
        times.append(time.perf_counter() - began)
    return times


def copy_bandwidth(cp: Any, count: int) -> float:
    """Bytes a second, read and written, of a copy of `count` bytes on the card."""
    a, b = cp.zeros(count // 4, cp.float32), cp.empty(count // 4, cp.float32)
    return 2 * a.nbytes / median(event_seconds(cp, lambda: cp.copyto(b, a)))


def rows(cp: Any, shape: tuple[int, int], dtype: Any) -> tuple[Any, Any]:
    """Normal rows and a right-hand side with signal and noise, a block at a time."""
    m, n = shape
    draw = cp.random.default_rng(0)
    A, b, x = cp.empty(shape, dtype), cp.empty(m, dtype), cp.asarray(np.ones(n, dtype))
    for i in range(0, m, 1 << 18):
        A[i : i + (1 << 18)] = draw.standard_normal((min(1 << 18, m - i), n), dtype=dtype)
        b[i : i + (1 << 18)] = A[i : i + (1 << 18)] @ x + draw.standard_normal(min(1 << 18, m - i), dtype=dtype)
    return A, b


def sweeps(cp: Any, shape: tuple[int, int]) -> tuple[dict[str, list[float]], int]:
    """Seconds of the sweeps over float32 rows, and the bytes of A."""
    A, b = rows(cp, shape, cp.float32)
    source = source_of(A, b)
    x = np.ones(shape[1])
    jobs: dict[str, Callable[[], Any]] = {
        "CountSketch": lambda: sweep(rpcls.CountSketch().sample(4 * shape[1], rng=0), A, b[:, None], None, 0),
        "SparseSign(8)": lambda: sweep(rpcls.SparseSign().sample(4 * shape[1], rng=0), A, b[:, None], None, 0),
        "gradient": lambda: source.gradient(x),
        "AᵀAp": lambda: source.normal(x[:, None]),
    }
    return {name: event_seconds(cp, job) for name, job in jobs.items()}, A.nbytes


def normal_equations(cp: Any, A: Any, b: Any) -> Any:
    L = cp.linalg.cholesky(A.T @ A)
    return cp.linalg.solve(L.T, cp.linalg.solve(L, A.T @ b))


def solvers(cp: Any, shape: tuple[int, int]) -> tuple[dict[str, list[float]], int]:
    """Seconds of whole solves of float64 rows, and the bytes of A; a peer that has no room is left out."""
    A, b = rows(cp, shape, cp.float64)
    robust = rpcls.RobustPartiallyCompressed(0.1)
    jobs: dict[str, Callable[[], Any]] = {
        "robust-partial, CountSketch": lambda: rpcls.lstsq(A, b, robust, sketch=rpcls.CountSketch(), rng=0),
        "precondition": lambda: rpcls.lstsq(A, b, "precondition"),
        "normal equations, CuPy": lambda: normal_equations(cp, A, b),
        "lstsq, CuPy": lambda: cp.linalg.lstsq(A, b, rcond=None),
    }
    taken = {}
    for name, job in jobs.items():
        try:
            taken[name] = wall_seconds(cp, job, 1 if name == "lstsq, CuPy" else 3)
        except cp.cuda.memory.OutOfMemoryError:
            print(f"  {name}: no room on this card")
        cp.get_default_memory_pool().free_all_blocks()
    return taken, A.nbytes


def report(copy: float, swept: tuple[dict[str, list[float]], int], solved: dict[str, Any]) -> str:
    """What the results file says: sweeps as shares of the copy bandwidth, solves in reads of A at it."""
    times, size = swept
    lines = [
        [name, f"{median(t) * 1e3:.2f} ms", f"{size / median(t) / copy:.0%}", f"{WANTED[name]:.0%}"]
        for name, t in times.items()
    ]
    text = table(["sweep, float32", "time", "share of the copy bandwidth", "wanted"], lines)
    parts = [f"Copy bandwidth {copy / 1e9:.0f} GB/s.", text]
    for shape, (taken, held) in solved.items():
        lines = [[name, f"{median(t) * 1e3:.1f} ms", f"{median(t) * copy / held:.1f}"] for name, t in taken.items()]
        parts.append(table([f"solve, float64, {shape}", "time", "reads of A"], lines))
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a hundredth of the rows, into a temporary folder")
    quick = parser.parse_args().quick
    try:
        import cupy as cp

        about = card(cp)
    except ImportError:
        sys.exit("benchmarks/gpu.py needs CuPy: pip install cupy-cuda12x or cupy-cuda13x, by what nvidia-smi shows")
    except Exception as error:
        sys.exit(f"benchmarks/gpu.py needs an NVIDIA card that CuPy can use: {error}")
    small = 100 if quick else 1
    copy = copy_bandwidth(cp, (4 << 30) // small)
    print(f"copy bandwidth {copy / 1e9:.0f} GB/s", flush=True)
    swept = sweeps(cp, (TALL[0] // small, TALL[1]))
    cp.get_default_memory_pool().free_all_blocks()
    solved = {f"{m // small:,} × {n}": solvers(cp, (m // small, n)) for m, n in (MIDDLE, WIDE)}
    data = {"copy_bytes_per_second": copy, "sweeps": swept[0], "bytes": swept[1], "solves": solved}
    folder = Path(tempfile.mkdtemp()) if quick else RESULTS
    write("gpu", COMMAND, "Sweeps and solvers on a card", data, report(copy, swept, solved), folder, about)


if __name__ == "__main__":
    main()
