"""Linear families: dW = W̄ + Σθₖ Gₖ, by four operations, and the adapter for a user's own bases.

The normal equations of f are M_kl = tr(Gₖ C Gₗᵀ) and m_k = ⟨Gₖ, R − W̄C⟩. A family gives `apply` (θ to dW), `adjoint`
(⟨Gₖ, G⟩ for all k), `gram` (M) and `blocks` (what separates); column k of the design, (I ⊗ X)vec(Gₖᵀ), is never formed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import InvalidTypeError, InvalidValueError
from . import systems
from .arrays import count, matrix, plain, wide
from .places import module_of
from .quadratic import Quadratic

__all__ = ["Linear", "RankOne", "RowScale", "RowWise", "Step", "UserBasis"]


class Step(NamedTuple):
    """The minimiser of f over one linear half.

    Attributes
    ----------
    theta : array
        Of the half's shape.
    value : float
        f there.
    rank : int or None
        Of the normal equations; None when an iteration solved them.
    """

    theta: np.ndarray
    value: float
    rank: int | None


class Linear(ABC):
    """dW = W̄ + Σθₖ Gₖ for a θ of shape `theta_shape`, in C order where a vector is meant.

    If several layers share θ, then dW, G, C and R are mappings from a layer's name to its matrix, and inner products
    and normal equations are summed over the layers: `solve` is the same, with a `Sum` for f.

    Attributes
    ----------
    shape : (o, i)
        Of dW, if one layer has it.
    theta_shape : tuple of int
    """

    shape: tuple[int, int]
    theta_shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of unknowns."""
        return int(np.prod(self.theta_shape))

    @abstractmethod
    def apply(self, theta: np.ndarray) -> Any:
        """Σθₖ Gₖ, (o, i), without W̄."""

    @abstractmethod
    def adjoint(self, G: Any) -> np.ndarray:
        """⟨Gₖ, G⟩ for every k, in θ's shape."""

    def gram(self, C: Any, block: np.ndarray | None = None) -> np.ndarray:
        """M_kl = tr(Gₖ C Gₗᵀ) for k and l in `block` (flat numbers of unknowns; None: all).

        This default applies one basis matrix at a time: right for every family, and slow.
        """
        numbers = np.arange(self.size) if block is None else block
        M = np.empty((len(numbers), len(numbers)))
        for row, k in enumerate(numbers):
            unit = np.zeros(self.size)
            unit[k] = 1.0
            M[row] = self.adjoint(self.apply(unit.reshape(self.theta_shape)) @ C).reshape(-1)[numbers]
        return (M + M.T) / 2

    def blocks(self) -> Sequence[np.ndarray] | None:
        """Flat numbers of the unknowns that separate from all others, whatever C is; None if nothing separates."""
        return None

    @property
    def offset(self) -> np.ndarray | None:
        """W̄ (o, i), or None."""
        return None

    def delta(self, theta: np.ndarray) -> Any:
        """W̄ + Σθₖ Gₖ."""
        dW = self.apply(theta)
        return dW if self.offset is None else dW + self.offset

    def solve(self, f: Any, start: np.ndarray | None = None) -> Step:
        """The θ that minimises f(W̄ + Σθₖ Gₖ): of minimum norm where f does not determine it.

        Parameters
        ----------
        f : Quadratic or Sum
        start : array of θ's shape, optional
            Where an iterative method begins.
        """
        if self.offset is not None:
            f = f.moved(self.offset)
        rhs = self.adjoint(f.R).reshape(-1)
        blocks = self.blocks()
        theta, rank, value = np.zeros(self.size), 0, f.energy
        for block in [np.arange(self.size)] if blocks is None else blocks:
            M = self.gram(f.C, None if blocks is None else block)
            solved = systems.solve(M, rhs[block])
            theta[block] = x = solved.x
            rank += solved.rank
            value += float(x @ (M @ x) - 2 * (x @ rhs[block]))
        return Step(theta.reshape(self.theta_shape), value, rank)


