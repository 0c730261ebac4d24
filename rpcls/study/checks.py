"""The input of a study, checked once at the border."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..errors import InvalidTypeError, InvalidValueError, NonFiniteError
from .methods import BASELINES

__all__ = ["as_baselines", "as_matrix", "as_ratios", "as_repeats", "as_target"]


def as_matrix(A: Any) -> np.ndarray:
    A = np.asarray(A)
    if A.dtype.kind in "biu":
        A = A.astype(np.float64)
    if A.dtype not in (np.float32, np.float64):
        raise InvalidTypeError(f"A must be float32 or float64, or integers or booleans, got {A.dtype}")
    if A.ndim != 2 or A.shape[1] == 0:
        raise InvalidValueError(f"A must have two dimensions and at least one column, got shape {A.shape}")
    if not A.shape[0] > A.shape[1]:
        raise InvalidValueError(f"a study needs more rows than columns, got A of shape {A.shape}")
    if not np.isfinite(_total(A)):
        bad = np.argwhere(~np.isfinite(A))
        if len(bad):
            raise NonFiniteError(f"A[{bad[0][0]}, {bad[0][1]}] is {A[tuple(bad[0])]}; remove or fill such rows first")
    return A


def as_target(b: Any, name: str, A: np.ndarray) -> np.ndarray:
    b = np.asarray(b)
    if b.dtype.kind not in "biuf" or b.dtype == np.float16:
        raise InvalidTypeError(f"target {name!r} must hold real numbers, got {b.dtype}")
    if b.shape != (len(A),):
        raise InvalidValueError(f"target {name!r} must have shape ({len(A)},) to match A {A.shape}, got {b.shape}")
    b = np.ascontiguousarray(b, dtype=A.dtype)
    if not np.all(np.isfinite(b)):
        first = int(np.flatnonzero(~np.isfinite(b))[0])
        raise NonFiniteError(f"target {name!r} is {b[first]} at row {first}; remove or fill such rows first")
    return b


def _total(A: np.ndarray) -> float:
    with np.errstate(all="ignore"):
        return float(A.sum(dtype=np.float64))


def as_ratios(sizes: Any) -> tuple[float, ...]:
    sizes = [sizes] if isinstance(sizes, int | float) else list(sizes)
    for size in sizes:
        number = isinstance(size, int | float | np.integer | np.floating) and not isinstance(size, bool)
        if not number or not (math.isfinite(size) and size > 0):
            raise InvalidValueError(f"sketch_sizes must be positive multiples of n, such as 1.2 or 4, got {size!r}")
    if not sizes:
        raise InvalidValueError("sketch_sizes is empty; give multiples of n, such as 1.2, 2, 4, 10")
    return tuple(sorted({float(size) for size in sizes}))


def as_repeats(repeats: Any) -> int:
    if isinstance(repeats, bool) or not isinstance(repeats, int | np.integer):
        raise InvalidTypeError(f"repeats must be an int, got {type(repeats).__name__} {repeats!r}")
    if repeats < 1:
        raise InvalidValueError(f"repeats must be at least 1, got {repeats}")
    return int(repeats)


def as_baselines(baselines: Any) -> tuple[str, ...]:
    """The wanted names in the order in which they are run."""
    wanted = [baselines] if isinstance(baselines, str) else list(baselines)
    for name in wanted:
        if name not in BASELINES:
            raise InvalidValueError(f"unknown name in baselines: {name!r}; known: {', '.join(BASELINES)}")
    return tuple(name for name in BASELINES if name in wanted)
