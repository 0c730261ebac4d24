"""NormalEquations by products in float32: as good as in float64, and left where they will not do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import rpcls
from rpcls import NormalEquations
from rpcls.planning import SINGLE_COLUMNS
from rpcls.sources import source_of, sweeps

M, N = 4200, SINGLE_COLUMNS + 20


def problem(condition: float, k: int = 1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    V = np.linalg.qr(rng.standard_normal((N, N)))[0]
    A = rng.standard_normal((M, N)) / np.sqrt(M) @ (V * np.geomspace(1, 1 / condition, N)) @ V.T
    b = A @ rng.standard_normal((N, k)) + rng.standard_normal((M, k)) / 10
    return A, b if k > 1 else b[:, 0]


def slope(A: Any, b: Any, x: Any) -> np.ndarray:
    """Aᵀ(b − Ax), from extended precision."""
    A, b, x = (np.asarray(part, np.longdouble) for part in (A, b, x))
    return (A.T @ (b - A @ x)).astype(float)


def as_good_as_lapack(A: np.ndarray, b: np.ndarray, x: np.ndarray) -> bool:
    lapack = np.linalg.lstsq(A, b, rcond=None)[0]
    return bool(np.linalg.norm(slope(A, b, x)) <= np.linalg.norm(slope(A, b, lapack)))


def counted(A: np.ndarray, b: np.ndarray) -> tuple[rpcls.Solution, list[bool]]:
    """The solution, and whether each Gram matrix on its way was by products in float32."""
    source, singles = source_of(A, b), []
    inner = source.gram

    def gram(R: Any = None, *, single: bool = False) -> Any:
        singles.append(single)
        return inner(R, single=single)

    source.gram = gram
    return NormalEquations().solve(None, source), singles


def test_sums_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    A, b = problem(30.0)
    monkeypatch.setattr(sweeps, "_GRAM_ROWS", 300)  # fourteen blocks: sums in float32 begin anew more than once
    G, Atb = source_of(A, b).gram(single=True)
    exact = A.T @ A
    assert 0 < np.abs(G - exact).max() < 1e-6 * exact.max()
    np.testing.assert_allclose(Atb[:, 0], A.T @ b, rtol=0, atol=1e-13)


@pytest.mark.parametrize("condition", [1.0, 30.0, 600.0])
@pytest.mark.parametrize("order", ["C", "F"])
def test_the_slope_is_that_of_lapack(condition: float, order: Any) -> None:
    A, b = problem(condition)
    A = np.asarray(A, order=order)
    solution, singles = counted(A, b)
    assert solution.status.ok and singles == [True] and solution.sweeps <= 8
    assert as_good_as_lapack(A, b, solution.x)
    bound = solution.error_estimate
    error = np.linalg.norm(np.linalg.solve(np.linalg.qr(A, "r").T, slope(A, b, solution.x)))  # ‖A(x − x*)‖
    assert bound is not None and error <= float(bound.upper) < 1e-10 * np.linalg.norm(b)


def test_auto_takes_it() -> None:
    A, b = problem(30.0)
    solution = rpcls.lstsq(A, b)
    assert isinstance(solution.solver, NormalEquations) and 2 < solution.sweeps < 8


def test_weights_intercept_ridge_and_many_right_hand_sides() -> None:
    A, b = problem(30.0, 3)
    w = np.random.default_rng(1).uniform(0.5, 2, M)
    x = rpcls.lstsq(A, b, NormalEquations(ridge=0.1), sample_weight=w, intercept=True).x
    root, ones = np.sqrt(w)[:, None], np.hstack([A, np.ones((M, 1))])
    penalty = np.diag([np.sqrt(0.1)] * N + [0.0])
    wide, right = np.vstack([root * ones, penalty]), np.vstack([root * b, np.zeros((N + 1, 3))])
    np.testing.assert_allclose(x, np.linalg.lstsq(wide, right, rcond=None)[0][:-1], rtol=0, atol=1e-12)


def test_float32_rows() -> None:
    A, b = (part.astype(np.float32) for part in problem(30.0))
    x = rpcls.lstsq(A, b, NormalEquations()).x
    exact = np.linalg.lstsq(A.astype(float), b.astype(float), rcond=None)[0]
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, exact, rtol=0, atol=2e-7 * np.abs(exact).max())


@pytest.mark.parametrize("scale", [1e25, 1e-25])
def test_units_beyond_float32(scale: float) -> None:
    A, b = problem(30.0)
    solution, singles = counted(A * scale, b)
    assert singles == [True, False]
    assert solution.status.ok
    np.testing.assert_allclose(solution.x * scale, np.linalg.lstsq(A, b, rcond=None)[0], rtol=0, atol=1e-11)


def test_a_condition_number_that_a_few_rows_did_not_tell() -> None:
    A, b = problem(30.0)
    A[1] = 3 * np.random.default_rng(2).choice([-1.0, 1.0], N)  # between the rows that are looked at
    solution, singles = counted(A, b)
    assert singles == [True, False] and solution.sweeps == 3  # none to refine by what is not relied on
    assert solution.status.ok and as_good_as_lapack(A, b, solution.x)


def test_ill_conditioned_rows_are_seen_before_a_sweep() -> None:
    A, b = problem(1e5)
    assert counted(A, b)[1] == [False]
