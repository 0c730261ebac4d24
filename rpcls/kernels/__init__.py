"""The hot loops. Kernels know arrays and integers only; nothing is validated here."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

__all__ = ["of", "on_card", "on_host"]


def on_card(array: Any) -> bool:
    """Whether it is a CuPy array: nothing is, while nobody has imported CuPy."""
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(array, cupy.ndarray)


def of(array: Any) -> ModuleType:
    """The set of kernels for an array: `cuda` for a CuPy array, else `cpu`."""
    if on_card(array):
        from . import cuda

        return cuda
    from . import cpu

    return cpu


def on_host(array: Any) -> Any:
    """A copy in host memory of an array on a card; anything else as it is."""
    return sys.modules["cupy"].asnumpy(array) if on_card(array) else array
