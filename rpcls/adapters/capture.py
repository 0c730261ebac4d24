"""capture: the statistics of every layer of a torch model, in one pass over the data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from ..errors import InvalidTypeError, InvalidValueError, MissingDependencyError, NonFiniteError
from ..progress import Progress
from ..random import RandomLike
from ..sketches import SketchFamily, SketchOperator
from .family import Family
from .names import chosen, listed, unknown
from .statistics import LayerStatistics

__all__ = ["adapted", "capture", "linear_layers"]

_WHAT = "Linear layers of the model"


def capture(
    model: Any,
    batches: Iterable[Any],
    layers: Any = None,
    *,
    teacher: Any = None,
    inputs: str = "teacher",
    mask: str | Callable[[Any], Any] | None = None,
    thin: Family | None = None,
    sketch: SketchFamily | SketchOperator | None = None,
    sketch_size: int | None = None,
    form: str = "full",
    rng: RandomLike = None,
    progress: bool | None = None,
) -> dict[str, LayerStatistics]:
    """Collect the statistics of the Linear layers of a torch model.

    Parameters
    ----------
    model : torch.nn.Module
        The model to adapt. It is run as for inference, and left as it was: hooks are removed even after an error or
        Ctrl-C.
    batches : iterable
        What the model is called with: mappings (``model(**batch)``), tuples or lists (``model(*batch)``) or tensors.
        Tensors are moved to the model's device.
    layers : None, str or list of str
        As ``target_modules`` of the peft library: a regular expression that matches whole names, or names and ends of
        names such as "q_proj". None: every Linear layer that the batches reach.
    teacher : torch.nn.Module, optional
        A model with layers of the same names and sizes, run on the same batches: its layers' outputs are wanted.
        Without it only inputs are collected, for `LayerStatistics.from_delta` and `extract`.
    inputs : {"teacher", "model"}, default "teacher"
        With a teacher: whose inputs a layer sees. The teacher's, when all layers are fitted at once: each then relies
        on the others to do their part, and the model is not run at all. The model's own, when the layers before stay as
        they are now: the update then makes up for their errors, once; if all layers did so at once, the model could
        get worse than it was.
    mask : str or callable, optional
        Which tokens count: the name of a batch's entry, or a function of the batch, that gives a (sequences × tokens)
        array, zero at padding. By default every entry whose name ends in "attention_mask". Activations to which no
        mask fits count whole, such as those of a pooled token.
    thin : Family, optional
        Keep only what this family needs: ``LayerStatistics(thin=family.projection(…))``.
    sketch, sketch_size, form, rng
        As in `LayerStatistics`, for every layer.
    progress : bool, optional
        A progress bar on standard error; None: if that is a terminal.

    Returns
    -------
    dict of str to LayerStatistics
        In the order in which the layers are first called. With a teacher they hold the layer's weight and bias.

    Raises
    ------
    InvalidValueError, InvalidTypeError
        Unknown layers, layers that the batches never reach, or shapes that do not fit.
    NonFiniteError
        An activation is NaN or infinite; the message names layer, batch and entry.
    MissingDependencyError
        torch is not installed.

    Notes
    -----
    Memory does not depend on the amount of data: i² + 2oi numbers for each layer in float64 (less with `thin`), and the
    activations of one batch. Cost: the forward passes, and i² + 2oi flops for each token and layer. If the model is on
    a card and CuPy is installed, the sums are there too; if they do not fit beside it, capture some layers at a time.

    Examples
    --------
    >>> from rpcls.adapters import LoRA, capture, fit_model
    >>> statistics = capture(student, loader, ["q_proj", "v_proj"], teacher=teacher)  # doctest: +SKIP
    >>> fit_model(statistics, LoRA(rank=8)).explained  # doctest: +SKIP
    """
    torch = _torch()
    if inputs not in ("teacher", "model"):
        raise InvalidValueError(f"inputs must be 'teacher' or 'model', got {inputs!r}")
    if teacher is None and (thin is not None or sketch is not None):
        raise InvalidValueError("thin and sketch need the wanted outputs beside the inputs: give a teacher")
    known = linear_layers(model)
    wanted = {name: known[name] for name in chosen(known, layers, _WHAT)}
    settings = {"sketch": sketch, "sketch_size": sketch_size, "form": form, "rng": rng}

    def empty(name: str) -> LayerStatistics:
        layer = wanted[name]
        i, o = layer.in_features, layer.out_features
        if teacher is None:
            return LayerStatistics(i, o, **settings)
        A = None if thin is None else thin.projection(i, layer.weight)
        return LayerStatistics(i, o, layer.weight, layer.bias, thin=A, **settings)

    recorder = _Recorder(empty)
    if teacher is None:
        runs = [(model, wanted, recorder.inputs)]
    elif inputs == "teacher":
        runs = [(teacher, _same_layers(teacher, wanted), recorder.both)]
    else:
        runs = [(teacher, _same_layers(teacher, wanted), recorder.targets), (model, wanted, recorder.inputs)]
    with ExitStack() as stack:
        for run, hooked, act in runs:
            stack.enter_context(_inference(run))
            stack.enter_context(_hooked(hooked, act))
        stack.enter_context(torch.no_grad())
        total = len(batches) if hasattr(batches, "__len__") else None  # type: ignore[arg-type]
        bar = stack.enter_context(Progress(total, progress, "adapters"))
        for number, batch in enumerate(batches):
            bar.step(f"batch {number}")
            recorder.begin(number, _masks(batch, mask, number), {} if len(runs) == 2 else None)
            for run, *_ in runs:
                _call(run, batch)
            bar.done(1)
    if layers is not None and (missed := [name for name in wanted if name not in recorder.found]):
        raise InvalidValueError(f"the batches never reach these layers: {listed(missed)}; leave them out of layers")
    if not recorder.found:
        raise InvalidValueError(f"the batches reach none of the {len(wanted)} Linear layers: is batches empty?")
    return recorder.found


def linear_layers(model: Any) -> dict[str, Any]:
    """Name → module of every Linear layer whose weight is a plain (out × in) matrix of floats."""
    torch = _torch()
    if not isinstance(model, torch.nn.Module):
        raise InvalidTypeError(f"the model must be a torch.nn.Module, got {type(model).__name__}")
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and module.weight.is_floating_point()
        and tuple(module.weight.shape) == (module.out_features, module.in_features)
    }


@contextmanager
def adapted(model: Any, updates: Mapping[str, Any]) -> Iterator[None]:
    """The model with updates dW added to what its layers give, as long as the context lasts."""
    torch = _torch()
    layers = {name: model.get_submodule(name) for name in updates}
    weights = {n: torch.as_tensor(updates[n], dtype=torch.float32).to(layers[n].weight.device) for n in updates}

    def add(name: str, x: Any, y: Any) -> Any:
        return (y.float() + torch.nn.functional.linear(x.float(), weights[name])).to(y.dtype)

    with _hooked(layers, add):
        yield


class _Recorder:
    """What hooks write to: the statistics, and for the current batch its masks and the teacher's outputs."""

    def __init__(self, empty: Callable[[str], LayerStatistics]) -> None:
        self.empty = empty
        self.found: dict[str, LayerStatistics] = {}
        self.number, self.masks = 0, []
        self.wanted: dict[str, list[Any]] | None = None

    def begin(self, number: int, masks: list[Any], wanted: dict[str, list[Any]] | None) -> None:
        self.number, self.masks, self.wanted = number, masks, wanted

    def targets(self, name: str, x: Any, y: Any) -> None:
        assert self.wanted is not None
        self.wanted.setdefault(name, []).append(self._kept(name, y))

    def inputs(self, name: str, x: Any, y: Any) -> None:
        target = None
        if self.wanted is not None:
            if not self.wanted.get(name):
                raise InvalidValueError(f"{self._place(name)}: the model calls this layer more often than the teacher")
            target = self.wanted[name].pop(0)
        self._add(name, self._kept(name, x), target)

    def both(self, name: str, x: Any, y: Any) -> None:
        self._add(name, self._kept(name, x), self._kept(name, y))

    def _add(self, name: str, x: Any, y: Any) -> None:
        if name not in self.found:
            self.found[name] = self.empty(name)
        try:
            self.found[name].update(x, y)
        except (NonFiniteError, InvalidValueError) as error:
            raise type(error)(f"{self._place(name)}: {error}") from error

    def _place(self, name: str) -> str:
        return f"layer {name!r}, batch {self.number}"

    def _kept(self, name: str, x: Any) -> Any:
        """The tokens that count, (tokens, features)."""
        shape = tuple(x.shape[:-1])
        fits = [m for m in self.masks if tuple(m.shape) == shape or shape == (m.numel(),) != tuple(m.shape[:1])]
        if not fits:
            return x.reshape(-1, x.shape[-1])
        if any(bool((fits[0] != other).any()) for other in fits[1:]):
            raise InvalidValueError(
                f"{self._place(name)}: several masks have the shape {shape} and they differ; say which one with mask, "
                "and capture the layers that see other sequences apart"
            )
        return x.reshape(-1, x.shape[-1])[fits[0].reshape(-1).to(x.device)]


