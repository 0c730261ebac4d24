"""How each family meets rows on a card: which kernel, with what of the operator; the sums come back to the host."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import InvalidTypeError
from .base import SketchOperator, Sums
from .dense import Gaussian, Rademacher
from .hadamard import SRHT, BlockSRHT
from .sampling import RowSampling, SampledRows
from .sparse_sign import CountSketch, SparseSign

__all__ = ["sweep"]


def sweep(S: SketchOperator, A: Any, b: Any, weight: Any, start: int, scale: tuple[float, float] = (1.0, 1.0)) -> Sums:
    """`SketchFamily.sweep` for CuPy arrays on one card; SA stays there, all else of the `Sums` are NumPy arrays."""
    from ..kernels.cuda import sweeps
    from ..kernels.cuda.device import on_device

    family, key, d, k = S.family, S.key.value, S.sketch_size, b.shape[1]
    rows = sweeps.Rows(A, b, weight, start, (float(scale[0]), float(scale[1])))
    with on_device(A) as xp:
        if isinstance(family, CountSketch | SparseSign):
            SA, sums = sweeps.sparse_sign(rows, key, d, family.nnz_per_column)
        elif isinstance(family, Gaussian | Rademacher):
            SA, sums = sweeps.dense(rows, type(family).__name__.lower(), key, d)
        elif isinstance(family, SRHT | BlockSRHT):
            SA, sums = sweeps.hadamard(rows, key, d, *family._layout(S))
        elif isinstance(family, RowSampling | SampledRows):
            SA, sums = _picked(rows, S)
        else:
            raise InvalidTypeError(f"{family!r} has no kernel for cards; use rpcls.SparseSign()")
        n = A.shape[1]
        there, rest = xp.ascontiguousarray(SA[:, :n]), xp.asnumpy(SA[:, n:])
    columns, right = sums[:n], sums[n : n + k]
    return Sums(
        there,
        np.ascontiguousarray(rest[:, :k]),
        rest[:, -1].astype(np.float64),
        columns[:, 2:].copy(),
        columns[:, 0].copy(),
        columns[:, 1].copy(),
        right[:, 0].copy(),
        right[:, 1].copy(),
        float(sums[-1, 1]),
    )


def _picked(rows: Any, S: SketchOperator) -> tuple[Any, np.ndarray]:
    """S[A b 1] for an S that picks rows, and the exact sums."""
    from ..kernels.cuda import sweeps
    from ..kernels.cuda.device import cupy

    (m, n, k), xp, dtype = rows.shape, cupy(), rows.b.dtype
    index, factor = S.family._picked(S)  # type: ignore[attr-defined]
    here = np.flatnonzero((index >= rows.start) & (index < rows.start + m))
    local, chosen, by = xp.asarray(index[here] - rows.start), xp.asarray(here), xp.asarray(factor[here])
    weight = None if rows.weight is None else rows.weight[local]
    few = rows._replace(A=rows.A[local], b=rows.b[local], weight=weight)
    A, b, root = sweeps.weighted(few, 0, len(here), np.float64)
    SA = xp.zeros((S.sketch_size, n + k + 1), dtype)
    for place, part in ((slice(0, n), A), (slice(n, n + k), b), (slice(n + k, None), root[:, None])):
        SA[chosen, place] = (part * by[:, None]).astype(dtype)
    return SA, sweeps.column_sums(rows)
