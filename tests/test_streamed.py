"""device="cuda": rows in host memory, copied to the card in blocks, give what the host gives.

The stand-in's copies run as late as they may (`cupy_streams`), so that what does not wait for them gets other numbers.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import cupy_stand_in
import numpy as np
import pytest
import scipy.sparse as sp
from test_device_arrays import FIELDS, SWEPT, agree, problem
from test_sparse import stored

import rpcls
from rpcls import kernels
from rpcls.errors import DeviceError, InvalidTypeError, InvalidValueError, MissingDependencyError, NonFiniteError
from rpcls.kernels.cuda import crossing
from rpcls.sources import source_of, streamed

SIZES = {name: getattr(streamed, name) for name in ("_BLOCK_BYTES", "_LEAST_BYTES", "_MOST_BYTES")}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 rows at a time: seven blocks of the problems here."""
    for name in SIZES:
        monkeypatch.setattr(streamed, name, 64 * 80)
    monkeypatch.setattr(crossing, "_FILL_BYTES", 1000)


def pinned(module: Any, array: np.ndarray) -> np.ndarray:
    out: np.ndarray = importlib.import_module("cupyx").empty_pinned(
        array.shape, array.dtype, "F" if array.flags.f_contiguous else "C"
    )  # type: ignore
    out[...] = array
    return out


