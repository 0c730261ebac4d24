"""What solvers of more sweeps rest on: backward errors, lost directions, constant columns, conjugate gradients."""

from __future__ import annotations

import numpy as np
import pytest
from oracles import exact_backward_error
from support import gaussian_sketch, matrix, sparse_sketch, summary

import rpcls
import rpcls.factor.host
import rpcls.multipass.posed
from rpcls.factor import Factor
from rpcls.linalg import rank_tolerance, triangle
from rpcls.multipass.iterate import conjugate_gradients
from rpcls.multipass.posed import Posed, constant_columns, start
from rpcls.sources import source_of


def posed_and_factor(A: np.ndarray, b: np.ndarray, multiple: int) -> tuple[Posed, Factor]:
    problem = rpcls.compress(A, b, sketch_size=multiple * A.shape[1], rng=0)
    factor, _ = start(problem, 0.0, rank_tolerance(A.dtype), scaled=True)
    return Posed(source_of(A, b, workers=1), problem, 0.0, 1), factor


@pytest.mark.parametrize("kind", ["gaussian", "coherent"])
@pytest.mark.parametrize("condition", [1e0, 1e3, 1e6])
@pytest.mark.parametrize("noise", [1e-6, 1.0])
def test_backward_errors_are_near_the_exact_ones(kind: str, condition: float, noise: float) -> None:
    rng = np.random.default_rng(0)
    A = matrix(kind, 150, 6, rng, condition=condition)
    A /= 1.01 * np.linalg.norm(A, axis=0)  # so that scaling by powers of two leaves the columns
    b = A @ rng.standard_normal(6) + noise * rng.standard_normal(150)
    best = np.linalg.lstsq(A, b)[0]
    posed, factor = posed_and_factor(A, b, 12)
    for power in range(1, 7):
        x = best + 10.0**-power * np.linalg.norm(best) * rng.standard_normal(6)
        h = factor.half_transpose(posed.gradient(x[:, None]))
        bound, estimate = (float(posed.backward_error(factor, x[:, None], h, bound=up)[0]) for up in (True, False))
        assert 0.6 < estimate / exact_backward_error(A, b, x) < 2.5
        assert 0.99 * estimate <= bound


def test_backward_errors_of_nothing_and_of_nan() -> None:
    A = np.random.default_rng(0).standard_normal((100, 3))
    posed, factor = posed_and_factor(A, np.zeros(100), 12)
    x = np.zeros((3, 1))
    h = factor.half_transpose(posed.gradient(x))
    assert posed.backward_error(factor, x, h) == 0
    assert np.isinf(posed.backward_error(factor, x, np.full((3, 1), np.nan)))


@pytest.mark.parametrize("decades", [0, 150])
def test_missed_is_what_the_row_space_lacks(decades: int) -> None:
    rng = np.random.default_rng(1)
    scales = 10.0 ** np.linspace(-decades, decades, 6)
    B = rng.standard_normal((40, 4))
    unit = np.hstack([B, B @ rng.standard_normal((4, 2))])
    unit /= np.linalg.norm(unit, axis=0)
    factor = Factor(triangle(unit * scales), 1e-14)
    assert factor.rank == 4
    V = np.linalg.svd(unit)[2]
    inside, outside = V[:4].T @ rng.standard_normal((4, 3)), V[4:].T @ rng.standard_normal((2, 3))
    assert np.all(factor.missed(inside * scales[:, None]) <= 1e-14)
    missed = factor.missed((inside + outside) * scales[:, None])
    assert np.all(missed > 0.2 * np.linalg.norm(outside, axis=0))
    if not decades:
        np.testing.assert_allclose(missed, np.linalg.norm(outside, axis=0), rtol=0.5)  # units to a power of two
    full = Factor(triangle(unit[:, :4]), 1e-14)
    assert full.full and not full.missed(outside[:4]).any()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("m", [300, 30_000])
def test_constant_columns_are_told_from_nearly_constant_ones(dtype: type, m: int) -> None:
    rng = np.random.default_rng(2)
    values, spread = np.array([0.1, 1 / 3, 7.3e8, 1e-9 / 7]), 1e-3 if dtype is np.float32 else 1e-9
    A = np.hstack([np.tile(values, (m, 1)), values * (1 + spread * rng.standard_normal((m, 4)))]).astype(dtype)
    for d in (16, 64, 400):
        problem = rpcls.compress(A, np.zeros(m, dtype), sketch_size=d, rng=0).centered()
        assert constant_columns(problem).tolist() == [True] * 4 + [False] * 4
    assert not constant_columns(rpcls.compress(A, np.zeros(m, dtype), rng=0)).any()  # without an intercept none is


def test_a_sampled_sketch_that_sees_a_column_constant_does_not_make_it_so() -> None:
    rng = np.random.default_rng(3)
    A = np.ones((400, 3)) + 0.0
    A[:, 1:] += rng.standard_normal((400, 2))
    A[7, 0] = 2.0
    S = np.zeros((50, 400))
    S[np.arange(50), np.arange(100, 150)] = np.sqrt(8)
    assert not constant_columns(summary(A, rng.standard_normal(400), S).centered()).any()


