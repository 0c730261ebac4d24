"""Rows in one array or table: float32 and float64 are never copied, other numbers are converted block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..errors import InvalidTypeError, InvalidValueError, NonFiniteError
from ..kernels import on_card
from ..linalg import rank_tolerance
from ..sketches.base import SketchOperator, read_only
from .base import Rows, Source, check_total, raise_non_finite, rows_of_triangle
from .tables import Converted, plain

__all__ = ["ArraySource", "as_matrix", "as_rhs", "as_weight"]

_BLOCK_BYTES = 8 << 20  # of rows converted at a time, at least
_BLOCK_ROWS = 2048  # likewise; blocks of Hadamard transforms begin at its multiples


class ArraySource(Source):
    """A (m, n) and b (m,) or (m, k) as arrays or tables.

    Parameters
    ----------
    A, b : array_like, pandas or Arrow table
        float32 and float64 are used as they are, in any memory order. Integers, booleans, floats of the other byte
        order, and tables whose columns are not one array already, become float64 (float32 if all are) a block of rows
        at a time, anew in every sweep. b is converted to A's dtype, whole.
    sample_weight : (m,) array_like, optional
        Non-negative, finite.
    row_offset : int, default 0
        Index of the first row in the whole problem.
    """

    def __init__(
        self, A: Any, b: Any, *, sample_weight: Any = None, row_offset: int = 0, intercept: bool = False, workers: int
    ) -> None:
        self.A = as_matrix(A)
        self.b, self.rhs_shape = as_rhs(b, self.A.shape, self.A.dtype)
        self.weight = as_weight(sample_weight, self.A.shape[0])
        self.row_offset = row_offset
        self.n_columns = self.A.shape[1]
        self.dtype = self.A.dtype
        self.intercept = intercept
        self.workers = workers
        self._mapped = isinstance(A, np.memmap)

    @property
    def n_rows(self) -> int:
        return self.A.shape[0]

    def some_rows(self, count: int) -> np.ndarray | None:
        if not isinstance(self.A, np.ndarray) or self.n_rows < 2 * count:
            return None
        return np.array(self.A[:: self.n_rows // count], np.float64)

    def transposed(self, b: np.ndarray | None) -> ArraySource | None:
        if not isinstance(self.A, np.ndarray) or self._mapped or self.weight is not None or self.intercept:
            return None
        b = np.zeros((self.n_columns, self.n_rhs)) if b is None else b
        return ArraySource(self.A.T, b, workers=self.workers)

    def right_hand_sides(self) -> np.ndarray:
        return self.b.astype(np.float64)

    def blocks(self) -> Iterator[Rows]:
        step = rows_of_triangle(int(self.intercept) + self.n_columns + self.n_rhs)
        return self._blocks(step * max(1, _BLOCK_BYTES // (8 * self.n_columns * step)))

    def _blocks_for(self, S: SketchOperator) -> Iterator[Rows]:
        least = max(S.sketch_size, _BLOCK_ROWS, _BLOCK_BYTES // (8 * self.n_columns))
        return self._blocks(1 << (least - 1).bit_length())

    def _blocks(self, count: int) -> Iterator[Rows]:
        if isinstance(self.A, np.ndarray):
            yield Rows(self.row_offset, self.A, self.b, self.weight, self.columns)
            return
        for i in range(0, self.n_rows, count):
            j = min(i + count, self.n_rows)
            weight = None if self.weight is None else self.weight[i:j]
            yield Rows(self.row_offset + i, read_only(self.A.take(i, j)), self.b[i:j], weight, self.columns)

    def dense(self) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray] | None] | None:
        if not isinstance(self.A, np.ndarray) or self._mapped:
            return None
        A, b = np.array(self.A, np.float64, order="F"), np.array(self.b, np.float64, order="F")
        if not (np.isfinite(A).all() and np.isfinite(b).all()):
            raise_non_finite(Rows(self.row_offset, self.A, self.b, None, self.columns))
        means = None
        if self.intercept:
            weight = self.weight
            check_total(float(len(A) if weight is None else weight.sum()))
            means = np.average(A, axis=0, weights=weight), np.average(b, axis=0, weights=weight)
            A -= means[0]
            b -= means[1]
            rounded = rank_tolerance(self.dtype) * np.abs(means[0])
            for column, size in zip(A.T, rounded, strict=True):
                if max(column.max(initial=0.0), -column.min(initial=0.0)) <= size:
                    column[:] = 0.0  # it was constant: only the mean's rounding error is left
        if self.weight is not None:
            root = np.sqrt(self.weight)[:, None]
            A *= root
            b *= root
        return A, b, means


def _numbers(value: Any, name: str) -> tuple[Any, np.dtype]:
    """An array, or a `Converted` table, and the dtype that its numbers are used in: float32 or float64."""
    value = plain(value, name)
    if isinstance(value, Converted):
        return value, value.dtype
    if on_card(value) or type(value).__module__.partition(".")[0] in ("torch", "jax", "dask"):
        where = " (A is in host memory)" if name != "A" else ""
        how = "cupy.asnumpy" if on_card(value) else "numpy.asarray"
        raise InvalidTypeError(
            f"{name} must be a NumPy array{where}, got {type(value).__module__}.{type(value).__name__}; convert it "
            f"first, for example with {how}"
        )
    if hasattr(value, "toarray") and hasattr(value, "nnz"):
        raise InvalidTypeError(f"{name} must be dense, got {type(value).__name__}; {name}.toarray() makes it so")
    if isinstance(value, np.ma.MaskedArray):
        raise InvalidTypeError(f"{name} must have no masked entries, got a masked array; {name}.filled(…) makes it so")
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InvalidTypeError(f"{name} must be a rectangular array of numbers: {error}") from error
    if array.dtype.kind in "biu":
        return array, np.dtype(np.float64)
    dtype = array.dtype.newbyteorder("=")
    if dtype not in (np.float32, np.float64):
        hint = {
            "c": "complex problems are not supported; solve for real and imaginary parts",
            "f": f"convert it: {name}.astype(numpy.float32) or float64",
            "O": f"convert it: numpy.asarray({name}, dtype=float)",
        }.get(array.dtype.kind, f"convert {name} to numbers")
        raise InvalidTypeError(f"{name} must hold float32, float64, integers or booleans, got {array.dtype}; {hint}")
    return array, dtype


def _as_float(value: Any, name: str) -> np.ndarray:
    """float32 or float64, whole."""
    numbers, dtype = _numbers(value, name)
    return numbers.take(0, numbers.shape[0]) if isinstance(numbers, Converted) else numbers.astype(dtype, copy=False)


def as_matrix(A: Any) -> np.ndarray | Converted:
    """A as a float32 or float64 matrix, without a copy where it is one; otherwise still to be converted."""
    matrix, dtype = _numbers(A, "A")
    if len(matrix.shape) != 2:
        hint = "; a single column is A[:, None]" if len(matrix.shape) == 1 else ""
        raise InvalidValueError(f"A must have two dimensions (m, n), got shape {matrix.shape}{hint}")
    if matrix.shape[1] == 0:
        raise InvalidValueError(f"A must have at least one column, got shape {matrix.shape}")
    if isinstance(matrix, Converted):
        return matrix
    return read_only(matrix) if matrix.dtype == dtype else Converted(matrix.shape, dtype, _taker(matrix, dtype))


def _taker(matrix: np.ndarray, dtype: np.dtype) -> Callable[[int, int], np.ndarray]:
    return lambda i, j: matrix[i:j].astype(dtype)


def as_rhs(b: Any, shape: tuple[int, ...], dtype: np.dtype) -> tuple[np.ndarray, tuple[int, ...]]:
    """b as (m, k) in A's dtype, and its trailing shape: () or (k,)."""
    if b is None:
        raise InvalidTypeError("b must be given with an array A; it is None only for an iterator of (A, b) blocks")
    rhs = _as_float(b, "b")
    if rhs.ndim not in (1, 2) or rhs.shape[0] != shape[0]:
        raise InvalidValueError(f"b must have shape (m,) or (m, k) with A's m = {shape[0]} rows, got {rhs.shape}")
    if rhs.ndim == 2 and rhs.shape[1] == 0:
        raise InvalidValueError(f"b must have at least one column, got shape {rhs.shape}")
    trailing = rhs.shape[1:]
    if rhs.dtype != dtype:
        largest, least, most = (
            float(v) for v in (np.abs(rhs).max(initial=0.0), np.finfo(dtype).tiny, np.finfo(dtype).max)
        )
        if np.isfinite(largest) and largest > 0 and not least <= largest <= most:
            raise InvalidValueError(
                f"b is used in A's dtype {dtype}, which cannot hold its largest entry {largest:.3g}; rescale b, or "
                "convert A to float64"
            )
        with np.errstate(over="ignore"):  # next to NaN or infinity, which the sweep reports
            rhs = rhs.astype(dtype)
    return read_only(rhs if trailing else rhs[:, None]), trailing


def as_weight(weight: Any, m: int) -> np.ndarray | None:
    """Sample weights as float64, checked."""
    if weight is None:
        return None
    weight = _as_float(weight, "sample_weight").astype(np.float64, copy=False)
    if weight.shape != (m,):
        raise InvalidValueError(f"sample_weight must have shape (m,) = ({m},), got {weight.shape}")
    bad = ~np.isfinite(weight)
    if bad.any():
        row = int(np.argmax(bad))
        raise NonFiniteError(f"sample_weight must be finite, got {weight[row]} in row {row}")
    if m and weight.min() < 0:
        row = int(np.argmin(weight))
        raise InvalidValueError(f"sample_weight must be non-negative, got {weight[row]} in row {row}")
    return np.require(weight, requirements=["C", "W"])  # a copy of what is read-only or strided: one kind of array
