"""Families and operators: identities that hold for every S, distortion with a stated probability, every error."""

from __future__ import annotations

import pickle

import entries
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from market import DTYPES, FAMILIES, LAYOUTS
from support import matrix

import rpcls
from rpcls.errors import InvalidTypeError, InvalidValueError
from rpcls.random import Key
from rpcls.sketches import SketchFamily, SketchOperator
from rpcls.sketches.base import Adjoint

every_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
SIZES = st.tuples(st.integers(8, 40), st.integers(0, 60), st.integers(1, 40))  # d, m, n: d > m included
SEEDS = st.integers(0, 2**32)


def close(a: np.ndarray, b: np.ndarray, size: float | np.ndarray = 1.0) -> None:
    tolerance = 64 * np.finfo(a.dtype).eps
    assert a.dtype == b.dtype and a.shape == b.shape
    assert np.all(np.abs(a - b) <= tolerance * (size + 1))


# -- identities -------------------------------------------------------------------------------------


@every_family
@given(sizes=SIZES, seed=SEEDS, single=st.booleans(), dtype=st.sampled_from(list(DTYPES.values())))
def test_product_is_the_product_with_the_documented_matrix(
    family: SketchFamily, sizes: tuple, seed: int, single: bool, dtype: type
) -> None:
    d, m, n = sizes
    S = family.sample(d, m, rng=seed)
    dense = entries.operator(family, d, S.key.value, 0, m).reshape(d, m)
    assert S.shape == (d, m) and S.T.shape == (m, d)
    np.testing.assert_allclose(S.toarray(), dense, rtol=4e-16)
    rng = np.random.default_rng(seed)
    A = rng.standard_normal(m if single else (m, n)).astype(dtype)
    kept = A.copy()
    close(S @ A, (dense @ A.astype(float)).astype(dtype), np.sqrt(m))
    Y = rng.standard_normal(d if single else (d, n)).astype(dtype)
    close(S.T @ Y, (dense.T @ Y.astype(float)).astype(dtype), np.sqrt(d))
    assert np.array_equal(A, kept)


@every_family
@given(sizes=SIZES, seed=SEEDS, alpha=st.floats(-3, 3))
def test_linearity_and_adjoint(family: SketchFamily, sizes: tuple, seed: int, alpha: float) -> None:
    d, m, n = sizes
    S, rng = family.sample(d, m, rng=seed), np.random.default_rng(seed)
    A, B, y = rng.standard_normal((m, n)), rng.standard_normal((m, n)), rng.standard_normal(d)
    close(S @ (A + alpha * B), S @ A + alpha * (S @ B), 10 * np.sqrt(m))
    assert (S @ A[:, 0]) @ y == pytest.approx(A[:, 0] @ (S.T @ y), abs=1e-13 * (1 + m))
    assert np.array_equal(S @ (8 * A), 8 * (S @ A)) and np.array_equal(S @ -A, -(S @ A))


@every_family
@given(start=st.one_of(st.integers(0, 50), st.sampled_from([2**32 - 3, 2**38, 2**61])), m=st.integers(0, 9), seed=SEEDS)
def test_columns_do_not_depend_on_m_or_on_how_they_are_cut(family: SketchFamily, start: int, m: int, seed: int) -> None:
    def dense(S: SketchOperator, first: int, stop: int) -> np.ndarray:
        block = S.columns(first, stop)
        return block if isinstance(block, np.ndarray) else block.toarray()

    open_, closed = family.sample(21, rng=seed), family.sample(21, start + m + 5, rng=seed)
    whole = dense(open_, start, start + m)
    assert np.array_equal(whole, dense(closed, start, start + m))
    if m:
        parts = [dense(closed, start + i, start + i + 1) for i in range(m)]
        assert np.array_equal(whole, np.hstack(parts))


@every_family
def test_other_seeds_are_other_operators(family: SketchFamily) -> None:
    a, b = (family.sample(40, 30, rng=seed).toarray() for seed in (1, 2))
    assert not np.allclose(a, b)
    assert np.array_equal(a, family.sample(40, 30, rng=Key.of(1)).toarray())


