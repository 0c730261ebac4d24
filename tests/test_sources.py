"""Sources: the other sweeps against NumPy, what is read when, and every error of the data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from market import DTYPES, LAYOUTS, SOURCES, blocks_of

import rpcls
from rpcls.errors import InvalidTypeError, InvalidValueError, NonFiniteError, RpclsError, SourceError
from rpcls.sources import ArraySource, BlockSource, RowBlocks, source_of

every_source = pytest.mark.parametrize("kind", SOURCES)
every_dtype = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)


def data(m: int = 150, n: int = 6, k: int | None = None, dtype: Any = float, seed: int = 0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    A, b = rng.standard_normal((m, n)) + 1, rng.standard_normal((m, k or 1)) + 2
    return A.astype(dtype), (b if k else b[:, 0]).astype(dtype), rng.random(m)


def make(kind: str, A: np.ndarray, b: np.ndarray, w: np.ndarray | None = None, **options: Any) -> Any:
    rows, rhs, weight = SOURCES[kind](A, b, w)
    return source_of(rows, rhs, sample_weight=weight, **{"workers": 1, **options})


# -- sweeps -----------------------------------------------------------------------------------------


@every_source
@every_dtype
@pytest.mark.parametrize("k", [None, 1, 3])
def test_attributes(kind: str, dtype: type, k: int | None) -> None:
    A, b, _ = data(k=k, dtype=dtype)
    source = make(kind, A, b, intercept=True)
    assert source.dtype == dtype and source.n_columns == 6 and source.intercept is True
    assert source.rhs_shape == (() if k is None else (k,)) and source.n_rhs == (k or 1)
    assert source.shape == ((150, 6) if kind == "array" else (None, 6)) and source.columns is None
    rows = list(source.blocks())
    assert source.shape == (150, 6) and [r.start for r in rows] == list(np.cumsum([0] + [len(r.A) for r in rows[:-1]]))
    assert all(r.A.dtype == r.b.dtype == dtype and r.b.ndim == 2 for r in rows)
    for array in (rows[0].A, rows[0].b):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


@every_source
@every_dtype
@pytest.mark.parametrize("k", [None, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradient(kind: str, dtype: type, k: int | None, weighted: bool) -> None:
    A, b, w = data(k=k, dtype=dtype)
    X = np.random.default_rng(1).standard_normal((6,) if k is None else (6, k))
    squares, gradient = make(kind, A, b, w if weighted else None).gradient(X)
    wide, one = A.astype(np.longdouble), w if weighted else np.ones(150)
    r = b - wide @ X
    expected = wide.T @ (r.T * one).T
    assert np.shape(squares) == np.shape(np.sum(r * r, axis=0)) and gradient.shape == X.shape
    np.testing.assert_allclose(gradient, expected.astype(float), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(squares, np.sum((r.T**2 * one).T, axis=0).astype(float), rtol=1e-13)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradient_in_every_layout_with_any_number_of_threads(layout: str) -> None:
    A, b, w = data(m=9000, n=3)
    X = np.array([1.0, -1.0, 0.5])
    expected = make("array", A, b, w).gradient(X)
    r = b - A @ X
    np.testing.assert_allclose(expected[1], A.T @ (w * r), rtol=1e-12)
    assert expected[0] == pytest.approx(w @ r**2, rel=1e-12)
    for workers in (1, 3):
        got = make("array", LAYOUTS[layout](A), b, w, workers=workers).gradient(X)
        assert np.array_equal(got[1], expected[1]) and got[0] == expected[0]


@every_source
@every_dtype
@pytest.mark.parametrize("k", [None, 3])
def test_predict(kind: str, dtype: type, k: int | None) -> None:
    A, b, w = data(k=k, dtype=dtype)
    X = np.random.default_rng(1).standard_normal((6,) if k is None else (6, k))
    got = make(kind, A, b, w, intercept=True).predict(X)
    assert got.dtype == dtype and got.shape == b.shape
    np.testing.assert_allclose(got, A @ X, rtol=1e-5 if dtype == np.float32 else 1e-13, atol=1e-5)


@every_source
@every_dtype
@pytest.mark.parametrize("k", [None, 3])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("intercept", [False, True])
def test_triangle(kind: str, dtype: type, k: int | None, weighted: bool, intercept: bool) -> None:
    A, b, w = data(k=k, dtype=dtype)
    R, m = make(kind, A, b, w if weighted else None, intercept=intercept).triangle()
    columns = [np.ones((150, 1))] * intercept + [A.astype(float), b.reshape(150, -1).astype(float)]
    M = np.hstack(columns) * (np.sqrt(w)[:, None] if weighted else 1)
    assert m == 150 and R.dtype == np.float64 and R.shape == (M.shape[1],) * 2 and np.array_equal(R, np.triu(R))
    np.testing.assert_allclose(np.abs(R), np.abs(np.linalg.qr(M, mode="r")), rtol=1e-10, atol=1e-12)


@given(m=st.integers(0, 12), sizes=st.lists(st.integers(0, 4), min_size=1, max_size=5).filter(any))
def test_triangle_of_few_rows(m: int, sizes: list[int]) -> None:
    A, b, _ = data(m=m, n=4)
    rows = rpcls.RowBlocks(lambda: [(A[:0], b[:0]), *blocks_of(A, b, None, tuple(sizes))], 4)
    R, seen = source_of(rows, None, workers=1).triangle()
    M = np.hstack([A, b[:, None]])
    assert seen == m and len(R) <= 5
    np.testing.assert_allclose(R.T @ R, M.T @ M, atol=1e-12)


def test_triangle_of_more_rows_than_one_step_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    from rpcls.sources import base

    monkeypatch.setattr(base, "_TRIANGLE_BYTES", 1000)
    A, b, w = data(m=500)
    R, _ = make("array", A, b, w, intercept=True).triangle()
    M = np.sqrt(w)[:, None] * np.hstack([np.ones((500, 1)), A, b[:, None]])
    np.testing.assert_allclose(np.abs(R), np.abs(np.linalg.qr(M, mode="r")), rtol=1e-10)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("intercept", [False, True])
@every_dtype
def test_dense(weighted: bool, intercept: bool, dtype: type) -> None:
    A, b, w = data(k=2, dtype=dtype)
    weight = w if weighted else None
    got = make("array", A, b, weight, intercept=intercept).dense()
    one = w if weighted else np.ones(150)
    a_mean, b_mean = np.average(A.astype(float), axis=0, weights=one), np.average(b.astype(float), axis=0, weights=one)
    shift = (a_mean, b_mean) if intercept else (0, 0)
    for array, original, mean in zip(got[:2], (A, b), shift, strict=True):
        assert array.dtype == np.float64 and array.flags.f_contiguous and array.flags.writeable
        assert not np.shares_memory(array, original)
        np.testing.assert_allclose(array, np.sqrt(one)[:, None] * (original - mean), rtol=1e-12, atol=1e-13)
    if intercept:
        np.testing.assert_allclose(got[2][0], a_mean, rtol=1e-13)
        np.testing.assert_allclose(got[2][1], b_mean, rtol=1e-13)
    else:
        assert got[2] is None
    assert make("row blocks", A, b).dense() is None


@every_source
def test_no_rows(kind: str) -> None:
    A, b = np.empty((0, 4)), np.empty(0)
    if kind == "array":
        source = source_of(A, b, workers=1)
    else:
        blocks = [(A, b), (A, b)]
        source = source_of(
            rpcls.RowBlocks(lambda: blocks, 4) if kind == "row blocks" else iter(blocks), None, workers=1
        )
    c = source.compress(rpcls.SparseSign().sample(16, rng=0))
    assert c.shape == (0, 4) and c.intervals == () and c.weight == 0 and not c.SA.any()


def test_wrong_shape_of_x() -> None:
    A, b, _ = data(k=3)
    for X in (np.ones(6), np.ones((6, 2)), np.ones((5, 3))):
        with pytest.raises(InvalidValueError, match=r"X must have shape \(6, 3\), got \("):
            make("array", A, b).gradient(X)
    with pytest.raises(InvalidValueError, match=r"X must have shape \(6,\), got \(6, 1\)"):
        make("row blocks", A, b[:, 0]).predict(np.ones((6, 1)))


def test_non_finite_rows_in_the_direct_sweeps() -> None:
    A, b, w = data()
    A[140, 3] = np.nan
    message = "A must be finite, got nan in row 140, column 3; remove or impute such rows first"
    for kind in SOURCES:
        with pytest.raises(NonFiniteError, match=message):
            make(kind, A, b, w).triangle()
    with pytest.raises(NonFiniteError, match=message):
        make("array", A, b).dense()
    b[3] = np.inf
    with pytest.raises(NonFiniteError, match="b must be finite, got inf in row 3, column 0"):
        make("array", data()[0], b).dense()


def test_an_intercept_needs_weight() -> None:
    A, b, w = data()
    message = r"an intercept needs a positive total weight, got 0\.0"
    with pytest.raises(InvalidValueError, match=message):
        make("array", A, b, 0 * w, intercept=True).dense()
    with pytest.raises(InvalidValueError, match=message):
        make("array", A[:0], b[:0], intercept=True).dense()
    for kind in SOURCES:
        with pytest.raises(InvalidValueError, match=message):
            make(kind, A, b, 0 * w, intercept=True).triangle()
    assert not make("array", A, b, 0 * w).triangle()[0].any()


def test_finite_rows_that_overflow() -> None:
    A, b, w = data()
    rescale = pytest.raises(SourceError, match="a sweep over finite rows overflowed; rescale A or b")
    with pytest.warns(RuntimeWarning, match="overflow"), rescale:
        make("array", A * 1e300, b, w * 1e300).triangle()


# -- what is read, and when -------------------------------------------------------------------------


def test_row_blocks_are_made_once_a_sweep_and_the_first_block_is_not_made_twice() -> None:
    A, b, _ = data()
    calls, blocks = [], []

    def factory() -> Iterator[Any]:
        calls.append(1)
        for block in blocks_of(A, b, None, (40,)):
            blocks.append(1)
            yield block

    rows = RowBlocks(factory, 6)
    assert calls == [] and repr(rows) == f"RowBlocks({factory!r}, 6)"
    source = source_of(rows, None, workers=1)
    assert len(calls) == 1 and len(blocks) == 1
    source.gradient(np.ones(6))
    assert len(calls) == 1 and len(blocks) == 4 and source.shape == (150, 6)
    source.predict(np.ones(6))
    source.triangle()
    assert len(calls) == 3 and len(blocks) == 12


def test_row_blocks_may_be_a_list_and_blocks_lists_of_numbers() -> None:
    rows = RowBlocks(lambda: [[[[1, 2], [3, 4]], [1, 2]], ([[5.5, 6]], [True])], 2)
    R, m = source_of(rows, None, workers=1).triangle()
    M = np.array([[1, 2, 1], [3, 4, 2], [5.5, 6, 1]])
    assert m == 3
    np.testing.assert_allclose(R.T @ R, M.T @ M)


def test_a_plain_iterator_is_read_once_and_refused_by_name_after_that() -> None:
    A, b, _ = data()
    source = make("iterator", A, b)
    source.gradient(np.ones(6))
    again = (
        r"a plain iterator of row blocks can be read only once, and this call needs another sweep; pass "
        r"rpcls.RowBlocks\(lambda: make_iterator\(\), n_columns\) instead"
    )
    for sweep in (lambda: source.gradient(np.ones(6)), source.triangle, lambda: source.predict(np.ones(6))):
        with pytest.raises(SourceError, match=again):
            sweep()


def test_sweeps_that_see_different_rows() -> None:
    A, b, _ = data()
    lengths = iter([150, 150, 140])
    source = source_of(RowBlocks(lambda: blocks_of(A[: (m := next(lengths))], b[:m], None), 6), None, workers=1)
    source.triangle()
    source.triangle()
    with pytest.raises(
        SourceError,
        match="every sweep must see the same rows, but this one gave 140 and the one before 150; the factory of",
    ):
        source.triangle()


def test_a_factory_that_returns_the_same_iterator_is_noticed() -> None:
    A, b, _ = data()
    iterator = blocks_of(A, b, None)
    source = source_of(RowBlocks(lambda: iterator, 6), None, workers=1)
    source.triangle()
    with pytest.raises(
        SourceError, match="this one gave 0 and the one before 150; the factory of RowBlocks must return a fresh"
    ):
        source.triangle()


# -- errors of blocks -------------------------------------------------------------------------------


def after(*blocks: Any) -> RowBlocks:
    """One good block of 3 rows, then these."""
    return RowBlocks(lambda: iter([(np.ones((3, 2)), np.ones(3)), *blocks]), 2)


@pytest.mark.parametrize(
    ("block", "error", "message"),
    [
        ((np.ones((2, 3)), np.ones(2)), InvalidValueError, r"A must have n_columns = 2 columns, got shape \(2, 3\)"),
        ((np.ones((2, 2), np.float32), np.ones(2)), InvalidTypeError,
         "all blocks must have the dtype of the first, float64, got float32"),
        ((np.ones((2, 2)), np.ones((2, 1))), InvalidValueError,
         r"b must have trailing shape \(\) in every block, got \(1,\)"),
        ((np.ones((2, 2)), np.ones(3)), InvalidValueError,
         r"b must have shape \(m,\) or \(m, k\) with A's m = 2 rows, got \(3,\)"),
        ((np.ones((2, 2)) * 1j, np.ones(2)), InvalidTypeError,
         "A must hold float32, float64, integers or booleans, got complex"),
        ((np.ones((2, 2)), None), InvalidTypeError, "b must be given with an array A"),
        ((np.ones((2, 2)), np.ones(2), [1, -1]), InvalidValueError,
         r"sample_weight must be non-negative, got -1\.0 in row 1"),
        ((np.ones((2, 2)), np.ones(2), [np.nan, 1]), NonFiniteError, "sample_weight must be finite, got nan in row 0"),
        (np.ones((2, 2)), InvalidTypeError,
         r"a block must be \(A_block, b_block\) or \(A_block, b_block, weight_block\), got ndarray"),
        ((np.ones((2, 2)),), InvalidTypeError, r"a block must be .* got tuple of length 1"),
        (None, InvalidTypeError, r"a block must be .* got NoneType"),
    ],
)  # fmt: skip
def test_bad_blocks_are_named(block: Any, error: type[RpclsError], message: str) -> None:
    for number, rows in ((1, after(block)), (0, RowBlocks(lambda: iter([block]), 2))):
        if number == 0 and ("dtype of the first" in message or "trailing" in message):
            continue
        with pytest.raises(error, match=rf"row block {number} \(from row {3 * number}\): {message}"):
            rpcls.compress(rows, None, sketch_size=20, rng=0)


def test_a_reader_that_fails_is_named() -> None:
    def reader(good: int) -> Iterator[Any]:
        for _ in range(good):
            yield np.ones((3, 2)), np.ones(3)
        raise OSError("disk on fire")

    for good in (0, 2):
        message = rf"reading row block {good} \(from row {3 * good + 10}\) failed: OSError: disk on fire"
        for rows in (RowBlocks(lambda good=good: reader(good), 2), reader(good)):
            with pytest.raises(SourceError, match=message) as caught:
                rpcls.compress(rows, None, sketch_size=20, rng=0, row_offset=10)
            assert isinstance(caught.value.__cause__, OSError)


def test_a_factory_that_fails_is_named() -> None:
    def factory() -> Any:
        raise OSError("no such disk")

    with pytest.raises(SourceError, match="the factory of RowBlocks failed: OSError: no such disk"):
        rpcls.compress(RowBlocks(factory, 2), None)
    with pytest.raises(SourceError, match="the factory of RowBlocks failed: TypeError: 'int' object is not iterable"):
        rpcls.compress(RowBlocks(lambda: 5, 2), None)  # type: ignore[arg-type,return-value]


def test_no_blocks() -> None:
    for rows in (iter([]), RowBlocks(list, 3)):
        with pytest.raises(
            InvalidValueError, match="the iterator of row blocks must give at least one block, got none"
        ):
            rpcls.compress(rows, None)


def test_arguments_of_row_blocks() -> None:
    with pytest.raises(
        InvalidTypeError,
        match=r"RowBlocks needs a function that returns a fresh iterator, got list; wrap it: RowBlocks\(lambda",
    ):
        RowBlocks([], 3)  # type: ignore[arg-type]
    for value in (0, -1, 2.0, True, None):
        with pytest.raises(InvalidValueError, match=f"n_columns must be a positive int, got {value!r}"):
            RowBlocks(list, value)  # type: ignore[arg-type]
    assert RowBlocks(list, np.int64(3)).n_columns == 3


def test_arrays_beside_blocks() -> None:
    for rows, kind in ((RowBlocks(list, 3), "RowBlocks"), (iter([]), "an iterator of row blocks")):
        for name, options in (("b", {"b": np.ones(3)}), ("sample_weight", {"b": None, "sample_weight": np.ones(3)})):
            with pytest.raises(
                InvalidValueError,
                match=rf"{name} must be None when A is {kind}: each block brings its own, as \(A_block, b_block\)",
            ):
                rpcls.compress(rows, **options)


def test_what_kind_of_source() -> None:
    A, b, _ = data()
    assert isinstance(source_of(A, b, workers=1), ArraySource)
    assert isinstance(source_of(A.tolist(), b.tolist(), workers=1), ArraySource)
    assert isinstance(source_of(RowBlocks(lambda: blocks_of(A, b, None), 6), None, workers=1), BlockSource)
    assert isinstance(source_of(blocks_of(A, b, None), None, workers=1), BlockSource)
    with pytest.raises(
        InvalidTypeError, match=r"A must be an array or RowBlocks, got a function; use rpcls.RowBlocks\(A, n_c"
    ):
        source_of(lambda: None, None)


# -- errors of arrays -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("A", "error", "message"),
    [
        (np.ones(5), InvalidValueError,
         r"A must have two dimensions \(m, n\), got shape \(5,\); a single column is A\[:, None\]"),
        (np.ones((5, 1, 1)), InvalidValueError, r"A must have two dimensions \(m, n\), got shape \(5, 1, 1\)$"),
        (3.0, InvalidValueError, r"A must have two dimensions \(m, n\), got shape \(\)$"),
        (None, InvalidTypeError, "A must hold float32, float64, integers or booleans, got object"),
        (np.ones((5, 0)), InvalidValueError, r"A must have at least one column, got shape \(5, 0\)"),
        (np.ones((5, 2), np.float16), InvalidTypeError,
         r"A must hold float32, .*, got float16; convert it: A.astype\(numpy.float32\) or float64"),
        (np.ones((5, 2), np.longdouble), InvalidTypeError, r"got (float128|longdouble|float96); convert it: A.astype"),
        (np.ones((5, 2), complex), InvalidTypeError,
         "got complex128; complex problems are not supported; solve for real and imaginary parts"),
        (np.ones((5, 2), object), InvalidTypeError, r"got object; convert it: numpy.asarray\(A, dtype=float\)"),
        (np.full((5, 2), "1"), InvalidTypeError, "got <U1; convert A to numbers"),
        (np.zeros((5, 2), "M8[s]"), InvalidTypeError, r"got datetime64\[s\]; convert A to numbers"),
        ([[1, 2], [3]], InvalidTypeError, "A must be a rectangular array of numbers: setting an array element"),
    ],
)  # fmt: skip
def test_matrices_that_are_refused(A: Any, error: type[RpclsError], message: str) -> None:
    for call in (rpcls.compress, rpcls.lstsq):
        with pytest.raises(error, match=message):
            call(A, np.ones(5))


@pytest.mark.parametrize(
    ("b", "error", "message"),
    [
        (None, InvalidTypeError,
         r"b must be given with an array A; it is None only for an iterator of \(A, b\) blocks"),
        (np.ones(4), InvalidValueError, r"b must have shape \(m,\) or \(m, k\) with A's m = 5 rows, got \(4,\)"),
        (np.ones((1, 5)), InvalidValueError, r"b must have shape \(m,\) or \(m, k\) with A's m = 5 rows, got \(1, 5\)"),
        (np.ones((5, 1, 1)), InvalidValueError, r"with A's m = 5 rows, got \(5, 1, 1\)"),
        (1.0, InvalidValueError, r"with A's m = 5 rows, got \(\)"),
        (np.ones((5, 0)), InvalidValueError, r"b must have at least one column, got shape \(5, 0\)"),
        (np.ones(5, np.float16), InvalidTypeError,
         r"b must hold float32, .* got float16; convert it: b.astype\(numpy.float32\)"),
        (np.ones(5, complex), InvalidTypeError,
         r"b must hold float32, .* got complex128; complex problems are not supported"),
        (["a"] * 5, InvalidTypeError, "b must hold float32, .* got <U1; convert b to numbers"),
    ],
)  # fmt: skip
def test_right_hand_sides_that_are_refused(b: Any, error: type[RpclsError], message: str) -> None:
    for call in (rpcls.compress, rpcls.lstsq):
        with pytest.raises(error, match=message):
            call(np.ones((5, 2)), b)


@pytest.mark.parametrize(
    ("w", "error", "message"),
    [
        (np.ones(4), InvalidValueError, r"sample_weight must have shape \(m,\) = \(5,\), got \(4,\)"),
        (np.ones((5, 1)), InvalidValueError, r"sample_weight must have shape \(m,\) = \(5,\), got \(5, 1\)"),
        (2.0, InvalidValueError, r"sample_weight must have shape \(m,\) = \(5,\), got \(\)"),
        ([1, 1, np.nan, np.inf, 1], NonFiniteError, "sample_weight must be finite, got nan in row 2"),
        ([1, 1, 1, np.inf, 1], NonFiniteError, "sample_weight must be finite, got inf in row 3"),
        ([1, -1e-300, 1, 1, 0], InvalidValueError, r"sample_weight must be non-negative, got -1e-300 in row 1"),
        (np.ones(5, complex), InvalidTypeError, "sample_weight must hold float32, .* got complex128"),
    ],
)  # fmt: skip
def test_weights_that_are_refused(w: Any, error: type[RpclsError], message: str) -> None:
    for call in (rpcls.compress, rpcls.lstsq):
        with pytest.raises(error, match=message):
            call(np.ones((5, 2)), np.ones(5), sample_weight=w)


@pytest.mark.parametrize("largest", [1e-60, 1e60])
def test_b_that_does_not_fit_the_dtype_of_a(largest: float) -> None:
    A = np.ones((5, 2), np.float32)
    with pytest.raises(
        InvalidValueError,
        match=r"b is used in A's dtype float32, which cannot hold its largest entry 1e[+-]60; rescale b, or conv",
    ):
        rpcls.compress(A, np.array([0, 0, largest, 0, 0]))
    assert rpcls.compress(A, np.array([1e-60, 1, 0, 0, 0]), rng=0).btb == 1
    assert rpcls.compress(A, np.zeros(5), rng=0).btb == 0
    with pytest.raises(NonFiniteError, match="b must be finite, got nan in row 0"):
        rpcls.compress(A, np.array([np.nan, largest, 1, 1, 1]))
    rpcls.compress(A.astype(float), np.full(5, largest))


def test_arrays_of_other_libraries_are_refused_by_name() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(InvalidTypeError, match=r"b must be dense, got csr_array; b.toarray\(\) makes it so"):
        rpcls.lstsq(np.eye(3), sparse.csr_array(np.eye(3)))

    class Tensor:
        pass

    Tensor.__module__ = "torch"
    with pytest.raises(
        InvalidTypeError, match=r"A must be a NumPy array, got torch.Tensor; convert it first, for example with"
    ):
        rpcls.lstsq(Tensor(), np.ones(3))


def test_column_names_of_data_frames() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"height": [1.0, 2, 3, 4], 7: [1.0, 0, 1, 0]})
    b = pandas.Series([1.0, 2, 2, 4])
    assert source_of(frame, b, workers=1).columns == ("height", "7")
    assert source_of(iter([(frame, b)]), None, workers=1).columns == ("height", "7")
    assert source_of(frame, pandas.DataFrame({"y": b, "z": b}), workers=1).rhs_shape == (2,)
    assert rpcls.compress(frame, b, rng=0).columns == ("height", "7")
