"""NOLA and VeRA with many unknowns: both parts of θ by L-BFGS together."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from layers import check_fit, layer, random, statistics

from rpcls.adapters import NOLA, LayerStatistics, VeRA, fit, nola, vera
from rpcls.adapters.family import Family, Layer
from rpcls.adapters.fit import _objective
from rpcls.adapters.joint import inverse
from rpcls.errors import ConvergenceWarning

SHAPE = (11, 9)
FAMILIES: dict[str, Family] = {"NOLA": NOLA(5, 7, 2, alpha=3.0), "VeRA": VeRA(4)}
every_family = pytest.mark.parametrize("name", FAMILIES)


@pytest.fixture
def joint(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """However few unknowns there are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for module in (nola, vera):
            monkeypatch.setattr(module, "FEW", 0)
        yield


def problem(name: str, s: LayerStatistics, ridge: float = 0.0) -> tuple[Any, Any, Any]:
    """A model, its objective, and both as one problem."""
    model: Any = FAMILIES[name].bind(Layer(s.out_features, s.in_features))
    f: Any = _objective(model, s, ridge)
    return model, f, nola.Combined(model, f) if name == "NOLA" else vera.Scaled(model.B, f)


@pytest.mark.parametrize("tol", [1e-4, 0.0])
@every_family
def test_the_result_is_what_it_says(joint: None, name: str, tol: float) -> None:
    X, Z, _ = layer("tall", SHAPE, 5)
    s = statistics(X, Z)
    result = fit(s, FAMILIES[name], ridge=0, tol=tol, max_iterations=30)
    check_fit(result, s)
    np.testing.assert_allclose(result.history[-1], (1 - result.explained) * s.energy, rtol=1e-9)
    assert result.identifiable["b"] == (result.factors["b"].size,) * 2
    assert result.identifiable["a" if name == "NOLA" else "d"][0] is None


@pytest.mark.parametrize("kind", ["tall", "deficient"])
@every_family
def test_it_gets_where_one_half_after_the_other_gets(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    X, Z, _ = layer(kind, SHAPE, 2)
    s, family = statistics(X, Z), FAMILIES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        long = fit(s, family, max_iterations=3000, tol=1e-10)
        for module in (nola, vera):
            monkeypatch.setattr(module, "FEW", 0)
        got = fit(s, family, max_iterations=40, tol=1e-6)
    assert got.history[-1] <= long.history[-1] + 1e-3 * s.energy and got.converged


@pytest.mark.parametrize("unit", [1e-30, 1.0, 1e30])
@every_family
def test_float32_has_factors_near_one(joint: None, name: str, unit: float) -> None:
    X, Z, _ = layer("tall", SHAPE, 3)
    want, got = (fit(statistics(u * X, Z / u), FAMILIES[name]) for u in (1.0, unit))
    np.testing.assert_allclose(got.explained, want.explained, rtol=1e-5)


@every_family
def test_nothing_wanted_and_inputs_without_effect(joint: None, name: str) -> None:
    X, Z, _ = layer("tall", SHAPE, 4)
    nothing = fit(statistics(X, 0 * Z), FAMILIES[name])
    assert not nothing.delta().any() and nothing.converged
    X[:, 3] = 0
    result = fit(statistics(X, Z), FAMILIES[name], ridge=0)
    assert np.isfinite(result.delta()).all() and result.explained > 0.02


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@every_family
def test_the_gradient_is_that_of_the_objective(name: str, dtype: Any) -> None:
    X, Z, _ = layer("tall", SHAPE, 6)
    model, f, one = problem(name, statistics(X, Z), 0.1)
    u_name, v_name = one.names
    start = model.start(None)
    u, v = random(start[u_name].shape, 6), 1 + random(start[v_name].shape, 7)
    M, m = one.normal_equations(v)
    if name == "VeRA":  # the best b for this d is meant, whatever b is given
        u = m / M
    x, step = np.concatenate([u, v]), random((u.size + v.size,), 8)
    value, gradient = one.evaluation(dtype)(x)
    eps = 1e-11 if dtype == np.float64 else 1e-4
    np.testing.assert_allclose(value, f.value(model.seen({u_name: u, v_name: v})), rtol=eps)
    np.testing.assert_allclose(f.energy + u @ ((np.diag(M) if M.ndim == 1 else M) @ u - 2 * m), value, rtol=eps)
    h, exact = 1e-5, one.evaluation(np.float64)
    slope = (exact(x + h * step)[0] - exact(x - h * step)[0]) / (2 * h)
    np.testing.assert_allclose(gradient @ step, slope, rtol=max(1e-6, 10 * eps))


@pytest.mark.parametrize("columns", [(), (3,)])
def test_inverses_of_matrices_and_diagonals(columns: tuple[int, ...]) -> None:
    half = random((9, 6), 0)
    M, x = half.T @ half + np.eye(6), random((6, *columns), 1)
    np.testing.assert_allclose(inverse(M)(x), np.linalg.solve(M, x), rtol=1e-5)
    diagonal = np.array([1.0, 2, 0, 4, 5, 6])
    want = (x.T * [1, 1 / 2, 0, 1 / 4, 1 / 5, 1 / 6]).T
    np.testing.assert_allclose(inverse(diagonal)(x), want, rtol=1e-12)
