"""Sweeps over arrays on a card: the kernels with their grids and accumulators. Nothing with m rows leaves the card.

Rows come as `Rows`, S as what its kernels need; what is left is a `Swept`. The kernels of sparse sketches and of the
gradient read rows that are contiguous; other rows are copied on the card, a block at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from .. import on_card
from . import cuts
from .device import cupy, launch, shared_bytes

__all__ = [
    "Rows",
    "Swept",
    "add_lanes",
    "dense",
    "exact",
    "gradient",
    "gradient_fits",
    "hadamard",
    "sparse_sign",
    "weighted",
]

_LANES = 32  # of accumulators added up by one thread
_THREADS = 256
_BLOCK_BYTES = 64 << 20  # rows of a dense S realised at a time
_COPY_BYTES = 256 << 20  # rows that are not contiguous copied at a time
_LIST_BYTES = 5 << 28  # that the entries of a sparse S may take: 16 million rows and SparseSign(8) at d = 1024
_PANEL_BYTES = 16 << 20  # rows that Hadamard transforms keep in the L2 cache
_TOTAL_ROWS = 1 << 14  # rows of b that a block adds up
_SIDE_GROUPS, _SIDE_BYTES = 512, 64 << 20  # of lanes, in the sketch of b, and what they may take


class Rows(NamedTuple):
    """Rows on one card, of which row 0 is column `start` of S; A (m, n), b (m, k) in the dtype of the products,
    weight (m,) float64 or None. A is multiplied by scale[0], b by scale[1]."""

    A: Any
    b: Any
    weight: Any
    start: int
    scale: tuple[float, float]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(m, n, k)."""
        return self.A.shape[0], self.A.shape[1], self.b.shape[1]

    @property
    def memory(self) -> tuple[Any, ...]:
        """The arguments that kernels for rows of any layout begin with."""
        return self.A, *strides(self.A), self.b, *strides(self.b), self.weight

    @property
    def contiguous(self) -> tuple[Any, ...]:
        """The arguments that kernels for contiguous rows and one right-hand side begin with."""
        m, n, _ = self.shape
        return self.A, strides(self.A)[0], self.b, strides(self.b)[0], self.weight, m, n, *self.scale


class Swept(NamedTuple):
    """SA (d, n) on the card, and on the host, in float64: S[b 1] (d, k + 1), 1ᵀA, squared norms and Aᵀb as columns
    (n, 2 + k), 1ᵀb and squared norms of b (2, k), and the total weight."""

    SA: Any
    sides: np.ndarray
    columns: np.ndarray
    right: np.ndarray
    weight: float

    def plus(self, other: Swept) -> Swept:
        """The sweep over the rows of both."""
        return Swept(
            self.SA + other.SA,
            self.sides + other.sides,
            self.columns + other.columns,
            self.right + other.right,
            self.weight + other.weight,
        )


