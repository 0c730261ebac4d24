"""AdaMix: a mixture of adapters, merged to one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import InvalidTypeError, InvalidValueError
from ..random import Key
from . import systems
from .arrays import count, matrix
from .family import Family, Fitted, Layer, Model
from .lowrank import BlockLoRA, scale_of
from .places import module_of
from .quadratic import Quadratic
from .statistics import LayerStatistics

__all__ = ["AdaMix"]


@dataclass(frozen=True)
class AdaMix(Family):
    """A LoRA dW = s·BA that stands for several experts dWₘ, each trained on tokens of its own [1]_.

    AdaMix trains experts by random routing and then takes the plain means of their factors. Here the merged update
    is the mean weighted by what each expert has seen, dW* = (Σ dWₘCₘ)(Σ Cₘ)⁻¹, the minimiser of
    Σ‖Xₘ(dW − dWₘ)ᵀ‖² [2]_; what no tokens have seen of it is the plain mean. If all saw the same, dW* is the plain mean
    of the updates, which is not the product of mean factors. Of rank r it is made by reduced-rank regression in the
    layer's own C.

    Parameters
    ----------
    rank : int
        r of the merged adapter.
    experts : sequence of (o, i) array_like or FitResult
        The dWₘ.
    inputs : sequence of LayerStatistics or (i, i) array_like, optional
        The Cₘ of each expert's tokens; the same for all by default.
    alpha : float, optional
        s = alpha/r; 1 by default.

    Notes
    -----
    Factors: "A" (r, i), "B" (o, r). The history is that of ‖X(dW − dW*)ᵀ‖², ridge included, and not of the distance to
    the layer's target, which `explained` measures. Cost: 2·o·i² flops for each expert, and LoRA's.

    References
    ----------
    .. [1] Y. Wang et al., "AdaMix: mixture-of-adaptations for parameter-efficient model tuning", arXiv:2205.12410.
    .. [2] X. Jin, X. Ren, D. Preotiuc-Pietro, P. Cheng, "Dataless knowledge fusion by merging weights of language
       models", arXiv:2212.09849.

    Examples
    --------
    >>> import numpy as np
    >>> from rpcls.adapters import AdaMix, LayerStatistics, fit
    >>> rng = np.random.default_rng(0)
    >>> T = np.outer([1.0, 2.0, 3.0], [1.0, 0.0, 1.0, 0.0])
    >>> shards = [LayerStatistics(4, 3).update(X, X @ T.T) for X in rng.standard_normal((2, 50, 4)) * [1, 1, 0, 1]]
    >>> experts = [T, T * [1.0, 1.0, 0.0, 1.0]]  # the third input says nothing, so that experts differ there
    >>> fit(sum(shards), AdaMix(1, experts, inputs=shards), ridge=0).explained > 0.999
    True
    """

    rank: int
    experts: Sequence[Any] = field(repr=False, compare=False)
    inputs: Sequence[Any] | None = field(default=None, repr=False, compare=False)
    alpha: float | None = None

    def __post_init__(self) -> None:
        scale_of(self.alpha, count(self.rank, "rank"))
        for name, value in (("experts", self.experts), ("inputs", self.inputs)):
            if value is not None and (isinstance(value, str) or not isinstance(value, Sequence | np.ndarray)):
                raise InvalidTypeError(f"{name} must be a sequence, with one entry for each expert, got {value!r}")
        if len(self.experts) == 0:
            raise InvalidValueError("experts must have at least one update, got none")
        if self.inputs is not None and len(self.inputs) != len(self.experts):
            raise InvalidValueError(
                f"inputs must have one entry for each expert, got {len(self.inputs)} for {len(self.experts)}"
            )

    def bind(self, layer: Layer) -> Model:
        count(self.rank, "rank", most=min(layer.shape), why=", the smaller side of the layer")
        return _Merged(self._mean(layer), self.rank, scale_of(self.alpha, self.rank), layer)

    def _mean(self, layer: Layer) -> np.ndarray:
        """dW*."""
        o, i = layer.shape
        updates = [
            matrix(e.delta() if hasattr(e, "delta") else e, f"experts[{m}]", (o, i), "(out_features, in_features)")
            for m, e in enumerate(self.experts)
        ]
        plain = sum(updates[1:], updates[0]) / len(updates)
        if self.inputs is None:
            return plain
        total, pull = np.zeros((i, i)), np.zeros((o, i))
        for m, (update, seen) in enumerate(zip(updates, self.inputs, strict=True)):
            C = seen.C if isinstance(seen, LayerStatistics) else seen
            C = matrix(C, f"inputs[{m}]", (i, i), "(in_features, in_features)")
            total += C
            pull += (update - plain) @ C
        return plain + systems.solve((total + total.T) / 2, pull.T).x.T


class _Merged(BlockLoRA):
    def __init__(self, mean: np.ndarray, rank: int, scale: float, layer: Layer) -> None:
        super().__init__(1, rank, scale, layer)
        self.mean = mean

    def own_fit(self, f: Quadratic, key: Key, max_iterations: int, tol: float) -> Fitted:
        R = self.mean @ f.C
        energy = float(module_of(R).vdot(R, self.mean))
        return super().own_fit(Quadratic(f.C, R, energy), key, max_iterations, tol)
