"""LoRETTA: tensor trains, each core by least squares; exact recovery; the layout of the paper's code."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layers import KINDS, SHAPES, check_fit, check_half, kinds, layer, seeds, shapes, statistics

from rpcls.adapters import LayerStatistics, LoRA, LoRETTA, fit
from rpcls.adapters import loretta as module
from rpcls.adapters.family import Layer
from rpcls.errors import InvalidTypeError, InvalidValueError
from rpcls.random import Key

MODES = [((3, 2, 2), (2, 3, 2, 2)), ((12,), (24,)), ((2, 2, 3), (8, 3)), ((4, 3), (3, 2, 4))]  # of 6·2 and 2·12


def check_cores(family: LoRETTA, X: np.ndarray, Z: np.ndarray) -> None:
    """Every core at a random θ, gauged for it as a fit does."""
    model = family.bind(Layer(Z.shape[1], X.shape[1]))
    theta = model.start(Key(0))
    for name in model.halves_in_order:
        moved = model.gauged(theta, name)
        half = model.halves(moved)[name]()
        np.testing.assert_allclose(half.delta(moved[name]), model.seen(theta), rtol=1e-9, atol=1e-9)
        check_half(half, X, Z)


@given(shapes, kinds, seeds)
def test_each_core_is_least_squares(shape: tuple[int, int], kind: str, seed: int) -> None:
    X, Z, _ = layer(kind, shape, seed)
    o, i = shape
    check_cores(LoRETTA(2, tensor_rank=2, alpha=3.0), X, Z)
    check_cores(LoRETTA(1, tensor_rank=3, modes_A=(i, 1), modes_B=(1, o, 1)), X, Z)


@pytest.mark.parametrize("modes", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_cores_of_any_modes(
    kind: str, modes: tuple[tuple[int, ...], tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    X, Z, _ = layer(kind, (12, 6))
    family = LoRETTA(2, tensor_rank=2, modes_A=modes[0], modes_B=modes[1])
    for chunk in (2**28, 8 * 3 * 24):  # whole, and three basis matrices at a time
        monkeypatch.setattr(module, "_CHUNK_BYTES", chunk)
        check_cores(family, X, Z)
    s = statistics(X, Z)
    check_fit(fit(s, family, ridge=0.1, tol=1e-2), s)


@pytest.mark.parametrize("modes", MODES)
def test_gauges_change_nothing_but_the_condition(modes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    model = LoRETTA(2, tensor_rank=2, modes_A=modes[0], modes_B=modes[1]).bind(Layer(12, 6))
    theta = model.start(Key(1))
    theta["A0"] = theta["A0"] * 1e8  # badly scaled
    for name in model.halves_in_order:
        moved = model.gauged(theta, name)
        assert {k: v.shape for k, v in moved.items()} == {k: v.shape for k, v in theta.items()}
        np.testing.assert_allclose(model.seen(moved), model.seen(theta), rtol=1e-9, atol=1e-3)
        half = model.halves(moved)[name]()
        every = np.stack([half.expand(unit.reshape(half.theta_shape)[None])[0].ravel() for unit in np.eye(half.size)])
        np.testing.assert_allclose(every @ every.T, np.eye(half.size), atol=1e-12)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.integers(1, 4), seeds)
def test_tt_svd(modes: list[int], rank: int, seed: int) -> None:
    """A train of these ranks is found exactly; another tensor within √(d − 1) of the best of its unfoldings."""
    rng = np.random.default_rng(seed)
    ranks = [min(rank, math.prod(modes[:k]), math.prod(modes[k:])) for k in range(len(modes) + 1)]
    cores = [rng.standard_normal(shape) for shape in zip(ranks, modes, ranks[1:], strict=False)]
    tensor = module.contract(cores)
    found = module.tt_svd(tensor, modes, rank)
    assert [core.shape for core in found] == [core.shape for core in cores]
    np.testing.assert_allclose(module.contract(found), tensor, atol=1e-10 * np.linalg.norm(tensor))
    full = rng.standard_normal(math.prod(modes))
    error = np.linalg.norm(module.contract(module.tt_svd(full, modes, rank)).ravel() - full)
    tails = [
        np.sum(np.linalg.svd(full.reshape(math.prod(modes[:k]), -1), compute_uv=False)[rank:] ** 2)
        for k in range(1, len(modes))
    ]
    assert np.sqrt(max(tails, default=0.0)) - 1e-9 <= error <= np.sqrt(sum(tails)) + 1e-9


def test_contract_is_the_sum_over_ranks() -> None:
    rng = np.random.default_rng(0)
    cores = [rng.standard_normal(shape) for shape in [(1, 3, 2), (2, 4, 3), (3, 2, 1)]]
    want = np.einsum("aib,bjc,ckd->ijk", *cores)
    np.testing.assert_allclose(module.contract(cores).reshape(3, 4, 2), want, rtol=1e-12)
    np.testing.assert_allclose(module.contract(cores[1:]).shape, (2, 8, 1))
    assert module.contract([]).shape == (1, 1, 1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(3))
def test_planted_trains_are_recovered(shape: tuple[int, int], seed: int) -> None:
    """The LoRA is unique up to a matrix between its factors, which the mode of the rank takes up: TT-SVD is exact."""
    o, i = 4 * shape[0], 4 * shape[1]
    family = LoRETTA(3, tensor_rank=4)
    model = family.bind(Layer(o, i))
    wanted = model.seen(model.start(Key(seed)))
    X, _, _ = layer("tall", (o, i), seed)
    result = fit(statistics(X, X @ wanted.T), family, ridge=0)
    np.testing.assert_allclose(result.delta(), wanted, atol=1e-9 * np.linalg.norm(wanted))
    assert result.converged and result.explained > 1 - 1e-12


@pytest.mark.parametrize("seed", range(3))
def test_alternating_recovers_planted_trains_from_a_random_start(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    family = LoRETTA(3, tensor_rank=2, modes_A=(3, 4, 3), modes_B=(3, 4, 3))
    model = family.bind(Layer(12, 12))
    wanted = model.seen(model.start(Key(seed)))
    monkeypatch.setattr(type(model), "start_for", lambda self, f, key: self.start(key))
    X, _, _ = layer("tall", (12, 12), 1)
    result = fit(statistics(X, X @ wanted.T), family, ridge=0, max_iterations=300, tol=1e-15, rng=77)
    assert result.history[0] > 0.5 * np.linalg.norm(X @ wanted.T) ** 2
    np.testing.assert_allclose(result.delta(), wanted, atol=1e-5 * np.linalg.norm(wanted))


def test_with_full_ranks_it_is_lora() -> None:
    X, Z, _ = layer("tall", (9, 8))
    s = statistics(X, Z)
    for ridge in (0.0, 0.2):
        full, lora = fit(s, LoRETTA(3, tensor_rank=99), ridge=ridge), fit(s, LoRA(3), ridge=ridge)
        np.testing.assert_allclose(full.delta(), lora.delta(), atol=1e-9)
        np.testing.assert_allclose([full.history[0], full.history[-1]], lora.history[-1], rtol=1e-9)  # from the start
    small = fit(s, LoRETTA(3, tensor_rank=2, modes_A=(2, 4, 3)))
    assert fit(s, LoRA(3)).explained > small.explained > 0
    check_fit(small, s)


def test_the_layout_of_the_papers_code() -> None:
    """x @ lora_A @ lora_B with lora_A (i, r) and lora_B (r, o), the cores' product reshaped in C order."""
    family = LoRETTA(2, tensor_rank=3, alpha=5.0, modes_A=(3, 4, 2), modes_B=(2, 5, 2))
    model = family.bind(Layer(10, 12))
    theta = model.start(Key(0))
    A = np.einsum("aib,bjc,ckd->ijk", *(theta[f"A{k}"] for k in range(3))).reshape(12, 2)
    B = np.einsum("aib,bjc,ckd->ijk", *(theta[f"B{k}"] for k in range(3))).reshape(2, 10)
    np.testing.assert_allclose(model.seen(theta), 5.0 / 2 * (A @ B).T, rtol=1e-12)


