"""How work is cut for a card: by its shape and the shared memory of a block alone, so that results keep their bits.

The numbers in capitals are those of the `.cu` files.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

__all__ = [
    "GATHER_WARPS", "ORDER_THREADS", "PANEL_THREADS", "QUADS_THREADS", "GatherCut", "GradientCut", "Lists", "PanelCut",
    "gather_cut", "gradient_cut", "lists_for_gather", "panel_cut", "spans",
]  # fmt: skip

WARP = 32
ORDER_THREADS, QUADS_THREADS, MOST_BLOCKS, PLACE_BITS = 512, 1024, 16, 14  # entries.cuh, quads.cu, order.cu
GATHER_WARPS, MOST_SPAN = 8, 8  # gather.cu, rows.cuh
PANEL_THREADS, QUAD, MOST_SLOTS, ROOMS, ROW_BYTES = 1024, 4, 8, 3, 128  # panels.cu, quads.cuh
MOST_WARPS = 16  # gradient.cu: a team's

_BLOCKS = 16 * 132  # of a grid: many for each multiprocessor, and a multiple of how many H100 and H200 have
_LEAST = 16  # rows of A that an accumulator should meet: fewer are not worth adding up
_TEAM_ROWS = 64  # the fewest of a team of the gradient sweep
_STRETCH = 12  # panels: catching up ends with a stretch, and longer ones take more shared memory to list
_SORTED = 64  # entries of a row of S in a stretch: sorting takes their square, and rows that have many differ little
_PLACES = 1 << 11  # of rows of A that entries count in the rooms of panels


class Lists(NamedTuple):
    """The grid of `order.order`.

    parts are rows of (first row of S, rows, first block, blocks); lanes of lane_rows rows of A each; room for
    `capacity` entries of a lane, and `width` rows, in a part.
    """

    parts: np.ndarray
    lanes: int
    lane_rows: int
    capacity: int
    width: int

    @property
    def shared_bytes(self) -> int:
        return _list_bytes(self.width, 4 * self.capacity)


def _list_bytes(counts: int, bytes_of_entries: int, threads: int = ORDER_THREADS) -> int:
    return 4 * (counts + threads // WARP + MOST_BLOCKS + 1) + bytes_of_entries


def lists_for_gather(rows: int, sketch_size: int, nnz: int, shared_bytes: int) -> Lists:
    """Cut the lists of a sketch whose blocks are gathered one by one."""
    lane_rows = 1 << 13
    while _list_bytes(0, 4 * lane_rows) > shared_bytes // 2:
        lane_rows //= 2
    room = min(1 << PLACE_BITS, (shared_bytes - _list_bytes(0, 4 * lane_rows)) // 4)
    parts = _parts(sketch_size, nnz, lambda blocks: room if blocks == 1 else 0)
    return Lists(parts, -(-rows // lane_rows), lane_rows, lane_rows, int(parts[:, 1].max()))


class GatherCut(NamedTuple):
    """The grid of `gather.gather`: a warp takes rows_each rows of S and lanes_each lanes of A."""

    lanes_each: int
    rows_each: int
    groups: int


def gather_cut(lists: Lists, rows: int, part_rows: int, tiles: int) -> GatherCut:
    """Cut a gather of `tiles` tiles of columns over one part."""
    warps = GATHER_WARPS * _BLOCKS
    groups = max(1, min(lists.lanes, warps // (part_rows * tiles), rows // (_LEAST * part_rows)))
    lanes_each = max(1, -(-lists.lanes // groups))
    rows_each = max(1, part_rows * tiles // warps)
    return GatherCut(lanes_each, rows_each, max(1, -(-lists.lanes // lanes_each)))


def spans(columns: int, most: int = MOST_SPAN) -> tuple[int, int]:
    """(warps, span): how many warps with `span` columns a lane cover the columns; span at most `most`."""
    groups = max(1, -(-columns // WARP))
    warps = -(-groups // most)
    return warps, -(-groups // warps)


class PanelCut(NamedTuple):
    """The grids of `quads.quads` and `panels.panels`.

    Stretches of `panels` panels of panel_rows rows of A, with room for `capacity` words of the list of each; warps take
    `slots` quads of rows of S, blocks one of `groups` even shares of the stretches.
    """

    parts: np.ndarray
    panel_rows: int
    panels: int
    stretches: int
    capacity: int
    slots: int
    tiles: int
    groups: int
    shared_bytes: int

    @property
    def quads(self) -> int:
        return PANEL_THREADS // WARP * self.slots

    @property
    def bytes_of_lists(self) -> int:
        """Of all stretches, on the card."""
        return 4 * len(self.parts) * self.stretches * (self.capacity + self.panels * self.quads + 1)

    @property
    def bytes_to_list(self) -> int:
        """Shared memory of a block of `quads`."""
        return _quad_bytes(self.quads, self.panels, int(self.parts[:, 3].max()) * self.panels * self.panel_rows)


def _quad_bytes(quads: int, panels: int, entries: int) -> int:
    return _list_bytes((QUAD + 1) * panels * quads + 1, 2 * entries, QUADS_THREADS)


def panel_cut(rows: int, columns: int, sketch_size: int, nnz: int, itemsize: int, shared_bytes: int) -> PanelCut | None:
    """Cut a sweep over `columns` columns under a sparse sign sketch; itemsize is that of the products, 4 or 8.

    None where SA is so large that its parts would go over A nearly as often as its blocks do: a gather of one block
    takes half the time of a part.
    """
    warps = PANEL_THREADS // WARP
    step = 2 * warps  # of rows that all warps bring, where one brings two at a time
    room = (shared_bytes - ROW_BYTES) // (ROOMS * ROW_BYTES + 8)  # beside a row of zeros, and with b in double
    panel_rows = min(room, (_PLACES - 1) // ROOMS) // step * step
    parts = _parts(sketch_size, nnz, lambda _: warps * MOST_SLOTS * QUAD)
    if 2 * len(parts) > nnz:
        return None
    slots = -(-int(parts[:, 1].max()) // (warps * QUAD))
    quads, blocks_of_part = warps * slots, int(parts[:, 3].max())
    tiles = -(-columns * itemsize // ROW_BYTES)
    blocks = _BLOCKS // 2  # each has a multiprocessor to itself
    all_panels = -(-rows // panel_rows)
    few = _SORTED * sketch_size // (nnz * panel_rows)
    panels = max(1, min(_STRETCH, few, all_panels * tiles * len(parts) // (blocks // 4)))
    while panels > 1 and _quad_bytes(quads, panels, blocks_of_part * panels * panel_rows) > shared_bytes:
        panels -= 1
    stretches = -(-all_panels // panels)
    # Two words a step, and no more steps than a quad has entries, but for one in a phase that makes them even.
    most = blocks_of_part * panels * panel_rows
    capacity = 2 * (most + min(most, panels * quads)) + WARP  # which the sweep may read ahead
    groups = max(1, min(stretches, blocks // (tiles * len(parts)), rows * nnz // (_LEAST * sketch_size)))
    return PanelCut(
        parts, panel_rows, panels, stretches, capacity, slots, tiles, groups,
        ROW_BYTES * (ROOMS * panel_rows + 1) + 8 * panel_rows,
    )  # fmt: skip


def _parts(d: int, nnz: int, room: Callable[[int], int]) -> np.ndarray:
    """Blocks of S shared out evenly among as few parts as hold them, or, where one is too large, its rows."""
    edges = np.arange(nnz + 1, dtype=np.int64) * d // nnz
    largest = int(np.diff(edges).max())
    blocks = min(nnz, MOST_BLOCKS)
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
    """The grid of `gradient.gradient`: teams of `warps` warps take lane_rows rows each."""

    warps: int
    span: int
    teams: int
    lane_rows: int
    blocks: int
    threads: int
    shared_bytes: int


def gradient_cut(rows: int, n: int, rhs: int) -> GradientCut:
    """Cut a gradient sweep over rows of n columns, at most 2048, for one or two right-hand sides."""
    warps, span = spans(n, MOST_SPAN // rhs)
    each = 1 if warps > 1 else 8  # teams of a block
    most = _BLOCKS * (8 if warps == 1 else 1)
    lane_rows = max(_TEAM_ROWS, -(-rows // most))
    lane_rows += -lane_rows % 8  # of whole runs
    teams = max(1, -(-rows // lane_rows))
    threads = 256 if warps == 1 else WARP * warps
    return GradientCut(warps, span, teams, lane_rows, -(-teams // each), threads, 8 * 2 * 8 * rhs * warps)
