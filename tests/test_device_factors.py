"""Factorisations on the card that holds the rows: what the host's give, and no matrix comes back."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracles import exact_backward_error
from support import matrix

import rpcls
from rpcls.factor import Factor, card
from rpcls.factor.card import CardFactor, factored_there
from rpcls.kernels import on_card, on_host
from rpcls.kernels.cuda import algebra
from rpcls.linalg import cholesky_solver, gram, scaled_cholesky, triangle
from rpcls.onepass import shifted
from rpcls.ridge import GramRidge, SingularRidge
from rpcls.sources import device as sources_device
from rpcls.sources import source_of

EPS = 2.0**-52
M, N = 1200, 70
FULL_RANK = pytest.mark.parametrize("condition", [1.0, 1e6, 1e10, 2e12])


def triangle_of(condition: float, n: int = 40, decades: int = 0) -> np.ndarray:
    """With that condition number, before its columns are scaled."""
    rng = np.random.default_rng(1)
    R = np.asarray(np.linalg.qr(matrix("gaussian", 3 * n, n, rng, condition=condition), mode="r"))
    return R * 10.0 ** np.linspace(-decades, decades, n)[rng.permutation(n)]


def problem(condition: float = 10.0, k: int | None = None, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    A = 3 * matrix("coherent", M, N, rng, condition=condition)
    b = A @ rng.standard_normal((N, k or 1)) + noise * rng.standard_normal((M, k or 1)) / np.sqrt(M)
    return A, b if k else b[:, 0]


# -- factors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("condition", [1.0, 1e6, 1e10, 2e12, None])
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("decades", [0, 9])
def test_solves_are_as_accurate_as_substitution(xp: Any, condition: float | None, k: int, decades: int) -> None:
    R = triangle_of(condition or 1.0, decades=decades)
    if condition is None:  # of rows that are not graded, so that the inverse alone would lose its digits
        rng = np.random.default_rng(1)
        R = np.triu(rng.standard_normal((40, 40)), 1) + np.diag(rng.uniform(0.5, 1, 40))
        condition = 1e8
    factor, host = Factor.of(xp.asarray(R), 15 * EPS), Factor(R, 15 * EPS)
    assert isinstance(factor, CardFactor) and factor.full and factor.rank == 40 and on_card(factor.triangle)
    assert np.array_equal(factor.exponents, host.exponents) and 0.8 < factor.condition / host.condition < 1.2
    assert np.isclose(factor.size, host.size) and 0.8 < factor.norm / host.norm < 1.2
    V = np.random.default_rng(0).standard_normal((40, k))
    scales = 2.0 ** -factor.exponents[:, None]
    R = R * scales[:, 0]
    for Y in (V, R @ V, R.T @ V):  # solutions as large as the condition number, and of size one
        for T, X in ((R, factor.half(Y) / scales), (R.T, factor.half_transpose(Y / scales))):
            assert np.all(np.linalg.norm(T @ X - Y, axis=0) <= 40 * EPS * host.norm * np.linalg.norm(X, axis=0))
        X = factor.gram_pinv(Y / scales) / scales
        back = host.half_transpose(Y / scales)
        assert np.all(np.linalg.norm(R @ X - back, axis=0) <= 400 * EPS * condition * np.linalg.norm(back, axis=0))


@FULL_RANK
def test_everything_else_is_what_the_host_gives(xp: Any, condition: float) -> None:
    R = triangle_of(condition, decades=2)
    factor, host = Factor.of(xp.asarray(R), 15 * EPS), Factor(R, 15 * EPS)
    assert np.allclose(on_host(factor.triangle), R, rtol=1e-15)
    rng = np.random.default_rng(0)
    Y, Z = rng.standard_normal((40, 3)), rng.standard_normal((50, 3))
    for tau in (np.array([1.0, 1e-3, 1e-7]), np.array([1e-9, 0.0, 30.0])):
        assert np.allclose(factor.shifted(Y, tau), host.shifted(Y, tau), rtol=1e-6)
        assert np.allclose(factor.shifted_bound(Y, tau), host.shifted_bound(Y, tau), rtol=1e-12)
    loose = max(1e-12, 40 * EPS * condition)
    for name, argument in (("pinv", Z), ("half", Y), ("half_transpose", Y)):
        mine, theirs = getattr(factor, name)(argument), getattr(host, name)(argument)
        assert np.allclose(mine, theirs, rtol=0, atol=loose * np.abs(theirs).max()), name
    assert np.isclose(factor.inverse_squares(), host.inverse_squares(), rtol=loose)
    assert not factor.missed(Y).any()


def test_what_may_not_be_of_full_rank_is_left_to_the_host(xp: Any) -> None:
    R = triangle_of(10.0)
    lost, near, zero = R.copy(), triangle_of(2e15), R.copy()
    lost[:, 7], zero[:, 7] = lost[:, 6], 0.0
    lost = np.asarray(np.linalg.qr(lost, mode="r"))
    for held in (lost, near, zero, R[:20], R * 1e-120):
        factor, host = Factor.of(xp.asarray(held), 15 * EPS), Factor(held, 15 * EPS)
        assert type(factor) is Factor and factor.rank == host.rank
    assert type(Factor.of(xp.asarray(R), 15 * EPS, scaled=False)) is Factor
    assert type(Factor.of(R, 15 * EPS)) is Factor


def test_a_gram_matrix_that_is_not_positive_definite_has_no_factor(xp: Any) -> None:
    G = np.diag([1.0, 2.0, -1e-3, 4.0])
    assert scaled_cholesky(xp.asarray(G)) is None and cholesky_solver(xp.asarray(G)) is None
    solve = cholesky_solver(xp.asarray(np.abs(G)))
    assert solve is not None and np.allclose(solve(np.ones((4, 2))), 1 / np.abs(np.diag(G))[:, None])


def test_a_triangle_stays_where_its_first_block_is(xp: Any) -> None:
    rng = np.random.default_rng(0)
    P, q = rng.standard_normal((30, 5)), rng.standard_normal((30, 2))
    T, expected = triangle(xp.asarray(P), q), triangle(P, q)
    assert on_card(T) and np.allclose(np.abs(on_host(T)), np.abs(expected))


def test_the_ridge_path_by_eigenvectors(xp: Any) -> None:
    A, _ = problem()
    h = A.T @ np.random.default_rng(0).standard_normal((M, 2))
    mine, theirs = GramRidge.of(xp.asarray(A), h), GramRidge.of(A, h)
    assert isinstance(mine, SingularRidge) and on_card(mine.V) and not mine.certified and theirs is not None
    assert np.allclose(mine.s, theirs.s) and np.allclose(np.abs(mine.c), np.abs(theirs.c))
    assert np.isclose(mine.condition, theirs.condition)
    for mu in (np.zeros(2), np.array([1e-3, 1.0])):
        assert np.allclose(mine.at(mu), theirs.at(mu), rtol=1e-9, atol=1e-9 * np.abs(theirs.at(mu)).max())
    assert np.allclose(np.linalg.norm(A @ mine.half(np.eye(N)[:, :3]), axis=0), 1)
    ill = xp.asarray(problem(1e9)[0])
    assert GramRidge.of(ill, h) is None and GramRidge.of(xp.asarray(A[:, :30]), h[:30]) is None


@pytest.mark.parametrize("condition", [3.0, 1e3, 1e6, 1e10, 5e11])
@pytest.mark.parametrize("decades", [0, 6])
def test_the_factor_of_a_sketch_by_products(
    xp: Any, monkeypatch: pytest.MonkeyPatch, condition: float, decades: int
) -> None:
    monkeypatch.setattr(card, "_BY_PRODUCTS", 1)
    rng = np.random.default_rng(0)
    A = matrix("coherent", M, N, rng, condition=condition) * 10.0 ** np.linspace(-decades, decades, N)
    q = rng.standard_normal((M, 2))
    found = factored_there(xp.asarray(A), q, 15 * EPS)
    assert found is not None
    factor, x = found
    host = Factor(np.linalg.qr(A, mode="r"), 15 * EPS)
    assert factor.full and np.isclose(factor.condition, host.condition, rtol=0.25)
    W = A @ np.column_stack([factor.half(column[:, None])[:, 0] for column in np.eye(N)])
    assert np.linalg.norm(W.T @ W - np.eye(N), 2) < 1e-2
    Q = np.linalg.qr(A)[0]
    best = Q @ (Q.T @ q)
    assert np.linalg.norm(A @ x - best) < 1e-2 * np.linalg.norm(best)


def test_products_give_no_factor_of_what_is_too_ill_conditioned(xp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card, "_BY_PRODUCTS", 1)
    q = np.ones((M, 1))
    A = problem()[0]
    B = A.copy()
    B[:, 3] = B[:, 4]
    for held in (problem(1e14)[0], B, A * (np.arange(N) != 5), A * 1e-120):
        assert factored_there(xp.asarray(held), q, 15 * EPS) is None
    monkeypatch.setattr(card, "_BY_PRODUCTS", N + 1)
    assert factored_there(xp.asarray(A), q, 15 * EPS) is None


@pytest.mark.parametrize("order", ["C", "F"])
def test_half_of_a_product_is_the_whole(xp: Any, monkeypatch: pytest.MonkeyPatch, order: str) -> None:
    monkeypatch.setattr(algebra, "_HALF", 1)
    A = problem()[0]
    held = xp.asfortranarray(xp.asarray(A)) if order == "F" else xp.asarray(A)
    assert np.allclose(on_host(gram(held, 0.5)), A.T @ A + 0.5 * np.eye(N), rtol=1e-12)
    M, _ = source_of(held, xp.asarray(A[:, 0])).gram()
    assert np.allclose(on_host(M), A.T @ A, rtol=1e-12)


def test_lanczos_knows_the_eigenvalues(xp: Any) -> None:
    rng = np.random.default_rng(0)
    V = np.linalg.qr(rng.standard_normal((50, 50)))[0]
    values = np.linspace(1, 3, 50)
    G, v = (V * values) @ V.T, rng.standard_normal(50)
    diagonal, beside, space = algebra.lanczos(xp.asarray(G), v, 20)
    Q = on_host(space)
    T = np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1)
    assert np.allclose(Q @ Q.T, np.eye(20), atol=1e-10) and np.allclose(Q[0], v / np.linalg.norm(v))
    assert np.allclose(Q @ G @ Q.T, T, atol=1e-12)
    assert np.isclose(np.linalg.norm(Q[-1] @ G - T[-1] @ Q), beside[-1])


# -- solvers ----------------------------------------------------------------------------------------------------------

ONE_PASS = [
    rpcls.FullyCompressed(), rpcls.FullyCompressed(0.3), rpcls.PartiallyCompressed(),
    rpcls.PartiallyCompressed(ridge=0.3), rpcls.CombinedCompressed(), rpcls.RobustFullyCompressed(),
    rpcls.RobustFullyCompressed(0.05), rpcls.RobustPartiallyCompressed(), rpcls.RobustPartiallyCompressed("cover"),
    rpcls.RobustPartiallyCompressed(0.1), rpcls.RobustPartiallyCompressed(0.0),
    rpcls.RobustPartiallyCompressed("sweep"),
]  # fmt: skip


@pytest.mark.parametrize("solver", ONE_PASS, ids=str)
@pytest.mark.parametrize("condition", [10.0, 1e6])
@pytest.mark.parametrize("intercept", [False, True])
def test_one_pass_solvers(xp: Any, solver: Any, condition: float, intercept: bool) -> None:
    A, b = problem(condition, 2)
    A = A + 0.5 * intercept
    settings: dict[str, Any] = {"sketch_size": 4 * N, "rng": 0, "intercept": intercept}
    got, expected = rpcls.lstsq(xp.asarray(A), xp.asarray(b), solver, **settings), rpcls.lstsq(A, b, solver, **settings)
    assert on_card(got.x) and got.status is expected.status and got.rank == expected.rank
    A = A - A.mean(axis=0) * intercept
    difference = np.linalg.norm(A @ (on_host(got.x) - expected.x), axis=0)
    assert np.all(difference <= max(1e-9, 100 * EPS * condition) * np.linalg.norm(A @ expected.x, axis=0))
    assert got.condition and expected.condition and np.isclose(got.condition, expected.condition, rtol=0.2)
    for name in ("residual_norm_estimate", "rho", "mu", "residual_norm"):
        mine, theirs = getattr(got, name), getattr(expected, name)
        assert (mine is None) == (theirs is None) and (mine is None or np.allclose(mine, theirs, rtol=1e-6)), name


@pytest.mark.parametrize("solver", ["full", "partial", "combined", rpcls.RobustPartiallyCompressed()], ids=str)
@pytest.mark.filterwarnings("ignore")
def test_fewer_sketch_rows_than_columns_and_a_column_of_zeros(xp: Any, solver: Any) -> None:
    A, b = problem()
    A[:, 5] = 0.0
    for size in (40, 200):
        got = rpcls.lstsq(xp.asarray(A), xp.asarray(b), solver, sketch_size=size, rng=0)
        expected = rpcls.lstsq(A, b, solver, sketch_size=size, rng=0)
        assert got.status is expected.status and got.rank == expected.rank and float(got.x[5]) == 0.0
        assert np.allclose(on_host(got.x), expected.x, rtol=0, atol=1e-9 * np.linalg.norm(expected.x))


@pytest.mark.parametrize("route", ["gram", "cg"])
@pytest.mark.parametrize("condition", [1.0, 1e6, 1e10, 1e13])
@pytest.mark.parametrize("noise", [1e-6, 1.0])
def test_full_accuracy_at_every_condition(xp: Any, route: Any, condition: float, noise: float) -> None:
    A, b = problem(condition, noise=noise)
    solver = rpcls.SketchAndPrecondition(route)
    got, expected = rpcls.lstsq(xp.asarray(A), xp.asarray(b), solver), rpcls.lstsq(A, b, solver)
    assert got.status is expected.status and got.details == expected.details and got.sweeps <= expected.sweeps + 4
    assert exact_backward_error(A, b, on_host(got.x)) <= 4 * EPS


@pytest.mark.parametrize("route", ["gram", "cg"])
@pytest.mark.parametrize("ridge", [0.0, 1e-4])
def test_ridge_weights_and_intercept_at_full_accuracy(xp: Any, route: Any, ridge: float) -> None:
    A, b = problem(1e5)
    w = np.random.default_rng(1).random(M)
    solver = rpcls.SketchAndPrecondition(route, ridge=ridge)
    expected = rpcls.lstsq(A, b, rpcls.Direct(ridge), sample_weight=w, intercept=True)
    got = rpcls.lstsq(xp.asarray(A), xp.asarray(b), solver, sample_weight=xp.asarray(w), intercept=True)
    assert np.allclose(on_host(got.x), expected.x, rtol=0, atol=1e-10 * np.linalg.norm(expected.x))


@pytest.mark.parametrize("k", [1, 2])
def test_refinement_makes_up_for_the_squared_condition_number(xp: Any, k: int) -> None:
    A, _ = problem(5e3)
    X = np.random.default_rng(0).standard_normal((N, k))
    summary = rpcls.compress(xp.asarray(A), xp.asarray(A @ X), sketch_size=4 * N, rng=0)
    got = summary.solve(rpcls.FullyCompressed())
    assert np.abs(on_host(got.x) - X).max() < 1e-11
    SA = on_host(summary.SA)
    for ridge in (0.0, 1e-3):
        y = on_host(summary.solve(rpcls.PartiallyCompressed("raw", ridge=ridge)).x)
        rest = summary.Atb - SA.T @ (SA @ y) - ridge * y
        assert np.abs(rest).max() <= 1e-12 * np.linalg.norm(SA, 2) ** 2 * np.linalg.norm(y)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("order", ["C", "F", "strided"])
def test_gram_matrices_are_summed_over_blocks(xp: Any, monkeypatch: pytest.MonkeyPatch, dtype: Any, order: str) -> None:
    monkeypatch.setattr(sources_device, "_PRODUCT_BYTES", 1)
    A, b = (part.astype(dtype) for part in problem())
    R = triangle_of(10.0, N)
    held = xp.asarray(np.repeat(A, 2, axis=1))[:, ::2] if order == "strided" else xp.asarray(A)
    source = source_of(xp.asfortranarray(held) if order == "F" else held, xp.asarray(b))
    W = A.astype(np.float64) @ np.linalg.inv(R)
    for held, expected in ((None, A.astype(np.float64)), (R, W), (xp.asarray(R), W)):
        M, z = source.gram(held)
        assert on_card(M) and isinstance(z, np.ndarray)
        assert np.allclose(on_host(M), expected.T @ expected, rtol=1e-10, atol=1e-10)
        assert np.allclose(z[:, 0], expected.T @ b.astype(np.float64), rtol=1e-10, atol=1e-10)


def copies(xp: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of what comes to the host."""
    shapes: list[tuple[int, ...]] = []
    monkeypatch.setattr(xp, "asnumpy", lambda a: shapes.append(a.shape) or a.held.copy())
    return shapes


