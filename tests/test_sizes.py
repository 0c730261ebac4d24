"""Suggested sketch sizes keep their promise, on coherent rows too, and say where they come from."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import rpcls

M, N = 3000, 6


def problems() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((M, N))
    coherent = 1e-6 * rng.standard_normal((M, N))
    coherent[rng.choice(M, N, replace=False)] += np.eye(N)
    huge = noise.copy()
    huge[5] *= 1e6
    spiked = noise * np.r_[1e4, np.ones(N - 1)]
    return {"incoherent": noise, "coherent": coherent, "one huge row": huge, "spiked": spiked}


@pytest.mark.parametrize("kind", ["incoherent", "coherent", "one huge row", "spiked"])
@pytest.mark.parametrize(
    ("family", "eta"),
    [
        (rpcls.SparseSign(), 0.5),
        (rpcls.SparseSign(3), 0.9),
        (rpcls.CountSketch(), 0.9),
        (rpcls.Gaussian(), 0.5),
        (rpcls.Rademacher(), 0.7),
        (rpcls.SRHT(), 0.9),
        (rpcls.BlockSRHT(), 0.9),
    ],
    ids=lambda value: str(value),
)
def test_promise(family: rpcls.SketchFamily, eta: float, kind: str) -> None:
    # Each draw fails with probability at most δ = 0.01, so more than 3 failures of 20 have P < 5e-5.
    Q = np.linalg.qr(problems()[kind])[0]
    d = rpcls.suggest_sketch_size(N, eta, family, 0.01, m=M).size
    failed = 0
    for seed in range(20):
        s = np.linalg.svd(family.sample(d, m=M, rng=seed) @ Q, compute_uv=False)
        failed += bool(s[0] > 1 + eta or s[-1] < 1 - eta)
    assert failed <= 3


def test_promise_of_row_sampling() -> None:
    Q = np.linalg.qr(problems()["incoherent"])[0]
    coherence = M * float(np.max(np.sum(Q**2, axis=1)))
    d = rpcls.suggest_sketch_size(N, 0.5, rpcls.RowSampling(), 0.01, coherence=coherence).size
    for seed in range(20):
        s = np.linalg.svd(rpcls.RowSampling().sample(d, m=M, rng=seed) @ Q, compute_uv=False)
        assert 0.5 <= s[-1] <= s[0] <= 1.5


def test_count_sketch_fails_on_coherent_rows_at_the_size_that_suffices_others() -> None:
    Q = np.linalg.qr(problems()["coherent"])[0]
    d = 3 * N  # two of the N heavy rows meet in a row of SA with probability 1 − Π(1 − i/d) = 0.6
    lost = [
        np.linalg.svd(rpcls.CountSketch().sample(d, rng=seed) @ Q, compute_uv=False)[-1] < 1e-3 for seed in range(40)
    ]
    assert 10 <= sum(lost) <= 38
    for seed in range(40):
        assert np.linalg.svd(rpcls.SparseSign().sample(d, rng=seed) @ Q, compute_uv=False)[-1] > 0.05


def test_sizes_by_hand() -> None:
    n, eta, delta = 50, 0.5, 0.1
    eps = 0.75
    assert rpcls.suggest_sketch_size(n, eta, rpcls.CountSketch(), delta).size == math.ceil(50 * 51 / (eps**2 * delta))
    gaussian = math.ceil((math.sqrt(50) + math.sqrt(2 * math.log(20))) ** 2 / 0.25)
    found = rpcls.suggest_sketch_size(n, eta, rpcls.Gaussian(), delta)
    assert found.size == gaussian and found.proven and "Davidson" in found.reference
    assert rpcls.suggest_sketch_size(n, eta, failure_probability=delta).size == gaussian
    assert not rpcls.suggest_sketch_size(n, eta).proven
    assert rpcls.suggest_sketch_size(n, eta, rpcls.SRHT(), delta, m=100).size == 128
    for family in (rpcls.SRHT(), rpcls.BlockSRHT(), rpcls.LeverageSampling(), rpcls.Rademacher()):
        sizes = [rpcls.suggest_sketch_size(k, eta, family, delta, m=10**9).size for k in (5, 50)]
        assert sizes[0] < sizes[1]


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ((0, 0.5), rpcls.InvalidValueError, "n must be at least 1, got 0"),
        (("a", 0.5), rpcls.InvalidTypeError, "n must be a number, got 'a'"),
        ((5, 1.0), rpcls.InvalidValueError, r"distortion must be in \(0, 1\), got 1.0"),
        ((5, 0.5, rpcls.Gaussian(), 0.0), rpcls.InvalidValueError, r"failure_probability must be in \(0, 1\), got 0.0"),
        ((5, 0.5, rpcls.SRHT()), rpcls.InvalidTypeError, r"m, which SRHT\(\) needs, must be a number, got None"),
        ((5, 0.5, rpcls.RowSampling()), rpcls.InvalidTypeError, r"coherence, which RowSampling.* needs"),
        ((5, 0.5, rpcls.LeverageSampling(1.0)), rpcls.InvalidValueError, "is RowSampling; ask for that"),
        ((5, 0.5, "gaussian"), rpcls.InvalidTypeError, "family must be one that rpcls has a rule for"),
    ],
)
def test_wrong_arguments(arguments: tuple[Any, ...], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        rpcls.suggest_sketch_size(*arguments)
