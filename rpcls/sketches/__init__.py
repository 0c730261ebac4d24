"""What S is: one family a file."""

from __future__ import annotations

from .base import SketchFamily, SketchOperator
from .dense import Gaussian, Rademacher
from .hadamard import SRHT, BlockSRHT
from .leverage import LeverageSampling
from .sampling import RowSampling, SampledRows
from .sparse_sign import CountSketch, SparseSign

__all__ = [
    "FAMILIES",
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
]

FAMILIES: dict[str, type[SketchFamily]] = {
    family.__name__: family
    for family in (CountSketch, SparseSign, Gaussian, Rademacher, SRHT, BlockSRHT, RowSampling, SampledRows)
}
