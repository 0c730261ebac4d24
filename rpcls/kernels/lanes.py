"""How work is cut: by shape alone, never by the number of workers, so that results keep their bits.

Rows are cut into lanes, columns into groups of tiles; a task is one lane of one group, has its own accumulator, and
runs a serial compiled kernel in a pool of threads. Lanes are then added in order.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ..errors import InvalidTypeError, InvalidValueError

T = TypeVar("T")

_SPARE_BYTES = 24 << 20  # what the accumulators of all lanes but the first may take
_GROUP_BYTES = 4096  # bytes of a row in one group: a memory page, below which prefetching suffers
_PANEL_BYTES = 512 << 10  # bytes of a panel: its tiles, one at a time, are a fraction of the second-level cache
_LANE_ROWS = 1 << 15  # rows of a lane at least: a task costs some tens of microseconds beside its rows …
_LANE_BYTES = 32 << 20  # … unless they are as much as that
TASKS = 8  # cut columns finer when there would be fewer tasks


def count_workers(workers: int | None) -> int:
    """The number of threads to use: `workers`, else RPCLS_NUM_THREADS, else the processors this process may use."""
    if workers is None:
        text = os.environ.get("RPCLS_NUM_THREADS", "")
        if not text:
            return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if not text.isdecimal() or int(text) < 1:
            raise InvalidValueError(f"RPCLS_NUM_THREADS must be a positive int, got {text!r}")
        return int(text)
    if isinstance(workers, bool) or not isinstance(workers, int | np.integer):
        raise InvalidTypeError(f"workers must be an int or None, got {type(workers).__name__} {workers!r}")
    if workers < 1:
        raise InvalidValueError(f"workers must be at least 1, got {workers}")
    return int(workers)


def run(task: Callable[..., T], arguments: Iterable[tuple[Any, ...]], workers: int) -> list[T]:
    """[task(*a) for a in arguments], in threads."""
    arguments = list(arguments)
    if workers == 1 or len(arguments) == 1:
        return [task(*a) for a in arguments]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(workers, len(arguments))) as pool:
        futures = [pool.submit(task, *a) for a in arguments]
        try:
            return [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            raise


def add_up(results: list[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    """Add what the lanes left, in order, into the first."""
    first = results[0]
    for other in results[1:]:
        for total, part in zip(first, other, strict=True):
            total += part
    return first


def aligned(size: int, dtype: Any, allocate: Callable[..., np.ndarray] = np.zeros) -> np.ndarray:
    """An array that begins on a cache line: unaligned vectors cost two accesses each."""
    dtype = np.dtype(dtype)
    raw = allocate(size * dtype.itemsize + 64, np.uint8)
    skip = -raw.ctypes.data % 64
    return raw[skip : skip + size * dtype.itemsize].view(dtype)


def row_cuts(m: int, row_bytes: int, sketch_size: int, sketch_bytes: int, least: int = 1) -> list[tuple[int, int]]:
    """Row intervals of the lanes: as many as help (at most 64), within the memory that may be spent on them.

    A power of two, so that any small power of two of workers finishes together. `least` lanes are worth their memory.
    """
    rows = max(4 * sketch_size, min(_LANE_ROWS, _LANE_BYTES // max(1, row_bytes)))
    most = min(64, max(least, 1 + _SPARE_BYTES // max(1, sketch_bytes)), m // rows)
    lanes = 1 << max(1, most).bit_length() - 1
    edges = np.linspace(0, m, lanes + 1).astype(np.int64)
    return [(int(a), int(b)) for a, b in itertools.pairwise(edges)]


class Tiles(NamedTuple):
    """A group of columns: where its tiles begin, and how many of them are wide."""

    starts: np.ndarray
    wide: int
    widths: tuple[int, ...]

    @property
    def columns(self) -> int:
        """Columns of all tiles together; more than the group has when the last tile overlaps its neighbour."""
        return sum(self.widths)


def column_groups(
    n: int,
    itemsize: int,
    lanes: int,
    wide_bytes: int,
    narrow_bytes: int,
    group_bytes: int | None = None,
    tasks: int = TASKS,
) -> list[Tiles]:
    """Cut n columns into groups of tiles.

    Wide tiles come first, narrow ones cover the rest; the last of them is moved back to end at column n, so that it
    repeats columns rather than reaching beyond the matrix (unless n is below its width).
    """
    broad, thin = wide_bytes // itemsize, narrow_bytes // itemsize
    wide_tiles = n // broad
    starts = [broad * t for t in range(wide_tiles)]
    widths = [broad] * wide_tiles
    for begin in range(broad * wide_tiles, n, thin):
        starts.append(max(0, min(begin, n - thin)))
        widths.append(thin)
    per_group = max(1, (group_bytes or _GROUP_BYTES) // wide_bytes)
    while per_group > 2 and lanes * -(-wide_tiles // per_group) < tasks:
        per_group //= 2
    groups = max(1, -(-wide_tiles // per_group))
    edges = np.linspace(0, wide_tiles, groups + 1).astype(int)
    cuts = [(int(a), int(b)) for a, b in itertools.pairwise(edges)]
    cuts[-1] = (cuts[-1][0], len(starts))
    return [Tiles(np.array(starts[a:b], np.int64), min(b, wide_tiles) - a, tuple(widths[a:b])) for a, b in cuts]


def panel_rows(columns: int, itemsize: int) -> int:
    """Rows of a panel: a multiple of 8 that fills its share of the cache."""
    return int(np.clip(_PANEL_BYTES // max(1, columns * itemsize), 64, 4096)) // 8 * 8
