"""One sweep against its peers: compress and the whole one-pass solve, in reads of A.

    python benchmarks/compress.py [--shapes 500000x256,...] [--quick]

One read is the fastest multi-threaded np.dot(f, f) over the entries of A, measured in the same run. Everything is
float64, C order, d = 4n, as many threads as processors; medians.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

import numpy as np
import scipy.linalg
from harness import median, one_read, peak_bytes, seconds, table, write

import rpcls

SHAPES = ((1_000_000, 64), (500_000, 256), (100_000, 1000))


def normal_equations(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    return scipy.linalg.cho_solve(scipy.linalg.cho_factor(A.T @ A), A.T @ b)


def clarkson_woodruff(A: np.ndarray, b: np.ndarray, d: int) -> np.ndarray:
    Ab = np.column_stack([A, b])
    sketched = scipy.linalg.clarkson_woodruff_transform(Ab, d, seed=0)
    return scipy.linalg.lstsq(sketched[:, :-1], sketched[:, -1])[0]


def jobs(A: np.ndarray, b: np.ndarray) -> dict:
    n = A.shape[1]
    d = 4 * n
    given = rpcls.RobustPartiallyCompressed(rho=0.1)
    count, sign = rpcls.CountSketch(), rpcls.SparseSign(8)

    def solve(solver, sketch):
        return lambda: rpcls.lstsq(A, b, solver, sketch=sketch, sketch_size=d, rng=0)

    return {
        "rpcls compress, CountSketch": lambda: rpcls.compress(A, b, count, sketch_size=d, rng=0),
        "rpcls compress, SparseSign(8)": lambda: rpcls.compress(A, b, sign, sketch_size=d, rng=0),
        "rpcls robust-partial, rho given, CountSketch": solve(given, count),
        "rpcls robust-partial, rho given, SparseSign(8)": solve(given, sign),
        "rpcls robust-partial, rho='loo', SparseSign(8)": solve("robust-partial", sign),
        "SciPy Clarkson–Woodruff transform of A alone": lambda: scipy.linalg.clarkson_woodruff_transform(A, d, seed=0),
        "SciPy Clarkson–Woodruff transform and lstsq": lambda: clarkson_woodruff(A, b, d),
        "normal equations, Cholesky": lambda: normal_equations(A, b),
        "LAPACK gelsd": lambda: scipy.linalg.lstsq(A, b, check_finite=False, lapack_driver="gelsd"),
    }


def memory(m: int, n: int) -> dict[str, float]:
    """Peak memory above A and b, in MiB, next to the size of SA."""
    setup = f"""
import numpy as np, rpcls
rng = np.random.default_rng(0)
A, b = rng.standard_normal(({m}, {n})), rng.standard_normal({m})
rpcls.compress(A[:4096], b[:4096], rpcls.SparseSign(8), sketch_size={4 * n}, rng=0)
"""
    sizes = {"SA": 4 * n * n * 8 / 2**20}
    for name in ("CountSketch()", "SparseSign(8)"):
        work = f"c = rpcls.compress(A, b, rpcls.{name}, sketch_size={4 * n}, rng=0)"
        sizes[name] = peak_bytes(setup, work) / 2**20
    return sizes


def process_costs() -> dict[str, float]:
    """Milliseconds: import beyond NumPy, and the first compress of a fresh process with a warm compilation cache."""
    imports = """
import time, numpy
began = time.perf_counter()
import rpcls
print((time.perf_counter() - began) * 1e3)
"""
    first = """
import numpy as np, time
rng = np.random.default_rng(0)
A, b = rng.standard_normal((10_000, 64)), rng.standard_normal(10_000)
import rpcls
began = time.perf_counter()
rpcls.compress(A, b, rng=0)
print((time.perf_counter() - began) * 1e3)
"""
    costs = {}
    for name, program in (("import", imports), ("first compress", first)):
        runs = [
            float(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)
            for _ in range(6)
        ]
        costs[name] = median(sorted(runs[1:]))
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default=",".join(f"{m}x{n}" for m, n in SHAPES))
    parser.add_argument("--quick", action="store_true", help="leave out LAPACK and memory")
    arguments = parser.parse_args()
    shapes = [tuple(map(int, shape.split("x"))) for shape in arguments.shapes.split(",")]
    data: dict = {"shapes": {}}
    columns: dict[str, list[str]] = {}
    for m, n in shapes:
        rng = np.random.default_rng(0)
        A, b = rng.standard_normal((m, n)), rng.standard_normal(m)
        work = jobs(A, b)
        read = one_read(A)
        times = {}
        for name, job in work.items():
            if arguments.quick and "gelsd" in name:
                continue
            slow = "gelsd" in name
            began = time.perf_counter()
            times[name] = seconds(job, repeats=1 if slow else 7, warm_up=0 if slow else 1)
            reads = median(times[name]) / read
            columns.setdefault(name, []).append(f"{reads:.2f}" if reads < 20 else f"{reads:.0f}")
            print(f"{m} × {n}  {name}: {reads:.2f} reads ({time.perf_counter() - began:.1f} s)", flush=True)
        read = min(read, one_read(A))
        data["shapes"][f"{m}x{n}"] = {"read_seconds": read, "seconds": times}
        del A, b
        if not arguments.quick:
            data["shapes"][f"{m}x{n}"]["peak_MiB"] = memory(m, n)
    header = ["reads of A", *(f"{m:,} × {n}" for m, n in shapes)]
    text = table(header, [[name, *cells] for name, cells in columns.items()])
    if not arguments.quick:
        peaks = [data["shapes"][f"{m}x{n}"]["peak_MiB"] for m, n in shapes]
        rows = [[name, *(f"{peak[name]:.0f}" for peak in peaks)] for name in peaks[0]]
        text += "\n\nPeak memory of compress above A and b, in MiB, and the size of SA:\n\n"
        text += table(["MiB", *header[1:]], rows)
    data["milliseconds"] = process_costs()
    text += "\n\n" + "\n".join(f"- {name}: {value:.0f} ms" for name, value in data["milliseconds"].items())
    command = "python benchmarks/compress.py"
    write("compress", command, "One sweep against its peers", data, text)


if __name__ == "__main__":
    main()
