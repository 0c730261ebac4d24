"""Columns of a dense sign matrix."""

from __future__ import annotations

import numpy as np
from numba import njit

from .philox import philox

_TAG = np.uint64(2)  # rpcls.random.STREAM_TAGS["rademacher"]
_1, _32 = np.uint64(1), np.uint64(32)


@njit(nogil=True, cache=True)
def columns(key, start, out):
    """Columns start, start + 1, … of the ±1 matrix into the rows of out (count, d)."""
    count, d = out.shape
    one, minus = out.dtype.type(1), out.dtype.type(2)
    for i in range(count):
        index = np.uint64(start) + np.uint64(i)
        row = out[i]
        for draw in range((d + 127) // 128):
            words = philox(key, index, np.uint64(draw), _TAG)
            for w in range(4):
                word = words[w]
                first = 128 * draw + 32 * w
                for bit in range(min(32, d - first)):
                    row[first + bit] = one - minus * out.dtype.type((word >> np.uint64(bit)) & _1)
