"""RandLoRA with many unknowns: λ and γ by L-BFGS together."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from layers import check_fit, layer, random, statistics

from rpcls.adapters import LayerStatistics, RandLoRA, fit, randlora
from rpcls.adapters.descent import Descent
from rpcls.adapters.family import Layer
from rpcls.adapters.quadratic import Quadratic
from rpcls.errors import ConvergenceWarning

SHAPE = (11, 9)
# a layer's statistics: C couples the rows of dW, or all that is unknown in a column, or is the identity
SUMS = {
    "inputs": lambda: statistics(*layer("tall", SHAPE, 5)[:2]),
    "more inputs than outputs": lambda: statistics(*layer("tall", (9, 11), 5)[:2]),
    "no inputs": lambda: LayerStatistics.from_delta(random(SHAPE, 5)),
}
every_sum = pytest.mark.parametrize("sums", SUMS)


@pytest.fixture
def coupled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """However few unknowns there are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        monkeypatch.setattr(randlora, "FEW", 0)
        yield


def objective(s: LayerStatistics) -> Quadratic:
    f = s.objective()
    assert isinstance(f, Quadratic)
    return f


@pytest.mark.parametrize("tol", [1e-4, 0.0])
@every_sum
def test_the_result_is_what_it_says(coupled: None, sums: str, tol: float) -> None:
    s = SUMS[sums]()
    result = fit(s, RandLoRA(2, alpha=3.0), ridge=0, tol=tol)
    check_fit(result, s)
    np.testing.assert_allclose(result.history[-1], objective(s).value(result.delta()), rtol=1e-9)
    assert result.identifiable["gamma"] == (None, 45) and result.identifiable["lambda"] == (10, 10)


@pytest.mark.parametrize("kind", ["tall", "deficient"])
def test_it_gets_where_one_half_after_the_other_gets(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    X, Z, _ = layer(kind, SHAPE, 2)
    s = statistics(X, Z)
    few, many = {"max_iterations": 10, "tol": 1e-6}, {"max_iterations": 3000, "tol": 1e-9}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        short, long = fit(s, RandLoRA(3), **few), fit(s, RandLoRA(3), **many)
        monkeypatch.setattr(randlora, "FEW", 0)
        got = fit(s, RandLoRA(3), **few)
    assert got.history[-1] <= short.history[-1] * (1 + 1e-6)
    assert got.history[-1] <= long.history[-1] + 1e-2 * s.energy and got.converged  # other minima


@pytest.mark.parametrize("unit", [1e-30, 1.0, 1e30])
def test_float32_products_have_factors_near_one(coupled: None, unit: float) -> None:
    X, Z, _ = layer("tall", SHAPE, 3)
    want = fit(statistics(X, Z), RandLoRA(2))
    got = fit(statistics(unit * X, Z / unit), RandLoRA(2))
    np.testing.assert_allclose(got.explained, want.explained, rtol=1e-5)


def test_nothing_wanted_and_inputs_without_effect(coupled: None) -> None:
    X, Z, _ = layer("tall", SHAPE, 4)
    nothing = fit(statistics(X, 0 * Z), RandLoRA(2))
    assert not nothing.delta().any() and nothing.converged
    X[:, 3] = 0
    result = fit(statistics(X, Z), RandLoRA(2), ridge=0)
    assert np.isfinite(result.delta()).all() and result.explained > 0.1
    A, B = random((2, 1, 9), 0), np.zeros((11, 5, 2))
    assert fit(statistics(X, Z), RandLoRA(2, A=A, B=B)).explained == 0


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@every_sum
def test_the_gradient_is_that_of_the_objective(sums: str, dtype: Any) -> None:
    f = objective(SUMS[sums]())
    model: Any = RandLoRA(2, alpha=3.0).bind(Layer(*f.shape))
    problem = model.coupled(f)
    assert (problem.C is None) == (sums != "inputs")
    theta = {"lambda": random((2, 5), 6), "gamma": random((5, 9), 7)}
    x, step = np.concatenate([part.reshape(-1) for part in theta.values()]), random((55,), 8)
    evaluate = problem.evaluation(dtype)
    eps = 1e-12 if dtype == np.float64 else 1e-5
    value, gradient = evaluate(x)
    np.testing.assert_allclose(value, f.value(model.seen(theta)), rtol=eps)
    h = 1e-5
    values = [problem.evaluation(np.float64)(x + t * step)[0] for t in (h, -h)]
    np.testing.assert_allclose(gradient @ step, (values[0] - values[1]) / (2 * h), rtol=max(1e-7, eps))
    lam = theta["lambda"].reshape(-1)
    M, m = problem.normal_equations(theta["gamma"])
    np.testing.assert_allclose(f.energy + lam @ (M @ lam - 2 * m), value, rtol=eps)


def test_the_descent_of_a_quadratic_ends_in_its_minimum() -> None:
    H = np.diag(np.geomspace(1, 1e3, 12)) + 0.5
    b, calls = random((12,), 0), []

    def evaluate(x: np.ndarray) -> tuple[float, np.ndarray]:
        calls.append(x)
        return 0.5 * float(x @ (H @ x)) - float(b @ x), H @ x - b

    want = np.linalg.solve(H, b)
    np.testing.assert_allclose(Descent().run(evaluate, np.zeros(12), lambda v: np.linalg.solve(H, v), 1), want)
    assert len(calls) == 2  # a step that is not shortened
    descent = Descent(12)
    x = descent.run(evaluate, np.zeros(12), lambda v: v, 16)  # a first step a thousand times too long
    assert len(descent.pairs) == 12
    np.testing.assert_allclose(descent.run(evaluate, x, lambda v: v, 60), want, atol=1e-6)
    np.testing.assert_array_equal(Descent().run(evaluate, x, lambda v: -v, 5), x)  # which only leads up


def test_the_descent_begins_again_where_its_pairs_mislead() -> None:
    def evaluate(x: np.ndarray) -> tuple[float, np.ndarray]:
        return float(x @ x), 2 * x

    descent = Descent()
    step = np.array([1.0, 0.0])
    descent.pairs.append((step, 1e-9 * step))  # as if the function were flat, so that steps are far too long
    np.testing.assert_allclose(descent.run(evaluate, np.array([3.0, 1.0]), lambda v: v / 2, 2), 0, atol=1e-12)
