"""The same run every time: fixed examples, and one BLAS thread, which is the fastest for matrices this small."""

from __future__ import annotations

import os

for library in ("OPENBLAS", "MKL", "OMP"):  # read when the library is loaded, so before NumPy
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

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
