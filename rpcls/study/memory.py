"""Peak memory of one method, measured in a process of its own that does nothing else.

The parent writes A and b to files once; every child maps them, touches every page, runs the method on a few rows
(so that libraries and compiled kernels are loaded), notes its memory, runs the method, and reports by how much its peak
exceeds the note. Data, interpreter and libraries are thus left out: what remains is what the method allocated.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Gauge"]

_PAGE = 4096


class Gauge:
    """Context manager that keeps the files for as long as methods are measured.

    Examples
    --------
    >>> import numpy as np
    >>> with Gauge(np.ones((5000, 3)), np.ones(5000)) as gauge:
    ...     mib, note = gauge.measure("scipy-cwt", None, 12, 0)
    >>> mib is None or 0 <= mib < 100
    True
    """

    def __init__(self, A: np.ndarray, b: np.ndarray, workers: int | None = None) -> None:
        self._A, self._b, self._workers = A, b, workers
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._trouble = ""

    def __enter__(self) -> Gauge:
        self._folder = tempfile.TemporaryDirectory(prefix="rpcls-study-")
        try:
            for name, array in (("A.npy", self._A), ("b.npy", self._b)):
                np.save(Path(self._folder.name) / name, array)
        except OSError as error:  # no room: the study goes on without memory figures
            self._trouble = f"the data could not be written for the child process: {error.strerror or error}"
        except BaseException:
            self._folder.cleanup()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def measure(self, solver: Any, family: Any, d: int | None, seed: int) -> tuple[float | None, str]:
        """(peak in MiB, "") or (None, why not). Arguments as in `jobs.run_method`."""
        if self._folder is None or self._trouble:
            return None, self._trouble or "measure needs an open Gauge"
        try:
            job = pickle.dumps((self._folder.name, solver, family, d, seed, self._workers))
        except Exception as error:  # a solver defined inside a function, say
            return None, f"the method cannot be sent to a child process: {error}"
        path = os.pathsep.join(p for p in (str(Path(__file__).parents[2]), *sys.path) if p)
        child = subprocess.run(
            [sys.executable, "-c", "from rpcls.study.memory import _child; _child()"],
            input=job,
            capture_output=True,
            env={**os.environ, "PYTHONPATH": path},
            check=False,
        )
        try:
            answer = json.loads(child.stdout.decode().strip().splitlines()[-1])
            return answer["peak_mib"], answer["note"]
        except (IndexError, ValueError, KeyError):
            last = child.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {child.returncode}"]
            return None, f"the child process failed: {last[0]}"


def _child() -> None:
    folder, solver, family, d, seed, workers = pickle.loads(sys.stdin.buffer.read())
    from .jobs import run_method

    A = np.asarray(np.load(Path(folder) / "A.npy", mmap_mode="r"))
    b = np.load(Path(folder) / "b.npy")
    few = min(len(A), max(4 * A.shape[1], 1000))
    run_method(solver, family, d, seed, np.array(A[:few]), b[:few], workers)
    flat = A.ravel(order="K")
    flat[:: max(1, _PAGE // A.itemsize)].sum()
    before = _reset_peak()
    outcome = run_method(solver, family, d, seed, A, b, workers)
    after = _peak()
    failed = outcome.x is None
    peak = None if before is None or after is None or failed else max(0.0, (after - before) / 2**20)
    note = outcome.message if failed else "" if peak is not None else "this system does not tell a process's peak"
    sys.stdout.write(json.dumps({"peak_mib": peak, "note": note}) + "\n")


def _reset_peak() -> int | None:
    """Set the peak to what is in use now, where the system can (Linux), and return it."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:
        pass
    return _peak()


def _peak() -> int | None:
    """Greatest resident memory of this process so far, in bytes."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    except ImportError:
        pass
    try:
        import psutil

        return int(psutil.Process().memory_info().peak_wset)  # type: ignore[attr-defined]
    except (ImportError, AttributeError):
        return None
