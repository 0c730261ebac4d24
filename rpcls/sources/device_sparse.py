"""Rows in a sparse matrix on a card: sweeps cost what the stored entries cost, but for those by BLAS 3 and QR."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import InvalidTypeError, InvalidValueError, NonFiniteError
from ..kernels import on_card, on_host
from ..sketches import SRHT, CountSketch, SketchOperator, SparseSign
from ..sketches.base import Sums
from . import device
from .base import Rows, exponent_of_largest
from .device import DeviceSource, as_device_rhs, as_device_weight
from .sparse import is_sparse
from .sweeps import means_of

__all__ = ["CompressedRows", "DeviceSparseSource", "is_device_sparse"]

_ENTRIES = 1 << 24  # looked at a time


def is_device_sparse(A: Any) -> bool:
    """Whether A is a matrix of cupyx.scipy.sparse."""
    return is_sparse(A) and on_card(getattr(A, "data", None))


class CompressedRows:
    """Compressed sparse rows whose blocks, A[i:j], are dense; of the three arrays of a CSR matrix on a card."""

    def __init__(self, data: Any, indices: Any, indptr: Any, n: int) -> None:
        from ..kernels.cuda.sparse import Entries

        index = np.int64 if np.int64 in (indices.dtype, indptr.dtype) else np.int32
        self.shape, self.dtype, self.device = (len(indptr) - 1, n), data.dtype, data.device
        indices, indptr = (part.astype(index, copy=False) for part in (indices, indptr))
        self.entries = Entries(data, indices, indptr, self.shape)

    def rows_of(self, first: int, stop: int, row: int = 0, last: int | None = None) -> Any:
        """The rows, counted from `row`, of stored entries first..stop, all of them before row `last`."""
        from ..kernels.cuda.device import cupy

        ends = self.entries.indptr[row + 1 : None if last is None else last + 1]
        return cupy().searchsorted(ends, cupy().arange(first, stop, dtype=ends.dtype), side="right")

    def __getitem__(self, where: slice) -> Any:
        from ..kernels.cuda.device import cupy

        i, j, _ = where.indices(self.shape[0])
        data, indices, indptr, _ = self.entries
        first, stop = int(indptr[i]), int(indptr[j])
        out = cupy().zeros((j - i, self.shape[1]), self.dtype)
        if stop > first:
            out[self.rows_of(first, stop, i, j), indices[first:stop]] = data[first:stop]
        return out


class DeviceSparseSource(DeviceSource):
    """A (m, n) as a matrix of cupyx.scipy.sparse, b (m,) or (m, k) as a CuPy array, on one card.

    CSR of float32 or float64, sorted and without repeated entries, is used as it is; all else is copied once. Sweeps of
    `CountSketch` and `SparseSign`, `gradient` and `normal` cost what the stored entries cost; the others, and the other
    families, take dense blocks of some megabytes.
    """

    _triangle_bytes = 0  # they are made dense for it: the fewest

    def __init__(
        self, A: Any, b: Any, *, sample_weight: Any = None, row_offset: int = 0, intercept: bool = False, workers: int
    ) -> None:
        from ..kernels.cuda.device import on_device

        if A.ndim != 2 or A.shape[1] == 0:
            raise InvalidValueError(
                f"A must have two dimensions (m, n) and at least one column, got shape {tuple(A.shape)}"
            )
        if A.dtype not in (np.bool_, np.float32, np.float64):
            raise InvalidTypeError(
                f"A must hold float32, float64 or booleans, got sparse {A.dtype}; complex problems are not supported"
            )
        with on_device(A.data):
            rows = _canonical(A)
            self.A = CompressedRows(rows.data, rows.indices, rows.indptr, int(rows.shape[1]))
        self.dtype = np.dtype(self.A.dtype)
        self.b, self.rhs_shape = as_device_rhs(b, self.A, self.dtype)
        self.weight = as_device_weight(sample_weight, self.A)
        self.row_offset = row_offset
        self.n_columns = self.A.shape[1]
        self.intercept = intercept
        self.workers = workers

    @property
    def stored(self) -> int:
        return int(self.A.entries.data.size)

    def some_rows(self, count: int) -> None:
        return None

    def blocks(self) -> Iterator[Rows]:
        raise InvalidTypeError(
            "this needs the rows in host memory, and A is on a card; pass A.get() and cupy.asnumpy(b)"
        )

    def _blocks_for(self, S: SketchOperator) -> Iterator[Rows]:
        if isinstance(S.family, CountSketch | SparseSign):
            yield from super()._blocks_for(S)
            return
        if isinstance(S.family, SRHT):
            raise InvalidValueError(
                "SRHT() is one transform of all rows, and sparse rows on a card are made dense in blocks; use "
                "SparseSign(), which leaves them sparse"
            )
        step = self._most(self.A)
        for i in range(0, self.n_rows, step):
            here = slice(i, i + step)
            weight = None if self.weight is None else self.weight[here]
            yield Rows(self.row_offset + i, self.A[here], self.b[here], weight)

    def _sweep(self, S: SketchOperator, rows: Rows, scale: tuple[float, float] = (1.0, 1.0)) -> Sums:
        from ..kernels.cuda import sparse
        from ..kernels.cuda.device import on_device

        if rows.A is not self.A:
            return super()._sweep(S, rows, scale)
        k, family = self.n_rhs, S.family
        assert isinstance(family, CountSketch | SparseSign)
        with on_device(self.A):
            SA, side, sums, totals = sparse.compress(
                self.A.entries,
                self.b,
                self.weight,
                rows.start,
                S.key.value,
                S.sketch_size,
                family.nnz_per_column,
                scale,
            )
        Sb, S1 = side[:, :k].astype(self.dtype), side[:, k].copy()
        b1, bb, total = totals[:k], totals[k : 2 * k], float(totals[2 * k])
        return Sums(SA, Sb, S1, sums[:, 2:].copy(), sums[:, 0].copy(), sums[:, 1].copy(), b1, bb, total)

    def _exponent(self, name: str, part: Any) -> int:
        from ..kernels.cuda.device import on_device

        if part is not self.A:
            return super()._exponent(name, part)
        data, largest = self.A.entries.data, 0.0
        with on_device(self.A) as xp:
            for i in range(0, data.size, _ENTRIES):
                block = data[i : i + _ENTRIES].astype(np.float64)
                bad = ~xp.isfinite(block)
                if bool(bad.any()):
                    place = i + int(xp.argmax(bad))
                    row, column = int(self.A.rows_of(place, place + 1)[0]), int(self.A.entries.indices[place])
                    raise NonFiniteError(
                        f"{name} must be finite, got {float(data[place])} in row {self.row_offset + row}, column "
                        f"{column}; remove or impute such rows first"
                    )
                if self.weight is not None:
                    block = block * xp.sqrt(self.weight[self.A.rows_of(i, i + block.size)])
                largest = max(largest, float(xp.abs(block).max()))
        return exponent_of_largest(largest, self.dtype)

    def _ready_for_products(self) -> bool:
        return False

    def _most(self, part: Any) -> int:
        """Rows of it that are dense at a time."""
        return max(1, device._BLOCK_BYTES // (8 * part.shape[1]))

    def _float64(self, part: Any, step: int | None = None) -> Iterator[tuple[int, Any]]:
        step = min(step or self._most(part), self._most(part))
        for i in range(0, part.shape[0], step):
            yield i, part[i : i + step].astype(np.float64, copy=False)

    def _residual(self, X: Any, *, rhs: bool) -> tuple[Any, Any]:
        from ..kernels.cuda import sparse
        from ..kernels.cuda.device import on_device

        with on_device(self.A) as xp:
            means = means_of(self, X.shape[1], rhs)
            found = sparse.gradient(self.A.entries, self.b if rhs else None, self.weight, means, on_host(X))
            return (xp.asarray(found[0]), xp.asarray(found[1])) if on_card(X) else found

    def predict(self, X: np.ndarray) -> Any:
        from ..kernels.cuda.device import on_device

        step = self._most(self.A)
        with on_device(self.A) as xp:
            there = xp.asarray(self._as_x(X).astype(self.dtype))
            parts = [self.A[i : i + step] @ there for i in range(0, self.n_rows, step)]
            out = xp.concatenate(parts, axis=0) if parts else xp.zeros((0, self.n_rhs), self.dtype)
        return out if self.rhs_shape else out[:, 0]


def _canonical(A: Any) -> Any:
    """A, or a copy of it, in compressed sparse rows of floats, each with its columns sorted and distinct."""
    rows = A.tocsr()
    if rows.dtype == np.bool_:
        rows = rows.astype(np.float64)
    if not rows.has_canonical_format:
        rows = rows.copy()
        rows.sum_duplicates()
    return rows
