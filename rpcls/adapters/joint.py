"""Two factors of a bilinear family together, when they are many: L-BFGS steps, then one of them solved for again.

One half after the other zigzags, and its normal equations cost far more than a look at both: the objective and all of
its gradient. Steps may be in float32, twice as fast; the normal equations of one half, in float64 once a round, give
the objective without that rounding error.

All of it happens where the arrays are: on the host, or on a card.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

from . import systems
from .descent import Descent, Evaluation, Vectors
from .family import Fitted, Theta, rank_notes
from .places import module_of

__all__ = ["Joint", "inverse"]

_RIDGE = 1e-8  # of preconditioners, relative to a diagonal of ones
_FLOAT32_TOL = 1e-6  # of a fit, above which steps may have float32's errors


class Joint(ABC):
    """f(u, v), quadratic in each of two parts of θ: u is what rounds solve for.

    Attributes
    ----------
    names : (str, str)
        Of u and v.
    energy : float
        f at u = 0.
    """

    names: tuple[str, str]
    energy: float

    @abstractmethod
    def normal_equations(self, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """M and m with f = energy + uᵀMu − 2uᵀm for this v, u being flat; M (k, k), or (k,) if it is diagonal."""

    @abstractmethod
    def evaluation(self, dtype: type) -> Evaluation:
        """From u and v as one vector to f and its gradient, with arithmetic in that dtype."""

    @abstractmethod
    def precondition(self, M: np.ndarray, u: np.ndarray, v: np.ndarray) -> Vectors:
        """The inverse of something near the Hessian, for such vectors; M is that of `normal_equations` near v."""

    def fit(self, v: np.ndarray, shape: tuple[int, ...], steps: int, max_iterations: int, tol: float) -> Fitted:
        """Rounds of `steps` steps, each with u solved for at its end, until one gains less than tol of the energy.

        Parameters
        ----------
        v : array
            To begin with.
        shape : tuple of int
            Of u.
        """
        evaluate, descent = self.evaluation(np.float32 if tol >= _FLOAT32_TOL else np.float64), Descent()
        history, converged, join = [self.energy], False, module_of(v).concatenate
        M, m = self.normal_equations(v)
        u, rank, value = self._solve(M, m)
        history.append(min(value, self.energy))
        for _ in range(max_iterations):
            if not u.any():  # nothing is wanted
                converged = True
                break
            x = descent.run(evaluate, join([u, v.reshape(-1)]), self.precondition(M, u, v), steps)
            tried = x[u.size :].reshape(v.shape)
            M, m = self.normal_equations(tried)
            between = self._value(M, m, x[: u.size])
            solved, solved_rank, value = self._solve(M, m)
            gained = history[-1] - value
            if gained > 0:  # else rounding: the last θ was as good
                u, v, rank = solved, tried, solved_rank
                history += [min(max(between, value), history[-1]), value]
            if gained <= tol * self.energy:
                converged = True
                break
        theta: Theta = dict(zip(self.names, (u.reshape(shape), v), strict=True))
        ranks: dict[str, tuple[int | None, int]] = {self.names[0]: (rank, u.size), self.names[1]: (None, v.size)}
        return Fitted(theta, tuple(history), ranks, rank_notes(ranks), converged)

    def _solve(self, M: np.ndarray, m: np.ndarray) -> tuple[np.ndarray, int, float]:
        if M.ndim == 2:
            u, rank = systems.solve(M, m)
        else:
            u, rank = systems.solve_diagonal(M, m)
        return u, rank, self._value(M, m, u)

    def _value(self, M: np.ndarray, m: np.ndarray, u: np.ndarray) -> float:
        return self.energy + float(u @ ((M @ u if M.ndim == 2 else M * u) - 2 * m))


def inverse(M: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """x ↦ (M + a little)⁻¹x for x (k,) or (k, p); M (k, k), or (k,) if it is diagonal."""
    xp = module_of(M)
    diagonal = M if M.ndim == 1 else M.diagonal()
    s = 1 / xp.sqrt(xp.where(diagonal > 0, diagonal, np.inf))
    if M.ndim == 1:
        return lambda x: (s * s * x.T).T
    unit = M * s
    unit *= s[:, None]
    if xp is not np:
        from ..kernels.cuda import algebra

        R = algebra.cholesky(unit + xp.diag(1.0 + _RIDGE - unit.diagonal()))
        X = algebra.inverse(xp.eye(len(M)) if R is None else R)
        whole = X @ X.T
        return lambda x: (s * (whole @ (s * x.T).T.reshape(len(s), -1)).T).T.reshape(x.shape)
    from scipy.linalg import blas, lapack

    unit[np.diag_indices_from(unit)] = 1.0 + _RIDGE
    factor, _ = lapack.dpotrf(unit.T, lower=1, overwrite_a=1, clean=0)
    lower, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)

    def product(x: np.ndarray) -> np.ndarray:
        columns = (s * x.T).T.reshape(len(s), -1)
        return (s * blas.dsymm(1.0, lower, columns, lower=1).T).T.reshape(x.shape)

    return product
