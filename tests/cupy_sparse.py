"""`cupyx.scipy.sparse` of the CuPy stand-in: what is asked of its matrices, by SciPy's."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import scipy.sparse as sp


def module(ndarray: type) -> Any:
    """The module, whose matrices hold arrays of that class."""
    sparse: Any = ModuleType("cupyx.scipy.sparse")

    class Matrix:
        format: str
        parts: tuple[str, ...]

        def __init__(self, given: Any, shape: Any = None) -> None:
            if sp.issparse(given):
                given = given.asformat(self.format)
                held = [ndarray(np.array(getattr(given, name))) for name in self.parts]
                shape = given.shape
            else:
                held = list(given)
            for name, part in zip(self.parts, held, strict=True):
                setattr(self, name, part)
            if self.data.dtype.char not in "?fdFD":
                raise ValueError("Only bool, float32, float64, complex64 and complex128 are supported")
            self.shape, self.ndim, self.dtype, self.nnz = shape, 2, self.data.dtype, self.data.size

        data: Any

        def __array__(self, *_: Any, **__: Any) -> np.ndarray:
            raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`.")

        def get(self) -> Any:
            held = tuple(getattr(self, name).array.copy() for name in self.parts)
            data = (held[0], (held[1], held[2])) if self.format == "coo" else held
            return getattr(sp, f"{self.format}_matrix")(data, shape=self.shape)

        def tocsr(self) -> Any:
            return self if self.format == "csr" else sparse.csr_matrix(self.get().tocsr())

        def copy(self) -> Any:
            return type(self)([getattr(self, name).copy() for name in self.parts], self.shape)

        def astype(self, dtype: Any) -> Any:
            return type(self)([self.data.astype(dtype), *(getattr(self, n) for n in self.parts[1:])], self.shape)

        @property
        def has_canonical_format(self) -> bool:
            held = self.get()
            return bool(held.has_canonical_format)

        def sum_duplicates(self) -> None:
            held = self.get()
            held.sum_duplicates()
            self.__init__(held)

    for name in ("csr", "csc", "coo"):
        parts = ("data", "row", "col") if name == "coo" else ("data", "indices", "indptr")
        made = type(f"{name}_matrix", (Matrix,), {"format": name, "parts": parts})
        made.__module__ = f"cupyx.scipy.sparse._{name}"
        setattr(sparse, made.__name__, made)
    return sparse
