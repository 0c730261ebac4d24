"""The part of every fused sweep that does not depend on S: stage rows in cache, and take their exact sums.

A *panel* holds some rows of some tiles of columns as (tile, row, column within the tile), contiguous and aligned, so
that all later work runs from the second-level cache at unit stride. Staging multiplies row i by scale[i] (the square
root of its weight, times a power of two) and is the only read of A.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .simd import (
    LINE_BYTES,
    NARROW_BYTES,
    RUN,
    WIDE_BYTES,
    cross_narrow,
    cross_narrow_row,
    cross_wide,
    cross_wide_row,
    prefetch_first,
    prefetch_second,
    stage_narrow,
    stage_wide,
)

_AHEAD_BYTES = 8192  # how far ahead memory is asked for: its latency times its bandwidth


@njit(nogil=True, cache=True)
def aligned(count):
    """Room for float64 that begins on a cache line: vectors across two lines cost twice."""
    room = np.empty(count + 8)
    skip = -(room.ctypes.data // 8) % 8
    return room[skip : skip + count]


@njit(nogil=True, cache=True)
def gather(A, first, rows, starts, wide, capacity, panel):
    """Copy rows first, first + 1, … of a two-dimensional A of any layout into the panel, zero beyond its columns."""
    n = A.shape[1]
    broad, thin = WIDE_BYTES // panel.itemsize, NARROW_BYTES // panel.itemsize
    for t in range(len(starts)):
        width = broad if t < wide else thin
        base = capacity * (broad * min(t, wide) + thin * max(t - wide, 0))
        if abs(A.strides[0]) < abs(A.strides[1]):
            for c in range(width):
                column = starts[t] + c
                for i in range(rows):
                    panel[base + i * width + c] = A[first + i, column] if column < n else 0
        else:
            for i in range(rows):
                for c in range(width):
                    column = starts[t] + c
                    panel[base + i * width + c] = A[first + i, column] if column < n else 0


@njit(nogil=True, cache=True)
def reach(starts, itemsize):
    """What `fetch_ahead` needs: the columns from the first tile to the last, and how many rows ahead they are due."""
    columns = starts[-1] - starts[0] + (WIDE_BYTES if len(starts) > 1 else NARROW_BYTES) // itemsize
    return columns, -(-_AHEAD_BYTES // (columns * itemsize))


@njit(nogil=True, cache=True, inline="always")
def fetch_ahead(x, at, stride, columns, rows):
    """Prefetch what comes `rows` rows after x[at:at + columns], and, nearer by, two rows after."""
    far, near = at + rows * stride, at + 2 * stride
    for i in range(0, columns, LINE_BYTES // x.itemsize):
        prefetch_second(x, far + i)
        prefetch_first(x, near + i)


@njit(nogil=True, cache=True)
def stage(x, origin, stride, rows, starts, wide, capacity, panel, scale, one, rhs, sums):
    """Fill the panel from x and add its sums, tile by tile, to sums (tile, 2 + k, width) — all one-dimensional.

    x holds row i at origin + i·stride; or is the panel itself (stride 0), already gathered. The sums of a tile are
    1ᵀA, the squared norms, and Aᵀb for each of the k rows of rhs (k, capacity).
    """
    broad, thin = WIDE_BYTES // panel.itemsize, NARROW_BYTES // panel.itemsize
    k = rhs.shape[0]
    flat = rhs.reshape(-1)
    columns, ahead = reach(starts, x.itemsize)
    for i in range(rows):
        if stride:
            fetch_ahead(x, origin + i * stride + starts[0], stride, columns, ahead)
        for t in range(len(starts)):
            width = broad if t < wide else thin
            before = broad * min(t, wide) + thin * max(t - wide, 0)
            to = capacity * before + i * width
            source = origin + i * stride + starts[t] if stride else to
            if t < wide:
                stage_wide(x, source, panel, to, scale, one, flat, i, sums, before * (2 + k))
            else:
                stage_narrow(x, source, panel, to, scale, one, flat, i, sums, before * (2 + k))
    for j in range(1, k):
        for t in range(len(starts)):
            width = broad if t < wide else thin
            before = broad * min(t, wide) + thin * max(t - wide, 0)
            base, at, right = capacity * before, before * (2 + k) + (2 + j) * width, j * capacity
            full = rows - rows % RUN
            for i in range(0, full, RUN):
                if t < wide:
                    cross_wide(panel, base + i * width, flat, right + i, sums, at)
                else:
                    cross_narrow(panel, base + i * width, flat, right + i, sums, at)
            for i in range(full, rows):
                if t < wide:
                    cross_wide_row(panel, base + i * width, flat, right + i, sums, at)
                else:
                    cross_narrow_row(panel, base + i * width, flat, right + i, sums, at)


@njit(nogil=True, cache=True)
def stage_rhs(b, weight, first, rows, scale_a, scale_b, capacity, scale, one, rhs, side, totals):
    """The row scalars of a panel, its right-hand sides, and their sums.

    scale[i] = √w·scale_a, one[i] = √w, rhs[j, i] = √w·scale_b·b, side = panel of narrow tiles [rhs, one], and
    totals (2k + 1,) += (bᵀ1, bᵀb, 1ᵀ1). An empty weight means ones.
    """
    k = rhs.shape[0]
    thin = NARROW_BYTES // side.itemsize
    partial = np.zeros(2 * k + 1)
    last = (k // thin) * capacity * thin + k % thin
    if len(weight):
        for i in range(rows):
            root = np.sqrt(weight[first + i])
            scale[i] = root * scale_a
            one[i] = root
            partial[2 * k] += root * root
            side[last + i * thin] = root
    else:
        partial[2 * k] = rows
        scale[:rows] = scale_a
        one[:rows] = 1.0
        for i in range(rows):
            side[last + i * thin] = 1.0
    for j in range(k):
        at = (j // thin) * capacity * thin + j % thin
        total = squares = 0.0
        for i in range(rows):
            value = np.float64(b[first + i, j]) * (one[i] * scale_b)
            rhs[j, i] = value
            side[at + i * thin] = value
            total += value * one[i]
            squares += value * value
        partial[j] += total
        partial[k + j] += squares
    totals += partial
