"""CountSketch of a matrix whose columns are contiguous: a column at a time, so that nothing is transposed.

A column of SA fits the nearest cache, and so do the codes of a panel of rows; A is read along its columns. Every entry
of SA is added up in the order of the rows, as the row-wise kernels do.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .sparse_sign import codes

_1 = np.uint32(1)


@njit(nogil=True, cache=True, error_model="numpy")
def _scatter(column, sign, row, out):
    """out[row] += sign·column."""
    count = len(column)
    full = count - count % 4
    for i in range(0, full, 4):  # the products first: a sum may have to wait for the one before it
        a, b = sign[i] * column[i], sign[i + 1] * column[i + 1]
        c, d = sign[i + 2] * column[i + 2], sign[i + 3] * column[i + 3]
        out[row[i]] += a
        out[row[i + 1]] += b
        out[row[i + 2]] += c
        out[row[i + 3]] += d
    for i in range(full, count):
        out[row[i]] += sign[i] * column[i]


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

    Row 0 of A is row `start` of the whole problem. Adds to out (n, d) = (SA)ᵀ, out_side (k + 1, d) = (S[b 1])ᵀ, sums
    (n, 2 + k) and totals (2k + 1,) as the row-wise kernels.
    """
    n, k = A.shape[1], b.shape[1]
    code, row = np.empty((4, capacity), np.uint32), np.empty(capacity, np.uint32)
    sign, factor = np.empty(capacity, A.dtype), np.empty(capacity, A.dtype)
    root, rhs, beside = np.ones(capacity), np.empty((k, capacity)), np.empty(capacity, A.dtype)
    plain = len(weight) == 0 and scale_a == 1.0
    while first < stop:
        rows = min(capacity, stop - first)
        codes(key, start + first, rows, edges, code)
        for i in range(rows):
            row[i] = code[0, i] >> _1
            sign[i] = -1.0 if code[0, i] & _1 else 1.0
            if len(weight):
                root[i] = np.sqrt(weight[first + i])
            factor[i] = root[i] * scale_a
            totals[2 * k] += root[i] * root[i]
        for j in range(k):
            for i in range(rows):
                value = np.float64(b[first + i, j]) * (root[i] * scale_b)
                rhs[j, i] = value
                beside[i] = value
                totals[j] += value * root[i]
                totals[k + j] += value * value
            _scatter(beside[:rows], sign, row, out_side[j])
        for i in range(rows):
            beside[i] = root[i]
        _scatter(beside[:rows], sign, row, out_side[k])
        for c in range(n):
            column = A[first : first + rows, c]
            if plain:
                _scatter(column, sign, row, out[c])
                _sum(column, False, root, rhs, sums[c])
                continue
            for i in range(rows):
                beside[i] = factor[i] * column[i]
            _scatter(beside[:rows], sign, row, out[c])
            _sum(beside[:rows], True, root, rhs, sums[c])
        first += rows