def _same_layers(teacher: Any, wanted: Mapping[str, Any]) -> dict[str, Any]:
    known = linear_layers(teacher)
    for name, layer in wanted.items():
        if name not in known:
            raise unknown(name, known, "Linear layers of the teacher")
        if known[name].weight.shape != layer.weight.shape:
            raise InvalidValueError(
                f"layer {name!r} must be of one size in both, got {tuple(layer.weight.shape)} in the model and "
                f"{tuple(known[name].weight.shape)} in the teacher"
            )
    return {name: known[name] for name in wanted}


def _masks(batch: Any, mask: Any, number: int) -> list[Any]:
    """Boolean (sequences × tokens) tensors, true where a token counts."""
    torch = _torch()
    if mask is None:
        found = [batch[k] for k in batch if str(k).endswith("attention_mask")] if isinstance(batch, Mapping) else []
        found = [m for m in found if getattr(m, "ndim", 0) == 2]
    elif callable(mask):
        found = [mask(batch)]
    else:
        if not isinstance(batch, Mapping) or mask not in batch:
            there = listed([str(k) for k in batch]) if isinstance(batch, Mapping) else type(batch).__name__
            raise InvalidValueError(f"batch {number} has no entry {mask!r}; it holds {there}")
        found = [batch[mask]]
    return [torch.as_tensor(m) != 0 for m in found]


