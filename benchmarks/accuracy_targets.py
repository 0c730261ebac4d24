"""What full accuracy was to reach, beside what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from answers import AUTO, CG, GELSD, GELSY, GRAM, NE, RTOL
from hard_problems import DTYPES
from harness import median
from sparse_solve import LSMR
from targets import Check

# times of the normal equations, by number of columns
_NORMAL = {"3e2": {64: 2.0, 256: 1.3, 1000: 0.8}, "1e12": {64: 3.0, 256: 1.6, 1000: 0.9}}
_RTOL = {256: 0.5, 1000: 0.4}
_LAPACK = 5.0  # times faster than the faster of gelsd and gelsy
_WORTH, _ENOUGH = 10.0, 5e-15  # backward errors: times gelsy's, or enough in itself


def checks(data: dict[str, Any]) -> list[Check]:
    """All targets that `data`, as accuracy.json holds it, can tell of."""
    found = [
        check
        for shape, conditions in data.get("speed", {}).items()
        for label, part in conditions.items()
        for check in _speed(shape, label, part)
    ]
    if "families" in data:
        families = data["families"]
        for dtype in DTYPES:
            for name in (AUTO, GRAM, CG):
                failed = sum(family[name]["failed"] for family in families["families"][dtype].values())
                found.append(Check(f"failures on the families, {name}, {dtype}", families["shape"], failed, 0, ""))
    for name, row in data.get("nist", {}).items():
        for mark, theirs in (("gelsd", max(row[GELSD], row["gelsd, unit columns"])), ("gelsy", row[GELSY])):
            found.append(Check(f"NIST, digits less {mark}'s", name, row[AUTO] - theirs, -1.0, "", at_least=True))
    if "sparse" in data:
        part = data["sparse"]
        ratio = median(part["seconds"][LSMR]) / median(part["seconds"][AUTO])
        found.append(Check("sparse, SciPy's lsmr ÷ rpcls", part["shape"], ratio, 1.0, "×", at_least=True))
    return found


def _speed(shape: str, label: str, part: dict[str, Any]) -> Iterator[Check]:
    n = int(shape.split("x")[1])
    seconds = {name: median(times) for name, times in part["seconds"].items()}
    at = f"condition {label}"
    if n in _NORMAL.get(label, {}):
        yield Check(f"{at}, rpcls ÷ normal equations", shape, seconds[AUTO] / seconds[NE], _NORMAL[label][n], "×")
    lapack = min(seconds[GELSD], seconds[GELSY])
    yield Check(f"{at}, the faster of gelsd and gelsy ÷ rpcls", shape, lapack / seconds[AUTO], _LAPACK, "×", True)
    if n in _RTOL:
        yield Check(f"{at}, rtol=1e-3 ÷ normal equations", shape, seconds[RTOL] / seconds[NE], _RTOL[n], "×")
    errors = {name: told["backward"] for name, told in part["answers"].items()}
    limit = max(_WORTH * errors[GELSY], _ENOUGH)
    error = errors[AUTO] if errors[AUTO] is not None else float("inf")
    yield Check(f"{at}, backward error in 1e-16", shape, error * 1e16, limit * 1e16, "")
    relative = part["answers"][RTOL]["error"]
    yield Check(f"{at}, rtol=1e-3, true error in 1e-3", shape, relative * 1e3, 1.0, "")
