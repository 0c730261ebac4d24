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
RUN = 8  # rows whose sums stay in registers

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


def _stage(tile_bytes, run):
    @intrinsic
    def stage(typingctx, x, ix, stride, panel, ipanel, scale, one, irow, sums, isums):
        """`run` rows of one tile: panel = scale·x row by row; sums[0] += 1ᵀpanel, sums[1] += ‖panel‖², by column."""
        width = tile_bytes // (x.dtype.bitwidth // 8)

        def codegen(context, builder, signature, args):
            tx, _, _, tp, _, tc, to, _, ts, _ = signature.args
            px = _at(context, builder, tx, args[0], args[1])
            pp = _at(context, builder, tp, args[3], args[4])
            ps = _at(context, builder, ts, args[8], args[9])
            vector, wide = ir.VectorType(context.get_data_type(tx.dtype), 8), ir.VectorType(_double, 8)
            factors = _row_scalars(builder, _at(context, builder, tc, args[5], args[7]), vector, run)
            ones = _row_scalars(builder, _at(context, builder, to, args[6], args[7]), wide, run)
            rows = [builder.gep(px, [builder.mul(args[2], ir.Constant(_i64, row))]) for row in range(run)]
            for e in range(0, width, 8):
                total, squares = (_load(builder, ps, wide, e + part * width) for part in range(2))
                for row in range(run):
                    a = builder.fmul(_load(builder, rows[row], vector, e), factors[row])
                    _store(builder, a, pp, vector, row * width + e)
                    if vector.element != _double:
                        a = builder.fpext(a, wide)
                    total = _fma(builder, a, ones[row], total)
                    squares = _fma(builder, a, a, squares)
                _store(builder, total, ps, wide, e)
                _store(builder, squares, ps, wide, e + width)
            return context.get_dummy_value()

        i = types.int64
        return types.void(x, i, i, panel, i, scale, one, i, sums, i), codegen

    return stage


def _stage_add(tile_bytes, run, plain):
    @intrinsic
    def stage_add(typingctx, x, ix, stride, scale, one, rhs, irow, code, out, iout, sums, isums):
        """`run` rows of one tile, staged nowhere: with a = scale·x row by row, tile-row code >> 1 of out += ±a (minus
        where the code is odd); sums[0] += 1ᵀa, sums[1] += ‖a‖², sums[2] += rhsᵀa, by column."""
        width = tile_bytes // (x.dtype.bitwidth // 8)

        def codegen(context, builder, signature, args):
            tx, _, _, tc, to, tb, _, td, ty, _, ts, _ = signature.args
            px = _at(context, builder, tx, args[0], args[1])
            py = _at(context, builder, ty, args[8], args[9])
            ps = _at(context, builder, ts, args[10], args[11])
            pd = _at(context, builder, td, args[7], args[6])
            vector, wide = ir.VectorType(context.get_data_type(tx.dtype), 8), ir.VectorType(_double, 8)
            if not plain:  # plain: every scale and weight is 1, and half as many values compete for registers
                factors = _row_scalars(builder, _at(context, builder, tc, args[3], args[6]), vector, run)
                ones = _row_scalars(builder, _at(context, builder, to, args[4], args[6]), wide, run)
            rights = _row_scalars(builder, _at(context, builder, tb, args[5], args[6]), wide, run)
            rows, targets, signs = [], [], []
            for row in range(run):
                drawn = builder.load(builder.gep(pd, [ir.Constant(_i64, row)]))
                target = builder.zext(builder.lshr(drawn, ir.Constant(drawn.type, 1)), _i64)
                odd = builder.trunc(drawn, ir.IntType(1))
                sign = builder.select(odd, ir.Constant(vector.element, -1.0), ir.Constant(vector.element, 1.0))
                rows.append(builder.gep(px, [builder.mul(args[2], ir.Constant(_i64, row))]))
                targets.append(builder.gep(py, [builder.mul(target, ir.Constant(_i64, width))]))
                signs.append(_splat(builder, sign, vector))
            for e in range(0, width, 8):
                total = [_load(builder, ps, wide, e + part * width) for part in range(3)]
                for row in range(run):
                    a = _load(builder, rows[row], vector, e)
                    if not plain:
                        a = builder.fmul(a, factors[row])
                    added = _fma(builder, signs[row], a, _load(builder, targets[row], vector, e))
                    _store(builder, added, targets[row], vector, e)
                    if vector.element != _double:
                        a = builder.fpext(a, wide)
                    total[0] = builder.fadd(a, total[0]) if plain else _fma(builder, a, ones[row], total[0])
                    total[1] = _fma(builder, a, a, total[1])
                    total[2] = _fma(builder, a, rights[row], total[2])
                for part in range(3):
                    _store(builder, total[part], ps, wide, e + part * width)
            return context.get_dummy_value()

        i = types.int64
        return types.void(x, i, i, scale, one, rhs, i, code, out, i, sums, i), codegen

    return stage_add


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


butterfly_wide, butterfly_narrow = _butterfly(WIDE_BYTES), _butterfly(NARROW_BYTES)
axpy_wide, axpy_narrow = _axpy(WIDE_BYTES), _axpy(NARROW_BYTES)
stage_wide, stage_narrow = _stage(WIDE_BYTES, RUN), _stage(NARROW_BYTES, RUN)
stage_wide_row, stage_narrow_row = _stage(WIDE_BYTES, 1), _stage(NARROW_BYTES, 1)
cross_wide, cross_narrow = _cross(WIDE_BYTES, RUN), _cross(NARROW_BYTES, RUN)
cross_wide_row, cross_narrow_row = _cross(WIDE_BYTES, 1), _cross(NARROW_BYTES, 1)
add_wide, add_narrow = _stage_add(WIDE_BYTES, RUN, False), _stage_add(NARROW_BYTES, RUN, False)
add_wide_row, add_narrow_row = _stage_add(WIDE_BYTES, 1, False), _stage_add(NARROW_BYTES, 1, False)
add_wide_plain, add_narrow_plain = _stage_add(WIDE_BYTES, RUN, True), _stage_add(NARROW_BYTES, RUN, True)
