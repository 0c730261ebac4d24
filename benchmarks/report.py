"""The tables of a results file, from its data alone."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import bounds
import dense
import sparse_rows
import targets
from harness import median, table

_LEAD = (
    *(f"rpcls compress, {sketch}" for sketch in dense.SKETCHES),
    *(f"rpcls robust-partial, rho given, {sketch}" for sketch in dense.SKETCHES),
    *(f"rpcls robust-partial, rho='loo', {sketch}" for sketch in dense.SKETCHES),
    dense.CWT,
    dense.CWT_LSTSQ,
    dense.NORMAL,
    dense.GELSD,
)


def render(data: dict[str, Any]) -> str:
    """Markdown; README.md takes what stands before the first heading."""
    parts = [_lead(data), *(section for make in _SECTIONS if (section := make(data)))]
    return "\n\n".join(part for part in parts if part)


def shown(shape: str) -> str:
    m, n = map(int, shape.split("x"))
    return f"{m:,} × {n}"


def _reads(value: float) -> str:
    return f"{value:.2f}" if value < 20 else f"{value:.0f}"


def seconds_shown(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def _lead(data: dict[str, Any]) -> str:
    parts = []
    shapes = data.get("dense", {})
    if shapes:
        rows = []
        for name in _LEAD:
            if all(name in part["seconds"] for part in shapes.values()):
                values = [median(part["seconds"][name]) / part["read_seconds"] for part in shapes.values()]
                rows.append([name, *map(_reads, values)])
        parts.append(table(["reads of A", *map(shown, shapes)], rows))
    peaks = {shown(shape): peak for shape, peak in data.get("peak_MiB", {}).items()}
    peaks |= {f"{shown(shape)}, CSR": peak for shape, peak in data.get("peak_MiB_csr", {}).items()}
    if peaks:
        names = list(dict.fromkeys(name for peak in peaks.values() for name in peak))
        rows = [[n, *(f"{peak[n]:.0f}" if n in peak else "–" for peak in peaks.values())] for n in names]
        parts.append("Peak memory of compress above A and b, in MiB, and the size of SA:")
        parts.append(table(["MiB", *peaks], rows))
    if "milliseconds" in data:
        parts.append("\n".join(f"- {name}: {value:.0f} ms" for name, value in data["milliseconds"].items()))
    return "\n\n".join(parts)


def _picture(data: dict[str, Any]) -> str:
    if "dense" not in data:
        return ""
    caption = (
        "*Time in reads of A, median, d = 4n: rpcls in colour, other libraries in grey, targets as upright bars. The "
        "faster of a library's variants is drawn.*"
    )
    return f"## Picture\n\n![compress and its peers, in reads of A](compress.svg)\n\n{caption}"


def _targets(data: dict[str, Any]) -> str:
    found = targets.checks(data)
    if not found:
        return ""
    met = sum(check.met for check in found)
    parts = ["## Targets", f"For float64 and two cores; {met} of {len(found)} met. ÷ is a ratio of times in this run."]
    works: dict[str, dict[str, targets.Check]] = {}
    for check in found:
        works.setdefault(check.work, {})[check.shape] = check
    for shapes, group in groupby(works.items(), key=lambda item: tuple(item[1])):
        rows = [[work, target(list(row.values())), *(judged(row[shape]) for shape in shapes)] for work, row in group]
        parts.append(table(["work", "target", *map(shown, shapes)], rows))
    return "\n\n".join(parts)


def target(row: list[targets.Check]) -> str:
    first = row[0]
    limits = list(dict.fromkeys(f"{check.limit:.4g}" for check in row))
    if len(limits) > 1:
        limits = [f"{check.limit:.4g}" for check in row]
    return f"{'≥' if first.at_least else '≤'} {' / '.join(limits)} {first.unit}"


def judged(check: targets.Check) -> str:
    digits = ".0f" if check.unit == "MiB" or check.measured >= 100 else ".2f"
    value = f"{check.measured:{digits}}"
    return f"{value} met" if check.met else f"**{value} not met**"


def _times(data: dict[str, Any]) -> str:
    shapes = data.get("dense", {})
    if not shapes:
        return ""
    names = list(dict.fromkeys(name for part in shapes.values() for name in part["seconds"]))
    rows = []
    for name in names:
        cells = []
        for part in shapes.values():
            if name in part["seconds"]:
                seconds = median(part["seconds"][name])
                cells.append(f"{seconds_shown(seconds)}, {_reads(seconds / part['read_seconds'])}")
            else:
                cells.append("–")
        rows.append([name, *cells])
    reads = [
        f"{seconds_shown(p['read_seconds'])}, fastest {seconds_shown(p['fastest_read_seconds'])}"
        for p in shapes.values()
    ]
    about = (
        "Median times, and the same in reads of A. float64, C order, d = 4n, as many threads as processors, where the "
        "name does not say otherwise; SciPy's and scikit-learn's sparse products run on one thread, the only way they "
        "have. The peers find SA alone, compress also Sb, Aᵀb, the norms and the sums. Matrices S of peers are "
        "built before the clock runs, save in the Clarkson–Woodruff transform."
    )
    return "\n\n".join(["## Every time", about, table(["", *map(shown, shapes)], [["one read of A", *reads], *rows])])


def _csr(data: dict[str, Any]) -> str:
    if "csr" not in data:
        return ""
    part = data["csr"]
    rows = []
    for name, times in part["seconds"].items():
        seconds = median(times)
        rows.append([name, seconds_shown(seconds), f"{seconds / part['stored'] * 1e9:.2f}"])
    about = (
        f"{shown(part['shape'])}, {sparse_rows.PER_ROW} entries a row in as many equal strata of the columns, 32-bit "
        "indices, d = 4n. SciPy's product of a CSC S converts A to CSC on the way; both S are built beforehand."
    )
    return "\n\n".join(["## Sparse rows", about, table(["", "time", "ns per stored entry"], rows)])


def _families(data: dict[str, Any]) -> str:
    if "families" not in data:
        return ""
    part = data["families"]
    rows = []
    for name, times in sorted(part["seconds"].items(), key=lambda item: median(item[1])):
        rows.append([name, seconds_shown(median(times)), _reads(median(times) / part["read_seconds"])])
    about = f"compress with d = 4n on {shown(part['shape'])}; LeverageSampling's two sweeps before it included."
    return "\n\n".join(["## All sketches", about, table(["family", "time", "reads of A"], rows)])


def _bounds(data: dict[str, Any]) -> str:
    found = bounds.counts(data)
    if not found:
        return ""
    rows = [
        [
            count.kernel,
            shown(count.shape),
            f"{count.bytes_of_A / 1e9:.2f}",
            f"{count.accumulators / 1e9:.2f}",
            f"{count.flops / 1e9:.2f}",
            f"{count.bytes_of_A / count.seconds / 1e9:.1f}",
            f"{count.plain / 1e9:.1f}",
            f"{count.share:.0%}",
            f"{count.accumulators / count.seconds / 1e9:.1f}",
            f"{count.flops / count.seconds / 1e9:.1f}",
            "memory" if count.memory_bound else "not memory",
        ]
        for count in found
    ]
    about = (
        f"{bounds.RULE} Accumulators are counted as one load and one store of SA for every product (for SRHT, of every "
        "entry in each of log₂ d stages of the transform), whichever cache they hit; flops as two for a product, one "
        "for an addition of the transform, six for the exact sums of each entry. The making of S is not counted."
    )
    header = ["compress", "A", "A, GB", "accumulators, GB", "Gflop", "A, GB/s", "plain read, GB/s", "share",
              "accumulators, GB/s", "Gflop/s", "bound by"]  # fmt: skip
    return "\n\n".join(["## What bounds the kernels", about, table(header, rows)])


_SECTIONS = (_picture, _targets, _times, _csr, _families, _bounds)
