"""RowSampling and SampledRows: S picks rows of A and rescales them."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..errors import InvalidTypeError, InvalidValueError
from .base import SketchFamily, SketchOperator, Sums
from .moments import exact_sums

if TYPE_CHECKING:
    from scipy.sparse import csc_array

__all__ = ["RowSampling", "SampledRows"]


class _Rows(SketchFamily):
    """Row r of S is e_iᵀ·factor with (i, factor) = (index[r], factor[r])."""

    @abstractmethod
    def _picked(self, S: SketchOperator) -> tuple[np.ndarray, np.ndarray]:
        """Indices (d,) and factors (d,)."""

    def columns(self, S: SketchOperator, start: int, stop: int) -> csc_array:
        from scipy.sparse import coo_array

        index, factor = self._picked(S)
        here = np.flatnonzero((index >= start) & (index < stop))
        shape = (S.sketch_size, stop - start)
        return coo_array((factor[here], (here, index[here] - start)), shape=shape).tocsc()

    def sweep(
        self,
        S: SketchOperator,
        A: Any,
        b: np.ndarray,
        weight: np.ndarray | None,
        start: int,
        workers: int,
        scale: tuple[float, float] = (1.0, 1.0),
    ) -> Sums:
        (m, n), k, d, dtype = A.shape, b.shape[1], S.sketch_size, A.dtype
        index, factor = self._picked(S)
        here = np.flatnonzero((index >= start) & (index < start + m))
        rows = index[here] - start
        root = np.ones(len(rows)) if weight is None else np.sqrt(weight[rows])
        SA, Sb, S1 = np.zeros((d, n), dtype), np.zeros((d, k), dtype), np.zeros(d)
        picked = A[rows] if isinstance(A, np.ndarray) else A[rows].toarray()
        SA[here] = picked * (root * scale[0] * factor[here])[:, None]
        Sb[here] = b[rows] * (root * scale[1] * factor[here])[:, None]
        S1[here] = root * factor[here]
        return exact_sums(A, b, weight, workers, scale)._replace(SA=SA, Sb=Sb, S1=S1)

    sweep_csr = sweep


@dataclass(frozen=True)
class RowSampling(_Rows):
    """Uniform sampling of d rows of A, each times √(m/d).

    The cheapest sketch to apply, and only for rows of even importance: it preserves lengths on the range within 1 ± η
    with probability 1 − δ when d ≥ 3µ·ln(2n/δ)/η² (µ = m·max leverage, between n and m) [1]_. Where a few rows carry
    the range (coherent A) µ is near m and a sample that misses one of them loses a direction.

    Parameters
    ----------
    replace : bool, default False
        Sample with replacement. Without, the rows are the first d places of a keyed permutation, and d ≤ m.

    References
    ----------
    .. [1] J. A. Tropp, "Improved analysis of the subsampled randomized Hadamard transform", 2011, arXiv:1011.1595,
       Lemma 3.4.

    Examples
    --------
    >>> import numpy as np, rpcls
    >>> S = rpcls.RowSampling().sample(4, m=16, rng=0)
    >>> np.unique(S.toarray()).tolist(), S.toarray().sum(axis=1).tolist()
    ([0.0, 2.0], [2.0, 2.0, 2.0, 2.0])
    """

    mergeable: ClassVar[bool] = False
    replace: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.replace, bool | np.bool_):
            raise InvalidTypeError(f"replace must be True or False, got {self.replace!r}")
        object.__setattr__(self, "replace", bool(self.replace))

    def _picked(self, S: SketchOperator) -> tuple[np.ndarray, np.ndarray]:
        from ..kernels.cpu import permutation

        d, m = S.sketch_size, S.m
        if m is None:
            raise InvalidValueError(f"{self!r} needs the number of rows of A: sample(d, m=…)")
        if not self.replace and d > m:
            raise InvalidValueError(
                f"RowSampling without replacement needs sketch_size ≤ m = {m}, got {d}; lower it, or replace=True"
            )
        if m == 0:
            return np.empty(0, np.int64), np.empty(0)
        index = np.empty(d, np.int64)
        (permutation.draw if self.replace else permutation.permute)(np.uint64(S.key.value), m, 0, index)
        return index, np.full(d, np.sqrt(m / d))


@dataclass(frozen=True)
class SampledRows(_Rows):
    """Rows that were chosen already: row r of S picks row indices[r] of A, times factors[r].

    What `LeverageSampling` prepares; not random itself, so the key of its operator is not used.

    Parameters
    ----------
    indices : tuple of int
    factors : tuple of float
    sweeps : int, default 0
        Sweeps over A that choosing them took.

    Examples
    --------
    >>> import numpy as np, rpcls
    >>> S = rpcls.SampledRows((2, 0), (1.0, 2.0)).sample(2, m=3, rng=0)
    >>> S @ np.array([5.0, 6.0, 7.0])
    array([ 7., 10.])
    """

    indices: tuple[int, ...]
    factors: tuple[float, ...]
    sweeps: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "indices", tuple(int(i) for i in self.indices))
        object.__setattr__(self, "factors", tuple(float(f) for f in self.factors))
        if len(self.indices) != len(self.factors) or min(self.indices, default=0) < 0:
            raise InvalidValueError(
                f"SampledRows needs as many factors as indices ≥ 0, got {len(self.factors)} and {len(self.indices)}"
            )
        if not np.isfinite(self.factors).all():
            raise InvalidValueError("SampledRows needs finite factors")

    @property
    def minimum_size(self) -> int:
        return max(1, len(self.indices))

    def _picked(self, S: SketchOperator) -> tuple[np.ndarray, np.ndarray]:
        if S.sketch_size != len(self.indices):
            raise InvalidValueError(
                f"sketch_size must be the number of sampled rows, {len(self.indices)}, got {S.sketch_size}"
            )
        return np.array(self.indices, np.int64), np.array(self.factors)
