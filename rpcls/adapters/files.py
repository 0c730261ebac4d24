"""LayerStatistics in files: .npz, versioned, written aside and renamed."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..compressed import CompressedProblem
from ..errors import FormatError
from ..random import STREAM_VERSION, Key
from ..sketches import FAMILIES, SketchOperator
from ..sketches.base import parameters
from .accumulators import Accumulator, Exact, Frozen, Full, Partial, Sketched, Thin
from .statistics import LayerStatistics

__all__ = ["load", "save", "write_npz"]


def write_npz(path: str | os.PathLike[str], header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write a header and arrays beside `path`, then rename: never half a file, whatever happens."""
    path = Path(path)
    aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(aside, "xb") as file:
            np.savez(file, header=np.array(json.dumps(header)), **arrays)  # type: ignore[arg-type]
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def save(statistics: LayerStatistics, path: str | os.PathLike[str]) -> None:
    """What `LayerStatistics.save` does."""
    sums = statistics._host_sums
    header: dict[str, Any] = {
        "format": LayerStatistics.FORMAT,
        "version": LayerStatistics.FORMAT_VERSION,
        "in_features": statistics.in_features,
        "out_features": statistics.out_features,
        "form": statistics.form,
        "tokens": statistics.tokens,
        "first_token": statistics.first_token,
    }
    arrays = {f"sum_{name}": array for name, array in sums.arrays().items()}
    arrays |= {name: a for name, a in zip(("weight", "bias"), statistics._frozen, strict=True) if a is not None}
    if isinstance(sums, Sketched):
        operator = sums.operator
        header |= {
            "stream_version": STREAM_VERSION,
            "family": type(operator.family).__name__,
            "parameters": parameters(operator.family),
            "sketch_size": operator.sketch_size,
            "key": operator.key.value,
        }
        arrays |= {f"problem_{name}": _packed(problem) for name, problem in sums.problems.items()}
    write_npz(path, header, arrays)


def _packed(problem: CompressedProblem) -> np.ndarray:
    """The bytes of the problem's own file."""
    with tempfile.TemporaryDirectory() as folder:
        problem.save(inner := Path(folder) / "problem.npz")
        return np.frombuffer(inner.read_bytes(), np.uint8)


def _unpacked(packed: np.ndarray) -> CompressedProblem:
    with tempfile.TemporaryDirectory() as folder:
        (inner := Path(folder) / "problem.npz").write_bytes(packed.tobytes())
        return CompressedProblem.load(inner)


def load(path: str | os.PathLike[str]) -> LayerStatistics:
    """What `LayerStatistics.load` does."""
    with open(path, "rb") as handle:
        try:
            with np.load(handle, allow_pickle=False) as file:
                header = json.loads(str(file["header"]))
                arrays = {name: file[name] for name in file.files if name != "header"}
        except Exception as error:  # broken archives make zipfile and NumPy raise all kinds
            raise FormatError(f"{path} is not a complete LayerStatistics file: {error}") from error
    if not isinstance(header, dict) or header.get("format") != LayerStatistics.FORMAT:
        raise FormatError(f"{path} does not hold LayerStatistics")
    if header.get("version") != LayerStatistics.FORMAT_VERSION:
        known = LayerStatistics.FORMAT_VERSION
        raise FormatError(f"{path} has version {header.get('version')}, this rpcls reads {known}; collect again")
    if header.get("stream_version", STREAM_VERSION) != STREAM_VERSION:
        raise FormatError(f"{path} was sketched with other random streams (version {header['stream_version']})")
    try:
        return _rebuilt(header, arrays)
    except (AttributeError, AssertionError, KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{path} is not a valid LayerStatistics file: {type(error).__name__}: {error}") from error


def _rebuilt(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> LayerStatistics:
    i, o, form = int(header["in_features"]), int(header["out_features"]), header["form"]
    sums: Accumulator
    if form == "exact":
        sums = Exact(i, o)
    elif form == "thin":
        sums = Thin(i, o, arrays.pop("sum_A"))
    else:
        family = FAMILIES[header["family"]](**header["parameters"])
        operator = SketchOperator(family, header["sketch_size"], Key(header["key"]))
        sums = Full(i, o, operator) if form == "full" else Partial(i, o, operator, robust=form == "robust-partial")
        packed = [name for name in arrays if name.startswith("problem_")]
        sums.problems = {name.removeprefix("problem_"): _unpacked(arrays[name]) for name in packed}
    for name in sums.names:
        array = arrays[f"sum_{name}"]
        if array.shape != np.shape(getattr(sums, name)) or array.dtype != np.float64 or not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite float64 of shape {np.shape(getattr(sums, name))}")
        setattr(sums, name, array)
    result = LayerStatistics(i, o, arrays.get("weight"), arrays.get("bias"))
    result._frozen = Frozen(result._frozen.weight, result._frozen.bias)
    result._sums, result.form = sums, form
    result.tokens, result.first_token = int(header["tokens"]), int(header["first_token"])
    return result
