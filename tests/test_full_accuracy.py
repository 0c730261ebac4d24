"""Solvers of full accuracy: as good as Householder QR on every family of hard problems, and on the NIST sets."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import rpcls
from rpcls import SketchAndPrecondition, Status

KINDS = ("incoherent", "semi-coherent", "coherent", "heavy-tailed")
FAMILIES = [
    *(f"ladder, {kind}" for kind in KINDS),
    *(f"noisy, {kind}" for kind in KINDS),
    "rank",
    "coordinate subspace",
    "spiked and stepped",
    "Kahan",
    "scaled columns",
    "kernel columns",
    "sparse",
    "consistent",
]
# solver, and a shape at which it is worth its while
SOLVERS: dict[str, tuple[Any, tuple[int, int]]] = {
    "auto": ("auto", (2000, 40)),
    "gram": (SketchAndPrecondition("gram"), (400, 12)),
    "cg": (SketchAndPrecondition("cg"), (400, 12)),
    "normal": ("normal", (400, 12)),
    "extra": (SketchAndPrecondition("cg", refine="extra"), (400, 12)),
}
DTYPES = ("float64", "float32")


@pytest.fixture(scope="module")
def marks(load: Callable[[str], ModuleType]) -> Callable[..., list[tuple[Any, Any]]]:
    """The problems of a family, and what their answers are held against; A and b are read-only."""
    problems, hard_problems = load("problems"), load("hard_problems")

    @cache
    def drawn(shape: tuple[int, int], seed: int) -> list[Any]:
        return list(problems.hard(*shape, seed))

    @cache
    def marks(family: str, dtype: str, shape: tuple[int, int], seed: int) -> list[tuple[Any, Any]]:
        found = [(p, hard_problems.Mark(p, dtype)) for p in drawn(shape, seed) if p.family == family]
        for _, mark in found:
            mark.A.flags.writeable = mark.b.flags.writeable = False
        return found

    return marks


def test_no_family_is_left_out(load: Callable[[str], ModuleType]) -> None:
    assert {p.family for p in load("problems").hard(48, 12, 0)} == set(FAMILIES)


def test_a_small_backward_error_after_one_stage_is_not_the_end(load: Callable[[str], ModuleType]) -> None:
    problem = next(p for p in load("problems").hard(4000, 60, 6) if p.name == "one row × 1e8")
    mark = load("hard_problems").Mark(problem, "float64")
    solution = rpcls.lstsq(mark.A, mark.b, SketchAndPrecondition("cg"), sketch_size=960)
    assert mark.ratios(solution.x[:, None])[0]["residual"] < 0.5  # of ten times QR's; 1.7 after one stage


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", SOLVERS)
def test_as_good_as_householder_qr(name: str, family: str, dtype: str, marks: Callable[..., Any]) -> None:
    """`Mark` has the criteria. The benchmark does seeds 0 to 9 of 4000 × 60."""
    solver, shape = SOLVERS[name]
    for problem, mark in marks(family, dtype, shape, seed=DTYPES.index(dtype)):
        assert all(0 < limit < np.inf for limit in mark.limits.values())
        with warnings.catch_warnings():
            if name == "normal":
                warnings.simplefilter("ignore", rpcls.ConvergenceWarning)
            solution = rpcls.lstsq(mark.A, mark.b, solver)
        if name == "normal" and not solution.status.ok:
            assert solution.status is Status.NOT_CONVERGED and (mark.condition > 1e4 or problem.deficient)
            continue
        assert solution.status.ok, (problem.name, solution)
        assert (solution.status is Status.MINIMUM_NORM) == (solution.rank < mark.A.shape[1])
        (ratios,) = mark.ratios(solution.x.astype(np.float64)[:, None])
        assert all(ratio <= 1 for ratio in ratios.values()), (problem.name, ratios, solution)
        if problem.deficient:
            assert solution.status is Status.MINIMUM_NORM


@pytest.mark.parametrize("name", ["rpcls", "rpcls, gram", "rpcls, cg", "rpcls, normal"])
def test_nist_reference_sets(name: str, load: Callable[[str], ModuleType]) -> None:
    """As many correct digits as LAPACK less one; LAPACK's, on columns of unit norm, are the fewest of four orders."""
    problems, answers, digits = load("problems"), load("answers"), load("hard_problems").digits
    for key in problems.nist_sets():
        A, y, exact = problems.nist(key)
        assert len(A) <= 82  # too few rows for a sketch to be worth it, so that one must be asked for
        scale = np.linalg.norm(A, axis=0)
        found = []
        for rows in (slice(None), slice(None, None, -1)):
            for columns in (slice(None), slice(None, None, -1)):
                x = np.linalg.lstsq((A / scale)[rows, columns], y[rows], rcond=1e-16)[0][columns] / scale
                found.append(digits(x, exact))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rpcls.ConvergenceWarning)
            solution = answers.OWN[name](A, y)
        if name == "rpcls, normal" and not solution.status.ok:
            assert solution.status is Status.NOT_CONVERGED and np.linalg.cond(A / scale) > 1e4
            continue
        assert solution.status is Status.OK
        assert digits(solution.x, exact) >= min(found) - 1, (key, solution, found)
