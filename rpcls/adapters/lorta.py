"""LoRTA: one CP tensor for the attention matrices of all layers, fitted by alternating least squares."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import InvalidValueError
from .arrays import count
from .cp import CPModel, Target
from .family import Layer, Model, SpanningFamily
from .lowrank import scale_of

__all__ = ["LoRTA"]

_MATRICES = "qkvo"
_NAMES = {
    name: matrix
    for matrix, names in {
        "q": "q q_proj query wq q_lin",
        "k": "k k_proj key wk k_lin",
        "v": "v v_proj value wv v_lin",
        "o": "o o_proj out_proj wo out_lin attention.output.dense",
    }.items()
    for name in names.split()
}


@dataclass(frozen=True)
class LoRTA(SpanningFamily):
    """One CP tensor of rank r for the query, key, value and output matrices of all attention layers [1]_.

    The updates of all layers l, heads h and matrices m make a tensor of shape d × d/H × H × L × 4, whose CP form is
    T[a, b, h, l, m] = s·Σⱼ A[a, j]·B[b, j]·C_H[h, j]·C_L[l, j]·C_M[m, j]. A head's rows of the query, key and value
    matrices and its columns of the output matrix are slices of it: dW_q[h·d/H + b, a] = T[a, b, h, l, q], likewise k
    and v, and dW_o[a, h·d/H + b] = T[a, b, h, l, o]. So A faces the residual stream in all of them.

    `fit` takes a mapping from layers' names to their statistics, minimises the sum of their objectives by alternating
    least squares, and returns one result, whose `delta(name)` is the update of one matrix. For each of the five
    factors the normal equations are summed over all matrices.

    Parameters
    ----------
    rank : int
        r.
    heads : int
        H; it divides the outputs of q, k and v, and the inputs of o.
    alpha : float, optional
        s = alpha/r; 1 by default.
    places : mapping of str to (int, str), optional
        For each name its layer and its matrix, one of "q", "k", "v", "o". By default they are read off the names: the
        last number between dots is the layer, and how the name ends tells the matrix (q_proj, query, wq, q_lin, q; the
        same for k and v; o_proj, out_proj, wo, out_lin, attention.output.dense, o). Layers and matrices may be missing.

    Notes
    -----
    Factors: "A" (d, r), "B" (d/H, r), "C_H" (H, r), "C_L" (layers, r) and "C_M" (matrices, r), rows in the order of
    layers' numbers and of q, k, v, o. The start is a higher-order singular value decomposition of all R, random (`rng`)
    where r exceeds the size of a mode, with A = 0, which is solved first. There are local minima: try several rng and
    keep the best. Columns of the factors that are not being solved for are kept at norm one.

    A factor on the input side of a matrix meets its C. A is solved densely up to 4000 unknowns, then by conjugate
    gradients with a preconditioner that is exact if the C are multiples of each other; B and C_H densely. Cost of a
    round: about 20·d²·r flops for each matrix, 2·d²·r more in each iteration of conjugate gradients, and (dr/H)³/3 if
    there are output matrices. C and R of all matrices are in memory.

    All q, k, v must have one shape and o its transpose: key and value matrices with fewer heads are not part of the
    tensor; fit them apart.

    References
    ----------
    .. [1] I. Hounie, C. Kanatsoulis, A. Tandon, A. Ribeiro, "LoRTA: low rank tensor adaptation of large language
       models", arXiv:2410.04060.

    Examples
    --------
    >>> import numpy as np
    >>> from rpcls.adapters import LayerStatistics, LoRTA, fit
    >>> T = np.outer(np.arange(4.0), [1.0, -1.0, 2.0, 0.0])
    >>> wanted = {"layers.0.q_proj": T, "layers.0.v_proj": 2 * T, "layers.1.q_proj": -T, "layers.1.o_proj": T.T}
    >>> statistics = {name: LayerStatistics.from_delta(dW) for name, dW in wanted.items()}
    >>> result = fit(statistics, LoRTA(rank=2, heads=2), ridge=0)
    >>> result.parameters, bool(np.allclose(result.delta("layers.0.v_proj"), 2 * T))
    (26, True)
    """

    rank: int
    heads: int
    alpha: float | None = None
    places: Mapping[str, tuple[int, str]] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        scale_of(self.alpha, count(self.rank, "rank"))
        count(self.heads, "heads")

    def bind_all(self, layers: Mapping[str, Layer]) -> Model:
        places = {name: self._place(name) for name in layers}
        seen: dict[tuple[int, str], str] = {}
        for name, place in places.items():
            if place in seen:
                raise InvalidValueError(
                    f"{seen[place]!r} and {name!r} are both matrix {place[1]} of layer {place[0]}; give "
                    "places={name: (layer, matrix), …}"
                )
            seen[place] = name
        inner, d = self._sizes(layers, places)
        numbers = sorted({layer for layer, _ in places.values()})
        matrices = [m for m in _MATRICES if any(m == matrix for _, matrix in places.values())]
        targets = [
            Target(name, numbers.index(layer), matrices.index(matrix), matrix == "o")
            for name, (layer, matrix) in places.items()
        ]
        sizes = {"A": d, "B": inner // self.heads, "C_H": self.heads, "C_L": len(numbers), "C_M": len(matrices)}
        return CPModel(targets, sizes, self.rank, scale_of(self.alpha, self.rank))

    def _place(self, name: str) -> tuple[int, str]:
        if self.places is not None:
            if name not in self.places:
                raise InvalidValueError(f"places must have every layer of statistics, and {name!r} is missing")
            place = self.places[name]
            if not isinstance(place, tuple) or len(place) != 2 or place[1] not in tuple(_MATRICES):
                raise InvalidValueError(
                    f"places[{name!r}] must be (layer, matrix) with a matrix of q, k, v, o, got {place!r}"
                )
            return count(place[0], f"the layer of places[{name!r}]", least=0), place[1]
        numbers = re.findall(r"(?:^|\.)(\d+)(?=\.)", name)
        parts = name.split(".")
        matrix = next((_NAMES[end] for n in (1, 3) if (end := ".".join(parts[-n:])) in _NAMES), None)
        if not numbers or matrix is None:
            missing = "which of q, k, v, o it is" if numbers else "the number of its layer"
            raise InvalidValueError(
                f"the name {name!r} does not tell {missing}; give places={{name: (layer, matrix), …}}"
            )
        return int(numbers[-1]), matrix

    def _sizes(self, layers: Mapping[str, Layer], places: Mapping[str, tuple[int, str]]) -> tuple[int, int]:
        """(H·d/H, d): the sides with and without heads, which all layers must agree on."""
        first, sizes = "", (0, 0)
        for name, layer in layers.items():
            output = places[name][1] == "o"
            inner, d = layer.shape[::-1] if output else layer.shape
            if inner % self.heads:
                raise InvalidValueError(
                    f"heads must divide the {'inputs' if output else 'outputs'} of {name!r}, {inner}, got {self.heads}"
                )
            if not first:
                first, sizes = name, (inner, d)
            if (inner, d) != sizes:
                raise InvalidValueError(
                    f"q, k and v must have one shape, (out, in), and o its transpose: {first!r} makes that "
                    f"{sizes[0]} × {sizes[1]}, and {name!r}, of matrix {places[name][1]}, is {layer.out_features} × "
                    f"{layer.in_features}; fit keys and values with fewer heads apart"
                )
        return sizes
