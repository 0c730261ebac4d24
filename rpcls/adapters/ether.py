"""ETHER and ETHER+: reflections of the weight, and their relaxed form; descent on spheres."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InvalidValueError
from ..random import Key
from .arrays import count
from .family import Family, Fitted, Layer, Model, Theta
from .linear import Linear
from .quadratic import Quadratic

__all__ = ["ETHER", "ETHERPlus"]

_STEPS = 10  # of the descent, that count as one round


@dataclass(frozen=True)
class ETHER(Family):
    """W = W₀·H with a reflection H = I − 2uuᵀ, or with n of them in the blocks of a block-diagonal H [1]_.

    For C = c·I the unit vectors are those of the least eigenvalues of c·W₀ᵀW₀ + sym(RᵀW₀), block by block: the global
    minimum. For other C that problem, with c the mean of C's diagonal, gives the start of a descent on the spheres
    (L-BFGS), to a local minimum. Every reflection has the same distance from I, so a small update cannot be had:
    `explained` may be negative.

    Parameters
    ----------
    blocks : int, default 1
        n; it divides in_features. The number of parameters is in_features for any n.

    Notes
    -----
    Factors: "u" (n, in_features/n), unit vectors. Cost: 2·o·i² + 9(i/n)³·n flops for the start, and 4n(i² + oi) for
    each step of the descent.

    References
    ----------
    .. [1] M. Bini, K. Roth, Z. Akata, A. Khoreva, "ETHER: efficient finetuning of large-scale models with hyperplane
       reflections", arXiv:2405.20271.

    Examples
    --------
    >>> import numpy as np
    >>> from rpcls.adapters import ETHER, LayerStatistics, fit
    >>> W, u = np.random.default_rng(0).standard_normal((5, 4)), np.array([0.6, 0.0, 0.8, 0.0])
    >>> result = fit(LayerStatistics.from_delta(-2 * np.outer(W @ u, u)), ETHER(), weight=W, ridge=0)
    >>> abs(result.factors["u"]).round(9), round(result.explained, 9)
    (array([[0.6, 0. , 0.8, 0. ]]), 1.0)
    """

    needs_weight = True

    blocks: int = 1

    def __post_init__(self) -> None:
        count(self.blocks, "blocks")

    def bind(self, layer: Layer) -> Model:
        W = layer.needed_weight(self)
        check_blocks(self.blocks, layer.in_features, "in_features")
        return _Reflected(W, Side("u", None, self.blocks, W.shape[1]), None)


@dataclass(frozen=True)
class ETHERPlus(Family):
    """W = H̃·W₀·H with H = I − uuᵀ + vvᵀ, and H̃ likewise, block-diagonal with n blocks [1]_.

    u = v is the identity, so that ETHER+ can stay as near to the weight as the data ask for. The start is the vectors
    that are best alone, eigenvectors as for ETHER, or the identity if that explains more; then a descent on all spheres
    together (L-BFGS), to a local minimum.

    Parameters
    ----------
    blocks : int, default 1
        n; it divides both sides of the layer (in_features only, if not two-sided).
    two_sided : bool, default True
        Whether there is an H̃, as in the paper.

    Notes
    -----
    Factors: "u" and "v" (n, in_features/n), and if two-sided "u_left" and "v_left" (n, out_features/n), unit vectors.
    Cost: ETHER's for the start, for both sides, and about four times ETHER's for each step.

    References
    ----------
    .. [1] M. Bini, K. Roth, Z. Akata, A. Khoreva, "ETHER: efficient finetuning of large-scale models with hyperplane
       reflections", arXiv:2405.20271.

    Examples
    --------
    >>> import numpy as np
    >>> from rpcls.adapters import ETHER, ETHERPlus, LayerStatistics, fit
    >>> rng = np.random.default_rng(0)
    >>> W, T = rng.standard_normal((8, 6)), rng.standard_normal((8, 6))
    >>> s = LayerStatistics.from_delta(T)
    >>> plus = fit(s, ETHERPlus(), weight=W)
    >>> plus.parameters, plus.explained > fit(s, ETHER(), weight=W).explained
    (28, True)
    """

    needs_weight = True

    blocks: int = 1
    two_sided: bool = True

    def __post_init__(self) -> None:
        count(self.blocks, "blocks")

    def bind(self, layer: Layer) -> Model:
        W = layer.needed_weight(self)
        check_blocks(self.blocks, layer.in_features, "in_features")
        left = None
        if self.two_sided:
            check_blocks(self.blocks, layer.out_features, "out_features")
            left = Side("u_left", "v_left", self.blocks, len(W))
        return _Reflected(W, Side("u", "v", self.blocks, W.shape[1]), left)


def check_blocks(blocks: int, size: int, name: str) -> None:
    """Raise unless the blocks divide a side of the layer."""
    if size % blocks:
        raise InvalidValueError(f"blocks must divide {name} = {size}, got {blocks}")


class Side:
    """H = I + V·diag(signs)·Vᵀ whose columns V are unit vectors, each within one of n blocks.

    Parameters
    ----------
    minus : str
        The factor that is subtracted: twice if it is alone.
    plus : str or None
        The factor that is added.
    """

    def __init__(self, minus: str, plus: str | None, blocks: int, size: int) -> None:
        self.names = (minus,) if plus is None else (minus, plus)
        self.shape = blocks, size // blocks
        self.signs = np.full(blocks, -2.0) if plus is None else np.repeat([-1.0, 1.0], blocks)

    def columns(self, theta: Theta) -> np.ndarray:
        """V (size, columns)."""
        n, size = self.shape
        V = np.zeros((len(self.names), n, n, size))
        for k, name in enumerate(self.names):
            V[k, np.arange(n), np.arange(n)] = theta[name]
        return np.ascontiguousarray(V.reshape(-1, n * size).T)

    def gather(self, V: np.ndarray) -> Theta:
        """The entries of V-shaped gradients that belong to the factors."""
        n, size = self.shape
        parts = V.T.reshape(len(self.names), n, n, size)
        return {name: parts[k, np.arange(n), np.arange(n)] for k, name in enumerate(self.names)}

    def start(self, energy: np.ndarray, cross: np.ndarray) -> Theta:
        """Each vector x as the least of s²·xᵀ(energy)x − 2s·xᵀ(cross)x on its own: what f is of s·xxᵀ, if C = c·I."""
        from scipy.linalg import eigh

        (n, size), theta = self.shape, {}
        for name, s in zip(self.names, self.signs[::n], strict=True):
            theta[name] = np.empty(self.shape)
            for j in range(n):
                here = slice(j * size, (j + 1) * size)
                vectors = eigh(energy[here, here] - (2 / s) * cross[here, here], subset_by_index=[0, 0])[1]
                theta[name][j] = vectors[:, 0]
        return theta


class _Reflected(Model):
    halves_in_order = ()

    def __init__(self, weight: np.ndarray, right: Side, left: Side | None) -> None:
        self.weight, self.right, self.left = weight, right, left
        self.sides = [right] if left is None else [right, left]

    def start(self, key: Key) -> Theta:
        return {name: np.eye(1, side.shape[1]).repeat(side.shape[0], 0) for side in self.sides for name in side.names}

    def halves(self, theta: Theta) -> Mapping[str, Callable[[], Linear]]:
        return {}

    def factored(self, theta: Theta) -> tuple[np.ndarray, np.ndarray]:
        """L and K with dW = L·Kᵀ."""
        V, s = self.right.columns(theta), self.right.signs
        L, K = (self.weight @ V) * s, V
        if self.left is None:
            return L, K
        V2, s2 = self.left.columns(theta), self.left.signs
        Y = self.weight.T @ V2
        return np.hstack([L, V2 * s2]), np.hstack([K, Y + V @ (s[:, None] * (V.T @ Y))])

    def seen(self, theta: Theta) -> np.ndarray:
        L, K = self.factored(theta)
        return L @ K.T

    def value_and_gradient(self, f: Quadratic, theta: Theta) -> tuple[float, Theta]:
        """f(dW) and its derivative in all vectors, from products with thin matrices only."""
        L, K = self.factored(theta)
        CK, RK, LL = f.C @ K, f.R @ K, L.T @ L
        KCK = K.T @ CK
        value = f.energy + float(np.vdot(LL, KCK) - 2 * np.vdot(L, RK))
        in_L, in_K = 2 * (L @ KCK - RK), 2 * (CK @ LL - f.R.T @ L)
        V, s = self.right.columns(theta), self.right.signs
        k = V.shape[1]
        in_V = in_K[:, :k] + self.weight.T @ (in_L[:, :k] * s)
        if self.left is None:
            return value, self.right.gather(in_V)
        V2, s2 = self.left.columns(theta), self.left.signs
        Y, P = self.weight.T @ V2, in_K[:, k:]
        in_V += P @ (Y.T @ V * s) + Y @ (P.T @ V * s)
        in_Y = P + V @ (s[:, None] * (V.T @ P))
        return value, self.right.gather(in_V) | self.left.gather(in_L[:, k:] * s2 + self.weight @ in_Y)

    def starts(self, f: Quadratic) -> list[Theta]:
        """Eigenvectors, and the identity made of them if there is one."""
        c, product = float(np.trace(f.C)) / len(f.C), f.R.T @ self.weight
        theta = self.right.start(c * (self.weight.T @ self.weight), (product + product.T) / 2)
        if self.left is not None:
            product, energy = f.R @ self.weight.T, self.weight @ f.C @ self.weight.T
            theta |= self.left.start((energy + energy.T) / 2, (product + product.T) / 2)
        still = {name: theta[side.names[0]] for side in self.sides for name in side.names}
        return [theta, still] if len(self.right.names) == 2 else [theta]

    def own_fit(self, f: Quadratic, key: Key, max_iterations: int, tol: float) -> Fitted:
        values = [(self.value_and_gradient(f, theta)[0], theta) for theta in self.starts(f)]
        value, theta = min(values, key=lambda pair: pair[0])
        history, converged = [value], True
        if f.is_scalar is None or len(values) > 1:
            theta, converged = self._descend(f, theta, history, _STEPS * max_iterations, tol)
        unknowns: dict[str, tuple[int | None, int]] = {name: (None, part.size) for name, part in theta.items()}
        return Fitted(theta, tuple(history), unknowns, (), converged)

    def _descend(self, f: Quadratic, theta: Theta, history: list[float], most: int, tol: float) -> tuple[Theta, bool]:
        """L-BFGS in vectors of any length, of which the directions count: no step leaves the spheres."""
        from scipy.optimize import minimize

        names, unit = list(theta), f.energy or 1.0

        def unpacked(x: np.ndarray) -> tuple[Theta, dict[str, np.ndarray]]:
            cuts = np.cumsum([theta[name].size for name in names])[:-1]
            parts = {n: p.reshape(theta[n].shape) for n, p in zip(names, np.split(x, cuts), strict=True)}
            lengths = {n: np.linalg.norm(p, axis=1, keepdims=True) for n, p in parts.items()}
            return {n: p / lengths[n] for n, p in parts.items()}, lengths

        def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
            vectors, lengths = unpacked(x)
            value, gradient = self.value_and_gradient(f, vectors)
            tangent = [
                (g - (g * v).sum(axis=1, keepdims=True) * v) / lengths[n]
                for n, g, v in ((n, gradient[n], vectors[n]) for n in names)
            ]
            return value / unit, np.concatenate([t.reshape(-1) for t in tangent]) / unit

        def note(intermediate_result: Any) -> None:
            history.append(min(float(intermediate_result.fun) * unit, history[-1]))

        x = np.concatenate([theta[name].reshape(-1) for name in names])
        limits = {"maxiter": most, "maxfun": 2 * most + 20, "ftol": tol / _STEPS, "gtol": 1e-12}
        found = minimize(objective, x, jac=True, method="L-BFGS-B", callback=note, options=limits)
        return unpacked(found.x)[0], found.status != 1
