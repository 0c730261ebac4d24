"""FineGates: gates between 0 and 1 on the rows and columns of the weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ..random import Key
from .bounded import boxed, clipped
from .family import Family, Fitted, Layer, Model, Theta, rank_notes
from .linear import Linear, RankOne, RowScale
from .quadratic import Quadratic

__all__ = ["FineGates"]


@dataclass(frozen=True)
class FineGates(Family):
    """W = diag(rows)·W₀·diag(columns) with gates in [0, 1]; a row or column whose gate is 0 can be left out [1]_.

    For given columns each row's gate is a quotient, clipped to [0, 1]; for given rows the columns' gates are a least
    squares problem with bounds, C ⊙ (W₀ᵀdiag(rows²)W₀), solved exactly. Both halves alternate from all gates open. The
    paper trains random gates with a penalty on open ones, which end at 0 or 1; here they
    stay where they explain most.

    Notes
    -----
    Factors: "rows" (o,) and "columns" (i,). Gates that the inputs do not determine stay as they are. `identifiable`
    tells, for each half, how many gates are between their bounds and determined, of how many between them. Cost of a
    round: 4oi² flops, and i³/3 for each of a few steps of the bounded problem.

    References
    ----------
    .. [1] J. Svirsky, Y. Refael, O. Lindenbaum, "FineGates: LLMs finetuning with compression using stochastic gates",
       arXiv:2412.12951.

    Examples
    --------
    >>> import numpy as np
    >>> from rpcls.adapters import FineGates, LayerStatistics, fit
    >>> W = np.random.default_rng(0).standard_normal((3, 4))
    >>> pruned = W * [1.0, 0.0, 1.0, 0.5]
    >>> fit(LayerStatistics.from_delta(pruned - W), FineGates(), weight=W, ridge=0).factors["columns"].round(9)
    array([1. , 0. , 1. , 0.5])
    """

    needs_weight = True

    def bind(self, layer: Layer) -> Model:
        return _Gates(layer.needed_weight(self))


class _Gates(Model):
    halves_in_order = ("columns", "rows")

    def __init__(self, weight: np.ndarray) -> None:
        self.weight = weight

    def start(self, key: Key) -> Theta:
        o, i = self.weight.shape
        return {"rows": np.ones(o), "columns": np.ones(i)}

    def halves(self, theta: Theta) -> Mapping[str, Callable[[], Linear]]:
        W = self.weight
        return {
            "rows": lambda: RowScale(W * theta["columns"], -W),
            "columns": lambda: RankOne(theta["rows"][:, None] * W, None, offset=-W),
        }

    def seen(self, theta: Theta) -> np.ndarray:
        return theta["rows"][:, None] * self.weight * theta["columns"] - self.weight

    def own_fit(self, f: Quadratic, key: Key, max_iterations: int, tol: float) -> Fitted:
        theta, moved = self.start(key), f.moved(-self.weight)
        history: list[float] = [f.energy]
        ranks: dict[str, tuple[int | None, int]] = {}
        converged = False
        for _ in range(max_iterations):
            before = history[-1]
            for name in self.halves_in_order:
                half = self.halves(theta)[name]()
                m = half.adjoint(moved.R)
                if isinstance(half, RowScale):
                    found = clipped(half.diagonal(f.C), m, theta[name])
                else:
                    found = boxed(half.gram(f.C), m, theta[name])
                value = moved.energy + found.value
                if value <= history[-1]:  # else rounding: the last gates were as good
                    theta = {**theta, name: found.x}
                history.append(min(value, history[-1]))
                ranks[name] = found.rank, found.free
            if before - history[-1] <= tol * f.energy:
                converged = True
                break
        return Fitted(theta, tuple(history), ranks, rank_notes(ranks), converged)
