"""Columns of a standard normal matrix, bit for bit the same on every device.

Box and Muller's method from plain IEEE float64 additions, multiplications, divisions and square roots: no maths
library, no fused multiply-add. Absolute error of every normal below 4e-16·(1 + |z|).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .philox import philox

_TAG = np.uint64(3)  # rpcls.random.STREAM_TAGS["gaussian"]
_11, _32 = np.uint64(11), np.uint64(32)
_UNIT = 2.0**-53
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10


@njit(nogil=True, cache=True, inline="always")
def _uniform(low, high):
    """53 bits of two words, in (0, 1): the midpoint of its interval of width 2⁻⁵³ (the topmost rounds to even)."""
    return (np.float64((low | (high << _32)) >> _11) + 0.5) * _UNIT


@njit(nogil=True, cache=True)
def log_unit(u):
    """Natural logarithm of u in [2⁻⁵⁴, 1], as -ln: u = 2^-k·f with √½ ≤ f < √2, then atanh's series in (f−1)/(f+1)."""
    k = 0.0
    f = u
    while f < 0.7071067811865476:
        f = f * 2.0
        k = k + 1.0
    s = (f - 1.0) / (f + 1.0)
    t = s * s
    p = 1.0 / 23.0
    p = p * t + 1.0 / 21.0
    p = p * t + 1.0 / 19.0
    p = p * t + 1.0 / 17.0
    p = p * t + 1.0 / 15.0
    p = p * t + 1.0 / 13.0
    p = p * t + 1.0 / 11.0
    p = p * t + 1.0 / 9.0
    p = p * t + 1.0 / 7.0
    p = p * t + 1.0 / 5.0
    p = p * t + 1.0 / 3.0
    series = 2.0 * s + 2.0 * s * t * p
    return (k * _LN2_HIGH - series) + k * _LN2_LOW


@njit(nogil=True, cache=True)
def circle(u):
    """(cos 2πu, sin 2πu) for u in [0, 1): u = q/4 + r with |r| ≤ ⅛ exactly, then Taylor series in 2πr ≤ π/4."""
    q = np.floor(4.0 * u + 0.5)
    x = (u - 0.25 * q) * 6.283185307179586
    t = x * x
    s = -1.0 / 1307674368000.0
    s = s * t + 1.0 / 6227020800.0
    s = s * t - 1.0 / 39916800.0
    s = s * t + 1.0 / 362880.0
    s = s * t - 1.0 / 5040.0
    s = s * t + 1.0 / 120.0
    s = s * t - 1.0 / 6.0
    sine = x + x * t * s
    c = 1.0 / 20922789888000.0
    c = c * t - 1.0 / 87178291200.0
    c = c * t + 1.0 / 479001600.0
    c = c * t - 1.0 / 3628800.0
    c = c * t + 1.0 / 40320.0
    c = c * t - 1.0 / 720.0
    c = c * t + 1.0 / 24.0
    c = c * t - 0.5
    cosine = 1.0 + t * c
    quadrant = int(q) & 3
    if quadrant == 0:
        return cosine, sine
    if quadrant == 1:
        return -sine, cosine
    if quadrant == 2:
        return -cosine, -sine
    return sine, -cosine


@njit(nogil=True, cache=True)
def columns(key, start, out):
    """Columns start, start + 1, … of the normal matrix into the rows of out (count, d)."""
    count, d = out.shape
    for i in range(count):
        index = np.uint64(start) + np.uint64(i)
        for draw in range((d + 1) // 2):
            w0, w1, w2, w3 = philox(key, index, np.uint64(draw), _TAG)
            radius = np.sqrt(2.0 * log_unit(_uniform(w0, w1)))
            cosine, sine = circle(_uniform(w2, w3))
            out[i, 2 * draw] = radius * cosine
            if 2 * draw + 1 < d:
                out[i, 2 * draw + 1] = radius * sine
