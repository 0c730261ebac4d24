"""The yardstick of a study: x* and the norms ‖A(x − x*)‖ and ‖b − Ax‖ of any x, without another look at the rows.

One row-blocked QR of [A B] leaves a small triangle R. Its columns have the same lengths and angles as those of
[A B], so ‖A(x − x*)‖ = ‖R_A(x − x*)‖ and ‖b − Ax‖ = ‖R_b − R_A x‖, each to rounding error relative to ‖b‖. x* is
the least-squares solution within that triangle, which is as accurate as LAPACK's, and then refined from a residual in
extended precision, so that the errors of solvers that are as accurate as LAPACK can be put in the table, and LAPACK's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..linalg import triangle_in_place

__all__ = ["Reference"]

_CONSISTENT = 1e-12  # below this times ‖b‖ a residual is rounding
_REFINED = 1e6  # condition number up to which one refinement by the triangle reaches every digit
_STEP = 1024  # rows that are in extended precision at a time


@dataclass(frozen=True, eq=False)
class Reference:
    """x* of every target and what is needed to measure errors.

    Attributes
    ----------
    triangle : (n + k, n + k) array
        R of the QR factorisation of [A B].
    n : int
    X : (n, k) array
        x* of every target; of minimum norm if A is rank-deficient.
    rank : int
    condition : float
        σ₁/σ_rank of A.
    rest : (n, k) array
        What is to be added to `X` for the digits of x* beyond float64; 0 where they were not found: condition
        numbers above 10⁶, systems where long double is no longer than double.
    """

    triangle: np.ndarray
    n: int
    X: np.ndarray
    rank: int
    condition: float
    rest: np.ndarray

    @classmethod
    def of(cls, A: np.ndarray, B: np.ndarray) -> Reference:
        """Two sweeps over A (m, n) and B (m, k); O(m(n + k)²) flops, a few MB."""
        m, n = A.shape
        width = n + B.shape[1]
        step = max(4 * width, 4096)
        R = np.zeros((0, width))
        for start in range(0, m, step):
            stop = min(m, start + step)
            rows = np.empty((len(R) + stop - start, width), order="F")
            rows[: len(R)] = R
            rows[len(R) :, :n] = A[start:stop]
            rows[len(R) :, n:] = B[start:stop]
            R = triangle_in_place(rows)
        X, _, rank, sigma = np.linalg.lstsq(R[:, :n], R[:, n:], rcond=None)
        condition = float(sigma[0] / sigma[rank - 1]) if rank else math.inf
        rest = np.zeros_like(X)
        if condition <= _REFINED and np.finfo(np.longdouble).eps < np.finfo(np.float64).eps:
            _, s, Vt = np.linalg.svd(R[:, :n], full_matrices=False)
            rest = Vt[:rank].T @ (Vt[:rank] @ _gradient(A, B, X) / np.square(s[:rank, None]))
        return cls(R, n, X, int(rank), condition, rest)

    def signal_norm(self, target: int) -> float:
        """‖Ax*‖."""
        return float(np.linalg.norm(self.triangle[:, : self.n] @ self.X[:, target]))

    def residual_norm(self, x: np.ndarray, target: int) -> float:
        """‖b − Ax‖."""
        R = self.triangle
        return float(np.linalg.norm(R[:, self.n + target] - R[:, : self.n] @ np.asarray(x, dtype=np.float64)))

    def least_residual_norm(self, target: int) -> float:
        """‖b − Ax*‖; exactly 0 when it is only rounding, that is when the system is consistent."""
        least = self.residual_norm(self.X[:, target], target)
        return least if least > _CONSISTENT * float(np.linalg.norm(self.triangle[:, self.n + target])) else 0.0

    def relative_error(self, x: np.ndarray, target: int) -> float | None:
        """‖A(x − x*)‖ / ‖Ax*‖; None when Ax* = 0."""
        signal = self.signal_norm(target)
        difference = np.asarray(x, dtype=np.float64) - self.X[:, target] - self.rest[:, target]
        return float(np.linalg.norm(self.triangle[:, : self.n] @ difference)) / signal if signal else None

    def residual_ratio(self, x: np.ndarray, target: int) -> float | None:
        """‖b − Ax‖ / ‖b − Ax*‖; None when the system is consistent."""
        least = self.least_residual_norm(target)
        return self.residual_norm(x, target) / least if least else None


def _gradient(A: np.ndarray, B: np.ndarray, X: np.ndarray) -> np.ndarray:
    """Aᵀ(B − AX) in extended precision, rounded at the end."""
    total, fine = np.zeros(X.shape, np.longdouble), X.astype(np.longdouble)
    for start in range(0, len(A), _STEP):
        rows = A[start : start + _STEP].astype(np.longdouble)
        total += rows.T @ (B[start : start + _STEP].astype(np.longdouble) - rows @ fine)
    return total.astype(np.float64)
