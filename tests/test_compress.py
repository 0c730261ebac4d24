"""The fused sweep against extended precision, and what must not matter: blocks, threads, layout, units."""

from __future__ import annotations

import itertools
import tracemalloc
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from market import DTYPES, FAMILIES, LAYOUTS, SOURCES, blocks_of

import rpcls
from rpcls.compressed import CompressedProblem
from rpcls.errors import InvalidTypeError, InvalidValueError, NonFiniteError
from rpcls.sketches import SketchFamily, SketchOperator

ARRAYS = ("SA", "Sb", "S1", "Atb", "btb", "column_norms", "column_sums", "b_sum")
every_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
every_dtype = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
EDGES = [1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 40, 63, 64, 65, 100, 127, 129, 300]  # widths of tiles, and beside


def dense(S: SketchOperator, first: int, stop: int) -> np.ndarray:
    block = S.columns(first, stop)
    return block if isinstance(block, np.ndarray) else block.toarray()


def check(c: CompressedProblem, A: np.ndarray, b: np.ndarray, w: np.ndarray | None = None, row_offset: int = 0) -> None:
    """Every field of c against sums in extended precision, each within rounding of the sum of absolute values."""
    m, n = A.shape
    eps = float(np.finfo(A.dtype).eps)
    sum_eps = 2.0**-52 if w is None or A.dtype == np.float64 else eps  # √w·A is rounded to A's dtype first
    S = dense(c.operator, row_offset, row_offset + m).astype(np.longdouble)
    one = np.sqrt(np.ones(m) if w is None else w).astype(np.longdouble)
    A, b = A.astype(np.longdouble) * one[:, None], (b.T.astype(np.longdouble) * one).T
    growth = 4 + np.sqrt(m)
    for name, exact, size, unit in [
        ("SA", S @ A, abs(S) @ abs(A), eps),
        ("Sb", S @ b, abs(S) @ abs(b), eps),
        ("S1", S @ one, abs(S) @ one, eps),
        ("Atb", A.T @ b, abs(A).T @ abs(b), sum_eps),
        ("btb", np.sum(b * b, axis=0), np.sum(b * b, axis=0), 2.0**-52),
        ("column_norms", np.sqrt(np.sum(A * A, axis=0)), np.sqrt(np.sum(A * A, axis=0)), sum_eps),
        ("column_sums", one @ A, one @ abs(A), sum_eps),
        ("b_sum", one @ b, one @ abs(b), 2.0**-52),
        ("weight", one @ one, one @ one, 2.0**-52),
    ]:
        value = np.asarray(getattr(c, name))
        assert value.shape == np.shape(exact) and value.dtype == (A_dtype(c) if name in ("SA", "Sb") else np.float64), (
            name
        )
        assert np.all(np.abs(value - exact) <= 2 * growth * unit * size + 1e-300), name
    assert c.shape == (m, n) and c.intervals == (((row_offset, row_offset + m),) if m else ())
    assert c.exponents == (0, 0) and c.means is None and set(c.timings) == {"compress"}


def A_dtype(c: CompressedProblem) -> np.dtype:
    assert c.dtype == c.SA.dtype == c.Sb.dtype and c.sketch_size == len(c.SA) == c.operator.sketch_size
    return c.dtype


def same_bits(c1: CompressedProblem, c2: CompressedProblem) -> bool:
    return all(np.array_equal(getattr(c1, name), getattr(c2, name)) for name in (*ARRAYS, "weight", "exponents"))


def close(c1: CompressedProblem, c2: CompressedProblem, m: int, tolerance: float = 1e-13) -> None:
    """Equal to rounding, with entries of order one in m rows, up to what the exponents say."""
    if c1.dtype == np.float32:
        tolerance = max(tolerance, 3e-6)
    for name in (*ARRAYS, "weight"):
        np.testing.assert_allclose(getattr(c1, name), getattr(c2, name), rtol=tolerance, atol=tolerance * m)
    assert c1.intervals == c2.intervals and c1.operator == c2.operator and c1.exponents == c2.exponents