@pytest.mark.parametrize("sketch", [gaussian_sketch, sparse_sketch])
def test_the_start_solves_the_sketched_problem(sketch) -> None:
    rng = np.random.default_rng(4)
    A, B = matrix("coherent", 300, 5, rng), rng.standard_normal((300, 2))
    S = sketch(60, 300, rng)
    for ridge in (0.0, 0.2):
        factor, X = start(summary(A, B, S), ridge, 1e-14, scaled=True)
        SA, SB = S @ A, S @ B
        np.testing.assert_allclose(X, np.linalg.solve(SA.T @ SA + ridge * np.eye(5), SA.T @ SB), rtol=1e-9)
        g = rng.standard_normal((5, 1))
        np.testing.assert_allclose(factor.gram_pinv(g), np.linalg.solve(SA.T @ SA + ridge * np.eye(5), g), rtol=1e-9)


def test_many_columns_start_from_products_of_matrices_where_that_is_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (rpcls.factor.host, rpcls.multipass.posed):
        monkeypatch.setattr(module, "_MANY", 30)
    rng = np.random.default_rng(5)
    n, S = 40, np.eye(120)
    A = rng.standard_normal((120, n))
    b = A @ rng.standard_normal(n)
    s = np.linalg.svd(A / np.linalg.norm(A, axis=0), compute_uv=False)
    for scale, ridge in ((np.ones(n), 0.0), (10.0 ** np.linspace(-9, 9, n), 0.0), (np.ones(n), 5.0)):
        factor, x = start(summary(A * scale, b, S), ridge, 1e-14, scaled=True)
        expected = np.linalg.solve(A.T @ A + ridge * np.eye(n), A.T @ b)
        np.testing.assert_allclose(x[:, 0] * scale, expected, rtol=1e-9)
        assert ridge or 0.5 < factor.condition / (s[0] / s[-1]) < 2
    A[:, 1] = A[:, 0] + 1e-9 * A[:, 1]  # not safe: by elimination
    with monkeypatch.context() as patch:
        patch.delattr(rpcls.multipass.posed, "triangle")
        factor, x = start(summary(A, A @ np.ones(n), S), 0.0, 1e-14, scaled=True)
    np.testing.assert_allclose(x[:, 0], 1, rtol=1e-5)
    s = np.linalg.svd(A / np.linalg.norm(A, axis=0), compute_uv=False)
    assert 0.5 < factor.condition / (s[0] / s[-1]) < 2
    A[:, 1] = A[:, 0]  # nor that: by QR, which finds the rank
    factor, x = start(summary(A, A @ np.ones(n), S), 0.0, 1e-14, scaled=True)
    assert factor.rank == n - 1
    np.testing.assert_allclose(x[:, 0], 1, rtol=1e-10)


def test_conjugate_gradients_end_in_as_many_steps_as_there_are_eigenvalues() -> None:
    rng = np.random.default_rng(6)
    Q = np.linalg.qr(rng.standard_normal((8, 8)))[0]
    M = (Q * np.array([1.0, 1, 1, 2, 2, 2, 5, 5])) @ Q.T
    H = np.column_stack([rng.standard_normal(8), np.zeros(8), Q[:, 0], rng.standard_normal(8)])
    calls: list[int] = []

    def stop(iteration: int, step: np.ndarray, p: np.ndarray, y: np.ndarray, rho: np.ndarray) -> np.ndarray:
        calls.append(iteration)
        np.testing.assert_allclose(rho, H - M @ y, atol=1e-13)
        return np.linalg.norm(rho, axis=0) <= 1e-13

    y, iterations = conjugate_gradients(lambda p: M @ p, H, stop)
    assert iterations == 3 and calls == [1, 2, 3]
    np.testing.assert_allclose(y, np.linalg.solve(M, H), atol=1e-13)
    assert not y[:, 1].any()


def test_conjugate_gradients_leave_finished_columns_alone() -> None:
    M, H = np.diag([1.0, 3.0, 10.0]), np.ones((3, 2))
    seen: list[np.ndarray] = []

    def stop(iteration: int, step: np.ndarray, p: np.ndarray, y: np.ndarray, rho: np.ndarray) -> np.ndarray:
        seen.append(y.copy())
        return np.array([True, iteration == 3])

    y, iterations = conjugate_gradients(lambda p: M @ p, H, stop)
    assert iterations == 3 and np.array_equal(y[:, 0], seen[0][:, 0])
    np.testing.assert_allclose(y[:, 1], 1 / np.diag(M), rtol=1e-12)
    indefinite, _ = conjugate_gradients(lambda p: -p, H, lambda i, step, p, y, rho: np.zeros(2, bool))
    assert not indefinite.any()
    _, most = conjugate_gradients(lambda p: M @ p, H, lambda i, step, p, y, rho: np.zeros(2, bool), most=2)
    assert most == 2
