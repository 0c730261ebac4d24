"""The CP tensor of attention updates: its model and its five factors, each by linear least squares over all layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from ..random import Key
from . import systems
from .bases import normal
from .family import Model, Theta
from .lazy import Lazy
from .linear import Linear, Step, quadratic_value
from .lowrank import top_singular
from .quadratic import Sum

__all__ = ["CPModel", "Target"]

_DENSE = 4000  # unknowns of A up to which its system is solved as one
_CG_TOL, _CG_ITERATIONS = 1e-10, 40

Pairs = list[tuple[np.ndarray, np.ndarray]]


class Target(NamedTuple):
    """One matrix: its layer and its kind as rows of C_L and C_M, and whether it is an output matrix."""

    name: str
    layer: int
    matrix: int
    output: bool


class CPModel(Model):
    """dW = s·U·diag(c)·Aᵀ, transposed for an output matrix, with U (H·d/H, r) from C_H and B, and c from C_L and C_M.

    Parameters
    ----------
    targets : list of Target
    sizes : dict of str to int
        Rows of "A", "B", "C_H", "C_L" and "C_M".
    rank : int
    scale : float
    """

    halves_in_order = ("A", "C_L", "C_M", "C_H", "B")

    def __init__(self, targets: list[Target], sizes: dict[str, int], rank: int, scale: float) -> None:
        self.targets, self.sizes, self.rank, self.scale = targets, sizes, rank, scale
        self.modes: dict[str, tuple[Sum, np.ndarray, np.ndarray]] = {}  # of the mean C that a factor meets

    def start(self, key: Key) -> Theta:
        theta = {name: normal(key.fold(n), (size, self.rank)) for n, (name, size) in enumerate(self.sizes.items())}
        return {**theta, "A": np.zeros((self.sizes["A"], self.rank))}

    def start_for(self, f: Sum, key: Key) -> Theta:
        """Leading singular vectors of the unfoldings of R, of which the mode of A is sketched; random beyond them."""
        theta, n = self.start(key), self.sizes
        sketch = normal(key.fold(len(n)), (n["A"], 4 * self.rank + 16))
        T = np.zeros((n["C_L"], n["C_M"], n["C_H"], n["B"], sketch.shape[1]))
        for t in self.targets:
            R = f.R[t.name]
            T[t.layer, t.matrix] = ((R.T if t.output else R) @ sketch).reshape(T.shape[2:])
        for mode, name in enumerate(("C_L", "C_M", "C_H", "B")):
            kept = min(self.rank, n[name])
            theta[name][:, :kept] = top_singular(np.moveaxis(T, mode, 0).reshape(n[name], -1), kept)[0]
        return theta

    def gauged(self, theta: Theta, name: str) -> Theta:
        """Columns of the other factors at norm one."""
        moved = dict(theta)
        for other in theta:
            if other != name:
                norms = np.linalg.norm(theta[other], axis=0)
                norms[norms == 0] = 1.0
                moved[other] = theta[other] / norms
                moved[name] = moved[name] * norms
        return moved

    def halves(self, theta: Theta) -> Mapping[str, Callable[[], Linear]]:
        return {
            "A": lambda: _Side(self, theta, "A"),
            "B": lambda: _Side(self, theta, "B"),
            "C_H": lambda: _Side(self, theta, "C_H"),
            "C_L": lambda: _Scales(self, theta, "C_L"),
            "C_M": lambda: _Scales(self, theta, "C_M"),
        }

    def seen(self, theta: Theta) -> Lazy[np.ndarray]:
        by_name, U = {t.name: t for t in self.targets}, khatri_rao(theta["C_H"], theta["B"])

        def update(name: str) -> np.ndarray:
            t = by_name[name]
            dW = (U * (self.scale * self.weights(theta, t))) @ theta["A"].T
            return dW.T if t.output else dW

        return Lazy(by_name, update)

    def weights(self, theta: Theta, t: Target) -> np.ndarray:
        """c (r,) of a matrix."""
        return theta["C_L"][t.layer] * theta["C_M"][t.matrix]


def khatri_rao(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Row h·n + b is first[h] ⊙ second[b]."""
    return (first[:, None] * second).reshape(-1, first.shape[1])