def test_count_sketch_is_sparse_sign_with_one_entry() -> None:
    a, b = (f.sample(17, 50, rng=3).toarray() for f in (rpcls.CountSketch(), rpcls.SparseSign(1)))
    assert np.array_equal(a, b)


@every_family
def test_bits_do_not_depend_on_the_number_of_threads(family: SketchFamily, monkeypatch: pytest.MonkeyPatch) -> None:
    A = np.random.default_rng(0).standard_normal((9000, 3))
    S = family.sample(20, rng=0)
    results = []
    for threads in ("1", "2", "7"):
        monkeypatch.setenv("RPCLS_NUM_THREADS", threads)
        results.append((S @ A).tobytes())
    assert len(set(results)) == 1


@every_family
@pytest.mark.parametrize("layout", LAYOUTS)
def test_product_in_every_layout(family: SketchFamily, layout: str) -> None:
    A = np.random.default_rng(0).standard_normal((50, 11))
    S = family.sample(16, rng=0)
    np.testing.assert_allclose(S @ LAYOUTS[layout](A), S @ A, rtol=1e-13, atol=1e-13)


def test_integers_booleans_and_lists_become_float64() -> None:
    S = rpcls.SparseSign(2).sample(6, 4, rng=0)
    A = np.array([[1, 0], [0, 1], [1, 1], [0, 0]])
    for given_ in (A, A.astype(bool), A.astype(np.uint8), A.tolist()):
        assert (S @ given_).dtype == np.float64 and np.array_equal(S @ given_, S @ A.astype(float))
    Y = np.arange(12).reshape(6, 2)
    assert (S.T @ Y).dtype == np.float64 and np.array_equal(S.T @ Y, S.T @ Y.astype(float))


@every_family
def test_huge_entries_make_no_noise(family: SketchFamily) -> None:
    A = np.array([[1e300], [2e300]])
    S = family.sample(8, 2, rng=0)
    np.testing.assert_allclose(S @ A, S.toarray() @ A)
    assert np.isnan(S @ np.full((2, 1), np.nan)).any()


def test_adjoint_of_many_columns_is_applied_in_blocks() -> None:
    S = rpcls.SparseSign(2).sample(5, 2 * Adjoint._BLOCK + 3, rng=0)
    y = np.arange(5.0)
    np.testing.assert_allclose(S.T @ y, S.columns(0, S.m).T @ y)
    assert repr(S.T) == f"{S!r}.T" and S.T.T is S


# -- values -----------------------------------------------------------------------------------------


@given(
    family=st.one_of(st.sampled_from(list(FAMILIES.values())), st.integers(1, 30).map(rpcls.SparseSign)),
    extra=st.integers(0, 1000),
    m=st.one_of(st.none(), st.integers(0, 2**62)),
    key=st.integers(0, 2**64 - 1),
)
def test_repr_and_pickle_round_trip(family: SketchFamily, extra: int, m: int | None, key: int) -> None:
    S = family.sample(family.minimum_size + extra, m, rng=Key(key))
    names = {name: getattr(rpcls, name) for name in rpcls.__all__}
    for again in (eval(repr(S), names), pickle.loads(pickle.dumps(S))):
        assert again == S and hash(again) == hash(S) and repr(again) == repr(S)
    assert len(pickle.dumps(S)) < 400
    assert eval(repr(family), names) == family == pickle.loads(pickle.dumps(family))


def test_values_are_frozen_and_distinct() -> None:
    S = rpcls.SparseSign().sample(16, rng=0)
    with pytest.raises(AttributeError):
        S.sketch_size = 3  # type: ignore[misc]
    with pytest.raises(AttributeError):
        rpcls.SparseSign().nnz_per_column = 2  # type: ignore[misc]
    assert rpcls.SparseSign(4).sample(16, rng=0) != S and rpcls.SparseSign().sample(17, rng=0) != S
    assert rpcls.SparseSign().sample(16, rng=1) != S and rpcls.SparseSign().sample(16, 5, rng=0) != S
    assert rpcls.SparseSign(np.int64(3)) == rpcls.SparseSign(3) and rpcls.Gaussian() != rpcls.Rademacher()
    assert rpcls.SparseSign(np.int64(3)).sample(np.int32(9)).sketch_size == 9
    assert rpcls.SparseSign(5).minimum_size == 5 and rpcls.Gaussian().minimum_size == 1
    assert [f.mergeable for f in FAMILIES.values()] == [True] * len(FAMILIES)


