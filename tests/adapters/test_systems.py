"""Semidefinite systems: full and deficient rank, batches, an inverse root, conjugate gradients."""

from __future__ import annotations

import numpy as np
import pytest

from rpcls.adapters import systems


def semidefinite(n: int, rank: int, seed: int = 0, spread: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    F = rng.standard_normal((n, rank)) * np.geomspace(1, spread, n)[:, None]
    return F @ F.T


@pytest.mark.parametrize("rank", [0, 1, 4, 7])
@pytest.mark.parametrize("spread", [1.0, 1e3])
def test_minimum_norm(rank: int, spread: float) -> None:
    M = semidefinite(7, rank, spread=spread)
    m = M @ np.arange(7.0)
    solved = systems.solve(M, m)
    assert solved.rank == rank
    np.testing.assert_allclose(solved.x, np.linalg.pinv(M, rcond=1e-12, hermitian=True) @ m, rtol=1e-6, atol=1e-6)
    batch = systems.solve_batch(np.stack([M, np.eye(7), M]), np.stack([m, m, 2 * m]))
    np.testing.assert_allclose(batch.x, [solved.x, m, 2 * solved.x], rtol=1e-6, atol=1e-6)
    assert batch.rank == 2 * rank + 7


def test_full_rank_survives_any_scaling_of_the_unknowns() -> None:
    scales = 10.0 ** np.array([-90, -3, 0, 2, 60])
    M, x = semidefinite(5, 9), np.arange(1.0, 6.0)
    scaled = M * scales * scales[:, None]
    solved = systems.solve(scaled, scales * (M @ x))
    assert solved.rank == 5
    np.testing.assert_allclose(solved.x * scales, x, rtol=1e-10)
    np.testing.assert_allclose(systems.solve_batch(scaled[None], (scales * (M @ x))[None]).x[0] * scales, x, rtol=1e-10)


def test_unknowns_without_effect_are_zero() -> None:
    M = np.zeros((4, 4))
    M[1:3, 1:3] = [[2.0, 1.0], [1.0, 2.0]]
    x, rank = systems.solve(M, np.array([0.0, 3.0, 3.0, 0.0]))
    np.testing.assert_allclose(x, [0, 1, 1, 0])
    assert rank == 2


def test_several_right_hand_sides_and_none() -> None:
    M, B = semidefinite(4, 4), np.arange(8.0).reshape(4, 2)
    np.testing.assert_allclose(M @ systems.solve(M, B).x, B, atol=1e-10)
    assert systems.solve(np.zeros((0, 0)), np.zeros(0)) == (pytest.approx(np.zeros(0)), 0)
    assert systems.solve_batch(np.zeros((0, 2, 2)), np.zeros((0, 2))).rank == 0


@pytest.mark.parametrize("rank", [0, 3, 6])
def test_inverse_root(rank: int) -> None:
    C = semidefinite(6, rank)
    W = systems.inverse_root(C)
    assert W.shape == (6, rank)
    np.testing.assert_allclose(W @ W.T, np.linalg.pinv(C, rcond=1e-12, hermitian=True), atol=1e-8)


def test_conjugate_gradients() -> None:
    M, x = semidefinite(8, 20), np.arange(8.0).reshape(2, 4)
    rhs = (M @ x.ravel()).reshape(2, 4)

    def product(v: np.ndarray) -> np.ndarray:
        return (M @ v.ravel()).reshape(v.shape)

    def precondition(v: np.ndarray) -> np.ndarray:
        return (v.ravel() / np.diagonal(M)).reshape(v.shape)

    for start in (np.zeros((2, 4)), np.ones((2, 4))):
        got, used = systems.conjugate_gradients(product, rhs, precondition, start, tol=1e-13, max_iterations=50)
        np.testing.assert_allclose(got, x, atol=1e-9)
        assert used < 50
        assert (start == start.ravel()[0]).all()
    got, used = systems.conjugate_gradients(product, 0 * rhs, precondition, 0 * x, tol=1e-13, max_iterations=50)
    assert used == 0 and not got.any()
