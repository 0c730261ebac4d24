"""Problems with known difficulty, and real data that needs no download."""

from __future__ import annotations

from .real import diabetes, photo_patches, photo_target
from .record import Dataset
from .synthetic import synthetic

__all__ = ["Dataset", "diabetes", "photo_patches", "photo_target", "synthetic"]
