"""fit: the coefficients of a family that minimise a layer's objective."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..errors import ConvergenceWarning, InvalidTypeError, InvalidValueError, warn
from ..random import Key, RandomLike
from .arrays import count, matrix, number
from .family import Family, Fitted, Layer, Model, SpanningFamily, check_family, rank_notes
from .quadratic import Projected, Quadratic, Sum
from .statistics import LayerStatistics

__all__ = ["FitResult", "fit"]


@dataclass(frozen=True, eq=False, repr=False)
class FitResult:
    """A fitted adapter.

    Attributes
    ----------
    family : Family
    factors : dict of str to array
        The fitted parts of θ, float64. Those of a multilinear family are never unique (scales move between them):
        compare `delta()`.
    explained : float
        1 − ‖XdWᵀ − Z‖²/‖Z‖² on the tokens of the fit, without the ridge; of several layers, with the sums of both.
        Held-out tokens tell the truth: ``held_out.explained(result.delta())``.
    history : tuple of float
        The objective, ridge included, at the start and after every half-step; it never rises.
    identifiable : mapping of str to (int or None, int)
        For each part of θ the rank of its last normal equations, and its unknowns; equal: determined by the data (the
        ridge is part of the data). None: an iteration solved them, and no rank was computed.
    notes : tuple of str
        What was degenerate, in sentences.
    parameters : int
        Numbers to train or to store.
    bytes : int
        Of the parameters in float32; bases come from a seed.
    converged : bool
        Whether the last round changed the objective by less than `tol`.
    layer : Layer, or mapping of str to Layer
        What was fitted.

    Examples
    --------
    >>> import numpy as np
    >>> from rpcls.adapters import LayerStatistics, LoRA, fit
    >>> rng = np.random.default_rng(0)
    >>> result = fit(LayerStatistics.from_delta(rng.standard_normal((6, 4))), LoRA(rank=4), ridge=0)
    >>> result.parameters, result.bytes, round(result.explained, 12)
    (40, 160, 1.0)
    """

    family: Family
    factors: dict[str, np.ndarray]
    explained: float
    history: tuple[float, ...]
    identifiable: Mapping[str, tuple[int | None, int]]
    notes: tuple[str, ...]
    parameters: int
    bytes: int
    converged: bool
    layer: Any
    _model: Model | None = field(repr=False)

    @property
    def shape(self) -> tuple[int, int]:
        """(out_features, in_features) of the one layer that was fitted."""
        if isinstance(self.layer, Layer):
            return self.layer.shape
        raise InvalidValueError(f"this is the fit of {len(self.layer)} layers, and each has a shape: layer[name].shape")

    def delta(self, name: str | None = None) -> np.ndarray:
        """dW (out_features, in_features), float64: add it to the weight.

        Parameters
        ----------
        name : str, optional
            Which layer's, if the fit was of several.

        Raises
        ------
        InvalidValueError
            No layer of this name.
        """
        if isinstance(self.layer, Layer):
            if name is not None:
                raise InvalidValueError(f"name must be None: this is the fit of one layer; got {name!r}")
            return self.model().delta(self.factors)
        if name not in self.layer:
            raise InvalidValueError(f"name must be one of the fitted layers, {_listed(self.layer)}; got {name!r}")
        return self.model().delta(self.factors)[name]

    def model(self) -> Model:
        """The family bound to what it was fitted to, with its bases; made again unless it was kept."""
        if self._model is not None:
            return self._model
        if isinstance(self.layer, Layer):
            return self.family.bind(self.layer)
        assert isinstance(self.family, SpanningFamily)
        return self.family.bind_all(self.layer)

    def __repr__(self) -> str:
        layer = self.layer
        what = f"{layer.out_features} × {layer.in_features}" if isinstance(layer, Layer) else f"{len(layer)} layers"
        return (
            f"FitResult({self.family!r}, {what}, explained={self.explained:.4g}, parameters={self.parameters}, "
            f"half-steps={len(self.history) - 1}, converged={self.converged})"
        )


def fit(
    statistics: LayerStatistics | Mapping[str, LayerStatistics],
    family: Family,
    *,
    ridge: float = 0.01,
    preserve: Any = None,
    weight: Any = None,
    max_iterations: int = 20,
    tol: float = 1e-4,
    rng: RandomLike = 0,
) -> FitResult:
    """Fit a family to a layer: minimise ‖XdWᵀ − Z‖² + ridge·mean(diag C)·‖dW‖² over dW in the family.

    Parameters
    ----------
    statistics : LayerStatistics, or mapping of str to LayerStatistics
        A mapping, from layers' names to their statistics, for families that span layers: then the sum of the layers'
        objectives is minimised.
    family : Family
        Such as ``LoRA(rank=8)``.
    ridge : float, default 0.01
        The same for every family, so that they compare; relative to each layer's own C. 0 is least squares; unknowns
        that the inputs do not determine then have minimum norm.
    preserve : (i, i) array_like or LayerStatistics, optional
        C₀ of inputs whose outputs should stay, times the weight it should have. With a mapping of statistics, a mapping
        from some of the names.
    weight : (o, i) array_like, optional
        W₀ for families that are made from it, when the statistics do not have it. With a mapping of statistics, a
        mapping from some of the names.
    max_iterations : int, default 20
        Rounds over all halves, for families that are not linear as they stand.
    tol : float, default 1e-4
        Stop when a round lowers the objective by less than `tol` of ‖Z‖².
    rng : int, SeedSequence, Generator, Key or None, default 0
        For random starts. The bases come from the family's own seed.

    Returns
    -------
    FitResult

    Raises
    ------
    InvalidValueError, InvalidTypeError, NonFiniteError
        Arguments that do not fit.

    Warns
    -----
    ConvergenceWarning
        `max_iterations` rounds were not enough; the result is the best so far.

    Notes
    -----
    One alternating loop serves every multilinear family: each half-step is a linear least-squares problem, solved
    from C and R, so the objective never rises. (`RandLoRA`, `NOLA` and `VeRA`
    with many unknowns move both parts at once, and are solved for one of them after some steps.)

    Examples
    --------
    >>> import numpy as np
    >>> from rpcls.adapters import LayerStatistics, SpaRTA, fit
    >>> rng = np.random.default_rng(0)
    >>> X, T = rng.standard_normal((200, 30)), rng.standard_normal((20, 30))
    >>> s = LayerStatistics(30, 20).update(X, X @ T.T)
    >>> result = fit(s, SpaRTA(density=0.5, seed=1))
    >>> result.parameters, result.explained > 0.4
    (300, True)
    """
    check_family(family)
    most, goal, key = count(max_iterations, "max_iterations"), number(tol, "tol"), Key.of(rng)
    if isinstance(statistics, Mapping):
        if not isinstance(family, SpanningFamily):
            raise InvalidValueError(
                f"{type(family).__name__} fits one layer at a time, and statistics is a mapping of {len(statistics)}; "
                "call fit for each, or take a family whose parameters several layers share, such as LoRTA"
            )
        _check_mapping(statistics)
        preserve, weight = _by_name(preserve, "preserve", statistics), _by_name(weight, "weight", statistics)
        layer = {name: _layer(s, weight.get(name)) for name, s in statistics.items()}
        model = family.bind_all(layer)
    elif isinstance(statistics, LayerStatistics):
        layer = _layer(statistics, weight)
        model = family.bind(layer)
    else:
        raise InvalidTypeError(
            f"statistics must be LayerStatistics or a mapping of them, got {type(statistics).__name__}"
        )
    f = _objective(model, statistics, ridge, preserve)
    done, value = _minimised(model, statistics, f, key, most, goal)
    if not done.converged:
        warn(
            f"{most} rounds of {type(family).__name__} were not enough for tol = {goal:g}; the result is the best so "
            "far. Raise max_iterations or tol.",
            ConvergenceWarning,
        )
    parameters = sum(v.size for v in done.theta.values() if v.dtype.kind == "f")
    return FitResult(
        family=family,
        factors=done.theta,
        explained=1.0 - value / f.energy if f.energy > 0 else 0.0,
        history=done.history,
        identifiable=dict(done.ranks),
        notes=done.notes,
        parameters=parameters,
        bytes=4 * parameters,
        converged=done.converged,
        layer=layer,
        _model=model,
    )


def _listed(names: Mapping[str, Any]) -> str:
    shown = [repr(name) for name in list(names)[:8]]
    return ", ".join(shown) + (f" … ({len(names)} in all)" if len(names) > 8 else "")


def _check_mapping(statistics: Mapping[Any, Any]) -> None:
    if not statistics:
        raise InvalidValueError("statistics must have at least one layer, got an empty mapping")
    for name, value in statistics.items():
        if not isinstance(name, str) or not isinstance(value, LayerStatistics):
            raise InvalidTypeError(
                f"statistics must map names to LayerStatistics, got {type(value).__name__} under {name!r}"
            )


def _by_name(value: Any, argument: str, statistics: Mapping[str, Any]) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidTypeError(f"{argument} must be a mapping as statistics is, got {type(value).__name__}")
    for name in value:
        if name not in statistics:
            raise InvalidValueError(f"{argument} has {name!r}, which is no layer of statistics: {_listed(statistics)}")
    return value


def _layer(statistics: LayerStatistics, weight: Any) -> Layer:
    o, i = statistics.out_features, statistics.in_features
    if weight is None:
        return Layer(o, i, statistics.weight)
    if statistics.weight is not None:
        raise InvalidValueError("weight must be None: the statistics have one already")
    return Layer(o, i, matrix(weight, "weight", (o, i), "(out_features, in_features)"))


def _objective(
    model: Model, statistics: LayerStatistics | Mapping[str, LayerStatistics], ridge: float = 0.0, preserve: Any = None
) -> Quadratic | Sum:
    """In the model's own coordinates: of L where dW = LA, if its A is fixed."""
    if isinstance(statistics, Mapping):
        kept = preserve or {}
        return Sum({name: _whole(s.objective(ridge, kept.get(name))) for name, s in statistics.items()})
    f = statistics.objective(ridge, preserve)
    return _whole(f) if model.inner is None else f.project(model.inner)


