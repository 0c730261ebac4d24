"""Matrices of cupyx.scipy.sparse give what SciPy's give, by sweeps on the card."""

from __future__ import annotations

import importlib
import sys
import warnings
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from test_device_arrays import FIELDS, SWEPT
from test_sparse import stored

import rpcls
from rpcls import kernels
from rpcls.errors import InvalidTypeError, InvalidValueError, NonFiniteError
from rpcls.kernels.cuda import sparse
from rpcls.sources import device, device_sparse, source_of

M, N = 700, 20


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several of everything: dense blocks, sorted runs, lanes, looks at the entries."""
    monkeypatch.setattr(device, "_BLOCK_BYTES", 8 * N * 150)
    monkeypatch.setattr(sparse, "_SORTED_ROWS", 300)
    monkeypatch.setattr(device_sparse, "_ENTRIES", 500)


def there(array: Any, form: str = "csr") -> Any:
    """On the card: a SciPy matrix as one of cupyx, an array as an array."""
    if not sp.issparse(array):
        return sys.modules["cupy"].asarray(array)
    return getattr(importlib.import_module("cupyx.scipy.sparse"), f"{form}_matrix")(array)


def agree(module: Any, got: Any, expected: Any, tolerance: float) -> None:
    for name in FIELDS:
        mine, theirs = getattr(got, name), np.asarray(getattr(expected, name))
        mine = np.asarray(module.asnumpy(mine) if isinstance(mine, module.ndarray) else mine)
        assert mine.dtype == theirs.dtype and mine.shape == theirs.shape, name
        assert np.allclose(mine, theirs, rtol=0, atol=tolerance * max(1.0, float(np.abs(theirs).max()))), name
    assert got.intervals == expected.intervals and got.operator == expected.operator


@pytest.mark.parametrize("name", [name for name, family in SWEPT.items() if not isinstance(family, rpcls.SRHT)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_summaries_are_those_of_the_host(xp: Any, name: str, dtype: Any) -> None:
    A, rng = stored(M, N, dtype), np.random.default_rng(1)
    b, w = rng.standard_normal((M, 2)).astype(dtype), rng.random(M)
    S = SWEPT[name].sample(60, m=M + 30, rng=3)
    weight = w if dtype == np.float64 else None
    expected = rpcls.compress(A, b, S, sample_weight=weight, row_offset=30)
    got = rpcls.compress(there(A), there(b), S, sample_weight=None if weight is None else there(w), row_offset=30)
    agree(xp, got, expected, 200 * float(np.finfo(dtype).eps))


FORMS = {
    "csc": lambda A: there(A, "csc"),
    "coo": lambda A: there(A, "coo"),
    "duplicates": lambda A: twice(A),
    "unsorted": lambda A: there(sp.csr_matrix(A[:, ::-1])[:, ::-1]),
    "long indices": lambda A: of_indices(A, np.int64),
}


def twice(A: Any) -> Any:
    data, indices = np.repeat(A.data / 2, 2), np.repeat(A.indices, 2)
    matrix = type(there(A))
    return matrix(tuple(map(there, (data, indices, 2 * A.indptr))), shape=A.shape)


def of_indices(A: Any, kind: Any) -> Any:
    matrix = there(A)
    matrix.indices, matrix.indptr = (part.astype(kind) for part in (matrix.indices, matrix.indptr))
    return matrix


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_used_and_left_as_it_was(xp: Any, form: str) -> None:
    A, b = stored(M, N), np.random.default_rng(1).standard_normal(M)
    given = FORMS[form](A)
    before = given.get()
    S = rpcls.SparseSign().sample(60, rng=3)
    agree(xp, rpcls.compress(given, there(b), S), rpcls.compress(A, b, S), 1e-13)
    after = given.get()
    assert after.nnz == before.nnz and np.array_equal(after.data, before.data)


def test_booleans(xp: Any) -> None:
    A, b, S = stored(M, N) != 0, np.ones(M), rpcls.CountSketch().sample(60, rng=3)
    agree(xp, rpcls.compress(there(A), there(b), S), rpcls.compress(A, b, S), 1e-13)


@pytest.mark.parametrize("k", [1, 3, 6])
@pytest.mark.parametrize("intercept", [False, True])
def test_every_sweep_is_that_of_the_host(xp: Any, k: int, intercept: bool) -> None:
    A, rng = stored(M, N), np.random.default_rng(2)
    b, w = rng.standard_normal((M, k)), rng.random(M)
    host = source_of(A, b, sample_weight=w, intercept=intercept)
    card = source_of(there(A), there(b), sample_weight=there(w), intercept=intercept)
    for source in (host, card):
        source.compress(rpcls.SparseSign().sample(64, rng=0))
    X, P, R = rng.standard_normal((N, k)), rng.standard_normal((N, 7)), np.triu(rng.random((N, N))) + 3 * np.eye(N)
    for sweep in (
        lambda s: s.gradient(X), lambda s: (s.normal(P),), lambda s: s.gram(), lambda s: s.gram(R),
        lambda s: (s.triangle()[0].T @ s.triangle()[0],), lambda s: (s.product(P),),
    ):  # fmt: skip
        for mine, theirs in zip(sweep(card), sweep(host), strict=True):
            mine = kernels.on_host(mine)  # a Gram matrix stays on the card
            assert isinstance(mine, np.ndarray | np.generic)
            assert np.allclose(mine, theirs, rtol=1e-10, atol=1e-10 * np.abs(theirs).max())
    assert np.allclose(xp.asnumpy(card.predict(X)), host.predict(X))
    assert card.stored == host.stored == A.nnz and card.any_rhs()


SOLVERS = ["auto", "precondition", "normal", "direct", "full", "partial", "combined",
           rpcls.RobustPartiallyCompressed(0.1), rpcls.RobustPartiallyCompressed("sweep")]  # fmt: skip


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
@pytest.mark.parametrize("intercept", [False, True])
def test_solvers_give_the_answer_of_the_host_on_the_card(xp: Any, solver: Any, intercept: bool) -> None:
    A, rng = stored(M, N), np.random.default_rng(3)
    b, w = rng.standard_normal(M), rng.random(M)
    more: dict[str, Any] = {"rng": 0} if solver not in ("normal", "direct") else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rpcls.RpclsWarning)  # a column is empty
        expected = rpcls.lstsq(A, b, solver, sample_weight=w, intercept=intercept, **more)
        got = rpcls.lstsq(there(A), there(b), solver, sample_weight=there(w), intercept=intercept, **more)
        again = rpcls.lstsq(there(A), there(b), solver, sample_weight=there(w), intercept=intercept, **more)
    assert isinstance(got.x, xp.ndarray) and got.x.dtype == np.float64 and got.status is expected.status
    assert np.allclose(
        xp.asnumpy(got.x), expected.x, rtol=0, atol=1e-7 * np.linalg.norm(expected.x)
    )  # rho is found to 1e-8
    assert np.array_equal(xp.asnumpy(got.x), xp.asnumpy(again.x)) and got.details == expected.details


def test_the_certificate(xp: Any) -> None:
    A = stored(M, N)[:, : N - 1]  # without the empty column
    b = np.random.default_rng(3).standard_normal(M)
    one = rpcls.lstsq(there(A), there(b), "partial", sketch_size=100, rng=0)
    got, expected = rpcls.certify(there(A), there(b), one), rpcls.certify(A, b, xp.asnumpy(one.x), one.sketch)
    error = np.linalg.norm(A @ (xp.asnumpy(one.x) - np.linalg.lstsq(A.toarray(), b)[0]))
    assert got.lower <= error <= got.upper and got.upper <= 1.5 * expected.upper


@pytest.mark.parametrize("size", [1e-200, 1e150])
def test_extreme_units(xp: Any, size: float) -> None:
    A, b, w = stored(M, N), np.random.default_rng(0).standard_normal(M), np.full(M, 4.0)
    S = rpcls.SparseSign().sample(60, rng=0)
    got = rpcls.compress(there(A * size), there(b), S, sample_weight=there(w))
    agree(xp, got, rpcls.compress(A * size, b, S, sample_weight=w), 1e-13)
    assert got.exponents == rpcls.compress(A * size, b, S, sample_weight=w).exponents != (0, 0)


def test_non_finite_entries_are_named(xp: Any) -> None:
    A, b = stored(M, N), np.ones(M)
    A.data[1700] = np.nan
    row, column = A.tocoo().row[1700], A.indices[1700]
    told = rf"A must be finite, got nan in row {row}, column {column}; remove or impute"
    for solver in ("full", "direct", "normal"):
        with pytest.raises(NonFiniteError, match=told):
            rpcls.lstsq(there(A), there(b), solver)
    with pytest.raises(NonFiniteError, match=told):
        rpcls.compress(there(A), there(b), rpcls.Gaussian(), sketch_size=50)


def test_no_rows_and_no_entries(xp: Any) -> None:
    for m in (0, 50):
        A, b = sp.csr_matrix((m, 3)), np.ones(m)
        got = rpcls.compress(there(A), there(b), rpcls.SparseSign().sample(30, rng=0))
        agree(xp, got, rpcls.compress(A, b, rpcls.SparseSign().sample(30, rng=0)), 1e-13)
        source = source_of(there(A), there(b))
        assert not source.gradient(np.ones(3))[1].any() and source.gradient(np.ones(3))[0] == m
        assert source.predict(np.ones(3)).shape == (m,)


def test_what_cannot_be(xp: Any) -> None:
    A, b = stored(M, N), np.ones(M)
    with pytest.raises(InvalidTypeError, match=r"b must be a CuPy array as A is, got numpy.ndarray; cupy.asarray\(b\)"):
        rpcls.lstsq(there(A), b)
    with pytest.raises(InvalidTypeError, match=r"got sparse complex128; complex problems are not supported"):
        rpcls.compress(there(A.astype(complex)), there(b))
    with pytest.raises(InvalidValueError, match=r"b must have shape .* m = 700 rows, got \(699,\)"):
        rpcls.compress(there(A), there(b[1:]))
    with pytest.raises(InvalidValueError, match=r"at least one column, got shape \(700, 0\)"):
        rpcls.compress(there(A[:, :0]), there(b))
    with pytest.raises(InvalidValueError, match=r"SRHT\(\) is one transform .*use SparseSign\(\)"):
        rpcls.compress(there(A), there(b), rpcls.SRHT(), sketch_size=50)
    with pytest.raises(InvalidTypeError, match=r"A is on a card; pass A.get\(\) and cupy.asnumpy\(b\)"):
        source_of(there(A), there(b)).blocks()
    c = rpcls.compress(there(A), there(b), rpcls.LeverageSampling(), sketch_size=50, rng=0)
    assert np.allclose(c.operator @ A.toarray(), xp.asnumpy(c.SA))
    with pytest.raises(InvalidTypeError, match=r"A is a csr_matrix on a card; pass A.get\(\) and cupy.asnumpy\(b\)"):
        rpcls.compress(there(A), there(b), device="cpu")


def test_nothing_is_densified_and_lanes_fit(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    A = sp.random_array((4000, 500), density=1e-3, rng=np.random.default_rng(0), format="csr")
    b, S = np.ones(4000), rpcls.SparseSign().sample(600, rng=0)
    monkeypatch.setattr(sparse, "_SPARE_BYTES", 1 << 20)
    asked, zeros = [], stand_in.zeros
    monkeypatch.setattr(stand_in, "zeros", lambda *a: asked.append(a[0]) or zeros(*a))
    agree(stand_in, rpcls.compress(there(A), there(b), S), rpcls.compress(A, b, S), 1e-13)
    rpcls.lstsq(there(A), there(b), "precondition")
    assert max(8 * np.prod(shape) for shape in asked) < 8 * 4000 * 500 / 2
