"""fit_model: every layer of a model, one after the other."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import ConvergenceWarning, InvalidTypeError, InvalidValueError, RpclsError, warn
from ..progress import Progress
from ..random import Key, RandomLike
from .family import Family, Layer, check_family
from .fit import FitResult, fit
from .lazy import Lazy
from .names import listed, unknown
from .statistics import LayerStatistics

__all__ = ["ModelFit", "fit_layers", "fit_model"]


@dataclass(frozen=True, eq=False, repr=False)
class ModelFit(Mapping[str, FitResult]):
    """The fitted adapters of a model's layers: a mapping from their names to their results.

    Attributes
    ----------
    layers : dict of str to FitResult
    notes : tuple of str
        What the adapter leaves out, in sentences.

    Examples
    --------
    >>> import numpy as np
    >>> from rpcls.adapters import LayerStatistics, LoRA, fit_model
    >>> T = np.diag([2.0, 1.0])
    >>> result = fit_model({"q": LayerStatistics.from_delta(T), "v": LayerStatistics.from_delta(5 * T)}, LoRA(rank=1))
    >>> result
    ModelFit(2 layers, explained=0.8 … 0.8, parameters=8)
    >>> print(result)
    layer   out × in   explained   parameters   family
    q          2 × 2       0.800            4   LoRA(rank=1, alpha=None)
    v          2 × 2       0.800            4   LoRA(rank=1, alpha=None)
    """

    layers: dict[str, FitResult]
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> FitResult:
        return self.layers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def explained(self) -> dict[str, float]:
        """The explained share of each layer's energy, on the tokens of the fit."""
        return {name: result.explained for name, result in self.layers.items()}

    @property
    def parameters(self) -> int:
        """Numbers to train or to store, of all layers."""
        return sum(result.parameters for result in self.layers.values())

    @property
    def bytes(self) -> int:
        """Of the parameters in float32; bases come from a seed."""
        return sum(result.bytes for result in self.layers.values())

    def __repr__(self) -> str:
        shares = self.explained.values()
        span = f"{min(shares):.3g} … {max(shares):.3g}" if self.layers else "–"
        return f"ModelFit({len(self)} layers, explained={span}, parameters={self.parameters})"

    def __str__(self) -> str:
        width = max(map(len, ["layer", *self.layers]))
        lines = [f"{'layer':{width}}   out × in   explained   parameters   family"]
        for name, result in self.layers.items():
            shape = "{} × {}".format(*result.shape)
            numbers = f"{shape:>8}   {result.explained:9.3f}   {result.parameters:10}"
            lines.append(f"{name:{width}}   {numbers}   {result.family!r}")
        return "\n".join([*lines, *self.notes])


