"""Vector instructions by name: short runs of contiguous elements, worked on in registers.

numba's loop vectoriser gives up on short constant loops and guards longer ones against overlapping arrays on every
row; these intrinsics say what is meant. Arrays are one-dimensional and C-contiguous, offsets count elements, operands
do not overlap, and nothing is checked. A *wide* tile is 256 bytes of a row of A, a *narrow* one 64.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

WIDE_BYTES = 256
NARROW_BYTES = 64
LINE_BYTES = 64
RUN = 4  # rows whose sums stay in registers

_i64 = ir.IntType(64)
_double = ir.DoubleType()


def _at(context, builder, array_type, array, offset):
    """Pointer to element `offset` of an array."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [offset])


def _vector_at(builder, pointer, vector, element):
    return builder.bitcast(builder.gep(pointer, [ir.Constant(_i64, element)]), vector.as_pointer())


def _load(builder, pointer, vector, element):
    return builder.load(_vector_at(builder, pointer, vector, element), align=4)


def _store(builder, value, pointer, vector, element):
    builder.store(value, _vector_at(builder, pointer, vector, element), align=4)


def _splat(builder, value, vector):
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, undefined, zeros)


def _sign(builder, code, vector):
    """−1 where the code is odd, else 1, in every place; by bits, since a branch would be mispredicted half the time."""
    double = vector.element == _double
    bits, one = ir.IntType(64 if double else 32), 0x3FF0000000000000 if double else 0x3F800000
    value = builder.shl(builder.zext(code, bits) if double else code, ir.Constant(bits, bits.width - 1))
    return _splat(builder, builder.bitcast(builder.or_(value, ir.Constant(bits, one)), vector.element), vector)


def _fma(builder, a, b, c):
    """a·b + c, fused where the machine can."""
    return builder.fadd(builder.fmul(a, b, flags=("contract",)), c, flags=("contract",))


def _row_scalars(builder, pointer, vector, run):
    """One vector a row: element `row` of the float64 array at `pointer`, in the vector's type, in every place."""
    values = [builder.load(builder.gep(pointer, [ir.Constant(_i64, row)])) for row in range(run)]
    if vector.element != _double:
        values = [builder.fptrunc(value, vector.element) for value in values]
    return [_splat(builder, value, vector) for value in values]


