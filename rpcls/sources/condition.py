"""A guess of the condition number of A from a few of its rows: it decides what is tried first, and nothing else."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ..factor import Factor
from ..linalg import exponent_of, gram, rank_tolerance, times_power

if TYPE_CHECKING:
    from .base import Source

__all__ = ["guess"]


def guess(source: Source) -> float | None:
    """The condition number of 2n rows from all over A, columns at unit norm; None where it costs more."""
    rows = source.some_rows(2 * source.n_columns)
    if rows is None or not np.isfinite([float(rows.max()), float(rows.min())]).all():
        return None
    if source.intercept:
        rows = rows - rows.sum(axis=0) / len(rows)
    rows = times_power(rows, -exponent_of(rows, axis=0))
    factor = Factor.by_cholesky(gram(rows), rank_tolerance(source.dtype), math.inf)
    return None if factor is None else factor.condition
