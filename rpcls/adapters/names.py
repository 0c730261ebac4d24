"""Names of layers: which of them are meant, and what to say when there is no such layer."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable
from typing import Any

from ..errors import InvalidTypeError, InvalidValueError

__all__ = ["chosen", "listed", "unknown"]


def chosen(known: Collection[str], layers: Any, what: str) -> list[str]:
    """Those of the known names that are meant, in their own order.

    Parameters
    ----------
    known : collection of str
    layers : None, str or iterable of str
        As ``target_modules`` of the peft library: a string is a regular expression that has to match a whole name; in a
        list, each entry is a name or the end of names after a dot ("q_proj"). None: all.
    what : str
        What the names are of, for messages: "Linear layers of the model".
    """
    if layers is None:
        return list(known)
    if isinstance(layers, str):
        try:
            pattern = re.compile(layers)
        except re.error as error:
            raise InvalidValueError(f"layers is not a regular expression: {layers!r}: {error}") from error
        found = {name for name in known if pattern.fullmatch(name)}
        if not found:
            raise InvalidValueError(f"layers, {layers!r}, matches none of the {what}{_hint(layers, known)}")
        return [name for name in known if name in found]
    if not isinstance(layers, Iterable):
        raise InvalidTypeError(f"layers must be None, a regular expression or a list of names, got {layers!r}")
    found = set()
    for entry in layers:
        if not isinstance(entry, str):
            raise InvalidTypeError(f"layers must hold names, got {entry!r}")
        here = {name for name in known if name == entry or name.endswith(f".{entry}")}
        if not here:
            raise unknown(entry, known, what)
        found |= here
    if not found:
        raise InvalidValueError(f"layers is empty; leave it None for all {len(known)} {what}")
    return [name for name in known if name in found]


def unknown(name: str, known: Collection[str], what: str) -> InvalidValueError:
    """The error for a name that is none of the known ones."""
    return InvalidValueError(f"{name!r} is none of the {what}{_hint(name, known)}")


def listed(names: Collection[str], most: int = 6) -> str:
    """The first of the names, and how many there are."""
    shown = ", ".join(repr(name) for name in list(names)[:most])
    return shown + (f", … ({len(names)} in all)" if len(names) > most else "")


def _hint(name: str, known: Collection[str]) -> str:
    if not known:
        return ", of which there are none"
    near = difflib.get_close_matches(name, known, n=4, cutoff=0.5)
    near += [other for other in known if other.endswith(f".{name.rpartition('.')[2]}") and other not in near][:2]
    return f"; near it: {listed(near)}" if near else f"; there are {listed(known)}"
