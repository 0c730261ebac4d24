"""Tables of pandas and Arrow: their numbers as arrays would give them, their names kept."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse as sp
from table_kinds import NAMES, TABLES, chunked, columns, equal, every_table, mixed, sparse_frame

import rpcls
from rpcls.errors import InvalidValueError
from rpcls.sources import SparseSource, source_of


def peak_of(call: Callable[[], Any]) -> int:
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# -- numbers and names ------------------------------------------------------------------------------


@every_table
def test_a_table_gives_what_the_array_gives(table: Any) -> None:
    A, b, w = mixed()
    given = table(A)
    before = given.copy() if isinstance(given, pd.DataFrame) else given
    S = rpcls.SparseSign().sample(40, rng=0)
    for weight in (None, w):
        found = rpcls.compress(given, b, S, sample_weight=weight)
        assert equal(found, rpcls.compress(A, b, S, sample_weight=weight)) and found.SA.dtype == np.float64
        assert found.columns == NAMES
    assert given.equals(before)


@every_table
@pytest.mark.parametrize("solver", ["direct", "robust-partial"])
@pytest.mark.filterwarnings("ignore::rpcls.RpclsWarning")  # n < 30
def test_solutions_keep_names(table: Any, solver: str) -> None:
    A, b, w = mixed()
    settings: dict[str, Any] = {"intercept": True, "sample_weight": w}
    settings |= {} if solver == "direct" else {"rng": 0}
    found, expected = (rpcls.lstsq(M, b, solver, **settings) for M in (table(A), A))
    np.testing.assert_allclose(found.x, expected.x, rtol=1e-9)
    np.testing.assert_allclose(found.intercept, expected.intercept, rtol=1e-9)
    assert found.columns == NAMES and expected.columns is None


@every_table
def test_sweeps_of_many_blocks(table: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from rpcls.sources import array, base

    monkeypatch.setattr(base, "_TRIANGLE_BYTES", 1000)
    monkeypatch.setattr(array, "_BLOCK_BYTES", 1000)
    A, b, _ = mixed()
    source, X = source_of(table(A), b, workers=1), np.array([1.0, -1.0, 2.0])
    rows = list(source.blocks())
    assert len(rows) > 3 and all(r.columns == NAMES and not r.A.flags.writeable for r in rows)
    np.testing.assert_array_equal(np.vstack([r.A for r in rows]), A)
    np.testing.assert_allclose(source.gradient(X)[1], A.T @ (b - A @ X), rtol=1e-11)
    np.testing.assert_allclose(source.predict(X), A @ X, rtol=1e-14)
    R, _ = source.triangle()
    np.testing.assert_allclose(abs(R), abs(np.asarray(np.linalg.qr(np.column_stack([A, b]), mode="r"))), rtol=1e-11)


@pytest.mark.parametrize("kind", ["float32", "Float32", "float[pyarrow]", "Sparse[float32]", "Arrow", "sparse"])
def test_float32_stays_float32_if_all_columns_are(kind: str) -> None:
    A, b, _ = mixed()
    A[:, 0] = A[:, 2]
    single = A.astype(np.float32)
    frame = pd.DataFrame(single, columns=list(NAMES))
    given: Any = pa.table(dict(frame)) if kind == "Arrow" else sparse_frame(single) if kind == "sparse" else None
    given = frame.astype(kind) if given is None else given
    c = rpcls.compress(given, b, rng=0)
    assert c.SA.dtype == np.float32 and rpcls.lstsq(given, b).x.dtype == np.float32
    np.testing.assert_allclose(c.SA, rpcls.compress(single, b, rng=0).SA, rtol=1e-5, atol=1e-5)
    if kind == "Arrow":
        given = given.set_column(0, "age", pa.array(A[:, 0].astype(np.int8)))
    else:
        given = given.astype({given.columns[0]: pd.SparseDtype(np.int8, 0) if kind == "sparse" else np.int8})
    assert source_of(given, b).dtype == np.float64  # float32 does not hold every integer


@pytest.mark.parametrize("order", ["C", "F"])
def test_one_array_inside_a_frame_is_not_copied(order: Any) -> None:
    A, b = np.ones((200_000, 60), order=order), np.ones(200_000)
    frame = pd.DataFrame(A, copy=False)
    rpcls.compress(frame[:100], b[:100], rng=0)  # compile first
    assert peak_of(lambda: rpcls.compress(frame, b, rng=0)) < 30e6 < A.nbytes / 3
    for i in (0, 100):
        assert np.shares_memory(next(source_of(frame[i:], b[i:]).blocks()).A, A)


@pytest.mark.parametrize("kind", ["frame of columns", "mixed frame", "nullable frame", "Arrow table", "chunks"])
def test_no_array_is_made_of_other_tables(kind: str) -> None:
    m, n = 200_000, 60
    rng = np.random.default_rng(0)
    parts = {f"c{j}": rng.integers(0, 99, m).astype(np.int8 if j % 2 else np.float64) for j in range(n)}
    if kind == "frame of columns":
        given: Any = pd.DataFrame({name: part.astype(float) for name, part in parts.items()}, copy=False)
        assert not np.shares_memory(given.to_numpy(), given["c0"].to_numpy())
    elif "frame" in kind:
        given = pd.DataFrame(parts) if kind == "mixed frame" else pd.DataFrame(parts).astype("Int64")
    else:
        given = chunked(pa.table(parts), 3333) if kind == "chunks" else pa.table(parts)
    b = np.ones(m)
    rpcls.lstsq(given[:500], b[:500])
    for call in (lambda: rpcls.compress(given, b, rng=0), lambda: rpcls.lstsq(given, b)):
        assert peak_of(call) < 40e6  # the float64 array has 96 MB


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ((0, 1, 2), ("0", "1", "2")),
        ((3.5, None, ("a", 1)), ("3.5", "None", "('a', 1)")),
        ((pd.Timestamp("2020-01-01"), "x", "x"), ("2020-01-01 00:00:00", "x", "x")),
    ],
)
def test_names_that_are_no_strings_or_not_unique(given: Any, told: tuple[str, ...]) -> None:
    A, b, _ = mixed()
    frame = pd.DataFrame(A)
    frame.columns = pd.Index(given, dtype=object, tupleize_cols=False)
    assert rpcls.lstsq(frame, b).columns == told
    table = pa.Table.from_arrays([pa.array(A[:, j]) for j in range(3)], names=list(told))
    assert rpcls.lstsq(table, b).columns == told


def test_rows_are_taken_in_their_order_whatever_the_index() -> None:
    A, b, w = mixed()
    frame = pd.DataFrame(A, columns=list(NAMES))
    order = np.random.default_rng(1).permutation(len(A))
    shuffled = frame.iloc[order]
    found = rpcls.compress(shuffled, pd.Series(b), rng=0, sample_weight=pd.Series(w, index=order))
    assert equal(found, rpcls.compress(A[order], b, rng=0, sample_weight=w))


@pytest.mark.parametrize("dtype", ["float64", "float32", "int16", "bool", "Int64", "Float32", "boolean",
                                   "double[pyarrow]", "int8[pyarrow]", "bool[pyarrow]", "Sparse[float64]"])  # fmt: skip
def test_series_and_frames_for_b_and_weights(dtype: str) -> None:
    A, _, _ = mixed()
    values = np.random.default_rng(2).integers(0, 2, 500)
    series = pd.Series(values, index=np.arange(500)[::-1]).astype(dtype)
    expected = rpcls.compress(A, values, rng=0, sample_weight=values)
    assert equal(rpcls.compress(A, series, rng=0, sample_weight=series), expected) and isinstance(expected.btb, float)
    pair = pd.DataFrame({"y": series, "z": pd.Series(1.5, index=series.index)})
    both = rpcls.compress(A, pair, rng=0)
    assert equal(both, rpcls.compress(A, np.column_stack([values, np.full(500, 1.5)]), rng=0))
    assert both.columns is None and source_of(A, pair[["y"]]).rhs_shape == (1,)


def test_arrow_arrays_and_tables_for_b_and_weights() -> None:
    A, _, _ = mixed()
    values = np.random.default_rng(2).integers(0, 2, 500)
    expected = rpcls.compress(A, values, rng=0, sample_weight=values)
    for kind in (pa.float64(), pa.float32(), pa.int8(), pa.uint64(), pa.bool_()):
        whole = pa.array(values).cast(kind)
        for column in (
            whole,
            pa.chunked_array([whole[:7], whole[7:7], whole[7:]]),
            pa.concat_arrays([whole] * 2)[500:],
        ):
            assert equal(rpcls.compress(pa.table(columns(A)), column, rng=0, sample_weight=column), expected)
        both = pa.table({"y": whole, "z": whole})
        assert equal(rpcls.compress(A, both, rng=0), rpcls.compress(A, np.column_stack([values, values]), rng=0))


def test_no_rows() -> None:
    A, b, _ = mixed()
    for name, table in TABLES.items():
        c = rpcls.compress(table(A[:0]), b[:0], rng=0)
        assert c.shape == (0, 3) and c.columns == NAMES, name


# -- sparse frames ----------------------------------------------------------------------------------


def test_sparse_frames_stay_sparse() -> None:
    A, b, w = mixed()
    A[np.random.default_rng(1).random(A.shape) < 0.6] = 0
    frame = sparse_frame(A, list(NAMES))
    assert isinstance(source_of(frame, b), SparseSource)
    found = rpcls.compress(frame, b, rng=0, sample_weight=w)
    assert found.columns == NAMES and equal(found, rpcls.compress(sp.csr_array(A), b, rng=0, sample_weight=w))
    assert rpcls.lstsq(frame, b).columns == NAMES


@pytest.mark.parametrize("dtypes", [("bool", "float64"), ("bool", "int8"), ("int8", "float32"), ("int64", "uint64"),
                                    ("bool", "bool"), ("float32", "float64")])  # fmt: skip
def test_sparse_frames_of_several_dtypes(dtypes: tuple[str, str]) -> None:
    A = np.random.default_rng(1).integers(0, 2, (300, 2))
    frame = pd.DataFrame({f"c{j}": pd.arrays.SparseArray(A[:, j].astype(d), fill_value=np.dtype(d).type(0))
                          for j, d in enumerate(dtypes)})  # fmt: skip
    source = source_of(frame, np.ones(300))
    assert isinstance(source, SparseSource) and source.dtype == np.float64
    assert equal(rpcls.compress(frame, np.ones(300), rng=0), rpcls.compress(sp.csr_array(A), np.ones(300), rng=0))


def test_sparse_frames_are_not_densified() -> None:
    A = sp.random_array((100_000, 300), density=1e-3, rng=np.random.default_rng(0))
    frame, b = sparse_frame(A), np.ones(100_000)
    S = rpcls.CountSketch().sample(310, rng=0)
    rpcls.compress(frame[:100], b[:100], S)
    assert peak_of(lambda: rpcls.compress(frame, b, S)) < 30e6  # the array has 240 MB


# -- row blocks -------------------------------------------------------------------------------------


@every_table
def test_tables_in_row_blocks(table: Any) -> None:
    A, b, w = mixed()
    cuts = [(0, 200), (200, 201), (201, 500)]
    rows = rpcls.RowBlocks(lambda: ((table(A[i:j]), pd.Series(b[i:j]), pa.array(w[i:j])) for i, j in cuts), 3)
    plain = rpcls.RowBlocks(lambda: ((A[i:j], b[i:j], w[i:j]) for i, j in cuts), 3)
    found = rpcls.compress(rows, None, rng=0)
    assert found.columns == NAMES and equal(found, rpcls.compress(plain, None, rng=0))
    solution = rpcls.lstsq(rows, None)
    assert solution.columns == NAMES
    np.testing.assert_allclose(solution.x, rpcls.lstsq(A, b, sample_weight=w).x, rtol=1e-11)


def test_row_blocks_of_several_kinds() -> None:
    A, b, _ = mixed()
    kinds: list[Any] = [
        TABLES["frame"],
        TABLES["chunks"],
        lambda a: a.astype(">f8"),
        sp.csr_array,
        lambda a: a.tolist(),
    ]
    blocks = [(kind(A[100 * i : 100 * i + 100]), b[100 * i : 100 * i + 100]) for i, kind in enumerate(kinds)]
    found = rpcls.compress(iter(blocks), None, rng=0)
    np.testing.assert_allclose(found.SA, rpcls.compress(A, b, rng=0).SA, rtol=1e-12, atol=1e-12)
    assert found.columns == NAMES
    integers = A.astype(np.int32)
    rows = rpcls.RowBlocks(lambda: ((integers[i : i + 100], b[i : i + 100]) for i in range(0, 500, 100)), 3)
    np.testing.assert_allclose(rpcls.lstsq(rows, None).x, rpcls.lstsq(integers, b).x, rtol=1e-11)


@pytest.mark.parametrize("kind", ["frame", "table"])
def test_row_blocks_whose_names_change(kind: str) -> None:
    A, b, _ = mixed()
    first, second = TABLES[kind](A), pd.DataFrame(columns(A)).rename(columns={"age": "Age"})
    second = second if kind == "frame" else pa.Table.from_pandas(second)
    message = re.escape(
        f"row block 1 (from row 500): A must have the columns of the first block, {NAMES}, got ('Age', 'height', "
    )
    for rows in (iter([(first, b), (second, b)]), rpcls.RowBlocks(lambda: [(first, b), (second, b)], 3)):
        with pytest.raises(InvalidValueError, match=message):
            rpcls.compress(rows, None, rng=0)
    swapped = first[["height", "age", "is ill"]] if kind == "frame" else first.select(["height", "age", "is ill"])
    with pytest.raises(InvalidValueError, match=r"got \('height', 'age', 'is ill'\)"):
        rpcls.compress(iter([(first, b), (swapped, b)]), None, rng=0)