class RankOne(Linear):
    """Gₚ = s·bₚaₚᵀ, the columns of B and the rows of A: dW = s·B·diag(θ)·A, and M = s²(BᵀB) ⊙ (ACAᵀ).

    Parameters
    ----------
    B : (o, k) array
    A : (k, i) array or None
        None: the identity.
    theta_shape : tuple of int, optional
        Another shape for the k unknowns.
    offset : (o, i) array, optional
        W̄.
    """

    def __init__(
        self,
        B: np.ndarray,
        A: np.ndarray | None,
        scale: float = 1.0,
        theta_shape: tuple[int, ...] | None = None,
        offset: np.ndarray | None = None,
    ) -> None:
        self.B, self.A, self.scale, self._offset = B, A, scale, offset
        k = B.shape[1]
        self.shape = B.shape[0], k if A is None else A.shape[1]
        self.theta_shape = (k,) if theta_shape is None else theta_shape

    @property
    def offset(self) -> np.ndarray | None:
        return self._offset

    def apply(self, theta: np.ndarray) -> np.ndarray:
        scaled = self.B * (self.scale * theta.reshape(-1))
        return scaled if self.A is None else scaled @ self.A

    def adjoint(self, G: np.ndarray) -> np.ndarray:
        product = self.B * G if self.A is None else ((self.B.T @ G) * self.A).T
        return self.scale * product.sum(axis=0).reshape(self.theta_shape)

    def gram(self, C: np.ndarray, block: np.ndarray | None = None) -> np.ndarray:
        B, A = self.B, self.A
        if block is not None:
            B, A = B[:, block], A if A is None else A[block]
            C = C[np.ix_(block, block)] if A is None else C
        M = B.T @ B
        M *= C if A is None else A @ C @ A.T
        M *= self.scale**2
        return (M + M.T) / 2


class RowScale(Linear):
    """dW = diag(θ)·T for T (o, i): every row a number of its own."""

    def __init__(self, T: np.ndarray, offset: np.ndarray | None = None) -> None:
        self.T, self._offset = T, offset
        self.shape, self.theta_shape = T.shape, (len(T),)

    @property
    def offset(self) -> np.ndarray | None:
        return self._offset

    def apply(self, theta: np.ndarray) -> np.ndarray:
        return theta[:, None] * self.T

    def adjoint(self, G: np.ndarray) -> np.ndarray:
        return module_of(G).einsum("oi,oi->o", self.T, G)

    def diagonal(self, C: np.ndarray) -> np.ndarray:
        """T_q C T_qᵀ for every row."""
        return module_of(C).einsum("oi,oi->o", self.T @ C, self.T)

    def gram(self, C: np.ndarray, block: np.ndarray | None = None) -> np.ndarray:
        M = self.diagonal(C)
        return np.diag(M if block is None else M[block])

    def blocks(self) -> Sequence[np.ndarray]:
        return list(np.arange(self.size)[:, None])

    def solve(self, f: Quadratic, start: np.ndarray | None = None) -> Step:
        if self._offset is not None:
            f = f.moved(self._offset)
        M, rhs = self.diagonal(f.C), self.adjoint(f.R)
        theta, rank = systems.solve_diagonal(M, rhs)
        return Step(theta, f.energy + float(theta @ (M * theta - 2 * rhs)), rank)


