"""Rows that come in blocks: files, memory maps, generators."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..compressed import CompressedProblem
from ..errors import InvalidTypeError, InvalidValueError, RpclsError, SourceError
from ..sketches import SRHT, SketchOperator
from .array import as_rhs, as_weight
from .base import Rows, Source
from .sparse import as_rows
from .tables import column_names

__all__ = ["BlockSource", "RowBlocks"]


class RowBlocks:
    """Rows that can be read again and again, block by block.

    Parameters
    ----------
    factory : callable
        Called without arguments for every sweep; returns a fresh iterable of ``(A_block, b_block)`` or
        ``(A_block, b_block, weight_block)``, in a fixed order, the rows of the problem one after the other. Blocks may
        differ in their number of rows; each is whatever `rpcls.compress` takes for A, sparse matrices and tables
        included, and is converted whole if it has to be.
    n_columns : int
        n, the number of columns of every A_block.

    Examples
    --------
    >>> import numpy as np, rpcls
    >>> rng = np.random.default_rng(0)
    >>> A, b = rng.standard_normal((1000, 5)), rng.standard_normal(1000)
    >>> rows = rpcls.RowBlocks(lambda: ((A[i : i + 100], b[i : i + 100]) for i in range(0, 1000, 100)), 5)
    >>> x = rpcls.lstsq(rows, None).x
    >>> bool(np.allclose(x, np.linalg.lstsq(A, b)[0]))
    True
    """

    def __init__(self, factory: Callable[[], Iterable[tuple[Any, ...]]], n_columns: int) -> None:
        if not callable(factory):
            raise InvalidTypeError(
                f"RowBlocks needs a function that returns a fresh iterator, got {type(factory).__name__}; wrap it: "
                "RowBlocks(lambda: read_blocks(path), n_columns)"
            )
        if isinstance(n_columns, bool) or not isinstance(n_columns, int | np.integer) or n_columns < 1:
            raise InvalidValueError(f"n_columns must be a positive int, got {n_columns!r}")
        self.factory = factory
        self.n_columns = int(n_columns)

    def __repr__(self) -> str:
        return f"RowBlocks({self.factory!r}, {self.n_columns})"


class BlockSource(Source):
    """Sweeps over `RowBlocks`, or one sweep over a plain iterator of blocks.

    The first block fixes dtype and right-hand sides; it is read when the source is made.
    """

    def __init__(
        self, rows: RowBlocks | Iterator[Any], *, row_offset: int = 0, intercept: bool = False, workers: int
    ) -> None:
        self.rows = rows
        self.row_offset = row_offset
        self.intercept = intercept
        self.workers = workers
        self._m: int | None = None
        iterator = self._fresh() if isinstance(rows, RowBlocks) else iter(rows)
        try:
            first = next(iterator)
        except StopIteration:
            raise InvalidValueError("the iterator of row blocks must give at least one block, got none") from None
        except Exception as error:
            raise self._failed(0, row_offset, error) from error
        self._unread: tuple[Any, Iterator[Any]] | None = (first, iterator)
        with _naming(0, row_offset):
            parts = self._parts(first)
            A = as_rows(parts[0])
            self.n_columns = rows.n_columns if isinstance(rows, RowBlocks) else A.shape[1]
            self.dtype = A.dtype
            self.columns = column_names(parts[0])
            _, self.rhs_shape = as_rhs(parts[1], A.shape, A.dtype)

    @property
    def n_rows(self) -> int | None:
        return self._m

    @property
    def rereadable(self) -> bool:
        return isinstance(self.rows, RowBlocks)

    def compress(self, S: SketchOperator) -> CompressedProblem:
        if isinstance(S.family, SRHT):
            raise InvalidValueError(
                "SRHT() is one transform of all rows and does not sweep over row blocks; use BlockSRHT(), its "
                "mergeable form"
            )
        return super().compress(S)

    def _fresh(self) -> Iterator[Any]:
        assert isinstance(self.rows, RowBlocks)
        try:
            return iter(self.rows.factory())
        except Exception as error:
            raise SourceError(f"the factory of RowBlocks failed: {type(error).__name__}: {error}") from error

    def blocks(self) -> Iterator[Rows]:
        if self._unread is not None:
            (first, iterator), self._unread = self._unread, None
            yield from self._read(first, iterator)
        elif isinstance(self.rows, RowBlocks):
            yield from self._read(None, self._fresh())
        else:
            raise SourceError(
                "a plain iterator of row blocks can be read only once, and this call needs another sweep; pass "
                "rpcls.RowBlocks(lambda: make_iterator(), n_columns) instead"
            )

    def _read(self, first: Any, iterator: Iterator[Any]) -> Iterator[Rows]:
        start, number = self.row_offset, 0
        while True:
            try:
                block = first if first is not None else next(iterator)
            except StopIteration:
                break
            except Exception as error:
                raise self._failed(number, start, error) from error
            first = None
            rows = self._rows(block, number, start)
            yield rows
            start += rows.count
            number += 1
        m = start - self.row_offset
        if self._m is not None and m != self._m:
            raise SourceError(
                f"every sweep must see the same rows, but this one gave {m} and the one before {self._m}; the factory "
                "of RowBlocks must return a fresh iterator each time"
            )
        self._m = m

    def _parts(self, block: Any) -> tuple[Any, ...]:
        if not isinstance(block, tuple | list) or len(block) not in (2, 3):
            length = f" of length {len(block)}" if isinstance(block, tuple | list) else ""
            raise InvalidTypeError(
                f"a block must be (A_block, b_block) or (A_block, b_block, weight_block), got "
                f"{type(block).__name__}{length}"
            )
        return tuple(block)

    def _rows(self, block: Any, number: int, start: int) -> Rows:
        with _naming(number, start):
            parts = self._parts(block)
            A = as_rows(parts[0])
            if A.shape[1] != self.n_columns:
                raise InvalidValueError(f"A must have n_columns = {self.n_columns} columns, got shape {A.shape}")
            if A.dtype != self.dtype:
                raise InvalidTypeError(f"all blocks must have the dtype of the first, {self.dtype}, got {A.dtype}")
            b, trailing = as_rhs(parts[1], A.shape, A.dtype)
            if trailing != self.rhs_shape:
                raise InvalidValueError(f"b must have trailing shape {self.rhs_shape} in every block, got {trailing}")
            weight = as_weight(parts[2], A.shape[0]) if len(parts) == 3 else None
            columns = column_names(parts[0])
            if columns is not None and columns != self.columns:
                raise InvalidValueError(f"A must have the columns of the first block, {self.columns}, got {columns}")
        return Rows(start, A, b, weight, self.columns)

    def _failed(self, number: int, start: int, error: Exception) -> SourceError:
        return SourceError(f"reading row block {number} (from row {start}) failed: {type(error).__name__}: {error}")


@contextmanager
def _naming(number: int, start: int) -> Iterator[None]:
    """Errors in here say which row block they are about."""
    try:
        yield
    except RpclsError as error:
        raise type(error)(f"row block {number} (from row {start}): {error}") from error
