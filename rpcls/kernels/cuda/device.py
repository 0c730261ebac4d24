"""The card: compiling the `.cu` files with CuPy, launching them, and saying what went wrong there."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DeviceError, InvalidTypeError, MissingDependencyError

__all__ = [
    "cublas", "cupy", "imported", "launch", "on_device", "on_number", "potrf", "prepared", "shared_bytes", "sharing",
    "solve_triangular", "source",
]  # fmt: skip

_FOLDER = Path(__file__).parent
_INCLUDE = re.compile(r'^#include "(\w+\.cuh)"$', re.MULTILINE)
_INPUTS = {"float16": 16, "bfloat16": 116, "float32": 32, "float64": 64}
_PLAIN_SHARED_BYTES = 48 << 10  # of a block, above which a kernel must ask first


def cupy() -> Any:
    """The CuPy that the caller's arrays come from; nothing here imports it."""
    return sys.modules["cupy"]


def imported(what: str) -> Any:
    """CuPy, imported if need be for `what`."""
    try:
        import cupy as xp  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingDependencyError(
            f"{what} needs CuPy, which is not installed; run: pip install cupy-cuda12x or cupy-cuda13x, by the CUDA "
            "version that nvidia-smi shows"
        ) from error
    return xp


@functools.cache
def source(file: str) -> str:
    """One `.cu` file with its headers written out: CuPy's cache of binaries goes by the text that it is given."""
    seen: set[str] = set()

    def expanded(name: str) -> str:
        if name in seen:
            return ""
        seen.add(name)
        text = (_FOLDER / name).read_text(encoding="utf-8").replace("#pragma once\n", "")
        return _INCLUDE.sub(lambda found: expanded(found[1]), text)

    return expanded(f"{file}.cu")


@functools.cache
def _kernel(xp: Any, file: str, name: str, kind: str, defines: tuple[tuple[str, int], ...]) -> Any:
    options = ("--fmad=false", f"-DINPUT={_INPUTS[kind]}", *(f"-D{macro}={value}" for macro, value in defines))
    return xp.RawModule(code=source(file), options=options).get_function(name)


@functools.cache
def _most_shared_bytes(xp: Any, device: int) -> int:
    return int(xp.cuda.Device(device).attributes["MaxSharedMemoryPerBlockOptin"])


def shared_bytes() -> int:
    """The shared memory that a block may have on the current card."""
    xp = cupy()
    return _most_shared_bytes(xp, xp.cuda.Device().id)


def launch(
    file: str,
    name: str,
    dtype: Any,
    grid: tuple[int, ...],
    threads: int,
    arguments: tuple[Any, ...],
    shared: int = 0,
    **defines: int,
) -> None:
    """Run a kernel of `file`.cu, compiled for inputs of that dtype with those macros, on the current stream.

    Integers are passed with 64 bits, None as a null pointer.
    """
    kernel = prepared(file, name, dtype, shared, **defines)
    kernel(grid, threads, arguments)


def prepared(file: str, name: str, dtype: Any, shared: int = 0, **defines: int) -> Callable[..., None]:
    """The kernel that `launch` runs, for many launches: a function of grid, threads and arguments."""
    xp = cupy()
    with _compiling(xp, file):
        kernel = _kernel(xp, file, name, np.dtype(dtype).name, tuple(sorted(defines.items())))
        if shared > _PLAIN_SHARED_BYTES:
            kernel.max_dynamic_shared_size_bytes = shared

    def run(grid: tuple[int, ...], threads: int, arguments: tuple[Any, ...]) -> None:
        with _compiling(xp, file):  # a kernel is compiled for a card when it is first used there
            kernel(grid, (threads,), tuple(_argument(a) for a in arguments), shared_mem=shared)

    return run


@contextmanager
def _compiling(xp: Any, file: str) -> Iterator[None]:
    try:
        yield
    except xp.cuda.compiler.CompileException as error:
        raise DeviceError(f"{file}.cu does not compile for this card; the compiler says:\n{error}") from error


