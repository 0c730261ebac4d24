"""Integers, booleans, other byte orders and memory maps: what the float64 array gives, and never a copy of it."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from market import FAMILIES, LAYOUTS, NO_SKETCH, SOLVERS

import rpcls
from rpcls.errors import InvalidTypeError, InvalidValueError, NonFiniteError, RpclsError
from rpcls.sources import array, source_of

INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
EXACT = ["bool", *INTEGERS, ">i4", ">u8", ">f8"]  # their numbers are used as float64
FIELDS = ("SA", "Sb", "S1", "Atb", "btb", "column_norms", "column_sums", "b_sum", "weight")
ORDERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "every second row": lambda a: a.repeat(2, axis=0)[::2],
    "every second column": lambda a: a.repeat(2, axis=1)[:, ::2],
    "reversed": lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
    "read-only": LAYOUTS["read-only"],
    "unaligned": LAYOUTS["unaligned"],
}

every_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)


def numbers(dtype: Any, m: int = 300, n: int = 7) -> np.ndarray:
    """Numbers over the whole range of the dtype, but for int64 and uint64: up to 2**53, which float64 holds."""
    rng = np.random.default_rng(1)
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return rng.random((m, n)) < 0.3
    if kind.kind == "f":
        return rng.standard_normal((m, n)).astype(kind)
    limits = np.iinfo(kind)
    return rng.integers(max(limits.min, -(2**53)), min(limits.max, 2**53), (m, n), endpoint=True).astype(kind)


def sides(m: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    return rng.standard_normal((m, 2)) + 1, rng.random(m)


def close(found: rpcls.CompressedProblem, expected: rpcls.CompressedProblem, rtol: float) -> None:
    """Every field within rtol of the largest entry of its column."""
    for name in FIELDS:
        got, value = np.asarray(getattr(found, name)), np.asarray(getattr(expected, name))
        assert got.dtype == value.dtype and got.shape == value.shape
        assert np.all(abs(got - value) <= rtol * abs(value).max(axis=0)), name
    assert found.intervals == expected.intervals and found.exponents == expected.exponents


def peak_of(call: Callable[[], Any]) -> int:
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of as few rows as there can be: 2048 for `compress`."""
    monkeypatch.setattr(array, "_BLOCK_BYTES", 1)


# -- the same numbers in other dtypes ---------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*EXACT, ">f4"])
@pytest.mark.parametrize("order", ORDERS)
def test_one_block_has_the_bits_of_the_float_array(dtype: str, order: str) -> None:
    A, (b, w) = ORDERS[order](numbers(dtype)), sides(300)
    assert A.dtype == dtype
    before, S = A.copy(), rpcls.SparseSign().sample(40, rng=0)
    wide = np.ascontiguousarray(A, np.float32 if dtype == ">f4" else np.float64)
    for weight in (None, w):
        found = rpcls.compress(A, b, S, sample_weight=weight, row_offset=77)
        expected = rpcls.compress(wide, b, S, sample_weight=weight, row_offset=77)
        assert found.SA.dtype == wide.dtype
        assert all(np.array_equal(getattr(found, name), getattr(expected, name)) for name in FIELDS)
    assert np.array_equal(A, before) and A.dtype == before.dtype