def test_an_unseeded_operator_is_fresh() -> None:
    assert rpcls.Gaussian().sample(3) != rpcls.Gaussian().sample(3)


# -- distortion: (1−η)‖y‖ ≤ ‖Sy‖ ≤ (1+η)‖y‖ on range(A) ---------------------------------------------


def distortion(family: SketchFamily, U: np.ndarray, d: int, seed: int) -> float:
    s = np.linalg.svd(family.sample(d, rng=seed) @ U, compute_uv=False)
    return max(s[0] - 1, 1 - s[-1])


@pytest.mark.parametrize("kind", ["gaussian", "coherent"])
def test_gaussian_distortion_at_the_size_from_theory(kind: str) -> None:
    n, eta, delta, repeats = 10, 0.35, 1e-3, 20
    d = int(np.ceil((np.sqrt(n) + np.sqrt(2 * np.log(2 / delta))) ** 2 / eta**2))
    U = np.linalg.qr(matrix(kind, 1500, n, np.random.default_rng(0)))[0]
    found = [distortion(rpcls.Gaussian(), U, d, seed) for seed in range(repeats)]
    assert max(found) <= eta  # P(fail) ≤ 20·10⁻³ over the draw of the keys, which are fixed
    assert np.mean(found) > eta / 4  # and the scale is right: a sketch that loses nothing is no sketch


@pytest.mark.parametrize("kind", ["gaussian", "coherent"])
def test_sparse_sign_distortion_is_a_gaussians(kind: str) -> None:
    n, d, repeats = 20, 200, 30
    U = np.linalg.qr(matrix(kind, 1500, n, np.random.default_rng(0)))[0]
    sparse = [distortion(rpcls.SparseSign(), U, d, seed) for seed in range(repeats)]
    # Gaussian: P(distortion > √(n/d) + t/√d) ≤ 2exp(−t²/2); t = 4.5 and a margin of 10 %: 30 draws fail below 10⁻³
    assert max(sparse) < 1.1 * (np.sqrt(n / d) + 4.5 / np.sqrt(d))
    assert np.mean(sparse) > 0.5 * np.sqrt(n / d)


def test_count_sketch_loses_coherent_rows_that_sparse_sign_keeps() -> None:
    n, d = 20, 80
    U = np.vstack([np.eye(n), np.zeros((300, n))])  # n rows carry everything: two in one bucket lose a direction
    count = [distortion(rpcls.CountSketch(), U, d, seed) for seed in range(60)]
    sparse = [distortion(rpcls.SparseSign(), U, d, seed) for seed in range(60)]
    clash = 1 - np.prod(1 - np.arange(n) / d)  # the birthday bound: 0.92
    lost = np.mean(np.array(count) > 1 - 1e-9)
    assert abs(lost - clash) < 5 * np.sqrt(clash * (1 - clash) / 60) and lost > 0.5
    assert max(sparse) < 0.85
    incoherent = np.linalg.qr(np.random.default_rng(0).standard_normal((1000, n)))[0]
    assert max(distortion(rpcls.CountSketch(), incoherent, d, seed) for seed in range(60)) < 0.85


def test_count_sketch_at_the_size_from_theory_keeps_them() -> None:
    n, eta, delta = 4, 0.5, 0.05
    d = int(np.ceil(n * (n + 1) / (eta**2 * delta)))  # eta: squared lengths
    U = np.vstack([np.eye(n), np.zeros((50, n))])
    bad = 0
    for seed in range(200):
        gram = np.square(np.linalg.svd(rpcls.CountSketch().sample(d, rng=seed) @ U, compute_uv=False))
        bad += bool(np.max(np.abs(gram - 1)) > eta)
    assert bad <= 200 * delta


# -- errors -----------------------------------------------------------------------------------------


