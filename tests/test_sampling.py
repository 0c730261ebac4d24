"""SRHT, RowSampling, SampledRows, LeverageSampling: the families that need to know the rows, or to see them first."""

from __future__ import annotations

import math
import pickle

import entries
import numpy as np
import pytest

import rpcls
from rpcls.kernels.cpu import permutation
from rpcls.sources import source_of


def coherent(m: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """n rows carry the range: an identity on top of noise."""
    A = 1e-6 * rng.standard_normal((m, n))
    A[rng.choice(m, n, replace=False)] += np.eye(n)
    return A


def distortion(S: rpcls.SketchOperator, A: np.ndarray) -> float:
    Q = np.linalg.qr(A)[0]
    s = np.linalg.svd(S @ Q, compute_uv=False)
    return float(max(abs(s[0] - 1), abs(s[-1] - 1)))


@pytest.mark.parametrize(("m", "d"), [(1, 1), (8, 3), (13, 16), (100, 40), (300, 7)])
def test_srht_has_the_documented_entries(m: int, d: int) -> None:
    S = rpcls.SRHT().sample(d, m=m, rng=5)
    size = 1 << (m - 1).bit_length()
    expected = [entries.hadamard(d, S.key.value, i, size, blocks=False) for i in range(m)]
    assert np.array_equal(S.toarray(), np.array(expected).T)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("m", "n", "d"), [(100, 3, 30), (5000, 33, 140), (4097, 70, 300), (3000, 1, 4000)])
def test_srht_products(m: int, n: int, d: int, dtype: type, order: str) -> None:
    rng = np.random.default_rng(0)
    A = np.asarray(rng.standard_normal((m, n)), dtype, order=order)  # type: ignore[call-overload]
    S = rpcls.SRHT().sample(d, m=m, rng=1)
    assert (S @ A).dtype == dtype
    tolerance = (1e-12 if dtype == np.float64 else 1e-5) * math.sqrt(m)
    np.testing.assert_allclose(S @ A, S.toarray() @ A.astype(float), atol=tolerance)
    Y = rng.standard_normal((d, 2))
    np.testing.assert_allclose(np.sum((S @ A) * Y[:, :1]), np.sum(A * (S.T @ Y[:, :1])), rtol=1e-3, atol=tolerance)


def test_srht_rows_are_orthogonal_and_its_parts_add_up() -> None:
    S = rpcls.SRHT().sample(64, m=4096, rng=3)
    D = S.toarray()
    np.testing.assert_allclose(D @ D.T, 64 * np.eye(64), atol=1e-9)
    rng = np.random.default_rng(1)
    A, b = rng.standard_normal((4096, 5)), rng.standard_normal(4096)
    parts = rpcls.compress(A[:1000], b[:1000], S) + rpcls.compress(A[1000:], b[1000:], S, row_offset=1000)
    whole = rpcls.compress(A, b, S)
    np.testing.assert_allclose(parts.SA, whole.SA, atol=1e-11)
    np.testing.assert_allclose(whole.SA, D @ A, atol=1e-11)


@pytest.mark.parametrize("family", [rpcls.SRHT(), rpcls.BlockSRHT(block=256)])
@pytest.mark.parametrize("kind", ["incoherent", "coherent", "one huge row"])
def test_hadamard_distortion(family: rpcls.SketchFamily, kind: str) -> None:
    # Gaussian theory gives η ≤ √(n/d) + √(2 ln(2/δ)/d) = 0.44 for δ = 1e-4 at d = 40n; Hadamard sketches behave alike.
    rng = np.random.default_rng(2)
    m, n = 6000, 10
    A = coherent(m, n, rng) if kind == "coherent" else rng.standard_normal((m, n))
    if kind == "one huge row":
        A[17] *= 1e6
    for seed in range(10):
        assert distortion(family.sample(40 * n, m=m, rng=seed), A) < 0.44


def test_srht_second_moment() -> None:
    # E[SᵀS] = I: each off-diagonal entry of the mean of T draws has standard deviation at most 1/√(dT) = 0.025.
    T, d, m = 400, 4, 8
    mean = sum((D := rpcls.SRHT().sample(d, m=m, rng=t).toarray()).T @ D for t in range(T)) / T
    assert np.abs(mean - np.eye(m)).max() < 5 * 0.025


