"""The sweeps of the solvers that go back to the rows: Aᵀ(b − AX), AᵀAP and the Gram matrix of AR⁻¹.

All take the problem as it is posed: rows weighted, and less their means where the source has an intercept, block by
block in float64. No copy of A is made, and no sum depends on the number of workers (those of BLAS apart).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InvalidValueError
from ..kernels import lanes

if TYPE_CHECKING:
    from .base import Rows, Source

__all__ = ["gram", "means_of", "residual"]

_PANEL_BYTES = 1 << 20  # of rows that are copied to be centred or reordered: they stay in the second-level cache
_FEW = 4  # right-hand sides up to which a row that meets them one by one is read from memory only once
_GRAM_ROWS = 4096  # rows of a block for BLAS 3
_SUMMED = 4  # of them, whose products in float32 are added up in float32
_BLAS_COLUMNS = 288  # from which BLAS is the faster way to a Gram matrix


def residual(source: Source, X: np.ndarray, *, rhs: bool) -> tuple[np.ndarray, np.ndarray]:
    """(‖B − AX‖² (k,), Aᵀ(B − AX) (n, k)) for X (n, k), with B = b, or B = 0 of X's width where `rhs` is False."""
    k = X.shape[1]
    out, squares = np.zeros((k, source.n_columns)), np.zeros(k)
    task = _few if k <= _FEW else _many
    for rows in source.blocks():
        if k > _FEW and isinstance(rows.A, np.ndarray):
            cuts, workers = [(0, rows.count)], 1  # BLAS has threads of its own
        else:
            cuts, workers = lanes.row_cuts(rows.count, _row_bytes(rows), 1, out.nbytes), source.workers
        b = rows.b if rhs else np.empty((0, k), rows.b.dtype)
        means = means_of(source, k, rhs)
        parts = lanes.run(
            _sparse if not isinstance(rows.A, np.ndarray) else task,
            [(rows, b, means, X, *cut) for cut in cuts],
            workers,
        )
        for part, part_squares in parts:
            out += part
            squares += part_squares
    return squares, out.T


def means_of(source: Source, k: int, rhs: bool) -> tuple[np.ndarray, np.ndarray] | None:
    """(ā, b̄) that the rows are less, if any; b̄ is zero where B is."""
    if not source.intercept:
        return None
    if source.means is None:
        raise InvalidValueError("a source with an intercept knows its means after a compress sweep; call that first")
    a_mean, b_mean = source.means
    return a_mean, np.atleast_1d(np.asarray(b_mean, np.float64)) if rhs else np.zeros(k)


