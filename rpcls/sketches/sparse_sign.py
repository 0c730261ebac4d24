"""SparseSign and CountSketch: a few ±1 in every column of S."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InvalidTypeError, InvalidValueError
from ..kernels import lanes
from .base import SketchFamily, SketchOperator, Sums

if TYPE_CHECKING:
    from scipy.sparse import csc_array

__all__ = ["CountSketch", "SparseSign"]


class _SignBlocks(SketchFamily):
    """ζ disjoint row blocks, as even as they can be; one entry ±1/√ζ of each column in each of them."""

    nnz_per_column: int

    @property
    def minimum_size(self) -> int:
        return self.nnz_per_column

    def _edges(self, S: SketchOperator) -> np.ndarray:
        return np.arange(self.nnz_per_column + 1, dtype=np.int64) * S.sketch_size // self.nnz_per_column

    def columns(self, S: SketchOperator, start: int, stop: int) -> csc_array:
        from scipy.sparse import csc_array

        from ..kernels.cpu import sparse_sign

        nnz, count, edges = self.nnz_per_column, stop - start, self._edges(S)
        code = np.empty((-(-nnz // 4) * 4, count), np.uint32)
        sparse_sign.codes(np.uint64(S.key.value), start, count, edges, code)
        code = code[:nnz].T
        rows = (code >> 1).astype(np.int64) + edges[:-1]
        values = (1.0 - 2.0 * (code & 1)) / np.sqrt(nnz)
        pointers = np.arange(count + 1) * nnz
        return csc_array((values.ravel(), rows.ravel(), pointers), shape=(S.sketch_size, count))

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
        from ..kernels.cpu import simd, sparse_sign

        (m, n), k, d, dtype = A.shape, b.shape[1], S.sketch_size, A.dtype
        edges, key = self._edges(S), np.uint64(S.key.value)
        narrow = simd.NARROW_BYTES // dtype.itemsize
        memory, stride = _flat(A) if n >= narrow else (np.empty(0, dtype), 0)
        weights = np.empty(0) if weight is None else weight
        row_cuts = lanes.row_cuts(m, d, n * d * dtype.itemsize)
        groups = lanes.column_groups(n, dtype.itemsize, len(row_cuts), simd.WIDE_BYTES, simd.NARROW_BYTES)
        side_width = (k // narrow + 1) * narrow

        # one allocation for all accumulators: large enough to get huge pages, whose first touch costs less
        sizes = [group.columns * d for group in groups for _ in row_cuts]
        ends = np.cumsum(sizes)
        outs = np.split(lanes.aligned(int(ends[-1]), dtype), ends[:-1])

        def task(out: np.ndarray, cut: tuple[int, int], group: lanes.Tiles, first_group: bool) -> tuple[np.ndarray, ...]:
            capacity = lanes.panel_rows(group.columns, dtype.itemsize)
            out_side = lanes.aligned(side_width * d if first_group else 0, dtype)
            sums, totals = np.zeros(group.columns * (2 + k)), np.zeros(2 * k + 1)
            sparse_sign.sweep(
                memory, A, stride, b, weights, *cut, start, key, edges, group.starts, group.wide, *scale,
                lanes.aligned(group.columns * capacity, dtype), lanes.aligned(side_width * capacity, dtype),
                np.empty((-(-self.nnz_per_column // 4) * 4, capacity), np.uint32), out, out_side, sums, totals,
            )  # fmt: skip
            return out, out_side, sums, totals

        tasks = [(cut, group, group is groups[0]) for group in groups for cut in row_cuts]
        results = lanes.run(task, [(out, *rest) for out, rest in zip(outs, tasks, strict=True)], workers)

        factor = dtype.type(1 / np.sqrt(self.nnz_per_column))
        SA, A1, AA, Atb = np.empty((d, n), dtype), np.empty(n), np.empty(n), np.empty((n, k))
        for g, group in enumerate(groups):
            out, side, sums, total = _add_up(results[g * len(row_cuts) : (g + 1) * len(row_cuts)])
            if g == 0:
                out_side, totals = side, total
            before = 0
            for begin, width in zip(group.starts, group.widths, strict=True):
                here = slice(begin, min(begin + width, n))
                used = here.stop - begin
                tile = out[before * d : (before + width) * d].reshape(d, width)
                np.multiply(tile[:, :used], factor, out=SA[:, here])
                A1[here], AA[here], *right = sums[before * (2 + k) : (before + width) * (2 + k)].reshape(2 + k, width)[
                    :, :used
                ]
                for j, column in enumerate(right):
                    Atb[here, j] = column
                before += width
        side = out_side.reshape(-1, d, narrow).transpose(1, 0, 2).reshape(d, side_width)[:, : k + 1] * factor
        b1, bb, weight = totals[:k], totals[k : 2 * k], float(totals[2 * k])
        return Sums(SA, side[:, :k], side[:, k].astype(np.float64), Atb, A1, AA, b1, bb, weight)


def _flat(A: np.ndarray) -> tuple[np.ndarray, int]:
    """A's memory as one dimension and the distance between rows, in elements; or (empty, 0) if columns are not unit
    stride."""
    m, n = A.shape
    item = A.dtype.itemsize
    contiguous = A.strides[1] == item or n == 1
    if not contiguous or m == 0 or (m > 1 and (A.strides[0] < n * item or A.strides[0] % item)):
        return np.empty(0, A.dtype), 0
    stride = A.strides[0] // item if m > 1 else n
    return np.lib.stride_tricks.as_strided(A, ((m - 1) * stride + n,), (item,), writeable=False), stride


def _add_up(results: list[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    """Add the lanes, in order, into the first."""
    first = results[0]
    for other in results[1:]:
        for total, part in zip(first, other, strict=True):
            total += part
    return first


@dataclass(frozen=True)
class SparseSign(_SignBlocks):
    """Sparse sign sketch: ζ entries ±1/√ζ in every column of S, one in each of ζ disjoint row blocks.

    Also known as OSNAP, SJLT (block construction) and SparseStack. ζ = 8 with d ≥ 4n preserves lengths on the range of
    coherent and incoherent matrices alike in all that has been tried; the proven sizes are d = O(n log n / η²) with
    ζ = O(log n / η) [1]_, [2]_.

    Parameters
    ----------
    nnz_per_column : int, default 8
        ζ, in [1, 2**16].

    Notes
    -----
    A sweep reads A once and costs 2ζ flops an entry. E[SᵀS] = I, and each column of S has unit norm.

    References
    ----------
    .. [1] J. Nelson, H. L. Nguyễn, "OSNAP: faster numerical linear algebra algorithms via sparser subspace
       embeddings", FOCS 2013, arXiv:1211.1002.
    .. [2] M. B. Cohen, "Nearly tight oblivious subspace embeddings by trace inequalities", SODA 2016,
       doi:10.1137/1.9781611974331.ch21.

    Examples
    --------
    >>> import rpcls
    >>> S = rpcls.SparseSign(nnz_per_column=2).sample(6, rng=0)
    >>> S.columns(0, 3).toarray().astype(bool).sum(axis=0)
    array([2, 2, 2])
    """

    nnz_per_column: int = 8

    def __post_init__(self) -> None:
        nnz = self.nnz_per_column
        if isinstance(nnz, bool) or not isinstance(nnz, int | np.integer):
            raise InvalidTypeError(f"nnz_per_column must be an int, got {type(nnz).__name__} {nnz!r}")
        if not 1 <= nnz <= 1 << 16:
            raise InvalidValueError(f"nnz_per_column must be in [1, 65536], got {nnz}")
        object.__setattr__(self, "nnz_per_column", int(nnz))


@dataclass(frozen=True)
class CountSketch(_SignBlocks):
    """CountSketch (Clarkson and Woodruff): one entry ±1 in every column of S; the cheapest sketch there is.

    The same operator as ``SparseSign(nnz_per_column=1)``. It preserves lengths on the range with probability 1 − δ
    when d ≥ n(n + 1)/(η²δ) [1]_, [2]_ (η the distortion of squared lengths); at d of a few n it does well on rows of even
    importance and fails when a few rows carry the range (coherent A): two of them that meet in one row of SA are lost.

    References
    ----------
    .. [1] K. L. Clarkson, D. P. Woodruff, "Low-rank approximation and regression in input sparsity time", J. ACM 63
       (2017), doi:10.1145/3019134.
    .. [2] J. Nelson, H. L. Nguyễn, arXiv:1211.1002, Theorem 5.

    Examples
    --------
    >>> import rpcls
    >>> rpcls.CountSketch().sample(50, rng=0)
    CountSketch().sample(50, rng=Key(0x...))
    """

    @property
    def nnz_per_column(self) -> int:  # type: ignore[override]
        return 1
