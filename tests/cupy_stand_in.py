"""A `cupy` that lives in host memory: its arrays wrap NumPy's, and its kernels are the `.cu` files built by g++.

As strict as CuPy: no array of it becomes a NumPy array by itself, none meets a NumPy array in an operation, and there
is nothing in it that CuPy has not.
"""

from __future__ import annotations

import ctypes
import operator
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cupy_sparse
import cupy_streams
import numpy as np
import pytest
import scipy.linalg
from host_cuda import Module

FUNCTIONS = (
    "abs", "arange", "argmax", "argwhere", "ascontiguousarray", "asfortranarray", "broadcast_to", "concatenate",
    "count_nonzero", "diag", "dot", "einsum", "empty", "exp2", "eye", "full", "isfinite", "ldexp", "log2", "maximum",
    "multiply", "ones", "pad", "rint", "searchsorted", "sqrt", "square", "stack", "subtract", "tril", "triu",
    "vdot", "where", "zeros",
)  # fmt: skip
MOST_SHARED_BYTES = 99 << 10  # of a block
LOWER = 0  # cuBLAS' number
BACKWARD = False  # whether threads take turns from the last on
METHODS = ("all", "any", "astype", "cumsum", "max", "mean", "min", "sort", "sum", "copy", "diagonal", "trace")
VIEWS = ("reshape", "view")


