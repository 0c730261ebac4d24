"""Where a study has its rows: in host memory, or on an NVIDIA card; and how memory is measured there."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import InvalidValueError
from .jobs import run_method
from .machine import one_read
from .memory import Gauge
from .methods import BASELINES

__all__ = ["CardGauge", "Host", "OnCard", "place_of"]


class Host:
    """Host memory."""

    gauge: Any = Gauge

    def __init__(self) -> None:
        self.settings: dict[str, str] = {}  # what the report says of the study because the rows are there

    def put(self, array: np.ndarray) -> Any:
        """The array where the methods are to find it."""
        return array

    def facts(self, A: Any) -> dict[str, str]:
        """What the report says of the machine because the rows are there."""
        read = one_read(A)
        return {} if read is None else {"one read of A": f"{read * 1e3:.3g} ms"}

    def baselines(self, wanted: tuple[str, ...]) -> tuple[str, ...]:
        """Those that can run there."""
        return wanted


class OnCard(Host):
    """The current card, to which the rows are moved once."""

    def __init__(self) -> None:
        from ..kernels.cuda.device import imported

        imported('device="cuda"')
        self.gauge = CardGauge
        self.settings = {"device": "cuda: rows, times and peak memory on the card"}

    def put(self, array: np.ndarray) -> Any:
        from ..kernels.cuda.device import on_number

        with on_number(None) as xp:
            return xp.asarray(array)

    def facts(self, A: Any) -> dict[str, str]:
        from ..kernels.cuda.device import on_device

        with on_device(A) as xp:
            name = xp.cuda.runtime.getDeviceProperties(A.device.id)["name"]
            return {"card": name.decode() if isinstance(name, bytes) else str(name), "cupy": str(xp.__version__)}

    def baselines(self, wanted: tuple[str, ...]) -> tuple[str, ...]:
        if wanted:
            labels = ", ".join(BASELINES[name].label for name in wanted)
            self.settings["left out"] = f"{labels}: these need the rows in host memory"
        return ()


def place_of(device: Any) -> Host:
    if device not in (None, "cpu", "cuda"):
        raise InvalidValueError(f"device must be None, 'cpu' or 'cuda', got {device!r}")
    return OnCard() if device == "cuda" else Host()


class CardGauge:
    """`memory.Gauge` for rows on a card: what CuPy's memory pool has there after a run, less what was in use before.

    The pool keeps what is freed, so that is the greatest need, with what was lost to gaps between pieces.
    """

    def __init__(self, A: Any, b: Any, workers: int | None = None) -> None:
        self._A, self._b, self._workers = A, b, workers

    def __enter__(self) -> CardGauge:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def measure(self, solver: Any, family: Any, d: int | None, seed: int) -> tuple[float | None, str]:
        """(peak in MiB, "") or (None, why not). Arguments as in `jobs.run_method`."""
        from ..kernels.cuda.device import cupy

        pool = cupy().get_default_memory_pool()
        pool.free_all_blocks()
        before = pool.used_bytes()
        outcome = run_method(solver, family, d, seed, self._A, self._b, self._workers)
        needed = pool.total_bytes() - before
        if outcome.x is None:
            return None, outcome.message
        return (needed / 2**20, "") if needed > 0 else (None, "CuPy's own memory pool is not in use")
