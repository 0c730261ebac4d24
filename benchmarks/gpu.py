"""Sweeps, solvers and adapter fits on an NVIDIA card, beside the copy bandwidth that the card has in the same run.

    python benchmarks/gpu.py [--quick]

Needs CuPy and a card; torch is one more peer where it is installed. Sweeps are timed by events of the card after a
warm-up, whole calls by the wall clock; medians. Bandwidths count the bytes of A once for each sweep, those of a copy
twice: read and written. The results file is written after every part, so that a run that is cut off keeps what it has.
"""

from __future__ import annotations

import argparse
import functools
import platform
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gpu_targets import targets
from harness import RESULTS, median, table, write

import rpcls
from rpcls.adapters import NOLA, Family, LayerStatistics, LoRA, RandLoRA, VeRA, fit
from rpcls.kernels.cuda import sweeps as kernels
from rpcls.sources import source_of

COMMAND = "python benchmarks/gpu.py"
TALL, MIDDLE, WIDE = (16_000_000, 256), (4_000_000, 256), (400_000, 2000)  # float32, float64, float64
CONDITION = 1e10
WANTED = {"CountSketch": 0.60, "SparseSign(8)": 0.30, "gradient": 0.80, "AᵀAp": 0.80}  # of the copy bandwidth
REPEATS = 7
SLOW = 20  # seconds of a peer's first call after which there is no other
ROBUST, QR_LEVEL, NORMAL = "robust-partial, CountSketch", "precondition", "normal equations, CuPy"
DIRECT = "direct"
PEERS = ("lstsq, CuPy", "lstsq, torch")
QUARTER = "lstsq, CuPy, a quarter of the rows"  # it refuses all of them
FAMILIES: tuple[Family, ...] = (VeRA(256), LoRA(16), NOLA(1024, 1024, 16), RandLoRA(32))
FEATURES = 4096
HOST_BLOCK = 4 << 30  # bytes of pinned host memory that are copied to the card again and again


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


def rows(cp: Any, shape: tuple[int, int], dtype: Any, condition: float = 1.0) -> tuple[Any, Any]:
    """Normal rows, times a matrix of that condition number, and a right-hand side with signal and noise."""
    m, n = shape
    draw = cp.random.default_rng(0)
    A, b, x = cp.empty(shape, dtype), cp.empty(m, dtype), cp.ones(n, dtype)
    mix = None
    if condition > 1:
        U, V = (cp.linalg.qr(draw.standard_normal((n, n)))[0] for _ in range(2))
        mix = (U * cp.logspace(0, -np.log10(condition), n)) @ V
    for i in range(0, m, 1 << 18):
        block = draw.standard_normal((min(1 << 18, m - i), n), dtype=dtype)
        A[i : i + (1 << 18)] = block if mix is None else block @ mix
        noise = draw.standard_normal(len(block), dtype=dtype)
        b[i : i + (1 << 18)] = A[i : i + (1 << 18)] @ x + (noise if mix is None else 1e-3 * noise)
    return A, b


def free(cp: Any) -> None:
    cp.get_default_memory_pool().free_all_blocks()
    if "torch" in sys.modules:
        sys.modules["torch"].cuda.empty_cache()


def note(failed: dict[str, str], name: str, error: Exception) -> None:
    """For the end of the report; called where the error is handled."""
    traceback.print_exc()
    failed[name] = f"{type(error).__name__}: {error}"


def sweeps(cp: Any, shape: tuple[int, int], failed: dict[str, str]) -> dict[str, Any]:
    """Seconds of the sweeps over float32 rows, and the bytes of A; what failed goes into `failed`."""
    A, b = rows(cp, shape, cp.float32)
    source = source_of(A, b)
    held = kernels.Rows(A, b[:, None], None, 0, (1.0, 1.0))
    x, d = np.ones(shape[1]), 4 * shape[1]
    jobs: dict[str, Callable[[], Any]] = {
        "CountSketch": lambda: kernels.sparse_sign(held, 1, d, 1),
        "gradient": lambda: source.gradient(x),
        "AᵀAp": lambda: source.normal(x[:, None]),
        "SparseSign(8)": lambda: kernels.sparse_sign(held, 1, d, 8),
    }
    seconds = {}
    for name, job in jobs.items():
        try:
            seconds[name] = event_seconds(cp, job)
            print(f"  {name}: {median(seconds[name]) * 1e3:.2f} ms", flush=True)
        except Exception as error:
            note(failed, name, error)
    return {"shape": f"{shape[0]:,} × {shape[1]}", "bytes": A.nbytes, "seconds": seconds}


