"""Time and error of every way of solving, on large dense problems."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from answers import AUTO, GELSD, GELSY, NUMPY, OWN, PEERS, SKLEARN, Answer, answer, coefficients, intelex
from backward import Measure
from harness import in_turn
from problems import large

import rpcls

CONDITIONS = {"3e2": 3e2, "1e12": 1e12}
ONCE = (GELSD, GELSY, NUMPY, SKLEARN)  # tens of seconds at full size


def compared(m: int, n: int, condition: float, repeats: int) -> dict[str, Any]:
    """Seconds, backward error and relative error ‖A(x − x*)‖/‖Ax*‖ of every answer to one problem."""
    A, b = large(m, n, condition)
    found: dict[str, Answer] = {}

    def job(name: str, solve: Callable[[Any, Any], Answer]) -> Callable[[], None]:
        def run() -> None:
            found[name] = answer(solve, A, b)

        return run

    solvers: dict[str, Callable[[Any, Any], Answer]] = {**OWN, **PEERS}
    if (theirs := intelex()) is not None:
        solvers["scikit-learn-intelex"] = theirs
    timed = in_turn(A, {name: job(name, solve) for name, solve in solvers.items()}, repeats, once=ONCE)
    return {**timed.as_data(), **judged(Measure(A, b), found)}


def judged(measure: Measure, found: dict[str, Answer]) -> dict[str, Any]:
    """The errors of the answers, and what rpcls says of its own."""
    X = np.column_stack([coefficients(one) for one in found.values()]).astype(np.float64)
    exact = measure.refined(coefficients(found[AUTO]))
    scale = float(measure.distances(np.zeros((len(exact), 1)), exact)[0][0])  # ‖Ax*‖
    backward, (distance, _) = measure.backward(X), measure.distances(X, exact)
    told: dict[str, dict[str, Any]] = {}
    for i, (name, one) in enumerate(found.items()):
        told[name] = {"backward": _number(backward[i]), "error": _number(distance[i] / scale)}
        if isinstance(one, rpcls.Solution):
            told[name] |= {
                "sweeps": one.sweeps,
                "solver": type(one.solver).__name__,
                "sketch_size": None if one.sketch is None else one.sketch.shape[0],
                "status": one.status.name,
                "details": one.details,
            }
    return {"condition": measure.condition, "answers": told}


def _number(value: float) -> float | None:
    """None for what JSON cannot hold."""
    return float(value) if np.isfinite(value) else None