def _few(rows: Rows, b: np.ndarray, means: Any, X: np.ndarray, first: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    from ..kernels.cpu.gradient import gradient

    Xt = np.ascontiguousarray(X.T)
    out, squares = np.zeros(Xt.shape), np.zeros(len(Xt))
    weight = np.empty(0) if rows.weight is None else rows.weight
    if rows.A.flags.c_contiguous and means is None:
        gradient(rows.A, np.ascontiguousarray(b), weight, Xt, first, stop, out, squares)
        return out, squares
    step = max(1, _PANEL_BYTES // (64 * rows.A.itemsize * rows.A.shape[1])) * 64  # whole runs of the kernel
    for i in range(first, stop, step):
        j = min(i + step, stop)
        A, right = np.ascontiguousarray(rows.A[i:j]), np.ascontiguousarray(b[i:j])
        if means is not None:
            A, right = A - means[0], right - means[1] if len(b) else right
        gradient(A, right, weight[i:j], Xt, 0, j - i, out, squares)
    return out, squares


def _many(rows: Rows, b: np.ndarray, means: Any, X: np.ndarray, first: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    out, squares = np.zeros(X.shape), np.zeros(X.shape[1])
    for i in range(first, stop, _GRAM_ROWS):
        j = min(i + _GRAM_ROWS, stop)
        A = rows.A[i:j].astype(np.float64, copy=False)
        right = b[i:j].astype(np.float64, copy=False)
        if means is not None:
            A, right = A - means[0], right - means[1] if len(b) else right
        r = (right - A @ X) if len(b) else -(A @ X)
        wr = r if rows.weight is None else r * rows.weight[i:j, None]
        squares += np.einsum("ij,ij->j", r, wr)
        out += A.T @ wr
    return out.T, squares


def _sparse(
    rows: Rows, b: np.ndarray, means: Any, X: np.ndarray, first: int, stop: int
) -> tuple[np.ndarray, np.ndarray]:
    from ..kernels.cpu.csr import gradient

    k, A = X.shape[1], rows.A
    Xt = np.ascontiguousarray(X.T)
    out, squares, totals = np.zeros(Xt.shape), np.zeros(k), np.zeros(k)
    weight = np.empty(0) if rows.weight is None else rows.weight
    shift = np.zeros(k) if means is None else means[1] - means[0] @ X
    b = np.ascontiguousarray(b)
    gradient(A.data, A.indices, A.indptr, b, weight, Xt, shift, first, stop, out, squares, totals)
    if means is not None:
        out -= np.multiply.outer(totals, means[0])
    return out, squares


def gram(source: Source, R: np.ndarray | None, single: bool) -> tuple[np.ndarray, np.ndarray]:
    """(WᵀW (n, n), Wᵀb (n, k)) for W = AR⁻¹ by triangular solves, R upper triangular (n, n); W = A where R is None.

    `single`: products of W with itself in float32 where BLAS takes them.
    """
    n, k = source.n_columns, source.n_rhs
    total, Wtb = np.zeros((n, n), order="F"), np.zeros((n, k), order="F")
    means = means_of(source, k, True)
    for rows in source.blocks():
        if R is None and not isinstance(rows.A, np.ndarray):
            _add_sparse_gram(rows, means, total, Wtb, source.workers)
        elif n < _BLAS_COLUMNS and isinstance(rows.A, np.ndarray):
            _add_gram_of_panels(rows, means, R, total, Wtb, source.workers)
        else:
            total, Wtb = _add_gram(rows, means, None if R is None else np.asfortranarray(R), total, Wtb, single)
    if not (np.isfinite(total).all() and np.isfinite(Wtb).all()):
        _find_non_finite(source)
    upper = np.triu(total)
    return upper + np.triu(total, 1).T, Wtb


def _add_gram(
    rows: Rows, means: Any, R: np.ndarray | None, total: np.ndarray, Wtb: np.ndarray, single: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The sums with these rows added; the upper triangle of the first."""
    from scipy.linalg import blas  # all by one library: NumPy's and SciPy's BLAS have threads that hinder one another

    part = np.zeros_like(total, np.float32) if single else None
    few = min(_GRAM_ROWS, rows.count) if single else 0
    store = np.empty((len(total), few), np.float32, order="F")  # one for all: fresh pages cost as much as a copy
    for i in range(0, rows.count, _GRAM_ROWS):
        j = min(i + _GRAM_ROWS, rows.count)
        W, b = _weighted(rows, means, i, j)
        right = np.asfortranarray(b)
        if R is None and not single and W.flags.f_contiguous and not W.flags.c_contiguous:
            total = blas.dsyrk(1.0, W, beta=1.0, c=total, trans=1, overwrite_c=1)
            Wtb = blas.dgemm(1.0, W, right, beta=1.0, c=Wtb, trans_a=1, overwrite_c=1)
        else:
            Wt = W.T if W.flags.c_contiguous else np.ascontiguousarray(W).T  # BLAS's order
            if R is not None:
                if not Wt.flags.writeable or np.may_share_memory(Wt, rows.A):
                    Wt = Wt.copy(order="F")
                Wt = blas.dtrsm(1.0, R, Wt, trans_a=1, overwrite_b=1)
            if part is not None:
                with np.errstate(over="ignore", invalid="ignore"):
                    block, W32 = i // _GRAM_ROWS, store[:, : j - i]
                    W32[...] = Wt
                    part = blas.ssyrk(1.0, W32, beta=float(block % _SUMMED > 0), c=part, overwrite_c=1)
                    if j == rows.count or (block + 1) % _SUMMED == 0:
                        total += part
            else:
                total = blas.dsyrk(1.0, Wt, beta=1.0, c=total, overwrite_c=1)
            if Wtb.shape[1] == 1:  # half the time of dgemm
                Wtb = blas.dgemv(1.0, Wt, right[:, 0], beta=1.0, y=Wtb[:, 0], overwrite_y=1)[:, None]
            else:
                Wtb = blas.dgemm(1.0, Wt, right, beta=1.0, c=Wtb, overwrite_c=1)
    return total, Wtb


def _add_gram_of_panels(
    rows: Rows, means: Any, R: np.ndarray | None, total: np.ndarray, Wtb: np.ndarray, workers: int
) -> None:
    """Add these rows' sums in place; the upper triangle of the first."""
    from ..kernels.cpu import gram as kernel

    n, k = Wtb.shape
    p = kernel.padded(n)
    N = kernel.padded(p + k)
    triangle = np.zeros((p, p))
    if R is not None:
        np.fill_diagonal(triangle, 1.0)
        triangle[:n, :n] = R
    root = np.empty(0) if rows.weight is None else np.sqrt(rows.weight)
    shift = np.empty(0) if means is None else np.concatenate(means)
    b = np.ascontiguousarray(rows.b)

    def task(first: int, stop: int) -> tuple[np.ndarray, ...]:
        part = np.zeros((N, N))
        kernel.gram(rows.A, b, root, shift, triangle, first, stop, part)
        return (part,)

    (sums,) = lanes.add_up(lanes.run(task, lanes.row_cuts(rows.count, _row_bytes(rows), n, 8 * N * N), workers))
    total += sums[:n, :n]
    Wtb += sums[:n, p : p + k]


def _add_sparse_gram(rows: Rows, means: Any, total: np.ndarray, Atb: np.ndarray, workers: int) -> None:
    """Add these rows' AᵀA and Aᵀb in place, at the cost of the squared entries of each row."""
    from ..kernels.cpu import csr

    A, n, k = rows.A, total.shape[0], Atb.shape[1]
    weight = np.empty(0) if rows.weight is None else rows.weight
    b = np.ascontiguousarray(rows.b)

    def task(first: int, stop: int) -> tuple[np.ndarray, ...]:
        parts = np.zeros((n, n)), np.zeros((n, k)), np.zeros(n)
        csr.gram(A.data, A.indices, A.indptr, b, weight, first, stop, *parts)
        return parts

    G, gb, sums = lanes.add_up(lanes.run(task, lanes.row_cuts(rows.count, _row_bytes(rows), n, 8 * n * n), workers))
    if means is not None:
        w = np.ones(rows.count) if rows.weight is None else rows.weight
        a_mean, b_mean = means
        G += (
            w.sum() * np.multiply.outer(a_mean, a_mean)
            - np.multiply.outer(a_mean, sums)
            - np.multiply.outer(sums, a_mean)
        )
        gb += np.multiply.outer(a_mean, w.sum() * b_mean - w @ rows.b) - np.multiply.outer(sums, b_mean)
    total += G.T
    Atb += gb


def _row_bytes(rows: Rows) -> int:
    """Bytes of what is stored of a row of A, on average."""
    A = rows.A if isinstance(rows.A, np.ndarray) else rows.A.data
    return A.nbytes // max(1, rows.count)


def _find_non_finite(source: Source) -> None:
    """One more sweep, which raises if it meets NaN or infinity: finite rows may have squares that overflow."""
    from .base import raise_non_finite

    for rows in source.blocks():
        A = rows.A if isinstance(rows.A, np.ndarray) else rows.A.data
        if not (np.isfinite(A).all() and np.isfinite(rows.b).all()):
            raise_non_finite(rows)


def _weighted(rows: Rows, means: Any, i: int, j: int) -> tuple[np.ndarray, np.ndarray]:
    """√w(A − ā) and √w(b − b̄) of rows i..j, float64; views where nothing is to be done."""
    block = rows.A[i:j]
    A = (block if isinstance(block, np.ndarray) else block.toarray()).astype(np.float64, copy=False)
    b = rows.b[i:j].astype(np.float64, copy=False)
    if means is not None:
        A, b = A - means[0], b - means[1]
    if rows.weight is not None:
        root = np.sqrt(rows.weight[i:j])[:, None]
        A, b = A * root, b * root
    return A, b
