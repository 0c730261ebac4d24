"""Fused sweeps over rows in compressed sparse row form: the work is proportional to the stored entries.

Explicit zeros and repeated columns in a row are allowed; nothing is densified.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .sparse_sign import codes

_codes = codes


@njit(nogil=True, cache=True)
def sweep(
    data, indices, indptr, b, weight, first, stop, start, key, edges, scale_a, scale_b, code,
    out, out_side, sums, totals,
):  # fmt: skip
    """Rows first..stop of the problem under a sparse sign sketch; row 0 is column `start` of S.

    Adds to out (d, n), out_side (d, k + 1) = S[b, 1], sums (n, 2 + k) = Aᵀ1, squared norms and Aᵀb by column of A, and
    totals (2k + 1,) = bᵀ1, bᵀb, 1ᵀ1. An empty weight means ones; the factor 1/√ζ is left to the caller. code
    (4·⌈ζ/4⌉, rows of a panel) is room to work in.
    """
    k, nnz, capacity = b.shape[1], len(edges) - 1, code.shape[1]
    right = np.empty(k + 1)
    while first < stop:
        rows = min(capacity, stop - first)
        _codes(key, start + first, rows, edges, code)
        for i in range(rows):
            row = first + i
            root = np.sqrt(weight[row]) if len(weight) else 1.0
            factor = root * scale_a
            begin, end = indptr[row], indptr[row + 1]
            for j in range(k):
                right[j] = np.float64(b[row, j]) * (root * scale_b)
                totals[j] += right[j] * root
                totals[k + j] += right[j] * right[j]
            right[k] = root
            totals[2 * k] += root * root
            for p in range(begin, end):
                a = np.float64(data[p]) * factor
                column = sums[indices[p]]
                column[0] += a * root
                column[1] += a * a
                for j in range(k):
                    column[2 + j] += a * right[j]
            for z in range(nnz):
                drawn = code[z, i]
                target = np.int64(drawn >> np.uint32(1))
                unit = 1.0 - 2.0 * (drawn & np.uint32(1))  # no branch to mispredict
                signed = factor * unit
                into = out[target]
                for p in range(begin, end):
                    into[indices[p]] += out.dtype.type(data[p] * signed)
                side = out_side[target]
                for j in range(k + 1):
                    side[j] += unit * right[j]
        first += rows


@njit(nogil=True, cache=True)
def gradient(data, indices, indptr, b, weight, X, shift, first, stop, out, squares, totals):
    """out (k, n) += (Aᵀ W r)ᵀ, squares (k,) += rᵀ W r and totals (k,) += 1ᵀ W r with r = b − shift − AXᵀ.

    Over rows first..stop; X is (k, n), shift (k,). An empty weight means W = I, an empty b zeros.
    """
    k = len(X)
    r = np.empty(k)
    for row in range(first, stop):
        w = weight[row] if len(weight) else 1.0
        begin, end = indptr[row], indptr[row + 1]
        for j in range(k):
            r[j] = (b[row, j] if len(b) else 0.0) - shift[j]
            for p in range(begin, end):
                r[j] -= data[p] * X[j, indices[p]]
            squares[j] += w * r[j] * r[j]
            totals[j] += w * r[j]
            for p in range(begin, end):
                out[j, indices[p]] += w * r[j] * data[p]


@njit(nogil=True, cache=True)
def gram(data, indices, indptr, b, weight, first, stop, out, Atb, sums):
    """out (n, n) += AᵀWA, the part of it where row ≥ column, Atb (n, k) += AᵀWb and sums (n,) += AᵀW1.

    Over rows first..stop, at the cost of the squared number of entries of each; columns must ascend in a row. An empty
    weight means W = I.
    """
    k = b.shape[1]
    for row in range(first, stop):
        w = weight[row] if len(weight) else 1.0
        begin, end = indptr[row], indptr[row + 1]
        for p in range(begin, end):
            column = indices[p]
            a = np.float64(data[p]) * w
            sums[column] += a
            for j in range(k):
                Atb[column, j] += a * b[row, j]
            into = out[column]
            for q in range(begin, p + 1):
                into[indices[q]] += a * data[q]
