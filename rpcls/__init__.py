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

from .compressed import CompressedProblem
from .errors import (
    ConvergenceWarning,
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
from .lstsq import compress, lstsq
from .multipass import Direct
from .onepass import (
    Absolute,
    FullyCompressed,
    PartiallyCompressed,
    RobustFullyCompressed,
    RobustPartiallyCompressed,
)
from .random import STREAM_VERSION, Key
from .sketches import CountSketch, Gaussian, Rademacher, SketchFamily, SketchOperator, SparseSign
from .solution import ErrorBound, Solution, Status
from .sources import RowBlocks

if TYPE_CHECKING:
    from . import datasets, study

__version__ = "0.1.0.dev0"

__all__ = [
    "STREAM_VERSION",
    "Absolute",
    "CompressedProblem",
    "ConvergenceWarning",
    "CountSketch",
    "Direct",
    "ErrorBound",
    "FormatError",
    "FullyCompressed",
    "Gaussian",
    "InvalidTypeError",
    "InvalidValueError",
    "Key",
    "MissingDependencyError",
    "NonFiniteError",
    "NotConvergedError",
    "PartiallyCompressed",
    "Rademacher",
    "RobustFullyCompressed",
    "RobustPartiallyCompressed",
    "RowBlocks",
    "RpclsError",
    "RpclsWarning",
    "SketchFamily",
    "SketchOperator",
    "SketchWarning",
    "Solution",
    "SourceError",
    "SparseSign",
    "Status",
    "compress",
    "datasets",
    "lstsq",
    "study",
]

_LAZY = ("datasets", "study")  # they pull in more than the road needs


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
