"""The CUDA kernels against their numba twins: the operators bit for bit, the products to rounding.

The host's C++ compiler builds the same files, see `host_shim.h`; nvcc compiles them for cards where it is installed.
"""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cupy_stand_in
import numpy as np
import pytest
import scipy.sparse as sp
from host_cuda import SOURCES, kernels_of, module, needs_compiler

import rpcls
from rpcls.kernels.cuda import cuts, device, sweeps
from rpcls.random import Key

FILES = sorted(path.stem for path in SOURCES.glob("*.cu"))
INPUTS = {"float32": 32, "float64": 64, "float16": 16, "bfloat16": 116}
H100_BYTES, SMALL_BYTES = 227 << 10, 48 << 10  # shared memory of a block
EPS = {np.float32: 2.0**-23, np.float64: 2.0**-52}


def kernels(name: str, kind: str, *more: str) -> Any:
    return module(name, f"-DINPUT={INPUTS[kind]}", *more)


def stored(values: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """The values as a kernel is given them, and the numbers that those are."""
    if kind == "bfloat16":
        words = np.ascontiguousarray(values, np.float32).view(np.uint32) >> 16
        return words.astype(np.uint16), (words << 16).view(np.float32)
    array = values.astype(kind)
    return array, array.astype(np.float32) if kind == "float16" else array


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
        kernels("order", "float32").codes((8,), (32,), (np.uint64(key), start, 50, d, nnz, out))
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


@contextmanager
def card_with(shared_bytes: int) -> Iterator[Any]:
    """The stand-in for CuPy, on a card with that much shared memory for a block."""
    device._most_shared_bytes.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cupy_stand_in, "MOST_SHARED_BYTES", shared_bytes)
        patch.setitem(device._INPUTS, "uint16", INPUTS["bfloat16"])  # whose bits these are
        with cupy_stand_in.imported(patch) as cupy:
            yield cupy
    device._most_shared_bytes.cache_clear()


@pytest.fixture(params=[H100_BYTES, SMALL_BYTES], ids=["H100", "small"])
def card(request: pytest.FixtureRequest) -> Iterator[Any]:
    with card_with(request.param) as cupy:
        yield cupy


@pytest.fixture
def any_card() -> Iterator[Any]:
    """For kernels that shared memory makes no difference to."""
    with card_with(SMALL_BYTES) as cupy:
        yield cupy


