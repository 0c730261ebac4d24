"""Solvers that read the rows themselves, or go back to them."""

from __future__ import annotations

from .direct import Direct

__all__ = ["Direct"]
