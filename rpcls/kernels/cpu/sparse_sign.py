"""Sparse sign sketches: ζ disjoint row blocks, one ±1 of each column in each of them. ζ = 1 is CountSketch.

Entries travel as codes, uint32: twice the row of S, plus one for a minus sign. The factor 1/√ζ is left to
the caller, so the products here are sums of ±A exactly.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from . import panel as _panel
from .philox import philox
from .simd import (
    LINE_BYTES,
    NARROW_BYTES,
    RUN,
    WIDE_BYTES,
    add_pair,
    axpy_narrow,
    axpy_wide,
    fetch_line,
    fetch_narrow_once,
    fetch_wide,
    fetch_wide_once,
    scatter_narrow,
    scatter_wide,
    sum_narrow,
    sum_narrow_row,
    sum_wide,
    sum_wide_row,
)

_TAG = np.uint64(1)  # rpcls.random.STREAM_TAGS["sparse-sign"]
_NEAR_BYTES = 1 << 20  # of a tile of SA: what the second-level cache holds
_SOON = 4  # rows after which targets further away than the nearest cache are needed
_0, _1, _31 = np.uint64(0), np.uint64(1), np.uint64(31)

_aligned, _ahead, _columns, _stage_rows = _panel.aligned, _panel.ahead, _panel.columns, _panel.stage_rows


@njit(nogil=True, cache=True, inline="always")
def _code(word, first, width):
    return np.uint32(((first + (((word >> _1) * width) >> _31)) << _1) | (word & _1))


@njit(nogil=True, cache=True)
def codes(key, start, count, edges, out):
    """The codes of columns start, start + 1, …: out (4·⌈ζ/4⌉, ≥ count); block z is rows edges[z]..edges[z+1] of S."""
    nnz = len(edges) - 1
    if nnz == 1:  # one word of four will do
        for i in range(count):
            word, _, _, _ = philox(key, np.uint64(start) + np.uint64(i), _0, _TAG)
            out[0, i] = _code(word, _0, np.uint64(edges[1]))
        return
    for draw in range((nnz + 3) // 4):
        z = 4 * draw
        e0, b0 = np.uint64(edges[z]), np.uint64(edges[z + 1] - edges[z])
        e1, b1 = (np.uint64(edges[z + 1]), np.uint64(edges[z + 2] - edges[z + 1])) if z + 1 < nnz else (_0, _1)
        e2, b2 = (np.uint64(edges[z + 2]), np.uint64(edges[z + 3] - edges[z + 2])) if z + 2 < nnz else (_0, _1)
        e3, b3 = (np.uint64(edges[z + 3]), np.uint64(edges[z + 4] - edges[z + 3])) if z + 3 < nnz else (_0, _1)
        o0, o1, o2, o3 = out[z], out[z + 1], out[z + 2], out[z + 3]
        for i in range(count):
            w0, w1, w2, w3 = philox(key, np.uint64(start) + np.uint64(i), np.uint64(draw), _TAG)
            o0[i] = _code(w0, e0, b0)
            o1[i] = _code(w1, e1, b1)
            o2[i] = _code(w2, e2, b2)
            o3[i] = _code(w3, e3, b3)


@njit(nogil=True, cache=True, inline="always")
def _entry(code, out):
    """The row and the value of one entry of √ζ·S, the value in the dtype of out."""
    return np.int64(code >> np.uint32(1)), out.dtype.type(1.0 - 2.0 * (code & np.uint32(1)))  # no branch to mispredict


@njit(nogil=True, cache=True)
def _scatter(panel, tiles, wide, capacity, rows, nnz, d, apart, code, out, x, later, pairs, skip):
    """out += S·panel, four blocks of rows at a time: enough to be worth loading a row for, few enough to stay in the
    cache. out holds rows `apart` entries apart, or is (tile, d, width) if apart is 0. Meanwhile x is asked for from
    `later` on, a wide tile's worth of lines for each that is added, `pairs` of lines of every row and then `skip`
    entries on: the rows of the next panel; nothing if pairs is 0.
    """
    broad, thin = WIDE_BYTES // panel.itemsize, NARROW_BYTES // panel.itemsize
    drawn, step = code.reshape(-1), code.shape[1]
    far = d * WIDE_BYTES > _NEAR_BYTES
    line = LINE_BYTES // x.itemsize if pairs else 0
    if skip == 0:
        pairs = rows
    left = pairs
    before = 0
    for t in range(tiles):
        width = broad if t < wide else thin
        source, to, pitch = before * capacity, before if apart else before * d, apart if apart else width
        for z in range(0, nnz - nnz % 4, 4):
            if t < wide and far:
                for i in range(rows):
                    for q in range(z, z + 4):
                        fetch_wide(out, to + _entry(code[q, min(i + _SOON, rows - 1)], out)[0] * pitch)
                    scatter_wide(panel, source + i * width, drawn, z * step + i, step, out, to, pitch)
            elif t < wide:
                ask = line if z < 8 else 0
                first = 0
                while first < rows:  # to the end of a row of x
                    stop = min(rows, first + left) if ask else rows
                    for i in range(first, stop):
                        fetch_line(x, later)
                        fetch_line(x, later + ask)
                        later += 2 * ask
                        scatter_wide(panel, source + i * width, drawn, z * step + i, step, out, to, pitch)
                    if ask:
                        left -= stop - first
                    first = stop
                    if left == 0:
                        left = pairs
                        later += skip
            else:
                for i in range(rows):
                    scatter_narrow(panel, source + i * width, drawn, z * step + i, step, out, to, pitch)
        for z in range(nnz - nnz % 4, nnz):
            for i in range(rows):
                row, factor = _entry(code[z, i], out)
                if t < wide:
                    axpy_wide(out, to + row * pitch, panel, source + i * width, factor)
                else:
                    axpy_narrow(out, to + row * pitch, panel, source + i * width, factor)
        before += width


@njit(nogil=True, cache=True)
def _take(b, first, rows, scale_b, rhs, totals):
    """rhs = scale_b·b of these rows, and totals += (bᵀ1, bᵀb, 1ᵀ1)."""
    total = squares = 0.0
    for i in range(rows):
        value = np.float64(b[first + i, 0]) * scale_b
        rhs[i] = value
        total += value
        squares += value * value
    totals[0] += total
    totals[1] += squares
    totals[2] += rows


@njit(nogil=True, cache=True)
def _add_rows(x, origin, stride, rows, starts, wide, one, rhs, code, out, apart, out_side, sums):
    """Staging and scattering in one for ζ = 1, one right-hand side and no factors: each row goes from memory to where
    it belongs in out, whose rows are `apart` entries apart, and into the sums from the nearest cache, as `panel.stage`
    does."""
    broad, thin = WIDE_BYTES // x.itemsize, NARROW_BYTES // x.itemsize
    later = _ahead(starts, wide, stride, x.itemsize)
    full = rows - rows % RUN
    first = 0
    while first < rows:
        run = RUN if first < full else 1
        for i in range(first, first + run):
            row, factor = _entry(code[i], out)
            source, to = origin + i * stride, row * apart
            if len(out_side):
                add_pair(out_side, row * thin, factor, rhs, one, i)
            for t in range(wide):
                fetch_wide_once(x, source + starts[t] + later)
                axpy_wide(out, to, x, source + starts[t], factor)
                to += broad
            for t in range(wide, len(starts)):
                fetch_narrow_once(x, source + starts[t] + later)
                axpy_narrow(out, to, x, source + starts[t], factor)
                to += thin
        source, at = origin + first * stride, 0
        for t in range(wide):
            if run == RUN:
                sum_wide(x, source + starts[t], stride, one, rhs, first, sums, at)
            else:
                sum_wide_row(x, source + starts[t], stride, one, rhs, first, sums, at)
            at += 3 * broad
        for t in range(wide, len(starts)):
            if run == RUN:
                sum_narrow(x, source + starts[t], stride, one, rhs, first, sums, at)
            else:
                sum_narrow_row(x, source + starts[t], stride, one, rhs, first, sums, at)
            at += 3 * thin
        first += run


@njit(nogil=True, cache=True)
def sweep(
    x, A, stride, b, weight, first, stop, start, key, edges, starts, wide, scale_a, scale_b, panel, side, code,
    out, apart, out_side, sums, totals,
):  # fmt: skip
    """One task of a fused sweep: rows first..stop of the problem, the tiles of columns that begin at `starts`.

    x is A's memory with rows `stride` apart; stride 0 means that A (two-dimensional, any layout) is gathered. Row 0
    of A is row `start` of the whole problem, column `start` of S. With out_side empty, b only enters the sums.
    Adds to out, whose rows are `apart` entries apart, or if apart is 0 to (tile, d, width): the rows of blocks of S
    stay in the cache, while whole rows arrive faster.
    Adds to out_side (narrow tile of [b, 1], d, width), sums (tile, 2 + k, width), totals.
    """
    k, nnz, d = b.shape[1], len(edges) - 1, edges[-1]
    capacity = code.shape[1]
    direct = stride > 0 and apart > 0 and k == 1 and nnz == 1 and len(weight) == 0 and scale_a == 1.0
    one, rhs, partial = np.ones(capacity), np.empty(capacity), _aligned(len(sums))
    kept = totals if len(out_side) else np.zeros_like(totals)
    two = 2 * LINE_BYTES // x.itemsize
    pairs = -(-_columns(starts, wide, x.itemsize) // two) if stride else 0
    side_tiles = k // (NARROW_BYTES // side.itemsize) + 1
    while first < stop:
        rows = min(capacity, stop - first)
        codes(key, start + first, rows, edges, code)
        if direct:
            _take(b, first, rows, scale_b, rhs, kept)
            partial[:] = 0.0
            _add_rows(x, first * stride, stride, rows, starts, wide, one, rhs, code[0], out, apart, out_side, partial)
            sums += partial
            first += rows
            continue
        _stage_rows(
            x, A, stride, b, weight, first, rows, starts, wide, scale_a, scale_b, capacity, panel, side, sums, kept
        )
        later = (first + rows) * stride + starts[0]
        skip = stride - pairs * two
        _scatter(panel, len(starts), wide, capacity, rows, nnz, d, apart, code, out, x, later, pairs, skip)
        if len(out_side):
            _scatter(side, side_tiles, 0, capacity, rows, nnz, d, 0, code, out_side, x, 0, 0, 0)
        first += rows