def _axpy(tile_bytes):
    @intrinsic
    def axpy(typingctx, y, iy, x, ix, s):
        """y[iy:] += s * x[ix:] over one tile."""
        size = x.dtype.bitwidth // 8

        def codegen(context, builder, signature, args):
            ty, _, tx, _, ts = signature.args
            py = _at(context, builder, ty, args[0], args[1])
            px = _at(context, builder, tx, args[2], args[3])
            vector = ir.VectorType(context.get_data_type(ts), 64 // size)
            factor = _splat(builder, args[4], vector)
            elements = range(0, tile_bytes // size, vector.count)
            loaded = [(_load(builder, px, vector, e), _load(builder, py, vector, e)) for e in elements]
            for e, (vx, vy) in zip(elements, loaded, strict=True):
                _store(builder, _fma(builder, factor, vx, vy), py, vector, e)
            return context.get_dummy_value()

        return types.void(y, types.int64, x, types.int64, x.dtype), codegen

    return axpy


@intrinsic
def add_pair(typingctx, y, iy, s, a, b, i):
    """y[iy : iy + 2] += s·(a[i], b[i]); a and b hold float64."""

    def codegen(context, builder, signature, args):
        ty, _, ts, ta, tb, _ = signature.args
        vector, i32 = ir.VectorType(context.get_data_type(ts), 2), ir.IntType(32)
        py = _at(context, builder, ty, *args[0:2])
        pair = ir.Constant(vector, ir.Undefined)
        for place, (kind, array) in enumerate(((ta, args[3]), (tb, args[4]))):
            value = builder.load(_at(context, builder, kind, array, args[5]))
            value = value if vector.element == _double else builder.fptrunc(value, vector.element)
            pair = builder.insert_element(pair, value, ir.Constant(i32, place))
        sum = _fma(builder, _splat(builder, args[2], vector), pair, _load(builder, py, vector, 0))
        _store(builder, sum, py, vector, 0)
        return context.get_dummy_value()

    i64 = types.int64
    return types.void(y, i64, y.dtype, a, b, i64), codegen


def _scatter(tile_bytes, count):
    @intrinsic
    def scatter(typingctx, x, ix, code, icode, step, y, iy, pitch):
        """One row of one tile, added `count` times: with each code of code[icode::step], row code >> 1 of y += ±x
        (minus where the code is odd). The rows of y are `pitch` apart, and those added to are distinct."""
        width = tile_bytes // (x.dtype.bitwidth // 8)

        def codegen(context, builder, signature, args):
            tx, _, td, _, _, ty, _, _ = signature.args
            px, pd = _at(context, builder, tx, *args[0:2]), _at(context, builder, td, *args[2:4])
            py = _at(context, builder, ty, *args[5:7])
            vector = ir.VectorType(context.get_data_type(tx.dtype), 64 // (tx.dtype.bitwidth // 8))
            row = [_load(builder, px, vector, e) for e in range(0, width, vector.count)]
            for part in range(count):
                drawn = builder.load(builder.gep(pd, [builder.mul(args[4], ir.Constant(_i64, part))]))
                target = builder.zext(builder.lshr(drawn, ir.Constant(drawn.type, 1)), _i64)
                target = builder.gep(py, [builder.mul(target, args[7])])
                sign = _sign(builder, drawn, vector)
                for e, a in zip(range(0, width, vector.count), row, strict=True):
                    _store(builder, _fma(builder, sign, a, _load(builder, target, vector, e)), target, vector, e)
            return context.get_dummy_value()

        i = types.int64
        return types.void(x, i, code, i, i, y, i, i), codegen

    return scatter


def _scale(tile_bytes):
    @intrinsic
    def scale(typingctx, y, iy, x, ix, s):
        """y[iy:] = s * x[ix:] over one tile; in place if y is x."""

        def codegen(context, builder, signature, args):
            ty, _, tx, _, ts = signature.args
            py, px = _at(context, builder, ty, *args[0:2]), _at(context, builder, tx, *args[2:4])
            size = ts.bitwidth // 8
            vector = ir.VectorType(context.get_data_type(ts), 64 // size)
            factor = _splat(builder, args[4], vector)
            for e in range(0, tile_bytes // size, vector.count):
                _store(builder, builder.fmul(_load(builder, px, vector, e), factor), py, vector, e)
            return context.get_dummy_value()

        return types.void(y, types.int64, x, types.int64, x.dtype), codegen

    return scale


def _sum(tile_bytes, run):
    @intrinsic
    def sum(typingctx, x, ix, stride, one, rhs, irow, sums, isums):
        """Sums by column of one tile over `run` rows, `stride` apart: one·a, a² and rhs·a with a = x."""
        width = tile_bytes // (x.dtype.bitwidth // 8)

        def codegen(context, builder, signature, args):
            tx, _, _, to, tb, _, ts, _ = signature.args
            px, ps = _at(context, builder, tx, *args[0:2]), _at(context, builder, ts, *args[6:8])
            vector, wide = ir.VectorType(context.get_data_type(tx.dtype), 8), ir.VectorType(_double, 8)
            ones = _row_scalars(builder, _at(context, builder, to, args[3], args[5]), wide, run)
            rights = _row_scalars(builder, _at(context, builder, tb, args[4], args[5]), wide, run)
            rows = [builder.gep(px, [builder.mul(args[2], ir.Constant(_i64, row))]) for row in range(run)]
            for e in range(0, width, 8):
                total, squares, cross = (_load(builder, ps, wide, e + part * width) for part in range(3))
                for row, one, right in zip(rows, ones, rights, strict=True):
                    a = _load(builder, row, vector, e)
                    a = a if vector.element == _double else builder.fpext(a, wide)
                    total = _fma(builder, a, one, total)
                    squares = _fma(builder, a, a, squares)
                    cross = _fma(builder, a, right, cross)
                for part, value in enumerate((total, squares, cross)):
                    _store(builder, value, ps, wide, e + part * width)
            return context.get_dummy_value()

        i = types.int64
        return types.void(x, i, i, one, rhs, i, sums, i), codegen

    return sum


def _prefetch_at(builder, pointer, locality):
    byte, i32 = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [byte, i32, i32, i32])
    function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
    address = builder.bitcast(pointer, byte)
    builder.call(function, [address, *(ir.Constant(i32, value) for value in (0, locality, 1))])


def sum_of(builder, value):
    """The sum of a vector's elements, halves first."""
    count, i32 = value.type.count, ir.IntType(32)
    while count > 1:
        count //= 2
        low, high = (
            ir.Constant(ir.VectorType(i32, count), [ir.Constant(i32, first + i) for i in range(count)])
            for first in (0, count)
        )
        value = builder.fadd(builder.shuffle_vector(value, value, low), builder.shuffle_vector(value, value, high))
    return builder.extract_element(value, ir.Constant(i32, 0))


def _fetch(byte_count, locality):
    @intrinsic
    def fetch(typingctx, x, i):
        """Ask for the cache lines of byte_count bytes from x[i] on, which need not exist."""

        def codegen(context, builder, signature, args):
            first = _at(context, builder, signature.args[0], *args)
            byte = ir.IntType(8).as_pointer()
            for offset in range(0, byte_count, LINE_BYTES):
                line = builder.gep(builder.bitcast(first, byte), [ir.Constant(_i64, offset)])
                _prefetch_at(builder, line, locality)
            return context.get_dummy_value()

        return types.void(x, types.int64), codegen

    return fetch


def _cross(tile_bytes, run):
    @intrinsic
    def cross(typingctx, panel, ipanel, b, ib, sums, isums):
        """sums += bᵀ·panel by column, over `run` rows of one tile of a panel."""
        width = tile_bytes // (panel.dtype.bitwidth // 8)

        def codegen(context, builder, signature, args):
            tp, _, tb, _, ts, _ = signature.args
            pp = _at(context, builder, tp, args[0], args[1])
            ps = _at(context, builder, ts, args[4], args[5])
            vector, wide = ir.VectorType(context.get_data_type(tp.dtype), 8), ir.VectorType(_double, 8)
            factors = _row_scalars(builder, _at(context, builder, tb, args[2], args[3]), wide, run)
            for e in range(0, width, 8):
                total = _load(builder, ps, wide, e)
                for row in range(run):
                    a = _load(builder, pp, vector, row * width + e)
                    if vector.element != _double:
                        a = builder.fpext(a, wide)
                    total = _fma(builder, a, factors[row], total)
                _store(builder, total, ps, wide, e)
            return context.get_dummy_value()

        i = types.int64
        return types.void(panel, i, b, i, sums, i), codegen

    return cross


@intrinsic
def transpose(typingctx, x, ix, apart, y, iy, width):
    """y[iy + r·width + c] = x[ix + c·apart + r] for r, c in 0..7; x of any dimensions, y of wider numbers."""

    def codegen(context, builder, signature, args):
        tx, _, _, ty, _, _ = signature.args
        px, py = _at(context, builder, tx, *args[0:2]), _at(context, builder, ty, *args[3:5])
        vector = ir.VectorType(context.get_data_type(tx.dtype), 8)
        lines = [builder.gep(px, [builder.mul(args[2], ir.Constant(_i64, c))]) for c in range(8)]
        block = [_load(builder, line, vector, 0) for line in lines]
        i32 = ir.IntType(32)
        for half in (1, 2, 4):  # exchange the off-diagonal quarters of blocks of 2, 4, 8
            low = [i if not i & half else i - half + 8 for i in range(8)]
            high = [i + half if not i & half else i + 8 for i in range(8)]
            masks = [ir.Constant(ir.VectorType(i32, 8), [ir.Constant(i32, i) for i in m]) for m in (low, high)]
            for c in range(8):
                if not c & half:
                    a, b = block[c], block[c + half]
                    block[c], block[c + half] = (builder.shuffle_vector(a, b, mask) for mask in masks)
        for r in range(8):
            target = builder.gep(py, [builder.mul(args[5], ir.Constant(_i64, r))])
            row = block[r] if tx.dtype == ty.dtype else builder.fpext(block[r], ir.VectorType(_double, 8))
            _store(builder, row, target, row.type, 0)
        return context.get_dummy_value()

    i = types.int64
    return types.void(x, i, i, y, i, i), codegen


def _butterfly(tile_bytes):
    @intrinsic
    def butterfly(typingctx, x, i, j):
        """x[i:], x[j:] = x[i:] + x[j:], x[i:] − x[j:] over one tile."""
        size = x.dtype.bitwidth // 8

        def codegen(context, builder, signature, args):
            tx = signature.args[0]
            vector = ir.VectorType(context.get_data_type(tx.dtype), 64 // size)
            pi, pj = (_at(context, builder, tx, args[0], args[place]) for place in (1, 2))
            elements = range(0, tile_bytes // size, vector.count)
            loaded = [(_load(builder, pi, vector, e), _load(builder, pj, vector, e)) for e in elements]
            for e, (a, b) in zip(elements, loaded, strict=True):
                _store(builder, builder.fadd(a, b), pi, vector, e)
                _store(builder, builder.fsub(a, b), pj, vector, e)
            return context.get_dummy_value()

        return types.void(x, types.int64, types.int64), codegen

    return butterfly


fetch_line = _fetch(LINE_BYTES, 2)  # into the second-level cache
fetch_wide = _fetch(WIDE_BYTES, 3)  # into the first
fetch_wide_once, fetch_narrow_once = _fetch(WIDE_BYTES, 0), _fetch(NARROW_BYTES, 0)  # likewise, to be forgotten then
axpy_wide, axpy_narrow = _axpy(WIDE_BYTES), _axpy(NARROW_BYTES)
scale_wide, scale_narrow = _scale(WIDE_BYTES), _scale(NARROW_BYTES)
sum_wide, sum_narrow = _sum(WIDE_BYTES, RUN), _sum(NARROW_BYTES, RUN)
sum_wide_row, sum_narrow_row = _sum(WIDE_BYTES, 1), _sum(NARROW_BYTES, 1)
cross_wide, cross_narrow = _cross(WIDE_BYTES, RUN), _cross(NARROW_BYTES, RUN)
cross_wide_row, cross_narrow_row = _cross(WIDE_BYTES, 1), _cross(NARROW_BYTES, 1)
scatter_wide, scatter_narrow = _scatter(WIDE_BYTES, 4), _scatter(NARROW_BYTES, 4)
butterfly_wide, butterfly_narrow = _butterfly(WIDE_BYTES), _butterfly(NARROW_BYTES)