class RowWise(Linear):
    """Every row of dW on its own: dW[q] = θ[q]·T_q with T_q (k, i); θ is (o, k).

    Parameters
    ----------
    shape : (o, i)
    k : int
        Unknowns in a row.
    rows : callable
        ``rows(start, stop)`` gives T_q for q in start … stop, as (stop − start, k, i).
    block_bytes : int
        Of T at a time.
    """

    def __init__(
        self, shape: tuple[int, int], k: int, rows: Callable[[int, int], np.ndarray], block_bytes: int = 64 << 20
    ) -> None:
        self.shape, self.theta_shape = shape, (shape[0], k)
        self.rows = rows
        self._step = max(1, block_bytes // (8 * max(1, k * shape[1])))

    def _pieces(self) -> Sequence[tuple[slice, np.ndarray]]:
        o = self.shape[0]
        cuts = [(start, min(o, start + self._step)) for start in range(0, o, self._step)]
        return _Lazy(cuts, self.rows)

    def apply(self, theta: np.ndarray) -> np.ndarray:
        dW = np.empty(self.shape)
        for here, T in self._pieces():
            dW[here] = np.matmul(theta[here][:, None, :], T)[:, 0]
        return dW

    def adjoint(self, G: np.ndarray) -> np.ndarray:
        out = np.empty(self.theta_shape)
        for here, T in self._pieces():
            out[here] = np.matmul(T, G[here][:, :, None])[:, :, 0]
        return out

    def gram(self, C: np.ndarray, block: np.ndarray | None = None) -> np.ndarray:
        o, k = self.theta_shape
        M = np.zeros((o, k, o, k))
        for q, here in enumerate(self.grams(C)):
            M[q, :, q, :] = here
        M = M.reshape(o * k, o * k)
        return M if block is None else M[np.ix_(block, block)]

    def grams(self, C: np.ndarray) -> np.ndarray:
        """T_q C T_qᵀ for every row, (o, k, k)."""
        o, k = self.theta_shape
        out = np.empty((o, k, k))
        for here, T in self._pieces():
            TC = (T.reshape(-1, T.shape[2]) @ C).reshape(T.shape)
            out[here] = np.matmul(TC, T.transpose(0, 2, 1))
        return (out + out.transpose(0, 2, 1)) / 2

    def blocks(self) -> Sequence[np.ndarray]:
        return list(np.arange(self.size).reshape(self.theta_shape))

    def solve(self, f: Quadratic, start: np.ndarray | None = None) -> Step:
        rhs, M = self.adjoint(f.R), self.grams(f.C)
        theta, rank = systems.solve_batch(M, rhs)
        return Step(theta, f.energy + quadratic_value(M, rhs, theta), rank)


class _Lazy(Sequence[tuple[slice, np.ndarray]]):
    def __init__(self, cuts: list[tuple[int, int]], rows: Callable[[int, int], np.ndarray]) -> None:
        self._cuts, self._rows = cuts, rows

    def __len__(self) -> int:
        return len(self._cuts)

    def __getitem__(self, index: Any) -> Any:
        start, stop = self._cuts[index]
        return slice(start, stop), self._rows(start, stop)


def quadratic_value(M: np.ndarray, m: np.ndarray, x: np.ndarray) -> float:
    """Σ xᵀMx − 2xᵀm over a stack of systems."""
    return float(np.vdot(np.einsum("bij,bj->bi", M, x), x) - 2 * np.vdot(m, x))


class UserBasis(Linear):
    """A user's own bases, given as arrays or made one at a time.

    Parameters
    ----------
    shape : (o, i)
    basis : (k, o, i) array_like, or callable
        A callable gives Gₖ (o, i) for k = 0, 1, …, the same at every call; no two are kept at once, beyond
        `block_bytes` of them.
    size : int, optional
        The number of Gₖ, for a callable.
    offset : (o, i) array_like, optional
        W̄.
    """

    _BLOCK_BYTES = 256 << 20

    def __init__(self, shape: tuple[int, int], basis: Any, size: int | None = None, offset: Any = None) -> None:
        self.shape = shape
        if callable(basis):
            if size is None:
                raise InvalidValueError("a basis that is a function of k needs size, the number of basis matrices")
            self.theta_shape = (count(size, "size"),)
            self._make: Callable[[int], np.ndarray] | None = lambda k: matrix(
                basis(k), f"basis({k})", shape, "(out_features, in_features)"
            )
        else:
            array = plain(basis, "basis")
            if array.ndim != 3 or array.shape[1:] != shape:
                raise InvalidValueError(f"basis must have shape (k, {shape[0]}, {shape[1]}), got {array.shape}")
            if size is not None and size != len(array):
                raise InvalidValueError(f"size must be None or {len(array)}, the length of basis, got {size}")
            self._array, self._make = wide(array), None
            self.theta_shape = (len(array),)
        given = None if offset is None else matrix(offset, "offset", shape, "(out_features, in_features)")
        self._offset = given

    @property
    def offset(self) -> np.ndarray | None:
        return self._offset

    def _parts(self) -> list[tuple[int, int]]:
        step = max(1, self._BLOCK_BYTES // (8 * self.shape[0] * self.shape[1]))
        return [(a, min(self.size, a + step)) for a in range(0, self.size, step)]

    def _flat(self, start: int, stop: int) -> np.ndarray:
        """G_start … G_stop as rows (·, o·i)."""
        if self._make is None:
            return self._array[start:stop].reshape(stop - start, -1)
        return np.stack([self._make(k).reshape(-1) for k in range(start, stop)])

    def apply(self, theta: np.ndarray) -> np.ndarray:
        dW = np.zeros(self.shape[0] * self.shape[1])
        for a, b in self._parts():
            dW += theta[a:b] @ self._flat(a, b)
        return dW.reshape(self.shape)

    def adjoint(self, G: np.ndarray) -> np.ndarray:
        return np.concatenate([self._flat(a, b) @ G.reshape(-1) for a, b in self._parts()])

    def gram(self, C: np.ndarray, block: np.ndarray | None = None) -> np.ndarray:
        """Every pair of parts is made once: k²·o·i + k·o·i² flops, times two."""
        o, i = self.shape
        M = np.empty((self.size, self.size))
        for a, b in self._parts():
            GC = (self._flat(a, b).reshape(-1, i) @ C).reshape(b - a, o * i)
            for c, d in self._parts():
                if c <= a:
                    M[a:b, c:d] = GC @ self._flat(c, d).T
                    M[c:d, a:b] = M[a:b, c:d].T
        M = (M + M.T) / 2
        return M if block is None else M[np.ix_(block, block)]


def check_type(value: Any, kind: type, name: str, example: str) -> None:
    """Raise unless `value` is of `kind`."""
    if not isinstance(value, kind):
        hint = f"; make a value of it: {value.__name__}(…)" if isinstance(value, type) else ""
        raise InvalidTypeError(f"{name} must be {example}, got {value!r}{hint}")