def problem(m: int, n: int, k: int, kind: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A as stored and as numbers, b, weights; a few rows carry most of A."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((m, n)) * np.where(rng.random(m) < 0.02, 100.0, 1.0)[:, None]
    A, numbers = stored(values, kind)
    b = rng.standard_normal((m, k)).astype(real(kind))
    return A, numbers, b, rng.random(m)


def rows_on(
    card: Any, A: np.ndarray, b: np.ndarray, w: np.ndarray | None, start: int, scale: tuple[float, float] = (1.0, 1.0)
) -> sweeps.Rows:
    return sweeps.Rows(card.ndarray(A), card.ndarray(b), None if w is None else card.ndarray(w), start, scale)


def check_sums(swept: sweeps.Swept, expected: Any, rounding: float) -> None:
    """The exact sums, and S[b 1], against the twin's."""
    right, ones = np.sqrt(expected.bb), np.sqrt(expected.weight)
    norms, k = np.sqrt(expected.AA)[:, None], len(right)
    for got, exact, bound in [
        (swept.columns[:, 0], expected.A1, norms[:, 0] * ones), (swept.columns[:, 1], expected.AA, expected.AA),
        (swept.columns[:, 2:], expected.Atb, norms * right), (swept.right[0], expected.b1, right * ones),
        (swept.right[1], expected.bb, expected.bb), (swept.weight, expected.weight, expected.weight),
    ]:  # fmt: skip
        assert np.all(np.abs(got - exact) <= rounding * bound)
    assert np.allclose(swept.sides[:, :k], expected.Sb, rtol=0, atol=50 * EPS[expected.Sb.dtype.type] * right.max())
    assert np.allclose(swept.sides[:, k], expected.S1, rtol=0, atol=50 * EPS[expected.Sb.dtype.type] * ones)


@needs_compiler
@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize(
    ("d", "nnz", "n", "k"),
    [(40, 1, 37, 1), (64, 8, 37, 2), (60, 8, 36, 1), (70, 8, 36, 1), (9000, 1, 300, 1), (2500, 19, 5, 3)],
)
def test_sparse_sign_sweep(card: Any, kind: str, d: int, nnz: int, n: int, k: int) -> None:
    """Lanes, parts and tiles together; with weights and in other units, b a strided view, where d is large. Rows of
    36 columns are copied 16 bytes at a time."""
    m, k = 9000 if nnz == 1 else 1300, 1 if kind == "bfloat16" else k  # more take conversions that CuPy has not
    A, numbers, b, w = problem(m, n, k, kind)
    family = rpcls.SparseSign(nnz)
    S = family.sample(d, rng=Key(2**63 + 5))
    scale, weight = ((2.0**-3, 4.0), w) if d > 64 else ((1.0, 1.0), None)
    b = np.repeat(b, 2, axis=1)[:, ::2]
    swept = sweeps.sparse_sign(rows_on(card, A, b, weight, 2**33, scale), S.key.value, d, nnz)
    expected = family.sweep(S, numbers, b, weight, 2**33, 1, scale)
    eps, exact = EPS[real(kind)], S.columns(2**33, 2**33 + m)
    root = np.ones(m) if weight is None else np.sqrt(weight)
    rows = scale[0] * numbers.astype(float) * root[:, None]
    SA = swept.SA.held
    assert SA.dtype == real(kind) and SA.flags.c_contiguous
    assert np.all(np.abs(SA - exact @ rows) <= 40 * eps * (abs(exact) @ abs(rows)))
    assert np.allclose(SA, expected.SA, rtol=0, atol=1e2 * eps * np.abs(expected.SA).max())
    check_sums(swept, expected, 1e-13 if weight is None or kind == "float64" else 1e-6)


@pytest.mark.parametrize("nnz", [1, 8])
def test_many_groups_of_lanes(monkeypatch: pytest.MonkeyPatch, nnz: int) -> None:
    """A grid as large as a card's, so that accumulators are added up."""
    with cupy_stand_in.imported(monkeypatch) as card:
        monkeypatch.setattr(cuts, "_LEAST", 1)
        m, d = 40_000 if nnz == 1 else 3000, 16
        A, numbers, b, w = problem(m, 3, 1, "float64")
        S = rpcls.SparseSign(nnz).sample(d, rng=1)
        swept = sweeps.sparse_sign(rows_on(card, A, b, w, 0), S.key.value, d, nnz)
        expected = S.family.sweep(S, numbers, b, w, 0, 1)
    assert np.allclose(swept.SA.held, expected.SA, rtol=0, atol=1e-12 * np.abs(expected.SA).max())
    check_sums(swept, expected, 1e-13)


@needs_compiler
@pytest.mark.parametrize("nnz", [1, 3])
def test_sweep_of_any_layout_and_any_order_of_threads_has_the_same_bits(
    card: Any, monkeypatch: pytest.MonkeyPatch, nnz: int
) -> None:
    monkeypatch.setattr(sweeps, "_COPY_BYTES", 1 << 20)
    A, _, b, w = problem(900, 33, 1, "float32")
    S = rpcls.SparseSign(nnz).sample(50, rng=0)
    expected = sweeps.sparse_sign(rows_on(card, A, b, w, 5), S.key.value, 50, nnz)
    for layout, backward in itertools.product(LAYOUTS.values(), (False, True)):
        monkeypatch.setattr(cupy_stand_in, "BACKWARD", backward)
        got = sweeps.sparse_sign(rows_on(card, layout(A), b, w, 5), S.key.value, 50, nnz)
        assert np.array_equal(got.SA.held, expected.SA.held) and got.weight == expected.weight
        assert all(np.array_equal(x, y) for x, y in zip(got[1:4], expected[1:4], strict=True))


@needs_compiler
def test_copies_of_some_rows_at_a_time(card: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeps, "_COPY_BYTES", 8 * 9 * 100)
    A, numbers, b, w = problem(850, 9, 2, "float64")
    for S in (rpcls.SparseSign(2).sample(30, rng=0), rpcls.CountSketch().sample(30, rng=0)):
        nnz = S.family.nnz_per_column
        swept = sweeps.sparse_sign(rows_on(card, np.asfortranarray(A), b, w, 7), S.key.value, 30, nnz)
        expected = S.family.sweep(S, numbers, b, w, 7, 1)
        assert np.allclose(swept.SA.held, expected.SA, rtol=0, atol=1e-12 * np.abs(expected.SA).max())
        check_sums(swept, expected, 1e-13)


@needs_compiler
def test_some_entries_listed_at_a_time(card: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    parts, own = [], sweeps._sparse_sign
    monkeypatch.setattr(sweeps, "_LIST_BYTES", 1 << 14)
    monkeypatch.setattr(sweeps, "_sparse_sign", lambda rows, *a: parts.append(len(rows.A)) or own(rows, *a))
    A, numbers, b, w = problem(850, 9, 2, "float64")
    S = rpcls.SparseSign(3).sample(30, rng=0)
    swept = sweeps.sparse_sign(rows_on(card, A, b, w, 7), S.key.value, 30, 3)
    assert len(parts) > 1 and sum(parts) == 850
    expected = S.family.sweep(S, numbers, b, w, 7, 1)
    assert np.allclose(swept.SA.held, expected.SA, rtol=0, atol=1e-12 * np.abs(expected.SA).max())
    check_sums(swept, expected, 1e-13)


def listed(S: Any, m: int, start: int, rows: int, panels: int) -> tuple[np.ndarray, np.ndarray]:
    """What quads.cu says of a sketch in one part: words (stretches, capacity) and starts."""
    d, nnz = S.sketch_size, S.family.nnz_per_column
    quads, stretches, entries = 32 * -(-d // 128), -(-m // (rows * panels)), nnz * rows * panels
    capacity = 2 * (entries + min(entries, panels * quads))
    words = np.zeros((stretches, capacity), np.uint32)
    starts = np.zeros((stretches, panels * quads + 1), np.uint32)
    key, parts = np.uint64(S.key.value), np.array([[0, d, 0, nnz]])
    nothing = (None, 0, 0, None, 0, 1.0)  # no right-hand side, and no weights
    sides = np.empty((stretches, d, 1))
    arguments = (key, start, m, d, nnz, parts, rows, panels, capacity, quads, *nothing, words, starts, sides)
    shared = cuts._quad_bytes(quads, panels, entries)
    kernels("quads", "float32").quads((stretches, 1), (cuts.QUADS_THREADS,), arguments, shared)
    return words, starts.astype(int)


@needs_compiler
@pytest.mark.parametrize(
    ("d", "nnz", "rows", "panels"),
    [(8, 8, 300, 2), (50, 3, 256, 1), (1000, 8, 128, 3), (1000, 8, 64, 8), (40, 16, 64, 5), (1, 1, 600, 4)],
)
def test_quads_hold_every_entry_once(d: int, nnz: int, rows: int, panels: int) -> None:
    """Every entry of S, in order, in the phase of its panel or in the next, and zeros where none is left."""
    m, start = 2 * rows * panels + 3 * rows // 2, 2**40
    S = rpcls.SparseSign(nnz).sample(d, rng=3)
    exact = S.columns(start, start + m).toarray()
    words, starts = listed(S, m, start, rows, panels)
    quads = (starts.shape[1] - 1) // panels
    for stretch, at in enumerate(starts):
        assert at[0] == 0 and np.all(np.diff(at) % 4 == 0) and at[-1] <= words.shape[1]
        first = stretch * panels
        for r in range(d):
            found, minus = [], []
            for phase in range(panels):
                begin, end = at[phase * quads + r // 4 : phase * quads + r // 4 + 2]
                own = words[stretch, begin + r % 4 : end : 4].astype(int)
                place = np.column_stack([own >> 7 & 0x7FF, own >> 18 & 0x7FF]).ravel()
                sign = np.column_stack([own & 1, own >> 31]).ravel()
                room, row = place // rows, place % rows
                there = room < 3
                assert np.all(place[~there] == 3 * rows) and np.all(np.diff(there.astype(int)) <= 0)
                panel = np.where(room == (first + phase) % 3, first + phase, first + phase - 1)[there]
                assert np.array_equal(room[there], panel % 3) and np.all(panel >= first)
                found.append(panel * rows + row[there])
                minus.append(sign[there])
            here = exact[r, first * rows : (first + panels) * rows]
            (nonzero,) = here.nonzero()
            assert np.array_equal(np.concatenate(found), first * rows + nonzero)
            assert np.array_equal(np.concatenate(minus), here[nonzero] < 0)


@needs_compiler
def test_steps_are_few() -> None:
    """At the sizes that are to be fast, a fifth more than the entries; without catching up it is six tenths."""
    S = rpcls.SparseSign(8).sample(1024, rng=0)
    (entries, alone), (_, together) = (
        (8 * 6912, 2 * listed(S, 6912, 0, 576, panels)[1][:, -1].sum()) for panels in (1, 12)
    )
    assert 1.18 < together / entries < 1.28 and 1.55 < alone / entries < 1.7


@needs_compiler
@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("n", [1, 70, 300])
def test_exact_sums_alone(any_card: Any, kind: str, n: int) -> None:
    A, numbers, b, w = problem(1000, n, 1 if kind == "bfloat16" else 2, kind)
    S = rpcls.CountSketch().sample(3, rng=0)
    expected = rpcls.CountSketch().sweep(S, numbers, b, w, 0, 1, (0.5, 4.0))
    swept = sweeps.Swept(None, np.zeros((3, 3)), *sweeps.exact(rows_on(any_card, A, b, w, 0, (0.5, 4.0))))
    check_sums(swept._replace(sides=np.column_stack([expected.Sb, expected.S1])), expected, 1e-6)
    assert np.allclose(swept.right[1], expected.bb, rtol=1e-14) and np.isclose(swept.weight, w.sum(), rtol=1e-14)


@needs_compiler
@pytest.mark.parametrize("nnz", [1, 2])
def test_sweep_over_no_rows(card: Any, nnz: int) -> None:
    A, _, b, _ = problem(0, 3, 1, "float64")
    swept = sweeps.sparse_sign(rows_on(card, A, b, None, 0), 5, 4, nnz)
    assert swept.SA.shape == (4, 3) and not swept.SA.held.any() and not any(np.any(part) for part in swept[1:])


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
@pytest.mark.parametrize(("n", "k"), [(1, 1), (37, 2), (300, 3), (700, 1)])
def test_gradient(any_card: Any, monkeypatch: pytest.MonkeyPatch, kind: str, layout: str, n: int, k: int) -> None:
    """Several teams a block, teams of several warps, pairs of right-hand sides."""
    m = 190
    A, numbers, b, w = problem(m, n, k, kind)
    X = np.random.default_rng(1).standard_normal((n, k))
    weighted, centred, given = (n == 37, n == 300, k != 2 or layout != "F")
    means = (np.linspace(-1, 1, n), np.linspace(1, 2, k)) if centred else None
    held = any_card.ndarray(LAYOUTS[layout](A)), any_card.ndarray(b) if given else None
    results = []
    for backward in (False, True):
        monkeypatch.setattr(cupy_stand_in, "BACKWARD", backward)
        found = sweeps.gradient(*held, any_card.ndarray(w) if weighted else None, means, X)
        results.append(found)
    (squares, out), again = results
    assert np.array_equal(squares, again[0]) and np.array_equal(out, again[1])
    rows, b = numbers.astype(np.longdouble), b.astype(np.longdouble) * given
    if means is not None:
        rows, b = rows - means[0], b - means[1] * given
    weight = w if weighted else np.ones(m)
    r = b - rows @ X.astype(np.longdouble)
    size = np.abs(rows).T @ (weight[:, None] * (np.abs(b) + np.abs(rows) @ np.abs(X)))
    assert np.all(np.abs(out - rows.T @ (weight[:, None] * r)) <= 1e-14 * size)
    np.testing.assert_allclose(squares, (weight @ (r * r)).astype(float), rtol=1e-12)


def test_rows_that_are_short_enough() -> None:
    assert sweeps.gradient_fits(2048) and not sweeps.gradient_fits(2049)
    assert cuts.gradient_cut(10, 2048, 2).warps == cuts.MOST_WARPS


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
    kernels("order", kind).codes((m,), (32,), (np.uint64(S.key.value), start, m, d, nnz, code))
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
    for shared, m in itertools.product((48 << 10, 163 << 10, H100_BYTES), (1, 10**6)):
        cut = cuts.panel_cut(m, 256, d, nnz, itemsize, shared) if nnz > 1 else None
        if cut is None:
            lists = cuts.lists_for_gather(m, d, nnz, shared)
            assert np.all(lists.parts[:, 3] == 1) and lists.shared_bytes <= shared and lists.capacity < 1 << 16
            assert lists.width == lists.parts[:, 1].max() <= 1 << cuts.PLACE_BITS and lists.lane_rows <= 1 << 16
            assert (lists.lanes - 1) * lists.lane_rows < m <= lists.lanes * lists.lane_rows
            gather = cuts.gather_cut(lists, m, lists.width, 3)
            assert (gather.groups - 1) * gather.lanes_each < lists.lanes <= gather.groups * gather.lanes_each
        else:
            assert max(cut.shared_bytes, cut.bytes_to_list) <= shared
            assert cut.panel_rows % 64 == 0 and 3 * cut.panel_rows < 1 << 11
            assert cut.parts[:, 1].max() <= 128 * cut.slots <= 1024 and cut.panels * cut.panel_rows < 1 << 15
            assert 1 <= cut.groups <= cut.stretches
            stretch = cut.panels * cut.panel_rows
            assert (cut.stretches - 1) * stretch < m <= cut.stretches * stretch
        parts = (cut or lists).parts
        assert parts[0, 0] == 0 and parts[-1, :2].sum() == d
        assert np.array_equal(parts[1:, 0], parts[:-1, :2].sum(axis=1))
        edges = np.arange(nnz + 1) * d // nnz
        for first, rows, z, blocks in parts:
            assert edges[z] <= first and first + rows <= edges[z + blocks] and 1 <= blocks <= 16
            assert blocks == 1 or (first, rows) == (edges[z], edges[z + blocks] - edges[z])


def test_the_sizes_that_are_to_be_fast_fit_a_block() -> None:
    """16e6 x 256 float32 under d = 1024: few parts on an H100, and work for every multiprocessor."""
    cut = cuts.panel_cut(16_000_000, 256, 1024, 8, 4, H100_BYTES)
    assert cut is not None and len(cut.parts) == 1 and cut.panel_rows == 576 and cut.panels == 12
    assert cut.tiles * cut.groups > 1000 and cut.bytes_to_list < H100_BYTES
    assert cut.bytes_of_lists < min(sweeps._LIST_BYTES, 16_000_000 * 1024 / 10)  # little beside A, and in one piece
    lists = cuts.lists_for_gather(16_000_000, 1024, 1, H100_BYTES)
    gather = cuts.gather_cut(lists, 16_000_000, 1024, 1)
    assert len(lists.parts) == 1 and gather.groups * 1024 > 7 * 132 * 16 and gather.rows_each == 1
    assert 4 * gather.groups * 1024 * 256 < 16_000_000 * 1024 / 100  # accumulators are little beside A
    gradient = cuts.gradient_cut(16_000_000, 256, 1)
    assert gradient[:2] == (1, 8) and gradient.teams > 7 * 132 * 16


@pytest.mark.parametrize("n", [1, 31, 256, 257, 2000, 2048])
@pytest.mark.parametrize("rhs", [1, 2])
def test_gradient_cuts_cover_rows_and_columns(n: int, rhs: int) -> None:
    for rows in (0, 1, 10**4, 10**7):
        cut = cuts.gradient_cut(rows, n, rhs)
        assert 32 * cut.warps * cut.span >= n > 32 * cut.warps * (cut.span - 1) - 32 * cut.warps
        assert (cut.teams - 1) * cut.lane_rows < max(rows, 1) and rows <= cut.teams * cut.lane_rows
        assert cut.span * rhs <= 8 and cut.threads <= 512 and cut.lane_rows % 8 == 0


def test_cuts_know_the_numbers_of_the_kernels() -> None:
    def defined(file: str, name: str) -> str:
        found = re.search(rf"^#define {name} +(.+?) *(?://.*)?$", (SOURCES / file).read_text(encoding="utf-8"), re.M)
        assert found is not None
        return found[1]

    assert int(defined("panels.cu", "THREADS")) == cuts.PANEL_THREADS
    assert int(defined("panels.cu", "SLOTS")) == cuts.MOST_SLOTS
    assert int(defined("quads.cuh", "QUAD")) == cuts.QUAD and int(defined("quads.cuh", "ROOMS")) == cuts.ROOMS
    assert int(defined("quads.cuh", "ROW_BITS").rstrip("u"), 16) == cuts._PLACES - 1
    assert int(defined("panels.cu", "ROW_BYTES")) == cuts.ROW_BYTES
    assert int(defined("entries.cuh", "THREADS")) == cuts.ORDER_THREADS
    assert int(defined("quads.cu", "THREADS")) == cuts.QUADS_THREADS
    assert int(defined("entries.cuh", "MOST_BLOCKS")) == cuts.MOST_BLOCKS
    assert int(defined("gather.cu", "WARPS")) == cuts.GATHER_WARPS


# -- the files --------------------------------------------------------------------------------------


def test_every_file_is_listed_and_says_what_it_is() -> None:
    assert {
        "philox", "order", "quads", "gather", "panels", "sides", "gaussian", "rademacher", "hadamard", "gradient",
        "csr", "lanes", "lanczos",
    } == set(FILES)  # fmt: skip
    for path in [*SOURCES.glob("*.cu"), *SOURCES.glob("*.cuh")]:
        text = path.read_text(encoding="utf-8")
        assert text.startswith("// ") and text.isascii() and len(text.splitlines()) <= 400
        assert (path.name in ("order.cu", "quads.cu")) == bool(re.search(r"atomic[A-Z]", text))  # counts, never sums
        assert max(map(len, text.splitlines())) <= 120, path.name
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
