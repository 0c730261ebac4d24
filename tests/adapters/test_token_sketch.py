"""Tokens sketched as they come: float32 without a copy, float64, both; and how many rows that takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rpcls
import rpcls.sources
from rpcls.adapters import LayerStatistics, LinearAdapter, LoRA, SpaRTA, fit, token_sketch_size
from rpcls.errors import InvalidTypeError, InvalidValueError

TOKENS, IN, OUT = 300, 8, 5
FAMILIES = [rpcls.CountSketch(), rpcls.SparseSign(3)]


def tokens(dtype: Any, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X, Y = rng.standard_normal((TOKENS, IN)), rng.standard_normal((TOKENS, OUT))
    return (X * 8).astype(dtype), (Y * 8).astype(dtype)


def dense(family: rpcls.SketchFamily, size: int = 40) -> tuple[rpcls.SketchOperator, np.ndarray]:
    S = family.sample(size, rng=3)
    return S, family.sample(size, m=TOKENS, rng=S.key).toarray()


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int16])
def test_a_sketch_of_any_dtype_is_s_times_the_tokens(family: rpcls.SketchFamily, dtype: type) -> None:
    (X, Y), (S, matrix) = tokens(dtype), dense(family)
    s = LayerStatistics(IN, OUT, sketch=S)
    for start, stop in ((0, 100), (100, 100), (100, 290), (290, TOKENS)):
        s.update(X[start:stop], Y[start:stop])
    SX, SY = matrix @ X.astype(np.float64), matrix @ Y.astype(np.float64)
    rtol = 1e-12 if dtype in (np.float64, np.int16) else 2e-6
    for got, want in ((s.C, SX.T @ SX), (s.R, SY.T @ SX)):
        assert got.dtype == np.float64
        np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol * np.abs(want).max())
    np.testing.assert_allclose(s.energy, np.vdot(SY, SY), rtol=rtol)


def test_float32_tokens_reach_the_sweep_without_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, plain = [], rpcls.sources.source_of

    def spy(rows: np.ndarray, *arguments: Any, **settings: Any) -> Any:
        seen.append(rows)
        return plain(rows, *arguments, **settings)

    monkeypatch.setattr(rpcls.sources, "source_of", spy)
    X, Y = tokens(np.float32)
    S, _ = dense(FAMILIES[0])
    LayerStatistics(IN, OUT, sketch=S).update(X.reshape(3, 100, IN), Y.reshape(3, 100, OUT))
    assert [np.shares_memory(rows, given) for rows, given in zip(seen, (X, Y), strict=True)] == [True, True]


def test_batches_and_shards_of_different_precision_add_up_in_float64(tmp_path: Path) -> None:
    X, Y = tokens(np.float32)
    S, matrix = dense(FAMILIES[1])
    SX = matrix @ X.astype(np.float64)
    wide = slice(100, 300)
    batches = LayerStatistics(IN, OUT, sketch=S).update(X[:100], Y[:100])
    batches.save(tmp_path / "first.npz")
    batches.update(X[wide].astype(np.float64), Y[wide])
    narrow = LayerStatistics.load(tmp_path / "first.npz")
    for shards in (
        narrow + LayerStatistics(IN, OUT, sketch=S, first_token=100).update(X[wide].astype(np.float64), Y[wide]),
        LayerStatistics(IN, OUT, sketch=S, first_token=100).update(X[wide].astype(np.float64), Y[wide]) + narrow,
        LayerStatistics(IN, OUT, sketch=S) + batches,
    ):
        np.testing.assert_allclose(shards.C, batches.C, rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(batches.C, SX.T @ SX, rtol=1e-5, atol=1e-5 * np.abs(batches.C).max())
    assert narrow.tokens == 100


def test_float32_sketches_keep_small_directions() -> None:
    """Condition number 1e4, whose square float32 products would lose; float32 sums of the tokens do not."""
    rng = np.random.default_rng(1)
    V = np.linalg.qr(rng.standard_normal((20, 20)))[0]
    X = ((rng.standard_normal((3000, 20)) * np.geomspace(1, 1e-4, 20)) @ V.T).astype(np.float32)
    Y = (X @ (V / np.geomspace(1, 1e-4, 20)).astype(np.float32)) + 0.1 * rng.standard_normal((3000, 20), np.float32)
    every = LinearAdapter(np.eye(400).reshape(400, 20, 20))
    found = [
        fit(LayerStatistics(20, 20, sketch=FAMILIES[0].sample(300, rng=0)).update(x, y), every, ridge=0)
        for x, y in ((X, Y), (X.astype(np.float64), Y.astype(np.float64)))
    ]
    exact = LayerStatistics(20, 20).update(X, Y)
    narrow, wide = (exact.explained(result.delta()) for result in found)
    assert wide > 0.9 and abs(narrow - wide) < 1e-6


def test_squares_out_of_range_are_refused() -> None:
    X, Y = tokens(np.float64)
    s = LayerStatistics(IN, OUT, sketch=FAMILIES[0].sample(40, rng=0)).update(X, Y)
    before = s.C
    for bad in ((1e200 * X, Y), (X, 1e200 * Y)):
        with pytest.raises(InvalidValueError, match=r"overflow float64; scale X and Y down\. Nothing was added"):
            s.update(*bad)
    assert s.tokens == TOKENS
    np.testing.assert_array_equal(s.C, before)
    large = LayerStatistics(IN, OUT, sketch=FAMILIES[0].sample(40, rng=0))
    large.update((1e30 * X).astype(np.float32), Y)  # its squares leave float32, but not float64
    np.testing.assert_allclose(large.C / 1e60, before, rtol=1e-4, atol=1e-5 * np.abs(before).max())


def test_sizes() -> None:
    assert token_sketch_size(64, 0.2) == 6400 and token_sketch_size(64, 0.2, loss=0.05) == 3200
    assert token_sketch_size(100, 0.05) == 23750  # a tenth of what is explained
    assert token_sketch_size(100, 0.999) == 200
    for arguments, error, message in [
        ((0, 0.5), InvalidValueError, "unknowns must be at least 1, got 0"),
        ((5, 1.0), InvalidValueError, r"explained must be in \(0, 1\), got 1"),
        ((5, 0.5, 0.0), InvalidValueError, r"loss must be in \(0, 1\), got 0"),
        ((5, 0.5, 2.0), InvalidValueError, r"loss must be in \(0, 1\), got 2"),
        ((5.0, 0.5), InvalidTypeError, "unknowns must be an int, got float"),
    ]:
        with pytest.raises(error, match=message):
            token_sketch_size(*arguments)


@pytest.mark.parametrize(("family", "unknowns"), [(LoRA(2), 4), (SpaRTA(4 / 32, seed=0), 4)])
def test_the_rule_keeps_the_loss(family: Any, unknowns: int) -> None:
    """Twenty sketches, on average; at a sixteenth of the size they lose more than that."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((6000, 32)) * np.geomspace(1, 1e-2, 32)
    Y = X @ rng.standard_normal((32, 32)) + 0.5 * rng.standard_normal((6000, 32))
    exact = LayerStatistics(32, 32).update(X, Y)
    best = exact.explained(fit(exact, family).delta())
    size = token_sketch_size(unknowns, best)

    def lost(rows: int, seed: int) -> float:
        s = LayerStatistics(32, 32, sketch=rpcls.SparseSign(), sketch_size=rows, rng=seed).update(X, Y)
        return best - exact.explained(fit(s, family).delta())

    assert 0 < np.mean([lost(size, seed) for seed in range(20)]) < 0.01
    assert np.mean([lost(size // 16, seed) for seed in range(20)]) > 0.02
