"""The hot loops. Kernels know arrays and integers only; nothing is validated here."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

__all__ = ["of", "of_tensor", "on_card", "on_host"]


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


def of_tensor(value: Any) -> Any:
    """The CuPy array of the memory of a torch tensor on a card; anything else as it is."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(value, torch.Tensor) or not value.is_cuda:
        return value
    from .cuda.device import sharing

    return sharing(value)
