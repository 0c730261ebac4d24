"""Eigenvalues of a symmetric tridiagonal matrix, with the coordinates of a few vectors instead of its eigenvectors.

As G. H. Golub and J. H. Welsch do for quadrature (Math. Comp. 23 (1969) 221, doi:10.1090/S0025-5718-69-99647-1): the
rotations that make the matrix diagonal are applied to what is wanted, and forgotten.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_EPSILON = 2.0**-52
_PATIENCE = 50  # iterations for one eigenvalue; two are usual


@njit(nogil=True, cache=True)
def diagonalise(d, e, C):
    """With T = VΛVᵀ of diagonal d (n,) and subdiagonal e (n,), whose last entry only makes room: d ← Λ, in no order,
    C (n, k) ← VᵀC; e is lost. False if it did not converge.

    The QL method with implicit shifts by Wilkinson's rule, about 3n²(10 + 3k) flops; absolute errors of the order of
    rounding in ‖T‖.
    """
    n, k = C.shape
    for first in range(n):
        for _ in range(_PATIENCE):
            last = first  # of the block that no negligible entry divides
            while last < n - 1 and not abs(e[last]) <= _EPSILON * (abs(d[last]) + abs(d[last + 1])):
                last += 1
            if last == first:
                break
            half = (d[first + 1] - d[first]) / (2.0 * e[first])
            root = np.copysign(np.hypot(half, 1.0), half)
            bulge = d[last] - d[first] + e[first] / (half + root)
            s, c, shift = 1.0, 1.0, 0.0
            row = last - 1
            while row >= first:
                f, b = s * e[row], c * e[row]
                size = np.sqrt(f * f + bulge * bulge)
                e[row + 1] = size
                if size == 0.0:  # the block falls apart here
                    d[row + 1] -= shift
                    e[last] = 0.0
                    break
                s, c = f / size, bulge / size
                bulge = d[row + 1] - shift
                turned = (d[row] - bulge) * s + 2.0 * c * b
                shift = s * turned
                d[row + 1] = bulge + shift
                bulge = c * turned - b
                for j in range(k):
                    above, below = C[row, j], C[row + 1, j]
                    C[row, j], C[row + 1, j] = c * above - s * below, s * above + c * below
                row -= 1
            else:
                d[first] -= shift
                e[first] = bulge
                e[last] = 0.0
        else:
            return False
    return True
