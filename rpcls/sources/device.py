"""Rows in a CuPy array: every sweep runs on the card that holds them, and leaves there all that has m rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from ..errors import InvalidTypeError, InvalidValueError, NonFiniteError, SourceError
from ..kernels import on_card
from ..sketches.base import SketchOperator, Sums
from .base import Rows, Source, check_total, exponent_of_largest, ordinary, rows_of_triangle
from .sweeps import means_of

__all__ = ["DeviceSource", "as_device_rhs", "as_device_weight"]

_BLOCK_BYTES = 64 << 20  # of rows in float64, for BLAS 3 and QR
_PRODUCT_BYTES = 256 << 20  # of rows in float64 that two products are made of: those of fewer do not fill the card
_FEW = 4  # right-hand sides up to which the gradient kernel is used


class DeviceSource(Source):
    """A (m, n) and b (m,) or (m, k) as CuPy arrays on one card.

    float32, float64, float16 and bfloat16 of any memory order are used as they are, those of 16 bits with products and
    summary in float32; b and weights are converted to the dtype of the products and to float64. SA and matrices of n
    rows are made and factorised there, vectors of d or n entries in host memory; x comes back as a CuPy array.
    """

    _triangle_bytes: ClassVar = 1 << 30  # of rows for a QR factorisation, which waits for the card column by column

    def __init__(
        self, A: Any, b: Any, *, sample_weight: Any = None, row_offset: int = 0, intercept: bool = False, workers: int
    ) -> None:
        self.A = _as_matrix(A)
        self.dtype = np.dtype(np.float64 if A.dtype == np.float64 else np.float32)
        self.b, self.rhs_shape = as_device_rhs(b, self.A, self.dtype)
        self.weight = as_device_weight(sample_weight, self.A)
        self.row_offset = row_offset
        self.n_columns = int(A.shape[1])
        self.intercept = intercept
        self.workers = workers

    @property
    def n_rows(self) -> int:
        return int(self.A.shape[0])

    @property
    def place(self) -> dict[str, Any]:
        return {"device": "cuda"}

    def returned(self, x: np.ndarray) -> Any:
        from ..kernels.cuda.device import on_device

        with on_device(self.A) as xp:
            return xp.asarray(x)

    def some_rows(self, count: int) -> Any:
        if self.n_rows < 2 * count:
            return None
        return self.A[:: self.n_rows // count].astype(np.float64)

    def blocks(self) -> Iterator[Rows]:
        raise InvalidTypeError(
            "this needs the rows in host memory, and A is a CuPy array; pass cupy.asnumpy(A) and cupy.asnumpy(b)"
        )

    # -- compress -------------------------------------------------------------------------------------------------

    def _blocks_for(self, S: SketchOperator) -> Iterator[Rows]:
        yield Rows(self.row_offset, self.A, self.b, self.weight)

    def _sums(self, S: SketchOperator, rows: Rows) -> tuple[Sums, tuple[int, int]]:
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            sums = self._sweep(S, rows)
            if ordinary(sums.AA, self.dtype).all() and ordinary(sums.bb, self.dtype).all():
                return sums, (0, 0)
            exponents = self._exponent("A", self.A), self._exponent("b", self.b)
            if exponents != (0, 0):
                scale = (2.0 ** -exponents[0], 2.0 ** -exponents[1])
                sums = self._sweep(S, rows, scale)
        return sums, exponents

    def _sweep(self, S: SketchOperator, rows: Rows, scale: tuple[float, float] = (1.0, 1.0)) -> Sums:
        from ..sketches.device import sweep

        return sweep(S, rows.A, rows.b, rows.weight, rows.start, scale)

    def _exponent(self, name: str, part: Any) -> int:
        """The exponent that brings the largest entry, weights included, near 1; raises at NaN and infinity."""
        from ..kernels.cuda.device import cupy

        xp, largest = cupy(), 0.0
        for i, block in self._float64(part):
            if not bool(xp.isfinite(block).all()):
                row, column = (int(v) for v in xp.asnumpy(xp.argwhere(~xp.isfinite(block))[0]))
                raise NonFiniteError(
                    f"{name} must be finite, got {float(block[row, column])} in row {self.row_offset + i + row}, "
                    f"column {column}; remove or impute such rows first"
                )
            if self.weight is not None:
                block = block * xp.sqrt(self.weight[i : i + len(block), None])
            largest = max(largest, float(xp.abs(block).max())) if block.size else largest
        return exponent_of_largest(largest, self.dtype)

    def _float64(self, part: Any, step: int | None = None) -> Iterator[tuple[int, Any]]:
        step = step or max(1, _BLOCK_BYTES // (8 * part.shape[1]))
        for i in range(0, part.shape[0], step):
            yield i, part[i : i + step].astype(np.float64, copy=False)

    # -- the sweeps of solvers that go back ---------------------------------------------------------------------------

    def _residual(self, X: Any, *, rhs: bool) -> tuple[Any, Any]:
        """There where X is."""
        from ..kernels.cuda import sweeps
        from ..kernels.cuda.device import on_device

        means = means_of(self, X.shape[1], rhs)
        with on_device(self.A) as xp:
            if X.shape[1] <= _FEW and sweeps.gradient_fits(self.n_columns):
                return sweeps.gradient(self.A, self.b if rhs else None, self.weight, means, X)
            there, out, squares = xp.asarray(X), xp.zeros(X.shape), xp.zeros(X.shape[1])
            for A, b, w in self._posed(means, rhs=rhs):
                r = -(A @ there) if b is None else b - A @ there
                weighted = r if w is None else r * w[:, None]
                squares += (r * weighted).sum(axis=0)
                out += A.T @ weighted
            return (squares, out) if on_card(X) else (xp.asnumpy(squares), xp.asnumpy(out))

    def _posed(self, means: Any, *, rhs: bool = True, step: int | None = None) -> Iterator[tuple[Any, Any, Any]]:
        """A − ā, b − b̄ and w of a block of rows after the other, float64."""
        from ..kernels.cuda.device import cupy

        a_mean, b_mean = (None, None) if means is None else (cupy().asarray(m) for m in means)
        for i, A in self._float64(self.A, step):
            j = i + len(A)
            b = self.b[i:j].astype(np.float64, copy=False) if rhs else None
            if a_mean is not None:
                A, b = A - a_mean, None if b is None else b - b_mean
            yield A, b, None if self.weight is None else self.weight[i:j]

    def gradient(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        squares, out = self._residual(self._as_x(X), rhs=True)
        return (squares, out) if self.rhs_shape else (squares[0], out[:, 0])

    def normal(self, P: Any) -> Any:
        """`Source.normal`; P may be on the card, and so is then what comes back."""
        return -self._residual(P, rhs=False)[1]

    def gram(self, R: Any = None) -> tuple[Any, np.ndarray]:
        """`Source.gram`, the matrix left on the card. R may be there.

        W = AR⁻¹ is a product with the inverse: substitution takes twenty times longer than a product. Either way W is
        known to about ε times the condition number of R, which costs steps of refinement, but no digits of x.
        """
        from ..kernels.cuda.algebra import add_gram, inverse, symmetric
        from ..kernels.cuda.device import on_device

        n, k = self.n_columns, self.n_rhs
        means = means_of(self, k, True)
        with on_device(self.A) as xp:
            total, cross = xp.zeros((n, n)), xp.zeros((n, k))
            plain = R is None and means is None and self.weight is None and self._ready_for_products()
            step = self.n_rows if plain else max(_PRODUCT_BYTES // (8 * n), 4 * n)
            X = None if R is None else inverse(xp.asarray(R))
            room = None if R is None else xp.empty((min(step, self.n_rows), n))
            for A, b, w in self._posed(means, step=step):
                if w is not None:
                    root = xp.sqrt(w)[:, None]
                    A, b = A * root, b * root
                W = A if room is None else xp.dot(A, X, out=room[: len(A)])
                add_gram(total, W)
                cross += W.T @ b
            total, cross = symmetric(total), xp.asnumpy(cross)
            finite = bool(xp.isfinite(total).all()) and bool(np.isfinite(cross).all())
        if not finite:
            self._exponent("A", self.A)
            self._exponent("b", self.b)
            raise SourceError("a sweep over finite rows overflowed; rescale A or b")
        return total, cross

    def _ready_for_products(self) -> bool:
        """Whether cuBLAS takes A as it is."""
        return self.A.dtype == np.float64 and (self.A.flags.c_contiguous or self.A.flags.f_contiguous)

    def predict(self, X: np.ndarray) -> Any:
        from ..kernels.cuda.device import on_device

        with on_device(self.A) as xp:
            there = xp.asarray(self._as_x(X).astype(self.dtype))
            out = self.A.astype(self.dtype, copy=False) @ there
        return out if self.rhs_shape else out[:, 0]

    def product(self, X: np.ndarray) -> np.ndarray:
        from ..kernels.cuda.device import on_device

        with on_device(self.A) as xp:
            there = xp.asarray(np.ascontiguousarray(X, np.float64))
            parts = [xp.asnumpy(A @ there) for _, A in self._float64(self.A)]
        return np.concatenate(parts) if parts else np.empty((0, X.shape[1]))

    def scores(self, X: np.ndarray) -> Any:
        from ..kernels.cuda.device import on_device

        with on_device(self.A) as xp:
            there, out = xp.asarray(np.ascontiguousarray(X, np.float64)), xp.empty(self.n_rows)
            for i, A in self._float64(self.A):
                out[i : i + len(A)] = xp.square(A @ there).sum(axis=1)
            return out if self.weight is None else out * self.weight

    def any_rhs(self) -> bool:
        return bool(self.b.any())

    def triangle(self) -> tuple[np.ndarray, int]:
        from ..kernels.cuda.device import on_device

        with on_device(self.A) as xp:
            R = xp.asnumpy(self.triangle_under(None))
        if self.intercept:
            check_total(float(abs(R[0, 0])) if len(R) else 0.0)
        return R, self.n_rows

    def triangle_under(self, R: Any) -> Any:
        """The triangle of these rows under R, that of other rows, if there are any; on the card."""
        from ..kernels.cuda.device import cupy

        xp, width = cupy(), int(self.intercept) + self.n_columns + self.n_rhs
        step = max(rows_of_triangle(width), self._triangle_bytes // (8 * width))
        R = xp.zeros((0, width)) if R is None else R
        for i in range(0, self.n_rows, step):
            A, b = self.A[i : i + step].astype(np.float64), self.b[i : i + step].astype(np.float64)
            rows = xp.concatenate([xp.ones((len(A), 1)), A, b], axis=1)[:, int(not self.intercept) :]
            if self.weight is not None:
                rows = rows * xp.sqrt(self.weight[i : i + step])[:, None]
            if not bool(xp.isfinite(rows).all()):
                self._exponent("A", self.A)
                self._exponent("b", self.b)
            R = xp.linalg.qr(xp.concatenate([R, rows], axis=0), mode="r")
        return R


def _as_matrix(A: Any) -> Any:
    if A.ndim != 2:
        hint = "; a single column is A[:, None]" if A.ndim == 1 else ""
        raise InvalidValueError(f"A must have two dimensions (m, n), got shape {A.shape}{hint}")
    if A.shape[1] == 0:
        raise InvalidValueError(f"A must have at least one column, got shape {A.shape}")
    if A.dtype.name not in ("float16", "bfloat16", "float32", "float64"):
        raise InvalidTypeError(
            f"a CuPy A must hold float16, bfloat16, float32 or float64, got {A.dtype}; A.astype('f') makes it so"
        )
    return A


def _beside(value: Any, A: Any, name: str) -> Any:
    """The value, if it lies on A's card."""
    if not on_card(value):
        raise InvalidTypeError(
            f"{name} must be a CuPy array as A is, got {type(value).__module__}.{type(value).__name__}; "
            f"cupy.asarray({name}) copies it to the card, A.get() copies A to host memory"
        )
    if value.device.id != A.device.id:
        raise InvalidTypeError(f"{name} must be on A's card {A.device.id}, got one on card {value.device.id}")
    if value.dtype.kind not in "biuf" and value.dtype.name != "bfloat16":
        raise InvalidTypeError(f"{name} must hold real numbers, got {value.dtype}")
    return value


