"""VeRA: two vectors between two shared random matrices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..random import Key
from . import systems
from .arrays import count, matrix, number
from .bases import uniform
from .descent import Evaluation, Vectors
from .family import Family, Fitted, Layer, Model, Theta
from .joint import Joint, inverse
from .linear import Linear, RankOne, RowScale
from .places import module_of
from .quadratic import Quadratic

__all__ = ["VeRA"]

FEW = 64  # unknowns up to which one half is solved for after the other
STEPS = 12  # of L-BFGS in a round


@dataclass(frozen=True)
class VeRA(Family):
    """dW = diag(b)·B·diag(d)·A with A (r, i) and B (o, r) random and shared by all layers [1]_.

    b: one number for each output, ⟨(BD)_q, Q_q⟩ / (BD)_q P (BD)_qᵀ; d: (Bᵀdiag(b²)B) ⊙ P, with P = ACAᵀ and Q = RAᵀ.
    b is first: it is zero at the start, and d is `d_initial`. More than 64 unknowns: L-BFGS steps in d, with the best b
    for each.

    Parameters
    ----------
    rank : int
        r.
    seed : int, default 0
        Of A and B: uniform, of variance 1 and 2/r. Column c of A and row q of B depend on the seed and r alone, so that
        layers of all sizes share one A and one B, of which each takes the leading part.
    d_initial : float, default 0.1
    A : (≥ r, ≥ i) array_like, optional
        The matrix itself, such as ``vera_A`` of a peft model; its first r rows and i columns are used.
    B : (≥ o, ≥ r) array_like, optional
        Likewise ``vera_B``.

    Notes
    -----
    Factors: "b" (o,), "d" (r,). It sees the inputs through A alone, so thin statistics are enough. Cost of a round,
    after P and Q: 3or² flops and r³ once, and 2or² in each of 12 steps, in float32 if the fit's `tol` is 1e-6 or more.

    References
    ----------
    .. [1] D. J. Kopiczko, T. Blankevoort, Y. M. Asano, "VeRA: vector-based random matrix adaptation",
       arXiv:2310.11454.

    Examples
    --------
    >>> import numpy as np
    >>> from rpcls.adapters import LayerStatistics, VeRA, fit
    >>> rng = np.random.default_rng(0)
    >>> X, T = rng.standard_normal((400, 20)), rng.standard_normal((30, 20))
    >>> s = LayerStatistics(20, 30).update(X, X @ T.T)
    >>> result = fit(s, VeRA(rank=64), max_iterations=200)
    >>> result.parameters, result.explained > 0.15
    (94, True)
    """

    rank: int
    seed: int = 0
    d_initial: float = 0.1
    A: Any = field(default=None, repr=False, compare=False)
    B: Any = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        count(self.rank, "rank")
        number(self.d_initial, "d_initial", strict=True)

    def projection(self, in_features: int, weight: Any = None) -> np.ndarray:
        if self.A is not None:
            return leading(self.A, "A", (self.rank, in_features), "(rank, in_features)")
        return np.ascontiguousarray(unit(Key.of(self.seed).fold(0), (in_features, self.rank)).T)

    def output_basis(self, out_features: int) -> np.ndarray:
        """B (o, r) for a layer of this many outputs."""
        shape = (out_features, self.rank)
        if self.B is not None:
            return leading(self.B, "B", shape, "(out_features, rank)")
        return kaiming(Key.of(self.seed).fold(1), shape)

    def bind(self, layer: Layer) -> Model:
        B = self.output_basis(layer.out_features)
        return _VeRA(self.projection(layer.in_features), B, float(self.d_initial))


def leading(value: Any, name: str, shape: tuple[int, int], meaning: str) -> np.ndarray:
    """The leading part of a matrix that several layers share."""
    array = matrix(value, name, (None, None), meaning)
    if array.shape[0] < shape[0] or array.shape[1] < shape[1]:
        from ..errors import InvalidValueError

        raise InvalidValueError(f"{name} must have at least {meaning} = {shape}, got {array.shape}")
    return np.ascontiguousarray(array[: shape[0], : shape[1]])


def kaiming(key: Key, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform entries of variance 2/fan-in, the fan-in being the last axis."""
    return uniform(key, shape) * np.sqrt(6.0 / shape[-1])


def unit(key: Key, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform entries of variance 1."""
    return uniform(key, shape) * np.sqrt(3.0)


class _VeRA(Model):
    halves_in_order = ("b", "d")
    goes_to_cards = True

    def __init__(self, A: np.ndarray, B: np.ndarray, d_initial: float) -> None:
        self.inner, self.B, self.d_initial = A, B, d_initial

    def start(self, key: Key) -> Theta:
        o, r = self.B.shape
        return {"b": np.zeros(o), "d": np.full(r, self.d_initial)}

    def halves(self, theta: Theta) -> Mapping[str, Callable[[], Linear]]:
        return {
            "b": lambda: RowScale(self.B * theta["d"]),
            "d": lambda: RankOne(theta["b"][:, None] * self.B, None),
        }

    def own_fit(self, f: Quadratic, key: Key, max_iterations: int, tol: float) -> Fitted | None:
        if sum(self.B.shape) <= FEW:
            return None
        d = module_of(self.B).full(self.B.shape[1], self.d_initial)
        return Scaled(self.B, f).fit(d, self.B.shape[:1], STEPS, max_iterations, tol)

    def seen(self, theta: Theta) -> np.ndarray:
        return theta["b"][:, None] * self.B * theta["d"]


class Scaled(Joint):
    """f of b and d in L = diag(b)·B·diag(d). b takes part in no step: it is solved for wherever f is looked at."""

    names = ("b", "d")

    def __init__(self, B: np.ndarray, f: Quadratic) -> None:
        self.B, self.f, self.energy = B, f, f.energy

    def normal_equations(self, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        half = RowScale(self.B * v)
        return half.diagonal(self.f.C), half.adjoint(self.f.R)

    def evaluation(self, dtype: type) -> Evaluation:
        xp = module_of(self.B)
        C_unit, R_unit = (float(xp.abs(M).max()) or 1.0 for M in (self.f.C, self.f.R))
        C, R, B = (self.f.C / C_unit).astype(dtype), (self.f.R / R_unit).astype(dtype), self.B.astype(dtype)

        def evaluate(x: np.ndarray) -> tuple[float, np.ndarray]:
            d = x[len(B) :]
            unit = float(xp.abs(d).max()) or 1.0
            T = B * (d / unit).astype(dtype)
            TC = T @ C
            m = xp.einsum("oi,oi->o", T, R)
            b = systems.solve_diagonal(xp.einsum("oi,oi->o", T, TC), m).x
            TC *= b[:, None]
            TC -= R
            TC *= B
            weight = R_unit**2 / C_unit
            gradient = xp.zeros(x.size)
            gradient[len(B) :] = b @ TC  # in float64 before it is scaled
            gradient *= 2 * weight / unit
            return self.energy - weight * float(b @ m), gradient

        return evaluate

    def precondition(self, M: np.ndarray, u: np.ndarray, v: np.ndarray) -> Vectors:
        """d's normal equations."""
        of_d = inverse(2 * RankOne(u[:, None] * self.B, None).gram(self.f.C))
        xp = module_of(u)
        return lambda x: xp.concatenate([xp.zeros(u.size), of_d(x[u.size :])])