def normal_equations(cp: Any, A: Any, b: Any) -> Any:
    """By Cholesky; where there is none, by LU: the digits are lost either way, the time is alike."""
    from cupyx.scipy.linalg import solve_triangular  # pyright: ignore[reportMissingImports]

    G, g = A.T @ A, A.T @ b
    L = cp.linalg.cholesky(G)
    if not bool(cp.isfinite(L[-1, -1])):
        return cp.linalg.solve(G, g)
    return solve_triangular(L, solve_triangular(L, g, lower=True), trans="T", lower=True)


def torch_lstsq(A: Any, b: Any) -> Callable[[], Any] | None:
    """torch.linalg.lstsq on the same memory: Householder QR on the card."""
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    held = torch.from_dlpack(A), torch.from_dlpack(b)[:, None]
    return lambda: torch.linalg.lstsq(*held, driver="gels").solution


def distance(cp: Any, A: Any, x: Any, exact: Any) -> float:
    """‖A(x − x_QR)‖ over ‖Ax_QR‖."""
    return float(cp.linalg.norm(A @ (cp.asarray(x).reshape(-1) - exact)) / cp.linalg.norm(A @ exact))


def solvers(cp: Any, shape: tuple[int, int], condition: float) -> dict[str, Any]:
    """Seconds of whole solves of float64 rows, the bytes of A, and how far the answers are from QR's."""
    A, b = rows(cp, shape, cp.float64, condition)
    robust = rpcls.RobustPartiallyCompressed(0.1)
    jobs: dict[str, Callable[[], Any] | None] = {
        ROBUST: lambda: rpcls.lstsq(A, b, robust, sketch=rpcls.CountSketch(), rng=0).x,
        "robust-partial, CountSketch, rho='loo'": lambda: (
            rpcls.lstsq(A, b, "robust-partial", sketch=rpcls.CountSketch(), rng=0).x
        ),
        "compress alone, CountSketch": lambda: rpcls.compress(A, b, rpcls.CountSketch(), rng=0).Atb,
        QR_LEVEL: lambda: rpcls.lstsq(A, b, "precondition").x,
        f"{QR_LEVEL}, gram": lambda: rpcls.lstsq(A, b, rpcls.SketchAndPrecondition("gram")).x,
        f"{QR_LEVEL}, cg": lambda: rpcls.lstsq(A, b, rpcls.SketchAndPrecondition("cg")).x,
        "normal": lambda: rpcls.lstsq(A, b, "normal").x,
        "auto": lambda: rpcls.lstsq(A, b).x,
        NORMAL: lambda: normal_equations(cp, A, b),
    }
    if condition > 1:  # their times do not depend on it
        few = len(A) // 4
        jobs |= {
            PEERS[0]: lambda: cp.linalg.lstsq(A, b, rcond=None)[0],
            PEERS[1]: torch_lstsq(A, b),
            QUARTER: lambda: cp.linalg.lstsq(A[:few], b[:few], rcond=None)[0],
        }
    rpcls.lstsq(A[: 4 * shape[1]], b[: 4 * shape[1]], DIRECT)  # loads what it takes
    began = time.perf_counter()
    exact = rpcls.lstsq(A, b, DIRECT).x
    cp.cuda.Device().synchronize()
    seconds = {DIRECT: [time.perf_counter() - began]}
    distances = {DIRECT: 0.0}
    for name, job in jobs.items():
        if job is None:
            continue
        try:
            once = name in (*PEERS, QUARTER)
            began = time.perf_counter()
            x = job()
            cp.cuda.Device().synchronize()
            first = time.perf_counter() - began
            seconds[name] = [first] if once and first > SLOW else wall_seconds(cp, job, 3)
            if "compress" not in name and name != QUARTER:
                distances[name] = distance(cp, A, x, exact)
            print(f"  {name}: {median(seconds[name]) * 1e3:.1f} ms, {distances.get(name, 0):.0e}", flush=True)
        except Exception as error:  # above all, no room on this card
            print(f"  {name}: {type(error).__name__}: {error}", flush=True)
        free(cp)
    return {"seconds": seconds, "bytes": A.nbytes, "distances": distances}


def _copy_seconds(cp: Any, A: np.ndarray) -> float:
    there = cp.empty(A.shape)
    return median(event_seconds(cp, lambda: there.set(A)))


