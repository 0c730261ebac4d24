"""The streams of the CuPy stand-in, as late as a card may be: a copy runs only when something waits for it.

The null stream is the host's own order: what it is asked for is done at once. So rows that are swept before they
arrived, and memory that is filled again too early, show as wrong numbers. What a card might do too early cannot be seen
that way: `copy` checks it, by the count of uses of memory that the null stream had made when an event was recorded, and
by the copies that the host itself has waited for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np


class Clock:
    """Uses of memory by the null stream."""

    def __init__(self) -> None:
        self.now = 0
        self.last: dict[int, int] = {}

    def use(self, array: np.ndarray) -> None:
        self.now += 1
        self.last[base(array)] = self.now


clock = Clock()


def base(array: np.ndarray) -> int:
    """The identity of the allocation."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return id(array)


class Event:
    def __init__(self, block: bool = False, disable_timing: bool = False) -> None:
        self.stream: Stream | None = None
        self.place = self.uses = 0

    def record(self, stream: Stream | None = None) -> None:
        self.stream = NULL if stream is None else stream
        self.place, self.uses = self.stream.asked, max(self.stream.seen, clock.now * (self.stream is NULL))

    def synchronize(self) -> None:
        if self.stream is not None:
            self.stream.run(self.place)
            self.stream.waited = max(self.stream.waited, self.place)


class Stream:
    """What is asked of it waits in `todo`; `seen` is how many uses by the null stream it comes after,
    `waited` how many of its tasks the host has waited for."""

    def __init__(self, null: bool = False, non_blocking: bool = False) -> None:
        assert null or non_blocking, "other streams wait for the null stream, and it for them"
        self.todo: list[Callable[[], None]] = []
        self.asked = self.done = self.seen = self.waited = 0
        self.reads: dict[int, int] = {}  # from pinned memory, by address: the place of the last
        self.lock = threading.Lock()

    def ask(self, task: Callable[[], None]) -> None:
        self.todo.append(task)
        self.asked += 1

    def run(self, place: int) -> None:
        with self.lock:
            while self.done < place:
                self.todo.pop(0)()
                self.done += 1

    def record(self, event: Event | None = None) -> Event:
        event = Event() if event is None else event
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        assert event.stream is not None
        if self is NULL:
            event.stream.run(event.place)
        self.seen = max(self.seen, event.uses)

    def synchronize(self) -> None:
        self.record().synchronize()


NULL = Stream(null=True)


def copy(target: np.ndarray, given: Any, stream: Stream | None) -> None:
    """`ndarray.set`."""
    if not isinstance(given, np.ndarray):
        raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
    if target.dtype != given.dtype:
        raise TypeError(f"{given.dtype} array cannot be set to {target.dtype} array")
    if target.shape != given.shape:
        raise ValueError(f"Shape mismatch. Old shape: {target.shape}, new shape: {given.shape}")
    if stream is None or stream is NULL:
        target[...] = given
        return
    assert target.flags.c_contiguous and given.flags.c_contiguous
    assert is_pinned(given), "from pageable memory the copy waits for the host"
    assert stream.seen >= clock.last.get(base(target), 0), "the copy may overtake work on what it writes over"
    address = given.ctypes.data
    assert stream.waited >= stream.reads.get(address, 0), "it may have been filled again while a copy read from it"
    stream.ask(lambda: np.copyto(target, given))
    stream.reads[address] = stream.asked


# -- pinned memory ----------------------------------------------------------------------------------------------------

_pinned: list[np.ndarray] = []


def alloc_pinned_memory(size: int) -> memoryview:
    _pinned.append(np.full(size + 64, 0xEE, np.uint8))  # more than was asked for, as a pool gives
    return memoryview(_pinned[-1])  # type: ignore


def empty_pinned(shape: Any, dtype: Any = float, order: str = "C") -> np.ndarray:
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    return np.frombuffer(alloc_pinned_memory(size), np.uint8, size).view(dtype).reshape(shape, order=order)  # type: ignore


def pointer_attributes(pointer: int) -> SimpleNamespace:
    held = any(0 <= pointer - memory.ctypes.data < memory.nbytes for memory in _pinned)
    return SimpleNamespace(type=1 if held else 0)


def is_pinned(array: np.ndarray) -> bool:
    return pointer_attributes(array.ctypes.data).type == 1


def forget() -> None:
    _pinned.clear()