def sharing(tensor: Any) -> Any:
    """The CuPy array that shares the memory of a torch tensor on a card."""
    xp = imported("a torch tensor on a card")
    problem = None
    if "bfloat16" not in str(tensor.dtype) or int(xp.__version__.split(".")[0]) >= 14:  # some of 13 crash at one
        try:
            return xp.from_dlpack(tensor.detach())
        except NotImplementedError as error:  # says CuPy 14 of bfloat16 without ml_dtypes
            problem = error
    raise InvalidTypeError(
        f"CuPy {xp.__version__} cannot share a tensor of {tensor.dtype}; that takes CuPy 14 with ml_dtypes, NumPy "
        "2.1.2 and CUDA 12.2 or newer; or convert the tensor to float32: tensor.float()"
    ) from problem


def solve_triangular(R: Any, Z: Any, *, trans: str) -> Any:
    """R⁻¹Z, or R⁻ᵀZ with trans = "T", for an upper triangle on the card."""
    from cupyx.scipy.linalg import solve_triangular as solve  # pyright: ignore[reportMissingImports]  # CuPy's

    return solve(R, Z, trans=trans, check_finite=False)


def cublas() -> Any:
    """CuPy's functions of cuBLAS' own names."""
    from cupy import cublas  # pyright: ignore[reportMissingImports]

    return cublas


def potrf(G: Any) -> Any:
    """The upper triangle R of a symmetric G = RᵀR on the card, or None.

    cuSOLVER makes it in half the time from the triangle that is the lower one in its order; CuPy's own function takes
    the other.
    """
    from cupy.cuda.device import get_cusolver_handle  # pyright: ignore[reportMissingImports]
    from cupy_backends.cuda.libs import cublas, cusolver  # pyright: ignore[reportMissingImports]

    xp, n = cupy(), len(G)
    handle, lower = get_cusolver_handle(), cublas.CUBLAS_FILL_MODE_LOWER
    R, info = xp.ascontiguousarray(G).copy(), xp.empty(1, np.int32)
    room = xp.empty(max(1, cusolver.dpotrf_bufferSize(handle, lower, n, R.data.ptr, n)))
    cusolver.dpotrf(handle, lower, n, R.data.ptr, n, room.data.ptr, room.size, info.data.ptr)
    return None if int(info[0]) else xp.triu(R)


def _argument(value: Any) -> Any:
    if value is None:
        return np.uint64(0)
    if isinstance(value, bool | int):
        return np.int64(value)
    return np.float64(value) if isinstance(value, float) else value


def on_device(array: Any) -> AbstractContextManager[Any]:
    """Work on the card that holds `array`; gives CuPy, and turns what the driver says into errors with advice."""
    return on_number(array.device.id)


@contextmanager
def on_number(card: int | None) -> Iterator[Any]:
    """`on_device` for the card of that number; None: the current one."""
    xp = cupy()
    try:
        with xp.cuda.Device(card):
            yield xp
    except xp.cuda.memory.OutOfMemoryError as error:
        raise DeviceError(
            f"the card is out of memory: {error}; lower sketch_size, free what you no longer need (CuPy keeps freed "
            "memory: cupy.get_default_memory_pool().free_all_blocks()), or compress parts of the rows and add them up"
        ) from error
    except (xp.cuda.runtime.CUDARuntimeError, xp.cuda.driver.CUDADriverError) as error:
        text = str(error)
        hint = "the sweep failed there"
        if "InsufficientDriver" in text:
            hint = "the driver is older than this CuPy needs: update it, or install the CuPy for an older CUDA"
        elif "NoDevice" in text or "NO_DEVICE" in text:
            hint = (
                'no card is visible: see nvidia-smi and CUDA_VISIBLE_DEVICES; NumPy arrays need none with device="cpu"'
            )
        raise DeviceError(f"CUDA says {text}: {hint}") from error
