"""Which kernels are bound by memory: bytes and flops counted from the algorithm, divided by the measured time.

Per entry of A (or stored entry of CSR), with ζ non-zeros in a column of S and d rows:

- A: 8 bytes, in CSR the stored value, its index and its share of the row pointers; times the sweeps that are made
- accumulators: a load and a store of one float64 of SA for every product, 16ζ bytes; for a Walsh–Hadamard transform of
  log₂ d stages, each of which loads and stores every entry, 16·log₂ d
- flops: 2 for every product (1 for an addition of the transform), and 6 for the exact sums (column sums, norms, Aᵀb)
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import dense
from harness import median

SHARE = 0.6
RULE = (
    f"A kernel counts as memory-bound when it takes the bytes of A at {SHARE:.0%} or more of the rate of a plain read "
    "(np.dot over the same memory in the same run)."
)


class Count(NamedTuple):
    """One kernel on one shape, in bytes, flops and seconds."""

    kernel: str
    shape: str
    bytes_of_A: float
    accumulators: float
    flops: float
    seconds: float
    plain: float  # bytes a second of a plain read

    @property
    def share(self) -> float:
        """Of the plain read's rate."""
        return self.bytes_of_A / self.seconds / self.plain

    @property
    def memory_bound(self) -> bool:
        return self.share >= SHARE


def counts(data: dict[str, Any]) -> list[Count]:
    """Every kernel that `data`, as compress.json holds it, has timed."""
    found = []
    for shape, part in data.get("dense", {}).items():
        names = (*dense.SKETCHES, "SRHT", *(f"{name}, Fortran order" for name in dense.SKETCHES))
        found += [_dense(name, shape, part, f"rpcls compress, {name}") for name in names]
    if "families" in data:
        part = data["families"]
        told = (*dense.SKETCHES, "SRHT") if part["shape"] in data.get("dense", {}) else ()
        others = [name for name in part["seconds"] if name not in told]
        found += [_dense(name, part["shape"], part, name) for name in others]
    if "csr" in data:
        part = data["csr"]
        plain = 8 * part["stored"] / part["read_seconds"]
        for name in dense.SKETCHES:
            products, seconds = _products(name, part["shape"]), median(part["seconds"][f"rpcls compress, {name}"])
            work = part["stored"] * 16 * products, part["stored"] * (2 * products + 6)
            found.append(Count(f"{name}, CSR", part["shape"], part["bytes"], *work, seconds, plain))
    return found


def _dense(name: str, shape: str, part: dict[str, Any], job: str) -> Count:
    m, n = map(int, shape.split("x"))
    entries, products = m * n, _products(name, shape)
    if "SRHT" in name:
        accumulators, flops = 16 * products, products + 6
    elif name in ("Gaussian", "Rademacher"):
        accumulators, flops = 0, 2 * products + 6  # BLAS keeps them in registers
    elif name == "LeverageSampling":
        accumulators, flops = 16 * 8, 2 * (8 + 3) + 2 * 16 + 6  # SparseSign(8), 16 probes, the sums
    else:
        accumulators, flops = 16 * products, 2 * products + 6
    sweeps = 3 if name == "LeverageSampling" else 1
    seconds = median(part["seconds"][job])
    plain = 8 * entries / part["read_seconds"]
    return Count(name, shape, 8 * entries * sweeps, accumulators * entries, flops * entries, seconds, plain)


def _products(name: str, shape: str) -> float:
    """Products of one entry of A with entries of S, or stages of its transform."""
    d = 4 * int(shape.split("x")[1])
    family = name.split(",")[0]
    if "SRHT" in family:
        return math.log2(d)
    if family in ("Gaussian", "Rademacher"):
        return d
    return dense.NNZ.get(family, 0)
