"""What only a fresh process can tell: peak memory above the data, the cost of the import and of the first call."""

from __future__ import annotations

import subprocess
import sys

from harness import median, peak_bytes

MEMORY_OF = {"CountSketch": "CountSketch()", "SparseSign(8)": "SparseSign(8)", "SRHT": "SRHT()"}
_DENSE = """
import numpy as np, rpcls
rng = np.random.default_rng(0)
A, b = rng.standard_normal(({m}, {n})), rng.standard_normal({m})
rpcls.compress(A[:4096], b[:4096], rpcls.{sketch}, sketch_size=16, rng=0)
"""
_SPARSE = """
import sys
sys.path.insert(0, {folder!r})
import rpcls, sparse_rows
A, b = sparse_rows.made_up({m}, {n})
rpcls.compress(A[:4096], b[:4096], rpcls.{sketch}, sketch_size=16, rng=0)
"""
_WORK = "c = rpcls.compress(A, b, rpcls.{sketch}, sketch_size={d}, rng=0)"


def peak_mib(m: int, n: int, csr: bool = False) -> dict[str, float]:
    """Peak memory of compress above A and b by sketch, in MiB, after the size of SA; d = 4n."""
    sizes = {"SA": 4 * n * n * 8 / 2**20}
    for name, sketch in MEMORY_OF.items():
        if csr and name == "SRHT":  # which takes CSR through SciPy: no kernel of its own
            continue
        setup = (_SPARSE if csr else _DENSE).format(m=m, n=n, sketch=sketch, folder=sys.path[0])
        sizes[name] = peak_bytes(setup, _WORK.format(sketch=sketch, d=4 * n)) / 2**20
    return sizes


def milliseconds() -> dict[str, float]:
    """Import beyond NumPy, and the first compress of a fresh process with a warm compilation cache."""
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
        costs[name] = median(runs[1:])
    return costs
