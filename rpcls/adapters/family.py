"""What a family of adapters is, and what fitting binds it to: a layer, its bases, the linear halves of its θ."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..errors import InvalidValueError
from ..random import Key
from .linear import Linear, UserBasis, check_type

__all__ = [
    "Family",
    "Fitted",
    "Layer",
    "LinearAdapter",
    "Model",
    "SpanningFamily",
    "Theta",
    "one_half",
    "rank_notes",
]

Theta = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Layer:
    """The layer that a family is bound to.

    Attributes
    ----------
    out_features, in_features : int
    weight : (o, i) float64 array or None
        W₀.
    """

    out_features: int
    in_features: int
    weight: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(o, i)."""
        return self.out_features, self.in_features

    def needed_weight(self, family: Any) -> np.ndarray:
        """W₀, which this family cannot do without."""
        if self.weight is None:
            raise InvalidValueError(
                f"{type(family).__name__} is made from the layer's weight; give it: LayerStatistics(…, weight=W0), or "
                "fit(…, weight=W0) when the statistics were collected without"
            )
        return self.weight


@dataclass(frozen=True)
class Fitted:
    """What a family's own fit returns.

    Attributes
    ----------
    theta : dict of arrays
    history : tuple of float
        The objective, falling.
    ranks : mapping of str to (int or None, int)
        Rank and number of unknowns of each half.
    notes : tuple of str
        Sentences on what was degenerate.
    converged : bool
    """

    theta: Theta
    history: tuple[float, ...]
    ranks: Mapping[str, tuple[int | None, int]]
    notes: tuple[str, ...] = ()
    converged: bool = True


class Model(ABC):
    """A family on one layer, or on several that share it: bases made, nothing fitted yet.

    Attributes
    ----------
    halves_in_order : tuple of str
        Names of the parts of θ in the order in which they are solved for: first the one whose partner is not zero at
        the start.
    inner : (r, i) array or None
        The fixed A if dW = LA: then the halves are those of L (o, r).
    goes_to_cards : bool
        Whether `own_fit` and `seen` take arrays on a card.
    """

    halves_in_order: tuple[str, ...]
    inner: np.ndarray | None = None
    goes_to_cards: ClassVar[bool] = False

    def sent(self, to: Callable[[Any], Any]) -> Model:
        """The same with arrays elsewhere, by a function such as cupy.asarray."""
        other = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray):
                setattr(other, name, to(value))
            elif hasattr(value, "sent"):
                setattr(other, name, value.sent(to))
        return other

    @abstractmethod
    def start(self, key: Key) -> Theta:
        """θ to begin with."""

    def start_for(self, f: Any, key: Key) -> Theta:
        """θ to begin with when f is known: a better one, where the family has it."""
        return self.start(key)

    def gauged(self, theta: Theta, name: str) -> Theta:
        """The same dW by another θ, for which the half in `name` is well conditioned."""
        return theta

    @abstractmethod
    def halves(self, theta: Theta) -> Mapping[str, Callable[[], Linear]]:
        """For each name the linear problem in that part of θ, all others fixed; made when it is called."""

    @abstractmethod
    def seen(self, theta: Theta) -> Any:
        """dW (o, i); L (o, r) if dW = LA; a mapping of dW, if several layers share θ."""

    def delta(self, theta: Theta) -> Any:
        """dW (o, i), or a mapping of them."""
        update = self.seen(theta)
        return update if self.inner is None else update @ self.inner

    def low_rank(self, theta: Theta) -> tuple[np.ndarray, np.ndarray]:
        """B (o, r) and A (r, i) with dW = BA, for a family whose dW is such a product."""
        if self.inner is None:
            raise InvalidValueError(f"{type(self).__name__.strip('_')} is no product of two thin matrices")
        return self.seen(theta), self.inner

    def own_fit(self, f: Any, key: Key, max_iterations: int, tol: float) -> Fitted | None:
        """The family's own way to its minimum; None: alternate over the halves."""
        return None


