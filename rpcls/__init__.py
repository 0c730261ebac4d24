"""rpcls: tall least squares, min ‖Ax − b‖, in as few looks at the rows as possible.

The road: rows → `compress` → `CompressedProblem` → solver → `Solution`. `lstsq` travels it in one call.

>>> import numpy as np, rpcls
>>> rng = np.random.default_rng(0)
>>> A, b = rng.standard_normal((20_000, 30)), rng.standard_normal(20_000)
>>> exact = rpcls.lstsq(A, b)
>>> quick = rpcls.lstsq(A, b, "robust-partial", rng=0)
>>> exact.x.shape == quick.x.shape
True
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as _numpy

if TYPE_CHECKING:  # the same names as _HOMES, for type checkers and editors; a test compares the two
    from . import adapters, datasets, study
    from .calibration import calibrate
    from .certification import certify
    from .compressed import CompressedProblem
    from .errors import (
        ConvergenceWarning,
        DeviceError,
        FormatError,
        InvalidTypeError,
        InvalidValueError,
        MissingDependencyError,
        NonFiniteError,
        NotConvergedError,
        RpclsError,
        RpclsWarning,
        SketchWarning,
        SourceError,
    )
    from .front_door import compress, lstsq
    from .multipass import Direct, IterativeHessianSketch, NormalEquations, SketchAndPrecondition
    from .onepass import (
        Absolute,
        CombinedCompressed,
        FullyCompressed,
        PartiallyCompressed,
        RobustFullyCompressed,
        RobustPartiallyCompressed,
    )
    from .planning import Plan, PlannedSolver, plan
    from .random import STREAM_VERSION, Key
    from .rates import Rates
    from .sizes import SketchSize, suggest_sketch_size
    from .sketches import (
        SRHT,
        BlockSRHT,
        CountSketch,
        Gaussian,
        LeverageSampling,
        Rademacher,
        RowSampling,
        SampledRows,
        SketchFamily,
        SketchOperator,
        SparseSign,
    )
    from .solution import ErrorBound, Solution, Status
    from .sources import RowBlocks

__version__ = "0.1.0.dev0"

# Public names and the modules they live in: each is imported when it is first used.
_HOMES = {
    ".": ("adapters", "datasets", "study"),
    ".calibration": ("calibrate",),
    ".certification": ("certify",),
    ".compressed": ("CompressedProblem",),
    ".errors": (
        "ConvergenceWarning",
        "DeviceError",
        "FormatError",
        "InvalidTypeError",
        "InvalidValueError",
        "MissingDependencyError",
        "NonFiniteError",
        "NotConvergedError",
        "RpclsError",
        "RpclsWarning",
        "SketchWarning",
        "SourceError",
    ),
    ".front_door": ("compress", "lstsq"),
    ".multipass": ("Direct", "IterativeHessianSketch", "NormalEquations", "SketchAndPrecondition"),
    ".onepass": (
        "Absolute",
        "CombinedCompressed",
        "FullyCompressed",
        "PartiallyCompressed",
        "RobustFullyCompressed",
        "RobustPartiallyCompressed",
    ),
    ".sizes": ("SketchSize", "suggest_sketch_size"),
    ".planning": ("Plan", "PlannedSolver", "plan"),
    ".random": ("STREAM_VERSION", "Key"),
    ".rates": ("Rates",),
    ".sketches": (
        "SRHT",
        "BlockSRHT",
        "CountSketch",
        "Gaussian",
        "LeverageSampling",
        "Rademacher",
        "RowSampling",
        "SampledRows",
        "SketchFamily",
        "SketchOperator",
        "SparseSign",
    ),
    ".solution": ("ErrorBound", "Solution", "Status"),
    ".sources": ("RowBlocks",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if home == ".":
        return importlib.import_module(f".{name}", __name__)
    value = getattr(importlib.import_module(home, __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
