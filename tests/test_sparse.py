"""SciPy sparse matrices give what their dense form gives, at the cost of their stored entries."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from market import FAMILIES

import rpcls
from rpcls.sources import source_of


def stored(m: int, n: int, dtype: Any = np.float64, seed: int = 0) -> sp.csr_array:
    """Three entries a row on average, empty rows, an empty column, explicit zeros."""
    rng = np.random.default_rng(seed)
    count = 3 * m
    values = rng.integers(-4, 5, count) if np.dtype(dtype).kind in "iu" else rng.standard_normal(count)
    values[::17] = 0
    columns = rng.integers(0, max(1, n - 1), count)
    return sp.csr_array(sp.coo_array((values.astype(dtype), (rng.integers(0, m, count), columns)), shape=(m, n)))


FORMS = {
    "csr": lambda A: A,
    "csc": sp.csc_array,
    "coo": sp.coo_array,
    "csr_matrix": sp.csr_matrix,
    "lil": sp.lil_array,
    "int64 indices": lambda A: sp.csr_array((A.data, A.indices.astype(np.int64), A.indptr.astype(np.int64)), A.shape),
    "duplicates": lambda A: sp.coo_array(
        (np.r_[A.data, A.data], (np.r_[A.tocoo().row, A.tocoo().row], np.r_[A.indices, A.indices])), shape=A.shape
    ),
    "unsorted": lambda A: sp.csr_array(A[:, ::-1])[:, ::-1],
}


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_summary_is_that_of_the_dense_matrix(family: rpcls.SketchFamily, dtype: type) -> None:
    A = stored(700, 20, dtype)
    rng = np.random.default_rng(1)
    b, w = rng.standard_normal((700, 2)).astype(dtype), rng.random(700)
    S = family.sample(60, rng=2)
    sparse = rpcls.compress(A, b, S, sample_weight=w, row_offset=1234)
    dense = rpcls.compress(A.toarray(), b, S, sample_weight=w, row_offset=1234)
    assert sparse.SA.dtype == dtype and sparse.intervals == dense.intervals
    tolerance = 1e-12 if dtype == np.float64 else 2e-5
    for name in ("SA", "Sb", "S1", "Atb", "btb", "column_norms", "column_sums", "b_sum", "weight"):
        found, expected = getattr(sparse, name), getattr(dense, name)
        assert np.shape(found) == np.shape(expected)
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=50 * tolerance, err_msg=name)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form(form: Any) -> None:
    given = form(stored(400, 12))
    before = given.copy()
    b = np.random.default_rng(1).standard_normal(400)
    dense = given.toarray()
    c = rpcls.compress(given, b, rng=0)
    np.testing.assert_allclose(c.SA, rpcls.compress(dense, b, rng=0).SA, atol=1e-12)
    np.testing.assert_allclose(c.column_norms, np.linalg.norm(dense, axis=0), atol=1e-12)
    assert type(given) is type(before) and (given != before).nnz == 0 and given.nnz == before.nnz


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint16, np.int64])
def test_integers_become_float64(dtype: type) -> None:
    A = stored(300, 9, np.int64).astype(dtype)
    c = rpcls.compress(A, np.ones(300), rng=0)
    np.testing.assert_allclose(c.Atb, A.toarray().astype(float).sum(axis=0))
    assert c.SA.dtype == np.float64


@pytest.mark.parametrize("solver", ["full", "partial", "robust-full", "robust-partial", "direct"])
@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.filterwarnings("ignore::rpcls.RpclsWarning")  # n < 30; an empty column
def test_solvers_agree_with_the_dense_matrix(solver: str, intercept: bool) -> None:
    A, rng = stored(900, 15), np.random.default_rng(3)
    b, w = rng.standard_normal(900), rng.random(900)
    settings: dict[str, Any] = {"intercept": intercept, "sample_weight": w}
    if solver != "direct":
        settings |= {"rng": 0, "sketch_size": 90}
    found, expected = rpcls.lstsq(A, b, solver, **settings), rpcls.lstsq(A.toarray(), b, solver, **settings)
    np.testing.assert_allclose(found.x, expected.x, atol=1e-9)
    assert found.status is expected.status and found.sweeps == expected.sweeps
    if intercept:
        np.testing.assert_allclose(found.intercept, expected.intercept, atol=1e-9)


def test_sweeps() -> None:
    A, rng = stored(500, 8), np.random.default_rng(0)
    b, w, X = rng.standard_normal((500, 3)), rng.random(500), rng.standard_normal((8, 3))
    sparse, dense = source_of(A, b, sample_weight=w), source_of(A.toarray(), b, sample_weight=w)
    for found, expected in zip(sparse.gradient(X), dense.gradient(X), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-11)
    np.testing.assert_allclose(sparse.predict(X), dense.predict(X), atol=1e-13)
    np.testing.assert_allclose(np.abs(sparse.triangle()[0]), np.abs(dense.triangle()[0]), atol=1e-11)


def test_same_bits_for_any_number_of_workers() -> None:
    A, b = stored(30_000, 10), np.ones(30_000)
    one, two = (rpcls.compress(A, b, rng=0, workers=k) for k in (1, 2))
    assert np.array_equal(one.SA, two.SA) and np.array_equal(one.Atb, two.Atb)


def test_nothing_is_densified() -> None:
    A, b = sp.random_array((40_000, 2000), density=1e-4, rng=np.random.default_rng(0), format="csr"), np.ones(40_000)
    S = rpcls.CountSketch().sample(100, rng=0)
    rpcls.compress(A[:100], b[:100], S)
    tracemalloc.start()
    rpcls.compress(A, b, S)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32e6  # the dense matrix has 640 MB, SA 1.6, and the accumulators of lanes may take 25


def test_row_blocks_may_be_sparse() -> None:
    A, b = stored(600, 10), np.random.default_rng(0).standard_normal(600)
    rows = rpcls.RowBlocks(lambda: ((A[i : i + 200], b[i : i + 200]) for i in range(0, 600, 200)), 10)
    c = rpcls.compress(rows, None, rng=0)
    np.testing.assert_allclose(c.SA, rpcls.compress(A, b, rng=0).SA, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-200, 1e150])
@pytest.mark.filterwarnings("ignore::rpcls.RpclsWarning")
def test_extreme_units(scale: float) -> None:
    A, b = stored(500, 40), np.random.default_rng(0).standard_normal(500)
    expected = rpcls.lstsq(A, b, "full", rng=0).x
    np.testing.assert_allclose(rpcls.lstsq(A * scale, b, "full", rng=0).x * scale, expected, rtol=1e-7)


def test_wrong_input() -> None:
    A, b = stored(50, 4), np.ones(50)
    with pytest.raises(rpcls.InvalidTypeError, match=r"got sparse complex128; complex problems are not supported"):
        rpcls.compress(A.astype(complex), b)
    with pytest.raises(rpcls.InvalidValueError, match=r"b must have shape .* m = 50 rows, got \(49,\)"):
        rpcls.compress(A, b[1:])
    with pytest.raises(rpcls.InvalidValueError, match=r"at least one column, got shape \(50, 0\)"):
        rpcls.compress(A[:, :0], b)
    A.data[5] = np.nan
    row, column = A.tocoo().row[5], A.indices[5]
    with pytest.raises(rpcls.NonFiniteError, match=rf"A must be finite, got nan in row {row}, column {column}"):
        rpcls.compress(A, b, rng=0)
