"""Linear halves against dense least squares; a user's own bases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from layers import KINDS, SHAPES, check_fit, check_half, check_model, kinds, layer, seeds, shapes, statistics

from rpcls.adapters import LayerStatistics, LinearAdapter, fit
from rpcls.adapters.linear import RankOne, RowWise, UserBasis
from rpcls.errors import InvalidTypeError, InvalidValueError, NonFiniteError


@given(shapes, kinds, seeds)
def test_rank_one(shape: tuple[int, int], kind: str, seed: int) -> None:
    X, Z, W = layer(kind, shape, seed)
    rng = np.random.default_rng(seed)
    for k in (1, 5):
        half = RankOne(rng.standard_normal((shape[0], k)), rng.standard_normal((k, shape[1])), 0.3)
        check_half(half, X, Z)
    check_half(RankOne(W, None, 2.0), X, Z)


@given(shapes, kinds, seeds)
def test_row_wise(shape: tuple[int, int], kind: str, seed: int) -> None:
    X, Z, _ = layer(kind, shape, seed)
    T = np.random.default_rng(seed).standard_normal((shape[0], 2, shape[1]))
    check_half(RowWise(shape, 2, lambda a, b: T[a:b]), X, Z)
    check_half(RowWise(shape, 2, lambda a, b: T[a:b], block_bytes=1), X, Z)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_user_bases(shape: tuple[int, int], kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    X, Z, W = layer(kind, shape)
    G = np.random.default_rng(3).standard_normal((7, *shape))
    families = [
        LinearAdapter(G),
        LinearAdapter(G.tolist(), offset=0.1 * W),
        LinearAdapter(lambda k: G[k], size=7, offset=0.1 * W),
    ]
    for part in (2**28, 8 * 3 * shape[0] * shape[1]):  # whole, and three at a time
        monkeypatch.setattr(UserBasis, "_BLOCK_BYTES", part)
        for family in families:
            check_model(family, X, Z, W)
    s = statistics(X, Z)
    results = [fit(s, family, ridge=0) for family in families[1:]]
    check_fit(results[0], s)
    np.testing.assert_allclose(results[0].delta(), results[1].delta(), rtol=1e-9, atol=1e-12)


def test_repeated_bases_share_evenly_and_it_is_said() -> None:
    G = np.eye(6).reshape(6, 2, 3)[[0, 0, 1]]
    result = fit(LayerStatistics.from_delta(np.ones((2, 3))), LinearAdapter(G), ridge=0)
    np.testing.assert_allclose(result.factors["theta"], [0.5, 0.5, 1.0])
    assert result.identifiable == {"theta": (2, 3)}
    assert "1 of 3 unknowns are not determined" in result.notes[0]


def test_bad_bases() -> None:
    s = LayerStatistics.from_delta(np.ones((2, 3)))
    with pytest.raises(InvalidValueError, match=r"basis must have shape \(k, 2, 3\), got \(4, 3, 2\)"):
        fit(s, LinearAdapter(np.zeros((4, 3, 2))))
    with pytest.raises(InvalidValueError, match="function of k needs size"):
        fit(s, LinearAdapter(lambda k: np.zeros((2, 3))))
    with pytest.raises(InvalidValueError, match=r"basis\(0\) must have shape .* = \(2, 3\), got \(3, 3\)"):
        fit(s, LinearAdapter(lambda k: np.zeros((3, 3)), size=1))
    with pytest.raises(InvalidValueError, match="size must be None or 4"):
        fit(s, LinearAdapter(np.zeros((4, 2, 3)), size=3))
    with pytest.raises(NonFiniteError, match=r"offset\[0, 1\] is nan"):
        fit(s, LinearAdapter(np.zeros((1, 2, 3)), offset=[[0, np.nan, 0], [0, 0, 0]]))
    with pytest.raises(InvalidTypeError, match="basis must hold real numbers"):
        fit(s, LinearAdapter(np.full((1, 2, 3), "a")))
