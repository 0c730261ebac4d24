"""Every way of solving on the families of problems.py, judged against Householder QR; and digits on the NIST sets."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from answers import AUTO, CG, GELSD, GELSY, GRAM, NE, OWN, OWN_NORMAL, PEERS, SKLEARN, answer, coefficients, qr
from backward import Measure, exact_answer
from harness import cores
from problems import Problem, hard, nist, nist_sets

JUDGED = {name: {**OWN, **PEERS}[name] for name in (AUTO, GRAM, CG, GELSD, GELSY, NE, SKLEARN)}
MARK = "QR"  # Householder QR with pivoting that drops no column
DTYPES = ("float64", "float32")
CRITERIA = ("backward", "residual", "forward", "norm")
_WORTH = 10.0  # times Householder QR's errors
_ENOUGH = 45.0  # units of rounding of backward error that pass whatever QR has: 5e-15 in float64
_NORM = 1.01  # times the norm of gelsd's answer, of the answer of minimum norm
_DIGITS = 15.0


class Judged(NamedTuple):
    """One answer: its backward error, and error ÷ limit by criterion, where it was judged."""

    family: str
    problem: str
    dtype: str
    seed: int
    solver: str
    backward: float
    ratios: dict[str, float]

    @property
    def failed(self) -> list[str]:
        return [name for name, ratio in self.ratios.items() if not ratio <= 1]


class Mark:
    """What the answers to one problem, in one precision, are held against.

    A backward error passes at 10 times Householder QR's or 5e-15 (float32: as many units of rounding); ‖A(x − x*)‖ at
    10 times QR's or 10u‖b‖; ‖x − x*‖/‖x*‖ at 10uκ_LS, κ_LS = κ(1 + κ‖r‖/(‖A‖‖x*‖)), or QR's, x measured in units in
    which A's columns have norms from 1 to 2. QR's errors are the worst of four orders of rows and columns: between
    them they differ by up to a hundred. Beyond κ = 1/(30u), where solvers may drop a direction as rounding, only the
    backward error counts; and where A is exactly deficient in rank, ‖x‖ too, at 1.01 times that of gelsd.

    Attributes
    ----------
    A, b : the problem in this precision
    condition : float
        Of A with columns of about unit norm.
    limits : dict of float
        By criterion.
    """

    def __init__(self, problem: Problem, dtype: str) -> None:
        self.A, self.b = problem.A.astype(dtype), problem.b.astype(dtype)
        self._unit = unit = float(np.finfo(dtype).eps) / 2
        self._measure = measure = Measure(self.A, self.b)
        self.condition = measure.condition
        marks = np.column_stack(list(self._orders()))
        self.limits = {"backward": max(_WORTH * measure.backward(marks).max(), _ENOUGH * unit)}
        if problem.deficient:
            self.limits["norm"] = _NORM * np.linalg.norm(coefficients(answer(PEERS[GELSD], self.A, self.b)))
        elif measure.condition * 30 * unit <= 1:
            self._exact = exact = exact_answer(measure)
            predicted, distance = measure.distances(np.column_stack([marks, np.zeros(len(exact))]), exact)
            self._size = distance[-1]
            kappa, r = measure.condition, measure.residuals(exact[:, None])[0][0]
            bound = _WORTH * unit * kappa * (1 + kappa * r / (measure.sigma[0] * self._size))
            self.limits["residual"] = _WORTH * max(predicted[:-1].max(), unit * measure.norm_b)
            self.limits["forward"] = max(bound, distance[:-1].max() / self._size)

    def _orders(self) -> Iterator[np.ndarray]:
        for rows in (slice(None), slice(None, None, -1)):
            for columns in (slice(None), slice(None, None, -1)):
                x = coefficients(answer(qr, self.A[rows, columns], self.b[rows]))
                yield x[columns].astype(np.float64)

    def ratios(self, X: np.ndarray) -> list[dict[str, float]]:
        """Error ÷ limit, by criterion, of every column of X."""
        errors = {"backward": self._measure.backward(X)}
        if "norm" in self.limits:
            errors["norm"] = np.linalg.norm(X, axis=0)
        if "residual" in self.limits:
            errors["residual"], distance = self._measure.distances(X, self._exact)
            errors["forward"] = distance / self._size
        return [{key: float(v[i] / self.limits[key]) for key, v in errors.items()} for i in range(X.shape[1])]


def judge(problem: Problem, dtype: str, seed: int) -> list[Judged]:
    """All answers to one problem, in one precision."""
    mark = Mark(problem, dtype)
    solvers: dict[str, Any] = {**JUDGED, MARK: qr}
    X = np.column_stack([coefficients(answer(s, mark.A, mark.b)).astype(np.float64) for s in solvers.values()])
    return [
        Judged(problem.family, problem.name, dtype, seed, name, ratios["backward"] * mark.limits["backward"], ratios)
        for name, ratios in zip(solvers, mark.ratios(X), strict=True)
    ]


def _alone() -> None:
    """One thread a process: the problems are small, and all processors have one."""
    from threadpoolctl import threadpool_limits

    os.environ["RPCLS_NUM_THREADS"] = "1"
    threadpool_limits(1)


def _seed(m: int, n: int, seed: int, every: int) -> list[Judged]:
    problems = list(hard(m, n, seed))[::every]
    return [one for problem in problems for dtype in DTYPES for one in judge(problem, dtype, seed)]


def all_families(m: int, n: int, seeds: Iterable[int], every: int = 1) -> dict[str, Any]:
    """Failures and worst backward errors by precision, family and solver; `every`-th problem only."""
    seeds = list(seeds)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(cores(), mp_context=spawn, initializer=_alone) as pool:
        answers = [
            one for part in pool.map(_seed, *zip(*((m, n, s, every) for s in seeds), strict=True)) for one in part
        ]
    return {"shape": f"{m}x{n}", "seeds": len(seeds), **summary(answers)}


def summary(answers: list[Judged]) -> dict[str, Any]:
    """What the results file holds of them."""
    families: dict[str, Any] = {}
    for one in answers:
        family = families.setdefault(one.dtype, {}).setdefault(one.family, {})
        entry = family.setdefault(one.solver, {"problems": 0, "backward": 0.0, "failed": 0, "by": {}, "worst": {}})
        entry["problems"] += 1
        entry["failed"] += bool(one.failed)
        entry["backward"] = _larger(entry["backward"], one.backward)
        for key, ratio in one.ratios.items():
            entry["by"][key] = entry["by"].get(key, 0) + (key in one.failed)
            entry["worst"][key] = _larger(entry["worst"].get(key, 0.0), ratio)
    own = [one for one in answers if one.failed and one.solver in (AUTO, GRAM, CG)]
    failures = [
        {
            **one._asdict(),
            "backward": _larger(0.0, one.backward),
            "ratios": {k: _larger(0.0, v) for k, v in one.ratios.items()},
        }
        for one in own
    ]
    return {"families": families, "failures": failures}


def _larger(old: float | None, new: float) -> float | None:
    """The larger; None, which JSON can hold, for infinity and NaN."""
    return None if old is None or not np.isfinite(new) else max(old, new)


def digits(x: np.ndarray, exact: np.ndarray) -> float:
    """Correct digits of the worst coefficient, 15 at most."""
    if not np.isfinite(x).all():
        return 0.0
    error = np.max(np.abs(x - exact) / np.where(exact == 0, 1.0, np.abs(exact)))
    return max(0.0, float(-np.log10(max(error, 10**-_DIGITS))))


def reference_sets() -> dict[str, dict[str, float]]:
    """Correct digits on every NIST set; LAPACK also on columns of unit norm, and without dropping any."""
    table: dict[str, dict[str, float]] = {}
    names = (AUTO, GRAM, CG, OWN_NORMAL, GELSD, GELSY, NE, SKLEARN)
    for name in nist_sets():
        A, y, exact = nist(name)
        table[name] = {solver: digits(coefficients(answer({**OWN, **PEERS}[solver], A, y)), exact) for solver in names}
        table[name][MARK] = digits(coefficients(answer(qr, A, y)), exact)
        scale = np.linalg.norm(A, axis=0)
        unit = scipy.linalg.lstsq(A / scale, y, cond=len(A) * 1.1e-16, lapack_driver="gelsd")[0] / scale
        table[name]["gelsd, unit columns"] = digits(unit, exact)
    return table