def strides(array: Any) -> tuple[int, ...]:
    """In entries."""
    return tuple(s // array.itemsize for s in array.strides)


def _contiguous(A: Any, most: int | None = None) -> Iterator[tuple[int, int, Any]]:
    """(first, stop, A[first:stop]) with contiguous rows, at most `most`: as they are, or copies of some at a time."""
    m, n = A.shape
    copy = strides(A)[1] != 1 and n > 1
    step = max(1, _COPY_BYTES // (A.itemsize * n)) if copy else max(1, m)
    step = step if most is None else min(step, most)
    for i in range(0, max(1, m), step):
        some = A[i : i + step]
        yield i, min(m, i + step), cupy().ascontiguousarray(some) if copy else some


def _parts(rows: Rows, most: int | None = None) -> Iterator[Rows]:
    for i, j, A in _contiguous(rows.A, most):
        weight = None if rows.weight is None else rows.weight[i:j]
        yield rows._replace(A=A, b=rows.b[i:j], weight=weight, start=rows.start + i)


def _entrywise(file: str, name: str, dtype: Any, count: int, arguments: tuple[Any, ...], groups: int = 1) -> None:
    if count:
        launch(file, name, dtype, (-(-count // _THREADS), groups), _THREADS, arguments)


def add_lanes(parts: Any, factor: float = 1.0) -> Any:
    """factor · Σ of parts (lanes, …) over lanes, in a fixed order, in double."""
    name = "add_up_double" if parts.dtype == np.float64 else "add_up"
    while parts.shape[0] > 1 or factor != 1.0:
        lanes, size = parts.shape[0], parts[0].size
        groups = -(-lanes // _LANES)
        out = cupy().empty((groups, *parts.shape[1:]), parts.dtype)
        last = factor if groups == 1 else 1.0
        _entrywise("lanes", name, parts.dtype, size, (parts, lanes, _LANES, size, last, out), groups)
        parts, factor = out, factor if groups > 1 else 1.0
    return parts[0]


# -- sparse sign sketches -----------------------------------------------------------------------------


def sparse_sign(rows: Rows, key: int, d: int, nnz: int) -> Swept:
    """The sweep under a sparse sign sketch of `nnz` blocks."""
    swept, (m, n, k) = None, rows.shape
    if m == 0:
        zeros = np.zeros((d, k + 1)), np.zeros((n, 2 + k)), np.zeros((2, k)), 0.0
        return Swept(cupy().zeros((d, n), rows.b.dtype), *zeros)
    cut = cuts.panel_cut(m, n, d, nnz, rows.b.dtype.itemsize, shared_bytes()) if nnz > 1 else None
    listed = 8 * nnz * m  # for a gather: an entry, and a share of its bounds
    if cut is not None:
        listed = cut.bytes_of_lists + 8 * cut.stretches * d * (k + 1)
    for part in _parts(rows, -(-m // -(-listed // _LIST_BYTES))):
        one = _sparse_sign(part, key, d, nnz)
        swept = one if swept is None else swept.plus(one)
    assert swept is not None
    return swept


def _sparse_sign(rows: Rows, key: int, d: int, nnz: int) -> Swept:
    (m, n, _), xp = rows.shape, cupy()
    cut = cuts.panel_cut(m, n, d, nnz, rows.b.dtype.itemsize, shared_bytes()) if nnz > 1 else None
    SA, sums, sides = _gather(rows, key, d, nnz) if cut is None else _panels(rows, cut, key, d, nnz)
    factor = 1 / np.sqrt(nnz)
    # All is under way before anything is waited for.
    SA, sides, sums, totals = add_lanes(SA, factor), add_lanes(sides, factor), add_lanes(sums)[None], _totals(rows)
    columns = _columns(rows, sums)
    return Swept(SA, xp.asnumpy(sides), columns, *_told(totals))


def _sides(rows: Rows, lists: cuts.Lists, parts: Any, entries: Any, bounds: Any, d: int) -> Any:
    """√nnz·S[b 1] (·, d, k + 1) from the lists of a gather."""
    k = rows.b.shape[1]
    groups = min(lists.lanes, _SIDE_GROUPS, max(1, _SIDE_BYTES // (8 * d * (k + 1))))
    each = -(-lists.lanes // groups)
    sides = cupy().empty((-(-lists.lanes // each), d, k + 1))
    launch(
        "sides", "sides", rows.b.dtype, (-(-lists.width // _THREADS), len(parts), len(sides)), _THREADS,
        (rows.b, *strides(rows.b), rows.weight, k, rows.scale[1], d, parts, entries, bounds, lists.lanes,
         lists.lane_rows, lists.capacity, lists.width, each, sides),
    )  # fmt: skip
    return sides


def _gather(rows: Rows, key: int, d: int, nnz: int) -> tuple[Any, Any, Any]:
    """√nnz·SA (·, d, n), the sums (·, 3, n) of the rows and √nnz·S[b 1] (·, d, k + 1), on the card.

    The parts of one block make the sums.
    """
    (m, n, _), xp = rows.shape, cupy()
    lists = cuts.lists_for_gather(m, d, nnz, shared_bytes())
    parts, grid = xp.asarray(lists.parts), (len(lists.parts), lists.lanes)
    entries, bounds = xp.empty((*grid, lists.capacity), np.uint32), xp.empty((*grid, lists.width), np.uint32)
    launch(
        "order", "order", rows.b.dtype, grid[::-1], cuts.ORDER_THREADS,
        (np.uint64(key), rows.start, m, d, nnz, parts, lists.lane_rows, lists.capacity, lists.width, entries, bounds),
        lists.shared_bytes,
    )  # fmt: skip
    tiles, span = cuts.spans(n)
    cut = cuts.gather_cut(lists, m, lists.width, tiles)
    down = -(-lists.width // (cuts.GATHER_WARPS * cut.rows_each))
    exact = int((lists.parts[:, 2] == 0).sum())
    out, sums = xp.empty((cut.groups, d, n), rows.b.dtype), xp.empty((exact, cut.groups * down, 3, n))
    for p, part in enumerate(lists.parts):
        launch(
            "gather", "gather", rows.A.dtype, (tiles, down, cut.groups), 32 * cuts.GATHER_WARPS,
            (*rows.contiguous, entries[p], bounds[p], lists.lanes, lists.lane_rows, lists.capacity, lists.width,
             cut.lanes_each, cut.rows_each, int(part[0]), int(part[1]), d, out, sums[p] if p < exact else None),
            8 * 32 * cuts.GATHER_WARPS, SPAN=span, EXACT=int(p < exact),
        )  # fmt: skip
    return out, sums.reshape(-1, 3, n), _sides(rows, lists, parts, entries, bounds, d)


def _panels(rows: Rows, cut: cuts.PanelCut, key: int, d: int, nnz: int) -> tuple[Any, Any, Any]:
    """As `_gather`."""
    (m, n, k), xp = rows.shape, cupy()
    parts, grid = xp.asarray(cut.parts), (len(cut.parts), cut.stretches)
    entries = xp.empty((*grid, cut.capacity), np.uint32)
    starts = xp.empty((*grid, cut.panels * cut.quads + 1), np.uint32)
    sides = xp.empty((cut.stretches, d, k + 1))
    launch(
        "quads", "quads", rows.b.dtype, grid[::-1], cuts.QUADS_THREADS,
        (np.uint64(key), rows.start, m, d, nnz, parts, cut.panel_rows, cut.panels, cut.capacity, cut.quads, rows.b,
         *strides(rows.b), rows.weight, k, rows.scale[1], entries, starts, sides),
        cut.bytes_to_list,
    )  # fmt: skip
    out, sums = xp.empty((cut.groups, d, n), rows.b.dtype), xp.empty((cut.groups, 3, n))
    launch(
        "panels", "panels", rows.A.dtype, (cut.tiles, len(parts), cut.groups), cuts.PANEL_THREADS,
        (*rows.contiguous, parts, entries, starts, cut.stretches, cut.panels, cut.capacity, d, out, sums),
        cut.shared_bytes, PANEL=cut.panel_rows, SLOTS=cut.slots,
        PLAIN=int(rows.weight is None and rows.scale == (1.0, 1.0)),
    )  # fmt: skip
    return out, sums, sides


# -- exact sums ---------------------------------------------------------------------------------------


def exact(rows: Rows) -> tuple[np.ndarray, np.ndarray, float]:
    """The columns, right and weight of a `Swept`."""
    n, xp = rows.A.shape[1], cupy()
    tiles, span = cuts.spans(n)
    found = []
    for part in _parts(rows):
        count = len(part.A)
        lane_rows = max(256, -(-count // 2048))
        lanes = -(-count // lane_rows)
        sums = xp.empty((lanes, 3, n)) if lanes else xp.zeros((1, 3, n))
        if lanes:
            launch(
                "gather", "column_sums", rows.A.dtype, (tiles, lanes), 32 * cuts.GATHER_WARPS,
                (*part.contiguous, lane_rows, sums), 8 * 32 * cuts.GATHER_WARPS, SPAN=span,
            )  # fmt: skip
        found.append(_columns(part, sums))
    return sum(found[1:], found[0]), *_told(_totals(rows))


def _columns(rows: Rows, sums: Any) -> np.ndarray:
    """1ᵀA, squared norms and Aᵀb from the kernels' sums; the first column of b is in them, more take another look."""
    (m, n, k), xp = rows.shape, cupy()
    columns = np.empty((n, 2 + k))
    columns[:, :3] = xp.asnumpy(add_lanes(sums)).T
    if k > 1:
        products, step = xp.zeros((n, k)), max(1, _BLOCK_BYTES // (8 * n))
        for i in range(0, m, step):
            A, b, _ = weighted(rows, i, i + step, np.float64)
            products += A.T @ b
        columns[:, 2:] = xp.asnumpy(products)
    return columns


def _totals(rows: Rows) -> Any:
    """1ᵀb, squared norms of b and the total weight, (2k + 1,) on the card."""
    (m, _, k), xp = rows.shape, cupy()
    lanes = -(-m // _TOTAL_ROWS)
    if lanes == 0:
        return xp.zeros(2 * k + 1)
    out = xp.empty((lanes, 2 * k + 1))
    arguments = (rows.b, *strides(rows.b), rows.weight, m, k, rows.scale[1], _TOTAL_ROWS, out)
    launch("sides", "totals", rows.b.dtype, (lanes,), _THREADS, arguments, 8 * 3 * _THREADS // 32)
    return add_lanes(out)


def _told(totals: Any) -> tuple[np.ndarray, float]:
    """The right and weight of a `Swept`."""
    found = cupy().asnumpy(totals)
    return found[:-1].reshape(2, -1), float(found[-1])


# -- other sketches -----------------------------------------------------------------------------------


def weighted(rows: Rows, first: int, stop: int, dtype: Any) -> tuple[Any, Any, Any]:
    """√w·A·scale[0], √w·b·scale[1] and √w of some rows, in that dtype."""
    xp = cupy()
    A, b = rows.A[first:stop].astype(dtype, copy=False), rows.b[first:stop].astype(dtype, copy=False)
    root = xp.ones(len(A)) if rows.weight is None else xp.sqrt(rows.weight[first:stop])
    if rows.weight is not None or rows.scale != (1.0, 1.0):
        A = A * (root * rows.scale[0]).astype(dtype)[:, None]
        b = b * (root * rows.scale[1]).astype(dtype)[:, None]
    return A, b, root


def dense(rows: Rows, file: str, key: int, d: int) -> Swept:
    """The sweep under a dense S: its columns by `file`.cu, a block of rows at a time, and cuBLAS."""
    (m, n, k), xp, dtype = rows.shape, cupy(), rows.b.dtype
    SA, sides = xp.zeros((d, n), dtype), xp.zeros((d, k + 1))
    step = max(16, _BLOCK_BYTES // (d * dtype.itemsize))
    draws = -(-d // 2) if file == "gaussian" else -(-d // 32)
    for first in range(0, m, step):
        A, b, root = weighted(rows, first, first + step, dtype)
        count = len(A)
        St = xp.empty((count, d), dtype)
        _entrywise(file, "columns", dtype, count * draws, (np.uint64(key), rows.start + first, count, d, St))
        SA += St.T @ A
        sides[:, :k] += St.T @ b
        sides[:, k] += St.T @ root.astype(dtype)
    factor = 1 / np.sqrt(d)
    return Swept(SA * dtype.type(factor), xp.asnumpy(sides) * factor, *exact(rows))


def hadamard(rows: Rows, key: int, d: int, q: int, low: np.ndarray, high: np.ndarray, shared: bool) -> Swept:
    """The sweep under Hadamard transforms of blocks of q rows, sampled as low, high (d,) and shared say."""
    (m, n, k), xp, dtype = rows.shape, cupy(), rows.b.dtype
    N, key_word, start = n + k + 1, np.uint64(key), rows.start
    on_card, high_there = xp.asarray(low), xp.asarray(high)
    out = xp.zeros((d, N), dtype)
    blocks = max(1, _PANEL_BYTES // (q * N * dtype.itemsize))
    levels = q.bit_length() - 1
    for first in range(start // q, -(-(start + m) // q), blocks):
        here = min(blocks, -(-(start + m) // q) - first)
        size = here * q
        sign, whole = xp.empty(size, np.int8), xp.empty((here, d), np.int8)
        panel = xp.empty((size, N), dtype)
        _entrywise("hadamard", "signs", dtype, size, (key_word, first * q, size, sign))
        _entrywise(
            "hadamard", "block_signs", dtype, here * d, (key_word, first, here, high_there, int(shared), d, whole)
        )
        arguments = (*rows.memory, m, n, k, start, *rows.scale, first * q, size, sign, panel)
        _entrywise("hadamard", "place", rows.A.dtype, size * N, arguments)
        for level in range(0, levels, 4):
            step = min(4, levels - level)
            _entrywise("hadamard", "transform", dtype, (size >> step) * N, (panel, size, N, level, step))
        _entrywise("hadamard", "add_rows", dtype, d * N, (panel, here, q, N, d, on_card, whole, out))
    out *= dtype.type(1 / np.sqrt(d))
    sides = xp.asnumpy(out[:, n:]).astype(np.float64)
    return Swept(xp.ascontiguousarray(out[:, :n]), sides, *exact(rows))


# -- going back to the rows ---------------------------------------------------------------------------


def gradient_fits(n: int) -> bool:
    """Whether rows of n columns are short enough for `gradient`."""
    return n <= 32 * cuts.MOST_SPAN * cuts.MOST_WARPS // 2


def gradient(A: Any, b: Any, weight: Any, means: Any, X: Any) -> tuple[Any, Any]:
    """(‖B − AX‖² (k,), Aᵀ(B − AX) (n, k)), there where X (n, k) is: one read of A for each two columns of X.

    B is b, or 0 where b is None; A and B are less the means (n,), (k,) where there are any.
    """
    k, xp, there = X.shape[1], cupy(), on_card(X)
    a_mean, b_mean = (None, None) if means is None else (xp.asarray(means[0]), xp.asarray(means[1]))
    XT = xp.ascontiguousarray(X.T) if there else xp.asarray(np.ascontiguousarray(X.T))
    sums: dict[int, tuple[Any, Any]] = {}
    for i, j, block in _contiguous(A):
        w = None if weight is None else weight[i:j]
        for first in range(0, k, 2):
            here = slice(first, first + 2)
            right = None if b is None else b[i:j, here]
            found = _gradient(block, right, w, a_mean, None if b_mean is None else b_mean[here], XT[here])
            before = sums.get(first)
            sums[first] = found if before is None else (before[0] + found[0], before[1] + found[1])
    pairs = list(sums.values())
    squares, out = (
        pairs[0] if k <= 2 else (xp.concatenate(parts, axis=0) for parts in map(list, zip(*pairs, strict=True)))
    )
    return (squares, out.T) if there else (xp.asnumpy(squares), xp.asnumpy(out).T)


def _gradient(A: Any, b: Any, weight: Any, a_mean: Any, b_mean: Any, XT: Any) -> tuple[Any, Any]:
    (m, n), k, xp = A.shape, XT.shape[0], cupy()
    cut = cuts.gradient_cut(m, n, k)
    out, squares = xp.empty((cut.teams, k, n)), xp.empty((cut.teams, k))
    arguments = (
        A, strides(A)[0], b, *((0, 0) if b is None else strides(b)), weight, a_mean, b_mean, XT, m, n, cut.teams,
        cut.lane_rows, out, squares,
    )  # fmt: skip
    launch(
        "gradient", "gradient", A.dtype, (cut.blocks,), cut.threads, arguments, cut.shared_bytes,
        SPAN=cut.span, WARPS=cut.warps, RHS=k,
    )  # fmt: skip
    return add_lanes(squares), add_lanes(out)
