"""Products and solves with an upper triangle for a few vectors, on one thread.

Between two sweeps BLAS would do no better, and its threads, once woken, spin for longer than a sweep takes.
"""

from __future__ import annotations

from numba import njit


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"})
def solve(R, X):
    """X (k, n) ← R⁻¹X by vector, R upper triangular (n, n)."""
    n = len(R)
    for x in X:
        for i in range(n - 1, -1, -1):
            row, total = R[i], 0.0
            for c in range(i + 1, n):
                total += row[c] * x[c]
            x[i] = (x[i] - total) / row[i]


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"})
def solve_transposed(R, X):
    """X (k, n) ← R⁻ᵀX by vector."""
    n = len(R)
    for x in X:
        for i in range(n):
            row = R[i]
            x[i] /= row[i]
            v = x[i]
            for c in range(i + 1, n):
                x[c] -= v * row[c]


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"})
def multiply(R, X):
    """X (k, n) ← RX by vector."""
    n = len(R)
    for x in X:
        for i in range(n):
            row, total = R[i], 0.0
            for c in range(i, n):
                total += row[c] * x[c]
            x[i] = total


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"})
def multiply_transposed(R, X):
    """X (k, n) ← RᵀX by vector."""
    n = len(R)
    for x in X:
        for i in range(n - 1, -1, -1):
            row, v = R[i], x[i]
            x[i] = row[i] * v
            for c in range(i + 1, n):
                x[c] += v * row[c]
