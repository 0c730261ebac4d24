"""How work is cut for a card: by its shape and the shared memory of a block alone, so that results keep their bits.

The numbers in capitals are those of the `.cu` files.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

__all__ = ["GRADIENT_THREADS", "MOST_RHS", "SWEEP_THREADS", "GradientCut", "SweepCut", "gradient_cut", "sweep_cut"]

TILE, SWEEP_THREADS, MOST_RHS = 32, 1024, 4  # panel.cuh
GRADIENT_THREADS, WARPS, RUN = 256, 8, 4  # gradient.cu

_MOST_BLOCKS = 16  # blocks of a sparse sign sketch in one part: their codes take shared memory, too
_GRID = 2048  # blocks of a grid that keep every multiprocessor busy to the end
_SPARE_BYTES = 128 << 20  # what the accumulators of all lanes may take, unless one takes more
_LEAST_PANELS = 8  # of a lane: fewer are not worth adding up
_RESIDENT = 3  # gradient blocks on one multiprocessor


class SweepCut(NamedTuple):
    """The grid of `sparse_sign.sweep`; parts are rows of (first row of S, rows, first block, blocks)."""

    tiles: int
    parts: np.ndarray
    lanes: int
    lane_rows: int
    shared_bytes: int

    @property
    def grid(self) -> tuple[int, int, int]:
        return self.tiles, len(self.parts), self.lanes


def sweep_cut(
    rows: int, columns: int, sketch_size: int, nnz: int, itemsize: int, shared_bytes: int, rhs: int = 1
) -> SweepCut:
    """Cut a sweep over `columns` columns of [A b 1] under a sparse sign sketch; nnz = 0 takes the sums alone.

    Parameters
    ----------
    itemsize : int
        Of the products: 8 for float64, else 4.
    shared_bytes : int
        What a block may have at most.
    rhs : int
        Right-hand sides whose products with the columns are taken, at most MOST_RHS.
    """
    panel = 1024 // itemsize
    fixed = 16 * panel * (1 + rhs) + itemsize * panel * (TILE + 1)

    def room(blocks: int) -> int:
        return (shared_bytes - fixed - 4 * (2 * panel * blocks + blocks + 1)) // (itemsize * TILE)

    parts = _parts(sketch_size, nnz, room) if nnz else np.zeros((1, 4), np.int64)
    shared = max(fixed + itemsize * TILE * int(p[1]) + 4 * int(2 * panel * p[3] + p[3] + 1) for p in parts)
    tiles = -(-columns // TILE)
    bytes_of_lane = itemsize * max(1, sketch_size * columns if nnz else columns)
    most = min(_GRID // (tiles * len(parts)), _SPARE_BYTES // bytes_of_lane, rows // (panel * _LEAST_PANELS))
    lane_rows = -(-rows // max(1, most) // panel) * panel or panel
    return SweepCut(tiles, parts, max(1, -(-rows // lane_rows)), lane_rows, shared)


def _parts(d: int, nnz: int, room: Callable[[int], int]) -> np.ndarray:
    """Blocks of S shared out evenly among as few parts as hold them, or, where one is too large, its rows."""
    edges = np.arange(nnz + 1, dtype=np.int64) * d // nnz
    largest = int(np.diff(edges).max())
    blocks = min(nnz, _MOST_BLOCKS)
    while blocks > 1 and largest * blocks > room(blocks):
        blocks -= 1
    if largest <= room(blocks):
        cuts = np.linspace(0, nnz, -(-nnz // blocks) + 1).astype(np.int64)
        return np.array([(edges[a], edges[b] - edges[a], a, b - a) for a, b in itertools.pairwise(cuts)])
    shares = -(-largest // room(1))
    parts = []
    for z in range(nnz):
        cuts = np.linspace(edges[z], edges[z + 1], shares + 1).astype(np.int64)
        parts += [(a, b - a, z, 1) for a, b in itertools.pairwise(cuts) if b > a]
    return np.array(parts)


class GradientCut(NamedTuple):
    """The grid of `gradient.gradient`."""

    lanes: int
    lane_rows: int
    step: int
    keep_rows: bool
    keep_sums: bool
    shared_bytes: int


def gradient_cut(rows: int, n: int, k: int, itemsize: int, shared_bytes: int) -> GradientCut:
    """Cut a gradient sweep over rows of n columns for k right-hand sides; as many rows at a time as find room."""
    groups = max(1, GRADIENT_THREADS // n)
    sums, row, fixed = 8 * groups * k * n, 8 * k + itemsize * (n | 1), 8 * WARPS * k
    for room, keep_rows, keep_sums in (
        (shared_bytes // _RESIDENT, True, True),
        (shared_bytes, True, True),
        (shared_bytes, True, False),
        (shared_bytes, False, False),
    ):
        own = row if keep_rows else 8 * k
        base = fixed + (sums if keep_sums else 0)
        step = min((room - base) // own, 16 * RUN * WARPS)
        if step >= (RUN if keep_rows else 1):
            break
    else:
        raise ValueError(f"{k} right-hand sides do not fit a block; take fewer at a time")
    step -= step % RUN if step >= RUN else 0
    most = min(_GRID, _SPARE_BYTES // (8 * k * n), rows // (_LEAST_PANELS * step))
    lane_rows = -(-rows // max(1, most) // step) * step or step
    return GradientCut(max(1, -(-rows // lane_rows)), lane_rows, step, keep_rows, keep_sums, base + own * step)
