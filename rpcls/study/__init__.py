"""Error–time trade-off studies: run, table, plot, report."""

from __future__ import annotations

from .runner import run
from .table import Problem, StudyRow, StudyTable

__all__ = ["Problem", "StudyRow", "StudyTable", "run"]
