"""The rivals in benchmarks/adapters_peers.py do what they say, and have the same objective as rpcls."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs torch; .ci/run installs it in its second step")

from rpcls.adapters import NOLA, LayerStatistics, LoRA, RandLoRA, VeRA, fit
from rpcls.adapters.family import Layer

pytestmark = [pytest.mark.peft, pytest.mark.filterwarnings("default")]

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
FAMILIES = [VeRA(8), RandLoRA(5), NOLA(7, 9, 3, alpha=2.0)]


@pytest.fixture
def peers() -> Iterator[Any]:
    sys.path.insert(0, str(BENCHMARKS))
    import adapters_peers

    yield adapters_peers
    sys.path.remove(str(BENCHMARKS))
    del sys.modules["adapters_peers"]


@pytest.fixture
def layer() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """X, T and Z = XTᵀ of a layer with unequal inputs, 12 × 10."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 10)) * np.geomspace(1, 30, 10)
    T = rng.standard_normal((12, 10))
    return X, T, X @ T.T


def test_eora_is_reduced_rank_regression_without_a_ridge(peers: Any, layer: Any) -> None:
    X, T, _ = layer
    s = LayerStatistics.from_delta(T, inputs=X)
    np.testing.assert_allclose(peers.eora(T, X.T @ X, 3), fit(s, LoRA(3), ridge=0).delta(), atol=1e-9)
    assert s.explained(peers.eora(T, X.T @ X, 3)) > s.explained(peers.svd(T, 3)) + 0.01


def test_eora_with_inputs_that_span_less(peers: Any, layer: Any) -> None:
    X, T, _ = layer
    X = X[:4]
    dW = peers.eora(T, X.T @ X, 4)
    np.testing.assert_allclose(X @ dW.T, X @ T.T, atol=1e-8)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: type(family).__name__)
@pytest.mark.parametrize("shape", [(12, 10), (10, 10)])
def test_torch_has_the_same_update(peers: Any, family: Any, shape: tuple[int, int]) -> None:
    import torch

    trained = peers.trained(family, shape)
    rng = np.random.default_rng(1)
    theta = {name: rng.standard_normal(value.shape) for name, value in trained.theta.items()}
    with torch.no_grad():
        for name, value in theta.items():
            trained.theta[name].copy_(torch.from_numpy(value))
    wanted = family.bind(Layer(*shape)).delta(theta)
    np.testing.assert_allclose(trained.delta(), wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: type(family).__name__)
def test_both_losses_are_the_objective(peers: Any, layer: Any, family: Any) -> None:
    import torch

    X, _, Z = layer
    s = LayerStatistics(10, 12).update(X, Z)
    descent = peers.Descent(X, Z, s, s, ridge=0.1)
    trained = peers.trained(family, (12, 10))
    with torch.no_grad():
        for value in trained.theta.values():
            value += 0.1
        L, A = trained.factors()
    f = s.objective(0.1)
    wanted = f.value(trained.delta()) / f.energy
    assert float(descent._of_sums(L, A)) + 1 == pytest.approx(wanted, rel=1e-4)
    draws = torch.Generator().manual_seed(0)
    losses = [float(descent._of_tokens(L, A, 200, draws)) for _ in range(200)]
    spread = np.std(losses) / np.sqrt(len(losses))
    assert abs(np.mean(losses) - wanted) < 5 * spread + 1e-4 * wanted
    assert spread < 0.02 * wanted


def test_descent_descends_and_its_clock_runs(peers: Any, layer: Any) -> None:
    X, _, Z = layer
    s = LayerStatistics(10, 12).update(X, Z)
    run = peers.Descent(X, Z, s, s, ridge=0.01).tuned(VeRA(8), "C and R", (0.1, 1e-5), steps=60, trial=10)
    assert run.rate == 0.1
    assert run.explained[-1] > run.explained[0]
    assert run.seconds == sorted(run.seconds) and run.seconds[0] > 0