def from_host(cp: Any, total: int) -> dict[str, float]:
    """Compress of `total` bytes of float64 rows in pinned host memory, and the bandwidth of a copy from there."""
    import cupyx  # pyright: ignore[reportMissingImports]

    size = min(HOST_BLOCK, total)
    A = cupyx.empty_pinned((size // (8 * 256), 256))
    b = cupyx.empty_pinned(len(A))
    some = np.random.default_rng(0).standard_normal((1 << 14, 257))
    for i in range(0, len(A), len(some)):
        A[i : i + len(some)], b[i : i + len(some)] = some[: len(A) - i, :256], some[: len(A) - i, 256]
    copied = _copy_seconds(cp, A)
    free(cp)
    times = -(-total // size)

    def blocks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for _ in range(times):
            yield A, b

    few = rpcls.CountSketch().sample(1024, rng=0)
    rpcls.compress(iter([(A, b)]), None, few, device="cuda")
    cp.cuda.Device().synchronize()
    began = time.perf_counter()
    rpcls.compress(rpcls.RowBlocks(blocks, 256), None, few, device="cuda")
    taken = time.perf_counter() - began
    return {"bytes": times * A.nbytes, "seconds": taken, "copy_bytes_per_second": A.nbytes / copied}


def fits(cp: Any, features: int, failed: dict[str, str]) -> dict[str, Any]:
    """Seconds of fits from statistics on the card, of a layer of so many inputs and outputs; and what they explain."""
    draw = cp.random.default_rng(0)
    fall = 1 / cp.sqrt(cp.arange(1, features + 1, dtype=cp.float32))
    update = draw.standard_normal((features, features), dtype=cp.float32)
    for _ in range(2):
        held = LayerStatistics(features, features)
        began = time.perf_counter()
        for _ in range(4):
            X = draw.standard_normal((features // 2, features), dtype=cp.float32) * fall
            held.update(X, X @ update.T)
        cp.cuda.Device().synchronize()
        found: dict[str, Any] = {"statistics": {"seconds": time.perf_counter() - began}}  # the second time, warm
    for family in FAMILIES:
        try:
            fit(held, family, max_iterations=1)  # loads what it takes
            began = time.perf_counter()
            result = fit(held, family)
            seconds = time.perf_counter() - began
        except Exception as error:
            note(failed, repr(family), error)
            continue
        found[repr(family)] = {
            "seconds": seconds,
            "explained": result.explained,
            "half_steps": len(result.history) - 1,
            "converged": result.converged,
        }
        print(f"  {family!r}: {seconds:.2f} s, {result.explained:.3f}", flush=True)
        free(cp)
    return found


def share(time_of: float, size: float, bandwidth: float) -> str:
    return f"{size / time_of / bandwidth:.0%}"


def fastest(solved: dict[str, Any]) -> str:
    """Of the solvers as near to Householder QR as rounding lets any be: ten times the nearest's distance, or 1e-13."""
    distances = {name: far for name, far in solved["distances"].items() if name != DIRECT}
    limit = max(10 * min(distances.values(), default=0.0), 1e-13)
    good = [DIRECT, *(name for name, far in distances.items() if far <= limit)]
    return min(good, key=lambda name: median(solved["seconds"][name]))


def report(data: dict[str, Any]) -> str:
    """What the results file says: sweeps as shares of the copy bandwidth, solves in reads of A at it."""
    copy = data["copy_bytes_per_second"]
    parts = [f"Copy bandwidth {copy / 1e9:.0f} GB/s."]
    if swept := data["sweeps"]:
        lines = [
            [name, f"{median(t) * 1e3:.2f} ms", share(median(t), swept["bytes"], copy), f"{WANTED[name]:.0%}"]
            for name, t in swept["seconds"].items()
        ]
        header = [f"sweep, float32, {swept['shape']}", "time", "share of the copy bandwidth", "wanted"]
        parts.append(table(header, lines))
    if data["solves"]:
        parts += [*report_of_solves(data["solves"], copy), targets(data)]
    if host := data["host"]:
        parts.append(
            f"Compress under CountSketch of {host['bytes'] / 1e9:.0f} GB of rows in pinned host memory, on a card with "
            f"{data['memory_bytes'] / 1e9:.0f} GB: {host['seconds']:.2f} s, "
            f"{share(host['seconds'], host['bytes'], host['copy_bytes_per_second'])} of the bandwidth of a copy to the "
            f"card ({host['copy_bytes_per_second'] / 1e9:.0f} GB/s; wanted 90%)."
        )
    if data["fits"]:
        lines = [
            [
                name, f"{one['seconds']:.2f} s", f"{one['explained']:.3f}" if "explained" in one else "–",
                f"{one['half_steps']}{'' if one['converged'] else ', not converged'}" if "converged" in one else "–",
            ]
            for name, one in data["fits"].items()
        ]  # fmt: skip
        parts += [
            table(["fit", "time", "explained", "half-steps"], lines),
            f"Fits of a layer of {FEATURES} × {FEATURES} (a sixteenth with --quick) from statistics of two times as "
            "many tokens on the card; their times hold the drawing of the bases, on the host.",
        ]
    parts += [f"Failed: {part}: {error}" for part, error in data["failed"].items()]
    return "\n\n".join(filter(None, parts))


def report_of_solves(solves: dict[str, Any], copy: float) -> list[str]:
    parts = []
    for shape, solved in solves.items():
        lines = []
        alone = [name for name in (*PEERS, QUARTER) if len(solved["seconds"].get(name, ())) == 1]
        normal, torch = (solved["seconds"].get(name) for name in (NORMAL, PEERS[1]))
        for name, times in solved["seconds"].items():
            ratio = f"{median(times) / median(normal):.2f}" if normal else "–"
            faster = f"{median(torch) / median(times):.1f}" if torch else "–"
            far = f"{solved['distances'][name]:.0e}" if name in solved["distances"] else "–"
            reads = median(times) * copy / solved["bytes"]
            if name in alone:
                lines.append([name, f"first call {median(times) * 1e3:.1f} ms", "–", "–", "–", far])
            else:
                lines.append([name, f"{median(times) * 1e3:.1f} ms", f"{reads:.1f}", ratio, faster, far])
        header = [f"solve, float64, {shape}", "time", "reads of A", "÷ normal equations", "torch's lstsq ÷", "from QR"]
        parts.append(table(header, lines))
    parts.append(
        "The rows are normal, times a matrix of that condition number. The last column is ‖A(x − x_QR)‖ ÷ ‖Ax_QR‖, "
        "x_QR by Householder QR of all rows. CuPy's and torch's lstsq are timed at the larger condition number; what "
        "failed, for want of room on the card or else, is left out. A first call loads what it needs."
    )
    lines = []
    for shape, solved in solves.items():
        name = fastest(solved)
        lines.append([shape, name, f"{median(solved['seconds'][name]) * 1e3:.1f} ms"])
    return [
        *parts,
        table(["float64", "fastest of QR's accuracy", "time"], lines),
        "Which solver on a card: the fastest of those above whose distance from Householder QR of all rows (direct) is "
        "at most ten times the smallest, or 1e-13.",
    ]


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
    warnings.simplefilter("ignore", rpcls.RpclsWarning)
    small = 100 if quick else 1
    folder = Path(tempfile.mkdtemp()) if quick else RESULTS
    memory = cp.cuda.runtime.getDeviceProperties(cp.cuda.Device().id)["totalGlobalMem"]
    copy = copy_bandwidth(cp, (4 << 30) // small)
    print(f"copy bandwidth {copy / 1e9:.0f} GB/s", flush=True)
    data: dict[str, Any] = {
        "copy_bytes_per_second": copy, "memory_bytes": memory, "sweeps": {}, "solves": {}, "host": {}, "fits": {},
        "failed": {},
    }  # fmt: skip

    def part(name: str, into: dict[str, Any], work: Callable[[], dict[str, Any]]) -> None:
        print(name, flush=True)
        try:
            into.update(work())
        except Exception as error:
            note(data["failed"], name, error)
        write("gpu", COMMAND, "Sweeps, solvers and fits on a card", data, report(data), folder, about, tell=False)
        try:
            free(cp)
        except Exception:  # of a card that an error has made useless
            traceback.print_exc()

    tall = TALL[0] // small, TALL[1]
    part("sweeps", data["sweeps"], lambda: sweeps(cp, tall, data["failed"]))
    for m, n in (MIDDLE, WIDE):
        for condition in (CONDITION, 1.0):
            name = f"{m // small:,} × {n}, condition {condition:.0e}"
            solve = functools.partial(solvers, cp, (m // small, n), condition)
            part(name, data["solves"], lambda name=name, solve=solve: {name: solve()})
    part("rows of the host", data["host"], lambda: from_host(cp, (1 << 30) if quick else int(1.1 * memory)))
    part("fits", data["fits"], lambda: fits(cp, FEATURES // (16 if quick else 1), data["failed"]))
    print(f"\n{report(data)}\n\nwritten: {folder / 'gpu'}.md and .json")
    if data["failed"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
