"""Families and layers to fit, and the slow, obvious oracle: dense least squares on vec(XGₖᵀ)."""

from __future__ import annotations

from collections.abc import Callable
from math import gcd
from typing import Any

import numpy as np
from hypothesis import strategies as st

import rpcls.adapters as ra
from rpcls.adapters import LayerStatistics
from rpcls.adapters.family import Family, Layer, Model
from rpcls.adapters.linear import Linear
from rpcls.adapters.quadratic import Projected
from rpcls.random import Key

Shape = tuple[int, int]

# A family that fits any layer of at least 2 × 2, from the layer's shape and a seed: a new family is tested everywhere
# by one line here.
FAMILIES: dict[str, Callable[[Shape, int], Family]] = {
    "AdaMix": lambda shape, seed: ra.AdaMix(2, list(random((2, *shape), seed)), alpha=3.0),
    "C3A": lambda shape, seed: ra.C3A(gcd(*shape)),
    "DynamicSubset": lambda shape, seed: ra.DynamicSubset(0.3),
    "ETHER": lambda shape, seed: ra.ETHER(),
    "ETHER, blocks": lambda shape, seed: ra.ETHER(shape[1]),
    "ETHERPlus": lambda shape, seed: ra.ETHERPlus(gcd(*shape)),
    "ETHERPlus, one side": lambda shape, seed: ra.ETHERPlus(two_sided=False),
    "FineGates": lambda shape, seed: ra.FineGates(),
    "FourierFT": lambda shape, seed: ra.FourierFT(shape[0] + shape[1], random_loc_seed=seed),
    "LinearAdapter": lambda shape, seed: ra.LinearAdapter(random((5, *shape), seed), offset=random(shape, seed)),
    "LoHa": lambda shape, seed: ra.LoHa(2, alpha=3.0),
    "LoRA": lambda shape, seed: ra.LoRA(2, alpha=3.0),
    "LoRETTA": lambda shape, seed: ra.LoRETTA(2, 2, alpha=3.0),
    "LoRAXS": lambda shape, seed: ra.LoRAXS(2, alpha=3.0),
    "MELoRA": lambda shape, seed: ra.MELoRA(1, gcd(*shape), alpha=3.0),
    "NOLA": lambda shape, seed: ra.NOLA(5, 7, 2, alpha=3.0, seed=seed),
    "RandLoRA": lambda shape, seed: ra.RandLoRA(2, alpha=3.0, seed=seed),
    "SaRA": lambda shape, seed: ra.SaRA(density=0.3),
    "SaRA, low rank": lambda shape, seed: ra.SaRA(density=0.5, nuclear=0.05),
    "SpaRTA": lambda shape, seed: ra.SpaRTA(0.3, seed=seed),
    "VeRA": lambda shape, seed: ra.VeRA(4, seed=seed),
}

SHAPES = [(6, 9), (8, 8), (9, 6)]  # o < i, o = i, o > i
KINDS = ["tall", "deficient", "few"]  # of X: more tokens than inputs, rank-deficient, fewer tokens than inputs

shapes = st.sampled_from([(o, i) for o in range(2, 13) for i in range(2, 13)])
kinds = st.sampled_from(KINDS)
seeds = st.integers(0, 2**32 - 1)


