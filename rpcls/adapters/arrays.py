"""What users hand in, as float64 arrays: NumPy, lists, CuPy, and torch tensors of any float type."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import InvalidTypeError, InvalidValueError, MissingDependencyError, NonFiniteError
from ..kernels import of_tensor, on_card, on_host
from .places import module_of

__all__ = ["check_finite", "count", "matrix", "narrow", "number", "plain", "tokens", "wide"]


def plain(value: Any, name: str) -> np.ndarray:
    """A NumPy array of real numbers, in its own dtype where NumPy knows it; bfloat16 becomes float32, exactly."""
    if hasattr(value, "detach") and hasattr(value, "cpu"):  # a torch tensor
        value = _float(value.detach().cpu()).numpy()
    try:
        array = np.asarray(on_host(value))
    except ValueError as error:
        raise InvalidValueError(f"{name} must be an array of numbers: {error}") from error
    return _real(array, name)


def tokens(value: Any, name: str) -> Any:
    """As `plain`, but what lies on a card stays there, as a CuPy array.

    Torch tensors share their memory with it; without CuPy they are copied to the host.
    """
    if getattr(value, "is_cuda", False):
        try:
            value = of_tensor(_float(value.detach()))
        except MissingDependencyError:
            return plain(value, name)
    return _real(value, name) if on_card(value) else plain(value, name)


def _float(tensor: Any) -> Any:
    """A torch tensor in a dtype that NumPy has."""
    return tensor.float() if any(kind in str(tensor.dtype) for kind in ("bfloat16", "float8")) else tensor


def _real(array: Any, name: str) -> Any:
    if array.dtype.name == "bfloat16":  # of ml_dtypes
        return array.astype(np.float32)
    if array.dtype.kind not in "fiub":
        raise InvalidTypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
    return array


def wide(array: Any) -> Any:
    """The array in float64, C order, where it is, without a copy if it is that already."""
    return module_of(array).ascontiguousarray(array, dtype=np.float64)


def narrow(array: Any) -> Any:
    """The array in float32 if that holds its numbers for sure, else in float64; not copied if it is either already."""
    dtype = np.float32 if array.dtype.kind == "f" and array.dtype.itemsize <= 4 else np.float64
    return array.astype(dtype, copy=False)


def matrix(value: Any, name: str, shape: tuple[int | None, int | None], meaning: str) -> np.ndarray:
    """A finite float64 matrix; None in `shape` leaves a size open, and `meaning` says what the shape is."""
    array = plain(value, name)
    if array.ndim != 2 or any(want is not None and want != got for want, got in zip(shape, array.shape, strict=True)):
        wanted = ", ".join("…" if want is None else str(want) for want in shape)
        raise InvalidValueError(f"{name} must have shape {meaning} = ({wanted}), got {array.shape}")
    array = wide(array)
    check_finite(array, name)
    return array


def check_finite(array: Any, name: str, first: int = 0) -> None:
    """Raise NonFiniteError naming the first entry that is NaN or infinite; row `first` of the whole is row 0 here."""
    xp = module_of(array)
    if array.dtype.kind != "f" or bool((finite := xp.isfinite(array)).all()):
        return
    where = tuple(int(v) for v in np.unravel_index(int(xp.argmax(~finite)), array.shape))
    value = float(array[where])
    place = ", ".join(str(v) for v in (where[0] + first, *where[1:]))
    raise NonFiniteError(f"{name}[{place}] is {value}: every entry must be finite; nothing was added")


def count(value: Any, name: str, least: int = 1, most: int | None = None, why: str = "") -> int:
    """An int in [least, most]."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InvalidTypeError(f"{name} must be an int, got {type(value).__name__} {value!r}")
    if value < least or (most is not None and value > most):
        limits = f"at least {least}" if most is None else f"in {least} … {most}"
        raise InvalidValueError(f"{name} must be {limits}{why}, got {value}")
    return int(value)


def number(value: Any, name: str, least: float = 0.0, *, strict: bool = False) -> float:
    """A finite float, at least `least` (more than it if strict)."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise InvalidTypeError(f"{name} must be a number, got {type(value).__name__} {value!r}")
    result = float(value)
    if not np.isfinite(result) or result < least or (strict and result == least):
        raise InvalidValueError(f"{name} must be {'more than' if strict else 'at least'} {least:g}, got {value}")
    return result
