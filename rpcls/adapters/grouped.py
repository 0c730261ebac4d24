"""Linear halves whose unknowns fall into many small groups that never meet: one small system for each."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from . import systems
from .linear import Linear, Step, quadratic_value
from .quadratic import Quadratic

__all__ = ["Grouped", "Masked"]

_BATCH_BYTES = 64 << 20

Entries = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Grouped(Linear):
    """Unknowns in groups: M_kl = 0 for k and l of different ones, whatever C is.

    Parameters
    ----------
    shape : (o, i)
    groups : (k,) int array
        The group of each unknown.
    """

    def __init__(self, shape: tuple[int, int], groups: np.ndarray) -> None:
        self.shape, self.theta_shape, self._groups = shape, groups.shape, groups
        self._order = np.argsort(groups, kind="stable")
        self._sizes = np.unique(groups, return_counts=True)[1]
        self._starts = np.cumsum(self._sizes) - self._sizes

    @abstractmethod
    def entries(self, C: np.ndarray) -> Entries:
        """The function that gives M_kl for two arrays of unknowns of one group, which broadcast."""

    def gram(self, C: np.ndarray, block: np.ndarray | None = None) -> np.ndarray:
        k = np.arange(self.size) if block is None else block
        together = self._groups[k][:, None] == self._groups[k]
        return np.where(together, self.entries(C)(k[:, None], k), 0.0)

    def blocks(self) -> Sequence[np.ndarray]:
        return np.split(self._order, self._starts[1:])

    def batches(self) -> Iterator[np.ndarray]:
        """The unknowns of groups of one size, (groups, size)."""
        for size in np.unique(self._sizes):
            starts = self._starts[self._sizes == size]
            step = max(1, _BATCH_BYTES // (8 * int(size) ** 2))
            for first in range(0, len(starts), step):
                yield self._order[starts[first : first + step][:, None] + np.arange(size)]

    def solve(self, f: Quadratic, start: np.ndarray | None = None) -> Step:
        rhs, entries = self.adjoint(f.R), self.entries(f.C)
        theta, rank, value = np.zeros(self.size), 0, f.energy
        for k in self.batches():
            M, m = entries(k[:, :, None], k[:, None, :]), rhs[k]
            solved = systems.solve_batch(M, m)
            theta[k] = solved.x
            rank += solved.rank
            value += quadratic_value(M, m, solved.x)
        return Step(theta, value, rank)


class Masked(Grouped):
    """The entries of dW at given positions, all others zero: θ_q = C[S_q, S_q]⁻¹R[q, S_q] for each row q.

    Parameters
    ----------
    shape : (o, i)
    positions : (k,) int array
        Different ones: q·i + c for row q and column c.
    """

    def __init__(self, shape: tuple[int, int], positions: np.ndarray) -> None:
        rows, self.columns = np.divmod(positions, shape[1])
        super().__init__(shape, rows)
        self.positions = positions

    def apply(self, theta: np.ndarray) -> np.ndarray:
        dW = np.zeros(self.shape[0] * self.shape[1])
        dW[self.positions] = theta
        return dW.reshape(self.shape)

    def adjoint(self, G: np.ndarray) -> np.ndarray:
        return G.reshape(-1)[self.positions]

    def entries(self, C: np.ndarray) -> Entries:
        return lambda k, l: C[self.columns[k], self.columns[l]]  # noqa: E741
