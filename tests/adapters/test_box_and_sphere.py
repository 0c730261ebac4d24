"""FineGates in the box and ETHER on the sphere: conditions of a minimum, and plain descent as the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from layers import KINDS, SHAPES, check_fit, layer, random, seeds, statistics
from scipy.optimize import lsq_linear

from rpcls.adapters import ETHER, ETHERPlus, FineGates, LayerStatistics, bounded, fit
from rpcls.adapters.family import Layer
from rpcls.errors import InvalidValueError


@given(seeds)
def test_bounded_least_squares(seed: int) -> None:
    rng = np.random.default_rng(seed)
    k, rows = rng.integers(1, 12), rng.integers(1, 24)
    A = rng.standard_normal((rows, k)) + rng.choice([0.0, 3.0]) * rng.standard_normal((rows, 1))  # some are correlated
    b = A @ rng.uniform(-0.5, 1.5, k) + rng.standard_normal(rows)
    start = rng.choice([0.0, 0.5, 1.0], k)
    found = bounded.boxed(A.T @ A, A.T @ b, start)
    want = lsq_linear(A, b, (0, 1), method="bvls", tol=1e-14, max_iter=1000)
    np.testing.assert_allclose(found.value, 2 * want.cost - b @ b, rtol=1e-9, atol=1e-9)
    assert found.x.min() >= 0 and found.x.max() <= 1
    slope = A.T @ (A @ found.x - b)
    tiny = 1e-8 * np.linalg.norm(A.T @ b)
    assert np.all(slope[found.x <= 0] >= -tiny) and np.all(slope[found.x >= 1] <= tiny)
    between = (found.x > 0) & (found.x < 1)
    assert np.all(np.abs(slope[between]) <= tiny) and found.free == between.sum()
    assert found.rank <= np.linalg.matrix_rank(A[:, between]) if between.any() else found.rank == 0


def test_bounds_beyond_what_can_be_determined() -> None:
    M, start = np.diag([2.0, 0.0, 1.0]), np.array([0.5, 0.25, 0.0])
    for found in (
        bounded.boxed(M, np.array([1.0, 0.0, 5.0]), start),
        bounded.clipped(np.diag(M), np.array([1.0, 0.0, 5.0]), start),
    ):
        np.testing.assert_allclose(found.x, [0.5, 0.25, 1.0])
        assert (found.rank, found.free) == (1, 2)
        np.testing.assert_allclose(found.value, 2 * 0.25 - 2 * 0.5 + 1 - 10)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_gates_are_a_minimum_in_the_box(shape: tuple[int, int], kind: str) -> None:
    X, _, W = layer(kind, shape)
    rng = np.random.default_rng(1)
    closed = rng.uniform(-0.3, 1.3, shape[0])[:, None] * W * rng.uniform(-0.3, 1.3, shape[1]) - W
    Z = X @ closed.T + 0.1 * rng.standard_normal((len(X), shape[0]))
    s = statistics(X, Z)
    result = fit(s, FineGates(), weight=W, ridge=0, tol=1e-13, max_iterations=5000)
    check_fit(result, s)
    rows, columns = result.factors["rows"], result.factors["columns"]
    np.testing.assert_allclose(result.delta(), np.diag(rows) @ W @ np.diag(columns) - W, atol=1e-14)
    f = s.objective()

    def slopes(rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        G = (rows[:, None] * W * columns - W) @ f.C - f.R
        return np.sum(G * W * columns, axis=1), np.sum(G * W * rows[:, None], axis=0)

    scale = 1e-5 * np.linalg.norm(f.R)
    for gates, slope in zip((rows, columns), slopes(rows, columns), strict=True):
        assert gates.min() >= 0 and gates.max() <= 1
        assert np.all(slope[gates == 0] >= -scale) and np.all(slope[gates == 1] <= scale)
        assert np.all(np.abs(slope[(gates > 0) & (gates < 1)]) <= scale)
    # projected gradient descent from the same start ends no lower
    x, y, step = np.ones(shape[0]), np.ones(shape[1]), 1 / (np.linalg.norm(f.C, 2) * np.linalg.norm(W, 2) ** 2)
    for _ in range(3000):
        gx, gy = slopes(x, y)
        x, y = np.clip(x - step * gx, 0, 1), np.clip(y - step * gy, 0, 1)
    assert result.history[-1] <= f.value(x[:, None] * W * y - W) + 1e-6 * f.energy
    assert set(result.identifiable) == {"rows", "columns"}


def explicit(factors: dict[str, np.ndarray], W: np.ndarray) -> np.ndarray:
    """H̃W₀H − W₀ from the definition, one reflection after the other."""

    def side(minus: str, plus: str, size: int) -> np.ndarray:
        H = np.eye(size)
        for sign, name in ((-1, minus), (1, plus)):
            for j, vector in enumerate(factors.get(name, np.zeros((0, 0)))):
                np.testing.assert_allclose(np.linalg.norm(vector), 1, rtol=1e-12)
                whole = np.zeros(size)
                whole[j * len(vector) : (j + 1) * len(vector)] = vector
                H += (sign if plus in factors else -2) * np.outer(whole, whole)
        return H

    return side("u_left", "v_left", len(W)) @ W @ side("u", "v", W.shape[1]) - W


SPHERES = [ETHER(), ETHER(3), ETHERPlus(two_sided=False), ETHERPlus(), ETHERPlus(3)]


@pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", SPHERES, ids=repr)
def test_reflections_end_where_no_direction_on_the_sphere_descends(
    family: Any, kind: str, shape: tuple[int, int]
) -> None:
    X, Z, W = layer(kind, shape)
    s = statistics(X, Z)
    f = s.objective(0.01)
    result = fit(s, family, weight=W, tol=1e-13, max_iterations=500)
    check_fit(result, s)
    np.testing.assert_allclose(result.delta(), explicit(result.factors, W), atol=1e-12)
    model: Any = family.bind(Layer(*shape, W))
    value, gradient = model.value_and_gradient(f, result.factors)
    np.testing.assert_allclose([value, result.history[-1]], f.value(result.delta()), rtol=1e-9)
    for name, vectors in result.factors.items():
        tangent = gradient[name] - np.sum(gradient[name] * vectors, axis=1, keepdims=True) * vectors
        assert np.linalg.norm(tangent) <= 1e-5 * f.energy
    if isinstance(family, ETHERPlus):
        assert result.history[-1] <= f.energy  # the identity is one of its members


@pytest.mark.parametrize("family", SPHERES, ids=repr)
def test_gradients_on_spheres_are_differences(family: Any) -> None:
    X, Z, W = layer("tall", (6, 9))
    f = statistics(X, Z).objective()
    model: Any = family.bind(Layer(6, 9, W))
    rng = np.random.default_rng(0)
    theta = {n: rng.standard_normal(part.shape) for n, part in fit(statistics(X, Z), family, weight=W).factors.items()}
    theta = {n: part / np.linalg.norm(part, axis=1, keepdims=True) for n, part in theta.items()}
    for name, gradient in model.value_and_gradient(f, theta)[1].items():
        way, h = rng.standard_normal(gradient.shape), 1e-6
        ahead, behind = (f.value(model.seen({**theta, name: theta[name] + t * way})) for t in (h, -h))
        np.testing.assert_allclose(np.vdot(gradient, way), (ahead - behind) / (2 * h), rtol=1e-5, atol=1e-5 * f.energy)


@pytest.mark.parametrize("family", [ETHER(), ETHERPlus()], ids=repr)
def test_plain_descent_from_the_same_start_ends_no_lower(family: Any) -> None:
    X, Z, W = layer("tall", (6, 9))
    s = statistics(X, Z)
    f = s.objective(0.01)
    result = fit(s, family, weight=W, tol=1e-12, max_iterations=500)
    model: Any = family.bind(Layer(6, 9, W))
    theta = min(model.starts(f), key=lambda t: model.value_and_gradient(f, t)[0])
    value, step = result.history[0], 1.0
    for _ in range(2000):
        value, gradient = model.value_and_gradient(f, theta)
        while step > 1e-20:
            moved = {n: v - step * gradient[n] for n, v in theta.items()}
            moved = {n: v / np.linalg.norm(v, axis=1, keepdims=True) for n, v in moved.items()}
            if model.value_and_gradient(f, moved)[0] < value:
                theta, step = moved, 2 * step
                break
            step /= 2
    assert result.history[-1] <= value + 1e-3 * f.energy


@pytest.mark.parametrize("shape", SHAPES)
def test_a_reflection_for_a_weight_target_is_the_global_minimum(shape: tuple[int, int]) -> None:
    W, T = random(shape, 0), random(shape, 1)
    result = fit(LayerStatistics.from_delta(T), ETHER(), weight=W, ridge=0)
    assert len(result.history) == 1
    S = W.T @ W + (T.T @ W + W.T @ T) / 2
    np.testing.assert_allclose(result.history[0], np.vdot(T, T) + 4 * np.linalg.eigvalsh(S)[0], rtol=1e-12)
    u = random((2000, shape[1]), 2)
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    assert result.history[0] <= min(np.linalg.norm(-2 * np.outer(W @ v, v) - T) ** 2 for v in u)


def test_bad_settings() -> None:
    s = LayerStatistics.from_delta(np.ones((4, 6)))
    for family, message in [
        (ETHER(4), "blocks must divide in_features = 6, got 4"),
        (ETHERPlus(3), "blocks must divide out_features = 4, got 3"),
    ]:
        with pytest.raises(InvalidValueError, match=message):
            fit(s, family, weight=np.ones((4, 6)))
    for kind in (ETHER, ETHERPlus):
        with pytest.raises(InvalidValueError, match="blocks must be at least 1, got 0"):
            kind(0)
    for family in (ETHER(), ETHERPlus(), FineGates()):
        with pytest.raises(InvalidValueError, match=f"{type(family).__name__} is made from the layer's weight"):
            fit(s, family)