LAYOUTS: dict[str, Callable[[Any, np.ndarray], Any]] = {
    "C": lambda _, A: A,
    "Fortran": lambda _, A: np.asfortranarray(A),
    "strided": lambda _, A: np.repeat(A, 2, axis=1)[:, ::2],
    "pinned": pinned,
    "pinned Fortran": lambda module, A: pinned(module, np.asfortranarray(A)),
    "integers": lambda _, A: A.astype(np.int64),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("workers", [1, 3])
def test_summaries_of_any_layout(xp: Any, layout: str, workers: int) -> None:
    A, b, w = problem(np.float64, 2)
    A = LAYOUTS[layout](xp, np.round(A) if layout == "integers" else A)
    S = rpcls.SparseSign().sample(60, rng=0)
    expected = rpcls.compress(A, b, S, sample_weight=w, row_offset=5)
    got = rpcls.compress(A, b, S, sample_weight=w, row_offset=5, device="cuda", workers=workers)
    for name in FIELDS:
        mine, theirs = np.asarray(getattr(got, name)), np.asarray(getattr(expected, name))  # in host memory, SA too
        assert np.allclose(mine, theirs, rtol=1e-12, atol=1e-12 * np.abs(theirs).max()), name
    assert got.intervals == expected.intervals
    x = got.solve(rpcls.PartiallyCompressed()).x
    assert type(x) is np.ndarray and np.allclose(x, expected.solve(rpcls.PartiallyCompressed()).x)


@pytest.mark.parametrize("name", [name for name, family in SWEPT.items() if not isinstance(family, rpcls.SRHT)])
def test_families(xp: Any, name: str) -> None:
    A, b, _ = problem(np.float32)
    expected = rpcls.compress(A, b, SWEPT[name], sketch_size=50, rng=1)
    got = rpcls.compress(A, b, SWEPT[name], sketch_size=50, rng=1, device="cuda")
    assert got.SA.dtype == np.float32
    assert np.allclose(got.SA, expected.SA, rtol=0, atol=2e-5 * np.abs(expected.SA).max())
    assert np.allclose(got.Atb, expected.Atb, rtol=1e-5)


SOLVERS = ["auto", "precondition", "normal", "direct", "hessian-sketch", "full", "partial",
           rpcls.RobustPartiallyCompressed("sweep"), rpcls.SketchAndPrecondition(route="cg")]  # fmt: skip


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
@pytest.mark.parametrize("intercept", [False, True])
def test_solvers_give_numpy_and_the_answer_of_the_host(xp: Any, solver: Any, intercept: bool) -> None:
    A, b, w = problem()
    A += 0.5 * intercept
    more: dict[str, Any] = {"rng": 0} if solver not in ("normal", "direct") else {}
    more |= {"sample_weight": w, "intercept": intercept}
    expected = rpcls.lstsq(A, b, solver, **more)
    got = rpcls.lstsq(A, b, solver, device="cuda", **more)
    assert type(got.x) is np.ndarray and got.status is expected.status and got.sweeps == expected.sweeps
    assert np.allclose(got.x, expected.x, rtol=0, atol=1e-9 * np.linalg.norm(expected.x))
    assert np.array_equal(got.x, rpcls.lstsq(A, b, solver, device="cuda", workers=1, **more).x)
    assert rpcls.lstsq(A, b, solver, device="cpu", **more).x.tolist() == expected.x.tolist()


@pytest.mark.parametrize("k", [1, 6])
@pytest.mark.parametrize("intercept", [False, True])
def test_every_sweep(xp: Any, k: int, intercept: bool) -> None:
    A, b, w = problem(np.float64, k)
    host, card = (source_of(A, b, sample_weight=w, intercept=intercept, device=device) for device in ("cpu", "cuda"))
    for source in (host, card):
        source.compress(rpcls.SparseSign().sample(64, rng=0))
    rng = np.random.default_rng(2)
    n = A.shape[1]
    X, R = rng.standard_normal((n, k)), np.triu(rng.random((n, n))) + 3 * np.eye(n)
    for sweep in (
        lambda s: s.gradient(X), lambda s: (s.normal(X[:, :1]),), lambda s: s.gram(), lambda s: s.gram(R),
        lambda s: (s.triangle()[0].T @ s.triangle()[0],), lambda s: (s.predict(X),), lambda s: (s.product(X),),
    ):  # fmt: skip
        for mine, theirs in zip(sweep(card), sweep(host), strict=True):
            mine = kernels.on_host(mine)  # a Gram matrix stays on the card
            assert isinstance(mine, np.ndarray | np.generic)
            assert np.allclose(mine, theirs, rtol=1e-10, atol=1e-10 * np.abs(theirs).max())
    assert card.triangle()[1] == len(A) and card.any_rhs()


def one_buffer(module: Any, A: np.ndarray, b: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks of uneven size that all lie in the same pinned memory, and mean nothing once the next was asked for."""
    room = pinned(module, A[:150])
    for i in range(0, len(A), 150):
        part = room[: min(150, len(A) - i)]
        part[...] = A[i : i + 150]
        yield part, b[i : i + 150]
        room[...] = np.nan


def test_row_blocks_may_use_their_memory_again(xp: Any) -> None:
    A, b, _ = problem()
    exact = np.linalg.lstsq(A, b)[0]
    rows = rpcls.RowBlocks(lambda: one_buffer(xp, A, b), A.shape[1])
    for solver in ("auto", "precondition", "normal"):
        assert np.allclose(rpcls.lstsq(rows, None, solver, device="cuda").x, exact), solver
    once = rpcls.lstsq(one_buffer(xp, A, b), None, device="cuda")
    assert np.allclose(once.x, exact) and once.sweeps == 1
    found = rpcls.compress(one_buffer(xp, A, b), None, rpcls.CountSketch(), sketch_size=40, rng=0, device="cuda")
    assert np.allclose(found.Atb, A.T @ b) and found.intervals == ((0, len(A)),)


def test_small_blocks_are_joined(xp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    A, b, w = problem()
    room = np.empty((7, A.shape[1]))

    def blocks() -> Iterator[Any]:
        for i in range(0, len(A), 7):
            j = min(i + 7, len(A))
            room[: j - i] = A[i:j]
            yield (room[: j - i], b[i:j], w[i:j]) if i < 200 else (room[: j - i], b[i:j])
            room[:] = np.nan

    rows = rpcls.RowBlocks(blocks, A.shape[1])
    weight = np.where(np.arange(len(A)) < 203, w, 1.0)
    source, met = source_of(rows, None, device="cuda"), []
    on_block = source._on_block  # type: ignore[attr-defined]
    monkeypatch.setattr(source, "_on_block", lambda rows: met.append((rows.start, len(rows.A))) or on_block(rows))
    x = np.ones(A.shape[1])
    expected = source_of(A, b, sample_weight=weight)
    for mine, theirs in zip(source.gradient(x), expected.gradient(x), strict=True):
        assert np.allclose(mine, theirs, rtol=1e-12)
    assert met == [(0, 70), (70, 70), (140, 63), (203, 70), (273, 70), (343, 70), (413, 7)]
    A[317, 3] = np.nan
    with pytest.raises(NonFiniteError, match="A must be finite, got nan in row 317, column 3"):
        rpcls.lstsq(rows, None, "full", device="cuda")


def test_the_certificate_leverage_and_more_columns_than_rows(xp: Any) -> None:
    A, b, _ = problem()
    one = rpcls.lstsq(A, b, "partial", sketch_size=80, rng=0, device="cuda")
    bound = rpcls.certify(A, b, one, device="cuda")
    expected = rpcls.certify(A, b, one)
    assert np.isclose(bound.upper, expected.upper) and np.isclose(bound.lower, expected.lower)
    picked = [
        rpcls.compress(A, b, rpcls.LeverageSampling(), sketch_size=60, rng=0, device=device).operator.family
        for device in ("cuda", "cpu")
    ]
    assert picked[0].indices == picked[1].indices and np.allclose(picked[0].factors, picked[1].factors)  # type: ignore
    wide = np.random.default_rng(0).standard_normal((20, 2000))
    got = rpcls.lstsq(wide, wide[:, 0], "precondition", device="cuda")
    assert (
        np.allclose(got.x, rpcls.lstsq(wide, wide[:, 0], "precondition").x)
        and "conjugate gradients on AAᵀ" in got.details
    )


def test_no_rows(xp: Any) -> None:
    A, b = np.empty((0, 3)), np.empty(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rpcls.ConvergenceWarning)
        got, expected = (rpcls.lstsq(A, b, "direct", device=device) for device in ("cuda", None))
    assert got.status is expected.status and np.array_equal(got.x, expected.x)
    source = source_of(A, b, device="cuda")
    assert source.predict(np.ones(3)).shape == (0,) and source.product(np.ones((3, 2))).shape == (0, 2)
    assert not source.gram()[0].any() and not source.gradient(np.ones(3))[1].any()


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_units_that_overflow_or_underflow_squares(xp: Any, size: float) -> None:
    A, b, _ = problem()
    A[:, 2] *= np.arange(len(A)) > 300  # a column of zeros in the first blocks
    got = rpcls.lstsq(A * size, b * size, "full", rng=0, device="cuda").x
    assert np.allclose(got, rpcls.lstsq(A, b, "full", rng=0).x)
    told = "a sweep over finite rows overflowed; rescale A or b"
    with np.errstate(over="ignore", invalid="ignore"), pytest.raises(rpcls.SourceError, match=told):
        source_of(A * 1e200, b, device="cuda").gram()


# -- sparse rows ------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["held", "in blocks"])
def sparse_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, np.ndarray, np.ndarray]:
    """700 rows with empty ones, also in a row, b of two columns, weights; on the card whole or 64 entries at a time."""
    if request.param == "in blocks":
        monkeypatch.setattr(streamed, "_HELD_BYTES", 0)
        for name in SIZES:
            monkeypatch.setattr(streamed, name, 64 * 12)
    A, rng = stored(700, 20), np.random.default_rng(1)
    A = sp.csr_array(sp.vstack([A[:300], sp.csr_array((200, 20)), A[300:500], sp.csr_array((5, 20))]))
    return A, rng.standard_normal((705, 2)), rng.random(705)


@pytest.mark.parametrize("name", [name for name, family in SWEPT.items() if not isinstance(family, rpcls.SRHT)])
def test_summaries_of_sparse_rows(xp: Any, sparse_rows: Any, name: str) -> None:
    A, b, w = sparse_rows
    S = SWEPT[name].sample(60, m=740, rng=3)
    expected = rpcls.compress(A, b, S, sample_weight=w, row_offset=30)
    agree(rpcls.compress(A, b, S, sample_weight=w, row_offset=30, device="cuda"), expected, 2.0**-52)


@pytest.mark.parametrize("intercept", [False, True])
def test_every_sweep_over_sparse_rows(xp: Any, sparse_rows: Any, intercept: bool) -> None:
    A, b, w = sparse_rows
    host, card = (source_of(A, b, sample_weight=w, intercept=intercept, device=where) for where in (None, "cuda"))
    assert card.stored == A.nnz
    for source in (host, card):
        source.compress(rpcls.SparseSign().sample(80, rng=0))
    X = np.random.default_rng(2).standard_normal((20, 2))
    for sweep in (
        lambda s: s.gradient(X), lambda s: (s.normal(X),), lambda s: s.gram(), lambda s: (s.predict(X), s.product(X)),
        lambda s: (s.triangle()[0].T @ s.triangle()[0],),
    ):  # fmt: skip
        for mine, theirs in zip(sweep(card), sweep(host), strict=True):
            assert np.allclose(kernels.on_host(mine), theirs, rtol=1e-10, atol=1e-10 * np.abs(theirs).max())


@pytest.mark.parametrize("solver", ["auto", "precondition", "normal", "direct", "full", "partial"])
@pytest.mark.filterwarnings("ignore")  # an empty column
def test_solvers_of_sparse_rows(xp: Any, sparse_rows: Any, solver: str) -> None:
    A, b, w = sparse_rows
    A = A[:, :19] if solver == "normal" else A
    more: dict[str, Any] = {"rng": 0} if solver not in ("normal", "direct") else {}
    expected = rpcls.lstsq(A, b, solver, sample_weight=w, **more)
    got = rpcls.lstsq(A, b, solver, sample_weight=w, device="cuda", **more)
    assert isinstance(got.x, np.ndarray) and got.status is expected.status
    assert np.allclose(got.x, expected.x, rtol=0, atol=1e-9 * np.linalg.norm(expected.x))


def test_blocks_of_sparse_and_dense_rows(xp: Any, sparse_rows: Any) -> None:
    A, b, w = sparse_rows
    S = rpcls.SparseSign().sample(60, rng=0)

    def blocks() -> Iterator[Any]:
        for i in range(0, 705, 47):
            part = A[i : i + 47]
            yield part.toarray() if i % 3 == 0 else part, b[i : i + 47], w[i : i + 47]

    agree(rpcls.compress(blocks(), None, S, device="cuda"), rpcls.compress(A, b, S, sample_weight=w), 2.0**-52)


def test_a_sparse_matrix_is_copied_once(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    A = stored(700, 20)
    source = source_of(A, np.ones(700), device="cuda")
    assert source.place == {"device": "cuda", "from_host": False}
    monkeypatch.setattr(crossing, "crossing", None)
    for _ in range(2):
        source.gradient(np.ones(20))
    monkeypatch.setattr(streamed, "_HELD_BYTES", 1000)
    assert source_of(A, np.ones(700), device="cuda").place == {"device": "cuda", "from_host": True}


def test_a_sparse_entry_that_is_not_finite(xp: Any, sparse_rows: Any) -> None:
    A, b, _ = sparse_rows
    A.data[A.indptr[620]] = np.nan
    assert A.indptr[621] > A.indptr[620]
    with pytest.raises(
        NonFiniteError, match=rf"A must be finite, got nan in row 620, column {A.indices[A.indptr[620]]}"
    ):
        rpcls.compress(A, b, device="cuda", rng=0)


def test_non_finite_entries_are_named(xp: Any) -> None:
    A, b, _ = problem()
    A[317, 3] = np.nan
    for solver in ("full", "direct", "normal"):
        with pytest.raises(NonFiniteError, match="A must be finite, got nan in row 317, column 3"):
            rpcls.lstsq(A, b, solver, device="cuda")
    with pytest.raises(NonFiniteError, match="sample_weight must be finite, got nan in row 5"):
        rpcls.compress(b[:, None], b, sample_weight=np.where(np.arange(len(b)) == 5, np.nan, 1.0), device="cuda")


def test_what_cannot_be(xp: Any) -> None:
    A, b, _ = problem()
    with pytest.raises(InvalidValueError, match="device must be None, 'cpu' or 'cuda', got 'gpu'"):
        rpcls.lstsq(A, b, device="gpu")
    with pytest.raises(InvalidTypeError, match=r"device='cpu' .* A is a CuPy array on a card; pass cupy.asnumpy\(A\)"):
        rpcls.lstsq(xp.asarray(A), xp.asarray(b), device="cpu")
    assert isinstance(rpcls.lstsq(xp.asarray(A), xp.asarray(b), device="cuda").x, xp.ndarray)
    with pytest.raises(InvalidTypeError, match=r"b must be a NumPy array .*cupy.asnumpy"):
        rpcls.lstsq(A, xp.asarray(b), device="cuda")
    with pytest.raises(InvalidValueError, match=r"SRHT\(\) is one transform of all rows, .*use BlockSRHT\(\)"):
        rpcls.compress(A, b, rpcls.SRHT(), device="cuda")
    with pytest.raises(rpcls.SourceError, match=r"reading row block 1 \(from row 100\) failed: OSError: gone"):
        rpcls.compress(failing(A, b), None, device="cuda")


def failing(A: np.ndarray, b: np.ndarray) -> Iterator[Any]:
    yield A[:100], b[:100]
    raise OSError("gone")


def test_without_cupy_and_without_a_card(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    A, b, _ = problem()

    def no_card(_: Any = None) -> None:
        raise cupy_stand_in.CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")

    with monkeypatch.context() as patch:
        patch.setattr(stand_in.cuda, "Device", no_card)
        with pytest.raises(DeviceError, match=r'no card is visible: .*device="cpu"'):
            rpcls.lstsq(A, b, device="cuda")
    told = r'device="cuda" needs CuPy, .*pip install cupy-cuda12x or'
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "cupy", None)
        with pytest.raises(MissingDependencyError, match=told):
            rpcls.lstsq(A, b, device="cuda")


def test_the_card_holds_two_blocks(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    A, b, _ = problem()
    asked = []
    empty = stand_in.empty
    monkeypatch.setattr(stand_in, "empty", lambda *a: asked.append(a) or empty(*a))
    source_of(A, b, device="cuda").gradient(np.zeros(A.shape[1]))
    bytes_asked = [a[0] for a in asked if a[1:] == (np.uint8,)]
    assert sorted(bytes_asked) == [64 * 8] * 2 + [64 * 8 * A.shape[1]] * 2


def test_blocks_are_cut_by_shape(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in SIZES.items():
        monkeypatch.setattr(streamed, name, size)
    A = np.broadcast_to(np.float32(1), (10**9, 7))
    source = source_of(A[:100], np.ones(100, np.float32), device="cuda")
    for m, rows in ((10**9, 1 << 22), (4 << 20, 1 << 19), (1000, 1000)):
        assert source._step(streamed.Rows(0, A[:m], A[:m, :1], None), streamed._BLOCK_BYTES) == rows  # type: ignore
