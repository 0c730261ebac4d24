"""Direct: reference digits, rank, minimum norm, ridge, blocks, extreme entries."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from support import gaussian_sketch, summary

import rpcls
from rpcls.errors import InvalidTypeError, InvalidValueError
from rpcls.multipass import Direct
from rpcls.solution import Status

NIST = Path(__file__).parent / "data" / "nist_strd"
EXACT = json.loads((NIST / "exact.json").read_text())


def nist(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    with open(NIST / f"{name}.csv", newline="") as file:
        rows = np.array([[float(v) for v in row] for row in list(csv.reader(file))[1:]])
    entry = EXACT[name]
    y, X = rows[:, 0], rows[:, 1:]
    if entry["design"].startswith("powers"):
        A = X ** np.arange(entry["columns"])
    elif entry["design"].startswith("intercept"):
        A = np.hstack([np.ones((len(X), 1)), X])
    else:
        A = X
    return A, y, np.array([float(v) for v in entry["coefficients"]]), float(entry["residual_sum_of_squares"])


def digits(x: np.ndarray, exact: np.ndarray) -> float:
    error = np.max(np.abs(x - exact) / np.where(exact == 0, 1.0, np.abs(exact)))
    return -np.log10(max(error, 1e-16))


def direct(A: object, b: object, solver: Direct | None = None, **options: object) -> rpcls.Solution:
    return rpcls.lstsq(A, b, Direct() if solver is None else solver, **options)  # type: ignore[arg-type]


def blocks(A: np.ndarray, b: np.ndarray) -> rpcls.RowBlocks:
    return rpcls.RowBlocks(lambda: ((A[i : i + 7], b[i : i + 7]) for i in range(0, len(A), 7)), A.shape[1])


TURNS = slice(None), slice(None, None, -1)


def lapack(A: np.ndarray, y: np.ndarray) -> np.ndarray:
    scale = np.linalg.norm(A, axis=0)
    return np.linalg.lstsq(A / scale, y, rcond=len(A) * 2.2e-16)[0] / scale


@pytest.mark.parametrize("name", sorted(EXACT))
@pytest.mark.parametrize("blocked", [False, True])
def test_reference_digits(name: str, blocked: bool) -> None:
    A, y, exact, rss = nist(name)
    sol = direct(blocks(A, y), None) if blocked else direct(A, y)
    assert sol.status is Status.OK and sol.sweeps == 1 and sol.rank == A.shape[1]
    # LAPACK's own digits differ by more than one between orders of the rows and columns, and between BLAS libraries
    orders = [(A[rows][:, columns], y[rows], exact[columns]) for rows in TURNS for columns in TURNS]
    assert digits(sol.x, exact) > min(digits(lapack(*part[:2]), part[2]) for part in orders) - 1.0
    assert digits(sol.x, exact) > {"filip": 6.5, "wampler4": 7.5, "wampler5": 5.5}.get(name, 9.0)
    np.testing.assert_allclose(sol.residual_norm, np.sqrt(rss), rtol=1e-7, atol=1e-9 * np.linalg.norm(y))


def test_numpys_rule_when_rcond_is_a_number() -> None:
    A, y, exact, _ = nist("filip")
    sol = direct(A, y, Direct(rcond=1e-14))
    assert sol.status is Status.MINIMUM_NORM and sol.rank < 11 and digits(sol.x, exact) < 3
    x, _, rank, s = np.linalg.lstsq(A, y, rcond=1e-14)
    assert sol.rank == rank
    np.testing.assert_allclose(sol.x, x, rtol=1e-5)
    np.testing.assert_allclose(sol.condition, s[0] / s[-1], rtol=1e-2)
    np.testing.assert_allclose(sol.residual_norm, np.linalg.norm(A @ sol.x - y), rtol=1e-7)


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(), (3,)])
def test_intercept_weights_and_right_hand_sides(intercept: bool, weighted: bool, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    A, b = rng.standard_normal((40, 5)) + 3, rng.standard_normal((40, *shape))
    w = rng.random(40) if weighted else None
    root = np.ones(40) if w is None else np.sqrt(w)
    M = np.hstack([np.ones((40, 1)), A]) if intercept else A
    x = np.linalg.lstsq(M * root[:, None], (b.T * root).T, rcond=None)[0]
    residual = np.linalg.norm((M @ x - b).T * root, axis=-1)
    before = A.copy(), b.copy()
    for sol in (
        direct(A, b, intercept=intercept, sample_weight=w),
        direct(A.astype(np.float32), b, intercept=intercept, sample_weight=w),
    ):
        tolerance = 1e-10 if sol.x.dtype == np.float64 else 1e-4
        np.testing.assert_allclose(sol.x, x[1:] if intercept else x, atol=tolerance)
        if intercept:
            np.testing.assert_allclose(sol.intercept, x[0], atol=tolerance)
        else:
            assert sol.intercept is None
        np.testing.assert_allclose(sol.residual_norm, residual, atol=tolerance)
    assert np.array_equal(A, before[0]) and np.array_equal(b, before[1])


def test_blocks_and_arrays_agree() -> None:
    rng = np.random.default_rng(1)
    A, b = rng.standard_normal((50, 4)), rng.standard_normal(50)
    for options in ({}, {"intercept": True}):
        one, many = direct(A, b, **options), direct(blocks(A, b), None, **options)
        np.testing.assert_allclose(one.x, many.x, rtol=1e-12)
        np.testing.assert_allclose(one.residual_norm, many.residual_norm, rtol=1e-12)
        if options:
            np.testing.assert_allclose(one.intercept, many.intercept, rtol=1e-12)


@pytest.mark.parametrize("blocked", [False, True])
def test_ridge(blocked: bool) -> None:
    rng = np.random.default_rng(2)
    A, b = rng.standard_normal((30, 4)) + 2, rng.standard_normal(30)
    sol = direct(blocks(A, b), None, Direct(0.7)) if blocked else direct(A, b, Direct(0.7))
    np.testing.assert_allclose(sol.x, np.linalg.solve(A.T @ A + 0.7 * np.eye(4), A.T @ b), rtol=1e-11)
    np.testing.assert_allclose(sol.residual_norm, np.linalg.norm(A @ sol.x - b), rtol=1e-11)
    centred = direct(A, b, Direct(0.7), intercept=True)
    C = A - A.mean(axis=0)
    np.testing.assert_allclose(centred.x, np.linalg.solve(C.T @ C + 0.7 * np.eye(4), C.T @ b), rtol=1e-10)
    np.testing.assert_allclose(centred.intercept, np.mean(b - A @ centred.x), rtol=1e-10)
    wide = direct(A[:3], b[:3], Direct(0.7))
    assert wide.status is Status.OK
    np.testing.assert_allclose(wide.x, np.linalg.solve(A[:3].T @ A[:3] + 0.7 * np.eye(4), A[:3].T @ b[:3]), rtol=1e-11)


@pytest.mark.parametrize("blocked", [False, True])
def test_minimum_norm_in_the_callers_units(blocked: bool) -> None:
    rng = np.random.default_rng(3)
    B, b = rng.standard_normal((40, 3)), rng.standard_normal(40)
    for A in (np.hstack([B, 10 * B]), np.hstack([B, np.zeros((40, 1))]), B[:2], np.hstack([B, B])[:4]):
        sol = direct(blocks(A, b[: len(A)]), None) if blocked else direct(A, b[: len(A)])
        assert (
            sol.status is Status.MINIMUM_NORM and sol.status.ok and f"Its rank is {sol.rank}, its shape" in sol.message
        )
        x = np.linalg.pinv(A, rcond=1e-10) @ b[: len(A)]
        np.testing.assert_allclose(sol.x, x, rtol=1e-9, atol=1e-13)
        np.testing.assert_allclose(sol.residual_norm, np.linalg.norm(A @ x - b[: len(A)]), atol=1e-12)


@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize(
    ("alpha", "beta"), [(1e-200, 1.0), (1e200, 1.0), (1.0, 1e-200), (1e-150, 1e150), (1e200, 1e200)]
)
def test_entries_whose_squares_leave_the_range(blocked: bool, alpha: float, beta: float) -> None:
    rng = np.random.default_rng(4)
    A, b = rng.standard_normal((30, 4)), rng.standard_normal(30)
    plain = direct(A, b)
    A, b = A * alpha, b * beta
    sol = direct(blocks(A, b), None) if blocked else direct(A, b)
    np.testing.assert_allclose(sol.x, plain.x / alpha * beta, rtol=1e-12)
    np.testing.assert_allclose(sol.residual_norm, plain.residual_norm * beta, rtol=1e-12)
    np.testing.assert_allclose(sol.condition, plain.condition, rtol=1.0)


def test_column_norms_above_the_largest_float() -> None:
    rng = np.random.default_rng(5)
    A, b = rng.uniform(-1, 1, (30, 4)), rng.standard_normal(30)
    sol = direct(A * 1.7e308, b * 1e50)
    np.testing.assert_allclose(sol.x * 1.7e258, np.linalg.lstsq(A, b, rcond=None)[0], rtol=1e-11)
    assert sol.status is Status.OK and sol.rank == 4


def test_columns_of_very_different_size() -> None:
    rng = np.random.default_rng(5)
    B, b = rng.standard_normal((60, 9)), rng.standard_normal(60)
    scales = 10.0 ** np.linspace(-200, 200, 9)
    sol = direct(B * scales, b)
    assert sol.status is Status.OK and sol.rank == 9
    np.testing.assert_allclose(sol.x * scales, np.linalg.lstsq(B, b, rcond=None)[0], rtol=1e-11)


def test_zero_right_hand_side_and_zero_matrix() -> None:
    A = np.random.default_rng(6).standard_normal((20, 3))
    sol = direct(A, np.zeros(20))
    assert sol.status is Status.ZERO_GRADIENT and not sol.x.any() and sol.residual_norm == 0
    sol = direct(np.zeros((20, 3)), np.ones(20))
    assert sol.status is Status.MINIMUM_NORM and sol.rank == 0 and not sol.x.any()
    np.testing.assert_allclose(sol.residual_norm, np.sqrt(20))


def test_it_needs_the_rows() -> None:
    rng = np.random.default_rng(7)
    c = summary(rng.standard_normal((20, 3)), rng.standard_normal(20), gaussian_sketch(8, 20, rng))
    with pytest.raises(InvalidTypeError, match=r"Direct needs the rows of A, got only a summary; call rpcls\.lstsq"):
        c.solve(Direct())
    assert Direct().sketch((10, 3), np.float64) is None


@pytest.mark.parametrize(("name", "value"), [("ridge", -1.0), ("ridge", np.nan)])
def test_ridge_out_of_range(name: str, value: float) -> None:
    with pytest.raises(InvalidValueError, match="ridge must be finite and at least 0, got"):
        Direct(**{name: value})


@pytest.mark.parametrize("value", [-1e-3, 1.0, np.nan])
def test_rcond_out_of_range(value: float) -> None:
    with pytest.raises(InvalidValueError, match=r"rcond must be at least 0 and below 1, or None \(15ε\), got"):
        Direct(rcond=value)


def test_arguments_of_the_wrong_type() -> None:
    with pytest.raises(InvalidTypeError, match="ridge must be a real number, got str"):
        Direct(ridge="1")  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match="rcond must be a real number, got bool"):
        Direct(rcond=True)
