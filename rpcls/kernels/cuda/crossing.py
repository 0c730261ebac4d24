"""From host memory to the card, a block of arrays at a time, while the card works on the block before.

Two slots take turns. What waits for what, since on a card nothing does by itself:

* The compute stream waits for a slot's `arrived`, recorded on the copy stream behind the copies into it, before it
  reads the block there.
* The copy stream waits for a slot's `free`, recorded on the compute stream behind all that was asked for of the block
  before the last, before it writes over that block. For new memory, `free` is recorded when it is allocated: CuPy hands
  out memory that earlier work of the compute stream may still use.
* A thread waits for `arrived` before it fills the slot's pinned memory again, from which that copy read.
* Arrays in pinned memory are copied from where they are: whoever gives them is not asked for more, which might put
  other rows there, before the copies are over; nor does anything end before they are.

Reading from whoever gives the blocks, and all allocation, is done by the thread that asks for the next block; filling
pinned memory, and asking for the copies, by others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from .device import cupy, on_number

__all__ = ["crossing"]

Arrays = tuple[np.ndarray | None, ...]

_PINNED = 1  # cudaMemoryTypeHost
_FILL_BYTES = 4 << 20  # copied to pinned memory by a thread at a time


def crossing(pieces: Callable[[Callable[[], None]], Iterator[Arrays]], card: int, workers: int) -> Iterator[tuple]:
    """The same arrays on the card, for work on its current stream; a block is there until the next is asked for.

    Parameters
    ----------
    pieces : callable
        Given a function, returns an iterator of blocks, each of arrays of one or two dimensions or None, the same
        number in all of them. It calls the function before it changes memory that it gave.
    workers : int
        Threads that fill pinned memory.
    """
    with on_number(card) as xp:
        compute, copies = xp.cuda.get_current_stream(), xp.cuda.Stream(non_blocking=True)
    slots = _Slot(card), _Slot(card)

    def settle() -> None:
        if slots[0].straight or slots[1].straight:
            copies.synchronize()

    blocks = pieces(settle)

    def send(slot: _Slot) -> Future[list[Any]] | None:
        block = next(blocks, None)
        if block is None:
            return None
        slot.make_room(block, compute)
        return pool.submit(slot.fill, block, copies, pool)

    sent, turn = None, 0
    with ThreadPoolExecutor(workers + 1) as pool:  # one thread waits for those that fill
        try:
            sent = send(slots[0])
            while sent is not None:
                here, turn = sent.result(), 1 - turn
                sent = send(slots[turn])
                with on_number(card):
                    compute.wait_event(slots[1 - turn].arrived)
                yield tuple(here)
                with on_number(card):
                    slots[1 - turn].free = compute.record()
        finally:
            if sent is not None:
                sent.exception()  # wait: it may be about to ask for copies
            with on_number(card):
                copies.synchronize()


class _Slot:
    """Room on the card for one block, and pinned memory on its way there."""

    def __init__(self, card: int) -> None:
        self.card = card
        self.arrived: Any = None
        self.free: Any = None
        self.there: dict[int, Any] = {}
        self.pinned: dict[int, np.ndarray] = {}
        self.straight = False  # whether copies have read from where the arrays were

    def make_room(self, block: Arrays, compute: Any) -> None:
        with on_number(self.card) as xp:
            for number, array in enumerate(block):
                if array is None:
                    continue
                if number not in self.there or self.there[number].nbytes < array.nbytes:
                    self.there[number] = xp.empty(array.nbytes, np.uint8)
                    self.free = compute.record()
                if _lies_pinned(array):
                    self.straight = True
                elif number not in self.pinned or self.pinned[number].nbytes < array.nbytes:
                    if self.arrived is not None:
                        self.arrived.synchronize()
                    memory = xp.cuda.alloc_pinned_memory(array.nbytes)
                    self.pinned[number] = np.frombuffer(memory, np.uint8, array.nbytes)

    def fill(self, block: Arrays, copies: Any, pool: ThreadPoolExecutor) -> list[Any]:
        """Ask for the copies; what the block will be on the card."""
        with on_number(self.card):
            if self.arrived is not None:
                self.arrived.synchronize()
            sources = [None if a is None else self._lines(number, a, pool) for number, a in enumerate(block)]
            copies.wait_event(self.free)
            out: list[Any] = []
            for number, (array, lines) in enumerate(zip(block, sources, strict=True)):
                if array is None or lines is None:
                    out.append(None)
                    continue
                there = self.there[number][: array.nbytes].view(array.dtype).reshape(lines.shape)
                there.set(lines, stream=copies)
                out.append(there.T if _by_columns(array) else there)
            self.arrived = copies.record()
        return out

    def _lines(self, number: int, array: np.ndarray, pool: ThreadPoolExecutor) -> np.ndarray:
        """The array, or its transpose where that is how it lies, C-contiguous in pinned memory."""
        given = array.T if _by_columns(array) else array
        if _lies_pinned(array):
            return given
        target = self.pinned[number][: array.nbytes].view(array.dtype).reshape(given.shape)
        step = max(1, _FILL_BYTES // max(1, given[:1].nbytes))
        tasks = [pool.submit(np.copyto, target[i : i + step], given[i : i + step]) for i in range(0, len(given), step)]
        for task in tasks:
            task.result()
        return target


def _by_columns(array: np.ndarray) -> bool:
    """Whether the entries of a column lie side by side, and those of a row do not."""
    return array.ndim == 2 and array.strides[0] == array.itemsize and array.strides[1] != array.itemsize


def _lies_pinned(array: np.ndarray) -> bool:
    """Whether the array is one piece of pinned memory."""
    if not (array.flags.c_contiguous or array.flags.f_contiguous) or not array.nbytes:
        return False
    first = array.ctypes.data
    attributes = cupy().cuda.runtime.pointerGetAttributes
    return all(attributes(pointer).type == _PINNED for pointer in (first, first + array.nbytes - 1))