@pytest.mark.usefixtures("short_blocks")
@every_family
@pytest.mark.parametrize("dtype", ["bool", "int8", "uint64", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_many_blocks(family: rpcls.SketchFamily, dtype: str, order: str) -> None:
    A, (b, w) = ORDERS[order](numbers(dtype, m=5000)), sides(5000)
    S = family.sample(70, rng=0)
    source = source_of(A, b, workers=1)
    assert [r.count for r in source._blocks_for(S)] == [2048, 2048, 904]  # blocks of 64 rows are not cut
    close(rpcls.compress(A, b, S, sample_weight=w), rpcls.compress(A.astype(float), b, S, sample_weight=w), 1e-13)


@pytest.mark.usefixtures("short_blocks")
@pytest.mark.parametrize(
    "family", [rpcls.SRHT(), rpcls.RowSampling(), rpcls.RowSampling(replace=True)], ids=["srht", "rows", "replace"]
)
def test_families_that_know_the_number_of_rows_in_many_blocks(family: rpcls.SketchFamily) -> None:
    A, (b, w) = numbers("int16", m=5000), sides(5000)
    S = family.sample(70, m=5000, rng=0)
    close(rpcls.compress(A, b, S, sample_weight=w), rpcls.compress(A.astype(float), b, S, sample_weight=w), 1e-13)


@pytest.mark.usefixtures("short_blocks")
def test_leverage_in_many_blocks() -> None:
    A, (b, _) = numbers("int16", m=5000), sides(5000)
    leverage: Any = rpcls.LeverageSampling()
    found, expected = (rpcls.compress(M, b, leverage, rng=0) for M in (A, A.astype(float)))
    close(found, expected, 1e-8)  # the probabilities come from two triangles that rounded otherwise


@pytest.mark.usefixtures("short_blocks")
@pytest.mark.parametrize("order", ["C", "F"])
def test_bits_do_not_depend_on_workers(order: str) -> None:
    A, (b, w) = ORDERS[order](numbers("int8", m=6000)), sides(6000)
    one, three = (rpcls.compress(A, b, sample_weight=w, rng=0, workers=k) for k in (1, 3))
    assert all(np.array_equal(getattr(one, name), getattr(three, name)) for name in FIELDS)
    X = np.ones((7, 2))
    pairs = [source_of(A, b, sample_weight=w, workers=k).gradient(X) for k in (1, 3)]
    assert all(np.array_equal(x, y) for x, y in zip(*pairs, strict=True))


@pytest.fixture
def shorter_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few dozen rows for the sweeps that may have them."""
    from rpcls.sources import base

    monkeypatch.setattr(base, "_TRIANGLE_BYTES", 1000)
    monkeypatch.setattr(array, "_BLOCK_BYTES", 2000)


@pytest.mark.usefixtures("shorter_blocks")
def test_gradient_and_predict() -> None:
    A, (b, w) = numbers("int8", m=900), sides(900)
    options: dict[str, Any] = {"sample_weight": w, "workers": 1, "row_offset": 5}
    source, wide = source_of(A, b, **options), source_of(A.astype(float), b, **options)
    rows = list(source.blocks())
    assert len(rows) > 3 and rows[0].start == 5 and source.shape == (900, 7) and source.dense() is None
    assert all(r.A.dtype == np.float64 and not r.A.flags.writeable for r in rows)
    np.testing.assert_array_equal(np.vstack([r.A for r in rows]), A)
    X = np.arange(14.0).reshape(7, 2)
    for found, expected in zip(source.gradient(X), wide.gradient(X), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(source.predict(X), A @ X, rtol=1e-12)


@pytest.mark.usefixtures("shorter_blocks")
@pytest.mark.parametrize("intercept", [False, True])
def test_triangle(intercept: bool) -> None:
    A, (b, w) = numbers("int8", m=900), sides(900)
    found, m = source_of(A, b, sample_weight=w, intercept=intercept, workers=1).triangle()
    M = np.sqrt(w)[:, None] * np.hstack([np.ones((900, int(intercept))), A, b])
    assert m == 900
    np.testing.assert_allclose(abs(found), abs(np.asarray(np.linalg.qr(M, mode="r"))), rtol=1e-11, atol=1e-10)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("dtype", ["bool", "int8", ">f8"])
def test_solvers_agree(solver: str, dtype: str) -> None:
    A, (b, w) = numbers(dtype, m=1000, n=32), sides(1000)
    settings: dict[str, Any] = {"intercept": True, "sample_weight": w}
    if solver not in NO_SKETCH:
        settings |= {"rng": 0, "sketch_size": 200}
    found, expected = (rpcls.lstsq(M, b, SOLVERS[solver], **settings) for M in (A, A.astype(float)))
    size = abs(expected.x).max()
    np.testing.assert_allclose(found.x, expected.x, rtol=1e-9, atol=1e-9 * size)
    np.testing.assert_allclose(found.intercept, expected.intercept, rtol=1e-8, atol=1e-8)
    assert found.x.dtype == np.float64 and found.status is expected.status and found.sweeps == expected.sweeps


def test_right_hand_sides_and_weights_of_other_dtypes() -> None:
    A, w = numbers("int8"), numbers("uint8")[:, 0]
    for dtype in (*EXACT, ">f4"):
        b = numbers(dtype)[:, :2]
        expected = rpcls.compress(A.astype(float), b.astype(float), rng=0, sample_weight=w.astype(float))
        close(rpcls.compress(A, b, rng=0, sample_weight=w), expected, 1e-14)
    single = rpcls.compress(A.astype(np.float32), numbers("int16")[:, 0], rng=0)
    assert single.SA.dtype == single.Sb.dtype == np.float32


def test_large_integers_are_rounded_as_numpy_rounds_them() -> None:
    A = np.array([[2**63 - 1, 1], [-(2**63), 2], [2**53 + 1, 3]])
    np.testing.assert_array_equal(rpcls.compress(A, np.ones(3), rng=0).column_sums, A.astype(float).sum(axis=0))


@pytest.mark.parametrize("dtype", ["int16", "bool", ">f8"])
def test_no_rows(dtype: str) -> None:
    A, b = np.empty((0, 4), dtype), np.empty(0)
    c = rpcls.compress(A, b, sketch_size=20, rng=0)
    assert c.shape == (0, 4) and not c.SA.any()
    assert source_of(A, b).triangle()[1] == 0 and source_of(A, b).predict(np.ones(4)).shape == (0,)


def test_nan_in_another_byte_order_is_named_by_its_row() -> None:
    A = numbers(">f8", m=5000)
    A[4321, 2] = np.nan
    for call in (rpcls.compress, rpcls.lstsq):
        with pytest.raises(NonFiniteError, match="A must be finite, got nan in row 4321, column 2; remove or impute"):
            call(A, np.ones(5000))


# -- memory -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_no_float_copy_is_made(dtype: str, order: Any) -> None:
    m, n = 200_000, 64
    A, b = np.ones((m, n), dtype, order=order), np.ones(m)
    rpcls.compress(A[:100], b[:100], rng=0)  # compile first
    assert peak_of(lambda: rpcls.compress(A, b, rng=0)) < 30e6 < 8 * m * n / 3  # a float64 copy has 102 MB


@pytest.mark.parametrize("solver", ["direct", "robust-partial"])
def test_no_float_copy_is_made_by_solvers(solver: str) -> None:
    rng = np.random.default_rng(0)
    A, b = rng.integers(-9, 10, (100_000, 64), np.int8), rng.standard_normal(100_000)
    rpcls.lstsq(A[:500], b[:500], solver, rng=0)
    assert peak_of(lambda: rpcls.lstsq(A, b, solver, rng=0)) < 30e6  # a float64 copy has 51 MB


# Maps a file that is zero but for n rows eⱼ, where b is j, so that x is 1, …, n; sweeps while a thread polls how much
# memory is resident that is no page of a file; and prints by how much that grew at most.
_CHILD = """
import sys, threading
import numpy as np
import rpcls

def anonymous():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon:"))

path, dtype, m, n = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
A = np.memmap(path, dtype, "r+", shape=(m, n))
places = np.linspace(0, m - 1, n).astype(int)
A[places, np.arange(n)] = 1
A = np.memmap(path, dtype, "r", shape=(m, n))
b, step = np.zeros(m), m // 10
b[places] = np.arange(1, n + 1)

def sweeps(A, b, step):
    rows = rpcls.RowBlocks(lambda: ((A[i : i + step], b[i : i + step]) for i in range(0, len(A), step)), n)
    S = rpcls.SparseSign().sample(4 * n, rng=0)
    if A.dtype != float:  # RowBlocks convert whole blocks
        rows = None
    return rpcls.compress(A, b, S), rows and rpcls.compress(rows, None, S), rpcls.lstsq(A, b)

sweeps(np.eye(4000, n).astype(dtype), np.ones(4000), 400)  # loads libraries and compiles
before, seen, done = anonymous(), [], threading.Event()

def watch():
    while not done.wait(0.002):
        seen.append(anonymous())

watcher = threading.Thread(target=watch)
watcher.start()
whole, parts, solution = sweeps(A, b, step)
done.set()
watcher.join()
assert len(seen) > 10
assert np.array_equal(whole.Atb, np.arange(1.0, n + 1)) and np.allclose(solution.x, whole.Atb)
assert not parts or (np.array_equal(parts.Atb, whole.Atb) and np.allclose(parts.SA, whole.SA, atol=1e-14))
print(max(seen) - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to tell memory from pages of files")
@pytest.mark.parametrize(("dtype", "m", "n"), [("f8", 780_000, 64), ("i1", 1_600_000, 64)])
def test_memory_maps_are_not_read_into_memory(dtype: str, m: int, n: int, tmp_path: Path) -> None:
    path = tmp_path / "A.bin"
    with path.open("wb") as file:
        file.truncate(m * n * np.dtype(dtype).itemsize)  # a hole: no bytes on the disk
    command = [sys.executable, "-c", _CHILD, str(path), dtype, str(m), str(n)]
    root = Path(rpcls.__file__).parents[1]
    child = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=False)
    assert child.returncode == 0, child.stderr
    assert int(child.stdout) < 100e6 < 8 * m * n / 3  # as float64, they have 399 and 819 MB


def test_a_memory_map_gives_the_bits_of_the_array(tmp_path: Path) -> None:
    A, (b, w) = numbers("f8", m=3000), sides(3000)
    np.save(tmp_path / "A.npy", A)
    mapped = np.load(tmp_path / "A.npy", mmap_mode="r")
    found, expected = (rpcls.compress(M, b, sample_weight=w, rng=0) for M in (mapped, A))
    assert all(np.array_equal(getattr(found, name), getattr(expected, name)) for name in FIELDS)
    assert np.shares_memory(next(source_of(mapped, b).blocks()).A, mapped)
    np.testing.assert_allclose(rpcls.lstsq(mapped, b).x, rpcls.lstsq(A, b).x, rtol=1e-12)


# -- refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("A", "error", "message"),
    [
        (np.ma.masked_array(np.ones((5, 2)), np.eye(5, 2) > 0), InvalidTypeError,
         r"A must have no masked entries, got a masked array; A\.filled\(…\) makes it so"),
        (np.ma.masked_array(np.ones((5, 2), int)), InvalidTypeError, "A must have no masked entries"),
        (np.ones((5, 2), ">c16"), InvalidTypeError, "got >c16; complex problems are not supported"),
        (np.ones((5, 2), ">f2"), InvalidTypeError, r"got >f2; convert it: A\.astype\(numpy\.float32\) or float64"),
        (np.ones((5, 2), [("x", float)]), InvalidTypeError, r"got \[\('x', '<f8'\)\]; convert A to numbers"),
        (np.ones((5, 2), "m8[s]"), InvalidTypeError, r"got timedelta64\[s\]; convert A to numbers"),
        (np.ones(5, int), InvalidValueError, r"got shape \(5,\); a single column is A\[:, None\]"),
        (np.ones((5, 2, 1), bool), InvalidValueError, r"A must have two dimensions \(m, n\), got shape \(5, 2, 1\)"),
        (np.ones((5, 0), int), InvalidValueError, r"A must have at least one column, got shape \(5, 0\)"),
        (np.ones((4, 2), int), InvalidValueError, r"b must have shape .* with A's m = 4 rows, got \(5,\)"),
        (sp.csr_array(np.ones((5, 2), complex)), InvalidTypeError, "got sparse complex128; complex problems are not"),
    ],
)  # fmt: skip
def test_matrices_that_are_refused(A: Any, error: type[RpclsError], message: str) -> None:
    for call in (rpcls.compress, rpcls.lstsq):
        with pytest.raises(error, match=message):
            call(A, np.ones(5))


def test_right_hand_sides_and_weights_that_are_refused() -> None:
    A, masked = np.ones((5, 2), int), np.ma.masked_array(np.ones(5), np.eye(5)[0] > 0)
    cases: dict[str, dict[str, Any]] = {"b": {"b": masked}, "sample_weight": {"b": np.ones(5), "sample_weight": masked}}
    for name, options in cases.items():
        with pytest.raises(
            InvalidTypeError, match=rf"{name} must have no masked entries, got a masked array; {name}\."
        ):
            rpcls.compress(A, **options)
    with pytest.raises(InvalidValueError, match=r"sample_weight must be non-negative, got -1\.0 in row 0"):
        rpcls.compress(A, np.ones(5), sample_weight=-np.ones(5, np.int8))
    with pytest.raises(InvalidValueError, match=r"b must have shape .* with A's m = 5 rows, got \(2,\)"):
        rpcls.compress(A, np.ones(2, bool))
    for rows in (iter([(A, masked)]), rpcls.RowBlocks(lambda: [(A, masked)], 2)):
        with pytest.raises(InvalidTypeError, match=r"row block 0 \(from row 0\): b must have no masked entries"):
            rpcls.compress(rows, None)
