"""Run one method once: what it took, what it gave, what it had to say. A failure is an outcome, not an exception."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..kernels import on_card, on_host
from .methods import BASELINES

__all__ = [
    "Outcome",
    "compress_once",
    "needs_rows",
    "run_baseline",
    "run_front_door",
    "run_method",
    "solve_once",
    "takes_sketch",
]


@dataclass(frozen=True, eq=False)
class Outcome:
    """x and how it came about; x is None when the method failed."""

    x: np.ndarray | None
    compress_seconds: float | None
    solve_seconds: float | None
    sweeps: int | None
    status: str
    message: str

    @property
    def seconds(self) -> float | None:
        known = [s for s in (self.compress_seconds, self.solve_seconds) if s is not None]
        return math.fsum(known) if known and self.x is not None else None

    @classmethod
    def failure(cls, error: BaseException, notes: list[str]) -> Outcome:
        text = " ".join(str(error).split()) or "no message"
        return cls(None, None, None, None, "ERROR", " | ".join([f"{type(error).__name__}: {text}", *notes]))


_QUIET = 0.1  # seconds in which the threads of an earlier BLAS call stop spinning, and give back their processors


def compress_once(A: np.ndarray, b: np.ndarray, family: Any, d: int, seed: int, workers: int | None) -> Any:
    """(CompressedProblem, seconds, notes), or an Outcome if it failed."""
    import rpcls

    with _notes() as notes:
        try:
            time.sleep(_QUIET)
            start = time.perf_counter()
            problem = rpcls.compress(A, b, family, sketch_size=d, rng=seed, workers=workers)
            _settle(A)
            return problem, time.perf_counter() - start, notes
        except Exception as error:
            return Outcome.failure(error, notes)


def solve_once(solver: Any, problem: Any, compress_seconds: float, earlier: list[str]) -> Outcome:
    """Solve a summary that was compressed before; the sweep's time and notes count for every solver that uses it."""

    def work() -> Outcome:
        start = time.perf_counter()
        solution = problem.solve(solver)
        _settle(problem.SA)
        seconds = time.perf_counter() - start
        return _outcome(solution, compress_seconds, seconds)

    return _guarded(work, earlier)


def run_front_door(
    solver: Any, A: np.ndarray, b: np.ndarray, family: Any, d: int | None, seed: int | None, workers: int | None
) -> Outcome:
    """A solver that wants the rows, through `rpcls.lstsq`; with family None it chooses a sketch, or needs none."""
    import rpcls

    def work() -> Outcome:
        time.sleep(_QUIET)
        asked = {} if family is None else {"sketch": family, "sketch_size": d}
        start = time.perf_counter()
        solution = rpcls.lstsq(A, b, solver, rng=seed, workers=workers, **asked)
        _settle(A)
        seconds = time.perf_counter() - start
        swept = solution.timings.get("compress")
        return _outcome(solution, swept, seconds - (swept or 0.0))

    return _guarded(work, [])


def run_baseline(name: str, A: np.ndarray, b: np.ndarray, d: int, seed: int) -> Outcome:
    """One of `BASELINES`."""
    baseline = BASELINES[name]

    def work() -> Outcome:
        time.sleep(_QUIET)
        x, swept, rest = baseline.run(A, b, d, seed)
        if not np.all(np.isfinite(x)):
            raise ArithmeticError("the solution is not finite")
        return Outcome(x, swept, rest, baseline.sweeps, "OK", "")

    return _guarded(work, [])


def run_method(
    solver: Any, family: Any, d: int | None, seed: int, A: np.ndarray, b: np.ndarray, workers: int | None
) -> Outcome:
    """Any method from the start: `solver` is a baseline's name or a solver value; no sharing."""
    if isinstance(solver, str):
        return run_baseline(solver, A, b, d or 0, seed)
    if family is None or d is None or needs_rows(solver):
        return run_front_door(solver, A, b, family, d, seed, workers)
    found = compress_once(A, b, family, d, seed, workers)
    return found if isinstance(found, Outcome) else solve_once(solver, *found)


def takes_sketch(solver: Any) -> bool:
    """Whether a solver's answer is that of the sketch it is given: the others choose a sketch, or need none."""
    from ..onepass.base import OnePass

    return isinstance(solver, OnePass)


def needs_rows(solver: Any) -> bool:
    """Whether a summary is not enough for it."""
    return not takes_sketch(solver) or getattr(solver, "rho", None) == "sweep"


def _settle(array: Any) -> None:
    """Wait until the card that holds the array, if one does, has done all that it was asked for."""
    if on_card(array):
        from ..kernels.cuda.device import on_device

        with on_device(array) as xp:
            xp.cuda.get_current_stream().synchronize()


def _outcome(solution: Any, compress_seconds: float | None, solve_seconds: float) -> Outcome:
    x = np.asarray(on_host(solution.x))
    if not np.all(np.isfinite(x)):
        raise ArithmeticError(f"the solution is not finite ({solution.status.name})")
    # A status that is not ok also arrives as a warning, with the same words.
    message = solution.details if solution.status.ok else ""
    return Outcome(x, compress_seconds, solve_seconds, solution.sweeps, solution.status.name, message)


def _guarded(work: Callable[[], Outcome], earlier: list[str]) -> Outcome:
    with _notes() as notes:
        try:
            outcome = work()
        except Exception as error:
            return Outcome.failure(error, [*earlier, *notes])
    message = " | ".join(filter(None, dict.fromkeys([outcome.message, *earlier, *notes])))
    return Outcome(outcome.x, outcome.compress_seconds, outcome.solve_seconds, outcome.sweeps, outcome.status, message)


@contextmanager
def _notes() -> Iterator[list[str]]:
    """Warnings as text, each once; none reaches the terminal, where it would break the progress bar."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield notes
        finally:
            for item in caught:
                text = f"{item.category.__name__}: {' '.join(str(item.message).split())}"
                if not issubclass(item.category, DeprecationWarning | PendingDeprecationWarning) and text not in notes:
                    notes.append(text)