def random(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def layer(kind: str, shape: tuple[int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """X (N, i) with singular values between 1 and 10, Z (N, o), W₀ (o, i)."""
    o, i = shape
    rng = np.random.default_rng(seed)
    N = max(1, i // 2) if kind == "few" else 3 * i + 5
    rank = max(1, i - 2) if kind == "deficient" else min(N, i)
    U = np.linalg.qr(rng.standard_normal((N, rank)))[0]
    V = np.linalg.qr(rng.standard_normal((i, rank)))[0]
    X = U * np.linspace(10, 1, rank) @ V.T
    return X, rng.standard_normal((N, o)), rng.standard_normal((o, i))


def statistics(X: np.ndarray, Z: np.ndarray, **settings: Any) -> LayerStatistics:
    return LayerStatistics(X.shape[1], Z.shape[1], **settings).update(X, Z)


def bases(half: Linear) -> np.ndarray:
    """All Gₖ, (k, o, i)."""
    return np.stack([half.apply(e.reshape(half.theta_shape)) for e in np.eye(half.size)])


def dense_solution(half: Linear, X: np.ndarray, Z: np.ndarray) -> tuple[np.ndarray, float]:
    """θ of minimum norm by the singular value decomposition of the design matrix, and the design's condition."""
    design = np.stack([(X @ G.T).ravel() for G in bases(half)], axis=1)
    rhs = Z if half.offset is None else Z - X @ half.offset.T
    theta, _, _, s = np.linalg.lstsq(design, rhs.ravel(), rcond=1e-9)
    s = s[s > 1e-9 * s[0]] if s.any() else np.ones(1)
    return theta.reshape(half.theta_shape), float(s[0] / s[-1])


def check_half(half: Linear, X: np.ndarray, Z: np.ndarray, rtol: float = 1e-10) -> None:
    """The four operations agree with each other, and the solution with dense least squares."""
    rng = np.random.default_rng(1)
    s = statistics(X, Z)
    f = s.objective()
    assert not isinstance(f, Projected)
    theta, G = rng.standard_normal(half.theta_shape), rng.standard_normal(half.shape)
    np.testing.assert_allclose(np.vdot(half.adjoint(G), theta), np.vdot(G, half.apply(theta)), rtol=1e-9, atol=1e-9)
    every = bases(half).reshape(half.size, -1)
    M = np.einsum("koi,ij,loj->kl", *(every.reshape(-1, *half.shape),), f.C, every.reshape(-1, *half.shape))
    atol = 1e-12 * np.abs(M).max(initial=0.0)
    np.testing.assert_allclose(half.gram(f.C), M, atol=atol, rtol=1e-10)
    if half.size > 1:
        some = np.arange(0, half.size, 2)
        np.testing.assert_allclose(half.gram(f.C, some), M[np.ix_(some, some)], atol=atol, rtol=1e-10)
    blocks = half.blocks()
    if blocks is not None:
        assert sorted(np.concatenate(blocks)) == list(range(half.size))
        label = np.empty(half.size, int)
        for number, block in enumerate(blocks):
            label[block] = number
        assert np.abs(M[label[:, None] != label]).max(initial=0.0) <= atol
    step = half.solve(f, np.zeros(half.theta_shape))
    theta, condition = dense_solution(half, X, Z)
    want, got = half.delta(theta), half.delta(step.theta)
    if condition < 1e5:  # C has lost half of the digits that the rows have: 1e-10 up to a condition number near 1e2
        rtol = max(rtol, 50 * np.finfo(float).eps * condition**2)
        assert np.linalg.norm(got - want) <= rtol * max(np.linalg.norm(want), 1e-30)
        residual = np.linalg.norm(X @ got.T - Z) ** 2
        np.testing.assert_allclose(step.value, residual, rtol=1e-9, atol=rtol * np.linalg.norm(Z) ** 2)


def check_model(family: Family, X: np.ndarray, Z: np.ndarray, W: np.ndarray, *, rtol: float = 1e-10) -> Model:
    """Every half at a random θ."""
    model = family.bind(Layer(Z.shape[1], X.shape[1], W))
    rng = np.random.default_rng(2)
    parts = model.start(Key(0))
    if any(part.dtype.kind != "f" for part in parts.values()):  # choices of the fit
        parts = ra.fit(statistics(X, Z), family, weight=W).factors
    theta = {n: rng.standard_normal(part.shape) if part.dtype.kind == "f" else part for n, part in parts.items()}
    seen_inputs = X if model.inner is None else X @ model.inner.T
    for name, make in model.halves(theta).items():
        half = make()
        np.testing.assert_allclose(half.delta(theta[name]), model.seen(theta), rtol=1e-10, atol=1e-10)
        check_half(half, seen_inputs, Z, rtol)
    return model


def check_fit(result: Any, s: LayerStatistics) -> None:
    """What every result promises."""
    history = np.array(result.history)
    assert np.all(np.diff(history) <= 0) and np.all(np.isfinite(history))
    assert result.delta().shape == (s.out_features, s.in_features) and result.delta().dtype == np.float64
    np.testing.assert_allclose(result.explained, s.explained(result.delta()), atol=1e-10)
    assert result.parameters == sum(v.size for v in result.factors.values() if v.dtype.kind == "f")
    assert result.bytes == 4 * result.parameters
