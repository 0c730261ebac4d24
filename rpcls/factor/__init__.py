"""M⁺ and (MᵀM)⁺ from a triangular factor of M, in host memory or on a card."""

from __future__ import annotations

from .host import SQUARED, Factor
from .triangles import eliminated

__all__ = ["SQUARED", "Factor", "eliminated"]