class _Half(Linear):
    """One factor of the tensor, all others fixed."""

    def __init__(self, model: CPModel, theta: Theta, name: str) -> None:
        self.model, self.theta, self.name = model, theta, name
        self.theta_shape = theta[name].shape
        self.U, self.A = khatri_rao(theta["C_H"], theta["B"]), theta["A"]

    def apply(self, theta: np.ndarray) -> Lazy[np.ndarray]:
        return self.model.seen({**self.theta, self.name: theta})


class _Scales(_Half):
    """C_L or C_M: every row x scales rank-one matrices of its own, dW = s·U·diag(x ⊙ w)·Aᵀ with w from the other."""

    def _row(self, t: Target) -> tuple[int, np.ndarray]:
        """The row that a matrix belongs to, and s·w."""
        if self.name == "C_L":
            return t.layer, self.model.scale * self.theta["C_M"][t.matrix]
        return t.matrix, self.model.scale * self.theta["C_L"][t.layer]

    def adjoint(self, G: Mapping[str, np.ndarray]) -> np.ndarray:
        out = np.zeros(self.theta_shape)
        for t in self.model.targets:
            row, w = self._row(t)
            out[row] += w * np.einsum("ur,ur->r", self.U, (G[t.name].T if t.output else G[t.name]) @ self.A)
        return out

    def grams(self, C: Mapping[str, np.ndarray]) -> np.ndarray:
        """The normal equations of each row, (rows, r, r)."""
        k, r = self.theta_shape
        M = np.zeros((k, r, r))
        for t in self.model.targets:
            row, w = self._row(t)
            left, right = (self.A, self.U) if t.output else (self.U, self.A)
            M[row] += np.multiply.outer(w, w) * (left.T @ left) * (right.T @ C[t.name] @ right)
        return (M + M.transpose(0, 2, 1)) / 2

    def gram(self, C: Mapping[str, np.ndarray], block: np.ndarray | None = None) -> np.ndarray:
        k, r = self.theta_shape
        M = np.zeros((k, r, k, r))
        for row, part in enumerate(self.grams(C)):
            M[row, :, row] = part
        M = M.reshape(k * r, k * r)
        return M if block is None else M[np.ix_(block, block)]

    def blocks(self) -> list[np.ndarray]:
        return list(np.arange(self.size).reshape(self.theta_shape))

    def solve(self, f: Sum, start: np.ndarray | None = None) -> Step:
        M, m = self.grams(f.C), self.adjoint(f.R)
        theta, rank = systems.solve_batch(M, m)
        return Step(theta, f.energy + quadratic_value(M, m, theta), rank)


