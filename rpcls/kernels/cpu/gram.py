"""(AR⁻¹)ᵀ(AR⁻¹) in one read of A, panel by panel of rows in the second-level cache.

A panel is stored by columns, so that its rows lie along the vectors: then the triangular solve and the sums are both
products of a few registers, without shuffles, at any number of columns. BLAS is far from its speed where these are few.
"""

from __future__ import annotations

import numpy as np
from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from .simd import _at, _double, _fma, _i64, _load, _splat, _store, sum_of, transpose

BLOCK = 4  # columns that are solved for, and summed, together
_WIDTH = 8 if binding.get_host_cpu_features().get("avx512f") else 4  # numbers in a register
_RUN = 2 * _WIDTH  # rows that are solved for together
_PANEL_BYTES = 256 << 10
_PAD = 8  # a pitch that is a power of two would map all columns to a few lines of the cache


@intrinsic
def _dots(typingctx, x, i, j, pitch, count, y, iy, apart):
    """y[iy + a·apart + c] += Σ x[i + a·pitch + r]·x[j + c·pitch + r] over r < count, for a in 0..3 and c in 0..1."""

    def codegen(context, builder, signature, args):
        tx, _, _, _, _, ty, _, _ = signature.args
        vector = ir.VectorType(_double, _WIDTH)
        left, right = (_at(context, builder, tx, args[0], start) for start in args[1:3])
        lefts = [builder.gep(left, [builder.mul(args[3], ir.Constant(_i64, a))]) for a in range(BLOCK)]
        rights = [builder.gep(right, [builder.mul(args[3], ir.Constant(_i64, c))]) for c in range(2)]
        sums = [[cgutils.alloca_once(builder, vector) for _ in rights] for _ in lefts]
        for line in sums:
            for place in line:
                builder.store(ir.Constant(vector, None), place)
        with cgutils.for_range(builder, builder.udiv(args[4], ir.Constant(_i64, _RUN))) as loop:
            r = builder.mul(loop.index, ir.Constant(_i64, _RUN))
            for part in range(0, _RUN, _WIDTH):
                across = [_load(builder, builder.gep(p, [r]), vector, part) for p in rights]
                for line, p in zip(sums, lefts, strict=True):
                    a = _load(builder, builder.gep(p, [r]), vector, part)
                    for place, c in zip(line, across, strict=True):
                        builder.store(_fma(builder, a, c, builder.load(place)), place)
        first = _at(context, builder, ty, *args[5:7])
        for a, line in enumerate(sums):
            target = builder.gep(first, [builder.mul(args[7], ir.Constant(_i64, a))])
            for c, place in enumerate(line):
                here = builder.gep(target, [ir.Constant(_i64, c)])
                builder.store(builder.fadd(builder.load(here), sum_of(builder, builder.load(place))), here)
        return context.get_dummy_value()

    k = types.int64
    return types.void(x, k, k, k, k, y, k, k), codegen


@intrinsic
def _solve(typingctx, x, ix, pitch, R, j, n, inverse):
    """Columns j..j+3 of x·R⁻¹ in place, for one run of rows whose columns before j are done; x by columns."""

    def codegen(context, builder, signature, args):
        tx, _, _, tr, _, _, ti = signature.args
        vector = ir.VectorType(_double, _WIDTH)
        px = _at(context, builder, tx, *args[0:2])
        pr = _at(context, builder, tr, args[3], builder.mul(args[4], args[5]))
        pi = _at(context, builder, ti, args[6], args[4])

        def column(index):
            return builder.gep(px, [builder.mul(index, args[2])])

        def factors(row, first):
            line = builder.gep(pr, [builder.mul(row, ir.Constant(_i64, BLOCK))])
            return [
                _splat(builder, builder.load(builder.gep(line, [ir.Constant(_i64, a)])), vector)
                for a in range(first, BLOCK)
            ]

        columns = [column(builder.add(args[4], ir.Constant(_i64, a))) for a in range(BLOCK)]
        places = [[cgutils.alloca_once(builder, vector) for _ in range(2)] for _ in columns]
        for line, p in zip(places, columns, strict=True):
            for v, place in enumerate(line):
                builder.store(_load(builder, p, vector, v * _WIDTH), place)
        with cgutils.for_range(builder, args[4]) as loop:
            done = [_load(builder, column(loop.index), vector, v * _WIDTH) for v in range(2)]
            for line, factor in zip(places, factors(loop.index, 0), strict=True):
                for place, w in zip(line, done, strict=True):
                    builder.store(_multiply_subtract(builder, factor, w, builder.load(place)), place)
        block = [[builder.load(place) for place in line] for line in places]
        for a, p in enumerate(columns):
            scale = _splat(builder, builder.load(builder.gep(pi, [ir.Constant(_i64, a)])), vector)
            block[a] = [builder.fmul(v, scale) for v in block[a]]
            rest = factors(builder.add(args[4], ir.Constant(_i64, a)), a + 1)
            for c, factor in enumerate(rest, a + 1):
                block[c] = [_multiply_subtract(builder, factor, w, v) for w, v in zip(block[a], block[c], strict=True)]
            for v, value in enumerate(block[a]):
                _store(builder, value, p, vector, v * _WIDTH)
        return context.get_dummy_value()

    k = types.int64
    return types.void(x, k, k, R, k, k, inverse), codegen


