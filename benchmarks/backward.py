"""How wrong an answer is: backward error by the estimate of Karlson and Waldén, and distance from the exact answer.

Both are measured on A with its columns scaled to norms between 1 and 2 by powers of two, so that no column hides
behind another. Residuals are formed in extended precision (np.longdouble) by NumPy's own loops.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import scipy.linalg
from harness import cores

_ROWS = 2048  # a block of rows in extended precision fits the cache


class Measure:
    """Judge of the answers to one problem: factorises A once, by QR.

    The backward error of x is the least ‖[δA, θδb]‖_F / ‖A‖_F with x a minimiser of ‖(A + δA)x − (b + δb)‖, where
    θ = ‖A‖_F/‖b‖. Karlson and Waldén's estimate √s·‖(Σ² + s‖r‖²)^(-1/2) VᵀAᵀr‖, s = θ²/(1 + θ²‖x‖²), is within a
    small factor of it: B. Waldén, R. Karlson, J.-G. Sun, doi:10.1002/nla.1680020308.

    Parameters
    ----------
    A : (m, n) array or SciPy CSR
        Of full column rank where `refined` or `distances` is called. A sparse A must be well conditioned: its R is
        found from AᵀA.
    b : (m,) array
    """

    def __init__(self, A: Any, b: np.ndarray) -> None:
        self.A, self.b = A, b
        if isinstance(A, np.ndarray):
            # hypot's care is not needed: the benchmarks stay far from overflow
            norms = np.sqrt(np.einsum("ij,ij->j", A, A, dtype=np.float64))
        else:
            norms = np.sqrt(np.asarray(A.multiply(A).sum(axis=0)).ravel())
        self.exponents = np.where(norms > 0, np.frexp(np.where(norms > 0, norms, 1.0))[1] - 1, 0)
        self.R = self._triangle()
        self.sigma, self.Vt = scipy.linalg.svd(self.R, full_matrices=False, check_finite=False)[1:]
        self.frobenius = float(np.linalg.norm(self.sigma))
        self.norm_b = float(np.linalg.norm(b.astype(np.float64)))

    @property
    def condition(self) -> float:
        """Of A with its columns scaled."""
        return float(self.sigma[0] / self.sigma[-1]) if self.sigma[-1] > 0 else float("inf")

    def _triangle(self) -> np.ndarray:
        if not isinstance(self.A, np.ndarray):
            gram = np.ldexp((self.A.T @ self.A).toarray(), -(self.exponents + self.exponents[:, None]))
            return scipy.linalg.cholesky(gram)
        m, n = self.A.shape
        R, step = np.zeros((0, n)), max(16 * n, 20_000)
        for i in range(0, m, step):
            rows = np.ldexp(self.A[i : i + step].astype(np.float64), -self.exponents)
            R = np.linalg.qr(np.vstack([R, rows]), mode="r")
        return R

    def residuals(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """‖b − Ax‖ and Aᵀ(b − Ax), scaled like A's columns, of every column of X."""
        X = X.astype(np.longdouble)
        if not isinstance(self.A, np.ndarray):
            A = self.A.astype(np.longdouble)
            r = self.b[:, None] - A @ X
            squares, G = np.sum(r * r, axis=0), A.T @ r
        else:

            def block(i: int) -> tuple[np.ndarray, np.ndarray]:
                rows = self.A[i : i + _ROWS].astype(np.longdouble)
                r = self.b[i : i + _ROWS, None] - rows @ X
                return np.sum(r * r, axis=0), rows.T @ r

            with ThreadPoolExecutor(cores()) as pool:
                parts = list(pool.map(block, range(0, self.A.shape[0], _ROWS)))
            squares, G = (np.sum([part[i] for part in parts], axis=0) for i in (0, 1))
        return np.sqrt(squares).astype(np.float64), np.ldexp(G, -self.exponents[:, None])

    def backward(self, X: np.ndarray) -> np.ndarray:
        """The backward error of every column of X; infinite where it is not finite."""
        errors = np.full(X.shape[1], np.inf)
        finite = np.isfinite(X).all(axis=0)
        if not finite.any():
            return errors
        X = X[:, finite].astype(np.float64)
        size_r, G = self.residuals(X)
        theta = self.frobenius / self.norm_b
        sizes = np.linalg.norm(np.ldexp(X, self.exponents[:, None]), axis=0)
        root = theta / np.hypot(1.0, theta * sizes)
        weights = np.hypot(self.sigma[:, None], root * size_r)
        turned = self.Vt @ G.astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            parts = np.where(turned == 0, 0.0, turned / weights)
        errors[finite] = root * np.linalg.norm(parts, axis=0) / self.frobenius
        return errors

    def refined(self, x: np.ndarray, steps: int = 3) -> np.ndarray:
        """The exact answer, to about uκ times the rounding error of x: refinement by R and exact residuals."""
        x = x.astype(np.longdouble)[:, None]
        for _ in range(steps):
            G = self.residuals(x)[1].astype(np.float64)
            step = scipy.linalg.solve_triangular(self.R, scipy.linalg.solve_triangular(self.R, G, trans="T"))
            x = x + np.ldexp(step, -self.exponents[:, None])
        return x[:, 0]

    def distances(self, X: np.ndarray, exact: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """‖A(x − x*)‖ and ‖x − x*‖ in the scaled coordinates, of every column of X; `exact` is x* in longdouble."""
        left = np.ldexp(X.astype(np.longdouble) - exact[:, None], self.exponents[:, None]).astype(np.float64)
        with np.errstate(invalid="ignore"):
            predicted = np.linalg.norm(self.R @ left, axis=0)
        return predicted, np.linalg.norm(left, axis=0)


def exact_answer(measure: Measure) -> np.ndarray:
    """x* of a small problem, to 2000 times the accuracy of Householder QR in float64, in longdouble.

    By the normal equations of W = AR⁻¹, R from QR in float64: W is nearly orthonormal, so they lose nothing, and
    all that depends on the condition number is done in extended precision.
    """
    R = measure.R.astype(np.longdouble)
    A = np.ldexp(measure.A.astype(np.longdouble), -measure.exponents)
    W = np.empty_like(A)
    for j in range(A.shape[1]):
        W[:, j] = (A[:, j] - W[:, :j] @ R[:j, j]) / R[j, j]
    c = W.T @ measure.b.astype(np.longdouble)
    gram = W.T @ W
    factor = scipy.linalg.cho_factor(gram.astype(np.float64))
    y = np.zeros_like(c)
    for _ in range(6):  # refinement carries float64's Cholesky to extended precision
        y = y + scipy.linalg.cho_solve(factor, (c - gram @ y).astype(np.float64))
    for j in reversed(range(len(y))):
        y[j] = (y[j] - R[j, j + 1 :] @ y[j + 1 :]) / R[j, j]
    return np.ldexp(y, -measure.exponents)