class _Side(_Half):
    """A, B or C_H: x makes one side V of dW = V·diag(c)·Wᵀ (or its transpose), W being the other side.

    V = x for A; for B and C_H V[(h, b)] = C_H[h] ⊙ B[b]. What V makes of the outputs costs tr(V P Vᵀ) with
    P = Σ diag(c)WᵀCW·diag(c), summed over those matrices; what it makes of the inputs costs Σ tr(Kᵀ Vᵀ C V) with
    K = diag(c)WᵀW·diag(c), for each of these matrices.
    """

    def __init__(self, model: CPModel, theta: Theta, name: str) -> None:
        super().__init__(model, theta, name)
        self.other = self.U if name == "A" else self.A
        self.partner = {"A": np.ones((1, model.rank)), "B": theta["C_H"], "C_H": theta["B"]}[name]

    def on_inputs(self, t: Target) -> bool:
        """Whether V is on the input side of dW."""
        return t.output != (self.name == "A")

    def scaled(self, t: Target) -> np.ndarray:
        """s·W·diag(c)."""
        return self.other * (self.model.scale * self.model.weights(self.theta, t))

    def expand(self, x: np.ndarray) -> np.ndarray:
        """V."""
        return khatri_rao(x, self.partner) if self.name == "C_H" else khatri_rao(self.partner, x)

    def folded(self, V: np.ndarray) -> np.ndarray:
        """V's rows as (partner, unknown, …)."""
        p, n = len(self.partner), self.theta_shape[0]
        if self.name == "C_H":
            return V.reshape(n, p, *V.shape[1:]).swapaxes(0, 1)
        return V.reshape(p, n, *V.shape[1:])

    def gather(self, V: np.ndarray) -> np.ndarray:
        """The adjoint of `expand`."""
        return np.einsum("pr,pnr->nr", self.partner, self.folded(V))

    def adjoint(self, G: Mapping[str, np.ndarray]) -> np.ndarray:
        gradient = np.zeros((len(self.partner) * self.theta_shape[0], self.model.rank))
        for t in self.model.targets:
            gradient += (G[t.name].T if self.on_inputs(t) else G[t.name]) @ self.scaled(t)
        return self.gather(gradient)

    def forms(self, C: Mapping[str, np.ndarray]) -> tuple[np.ndarray, Pairs]:
        """P (r, r), and a pair K, C for every matrix that has V on its input side."""
        P, pairs = np.zeros((self.model.rank, self.model.rank)), []
        for t in self.model.targets:
            W = self.scaled(t)
            if self.on_inputs(t):
                pairs.append((W.T @ W, C[t.name]))
            else:
                P += W.T @ C[t.name] @ W
        return (P + P.T) / 2, pairs

    def gram(self, C: Mapping[str, np.ndarray], block: np.ndarray | None = None) -> np.ndarray:
        M = self._gram(*self.forms(C))
        return M if block is None else M[np.ix_(block, block)]

    def _gram(self, P: np.ndarray, pairs: Pairs) -> np.ndarray:
        (n, r), E = self.theta_shape, self.partner
        M = np.zeros((n, r, n, r))
        M[np.arange(n), :, np.arange(n)] = P * (E.T @ E)
        for K, C in pairs:
            half = np.tensordot(self.folded(C), E, axes=(0, 0)).transpose(1, 0, 2)  # V's rows, n, r
            both = np.tensordot(self.folded(half), E, axes=(0, 0))  # n, n, r, r
            M += K[:, None, :] * both.transpose(1, 2, 0, 3)
        M = M.reshape(n * r, n * r)
        return (M + M.T) / 2

    def blocks(self) -> list[np.ndarray] | None:
        if any(self.on_inputs(t) for t in self.model.targets):
            return None
        return list(np.arange(self.size).reshape(self.theta_shape))

    def solve(self, f: Sum, start: np.ndarray | None = None) -> Step:
        P, pairs = self.forms(f.C)
        m = self.adjoint(f.R)
        if not pairs:  # the same small system for every row
            M = P * (self.partner.T @ self.partner)
            theta, rank = systems.solve(M, m.T)
            return Step(theta.T, f.energy + float(np.vdot(theta, M @ theta - 2 * m.T)), rank * len(m))
        if len(self.partner) > 1 or self.size <= _DENSE:
            M = self._gram(P, pairs)
            theta, rank = systems.solve(M, m.reshape(-1))
            value = f.energy + float(theta @ (M @ theta) - 2 * (theta @ m.reshape(-1)))
            return Step(theta.reshape(m.shape), value, rank)

        def product(x: np.ndarray) -> np.ndarray:
            V = self.expand(x)
            return self.gather(V @ P + sum(C @ (V @ K) for K, C in pairs))

        begin = np.zeros_like(m) if start is None else start
        precondition = self._preconditioner(f, P, pairs)
        theta, _ = systems.conjugate_gradients(
            product, m, precondition, begin, tol=_CG_TOL, max_iterations=_CG_ITERATIONS
        )
        return Step(theta, f.energy + float(np.vdot(theta, product(theta) - 2 * m)), None)

    def _preconditioner(self, f: Sum, P: np.ndarray, pairs: Pairs) -> Callable[[np.ndarray], np.ndarray]:
        """The inverse of I ⊗ P + C̄ ⊗ Σ τK, where C ≈ τC̄: in the eigenvectors of C̄, one small system for each row."""
        from scipy.linalg import eigh

        means = [float(np.trace(C)) / len(C) for _, C in pairs]
        if self.name not in self.model.modes or self.model.modes[self.name][0] is not f:
            mean_C = np.zeros_like(pairs[0][1])
            for mean, (_, C) in zip(means, pairs, strict=True):
                if mean > 0:
                    mean_C += C / mean
            w, Q = eigh(mean_C / len(pairs), check_finite=False, driver="evd")
            self.model.modes[self.name] = f, np.maximum(w, 0.0), Q
        _, w, Q = self.model.modes[self.name]
        mean_K = sum(mean * K for mean, (K, _) in zip(means, pairs, strict=True))
        M = (P + w[:, None, None] * mean_K) * (self.partner.T @ self.partner)
        ridge = 1e-10 * float(np.trace(M, axis1=1, axis2=2).max()) / len(P) or 1.0
        inverses = np.linalg.inv(M + ridge * np.eye(len(P)))
        return lambda x: Q @ np.einsum("nrs,ns->nr", inverses, Q.T @ x)
