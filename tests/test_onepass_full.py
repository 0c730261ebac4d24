"""FullyCompressed: closed forms, minimum norm, estimates."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
from support import gaussian_sketch, matrix, summary

from rpcls.errors import ConvergenceWarning, InvalidTypeError, InvalidValueError
from rpcls.onepass import FullyCompressed
from rpcls.solution import Status


@pytest.mark.parametrize("kind", ["gaussian", "coherent"])
@pytest.mark.parametrize("ridge", [0.0, 1e-6, 0.3])
def test_closed_form_in_extended_precision(kind: str, ridge: float) -> None:
    rng = np.random.default_rng(0)
    A = matrix(kind, 300, 6, rng, condition=1e3)
    c = summary(A, rng.standard_normal(300), gaussian_sketch(25, 300, rng))
    sol = c.solve(FullyCompressed(ridge))
    x = oracles.normal_equations_mp(c.SA, c.SA.T @ c.Sb, ridge)
    assert sol.status is Status.OK and sol.rank == 6 and sol.sweeps == 1 and sol.residual_norm is None
    np.testing.assert_allclose(sol.x, x, rtol=0, atol=1e-11 * np.linalg.norm(x))


def test_columns_of_very_different_size_cost_no_digit_and_no_rank() -> None:
    rng = np.random.default_rng(1)
    B = rng.standard_normal((200, 9))
    scales = 10.0 ** np.linspace(-9, 9, 9)
    b, S = rng.standard_normal(200), gaussian_sketch(40, 200, rng)
    sol, plain = summary(B * scales, b, S).solve(FullyCompressed()), summary(B, b, S).solve(FullyCompressed())
    assert sol.status is Status.OK and sol.rank == 9 and sol.condition is not None and sol.condition < 20
    np.testing.assert_allclose(sol.x * scales, plain.x, rtol=1e-11)


def test_rank_deficient_and_short_sketches_give_the_minimum_norm_and_say_so() -> None:
    rng = np.random.default_rng(2)
    B = rng.standard_normal((200, 5))
    b = rng.standard_normal(200)
    for A, d in ((np.hstack([B, 10 * B]), 30), (B, 3), (np.hstack([B, np.zeros((200, 1))]), 30)):
        c = summary(A, b, gaussian_sketch(d, 200, rng))
        with pytest.warns(ConvergenceWarning, match=rf"Its rank is {min(5, d)}, n is {A.shape[1]}, sketch_size is {d}"):
            sol = c.solve(FullyCompressed())
        assert sol.status is Status.SKETCH_RANK_DEFICIENT and sol.rank == min(5, d)
        np.testing.assert_allclose(sol.x, np.linalg.pinv(c.SA, rcond=1e-10) @ c.Sb, rtol=1e-9, atol=1e-12)
        assert (sol.residual_norm_estimate is None) == (d == 3)


def test_ridge_makes_every_sketch_full_rank() -> None:
    rng = np.random.default_rng(3)
    c = summary(rng.standard_normal((100, 8)), rng.standard_normal(100), gaussian_sketch(5, 100, rng))
    sol = c.solve(FullyCompressed(ridge=0.5))
    assert sol.status is Status.OK and sol.rank == 8
    np.testing.assert_allclose(sol.x, np.linalg.solve(c.SA.T @ c.SA + 0.5 * np.eye(8), c.SA.T @ c.Sb), rtol=1e-11)


def test_residual_estimate_is_unbiased() -> None:
    rng = np.random.default_rng(4)
    m, n, d, repeats = 60, 8, 20, 600
    A, b = rng.standard_normal((m, n)), rng.standard_normal(m)
    ratios = []
    for _ in range(repeats):
        sol = summary(A, b, gaussian_sketch(d, m, rng)).solve(FullyCompressed())
        ratios.append((sol.residual_norm_estimate**2, np.linalg.norm(A @ sol.x - b) ** 2))
    estimate, truth = np.array(ratios).T
    error = np.std(estimate - truth) / np.sqrt(repeats)
    assert abs(np.mean(estimate) - np.mean(truth)) < 4 * error < 0.15 * np.mean(truth)  # 4σ: fails once in 16 000


def test_error_moment_of_a_gaussian_sketch() -> None:
    rng = np.random.default_rng(5)
    m, n, d, repeats = 50, 5, 20, 800
    A, b = matrix("coherent", m, n, rng), rng.standard_normal(m)
    x = np.linalg.lstsq(A, b, rcond=None)[0]
    squares = [
        np.linalg.norm(A @ (summary(A, b, gaussian_sketch(d, m, rng)).solve(FullyCompressed()).x - x)) ** 2
        for _ in range(repeats)
    ]
    expected = np.linalg.norm(A @ x - b) ** 2 * n / (d - n - 1)
    assert abs(np.mean(squares) - expected) < 4 * np.std(squares) / np.sqrt(repeats) < 0.15 * expected


@pytest.mark.parametrize("value", [-1.0, np.inf, np.nan])
def test_ridge_out_of_range(value: float) -> None:
    with pytest.raises(InvalidValueError, match="ridge must be finite and at least 0, got"):
        FullyCompressed(ridge=value)


@pytest.mark.parametrize("value", ["1", None, True, 1j])
def test_ridge_of_the_wrong_type(value: object) -> None:
    with pytest.raises(InvalidTypeError, match="ridge must be a real number, got"):
        FullyCompressed(ridge=value)  # type: ignore[arg-type]


def test_it_solves_a_summary_only() -> None:
    with pytest.raises(InvalidTypeError, match=r"FullyCompressed solves a CompressedProblem, got ndarray; .*compress"):
        FullyCompressed().solve(np.ones(3))  # type: ignore[arg-type]
