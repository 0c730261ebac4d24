"""Checkpoints as mappings from names to tensors: .safetensors files, state dicts and modules, one tensor at a time."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FormatError, InvalidTypeError

__all__ = ["SafetensorsFile", "tensors_of"]

_KINDS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
          "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?"}  # fmt: skip


class SafetensorsFile(Mapping[str, np.ndarray]):
    """The tensors of a .safetensors file, each read when it is asked for.

    The format is eight bytes with the length of a JSON header, the header, and the tensors' bytes. The safetensors
    library's NumPy side cannot read bfloat16, which most checkpoints are in; here it becomes float32, exactly.

    Parameters
    ----------
    path : path

    Raises
    ------
    FormatError
        The file is truncated, or none of this kind.
    OSError
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        size = self.path.stat().st_size
        try:
            with open(self.path, "rb") as file:
                length = int.from_bytes(file.read(8), "little")
                if not 2 <= length <= size - 8:
                    raise ValueError("it does not begin with the length of a header")
                header = json.loads(file.read(length))
            self._start = 8 + length
            self._entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
            for name, entry in self._entries.items():
                begin, end = entry["data_offsets"]
                width = np.dtype(_KINDS[entry["dtype"]]).itemsize if entry["dtype"] in _KINDS else None
                if not 0 <= begin <= end <= size - self._start:
                    raise ValueError(f"{name!r} reaches beyond the end of the file")
                if width is not None and math.prod(entry["shape"]) * width != end - begin:
                    raise ValueError(f"{name!r} has another size than its shape")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{self.path} is not a complete .safetensors file: {error}") from error

    def __getitem__(self, name: str) -> np.ndarray:
        entry = self._entries[name]
        if entry["dtype"] not in _KINDS:
            raise FormatError(f"{self.path}: {name!r} is of type {entry['dtype']}; known: {', '.join(_KINDS)}")
        begin, end = entry["data_offsets"]
        with open(self.path, "rb") as file:
            file.seek(self._start + begin)
            data = file.read(end - begin)
        array = np.frombuffer(data, _KINDS[entry["dtype"]]).reshape(entry["shape"])
        if entry["dtype"] == "BF16":
            array = (array.astype(np.uint32) << 16).view(np.float32)
        return array

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, which is not read."""
        return tuple(self._entries[name]["shape"])

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def tensors_of(checkpoint: Any, name: str) -> Mapping[str, Any]:
    """Name → tensor of a module, a mapping, a .safetensors file, or a folder of such files."""
    if isinstance(checkpoint, str | os.PathLike):
        path = Path(checkpoint)
        if not path.is_dir():
            return SafetensorsFile(path)
        files = sorted(path.glob("*.safetensors"))
        if not files:
            raise FormatError(f"{path} has no .safetensors files")
        return _Shards([SafetensorsFile(file) for file in files])
    if hasattr(checkpoint, "state_dict"):
        checkpoint = checkpoint.state_dict()
    if not isinstance(checkpoint, Mapping):
        raise InvalidTypeError(
            f"{name} must be a module, a state dict or the path of .safetensors files, got {type(checkpoint).__name__}"
        )
    return checkpoint


class _Shards(Mapping[str, np.ndarray]):
    """Several files as one."""

    def __init__(self, files: list[SafetensorsFile]) -> None:
        self._home = {name: file for file in files for name in file}

    def __getitem__(self, name: str) -> np.ndarray:
        return self._home[name][name]

    def shape(self, name: str) -> tuple[int, ...]:
        return self._home[name].shape(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._home)

    def __len__(self) -> int:
        return len(self._home)
