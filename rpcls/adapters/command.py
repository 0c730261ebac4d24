"""``rpcls adapters``: checkpoints or files of statistics in, a directory that the peft library loads out."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InvalidValueError
from ..expressions import evaluate
from .adamix import AdaMix
from .export import check_directory, export_peft, require_safetensors
from .extract import extract
from .family import Family
from .lazy import Lazy
from .models import ModelFit, fit_model
from .names import chosen, listed
from .peft_format import FORMATS
from .statistics import LayerStatistics

__all__ = ["add_parser", "run"]

_ABOUT = """Fit adapters to layers by least squares, without gradient descent, and write a directory that the peft
library loads: PeftModel.from_pretrained(base, DIR)."""
_FIT = """Fit every layer to its statistics: files that LayerStatistics.save wrote, called LAYER.npz after the full name
of the layer in the model. rpcls.adapters.capture collects such statistics from a torch model."""
_EXTRACT = """Turn a fine-tuned checkpoint into an adapter of its base, layer by layer. With --inputs, statistics of
what layers read, it comes near to what fine-tuning did to the layers' outputs, instead of to their weights."""

# All that have a format, but for AdaMix, which is made from arrays.
_FAMILIES = {kind.__name__: kind for kind in sorted(FORMATS, key=lambda kind: kind.__name__) if kind is not AdaMix}


def add_parser(commands: Any) -> None:
    """Add ``adapters`` to the subcommands of ``rpcls``."""
    adapters = commands.add_parser(
        "adapters", help="adapters by least squares, for the peft library", description=_ABOUT
    )
    actions = adapters.add_subparsers(dest="action", required=True, metavar="ACTION")
    fit = actions.add_parser("fit", help="from files of layer statistics", description=_FIT)
    fit.add_argument("statistics", nargs="+", metavar="STATISTICS", help="LAYER.npz files, or folders of them")
    _add_common(fit)
    out = actions.add_parser("extract", help="from a base and a fine-tuned checkpoint", description=_EXTRACT)
    out.add_argument("base", metavar="BASE", help="a .safetensors file, or a folder of them")
    out.add_argument("finetuned", metavar="FINETUNED", help="likewise")
    out.add_argument(
        "--inputs", nargs="+", metavar="STATISTICS", help="LAYER.npz files, or folders of them, not sketched"
    )
    _add_common(out)


def _add_common(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--family", metavar="EXPR", default="LoRA(rank=8)", help=f"such as the default, LoRA(rank=8), or "
        f"VeRA(rank=256, seed=1); one of {', '.join(_FAMILIES)}")  # fmt: skip
    add("--output", metavar="DIR", required=True, help="the adapter's directory, which must not exist")
    add("--layers", metavar="LIST", help="names or ends of names, such as q_proj,v_proj; default all, for extract all "
        "matrices that changed and are no embeddings")  # fmt: skip
    add(
        "--ridge", metavar="NUMBER", type=float, default=0.01, help="relative to the mean of C's diagonal, default 0.01"
    )
    add("--max-iterations", metavar="N", type=int, default=20, help="rounds of families that alternate, default 20")
    add("--tol", metavar="NUMBER", type=float, default=1e-4, help="gain at which rounds end, default 1e-4")
    add("--base-model", metavar="NAME", help="name or path of the base model, for adapter_config.json")
    add("--task-type", metavar="TYPE", help="peft's, such as CAUSAL_LM")


def run(options: argparse.Namespace) -> str:
    """Do what was asked.

    Returns
    -------
    str
        What to show: a line for each layer, and where the adapter is.
    """
    directory = check_directory(options.output)  # before minutes of work
    require_safetensors()
    family = evaluate(options.family, _FAMILIES, "--family", _FAMILIES, "LoRA(rank=8)")
    result = _result(options, family)
    path = export_peft(result, directory, base_model=options.base_model, task_type=options.task_type)
    return f"{result}\n{path}"


def _result(options: argparse.Namespace, family: Family) -> ModelFit:
    settings = {"ridge": options.ridge, "max_iterations": options.max_iterations, "tol": options.tol}
    layers = None if options.layers is None else [name.strip() for name in options.layers.split(",") if name.strip()]
    if options.action == "fit":
        statistics = _statistics(options.statistics)
        names = chosen(list(statistics), layers, "layers of the statistics")
        return fit_model(Lazy(names, statistics.__getitem__), family, **settings)
    inputs = None if options.inputs is None else _statistics(options.inputs)
    return extract(options.base, options.finetuned, family, inputs=inputs, layers=layers, **settings)


def _statistics(paths: list[str]) -> Mapping[str, LayerStatistics]:
    """Layer → statistics, loaded when they are asked for."""
    files: dict[str, Path] = {}
    for given in map(Path, paths):
        here = sorted(given.glob("*.npz")) if given.is_dir() else [given]
        if not here:
            raise InvalidValueError(f"{given} has no .npz files of statistics")
        for file in here:
            if not file.is_file():
                raise FileNotFoundError(f"no such file: {file}")
            if file.suffix != ".npz":
                raise InvalidValueError(f"statistics must be in files called LAYER.npz, got {file}")
            if file.stem in files:
                raise InvalidValueError(
                    f"layer {file.stem!r} has two files: {listed([str(files[file.stem]), str(file)])}"
                )
            files[file.stem] = file
    return Lazy(files, lambda name: LayerStatistics.load(files[name]))
