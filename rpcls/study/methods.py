"""What a study runs: the names of solvers and sketches, and the baselines that need no rpcls."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InvalidTypeError, InvalidValueError
from ..expressions import evaluate

__all__ = [
    "BASELINES",
    "DEFAULT_SKETCHES",
    "DEFAULT_SOLVERS",
    "LADDER",
    "Baseline",
    "is_rung",
    "label_of",
    "named_sketches",
    "named_solvers",
]

SOLVERS = {
    "full": "FullyCompressed()",
    "partial-raw": "PartiallyCompressed(scale='raw')",
    "partial-debiased": "PartiallyCompressed(scale='debiased')",
    "partial": "PartiallyCompressed()",
    "robust-full": "RobustFullyCompressed()",
    "robust-partial": "RobustPartiallyCompressed()",
    "robust-partial-sweep": "RobustPartiallyCompressed(rho='sweep')",
    "combined": "CombinedCompressed()",
    **{f"precondition-{r}": f"SketchAndPrecondition(rtol={r})" for r in ("1e-1", "1e-2", "1e-3", "1e-6")},
    "precondition": "SketchAndPrecondition()",
    "normal": "NormalEquations()",
    "hessian-sketch": "IterativeHessianSketch()",
    "direct": "Direct()",
}
LADDER = tuple(name for name in SOLVERS if name.startswith("precondition"))  # from a digit to all of them
DEFAULT_SOLVERS = ("full", "partial-raw", "partial", "robust-full", "robust-partial", "combined", *LADDER, "normal")
DEFAULT_SKETCHES = ("SparseSign(8)", "CountSketch()")


def named_solvers(solvers: Iterable[Any]) -> dict[str, Any]:
    """Label → solver value, from names, expressions such as "RobustPartiallyCompressed(rho=0.1)" and values."""
    return _named(solvers, SOLVERS, "solve", "solvers", "a solver name")


def named_sketches(sketches: Iterable[Any]) -> dict[str, Any]:
    """Expression → sketch family, from names such as "SparseSign", expressions and families."""
    from ..sketches import FAMILIES

    names = {family: f"{family}()" for family in FAMILIES}
    return _named(sketches, names, "sample", "sketches", "a sketch family")


def is_rung(solver: str) -> bool:
    """Whether this is the name of sketch and precondition, stopped at some `rtol` or at none."""
    return solver in LADDER or solver.startswith("SketchAndPrecondition(")


def label_of(expression: str) -> str:
    """A short form for figures and tables: "SparseSign(nnz_per_column=8)" → "SparseSign(8)"."""
    return expression.replace("nnz_per_column=", "").replace("()", "")


def _named(items: Iterable[Any], names: dict[str, str], method: str, argument: str, what: str) -> dict[str, Any]:
    if isinstance(items, str) or not isinstance(items, Iterable):
        items = [items]
    found: dict[str, Any] = {}
    for item in items:
        if isinstance(item, str):
            name = item.strip()
            value = _evaluate(names.get(name, name), argument, names)
            label = name if name in names and argument == "solvers" else repr(value)
        else:
            value, label = item, repr(item)
        if isinstance(value, type) or not hasattr(value, method):
            raise InvalidTypeError(f"{argument} takes {what} or a value with a `{method}` method, got {item!r}")
        found[label] = value
    if not found:
        raise InvalidValueError(f"{argument} is empty; known names: {', '.join(names)}")
    return found


def _evaluate(expression: str, argument: str, names: dict[str, str]) -> Any:
    """The value of an expression like ``SparseSign(4)``: a class that rpcls exports, called with literals."""
    import rpcls

    known = {name: getattr(rpcls, name) for name in {text.split("(")[0] for text in names.values()}}
    return evaluate(expression, known, argument, names, list(names.values())[-1])


@dataclass(frozen=True)
class Baseline:
    """A method to compare with.

    Attributes
    ----------
    name, label : str
    run : function of (A, b, d, seed) → (x, seconds of the sweep or None, seconds of the rest)
    sketched : bool
        Whether it takes a sketch size.
    once : bool
        Whether one run is enough: it has no randomness and takes long.
    sweeps : int or None
    reads : float
        Rough cost in reads of A, for the progress bar.
    """

    name: str
    label: str
    run: Callable[[np.ndarray, np.ndarray, int, int], tuple[np.ndarray, float | None, float]]
    sketched: bool
    once: bool
    sweeps: int | None
    reads: float


def _lapack(A: np.ndarray, b: np.ndarray, d: int, seed: int) -> tuple[np.ndarray, float | None, float]:
    import scipy.linalg

    start = time.perf_counter()
    x = scipy.linalg.lstsq(A, b, lapack_driver="gelsd")[0]
    return x, None, time.perf_counter() - start


def _cholesky(A: np.ndarray, b: np.ndarray, d: int, seed: int) -> tuple[np.ndarray, float | None, float]:
    import scipy.linalg

    start = time.perf_counter()
    gram, Atb = A.T @ A, A.T @ b
    swept = time.perf_counter()
    x = scipy.linalg.cho_solve(scipy.linalg.cho_factor(gram), Atb)
    return x, swept - start, time.perf_counter() - swept


def _scipy_cwt(A: np.ndarray, b: np.ndarray, d: int, seed: int) -> tuple[np.ndarray, float | None, float]:
    import scipy.linalg

    start = time.perf_counter()
    # The same seed gives the same operator; sketching [A b] in one call would need a copy of A.
    SA, Sb = (
        scipy.linalg.clarkson_woodruff_transform(part, d, np.random.default_rng(seed)) for part in (A, b[:, None])
    )
    swept = time.perf_counter()
    x = scipy.linalg.lstsq(SA, Sb[:, 0])[0]
    return x, swept - start, time.perf_counter() - swept


BASELINES = {
    baseline.name: baseline
    for baseline in (
        Baseline("cholesky", "plain normal equations", _cholesky, sketched=False, once=False, sweeps=2, reads=25),
        Baseline("scipy-cwt", "SciPy CWT + lstsq", _scipy_cwt, True, once=False, sweeps=1, reads=10),
        Baseline("lapack", "LAPACK gelsd", _lapack, sketched=False, once=True, sweeps=None, reads=290),
    )
}
