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
        self.rows = lanes.row_cuts(m, sketch_size, n * sketch_size * item)
        if lane_rows > 1:
            inner = {-(-(start + a) // lane_rows) * lane_rows - start for a, _ in self.rows[1:]}
            edges = [0, *sorted(edge for edge in inner if 0 < edge < m), m]
            self.rows = list(itertools.pairwise(edges))
        self.groups = lanes.column_groups(
            n, item, len(self.rows), simd.WIDE_BYTES, simd.NARROW_BYTES, group_bytes, tasks
        )


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
    ends = np.cumsum([group.columns * d for group in cut.groups for _ in cut.rows])
    outs = np.split(lanes.aligned(int(ends[-1]), dtype), ends[:-1])

    def task(out: np.ndarray, rows: tuple[int, int], group: lanes.Tiles, first_group: bool) -> tuple[np.ndarray, ...]:
        capacity = rows_of_panel or panel_rows(group, dtype)
        out_side = lanes.aligned(side_width * d if first_group else 0, dtype)
        sums, totals = np.zeros(group.columns * (2 + k)), np.zeros(2 * k + 1)
        panel, side = lanes.aligned(group.columns * capacity, dtype), lanes.aligned(side_width * capacity, dtype)
        kernel(x, A, stride, b, weights, rows, group, panel, side, out, out_side, sums, totals)
        return out, out_side, sums, totals

    tasks = [(rows, group, group is cut.groups[0]) for group in cut.groups for rows in cut.rows]
    results = lanes.run(task, [(out, *rest) for out, rest in zip(outs, tasks, strict=True)], workers)

    SA, A1, AA, Atb = np.empty((d, n), dtype), np.empty(n), np.empty(n), np.empty((n, k))
    scale = dtype.type(factor)
    count = len(cut.rows)
    firsts = [lanes.add_up(results[g * count : (g + 1) * count]) for g in range(len(cut.groups))]
    for group, (out, _, sums, _) in zip(cut.groups, firsts, strict=True):
        before = 0
        for begin, width in zip(group.starts, group.widths, strict=True):
            here = slice(begin, min(begin + width, n))
            used = here.stop - begin
            if whole_rows:
                tile = out.reshape(d, -1)[:, before : before + used]
            else:
                tile = out[before * d : (before + width) * d].reshape(d, width)[:, :used]
            np.multiply(tile, scale, out=SA[:, here])
            parts = sums[before * (2 + k) : (before + width) * (2 + k)].reshape(2 + k, width)[:, :used]
            A1[here], AA[here], Atb[here] = parts[0], parts[1], parts[2:].T
            before += width
    _, out_side, _, totals = firsts[0]
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
