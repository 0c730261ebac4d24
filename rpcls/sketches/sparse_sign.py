"""SparseSign and CountSketch: a few ±1 in every column of S."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InvalidTypeError, InvalidValueError
from ..kernels import lanes
from . import tiled
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
        rows = (code >> 1).astype(np.int64)
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
        from ..kernels.cpu import sparse_sign

        edges, key, nnz = self._edges(S), np.uint64(S.key.value), self.nnz_per_column
        column_bytes = S.sketch_size * A.dtype.itemsize
        if nnz == 1 and A.flags.f_contiguous and A.shape[1] > 1 and column_bytes <= _NEAREST_BYTES:
            return _by_column(S, A, b, weight, start, workers, scale, edges)

        whole_rows = nnz == 1
        cut = tiled.Cut(A, S.sketch_size, tasks=_WHOLE_ROW_TASKS if whole_rows else lanes.TASKS)
        apart = cut.columns if whole_rows else 0

        def kernel(x, A, stride, b, weights, rows: tuple[int, int], group, panel, side, out, out_side, sums, totals):
            code = np.empty((-(-nnz // 4) * 4, tiled.panel_rows(group, A.dtype)), np.uint32)
            sparse_sign.sweep(
                x, A, stride, b, weights, *rows, start, key, edges, group.starts, group.wide, *scale,
                panel, side, code, out, apart, out_side, sums, totals,
            )  # fmt: skip

        return tiled.sweep(cut, A, b, weight, 1 / np.sqrt(nnz), workers, kernel, whole_rows=whole_rows)

    def sweep_csr(
        self,
        S: SketchOperator,
        A: Any,
        b: np.ndarray,
        weight: np.ndarray | None,
        start: int,
        workers: int,
        scale: tuple[float, float] = (1.0, 1.0),
    ) -> Sums:
        from ..kernels.cpu import csr

        (m, n), k, d, nnz = A.shape, b.shape[1], S.sketch_size, self.nnz_per_column
        edges, key = self._edges(S), np.uint64(S.key.value)
        weights = np.empty(0) if weight is None else weight

        def task(first: int, stop: int) -> tuple[np.ndarray, ...]:
            out, out_side = np.zeros((d, n), A.dtype), np.zeros((d, k + 1))
            sums, totals = np.zeros((n, 2 + k)), np.zeros(2 * k + 1)
            code = np.empty((-(-nnz // 4) * 4, 512), np.uint32)
            csr.sweep(
                A.data, A.indices, A.indptr, b, weights, first, stop, start, key, edges, *scale, code,
                out, out_side, sums, totals,
            )  # fmt: skip
            return out, out_side, sums, totals

        cuts = lanes.row_cuts(m, A.data.nbytes // max(1, m), d, n * d * A.dtype.itemsize, least=2)
        out, side, sums, totals = lanes.add_up(lanes.run(task, cuts, workers))
        return _put_together(out, side, sums, totals, nnz)


def _put_together(out: np.ndarray, side: np.ndarray, sums: np.ndarray, totals: np.ndarray, nnz: int) -> Sums:
    """From √ζ·SA (d, n), √ζ·S[b 1] (d, k + 1), the sums of A's columns (n, 2 + k), and those of b (2k + 1,)."""
    k = side.shape[1] - 1
    out *= out.dtype.type(1 / np.sqrt(nnz))
    side /= np.sqrt(nnz)
    return Sums(
        np.ascontiguousarray(out), side[:, :k].astype(out.dtype, order="C"), side[:, k].astype(np.float64),
        sums[:, 2:].copy(), sums[:, 0].copy(), sums[:, 1].copy(), totals[:k], totals[k : 2 * k], float(totals[2 * k]),
    )  # fmt: skip


_WHOLE_ROW_TASKS = 4  # rows that go from memory to where they belong arrive faster whole than in parts
_NEAREST_BYTES = 1 << 14  # of a column of SA, up to which taking A by columns is faster than transposing it
_PANEL_ROWS = 4096


def _by_column(
    S: SketchOperator,
    A: np.ndarray,
    b: np.ndarray,
    weight: np.ndarray | None,
    start: int,
    workers: int,
    scale: tuple[float, float],
    edges: np.ndarray,
) -> Sums:
    """The sweep of a CountSketch over a Fortran-ordered A."""
    from ..kernels.cpu import columns

    (m, n), k, d, dtype = A.shape, b.shape[1], S.sketch_size, A.dtype
    key, weights = np.uint64(S.key.value), np.empty(0) if weight is None else weight
    four = columns.GROUP
    groups = [-(-count // four) for count in (n, k + 1)]

    def task(first: int, stop: int) -> tuple[np.ndarray, ...]:
        out, side = (lanes.aligned(count * d * four, dtype).reshape(count, d, four) for count in groups)
        sums, totals = np.zeros((n, 2 + k)), np.zeros(2 * k + 1)
        columns.sweep(
            A, b, weights, first, stop, start, key, edges, *scale, _PANEL_ROWS, out, side, sums, totals
        )  # fmt: skip
        return out, side, sums, totals

    cuts = lanes.row_cuts(m, n * dtype.itemsize, d, n * d * dtype.itemsize)
    out, side, sums, totals = lanes.add_up(lanes.run(task, cuts, workers))
    out, side = (part.transpose(1, 0, 2).reshape(d, -1) for part in (out, side))
    return _put_together(out[:, :n], side[:, : k + 1], sums, totals, 1)


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
    when d ≥ n(n + 1)/(η²δ) [1]_, [2]_ (η the distortion of squared lengths); at d of a few n it does well on rows of
    even
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
        """1."""
        return 1
