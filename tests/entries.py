"""The entries of S from its documented layout, in pure Python: slow and obvious on purpose.

Only `philox4x32` on Python integers is shared with the library, and that is tested against published answers.
"""

from __future__ import annotations

import math

import mpmath
import numpy as np

from rpcls.random import philox4x32

FOLD, SPARSE_SIGN, RADEMACHER, GAUSSIAN, HADAMARD, PERMUTATION = range(6)


def words(key: int, column: int, draw: int, tag: int) -> tuple[int, int, int, int]:
    return philox4x32((column % 2**32, column // 2**32, draw, tag), (key % 2**32, key // 2**32))


def sparse_sign(d: int, nnz: int, key: int, column: int) -> np.ndarray:
    out = np.zeros(d)
    for z in range(nnz):
        word = words(key, column, z // 4, SPARSE_SIGN)[z % 4]
        first, last = z * d // nnz, (z + 1) * d // nnz
        row = first + (word // 2) * (last - first) // 2**31
        out[row] = (-1) ** (word % 2) / math.sqrt(nnz)
    return out


def rademacher(d: int, key: int, column: int) -> np.ndarray:
    out = np.zeros(d)
    for j in range(d):
        word = words(key, column, j // 128, RADEMACHER)[j // 32 % 4]
        out[j] = (-1) ** (word // 2 ** (j % 32) % 2) / math.sqrt(d)
    return out


def uniform(low: int, high: int) -> float:
    return ((low + high * 2**32) // 2**11 + 0.5) / 2**53


def _horner(coefficients: list[float], t: float) -> float:
    total = coefficients[0]
    for c in coefficients[1:]:
        total = total * t + c
    return total


def minus_log(u: float) -> float:
    """-ln u as rpcls defines it: a fixed sequence of float64 operations."""
    k = 0.0
    while u < 0.7071067811865476:
        u, k = 2.0 * u, k + 1.0
    s = (u - 1.0) / (u + 1.0)
    t = s * s
    p = _horner([1.0 / odd for odd in range(23, 1, -2)], t)
    series = 2.0 * s + 2.0 * s * t * p
    return (k * 6.93147180369123816490e-01 - series) + k * 1.90821492927058770002e-10


def cos_sin(u: float) -> tuple[float, float]:
    """(cos 2πu, sin 2πu) as rpcls defines them."""
    q = math.floor(4.0 * u + 0.5)
    x = (u - 0.25 * q) * 6.283185307179586
    t = x * x
    s = _horner([(-1.0) ** (odd // 2) / math.factorial(odd) for odd in range(15, 2, -2)], t)
    c = _horner([(-1.0) ** (even // 2) / math.factorial(even) for even in range(16, 1, -2)], t)
    sine, cosine = x + x * t * s, 1.0 + t * c
    return [(cosine, sine), (-sine, cosine), (-cosine, -sine), (sine, -cosine)][q % 4]


def gaussian(d: int, key: int, column: int) -> np.ndarray:
    """√d·S[:, column], bit for bit."""
    out = []
    for draw in range((d + 1) // 2):
        w = words(key, column, draw, GAUSSIAN)
        radius = math.sqrt(2.0 * minus_log(uniform(w[0], w[1])))
        out += [radius * v for v in cos_sin(uniform(w[2], w[3]))]
    return np.array(out[:d])


def gaussian_mp(d: int, key: int, column: int) -> list[mpmath.mpf]:
    """√d·S[:, column] by the mathematics of Box and Muller in extended precision."""
    out = []
    with mpmath.workdps(40):
        for draw in range((d + 1) // 2):
            w = words(key, column, draw, GAUSSIAN)
            radius = mpmath.sqrt(-2 * mpmath.log(uniform(w[0], w[1])))
            angle = 2 * mpmath.pi * mpmath.mpf(uniform(w[2], w[3]))
            out += [radius * mpmath.cos(angle), radius * mpmath.sin(angle)]
    return out[:d]


def fold(key: int, i: int) -> int:
    low, high, _, _ = words(key, i, 0, FOLD)
    return high * 2**32 + low


def permuted(key: int, m: int, place: int) -> int:
    """The image of `place` under the keyed permutation of range(m): eight Feistel rounds, cycle walking."""
    half = next(h for h in range(32) if 4**h >= m)
    while True:
        left, right = place >> half, place % 2**half
        for draw in range(8):
            left, right = right, left ^ words(key, right, draw, PERMUTATION)[0] % 2**half
        place = left * 2**half + right
        if place < m:
            return place


def sampled(key: int, size: int, d: int) -> list[int]:
    """Rows of a transform of length `size`: one permutation after another."""
    return [permuted(fold(key, r // size), size, r % size) for r in range(d)]


def hadamard(d: int, key: int, column: int, size: int, *, blocks: bool) -> np.ndarray:
    """A column of SRHT (size: the padded length) or of BlockSRHT (size: the block)."""
    own = (-1) ** (words(key, column, 0, HADAMARD)[0] % 2)
    out = np.zeros(d)
    for r, row in enumerate(sampled(key, size, d)):
        sign = (-1) ** (row & (column % size if blocks else column)).bit_count()
        if blocks:
            word = words(key, column // size, 1 + r // 128, HADAMARD)[r // 32 % 4]
            sign *= (-1) ** (word // 2 ** (r % 32) % 2)
        out[r] = own * sign / math.sqrt(d)
    return out


def operator(family: object, d: int, key: int, first: int, stop: int) -> np.ndarray:
    """Columns first..stop of S, dense."""
    kind = type(family).__name__
    if kind == "Gaussian":
        return np.array([gaussian(d, key, i) for i in range(first, stop)]).reshape(-1, d).T / math.sqrt(d)
    if kind == "Rademacher":
        return np.array([rademacher(d, key, i) for i in range(first, stop)]).reshape(-1, d).T
    if kind == "BlockSRHT":
        size = family.block or max(2048, 2 ** (d - 1).bit_length())  # type: ignore[attr-defined]
        return np.array([hadamard(d, key, i, size, blocks=True) for i in range(first, stop)]).reshape(-1, d).T
    nnz = 1 if kind == "CountSketch" else family.nnz_per_column  # type: ignore[attr-defined]
    return np.array([sparse_sign(d, nnz, key, i) for i in range(first, stop)]).reshape(-1, d).T
