"""Fewer rows than columns: the minimum norm by sketching the columns, and LAPACK where that is not for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from support import matrix

import rpcls
from rpcls.sources import source_of


def wide(kind: str, condition: float, seed: int = 0, k: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    A = np.ascontiguousarray(matrix(kind, 3000, 40, rng, condition=condition).T)
    return A, A @ rng.standard_normal((3000,) if k is None else (3000, k))


@pytest.mark.parametrize("kind", ["gaussian", "coherent"])
@pytest.mark.parametrize("condition", [10.0, 1e5, 1e9])
@pytest.mark.parametrize("k", [None, 2, 6])
def test_minimum_norm(kind: str, condition: float, k: int | None) -> None:
    A, b = wide(kind, condition, k=k)
    solution = rpcls.lstsq(A, b, "precondition")
    assert solution.status is rpcls.Status.MINIMUM_NORM and "By conjugate gradients on AAᵀ" in solution.details
    assert solution.rank == 40 and solution.x.shape == (3000, *b.shape[1:])
    U, s, Vt = np.linalg.svd(A, full_matrices=False)
    expected = Vt.T @ ((U.T @ b).T / s).T
    # forward errors of either within u·κ, here with a constant for the 3000 × 40 sums
    error = np.linalg.norm(solution.x - expected) / np.linalg.norm(expected)
    assert error <= 100 * 1.1e-16 * condition
    residual = np.linalg.norm(b - A @ solution.x, axis=0)
    assert np.all(residual <= 1e-14 * (np.linalg.norm(A) * np.linalg.norm(solution.x, axis=0)))
    assert np.shape(solution.residual_norm) == np.shape(residual)


@pytest.mark.parametrize("form", [sp.csr_array, sp.csc_array])
def test_sparse(form: Any) -> None:
    rng = np.random.default_rng(1)
    A = sp.random_array((60, 5000), density=0.01, rng=rng, format="csr")
    b = rng.standard_normal(60)
    solution = rpcls.lstsq(form(A), b)
    expected = np.linalg.lstsq(A.toarray(), b)[0]
    np.testing.assert_allclose(solution.x, expected, atol=1e-13 * np.abs(expected).max())
    assert "AAᵀ" in solution.details


def test_float32() -> None:
    A, b = wide("gaussian", 10.0)
    solution = rpcls.lstsq(A.astype(np.float32), b.astype(np.float32), "precondition")
    expected = np.linalg.lstsq(A, b)[0]
    assert solution.x.dtype == np.float32
    assert np.linalg.norm(solution.x - expected) <= 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize(
    "case",
    ["weights", "intercept", "ridge", "rcond", "dependent rows", "blocks", "nearly square", "no rows to speak of"],
)
def test_lapack_takes_the_rest(case: str) -> None:
    A, b = wide("gaussian", 10.0)
    settings: dict[str, Any] = {}
    solver = rpcls.SketchAndPrecondition(ridge=1.0) if case == "ridge" else rpcls.SketchAndPrecondition()
    if case == "weights":
        settings["sample_weight"] = np.linspace(1, 2, 40)
    if case == "intercept":
        settings["intercept"] = True
    if case == "rcond":
        settings["rcond"] = 1e-10
    if case == "dependent rows":
        A[7], b[7] = A[3], b[3]
    if case == "nearly square":
        A = A[:, :60]
    if case == "no rows to speak of":
        A, b = np.zeros((2, 3000)), np.ones(2)
    given: Any = A, b
    if case == "blocks":
        given = rpcls.RowBlocks(lambda: ((A[i : i + 10], b[i : i + 10]) for i in range(0, 40, 10)), 3000), None
        solver = rpcls.Direct()  # A's rows are not known before a sweep: only "direct" minds nothing
    found = rpcls.lstsq(*given, solver, **settings)
    expected = rpcls.lstsq(A, b, rpcls.Direct(ridge=1.0) if case == "ridge" else "direct", **settings)
    np.testing.assert_allclose(found.x, expected.x, atol=1e-10)
    assert "AAᵀ" not in found.details


def test_auto_prefers_it_only_where_it_is_cheaper() -> None:
    rng = np.random.default_rng(0)
    assert isinstance(rpcls.lstsq(rng.standard_normal((3, 40)), np.ones(3)).solver, rpcls.Direct)
    A = rng.standard_normal((50, 100_000))
    solution = rpcls.lstsq(A, np.ones(50))
    assert isinstance(solution.solver, rpcls.SketchAndPrecondition)
    assert np.linalg.norm(A @ solution.x - 1) <= 1e-12


def test_the_input_is_not_changed() -> None:
    A, b = wide("gaussian", 10.0)
    before = A.copy(), b.copy()
    rpcls.lstsq(A, b, "precondition")
    assert np.array_equal(A, before[0]) and np.array_equal(b, before[1])


def test_transposed_sources() -> None:
    rng = np.random.default_rng(0)
    A, b = rng.standard_normal((5, 9)), rng.standard_normal((5, 2))
    X = rng.standard_normal((9, 2))
    for given in (A, np.asfortranarray(A), sp.csr_array(A)):
        source = source_of(given, b, workers=1)
        across = source.transposed(X)
        assert across is not None and across.shape == (9, 5)
        np.testing.assert_allclose(across.gradient(np.zeros((5, 2)))[1], A @ X, atol=1e-14)
        np.testing.assert_allclose(across.product(b), A.T @ b, atol=1e-14)
        np.testing.assert_array_equal(source.right_hand_sides(), b)
    assert source_of(A, b, sample_weight=np.ones(5), workers=1).transposed(X) is None
