"""RandLoRA's λ and γ together, where the inputs couple all of γ: L-BFGS steps in both, then λ solved for again.

The way of one half after the other zigzags here, and each look at γ costs as much as one at both. Products with n·r × d
numbers bound the cost: N·Â·C, for N = s²BfᵀBf, gives the objective and all of its gradient, in float32 at twice the
speed; float64 normal equations of λ, once a round, give the objective without that rounding error.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from . import systems
from .descent import Descent
from .family import Fitted, Theta, rank_notes
from .quadratic import Quadratic

__all__ = ["Coupled"]

_RIDGE = 1e-8  # of preconditioners, relative to a diagonal of ones
_FLOAT32_TOL = 1e-6  # of a fit, above which steps may have float32's errors


class Coupled:
    """f(s·Bf·Â) with Â[k·n + j] = λ[k, j]·A[k] ⊙ γ[j].

    Parameters
    ----------
    f : Quadratic
    A : (r, d) array
    Bf : (D, n·r) array
    gram : (n·r, n·r) array
        BfᵀBf.
    scale : float
        s.
    """

    def __init__(self, f: Quadratic, A: np.ndarray, Bf: np.ndarray, gram: np.ndarray, scale: float) -> None:
        self.f, self.A, self.r, self.n = f, A, len(A), Bf.shape[1] // len(A)
        self.N = scale**2 * gram
        self.targets = (scale * (Bf.T @ f.R)).reshape(self.r, self.n, -1)  # of Â, with the rows of A in them already
        self.targets *= A[:, None, :]

    def fit(self, theta: Theta, steps: int, max_iterations: int, tol: float) -> Fitted:
        """Rounds of `steps` steps, each with λ solved for at its end, until one gains less than tol of the energy."""
        dtype = np.float32 if tol >= _FLOAT32_TOL else np.float64
        evaluate, descent = self._evaluation(dtype), Descent()
        gamma, energy = theta["gamma"], self.f.energy
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

    def normal_equations(self, gamma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of λ."""
        small = (self.A[:, None, :] * gamma).reshape(-1, gamma.shape[1])
        M = small @ self.f.C @ small.T
        M *= self.N
        return (M + M.T) / 2, np.einsum("ajc,jc->aj", self.targets, gamma).reshape(-1)

    def _solve(self, M: np.ndarray, m: np.ndarray) -> tuple[np.ndarray, int, float]:
        x, rank = systems.solve(M, m)
        return x, rank, self.f.energy + float(x @ (M @ x - 2 * m))

    def _evaluation(self, dtype: type) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
        """From θ as one vector to f and its gradient, with products of that dtype and factors near one in them."""
        C_unit, N_unit = np.trace(self.f.C) / len(self.f.C), (np.trace(self.N) / len(self.N)) or 1.0
        C, N = (self.f.C / C_unit).astype(dtype), (self.N / N_unit).astype(dtype)
        A, r, n, targets = self.A, self.r, self.n, self.targets

        def evaluate(x: np.ndarray) -> tuple[float, np.ndarray]:
            lam, gamma = x[: r * n].reshape(r, n), x[r * n :].reshape(n, -1)
            unit = float(np.abs(lam).max() * np.abs(gamma).max()) or 1.0
            scaled = np.empty((r, n, gamma.shape[1]), dtype)
            for a in range(r):
                np.multiply((lam[a] / unit)[:, None] * A[a], gamma, out=scaled[a], casting="same_kind")
            products = ((N @ scaled.reshape(r * n, -1)) @ C).reshape(scaled.shape)
            value, to_lam, to_gamma = self.f.energy, np.empty((r, n)), np.zeros_like(gamma)
            for a in range(r):  # a part of all that has n·r·d numbers at a time
                part = (unit * C_unit * N_unit * A[a]) * products[a] - targets[a]
                to_lam[a] = np.einsum("jc,jc->j", part, gamma)
                to_gamma += lam[a][:, None] * part
                value += float(lam[a] @ (to_lam[a] - np.einsum("jc,jc->j", targets[a], gamma)))
            return value, 2 * np.concatenate([to_lam.reshape(-1), to_gamma.reshape(-1)])

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
        of_lam = _inverse(2 * M)
        of_gamma = _inverse((2 * np.trace(self.N) / len(self.N)) * self.f.C * ((self.A * mean[:, None]).T @ self.A))

        def precondition(v: np.ndarray) -> np.ndarray:
            rows = v[lam.size :].reshape(self.n, -1) / size
            return np.concatenate([of_lam(v[: lam.size]), of_gamma(rows.T).T.reshape(-1)])

        return precondition


def _inverse(M: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """v ↦ (M + a little)⁻¹v."""
    from scipy.linalg import cho_factor, cho_solve

    diagonal = np.diagonal(M)
    used = diagonal > 0
    s = np.divide(
        1.0, np.sqrt(diagonal, where=used, out=np.ones_like(diagonal)), where=used, out=np.zeros_like(diagonal)
    )
    unit = M * s
    unit *= s[:, None]
    unit[np.diag_indices_from(unit)] = 1.0 + _RIDGE
    factor = cho_factor(unit, lower=True, overwrite_a=True, check_finite=False)
    return lambda v: (s * cho_solve(factor, (s * v.T).T, check_finite=False).T).T