def _call(model: Any, batch: Any) -> None:
    torch = _torch()
    device = next((p.device for p in model.parameters()), None)

    def moved(value: Any) -> Any:
        return value.to(device) if isinstance(value, torch.Tensor) and device is not None else value

    if isinstance(batch, Mapping):
        model(**{key: moved(value) for key, value in batch.items()})
    elif isinstance(batch, tuple | list):
        model(*(moved(value) for value in batch))
    elif isinstance(batch, torch.Tensor):
        model(moved(batch))
    else:
        raise InvalidTypeError(f"a batch must be a mapping, a tuple, a list or a tensor, got {type(batch).__name__}")


@contextmanager
def _hooked(layers: Mapping[str, Any], act: Callable[[str, Any, Any], Any]) -> Iterator[None]:
    """Call ``act(name, input, output)`` whenever a layer runs; what it gives, unless None, takes the output's place."""
    handles = []

    def hook(name: str) -> Callable[..., Any]:
        return lambda module, args, kwargs, output: act(name, args[0] if args else kwargs["input"], output)

    try:
        for name, layer in layers.items():
            handles.append(layer.register_forward_hook(hook(name), with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _inference(model: Any) -> Iterator[None]:
    """Without dropout, until the context ends."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _torch() -> Any:
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingDependencyError.for_package("torch", "peft", "Working with torch models") from error
    return torch
