"""Sparse sign sketches: ζ disjoint row blocks, one ±1 of each column in each of them. ζ = 1 is CountSketch.

Entries travel as codes, uint32: twice the row within the block, plus one for a minus sign. The factor 1/√ζ is left to
the caller, so the products here are sums of ±A exactly.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from . import panel as _panel
from .philox import philox
from .simd import NARROW_BYTES, WIDE_BYTES, axpy_narrow, axpy_wide, prefetch_narrow, prefetch_wide

_TAG = np.uint64(1)  # rpcls.random.STREAM_TAGS["sparse-sign"]
_1, _31 = np.uint64(1), np.uint64(31)

_gather, _stage, _stage_rhs = _panel.gather, _panel.stage, _panel.stage_rhs


@njit(nogil=True, cache=True, inline="always")
def _code(word, width):
    return np.uint32(((((word >> _1) * width) >> _31) << _1) | (word & _1))


@njit(nogil=True, cache=True)
def codes(key, start, count, edges, out):
    """The codes of columns start, start + 1, …: out (4·⌈ζ/4⌉, ≥ count); block z is rows edges[z]..edges[z+1]."""
    nnz = len(edges) - 1
    for draw in range((nnz + 3) // 4):
        z = 4 * draw
        b0 = np.uint64(edges[z + 1] - edges[z])
        b1 = np.uint64(edges[z + 2] - edges[z + 1]) if z + 1 < nnz else _1
        b2 = np.uint64(edges[z + 3] - edges[z + 2]) if z + 2 < nnz else _1
        b3 = np.uint64(edges[z + 4] - edges[z + 3]) if z + 3 < nnz else _1
        o0, o1, o2, o3 = out[z], out[z + 1], out[z + 2], out[z + 3]
        for i in range(count):
            w0, w1, w2, w3 = philox(key, np.uint64(start) + np.uint64(i), np.uint64(draw), _TAG)
            o0[i] = _code(w0, b0)
            o1[i] = _code(w1, b1)
            o2[i] = _code(w2, b2)
            o3[i] = _code(w3, b3)


@njit(nogil=True, cache=True)
def _scatter(panel, tiles, wide, capacity, rows, edges, code, out, x, ahead, stride, starts):
    """out (tile, d, width) += S·panel, one block of rows at a time, so that it stays in the first-level cache.

    Meanwhile the next panel's rows, which begin at x[ahead], are asked for: the processor would otherwise wait for
    memory while it stages, and leave memory idle while it scatters. Stride 0: nothing is asked for.
    """
    broad, thin = WIDE_BYTES // panel.itemsize, NARROW_BYTES // panel.itemsize
    d, nnz = edges[-1], len(edges) - 1
    one, minus = panel.dtype.type(1), panel.dtype.type(2)
    for t in range(tiles):
        before = broad * min(t, wide) + thin * max(t - wide, 0)
        source = before * capacity
        for z in range(nnz):
            drawn = code[z]
            at = before * d + edges[z] * (broad if t < wide else thin)
            for first in range(0, rows, nnz):
                last = min(first + nnz, rows)
                if t < wide:
                    if stride:
                        prefetch_wide(x, ahead + (first + z) * stride + starts[t])
                    for i in range(first, last):
                        sign = one - minus * panel.dtype.type(drawn[i] & np.uint32(1))
                        axpy_wide(out, at + np.int64(drawn[i] >> np.uint32(1)) * broad, panel, source + i * broad, sign)
                else:
                    if stride:
                        prefetch_narrow(x, ahead + (first + z) * stride + starts[t])
                    for i in range(first, last):
                        sign = one - minus * panel.dtype.type(drawn[i] & np.uint32(1))
                        axpy_narrow(out, at + np.int64(drawn[i] >> np.uint32(1)) * thin, panel, source + i * thin, sign)


@njit(nogil=True, cache=True)
def sweep(
    x, A, stride, b, weight, first, stop, start, key, edges, starts, wide, scale_a, scale_b, panel, side, code,
    out, out_side, sums, totals,
):  # fmt: skip
    """One task of a fused sweep: rows first..stop of the problem, the tiles of columns that begin at `starts`.

    x is A's memory with rows `stride` apart; stride 0 means that A (two-dimensional, any layout) is gathered. Row 0
    of A is row `start` of the whole problem, column `start` of S. With out_side empty, b only enters the sums.
    Adds to out (tile, d, width), out_side (narrow tile of [b, 1], d, width), sums (tile, 2 + k, width), totals.
    """
    k = b.shape[1]
    capacity = code.shape[1]
    scale, one, rhs = np.empty(capacity), np.empty(capacity), np.empty((k, capacity))
    partial = np.empty_like(sums)
    unused = np.zeros_like(totals)
    side_tiles = k // (NARROW_BYTES // side.itemsize) + 1
    while first < stop:
        rows = min(capacity, stop - first)
        codes(key, start + first, rows, edges, code)
        _stage_rhs(
            b, weight, first, rows, scale_a, scale_b, capacity, scale, one, rhs, side,
            totals if len(out_side) else unused,
        )  # fmt: skip
        partial[:] = 0.0
        if stride:
            _stage(x, first * stride, stride, rows, starts, wide, capacity, panel, scale, one, rhs, partial)
        else:
            _gather(A, first, rows, starts, wide, capacity, panel)
            _stage(panel, 0, 0, rows, starts, wide, capacity, panel, scale, one, rhs, partial)
        sums += partial
        ahead = (first + rows) * stride
        _scatter(panel, len(starts), wide, capacity, rows, edges, code, out, x, ahead, stride, starts)
        if len(out_side):
            _scatter(side, side_tiles, 0, capacity, rows, edges, code, out_side, x, 0, 0, starts)
        first += rows
