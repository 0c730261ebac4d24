"""The driver of the tiled kernels: cut the work by shape, run a serial kernel on every task, put the sums together."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from ..kernels import lanes
from .base import Sums

__all__ = ["Cut", "panel_rows", "sweep"]


class Cut:
    """How one sweep over A under d rows of S is cut: lanes of rows, groups of tiles of columns.

    Parameters
    ----------
    A : (m, n) array
    sketch_size : int
        d.
    group_bytes : int, optional
        Bytes of a row in one group of columns.
    tasks : int
        Groups are made narrower while there would be fewer than that.
    lane_rows : int, default 1
        Lanes begin at multiples of this many rows, counted from row `start` of the whole problem.
    """

    def __init__(
        self,
        A: np.ndarray,
        sketch_size: int,
        *,
        group_bytes: int | None = None,
        tasks: int = lanes.TASKS,
        lane_rows: int = 1,
        start: int = 0,
    ) -> None:
        from ..kernels.cpu import simd

        m, n = A.shape
        item = A.dtype.itemsize
        self.d = sketch_size
        self.narrow = simd.NARROW_BYTES // item
        self.rows = lanes.row_cuts(m, n * item, sketch_size, n * sketch_size * item)
        if lane_rows > 1:
            inner = {-(-(start + a) // lane_rows) * lane_rows - start for a, _ in self.rows[1:]}
            edges = [0, *sorted(edge for edge in inner if 0 < edge < m), m]
            self.rows = list(itertools.pairwise(edges))
        self.groups = lanes.column_groups(
            n, item, len(self.rows), simd.WIDE_BYTES, simd.NARROW_BYTES, group_bytes, tasks
        )
        self.columns = sum(group.columns for group in self.groups)


def panel_rows(group: lanes.Tiles, dtype: np.dtype) -> int:
    """Rows of a panel of this group that fill its share of the cache."""
    return lanes.panel_rows(group.columns, dtype.itemsize)


def sweep(
    cut: Cut,
    A: np.ndarray,
    b: np.ndarray,
    weight: np.ndarray | None,
    factor: float,
    workers: int,
    kernel: Callable[..., None],
    rows_of_panel: int | None = None,
    whole_rows: bool = False,
) -> Sums:
    """One fused sweep.

    Parameters
    ----------
    kernel : callable
        ``kernel(x, A, stride, b, weights, rows, group, panel, side, out, out_side, sums, totals)`` adds the sums of
        rows rows[0]..rows[1] and the columns of `group` to its last four arguments.
    factor : float
        What the kernel leaves out of S.
    rows_of_panel : int, optional
        Fixed by the kernel; by default what fills the cache.
    whole_rows : bool, default False
        The kernel leaves SA's columns of a group as (d, columns) instead of (tile, d, width).
    """
    (_, n), k, d, dtype = A.shape, b.shape[1], cut.d, A.dtype
    x, stride = _flat(A) if n >= cut.narrow else (np.empty(0, dtype), 0)
    weights = np.empty(0) if weight is None else weight
    side_width = (k // cut.narrow + 1) * cut.narrow

    # one allocation for all accumulators: large enough to get huge pages, whose first touch costs less
    room = lanes.aligned(len(cut.rows) * d * cut.columns, dtype).reshape(len(cut.rows), -1)
    ends = np.cumsum([group.columns for group in cut.groups])

    def task(lane: int, g: int) -> tuple[np.ndarray, ...]:
        group, end = cut.groups[g], ends[g]
        begin = end - group.columns
        out = room[lane, begin:] if whole_rows else room[lane, begin * d : end * d]
        capacity = rows_of_panel or panel_rows(group, dtype)
        out_side = lanes.aligned(side_width * d if g == 0 else 0, dtype)
        sums, totals = np.zeros(group.columns * (2 + k)), np.zeros(2 * k + 1)
        panel = lanes.aligned(group.columns * capacity, dtype, np.empty)
        side = lanes.aligned(side_width * capacity, dtype)
        kernel(x, A, stride, b, weights, cut.rows[lane], group, panel, side, out, out_side, sums, totals)
        return out_side, sums, totals

    tasks = [(lane, g) for g in range(len(cut.groups)) for lane in range(len(cut.rows))]
    results = lanes.run(task, tasks, workers)

    in_place = whole_rows and factor == 1.0 and len(cut.rows) == 1 and cut.columns == n
    SA = room.reshape(d, n) if in_place else np.empty((d, n), dtype)
    A1, AA, Atb = np.empty(n), np.empty(n), np.empty((n, k))
    scale = dtype.type(factor)

    def put_together(g: int) -> tuple[np.ndarray, ...]:
        group, end = cut.groups[g], ends[g]
        out_side, sums, totals = lanes.add_up(results[g * len(cut.rows) : (g + 1) * len(cut.rows)])
        begin = end - group.columns
        outs = room.reshape(-1, d, cut.columns)[:, :, begin:end] if whole_rows else room[:, begin * d : end * d]
        (out,) = lanes.add_up([(part,) for part in outs])
        before = 0
        for begin, width in zip(group.starts, group.widths, strict=True):
            here = slice(begin, min(begin + width, n))
            used = here.stop - begin
            if not in_place:
                tile = out[:, before:] if whole_rows else out[before * d : (before + width) * d].reshape(d, width)
                np.multiply(tile[:, :used], scale, out=SA[:, here])
            exact = sums[before * (2 + k) : (before + width) * (2 + k)].reshape(2 + k, width)[:, :used]
            A1[here], AA[here], Atb[here] = exact[0], exact[1], exact[2:].T
            before += width
        return out_side, totals

    out_side, totals = lanes.run(put_together, [(g,) for g in range(len(cut.groups))], workers)[0]
    side = out_side.reshape(-1, d, cut.narrow).transpose(1, 0, 2).reshape(d, side_width)[:, : k + 1] * scale
    b1, bb, total = totals[:k], totals[k : 2 * k], float(totals[2 * k])
    return Sums(SA, side[:, :k], side[:, k].astype(np.float64), Atb, A1, AA, b1, bb, total)


def _flat(A: np.ndarray) -> tuple[np.ndarray, int]:
    """A's memory as one dimension and the distance between rows, in elements; or (empty, 0) if columns are not unit
    stride."""
    m, n = A.shape
    item = A.dtype.itemsize
    contiguous = A.strides[1] == item or n == 1
    if not contiguous or m == 0 or (m > 1 and (A.strides[0] < n * item or A.strides[0] % item)):
        return np.empty(0, A.dtype), 0
    stride = A.strides[0] // item if m > 1 else n
    return np.lib.stride_tricks.as_strided(A, ((m - 1) * stride + n,), (item,), writeable=False), stride
