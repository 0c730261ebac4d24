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
    fetch_line,
    fetch_narrow_once,
    fetch_wide_once,
    scale_narrow,
    scale_wide,
    sum_narrow,
    sum_narrow_row,
    sum_wide,
    sum_wide_row,
    transpose,
)

_AHEAD_BYTES = 8192  # how far ahead memory is asked for: a good part of the nearest cache
_AHEAD_ROWS = 64  # likewise down each of many columns


@njit(nogil=True, cache=True)
def aligned(count):
    """Room for float64 that begins on a cache line: vectors across two lines cost twice."""
    room = np.empty(count + 8)
    skip = -(room.ctypes.data // 8) % 8
    return room[skip : skip + count]


@njit(nogil=True, cache=True)
def gather(A, first, rows, starts, wide, capacity, panel):
    """Copy rows first, first + 1, … of a two-dimensional A of any layout into the panel, zero beyond its columns."""
    broad, thin = WIDE_BYTES // panel.itemsize, NARROW_BYTES // panel.itemsize
    n, line = A.shape[1], LINE_BYTES // panel.itemsize
    blocks = rows - rows % 8 if A.strides[0] == A.itemsize and A.strides[1] % A.itemsize == 0 else 0
    apart = A.strides[1] // A.itemsize
    for t in range(len(starts)):
        width = broad if t < wide else thin
        base = capacity * (broad * min(t, wide) + thin * max(t - wide, 0))
        full = min(width, n - starts[t]) // 8 * 8 if blocks else 0
        for i in range(0, blocks, 8):
            for c in range(0, full, 8):
                source = (starts[t] + c) * apart + first + i
                if i % line == 0:
                    for j in range(8):
                        fetch_line(A, source + j * apart + _AHEAD_ROWS)
                transpose(A, source, apart, panel, base + i * width + c, width)
        for i in range(rows):
            for c in range(full if i < blocks else 0, width):
                column = starts[t] + c
                panel[base + i * width + c] = A[first + i, column] if column < n else 0


@njit(nogil=True, cache=True)
def ahead(starts, wide, stride, itemsize):
    """How far ahead memory is due, in elements: some whole rows."""
    return -(-_AHEAD_BYTES // (columns(starts, wide, itemsize) * itemsize)) * stride


@njit(nogil=True, cache=True)
def columns(starts, wide, itemsize):
    """From the first column of these tiles to beyond the last."""
    return starts[-1] - starts[0] + (WIDE_BYTES if len(starts) == wide else NARROW_BYTES) // itemsize


@njit(nogil=True, cache=True)
def stage(x, origin, stride, rows, starts, wide, capacity, panel, scale, one, rhs, sums):
    """Fill the panel from x and add its sums, tile by tile, to sums (tile, 2 + k, width) — all one-dimensional.

    x holds row i at origin + i·stride; or is the panel itself (stride 0), already gathered. The sums of a tile are
    1ᵀA, the squared norms, and Aᵀb for each of the k rows of rhs (k, capacity).

    Memory is read one whole row after the other, which is the order that the hardware foresees; the sums are taken a
    few rows at a time, from the nearest cache.
    """
    broad, thin = WIDE_BYTES // panel.itemsize, NARROW_BYTES // panel.itemsize
    k = rhs.shape[0]
    flat = rhs.reshape(-1)
    later = ahead(starts, wide, stride, x.itemsize)
    full = rows - rows % RUN
    first = 0
    while first < rows:
        run = RUN if first < full else 1
        for i in range(first, first + run):
            source, factor, base = origin + i * stride, panel.dtype.type(scale[i]), 0
            for t in range(wide):
                to = base + i * broad
                tile = source + starts[t] if stride else to
                fetch_wide_once(x, tile + later)
                scale_wide(panel, to, x, tile, factor)
                base += capacity * broad
            for t in range(wide, len(starts)):
                to = base + i * thin
                tile = source + starts[t] if stride else to
                fetch_narrow_once(x, tile + later)
                scale_narrow(panel, to, x, tile, factor)
                base += capacity * thin
        base, at = 0, 0
        for _ in range(wide):
            if run == RUN:
                sum_wide(panel, base + first * broad, broad, one, flat, first, sums, at)
            else:
                sum_wide_row(panel, base + first * broad, broad, one, flat, first, sums, at)
            base += capacity * broad
            at += (2 + k) * broad
        for _ in range(wide, len(starts)):
            if run == RUN:
                sum_narrow(panel, base + first * thin, thin, one, flat, first, sums, at)
            else:
                sum_narrow_row(panel, base + first * thin, thin, one, flat, first, sums, at)
            base += capacity * thin
            at += (2 + k) * thin
        first += run
    for j in range(1, k):
        for t in range(len(starts)):
            width = broad if t < wide else thin
            before = broad * min(t, wide) + thin * max(t - wide, 0)
            base, at, right = capacity * before, before * (2 + k) + (2 + j) * width, j * capacity
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


@njit(nogil=True, cache=True)
def stage_rows(
    x, A, stride, b, weight, first, rows, starts, wide, scale_a, scale_b, capacity, panel, side, sums, totals
):  # fmt: skip
    """Rows first, first + 1, … into the panel, their [b, 1] into the side panel, and their sums added to sums, totals.

    x is A's memory with rows `stride` apart; stride 0 means that A (two-dimensional, any layout) is gathered.
    """
    scale, one, rhs = np.empty(capacity), np.empty(capacity), np.empty((b.shape[1], capacity))
    partial = aligned(len(sums))
    partial[:] = 0.0
    stage_rhs(b, weight, first, rows, scale_a, scale_b, capacity, scale, one, rhs, side, totals)
    if stride:
        stage(x, first * stride, stride, rows, starts, wide, capacity, panel, scale, one, rhs, partial)
    else:
        gather(A, first, rows, starts, wide, capacity, panel)
        stage(panel, 0, 0, rows, starts, wide, capacity, panel, scale, one, rhs, partial)
    sums += partial


@njit(nogil=True, cache=True)
def sweep(
    x, A, stride, b, weight, first, stop, starts, wide, scale_a, scale_b, panel, side, capacity, out_side, sums, totals
):
    """One task of a sweep for the sums alone: rows first..stop, `capacity` at a time; the rest as in sparse_sign."""
    kept = totals if len(out_side) else np.zeros_like(totals)
    while first < stop:
        rows = min(capacity, stop - first)
        stage_rows(
            x, A, stride, b, weight, first, rows, starts, wide, scale_a, scale_b, capacity, panel, side, sums, kept
        )
        first += rows
