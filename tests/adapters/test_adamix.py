"""AdaMix: experts weighted by what they have seen."""

from __future__ import annotations

import numpy as np
import pytest
from layers import KINDS, SHAPES, check_fit, layer, random, statistics

from rpcls.adapters import AdaMix, LayerStatistics, LoRA, fit
from rpcls.errors import InvalidTypeError, InvalidValueError


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_is_least_squares_on_all_tokens_together(shape: tuple[int, int], kind: str) -> None:
    tokens = [layer(kind, shape, seed)[0] for seed in range(3)]
    experts = random((3, *shape), 0)
    wanted = [X @ T.T for X, T in zip(tokens, experts, strict=True)]
    shards = [statistics(X, Z) for X, Z in zip(tokens, wanted, strict=True)]
    whole = sum(shards[1:], shards[0])
    rows, target = np.vstack(tokens), np.vstack(wanted)
    best = np.linalg.lstsq(rows, target, rcond=1e-9)[0].T
    for inputs in (shards, [s.C for s in shards]):
        result = fit(whole, AdaMix(min(shape), list(experts), inputs), ridge=0)
        check_fit(result, whole)
        np.testing.assert_allclose(rows @ result.delta().T, rows @ best.T, atol=1e-9)
    U, s, Vt = np.linalg.svd(rows @ best.T, full_matrices=False)
    merged = fit(whole, AdaMix(2, list(experts), shards, alpha=6.0), ridge=0)
    np.testing.assert_allclose(rows @ merged.delta().T, (U[:, :2] * s[:2]) @ Vt[:2], atol=1e-9)
    np.testing.assert_allclose(merged.delta(), 3.0 * merged.factors["B"] @ merged.factors["A"], rtol=1e-12)
    np.testing.assert_allclose(merged.history, [np.sum(s**2), np.sum(s[2:] ** 2)], rtol=1e-8, atol=1e-9)


def test_what_no_tokens_have_seen_is_the_plain_mean() -> None:
    X = random((20, 4), 0) * [1, 1, 0, 0]
    experts = random((2, 3, 4), 1)
    seen = [statistics(X, X @ T.T) for T in experts]
    everywhere = LayerStatistics.from_delta(np.ones((3, 4)))
    dW = fit(everywhere, AdaMix(3, list(experts), seen), ridge=0).delta()
    np.testing.assert_allclose(dW, experts.mean(axis=0), atol=1e-12)


def test_experts_may_be_fits() -> None:
    X, Z, _ = layer("tall", (6, 9))
    s = statistics(X, Z)
    fits = [fit(statistics(X[half], Z[half]), LoRA(2)) for half in (slice(0, None, 2), slice(1, None, 2))]
    got = fit(s, AdaMix(2, fits)).delta()
    np.testing.assert_array_equal(got, fit(s, AdaMix(2, [result.delta() for result in fits])).delta())


def test_bad_settings() -> None:
    s = LayerStatistics.from_delta(np.ones((4, 6)))
    T = np.ones((4, 6))
    for make, message in [
        (lambda: AdaMix(0, [T]), "rank must be at least 1, got 0"),
        (lambda: AdaMix(5, [T]), "rank must be in 1 … 4, the smaller side of the layer, got 5"),
        (lambda: AdaMix(1, []), "experts must have at least one update, got none"),
        (lambda: AdaMix(1, [T, T], [np.eye(6)]), "inputs must have one entry for each expert, got 1 for 2"),
        (lambda: AdaMix(1, [T, T.T]), r"experts\[1\] must have shape .* = \(4, 6\), got \(6, 4\)"),
        (lambda: AdaMix(1, [T], [np.eye(4)]), r"inputs\[0\] must have shape .* = \(6, 6\), got \(4, 4\)"),
    ]:
        with pytest.raises(InvalidValueError, match=message):
            fit(s, make())
    with pytest.raises(InvalidTypeError, match="experts must be a sequence, with one entry for each expert, got 3"):
        AdaMix(1, 3)  # type: ignore[arg-type]
