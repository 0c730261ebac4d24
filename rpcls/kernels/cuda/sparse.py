"""Sweeps over compressed sparse rows on a card: the kernels of `csr.cu` with their grids and accumulators.

Work is cut by its shape alone, and every sum is in a fixed order.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .device import cupy, launch

__all__ = ["Entries", "compress", "gradient"]

_WARPS, _THREADS = 4, 128  # of a block of threads
_MOST_WARPS = 8192  # that keep every multiprocessor busy
_SPARE_BYTES = 128 << 20  # what accumulators may take, unless one takes more
_LEAST_ROWS = 32  # of a warp: fewer are not worth adding up
_SORTED_ROWS = 1 << 22  # whose rows of S are drawn and sorted at a time


class Entries(NamedTuple):
    """A (m, n) as compressed sparse rows: the columns of a row are distinct; indices and indptr are of one type."""

    data: Any
    indices: Any
    indptr: Any
    shape: tuple[int, int]


def _launch(name: str, A: Entries, count: int, arguments: tuple[Any, ...]) -> None:
    """A warp for each of `count`."""
    index = 64 if A.indices.dtype == np.int64 else 32
    launch("csr", name, A.data.dtype, (-(-count // _WARPS),), _THREADS, arguments, INDEX=index)


def _strides(b: Any) -> tuple[int, int]:
    """In entries."""
    return (0, 0) if b is None else tuple(s // b.itemsize for s in b.strides)


def _lanes(rows: int, bytes_of_lane: int) -> tuple[int, int]:
    """How many lanes, and of how many rows."""
    most = min(_MOST_WARPS, _SPARE_BYTES // max(1, bytes_of_lane), rows // _LEAST_ROWS)
    lane_rows = max(1, -(-rows // max(1, most)))
    return max(1, -(-rows // lane_rows)), lane_rows


def compress(
    A: Entries, b: Any, weight: Any, start: int, key: int, d: int, nnz: int, scale: tuple[float, float]
) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
    """SA (d, n) on the card, and on the host S[b 1] (d, k + 1) and the exact sums.

    For a sparse sign sketch of `nnz` blocks, of which column `start` meets row 0; b (m, k) is of the dtype of the
    products. The sums are those of columns of A (n, 2 + k): 1ᵀA, squared norms and Aᵀb; and (2k + 1,): bᵀ1, bᵀb, 1ᵀ1.
    """
    (m, n), k, xp, dtype = A.shape, b.shape[1], cupy(), b.dtype
    SA, side, edges = xp.zeros((d, n), dtype), xp.zeros((d, k + 1)), [z * d // nnz for z in range(nnz + 1)]
    for first in range(0, m, _SORTED_ROWS):
        count = min(_SORTED_ROWS, m - first)
        code, draws = xp.empty((nnz, count), np.uint32), count * (-(-nnz // 4))
        arguments = (np.uint64(key), start + first, count, d, nnz, code)
        launch("order", "codes", dtype, (-(-draws // _THREADS),), _THREADS, arguments)
        part = slice(first, first + count)
        rows = (
            A.data, A.indices, A.indptr[first:], b[part], *_strides(b), None if weight is None else weight[part],
        )  # fmt: skip
        for z in range(nnz):
            width, here = edges[z + 1] - edges[z], slice(edges[z], edges[z + 1])
            lanes, order, bounds = _order(code[z], edges[z], width, n * dtype.itemsize + 8 * (k + 1))
            out, beside = xp.zeros((lanes, width, n), dtype), xp.zeros((lanes, width, k + 1))
            _launch(
                "gather", A, lanes * width, (*rows, n, k, *scale, code[z], order, bounds, lanes * width, out, beside)
            )
            SA[here] += out.sum(axis=0)
            side[here] += beside.sum(axis=0)
    root = 1 / float(np.sqrt(nnz))
    lanes, lane_rows = _lanes(m, 8 * n * (2 + k))
    sums, totals = xp.zeros((lanes, n, 2 + k)), xp.zeros((lanes, 2 * k + 1))
    arguments = (
        A.data, A.indices, A.indptr, b, *_strides(b), weight, m, n, k, *scale, lane_rows, sums, totals,
    )  # fmt: skip
    _launch("column_sums", A, lanes, arguments)
    small = (xp.asnumpy(part) for part in (side * root, sums.sum(axis=0), totals.sum(axis=0)))
    return SA * dtype.type(root), *small


def _order(code: Any, first: int, width: int, bytes_of_row: int) -> tuple[int, Any, Any]:
    """Rows of A sorted by lane, row of S and row of A, and where those of each row of S in each lane begin.

    The `width` rows of a block are fewer than the warps that a card can hold, so each is summed in several lanes.
    """
    xp, count = cupy(), len(code)
    most = max(1, min(_MOST_WARPS // width, _SPARE_BYTES // (width * bytes_of_row), count // _LEAST_ROWS))
    lane_rows = -(-count // most)
    lanes = -(-count // lane_rows)
    row = xp.arange(count, dtype=np.int64)
    target = (code >> np.uint32(1)).astype(np.int64) - first
    key = (row // lane_rows * width + target) * count + row  # no two are equal, so there is one order
    key.sort()
    return lanes, key % count, xp.searchsorted(key, xp.arange(lanes * width + 1, dtype=np.int64) * count)


def gradient(A: Entries, b: Any, weight: Any, means: Any, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `sweeps.gradient`."""
    (m, n), k, xp = A.shape, X.shape[1], cupy()
    lanes, lane_rows = _lanes(m, 8 * n * k)
    shift = np.zeros(k) if means is None else means[1] - means[0] @ X
    sums = xp.zeros((lanes, k, n)), xp.zeros((lanes, k)), xp.zeros((lanes, k))
    there = xp.asarray(np.ascontiguousarray(X.T))
    arguments = (
        A.data, A.indices, A.indptr, b, *_strides(b), weight, there, xp.asarray(shift), m, n, k, lane_rows, *sums,
    )  # fmt: skip
    _launch("gradient", A, lanes, arguments)
    out, squares, totals = (xp.asnumpy(part.sum(axis=0)) for part in sums)
    if means is not None:
        out = out - np.multiply.outer(totals, means[0])
    return squares, out.T
