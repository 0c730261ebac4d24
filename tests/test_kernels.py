"""Compiled kernels against pure Python: the streams bit for bit, the sums against exact ones."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import entries
import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from market import DTYPES, FAMILIES

from rpcls.errors import InvalidTypeError, InvalidValueError
from rpcls.kernels import lanes
from rpcls.random import Key

KEYS = st.integers(0, 2**64 - 1)
OFFSETS = st.one_of(st.integers(0, 100), st.sampled_from([2**31 - 2, 2**32 - 2, 2**38, 2**53 + 1, 2**61]))


# -- entries of S -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
@given(d=st.one_of(st.integers(8, 40), st.sampled_from([127, 128, 129, 260])), key=KEYS, start=OFFSETS)
def test_columns_are_the_documented_ones(name: str, d: int, key: int, start: int) -> None:
    family = FAMILIES[name]
    S = family.sample(d, rng=Key(key))
    block = S.columns(start, start + 3)
    block = block if isinstance(block, np.ndarray) else block.toarray()
    expected = entries.operator(family, d, key, start, start + 3)
    assert block.dtype == np.float64 and block.shape == (d, 3)
    np.testing.assert_allclose(block, expected, rtol=4e-16, atol=0)  # the scale may be multiplied or divided by
    assert np.array_equal(np.signbit(block), np.signbit(expected)) or name.startswith(("count", "sparse"))


@pytest.mark.parametrize("nnz", [1, 2, 3, 4, 5, 7, 8, 9, 12, 17])
@pytest.mark.parametrize("extra", [0, 1, 5, 100])
def test_any_size_from_nnz_on_and_any_number_of_blocks(nnz: int, extra: int) -> None:
    import rpcls

    family, d = rpcls.SparseSign(nnz), nnz + extra
    block = family.sample(d, rng=Key(11)).columns(5, 25)
    assert np.allclose(block.toarray(), entries.operator(family, d, 11, 5, 25), rtol=4e-16)
    assert block.nnz == 20 * nnz and block.has_canonical_format
    sizes = np.diff([z * d // nnz for z in range(nnz + 1)])
    assert sizes.sum() == d and sizes.max() - sizes.min() <= 1
    blocks = np.repeat(np.arange(nnz), sizes)
    assert np.array_equal(blocks[block.indices.reshape(20, nnz)], np.tile(np.arange(nnz), (20, 1)))


def test_gaussian_entries_are_the_same_bits_as_plain_python_floats() -> None:
    from rpcls.kernels.cpu import gaussian

    for d, key, start in [(101, 0, 0), (100, 2**64 - 1, 2**38), (1, 5, 7), (2, 6, 2**61)]:
        out = np.empty((3, d))
        gaussian.columns(np.uint64(key), start, out)
        for i in range(3):
            assert np.array_equal(out[i], entries.gaussian(d, key, start + i))
        narrow = np.empty((3, d), np.float32)
        gaussian.columns(np.uint64(key), start, narrow)
        assert np.array_equal(narrow, out.astype(np.float32))


def test_gaussian_entries_are_accurate() -> None:
    from rpcls.kernels.cpu import gaussian

    out = np.empty((4, 250))
    gaussian.columns(np.uint64(3), 1000, out)
    worst = 0.0
    for i in range(4):
        for z, exact in zip(out[i], entries.gaussian_mp(250, 3, 1000 + i), strict=True):
            worst = max(worst, float(abs(mpmath.mpf(float(z)) - exact)) / (1 + abs(z)))
    assert worst < 4e-16


@given(st.integers(0, 2**53 - 1))
def test_logarithm(bits: int) -> None:
    from rpcls.kernels.cpu import gaussian

    u = (bits + 0.5) * 2.0**-53
    for value in (u, 1.0 - u / 2, u * 2.0**-1, 0.7071067811865476 + u * 1e-3, 0.7071067811865476 - u * 1e-3):
        if 2.0**-54 <= value <= 1.0:
            with mpmath.workdps(40):
                exact = -mpmath.log(mpmath.mpf(value))
                assert abs(gaussian.log_unit(value) - exact) <= 4.4e-16 * exact
            assert gaussian.log_unit(value) == entries.minus_log(value)


def test_logarithm_at_the_ends() -> None:
    from rpcls.kernels.cpu import gaussian

    assert gaussian.log_unit(1.0) == 0.0
    assert gaussian.log_unit(2.0**-54) == pytest.approx(54 * math.log(2), rel=2e-16)
    assert entries.uniform(0, 0) == 2.0**-54 and entries.uniform(2**32 - 1, 2**32 - 1) == 1.0


@given(st.one_of(st.integers(0, 2**53 - 1), st.integers(0, 64).map(lambda j: min(j * 2**47, 2**53 - 1))))
def test_circle(bits: int) -> None:
    from rpcls.kernels.cpu import gaussian

    u = bits * 2.0**-53
    cosine, sine = gaussian.circle(u)
    assert (cosine, sine) == entries.cos_sin(u)
    with mpmath.workdps(40):
        angle = 2 * mpmath.pi * mpmath.mpf(u)
        assert abs(mpmath.cos(angle) - cosine) < 2.3e-16 and abs(mpmath.sin(angle) - sine) < 2.3e-16


# -- statistics of the streams; every threshold fails once in a million draws of the key, or less often


@pytest.mark.parametrize(("nnz", "d"), [(1, 13), (3, 16), (8, 65)])
def test_rows_and_signs_are_uniform_and_independent(nnz: int, d: int) -> None:
    from scipy.stats import chi2

    import rpcls

    count = 20_000
    S = rpcls.SparseSign(nnz).sample(d, rng=0).columns(0, count)
    rows, signs = S.indices.reshape(count, nnz), (S.data.reshape(count, nnz) > 0).astype(int)
    edges = [z * d // nnz for z in range(nnz + 1)]
    cells = [2 * (rows[:, z] - edges[z]) + signs[:, z] for z in range(nnz)]
    sizes = [2 * (edges[z + 1] - edges[z]) for z in range(nnz)]
    for z in range(nnz):
        seen = np.bincount(cells[z], minlength=sizes[z])
        assert len(seen) == sizes[z]
        statistic = np.sum((seen - count / sizes[z]) ** 2) / (count / sizes[z])
        assert chi2.sf(statistic, sizes[z] - 1) > 1e-6 / nnz
    for z in range(nnz - 1):  # the next block's row and sign, and the next column's
        for first, second in ((cells[z], cells[z + 1]), (cells[z][1:], cells[z][:-1])):
            width = sizes[z + 1] if second is cells[z + 1] else sizes[z]
            seen = np.bincount(first * width + second, minlength=sizes[z] * width)
            expected = len(first) / len(seen)
            assert chi2.sf(np.sum((seen - expected) ** 2) / expected, len(seen) - 1) > 1e-6 / (2 * nnz)


def test_rademacher_signs_are_fair_and_independent() -> None:
    import rpcls

    S = rpcls.Rademacher().sample(130, rng=0).columns(0, 2000) * np.sqrt(130)
    assert set(np.unique(np.round(S, 12))) == {-1.0, 1.0}
    bound = 5 / np.sqrt(S.size)  # 5σ: fails once in 1.7 million
    assert abs(S.mean()) < bound
    assert abs(np.mean(S[1:] * S[:-1])) < bound and abs(np.mean(S[:, 1:] * S[:, :-1])) < bound
    assert abs(np.mean(S[32:] * S[:-32])) < 1.2 * bound and abs(np.mean(S[128:] * S[:2])) < 9 * bound


def test_normals_are_normal() -> None:
    from scipy.stats import kstest

    import rpcls

    z = rpcls.Gaussian().sample(100, rng=0).columns(0, 400) * 10.0
    for part in (z, z[::2], z[1::2], np.hypot(z[::2], z[1::2])):
        distribution = "rayleigh" if part.min() > 0 else "norm"
        assert kstest(part.ravel(), distribution).pvalue > 1e-6
    count = z.size
    for power, moment, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10170)]:
        assert abs(np.mean(z**power) - moment) < 5 * np.sqrt(variance / count)
    for first, second in ((z[::2], z[1::2]), (z[2:], z[:-2]), (z[:, 1:], z[:, :-1])):
        assert abs(np.mean(first * second)) < 5 / np.sqrt(first.size)
        assert abs(np.mean(first**2 * second**2) - 1) < 5 * np.sqrt(8 / first.size)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("d", [8, 19])
def test_expectation_of_sts_is_the_identity(name: str, d: int) -> None:
    family, repeats, m = FAMILIES[name], 1000, 5
    mean = np.zeros((m, m))
    for seed in range(repeats):
        block = family.sample(d, rng=seed).columns(40, 40 + m)
        block = block if isinstance(block, np.ndarray) else block.toarray()
        gram = block.T @ block
        if name != "gaussian":
            np.testing.assert_allclose(np.diag(gram), 1.0, rtol=1e-14)  # every column has unit norm
        mean += gram / repeats
    # off the diagonal an entry has variance 1/d (blocks of d/ζ rows: up to 1.2/d); on it, 2/d for normals, else 0
    assert np.max(np.abs(mean - np.eye(m))) < 5 * np.sqrt(2 / (d * repeats))  # 15 entries: fails once in 10⁵


# -- the work is cut by shape alone -----------------------------------------------------------------


@given(st.integers(0, 10**7), st.integers(1, 10**5), st.integers(1, 2000))
def test_row_cuts_cover_all_rows_once(m: int, d: int, n: int) -> None:
    cuts = lanes.row_cuts(m, n * 8, d, n * d * 8)
    assert cuts[0][0] == 0 and cuts[-1][1] == m
    assert all(a[1] == b[0] for a, b in itertools.pairwise(cuts))
    assert len(cuts) == 1 or min(stop - start for start, stop in cuts) >= 2048
    assert (len(cuts) - 1) * n * d * 8 <= 24 << 20


@given(st.integers(1, 3000), st.sampled_from([4, 8]), st.integers(1, 64))
def test_tiles_cover_all_columns(n: int, itemsize: int, rows: int) -> None:
    groups = lanes.column_groups(n, itemsize, rows, 256, 64)
    covered = np.zeros(n + 64, int)
    for group in groups:
        assert len(group.starts) == len(group.widths) and group.columns == sum(group.widths)
        for t, (start, width) in enumerate(zip(group.starts, group.widths, strict=True)):
            assert width * itemsize == (256 if t < group.wide else 64)
            assert start + width <= n or (start == 0 and n < width)
            covered[start : start + width] += 1
    assert covered[:n].min() == 1 and covered[:n].max() <= 2
    assert 64 <= lanes.panel_rows(groups[0].columns, itemsize) <= 4096
    assert lanes.panel_rows(groups[0].columns, itemsize) % 8 == 0


@given(st.integers(0, 1000), st.sampled_from([np.float32, np.float64]))
def test_aligned(size: int, dtype: type) -> None:
    array = lanes.aligned(size, dtype)
    assert array.shape == (size,) and array.dtype == dtype and not array.any()
    assert size == 0 or array.ctypes.data % 64 == 0


def test_run_keeps_the_order_and_raises_what_a_task_raises() -> None:
    def task(i: int) -> int:
        if i < 0:
            raise ZeroDivisionError("seven")
        return i * i

    assert lanes.run(task, [(i,) for i in range(50)], 4) == [i * i for i in range(50)]
    assert lanes.run(task, [(3,)], 4) == [9]
    for workers in (1, 4):
        with pytest.raises(ZeroDivisionError, match="seven"):
            lanes.run(task, [(1,), (-1,), (2,)], workers)


def test_number_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RPCLS_NUM_THREADS", raising=False)
    assert lanes.count_workers(None) >= 1 and lanes.count_workers(np.int64(3)) == 3
    monkeypatch.setenv("RPCLS_NUM_THREADS", "5")
    assert lanes.count_workers(None) == 5 and lanes.count_workers(2) == 2
    for text in ("0", "-1", "two", "1.5"):
        monkeypatch.setenv("RPCLS_NUM_THREADS", text)
        with pytest.raises(InvalidValueError, match=f"RPCLS_NUM_THREADS must be a positive int, got '{text}'"):
            lanes.count_workers(None)
    with pytest.raises(InvalidValueError, match="workers must be at least 1, got 0"):
        lanes.count_workers(0)
    for value in (True, 1.0, "2"):
        with pytest.raises(InvalidTypeError, match=f"workers must be an int or None, got {type(value).__name__}"):
            lanes.count_workers(value)  # type: ignore[arg-type]


# -- the gradient sweep -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@given(
    m=st.integers(0, 1100), n=st.integers(1, 9), k=st.integers(1, 3), weighted=st.booleans(), seed=st.integers(0, 99)
)
def test_gradient(dtype: type, m: int, n: int, k: int, weighted: bool, seed: int) -> None:
    from rpcls.kernels.cpu import gradient

    rng = np.random.default_rng(seed)
    A, b = rng.standard_normal((m, n)).astype(dtype), rng.standard_normal((m, k)).astype(dtype)
    X, w = rng.standard_normal((n, k)), rng.random(m)
    first, stop = m // 7, m - m // 5
    out, squares = np.ones((k, n)), np.ones(k)
    gradient.gradient(A, b, w if weighted else np.empty(0), X.T.copy(), first, stop, out, squares)
    out = out.T
    A, b, w = (v[first:stop].astype(np.longdouble) for v in (A, b, w if weighted else np.ones(m)))
    r = b - A @ X.astype(np.longdouble)
    size = 1 + np.abs(A).T @ (w[:, None] * np.abs(r)) + np.abs(A).T @ (w[:, None] * (np.abs(A) @ np.abs(X)))
    assert np.all(np.abs(out - 1 - A.T @ (w[:, None] * r)) <= 4e-15 * size)
    np.testing.assert_allclose(squares - 1, (w @ (r * r)).astype(float), rtol=1e-13, atol=1e-13)


def test_no_kernel_indexes_out_of_bounds(tmp_path: Path) -> None:
    """numba checks every index of a fresh compilation; what is read beyond the edge need not show in a result."""
    code = """
import numpy as np, rpcls
rng = np.random.default_rng(0)
for n in (5, 45):
    A, b = rng.standard_normal((70, n)), rng.standard_normal((70, 1))
    for family in (rpcls.CountSketch(), rpcls.SparseSign(5), rpcls.Gaussian(), rpcls.Rademacher()):
        S = family.sample(13, rng=0)
        rpcls.compress(np.asfortranarray(A), b, S)
        S.columns(3, 20)
from rpcls.sources import source_of
source_of(A, b, workers=1).gradient(np.ones((n, 1)))
print("done")
"""
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0 and result.stdout == "done\n", result.stderr


def test_exactly_rounded_reference_agrees_with_rational_arithmetic() -> None:
    """The tests of the sweep trust extended precision; here it meets exact arithmetic."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal(50), rng.standard_normal(50)
    exact = sum((Fraction(float(x)) * Fraction(float(y)) for x, y in zip(a, b, strict=True)), Fraction(0))
    assert float(np.dot(a.astype(np.longdouble), b.astype(np.longdouble))) == pytest.approx(float(exact), rel=1e-16)
