"""Where batches are: on the host or on a card, all in one place."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from ..errors import InvalidTypeError
from ..kernels import on_card

__all__ = ["card_of", "check_place", "module_of", "working_on"]


def card_of(array: Any) -> int | None:
    """The card's number; None for the host."""
    return array.device.id if on_card(array) else None


def module_of(array: Any) -> Any:
    """NumPy, or CuPy for an array on a card."""
    if not on_card(array):
        return np
    from ..kernels.cuda.device import cupy

    return cupy()


def working_on(array: Any) -> AbstractContextManager[Any]:
    """The context for work where the array is."""
    if not on_card(array):
        return nullcontext()
    from ..kernels.cuda.device import on_device

    return on_device(array)


def check_place(X: Any, Y: Any, sums: int | None, begun: bool) -> None:
    """Raise unless X and Y are in one place, and where the sums are if those have begun."""
    here, there = card_of(X), card_of(Y)
    if here != there:
        raise InvalidTypeError(
            f"X and Y must be in one place, got X {_told(here)} and Y {_told(there)}; cupy.asarray(…) copies an array "
            "to the card, cupy.asnumpy(…) to the host"
        )
    if begun and here != sums:
        raise InvalidTypeError(
            f"batches must be where those before were, {_told(sums)}, got X and Y {_told(here)}; cupy.asarray(…) "
            "copies an array to the card, cupy.asnumpy(…) to the host. Or collect statistics of their own and add "
            "those to these, which gives sums on the host"
        )


def _told(card: int | None) -> str:
    return "on the host" if card is None else f"on card {card}"