def test_no_matrix_comes_to_the_host(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    A, b = problem()
    held = stand_in.asarray(A), stand_in.asarray(b)
    copied = copies(stand_in, monkeypatch)
    for solver in (
        *ONE_PASS, rpcls.NormalEquations(),
        rpcls.SketchAndPrecondition("gram"), rpcls.SketchAndPrecondition("cg"),
    ):  # fmt: skip
        copied.clear()
        more: dict[str, Any] = {} if isinstance(solver, rpcls.NormalEquations) else {"rng": 0}
        rpcls.lstsq(*held, solver, **more)
        assert copied and all(min(shape) <= 8 for shape in copied if len(shape) == 2), (solver, copied)


@pytest.mark.parametrize("condition", [1e6, 1e10, None])
@pytest.mark.parametrize("size", [4 * N, N - 20])
@pytest.mark.parametrize("solver", ONE_PASS[5:], ids=str)
@pytest.mark.filterwarnings("ignore")
def test_robust_solvers_whose_gram_matrix_will_not_do_stay_on_the_card(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch, condition: float | None, size: int, solver: Any
) -> None:
    A, b = problem(condition or 10.0)
    if condition is None:  # of rank n - 2
        A[:, 3], A[:, 50] = A[:, 4], 0.0
    else:
        A *= 10.0 ** np.linspace(-1, 1, N)
    c, there = (rpcls.compress(f(A), f(b), sketch_size=size, rng=0) for f in (np.asarray, stand_in.asarray))
    copied = copies(stand_in, monkeypatch)
    if solver.rho == "sweep":
        got, expected = (
            rpcls.lstsq(f(A), f(b), solver, sketch_size=size, rng=0) for f in (stand_in.asarray, np.asarray)
        )
    else:
        got, expected = there.solve(solver), c.solve(solver)
    assert copied and all(min(shape) <= 8 for shape in copied if len(shape) == 2), copied
    assert got.status is expected.status and got.rank == expected.rank
    difference = np.linalg.norm(A @ (on_host(got.x) - expected.x))
    close = 1e-15 * (expected.condition or 1) if solver.rho == 0 and condition else 1e-9
    assert difference <= close * np.linalg.norm(A @ expected.x)


def test_the_path_for_one_more_sweep_by_eigenvectors(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    A, b = problem(500.0, 2)
    solver = rpcls.RobustPartiallyCompressed("sweep")
    expected = rpcls.lstsq(A, b, solver, sketch_size=4 * N, rng=0)
    monkeypatch.setattr(stand_in.linalg, "svd", None)
    got = rpcls.lstsq(stand_in.asarray(A), stand_in.asarray(b), solver, sketch_size=4 * N, rng=0)
    assert np.linalg.norm(A @ (on_host(got.x) - expected.x)) <= 1e-10 * np.linalg.norm(A @ expected.x)
    assert np.allclose(got.error_estimate.upper, expected.error_estimate.upper)  # type: ignore[union-attr]


def test_a_singular_value_decomposition_that_does_not_converge_is_left_to_the_host(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fail(*_: Any, **__: Any) -> None:
        asked.append(1)
        raise np.linalg.LinAlgError("no")

    A, b = problem(1e7)
    c = rpcls.compress(stand_in.asarray(A), stand_in.asarray(b), sketch_size=4 * N, rng=0)
    expected = c.solve(rpcls.RobustPartiallyCompressed())
    monkeypatch.setattr(stand_in.linalg, "svd", fail)
    assert np.allclose(c.solve(rpcls.RobustPartiallyCompressed()).x, expected.x)
    assert asked


@pytest.mark.parametrize("kind", ["gaussian", "coherent"])
@pytest.mark.parametrize("condition", [3.0, 1e3, 1e6, 1e10])
@pytest.mark.parametrize("rho", [1e-3, 0.1, 10.0, "cover", rpcls.Absolute(0.05)], ids=str)
@pytest.mark.parametrize("solver", [rpcls.RobustPartiallyCompressed, rpcls.RobustFullyCompressed])
def test_a_given_rho_takes_a_few_cholesky_factorisations(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch, kind: str, condition: float, rho: Any, solver: Any
) -> None:
    if solver is rpcls.RobustFullyCompressed and rho in ("cover", 10.0):
        return  # no rule of it, and x = 0
    rng = np.random.default_rng(5)
    A = 3 * matrix(kind, M, N, rng, condition=condition)
    b = A @ rng.standard_normal(N) + 0.1 * rng.standard_normal(M)
    expected = rpcls.compress(A, b, sketch_size=4 * N, rng=0).solve(solver(rho))
    there = rpcls.compress(stand_in.asarray(A), stand_in.asarray(b), sketch_size=4 * N, rng=0)
    monkeypatch.setattr(shifted, "_LEAST", 64)
    monkeypatch.setattr(card, "_BY_PRODUCTS", 64)
    calls, plain = [], algebra.cholesky
    monkeypatch.setattr(algebra, "cholesky", lambda G: calls.append(1) or plain(G))
    for slow in ("eigh", "svd", "qr"):
        monkeypatch.setattr(stand_in.linalg, slow, None)
    got = there.solve(solver(rho))
    assert 2 <= len(calls) <= (3 if rho in (0.1, 10.0, "cover") else 6)  # one or two are for P itself
    assert np.linalg.norm(A @ (got.x - expected.x)) <= 1e-10 * np.linalg.norm(A @ expected.x)
    assert got.status is expected.status and got.rank == N
    assert got.rho and expected.rho and np.isclose(got.rho, expected.rho, rtol=1e-12)
    assert got.mu and expected.mu and np.isclose(got.mu, expected.mu, rtol=1e-10)
    for name, close in (("condition", 0.2), ("residual_norm_estimate", 1e-3)):
        assert np.isclose(getattr(got, name), getattr(expected, name), rtol=close), name


def test_what_shifts_will_not_do_is_left_to_the_other_ways(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from rpcls.onepass.base import Summary

    monkeypatch.setattr(shifted, "_LEAST", 64)

    def answer(A: np.ndarray, b: np.ndarray, solver: Any, size: int = 4 * N) -> Any:
        problem = rpcls.compress(stand_in.asarray(A), stand_in.asarray(b), sketch_size=size, rng=0)
        return shifted.by_shifts(Summary.of(problem), solver)

    A, b = problem()
    partial, full = rpcls.RobustPartiallyCompressed, rpcls.RobustFullyCompressed
    assert answer(A, b, partial(0.1)) and answer(A, b, full(0.1))
    assert answer(A, b, partial(0.0)) is None and answer(A, b, partial(0.1), N - 5) is None
    assert answer(*problem(1e10), partial(1e-13)) is None and answer(*problem(k=2), partial(0.1)) is None
    assert answer(A, 0 * b, partial(0.1)) is None and answer(A[:, :40], b, partial(0.1)) is None
    assert answer(A, b, full(5.0)) is None and answer(A, A @ np.ones(N), full(1e-9)) is None  # x = 0; q in range(P)
    assert answer(np.eye(M, N), np.ones(M), partial(0.1), 8 * N)  # whatever the few distinct values
    A[:, 3] = A[:, 4]
    assert answer(A, b, partial(0.1)) is None


@pytest.mark.parametrize("kind", ["far", "near", "same", "one"])
def test_the_largest_singular_value(xp: Any, kind: str) -> None:
    s = {
        "far": np.geomspace(1, 1e-3, N), "near": 1 - 1e-3 * np.arange(N) / N, "same": np.ones(N),
        "one": np.zeros(N),
    }[kind]  # fmt: skip
    s[0] = 1.0
    V = np.linalg.qr(np.random.default_rng(2).standard_normal((N, N)))[0]
    found = shifted.largest_singular_value(xp.asarray(7 * (V * s**2) @ V.T))
    assert found is not None and np.isclose(found, np.sqrt(7), rtol=1e-10)


# -- summaries --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1.0, 1e200])
def test_summaries_add_up_where_they_are(xp: Any, size: float, tmp_path: Path) -> None:
    A, b = problem()
    A = A * size
    S = rpcls.SparseSign().sample(200, rng=0)
    first, second, small = (slice(0, 500), 0), (slice(500, M), 500), A[:500] / size
    there = [rpcls.compress(xp.asarray(A[rows]), xp.asarray(b[rows]), S, row_offset=i) for rows, i in (first, second)]
    here = rpcls.compress(A[:500], b[:500], S)
    whole = rpcls.compress(A, b, S)
    assert on_card((there[0] + there[1]).SA) and isinstance((here + there[1]).SA, np.ndarray)
    there[0].save(tmp_path / "part.npz")
    loaded = rpcls.CompressedProblem.load(tmp_path / "part.npz")
    assert isinstance(loaded.SA, np.ndarray) and np.array_equal(loaded.SA, on_host(there[0].SA))
    for total in (there[0] + there[1], here + there[1], there[1] + here, loaded + there[1]):
        assert total.exponents == whole.exponents
        for mine, theirs in ((total, whole), (total.centered(), whole.centered())):
            assert np.allclose(on_host(mine.SA), theirs.SA, rtol=0, atol=1e-12 * np.abs(theirs.SA).max())
            assert np.allclose(mine.Atb, theirs.Atb, rtol=1e-9, atol=1e-12 * np.abs(theirs.Atb).max())
    mixed = rpcls.compress(xp.asarray(small), xp.asarray(b[:500]), S) + there[1]
    alike = rpcls.compress(small, b[:500], S) + rpcls.compress(A[500:], b[500:], S, row_offset=500)
    assert mixed.exponents == alike.exponents and np.allclose(on_host(mixed.SA), alike.SA, atol=1e-12)


def test_single_precision(xp: Any) -> None:
    A, b = (part.astype(np.float32) for part in problem())
    summary = rpcls.compress(xp.asarray(A), xp.asarray(b), sketch_size=200, rng=0)
    assert summary.SA.dtype == summary.centered().SA.dtype == np.float32
    for solver in (rpcls.FullyCompressed(), rpcls.RobustPartiallyCompressed()):
        expected = rpcls.compress(A, b, sketch_size=200, rng=0).solve(solver)
        got = summary.solve(solver)
        assert got.x.dtype == np.float32 and np.allclose(on_host(got.x), expected.x, atol=1e-4)


def test_columns_that_centring_leaves_nothing_of(xp: Any) -> None:
    A, b = problem()
    A[:, 4] = 7.0
    for solver in ("full", rpcls.RobustPartiallyCompressed(0.1), rpcls.SketchAndPrecondition("cg")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            got = rpcls.lstsq(xp.asarray(A), xp.asarray(b), solver, intercept=True, rng=0)
            expected = rpcls.lstsq(A, b, solver, intercept=True, rng=0)
        assert float(got.x[4]) == expected.x[4] == 0.0 and got.rank == expected.rank
        assert np.allclose(on_host(got.x), expected.x, atol=1e-9 * np.linalg.norm(expected.x))
