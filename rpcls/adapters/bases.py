"""Random bases from counter-based streams: the same key is the same basis on every machine.

A basis is an array that a key fixes. Normal entries are the columns of `rpcls.Gaussian`, unscaled. Uniform entries
and choices of positions are words of Philox4x32-10 (the table of counters is in `rpcls.random`): word e mod 4 of draw
0 at index ⌊e/4⌋, tag 6, belongs to entry e of the array in C order. The upper 24 bits u of the word give
(2u + 1)·2⁻²⁴ − 1, in (−1, 1), which float32 holds exactly too.
"""

from __future__ import annotations

import math

import numpy as np

from ..random import Key

__all__ = ["choice", "normal", "uniform"]

_UNIFORM_TAG = 6


def normal(key: Key, shape: tuple[int, ...]) -> np.ndarray:
    """Independent standard normal entries, float64, in C order: row j of the last axis is one column of the stream."""
    from ..sketches import Gaussian

    width = shape[-1]
    rows = math.prod(shape[:-1])
    if width == 0 or rows == 0:
        return np.zeros(shape)
    block = np.asarray(Gaussian().sample(width, rng=key).columns(0, rows)).T
    return np.ascontiguousarray(block * math.sqrt(width)).reshape(shape)


def _words(key: Key, start: int, count: int) -> np.ndarray:
    """Words start … start + count of the stream of a key, uint32; start is a multiple of 4."""
    from ..kernels.cpu import philox

    out = np.empty((-(-count // 4), 4), np.uint32)
    philox.words(np.uint64(key.value), start // 4, 0, _UNIFORM_TAG, out)
    return out.reshape(-1)[:count]


def uniform(key: Key, shape: tuple[int, ...], dtype: type = np.float64) -> np.ndarray:
    """Independent entries, uniform in (−1, 1).

    Parameters
    ----------
    dtype : float64 or float32
        The numbers are the same in both.
    """
    out = np.empty(math.prod(shape), dtype)
    step = 1 << 22
    for start in range(0, out.size, step):
        signed = (_words(key, start, min(step, out.size - start)) >> 8).astype(np.int32)
        signed *= 2
        signed += 1 - (1 << 24)
        out[start : start + signed.size] = signed
    out *= 2.0**-24  # all exact
    return out.reshape(shape)


def choice(key: Key, population: int, count: int) -> np.ndarray:
    """`count` different integers in [0, population), sorted; every subset is as likely as any other.

    The stream's 64-bit numbers are read in order, each reduced to [0, population), and repetitions are skipped until
    there are enough; for more than half of the population, what is left out is drawn.
    """
    if 2 * count > population:
        keep = np.ones(population, bool)
        keep[choice(key, population, population - count)] = False
        return np.flatnonzero(keep)
    found = np.zeros(0, np.int64)
    start = 0
    while found.size < count:
        more = 2 * (count - found.size) + 16
        words = _words(key, start, 4 * more).reshape(-1, 4).astype(np.uint64)
        start += 4 * more
        draws = ((words[:, 0] | words[:, 1] << np.uint64(32)) % np.uint64(population)).astype(np.int64)
        both = np.concatenate([found, draws])
        first = np.sort(np.unique(both, return_index=True)[1])
        found = both[first][:count]
    return np.sort(found)
