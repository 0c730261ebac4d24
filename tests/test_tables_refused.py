"""Tables whose columns hold nulls or no numbers are refused, and the message names the column."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from table_kinds import NAMES, TABLES, every_table, mixed, sparse_frame

import rpcls
from rpcls.errors import InvalidTypeError, InvalidValueError, NonFiniteError, RpclsError


def with_null(kind: str) -> Any:
    """A table of 4 rows whose column "x" misses its second number."""
    if kind.startswith("pyarrow"):
        return pa.table({"y": [1.0, 2, 3, 4], "x": pa.array([1, None, 3, 4], kind.removeprefix("pyarrow."))})
    values: list[Any] = [True, None, False, True] if "bool" in kind else [1, None, 3, 4]
    return pd.DataFrame({"y": [1.0, 2, 3, 4], "x": pd.array(values, dtype=kind)})


@pytest.mark.parametrize("kind", ["Int64", "UInt8", "Float64", "Float32", "boolean", "int64[pyarrow]",
                                  "bool[pyarrow]", "pyarrow.int32", "pyarrow.double"])  # fmt: skip
def test_nulls_are_refused_by_column(kind: str) -> None:
    table = with_null(kind)
    verbs = "drop_null and fill_null" if kind.startswith("pyarrow") else "dropna and fillna"
    rest = rf"must have no nulls, got 1; remove those rows from A and b alike, or impute them \({verbs}\)"
    for call in (rpcls.compress, rpcls.lstsq):
        with pytest.raises(NonFiniteError, match=f"column 'x' of A {rest}"):
            call(table, np.ones(4))
    with pytest.raises(NonFiniteError, match=f"column 'x' of b {rest}"):
        rpcls.compress(np.ones((4, 1)), table)
    column = table["x"]
    with pytest.raises(NonFiniteError, match=f"^b {rest}"):
        rpcls.compress(np.ones((4, 1)), column)
    with pytest.raises(NonFiniteError, match=f"^sample_weight {rest}"):
        rpcls.compress(np.ones((4, 1)), np.ones(4), sample_weight=column)
    with pytest.raises(NonFiniteError, match=rf"row block 1 \(from row 4\): column 'x' of A {rest}"):
        rpcls.compress(iter([(np.ones((4, 2)), np.ones(4)), (table, np.ones(4))]), None)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (pd.Series([1, "a", 2.0], dtype=object), "object"),
        (pd.Series(["a", "b", "c"]), "str(ing)?"),
        (pd.Series(["a", "b", "a"], dtype="category"), "category"),
        (pd.Series([1, 2, 3], dtype="category"), "category"),
        (pd.Series(pd.date_range("2020", periods=3)), r"datetime64\[.s\]"),
        (pd.Series(pd.date_range("2020", periods=3, tz="UTC")), r"datetime64\[.s, UTC\]"),
        (pd.Series([1, 2, 3], dtype="timedelta64[s]"), r"timedelta64\[s\]"),
        (pd.Series([1, 2, 3], dtype=np.float16), "float16"),
        (pd.Series([1j, 2, 3]), "complex128"),
        (pd.Series(["a", "b", "c"], dtype="string[pyarrow]"), "string"),
        (pd.Series(pd.arrays.SparseArray([1j, 0, 0])), r"Sparse\[complex128, .*\]"),
        (pa.array(["a", "b", "c"]), "string"),
        (pa.array(["a", "b", "a"]).dictionary_encode(), "dictionary<.*>"),
        (pa.array([1.0, 2, 3]).dictionary_encode(), "dictionary<.*>"),
        (pa.array([1, 2, 3], pa.timestamp("s")), r"timestamp\[s\]"),
        (pa.array([1, 2, 3], pa.decimal128(5)), r"decimal128\(5, 0\)"),
        (pa.array([[1], [2], [3]]), "list<.*>"),
        (pa.array([None, None, None]), "null"),
        (pa.array(np.ones(3, np.float16)), "halffloat"),
        (pa.array([1, 2, 3], pa.date32()), r"date32\[day\]"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_columns_that_hold_no_numbers_are_refused_by_name(values: Any, told: str) -> None:
    frame = isinstance(values, pd.Series)
    table: Any = pd.DataFrame({"x": [1.0, 2, 3], "w": values}) if frame else pa.table({"x": [1.0, 2, 3], "w": values})
    rest = f"must hold float32, float64, integers or booleans, got {told}; "
    for call in (rpcls.compress, rpcls.lstsq):
        with pytest.raises(InvalidTypeError, match=f"column 'w' of A {rest}convert it to one of them, or leave it out"):
            call(table, np.ones(3))
    with pytest.raises(InvalidTypeError, match=f"column 'w' of b {rest}"):
        rpcls.compress(np.ones((3, 1)), table)
    for name, options in (("b", {"b": values}), ("sample_weight", {"b": np.ones(3), "sample_weight": values})):
        with pytest.raises(InvalidTypeError, match=f"^{name} {rest}"):
            rpcls.compress(np.ones((3, 1)), **options)


@every_table
def test_nan_is_named_by_row_and_column(table: Any) -> None:
    A, b, _ = mixed()
    A[432, 1] = np.inf
    for call in (rpcls.compress, rpcls.lstsq):
        with pytest.raises(
            NonFiniteError, match=r"A must be finite, got inf in row 432, column 1 \('height'\); remove"
        ):
            call(table(A), b)


def test_nan_in_frames_without_nulls() -> None:
    A, b, _ = mixed()
    A[432, 1] = np.nan
    message = r"A must be finite, got nan in row 432, column 1 \('height'\); remove or impute such rows first"
    for given in (pd.DataFrame(A, columns=list(NAMES)), TABLES["table"](A), sparse_frame(A, list(NAMES))):
        for call in (rpcls.compress, rpcls.lstsq):
            with pytest.raises(NonFiniteError, match=message):
                call(given, b)


@pytest.mark.parametrize(
    ("A", "b", "error", "message"),
    [
        (pd.DataFrame(index=range(5)), np.ones(5), InvalidValueError, r"at least one column, got shape \(5, 0\)"),
        (pa.table({}), np.ones(5), InvalidValueError, r"A must have at least one column, got shape \(0, 0\)"),
        (pd.Series(np.ones(5)), np.ones(5), InvalidValueError, r"got shape \(5,\); a single column is A\[:, None\]"),
        (pa.array(np.ones(5)), np.ones(5), InvalidValueError, r"got shape \(5,\); a single column is A\[:, None\]"),
        (pd.DataFrame(np.ones((5, 2))), pd.Series(np.ones(4)), InvalidValueError,
         r"b must have shape \(m,\) or \(m, k\) with A's m = 5 rows, got \(4,\)"),
        (pa.table({"x": np.ones(5)}), pa.array(np.ones(6)), InvalidValueError, r"A's m = 5 rows, got \(6,\)"),
        (pd.DataFrame(np.ones((5, 2))), None, InvalidTypeError, "b must be given with an array A"),
    ],
)  # fmt: skip
def test_wrong_shapes(A: Any, b: Any, error: type[RpclsError], message: str) -> None:
    for call in (rpcls.compress, rpcls.lstsq):
        with pytest.raises(error, match=message):
            call(A, b)
