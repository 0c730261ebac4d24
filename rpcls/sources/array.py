"""Rows in one NumPy array: C, Fortran or strided, float32 or float64, never copied."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import InvalidTypeError, InvalidValueError, NonFiniteError
from ..sketches.base import read_only
from .base import Rows, Source, check_total, raise_non_finite

__all__ = ["ArraySource", "as_matrix", "as_rhs", "as_weight", "column_names"]


class ArraySource(Source):
    """A (m, n) and b (m,) or (m, k) as arrays.

    Parameters
    ----------
    A, b : array_like
        float32 and float64 are used as they are; integers, booleans and lists become float64. b is converted to A's
        dtype.
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
        self.weight = as_weight(sample_weight, len(self.A))
        self.row_offset = row_offset
        self.n_columns = self.A.shape[1]
        self.dtype = self.A.dtype
        self.columns = column_names(A)
        self.intercept = intercept
        self.workers = workers

    @property
    def n_rows(self) -> int:
        return len(self.A)

    def blocks(self) -> Iterator[Rows]:
        yield Rows(self.row_offset, self.A, self.b, self.weight)

    def dense(self) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray] | None]:
        A, b = np.array(self.A, np.float64, order="F"), np.array(self.b, np.float64, order="F")
        if not (np.isfinite(A).all() and np.isfinite(b).all()):
            raise_non_finite(Rows(self.row_offset, self.A, self.b, None))
        means = None
        if self.intercept:
            weight = self.weight
            check_total(float(len(A) if weight is None else weight.sum()))
            means = np.average(A, axis=0, weights=weight), np.average(b, axis=0, weights=weight)
            A -= means[0]
            b -= means[1]
        if self.weight is not None:
            root = np.sqrt(self.weight)[:, None]
            A *= root
            b *= root
        return A, b, means


def column_names(A: Any) -> tuple[str, ...] | None:
    """The column names of a data frame (recognised by its attribute), else None."""
    names = getattr(A, "columns", None)
    return None if names is None or not hasattr(A, "shape") else tuple(str(name) for name in names)


def _as_float(value: Any, name: str) -> np.ndarray:
    if type(value).__module__.partition(".")[0] in ("cupy", "torch", "jax", "dask"):
        raise InvalidTypeError(
            f"{name} must be a NumPy array, got {type(value).__module__}.{type(value).__name__}; convert it first, "
            f"for example with numpy.asarray"
        )
    if hasattr(value, "toarray") and hasattr(value, "nnz"):
        raise InvalidTypeError(f"{name} must be dense, got {type(value).__name__}; {name}.toarray() makes it so")
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InvalidTypeError(f"{name} must be a rectangular array of numbers: {error}") from error
    if array.dtype.kind in "biu":
        return array.astype(np.float64)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype not in (np.float32, np.float64):
        hint = {
            "c": "complex problems are not supported; solve for real and imaginary parts",
            "f": f"convert it: {name}.astype(numpy.float32) or float64",
            "O": f"convert it: numpy.asarray({name}, dtype=float)",
        }.get(array.dtype.kind, f"convert {name} to numbers")
        raise InvalidTypeError(f"{name} must hold float32, float64, integers or booleans, got {array.dtype}; {hint}")
    return array


def as_matrix(A: Any) -> np.ndarray:
    """A as a float32 or float64 matrix, without a copy where it is one."""
    matrix = _as_float(A, "A")
    if matrix.ndim != 2:
        hint = "; a single column is A[:, None]" if matrix.ndim == 1 else ""
        raise InvalidValueError(f"A must have two dimensions (m, n), got shape {matrix.shape}{hint}")
    if matrix.shape[1] == 0:
        raise InvalidValueError(f"A must have at least one column, got shape {matrix.shape}")
    return read_only(matrix)


def as_rhs(b: Any, shape: tuple[int, int], dtype: np.dtype) -> tuple[np.ndarray, tuple[int, ...]]:
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
