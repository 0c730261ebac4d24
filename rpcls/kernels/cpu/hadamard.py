"""Subsampled Walsh–Hadamard transforms of rows, a block of q = 2^p of them at a time.

With row index i = i₁·q + i₂, H[r, i] = (−1)^⟨r₁,i₁⟩ · (−1)^⟨r₂,i₂⟩, so a transform of any length is a fast transform
of length
q within each block, and one signed addition per block and sampled row. Only q rows of a tile of columns are ever
held: one pass over A, whatever the length of the transform.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from . import panel as _panel
from .philox import philox
from .simd import NARROW_BYTES, WIDE_BYTES, axpy_narrow, axpy_wide, butterfly_narrow, butterfly_wide

_TAG = np.uint64(4)  # rpcls.random.STREAM_TAGS["hadamard"]
_0, _1, _7 = np.uint64(0), np.uint64(1), np.uint64(7)

_stage_rows = _panel.stage_rows


@njit(nogil=True, cache=True)
def signs(key, start, out):
    """±1 of columns start, start + 1, …: bit 0 of word 0 of draw 0."""
    for i in range(len(out)):
        word, _, _, _ = philox(key, np.uint64(start) + np.uint64(i), _0, _TAG)
        out[i] = 1.0 - 2.0 * np.float64(word & _1)


@njit(nogil=True, cache=True)
def parity(word):
    """The sum of the bits of a uint64, modulo 2."""
    for shift in (32, 16, 8, 4, 2, 1):
        word ^= word >> np.uint64(shift)
    return word & _1


@njit(nogil=True, cache=True)
def block_signs(key, block, high, shared, out):
    """±1 of every row of S in one block of columns.

    shared: the rows continue one long transform, (−1)^⟨r₁, block⟩ with r₁ = high[r]. Otherwise each block has signs
    of its own: bit r mod 32 of word (r mod 128) // 32 of draw 1 + r // 128, counted from the block's index.
    """
    d = len(out)
    if shared:
        for r in range(d):
            out[r] = 1.0 - 2.0 * np.float64(parity(np.uint64(high[r]) & np.uint64(block)))
        return
    for draw in range((d + 127) // 128):
        words = philox(key, np.uint64(block), np.uint64(1 + draw), _TAG)
        for w in range(4):
            for bit in range(min(32, d - 128 * draw - 32 * w)):
                sign = 1.0 - 2.0 * np.float64((words[w] >> np.uint64(bit)) & _1)
                out[128 * draw + 32 * w + bit] = sign


@njit(nogil=True, cache=True)
def columns(key, start, q, low, high, shared, out):
    """Columns start, start + 1, … of √d·S, into the rows of out (count, d)."""
    count, d = out.shape
    own, whole = np.empty(count), np.empty(d)
    signs(key, start, own)
    block = np.int64(-1)
    for i in range(count):
        index = np.int64(start) + i
        if index // q != block:
            block = index // q
            block_signs(key, block, high, shared, whole)
        within = np.uint64(index % q)
        for r in range(d):
            sign = 1.0 - 2.0 * np.float64(parity(np.uint64(low[r]) & within))
            out[i, r] = own[i] * whole[r] * sign


@njit(nogil=True, cache=True)
def _transform(panel, base, width, q, wide):
    """The Walsh–Hadamard transform of q rows of one tile, in place; rows in runs of 64 first, to stay in the cache."""
    inner = min(q, 64)
    for begin in range(0, q, inner):
        half = 1
        while half < inner:
            for group in range(begin, begin + inner, 2 * half):
                for i in range(group, group + half):
                    if wide:
                        butterfly_wide(panel, base + i * width, base + (i + half) * width)
                    else:
                        butterfly_narrow(panel, base + i * width, base + (i + half) * width)
            half *= 2
    half = inner
    while half < q:
        for group in range(0, q, 2 * half):
            for i in range(group, group + half):
                if wide:
                    butterfly_wide(panel, base + i * width, base + (i + half) * width)
                else:
                    butterfly_narrow(panel, base + i * width, base + (i + half) * width)
        half *= 2


@njit(nogil=True, cache=True)
def _add_rows(panel, tiles, wide, q, low, sign, out):
    """Transform every tile of the panel and add its sampled rows, signed, to out (tile, d, width)."""
    broad, thin = WIDE_BYTES // panel.itemsize, NARROW_BYTES // panel.itemsize
    d = len(low)
    for t in range(tiles):
        before = broad * min(t, wide) + thin * max(t - wide, 0)
        width = broad if t < wide else thin
        base, at = before * q, before * d
        _transform(panel, base, width, q, t < wide)
        for r in range(d):
            factor = panel.dtype.type(sign[r])
            if t < wide:
                axpy_wide(out, at + r * width, panel, base + low[r] * width, factor)
            else:
                axpy_narrow(out, at + r * width, panel, base + low[r] * width, factor)


@njit(nogil=True, cache=True)
def sweep(
    x, A, stride, b, weight, first, stop, start, key, q, low, high, shared, starts, wide, scale_a, scale_b,
    panel, side, out, out_side, sums, totals,
):  # fmt: skip
    """One task of a fused sweep, as in `sparse_sign.sweep`; panel and side hold q rows."""
    k, d = b.shape[1], len(low)
    own, whole = np.empty(q), np.empty(d)
    kept = totals if len(out_side) else np.zeros_like(totals)
    side_tiles = k // (NARROW_BYTES // side.itemsize) + 1
    while first < stop:
        index = np.int64(start) + first
        block, skipped = index // q, index % q
        rows = min(q - skipped, stop - first)
        signs(key, index, own[:rows])
        block_signs(key, block, high, shared, whole)
        _stage_rows(x, A, stride, b, weight, first, rows, starts, wide, scale_a, scale_b, q, panel, side, sums, kept)
        _place(panel, len(starts), wide, q, rows, skipped, own)
        _add_rows(panel, len(starts), wide, q, low, whole, out)
        if len(out_side):
            _place(side, side_tiles, 0, q, rows, skipped, own)
            _add_rows(side, side_tiles, 0, q, low, whole, out_side)
        first += rows


@njit(nogil=True, cache=True)
def _place(panel, tiles, wide, q, rows, skipped, own):
    """Give row i of every tile its sign and move it to place skipped + i of the block; zero the rest."""
    broad, thin = WIDE_BYTES // panel.itemsize, NARROW_BYTES // panel.itemsize
    for t in range(tiles):
        before = broad * min(t, wide) + thin * max(t - wide, 0)
        width = broad if t < wide else thin
        base = before * q
        for i in range(rows - 1, -1, -1):
            sign = panel.dtype.type(own[i])
            for c in range(width):
                panel[base + (skipped + i) * width + c] = sign * panel[base + i * width + c]
        panel[base : base + skipped * width] = 0
        panel[base + (skipped + rows) * width : base + q * width] = 0
