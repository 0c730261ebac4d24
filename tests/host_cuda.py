"""The CUDA kernels on the host: each file built by g++ behind `host_shim.h`, and launched as CuPy launches kernels."""

from __future__ import annotations

import ctypes
import functools
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rpcls

SOURCES = Path(rpcls.__file__).parent / "kernels" / "cuda"
SHIM = Path(__file__).parent / "host_shim.h"
KERNEL = re.compile(r'extern "C" __global__ void\s+(?:__launch_bounds__\([^)]*\)\s+)?(\w+)\(')

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++, which is not installed")


def kernels_of(source: str) -> list[str]:
    return KERNEL.findall(source)


class Module:
    """The kernels of one file for one type of input; `module.name(grid, threads, arguments, shared_mem)`."""

    def __init__(self, source: Path, defines: tuple[str, ...], folder: Path | None = None) -> None:
        folder = source.parent if folder is None else folder
        names = kernels_of(source.read_text(encoding="utf-8"))
        launchers = "\n".join(
            f'extern "C" int launch_{n}(const unsigned* g, unsigned t, size_t s, int c, void** a, int e)'
            f"{{ return host::launch({n}, g, t, s, c, a, e); }}"
            for n in names
        )
        stem = folder / "_".join([source.stem, *(d.strip("-D").replace("=", "") for d in defines)])
        unit, library = stem.with_suffix(".cpp"), stem.with_suffix(".so")
        unit.write_text(f'#include "{SHIM}"\n#include "{source}"\n{launchers}\n', encoding="utf-8")
        flags = ["-std=c++17", "-O1", "-ffp-contract=off", "-fPIC", "-shared", "-Wall", "-Wno-unknown-pragmas"]
        command = ["g++", *flags, *defines, "-o", str(library), str(unit)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0 and not result.stderr, result.stderr
        self._library, self.names = ctypes.CDLL(str(library)), names

    def __getattr__(self, name: str) -> Kernel:
        if name not in self.names:
            raise AttributeError(name)
        return Kernel(name, getattr(self._library, f"launch_{name}"))


class Kernel:
    max_dynamic_shared_size_bytes = 0

    def __init__(self, name: str, function: Any) -> None:
        self.name, self._function = name, function

    def __call__(
        self, grid: Sequence[int], block: Sequence[int], arguments: Sequence[Any], shared_mem: int = 0, *,
        backward: bool = False,
    ) -> None:  # fmt: skip
        held = [_holder(a) for a in arguments]
        pointers = (ctypes.c_void_p * len(held))(*(ctypes.addressof(h) for h in held))
        dims = (ctypes.c_uint * 3)(*grid, *[1] * (3 - len(grid)))
        size, count = ctypes.c_size_t(shared_mem), ctypes.c_int(len(held))
        code = self._function(dims, ctypes.c_uint(block[0]), size, count, pointers, ctypes.c_int(backward))
        problem = {1: "a block waits for ever", 2: "beyond its shared memory", 3: "wrong number of arguments"}
        assert code == 0, f"{self.name}: {problem[code]}"


def _holder(value: Any) -> Any:
    """What a kernel receives: a pointer for an array or None, and numbers of 64 bits but for NumPy's own."""
    if value is None:
        return ctypes.c_void_p(None)
    if isinstance(value, np.ndarray):
        return ctypes.c_void_p(value.ctypes.data)
    if isinstance(value, np.generic):
        return (ctypes.c_char * value.itemsize).from_buffer_copy(value.tobytes())
    return ctypes.c_double(value) if isinstance(value, float) else ctypes.c_int64(value)


@functools.cache
def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory()


@functools.cache
def module(name: str, *defines: str) -> Module:
    return Module(SOURCES / f"{name}.cu", defines, Path(_folder().name))
