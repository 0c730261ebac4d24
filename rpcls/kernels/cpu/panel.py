"""The part of every fused sweep that does not depend on S: stage rows in cache, and take their exact sums.

A *panel* holds some rows of some tiles of columns as (tile, row, column within the tile), contiguous and aligned, so
that all later work runs from the second-level cache at unit stride. Staging multiplies row i by scale[i] (the square
root of its weight, times a power of two) and is the only read of A.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .simd import (
    NARROW_BYTES,
    RUN,
    WIDE_BYTES,
    cross_narrow,
    cross_narrow_row,
    cross_wide,
    cross_wide_row,
    stage_narrow,
    stage_narrow_row,
    stage_wide,
    stage_wide_row,
)


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
def stage(x, origin, stride, rows, starts, wide, capacity, panel, scale, one, rhs, sums):
    """Fill the panel from x and add its sums, tile by tile, to sums (tile, 2 + k, width) — all one-dimensional.

    x holds row i at origin + i·stride; or is the panel itself (stride 0), already gathered. The sums of a tile are
    1ᵀA, the squared norms, and Aᵀb for each of the k rows of rhs (k, capacity).
    """
    broad, thin = WIDE_BYTES // panel.itemsize, NARROW_BYTES // panel.itemsize
    k = rhs.shape[0]
    flat = rhs.reshape(-1)
    full = rows - rows % RUN
    first = 0
    while first < rows:
        run = RUN if first < full else 1
        for t in range(len(starts)):
            width = broad if t < wide else thin
            before = broad * min(t, wide) + thin * max(t - wide, 0)
            to = capacity * before + first * width
            at = before * (2 + k)
            source = origin + first * stride + starts[t] if stride else to
            step = stride if stride else width
            if t < wide:
                if run == RUN:
                    stage_wide(x, source, step, panel, to, scale, one, first, sums, at)
                    for j in range(k):
                        cross_wide(panel, to, flat, j * capacity + first, sums, at + (2 + j) * width)
                else:
                    stage_wide_row(x, source, step, panel, to, scale, one, first, sums, at)
                    for j in range(k):
                        cross_wide_row(panel, to, flat, j * capacity + first, sums, at + (2 + j) * width)
            elif run == RUN:
                stage_narrow(x, source, step, panel, to, scale, one, first, sums, at)
                for j in range(k):
                    cross_narrow(panel, to, flat, j * capacity + first, sums, at + (2 + j) * width)
            else:
                stage_narrow_row(x, source, step, panel, to, scale, one, first, sums, at)
                for j in range(k):
                    cross_narrow_row(panel, to, flat, j * capacity + first, sums, at + (2 + j) * width)
        first += run


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
