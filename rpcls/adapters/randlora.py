"""RandLoRA: a full-rank sum of random low-rank products, scaled on both sides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import InvalidValueError
from ..random import Key
from .arrays import check_finite, count, plain, wide
from .coupled import Coupled
from .family import Family, Fitted, Layer, Model, Theta
from .linear import Linear, RankOne
from .modulated import ModulatedColumns, ModulatedRows
from .quadratic import Quadratic
from .vera import unit

__all__ = ["RandLoRA"]

FEW = 256  # unknowns γ up to which one half is solved for after the other


@dataclass(frozen=True)
class RandLoRA(Family):
    """dW = s·Σⱼ Bⱼ·diag(λ·ⱼ)·A·diag(γⱼ) for n = ⌈min(o, i)/r⌉ bases: full rank, in the layout of the peft library [1]_.

    With Bf (D, n·r) the flattened bases, A (r, d), d = min(o, i), D = max(o, i): dW = s·Bf·Â with
    Â[k·n + j] = λ[k, j]·A[k] ⊙ γ[j], transposed when o < i. The two flattenings differ, as they do in peft.

    λ is solved from a Hadamard product of Gram matrices, γ row by row where it separates (o < i, or C = I). λ is
    first: it is zero at the start. More than 256 unknowns γ move together with λ, by L-BFGS, from a first γ for λ = 1.

    Parameters
    ----------
    rank : int
        r of each base.
    alpha : float, optional
        s = alpha/r; peft's default is 640. s = 1 by default.
    seed : int, default 0
        Of A and B, uniform of variance 1. Column c of A and row q of each base in B depend on the seed and r alone, so
        that layers of all sizes share one A and one B, of which each takes the leading part. peft draws its own from
        the seed, the machine's float type and all target modules; `export_peft` ships these instead.
    A : (≥ r, 1, ≥ d) array_like, optional
        ``randlora_A`` itself; the leading part is used.
    B : (≥ D, ≥ n, ≥ r) array_like, optional
        ``randlora_B`` itself.
    steps : int, default 16
        Of L-BFGS in a round, between one solution for λ and the next.

    Notes
    -----
    Factors: "lambda" (r, n), "gamma" (n, d).
    Cost with K = n·r ≈ d unknowns λ: Kd(K + 2d) flops to solve for λ, 2Kd(K + d) in each step of L-BFGS, in float32 if
    the fit's `tol` is 1e-6 or more; 2K²d if o < i or C = I. Many γ that the inputs do not determine are near the first
    ones, not of minimum norm.

    References
    ----------
    .. [1] P. Albert et al., "RandLoRA: full-rank parameter-efficient fine-tuning of large models", arXiv:2502.00987.

    Examples
    --------
    >>> import numpy as np
    >>> from rpcls.adapters import LayerStatistics, RandLoRA, fit
    >>> rng = np.random.default_rng(0)
    >>> X, T = rng.standard_normal((200, 12)), rng.standard_normal((20, 12))
    >>> s = LayerStatistics(12, 20).update(X, X @ T.T)
    >>> result = fit(s, RandLoRA(rank=4), max_iterations=200)
    >>> result.parameters, result.explained > 0.1
    (48, True)
    """

    rank: int
    alpha: float | None = None
    seed: int = 0
    A: Any = field(default=None, repr=False, compare=False)
    B: Any = field(default=None, repr=False, compare=False)
    steps: int = 16

    def __post_init__(self) -> None:
        from .lowrank import scale_of

        scale_of(self.alpha, count(self.rank, "rank"))
        count(self.steps, "steps")

    def bases(self, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """A (r, 1, d) and B (D, n, r) for a layer of this shape, (out_features, in_features)."""
        d, D, r = min(shape), max(shape), self.rank
        n = -(-d // r)
        of_A, of_B = Key.of(self.seed).fold(0), Key.of(self.seed).fold(1)

        def draw_A() -> np.ndarray:
            return np.ascontiguousarray(unit(of_A, (d, r)).T)[:, None]

        def draw_B() -> np.ndarray:
            return np.stack([unit(of_B.fold(j), (D, r)) for j in range(n)], axis=1)

        A = _part(self.A, "A", (r, 1, d), "(rank, 1, smaller side)", draw_A)
        B = _part(self.B, "B", (D, n, r), "(larger side, bases, rank)", draw_B)
        return A, B

    def bind(self, layer: Layer) -> Model:
        from .lowrank import scale_of

        A, B = self.bases(layer.shape)
        scale = scale_of(self.alpha, self.rank)
        return _RandLoRA(layer, A[:, 0], B.reshape(len(B), -1), B.shape[1], scale, self.steps)


def _part(given: Any, name: str, shape: tuple[int, ...], meaning: str, draw: Callable[[], np.ndarray]) -> np.ndarray:
    if given is None:
        return draw()
    array = plain(given, name)
    if array.ndim != 3 or any(got < want for got, want in zip(array.shape, shape, strict=True)):
        raise InvalidValueError(f"{name} must have at least {meaning} = {shape}, got {array.shape}")
    array = wide(array[: shape[0], : shape[1], : shape[2]])
    check_finite(array, name)
    return array


class _RandLoRA(Model):
    halves_in_order = ("lambda", "gamma")
    goes_to_cards = True

    def __init__(self, layer: Layer, A: np.ndarray, Bf: np.ndarray, n: int, scale: float, steps: int) -> None:
        self.layer, self.A, self.Bf, self.n, self.scale, self.steps = layer, A, Bf, n, scale, steps
        self.turned = layer.out_features < layer.in_features
        self._gram: tuple[Any, np.ndarray] | None = None

    def sent(self, to: Callable[[Any], Any]) -> Model:
        other: Any = super().sent(to)
        other._gram = None
        return other

    def start(self, key: Key) -> Theta:
        r, d = self.A.shape
        return {"lambda": np.zeros((r, self.n)), "gamma": np.full((self.n, d), 1 / max(self.n, d))}

    def scaled(self, lam: np.ndarray | None, gamma: np.ndarray) -> np.ndarray:
        """Â (K, d), or Ã for λ = 1."""
        out = self.A[:, None, :] * gamma
        if lam is not None:
            out *= lam[:, :, None]
        return out.reshape(-1, out.shape[2])

    def halves(self, theta: Theta) -> Mapping[str, Callable[[], Linear]]:
        return {"lambda": lambda: self._lambda(theta["gamma"]), "gamma": lambda: self._gamma(theta["lambda"])}

    def _lambda(self, gamma: np.ndarray) -> Linear:
        small, shape = self.scaled(None, gamma), (self.A.shape[0], self.n)
        if self.turned:
            return _Lambda(self, small.T, self.Bf.T, self.scale, shape)
        return _Lambda(self, self.Bf, small, self.scale, shape)

    def _gamma(self, lam: np.ndarray) -> Linear:
        if self.turned:
            return ModulatedRows(self.Bf, self.A, lam, self.scale, base_gram=self.base_gram)
        return ModulatedColumns(self.Bf, self.A, lam, self.scale, base_gram=self.base_gram)

    def own_fit(self, f: Quadratic, key: Key, max_iterations: int, tol: float) -> Fitted | None:
        if self.n * self.A.shape[1] <= FEW:
            return None
        problem = self.coupled(f)
        return problem.fit(problem.start(), (len(self.A), self.n), self.steps, max_iterations, tol)

    def coupled(self, f: Quadratic) -> Coupled:
        """f as a function of λ and γ."""
        s2 = self.scale**2
        if self.turned:
            return Coupled(self.A, s2 * self.base_gram(f.C), None, self.scale * (f.R @ self.Bf).T, f.energy)
        c = f.is_scalar
        N = (s2 if c is None else s2 * c) * self.base_gram(None)
        return Coupled(self.A, N, f.C if c is None else None, self.scale * (self.Bf.T @ f.R), f.energy)

    def seen(self, theta: Theta) -> np.ndarray:
        dW = self.scale * (self.Bf @ self.scaled(theta["lambda"], theta["gamma"]))
        return dW.T if self.turned else dW

    def base_gram(self, C: np.ndarray | None) -> np.ndarray:
        """BfᵀBf, or BfᵀCBf; kept, as both halves need it in every round."""
        if self._gram is None or self._gram[0] is not C:
            self._gram = C, self.Bf.T @ (self.Bf if C is None else C @ self.Bf)
        return self._gram[1]


class _Lambda(RankOne):
    """λ: rank-one bases, of which one Gram matrix is kept."""

    def __init__(
        self, model: _RandLoRA, B: np.ndarray, A: np.ndarray, scale: float, theta_shape: tuple[int, ...]
    ) -> None:
        super().__init__(B, A, scale, theta_shape)
        self.model = model

    def gram(self, C: np.ndarray, block: np.ndarray | None = None) -> np.ndarray:
        if block is not None:
            return super().gram(C, block)
        assert self.A is not None
        if self.model.turned:
            M = (self.B.T @ self.B) * self.model.base_gram(C)
        else:
            M = self.A @ C @ self.A.T
            M *= self.model.base_gram(None)
        M *= self.scale**2
        return (M + M.T) / 2
