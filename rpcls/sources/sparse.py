"""Rows in a SciPy sparse matrix: every sweep costs what the stored entries cost, and nothing is densified."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import InvalidTypeError, InvalidValueError
from ..sketches.base import read_only
from .array import as_matrix, as_rhs, as_weight
from .base import Rows, Source
from .tables import plain

__all__ = ["SparseSource", "as_rows", "is_sparse"]


def is_sparse(A: Any) -> bool:
    """Whether A is a SciPy sparse array or matrix, told without importing SciPy."""
    return hasattr(A, "tocsr") and hasattr(A, "nnz")


def as_rows(A: Any) -> Any:
    """A block of rows as CSR if it is sparse, else as an array."""
    A = plain(A, "A")
    if is_sparse(A):
        return _as_csr(A)
    matrix = as_matrix(A)
    return matrix if isinstance(matrix, np.ndarray) else read_only(matrix.take(0, matrix.shape[0]))


class SparseSource(Source):
    """A (m, n) as any scipy.sparse array or matrix, b (m,) or (m, k) dense.

    CSR without repeated entries is used as it is; other forms are converted once, at the cost of a copy. float32 and
    float64 are kept, integers and booleans become float64.
    """

    def __init__(
        self, A: Any, b: Any, *, sample_weight: Any = None, row_offset: int = 0, intercept: bool = False, workers: int
    ) -> None:
        self.A = _as_csr(A)
        self.b, self.rhs_shape = as_rhs(b, self.A.shape, self.A.dtype)
        self.weight = as_weight(sample_weight, self.A.shape[0])
        self.row_offset = row_offset
        self.n_columns = self.A.shape[1]
        self.dtype = self.A.dtype
        self.intercept = intercept
        self.workers = workers

    @property
    def n_rows(self) -> int:
        return self.A.shape[0]

    @property
    def stored(self) -> int:
        return int(self.A.nnz)

    def transposed(self, b: np.ndarray | None) -> SparseSource | None:
        if self.weight is not None or self.intercept:
            return None
        b = np.zeros((self.n_columns, self.n_rhs)) if b is None else b
        return SparseSource(self.A.T, b, workers=self.workers)

    def right_hand_sides(self) -> np.ndarray:
        return self.b.astype(np.float64)

    def blocks(self) -> Iterator[Rows]:
        yield Rows(self.row_offset, self.A, self.b, self.weight, self.columns)


def _as_csr(A: Any) -> Any:
    from scipy.sparse import csr_array

    if A.ndim != 2 or A.shape[1] == 0:
        raise InvalidValueError(f"A must have two dimensions (m, n) and at least one column, got shape {A.shape}")
    dtype = np.dtype(A.dtype)
    if dtype.kind in "biu":
        dtype = np.dtype(np.float64)
    elif dtype not in (np.float32, np.float64):
        hint = "complex problems are not supported" if dtype.kind == "c" else "convert it: A.astype(float)"
        raise InvalidTypeError(f"A must hold float32, float64, integers or booleans, got sparse {dtype}; {hint}")
    given = A.tocsr()
    rows = csr_array((given.data.astype(dtype, copy=False), given.indices, given.indptr), shape=A.shape)
    if not rows.has_canonical_format:
        rows = rows.copy()
        rows.sum_duplicates()
    return rows
