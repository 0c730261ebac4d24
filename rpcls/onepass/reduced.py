"""What the solvers without a search need of the sketch: one factor, and both minimisers."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..factor import SQUARED, Factor
from ..kernels import on_card, on_host
from ..linalg import gram, product, times_power, triangle, with_ridge
from .base import Summary

__all__ = ["Reduced"]

_STEPS = 3  # each gains a factor of 10⁵ or more at a condition number up to SQUARED
_SMALL = 1e-8  # of x, a step after which the next would be lost in rounding


class Reduced:
    """P and q by the QR factorisation of [P q], or of [P q; √λ I 0].

    On a card, and at a condition number up to 10⁴, by the Cholesky factorisation of the Gram matrix, which takes a
    fifth of the time there, and refinement with P itself, which makes up for the digits that the square has lost.

    Attributes
    ----------
    factor : Factor
        Of [P; √λ I].
    ridge : float
        λ in the units of P².
    """

    def __init__(self, summary: Summary, ridge: float = 0.0) -> None:
        self.summary, self.ridge = summary, float(times_power(ridge, -2 * summary.a))
        P, q, n = summary.P, summary.q, summary.n
        self._Z: np.ndarray | None = None
        if on_card(P) and len(P) >= n:
            quick = Factor.by_cholesky(gram(P, self.ridge), summary.tolerance, SQUARED)
            if quick is not None:
                self.factor = quick
                return
        if self.ridge > 0:
            P, q = with_ridge(P, math.sqrt(self.ridge)), np.vstack([q, np.zeros((n, summary.k))])
        T = triangle(P, q)[: min(n, len(P))]
        self.factor, self._Z = Factor.of(T[:, :n], summary.tolerance), on_host(T[:, n:])

    @property
    def degrees_of_freedom(self) -> float:
        """Σσ²/(σ² + λ) = rank − λ‖R⁻¹‖_F², R the triangle of [P; √λ I]."""
        if self.ridge == 0:
            return float(self.factor.rank)
        return max(self.factor.rank - self.ridge * self.factor.inverse_squares(), 0.0)

    def full(self) -> np.ndarray:
        """The x (n, k) that minimises ‖Px − q‖² + λ‖x‖², of minimum norm."""
        if self._Z is not None:
            return self.factor.pinv(self._Z)
        P, q = self.summary.P, self.summary.q
        start = product(P, q, transpose=True)
        return self._refined(start, lambda x: product(P, q - product(P, x), transpose=True))

    def partial(self) -> np.ndarray:
        """(PᵀP + λI)⁺g, (n, k)."""
        g, P = self.summary.g, self.summary.P
        if self._Z is not None:
            return self.factor.gram_pinv(g)
        return self._refined(g, lambda x: g - product(P, product(P, x), transpose=True))

    def _refined(self, start: np.ndarray, gradient: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """x where the gradient, `start` at zero, is λx."""
        factor, e = self.factor, self.factor.exponents[:, None]
        x = factor.gram_pinv(start)
        for _ in range(1, _STEPS):
            move = factor.gram_pinv(gradient(x) - self.ridge * x)
            x = x + move
            step, size = (np.linalg.norm(times_power(v, e), axis=0) for v in (move, x))
            if np.all(step <= _SMALL * size):
                break
        return x
