"""Keyed permutations of [0, m), evaluated one place at a time: no table, no shuffle.

A balanced Feistel network of eight rounds permutes the smallest [0, 4^h) that holds [0, m); places that land outside
are permuted again until they fall inside (cycle walking), at most four times on average.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .philox import philox

_TAG = np.uint64(5)  # rpcls.random.STREAM_TAGS["permutation"]
_1 = np.uint64(1)


@njit(nogil=True, cache=True)
def permute(key, m, first, out):
    """out[i] = the image of first + i; m in [1, 2**62]. The round function is word 0 of draw `round` at the right
    half."""
    half = np.uint64(0)
    while half < np.uint64(31) and (_1 << (half + half)) < np.uint64(m):
        half += _1
    mask = (_1 << half) - _1
    for i in range(len(out)):
        value = np.uint64(first) + np.uint64(i)
        while True:
            left, right = value >> half, value & mask
            for draw in range(8):
                word, _, _, _ = philox(key, right, np.uint64(draw), _TAG)
                left, right = right, left ^ (word & mask)
            value = (left << half) | right
            if value < np.uint64(m):
                break
        out[i] = np.int64(value)


@njit(nogil=True, cache=True)
def draw(key, m, first, out):
    """out[i] = a uniform integer of [0, m) for place first + i, with replacement: ⌊u·m / 2⁶⁴⌋ up to 2⁻³²."""
    for i in range(len(out)):
        low, high, _, _ = philox(key, np.uint64(first) + np.uint64(i), np.uint64(8), _TAG)
        size = np.uint64(m)
        upper, lower = size >> np.uint64(32), size & np.uint64(0xFFFFFFFF)
        # the high 64 bits of (high·2³² + low)·size, without the carries of the lowest products
        middle = ((low * lower) >> np.uint64(32)) + high * lower
        rest = low * upper + (middle & np.uint64(0xFFFFFFFF))
        out[i] = np.int64(high * upper + (middle >> np.uint64(32)) + (rest >> np.uint64(32)))
