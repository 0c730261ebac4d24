"""The CUDA kernels against their numba twins: the operators bit for bit, the products to rounding.

The host's C++ compiler builds the same files, see `host_shim.h`; nvcc compiles them for cards where it is installed.
"""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from host_cuda import SOURCES, kernels_of, module, needs_compiler

import rpcls
from rpcls.kernels.cuda import cuts
from rpcls.random import Key

FILES = sorted(path.stem for path in SOURCES.glob("*.cu"))
INPUTS = {"float32": 32, "float64": 64, "float16": 16, "bfloat16": 116}
H100_BYTES, SMALL_BYTES = 227 << 10, 48 << 10  # shared memory of a block
SHAPES = [(40, 1, 1, H100_BYTES), (64, 8, 2, H100_BYTES), (700, 1, 1, SMALL_BYTES), (95, 19, 0, SMALL_BYTES)]
EPS = {np.float32: 2.0**-23, np.float64: 2.0**-52}


def kernels(name: str, kind: str, *more: str) -> Any:
    return module(name, f"-DINPUT={INPUTS[kind]}", *more)


def stored(values: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """The values as a kernel is given them, and the numbers that those are."""
    if kind == "bfloat16":
        words = np.ascontiguousarray(values, np.float32).view(np.uint32) >> 16
        return words.astype(np.uint16), (words << 16).view(np.float32)
    array = values.astype(kind)
    return (array.view(np.uint16), array.astype(np.float32)) if kind == "float16" else (array, array)


def strides(array: np.ndarray) -> tuple[int, ...]:
    return tuple(s // array.itemsize for s in array.strides)


def real(kind: str) -> type:
    return np.float64 if kind == "float64" else np.float32


LAYOUTS = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "every second column": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "rows reversed": lambda a: np.ascontiguousarray(a[::-1])[::-1],
}


# -- the operators ----------------------------------------------------------------------------------


@needs_compiler
def test_words_are_those_of_the_twin() -> None:
    from rpcls.kernels.cpu import philox

    for key, start, draw, tag in [(0, 0, 0, 0), (2**64 - 1, 2**64 - 3, 2**32 - 1, 2**32 - 1), (12345, 2**40, 7, 3)]:
        out, twin = np.zeros((3, 4), np.uint32), np.zeros((3, 4), np.uint32)
        arguments = np.uint64(key), np.uint64(start), np.uint32(draw), np.uint32(tag), 3, out
        module("philox").words((1,), (32,), arguments)
        philox.words(np.uint64(key), np.uint64(start), np.uint64(draw), np.uint64(tag), twin)
        assert np.array_equal(out, twin)


@needs_compiler
@pytest.mark.parametrize("kind", ["float32", "float64"])
@pytest.mark.parametrize(("d", "start"), [(1, 0), (130, 2**32 - 1), (37, 2**61)])
def test_dense_columns_are_those_of_the_twins(kind: str, d: int, start: int) -> None:
    from rpcls.kernels.cpu import gaussian, rademacher

    key = np.uint64(Key(2**63 + 9).value)
    for name, twin in (("gaussian", gaussian.columns), ("rademacher", rademacher.columns)):
        out, expected = np.zeros((5, d), kind), np.zeros((5, d), kind)
        kernels(name, kind).columns((-(-5 * d // 64),), (64,), (key, start, 5, d, out))
        twin(key, start, expected)
        assert np.array_equal(out.view(np.uint8), expected.view(np.uint8)), name


@needs_compiler
@pytest.mark.parametrize(("d", "nnz"), [(1, 1), (1000, 1), (17, 3), (64, 8), (9, 9), (2**30 + 5, 2)])
def test_codes_are_those_of_the_twin(d: int, nnz: int) -> None:
    from rpcls.kernels.cpu import sparse_sign

    edges = np.arange(nnz + 1, dtype=np.int64) * d // nnz
    for key, start in [(7, 0), (2**64 - 5, 2**32 - 20), (9, 2**61)]:
        out, twin = np.zeros((nnz, 50), np.uint32), np.zeros((-(-nnz // 4) * 4, 50), np.uint32)
        kernels("sparse_sign", "float32").codes((8,), (32,), (np.uint64(key), start, 50, d, nnz, out))
        sparse_sign.codes(np.uint64(key), start, 50, edges, twin)
        assert np.array_equal(out, twin[:nnz])


@needs_compiler
@pytest.mark.parametrize("family", [rpcls.SRHT(), rpcls.BlockSRHT(block=64)], ids=str)
def test_hadamard_columns_and_signs_are_those_of_the_twin(family: Any) -> None:
    from rpcls.kernels.cpu import hadamard

    S = family.sample(140, m=5000, rng=3)
    q, low, high, shared = family._layout(S)
    key, start, count = np.uint64(S.key.value), 1990, 120
    out, twin = np.zeros((count, 140)), np.zeros((count, 140))
    compiled = kernels("hadamard", "float64")
    compiled.columns((525,), (32,), (key, start, q, low, high, int(shared), count, 140, out))
    hadamard.columns(key, start, q, low, high, shared, twin)
    assert np.array_equal(out, twin)
    signs, own = np.zeros(count, np.int8), np.zeros(count)
    compiled.signs((4,), (32,), (key, start, count, signs))
    hadamard.signs(key, start, own)
    assert np.array_equal(signs, own)
    blocks, whole = np.zeros((3, 140), np.int8), np.zeros((3, 140))
    compiled.block_signs((14,), (32,), (key, 29, 3, high, int(shared), 140, blocks))
    for i in range(3):
        hadamard.block_signs(key, 29 + i, high, shared, whole[i])
    assert np.array_equal(blocks, whole)


@needs_compiler
@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_every_16_bit_number_widens_exactly(kind: str) -> None:
    words = np.arange(1 << 16, dtype=np.uint16)[:, None]
    exact = (
        words.view(np.float16).astype(np.float32) if kind == "float16" else (words.astype(np.uint32) << 16).view("f")
    )
    m = len(words)
    b, panel, sign = np.zeros((m, 1), np.float32), np.zeros((m, 3), np.float32), np.ones(m, np.int8)
    arguments = (words, 1, 1, b, 1, 1, None, m, 1, 1, 0, 1.0, 1.0, 0, m, sign, panel)
    kernels("hadamard", kind).place((3 * m // 1024,), (1024,), arguments)
    finite = ~np.isnan(exact)
    assert np.array_equal(panel[:, :1][finite].view(np.uint32), exact[finite].view(np.uint32))
    assert np.isnan(panel[:, :1][~finite]).all() and (~finite).sum() > 100


# -- compress ---------------------------------------------------------------------------------------


def swept(
    A: np.ndarray, b: np.ndarray, w: np.ndarray | None, kind: str, S: Any, nnz: int, cut: cuts.SweepCut, start: int,
    scale: tuple[float, float] = (1.0, 1.0), first_rhs: int = 0, rhs: int = 1, backward: bool = False,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """out and sums of `sparse_sign.sweep`, by lane."""
    (m, n), k, d = A.shape, b.shape[1], S.sketch_size
    out = np.full((cut.lanes, d, n + k + 1), np.nan, real(kind))
    sums = np.zeros((cut.lanes, len(cut.parts), n + k + 1, 2 + rhs))
    arguments = (
        A, *strides(A), b, *strides(b), w, m, n, k, start, np.uint64(S.key.value), d, nnz, *scale, cut.lane_rows,
        cut.parts, first_rhs, rhs, out, sums,
    )  # fmt: skip
    kernels("sparse_sign", kind).sweep(cut.grid, (1024,), arguments, cut.shared_bytes, backward=backward)
    return out, sums


def problem(m: int, n: int, k: int, kind: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A as stored and as numbers, b, weights; a few rows carry most of A."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((m, n)) * np.where(rng.random(m) < 0.02, 100.0, 1.0)[:, None]
    A, numbers = stored(values, kind)
    b = rng.standard_normal((m, k)).astype(real(kind))
    return A, numbers, b, rng.random(m)


def check_sums(sums: np.ndarray, expected: Any, n: int, k: int, rounding: float) -> None:
    """sums (n + k + 1, 2 + k), with b and 1 as further columns, against the twin's."""
    size = np.sqrt(np.outer(np.r_[expected.AA, expected.bb, expected.weight], np.r_[expected.bb, expected.weight]))
    for got, exact, bound in [
        (sums[:n, 0], expected.A1, size[:n, -1]), (sums[:n, 1], expected.AA, expected.AA),
        (sums[:n, 2:], expected.Atb, size[:n, :-1]), (sums[n : n + k, 0], expected.b1, size[n:-1, -1]),
        (sums[n : n + k, 1], expected.bb, expected.bb), (sums[-1, 1], expected.weight, expected.weight),
    ]:  # fmt: skip
        assert np.all(np.abs(got - exact) <= rounding * bound)


@needs_compiler
@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize(("d", "nnz", "k", "shared"), SHAPES)
def test_sparse_sign_sweep(kind: str, d: int, nnz: int, k: int, shared: int) -> None:
    """Lanes, parts and tiles together; with weights and in other units, b a strided view, where nnz is odd."""
    m, n, k = (4500 if nnz == 8 else 700), 37, max(1, k)
    A, numbers, b, w = problem(m, n, k, kind)
    family = rpcls.SparseSign(nnz)
    S = family.sample(d, rng=Key(2**63 + 5))
    cut = cuts.sweep_cut(m, n + k + 1, d, nnz, np.dtype(real(kind)).itemsize, shared, k)
    assert nnz == 8 or (len(cut.parts) > 1) == (shared == SMALL_BYTES)
    assert nnz != 8 or cut.lanes > 1
    scale, weight = ((2.0**-3, 4.0), w) if nnz % 2 and nnz > 1 else ((1.0, 1.0), None)
    b = np.repeat(b, 2, axis=1)[:, ::2]
    out, sums = swept(A, b, weight, kind, S, nnz, cut, 2**33, scale, rhs=k)
    expected = family.sweep(S, numbers, b, weight, 2**33, 1, scale)
    eps, exact = EPS[real(kind)], S.columns(2**33, 2**33 + m)
    root = np.ones(m) if weight is None else np.sqrt(weight)
    rows = np.column_stack([scale[0] * numbers.astype(float), scale[1] * b.astype(float), np.ones(m)]) * root[:, None]
    SA = out.astype(float).sum(axis=0) / np.sqrt(nnz)
    assert np.all(np.abs(SA - exact @ rows) <= 40 * eps * (abs(exact) @ abs(rows)))
    assert np.allclose(SA[:, :n], expected.SA, rtol=0, atol=1e2 * eps * np.abs(expected.SA).max())
    check_sums(sums.sum(axis=(0, 1)), expected, n, k, 1e-13 if weight is None or kind == "float64" else 1e-6)


@needs_compiler
@pytest.mark.parametrize("layout", LAYOUTS)
def test_sweep_of_any_layout_and_any_order_of_threads_has_the_same_bits(layout: str) -> None:
    A, _, b, w = problem(300, 33, 1, "float32")
    S = rpcls.SparseSign(3).sample(50, rng=0)
    cut = cuts.sweep_cut(300, 35, 50, 3, 4, SMALL_BYTES)
    expected = swept(A, b, w, "float32", S, 3, cut, 5)
    for backward in (False, True):
        got = swept(LAYOUTS[layout](A), b, w, "float32", S, 3, cut, 5, backward=backward)
        assert all(np.array_equal(x, y) for x, y in zip(got, expected, strict=True))


@needs_compiler
def test_sums_alone_and_more_right_hand_sides_than_one_launch_takes() -> None:
    A, numbers, b, w = problem(400, 5, 6, "float32")
    S = rpcls.CountSketch().sample(3, rng=0)
    cut = cuts.sweep_cut(400, 12, 3, 0, 4, SMALL_BYTES, cuts.MOST_RHS)
    expected = rpcls.CountSketch().sweep(S, numbers, b, w, 0, 1)
    parts = [swept(A, b, w, "float32", S, 0, cut, 0, (1.0, 1.0), j, min(4, 6 - j))[1].sum(axis=(0, 1)) for j in (0, 4)]
    sums = np.concatenate([parts[0], parts[1][:, 2:]], axis=1)
    sums[9:11, :2] = parts[1][9:11, :2]  # a launch is exact about the right-hand sides that it takes
    check_sums(sums, expected, 5, 6, 1e-6)
    assert np.allclose(sums[5:11, 1], expected.bb, rtol=1e-14) and np.isclose(sums[11, 1], w.sum(), rtol=1e-14)


@needs_compiler
def test_sweep_over_no_rows() -> None:
    A, _, b, _ = problem(0, 3, 1, "float64")
    S = rpcls.CountSketch().sample(4, rng=0)
    out, sums = swept(A, b, None, "float64", S, 1, cuts.sweep_cut(0, 5, 4, 1, 8, SMALL_BYTES), 0)
    assert out.shape == (1, 4, 5) and not out.any() and not sums.any()


@needs_compiler
@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_lanes_add_up_in_order(kind: str) -> None:
    rng = np.random.default_rng(0)
    parts = rng.standard_normal((37, 50)).astype(kind)
    some, out = np.zeros((5, 50), kind), np.zeros((1, 50), kind)
    add_up = kernels("lanes", kind).add_up
    add_up((2, 5), (32,), (parts, 37, 8, 50, 1.0, some))
    add_up((2, 1), (32,), (some, 5, 5, 50, 0.25, out))
    exact = 0.25 * parts.astype(np.longdouble).sum(axis=0)
    assert np.all(np.abs(out[0] - exact) <= 4 * EPS[real(kind)] * np.abs(parts).sum(axis=0))
    one = np.zeros((1, 50))
    kernels("lanes", kind).add_up_double((2, 1), (32,), (parts.astype(float), 37, 37, 50, 1.0, one))
    assert np.array_equal(one[0], np.add.accumulate(parts.astype(float), axis=0)[-1])


@needs_compiler
@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("family", [rpcls.SRHT(), rpcls.BlockSRHT(block=32)], ids=str)
def test_hadamard_sweep(kind: str, family: Any) -> None:
    """Three blocks at a time, of which the first and last are not full; q = 32 takes two passes, 2048 three."""
    m, n, k, d, start = 300, 5, 2, 40, 0 if isinstance(family, rpcls.SRHT) else 40
    A, numbers, b, w = problem(m, n, k, kind)
    A = np.asfortranarray(A)
    S = family.sample(d, m=start + m, rng=1)
    q, low, high, shared = family._layout(S)
    N, key, compiled = n + k + 1, np.uint64(S.key.value), kernels("hadamard", kind)
    out = np.zeros((d, N), real(kind))
    for first in range(start // q, -(-(start + m) // q), 3):
        size = 3 * q
        sign, whole, panel = np.zeros(size, np.int8), np.zeros((3, d), np.int8), np.zeros((size, N), real(kind))
        compiled.signs((-(-size // 32),), (32,), (key, first * q, size, sign))
        compiled.block_signs((-(-3 * d // 32),), (32,), (key, first, 3, high, int(shared), d, whole))
        arguments = (A, *strides(A), b, *strides(b), w, m, n, k, start, 0.5, 2.0, first * q, size, sign, panel)
        compiled.place((-(-size * N // 64),), (64,), arguments)
        levels = q.bit_length() - 1
        for level in range(0, levels, 4):
            step = min(4, levels - level)
            compiled.transform((-(-(size >> step) * N // 64),), (64,), (panel, size, N, level, step))
        compiled.add_rows((-(-d * N // 64),), (64,), (panel, 3, q, N, d, low, whole, out))
    exact = S.columns(start, start + m)
    rows = np.column_stack([0.5 * numbers.astype(float), 2.0 * b, np.ones(m)]) * np.sqrt(w)[:, None]
    bound = 40 * EPS[real(kind)] * (abs(exact) @ abs(rows))
    assert np.all(np.abs(out / np.sqrt(d) - exact @ rows) <= bound)


# -- gradient ---------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("n", "k", "shared"), [(37, 1, H100_BYTES), (300, 3, 24 << 10), (300, 3, 8 << 10), (300, 1, 700)]
)
def test_gradient(kind: str, layout: str, n: int, k: int, shared: int) -> None:
    """Rows and sums in shared memory, then only the rows, then neither."""
    m = 90
    shared += 4096 * (shared == 8 << 10 and kind == "float64")
    A, numbers, b, w = problem(m, n, k, kind)
    X = np.random.default_rng(1).standard_normal((k, n))
    cut = cuts.gradient_cut(m, n, k, np.dtype(real(kind)).itemsize, shared)
    cut = cut._replace(lanes=2, lane_rows=-(-m // 2))
    assert cut.keep_rows == (shared > 700) and cut.keep_sums == (shared > 12 << 10)
    weighted, centred, given = (n == 37, n == 300, k != 3 or layout != "F")
    a_mean, b_mean = np.linspace(-1, 1, n), np.linspace(1, 2, k)
    A, right = LAYOUTS[layout](A), b if given else None
    results = []
    for backward in (False, True):
        out, squares = np.full((2, k, n), np.nan), np.full((2, k), np.nan)
        arguments = (
            A, *strides(A), right, *strides(b), w if weighted else None, a_mean if centred else None,
            b_mean if centred else None, X, m, n, k, cut.lane_rows, cut.step, int(cut.keep_rows), int(cut.keep_sums),
            out, squares,
        )  # fmt: skip
        kernels("gradient", kind).gradient((2,), (256,), arguments, cut.shared_bytes, backward=backward)
        results.append((out, squares))
    (out, squares), again = results
    assert np.array_equal(out, again[0]) and np.array_equal(squares, again[1])
    rows, b = numbers.astype(np.longdouble), b.astype(np.longdouble) * given
    rows, b = (rows - a_mean, b - b_mean) if centred else (rows, b)
    weight = w if weighted else np.ones(m)
    r = b - rows @ X.T.astype(np.longdouble)
    size = np.abs(rows).T @ (weight[:, None] * (np.abs(b) + np.abs(rows) @ np.abs(X.T)))
    assert np.all(np.abs(out.sum(axis=0).T - rows.T @ (weight[:, None] * r)) <= 1e-14 * size)
    np.testing.assert_allclose(squares.sum(axis=0), (weight @ (r * r)).astype(float), rtol=1e-12)


# -- sparse rows ------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize("kind", ["float32", "float64"])
@pytest.mark.parametrize("index", [32, 64])
def test_sparse_rows(kind: str, index: int) -> None:
    from rpcls.kernels.cpu import csr

    rng = np.random.default_rng(0)
    m, n, k, d, nnz, start = 200, 60, 2, 30, 3, 11
    A = sp.random_array((m, n), density=0.7, format="csr", dtype=kind, rng=rng)
    A.indices, A.indptr = A.indices.astype(f"i{index // 8}"), A.indptr.astype(f"i{index // 8}")
    b, w = rng.standard_normal((m, k)).astype(kind), rng.random(m)
    family = rpcls.SparseSign(nnz)
    S, scale = family.sample(d, rng=2), (0.5, 4.0)
    expected = family.sweep_csr(S, A, b, w, start, 1, scale)
    compiled = kernels("csr", kind, f"-DINDEX={index}")
    code = np.zeros((nnz, m), np.uint32)
    kernels("sparse_sign", kind).codes((m,), (32,), (np.uint64(S.key.value), start, m, d, nnz, code))
    out, side, edges = np.zeros((d, n), kind), np.zeros((d, k + 1)), np.arange(nnz + 1) * d // nnz
    rows = (A.data, A.indices, A.indptr, b, *strides(b), w)
    for z in range(nnz):
        target = (code[z] >> 1).astype(np.int64)
        order = np.argsort(target, kind="stable")
        bounds = np.searchsorted(target[order], np.arange(edges[z], edges[z + 1] + 1))
        width, here = int(edges[z + 1] - edges[z]), slice(edges[z], edges[z + 1])
        arguments = (*rows, n, k, *scale, code[z], order, bounds, width, out[here], side[here])
        compiled.gather((-(-width // 4),), (128,), arguments)
    eps = EPS[real(kind)]
    assert np.allclose(out / np.sqrt(nnz), expected.SA, rtol=0, atol=40 * eps * np.abs(expected.SA).max())
    assert np.allclose(side / np.sqrt(nnz), np.column_stack([expected.Sb, expected.S1]), rtol=0, atol=200 * eps)
    sums, totals = np.zeros((3, n, 2 + k)), np.zeros((3, 2 * k + 1))
    compiled.column_sums((1,), (128,), (*rows, m, n, k, *scale, 70, sums, totals))
    sums, totals = sums.sum(axis=0), totals.sum(axis=0)
    assert np.allclose(sums, np.column_stack([expected.A1, expected.AA, expected.Atb]), rtol=1e-13, atol=1e-13)
    assert np.allclose(totals, np.r_[expected.b1, expected.bb, expected.weight], rtol=1e-13)

    X, shift = rng.standard_normal((k, n)), rng.standard_normal(k)
    for weight, right in itertools.product((w, None), (b, None)):
        got = np.zeros((3, k, n)), np.zeros((3, k)), np.zeros((3, k))
        arguments = (A.data, A.indices, A.indptr, right, *strides(b), weight, X, shift, m, n, k, 70, *got)
        compiled.gradient((1,), (128,), arguments)
        twin = np.zeros((k, n)), np.zeros(k), np.zeros(k)
        weights, rhs = np.empty(0) if weight is None else weight, np.empty((0, k), kind) if right is None else right
        csr.gradient(A.data, A.indices, A.indptr, rhs, weights, X, shift, 0, m, *twin)
        for mine, theirs in zip(got, twin, strict=True):
            np.testing.assert_allclose(mine.sum(axis=0), theirs, rtol=1e-12, atol=1e-11)


# -- how work is cut --------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 7, 64, 1000, 1024, 8000, 100_000])
@pytest.mark.parametrize("nnz", [1, 2, 3, 8, 17, 1000])
@pytest.mark.parametrize("itemsize", [4, 8])
def test_parts_hold_every_row_of_the_sketch_once(d: int, nnz: int, itemsize: int) -> None:
    d = max(d, nnz)
    for shared in (64 << 10, 163 << 10, H100_BYTES):
        cut = cuts.sweep_cut(10**6, 258, d, nnz, itemsize, shared, 4)
        assert cut.parts[0, 0] == 0 and cut.parts[-1, :2].sum() == d and cut.shared_bytes <= shared
        assert np.array_equal(cut.parts[1:, 0], cut.parts[:-1, :2].sum(axis=1))
        edges = np.arange(nnz + 1) * d // nnz
        for first, rows, z, blocks in cut.parts:
            assert edges[z] <= first and first + rows <= edges[z + blocks] and 1 <= blocks <= 16
            assert blocks == 1 or (first, rows) == (edges[z], edges[z + blocks] - edges[z])
        assert (cut.lanes - 1) * cut.lane_rows < 10**6 <= cut.lanes * cut.lane_rows


def test_the_sizes_that_are_to_be_fast_fit_a_block() -> None:
    """16e6 × 256 float32 under d = 1024: one part on an H100, so that A is read once; work for every multiprocessor."""
    for nnz in (1, 8):
        cut = cuts.sweep_cut(16_000_000, 258, 1024, nnz, 4, H100_BYTES)
        assert len(cut.parts) == 1 and cut.tiles * cut.lanes > 1000
    cut = cuts.gradient_cut(16_000_000, 256, 1, 4, H100_BYTES)
    assert cut.keep_rows and cut.keep_sums and 3 * (cut.shared_bytes + 1024) <= 228 << 10 and cut.step >= 64


@pytest.mark.parametrize("n", [1, 31, 256, 2000, 20_000, 10**6])
@pytest.mark.parametrize("k", [1, 4, 100])
def test_gradient_cuts_fit(n: int, k: int) -> None:
    for rows, shared in itertools.product((0, 1, 10**6), (48 << 10, H100_BYTES)):
        cut = cuts.gradient_cut(rows, n, k, 8, shared)
        assert cut.shared_bytes <= shared and cut.step >= 1 and cut.lanes >= 1
        assert (cut.lanes - 1) * cut.lane_rows < max(rows, 1) and rows <= cut.lanes * cut.lane_rows
    with pytest.raises(ValueError, match="10000 right-hand sides do not fit a block"):
        cuts.gradient_cut(10, n, 10_000, 8, 48 << 10)


def test_cuts_know_the_numbers_of_the_kernels() -> None:
    def defined(file: str, name: str) -> str:
        found = re.search(rf"^#define {name} +(.+?) *(?://.*)?$", (SOURCES / file).read_text(encoding="utf-8"), re.M)
        assert found is not None
        return found[1]

    assert int(defined("panel.cuh", "TILE")) == cuts.TILE and int(defined("panel.cuh", "MOST_RHS")) == cuts.MOST_RHS
    assert int(defined("panel.cuh", "THREADS")) == cuts.SWEEP_THREADS
    assert defined("panel.cuh", "PANEL_ROWS") == "(1024 / (int)sizeof(Real))"
    assert int(defined("gradient.cu", "THREADS")) == cuts.GRADIENT_THREADS == 32 * cuts.WARPS
    assert int(defined("gradient.cu", "RUN")) == cuts.RUN


# -- the files --------------------------------------------------------------------------------------


def test_every_file_is_listed_and_says_what_it_is() -> None:
    assert {"philox", "sparse_sign", "gaussian", "rademacher", "hadamard", "gradient", "csr", "lanes"} == set(FILES)
    for path in [*SOURCES.glob("*.cu"), *SOURCES.glob("*.cuh")]:
        text = path.read_text(encoding="utf-8")
        assert text.startswith("// ") and text.isascii() and len(text.splitlines()) <= 400
        assert not re.search(r"atomic[A-Z]", text) and max(map(len, text.splitlines())) <= 120, path.name
        assert path.suffix == ".cuh" or kernels_of(text)


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc, which is not installed")
@pytest.mark.parametrize("name", FILES)
def test_nvcc_compiles_every_file(name: str, tmp_path: Path) -> None:
    """For sm_70 or the oldest that this nvcc knows, sm_80 and sm_90, each with another type of input."""
    listed = subprocess.run(["nvcc", "--list-gpu-code"], capture_output=True, text=True, check=True).stdout
    oldest = min(int(number) for number in re.findall(r"sm_(\d+)\b", listed))
    for target, kind in ((max(70, oldest), "float16"), (80, "float64"), (90, "float32")):
        command = ["nvcc", "--fmad=false", "-Werror", "all-warnings", "-cubin", f"-arch=sm_{target}"]
        out = ["-o", str(tmp_path / "out.cubin"), f"-DINPUT={INPUTS[kind]}", str(SOURCES / f"{name}.cu")]
        result = subprocess.run([*command, *out], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
