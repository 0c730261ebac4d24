"""L-BFGS with a preconditioner, which remembers its steps when the function is looked at from somewhere else."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np

__all__ = ["Descent", "Evaluation", "Vectors"]

_ENOUGH = 1e-4  # of the decrease that the slope promises (Armijo)
_TRIES = 5
_CURVED = 1e-3  # of the slope, by which it must change for a pair to say something of curvature

Vectors = Callable[[np.ndarray], np.ndarray]
Evaluation = Callable[[np.ndarray], tuple[float, np.ndarray]]


class Descent:
    """Minimise a smooth function by its value and gradient [1]_.

    Parameters
    ----------
    memory : int, default 10
        Pairs of steps and changes of the gradient to keep, from one call of `run` to the next.

    References
    ----------
    .. [1] J. Nocedal, S. J. Wright, "Numerical Optimization", 2006, section 7.2.
    """

    def __init__(self, memory: int = 10) -> None:
        self.pairs: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=memory)

    def run(
        self,
        evaluate: Evaluation,
        x: np.ndarray,
        precondition: Vectors,
        steps: int,
    ) -> np.ndarray:
        """Where that many steps lead from x; fewer if none goes down any more.

        Parameters
        ----------
        evaluate : callable
            From x to the value and the gradient.
        precondition : callable
            From v to H⁻¹v, for a positive definite H near the Hessian.
        """
        value, gradient = evaluate(x)
        for _ in range(steps):
            direction = -self._inverse_hessian(gradient, precondition)
            slope = float(direction @ gradient)
            if not slope < 0:
                break
            found = self._search(evaluate, x, value, direction, slope)
            if found is None:
                if not self.pairs:
                    break
                self.pairs.clear()  # they mislead, where the function is not convex
                continue
            step, value, new = found
            if step @ (new - gradient) > _CURVED * -(step @ gradient):
                self.pairs.append((step, new - gradient))
            x, gradient = x + step, new
        return x

    def _search(
        self,
        evaluate: Evaluation,
        x: np.ndarray,
        value: float,
        direction: np.ndarray,
        slope: float,
    ) -> tuple[np.ndarray, float, np.ndarray] | None:
        """The step, value and gradient there: the whole direction, or the part at the minimum of a parabola."""
        t = 1.0
        for _ in range(_TRIES):
            new, gradient = evaluate(x + t * direction)
            if new <= value + _ENOUGH * t * slope:
                return t * direction, new, gradient
            with np.errstate(all="ignore"):
                best = -slope * t**2 / (2 * (new - value - t * slope))
            t = min(max(best, 0.1 * t), 0.5 * t) if np.isfinite(best) else 0.1 * t
        return None

    def _inverse_hessian(self, v: np.ndarray, precondition: Vectors) -> np.ndarray:
        """Its product with v, by the two loops over the pairs."""
        v, parts = v.copy(), []
        for step, change in reversed(self.pairs):
            part = (step @ v) / (step @ change)
            v -= part * change
            parts.append(part)
        v = precondition(v)  # of the Hessian's size: scaling it by the last pair, as is usual, needs more steps
        for (step, change), part in zip(self.pairs, reversed(parts), strict=True):
            v += (part - (change @ v) / (step @ change)) * step
        return v
