"""Gaussian and Rademacher: dense operators, realised a few columns at a time and applied by BLAS."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..kernels import lanes
from .base import SketchFamily, SketchOperator, Sums
from .moments import Running, row_blocks

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Gaussian", "Rademacher"]

_BLOCK_BYTES = 8 << 20  # of S realised at a time


class _Dense(SketchFamily):
    @abstractmethod
    def _kernel(self) -> Callable[[np.uint64, int, np.ndarray], None]:
        """The kernel that fills rows of its last argument with columns of √d·S."""

    def columns(self, S: SketchOperator, start: int, stop: int) -> np.ndarray:
        out = np.empty((stop - start, S.sketch_size))
        self._kernel()(np.uint64(S.key.value), start, out)
        out *= 1 / np.sqrt(S.sketch_size)
        return out.T

    def sweep(
        self,
        S: SketchOperator,
        A: np.ndarray,
        b: np.ndarray,
        weight: np.ndarray | None,
        start: int,
        workers: int,
        scale: tuple[float, float] = (1.0, 1.0),
    ) -> Sums:
        d, dtype, fill, key = S.sketch_size, A.dtype, self._kernel(), np.uint64(S.key.value)
        step = int(np.clip(_BLOCK_BYTES // (d * dtype.itemsize), 16, 8192))
        running = Running(A.shape[1], b.shape[1])
        SA, Sb, S1 = np.zeros((d, A.shape[1]), dtype), np.zeros((d, b.shape[1]), dtype), np.zeros(d)
        for block in row_blocks(A, b, weight, scale, step):
            count = block.stop - block.first
            St = np.empty((count, d), dtype)
            cuts = np.linspace(0, count, min(16, count) + 1).astype(int)
            pieces = [(key, start + block.first + i, St[i:j]) for i, j in itertools.pairwise(cuts)]
            lanes.run(fill, pieces, workers)
            SA += St.T @ block.A.astype(dtype, copy=False)
            Sb += St.T @ block.b.astype(dtype, copy=False)
            S1 += St.T.astype(np.float64, copy=False) @ block.root
            running.add(block)
        factor = dtype.type(1 / np.sqrt(d))
        return running.sums(SA * factor, Sb * factor, S1 / np.sqrt(d))


@dataclass(frozen=True)
class Gaussian(_Dense):
    """Independent normal entries of variance 1/d: the sketch whose theory is exact.

    With d ≥ (√n + √(2 ln(2/δ)))²/η² it preserves lengths on the range within 1 ± η with probability 1 − δ [1]_. The
    product costs 2dmn flops, so it is for study and for small problems; SparseSign does as well for far less.

    References
    ----------
    .. [1] K. R. Davidson, S. J. Szarek, "Local operator theory, random matrices and Banach spaces", 2001, Theorem
       II.13, doi:10.1016/S1874-5849(01)80010-3.

    Examples
    --------
    >>> import numpy as np, rpcls
    >>> S = rpcls.Gaussian().sample(400, m=3, rng=0).toarray()
    >>> bool(np.all(abs(S.T @ S - np.eye(3)) < 0.2))
    True
    """

    def _kernel(self) -> Callable[[np.uint64, int, np.ndarray], None]:
        from ..kernels.cpu import gaussian

        return gaussian.columns


@dataclass(frozen=True)
class Rademacher(_Dense):
    """Independent entries ±1/√d with equal probability; behaves like Gaussian and is cheaper to make.

    Subgaussian: d = O((n + log 1/δ)/η²) preserves lengths on the range within 1 ± η with probability 1 − δ [1]_. The
    product costs 2dmn flops.

    References
    ----------
    .. [1] D. Achlioptas, "Database-friendly random projections", JCSS 66 (2003), doi:10.1016/S0022-0000(03)00025-4.

    Examples
    --------
    >>> import numpy as np, rpcls
    >>> np.unique(rpcls.Rademacher().sample(4, m=100, rng=0).toarray())
    array([-0.5,  0.5])
    """

    def _kernel(self) -> Callable[[np.uint64, int, np.ndarray], None]:
        from ..kernels.cpu import rademacher

        return rademacher.columns
