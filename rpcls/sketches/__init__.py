"""What S is: one family a file."""

from __future__ import annotations

from .base import SketchFamily, SketchOperator
from .dense import Gaussian, Rademacher
from .sparse_sign import CountSketch, SparseSign

__all__ = ["FAMILIES", "CountSketch", "Gaussian", "Rademacher", "SketchFamily", "SketchOperator", "SparseSign"]

FAMILIES: dict[str, type[SketchFamily]] = {
    family.__name__: family for family in (CountSketch, SparseSign, Gaussian, Rademacher)
}
