"""Modulated bases: dW = s·U·Â, where the rows of Â are fixed rows times the unknown ones, entry by entry.

RandLoRA's γ and all four factors of LoHa are of this kind.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from . import systems
from .linear import Linear, Step, quadratic_value
from .quadratic import Quadratic

__all__ = ["ModulatedColumns", "ModulatedRows"]

DENSE = 1500  # unknowns up to which coupled columns are solved for as one system
_CHUNK_BYTES = 256 << 20


class Modulated(Linear):
    """Â[a·n + j] = λ[a, j]·A[a] ⊙ θ[j], so that column c of Â has the n unknowns θ[:, c] of its own.

    Parameters
    ----------
    U : (p, m·n) array
    A : (m, q) array
    lam : (m, n) array
        λ.
    scale : float
        s.
    by_row : bool, default False
        θ is (q, n) instead of (n, q).
    base_gram : callable, optional
        From C (None for I) to UᵀCU, if that is kept elsewhere.
    """

    def __init__(
        self,
        U: np.ndarray,
        A: np.ndarray,
        lam: np.ndarray,
        scale: float,
        *,
        by_row: bool = False,
        base_gram: Callable[[np.ndarray | None], np.ndarray] | None = None,
    ) -> None:
        self.U, self.A, self.lam, self.scale, self.by_row = U, A, lam, scale, by_row
        self.base_gram = base_gram or (lambda C: U.T @ (U if C is None else C @ U))
        self.n, self.q = lam.shape[1], A.shape[1]
        self.theta_shape = (self.q, self.n) if by_row else (self.n, self.q)

    def turned(self, theta: np.ndarray) -> np.ndarray:
        """Between θ as it is stored and (n, q), either way."""
        return theta.T if self.by_row else theta

    def modulated(self, theta: np.ndarray) -> np.ndarray:
        """Â (m·n, q) of θ (n, q)."""
        out = self.A[:, None, :] * theta
        out *= self.lam[:, :, None]
        return out.reshape(-1, self.q)

    def gather(self, product: np.ndarray) -> np.ndarray:
        """The adjoint of `modulated`, (n, q): Σ over a of λ[a, j]·A[a, c]·product[a·n + j, c]."""
        parts = product.reshape(*self.lam.shape, self.q)
        out = np.zeros((self.n, self.q))
        for lam, A, part in zip(self.lam, self.A, parts, strict=True):
            out += lam[:, None] * (A * part)
        return out

    def column_grams(self, N: np.ndarray, columns: slice) -> np.ndarray:
        """s²·Σ over a and b of λ[a, j]·A[a, c]·N[a·n + j, b·n + l]·λ[b, l]·A[b, c], (columns, n, n): one product."""
        m, n = self.lam.shape
        lam = self.lam.reshape(-1)
        scaled = (N * lam * lam[:, None]).reshape(m, n, m, n).transpose(0, 2, 1, 3).reshape(m * m, n * n)
        A = self.A[:, columns]
        M = ((A[:, None] * A).reshape(m * m, -1).T @ scaled).reshape(-1, n, n)
        M *= self.scale**2
        return (M + M.transpose(0, 2, 1)) / 2

    def chunks(self) -> list[slice]:
        """The columns, few enough at a time for their normal equations."""
        step = max(1, _CHUNK_BYTES // (8 * self.n**2))
        return [slice(a, min(self.q, a + step)) for a in range(0, self.q, step)]

    def separate(self, f: Quadratic, N: np.ndarray) -> Step:
        """The minimiser, when every column of Â has its own system, from UᵀCU or c·UᵀU."""
        rhs = self.turned(self.adjoint(f.R))
        theta, rank, value = np.empty((self.n, self.q)), 0, f.energy
        for here in self.chunks():
            M, m = self.column_grams(N, here), rhs[:, here].T
            solved = systems.solve_batch(M, m)
            theta[:, here] = solved.x.T
            rank += solved.rank
            value += quadratic_value(M, m, solved.x)
        return Step(np.ascontiguousarray(self.turned(theta)), value, rank)

    def numbers(self) -> np.ndarray:
        """The flat number of each unknown, (q, n)."""
        flat = np.arange(self.size).reshape(self.theta_shape)
        return flat if self.by_row else flat.T


class ModulatedRows(Modulated):
    """dW = (s·U·Â)ᵀ, (q, p): every row of dW is a column of Â with an n × n system of its own, whatever C is."""

    @property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        return self.q, len(self.U)

    def apply(self, theta: np.ndarray) -> np.ndarray:
        return self.scale * (self.U @ self.modulated(self.turned(theta))).T

    def adjoint(self, G: np.ndarray) -> np.ndarray:
        return self.turned(self.scale * self.gather(self.U.T @ G.T))

    def gram(self, C: np.ndarray, block: np.ndarray | None = None) -> np.ndarray:
        M = np.zeros((self.size, self.size))
        for here, part in zip(self.numbers(), self.column_grams(self.base_gram(C), slice(None)), strict=True):
            M[np.ix_(here, here)] = part
        return M if block is None else M[np.ix_(block, block)]

    def blocks(self) -> list[np.ndarray]:
        return list(self.numbers())

    def solve(self, f: Quadratic, start: np.ndarray | None = None) -> Step:
        return self.separate(f, self.base_gram(f.C))


class ModulatedColumns(Modulated):
    """dW = s·U·Â, (p, q): C couples the columns, unless it is a multiple of I.

    Parameters
    ----------
    cg_iterations : int, default 60
    cg_tol : float, default 1e-10
        Of conjugate gradients, which solve for more than 1500 unknowns: from the previous θ, with the inverse of each
        column's own system as the preconditioner. What C does not determine stays near the previous θ then.
    """

    def __init__(
        self,
        U: np.ndarray,
        A: np.ndarray,
        lam: np.ndarray,
        scale: float,
        *,
        base_gram: Callable[[np.ndarray | None], np.ndarray] | None = None,
        cg_iterations: int = 60,
        cg_tol: float = 1e-10,
    ) -> None:
        super().__init__(U, A, lam, scale, base_gram=base_gram)
        self.shape = len(U), self.q
        self.cg_iterations, self.cg_tol = cg_iterations, cg_tol

    def apply(self, theta: np.ndarray) -> np.ndarray:
        return self.scale * (self.U @ self.modulated(theta))

    def adjoint(self, G: np.ndarray) -> np.ndarray:
        return self.scale * self.gather(self.U.T @ G)

    def gram(self, C: np.ndarray, block: np.ndarray | None = None) -> np.ndarray:
        (m, n), lam = self.lam.shape, self.lam.reshape(-1)
        N = (self.base_gram(None) * lam * lam[:, None]).reshape(m, n, m, n)
        half = np.einsum("ajbl,bd->ajld", N, self.A)
        M = np.einsum("ac,ajld,cd->jcld", self.A, half, C, optimize=True)
        M = M.reshape(self.size, self.size) * self.scale**2
        return M if block is None else M[np.ix_(block, block)]

    def solve(self, f: Quadratic, start: np.ndarray | None = None) -> Step:
        if f.is_scalar is not None:
            return self.separate(f, f.is_scalar * self.base_gram(None))
        if self.size <= DENSE:
            return super().solve(f, start)
        N, s2, rhs = self.base_gram(None), self.scale**2, self.adjoint(f.R)
        inverses = self._inverses(N, np.diagonal(f.C))

        def product(theta: np.ndarray) -> np.ndarray:
            return s2 * self.gather((N @ self.modulated(theta)) @ f.C)

        def precondition(r: np.ndarray) -> np.ndarray:
            return np.matmul(inverses, r.T[:, :, None])[:, :, 0].T

        theta, _ = systems.conjugate_gradients(
            product,
            rhs,
            precondition,
            np.zeros(self.theta_shape) if start is None else start,
            tol=self.cg_tol,
            max_iterations=self.cg_iterations,
        )
        return Step(theta, f.energy + float(np.vdot(theta, product(theta) - 2 * rhs)), None)

    def _inverses(self, N: np.ndarray, diagonal: np.ndarray) -> np.ndarray:
        """Of every column's own system, (q, n, n), each with a little ridge."""
        out = np.empty((self.q, self.n, self.n))
        for here in self.chunks():
            M = self.column_grams(N, here) * diagonal[here, None, None]
            mean = np.trace(M, axis1=1, axis2=2) / self.n
            mean[mean == 0] = 1.0  # a column without effect
            M[:, np.arange(self.n), np.arange(self.n)] += 1e-10 * mean[:, None]
            inverse = np.linalg.inv(M)
            out[here] = (inverse + inverse.transpose(0, 2, 1)) / 2
        return out