class ndarray:
    """A wrapped NumPy array."""

    __array_ufunc__ = None  # NumPy's operators leave the matter to these
    device = SimpleNamespace(id=0)

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        pool.bytes += array.nbytes * (array.base is None)

    @property
    def held(self) -> np.ndarray:
        """For work on the null stream; views take `array`."""
        cupy_streams.clock.use(self.array)
        return self.array

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`.")

    def __getattr__(self, name: str) -> Any:
        if name in ("shape", "dtype", "strides", "ndim", "size", "itemsize", "nbytes", "flags"):
            return getattr(self.array, name)
        if name == "data":
            return SimpleNamespace(ptr=self.held.ctypes.data)
        if name == "T":
            return ndarray(self.array.T)
        if name in VIEWS:
            return lambda *a, **k: _view(self.array, getattr(self.array, name)(*a, **k))
        if name in METHODS:
            return lambda *a, **k: _wrapped(getattr(self.held, name)(*map(_bare, a), **k))
        raise AttributeError(name)

    def __len__(self) -> int:
        return len(self.array)

    def set(self, given: Any, stream: Any = None) -> None:
        cupy_streams.copy(self.array, given, stream)

    def __getitem__(self, where: Any) -> ndarray:
        if isinstance(where, slice):
            return ndarray(self.array[where])
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


def _function(own: Any) -> Any:
    def run(*a: Any, **k: Any) -> Any:
        with np.errstate(all="ignore"):  # a card says nothing
            return _wrapped(own(*map(_bare, a), **{name: _bare(value) for name, value in k.items()}))

    return run


def _add_operators() -> None:
    plain = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "rshift", "and_", "or_", "matmul")
    for name in (*plain, "lt", "gt", "le", "ge", "eq"):
        own = _function(getattr(operator, name))
        setattr(ndarray, f"__{name.strip('_')}__", own)
        if name in plain:
            setattr(ndarray, f"__r{name.strip('_')}__", lambda a, b, own=own: own(b, a))
    for name in ("iadd", "isub", "imul"):
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


def _view(given: np.ndarray, array: np.ndarray) -> ndarray:
    if not np.shares_memory(given, array):
        cupy_streams.clock.use(given)
    return ndarray(array)


def _wrapped(value: Any) -> Any:
    return ndarray(np.asarray(value)) if isinstance(value, np.ndarray | np.generic) else value


class Pool:
    """A memory pool that nothing goes back to but by `free_all_blocks`."""

    def __init__(self) -> None:
        self.bytes = 0

    def total_bytes(self) -> int:
        return self.bytes

    def used_bytes(self) -> int:
        return 0  # the arrays of a test are not from it

    def free_all_blocks(self) -> None:
        self.bytes = 0


pool = Pool()


class OutOfMemoryError(MemoryError):
    pass


class CompileException(Exception):
    pass


class CUDARuntimeError(RuntimeError):
    pass


class CUDADriverError(RuntimeError):
    pass


class Device:
    def __init__(self, number: int | None = None) -> None:
        self.id = number or 0
        self.attributes = {"MaxSharedMemoryPerBlockOptin": MOST_SHARED_BYTES}

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def synchronize(self) -> None:
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
            assert shared_mem <= max(48 << 10, launched.max_dynamic_shared_size_bytes) <= MOST_SHARED_BYTES
            assert all(isinstance(a, ndarray | np.generic) for a in arguments), (
                "sizes of Python numbers are not certain"
            )
            bare = [a.held if isinstance(a, ndarray) else a for a in arguments]
            kernel(grid, block, bare, shared_mem, backward=BACKWARD)

        launched.max_dynamic_shared_size_bytes = 0
        return launched


def _qr(array: ndarray, mode: Any = "reduced") -> Any:
    found = np.linalg.qr(array.held, mode=mode)
    return ndarray(found) if mode == "r" else tuple(map(ndarray, found))


linalg_state = "ignore"


@contextmanager
def errstate(*, linalg: str) -> Iterator[None]:
    global linalg_state
    linalg_state, before = linalg, linalg_state
    yield
    linalg_state = before


def _at(pointer: int, shape: tuple[int, ...], kind: Any) -> np.ndarray:
    return np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(kind)), shape)


def _dpotrf(handle: None, lower: int, n: int, matrix: int, ld: int, room: int, size: int, info: int) -> None:
    """In Fortran's order, of and into the lower triangle; `info` says whether there is a factor."""
    assert lower == LOWER and ld == n and size == n * n
    G = _at(matrix, (n, n), ctypes.c_double).T
    _at(room, (size,), ctypes.c_double)[:] = np.nan
    _at(info, (1,), ctypes.c_int32)[:] = 0
    try:
        below = np.tril_indices(n)
        G[below] = np.linalg.cholesky(G)[below]
    except np.linalg.LinAlgError:
        _at(info, (1,), ctypes.c_int32)[:] = 1


def _eigh(array: ndarray) -> tuple[ndarray, ndarray]:
    values, vectors = np.linalg.eigh(array.held)
    return ndarray(values), ndarray(vectors)


def _svd(array: ndarray, full_matrices: bool = True, compute_uv: bool = True) -> Any:
    found: Any = np.linalg.svd(array.held, full_matrices=full_matrices, compute_uv=compute_uv)
    return tuple(ndarray(part) for part in found) if compute_uv else ndarray(found)


def _solve_triangular(R: ndarray, Z: ndarray, *, trans: str, check_finite: bool) -> ndarray:
    assert not check_finite
    if not R.held.diagonal().all():  # cuBLAS divides by zero and says nothing
        return ndarray(np.full(Z.shape, np.nan))
    return ndarray(scipy.linalg.solve_triangular(R.held, Z.held, trans=trans, check_finite=check_finite))


def _syrk(trans: str, a: ndarray, *, out: ndarray, beta: float, lower: bool) -> None:
    """Only one triangle of `out` changes."""
    assert out.flags.c_contiguous and (a.flags.c_contiguous or a.flags.f_contiguous) and lower
    M = a.held.T if trans == "N" else a.held
    below = np.tril_indices(len(out))
    out.held[below] = beta * out.held[below] + (M.T @ M)[below]


def _asarray(value: Any, dtype: Any = None) -> ndarray:
    return ndarray(np.array(value.held if isinstance(value, ndarray) else value, dtype))


def module() -> ModuleType:
    cupy: Any = ModuleType("cupy")
    cupy.ndarray, cupy.RawModule = ndarray, RawModule
    cupy.asarray, cupy.array = _asarray, _asarray
    cupy.float32, cupy.float64 = np.float32, np.float64
    cupy.asnumpy = lambda a: a.held.copy()
    cupy.from_dlpack = lambda tensor: ndarray(np.from_dlpack(tensor))
    for name in FUNCTIONS:
        own = getattr(np, name)
        setattr(cupy, name, _function(own))
    cupy.get_default_memory_pool, cupy.__version__ = lambda: pool, "0"
    cupy.cublas = SimpleNamespace(syrk=_syrk)
    cupy.linalg = SimpleNamespace(qr=_qr, eigh=_eigh, svd=_svd)
    cupy.cuda = SimpleNamespace(
        Device=Device,
        compiler=SimpleNamespace(CompileException=CompileException),
        memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
        runtime=SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError,
            pointerGetAttributes=cupy_streams.pointer_attributes,
            getDeviceProperties=lambda number: {"name": b"a stand-in"},
        ),
        Stream=cupy_streams.Stream,
        Event=cupy_streams.Event,
        get_current_stream=lambda: cupy_streams.NULL,
        alloc_pinned_memory=cupy_streams.alloc_pinned_memory,
        driver=SimpleNamespace(CUDADriverError=CUDADriverError),
    )
    return cupy


@contextmanager
def imported(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The stand-in as `cupy`, for one test."""
    cupy, cupyx, linalg = module(), ModuleType("cupyx"), ModuleType("cupyx.scipy.linalg")
    cupyx.empty_pinned = cupy_streams.empty_pinned  # type: ignore[attr-defined]
    cupyx.errstate = errstate  # type: ignore[attr-defined]
    linalg.solve_triangular = _solve_triangular  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        for name, value in (("cupy", cupy), ("cupyx", cupyx), ("cupyx.scipy.linalg", linalg)):
            patch.setitem(sys.modules, name, value)
        patch.setitem(sys.modules, "cupyx.scipy", ModuleType("cupyx.scipy"))
        for name in ("cuda", "cuda.device"):
            patch.setitem(sys.modules, f"cupy.{name}", cuda := ModuleType(f"cupy.{name}"))
            cuda.get_cusolver_handle = lambda: None  # type: ignore[attr-defined]
        libraries = {
            "cublas": SimpleNamespace(CUBLAS_FILL_MODE_LOWER=LOWER),
            "cusolver": SimpleNamespace(dpotrf=_dpotrf, dpotrf_bufferSize=lambda handle, lower, n, matrix, ld: n * n),
        }
        libs = ModuleType("cupy_backends.cuda.libs")
        libs.__dict__.update(libraries)
        for name in ("cupy_backends", "cupy_backends.cuda"):
            patch.setitem(sys.modules, name, ModuleType(name))
        patch.setitem(sys.modules, libs.__name__, libs)
        patch.setitem(sys.modules, "cupyx.scipy.sparse", cupy_sparse.module(ndarray))
        yield cupy
        cupy_streams.forget()
