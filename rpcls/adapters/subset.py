"""Dynamic subsets: the few entries of dW that the data choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..random import Key
from .family import Family, Fitted, Layer, Model, Theta, rank_notes
from .grouped import Masked
from .quadratic import Quadratic
from .sparse import entries

__all__ = ["DynamicSubset"]

_ADDITIONS = 8  # in how many parts the first subset is collected


@dataclass(frozen=True)
class DynamicSubset(Family):
    """The best share of entries, chosen by the data [1]_: collected greedily, then exchanged while that helps.

    Positions are chosen among all entries of dW together. The first subset is collected in eight parts: each time the
    entries that would gain most beside those fitted already, R'²/C_cc for the residual R' = R − dW·C, then all of them
    are fitted anew by masked least squares. Then entries are exchanged, as in splicing [2]_: those whose loss
    θ²·C_cc is least for as many outside that gain most, a quarter of them at first, and half as many whenever that does
    not lower the objective. The answer is a local optimum: to find the best subset is NP-hard.

    Parameters
    ----------
    density : float or int, default 0.01
        The share of the entries in (0, 1], or their number.

    Notes
    -----
    Factors: "theta" (k,) and "positions" (k,), flat in C order and sorted. The positions have to be stored beside the
    values. Ten exchanges are a round of `fit`; one that gains less than `tol` halves them. Cost of each: masked least
    squares (Σ over rows of their entries cubed) and 2k·in_features flops.

    References
    ----------
    .. [1] F. Stahlberg et al., "Dynamic subset tuning: expanding the operational range of parameter-efficient
       training for large language models", arXiv:2411.08610.
    .. [2] J. Zhu, C. Wen, J. Zhu, H. Zhang, X. Wang, "A polynomial algorithm for best-subset selection problem",
       PNAS 117 (2020), doi:10.1073/pnas.2014241117.

    Examples
    --------
    >>> import numpy as np
    >>> from rpcls.adapters import DynamicSubset, LayerStatistics, fit
    >>> T = np.array([[5.0, 0.1, 0.2], [0.3, 4.0, 3.0]])
    >>> fit(LayerStatistics.from_delta(T), DynamicSubset(density=3), ridge=0).factors["positions"]
    array([0, 4, 5])
    """

    density: float | int = 0.01

    def bind(self, layer: Layer) -> Model:
        return _Subset(layer, entries(self.density, layer.shape))


class _Subset(Model):
    halves_in_order = ()

    def __init__(self, layer: Layer, kept: int) -> None:
        self.layer, self.kept = layer, kept

    def start(self, key: Key) -> Theta:
        return {"theta": np.zeros(0), "positions": np.zeros(0, np.int64)}

    def halves(self, theta: Theta) -> Any:
        return {"theta": lambda: Masked(self.layer.shape, theta["positions"])}

    def seen(self, theta: Theta) -> np.ndarray:
        return Masked(self.layer.shape, theta["positions"]).apply(theta["theta"])

    def own_fit(self, f: Quadratic, key: Key, max_iterations: int, tol: float) -> Fitted:
        fitted, history = _Fit(f, np.zeros(0, np.int64)), [f.energy]
        parts = min(self.kept, _ADDITIONS)
        for part in range(1, parts + 1):
            wanted = self.kept * part // parts
            fitted = _Fit(f, np.append(fitted.positions, fitted.outside(wanted - len(fitted.positions))))
            history.append(min(fitted.value, history[-1]))  # equal, up to rounding, once all is explained
        swaps, rounds = min(max(1, self.kept // 4), f.R.size - self.kept), 0
        while swaps and rounds < 10 * max_iterations:
            rounds += 1
            stay = np.delete(fitted.positions, fitted.weakest(swaps))
            other = _Fit(f, np.append(stay, fitted.outside(swaps)))
            if other.value < history[-1]:
                fitted = other
                history.append(other.value)
                if history[-2] - other.value > tol * f.energy:
                    continue
            swaps //= 2
        ranks: dict[str, tuple[int | None, int]] = {"theta": (fitted.rank, self.kept)}
        theta = {"theta": fitted.theta, "positions": fitted.positions}
        return Fitted(theta, tuple(history), ranks, rank_notes(ranks), converged=not swaps)


class _Fit:
    """The masked least squares of one subset, and what its neighbours promise."""

    def __init__(self, f: Quadratic, positions: np.ndarray) -> None:
        self.f, self.positions = f, np.sort(positions)
        self.masked = Masked(f.shape, self.positions)
        self.theta, self.value, self.rank = self.masked.solve(f)

    def outside(self, count: int) -> np.ndarray:
        """The `count` other positions that gain most, each on its own beside the fitted entries."""
        from scipy.sparse import csr_array

        o, i = self.f.shape
        rows = np.searchsorted(self.positions, np.arange(o + 1) * i)
        dW = csr_array((self.theta, self.positions % i, rows), shape=(o, i))
        diagonal = np.diagonal(self.f.C)
        gains = (self.f.R - dW @ self.f.C) ** 2
        gains *= np.divide(1.0, diagonal, out=np.zeros(i), where=diagonal > 0)
        gains.reshape(-1)[self.positions] = -1.0
        return np.argpartition(gains.reshape(-1), -count)[-count:]

    def weakest(self, count: int) -> np.ndarray:
        """The numbers of the `count` entries whose loss costs least, each on its own while the others stay."""
        losses = self.theta**2 * np.diagonal(self.f.C)[self.positions % self.f.shape[1]]
        return np.argpartition(losses, count - 1)[:count]
