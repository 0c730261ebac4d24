"""Sketch sizes."""

from __future__ import annotations

from .sketches import LeverageSampling, SketchFamily

__all__ = ["default_sketch_size"]


def default_sketch_size(n: int, family: SketchFamily | LeverageSampling) -> int:
    """max(4n, 2·family.minimum_size): the size to recommend for a one-pass answer in n unknowns.

    At d = 4n the error of full compression is about √(n/(d − n)) = 0.6 of the residual norm, and robust partial
    compression is within a few per cent of what it reaches at much larger d.
    """
    return max(4 * n, 2 * family.minimum_size)
