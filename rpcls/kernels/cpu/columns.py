"""CountSketch of a matrix whose columns are contiguous: a few columns at a time, so that nothing is transposed.

Four columns of SA fit the nearest cache, and share what it costs to look up where a row goes; A is read along its
columns. Every entry of SA is added up in the order of the rows, as the row-wise kernels do.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .sparse_sign import codes

_1 = np.uint32(1)
GROUP = 4  # columns at a time


@njit(nogil=True, cache=True, error_model="numpy")
def _scatter(a, b, c, e, code, out):
    """out (d, 4) += S·[a b c e], S given by the codes of its columns."""
    for i in range(len(a)):
        row, sign = code[i] >> _1, a.dtype.type(1.0 - 2.0 * (code[i] & _1))
        out[row, 0] += sign * a[i]
        out[row, 1] += sign * b[i]
        out[row, 2] += sign * c[i]
        out[row, 3] += sign * e[i]


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "nsz", "contract"})  # so that sums vectorise
def _sum(column, weighted, root, rhs, out):
    """out (2 + k,) += 1ᵀa, aᵀa and bᵀa for a column a, whose ones are the roots of the weights if it is weighted."""
    total, square, product = 0.0, 0.0, 0.0
    first = rhs[0]
    for i in range(len(column)):
        a = np.float64(column[i])
        total += a * root[i] if weighted else a
        square += a * a
        product += a * first[i]
    out[0] += total
    out[1] += square
    out[2] += product
    for j in range(1, len(rhs)):
        more, product = rhs[j], 0.0
        for i in range(len(column)):
            product += np.float64(column[i]) * more[i]
        out[2 + j] += product


@njit(nogil=True, cache=True)
def sweep(A, b, weight, first, stop, start, key, edges, scale_a, scale_b, capacity, out, out_side, sums, totals):
    """One task of a fused sweep: rows first..stop of A (m, n), Fortran-ordered, `capacity` at a time.

    Row 0 of A is row `start` of the whole problem. Adds to out (⌈n/4⌉, d, 4), SA by groups of columns, to out_side
    (⌈(k + 1)/4⌉, d, 4), likewise S[b 1], to sums (n, 2 + k) and totals (2k + 1,) as the row-wise kernels.
    """
    n, k = A.shape[1], b.shape[1]
    drawn, factor = np.empty((4, capacity), np.uint32), np.empty(capacity, A.dtype)
    root, rhs = np.ones(capacity), np.empty((k, capacity))
    four, beside = np.zeros((GROUP, capacity), A.dtype), np.zeros((len(out_side) * GROUP, capacity), A.dtype)
    plain = len(weight) == 0 and scale_a == 1.0
    while first < stop:
        rows = min(capacity, stop - first)
        codes(key, start + first, rows, edges, drawn)
        code = drawn[0, :rows]
        for i in range(rows):
            if len(weight):
                root[i] = np.sqrt(weight[first + i])
            factor[i] = root[i] * scale_a
            beside[k, i] = root[i]
            totals[2 * k] += root[i] * root[i]
        for j in range(k):
            for i in range(rows):
                value = np.float64(b[first + i, j]) * (root[i] * scale_b)
                rhs[j, i] = value
                beside[j, i] = value
                totals[j] += value * root[i]
                totals[k + j] += value * value
        for j in range(0, len(beside), GROUP):
            _scatter(
                beside[j, :rows], beside[j + 1, :rows], beside[j + 2, :rows], beside[j + 3, :rows],
                code, out_side[j // GROUP],
            )  # fmt: skip
        last = first + rows
        for c in range(0, n, GROUP):
            if plain and c + GROUP <= n:
                _scatter(
                    A[first:last, c], A[first:last, c + 1], A[first:last, c + 2], A[first:last, c + 3],
                    code, out[c // GROUP],
                )  # fmt: skip
                for j in range(c, c + GROUP):
                    _sum(A[first:last, j], False, root, rhs, sums[j])
                continue
            for j in range(GROUP):
                if c + j < n:
                    for i in range(rows):
                        four[j, i] = factor[i] * A[first + i, c + j]
                    _sum(four[j, :rows], True, root, rhs, sums[c + j])
                else:
                    four[j] = 0
            _scatter(four[0, :rows], four[1, :rows], four[2, :rows], four[3, :rows], code, out[c // GROUP])
        first = last