def test_parameters_of_families() -> None:
    for value in (True, 2.0, "8", None):
        with pytest.raises(
            InvalidTypeError, match=f"nnz_per_column must be an int, got {type(value).__name__} {value!r}"
        ):
            rpcls.SparseSign(value)  # type: ignore[arg-type]
    for value in (0, -1, 65537):
        with pytest.raises(InvalidValueError, match=rf"nnz_per_column must be in \[1, 65536\], got {value}"):
            rpcls.SparseSign(value)
    assert rpcls.SparseSign(65536).minimum_size == 65536


def test_sizes_of_operators() -> None:
    with pytest.raises(InvalidValueError, match="sketch_size must be at least nnz_per_column = 8, got 7"):
        rpcls.SparseSign().sample(7, rng=0)
    with pytest.raises(InvalidValueError, match="sketch_size must be at least 1, got 0"):
        rpcls.Gaussian().sample(0, rng=0)
    with pytest.raises(InvalidValueError, match=r"sketch_size must be below 2\*\*31, got 2147483648"):
        rpcls.Gaussian().sample(2**31, rng=0)
    for value in (True, 5.0, "5", None):
        with pytest.raises(InvalidTypeError, match=f"sketch_size must be an int, got {type(value).__name__} {value!r}"):
            rpcls.Gaussian().sample(value, rng=0)  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="m must be at least 0, got -1"):
        rpcls.Gaussian().sample(5, -1, rng=0)
    with pytest.raises(InvalidTypeError, match=r"m must be an int, got float 3\.0"):
        rpcls.Gaussian().sample(5, 3.0, rng=0)  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match=r"m must be at most 2\*\*62, got"):
        rpcls.Gaussian().sample(5, 2**62 + 1, rng=0)


def test_columns_out_of_range() -> None:
    S = rpcls.SparseSign().sample(16, 10, rng=0)
    for start, stop in ((-1, 2), (3, 2), (0, 11)):
        with pytest.raises(InvalidValueError, match=rf"columns needs 0 ≤ start ≤ stop ≤ m = 10, got {start}, {stop}"):
            S.columns(start, stop)
    with pytest.raises(
        InvalidValueError, match=r"columns needs 0 ≤ start ≤ stop ≤ 2\*\*62, got 0, 9223372036854775808"
    ):
        rpcls.SparseSign().sample(16, rng=0).columns(0, 2**63)


def test_what_needs_the_number_of_rows() -> None:
    S = rpcls.Gaussian().sample(16, rng=0)
    hint = r"needs the number of rows, which this operator leaves open; give it when sampling: sample\(16, m=…, rng=…\)"
    with pytest.raises(InvalidValueError, match=f"toarray {hint}"):
        S.toarray()
    with pytest.raises(InvalidValueError, match=f"S.T @ Y {hint}"):
        S.T @ np.ones(16)
    assert S.shape == (16, None) and S.T.shape == (None, 16)


def test_operands_that_do_not_fit() -> None:
    S = rpcls.Gaussian().sample(6, 10, rng=0)
    with pytest.raises(InvalidValueError, match=r"S @ A needs A with m = 10 rows, got shape \(9, 2\)"):
        S @ np.ones((9, 2))
    with pytest.raises(InvalidValueError, match=r"S @ A needs A with one or two dimensions, got shape \(\)"):
        S @ 3.0
    with pytest.raises(InvalidValueError, match=r"S @ A needs A with one or two dimensions, got shape \(10, 1, 1\)"):
        S @ np.ones((10, 1, 1))
    for dtype in ("float16", "complex128", "object", "<U1"):
        with pytest.raises(InvalidTypeError, match=f"S @ A needs float32, float64, integer or boolean A, got {dtype}"):
            S @ np.ones((10, 2)).astype(dtype)
        with pytest.raises(
            InvalidTypeError, match=f"S.T @ Y needs float32, float64, integer or boolean Y, got {dtype}"
        ):
            S.T @ np.ones((6, 2)).astype(dtype)
    for shape in ((5,), (5, 2), (6, 1, 1)):
        with pytest.raises(InvalidValueError, match=r"S.T @ Y needs Y with d = 6 rows, got shape \(\d"):
            S.T @ np.ones(shape)
