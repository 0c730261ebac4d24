"""LoHa: the entrywise product of two low-rank matrices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ..random import Key
from .arrays import count
from .bases import normal
from .family import Family, Layer, Model, Theta
from .linear import Linear
from .lowrank import reduced_rank, scale_of
from .modulated import ModulatedColumns, ModulatedRows
from .quadratic import Quadratic

__all__ = ["LoHa"]


@dataclass(frozen=True)
class LoHa(Family):
    """dW = s·(B₁A₁) ⊙ (B₂A₂), of rank up to r² [1]_ [2]_.

    dW is linear in each of the four factors. A row of B₁ has an r × r system of its own, with the Gram matrix of the
    r² rows A₁[k] ⊙ A₂[l]; the columns of A₁ are coupled by C (conjugate gradients), unless it is a multiple of I. The
    start is the best LoRA of rank r, times a matrix of ones: no LoHa fitted here explains less than that LoRA, which
    has half of its parameters.

    Parameters
    ----------
    rank : int
        r.
    alpha : float, optional
        s = alpha/r, as the peft library has it; s = 1 by default.

    Notes
    -----
    Factors: "B1" (o, r), "A1" (r, i), "B2" (o, r), "A2" (r, i); peft calls them hada_w1_a, hada_w1_b, hada_w2_a and
    hada_w2_b. Cost of a round: about 4r²oi + 2r²i² flops, and 2r²i² + 2r⁴i for each iteration of the coupled factors.
    Local minima are possible.

    References
    ----------
    .. [1] N. Hyeon-Woo, M. Ye-Bin, T.-H. Oh, "FedPara: low-rank Hadamard product for communication-efficient federated
       learning", arXiv:2108.06098.
    .. [2] S.-Y. Yeh et al., "Navigating text-to-image customization: from LyCORIS fine-tuning to model evaluation",
       arXiv:2309.14859.

    Examples
    --------
    >>> import numpy as np
    >>> from rpcls.adapters import LayerStatistics, LoHa, LoRA, fit
    >>> s = LayerStatistics.from_delta(np.random.default_rng(0).standard_normal((12, 10)))
    >>> loha = fit(s, LoHa(rank=2), max_iterations=100)
    >>> loha.parameters, loha.explained > fit(s, LoRA(rank=2)).explained
    (88, True)
    """

    rank: int
    alpha: float | None = None

    def __post_init__(self) -> None:
        scale_of(self.alpha, count(self.rank, "rank"))

    def bind(self, layer: Layer) -> Model:
        count(self.rank, "rank", most=min(layer.shape), why=", the smaller side of the layer")
        return _LoHa(layer, self.rank, scale_of(self.alpha, self.rank))


class _LoHa(Model):
    halves_in_order = ("A2", "B2", "A1", "B1")

    def __init__(self, layer: Layer, rank: int, scale: float) -> None:
        self.layer, self.rank, self.scale = layer, rank, scale

    def start(self, key: Key) -> Theta:
        (o, i), r = self.layer.shape, self.rank
        shapes = {"B1": (o, r), "A1": (r, i), "B2": (o, r), "A2": (r, i)}
        theta = {name: normal(key.fold(n), shape) for n, (name, shape) in enumerate(shapes.items())}
        theta["B2"][:, 0] = 1.0
        theta["A2"][:] = 0.0
        return theta

    def start_for(self, f: Quadratic, key: Key) -> Theta:
        """B₁A₁ the best LoRA, and B₂A₂ = 1: random columns of B₂ beside the ones wait for their rows of A₂."""
        theta = self.start(key)
        B, A, _ = reduced_rank(f, self.rank)
        missing = ~A.any(axis=1)
        balance = np.sqrt(np.linalg.norm(A, axis=1) / self.scale)
        balance[missing] = 1.0
        theta["B1"] = np.where(missing, theta["B1"], B * balance)
        theta["A1"] = A / (self.scale * balance)[:, None]
        theta["A2"][0] = 1.0
        return theta

    def halves(self, theta: Theta) -> Mapping[str, Callable[[], Linear]]:
        return {
            "B1": lambda: self._rows(theta["A1"], theta["B2"], theta["A2"]),
            "A1": lambda: self._columns(theta["B1"], theta["B2"], theta["A2"]),
            "B2": lambda: self._rows(theta["A2"], theta["B1"], theta["A1"]),
            "A2": lambda: self._columns(theta["B2"], theta["B1"], theta["A1"]),
        }

    def _rows(self, A: np.ndarray, other_B: np.ndarray, other_A: np.ndarray) -> Linear:
        """The B that stands beside A."""
        U = products(other_A, A).T
        return ModulatedRows(U, other_B.T, np.ones((self.rank, self.rank)), self.scale, by_row=True)

    def _columns(self, B: np.ndarray, other_B: np.ndarray, other_A: np.ndarray) -> Linear:
        """The A that stands beside B."""
        U = products(other_B.T, B.T).T
        return ModulatedColumns(U, other_A, np.ones((self.rank, self.rank)), self.scale)

    def seen(self, theta: Theta) -> np.ndarray:
        return self.scale * (theta["B1"] @ theta["A1"]) * (theta["B2"] @ theta["A2"])


def products(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """All entrywise products of their rows: row a·r + k is first[a] ⊙ second[k]."""
    return (first[:, None] * second).reshape(-1, second.shape[1])
