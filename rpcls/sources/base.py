"""Source: where the rows live. Every source offers the same sweeps; each reads every row once."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ..compressed import CompressedProblem
from ..errors import InvalidValueError, NonFiniteError, SourceError
from ..linalg import times_power, triangle_in_place
from ..sketches.base import SketchFamily, SketchOperator, Sums, read_only
from . import condition, sweeps

__all__ = ["Rows", "Source", "sum_rows"]

# squared norms outside 2^±this have lost digits, or would when added up; by itemsize. The sums are float64, but a
# float32 sketch leaves its range long before them.
_RANGE = {4: 200, 8: 960}
_SHIFT = {4: 120, 8: 1000}  # the largest power of two that data is scaled by: itself in range, by itemsize
_SCORED_ROWS = 1 << 14  # at a time
_TRIANGLE_BYTES = 4 << 20  # rows that one QR of the streaming direct solver takes


class Rows(NamedTuple):
    """Consecutive rows from `start` on: A (rows, n), an array or CSR; b (rows, k); weight (rows,) or None.

    columns are the names of A's columns, for messages.
    """

    start: int
    A: Any
    b: np.ndarray
    weight: np.ndarray | None
    columns: tuple[str, ...] | None = None

    @property
    def count(self) -> int:
        return self.A.shape[0]


class Source(ABC):
    """Rows that can be swept.

    Attributes
    ----------
    n_columns : int
    dtype : numpy.dtype
        float32 or float64.
    rhs_shape : tuple of int
        () for b (m,), (k,) for b (m, k).
    columns : tuple of str or None
    intercept : bool
        Whether the problem has a free constant. `triangle` and `dense` allow for it; `gradient`, `normal` and `gram`
        take the rows less their means.
    means : (column means (n,), mean of b) or None
        Known once a `compress` sweep has seen the rows, if there is an intercept.
    workers : int
    row_offset : int
        Index of the first row in the whole problem.
    """

    n_columns: int
    dtype: np.dtype
    rhs_shape: tuple[int, ...]
    columns: tuple[str, ...] | None = None
    intercept: bool = False
    means: tuple[np.ndarray, Any] | None = None
    workers: int
    row_offset: int = 0

    @property
    @abstractmethod
    def n_rows(self) -> int | None:
        """m, if it is known before a sweep."""

    @abstractmethod
    def blocks(self) -> Iterator[Rows]:
        """All rows, in order, validated, in blocks of whatever size is at hand."""

    def _blocks_for(self, S: SketchOperator) -> Iterator[Rows]:
        """`blocks` for `compress`: where the source may choose, large enough that adding up sums of d × n is little."""
        return self.blocks()

    @property
    def stored(self) -> int | None:
        """Stored entries of a sparse A; None for a dense one."""
        return None

    @property
    def place(self) -> dict[str, Any]:
        """Where the rows are and are swept: what `rpcls.plan` is told of it."""
        return {}

    @property
    def rereadable(self) -> bool:
        """Whether there can be more than one sweep."""
        return True

    @property
    def shape(self) -> tuple[int | None, int]:
        """(m, n); m is None while no sweep has counted the rows."""
        return self.n_rows, self.n_columns

    @property
    def n_rhs(self) -> int:
        return self.rhs_shape[0] if self.rhs_shape else 1

    def some_rows(self, count: int) -> Any:
        """About `count` rows from all over A, (·, n) float64, where that costs next to nothing; else None.

        On the card if they are to be swept there.
        """
        return None

    @cached_property
    def guessed_condition(self) -> float | None:
        """What `condition.guess` finds, once."""
        return condition.guess(self)

    def dense(self) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray] | None] | None:
        """A float64 Fortran-ordered copy of the weighted rows, √w(A − ā) and √w(b − b̄), that LAPACK may overwrite,
        and the means (ā, b̄), or None for them without an intercept; None in all for rows that are not one float array
        in memory."""
        return None

    def returned(self, x: np.ndarray) -> Any:
        """x as the caller's rows are: in host memory, or on the card."""
        return x

    def handed_out(self, problem: CompressedProblem) -> CompressedProblem:
        """A summary of these rows for the caller, where it is likely to be used next."""
        return problem

    # -- sweeps -------------------------------------------------------------------------------------------------

    def compress(self, S: SketchOperator) -> CompressedProblem:
        """One sweep: the summary of the problem under S.

        Raises
        ------
        NonFiniteError
            NaN or infinity in A, b or the weights. Found from the sums; only then, or when sums over- or underflow or a
            column is zero, are the rows of that block looked at again.
        """
        began = time.perf_counter()
        if not S.family.mergeable and S.m is None:
            raise InvalidValueError(f"{S.family!r} needs the number of rows: sample(d, m=…)")
        problem: CompressedProblem | None = None
        for rows in self._blocks_for(S):
            if S.m is not None and rows.start + rows.count > S.m:
                raise InvalidValueError(
                    f"{S!r} has m = {S.m} columns, but A reaches to row {rows.start + rows.count}; leave m open when "
                    f"sampling: sample({S.sketch_size}, rng=…)"
                )
            sums, exponents = self._sums(S, rows)
            part = self._problem(S, sums, exponents, rows)
            problem = part if problem is None else problem + part
        if problem is None:
            A, b = (read_only(np.empty((0, width), self.dtype)) for width in (self.n_columns, self.n_rhs))
            empty = Rows(0, A, b, None)
            problem = self._problem(S, *sum_rows(S.family, S, empty, 1), empty)
        object.__setattr__(problem, "timings", {"compress": time.perf_counter() - began})
        if self.intercept:
            ea, eb = problem.exponents
            check_total(problem.weight)
            self.means = (
                times_power(problem.column_sums / problem.weight, ea),
                times_power(problem.b_sum / problem.weight, eb),
            )
        return problem

    def _sums(self, S: SketchOperator, rows: Rows) -> tuple[Sums, tuple[int, int]]:
        return sum_rows(S.family, S, rows, self.workers)

    def _problem(self, S: SketchOperator, sums: Sums, exponents: tuple[int, int], rows: Rows) -> CompressedProblem:
        single = not self.rhs_shape
        stop = rows.start + rows.count
        return CompressedProblem(
            SA=sums.SA,
            Sb=sums.Sb[:, 0] if single else sums.Sb,
            S1=sums.S1,
            Atb=sums.Atb[:, 0] if single else sums.Atb,
            btb=float(sums.bb[0]) if single else sums.bb,
            column_norms=np.sqrt(sums.AA),
            column_sums=sums.A1,
            b_sum=float(sums.b1[0]) if single else sums.b1,
            weight=float(sums.weight),
            intervals=((rows.start, stop),) if stop > rows.start else (),
            operator=S,
            columns=self.columns,
            exponents=exponents,
        )

    def gradient(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One sweep: (‖b − AX‖², Aᵀ(b − AX)), weighted and centred, the residual formed explicitly row by row.

        Parameters
        ----------
        X : (n,) or (n, k) array

        Returns
        -------
        squares : float64, shape () or (k,)
        gradient : float64, shape (n,) or (n, k)
        """
        squares, out = sweeps.residual(self, self._as_x(X), rhs=True)
        return (squares, out) if self.rhs_shape else (squares[0], out[:, 0])

    def normal(self, P: np.ndarray) -> np.ndarray:
        """One sweep: AᵀAP for P (n, p) of any width, weighted and centred, float64."""
        _, out = sweeps.residual(self, np.ascontiguousarray(P, np.float64), rhs=False)
        return -out

    def gram(self, R: np.ndarray | None = None, *, single: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """One sweep: ((AR⁻¹)ᵀ(AR⁻¹), (AR⁻¹)ᵀb), weighted and centred, by BLAS 3 on a few thousand rows at a time.

        Parameters
        ----------
        R : (n, n) upper triangular array, optional
            AR⁻¹ is made by triangular solves: the inverse would cost ten digits. None stands for the identity.
        single : bool, default False
            Products of dense rows in float32, their sums over some thousand rows in float64: up to half the time. What
            leaves float32's range becomes zero or infinite.

        Returns
        -------
        (n, n) and (n, k) float64 arrays
        """
        return sweeps.gram(self, R, single)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """One sweep: AX, shape (m,) or (m, k), in A's dtype; without weights or intercept."""
        X = self._as_x(X).astype(self.dtype)
        parts = [rows.A @ X for rows in self.blocks()]
        out = np.concatenate(parts) if parts else np.empty((0, X.shape[1]), self.dtype)
        return out if self.rhs_shape else out[:, 0]

    def product(self, X: np.ndarray) -> np.ndarray:
        """One sweep: AX (m, k) for X (n, k) of any width, float64; without weights or intercept."""
        parts = [rows.A @ X for rows in self.blocks()]
        return np.concatenate(parts) if parts else np.empty((0, X.shape[1]))

    def scores(self, X: np.ndarray) -> Any:
        """One sweep: wᵢ‖aᵢX‖² of every row, (m,), for X (n, k); without intercept; on the card if A is there."""
        parts = [np.empty(0)]
        for rows in self.blocks():
            for i in range(0, rows.count, _SCORED_ROWS):
                part = np.square(np.asarray(rows.A[i : i + _SCORED_ROWS] @ X, np.float64)).sum(axis=1)
                parts.append(part if rows.weight is None else part * rows.weight[i : i + _SCORED_ROWS])
        return np.concatenate(parts)

    def transposed(self, b: np.ndarray | None) -> Source | None:
        """The source of Aᵀ with right-hand sides b (n, k), or zero; None where the rows are not one plain matrix."""
        return None

    def right_hand_sides(self) -> np.ndarray:
        """b (m, k) in float64, of a source that has a transpose."""
        raise NotImplementedError

    def any_rhs(self) -> bool:
        """One sweep: whether b is not zero, even where its squares are."""
        return any(rows.b.any() for rows in self.blocks())

    def triangle(self) -> tuple[np.ndarray, int]:
        """One sweep: (R, m) with R the float64 triangle of a QR factorisation of the weighted [1, A, b].

        The column of ones is there if the source has an intercept. Rows are taken a few megabytes at a time and
        factorised under the triangle so far (LAPACK geqrf): backward stable, 2mn² flops.
        """
        width = int(self.intercept) + self.n_columns + self.n_rhs
        R, m = np.zeros((0, width)), 0
        step = rows_of_triangle(width)
        for rows in self.blocks():
            m += rows.count
            for i in range(0, rows.count, step):
                j = min(i + step, rows.count)
                block = np.empty((len(R) + j - i, width), order="F")
                block[: len(R)] = R
                here = block[len(R) :]
                if self.intercept:
                    here[:, 0] = 1.0
                here[:, int(self.intercept) : width - self.n_rhs] = dense_rows(rows.A, i, j)
                here[:, width - self.n_rhs :] = rows.b[i:j]
                if rows.weight is not None:
                    here *= np.sqrt(rows.weight[i:j])[:, None]
                if not np.isfinite(block).all():
                    raise_non_finite(Rows(rows.start + i, rows.A[i:j], rows.b[i:j], None, rows.columns))
                R = triangle_in_place(block)
        if self.intercept:
            check_total(float(abs(R[0, 0])) if len(R) else 0.0)
        return R, m

    def _as_x(self, X: np.ndarray) -> np.ndarray:
        X = np.asarray(X, np.float64)
        if X.shape != (self.n_columns, *self.rhs_shape):
            raise InvalidValueError(f"X must have shape {(self.n_columns, *self.rhs_shape)}, got {X.shape}")
        return np.ascontiguousarray(X.reshape(self.n_columns, -1))


def sum_rows(family: SketchFamily, S: SketchOperator, rows: Rows, workers: int) -> tuple[Sums, tuple[int, int]]:
    """The sums of one block in units of (A·2^-e₀, b·2^-e₁); the exponents are 0 unless squares over- or underflow."""
    sweep = family.sweep if isinstance(rows.A, np.ndarray) else family.sweep_csr
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        sums = sweep(S, rows.A, rows.b, rows.weight, rows.start, workers)
        if ordinary(sums.AA, rows.A.dtype).all() and ordinary(sums.bb, rows.b.dtype).all():
            return sums, (0, 0)
        exponents = _exponents(rows, sums)
        if exponents != (0, 0):
            scale = (2.0 ** -exponents[0], 2.0 ** -exponents[1])
            sums = sweep(S, rows.A, rows.b, rows.weight, rows.start, workers, scale)
    return sums, exponents


def ordinary(squares: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Which squared norms kept their digits: not zero, not near the ends of the range, not NaN."""
    bits = _RANGE[dtype.itemsize]
    return (squares > 2.0**-bits) & (squares < 2.0**bits)


def _exponents(rows: Rows, sums: Sums) -> tuple[int, int]:
    """Exponents that bring the largest entries of A and b, weights included, near 1; 0 where the units are ordinary.

    Looks again at the columns whose norms are in doubt, and raises if they hold NaN or infinity.
    """
    exponents = []
    for part, squares in ((rows.A, sums.AA), (rows.b, sums.bb)):
        fine = ordinary(squares, part.dtype)
        largest = float(np.sqrt(squares[fine].max(initial=0.0)))
        doubtful: Any = slice(None)
        if fine.any():
            doubtful = np.flatnonzero(~fine)
            if not isinstance(part, np.ndarray):  # select once, so that the blocks are of few columns
                part, doubtful = part[:, doubtful], slice(None)
        step = rows_at_a_time(part)
        for i in range(0, rows.count, step):
            block = np.abs(dense_rows(part, i, i + step)[:, doubtful].astype(np.float64))
            if rows.weight is not None and block.size:
                block *= np.sqrt(rows.weight[i : i + step, None])
            if not np.isfinite(block).all():
                raise_non_finite(rows)
            largest = max(largest, float(block.max(initial=0.0)))
        exponents.append(exponent_of_largest(largest, part.dtype))
    return exponents[0], exponents[1]


def exponent_of_largest(largest: float, dtype: np.dtype) -> int:
    """The exponent that brings data of this largest entry near 1; 0 where the units are ordinary."""
    limit = _SHIFT[dtype.itemsize]
    exponent = int(np.clip(np.frexp(largest)[1], -limit, limit)) if largest > 0 else 0
    return exponent if abs(exponent) > _RANGE[dtype.itemsize] * 3 // 8 else 0


def rows_of_triangle(width: int) -> int:
    """Rows that one QR of the `triangle` sweep takes: many more than it carries over, or some megabytes."""
    return max(2 * width, _TRIANGLE_BYTES // (8 * width))


def dense_rows(part: Any, first: int, stop: int) -> np.ndarray:
    """Rows first..stop as an array; for the few of a sparse matrix that a rare look or a QR needs at a time."""
    block = part[first:stop]
    return block if isinstance(block, np.ndarray) else block.toarray()


def rows_at_a_time(part: Any) -> int:
    return min(1 << 14, max(64, _TRIANGLE_BYTES // (8 * max(1, part.shape[1]))))


def check_total(weight: float) -> None:
    if not weight > 0:
        raise InvalidValueError(f"an intercept needs a positive total weight, got {weight}")


def raise_non_finite(rows: Rows) -> None:
    """Name the first NaN or infinity of a block."""
    for name, part in (("A", rows.A), ("b", rows.b)):
        step = rows_at_a_time(part)
        for i in range(0, rows.count, step):
            block = dense_rows(part, i, i + step)
            bad = np.argwhere(~np.isfinite(block))
            if len(bad):
                row, column = bad[0]
                value = block[row, column]
                title = f" ({rows.columns[column]!r})" if name == "A" and rows.columns else ""
                raise NonFiniteError(
                    f"{name} must be finite, got {value} in row {rows.start + i + row}, column {column}{title}; "
                    "remove or impute such rows first"
                )
    raise SourceError("a sweep over finite rows overflowed; rescale A or b")
