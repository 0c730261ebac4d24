"""What was aimed at, beside what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import dense
import sparse_rows
from harness import median

# reads of A at most, by number of columns: (compress CountSketch, compress SparseSign(8), solve given rho)
_READS = {64: (1.5, 4.0, 5.0), 256: (1.5, 4.0, 5.0), 1000: (4.0, 10.0, 20.0)}


class Check(NamedTuple):
    """One measured number against its limit."""

    work: str
    shape: str
    measured: float
    limit: float
    unit: str
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit

    @property
    def target(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:.4g} {self.unit}".rstrip()


def checks(data: dict[str, Any]) -> list[Check]:
    """All targets that `data`, as compress.json holds it, can tell of."""
    found = [check for shape, part in data.get("dense", {}).items() for check in _dense(shape, part)]
    for key, what in (("peak_MiB", "peak memory"), ("peak_MiB_csr", "peak memory, CSR")):
        for shape, peaks in data.get(key, {}).items():
            limit = 2 * peaks["SA"] + 64
            found += [Check(f"{what}, {k}", shape, v, limit, "MiB") for k, v in peaks.items() if k != "SA"]
    if "csr" in data:
        part = data["csr"]
        theirs = min(median(part["seconds"][sparse_rows.PEER.format(form=form)]) for form in ("CSR", "CSC"))
        ratio = median(part["seconds"]["rpcls compress, CountSketch"]) / theirs
        work = f"CSR, {sparse_rows.PER_ROW} entries a row, CountSketch ÷ SciPy's sparse S @ A"
        found.append(Check(work, part["shape"], ratio, 0.5, "×"))
    return found


def _dense(shape: str, part: dict[str, Any]) -> Iterator[Check]:
    n = int(shape.split("x")[1])
    seconds = {name: median(times) for name, times in part["seconds"].items()}

    def reads(name: str) -> float:
        return seconds[name] / part["read_seconds"]

    for i, sketch in enumerate(dense.SKETCHES):
        if n in _READS:
            yield Check(f"compress, {sketch}", shape, reads(f"rpcls compress, {sketch}"), _READS[n][i], "reads")
    for sketch in dense.SKETCHES:
        given, loo = (f"rpcls robust-partial, {rho}, {sketch}" for rho in ("rho given", "rho='loo'"))
        if n in _READS:
            yield Check(f"robust-partial, rho given, {sketch}", shape, reads(given), _READS[n][2], "reads")
        yield Check(f"robust-partial, rho='loo' ÷ rho given, {sketch}", shape, seconds[loo] / seconds[given], 1.5, "×")
    for sketch in dense.SKETCHES:
        own = f"rpcls compress, {sketch}"
        slower, smaller = seconds[f"{own}, Fortran order"] / seconds[own], seconds[f"{own}, float32"] / seconds[own]
        yield Check(f"compress, Fortran ÷ C order, {sketch}", shape, slower, 1.5, "×")
        yield Check(f"compress, float32 ÷ float64, {sketch}", shape, smaller, 0.6, "×")
        faster = seconds[f"{own}, 1 thread"] / seconds[f"{own}, 2 threads"]
        yield Check(f"compress, 1 ÷ 2 threads, {sketch}", shape, faster, 1.7, "×", at_least=True)
    for sketch in dense.SKETCHES:
        products = [seconds[f"SciPy {form} @ A, {sketch}"] for form in ("CSC", "CSR")]
        rivals = {
            "SciPy's S @ A, the faster of CSC and CSR": min(products),
            "scikit-learn's sparse projection": seconds[dense.PROJECTION[sketch]],
        }
        if sketch == "CountSketch":
            rivals["SciPy's Clarkson–Woodruff transform"] = seconds[dense.CWT]
        for rival, theirs in rivals.items():
            work = f"{rival} ÷ compress, {sketch}"
            yield Check(work, shape, theirs / seconds[f"rpcls compress, {sketch}"], 1.0, "×", at_least=True)
    cosines = min(value for name, value in seconds.items() if name.startswith("SciPy DCT"))
    ratio = cosines / seconds["rpcls compress, SRHT"]
    yield Check("SciPy's DCT of the columns ÷ compress, SRHT", shape, ratio, 1.0, "×", at_least=True)
