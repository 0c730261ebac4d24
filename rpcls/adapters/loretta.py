"""LoRETTA: the two factors of a LoRA as tensor trains, fitted by alternating least squares."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InvalidTypeError, InvalidValueError
from ..random import Key
from .arrays import count
from .bases import normal
from .family import Family, Layer, Model, Theta
from .linear import Linear
from .lowrank import reduced_rank, scale_of
from .quadratic import Quadratic

__all__ = ["LoRETTA", "contract", "tensor_modes", "tt_svd"]

_LARGEST_MODE = 16
_CHUNK_BYTES = 256 << 20  # of a core's basis matrices at a time


@dataclass(frozen=True)
class LoRETTA(Family):
    """dW = s·BA whose factors are tensor trains: LoRETTA_rep [1]_.

    As in the paper and its code it is not dW that is a tensor train, but each of the LoRA factors, in the layout in
    which they multiply tokens from the right: Aᵀ (in_features × r) and Bᵀ (r × out_features), reshaped in C order to
    tensors of shapes `modes_A` and `modes_B`, are products of cores Gₖ (Rₖ₋₁, nₖ, Rₖ), Rₖ ≤ `tensor_rank`.
    (LoRETTA_adp, the paper's other form, puts a nonlinearity between two trains, so it is no update of a weight.)

    dW is linear in each core. The start is the best LoRA of rank r (reduced-rank regression), of whose factors
    truncated singular value decompositions make trains (TT-SVD [2]_); then one core after the other is solved for, by
    its normal equations in the data. Before each of these steps the cores on its left and right are made orthogonal,
    which changes no tensor and keeps the system as well conditioned as C and the other factor allow.

    Parameters
    ----------
    rank : int
        r of the LoRA.
    tensor_rank : int, default 5
        The largest Rₖ; smaller where a tensor of this shape has no larger rank.
    alpha : float, optional
        s = alpha/r; 1 by default.
    modes_A, modes_B : sequence of int, optional
        The tensors' shapes; their products are in_features·r and r·out_features. By default in_features and
        out_features are cut into factors of about equal size, none above 16 if their primes allow it, and r is a mode
        of its own: 768 and r = 8 make (8, 8, 12, 8) and (8, 8, 8, 12). Then the rank of dW is at most `tensor_rank`,
        and the start is exact if dW has such trains; for other modes it may be far off, and alternating slow.

    Notes
    -----
    Factors: "A0", "A1", … and "B0", "B1", …, the cores of the two trains in the order of the paper's code. Local minima
    are possible. Cost: that of `LoRA`, and in each round for a core of A with K unknowns 2K·r·in_features² flops, for
    one of B 2K·r²·out_features, and K³/3 for either.

    References
    ----------
    .. [1] Y. Yang, J. Zhou, N. Wong, Z. Zhang, "LoRETTA: low-rank economic tensor-train adaptation for
       ultra-low-parameter fine-tuning of large language models", arXiv:2402.11417.
    .. [2] I. V. Oseledets, "Tensor-train decomposition", SIAM J. Sci. Comput. 33 (2011), doi:10.1137/090752286.

    Examples
    --------
    >>> import numpy as np
    >>> from rpcls.adapters import LayerStatistics, LoRETTA, fit
    >>> T = np.kron(np.diag([2.0, 1.0]), np.ones((12, 16)))
    >>> result = fit(LayerStatistics.from_delta(T), LoRETTA(rank=2, tensor_rank=2), ridge=0)
    >>> result.parameters, round(result.explained, 9)
    (76, 1.0)
    """

    rank: int
    tensor_rank: int = 5
    alpha: float | None = None
    modes_A: Sequence[int] | None = None
    modes_B: Sequence[int] | None = None

    def __post_init__(self) -> None:
        scale_of(self.alpha, count(self.rank, "rank"))
        count(self.tensor_rank, "tensor_rank")

    def bind(self, layer: Layer) -> Model:
        (o, i), r = layer.shape, self.rank
        count(r, "rank", most=min(layer.shape), why=", the smaller side of the layer")
        A = _modes(self.modes_A, "modes_A", i * r, f"in_features·rank = {i}·{r}", (*tensor_modes(i), r))
        B = _modes(self.modes_B, "modes_B", r * o, f"rank·out_features = {r}·{o}", (r, *tensor_modes(o)))
        return _Trains({"A": (A, (i, r)), "B": (B, (r, o))}, self.tensor_rank, scale_of(self.alpha, r))


def _modes(given: Any, name: str, product: int, meaning: str, default: tuple[int, ...]) -> tuple[int, ...]:
    if given is None:
        return default
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise InvalidTypeError(f"{name} must be a sequence of ints, such as {default}, got {given!r}")
    modes = tuple(count(n, f"{name}[{k}]") for k, n in enumerate(given))
    if math.prod(modes) != product:
        raise InvalidValueError(
            f"the product of {name} must be {meaning} = {product}, got {modes} with product {math.prod(modes)}; "
            f"leave it None for {default}"
        )
    return modes


def tensor_modes(n: int) -> tuple[int, ...]:
    """n as a product of factors of about equal size, as few as keep them at 16 or less if n's primes allow that.

    Examples
    --------
    >>> tensor_modes(768), tensor_modes(4096), tensor_modes(384), tensor_modes(37)
    ((8, 8, 12), (16, 16, 16), (8, 6, 8), (37,))
    """
    modes = []
    for left in range(math.ceil(math.log(n, _LARGEST_MODE) - 1e-9), 1, -1):
        wanted = n ** (1 / left)
        mode = min((m for m in range(1, n + 1) if n % m == 0), key=lambda m: abs(m - wanted))
        if mode > 1:
            modes.append(mode)
            n //= mode
    return (*modes, n)


def contract(cores: Sequence[np.ndarray]) -> np.ndarray:
    """The product of neighbouring cores, (first rank, all modes, last rank)."""
    out = np.eye(cores[0].shape[0])[:, None] if cores else np.ones((1, 1, 1))
    for core in cores:
        out = np.tensordot(out, core, axes=1).reshape(out.shape[0], -1, core.shape[2])
    return out


def tt_svd(tensor: np.ndarray, modes: Sequence[int], tensor_rank: int) -> list[np.ndarray]:
    """Cores of a tensor train near a tensor: truncated singular value decompositions from left to right.

    The error is at most √(d − 1) times that of the best train of these ranks in d modes.
    """
    from scipy.linalg import svd

    cores, rest = [], tensor.reshape(1, -1)
    for n in modes[:-1]:
        U, s, Vt = svd(rest.reshape(len(rest) * n, -1), full_matrices=False, check_finite=False)
        kept = min(tensor_rank, len(s))
        cores.append(U[:, :kept].reshape(-1, n, kept))
        rest = s[:kept, None] * Vt[:kept]
    return [*cores, rest.reshape(len(rest), modes[-1], 1)]


class _Trains(Model):
    """dW = s·(Aᵀ·Bᵀ)ᵀ with Aᵀ (i, r) and Bᵀ (r, o) from their cores."""

    def __init__(self, trains: dict[str, tuple[tuple[int, ...], tuple[int, int]]], rank: int, scale: float) -> None:
        self.trains, self.rank, self.scale = trains, rank, scale
        self.halves_in_order = tuple(f"{side}{k}" for side in "BA" for k in range(len(trains[side][0])))

    def start(self, key: Key) -> Theta:
        """Random cores, as in the paper."""
        theta: Theta = {}
        for fold, (side, (modes, _)) in enumerate(self.trains.items()):
            ranks = [min(self.rank, math.prod(modes[:k]), math.prod(modes[k:])) for k in range(len(modes) + 1)]
            shapes = zip(ranks, modes, ranks[1:], strict=False)
            theta |= self.named(side, [normal(key.fold(fold).fold(k), shape) for k, shape in enumerate(shapes)])
        return theta

    def start_for(self, f: Quadratic, key: Key) -> Theta:
        """TT-SVD of the best LoRA, its factors scaled alike."""
        r = self.trains["A"][1][1]
        B, A, _ = reduced_rank(f, r)
        balance = np.sqrt(np.linalg.norm(A, axis=1))
        balance[balance == 0] = 1.0
        theta: Theta = {}
        for side, matrix in (("A", A.T / balance), ("B", (B * balance).T)):
            theta |= self.named(side, tt_svd(matrix / math.sqrt(self.scale), self.trains[side][0], self.rank))
        return theta

    def named(self, side: str, cores: Sequence[np.ndarray]) -> Theta:
        """The cores of one side under their names."""
        return {f"{side}{k}": core for k, core in enumerate(cores)}

    def cores(self, theta: Theta, side: str) -> list[np.ndarray]:
        """The cores of one side, in order."""
        return [theta[f"{side}{k}"] for k in range(len(self.trains[side][0]))]

    def factor(self, theta: Theta, side: str) -> np.ndarray:
        """Aᵀ (i, r) or Bᵀ (r, o)."""
        return contract(self.cores(theta, side)).reshape(self.trains[side][1])

    def seen(self, theta: Theta) -> np.ndarray:
        return (self.scale * (self.factor(theta, "A") @ self.factor(theta, "B"))).T

    def gauged(self, theta: Theta, name: str) -> Theta:
        """Cores on the left of the named one with orthonormal columns, those on its right with orthonormal rows."""
        side, at = name[0], int(name[1:])
        cores = self.cores(theta, side)
        for k in range(at):
            a, n, b = cores[k].shape
            Q, R = np.linalg.qr(cores[k].reshape(a * n, b))
            cores[k], cores[k + 1] = Q.reshape(a, n, b), np.tensordot(R, cores[k + 1], axes=1)
        for k in range(len(cores) - 1, at, -1):
            a, n, b = cores[k].shape
            Q, R = np.linalg.qr(cores[k].reshape(a, n * b).T)
            cores[k], cores[k - 1] = Q.T.reshape(a, n, b), np.tensordot(cores[k - 1], R.T, axes=1)
        return {**theta, **self.named(side, cores)}

    def halves(self, theta: Theta) -> Mapping[str, Callable[[], Linear]]:
        return {name: lambda name=name: _Core(self, theta, name) for name in self.halves_in_order}


class _Core(Linear):
    """One core of one train: X = Aᵀ or Bᵀ, flat, is Σ θ[a, n, b]·left[:, a] ⊗ eₙ ⊗ right[b].

    dWᵀ = X·Y for A and Y·X for B, with Y from the other train; so M is that of X in tr(Xᵀ·C·X·YYᵀ) or tr(Xᵀ·YᵀCY·X).
    """

    def __init__(self, model: _Trains, theta: Theta, name: str) -> None:
        at, self.is_A = int(name[1:]), name[0] == "A"
        cores, self.matrix = model.cores(theta, name[0]), model.trains[name[0]][1]
        self.left, self.right = contract(cores[:at])[0], contract(cores[at + 1 :])[:, :, 0]
        self.theta_shape = cores[at].shape
        self.Y = model.scale * model.factor(theta, "B" if self.is_A else "A")
        self.shape = model.trains["B"][1][1], model.trains["A"][1][0]

    def expand(self, cores: np.ndarray) -> np.ndarray:
        """X (k, p, q) of k cores (k, Rₖ₋₁, nₖ, Rₖ)."""
        half = np.tensordot(cores, self.left, axes=(1, 1))  # k, n, b, left
        full = np.tensordot(half, self.right, axes=(2, 0))  # k, n, left, right
        return full.transpose(0, 2, 1, 3).reshape(-1, *self.matrix)

    def gather(self, X: np.ndarray) -> np.ndarray:
        """The adjoint of `expand`."""
        folded = X.reshape(-1, len(self.left), self.theta_shape[1], self.right.shape[1])
        half = np.tensordot(folded, self.left, axes=(1, 0))  # k, n, right, a
        return np.tensordot(half, self.right, axes=(2, 1)).transpose(0, 2, 1, 3)

    def apply(self, theta: np.ndarray) -> np.ndarray:
        X = self.expand(theta[None])[0]
        return (X @ self.Y if self.is_A else self.Y @ X).T

    def adjoint(self, G: np.ndarray) -> np.ndarray:
        return self.gather(G.T @ self.Y.T if self.is_A else self.Y.T @ G.T)[0]

    def gram(self, C: np.ndarray, block: np.ndarray | None = None) -> np.ndarray:
        numbers = np.arange(self.size) if block is None else block
        left, right = (C, self.Y @ self.Y.T) if self.is_A else (self.Y.T @ C @ self.Y, None)
        M = np.empty((len(numbers), len(numbers)))
        p, q = self.matrix
        step = max(1, _CHUNK_BYTES // (8 * p * q))
        for start in range(0, len(numbers), step):
            here = numbers[start : start + step]
            units = np.zeros((len(here), self.size))
            units[np.arange(len(here)), here] = 1.0
            X = self.expand(units.reshape(-1, *self.theta_shape))
            if right is not None:
                X = X @ right
            product = left @ X.transpose(1, 0, 2).reshape(p, -1)
            back = self.gather(product.reshape(p, -1, q).transpose(1, 0, 2))
            M[start : start + step] = back.reshape(len(here), -1)[:, numbers]
        return (M + M.T) / 2
