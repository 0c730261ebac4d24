"""RobustPartiallyCompressed: partial compression that expects the sketch to be wrong by ρ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..errors import InvalidValueError, SketchWarning, warn
from ..kernels import on_card
from ..linalg import product, spectrum, times_power
from ..ridge import GramRidge, Ridge, SingularRidge
from ..solution import Status
from .base import Answer, Summary
from .full import rank_status
from .rho import Absolute, checked_rho, cover, leave_one_out
from .robust import Path, Robust
from .swept import galerkin

__all__ = ["RobustPartiallyCompressed"]


@dataclass(frozen=True)
class RobustPartiallyCompressed(Robust):
    """Robust partial compression: minimise over x the largest ½‖(SA + Δ)x‖² − (Aᵀb)ᵀx over ‖Δ‖ ≤ ρ.

    That is ½(‖SAx‖ + ρ‖x‖)² − (Aᵀb)ᵀx. Its solution is τ·(SAᵀSA + μI)⁻¹Aᵀb, a ridge whose μ the data choose, times a
    shrinkage τ = μ/(μ + ρ²). It insulates the answer from an aggressive compression (d near n, or below).

    Parameters
    ----------
    rho : {"loo", "cover", "sweep"}, float or Absolute, default "loo"
        "loo": the ρ with the smallest leave-one-sketch-row-out estimate of the error, at no further sweep. "cover":
        (‖SA‖_F + 2‖SA‖₂)/√d, which covers the compression error: then ½‖Ax − b‖² is at most ½‖b‖² plus the minimum,
        for every x; a guarantee, and far too cautious as a default. "sweep": one more sweep over the rows finds the
        best combination of eight points on the path (see Notes). A number ≥ 0: relative to ‖SA‖₂. Absolute(value):
        in the units of A. ρ = 0 is the limit ρ → 0: the raw partial answer (of minimum norm if SA is
        rank-deficient).

    Warns
    -----
    SketchWarning
        rho="loo" with n < 30, where the choice can be far off; or with a CountSketch that left very uneven rows, to
        which leaving out rows does not apply.

    Notes
    -----
    Not equivariant under the scaling of single columns: the model acts on A in the caller's units. Several right-hand
    sides are independent problems, one Δ each; they share the factorisation.

    d < n is allowed. Then, with c₀ the part of g = Aᵀb in the null space of SA, every ρ ≤ ‖c₀‖/‖(SA)⁺ᵀg‖ has μ = 0 and
    x = c₀/ρ², which fits nothing that the sketch saw: status UNFITTED, and the message names that ρ. "loo" always
    chooses more.

    Solution: `rho` in the units of A, `mu` in the units of A²; `rank` and `condition` of SA in the caller's units (the
    rank is decided on unit-norm columns). `residual_norm_estimate` leaves out one row of the sketch at a time.

    "sweep" needs the rows: `rpcls.lstsq`, not `CompressedProblem.solve`. With eight values μ of a grid, the choice of
    "loo" among them, and y(μ) = (SAᵀSA + μI)⁻¹Aᵀb, x minimises ‖Ax − b‖ over the span of the y: it is at least as good
    as every robust solution with one of these μ. One sweep over 8k vectors gives AᵀA on the span, the residual norm
    and the certificate in `error_estimate`. `rho` and `mu` are those of the best single candidate.

    Cost: SAᵀSA and its tridiagonal form (on a card its eigenvectors), dn² + 4n³/3 flops, if that is certified to lose
    nothing: the optimality conditions, evaluated with SA itself, hold to 1e-10. Otherwise QR of SA and SVD of R,
    2dn² + 20n³. Then O(n) for each value of μ tried. Memory dn + 3n² float64. On a card, from 600 columns on, a given
    ρ and one right-hand side take a factor of SA and 64 steps of Lanczos' method; where these are too few, Cholesky
    factorisations of SAᵀSA + μI.

    Guarantee: if |‖SAx‖ − ‖Ax‖| ≤ ρ‖x‖ for all x, ‖A(x − x*)‖² ≤ 4ρ‖x*‖‖Ax*‖ + 4ρ²‖x*‖², whatever d, rank and
    condition. For "loo" none; in simulations with n = 120 its error is 1.03 times that of the best ρ in the median and
    1.36 times in the 95th percentile.

    References
    ----------
    .. [1] S. Becker, B. Kawas, M. Petrik, K. N. Ramamurthy, "Robust partially-compressed least-squares",
       arXiv:1510.04905, where the model comes from; the solution by a one-dimensional search is derived here.

    Examples
    --------
    >>> import numpy as np, rpcls
    >>> rng = np.random.default_rng(0)
    >>> A = rng.standard_normal((5000, 50))
    >>> c = rpcls.compress(A, A @ np.ones(50) + rng.standard_normal(5000), sketch_size=60, rng=0)
    >>> def error(solver):
    ...     return np.linalg.norm(A @ (c.solve(solver).x - 1)) / np.linalg.norm(A @ np.ones(50))
    >>> bool(error(rpcls.RobustPartiallyCompressed()) < 0.2 * error(rpcls.PartiallyCompressed("raw")))
    True
    """

    model: ClassVar = "partial"

    rho: str | float | Absolute = "loo"

    def __post_init__(self) -> None:
        object.__setattr__(self, "rho", checked_rho(self.rho, ("loo", "cover", "sweep")))

    def _answer(self, summary: Summary, source: Any) -> Answer:
        if self.rho != "sweep":
            return self._solve(summary)
        if source is None:
            raise InvalidValueError(
                "rho='sweep' needs the rows of A for one more sweep, got only a summary; call rpcls.lstsq(A, b, "
                "rpcls.RobustPartiallyCompressed('sweep')), or use rho='loo', which needs none"
            )
        P = summary.P
        ridge = GramRidge.of(P, summary.g) if on_card(P) else None  # singular vectors take ten times longer there
        if isinstance(ridge, SingularRidge) and ridge.condition <= _PLAIN:
            return galerkin(summary, ridge, source)
        return galerkin(summary, spectrum(P, summary.q, summary.tolerance), source)

    def _cheap(self, summary: Summary) -> tuple[Ridge, np.ndarray] | None:
        P = summary.P

        def condition_at(norm: float) -> float | None:
            from ..factor.card import certain_factor  # only where P is on a card

            factor = certain_factor(P, summary.tolerance)
            return factor and factor.condition_as_given(norm)

        # choosing ρ takes every singular value, a given one those that are not small beside it
        ridge = GramRidge.of(P, summary.g, None if self.rho == "loo" else condition_at)
        return ridge and (ridge, np.zeros_like(summary.g))

    def _accurate(self, summary: Summary) -> tuple[Ridge, np.ndarray]:
        found, g = spectrum(summary.P, summary.q, summary.tolerance), summary.g
        V, c = found.V, product(found.V, g, transpose=True)
        off = np.zeros_like(g)
        if len(found.s) < summary.n:
            off = g - product(V, c)
            off -= product(V, product(V, off, transpose=True))  # twice is enough for orthogonality to V to rounding
            off[:, np.linalg.norm(off, axis=0) <= summary.tolerance * np.linalg.norm(g, axis=0)] = 0.0
        return SingularRidge(found.s, c, found.condition, V), off

    def _attempt(self, summary: Summary, ridge: Ridge, rest: np.ndarray) -> Answer | None:
        s, c, g, off = ridge.s, ridge.c, summary.g, rest
        rank, k = len(s), summary.k
        rest = np.linalg.norm(off, axis=0)
        path = Path(s, c, rest)
        seen = np.asarray(c.any(axis=0))  # g has a part in the range of SAᵀ
        pinv_norm = np.linalg.norm(c / s[:, None], axis=0)  # ‖P⁺ᵀg‖
        with np.errstate(divide="ignore", invalid="ignore"):
            threshold = np.where(rest > 0, rest / pinv_norm, 0.0)

        rho, mu = self.given(summary, s[0] if rank else 0.0), np.zeros(k)
        if rho is None:
            rho = np.zeros(k)
            if seen.any():
                mu[seen] = leave_one_out(path.part(seen), summary.d, "partial")
                rho[seen] = mu[seen] / np.exp(path.part(seen).log_kappa(mu[seen])[0])
            fitted = seen
        else:
            fitted = seen & (rho > threshold)
            if fitted.any():
                mu[fitted] = path.part(fitted).root(rho[fitted], "partial")

        # Where mu = 0: rho = 0 asks for G⁺g; 0 < rho ≤ threshold has the solution c₀/ρ², with ρ² out of harm's way.
        lost = ~fitted & (rho > 0) & (rest > 0)
        power = np.where(lost, np.frexp(np.where(lost, rho, 1.0))[1], 0)
        y = ridge.at(mu)
        y[:, fitted] += off[:, fitted] / mu[fitted]
        tau = np.where(fitted, mu / np.where(fitted, mu + np.square(rho), 1.0), 1.0)
        x = tau * y
        x[:, lost] = off[:, lost] / np.square(np.ldexp(rho[lost], -power[lost]))
        if not ridge.certified and not _certified(summary.P, g, y, mu, rho, s):
            return None

        shift = summary.c - 2 * summary.a - 2 * power
        df = np.sum(np.square(s)[:, None] / (np.square(s)[:, None] + mu), axis=0)
        status, details = rank_status(rank, summary)
        norm = s[0] if rank else 0.0
        return Answer(
            x=x,
            shift=shift,
            statuses=[Status.UNFITTED if lost[j] else Status.OK if fitted[j] else status for j in range(k)],
            details=[
                _unfitted(rho[j], threshold[j], norm, summary.a) if lost[j] else "" if fitted[j] else details
                for j in range(k)
            ],
            condition=ridge.condition,
            rank=rank,
            estimate=np.where(lost, np.nan, summary.residual_estimate(x, shift, df)),
            rho=times_power(rho, summary.a),
            mu=times_power(mu, 2 * summary.a),
        )

    def given(self, summary: Summary, norm: float) -> np.ndarray | None:
        if self.rho == "cover":
            return np.full(summary.k, cover(summary.P, norm))
        return super().given(summary, norm)

    def _warn(self, summary: Summary, ridge: Ridge) -> None:
        if summary.n < _FEW:
            warn(
                f"rho='loo' is unreliable for n < {_FEW}, got n = {summary.n}: in 5 % of simulations with n = 12 the "
                "error was 27 times that of the best rho or more. Use FullyCompressed(), Direct(), or a given rho.",
                SketchWarning,
            )
        else:
            super()._warn(summary, ridge)


_FEW = 30
_PLAIN = 1e3  # condition number up to which eigenvectors of the Gram matrix span the path to ten digits


def _certified(P: np.ndarray, g: np.ndarray, y: np.ndarray, mu: np.ndarray, rho: np.ndarray, s: np.ndarray) -> bool:
    """Do (PᵀP + μI)y = g and μ‖y‖ = ρ‖Py‖ hold, evaluated with P, to 1e-10 of what moves y by its own size?"""
    Py = product(P, y)
    error = np.linalg.norm(g - product(P, Py, transpose=True) - mu * y, axis=0)
    size = np.linalg.norm(y, axis=0)
    balance = np.abs(mu * size - rho * np.linalg.norm(Py, axis=0))
    return bool(np.all(error <= 1e-10 * (s[-1] ** 2 + mu) * size) and np.all(balance <= 1e-10 * mu * size))


def _unfitted(rho: float, threshold: float, norm: float, a: int) -> str:
    absolute = f"rho is {float(times_power(rho, a)):.4g}"
    if not np.isfinite(threshold):
        return f"{absolute}; the sketch saw nothing of Aᵀb, so no rho fits."
    return (
        f"{absolute}; x fits the sketch from rho = {float(times_power(threshold, a)):.4g} on, which is "
        f"{threshold / norm:.4g} relative to ‖SA‖₂."
    )
