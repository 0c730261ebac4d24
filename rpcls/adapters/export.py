"""export_peft: fitted adapters as a directory that the peft library loads."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InvalidTypeError, InvalidValueError, MissingDependencyError
from .fit import FitResult
from .names import unknown
from .peft_format import written

__all__ = ["check_directory", "export_peft", "require_safetensors"]


def export_peft(
    result: Mapping[str, FitResult],
    directory: str | os.PathLike[str],
    *,
    model: Any = None,
    base_model: str | None = None,
    task_type: str | None = None,
) -> Path:
    """Write adapter_config.json and adapter_model.safetensors, for ``PeftModel.from_pretrained(base, directory)``.

    The formats are those of peft 0.21.2. RandLoRA, VeRA, FourierFT, C3A and LoHa are written as what they are; LoRA,
    LoRA-XS, MELoRA, NOLA and AdaMix as LoRA; SpaRTA, SaRA and DynamicSubset as SHiRA.

    Parameters
    ----------
    result : ModelFit, or mapping of str to FitResult
        From layers' full names in the model.
    directory : path
        Must not exist. It is written under another name and then renamed: an error leaves nothing behind.
    model : torch.nn.Module, optional
        The base model: every layer must be in it, with the size that was fitted.
    base_model : str, optional
        Name or path of the base model, for adapter_config.json; by default what `model` says.
    task_type : str, optional
        peft's, such as "CAUSAL_LM".

    Returns
    -------
    Path
        The directory.

    Raises
    ------
    InvalidValueError
        peft has no format for a family, or none for these layers together; a layer is not in the model; a number is
        not finite in float32; the directory exists. Nothing is written.
    OSError
        Writing failed.
    MissingDependencyError
        safetensors is not installed.

    Notes
    -----
    Numbers are float32. Bases that layers share are written once for the whole model, 4r(D + d) bytes at least; peft
    0.21.2 loads them, and warns for RandLoRA that keys are missing, since it looks for a copy in each layer too.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> from rpcls.adapters import LayerStatistics, LoRA, export_peft, fit
    >>> result = fit(LayerStatistics.from_delta(np.ones((6, 4))), LoRA(rank=1))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = export_peft({"encoder.layers.0.fc": result}, f"{folder}/adapter")
    ...     sorted(file.name for file in path.iterdir())
    ['adapter_config.json', 'adapter_model.safetensors']
    """
    path = check_directory(directory)
    if not isinstance(result, Mapping) or not result:
        raise InvalidTypeError(f"result must map layers' names to fits, got {type(result).__name__}; {{name: fit(…)}}")
    for name, fitted in result.items():
        if not isinstance(name, str) or not isinstance(fitted, FitResult):
            raise InvalidTypeError(f"result must map names to FitResult, got {type(fitted).__name__} under {name!r}")
    config, shared, layers = written(result)
    targets: Any = sorted(result)
    if model is not None:
        targets = _checked_targets(model, result)
        base_model = base_model or getattr(model, "name_or_path", None) or None
    tensors = {f"base_model.{name}": array for name, array in shared.items()}
    for layer, parts in layers.items():
        tensors |= {f"base_model.model.{layer}.{name}": array for name, array in parts.items()}
    header = {"base_model_name_or_path": base_model, "task_type": task_type, "inference_mode": True}
    config = {**header, **config, "target_modules": targets}
    narrow = {name: _narrow(name, array) for name, array in tensors.items()}
    packed = require_safetensors().save(narrow, metadata={"format": "pt"})
    text = json.dumps(config, indent=2) + "\n"  # in this order, which matters to peft in patterns
    _write(path, {"adapter_config.json": text.encode(), "adapter_model.safetensors": packed})
    return path


def check_directory(directory: str | os.PathLike[str]) -> Path:
    """The path, unless something is there already or its parent is not."""
    path = Path(directory)
    if os.path.lexists(path):
        raise InvalidValueError(f"{path} exists; an adapter is written to a new directory: give another, or remove it")
    if not path.parent.is_dir():
        raise InvalidValueError(f"{path} cannot be made: {path.parent} is no directory")
    return path


def _checked_targets(model: Any, result: Mapping[str, FitResult]) -> list[str] | str:
    """target_modules: the names, or where the end of another name would match too, a regular expression."""
    modules = dict(model.named_modules())
    for name, fitted in result.items():
        if name not in modules:
            raise unknown(name, modules, "modules of the model")
        size = getattr(modules[name], "out_features", None), getattr(modules[name], "in_features", None)
        if size != fitted.shape:
            raise InvalidValueError(f"layer {name!r} was fitted as {fitted.shape}, in the model it is {size}")
    matched = [name for name in modules if name in result or any(name.endswith(f".{target}") for target in result)]
    return sorted(result) if len(matched) == len(result) else "|".join(re.escape(name) for name in sorted(result))


def _narrow(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind != "f":
        return np.ascontiguousarray(array)
    with np.errstate(over="ignore"):
        narrow = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(narrow).all():
        raise InvalidValueError(f"{name} has {np.abs(array).max():.3g}, beyond float32; scale the layer's inputs")
    return narrow


def require_safetensors() -> Any:
    """The library's NumPy side, or MissingDependencyError."""
    try:
        import safetensors.numpy  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingDependencyError.for_package("safetensors", "adapters", "Writing an adapter") from error
    return safetensors.numpy


def _write(path: Path, files: Mapping[str, bytes]) -> None:
    """All files or none: in a directory beside, which is then renamed."""
    aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        aside.mkdir()
        for name, content in files.items():
            (aside / name).write_bytes(content)
        os.rename(aside, path)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