def as_device_rhs(b: Any, A: Any, dtype: np.dtype) -> tuple[Any, tuple[int, ...]]:
    if b is None:
        raise InvalidTypeError("b must be given with an array A; it is None only for an iterator of (A, b) blocks")
    b = _beside(b, A, "b")
    if b.ndim not in (1, 2) or b.shape[0] != A.shape[0]:
        raise InvalidValueError(f"b must have shape (m,) or (m, k) with A's m = {A.shape[0]} rows, got {b.shape}")
    if b.ndim == 2 and b.shape[1] == 0:
        raise InvalidValueError(f"b must have at least one column, got shape {b.shape}")
    trailing = tuple(int(k) for k in b.shape[1:])
    rhs = b.astype(dtype, copy=False)
    return rhs if trailing else rhs[:, None], trailing


def as_device_weight(weight: Any, A: Any) -> Any:
    if weight is None:
        return None
    from ..kernels.cuda.device import on_device

    weight = _beside(weight, A, "sample_weight")
    if weight.shape != (A.shape[0],):
        raise InvalidValueError(f"sample_weight must have shape (m,) = ({A.shape[0]},), got {weight.shape}")
    with on_device(A) as xp:
        weight = xp.ascontiguousarray(weight.astype(np.float64))
        for bad, error, rule in (
            (~xp.isfinite(weight), NonFiniteError, "finite"),
            (weight < 0, InvalidValueError, "non-negative"),
        ):
            if bool(bad.any()):
                row = int(xp.argmax(bad))
                raise error(f"sample_weight must be {rule}, got {float(weight[row])} in row {row}")
    return weight