def problem(m: int, n: int, k: int | None, dtype: Any, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((m, n)) + rng.standard_normal(n)
    b = rng.standard_normal(m if k is None else (m, k)) + 1
    return A.astype(dtype), b.astype(dtype), rng.random(m)


# -- against extended precision ---------------------------------------------------------------------


@every_dtype
@pytest.mark.parametrize("n", EDGES)
def test_every_width(n: int, dtype: type) -> None:
    cases = ((1, n + 9, None, 8), (130, 40, 2, 3), (131, 4 * n + 16, None, 8), (131, 3, None, 1), (131, 1, 2, 1))
    for m, d, k, nnz in cases:
        A, b, w = problem(m, n, k, dtype, seed=n)
        for weight in (None, w):
            c = rpcls.compress(A, b, rpcls.SparseSign(nnz), sketch_size=d, rng=n, sample_weight=weight)
            check(c, A, b, weight)


@every_family
@every_dtype
@given(
    m=st.integers(0, 80), n=st.integers(1, 40), k=st.one_of(st.none(), st.integers(1, 9)), d=st.integers(8, 90),
    weighted=st.booleans(), seed=st.integers(0, 1000),
)  # fmt: skip
def test_every_shape(
    family: SketchFamily, dtype: type, m: int, n: int, k: int | None, d: int, weighted: bool, seed: int
) -> None:
    A, b, w = problem(m, n, k, dtype, seed)
    weight = w if weighted else None
    check(rpcls.compress(A, b, family, sketch_size=d, rng=seed, sample_weight=weight), A, b, weight)


@every_family
@every_dtype
@pytest.mark.parametrize("k", [7, 8, 15, 16, 17])
def test_right_hand_sides_at_the_width_of_a_tile(family: SketchFamily, dtype: type, k: int) -> None:
    A, b, w = problem(50, 9, k, dtype, seed=k)
    check(rpcls.compress(A, b, family, sketch_size=20, rng=0, sample_weight=w), A, b, w)


@every_family
@every_dtype
@pytest.mark.parametrize("n", [1, 40])
def test_many_panels_and_lanes(family: SketchFamily, dtype: type, n: int) -> None:
    A, b, w = problem(9001, n, 2, dtype, seed=0)
    check(rpcls.compress(A, b, family, sketch_size=16, rng=0, sample_weight=w), A, b, w)


@every_family
@pytest.mark.parametrize("offset", [1, 2**31 - 3, 2**32 - 3, 2**38, 2**62])
def test_row_offset(family: SketchFamily, offset: int) -> None:
    A, b, _ = problem(9, 10, None, np.float64, seed=0)
    if offset == 2**62:
        with pytest.raises(InvalidValueError, match=r"numbered below 2\*\*62, got 9 rows from row_offset 4611"):
            rpcls.compress(A, b, family, sketch_size=16, rng=0, row_offset=offset)
        offset -= 9  # to the last row that there can be
    check(rpcls.compress(A, b, family, sketch_size=16, rng=0, row_offset=offset), A, b, row_offset=offset)


def test_sums_of_float32_lose_no_digits() -> None:
    """Many rows with a large mean: float32 sums would keep three digits."""
    m = 2_000_000
    rng = np.random.default_rng(0)
    A = rng.standard_normal((m, 3), dtype=np.float32) + np.float32(1e3)
    b = rng.standard_normal(m, dtype=np.float32) + np.float32(1e3)
    c = rpcls.compress(A, b, rpcls.CountSketch(), sketch_size=16, rng=0)
    assert c.SA.dtype == c.Sb.dtype == np.float32
    for j in range(3):
        column = A[:, j].astype(np.longdouble)
        assert c.column_sums[j] == pytest.approx(float(column.sum()), rel=1e-12)
        assert c.column_norms[j] == pytest.approx(float(np.sqrt(np.sum(column * column))), rel=1e-12)
        assert c.Atb[j] == pytest.approx(float(np.sum(column * b)), rel=1e-12)
    assert c.b_sum == pytest.approx(float(b.astype(np.longdouble).sum()), rel=1e-12)
    assert c.weight == m


@every_dtype
def test_the_gradient_is_exact_on_integers(dtype: type) -> None:
    rng = np.random.default_rng(0)
    A, b = rng.integers(-99, 99, (5000, 33)), rng.integers(-99, 99, (5000, 2))
    c = rpcls.compress(A.astype(dtype), b, rng=0)
    assert np.array_equal(c.Atb, A.T @ b) and np.array_equal(c.btb, np.sum(b * b, axis=0))
    assert np.array_equal(c.column_sums, A.sum(axis=0)) and np.array_equal(c.b_sum, b.sum(axis=0))
    assert np.array_equal(np.round(c.column_norms**2), np.sum(A * A, axis=0))


# -- what must not matter ---------------------------------------------------------------------------


@every_family
@every_dtype
def test_threads_do_not_change_a_bit(family: SketchFamily, dtype: type) -> None:
    m = 9000 if family.minimum_size == 1 and family != rpcls.CountSketch() else 20_000  # two blocks, or nine lanes
    A, b, w = problem(m, 70, 2, dtype, seed=0)
    S = family.sample(32, rng=0)
    one, *others = (rpcls.compress(A, b, S, sample_weight=w, workers=workers) for workers in (1, 2, 5))
    assert all(same_bits(one, other) for other in others)
    blocks = rpcls.RowBlocks(lambda: blocks_of(A, b, w, (5000,)), 70)
    assert same_bits(*(rpcls.compress(blocks, None, S, workers=workers) for workers in (1, 3)))


@every_family
@given(
    cuts=st.lists(st.integers(0, 200), max_size=4), seed=st.integers(0, 99), shuffle=st.randoms(),
    dtype=st.sampled_from(list(DTYPES.values())),
)  # fmt: skip
def test_parts_add_up_to_the_whole(family: SketchFamily, cuts: list[int], seed: int, shuffle: Any, dtype: type) -> None:
    A, b, w = problem(200, 11, None, dtype, seed)
    S = family.sample(16, rng=seed)
    whole = rpcls.compress(A, b, S, sample_weight=w)
    edges = [0, *sorted(cuts), 200]
    parts = [
        rpcls.compress(A[i:j], b[i:j], S, row_offset=i, sample_weight=w[i:j]) for i, j in itertools.pairwise(edges)
    ]
    shuffle.shuffle(parts)
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    close(total, whole, 200)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("weighted", [False, True])
@every_dtype
def test_every_source_gives_the_same_summary(source: str, weighted: bool, dtype: type) -> None:
    A, b, w = problem(300, 9, 2, dtype, seed=0)
    S = rpcls.SparseSign().sample(36, rng=0)
    weight = w if weighted else None
    data, rhs, sample_weight = SOURCES[source](A, b, weight)
    c = rpcls.compress(data, rhs, S, row_offset=1000, sample_weight=sample_weight)
    close(c, rpcls.compress(A, b, S, row_offset=1000, sample_weight=weight), 300)
    assert c.intervals == ((1000, 1300),)


@every_dtype
@pytest.mark.parametrize("n", [5, 40])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_of_a_does_not_matter(layout: str, n: int, dtype: type) -> None:
    A, b, _ = problem(150, n, None, dtype, seed=n)
    S = rpcls.SparseSign().sample(24, rng=0)
    expected = rpcls.compress(A, b, S)
    view = LAYOUTS[layout](A)
    assert np.array_equal(view, A)
    kept = view.tobytes()
    assert same_bits(rpcls.compress(view, b, S), expected)
    assert view.tobytes() == kept
    for family in (rpcls.CountSketch(), rpcls.Gaussian()):
        operator = family.sample(24, rng=0)
        close(rpcls.compress(view, b, operator), rpcls.compress(A, b, operator), 150)


@pytest.mark.parametrize("layout", ["F", "every second row", "rows reversed", "read-only", "unaligned"])
def test_layout_of_b_and_of_the_weights_does_not_matter(layout: str) -> None:
    A, b, w = problem(150, 10, 3, np.float64, seed=0)
    S = rpcls.SparseSign().sample(24, rng=0)
    weights = LAYOUTS[layout](w[:, None])[:, 0]
    expected = rpcls.compress(A, b, S, sample_weight=w)
    assert same_bits(rpcls.compress(A, LAYOUTS[layout](b), S, sample_weight=weights), expected)
    column = LAYOUTS[layout](b[:, :1])[:, 0]
    assert np.array_equal(rpcls.compress(A, column, S, sample_weight=w).Atb, expected.Atb[:, 0])


def test_repeated_rows_by_broadcasting() -> None:
    row = np.arange(1.0, 21.0)
    A = np.broadcast_to(row, (100, 20))
    c = rpcls.compress(A, np.ones(100), rpcls.SparseSign(), sketch_size=32, rng=0)
    check(c, A.copy(), np.ones(100))


def test_numbers_of_other_kinds_become_float64() -> None:
    A = np.random.default_rng(0).integers(0, 2, (60, 5))
    S = rpcls.SparseSign().sample(24, rng=0)
    expected = rpcls.compress(A.astype(float), A[:, 0].astype(float), S)
    for convert in (np.int64, np.uint8, np.bool_, np.dtype(">f8")):
        assert same_bits(rpcls.compress(A.astype(convert), A[:, 0].astype(convert), S), expected)
    assert same_bits(rpcls.compress(A.tolist(), A[:, 0].tolist(), S), expected)
    mixed = rpcls.compress(A.astype(np.float32), A[:, 0], S)
    assert mixed.Sb.dtype == np.float32 and np.array_equal(mixed.Atb, expected.Atb)
    assert rpcls.compress(A, A[:, 0].astype(np.float32), S).Sb.dtype == np.float64


@every_family
def test_right_hand_sides_do_not_disturb_one_another(family: SketchFamily) -> None:
    A, b, w = problem(100, 12, 9, np.float64, seed=0)
    S = family.sample(20, rng=0)
    order = np.random.default_rng(0).permutation(9)
    c, permuted = (rpcls.compress(A, rhs, S, sample_weight=w) for rhs in (b, b[:, order]))
    np.testing.assert_allclose(permuted.Atb, c.Atb[:, order], rtol=1e-13)
    np.testing.assert_allclose(permuted.Sb, c.Sb[:, order], rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(permuted.SA, c.SA, rtol=1e-13)
    alone = rpcls.compress(A, b[:, 4], S, sample_weight=w)
    np.testing.assert_allclose(alone.Atb, c.Atb[:, 4], rtol=1e-13)
    assert isinstance(alone.btb, float) and isinstance(alone.b_sum, float)


@every_family
def test_powers_of_two_pass_through_exactly(family: SketchFamily) -> None:
    A, b, w = problem(70, 10, None, np.float64, seed=0)
    S = family.sample(20, rng=0)
    c, scaled = rpcls.compress(A, b, S, sample_weight=w), rpcls.compress(A * 4, b / 8, S, sample_weight=w * 16)
    for name, factor in [
        ("SA", 16),
        ("Sb", 0.5),
        ("S1", 4),
        ("Atb", 8),
        ("column_norms", 16),
        ("b_sum", 2),
        ("weight", 16),
    ]:
        assert np.array_equal(getattr(scaled, name), getattr(c, name) * factor), name


@every_family
def test_weights_are_repetitions(family: SketchFamily) -> None:
    A, b, _ = problem(40, 6, None, np.float64, seed=0)
    S = family.sample(20, rng=0)
    w = np.random.default_rng(0).integers(0, 4, 40).astype(float)
    c = rpcls.compress(A, b, S, sample_weight=w)
    repeated = rpcls.compress(np.repeat(A, w.astype(int), axis=0), np.repeat(b, w.astype(int)), S)
    for name in ("Atb", "btb", "column_norms", "column_sums", "b_sum", "weight"):
        np.testing.assert_allclose(getattr(c, name), getattr(repeated, name), rtol=1e-13)
    assert same_bits(rpcls.compress(A, b, S, sample_weight=np.ones(40)), rpcls.compress(A, b, S))
    rows = w > 0
    S1 = dense(S, 0, 40)[:, rows] @ np.sqrt(w[rows])
    np.testing.assert_allclose(c.S1, S1, atol=1e-13)


def test_inputs_are_never_changed() -> None:
    for scale in (1.0, 1e200):
        arrays = [a * s for a, s in zip(problem(50, 9, 2, np.float64, seed=0), (scale, 1, 1), strict=True)]
        copies = [a.copy() for a in arrays]
        A, b, w = arrays
        for family in FAMILIES.values():
            rpcls.compress(A, b, family, sketch_size=16, rng=0, sample_weight=w)
        assert all(np.array_equal(a, copy) and a.flags.writeable for a, copy in zip(arrays, copies, strict=True))
        for array in arrays:
            array.flags.writeable = False
        rpcls.compress(A, b, rpcls.SparseSign(), sketch_size=16, rng=0, sample_weight=w)


@pytest.mark.parametrize("layout", ["C", "F", "every second row", "rows reversed"])
@every_dtype
def test_a_is_not_copied(layout: str, dtype: type) -> None:
    A = LAYOUTS[layout](np.ones((150_000, 100), dtype))
    b = np.ones(150_000, dtype)
    rpcls.compress(A[:100], b[:100], sketch_size=400, rng=0)  # compile first
    tracemalloc.start()
    rpcls.compress(A, b, sketch_size=400, rng=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * 400 * 100 * A.itemsize + (64 << 20) * A.itemsize // 8 < A.nbytes


# -- units: squares that overflow or underflow ------------------------------------------------------

EXTREMES = [1e-300, 1e-200, 1e-120, 1e-100, 1e100, 1e120, 1e150, 1e200, 1e300]


def unscaled(c: CompressedProblem) -> dict[str, np.ndarray]:
    """The fields in the units that `exponents` name, without them."""
    return {name: np.asarray(getattr(c, name)) for name in (*ARRAYS, "weight")}


def check_scaled(
    c: CompressedProblem, plain: CompressedProblem, ea: int, eb: int, rtol: float, atol: float = 0
) -> None:
    """c is `plain` with A·2^ea and b·2^eb."""
    a, b = ea - c.exponents[0], eb - c.exponents[1]
    powers = dict.fromkeys(("SA", "column_norms", "column_sums"), a) | dict.fromkeys(("Sb", "b_sum"), b)
    powers |= {"Atb": a + b, "btb": 2 * b, "S1": 0, "weight": 0}
    for name, value in unscaled(c).items():
        expected = np.ldexp(np.asarray(getattr(plain, name), float), powers[name])
        near = max(atol, rtol * float(np.abs(expected).max()))
        np.testing.assert_allclose(value.astype(float), expected, rtol=rtol, atol=near, err_msg=name)


@every_family
@pytest.mark.parametrize("ea", [-1000, -660, -500, -330, 330, 500, 660, 1000])
@pytest.mark.parametrize("eb", [-660, 0, 660])
def test_squares_that_leave_the_range(family: SketchFamily, ea: int, eb: int) -> None:
    A, b, w = problem(61, 45, None, np.float64, seed=0)  # wide and narrow tiles, full runs of rows and single ones
    S = family.sample(20, rng=0)
    plain = rpcls.compress(A, b, S, sample_weight=w)
    c = rpcls.compress(np.ldexp(A, ea), np.ldexp(b, eb), S, sample_weight=w)
    check_scaled(c, plain, ea, eb, 1e-13)
    assert (c.exponents[0] != 0) == (abs(ea) > 400) and (c.exponents[1] != 0) == (eb != 0)
    assert all(np.isfinite(v).all() for v in unscaled(c).values())


@every_family
@pytest.mark.parametrize("ea", [-140, -126, -100, 100, 124])
def test_float32_at_the_ends_of_its_range(family: SketchFamily, ea: int) -> None:
    rng = np.random.default_rng(0)
    A = rng.integers(-7, 8, (61, 90)).astype(np.float32)  # exact, subnormal included
    b = rng.integers(-7, 8, 61).astype(np.float32)
    S = family.sample(20, rng=0)
    check_scaled(rpcls.compress(np.ldexp(A, ea), b, S), rpcls.compress(A, b, S), ea, 0, 2e-6)
    check_scaled(rpcls.compress(A, np.ldexp(b, ea), S), rpcls.compress(A, b, S), 0, ea, 2e-6)


@given(st.permutations([-660, 0, 660, -660, 660]), st.permutations([-660, 0, 660, 0, 660]))
def test_blocks_of_different_size_merge_into_the_largest(ea: list[int], eb: list[int]) -> None:
    A, b, _ = problem(100, 6, None, np.float64, seed=0)
    S = rpcls.SparseSign().sample(24, rng=0)
    rows_a, rows_b = np.repeat(ea, 20), np.repeat(eb, 20)
    A, b = np.ldexp(A, rows_a[:, None]), np.ldexp(b, rows_b)
    whole = rpcls.compress(A, b, S)
    blocks = rpcls.compress(rpcls.RowBlocks(lambda: blocks_of(A, b, None, (20,)), 6), None, S)
    # in units of the largest block, what belongs to much smaller ones is below rounding
    largest = rpcls.compress(np.ldexp(A * (rows_a == 660)[:, None], -660), np.ldexp(b * (rows_b == 660), -660), S)
    for c in (whole, blocks):
        check_scaled(c, largest, 660, 660, 1e-13, atol=1e-13)


@pytest.mark.parametrize("weighted", [False, True])
def test_blocks_of_different_units_lose_nothing(weighted: bool) -> None:
    A, b, w = problem(60, 6, None, np.float64, seed=0)
    weight = w if weighted else None
    S = rpcls.SparseSign().sample(24, rng=0)
    A[::10] *= 2.0 ** np.arange(-9, 9, 3)[:, None]  # blocks of ten rows, each with an exponent of its own
    b[::10] *= 2.0 ** np.arange(9, -9, -3)
    plain = rpcls.compress(A, b, S, sample_weight=weight)
    A, b = np.ldexp(A, -520), np.ldexp(b, 520)
    parts = rpcls.RowBlocks(lambda: blocks_of(A, b, weight, (10,)), 6)
    check_scaled(rpcls.compress(parts, None, S), plain, -520, 520, 1e-13)


def test_weights_count_in_the_choice_of_units() -> None:
    A, b, w = problem(60, 6, None, np.float64, seed=0)
    S = rpcls.SparseSign().sample(24, rng=0)
    plain = rpcls.compress(A, b, S, sample_weight=w)
    for ea, ew in ((-300, -600), (300, 600)):  # each is ordinary, but not the square of √w·A
        c = rpcls.compress(np.ldexp(A, ea), b, S, sample_weight=np.ldexp(w, ew))
        assert abs(c.exponents[0]) > 500 and c.exponents[1] == 0
        np.testing.assert_allclose(np.ldexp(c.SA, c.exponents[0] - ea - ew // 2), plain.SA, rtol=1e-13, atol=1e-14)
        np.testing.assert_allclose(
            np.ldexp(c.column_norms, c.exponents[0] - ea - ew // 2), plain.column_norms, rtol=1e-13
        )
        np.testing.assert_allclose(np.ldexp(c.Atb, c.exponents[0] - ea - ew), plain.Atb, rtol=1e-12)


@pytest.mark.parametrize("exponent", [-660, 660])
def test_blocks_of_zeros_do_not_wipe_out_small_data(exponent: int) -> None:
    A, b, w = problem(60, 6, None, np.float64, seed=0)
    A[:20] = 0
    b[40:] = 0
    w[20:30] = 0
    S = rpcls.SparseSign().sample(24, rng=0)
    plain = rpcls.compress(A, b, S, sample_weight=w)
    A, b = np.ldexp(A, exponent), np.ldexp(b, exponent)
    c = rpcls.compress(rpcls.RowBlocks(lambda: blocks_of(A, b, w, (10,)), 6), None, S)
    check_scaled(c, plain, exponent, exponent, 1e-13)
    assert np.all(c.Atb != 0)


@every_family
def test_zeros(family: SketchFamily) -> None:
    A, b, w = problem(30, 10, None, np.float64, seed=0)
    S = family.sample(20, rng=0)
    A[:, 3] = 0
    c = rpcls.compress(A, b, S)
    assert c.exponents == (0, 0) and c.column_norms[3] == c.Atb[3] == c.column_sums[3] == 0 and not c.SA[:, 3].any()
    check(c, A, b)
    check(rpcls.compress(A, 0 * b, S), A, 0 * b)
    check(rpcls.compress(0 * A, b, S), 0 * A, b)
    nothing = rpcls.compress(A, b, S, sample_weight=0 * w)
    assert nothing.weight == 0 and not any(np.any(getattr(nothing, name)) for name in ARRAYS)
    assert nothing.intervals == ((0, 30),)


def test_a_tiny_column_beside_an_ordinary_one_keeps_its_sketch() -> None:
    A, b, _ = problem(60, 2, None, np.float64, seed=0)
    S = rpcls.SparseSign().sample(24, rng=0)
    plain = rpcls.compress(A, b, S)
    A[:, 1] *= 2.0**-660
    c = rpcls.compress(A, b, S)
    assert c.exponents == (0, 0)
    assert np.array_equal(c.SA[:, 1], plain.SA[:, 1] * 2.0**-660) and np.array_equal(c.Atb, plain.Atb * [1, 2.0**-660])


# -- NaN and infinity -------------------------------------------------------------------------------


@every_family
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("layout", ["C", "F"])
def test_nan_and_infinity_in_a_are_located(family: SketchFamily, value: float, layout: str) -> None:
    A, b, w = problem(100, 40, None, np.float64, seed=0)
    A[70, 33] = A[71, 2] = value
    for weight in (None, w):
        with pytest.raises(
            NonFiniteError,
            match=rf"A must be finite, got {value} in row 1070, column 33; remove or impute such rows first",
        ):
            rpcls.compress(LAYOUTS[layout](A), b, family, sketch_size=20, rng=0, row_offset=1000, sample_weight=weight)


@every_dtype
def test_nan_in_b_and_beyond_the_first_chunk(dtype: type) -> None:
    A, b, _ = problem(40_000, 2, 3, dtype, seed=0)
    b[33_000, 1] = np.nan
    with pytest.raises(NonFiniteError, match="b must be finite, got nan in row 33000, column 1"):
        rpcls.compress(A, b, sketch_size=20, rng=0)
    b[33_000, 1], A[39_999, 1] = 0, -np.inf
    with pytest.raises(NonFiniteError, match="A must be finite, got -inf in row 39999, column 1"):
        rpcls.compress(A, b, sketch_size=20, rng=0)


def test_nan_in_a_block_is_located_in_the_whole_problem() -> None:
    A, b, _ = problem(100, 4, None, np.float64, seed=0)
    A[90, 2] = np.nan
    for source in ("row blocks", "iterator"):
        data, rhs, _ = SOURCES[source](A, b, None)
        with pytest.raises(NonFiniteError, match="A must be finite, got nan in row 90, column 2"):
            rpcls.compress(data, rhs, sketch_size=20, rng=0)


def test_nan_beside_data_whose_squares_overflow() -> None:
    A, b, _ = problem(50, 9, None, np.float64, seed=0)
    A = A * 1e200
    A[40, 8] = np.inf
    with pytest.raises(NonFiniteError, match="A must be finite, got inf in row 40, column 8"):
        rpcls.compress(A, b, sketch_size=20, rng=0)


def test_nan_where_the_weight_is_zero_is_still_refused() -> None:
    A, b, w = problem(50, 9, None, np.float64, seed=0)
    w[5], A[5, 1] = 0, np.inf
    with pytest.raises(NonFiniteError, match="A must be finite, got inf in row 5, column 1"):
        rpcls.compress(A, b, sketch_size=20, rng=0, sample_weight=w)


SWEEPS: list[int] = []


@dataclass(frozen=True)
class Counting(rpcls.SparseSign):
    """SparseSign that counts its sweeps."""

    def sweep(self, S: Any, A: np.ndarray, *rest: Any) -> Any:
        SWEEPS.append(len(A))
        return super().sweep(S, A, *rest)


def test_clean_data_is_read_once() -> None:
    A, b, w = problem(100, 5, None, np.float64, seed=0)
    S, calls = Counting().sample(20, rng=0), []

    def factory() -> Any:
        calls.append(1)
        return blocks_of(A, b, w, (30,))

    SWEEPS.clear()
    rpcls.compress(rpcls.RowBlocks(factory, 5), None, S)
    assert calls == [1] and SWEEPS == [30, 30, 30, 10]
    A[:, 2] = 0
    SWEEPS.clear()
    rpcls.compress(A, b, S)
    assert SWEEPS == [100]
    SWEEPS.clear()
    rpcls.compress(A * 1e200, b, S)
    assert SWEEPS == [100, 100]


def test_clean_arrays_are_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    from rpcls.sources import base

    def fail(*_: Any) -> None:
        raise AssertionError("looked for NaN")

    A, b, _ = problem(100, 5, None, np.float64, seed=0)
    monkeypatch.setattr(base, "_exponents", fail)
    rpcls.compress(A, b, rng=0)
    A[3, 3] = np.nan
    with pytest.raises(AssertionError, match="looked for NaN"):
        rpcls.compress(A, b, rng=0)


# -- arguments --------------------------------------------------------------------------------------


def test_default_sketch() -> None:
    A, b, _ = problem(60, 9, None, np.float64, seed=0)
    assert rpcls.compress(A, b, rng=3).operator == rpcls.SparseSign().sample(36, rng=3)
    assert rpcls.compress(A[:, :2], b, rng=3).operator == rpcls.SparseSign().sample(16, rng=3)
    assert rpcls.compress(A, b, rpcls.SparseSign(40), rng=3).sketch_size == 80
    assert rpcls.compress(A[:, :1], b, rpcls.Gaussian(), rng=3).sketch_size == 4
    assert rpcls.compress(A, b, sketch_size=np.int64(50), rng=3).sketch_size == 50
    assert rpcls.compress(A, b).operator != rpcls.compress(A, b).operator


def test_sketch_arguments_that_do_not_fit() -> None:
    A, b, _ = problem(30, 3, None, np.float64, seed=0)
    S = rpcls.SparseSign().sample(16, rng=0)
    fixes = (
        r"must be None with an operator, which fixes it already, got 5; pass the family SparseSign\(nnz_per_column=8\)"
    )
    with pytest.raises(InvalidValueError, match=f"sketch_size {fixes}"):
        rpcls.compress(A, b, S, sketch_size=5)
    with pytest.raises(InvalidValueError, match=f"rng {fixes}"):
        rpcls.compress(A, b, S, rng=5)
    for sketch in ("sparse", rpcls.SparseSign, 5):
        with pytest.raises(
            InvalidTypeError, match=r"sketch must be a family such as rpcls.SparseSign\(\) or an operator"
        ):
            rpcls.compress(A, b, sketch)  # type: ignore[arg-type]
    with pytest.raises(
        InvalidValueError,
        match=r"must be at least 8 for SparseSign\(nnz_per_column=8\), got 4; leave it None for max\(4n, 16\) = 16",
    ):
        rpcls.compress(A, b, sketch_size=4)
    with pytest.raises(InvalidTypeError, match="sketch_size must be an int, got str '20'"):
        rpcls.compress(A, b, sketch_size="20")  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match="rng must be an int"):
        rpcls.compress(A, b, rng="0")  # type: ignore[arg-type]


def test_row_offset_and_workers_that_do_not_fit() -> None:
    A, b, _ = problem(30, 3, None, np.float64, seed=0)
    for value in (-1, 2**62 + 1):
        with pytest.raises(InvalidValueError, match=rf"row_offset must be in \[0, 2\*\*62\], got {value}"):
            rpcls.compress(A, b, row_offset=value)
    for value in (True, 1.0, "1"):
        with pytest.raises(InvalidTypeError, match=f"row_offset must be an int, got {type(value).__name__} {value!r}"):
            rpcls.compress(A, b, row_offset=value)  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="workers must be at least 1, got 0"):
        rpcls.compress(A, b, workers=0)


def test_an_operator_for_another_number_of_rows_is_not_refused_for_parts() -> None:
    A, b, _ = problem(30, 3, None, np.float64, seed=0)
    closed, open_ = rpcls.SparseSign().sample(16, 30, rng=0), rpcls.SparseSign().sample(16, rng=0)
    c = rpcls.compress(A[:10], b[:10], closed)
    assert same_bits(replace(c, operator=open_), rpcls.compress(A[:10], b[:10], open_))
