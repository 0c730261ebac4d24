"""The exact sums of a sweep, for families whose kernels do not take them on the way: a block of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from . import tiled
from .base import Sums

__all__ = ["Block", "Running", "exact_sums", "row_blocks"]

_STEP_BYTES = 4 << 20  # sparse rows whose sums are taken at a time
_PANEL_ROWS = 64


def exact_sums(A: Any, b: np.ndarray, weight: np.ndarray | None, workers: int, scale: tuple[float, float]) -> Sums:
    """The sums of a sweep alone; SA, Sb and S1 of what is returned mean nothing. A is an array or CSR."""
    if not isinstance(A, np.ndarray):
        running = Running(A.shape[1], b.shape[1])
        for block in row_blocks(A, b, weight, scale, max(64, _STEP_BYTES // (8 * A.shape[1]))):
            running.add(block)
        return running.sums(*np.zeros((3, 1, 1)))
    from ..kernels.cpu import panel as kernels

    def kernel(x, A, stride, b, weights, rows: tuple[int, int], group, panel, side, out, out_side, sums, totals):
        kernels.sweep(
            x, A, stride, b, weights, *rows, group.starts, group.wide, *scale, panel, side, _PANEL_ROWS,
            out_side, sums, totals,
        )  # fmt: skip

    return tiled.sweep(tiled.Cut(A, 1), A, b, weight, 1.0, workers, kernel, rows_of_panel=_PANEL_ROWS)


class Block(NamedTuple):
    """Rows first..stop, weighted and scaled: A (rows, n), float64, an array or CSR; b (rows, k); root = √w (rows,)."""

    first: int
    stop: int
    A: Any
    b: np.ndarray
    root: np.ndarray


def row_blocks(
    A: Any, b: np.ndarray, weight: np.ndarray | None, scale: tuple[float, float], step: int
) -> Iterator[Block]:
    """√w·A·scale[0] and √w·b·scale[1] in blocks of `step` rows."""
    for first in range(0, A.shape[0], step):
        stop = min(A.shape[0], first + step)
        root = np.ones(stop - first) if weight is None else np.sqrt(weight[first:stop])
        if isinstance(A, np.ndarray):
            rows = np.multiply(A[first:stop], (root * scale[0])[:, None], dtype=np.float64)
        else:
            rows = A[first:stop].astype(np.float64)
            rows.data *= np.repeat(root * scale[0], np.diff(rows.indptr))
        yield Block(first, stop, rows, np.multiply(b[first:stop], (root * scale[1])[:, None], dtype=np.float64), root)


class Running:
    """Sums of n columns and k right-hand sides, added up block by block."""

    def __init__(self, n: int, k: int) -> None:
        self.A1, self.AA, self.Atb = np.zeros(n), np.zeros(n), np.zeros((n, k))
        self.b1, self.bb, self.total = np.zeros(k), np.zeros(k), 0.0

    def add(self, block: Block) -> None:
        A, b, root = block.A, block.b, block.root
        self.A1 += A.T @ root
        self.AA += np.einsum("ij,ij->j", A, A) if isinstance(A, np.ndarray) else A.power(2).sum(axis=0)
        self.Atb += A.T @ b
        self.b1 += root @ b
        self.bb += np.einsum("ij,ij->j", b, b)
        self.total += float(root @ root)

    def sums(self, SA: np.ndarray, Sb: np.ndarray, S1: np.ndarray) -> Sums:
        return Sums(SA, Sb, S1, self.Atb, self.A1, self.AA, self.b1, self.bb, self.total)
