"""Masked rows: SpaRTA, SaRA, the best subset."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from layers import KINDS, SHAPES, check_fit, check_model, kinds, layer, seeds, shapes, statistics

from rpcls.adapters import DynamicSubset, LayerStatistics, SaRA, SpaRTA, fit
from rpcls.adapters import grouped as module
from rpcls.adapters.grouped import Masked
from rpcls.errors import ConvergenceWarning, InvalidTypeError, InvalidValueError


@given(shapes, kinds, seeds)
def test_sparta(shape: tuple[int, int], kind: str, seed: int) -> None:
    X, Z, W = layer(kind, shape, seed)
    family = SpaRTA(density=0.4, seed=seed)
    check_model(family, X, Z, W)
    s = statistics(X, Z)
    result = fit(s, family, ridge=0)
    check_fit(result, s)
    outside = np.ones(shape, bool)
    outside.flat[family.positions_in(shape)] = False
    assert not result.delta()[outside].any() and result.parameters == max(1, round(0.4 * shape[0] * shape[1]))


def test_sparta_in_small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    X, Z, W = layer("tall", (9, 6))
    monkeypatch.setattr(module, "_BATCH_BYTES", 1)
    check_model(SpaRTA(0.5), X, Z, W)


def test_positions_can_be_given() -> None:
    s = LayerStatistics.from_delta(np.arange(6.0).reshape(2, 3))
    flat = fit(s, SpaRTA(positions=[5, 1]), ridge=0)
    pairs = fit(s, SpaRTA(positions=[[1, 0], [2, 1]]), ridge=0)
    np.testing.assert_array_equal(flat.delta(), [[0, 1, 0], [0, 0, 5]])
    np.testing.assert_array_equal(flat.delta(), pairs.delta())
    np.testing.assert_array_equal(SpaRTA(0.5, seed=3).positions_in((4, 5)), SpaRTA(10, seed=3).positions_in((4, 5)))
    assert not np.array_equal(SpaRTA(10, seed=3).positions_in((4, 50)), SpaRTA(10, seed=4).positions_in((4, 50)))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_sara(shape: tuple[int, int], kind: str) -> None:
    X, Z, W = layer(kind, shape)
    check_model(SaRA(0.5), X, Z, W)
    result = fit(statistics(X, Z), SaRA(density=0.25), weight=W)
    kept = np.abs(W) <= np.sort(np.abs(W).ravel())[round(0.25 * W.size) - 1]
    assert np.array_equal(result.delta() != 0, kept)


def test_saras_pull_to_low_rank() -> None:
    X, Z, W = layer("tall", (9, 6))
    s, everywhere = statistics(X, Z), SaRA(threshold=1e9, nuclear=0.3)
    f = s.objective(0.01)
    result = fit(s, everywhere, weight=W, max_iterations=200, tol=1e-12)
    check_fit(result, s)
    # optimality of f(dW) + w‖dW‖_*: −∇f/w is a subgradient, UVᵀ on the range of dW and at most 1 elsewhere
    w = 2 * 0.3 * np.linalg.norm(f.R, 2)
    pull = 2 * (f.R - result.delta() @ f.C) / w
    U, sigma, Vt = np.linalg.svd(result.delta(), full_matrices=False)
    rank = int(np.sum(sigma > 1e-5 * sigma[0]))
    assert 1 <= rank < 6 and np.linalg.norm(pull, 2) < 1 + 1e-4
    np.testing.assert_allclose(U[:, :rank].T @ pull @ Vt[:rank].T, np.eye(rank), atol=1e-3)
    masked = SaRA(threshold=0.8, nuclear=0.1)
    result = fit(s, masked, weight=W)
    check_fit(result, s)
    assert not result.delta()[np.abs(W) >= 0.8].any()
    with pytest.warns(ConvergenceWarning, match="1 rounds of SaRA were not enough"):
        fit(s, masked, weight=W, max_iterations=1, tol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_subsets_beat_random_ones_and_come_near_the_best(kind: str) -> None:
    X, Z, _ = layer(kind, (3, 5))
    s = statistics(X, Z)
    result = fit(s, DynamicSubset(4), ridge=0, tol=0)
    check_fit(result, s)
    assert result.factors["positions"].size == result.parameters == 4
    f = s.objective()
    losses = [Masked((3, 5), np.array(p)).solve(f).value for p in itertools.combinations(range(15), 4)]
    assert result.history[-1] <= np.quantile(losses, 0.02)
    np.testing.assert_allclose(
        fit(s, SpaRTA(positions=result.factors["positions"]), ridge=0).delta(), result.delta(), atol=1e-12
    )


def test_the_best_subset_of_a_weight_target_is_its_largest_entries() -> None:
    T = np.random.default_rng(0).standard_normal((6, 7))
    dW = fit(LayerStatistics.from_delta(T), DynamicSubset(0.25), ridge=0).delta()
    kept = np.abs(T) >= np.sort(np.abs(T).ravel())[-round(0.25 * T.size)]
    np.testing.assert_allclose(dW, np.where(kept, T, 0), rtol=1e-12)


def test_bad_settings() -> None:
    s = LayerStatistics.from_delta(np.ones((4, 6)))
    for family, message in [
        (SpaRTA(0.0), "density must be more than 0, got 0.0"),
        (SpaRTA(1.5), r"density must be a share in \(0, 1\]"),
        (SpaRTA(25), "density must be in 1 … 24, the entries of the layer, got 25"),
        (SpaRTA(positions=[1, 1]), "positions must be different"),
        (SpaRTA(positions=[24]), "positions must be in 0 … 23, got 24"),
        (SpaRTA(positions=[[4], [0]]), "positions must be within the layer, 4 × 6"),
        (SaRA(0.5), "SaRA is made from the layer's weight"),
    ]:
        with pytest.raises(InvalidValueError, match=message):
            fit(s, family)
    with pytest.raises(InvalidTypeError, match="positions must hold integers"):
        fit(s, SpaRTA(positions=[0.5]))
    with pytest.raises(InvalidValueError, match=r"no entry of the weight is below threshold = 0\.5; the smallest is 1"):
        fit(s, SaRA(0.5), weight=np.ones((4, 6)))
