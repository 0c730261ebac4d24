"""One read of A for Aᵀ(b − AX): each row meets X and its own residual while it is in cache."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"})
def gradient(A, b, weight, X, first, stop, out, squares):
    """out (n, k) += Aᵀ W r and squares (k,) += rᵀ W r with r = b − AX over rows first..stop; empty weight: W = I.

    All sums are float64; rows are added in runs, so that the error does not grow with their number.
    """
    n, k = X.shape
    partial, partial_squares = np.empty((k, n)), np.empty(k)
    while first < stop:
        end = min(first + 512, stop)
        partial[:] = 0.0
        partial_squares[:] = 0.0
        for i in range(first, end):
            w = weight[i] if len(weight) else 1.0
            row = A[i]
            for j in range(k):
                column = X[:, j]
                dot = 0.0
                for c in range(n):
                    dot += row[c] * column[c]
                r = b[i, j] - dot
                partial_squares[j] += w * r * r
                wr = w * r
                total = partial[j]
                for c in range(n):
                    total[c] += wr * row[c]
        for j in range(k):
            squares[j] += partial_squares[j]
            for c in range(n):
                out[c, j] += partial[j, c]
        first = end
