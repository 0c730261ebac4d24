"""The same run every time: fixed examples, the committed rates, and one BLAS thread, the fastest for small matrices."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

for library in ("OPENBLAS", "MKL", "OMP"):  # read when the library is loaded, so before NumPy
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")
os.environ["RPCLS_RATES"] = os.path.join(os.path.dirname(__file__), "none")  # plans by the committed table

import cupy_stand_in  # noqa: E402
import pytest  # noqa: E402
from host_cuda import needs_compiler  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

from rpcls.kernels import lanes  # noqa: E402

settings.register_profile(
    "rpcls",
    derandomize=True,
    deadline=None,
    max_examples=25,
    print_blob=False,
    suppress_health_check=[HealthCheck.too_slow],  # the first example may compile a kernel
)
settings.load_profile("rpcls")

# Cut the small problems of the tests into several lanes, too, as large ones are.
lanes._LANE_ROWS = 2048


@pytest.fixture(scope="module")
def load() -> Iterator[Callable[[str], ModuleType]]:
    """Import a module of benchmarks/ by name; what was loaded is forgotten afterwards."""
    folder = str(Path(__file__).resolve().parent.parent / "benchmarks")
    before = set(sys.modules)
    sys.path.insert(0, folder)
    yield importlib.import_module
    sys.path.remove(folder)
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(folder):
            del sys.modules[name]


@pytest.fixture(params=[pytest.param("stand-in", marks=needs_compiler), pytest.param("cupy", marks=pytest.mark.gpu)])
def xp(request: pytest.FixtureRequest) -> Iterator[Any]:
    """CuPy: the stand-in, and with `pytest -m gpu` the real one."""
    if request.param == "stand-in":
        with pytest.MonkeyPatch.context() as patch, cupy_stand_in.imported(patch) as stand_in:
            yield stand_in
        return
    cupy = pytest.importorskip("cupy", reason="needs CuPy, which is not installed")
    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        pytest.skip(f"needs an NVIDIA GPU: {error}")
    yield cupy


@pytest.fixture
def stand_in() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch, cupy_stand_in.imported(patch) as module:
        yield module