def test_default_modes() -> None:
    model = LoRETTA(8).bind(Layer(768, 1024))
    assert [core.shape[1] for name, core in model.start(Key(0)).items() if name[0] == "A"] == [8, 8, 16, 8]
    assert [core.shape[1] for name, core in model.start(Key(0)).items() if name[0] == "B"] == [8, 8, 8, 12]
    for n in [1, 2, 16, 17, 36, 97, 100, 4096, 5120, 11008]:
        modes = module.tensor_modes(n)
        assert math.prod(modes) == n and 1 not in modes[:-1]
    assert max(module.tensor_modes(5120)) <= 16 and module.tensor_modes(16) == (16,)


@pytest.mark.parametrize("kind", KINDS)
def test_the_objective_never_rises_and_what_is_degenerate_is_said(kind: str) -> None:
    X, Z, _ = layer(kind, (12, 12), 2)
    s = statistics(X, Z)
    result = fit(s, LoRETTA(4, tensor_rank=3, modes_A=(12, 2, 2), modes_B=(2, 2, 12)), ridge=0, max_iterations=100)
    check_fit(result, s)
    assert len(result.history) > 7 and result.history[-1] < result.history[1]
    left = result.factors["A0"][0]  # A2 was the last to be solved for
    np.testing.assert_allclose(left.T @ left, np.eye(left.shape[1]), atol=1e-12)
    zero = fit(LayerStatistics.from_delta(np.zeros((6, 8))), LoRETTA(2), ridge=0)
    assert not zero.delta().any() and zero.explained == 0.0 and "are not determined" in zero.notes[0]


def test_bad_settings() -> None:
    s = LayerStatistics.from_delta(np.ones((4, 6)))
    with pytest.raises(InvalidValueError, match=r"rank must be in 1 … 4, the smaller side of the layer, got 5"):
        fit(s, LoRETTA(5))
    with pytest.raises(
        InvalidValueError, match=r"product of modes_A must be in_features·rank = 6·2 = 12, got \(3, 3\) "
    ):
        fit(s, LoRETTA(2, modes_A=(3, 3)))
    with pytest.raises(
        InvalidValueError, match=r"modes_B must be rank·out_features = 2·4 = 8, .*; leave it None for \(2,"
    ):
        fit(s, LoRETTA(2, modes_B=(3, 3)))
    with pytest.raises(InvalidTypeError, match=r"modes_A must be a sequence of ints, such as .*, got 12"):
        fit(s, LoRETTA(2, modes_A=12))  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match=r"modes_A\[1\] must be an int, got float"):
        fit(s, LoRETTA(2, modes_A=(6, 2.0)))  # type: ignore[list-item]
    with pytest.raises(InvalidValueError, match="tensor_rank must be at least 1, got 0"):
        LoRETTA(2, tensor_rank=0)
    with pytest.raises(InvalidValueError, match="alpha must be more than 0"):
        LoRETTA(2, alpha=0)
