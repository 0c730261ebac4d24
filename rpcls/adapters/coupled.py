"""RandLoRA's λ and γ together: a look at both costs two products, N·Â·C, which is what γ alone would cost."""

from __future__ import annotations

import numpy as np

from . import systems
from .descent import Evaluation, Vectors
from .joint import Joint, inverse
from .places import module_of

__all__ = ["Coupled"]


class Coupled(Joint):
    """f = tr(ÂᵀNÂC) − 2⟨Â, P⟩ + energy, where Â[k·n + j] = λ[k, j]·A[k] ⊙ γ[j].

    Parameters
    ----------
    A : (r, d) array
    N : (n·r, n·r) array
    C : (d, d) array or None
        None: the identity.
    P : (n·r, d) array
    energy : float
    """

    names = ("lambda", "gamma")

    def __init__(self, A: np.ndarray, N: np.ndarray, C: np.ndarray | None, P: np.ndarray, energy: float) -> None:
        self.A, self.N, self.C, self.energy = A, N, C, energy
        self.r, self.n = len(A), len(N) // len(A)
        self._root: np.ndarray | None = None
        self.targets = P.reshape(self.r, self.n, -1) * A[:, None, :]

    def start(self) -> np.ndarray:
        """γ (n, d) for λ = 1, by the preconditioner in the place of the Hessian: of full rank, unlike a constant γ."""
        xp = module_of(self.A)
        return xp.ascontiguousarray(self._of_gamma(xp.ones(self.r))(2 * self.targets.sum(axis=0).T).T)

    def normal_equations(self, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        small = (self.A[:, None, :] * v).reshape(-1, v.shape[1])
        if self.C is not None:
            self._root = systems.root(self.C) if self._root is None else self._root
            small = small @ self._root
        M = small @ small.T  # exactly symmetric, and half of the flops
        M *= self.N
        return M, module_of(v).einsum("ajc,jc->aj", self.targets, v).reshape(-1)

    def evaluation(self, dtype: type) -> Evaluation:
        """From θ as one vector to f and its gradient, in that dtype with all factors near one."""
        xp = module_of(self.A)
        N_unit, C_unit = (1.0 if M is None else float(M.trace() / len(M)) or 1.0 for M in (self.N, self.C))
        t_unit = float(xp.abs(self.targets).max()) or 1.0
        N, targets = (self.N / N_unit).astype(dtype), (self.targets / t_unit).astype(dtype)
        C = None if self.C is None else (self.C / C_unit).astype(dtype)
        r, n, A = self.r, self.n, self.A[:, None, :].astype(dtype)
        scaled, part = xp.empty(targets.shape, dtype), xp.empty(targets.shape, dtype)

        def evaluate(x: np.ndarray) -> tuple[float, np.ndarray]:
            lam, gamma = x[: r * n].reshape(r, n), x[r * n :].reshape(n, -1)
            l_unit, g_unit = float(xp.abs(lam).max()) or 1.0, float(xp.abs(gamma).max()) or 1.0
            lam, gamma = (lam / l_unit).astype(dtype), (gamma / g_unit).astype(dtype)
            xp.multiply(A, gamma, out=scaled)
            xp.multiply(scaled, lam[:, :, None], out=scaled)
            products = N @ scaled.reshape(r * n, -1)
            products = (products if C is None else products @ C).reshape(part.shape)
            unit = l_unit * g_unit * N_unit * C_unit
            quadratic = unit * l_unit * g_unit * float(xp.vdot(scaled, products))
            xp.multiply(A, products, out=part)
            xp.multiply(part, unit / t_unit, out=part)
            xp.subtract(part, targets, out=part)
            to_lam, to_gamma = xp.einsum("ajc,jc->aj", part, gamma), xp.einsum("aj,ajc->jc", lam, part)
            value = self.energy + 2 * t_unit * g_unit * l_unit * float(xp.vdot(lam, to_lam)) - quadratic
            gradient = xp.concatenate([to_lam.reshape(-1), to_gamma.reshape(-1)]).astype(np.float64)
            gradient[: r * n] *= 2 * t_unit * g_unit
            gradient[r * n :] *= 2 * t_unit * l_unit
            return value, gradient

        return evaluate

    def precondition(self, M: np.ndarray, u: np.ndarray, v: np.ndarray) -> Vectors:
        """The Hessian's inverse without what couples λ and γ, and rows of γ to each other.

        Off its diagonal N is noise; without it row j of γ has the Hessian C ⊙ (AᵀΛ²A) for Λ = diag(λ[:, j]). The rows'
        mean is factored, once for all of them.
        """
        xp = module_of(u)
        squares = xp.square(u.reshape(self.r, self.n))
        mean = squares.mean(axis=1)
        size = squares.sum(axis=0) / mean.sum()
        size = xp.maximum(size, 1e-6 * size.max())[:, None]
        of_lam, of_gamma = inverse(2 * M), self._of_gamma(mean)

        def precondition(x: np.ndarray) -> np.ndarray:
            rows = x[u.size :].reshape(self.n, -1) / size
            return xp.concatenate([of_lam(x[: u.size]), of_gamma(rows.T).T.reshape(-1)])

        return precondition

    def _of_gamma(self, mean: np.ndarray) -> Vectors:
        twice = 2 * self.N.trace() / len(self.N)
        if self.C is not None:
            return inverse(twice * self.C * ((self.A * mean[:, None]).T @ self.A))
        return inverse(twice * (mean @ module_of(self.A).square(self.A)))