def fit_model(
    statistics: Mapping[str, LayerStatistics],
    family: Family | Mapping[str, Family],
    *,
    model: Any = None,
    teacher: Any = None,
    batches: Iterable[Any] | None = None,
    weights: Mapping[str, Any] | None = None,
    preserve: Mapping[str, Any] | None = None,
    ridge: float = 0.01,
    max_iterations: int = 20,
    tol: float = 1e-4,
    rng: RandomLike = 0,
    progress: bool | None = None,
    **capturing: Any,
) -> ModelFit:
    """Fit the adapters of all layers of a model, in the order of the mapping.

    Parameters
    ----------
    statistics : mapping of str to LayerStatistics
        From layers' names, as `capture` returns them. Each is asked for when its turn comes, so they may be in files.
    family : Family, or mapping of str to Family
        For all layers, or for each its own.
    model, teacher : torch.nn.Module, optional
    batches : iterable, optional
        The three together: the layers are fitted in sequence. Before each its statistics are captured again, with the
        inputs that the layers adapted so far give it and the teacher's outputs as targets, so that it makes up for
        their errors. Of the mapping only the names are then used, in their order.
    weights : mapping of str to (o, i) array_like, optional
        W₀ for families that are made from it, where the statistics have none.
    preserve : mapping of str to (i, i) array_like or LayerStatistics, optional
        As in `fit`, for some of the layers.
    ridge, max_iterations, tol, rng
        As in `fit`, for every layer.
    progress : bool, optional
        A progress bar on standard error; None: if that is a terminal.
    **capturing
        In sequence: other arguments of `capture`, such as `mask`.

    Returns
    -------
    ModelFit
        It keeps factors, not bases: `delta` makes these again.

    Raises
    ------
    InvalidValueError, InvalidTypeError, NonFiniteError
        As `fit` and `capture`; the message names the layer.

    Warns
    -----
    ConvergenceWarning
        Once, for all layers whose `max_iterations` rounds were not enough.

    Notes
    -----
    In sequence every layer costs a pass of both models over the batches.

    Examples
    --------
    >>> import numpy as np
    >>> from rpcls.adapters import LayerStatistics, VeRA, fit_model
    >>> rng = np.random.default_rng(0)
    >>> changes = {"up": rng.standard_normal((20, 8)), "down": rng.standard_normal((8, 20))}
    >>> statistics = {name: LayerStatistics.from_delta(T) for name, T in changes.items()}
    >>> result = fit_model(statistics, VeRA(rank=16))
    >>> result.parameters, result["up"].parameters
    (60, 36)
    """
    given = [value is not None for value in (model, teacher, batches)]
    if any(given) and not all(given):
        raise InvalidValueError("to fit in sequence give model, teacher and batches, all three; else none of them")
    if not isinstance(statistics, Mapping) or not statistics:
        raise InvalidTypeError(
            f"statistics must be a mapping from layers' names to LayerStatistics, got {type(statistics).__name__}"
            f"{' without any' if isinstance(statistics, Mapping) else ''}"
        )
    if capturing and batches is None:
        raise InvalidTypeError(f"fit_model takes {listed(list(capturing))} only with batches, which it has none of")
    if batches is not None and iter(batches) is batches:
        raise InvalidValueError("batches must be a collection that can be gone through again, got an iterator")
    settings = {"ridge": ridge, "max_iterations": max_iterations, "tol": tol, "rng": Key.of(rng)}
    fitted: dict[str, FitResult] = {}

    def anew(name: str) -> LayerStatistics:
        from .capture import adapted, capture

        assert batches is not None
        with adapted(model, {done: result.delta() for done, result in fitted.items()}):
            only = re.escape(name)
            return capture(model, batches, only, teacher=teacher, inputs="model", progress=False, **capturing)[name]

    source = statistics if batches is None else Lazy(statistics, anew)
    for name, result in fit_layers(source, family, settings, weights or {}, preserve or {}, progress):
        fitted[name] = result  # noqa: PERF403 (what `anew` reads meanwhile)
    return ModelFit(fitted)


def fit_layers(
    statistics: Mapping[str, LayerStatistics],
    family: Family | Mapping[str, Family],
    settings: Mapping[str, Any],
    weights: Mapping[str, Any],
    preserve: Mapping[str, Any],
    progress: bool | None,
) -> Iterator[tuple[str, FitResult]]:
    """Name and result of each layer, as soon as it is fitted; at the end one warning for all that did not converge."""
    families = _families(statistics, family)
    for mapping, argument in ((weights, "weights"), (preserve, "preserve")):
        for name in mapping:
            if name not in statistics:
                raise InvalidValueError(f"{argument}: {unknown(name, list(statistics), 'layers of statistics')}")
    unfinished = []
    with Progress(len(families), progress, "adapters") as bar:
        for name, its in families.items():
            bar.step(name)
            try:
                layer = statistics[name]
                if not isinstance(layer, LayerStatistics):
                    raise InvalidTypeError(f"its statistics must be LayerStatistics, got {type(layer).__name__}")
                weight = weights.get(name) if its.needs_weight and layer.weight is None else None
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ConvergenceWarning)
                    result = fit(layer, its, weight=weight, preserve=preserve.get(name), **settings)
            except RpclsError as error:
                raise type(error)(f"layer {name!r}: {error}") from error
            if not result.converged:
                unfinished.append(name)
            yield name, _light(result)
            bar.done(1)
    if unfinished:
        warn(
            f"{len(unfinished)} of {len(families)} layers did not reach tol = {settings['tol']:g} in "
            f"{settings['max_iterations']} rounds: {listed(unfinished)}. Their results are the best so far; raise "
            "max_iterations or tol.",
            ConvergenceWarning,
        )


def _families(statistics: Mapping[str, Any], family: Family | Mapping[str, Family]) -> dict[str, Family]:
    if not isinstance(family, Mapping):
        check_family(family)
        return dict.fromkeys(statistics, family)
    missing = [name for name in statistics if name not in family]
    if missing:
        raise InvalidValueError(f"family has no entry for the layers {listed(missing)}")
    for name in statistics:
        check_family(family[name])
    return {name: family[name] for name in statistics}


def _light(result: FitResult) -> FitResult:
    """Without what can be made again, so that no model has to fit into memory in float64."""
    layer = result.layer if result.family.needs_weight else Layer(*result.shape)
    return replace(result, layer=layer, _model=None)