class Family(ABC):
    """A family of adapters: a frozen value that holds its settings and the seed of its bases.

    Attributes
    ----------
    needs_weight : bool
        Whether it is made from the layer's weight W₀.
    """

    needs_weight: ClassVar[bool] = False

    @abstractmethod
    def bind(self, layer: Layer) -> Model:
        """Check the settings against a layer and make the bases."""

    def projection(self, in_features: int, weight: Any = None) -> np.ndarray:
        """The A (r, i) through which this family sees the inputs, for ``LayerStatistics(thin=…)``.

        Parameters
        ----------
        in_features : int
        weight : (o, i) array_like, optional
            W₀, for a family whose A is made from it.

        Raises
        ------
        InvalidValueError
            The family sees the inputs through more than one fixed A.
        """
        raise InvalidValueError(
            f"{type(self).__name__} does not see the inputs through one fixed matrix; collect LayerStatistics"
        )


class SpanningFamily(Family):
    """A family whose parameters several layers share: `fit` takes a mapping from their names to their statistics."""

    @abstractmethod
    def bind_all(self, layers: Mapping[str, Layer]) -> Model:
        """Check the settings against the layers and make the bases; the model's updates are mappings."""

    def bind(self, layer: Layer) -> Model:
        raise InvalidValueError(
            f"the parameters of {type(self).__name__} are shared by several layers; give a mapping of their "
            "statistics: fit({name: LayerStatistics, …}, …)"
        )


class _OneHalf(Model):
    def __init__(self, linear: Linear, inner: np.ndarray | None, name: str) -> None:
        self.linear, self.inner, self.name = linear, inner, name
        self.halves_in_order = (name,)

    def start(self, key: Key) -> Theta:
        return {self.name: np.zeros(self.linear.theta_shape)}

    def halves(self, theta: Theta) -> Mapping[str, Callable[[], Linear]]:
        return {self.name: lambda: self.linear}

    def seen(self, theta: Theta) -> np.ndarray:
        return self.linear.delta(theta[self.name])


@dataclass(frozen=True, eq=False)
class LinearAdapter(Family):
    """dW = W̄ + Σθₖ Gₖ for a user's own basis matrices.

    Parameters
    ----------
    basis : (k, o, i) array_like, or callable
        The Gₖ; or a function of k that makes Gₖ (o, i), the same at every call, so that no more than 256 MiB of them
        exist at once. Draw them from ``rpcls.Key.of(seed).fold(k)`` to have them on every machine.
    size : int, optional
        With a function: how many there are.
    offset : (o, i) array_like, optional
        W̄, 0 by default.

    Examples
    --------
    >>> import numpy as np
    >>> from rpcls.adapters import LayerStatistics, LinearAdapter, fit
    >>> units = LinearAdapter(lambda k: np.eye(6)[k].reshape(2, 3), size=4)
    >>> fit(LayerStatistics.from_delta(np.ones((2, 3))), units, ridge=0).delta()
    array([[1., 1., 1.],
           [1., 0., 0.]])
    """

    basis: Any
    size: int | None = None
    offset: Any = None

    def bind(self, layer: Layer) -> Model:
        return one_half(UserBasis(layer.shape, self.basis, self.size, self.offset))


def one_half(linear: Linear, inner: np.ndarray | None = None, name: str = "theta") -> Model:
    """The model of a family that is linear as it stands; `name` is its factor's."""
    return _OneHalf(linear, inner, name)


def check_family(value: Any) -> None:
    """Raise unless `value` is a Family."""
    check_type(value, Family, "family", "a family such as LoRA(rank=8)")


def rank_notes(ranks: Mapping[str, tuple[int | None, int]]) -> tuple[str, ...]:
    """Sentences on unknowns that the data do not determine."""
    return tuple(
        f"{name}: {size - rank} of {size} unknowns are not determined by these inputs; they have minimum norm."
        for name, (rank, size) in ranks.items()
        if rank is not None and rank < size
    )
