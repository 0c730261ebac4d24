"""NOLA: both factors of a LoRA are random combinations of many random matrices."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import InvalidValueError
from ..random import Key
from . import systems
from .arrays import count, matrix, plain
from .bases import uniform
from .descent import Evaluation, Vectors
from .family import Family, Fitted, Layer, Model, Theta
from .joint import Joint, inverse
from .linear import Linear
from .lowrank import scale_of
from .places import module_of
from .quadratic import Quadratic
from .vera import kaiming

__all__ = ["NOLA"]

FEW = 64  # unknowns up to which one half is solved for after the other
STEPS = 12  # of L-BFGS in a round
_CHUNK_BYTES = 128 << 20  # of float64 made from the kept float32 at a time


@dataclass(frozen=True)
class NOLA(Family):
    """dW = (α/r)(Σ bⱼBⱼ)(A₀ + Σ aᵢAᵢ) for random Aᵢ (r, i) and Bⱼ (o, r); only a and b are fitted [1]_.

    b: ⟨BⱼP, Bⱼ'⟩ with P = ACAᵀ, right-hand side ⟨Bⱼ, RAᵀ⟩; a: ⟨(BᵀB)Aᵢ, Aᵢ'C⟩, right-hand side ⟨Aᵢ, Bᵀ(R − BA₀C)⟩. b is
    first: it is zero at the start, and A₀ is not. More than 64 unknowns move together, by L-BFGS, and b is solved for
    again once a round.

    Parameters
    ----------
    a_size, b_size : int
        k and l, how many Aᵢ and Bⱼ.
    rank : int
        r.
    alpha : float, optional
        α; r by default.
    seed : int, default 0
        Of all bases: Aᵢ and Bⱼ uniform on ±1/√k and ±1/√l, A₀ uniform on ±√(6/i).
    A : (k, r, i) array_like, optional
        The Aᵢ themselves.
    B : (l, o, r) array_like, optional
        The Bⱼ themselves.
    A0 : (r, i) array_like, optional
        The frozen A₀ itself.

    Notes
    -----
    Factors: "b" (l,), "a" (k,). Drawn bases are kept in float32, which holds them exactly: 4r(k·i + l·o) bytes.
    Cost of a round: l²or flops for b, and 4r(k·i + l·o) + 2ri² + 4roi in each of 12 steps, in float32 if the fit's
    `tol` is 1e-6 or more.

    References
    ----------
    .. [1] S. A. Koohpayegani et al., "NOLA: compressing LoRA using linear combination of random basis",
       arXiv:2310.02556.

    Examples
    --------
    >>> import numpy as np
    >>> from rpcls.adapters import NOLA, LayerStatistics, fit
    >>> s = LayerStatistics.from_delta(np.random.default_rng(0).standard_normal((12, 10)))
    >>> result = fit(s, NOLA(a_size=20, b_size=30, rank=2))
    >>> result.parameters, result.explained > 0.1
    (50, True)
    """

    a_size: int
    b_size: int
    rank: int
    alpha: float | None = None
    seed: int = 0
    A: Any = field(default=None, repr=False, compare=False)
    B: Any = field(default=None, repr=False, compare=False)
    A0: Any = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        count(self.a_size, "a_size")
        count(self.b_size, "b_size")
        scale_of(self.alpha, count(self.rank, "rank"))

    def bind(self, layer: Layer) -> Model:
        (o, i), r, key = layer.shape, self.rank, Key.of(self.seed)
        A0 = kaiming(key.fold(0), (r, i)) if self.A0 is None else matrix(self.A0, "A0", (r, i), "(rank, in_features)")
        A = _Stack.of(self.A, "A", (self.a_size, r, i), key.fold(1))
        B = _Stack.of(self.B, "B", (self.b_size, o, r), key.fold(2))
        return _NOLA(A0, A, B, scale_of(self.alpha, r))


class _Stack:
    """Many matrices of one shape, (k, p, q), kept narrow and used in float64 a chunk at a time."""

    def __init__(self, array: np.ndarray, scale: float) -> None:
        self.array, self.scale, self.shape = array, scale, array.shape

    @classmethod
    def of(cls, given: Any, name: str, shape: tuple[int, int, int], key: Key) -> _Stack:
        if given is None:
            return cls(uniform(key, shape, np.float32), 1 / math.sqrt(shape[0]))
        array = plain(given, name)
        if array.shape != shape:
            raise InvalidValueError(f"{name} must have shape {shape}, got {array.shape}")
        if array.dtype != np.float32:
            array = array.astype(np.float64)
        if not np.isfinite(array).all():
            raise InvalidValueError(f"{name} must be finite")
        return cls(array, 1.0)

    def chunks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Slices of k, and those matrices in float64, unscaled."""
        k, p, q = self.shape
        step = max(1, _CHUNK_BYTES // (8 * p * q))
        for start in range(0, k, step):
            here = slice(start, min(k, start + step))
            yield here, self.array[here].astype(np.float64)

    def combine(self, theta: np.ndarray) -> np.ndarray:
        """Σ θₖ Gₖ, (p, q)."""
        _, p, q = self.shape
        out = module_of(self.array).zeros(p * q)
        for here, part in self.chunks():
            out += theta[here] @ part.reshape(-1, p * q)
        return self.scale * out.reshape(p, q)

    def inner(self, G: np.ndarray) -> np.ndarray:
        """⟨Gₖ, G⟩ for every k."""
        join = module_of(self.array).concatenate
        return self.scale * join([part.reshape(len(part), -1) @ G.reshape(-1) for _, part in self.chunks()])

    def sent(self, to: Callable[[Any], Any]) -> _Stack:
        return _Stack(to(self.array), self.scale)


class _NOLA(Model):
    halves_in_order = ("b", "a")
    goes_to_cards = True

    def __init__(self, A0: np.ndarray, A: _Stack, B: _Stack, scale: float) -> None:
        self.A0, self.A, self.B, self.scale = A0, A, B, scale

    def start(self, key: Key) -> Theta:
        return {"b": np.zeros(self.B.shape[0]), "a": np.zeros(self.A.shape[0])}

    def left(self, theta: Theta) -> np.ndarray:
        """Σ bⱼBⱼ."""
        return self.B.combine(theta["b"])

    def right(self, theta: Theta) -> np.ndarray:
        """A₀ + Σ aᵢAᵢ."""
        return self.A0 + self.A.combine(theta["a"])

    def halves(self, theta: Theta) -> Mapping[str, Callable[[], Linear]]:
        return {"b": lambda: _Left(self, self.right(theta)), "a": lambda: _Right(self, self.left(theta))}

    def seen(self, theta: Theta) -> np.ndarray:
        return self.scale * (self.left(theta) @ self.right(theta))

    def low_rank(self, theta: Theta) -> tuple[np.ndarray, np.ndarray]:
        return self.scale * self.left(theta), self.right(theta)

    def own_fit(self, f: Quadratic, key: Key, max_iterations: int, tol: float) -> Fitted | None:
        a_size, b_size = self.A.shape[0], self.B.shape[0]
        if a_size + b_size <= FEW:
            return None
        return Combined(self, f).fit(module_of(self.A0).zeros(a_size), (b_size,), STEPS, max_iterations, tol)


class Combined(Joint):
    """f = s²⟨BᵀB, ACAᵀ⟩ − 2s⟨BᵀR, A⟩ + energy of b in B = Σ bⱼBⱼ and a in A = A₀ + Σ aᵢAᵢ."""

    names = ("b", "a")

    def __init__(self, model: _NOLA, f: Quadratic) -> None:
        self.model, self.f, self.energy = model, f, f.energy

    def normal_equations(self, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        half = _Left(self.model, self.model.A0 + self.model.A.combine(v))
        return half.gram(self.f.C), half.adjoint(self.f.R)

    def evaluation(self, dtype: type) -> Evaluation:
        model, s = self.model, self.model.scale
        xp = module_of(self.f.C)
        C_unit, R_unit = (float(xp.abs(M).max()) or 1.0 for M in (self.f.C, self.f.R))
        C, R = (self.f.C / C_unit).astype(dtype), (self.f.R / R_unit).astype(dtype)
        of_A, of_B = (M.array.reshape(M.shape[0], -1).astype(dtype, copy=False) for M in (model.A, model.B))
        (size, o, r), A0, a_scale, b_scale = model.B.shape, model.A0, model.A.scale, model.B.scale

        def evaluate(x: np.ndarray) -> tuple[float, np.ndarray]:
            unit = float(xp.abs(x[:size]).max()) or 1.0
            b, a = (x[:size] / unit).astype(dtype), x[size:].astype(dtype)
            B = b_scale * (b @ of_B).reshape(o, r)
            A = (A0 + a_scale * (a @ of_A).reshape(r, -1)).astype(dtype)
            AC, BB, BR = A @ C, B.T @ B, B.T @ R
            P, weight, wanted = AC @ A.T, (s * unit) ** 2 * C_unit, s * unit * R_unit
            value = self.energy + weight * float(xp.vdot(BB, P)) - 2 * wanted * float(xp.vdot(BR, A))
            # their common factor is left out, so that what float32 holds is near one
            to_B = weight / wanted * (B @ P) - R @ A.T
            to_A = weight / wanted * (BB @ AC) - BR
            to_b, to_a = (stack @ G.reshape(-1) for stack, G in ((of_B, to_B), (of_A, to_A)))
            factors = 2 * wanted / unit * b_scale, 2 * wanted * a_scale
            return value, xp.concatenate([factors[0] * to_b.astype(float), factors[1] * to_a.astype(float)])

        return evaluate

    def precondition(self, M: np.ndarray, u: np.ndarray, v: np.ndarray) -> Vectors:
        """b's normal equations, and the size of a's: what random Aᵢ, all alike, have on their diagonal."""
        stack, s, B = self.model.A, self.model.scale, self.model.B.combine(u)
        xp = module_of(B)
        entries = float(xp.square(stack.array, dtype=np.float64).mean()) * stack.scale**2
        of_a = 2 * s * s * entries * float(xp.vdot(B, B)) * float(self.f.C.trace())
        of_b = inverse(2 * M)
        return lambda x: xp.concatenate([of_b(x[: u.size]), x[u.size :] / (of_a or 1.0)])


class _Left(Linear):
    """dW = s·(Σ bⱼBⱼ)·A."""

    def __init__(self, model: _NOLA, A: np.ndarray) -> None:
        self.stack, self.A, self.scale = model.B, A, model.scale
        self.theta_shape = (self.stack.shape[0],)
        self.shape = self.stack.shape[1], A.shape[1]

    def apply(self, theta: np.ndarray) -> np.ndarray:
        return self.scale * (self.stack.combine(theta) @ self.A)

    def adjoint(self, G: np.ndarray) -> np.ndarray:
        return self.scale * self.stack.inner(G @ self.A.T)

    def gram(self, C: np.ndarray, block: np.ndarray | None = None) -> np.ndarray:
        root = systems.root(self.A @ C @ self.A.T)
        k, o, _ = self.stack.shape
        M = module_of(root).zeros((k, k))
        step = max(1, _CHUNK_BYTES // (8 * k * len(root)))
        for start in range(0, o, step):
            part = self.stack.array[:, start : start + step].astype(np.float64)
            flat = (part.reshape(-1, part.shape[2]) @ root).reshape(k, -1)
            M += flat @ flat.T
        M *= (self.scale * self.stack.scale) ** 2
        return M if block is None else M[np.ix_(block, block)]


class _Right(Linear):
    """dW = s·B·(A₀ + Σ aᵢAᵢ)."""

    def __init__(self, model: _NOLA, B: np.ndarray) -> None:
        self.model, self.stack, self.B, self.scale = model, model.A, B, model.scale
        self.theta_shape = (self.stack.shape[0],)
        self.shape = len(B), self.stack.shape[2]

    @property
    def offset(self) -> np.ndarray:
        return self.scale * (self.B @ self.model.A0)

    def apply(self, theta: np.ndarray) -> np.ndarray:
        return self.scale * (self.B @ self.stack.combine(theta))

    def adjoint(self, G: np.ndarray) -> np.ndarray:
        return self.scale * self.stack.inner(self.B.T @ G)

    def gram(self, C: np.ndarray, block: np.ndarray | None = None) -> np.ndarray:
        root, left = systems.root(C), systems.root(self.B.T @ self.B).T
        k, r, i = self.stack.shape
        M = np.zeros((k, k))
        step = max(1, _CHUNK_BYTES // (8 * k * max(1, r)))
        for start in range(0, root.shape[1], step):
            part = (self.stack.array.reshape(-1, i) @ root[:, start : start + step]).reshape(k, r, -1)
            flat = np.matmul(left, part).reshape(k, -1)
            M += flat @ flat.T
        M *= (self.scale * self.stack.scale) ** 2
        return M if block is None else M[np.ix_(block, block)]
