"""NOLA, VeRA, RandLoRA and LoHa: their formulas, entry by entry, given bases, and conjugate gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
from layers import KINDS, SHAPES, check_fit, layer, random, statistics

from rpcls import Key
from rpcls.adapters import NOLA, LayerStatistics, LoHa, LoRA, RandLoRA, VeRA, fit, modulated
from rpcls.adapters.bases import uniform
from rpcls.adapters.modulated import ModulatedColumns
from rpcls.adapters.nola import _Stack
from rpcls.errors import ConvergenceWarning, InvalidTypeError, InvalidValueError, NonFiniteError


@pytest.mark.parametrize("shape", SHAPES)
def test_randlora_has_the_layout_of_peft(shape: tuple[int, int]) -> None:
    X, Z, _ = layer("tall", shape)
    (o, i), r = shape, 3
    d, D, n = min(shape), max(shape), math.ceil(min(shape) / 3)
    A, B = random((r, 1, d), 1), random((D, n, r), 2)
    result = fit(statistics(X, Z), RandLoRA(r, alpha=6.0, A=A, B=B), max_iterations=100)
    lam, gamma = result.factors["lambda"], result.factors["gamma"]
    assert lam.shape == (r, n) and gamma.shape == (n, d)
    dW = np.zeros((D, d))
    for k, j in np.ndindex(r, n):
        flat = B.reshape(D, n * r)[:, k * n + j]  # n-major here, r-major there: so does peft
        dW += 2.0 * lam[k, j] * np.outer(flat, A[k, 0] * gamma[j])
    np.testing.assert_allclose(result.delta(), dW.T if o < i else dW, rtol=1e-9, atol=1e-12)


def test_randlora_takes_the_leading_part_of_larger_bases() -> None:
    s = LayerStatistics.from_delta(random((5, 4), 0))
    A, B = random((3, 1, 9), 1), random((9, 4, 3), 2)
    want = fit(s, RandLoRA(2, A=A[:2, :, :4], B=B[:5, :2, :2]), max_iterations=100)
    np.testing.assert_array_equal(fit(s, RandLoRA(2, A=A, B=B), max_iterations=100).delta(), want.delta())


@pytest.mark.parametrize("shape", SHAPES)
def test_nola_combines_its_bases(shape: tuple[int, int]) -> None:
    X, Z, _ = layer("tall", shape)
    (o, i), r = shape, 2
    A, B, A0 = random((4, r, i), 1), random((5, o, r), 2), random((r, i), 3)
    result = fit(statistics(X, Z), NOLA(4, 5, r, alpha=6.0, A=A, B=B, A0=A0), max_iterations=100)
    left = sum(b * basis for b, basis in zip(result.factors["b"], B, strict=True))
    right = A0 + sum(a * basis for a, basis in zip(result.factors["a"], A, strict=True))
    np.testing.assert_allclose(result.delta(), 3.0 * left @ right, rtol=1e-9, atol=1e-12)


def test_nola_draws_its_bases_in_float32_without_losing_a_bit() -> None:
    stack = _Stack.of(None, "A", (5, 2, 7), Key(9))
    assert stack.array.dtype == np.float32
    full = uniform(Key(9), (5, 2, 7)) / math.sqrt(5)
    theta = np.arange(5.0)
    np.testing.assert_allclose(stack.combine(theta), np.einsum("k,kpq->pq", theta, full), rtol=1e-14)
    G = random((2, 7), 0)
    np.testing.assert_allclose(stack.inner(G), np.einsum("pq,kpq->k", G, full), rtol=1e-13)


def test_large_stacks_are_used_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    X, Z, _ = layer("tall", (6, 9))
    want = fit(statistics(X, Z), NOLA(4, 5, 2), max_iterations=3, tol=1.0)
    monkeypatch.setattr("rpcls.adapters.nola._CHUNK_BYTES", 1)
    got = fit(statistics(X, Z), NOLA(4, 5, 2), max_iterations=3, tol=1.0)
    np.testing.assert_allclose(got.delta(), want.delta(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_vera_scales_its_bases(shape: tuple[int, int]) -> None:
    X, Z, _ = layer("tall", shape)
    (o, i), r = shape, 4
    A, B = random((r + 2, i + 3), 1), random((o + 1, r + 2), 2)  # shared by larger layers
    result = fit(statistics(X, Z), VeRA(r, A=A, B=B), max_iterations=200)
    b, d = result.factors["b"], result.factors["d"]
    np.testing.assert_allclose(result.delta(), np.diag(b) @ B[:o, :r] @ np.diag(d) @ A[:r, :i], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_loha_multiplies_entries_and_is_no_worse_than_lora(shape: tuple[int, int], kind: str) -> None:
    X, Z, _ = layer(kind, shape)
    s = statistics(X, Z)
    result = fit(s, LoHa(2, alpha=6.0), max_iterations=300)
    check_fit(result, s)
    B1, A1, B2, A2 = (result.factors[name] for name in ("B1", "A1", "B2", "A2"))
    np.testing.assert_allclose(result.delta(), 3.0 * (B1 @ A1) * (B2 @ A2), rtol=1e-12)
    lora = fit(s, LoRA(2))
    np.testing.assert_allclose(result.history[0], lora.history[-1], rtol=1e-9)
    assert result.history[-1] < (1 - 1e-3) * lora.history[-1]


@pytest.mark.parametrize("kind", ["tall", "deficient"])
def test_conjugate_gradients_solve_what_is_coupled(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    X, Z, _ = layer(kind, (9, 6))
    f = statistics(X, Z).objective(0.01)
    half = ModulatedColumns(random((9, 12), 0), random((4, 6), 1), random((4, 3), 2), 0.5)
    exact = half.solve(f)
    monkeypatch.setattr(modulated, "DENSE", 0)
    for start in (None, random((3, 6), 3)):
        step = half.solve(f, start)
        assert step.rank is None
        np.testing.assert_allclose(step.value, exact.value, rtol=1e-8)
        np.testing.assert_allclose(half.apply(step.theta), half.apply(exact.theta), atol=1e-6)
    few = ModulatedColumns(half.U, half.A, half.lam, 0.5, cg_iterations=2)
    values = [few.solve(f, random((3, 6), 3)).value, f.value(half.apply(random((3, 6), 3)))]
    assert exact.value < values[0] < values[1]
    without = ModulatedColumns(half.U, half.A * [1, 1, 0, 1, 1, 1], half.lam, 0.5)  # a column without effect
    assert np.isfinite(without.solve(f).theta).all()


def test_modulated_rows_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    X, Z, _ = layer("tall", (6, 9))
    family = RandLoRA(2)
    want = fit(statistics(X, Z), family, max_iterations=100)
    monkeypatch.setattr(modulated, "_CHUNK_BYTES", 1)
    np.testing.assert_allclose(fit(statistics(X, Z), family, max_iterations=100).delta(), want.delta(), atol=1e-9)


def test_rounds_that_are_not_enough_are_said() -> None:
    s = LayerStatistics.from_delta(random((8, 6), 0))
    for family in (RandLoRA(2), NOLA(4, 4, 2), VeRA(4), LoHa(2)):
        with pytest.warns(
            ConvergenceWarning, match=f"1 rounds of {type(family).__name__} were not enough for tol = 0;"
        ):
            result = fit(s, family, max_iterations=1, tol=0)
        assert not result.converged and result.history[-1] < result.history[0]


def test_bad_settings() -> None:
    s = LayerStatistics.from_delta(np.ones((4, 6)))
    for make, message in [
        (lambda: RandLoRA(0), "rank must be at least 1, got 0"),
        (lambda: RandLoRA(2, alpha=-1), "alpha must be more than 0, got -1"),
        (lambda: RandLoRA(2, steps=0), "steps must be at least 1, got 0"),
        (lambda: RandLoRA(2, A=np.ones((2, 1, 3))), r"A must have at least .* = \(2, 1, 4\), got \(2, 1, 3\)"),
        (lambda: RandLoRA(2, B=np.ones((6, 2))), r"B must have at least .* = \(6, 2, 2\), got \(6, 2\)"),
        (lambda: NOLA(0, 2, 2), "a_size must be at least 1, got 0"),
        (lambda: NOLA(2, 0, 2), "b_size must be at least 1, got 0"),
        (lambda: NOLA(2, 2, 2, A=np.ones((2, 2, 4))), r"A must have shape \(2, 2, 6\), got \(2, 2, 4\)"),
        (lambda: NOLA(2, 2, 2, B=np.full((2, 4, 2), np.nan)), "B must be finite"),
        (lambda: NOLA(2, 2, 2, A0=np.ones((2, 5))), r"A0 must have shape .* = \(2, 6\), got \(2, 5\)"),
        (lambda: VeRA(0), "rank must be at least 1, got 0"),
        (lambda: VeRA(2, d_initial=0), "d_initial must be more than 0, got 0"),
        (lambda: VeRA(2, A=np.ones((2, 5))), r"A must have at least .* = \(2, 6\), got \(2, 5\)"),
        (lambda: VeRA(2, B=np.ones((3, 2))), r"B must have at least .* = \(4, 2\), got \(3, 2\)"),
        (lambda: LoHa(0), "rank must be at least 1, got 0"),
        (lambda: LoHa(5), "rank must be in 1 … 4, the smaller side of the layer, got 5"),
    ]:
        with pytest.raises(InvalidValueError, match=message):
            fit(s, make())
    with pytest.raises(NonFiniteError, match=r"A\[0, 0, 1\] is nan"):
        fit(s, RandLoRA(1, A=[[[0, np.nan, 0, 0]]]))
    with pytest.raises(InvalidTypeError, match="rank must be an int"):
        VeRA("8")  # type: ignore[arg-type]
