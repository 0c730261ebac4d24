"""LoRA, MELoRA, LoRA-XS: global minima, checked by other means."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from layers import KINDS, SHAPES, check_fit, check_model, kinds, layer, seeds, shapes, statistics

from rpcls.adapters import LayerStatistics, LoRA, LoRAXS, MELoRA, fit
from rpcls.adapters import lowrank as module
from rpcls.errors import InvalidTypeError, InvalidValueError


def residual(X: np.ndarray, Z: np.ndarray, dW: np.ndarray) -> float:
    return float(np.linalg.norm(X @ dW.T - Z) ** 2)


def best_rank(X: np.ndarray, Z: np.ndarray, rank: int) -> np.ndarray:
    """Reduced-rank regression from the rows: the fitted values truncated by their singular value decomposition."""
    fitted = X @ np.linalg.lstsq(X, Z, rcond=1e-9)[0]
    U, s, Vt = np.linalg.svd(fitted, full_matrices=False)
    return (U[:, :rank] * s[:rank]) @ Vt[:rank]


@given(shapes, kinds, seeds)
def test_lora_is_the_global_minimum(shape: tuple[int, int], kind: str, seed: int) -> None:
    X, Z, _ = layer(kind, shape, seed)
    s = statistics(X, Z)
    for rank in {1, min(shape)}:
        result = fit(s, LoRA(rank, alpha=3.0), ridge=0)
        want = best_rank(X, Z, rank)
        np.testing.assert_allclose(X @ result.delta().T, want, atol=1e-9 * np.linalg.norm(Z))
        np.testing.assert_allclose(result.history[-1], np.linalg.norm(want - Z) ** 2, rtol=1e-8, atol=1e-9)
        A, B = result.factors["A"], result.factors["B"]
        assert A.shape == (rank, shape[1]) and B.shape == (shape[0], rank)
        np.testing.assert_allclose(result.delta(), 3.0 / rank * B @ A, rtol=1e-12)
        check_fit(result, s)


def test_lora_with_ridge_and_preserved_inputs() -> None:
    X, Z, W = layer("tall", (9, 6))
    s, rows = statistics(X, Z), np.random.default_rng(5).standard_normal((4, 6))
    pull = np.sqrt(0.2 * np.trace(X.T @ X) / 6) * np.eye(6)
    for augmented, settings in (
        (np.vstack([X, pull]), {"ridge": 0.2}),
        (np.vstack([X, rows]), {"ridge": 0.0, "preserve": rows.T @ rows}),
        (np.vstack([X, rows]), {"ridge": 0.0, "preserve": statistics(rows, rows @ W.T)}),
    ):
        target = np.vstack([Z, np.zeros((len(augmented) - len(Z), 9))])
        got = fit(s, LoRA(2), **settings).delta()
        np.testing.assert_allclose(augmented @ got.T, best_rank(augmented, target, 2), atol=1e-9)


def test_a_weight_target_gives_the_truncated_svd() -> None:
    T = np.random.default_rng(0).standard_normal((7, 5))
    U, s, Vt = np.linalg.svd(T)
    got = fit(LayerStatistics.from_delta(T), LoRA(3), ridge=0)
    np.testing.assert_allclose(got.delta(), (U[:, :3] * s[:3]) @ Vt[:3], atol=1e-12)
    np.testing.assert_allclose(got.explained, np.sum(s[:3] ** 2) / np.sum(s**2))


def test_what_the_data_do_not_determine_is_zero_and_said() -> None:
    X, Z, _ = layer("few", (8, 8))
    result = fit(statistics(X, Z), LoRA(6), ridge=0)
    assert result.identifiable == {"rank": (4, 6)} and "determine rank 4 only" in result.notes[0]
    assert not result.factors["A"][4:].any()


def test_large_layers_use_lanczos(monkeypatch: pytest.MonkeyPatch) -> None:
    K = np.random.default_rng(0).standard_normal((60, 50)) * np.geomspace(1, 1e-4, 50)
    dense = module.top_singular(K, 5)
    monkeypatch.setattr(module, "_DENSE_SVD", 10)
    U, s, Vt = module.top_singular(K, 5)
    np.testing.assert_allclose(s, dense[1], rtol=1e-12)
    np.testing.assert_allclose((U * s) @ Vt, (dense[0] * dense[1]) @ dense[2], atol=1e-10)
    np.testing.assert_array_equal(module.top_singular(K, 5)[0], U)


@given(kinds, seeds)
def test_melora_blocks(kind: str, seed: int) -> None:
    X, Z, _ = layer(kind, (6, 9), seed)
    s = statistics(X, Z)
    result = fit(s, MELoRA(1, blocks=3), ridge=0)
    for j in range(3):
        rows, columns = slice(2 * j, 2 * j + 2), slice(3 * j, 3 * j + 3)
        want = best_rank(X[:, columns], Z[:, rows], 1)
        np.testing.assert_allclose(X[:, columns] @ result.delta()[rows, columns].T, want, atol=1e-9 * np.linalg.norm(Z))
    assert np.count_nonzero(result.delta()) <= 18 and result.parameters == 15
    np.testing.assert_allclose(result.history[-1], residual(X, Z, result.delta()), rtol=1e-9)
    check_fit(result, s)
    whole = fit(s, MELoRA(2, blocks=1), ridge=0)
    np.testing.assert_allclose(whole.delta(), fit(s, LoRA(2), ridge=0).delta(), rtol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_loraxs(shape: tuple[int, int], kind: str) -> None:
    X, Z, W = layer(kind, shape)
    family = LoRAXS(3, alpha=2.0)
    check_model(family, X, Z, W)
    s = statistics(X, X @ W.T + Z, weight=W)
    result = fit(s, family, ridge=0)
    check_fit(result, s)
    U, _, Vt = np.linalg.svd(W)
    want = np.linalg.pinv(U[:, :3]) @ Z.T @ np.linalg.pinv((X @ Vt[:3].T).T, rcond=1e-9)
    dW = U[:, :3] @ want @ Vt[:3]
    np.testing.assert_allclose(X @ result.delta().T, X @ dW.T, atol=1e-9)
    thin = statistics(X, X @ W.T + Z, weight=W, thin=family.projection(shape[1], W))
    np.testing.assert_allclose(fit(thin, family, ridge=0).delta(), result.delta(), atol=1e-9)
    np.testing.assert_allclose(fit(thin, family).explained, fit(s, family).explained, rtol=1e-9)


def test_bad_settings() -> None:
    s = LayerStatistics.from_delta(np.ones((4, 6)))
    with pytest.raises(InvalidValueError, match=r"rank must be in 1 … 4, the smaller side of the layer, got 5"):
        fit(s, LoRA(5))
    with pytest.raises(InvalidValueError, match="rank must be at least 1, got 0"):
        LoRA(0)
    with pytest.raises(InvalidTypeError, match="rank must be an int, got float"):
        LoRA(2.0)  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="alpha must be more than 0, got 0"):
        LoRA(2, alpha=0)
    with pytest.raises(InvalidValueError, match="blocks must divide both sides of the layer, 4 and 6, got 4"):
        fit(s, MELoRA(1, 4))
    with pytest.raises(InvalidValueError, match="smaller side of a block"):
        fit(s, MELoRA(3, 2))
    with pytest.raises(InvalidValueError, match="LoRAXS is made from the layer's weight"):
        fit(s, LoRAXS(2))
