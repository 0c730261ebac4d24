"""Tables of pandas and Arrow, recognised without importing either: numbers by column, names kept, nulls refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..errors import InvalidTypeError, NonFiniteError

__all__ = ["Converted", "column_names", "plain"]


class Converted(NamedTuple):
    """A matrix whose rows become float32 or float64 a few at a time, so that no second matrix is ever held."""

    shape: tuple[int, ...]
    dtype: np.dtype
    take: Callable[[int, int], np.ndarray]  # rows i..j as an array of that dtype


def plain(value: Any, name: str) -> Any:
    """What a table or column of pandas or Arrow holds, as `Converted`, an array or (A only) a SciPy sparse matrix.

    Anything else is returned as it is.
    """
    if _is(value, "pandas", "DataFrame"):
        return _of_frame(value, name)
    if _is(value, "pandas", "Series"):
        return _of_series(value, name)
    if _is_arrow_table(value):
        return _of_arrow_table(value, name)
    if _is(value, "pyarrow", "Array", "ChunkedArray"):
        _check(name, _arrow_dtype(value.type), value.type, lambda: value.null_count, "drop_null and fill_null")
        return value.to_numpy(zero_copy_only=False)
    return value


def column_names(A: Any) -> tuple[str, ...] | None:
    """The names of the columns of a table, or of a data frame of another library; None for anything else."""
    if _is_arrow_table(A):
        return tuple(A.schema.names)
    names = getattr(A, "columns", None)
    return None if names is None or not hasattr(A, "shape") else tuple(str(name) for name in names)


def _is(value: Any, library: str, *classes: str) -> bool:
    """Whether value is one of these classes; nothing is, of a library that nobody has imported."""
    module = sys.modules.get(library)
    return module is not None and isinstance(value, tuple(getattr(module, c) for c in classes if hasattr(module, c)))


def _is_arrow_table(value: Any) -> bool:
    return _is(value, "pyarrow", "Table", "RecordBatch")


def _check(label: str, dtype: np.dtype | None, given: Any, nulls: Callable[[], Any], verbs: str) -> np.dtype:
    """The dtype in native byte order, if it is one of numbers and nothing is missing."""
    native = None if dtype is None or dtype.kind not in "biuf" else dtype.newbyteorder("=")
    if native is None or (native.kind == "f" and native not in (np.float32, np.float64)):
        raise InvalidTypeError(
            f"{label} must hold float32, float64, integers or booleans, got {given}; convert it to one of them, or "
            "leave it out"
        )
    missing = int(nulls())
    if missing:
        raise NonFiniteError(
            f"{label} must have no nulls, got {missing}; remove those rows from A and b alike, or impute them ({verbs})"
        )
    return native


def _common(dtypes: list[np.dtype]) -> np.dtype:
    """float32 if all columns are, else float64."""
    return np.dtype(np.float32 if dtypes and all(d == np.float32 for d in dtypes) else np.float64)


# -- pandas -------------------------------------------------------------------------------------------------------


def _pandas_dtype(dtype: Any) -> np.dtype | None:
    """The NumPy dtype of the numbers in a column, nullable, sparse and Arrow-backed ones included."""
    if isinstance(dtype, np.dtype) or getattr(dtype, "kind", "O") not in "biuf":
        return dtype if isinstance(dtype, np.dtype) else None
    inner = getattr(dtype, "subtype", None) if _is_sparse(dtype) else getattr(dtype, "numpy_dtype", None)
    return inner if isinstance(inner, np.dtype) else None


def _is_sparse(dtype: Any) -> bool:
    return hasattr(dtype, "subtype") and hasattr(dtype, "fill_value")


def _check_series(series: Any, label: str) -> np.dtype:
    dtype = series.dtype
    # elsewhere nulls are NaN: the sweep's to find
    keeps_nulls = not isinstance(dtype, np.dtype) and not _is_sparse(dtype)
    return _check(
        label, _pandas_dtype(dtype), dtype, lambda: series.isna().sum() if keeps_nulls else 0, "dropna and fillna"
    )


def _of_frame(frame: Any, name: str) -> Any:
    labels = [f"column {str(column)!r} of {name}" for column in frame.columns]
    dtype = _common([_check_series(frame.iloc[:, k], label) for k, label in enumerate(labels)])
    given, n = list(frame.dtypes), len(labels)
    if n and name == "A" and all(_is_sparse(d) and d.fill_value == 0 for d in given):
        return frame.astype(type(given[0])(dtype, 0)).sparse.to_coo()  # by itself it refuses booleans beside numbers
    head = frame.iloc[:1]
    if n and all(d == dtype for d in given) and np.may_share_memory(head.to_numpy(), head.iloc[:, 0].to_numpy()):
        return frame.to_numpy()  # one array already, and this is a view of it
    return Converted((len(frame), n), dtype, lambda i, j: frame.iloc[i:j].to_numpy(dtype=dtype))


def _of_series(series: Any, name: str) -> Any:
    if isinstance(series.dtype, np.dtype):
        return series.to_numpy()
    return series.to_numpy(dtype=_common([_check_series(series, name)]))


# -- Arrow --------------------------------------------------------------------------------------------------------


def _arrow_dtype(kind: Any) -> np.dtype | None:
    try:
        return np.dtype(kind.to_pandas_dtype())
    except (NotImplementedError, TypeError):  # dictionaries; types of extensions
        return None


def _of_arrow_table(table: Any, name: str) -> Converted:
    n, kinds = table.num_columns, table.schema.types
    dtype = _common(
        [
            _check(
                f"column {table.schema.names[k]!r} of {name}", _arrow_dtype(kinds[k]), kinds[k],
                lambda k=k: table.column(k).null_count, "drop_null and fill_null",
            )
            for k in range(n)
        ]
    )  # fmt: skip

    def take(i: int, j: int) -> np.ndarray:
        part, out = table.slice(i, j - i), np.empty((n, j - i), dtype)
        for k in range(n):
            out[k] = part.column(k).to_numpy(zero_copy_only=False)
        return out.T

    return Converted((table.num_rows, n), dtype, take)
