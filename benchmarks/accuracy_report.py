"""The tables of accuracy.json, from its data alone."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import accuracy_targets
from answers import AUTO, GELSD, GELSY, NE, NUMPY, RTOL, SKLEARN
from hard_problems import DTYPES, JUDGED, MARK
from harness import median, table
from report import judged, seconds_shown, shown, target
from targets import Check

_LEAD = (AUTO, RTOL, NE, "scikit-learn-intelex", GELSD, GELSY, NUMPY, SKLEARN)
_WORST = "1e12"


def render(data: dict[str, Any]) -> str:
    """Markdown; README.md takes what stands before the first heading."""
    parts = [_lead(data), *(section for make in _SECTIONS if (section := make(data)))]
    return "\n\n".join(part for part in parts if part)


def _error(value: float | None) -> str:
    return "no answer" if value is None else f"{value:.1e}" if value else "0"


def _lead(data: dict[str, Any]) -> str:
    parts = []
    if "speed" in data:
        shapes = {shape: conditions[_WORST] for shape, conditions in data["speed"].items()}
        rows = []
        for name in _LEAD:
            if all(name in part["seconds"] for part in shapes.values()):
                cells = [
                    f"{seconds_shown(median(part['seconds'][name]))}, {_error(part['answers'][name]['backward'])}"
                    for part in shapes.values()
                ]
                rows.append([name, *cells])
        parts.append("Time and backward error at condition number 10¹², float64:")
        parts.append(table(["", *map(shown, shapes)], rows))
    if "families" in data:
        every = data["families"]
        counts = []
        for dtype in DTYPES:
            families = every["families"][dtype].values()
            total = sum(family[AUTO]["problems"] for family in families)
            names = ", ".join(f"{name} {sum(f[name]['failed'] for f in families)}" for name in JUDGED)
            counts.append(f"- {total} hard problems in {dtype}, answers not as good as Householder QR's: {names}")
        parts.append("\n".join(counts))
    parts += data["notes"]
    return "\n\n".join(parts)


def _picture(data: dict[str, Any]) -> str:
    if "speed" not in data:
        return ""
    caption = (
        "*Backward error against time, both axes logarithmic: rpcls in colour, other libraries in grey. Filled: "
        "condition number 10¹²; hollow: 300. The dashed line is the unit of rounding; at the top, no answer. Bottom "
        "left is best.*"
    )
    return f"## Picture\n\n![backward error against time](accuracy.svg)\n\n{caption}"


def _targets(data: dict[str, Any]) -> str:
    found = accuracy_targets.checks(data)
    if not found:
        return ""
    met = sum(check.met for check in found)
    parts = ["## Targets", f"For two cores; {met} of {len(found)} met. ÷ is a ratio of times in this run."]
    works: dict[str, dict[str, Check]] = {}
    for check in found:
        works.setdefault(check.work, {})[check.shape] = check
    for shapes, group in groupby(works.items(), key=lambda item: tuple(item[1])):
        heads = [shown(shape) if "x" in shape else shape for shape in shapes]
        rows = [[work, target(list(row.values())), *(judged(row[shape]) for shape in shapes)] for work, row in group]
        parts.append(table(["work", "target", *heads], rows))
    return "\n\n".join(parts)


def _speed(data: dict[str, Any]) -> str:
    if "speed" not in data:
        return ""
    parts = [
        "## Every time and error",
        "Medians, float64, as many threads as processors. Error: ‖A(x − x*)‖/‖Ax*‖. b = Ax + r with r ⟂ A and "
        "‖r‖ = ‖Ax‖, x with more weight in the smaller singular directions. NumPy, gelsd, gelsy and scikit-learn are "
        "timed once, cold; scikit-learn without an intercept. Where Cholesky fails there is no answer, and the time is "
        "that of failing.",
    ]
    for shape, conditions in data["speed"].items():
        for label, part in conditions.items():
            seconds = {name: median(times) for name, times in part["seconds"].items()}
            lapack = min(seconds[GELSD], seconds[GELSY])
            rows = []
            for name, value in seconds.items():
                told = part["answers"][name]
                rows.append(
                    [
                        name,
                        seconds_shown(value),
                        f"{value / part['read_seconds']:.1f}",
                        f"{value / seconds[NE]:.2f}",
                        f"{lapack / value:.1f}",
                        _error(told["backward"]),
                        _error(told["error"]),
                        told.get("sweeps", "–"),
                        _way(told),
                    ]
                )
            parts.append(f"### {shown(shape)}, condition number {label}")
            parts.append(f"One read of A takes {seconds_shown(part['read_seconds'])}.")
            head = ["", "time", "reads of A", "÷ normal equations", "gelsd or gelsy ÷ it", "backward error", "error"]
            parts.append(table([*head, "sweeps", "solver, d/n"], rows))
    return "\n\n".join(parts)


def _way(told: dict[str, Any]) -> str:
    if "solver" not in told:
        return "–"
    size = told.get("sketch_size")
    way = f"{told['solver']}{f', d = {size}' if size else ''}"
    return way if told["status"] == "OK" else f"{way}, {told['status']}"


def _families(data: dict[str, Any]) -> str:
    if "families" not in data:
        return ""
    every = data["families"]
    names = [*JUDGED, MARK]
    parts = [
        "## Hard problems",
        f"{shown(every['shape'])}, {every['seeds']} seeds. The worst backward error of each family, and in brackets "
        "how many of its answers failed. An answer fails if its backward error is above 10 times Householder QR's and "
        "above 5e-15 (float32: 2.7e-6), or ‖A(x − x*)‖ above 10 times QR's and above 10u‖b‖, or ‖x − x*‖/‖x*‖ above "
        "10uκ_LS and above QR's; beyond κ = 1/(30u), where a solver may take a direction for rounding, only if its "
        "backward error is; where A is exactly deficient in rank, if ‖x‖ is above 1.01 times the least. All in units "
        "in which A's columns have norms from 1 to 2. QR is LAPACK's gelsy with a cut-off below rounding, and its "
        "errors are the worst of four orders of rows and columns, which differ by up to a hundred; gelsd and gelsy "
        "have SciPy's default.",
    ]
    for dtype in DTYPES:
        rows = []
        for family, solvers in every["families"][dtype].items():
            cells = []
            for name in names:
                entry = solvers[name]
                failed = f" (**{entry['failed']}**)" if entry["failed"] and name != MARK else ""
                cells.append(f"{_error(entry['backward'])}{failed}")
            rows.append([family, solvers[AUTO]["problems"], *cells])
        totals = [sum(s[name]["failed"] for s in every["families"][dtype].values()) for name in JUDGED]
        problems = sum(s[AUTO]["problems"] for s in every["families"][dtype].values())
        rows.append(["failures in all", problems, *totals, "–"])
        parts += [f"### {dtype}", table(["family", "problems", *names], rows)]
    worst: dict[tuple[str, ...], int] = {}
    for one in every["failures"]:
        failed = ", ".join(key for key, ratio in one["ratios"].items() if ratio is None or ratio > 1)
        key = (one["dtype"], one["solver"], one["family"], one["problem"], failed)
        worst[key] = worst.get(key, 0) + 1
    if worst:
        parts.append("Where rpcls failed, and by what:")
        parts.append(table(["", "solver", "family", "problem", "by", "seeds"], [[*key, n] for key, n in worst.items()]))
    return "\n\n".join(parts)


def _nist(data: dict[str, Any]) -> str:
    if "nist" not in data:
        return ""
    sets = data["nist"]
    names = list(next(iter(sets.values())))
    rows = [[name, *(f"{row[solver]:.1f}" for solver in names)] for name, row in sets.items()]
    about = "Correct digits of the worst coefficient, 15 at most; exact coefficients from rational arithmetic."
    return "\n\n".join(["## NIST reference sets", about, table(["set", *names], rows)])


def _sparse(data: dict[str, Any]) -> str:
    if "sparse" not in data:
        return ""
    part = data["sparse"]
    rows = []
    for name, times in part["seconds"].items():
        told = part["answers"][name]
        seconds = median(times)
        per = f"{seconds / part['stored'] * 1e9:.1f}"
        way = told["solver"] if "solver" in told else f"atol = btol = {told['tolerance']:g}"
        rows.append(
            [name, seconds_shown(seconds), per, _error(told["backward"]), _error(told["error"]), told["sweeps"], way]
        )
    about = (
        f"{shown(part['shape'])}, 3 Gaussian entries a row; condition number {part['condition']:.3g}. lsmr has the "
        "loosest tolerance that brings it to twice the backward error of rpcls, or the best it can do; its products "
        "with A and Aᵀ run on one thread, the only way SciPy has."
    )
    head = ["", "time", "ns per stored entry", "backward error", "error", "sweeps", "how"]
    return "\n\n".join(["## Sparse rows, full accuracy", about, table(head, rows)])


_SECTIONS = (_picture, _targets, _speed, _families, _nist, _sparse)