def test_srht_and_row_blocks() -> None:
    rng = np.random.default_rng(0)
    A, b = rng.standard_normal((600, 4)), rng.standard_normal(600)
    rows = rpcls.RowBlocks(lambda: iter([(A[:300], b[:300]), (A[300:], b[300:])]), 4)
    with pytest.raises(rpcls.InvalidValueError, match=r"needs the number of rows before the sweep.*BlockSRHT"):
        rpcls.compress(rows, None, rpcls.SRHT(), rng=0)
    with pytest.raises(rpcls.InvalidValueError, match=r"does not sweep over row blocks; use BlockSRHT"):
        rpcls.compress(rows, None, rpcls.SRHT().sample(20, m=600, rng=0))
    with pytest.raises(rpcls.InvalidValueError, match=r"SRHT\(\) needs the number of rows of A.*BlockSRHT"):
        rpcls.SRHT().sample(20, rng=0).columns(0, 5)


@pytest.mark.parametrize(
    ("block", "error", "match"),
    [
        (3, rpcls.InvalidValueError, r"block must be a power of two in \[2, 2\*\*20\], got 3"),
        (1, rpcls.InvalidValueError, "block must be a power of two"),
        (2.0, rpcls.InvalidTypeError, "block must be an int or None, got float"),
        (True, rpcls.InvalidTypeError, "block must be an int or None, got bool"),
    ],
)
def test_wrong_block(block: object, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        rpcls.BlockSRHT(block=block)  # type: ignore[arg-type]


# -- permutations and sampling --------------------------------------------------------------------------------------


@pytest.mark.parametrize("m", [1, 2, 3, 16, 17, 1000, 4097])
def test_permutation_is_the_documented_bijection(m: int) -> None:
    out = np.empty(m, np.int64)
    permutation.permute(np.uint64(99), m, 0, out)
    assert sorted(out.tolist()) == list(range(m))
    assert out[: min(m, 50)].tolist() == [entries.permuted(99, m, i) for i in range(min(m, 50))]


def test_permutation_and_draws_of_a_huge_range() -> None:
    m = 2**61 + 7
    for kernel in (permutation.permute, permutation.draw):
        out = np.empty(2000, np.int64)
        kernel(np.uint64(1), m, 0, out)
        assert out.min() >= 0 and out.max() < m and len(set(out.tolist())) == 2000
        counts = np.bincount((out // (m // 10 + 1)).astype(int), minlength=10)
        assert np.sum((counts - 200) ** 2 / 200) < 40.0  # χ² with 9 degrees of freedom: P < 1e-5


@pytest.mark.parametrize("replace", [False, True])
def test_row_sampling_is_rows_times_a_factor(replace: bool) -> None:
    rng = np.random.default_rng(0)
    A, b, w = rng.standard_normal((500, 6)), rng.standard_normal((500, 2)), rng.random(500)
    S = rpcls.RowSampling(replace=replace).sample(40, m=500, rng=3)
    D = S.toarray()
    assert np.count_nonzero(D, axis=1).tolist() == [1] * 40 and np.allclose(D.sum(axis=1), math.sqrt(500 / 40))
    assert replace or np.count_nonzero(D, axis=0).max() == 1
    c = rpcls.compress(A, b, S, sample_weight=w)
    root = np.sqrt(w)[:, None]
    np.testing.assert_allclose(c.SA, D @ (root * A), atol=1e-13)
    np.testing.assert_allclose(c.Sb, D @ (root * b), atol=1e-13)
    np.testing.assert_allclose(c.Atb, A.T @ (w[:, None] * b), atol=1e-11)
    np.testing.assert_allclose(c.column_norms, np.linalg.norm(root * A, axis=0))
    np.testing.assert_allclose(c.S1, D @ root[:, 0], atol=1e-13)
    parts = rpcls.compress(A[:99], b[:99], S) + rpcls.compress(A[99:], b[99:], S, row_offset=99)
    np.testing.assert_allclose(parts.SA, D @ A, atol=1e-13)


def test_row_sampling_second_moment() -> None:
    # a diagonal entry of SᵀS is 0 or m/d = 4 with mean 1: standard deviation of the mean of T draws √(3/T) = 0.061
    T, d, m = 800, 5, 20
    for replace in (False, True):
        family = rpcls.RowSampling(replace=replace)
        mean = sum((D := family.sample(d, m=m, rng=t).toarray()).T @ D for t in range(T)) / T
        assert np.abs(mean - np.eye(m)).max() < 5 * 0.061


def test_row_sampling_fails_on_coherent_rows_and_leverage_sampling_does_not() -> None:
    rng = np.random.default_rng(4)
    m, n = 4000, 5
    A = coherent(m, n, rng)
    uniform = [distortion(rpcls.RowSampling().sample(40 * n, m=m, rng=seed), A) for seed in range(10)]
    assert min(uniform) > 0.9  # a direction is lost unless all n rows are among the 5 % drawn
    for seed in range(10):
        c = rpcls.compress(A, A[:, 0], rpcls.LeverageSampling(), sketch_size=60 * n, rng=seed)
        assert distortion(c.operator, A) < 0.5


def test_leverage_sampling_counts_its_sweeps_and_stores_its_rows() -> None:
    rng = np.random.default_rng(0)
    A, b = rng.standard_normal((3000, 8)), rng.standard_normal(3000)
    reads = []
    rows = rpcls.RowBlocks(lambda: (reads.append(1), iter([(A[:2000], b[:2000]), (A[2000:], b[2000:])]))[1], 8)
    solution = rpcls.lstsq(rows, None, "full", sketch=rpcls.LeverageSampling(), sketch_size=200, rng=0)
    assert solution.sweeps == 3 == len(reads)
    S = solution.sketch
    again = rpcls.lstsq(A, b, "full", sketch=rpcls.LeverageSampling(), sketch_size=200, rng=0)
    np.testing.assert_allclose(again.x, solution.x, rtol=1e-9)
    assert pickle.loads(pickle.dumps(S)) == S
    assert eval(repr(S), {"SampledRows": rpcls.SampledRows, "Key": rpcls.Key}) == S
    exact = np.linalg.lstsq(A, b)[0]
    assert np.linalg.norm(A @ (solution.x - exact)) < 3 * np.linalg.norm(b - A @ exact) * math.sqrt(8 / 192)


def test_leverage_sampling_of_a_zero_matrix_is_uniform() -> None:
    S = rpcls.LeverageSampling().prepare(source_of(np.zeros((50, 3)), np.ones(50)), 20, rng=0)
    assert np.allclose(S.family.factors, math.sqrt(50 / 20))


def test_a_summary_of_sampled_rows_can_be_saved(tmp_path: object) -> None:
    rng = np.random.default_rng(0)
    A = rng.standard_normal((300, 4))
    c = rpcls.compress(A, A[:, 0], rpcls.LeverageSampling(), sketch_size=30, rng=0)
    path = tmp_path / "c.npz"  # type: ignore[operator]
    c.save(path)
    again = rpcls.CompressedProblem.load(path)
    assert again.operator == c.operator and again.sweeps == 3


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: rpcls.RowSampling(replace=1), rpcls.InvalidTypeError, "replace must be True or False, got 1"),
        (
            lambda: rpcls.RowSampling().sample(30, m=20, rng=0).toarray(),
            rpcls.InvalidValueError,
            r"needs sketch_size ≤ m = 20, got 30; lower it, or replace=True",
        ),
        (
            lambda: rpcls.RowSampling().sample(30, rng=0).columns(0, 3),
            rpcls.InvalidValueError,
            r"needs the number of rows of A: sample\(d, m=…\)",
        ),
        (lambda: rpcls.SampledRows((0, 1), (1.0,)), rpcls.InvalidValueError, "as many factors as indices ≥ 0, got 1"),
        (lambda: rpcls.SampledRows((-1,), (1.0,)), rpcls.InvalidValueError, "as many factors as indices ≥ 0"),
        (lambda: rpcls.SampledRows((1,), (math.nan,)), rpcls.InvalidValueError, "needs finite factors"),
        (
            lambda: rpcls.SampledRows((1,), (1.0,)).sample(2, rng=0) @ np.ones(3),
            rpcls.InvalidValueError,
            "sketch_size must be the number of sampled rows, 1, got 2",
        ),
        (lambda: rpcls.LeverageSampling(uniform=0), rpcls.InvalidValueError, r"uniform must be in \(0, 1\], got 0"),
        (lambda: rpcls.LeverageSampling(uniform="a"), rpcls.InvalidTypeError, "uniform must be a float, got str"),
        (
            lambda: rpcls.compress(np.empty((0, 3)), np.empty(0), rpcls.LeverageSampling(), rng=0),
            rpcls.InvalidValueError,
            "LeverageSampling needs at least one row",
        ),
    ],
)
def test_wrong_arguments(make: object, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        make()  # type: ignore[operator]
