"""RandLoRA: a full-rank sum of random low-rank products, scaled on both sides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import InvalidValueError
from ..random import Key
from . import systems
from .arrays import check_finite, count, number, plain, wide
from .family import Family, Layer, Model, Theta
from .linear import Linear, RankOne, Step, quadratic_value
from .quadratic import Quadratic
from .vera import unit

__all__ = ["RandLoRA"]

_DENSE = 1500  # unknowns γ up to which the coupled system is solved as one
_CHUNK_BYTES = 256 << 20


@dataclass(frozen=True)
class RandLoRA(Family):
    """dW = s·Σⱼ Bⱼ·diag(λ·ⱼ)·A·diag(γⱼ) for n = ⌈min(o, i)/r⌉ bases: full rank, in the layout of the peft library [1]_.

    With Bf (D, n·r) the flattened bases, A (r, d), d = min(o, i), D = max(o, i): dW = s·Bf·Â with
    Â[k·n + j] = λ[k, j]·A[k] ⊙ γ[j], transposed when o < i. The two flattenings differ, as they do in peft.

    λ is solved from a Hadamard product of Gram matrices, γ row by row where it separates (o < i, or C = I), and else by
    conjugate gradients with one Cholesky block for each column. λ is first: it is zero at the start.

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
    cg_iterations : int, default 60
    cg_tol : float, default 1e-10
        Of conjugate gradients, relative, in the norm of the preconditioner.

    Notes
    -----
    Factors: "lambda" (r, n), "gamma" (n, d). The first half-step has rank r only, since γ is constant at the start.
    Cost with K = n·r ≈ d unknowns λ: about 4Kd(K + d) flops for a λ half, and 2Kd(K + d) for each iteration of a
    coupled γ half. Unknown γ that the inputs do not determine are near the previous ones, not of minimum norm.

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
    >>> result = fit(s, RandLoRA(rank=4), max_iterations=50)
    >>> result.parameters, result.explained > 0.2
    (48, True)
    """

    rank: int
    alpha: float | None = None
    seed: int = 0
    A: Any = field(default=None, repr=False, compare=False)
    B: Any = field(default=None, repr=False, compare=False)
    cg_iterations: int = 60
    cg_tol: float = 1e-10

    def __post_init__(self) -> None:
        from .lowrank import scale_of

        scale_of(self.alpha, count(self.rank, "rank"))
        count(self.cg_iterations, "cg_iterations")
        number(self.cg_tol, "cg_tol", strict=True)

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
        return _RandLoRA(layer, A[:, 0], B.reshape(len(B), -1), B.shape[1], scale, self.cg_iterations, self.cg_tol)


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

    def __init__(
        self, layer: Layer, A: np.ndarray, Bf: np.ndarray, n: int, scale: float, cg_iterations: int, cg_tol: float
    ) -> None:
        self.layer, self.A, self.Bf, self.n, self.scale = layer, A, Bf, n, scale
        self.cg_iterations, self.cg_tol = cg_iterations, cg_tol
        self.turned = layer.out_features < layer.in_features
        self._gram: tuple[Any, np.ndarray] | None = None

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
        return _GammaRows(self, lam) if self.turned else _GammaColumns(self, lam)

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


class _Gamma(Linear):
    """γ (n, d) for fixed λ: row j scales the bases k·n + j, column c touches column c of Bf·Â only."""

    def __init__(self, model: _RandLoRA, lam: np.ndarray) -> None:
        self.model, self.lam = model, lam
        self.shape, self.theta_shape = model.layer.shape, (model.n, model.A.shape[1])

    def apply(self, theta: np.ndarray) -> np.ndarray:
        return self.model.seen({"lambda": self.lam, "gamma": theta})

    def adjoint(self, G: np.ndarray) -> np.ndarray:
        product = self.model.Bf.T @ (G.T if self.model.turned else G)
        return self.model.scale * self.gather(product)

    def gather(self, product: np.ndarray) -> np.ndarray:
        """Σₖ λ[k, j]·A[k, c]·product[k·n + j, c]."""
        A, lam = self.model.A, self.lam
        parts = product.reshape(*lam.shape, -1)
        out = np.zeros(self.theta_shape)
        for k in range(len(lam)):
            out += lam[k][:, None] * (A[k] * parts[k])
        return out

    def column_grams(self, N: np.ndarray, columns: slice) -> np.ndarray:
        """Σₖₗ λ[k, j]·A[k, c]·N[k·n + j, l·n + m]·λ[l, m]·A[l, c] as (columns, n, n), times s²: one product."""
        r, n = self.lam.shape
        lam = self.lam.reshape(-1)
        scaled = (N * lam * lam[:, None]).reshape(r, n, r, n).transpose(0, 2, 1, 3).reshape(r * r, n * n)
        A = self.model.A[:, columns]
        pairs = (A[:, None] * A).reshape(r * r, -1)
        M = (pairs.T @ scaled).reshape(-1, n, n)
        M *= self.model.scale**2
        return (M + M.transpose(0, 2, 1)) / 2

    def chunks(self) -> list[slice]:
        n, d = self.theta_shape
        step = max(1, _CHUNK_BYTES // (8 * n * n))
        return [slice(a, min(d, a + step)) for a in range(0, d, step)]


class _GammaRows(_Gamma):
    """o < i: every output row has its own n × n system, whatever C is."""

    def gram(self, C: np.ndarray, block: np.ndarray | None = None) -> np.ndarray:
        n, d = self.theta_shape
        M = np.zeros((n, d, n, d))
        for c, part in enumerate(self.column_grams(self.model.base_gram(C), slice(None))):
            M[:, c, :, c] = part
        M = M.reshape(n * d, n * d)
        return M if block is None else M[np.ix_(block, block)]

    def blocks(self) -> list[np.ndarray]:
        return list(np.arange(self.size).reshape(self.theta_shape).T)

    def solve(self, f: Quadratic, start: np.ndarray | None = None) -> Step:
        rhs, N = self.adjoint(f.R), self.model.base_gram(f.C)
        theta, rank, value = np.empty(self.theta_shape), 0, f.energy
        for here in self.chunks():
            M, m = self.column_grams(N, here), rhs[:, here].T
            solved = systems.solve_batch(M, m)
            theta[:, here] = solved.x.T
            rank += solved.rank
            value += quadratic_value(M, m, solved.x)
        return Step(theta, value, rank)


class _GammaColumns(_Gamma):
    """i ≤ o: C couples the columns of γ."""

    def gram(self, C: np.ndarray, block: np.ndarray | None = None) -> np.ndarray:
        r, n = self.lam.shape
        A, lam = self.model.A, self.lam.reshape(-1)
        N = (self.model.base_gram(None) * lam * lam[:, None]).reshape(r, n, r, n)
        half = np.einsum("kjlm,ld->kjmd", N, A)
        M = np.einsum("kc,kjmd,cd->jcmd", A, half, C, optimize=True)
        M = M.reshape(self.size, self.size) * self.model.scale**2
        return M if block is None else M[np.ix_(block, block)]

    def solve(self, f: Quadratic, start: np.ndarray | None = None) -> Step:
        if self.size <= _DENSE:
            return super().solve(f, start)
        rhs, N = self.adjoint(f.R), self.model.base_gram(None)
        scalar, s2 = f.is_scalar, self.model.scale**2
        inverses = np.empty((self.theta_shape[1], *2 * self.theta_shape[:1]), np.float64 if scalar else np.float32)
        for here in self.chunks():
            M = self.column_grams(N, here) * np.diagonal(f.C)[here, None, None]
            if scalar:
                inverses[here, :, 0] = systems.solve_batch(M, rhs[:, here].T).x
                continue
            ridge = 1e-10 * np.trace(M, axis1=1, axis2=2) / len(self.lam.T) + np.finfo(np.float32).tiny
            inverse = np.linalg.inv(M + ridge[:, None, None] * np.eye(M.shape[1]))
            inverses[here] = (inverse + inverse.transpose(0, 2, 1)) / 2

        def product(gamma: np.ndarray) -> np.ndarray:
            return s2 * self.gather((N @ self.model.scaled(self.lam, gamma)) @ f.C)

        def precondition(r: np.ndarray) -> np.ndarray:
            return np.matmul(inverses, r.T[:, :, None].astype(np.float32))[:, :, 0].T.astype(np.float64)

        if scalar:
            theta = np.ascontiguousarray(inverses[:, :, 0].T)
        else:
            begin = np.zeros(self.theta_shape) if start is None else start
            theta, _ = systems.conjugate_gradients(
                product, rhs, precondition, begin, tol=self.model.cg_tol, max_iterations=self.model.cg_iterations
            )
        value = f.energy + float(np.vdot(theta, product(theta) - 2 * rhs))
        return Step(theta, value, None)
