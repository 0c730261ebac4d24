"""The robust solution for a given ρ on a card, where it takes many columns: from a Krylov space of G = PᵀP.

A μ that is not small beside ‖P‖² leaves G + μI well-conditioned, and some dozens of steps of Lanczos' method know the
ridge path to rounding: they take less time than one Cholesky factorisation. Otherwise they say where Newton's method
begins, with a Cholesky factorisation for each μ that is new; for a μ near the last one the factor is corrected with P
itself, so that nothing is lost by squaring P. An eigendecomposition, which serves every μ, takes ten times longer.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..factor import Factor
from ..factor.card import certain_factor
from ..kernels.cuda import algebra
from ..linalg import gram, product, times_power, with_penalty
from ..solution import Status
from .base import Answer, Summary
from .robust import Path, increasing_root

if TYPE_CHECKING:
    from .robust import Robust

__all__ = ["by_shifts", "largest_singular_value"]

_LEAST = 600  # columns below which eigenvectors take less time
_NEAR = 0.01  # relative distance in μ up to which a factor is corrected rather than made anew
_CORRECTIONS = 12  # each gains two digits or more
_CLOSE = 1e-12  # of log μ, where rounding begins
_STEPS = 64  # of Lanczos' method: enough for a condition number of twenty
_SETTLED = 1e-12  # residual, relative to μ‖y‖, with which the space is large enough
_EDGE = 1e-8  # residual, relative to the eigenvalue, with which the largest counts as found
_TINY = 1e-6  # share of q outside range(P) below which q may be in it


def by_shifts(summary: Summary, solver: Robust) -> Answer | None:
    """The answer for one right-hand side and a given ρ > 0; None where this way will not do.

    That is where P is not tall or not of full rank, where μ may be zero or infinite, and where the optimality
    conditions do not hold to 1e-10 in the end.
    """
    P, n = summary.P, summary.n
    if summary.k != 1 or len(P) < n or n < _LEAST:
        return None
    h = summary.g if solver.model == "partial" else product(P, summary.q, transpose=True)
    if not h.any():
        return None
    G, factor = gram(P), certain_factor(P, summary.tolerance)
    norm = None if factor is None else largest_singular_value(G)
    if factor is None or norm is None:
        return None
    rho = solver.given(summary, norm)
    assert rho is not None
    search = _Search(summary, solver.model, h, G)
    try:
        mu = search.root(rho, factor) if rho[0] > 0 else None
    except np.linalg.LinAlgError:
        return None
    if mu is None:
        return None
    y = search.at(mu)
    if not search.certified(mu, y, rho):
        return None
    df = search.degrees_of_freedom(mu)
    if solver.model == "partial":
        x, shift = y * (mu / (mu + np.square(rho))), summary.c - 2 * summary.a
        estimate = summary.residual_estimate(x, shift, df)
    else:
        x, shift = y, summary.b - summary.a
        missed = np.linalg.norm(search.residual(y), axis=0)
        estimate = times_power(missed * summary.inflation(df), summary.b)
    return Answer(
        x=x,
        shift=shift,
        statuses=[Status.OK],
        details=[""],
        condition=factor.condition_as_given(norm),
        rank=n,
        estimate=estimate,
        rho=times_power(rho, summary.a),
        mu=times_power(mu, 2 * summary.a),
    )


class _Search:
    """y(μ) = (PᵀP + μI)⁻¹h, and κ(μ) as in robust.py from it; h = g or Pᵀq, (n, 1), and μ (1,)."""

    def __init__(self, summary: Summary, model: str, h: np.ndarray, G: Any) -> None:
        self.P, self.q, self.tolerance = summary.P, summary.q, summary.tolerance
        self.model, self.h, self.G = model, h, G
        self.space = _Space(G, h)
        self.y, self._falls, self._at = np.zeros_like(h), 0.0, 0.0
        self._factor, self._mu = None, 0.0

    def root(self, rho: np.ndarray, factor: Factor) -> np.ndarray | None:
        """The μ of ρ, `factor` that of G; None where it may be zero or infinite."""
        rest = 0.0
        if self.model == "full":
            rest = np.linalg.norm(self.residual(factor.gram_pinv(self.h)))
            size = np.linalg.norm(self.q)
            if rest <= _TINY * size or rho[0] * size >= (1 - 1e-6) * np.linalg.norm(self.h):
                return None
        start = self.space.path(self.model, rest).root(rho, self.model)  # type: ignore[arg-type]
        target, around = np.log(rho), np.log(start)

        def f(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            log_kappa, slope = self.log_kappa(np.exp(t))
            return (t - log_kappa - target, 1 - slope) if self.model == "partial" else (log_kappa - target, slope)

        return np.exp(increasing_root(f, around, float(around[0]) - 100, float(around[0]) + 100, _CLOSE))

    def residual(self, y: np.ndarray) -> np.ndarray:
        return self.q - product(self.P, y)

    def _gradient(self, y: np.ndarray) -> np.ndarray:
        """h − PᵀPy."""
        if self.model == "full":
            return product(self.P, self.residual(y), transpose=True)
        return self.h - product(self.P, product(self.P, y), transpose=True)

    def factor(self, mu: np.ndarray) -> Factor:
        """That of G + μI, or of one with a μ near it."""
        if self._factor is None or abs(mu[0] - self._mu) > _NEAR * self._mu:
            self._mu = float(mu[0])
            self._factor = Factor.by_cholesky(with_penalty(self.G, None, self._mu), self.tolerance, math.inf)
        if self._factor is None:
            raise np.linalg.LinAlgError("μ is lost in the rounding errors of G")
        return self._factor

    def at(self, mu: np.ndarray) -> np.ndarray:
        """y(μ), from the Krylov space or from the last y, then corrected until the next correction would be lost."""
        if mu[0] == self._at:
            return self.y
        self._at = float(mu[0])
        y, falls, left = self.space.at(mu)
        if left <= _SETTLED * self._at * np.linalg.norm(y):
            self.y, self._falls = y, falls
            return y
        factor, last = self.factor(mu), math.inf
        for _ in range(_CORRECTIONS):
            move = factor.gram_pinv(self._gradient(self.y) - mu * self.y)
            self.y = self.y + move
            size, whole = float(np.linalg.norm(move)), float(np.linalg.norm(self.y))
            shrunk = size / last  # and so will the next be
            if size <= 1e-15 * whole or 0 < shrunk * size <= 1e-16 * whole or shrunk > 0.5:
                break
            last = size
        self._falls = float(np.sum(np.square(factor.half_transpose(self.y))))
        return self.y

    def log_kappa(self, mu: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """log κ and its derivative in log μ; yᵀy falls by 2yᵀ(G + μI)⁻¹y·dμ."""
        y = self.at(mu)
        falls = mu * self._falls
        yy = np.sum(np.square(y), axis=0)
        if self.model == "full":
            rr = np.sum(np.square(self.residual(y)), axis=0)
            return np.log(mu) + 0.5 * np.log(yy / rr), np.clip(1 - falls / yy - mu * falls / rr, 1e-3, 1)
        fitted = np.sum(np.square(product(self.P, y)), axis=0)
        return 0.5 * np.log(fitted / yy), np.clip(falls / yy - mu * (yy - falls) / fitted, 0, 1 - 1e-3)

    def degrees_of_freedom(self, mu: np.ndarray) -> float:
        """Σσ²/(σ² + μ)."""
        return len(self.h) - float(mu[0]) * algebra.trace_of_inverse(self.G, float(mu[0]))

    def certified(self, mu: np.ndarray, y: np.ndarray, rho: np.ndarray) -> bool:
        """Do (PᵀP + μI)y = h and μ = ρκ, or κ = ρ, hold, evaluated with P, to 1e-10 of what moves y by its size?"""
        size = np.linalg.norm(y)
        other = np.linalg.norm(self.residual(y) if self.model == "full" else product(self.P, y))
        error = np.linalg.norm(self._gradient(y) - mu * y)
        balance = abs(mu[0] * size - rho[0] * other)
        return bool(error <= 1e-10 * mu[0] * size and balance <= 1e-10 * mu[0] * size)


class _Space:
    """The Krylov space of G and h (n, 1)."""

    def __init__(self, G: Any, h: np.ndarray) -> None:
        diagonal, beside, V = algebra.lanczos(G, h[:, 0], min(_STEPS, len(h)))
        self.values, self.vectors = _tridiagonal(diagonal, beside)
        used = len(self.values)
        self.out = 0.0 if used == len(h) else float(beside[used - 1])
        self.V, self.size = V[:used], float(np.linalg.norm(h))

    def path(self, model: str, rest: float) -> Path:
        """That of the few eigenvalues of the space: a Gauss quadrature of the sums in κ."""
        keep = self.values > 1e-12 * self.values[-1]
        s = np.sqrt(self.values[keep])[::-1]
        c = self.size * np.abs(self.vectors[0, keep])[::-1, None]
        return Path(s, c if model == "partial" else c / s[:, None], np.array([rest]))

    def at(self, mu: np.ndarray) -> tuple[np.ndarray, float, float]:
        """The y (n, 1) of the space with (G + μI)y = h in it, yᵀ(G + μI)⁻¹y, and the norm of what is left outside."""
        weights = self.size * self.vectors[0] / (self.values + mu)
        t = self.vectors @ weights
        falls = float(np.sum(np.square(weights) / (self.values + mu)))
        return product(self.V, t[:, None], transpose=True), falls, self.out * abs(float(t[-1]))


def largest_singular_value(G: Any) -> float | None:
    """‖P‖₂ from G = PᵀP on a card; None where it is not found to ten digits.

    Lanczos' method on G¹⁶, whose largest eigenvalues are sixteen times as far apart: a product of matrices takes as
    long as ten with a vector. Eigenvalues closer than that count as one.
    """
    M, log_scale = algebra.power(G, 4)
    for steps in (40, 160):
        diagonal, beside, _ = algebra.lanczos(M, np.cos(np.arange(len(M))), min(steps, len(M)))
        values, vectors = _tridiagonal(diagonal, beside)
        used = len(vectors)
        missing = 0.0 if used < len(beside) or used == len(M) else beside[used - 1] * abs(vectors[-1, -1])
        if missing <= _EDGE * values[-1]:
            return float(np.exp((np.log(values[-1]) + log_scale) / 32))
    return None


def _tridiagonal(diagonal: np.ndarray, beside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, the smallest first, and eigenvectors, as far as the space went before it was invariant."""
    from scipy.linalg import eigh_tridiagonal

    ends = np.flatnonzero(~(beside > 1e-14 * np.max(diagonal, initial=0.0, where=np.isfinite(diagonal))))
    used = len(beside) if len(ends) == 0 else int(ends[0]) + 1
    return eigh_tridiagonal(diagonal[:used], beside[: used - 1], check_finite=False)
