"""Solvers that read the rows themselves, or go back to them."""

from __future__ import annotations

from .direct import Direct
from .hessian_sketch import IterativeHessianSketch
from .normal import NormalEquations
from .precondition import SketchAndPrecondition

__all__ = ["Direct", "IterativeHessianSketch", "NormalEquations", "SketchAndPrecondition"]
