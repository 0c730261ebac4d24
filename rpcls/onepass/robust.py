"""The one-dimensional search behind both robust solvers.

Both solutions lie on the ridge path of P = UΣVᵀ: y(μ) = (PᵀP + μI)⁻¹h with h = g (partial) or h = Pᵀq (full). Let c be
Vᵀg or Uᵀq, c₀ the part of g outside range(Pᵀ), or of q outside range(P), and

    κ(μ)² = Σ σ²c²/(σ²+μ)² / (Σ c²/(σ²+μ)² + ‖c₀‖²/μ²),

a weighted mean of σ² that grows with μ. For partial κ = ‖Py‖/‖y‖, for full κ = μ‖y‖/‖q − Py‖, and the optimality
conditions are

    partial   ρ = μ/κ(μ)          full   ρ = κ(μ):

one root of an increasing function each, found by Newton's method on the logarithms within a bracket, O(n) a step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from ..kernels import on_card
from ..linalg import times_power
from ..ridge import Ridge
from .base import Answer, OnePass, Summary, warn_if_coherent

__all__ = ["Path", "Robust"]

_FAR = 300.0  # |log(μ/σ₁²)| beyond which μ counts as 0 or infinite


@dataclass(frozen=True)
class Path:
    """κ(μ) for k problems that share the singular values.

    Parameters
    ----------
    s : (r,) array
        Positive, largest first.
    c : (r, k) array
    rest : (k,) array
        ‖c₀‖.
    """

    s: np.ndarray
    c: np.ndarray
    rest: np.ndarray

    def part(self, which: np.ndarray) -> Path:
        """The problems that the boolean mask (k,) picks."""
        return Path(self.s, self.c[:, which], self.rest[which])

    def damping(self, mu: np.ndarray) -> np.ndarray:
        """(σ_r² + μ)/(σ² + μ), (r, k): in (0, 1], so that no square of it overflows."""
        return (self.s[-1] ** 2 + mu) / (np.square(self.s)[:, None] + mu)

    def log_kappa(self, mu: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """log κ and its derivative in log μ, which lies in [0, 1), at μ > 0 (k,)."""
        w = np.square(self.c * self.damping(mu))
        h = mu / (np.square(self.s)[:, None] + mu)
        rest = np.square(self.rest * (1 + self.s[-1] ** 2 / mu))
        sw = np.square(self.s)[:, None] * w
        top, bottom = sw.sum(axis=0), w.sum(axis=0) + rest
        slope = ((w * h).sum(axis=0) + rest) / bottom - (sw * h).sum(axis=0) / top
        return 0.5 * np.log(top / bottom), np.clip(slope, 0.0, 1.0)

    def limit(self, end: Literal["zero", "infinity"]) -> np.ndarray:
        """κ at μ → 0 when ‖c₀‖ = 0, or at μ → ∞; (k,)."""
        c = self.c / self.s[:, None] ** 2 if end == "zero" else self.c
        top = np.linalg.norm(self.s[:, None] * c, axis=0)
        bottom = np.linalg.norm(c, axis=0)
        if end == "infinity":
            bottom = np.hypot(bottom, self.rest)
        return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)

    def root(self, rho: np.ndarray, model: Literal["partial", "full"]) -> np.ndarray:
        """μ (k,) with μ/κ(μ) = ρ ("partial") or κ(μ) = ρ ("full"), which must exist; c must not be zero."""
        target = np.log(rho)

        def f(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            log_kappa, slope = self.log_kappa(np.exp(t))
            if model == "partial":
                return t - log_kappa - target, 1.0 - slope
            return log_kappa - target, slope

        center = 2 * np.log(self.s[0])
        start = target + np.log(self.s[0]) if model == "partial" else np.full_like(target, center)
        return np.exp(increasing_root(f, start, center - _FAR, center + _FAR))


def increasing_root(
    f: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    start: np.ndarray,
    least: float,
    most: float,
    close: float = 4e-16,
) -> np.ndarray:
    """Roots of k increasing functions at once: Newton's method, safeguarded by a bracket that is grown from `start`.

    Parameters
    ----------
    f : callable
        (k,) → values (k,) and derivatives (k,).
    start : (k,) array
    least, most : float
        Where the search gives up and returns that end.
    close : float
        Relative size of a step after which no further one is made.
    """
    t = np.clip(start, least, most)
    low, high = np.full_like(t, least), np.full_like(t, most)
    reach = np.ones_like(t)
    for _ in range(200):
        value, slope = f(t)
        low, high = np.where(value <= 0, t, low), np.where(value >= 0, t, high)
        step = -value / np.maximum(slope, 1e-300)
        # A step is trusted as far as the last one went, doubled, so a flat start cannot throw it to the far end.
        step = np.clip(step, -2 * reach, 2 * reach)
        new = t + step
        outside = (new <= low) | (new >= high)
        middle = np.clip(0.5 * (low + high), t - 4 * reach, t + 4 * reach)
        room = close * np.maximum(np.abs(t), 1.0)
        new = np.where(np.abs(step) <= room, t, np.where(outside, middle, new))  # such a step is rounding
        moved = np.abs(new - t)
        reach = np.maximum(moved, 0.25 * reach)
        t = new
        if np.all(moved <= room):
            break
    return t


@dataclass(frozen=True)
class Robust(OnePass):
    """Base of the two robust solvers: the ridge path, the cheap way if its answer is certified, else the accurate."""

    model: ClassVar[Literal["partial", "full"]]

    rho: Any = "loo"

    def _solve(self, summary: Summary) -> Answer:
        if on_card(summary.P) and self.rho != "loo":
            from .shifted import by_shifts

            quick = by_shifts(summary, self)
            if quick is not None:
                return quick
        found = self._cheap(summary)
        answer = None if found is None else self._attempt(summary, *found)
        if found is None or answer is None:
            found = self._accurate(summary)
            answer = self._attempt(summary, *found)
        if self.rho == "loo":
            self._warn(summary, found[0])
        assert answer is not None  # an accurate path is certified
        return answer

    def _cheap(self, summary: Summary) -> tuple[Ridge, np.ndarray] | None:
        """The ridge path, and what of its right-hand side it leaves out; None where the cheap way will not do."""
        raise NotImplementedError

    def _accurate(self, summary: Summary) -> tuple[Ridge, np.ndarray]:
        """The same, accurate to rounding."""
        raise NotImplementedError

    def _attempt(self, summary: Summary, ridge: Ridge, rest: np.ndarray) -> Answer | None:
        """The answer on this path; None if that is not certified, and the answer not good enough."""
        raise NotImplementedError

    def given(self, summary: Summary, norm: float) -> np.ndarray | None:
        """ρ (k,) in the units of P, whose 2-norm is given; None for "loo"."""
        if isinstance(self.rho, str):
            return None
        if isinstance(self.rho, float):
            return np.full(summary.k, self.rho * norm)
        return np.full(summary.k, float(times_power(self.rho.value, -summary.a)))

    def _warn(self, summary: Summary, ridge: Ridge) -> None:
        warn_if_coherent(summary, ridge.half, len(ridge.s), "rho='loo'")
