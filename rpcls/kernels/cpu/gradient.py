"""One read of A for Aᵀ(b − AX): each row meets X and its own residual while it is in cache."""

from __future__ import annotations

import numpy as np
from numba import njit

from .simd import LINE_BYTES, prefetch_second

_RUN = 64  # rows that are added up before the total is touched
_AHEAD_BYTES = 16384  # how far ahead memory is asked for,
_SHORT_BYTES = 1024  # where rows are so short that the hardware does not see where four at a time lead


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"})
def gradient(A, b, weight, X, first, stop, out, squares):
    """out (k, n) += (Aᵀ W r)ᵀ and squares (k,) += rᵀ W r with r = b − AXᵀ over rows first..stop of a C-ordered A.

    X is (k, n). An empty weight means W = I, an empty b zeros. All sums are float64; rows are added in runs, so that
    the error does not grow with their number.
    """
    k, n = X.shape
    flat, line, ahead = A.reshape(-1), LINE_BYTES // A.itemsize, _AHEAD_BYTES // A.itemsize
    short = n * A.itemsize <= _SHORT_BYTES
    partial, partial_squares, r = np.empty((k, n)), np.empty(k), np.empty(4)
    while first < stop:
        end = min(first + _RUN, stop)
        partial[:] = 0.0
        partial_squares[:] = 0.0
        for i in range(first, end, 4):
            rows = min(4, end - i)
            if short:
                for c in range(i * n + ahead, (i + rows) * n + ahead, line):
                    prefetch_second(flat, c)
            for j in range(k):
                x, total = X[j], partial[j]
                r[:] = 0.0
                for p in range(rows):
                    row, dot = A[i + p], 0.0
                    for c in range(n):
                        dot += row[c] * x[c]
                    own = (b[i + p, j] if len(b) else 0.0) - dot
                    r[p] = own * (weight[i + p] if len(weight) else 1.0)
                    partial_squares[j] += own * r[p]
                if rows == 4:
                    a0, a1, a2, a3 = A[i], A[i + 1], A[i + 2], A[i + 3]
                    r0, r1, r2, r3 = r[0], r[1], r[2], r[3]
                    for c in range(n):
                        total[c] += (r0 * a0[c] + r1 * a1[c]) + (r2 * a2[c] + r3 * a3[c])
                else:
                    for p in range(rows):
                        row, own = A[i + p], r[p]
                        for c in range(n):
                            total[c] += own * row[c]
        for j in range(k):
            squares[j] += partial_squares[j]
            for c in range(n):
                out[j, c] += partial[j, c]
        first = end