def _whole(f: Quadratic | Projected) -> Quadratic:
    if isinstance(f, Projected):
        raise InvalidValueError("this family needs all of C and R, and thin statistics keep P and Q only")
    return f


def _minimised(
    model: Model, statistics: Any, f: Any, key: Key, max_iterations: int, tol: float
) -> tuple[Fitted, float]:
    """The fit of f, and the objective without ridge there; on the card of the statistics, if the model goes there."""
    if model.goes_to_cards and statistics.card is not None:
        from ..kernels.cuda.device import on_number

        with on_number(statistics.card) as xp:
            there = model.sent(xp.asarray)
            done = there.own_fit(f.sent(xp.asarray), key, max_iterations, tol)
            if done is not None:
                plain: Any = _objective(model, statistics)
                value = plain.sent(xp.asarray).value(there.seen(done.theta))
                return replace(done, theta={name: xp.asnumpy(part) for name, part in done.theta.items()}), value
    done = model.own_fit(f, key, max_iterations, tol) or _alternate(model, f, key, max_iterations, tol)
    return done, _objective(model, statistics).value(model.seen(done.theta))


def _alternate(model: Model, f: Quadratic | Sum, key: Key, max_iterations: int, tol: float) -> Fitted:
    """Solve for one part of θ after the other until a round gains little."""
    theta = model.start_for(f, key)
    names = model.halves_in_order
    history: list[float] = [f.value(model.seen(theta))]
    ranks: dict[str, tuple[int | None, int]] = {}
    converged = False
    for _ in range(max_iterations):
        before = history[-1]
        for name in names:
            theta = model.gauged(theta, name)
            half = model.halves(theta)[name]()
            step = half.solve(f, theta[name])
            if step.value <= history[-1]:  # else rounding: the last θ was as good
                theta = {**theta, name: step.theta}
                history.append(step.value)
            else:
                history.append(history[-1])
            ranks[name] = step.rank, half.size
        if len(names) == 1 or before - history[-1] <= tol * max(f.energy, 0.0):
            converged = True
            break
    return Fitted(theta, tuple(history), ranks, rank_notes(ranks), converged)
