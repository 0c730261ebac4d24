"""Sweeps over arrays on a card: the kernels with their grids and accumulators. Nothing with m rows leaves the card.

[A b 1] counts as one matrix of N = n + k + 1 columns. Rows come as `Rows`; S as what its kernels need.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from . import cuts
from .device import cupy, launch, shared_bytes

__all__ = ["Rows", "add_lanes", "column_sums", "dense", "gradient", "hadamard", "sparse_sign", "weighted"]

_LANES = 32  # of accumulators added up by one thread
_THREADS = 256
_BLOCK_BYTES = 64 << 20  # rows of a dense S realised at a time
_PANEL_BYTES = 16 << 20  # rows that Hadamard transforms keep in the L2 cache


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
        """The arguments that every kernel begins with."""
        return self.A, *strides(self.A), self.b, *strides(self.b), self.weight


def strides(array: Any) -> tuple[int, ...]:
    """In entries."""
    return tuple(s // array.itemsize for s in array.strides)


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


def sparse_sign(rows: Rows, key: int, d: int, nnz: int) -> tuple[Any, np.ndarray]:
    """S[A b 1] (d, N) on the card for `nnz` blocks, and the exact sums (N, 2 + k) on the host."""
    _, n, k = rows.shape
    held = min(k, cuts.MOST_RHS)
    out, sums = _sweep(rows, key, d, nnz, 0, held)
    SA = add_lanes(out, 1 / np.sqrt(nnz)) if nnz else out
    for first in range(held, k, held):
        _, more = _sweep(rows, key, d, 0, first, min(held, k - first))
        here = slice(n + first, n + min(first + held, k))
        sums[here, :2] = more[here, :2]
        sums = np.concatenate([sums, more[:, 2:]], axis=1)
    return SA, sums


def _sweep(rows: Rows, key: int, d: int, nnz: int, first_rhs: int, rhs: int) -> tuple[Any, np.ndarray]:
    (m, n, k), xp, dtype = rows.shape, cupy(), rows.b.dtype
    cut = cuts.sweep_cut(m, n + k + 1, d, nnz, dtype.itemsize, shared_bytes(), rhs)
    out = xp.empty((cut.lanes, d, n + k + 1) if nnz else (0,), dtype)
    sums = xp.zeros((cut.lanes * len(cut.parts), n + k + 1, 2 + rhs), np.float64)
    arguments = (
        *rows.memory, m, n, k, rows.start, np.uint64(key), d, nnz, *rows.scale, cut.lane_rows, xp.asarray(cut.parts),
        first_rhs, rhs, out, sums,
    )  # fmt: skip
    launch("sparse_sign", "sweep", rows.A.dtype, cut.grid, cuts.SWEEP_THREADS, arguments, cut.shared_bytes)
    return out, xp.asnumpy(add_lanes(sums))


def column_sums(rows: Rows) -> np.ndarray:
    """The exact sums (N, 2 + k) alone."""
    return sparse_sign(rows, 0, 0, 0)[1]


def weighted(rows: Rows, first: int, stop: int, dtype: Any) -> tuple[Any, Any, Any]:
    """√w·A·scale[0], √w·b·scale[1] and √w of some rows, in that dtype."""
    xp = cupy()
    A, b = rows.A[first:stop].astype(dtype, copy=False), rows.b[first:stop].astype(dtype, copy=False)
    root = xp.ones(len(A)) if rows.weight is None else xp.sqrt(rows.weight[first:stop])
    if rows.weight is not None or rows.scale != (1.0, 1.0):
        A = A * (root * rows.scale[0]).astype(dtype)[:, None]
        b = b * (root * rows.scale[1]).astype(dtype)[:, None]
    return A, b, root


def dense(rows: Rows, file: str, key: int, d: int) -> tuple[Any, np.ndarray]:
    """As `sparse_sign` for a dense S: its columns by `file`.cu, a block of rows at a time, and cuBLAS."""
    (m, n, k), xp, dtype = rows.shape, cupy(), rows.b.dtype
    SA = xp.zeros((d, n + k + 1), dtype)
    step = max(16, _BLOCK_BYTES // (d * dtype.itemsize))
    draws = -(-d // 2) if file == "gaussian" else -(-d // 32)
    for first in range(0, m, step):
        A, b, root = weighted(rows, first, first + step, dtype)
        count = len(A)
        St = xp.empty((count, d), dtype)
        _entrywise(file, "columns", dtype, count * draws, (np.uint64(key), rows.start + first, count, d, St))
        SA[:, :n] += St.T @ A
        SA[:, n:-1] += St.T @ b
        SA[:, -1] += St.T @ root.astype(dtype)
    return SA * dtype.type(1 / np.sqrt(d)), column_sums(rows)


def hadamard(
    rows: Rows, key: int, d: int, q: int, low: np.ndarray, high: np.ndarray, shared: bool
) -> tuple[Any, np.ndarray]:
    """As `sparse_sign` for Hadamard transforms of blocks of q rows, sampled as low, high (d,) and shared say."""
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
    return out * dtype.type(1 / np.sqrt(d)), column_sums(rows)


def gradient(A: Any, b: Any, weight: Any, means: Any, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(‖B − AX‖² (k,), Aᵀ(B − AX) (n, k)), on the host, for X (n, k) there: one read of A for a few columns of X.

    B is b, or 0 where b is None; A and B are less the means (n,), (k,) where there are any.
    """
    (m, n), k, xp = A.shape, X.shape[1], cupy()
    item = 8 if A.dtype == np.float64 else 4
    cut = cuts.gradient_cut(m, n, k, item, shared_bytes())
    a_mean, b_mean = (None, None) if means is None else (xp.asarray(means[0]), xp.asarray(means[1]))
    out, squares = xp.empty((cut.lanes, k, n)), xp.empty((cut.lanes, k))
    arguments = (
        A, *strides(A), b, *((0, 0) if b is None else strides(b)), weight, a_mean, b_mean,
        xp.asarray(np.ascontiguousarray(X.T)), m, n, k, cut.lane_rows, cut.step, int(cut.keep_rows), int(cut.keep_sums),
        out, squares,
    )  # fmt: skip
    launch("gradient", "gradient", A.dtype, (cut.lanes,), cuts.GRADIENT_THREADS, arguments, cut.shared_bytes)
    return xp.asnumpy(add_lanes(squares)), xp.asnumpy(add_lanes(out)).T
