"""Solvers of a summary: every answer here is a function of one CompressedProblem."""

from __future__ import annotations

from .combined import CombinedCompressed
from .full import FullyCompressed
from .partial import PartiallyCompressed
from .rho import Absolute
from .robust_full import RobustFullyCompressed
from .robust_partial import RobustPartiallyCompressed

__all__ = [
    "Absolute",
    "CombinedCompressed",
    "FullyCompressed",
    "PartiallyCompressed",
    "RobustFullyCompressed",
    "RobustPartiallyCompressed",
]
