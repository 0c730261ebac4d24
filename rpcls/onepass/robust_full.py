"""RobustFullyCompressed: sketch-and-solve that expects the sketch to be wrong by ρ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..linalg import product, spectrum, times_power
from ..ridge import GramRidge, Ridge, SingularRidge
from ..solution import Status
from .base import Answer, Summary
from .full import rank_status
from .rho import Absolute, checked_rho, leave_one_out
from .robust import Path, Robust

__all__ = ["RobustFullyCompressed"]


@dataclass(frozen=True)
class RobustFullyCompressed(Robust):
    """Robust sketch-and-solve: minimise over x the largest ‖(SA + Δ)x − Sb‖ over ‖Δ‖ ≤ ρ.

    That is ‖SAx − Sb‖ + ρ‖x‖ [1]_, with the solution (SAᵀSA + μI)⁻¹SAᵀSb, μ = ρ‖SAx − Sb‖/‖x‖.

    Parameters
    ----------
    rho : "loo", float or Absolute, default "loo"
        "loo": the ρ whose μ has the smallest generalised cross-validation score over the rows of the sketch, which
        estimates ‖Ax − b‖². A number ≥ 0: relative to ‖SA‖₂. Absolute(value): in the units of A. ρ = 0 is
        `FullyCompressed()`.

    Warns
    -----
    SketchWarning
        rho="loo" with a CountSketch that left very uneven rows, to which leaving out rows does not apply.

    Notes
    -----
    Not equivariant under the scaling of single columns: the model acts on A in the caller's units. Several right-hand
    sides are independent problems, one Δ each; they share the factorisation.

    x = 0 if and only if ρ ≥ ‖SAᵀSb‖/‖Sb‖: status SHRUNK_TO_ZERO and mu infinite. If Sb is in the range of SA (always
    for d < n), every ρ ≤ ‖x₀‖/‖(SA)⁺ᵀx₀‖ gives μ = 0 and x = x₀ = (SA)⁺Sb, which interpolates the sketch: for rank n
    this is x* itself, otherwise the status is SKETCH_RANK_DEFICIENT and the message names that ρ.

    Solution: `rho` in the units of A, `mu` in the units of A²; `rank` and `condition` of SA in the caller's units (the
    rank is decided on unit-norm columns). `residual_norm_estimate` is ‖SAx − Sb‖ inflated by the degrees of freedom.

    Cost and memory as for `RobustPartiallyCompressed`.

    References
    ----------
    .. [1] L. El Ghaoui, H. Lebret, "Robust solutions to least-squares problems with uncertain data", SIAM J. Matrix
       Anal. Appl. 18 (1997) 1035, doi:10.1137/S0895479896298130.
    .. [2] G. H. Golub, M. Heath, G. Wahba, "Generalized cross-validation as a method for choosing a good ridge
       parameter", Technometrics 21 (1979) 215, doi:10.1080/00401706.1979.10489751.

    Examples
    --------
    >>> import numpy as np, rpcls
    >>> rng = np.random.default_rng(0)
    >>> A = rng.standard_normal((5000, 40))
    >>> c = rpcls.compress(A, A @ np.ones(40) + 20 * rng.standard_normal(5000), sketch_size=50, rng=0)
    >>> def error(solver):
    ...     return np.linalg.norm(A @ (c.solve(solver).x - 1)) / np.linalg.norm(A @ np.ones(40))
    >>> bool(error(rpcls.RobustFullyCompressed()) < 0.5 * error(rpcls.FullyCompressed()))
    True
    """

    model: ClassVar = "full"

    rho: str | float | Absolute = "loo"

    def __post_init__(self) -> None:
        object.__setattr__(self, "rho", checked_rho(self.rho, ("loo",)))

    def _cheap(self, summary: Summary) -> tuple[Ridge, np.ndarray] | None:
        ridge = GramRidge.of(summary.P, product(summary.P, summary.q, transpose=True))
        if ridge is None:
            return None
        return ridge, np.linalg.norm(summary.q - product(summary.P, ridge.at(np.zeros(summary.k))), axis=0)

    def _accurate(self, summary: Summary) -> tuple[Ridge, np.ndarray]:
        found = spectrum(summary.P, summary.q, summary.tolerance)
        return SingularRidge(found.s, found.s[:, None] * found.Utq, found.condition, found.V), found.q_rest

    def _attempt(self, summary: Summary, ridge: Ridge, rest: np.ndarray) -> Answer | None:
        s, c = ridge.s, ridge.c / ridge.s[:, None]
        rank, k = len(s), summary.k
        rest = np.where(rest <= 10 * summary.tolerance * np.linalg.norm(summary.q, axis=0), 0.0, rest)
        path = Path(s, c, rest)
        seen = np.asarray(c.any(axis=0))
        zero = path.limit("infinity")  # x = 0 from this ρ on
        threshold = np.where(rest > 0, 0.0, path.limit("zero"))  # x interpolates up to this ρ

        rho, mu = self.given(summary, s[0] if rank else 0.0), np.zeros(k)
        if rho is None:
            rho = np.zeros(k)
            if seen.any():
                mu[seen] = leave_one_out(path.part(seen), summary.d, "full")
                rho[seen] = np.exp(path.part(seen).log_kappa(mu[seen])[0])
            shrunk, inside = np.zeros(k, bool), seen
        else:
            shrunk = rho >= zero
            inside = ~shrunk & (rho > threshold)
            if inside.any():
                mu[inside] = path.part(inside).root(rho[inside], "full")

        x = np.where(shrunk, 0.0, ridge.at(mu))
        residual = summary.q - product(summary.P, x)
        if not ridge.certified and not _certified(summary.P, residual, x, mu, rho, s, inside):
            return None

        df = np.where(shrunk, 0.0, np.sum(np.square(s)[:, None] / (np.square(s)[:, None] + mu), axis=0))
        sizes = np.linalg.norm(residual, axis=0) * summary.inflation(df)
        mu[shrunk] = np.inf
        status, details = rank_status(rank, summary)
        if status is not Status.OK:
            details = f"{details} x interpolates the sketch up to rho = %s."
        return Answer(
            x=x,
            shift=summary.b - summary.a,
            statuses=[Status.SHRUNK_TO_ZERO if shrunk[j] else Status.OK if inside[j] else status for j in range(k)],
            details=[
                _shrunk(zero[j], summary.a)
                if shrunk[j]
                else ""
                if inside[j] or status is Status.OK
                else details % f"{float(times_power(threshold[j], summary.a)):.4g}"
                for j in range(k)
            ],
            condition=ridge.condition,
            rank=rank,
            estimate=times_power(np.where(shrunk, np.sqrt(summary.btb), sizes), summary.b),
            rho=times_power(rho, summary.a),
            mu=times_power(mu, 2 * summary.a),
        )


def _certified(
    P: np.ndarray, residual: np.ndarray, x: np.ndarray, mu: np.ndarray, rho: np.ndarray, s: np.ndarray, inside: Any
) -> bool:
    """Do Pᵀ(q − Px) = μx and μ‖x‖ = ρ‖q − Px‖ hold, evaluated with P, to 1e-10 of what moves x by its own size?"""
    size = np.linalg.norm(x, axis=0)
    error = np.linalg.norm(product(P, residual, transpose=True) - mu * x, axis=0)
    balance = np.abs(mu * size - rho * np.linalg.norm(residual, axis=0))
    near = error <= 1e-10 * (s[-1] ** 2 + mu) * size
    return bool(np.all(near | (size == 0)) and np.all((balance <= 1e-10 * mu * size) | ~inside))


def _shrunk(zero: float, a: int) -> str:
    return f"x is zero from rho = {float(times_power(zero, a)):.4g} on."
