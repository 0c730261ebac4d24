"""A `cupy` that lives in host memory: its arrays wrap NumPy's, and its kernels are the `.cu` files built by g++.

As strict as CuPy: no array of it becomes a NumPy array by itself, none meets a NumPy array in an operation, and there
is nothing in it that CuPy has not.
"""

from __future__ import annotations

import operator
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.linalg
from host_cuda import Module

FUNCTIONS = (
    "abs", "argmax", "argwhere", "ascontiguousarray", "asfortranarray", "broadcast_to", "concatenate", "empty",
    "isfinite", "ones", "sqrt", "vdot", "zeros",
)  # fmt: skip
METHODS = ("all", "any", "astype", "max", "min", "sum", "reshape", "copy", "trace")


class ndarray:
    """A wrapped NumPy array."""

    __array_ufunc__ = None  # NumPy's operators leave the matter to these
    device = SimpleNamespace(id=0)

    def __init__(self, array: np.ndarray) -> None:
        self.held = array

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`.")

    def __getattr__(self, name: str) -> Any:
        if name in ("shape", "dtype", "strides", "ndim", "size", "itemsize", "nbytes"):
            return getattr(self.held, name)
        if name == "T":
            return ndarray(self.held.T)
        if name in METHODS:
            return lambda *a, **k: _wrapped(getattr(self.held, name)(*map(_bare, a), **k))
        raise AttributeError(name)

    def __len__(self) -> int:
        return len(self.held)

    def __getitem__(self, where: Any) -> ndarray:
        return ndarray(np.asarray(self.held[_place(where)]))

    def __setitem__(self, where: Any, value: Any) -> None:
        self.held[_place(where)] = _bare(value)

    def __bool__(self) -> bool:
        return bool(self.held)

    def __float__(self) -> float:
        return float(self.held)

    def __int__(self) -> int:
        return int(self.held)

    def __neg__(self) -> ndarray:
        return ndarray(-self.held)

    def __invert__(self) -> ndarray:
        return ndarray(~self.held)


def _add_operators() -> None:
    for name in ("add", "sub", "mul", "truediv", "matmul", "lt", "gt", "le", "ge"):
        own = getattr(operator, name)
        setattr(ndarray, f"__{name}__", lambda a, b, own=own: _wrapped(own(a.held, _bare(b))))
        if name not in ("lt", "gt", "le", "ge"):
            setattr(ndarray, f"__r{name}__", lambda a, b, own=own: _wrapped(own(_bare(b), a.held)))
    for name in ("iadd", "isub"):
        own = getattr(operator, name)
        setattr(ndarray, f"__{name}__", lambda a, b, own=own: ndarray(own(a.held, _bare(b))))


_add_operators()


def _bare(value: Any) -> Any:
    if isinstance(value, ndarray):
        return value.held
    if isinstance(value, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    return [_bare(v) for v in value] if isinstance(value, list) else value


def _place(where: Any) -> Any:
    return tuple(map(_place, where)) if isinstance(where, tuple) else _bare(where)


def _wrapped(value: Any) -> Any:
    return ndarray(np.asarray(value)) if isinstance(value, np.ndarray | np.generic) else value


class OutOfMemoryError(MemoryError):
    pass


class CompileException(Exception):
    pass


class CUDARuntimeError(RuntimeError):
    pass


class CUDADriverError(RuntimeError):
    pass


class Device:
    def __init__(self, number: int = 0) -> None:
        self.id = number
        self.attributes = {"MaxSharedMemoryPerBlockOptin": 99 << 10}

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class RawModule:
    """Kernels from the text that a card's compiler would be given."""

    folder = tempfile.TemporaryDirectory()
    built: dict[tuple[str, tuple[str, ...]], Any] = {}  # noqa: RUF012

    def __init__(self, *, code: str, options: tuple[str, ...]) -> None:
        assert options[0] == "--fmad=false"
        self.key = code, options[1:]

    def get_function(self, name: str) -> Any:
        code, defines = self.key
        if self.key not in self.built:
            path = Path(self.folder.name) / f"{len(self.built)}.cu"
            path.write_text(code, encoding="utf-8")
            self.built[self.key] = Module(path, defines)
        kernel = getattr(self.built[self.key], name)

        def launched(grid: Any, block: Any, arguments: Any, *, shared_mem: int = 0) -> None:
            assert shared_mem <= max(48 << 10, launched.max_dynamic_shared_size_bytes) <= 99 << 10
            assert all(isinstance(a, ndarray | np.generic) for a in arguments), (
                "sizes of Python numbers are not certain"
            )
            kernel(grid, block, [a.held if isinstance(a, ndarray) else a for a in arguments], shared_mem)

        launched.max_dynamic_shared_size_bytes = 0
        return launched


def _qr(array: ndarray, mode: str) -> ndarray:
    assert mode == "r"
    return ndarray(np.linalg.qr(array.held, mode="r"))


def _solve_triangular(R: ndarray, Z: ndarray, *, trans: str, check_finite: bool) -> ndarray:
    return ndarray(scipy.linalg.solve_triangular(R.held, Z.held, trans=trans, check_finite=check_finite))


def _asarray(value: Any, dtype: Any = None) -> ndarray:
    return ndarray(np.array(value.held if isinstance(value, ndarray) else value, dtype))


def module() -> ModuleType:
    cupy: Any = ModuleType("cupy")
    cupy.ndarray, cupy.RawModule = ndarray, RawModule
    cupy.asarray, cupy.array = _asarray, _asarray
    cupy.asnumpy = lambda a: a.held.copy()
    cupy.from_dlpack = lambda tensor: ndarray(np.from_dlpack(tensor))
    for name in FUNCTIONS:
        own = getattr(np, name)
        setattr(cupy, name, lambda *a, own=own, **k: _wrapped(own(*map(_bare, a), **k)))
    cupy.linalg = SimpleNamespace(qr=_qr)
    cupy.cuda = SimpleNamespace(
        Device=Device,
        compiler=SimpleNamespace(CompileException=CompileException),
        memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
        runtime=SimpleNamespace(CUDARuntimeError=CUDARuntimeError),
        driver=SimpleNamespace(CUDADriverError=CUDADriverError),
    )
    return cupy


@contextmanager
def imported(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The stand-in as `cupy`, for one test."""
    cupy, linalg = module(), ModuleType("cupyx.scipy.linalg")
    linalg.solve_triangular = _solve_triangular  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        for name, value in (("cupy", cupy), ("cupyx", ModuleType("cupyx")), ("cupyx.scipy.linalg", linalg)):
            patch.setitem(sys.modules, name, value)
        patch.setitem(sys.modules, "cupyx.scipy", ModuleType("cupyx.scipy"))
        yield cupy
