"""What a study ran on: processor, memory, versions. Nothing that names a person, a host or a folder."""

from __future__ import annotations

import os
import platform
import time
from importlib import metadata

import numpy as np

__all__ = ["describe_machine", "one_read", "usable_cores"]

_PACKAGES = ("rpcls", "numpy", "scipy", "numba")


def usable_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe_machine() -> dict[str, str]:
    """Facts for the report; those that need psutil or threadpoolctl are left out where these are missing."""
    facts = {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "processor": _processor(),
        "cores usable": str(usable_cores()),
    }
    try:
        import psutil

        facts["memory"] = f"{psutil.virtual_memory().total / 2**30:.0f} GiB"
    except ImportError:
        pass
    facts["system"] = f"{platform.system()} {platform.machine()}"
    facts["Python"] = f"{platform.python_implementation()} {platform.python_version()}"
    for package in _PACKAGES:
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            facts[package] = "not installed as a package"
    blas = _blas()
    if blas:
        facts["BLAS"] = blas
    return facts


def one_read(A: np.ndarray) -> float | None:
    """Seconds of the fastest of three multi-threaded dot products f·f over all of A: the unit of the cost of a sweep.

    None when A is not contiguous, where that would need a copy.
    """
    if not (A.flags.c_contiguous or A.flags.f_contiguous):
        return None
    flat = A.ravel(order="K")
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        np.dot(flat, flat)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.lower().startswith("model name"):
                    return " ".join(line.split(":", 1)[1].split())
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _blas() -> str:
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return ""
    found = {
        f"{item['internal_api']} {item['version']}, {item['num_threads']} threads"
        for item in threadpool_info()
        if item["user_api"] == "blas"
    }
    return "; ".join(sorted(found))
