"""How each family meets rows on a card: which kernel, with what of the operator. SA stays there, sums come back."""

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
    """`SketchFamily.sweep` for CuPy arrays on one card; `Sums` of NumPy arrays but for SA, which stays there."""
    from ..kernels.cuda import sweeps
    from ..kernels.cuda.device import on_device

    family, key, d, k = S.family, S.key.value, S.sketch_size, b.shape[1]
    rows = sweeps.Rows(A, b, weight, start, (float(scale[0]), float(scale[1])))
    with on_device(A):
        if isinstance(family, CountSketch | SparseSign):
            swept = sweeps.sparse_sign(rows, key, d, family.nnz_per_column)
        elif isinstance(family, Gaussian | Rademacher):
            swept = sweeps.dense(rows, type(family).__name__.lower(), key, d)
        elif isinstance(family, SRHT | BlockSRHT):
            swept = sweeps.hadamard(rows, key, d, *family._layout(S))
        elif isinstance(family, RowSampling | SampledRows):
            swept = _picked(rows, S)
        else:
            raise InvalidTypeError(f"{family!r} has no kernel for cards; use rpcls.SparseSign()")
    sides, columns = swept.sides, swept.columns
    return Sums(
        swept.SA,
        sides[:, :k].astype(b.dtype),
        sides[:, k].copy(),
        columns[:, 2:].copy(),
        columns[:, 0].copy(),
        columns[:, 1].copy(),
        swept.right[0].copy(),
        swept.right[1].copy(),
        swept.weight,
    )


def _picked(rows: Any, S: SketchOperator) -> Any:
    """The sweep under an S that picks rows."""
    from ..kernels.cuda import sweeps
    from ..kernels.cuda.device import cupy

    (m, n, k), xp, dtype = rows.shape, cupy(), rows.b.dtype
    index, factor = S.family._picked(S)  # type: ignore[attr-defined]
    here = np.flatnonzero((index >= rows.start) & (index < rows.start + m))
    local, chosen, by = xp.asarray(index[here] - rows.start), xp.asarray(here), xp.asarray(factor[here])
    weight = None if rows.weight is None else rows.weight[local]
    few = rows._replace(A=rows.A[local], b=rows.b[local], weight=weight)
    A, b, root = sweeps.weighted(few, 0, len(here), np.float64)
    SA, sides = xp.zeros((S.sketch_size, n), dtype), np.zeros((S.sketch_size, k + 1))
    SA[chosen] = (A * by[:, None]).astype(dtype)
    sides[here, :k] = xp.asnumpy((b * by[:, None]).astype(dtype))
    sides[here, k] = xp.asnumpy(root * by)
    return sweeps.Swept(SA, sides, *sweeps.exact(rows))
