"""Rows in host memory swept on a card: they are copied there a block at a time, so that more fit than it can hold."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from ..compressed import CompressedProblem
from ..errors import InvalidValueError
from ..kernels import on_card, on_host
from ..sketches import SRHT, SketchOperator
from ..sketches.base import Sums
from .base import Rows, Source, check_total
from .device import DeviceSource
from .device_sparse import CompressedRows, DeviceSparseSource
from .sparse import SparseSource

__all__ = ["StreamedSource"]

_BLOCK_BYTES = 128 << 20  # of rows on the card at a time, twice; a copy of 2 ms
_LEAST_BYTES = 4 << 20  # below which copies and sweeps are mostly latency
_MOST_BYTES = 512 << 20
_HELD_BYTES = 4 << 30  # of a sparse matrix that is copied to the card once, and stays there
_BLOCKS = 8  # that few rows are cut into: the first is copied while nothing is swept


class StreamedSource(Source):
    """The rows of another source, which has them in host memory, swept on the current card.

    Blocks are cut by their shape alone, so results keep their bits from call to call. Memory on the card: two blocks
    (`_BLOCK_BYTES` of rows, or twice what SA takes, at most `_MOST_BYTES`), and what a sweep over a block takes. In
    host memory as much that is pinned, unless the rows are pinned already. A sparse matrix of up to 4 GiB is copied
    once: solvers sweep over its few entries many times.
    """

    def __init__(self, host: Source) -> None:
        from ..kernels.cuda.device import imported, on_number

        xp = imported('device="cuda"')
        with on_number(None):
            self.card = int(xp.cuda.Device().id)
        self.host = host
        self.n_columns, self.dtype, self.rhs_shape = host.n_columns, host.dtype, host.rhs_shape
        self.columns, self.intercept = host.columns, host.intercept
        self.workers, self.row_offset = host.workers, host.row_offset
        self._held: Rows | None = None
        if isinstance(host, SparseSource) and _bytes(host.A) <= _HELD_BYTES:
            with on_number(self.card):
                data, indices, indptr = (xp.asarray(part) for part in (host.A.data, host.A.indices, host.A.indptr))
                weight = None if host.weight is None else xp.asarray(host.weight)
                held = CompressedRows(data, indices, indptr, self.n_columns)
                self._held = Rows(host.row_offset, held, xp.asarray(host.b), weight)

    @property
    def n_rows(self) -> int | None:
        return self.host.n_rows

    @property
    def stored(self) -> int | None:
        return self.host.stored

    @property
    def place(self) -> dict[str, Any]:
        return {"device": "cuda", "from_host": self._held is None}

    @property
    def rereadable(self) -> bool:
        return self.host.rereadable

    def blocks(self) -> Iterator[Rows]:
        return self.host.blocks()

    def some_rows(self, count: int) -> Any:
        from ..kernels.cuda.device import on_number

        rows = self.host.some_rows(count)
        with on_number(self.card) as xp:
            return None if rows is None else xp.asarray(rows)

    def returned(self, x: Any) -> np.ndarray:
        return on_host(x)

    def handed_out(self, problem: CompressedProblem) -> CompressedProblem:
        return replace(problem, SA=on_host(problem.SA))

    def transposed(self, b: np.ndarray | None) -> Source | None:
        across = self.host.transposed(b)
        return None if across is None else StreamedSource(across)

    def right_hand_sides(self) -> np.ndarray:
        return self.host.right_hand_sides()

    def any_rhs(self) -> bool:
        return self.host.any_rhs()

    # -- blocks on the card -----------------------------------------------------------------------------------------

    def _crossing(self, blocks: Iterator[Rows], bytes_at_a_time: int = _BLOCK_BYTES) -> Iterator[DeviceSource]:
        """A source for each block on the card, of which nothing may be kept on the card when the next is asked for."""
        from ..kernels.cuda.crossing import crossing

        if self._held is not None:
            yield self._on_block(self._held)
            return
        starts: deque[tuple[int, int]] = deque()  # of the blocks under way: the first row, and the stored entries

        def pieces(settle: Callable[[], None]) -> Iterator[tuple[np.ndarray | None, ...]]:
            for rows in _joined(blocks, settle):
                dense = isinstance(rows.A, np.ndarray)
                step = self._step(rows, bytes_at_a_time) if dense else 0
                cuts = range(0, rows.count, max(1, step)) if dense else _cuts(rows.A, bytes_at_a_time)
                for i, j in itertools.pairwise([*cuts, rows.count]):
                    weight = None if rows.weight is None else rows.weight[i:j]
                    parts: tuple[np.ndarray, ...] = (rows.A[i:j],) if dense else _entries(rows.A, i, j)
                    starts.append((rows.start + i, 0 if dense else int(rows.A.indptr[j] - rows.A.indptr[i])))
                    yield (*parts, rows.b[i:j], weight)

        for *parts, b, weight in crossing(pieces, self.card, self.workers):
            start, stored = starts.popleft()
            A = parts[0]
            if len(parts) == 3:
                A = CompressedRows(parts[0][:stored], parts[1][:stored], parts[2], self.n_columns)
            yield self._on_block(Rows(start, A, b, weight))

    def _step(self, rows: Rows, most: int) -> int:
        """Rows of a block: all, or a power of two, where Hadamard transforms begin."""
        row = self.dtype.itemsize * self.n_columns
        limit = min(most, max(_LEAST_BYTES, row * rows.count // _BLOCKS))
        return rows.count if row * rows.count <= limit else 1 << max(6, (limit // row).bit_length() - 1)

    def _on_block(self, rows: Rows) -> DeviceSource:
        """The rows were checked on the host, so there is no look at them here, which would wait for the card."""
        kind = DeviceSource if on_card(rows.A) else DeviceSparseSource
        block = kind.__new__(kind)
        block.A, block.b, block.weight, block.row_offset = rows.A, rows.b, rows.weight, rows.start
        block.dtype, block.rhs_shape, block.n_columns = self.dtype, self.rhs_shape, self.n_columns
        block.intercept, block.means, block.workers = self.intercept, self.means, self.workers
        return block

    # -- sweeps -----------------------------------------------------------------------------------------------------

    def compress(self, S: SketchOperator) -> CompressedProblem:
        if isinstance(S.family, SRHT):
            raise InvalidValueError(
                "SRHT() is one transform of all rows, and the rows are copied to the card in blocks; use BlockSRHT(), "
                'its mergeable form, or device="cpu"'
            )
        return super().compress(S)

    def _blocks_for(self, S: SketchOperator) -> Iterator[Rows]:
        sketch = 2 * S.sketch_size * self.n_columns * self.dtype.itemsize
        for block in self._crossing(self.host._blocks_for(S), min(max(_BLOCK_BYTES, sketch), _MOST_BYTES)):
            yield from block._blocks_for(S)

    def _sums(self, S: SketchOperator, rows: Rows) -> tuple[Sums, tuple[int, int]]:
        return self._on_block(rows)._sums(S, rows)

    def _residual(self, X: np.ndarray, *, rhs: bool) -> tuple[np.ndarray, np.ndarray]:
        squares, out = np.zeros(X.shape[1]), np.zeros(X.shape)
        for block in self._crossing(self.host.blocks()):
            part_squares, part = block._residual(X, rhs=rhs)
            squares += part_squares
            out += part
        return squares, out

    def gradient(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        squares, out = self._residual(self._as_x(X), rhs=True)
        return (squares, out) if self.rhs_shape else (squares[0], out[:, 0])

    def normal(self, P: Any) -> Any:
        """As that of `DeviceSource`."""
        from ..kernels.cuda.device import on_number

        found = -self._residual(np.ascontiguousarray(on_host(P), np.float64), rhs=False)[1]
        with on_number(self.card) as xp:
            return xp.asarray(found) if on_card(P) else found

    def gram(self, R: Any = None) -> tuple[Any, np.ndarray]:
        total, cross = None, np.zeros((self.n_columns, self.n_rhs))
        for block in self._crossing(self.host.blocks()):
            part, part_cross = block.gram(R)
            total = part if total is None else total + part
            cross += part_cross
        return np.zeros((self.n_columns, self.n_columns)) if total is None else total, cross

    def predict(self, X: np.ndarray) -> np.ndarray:
        parts = [on_host(block.predict(X)) for block in self._crossing(self.host.blocks())]
        return np.concatenate(parts) if parts else np.empty((0, *self.rhs_shape), self.dtype)

    def scores(self, X: np.ndarray) -> np.ndarray:
        parts = [on_host(block.scores(X)) for block in self._crossing(self.host.blocks())]
        return np.concatenate(parts) if parts else np.empty(0)

    def product(self, X: np.ndarray) -> np.ndarray:
        parts = [block.product(X) for block in self._crossing(self.host.blocks())]
        return np.concatenate(parts) if parts else np.empty((0, X.shape[1]))

    def triangle(self) -> tuple[np.ndarray, int]:
        from ..kernels.cuda.device import on_number

        R, m = None, 0
        for block in self._crossing(self.host.blocks()):
            m += block.n_rows
            with on_number(self.card):
                R = block.triangle_under(R)
        with on_number(self.card) as xp:
            width = int(self.intercept) + self.n_columns + self.n_rhs
            R = np.zeros((0, width)) if R is None else xp.asnumpy(R)
        if self.intercept:
            check_total(float(abs(R[0, 0])) if len(R) else 0.0)
        return R, m


def _joined(blocks: Iterator[Rows], settle: Callable[[], None]) -> Iterator[Rows]:
    """The blocks, with small ones joined: each would cost a copy and a sweep that are mostly latency.

    `settle` is called before the next is asked for, which may lie where this one did; so what is joined is copied.
    """
    few: list[Rows] = []
    for rows in blocks:
        if not isinstance(rows.A, np.ndarray):
            if few:
                yield _as_one(few)
                few = []
            yield rows
            settle()
            continue
        small = rows.A.nbytes < _LEAST_BYTES
        full = rows.A.nbytes + sum(part.A.nbytes for part in few) > _LEAST_BYTES
        if few and (full or (few[0].weight is None) != (rows.weight is None)):
            yield _as_one(few)
            few = []
        if small:
            weight = None if rows.weight is None else rows.weight.copy()
            few.append(rows._replace(A=rows.A.copy(), b=rows.b.copy(), weight=weight))
        else:
            yield rows
        settle()
    if few:
        yield _as_one(few)


def _as_one(few: list[Rows]) -> Rows:
    if len(few) == 1:
        return few[0]
    weight = None if few[0].weight is None else np.concatenate([part.weight for part in few])  # type: ignore
    return Rows(few[0].start, np.concatenate([p.A for p in few]), np.concatenate([p.b for p in few]), weight)


def _bytes(A: Any) -> int:
    """Of a CSR matrix."""
    return A.data.nbytes + A.indices.nbytes + A.indptr.nbytes


def _cuts(A: Any, most: int) -> Iterator[int]:
    """Where blocks of about `most` bytes begin, in a CSR matrix in host memory: a row at least each."""
    entries = max(1, min(most, max(_LEAST_BYTES, _bytes(A) // _BLOCKS)) // (A.data.itemsize + A.indices.itemsize))
    i = 0
    while i < A.shape[0]:
        yield i
        i = max(i + 1, int(np.searchsorted(A.indptr, A.indptr[i] + entries, side="right")) - 1)


def _entries(A: Any, i: int, j: int) -> tuple[np.ndarray, ...]:
    """The three arrays of A[i:j]; where no entry is stored, one that indptr leaves out: nothing cannot be copied."""
    first, stop = int(A.indptr[i]), int(A.indptr[j])
    if first == stop:
        return np.zeros(1, A.data.dtype), np.zeros(1, A.indices.dtype), np.zeros(j - i + 1, A.indptr.dtype)
    return A.data[first:stop], A.indices[first:stop], A.indptr[i : j + 1] - first
