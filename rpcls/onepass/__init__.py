"""Solvers of a summary: every answer here is a function of one CompressedProblem."""

from __future__ import annotations

from .full import FullyCompressed
from .partial import PartiallyCompressed
from .rho import Absolute
from .robust_full import RobustFullyCompressed
from .robust_partial import RobustPartiallyCompressed

__all__ = [
    "Absolute",
    "FullyCompressed",
    "PartiallyCompressed",
    "RobustFullyCompressed",
    "RobustPartiallyCompressed",
]
