"""Quadratic: the objective of a layer, as a function of the update alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import InvalidValueError
from .places import module_of

__all__ = ["Projected", "Quadratic", "Sum"]


@dataclass(frozen=True, eq=False)
class Quadratic:
    """f(dW) = tr(dW C dWᵀ) − 2⟨dW, R⟩ + energy.

    Attributes
    ----------
    C : (i, i) array
        Symmetric positive semidefinite: ridge and preserved inputs are included.
    R : (o, i) array
    energy : float
        f(0).

    Examples
    --------
    >>> import numpy as np
    >>> f = Quadratic(np.eye(2), np.ones((3, 2)), 6.0)
    >>> f.value(np.zeros((3, 2))), f.value(np.ones((3, 2)))
    (6.0, 0.0)
    """

    C: np.ndarray
    R: np.ndarray
    energy: float

    @property
    def shape(self) -> tuple[int, int]:
        """(o, i)."""
        o, i = self.R.shape
        return o, i

    def value(self, dW: np.ndarray) -> float:
        """f(dW); 2oi² flops, none for zero."""
        if not dW.any():
            return self.energy
        vdot = module_of(dW).vdot
        return float(vdot(dW, dW @ self.C) - 2 * vdot(dW, self.R)) + self.energy

    def sent(self, to: Callable[[Any], Any]) -> Quadratic:
        """The same with arrays elsewhere, by a function such as cupy.asarray."""
        return Quadratic(to(self.C), to(self.R), self.energy)

    def project(self, A: np.ndarray) -> Quadratic:
        """The objective of L where dW = LA: P = ACAᵀ and Q = RAᵀ take the places of C and R."""
        AC = A @ self.C
        P = AC @ A.T
        return Quadratic((P + P.T) / 2, self.R @ A.T, self.energy)

    def moved(self, dW: np.ndarray) -> Quadratic:
        """The objective of what is added to dW."""
        product = dW @ self.C
        energy = self.energy + float(np.vdot(dW, product) - 2 * np.vdot(dW, self.R))
        return Quadratic(self.C, self.R - product, energy)

    @cached_property
    def is_scalar(self) -> float | None:
        """c if C = c·I, as for a target without inputs; else None."""
        c, xp = float(self.C[0, 0]), module_of(self.C)
        if not bool((self.C.diagonal() == c).all()) or int(xp.count_nonzero(self.C)) != (len(self.C) if c else 0):
            return None
        return c


@dataclass(frozen=True, eq=False)
class Sum:
    """The objectives of several layers added up: a function of the mapping of their updates.

    Attributes
    ----------
    parts : mapping of str to Quadratic

    Examples
    --------
    >>> import numpy as np
    >>> one = Quadratic(np.eye(2), np.ones((3, 2)), 6.0)
    >>> f = Sum({"first": one, "second": one})
    >>> f.energy, f.value({"first": np.ones((3, 2)), "second": np.zeros((3, 2))})
    (12.0, 6.0)
    """

    parts: Mapping[str, Quadratic]

    @cached_property
    def C(self) -> dict[str, np.ndarray]:
        """C of every layer."""
        return {name: part.C for name, part in self.parts.items()}

    @cached_property
    def R(self) -> dict[str, np.ndarray]:
        """R of every layer."""
        return {name: part.R for name, part in self.parts.items()}

    @property
    def energy(self) -> float:
        """f(0)."""
        return sum(part.energy for part in self.parts.values())

    def value(self, updates: Mapping[str, np.ndarray]) -> float:
        """f of all updates, of which one at a time is looked at."""
        return sum(part.value(updates[name]) for name, part in self.parts.items())


@dataclass(frozen=True, eq=False)
class Projected:
    """What thin statistics know: the objective of L where dW = LA, for one A.

    Attributes
    ----------
    A : (r, i) array
    inner : Quadratic
        In L (o, r).
    """

    A: np.ndarray
    inner: Quadratic

    @property
    def shape(self) -> tuple[int, int]:
        """(o, i)."""
        return self.inner.shape[0], self.A.shape[1]

    @property
    def energy(self) -> float:
        """f(0)."""
        return self.inner.energy

    def project(self, A: np.ndarray) -> Quadratic:
        """The objective of L where dW = LA, for the A whose products were kept."""
        if A.shape == self.A.shape and np.array_equal(A, self.A):
            return self.inner
        raise InvalidValueError(
            f"these thin statistics keep the products of one A {self.A.shape} only, and the family needs another, "
            f"{A.shape}; collect LayerStatistics, or thin ones with thin=family.projection(in_features)"
        )
