"""Sparse rows: rpcls.lstsq beside SciPy's lsmr, at a backward error no larger than lsmr can reach or rpcls has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from answers import AUTO, CG, OWN, OWN_NORMAL, answer, coefficients
from backward import Measure
from harness import in_turn
from problems import sparse

import rpcls

LSMR = "SciPy lsmr, equal accuracy"
_TOLERANCES = (1e-10, 1e-11, 1e-12, 1e-13, 1e-14, 1e-15, 1e-16)
_EQUAL = 2.0  # times the backward error of rpcls counts as equal


def lsmr(A: Any, b: np.ndarray, tolerance: float) -> tuple[np.ndarray, int]:
    from scipy.sparse.linalg import lsmr as theirs

    found = theirs(A, b, atol=tolerance, btol=tolerance, conlim=0, maxiter=1000)
    return found[0], int(found[2])


def against_lsmr(m: int, n: int, repeats: int) -> dict[str, Any]:
    """Times and backward errors; lsmr with the loosest atol = btol that brings it to twice rpcls's backward error."""
    A, b = sparse(m, n)
    measure = Measure(A, b)
    solvers: dict[str, Callable[[Any, Any], Any]] = {name: OWN[name] for name in (AUTO, CG, OWN_NORMAL)}
    found: dict[str, Any] = {name: answer(solve, A, b) for name, solve in solvers.items()}
    ours = {name: float(measure.backward(coefficients(one)[:, None])[0]) for name, one in found.items()}
    theirs = []
    for tolerance in _TOLERANCES:
        x, iterations = lsmr(A, b, tolerance)
        theirs.append((float(measure.backward(x[:, None])[0]), tolerance, iterations, x))
        if theirs[-1][0] <= _EQUAL * ours[AUTO]:
            break
    error, tolerance, iterations, x = next(
        (t for t in theirs if t[0] <= _EQUAL * ours[AUTO]), min(theirs, key=lambda t: t[0])
    )
    jobs: dict[str, Callable[[], Any]] = {
        name: lambda solve=solve: answer(solve, A, b) for name, solve in solvers.items()
    }
    jobs[LSMR] = lambda: lsmr(A, b, tolerance)
    timed = in_turn(A.data, jobs, repeats)
    exact = measure.refined(coefficients(found[AUTO]))
    scale = float(measure.distances(np.zeros((n, 1)), exact)[0][0])
    X = np.column_stack([*(coefficients(one) for one in found.values()), x])
    distances = measure.distances(X, exact)[0] / scale
    told: dict[str, dict[str, Any]] = {
        name: {
            "backward": ours[name],
            "error": float(distance),
            "sweeps": one.sweeps,
            "solver": type(one.solver).__name__,
        }
        for (name, one), distance in zip(found.items(), distances, strict=False)
        if isinstance(one, rpcls.Solution)
    }
    told[LSMR] = {"backward": error, "error": float(distances[-1]), "sweeps": 2 * iterations, "tolerance": tolerance}
    return {
        "shape": f"{m}x{n}",
        "stored": int(A.nnz),
        "condition": measure.condition,
        **timed.as_data(),
        "answers": told,
    }
