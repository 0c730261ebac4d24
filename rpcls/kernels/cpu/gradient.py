"""One read of A for Aᵀ(b − AX): each row meets X and its own residual while it is in cache."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from .simd import LINE_BYTES, _at, _double, _fma, _i64, _load, _prefetch_at, _splat, _store, fetch_line, sum_of

_ROWS = 4  # that are worked on together
_STEP = 8  # columns likewise
_RUN = 64  # rows that are added up before the total is touched
_AHEAD_BYTES = 16384  # how far ahead memory is asked for,
_SHORT_BYTES = 2048  # where rows are so short that the hardware does not see where four at a time lead


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"})
def gradient(A, b, weight, X, first, stop, out, squares):
    """out (k, n) += (Aᵀ W r)ᵀ and squares (k,) += rᵀ W r with r = b − AXᵀ over rows first..stop of a C-ordered A.

    X is (k, n). An empty weight means W = I, an empty b zeros. All sums are float64; rows are added in runs, so that
    the error does not grow with their number.
    """
    k, n = X.shape
    flat, line, ahead = A.reshape(-1), LINE_BYTES // A.itemsize, _AHEAD_BYTES // A.itemsize
    short, even = n * A.itemsize <= _SHORT_BYTES, n // _STEP * _STEP
    partial, partial_squares, r = np.empty((k, n)), np.empty(k), np.empty(_ROWS)
    while first < stop:
        end = min(first + _RUN, stop)
        partial[:] = 0.0
        partial_squares[:] = 0.0
        for i in range(first, end, _ROWS):
            rows = min(_ROWS, end - i)
            if short:
                for c in range(i * n + ahead, (i + rows) * n + ahead, line):
                    fetch_line(flat, c)
            for j in range(k):
                x, total = X[j], partial[j]
                if rows == _ROWS:
                    _dots(flat, i * n, n, x, even, r)
                    for p in range(_ROWS):
                        for c in range(even, n):
                            r[p] += A[i + p, c] * x[c]
                else:
                    for p in range(rows):
                        dot = 0.0
                        for c in range(n):
                            dot += A[i + p, c] * x[c]
                        r[p] = dot
                for p in range(rows):
                    own = (b[i + p, j] if len(b) else 0.0) - r[p]
                    r[p] = own * (weight[i + p] if len(weight) else 1.0)
                    partial_squares[j] += own * r[p]
                if rows == _ROWS:
                    _combine(flat, i * n, n, r, even, total)
                    for p in range(_ROWS):
                        for c in range(even, n):
                            total[c] += r[p] * A[i + p, c]
                else:
                    for p in range(rows):
                        for c in range(n):
                            total[c] += r[p] * A[i + p, c]
        for j in range(k):
            squares[j] += partial_squares[j]
            for c in range(n):
                out[j, c] += partial[j, c]
        first = end


def _rows_at(builder, first, apart):
    """Four rows, and the four after them, which are asked for meanwhile: half by each of the two passes."""
    rows = [builder.gep(first, [builder.mul(apart, ir.Constant(_i64, p))]) for p in range(2 * _ROWS)]
    return rows[:_ROWS], rows[_ROWS:]


def _wide(builder, pointer, offset):
    """Eight entries as float64."""
    element = pointer.type.pointee
    value = _load(builder, builder.gep(pointer, [offset]), ir.VectorType(element, _STEP), 0)
    return value if element == _double else builder.fpext(value, ir.VectorType(_double, _STEP))


@intrinsic
def _dots(typingctx, A, i, apart, x, count, r):
    """r[p] = Σ A[i + p·apart + c]·x[c] over c < count, a multiple of 8, for four rows p."""

    def codegen(context, builder, signature, args):
        ta, _, _, tx, _, tr = signature.args
        zero = ir.Constant(_i64, 0)
        rows, after = _rows_at(builder, _at(context, builder, ta, *args[0:2]), args[2])
        px, pr = _at(context, builder, tx, args[3], zero), _at(context, builder, tr, args[5], zero)
        vector = ir.VectorType(_double, _STEP)
        sums = [cgutils.alloca_once(builder, vector) for _ in rows]
        for place in sums:
            builder.store(ir.Constant(vector, None), place)
        with cgutils.for_range(builder, builder.udiv(args[4], ir.Constant(_i64, _STEP))) as loop:
            c = builder.mul(loop.index, ir.Constant(_i64, _STEP))
            factor = _wide(builder, px, c)
            for row in after[: _ROWS // 2]:
                _prefetch_at(builder, builder.gep(row, [c]), 2)
            for place, row in zip(sums, rows, strict=True):
                builder.store(_fma(builder, _wide(builder, row, c), factor, builder.load(place)), place)
        for p, place in enumerate(sums):
            builder.store(sum_of(builder, builder.load(place)), builder.gep(pr, [ir.Constant(_i64, p)]))
        return context.get_dummy_value()

    k = types.int64
    return types.void(A, k, k, x, k, r), codegen


@intrinsic
def _combine(typingctx, A, i, apart, r, count, y):
    """y[c] += Σ r[p]·A[i + p·apart + c] over four rows p, for c < count, a multiple of 8."""

    def codegen(context, builder, signature, args):
        ta, _, _, tr, _, ty = signature.args
        zero = ir.Constant(_i64, 0)
        rows, after = _rows_at(builder, _at(context, builder, ta, *args[0:2]), args[2])
        pr, py = _at(context, builder, tr, args[3], zero), _at(context, builder, ty, args[5], zero)
        vector = ir.VectorType(_double, _STEP)
        factors = [_splat(builder, builder.load(builder.gep(pr, [ir.Constant(_i64, p)])), vector) for p in range(_ROWS)]
        with cgutils.for_range(builder, builder.udiv(args[4], ir.Constant(_i64, _STEP))) as loop:
            c = builder.mul(loop.index, ir.Constant(_i64, _STEP))
            place = builder.gep(py, [c])
            for row in after[_ROWS // 2 :]:
                _prefetch_at(builder, builder.gep(row, [c]), 2)
            total = _load(builder, place, vector, 0)
            for row, factor in zip(rows, factors, strict=True):
                total = _fma(builder, _wide(builder, row, c), factor, total)
            _store(builder, total, place, vector, 0)
        return context.get_dummy_value()

    k = types.int64
    return types.void(A, k, k, r, k, y), codegen