def padded(columns: int) -> int:
    """The next multiple of `BLOCK`."""
    return -(-columns // BLOCK) * BLOCK


def _multiply_subtract(builder, a, b, c):
    """c − a·b."""
    return builder.fsub(c, builder.fmul(a, b, flags=("contract",)), flags=("contract",))


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"})
def gram(A, b, root, means, R, first, stop, total):
    """total (N, N) += [W b]ᵀ[W b] over rows first..stop, its upper triangle; W = AR⁻¹.

    Parameters
    ----------
    A : (m, n) float32 or float64 array
    b : (m, k) array
        Its columns are numbered from p on.
    root : (m,) or (0,) float64 array
        What rows are multiplied by; empty: 1.
    means : (n + k,) or (0,) float64 array
        What is taken off the rows before that; empty: 0.
    R : (p, p) float64 array
        Upper triangular, p the next multiple of `BLOCK` from n on; beyond n it is the identity. All zeros: W = A.
    total : (N, N) float64 array
        N = p + k rounded up to a multiple of `BLOCK`.
    """
    n, k, p, N = A.shape[1], b.shape[1], len(R), len(total)
    rows = max(_RUN, min(256, _PANEL_BYTES // (8 * N)) // _RUN * _RUN)
    pitch = rows + _PAD
    panel, flat, strips = np.zeros(N * pitch), total.reshape(-1), np.empty(p * p)
    solve = R[0, 0] != 0.0
    inverse = np.empty(p)
    for j in range(p):
        inverse[j] = 1.0 / R[j, j] if solve else 1.0
        for i in range(p):  # by strips of four columns
            strips[j // BLOCK * BLOCK * p + i * BLOCK + j % BLOCK] = R[i, j]
    apart = A.strides[0] // A.itemsize
    by_rows = A.strides[1] == A.itemsize and A.strides[0] % A.itemsize == 0
    while first < stop:
        count = min(rows, stop - first)
        used = (count + _RUN - 1) // _RUN * _RUN
        if count < used:
            panel[:] = 0.0
        _fill(A, first, count, panel, pitch, by_rows, apart)
        for j in range(k):
            for r in range(count):
                panel[(p + j) * pitch + r] = b[first + r, j]
        if len(means):
            for j in range(n + k):
                start = (j if j < n else p + j - n) * pitch
                for r in range(count):
                    panel[start + r] -= means[j]
        if len(root):
            for j in range(n + k):
                start = (j if j < n else p + j - n) * pitch
                for r in range(count):
                    panel[start + r] *= root[first + r]
        if solve:
            for r in range(0, used, _RUN):
                for j in range(0, p, BLOCK):
                    _solve(panel, r, pitch, strips, j, p, inverse)
        for right in range(0, N, 2 * BLOCK):  # two blocks of columns and one on the left stay in the first-level cache
            end = min(right + 2 * BLOCK, N)
            for i in range(0, end, BLOCK):
                for j in range(max(i, right), end, 2):
                    _dots(panel, i * pitch, j * pitch, pitch, used, flat, i * N + j, N)
        first += count


@njit(nogil=True, cache=True)
def _fill(A, first, count, panel, pitch, by_rows, apart):
    """panel by columns = rows first..first + count of A."""
    n = A.shape[1]
    done = 0
    if by_rows and n >= 8:
        while done + 8 <= count:
            for c in range(0, n, 8):
                c = min(c, n - 8)
                transpose(A, (first + done) * apart + c, apart, panel, c * pitch + done, pitch)
            done += 8
    for c in range(n):
        for r in range(done, count):
            panel[c * pitch + r] = A[first + r, c]
