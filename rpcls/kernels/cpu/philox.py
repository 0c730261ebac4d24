"""Philox4x32-10 on 64-bit registers; the layout of counters is in `rpcls.random`."""

from __future__ import annotations

import numpy as np
from numba import njit

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_MASK, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)


@njit(nogil=True, cache=True, inline="always")
def philox(key, index, draw, tag):
    """The four words of one draw; every argument and result is uint64, the words below 2**32."""
    k0, k1 = key & _MASK, key >> _32
    c0, c1, c2, c3 = index & _MASK, index >> _32, draw, tag
    for _ in range(10):
        p0 = _M0 * c0
        p1 = _M1 * c2
        c0, c1, c2, c3 = (p1 >> _32) ^ c1 ^ k0, p1 & _MASK, (p0 >> _32) ^ c3 ^ k1, p0 & _MASK
        k0 = (k0 + _W0) & _MASK
        k1 = (k1 + _W1) & _MASK
    return c0, c1, c2, c3


@njit(nogil=True, cache=True)
def words(key, start, draw, tag, out):
    """Draw `draw` of columns start, start + 1, … into out (count, 4) uint32; for tests and tools."""
    for i in range(out.shape[0]):
        w0, w1, w2, w3 = philox(np.uint64(key), np.uint64(start) + np.uint64(i), np.uint64(draw), np.uint64(tag))
        out[i, 0], out[i, 1], out[i, 2], out[i, 3] = w0, w1, w2, w3
