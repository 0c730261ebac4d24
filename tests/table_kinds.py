"""The same matrix in tables of pandas and Arrow of every kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse as sp

import rpcls

FIELDS = ("SA", "Sb", "S1", "Atb", "btb", "column_norms", "column_sums", "b_sum", "weight")
NAMES = ("age", "height", "is ill")


def mixed(m: int = 500) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A of integers, numbers and zeros and ones; b; weights."""
    rng = np.random.default_rng(0)
    A = np.column_stack([rng.integers(0, 99, m), rng.standard_normal(m), rng.random(m) < 0.3]).astype(float)
    return A, A @ [1, 2, 3] + rng.standard_normal(m), rng.random(m)


def columns(A: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(NAMES, (A[:, 0].astype(np.int16), A[:, 1], A[:, 2] > 0), strict=True))


def chunked(table: pa.Table, size: int = 33) -> pa.Table:
    """The same columns, in pieces."""
    return pa.Table.from_batches(table.to_batches(max_chunksize=size), table.schema)


# mixed()'s A in tables of every kind
TABLES: dict[str, Callable[[np.ndarray], Any]] = {
    "frame": lambda A: pd.DataFrame(columns(A)),
    "frame, nullable": lambda A: pd.DataFrame(columns(A)).convert_dtypes(),
    "frame, nullable and not": lambda A: pd.DataFrame(columns(A)).astype({"age": "Int64"}),
    "frame, Arrow dtypes": lambda A: pd.DataFrame(columns(A)).convert_dtypes(dtype_backend="pyarrow"),
    "frame, partly sparse": lambda A: pd.DataFrame(columns(A)).astype({"is ill": pd.SparseDtype(bool, False)}),
    "frame, other fill values": lambda A: pd.DataFrame(columns(A)).astype(float).astype(pd.SparseDtype(float, 1.0)),
    "frame, columns of a wider one": lambda A: pd.DataFrame({"first": 1, **columns(A), "text": "a"})[list(NAMES)],
    "frame, index": lambda A: pd.DataFrame(columns(A), index=np.random.default_rng(1).permutation(len(A)) // 2),
    "table": lambda A: pa.table(columns(A)),
    "batch": lambda A: pa.record_batch(columns(A)),
    "chunks": lambda A: chunked(pa.table(columns(A))),
    "slice": lambda A: pa.table(columns(np.vstack([A, A])))[len(A) :],
}

every_table = pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)


def equal(found: rpcls.CompressedProblem, expected: rpcls.CompressedProblem) -> bool:
    return all(np.array_equal(getattr(found, name), getattr(expected, name)) for name in FIELDS)


def sparse_frame(A: Any, names: list[str] | None = None) -> pd.DataFrame:
    return pd.DataFrame.sparse.from_spmatrix(sp.csc_array(A), columns=names)
