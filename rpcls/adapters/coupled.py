"""RandLoRA's λ and γ together, when they are many: L-BFGS steps in both, then λ solved for again.

One half after the other zigzags, and a look at γ costs as much as one at both: N·Â·C, which gives the objective and all
of its gradient. These products bound the cost. In float32 they are twice as fast; the normal equations of λ, in float64
once a round, give the objective without that rounding error.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from . import systems
from .descent import Descent
from .family import Fitted, Theta, rank_notes

__all__ = ["Coupled"]

_RIDGE = 1e-8  # of preconditioners, relative to a diagonal of ones
_FLOAT32_TOL = 1e-6  # of a fit, above which steps may have float32's errors


class Coupled:
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

    def __init__(self, A: np.ndarray, N: np.ndarray, C: np.ndarray | None, P: np.ndarray, energy: float) -> None:
        self.A, self.N, self.C, self.energy = A, N, C, energy
        self.r, self.n = len(A), len(N) // len(A)
        self.targets = P.reshape(self.r, self.n, -1) * A[:, None, :]

    def fit(self, steps: int, max_iterations: int, tol: float) -> Fitted:
        """Rounds of `steps` steps, each with λ solved for at its end, until one gains less than tol of the energy."""
        dtype = np.float32 if tol >= _FLOAT32_TOL else np.float64
        evaluate, descent = self._evaluation(dtype), Descent()
        gamma, energy = self.start(), self.energy
        history, converged = [energy], False
        M, m = self.normal_equations(gamma)
        lam, rank, value = self._solve(M, m)
        history.append(min(value, energy))
        for _ in range(max_iterations):
            if not lam.any():  # nothing is wanted
                converged = True
                break
            x = descent.run(evaluate, np.concatenate([lam, gamma.reshape(-1)]), self._precondition(M, lam), steps)
            tried = x[lam.size :].reshape(gamma.shape)
            M, m = self.normal_equations(tried)
            moved = x[: lam.size]
            between = energy + float(moved @ (M @ moved - 2 * m))
            solved, solved_rank, value = self._solve(M, m)
            gained = history[-1] - value
            if gained > 0:  # else rounding: the last θ was as good
                lam, gamma, rank = solved, tried, solved_rank
                history += [min(max(between, value), history[-1]), value]
            if gained <= tol * energy:
                converged = True
                break
        theta = {"lambda": lam.reshape(self.r, self.n), "gamma": gamma}
        ranks: dict[str, tuple[int | None, int]] = {"lambda": (rank, lam.size), "gamma": (None, gamma.size)}
        return Fitted(theta, tuple(history), ranks, rank_notes(ranks), converged)

    def start(self) -> np.ndarray:
        """γ (n, d) for λ = 1, by the preconditioner in the place of the Hessian: of full rank, unlike a constant γ."""
        return np.ascontiguousarray(self._of_gamma(np.ones(self.r))(2 * self.targets.sum(axis=0).T).T)

    def normal_equations(self, gamma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of λ."""
        small = (self.A[:, None, :] * gamma).reshape(-1, gamma.shape[1])
        M = (small if self.C is None else small @ self.C) @ small.T
        M *= self.N
        return (M + M.T) / 2, np.einsum("ajc,jc->aj", self.targets, gamma).reshape(-1)

    def _solve(self, M: np.ndarray, m: np.ndarray) -> tuple[np.ndarray, int, float]:
        x, rank = systems.solve(M, m)
        return x, rank, self.energy + float(x @ (M @ x - 2 * m))

    def _evaluation(self, dtype: type) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
        """From θ as one vector to f and its gradient, in that dtype with all factors near one."""
        N_unit, C_unit = (1.0 if M is None else (np.trace(M) / len(M)) or 1.0 for M in (self.N, self.C))
        t_unit = float(np.abs(self.targets).max()) or 1.0
        N, targets = (self.N / N_unit).astype(dtype), (self.targets / t_unit).astype(dtype)
        C = None if self.C is None else (self.C / C_unit).astype(dtype)
        r, n, A = self.r, self.n, self.A[:, None, :].astype(dtype)
        scaled, part = np.empty(targets.shape, dtype), np.empty(targets.shape, dtype)

        def evaluate(x: np.ndarray) -> tuple[float, np.ndarray]:
            lam, gamma = x[: r * n].reshape(r, n), x[r * n :].reshape(n, -1)
            l_unit, g_unit = float(np.abs(lam).max()) or 1.0, float(np.abs(gamma).max()) or 1.0
            lam, gamma = (lam / l_unit).astype(dtype), (gamma / g_unit).astype(dtype)
            np.multiply(A, gamma, out=scaled)
            np.multiply(scaled, lam[:, :, None], out=scaled)
            products = N @ scaled.reshape(r * n, -1)
            products = (products if C is None else products @ C).reshape(part.shape)
            unit = l_unit * g_unit * N_unit * C_unit
            quadratic = unit * l_unit * g_unit * float(np.vdot(scaled, products))
            np.multiply(A, products, out=part)
            np.multiply(part, dtype(unit / t_unit), out=part)
            np.subtract(part, targets, out=part)
            to_lam, to_gamma = np.einsum("ajc,jc->aj", part, gamma), np.einsum("aj,ajc->jc", lam, part)
            value = self.energy + 2 * t_unit * g_unit * l_unit * float(np.vdot(lam, to_lam)) - quadratic
            gradient = np.concatenate([to_lam.reshape(-1), to_gamma.reshape(-1)]).astype(np.float64)
            gradient[: r * n] *= 2 * t_unit * g_unit
            gradient[r * n :] *= 2 * t_unit * l_unit
            return value, gradient

        return evaluate

    def _precondition(self, M: np.ndarray, lam: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """The Hessian's inverse without what couples λ and γ, and rows of γ to each other.

        Off its diagonal N is noise; without it row j of γ has the Hessian C ⊙ (AᵀΛ²A) for Λ = diag(λ[:, j]). The rows'
        mean is factored, once for all of them.
        """
        squares = np.square(lam.reshape(self.r, self.n))
        mean = squares.mean(axis=1)
        size = squares.sum(axis=0) / mean.sum()
        size = np.maximum(size, 1e-6 * size.max())[:, None]
        of_lam, of_gamma = _inverse(2 * M), self._of_gamma(mean)

        def precondition(v: np.ndarray) -> np.ndarray:
            rows = v[lam.size :].reshape(self.n, -1) / size
            return np.concatenate([of_lam(v[: lam.size]), of_gamma(rows.T).T.reshape(-1)])

        return precondition

    def _of_gamma(self, mean: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        twice = 2 * np.trace(self.N) / len(self.N)
        if self.C is not None:
            return _inverse(twice * self.C * ((self.A * mean[:, None]).T @ self.A))
        diagonal = twice * (mean @ np.square(self.A))
        inverse = 1 / np.where(diagonal > 0, diagonal, np.inf)
        return lambda v: (inverse * v.T).T


def _inverse(M: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """v ↦ (M + a little)⁻¹v for v (k,) or (k, p)."""
    from scipy.linalg import blas, lapack

    diagonal = np.diagonal(M)
    s = 1 / np.sqrt(np.where(diagonal > 0, diagonal, np.inf))
    unit = M * s
    unit *= s[:, None]
    unit[np.diag_indices_from(unit)] = 1.0 + _RIDGE
    factor, _ = lapack.dpotrf(unit.T, lower=1, overwrite_a=1, clean=0)
    inverse, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)

    def product(v: np.ndarray) -> np.ndarray:
        columns = (s * v.T).T.reshape(len(s), -1)
        return (s * blas.dsymm(1.0, inverse, columns, lower=1).T).T.reshape(v.shape)

    return product
