"""What every one-pass solver must do: equivariance, right-hand sides, intercept, zeros, units, records."""

from __future__ import annotations

import pickle
import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import gaussian_sketch, sparse_sketch, summary

import rpcls
from rpcls.errors import ConvergenceWarning, SketchWarning
from rpcls.onepass import (
    Absolute,
    FullyCompressed,
    PartiallyCompressed,
    RobustFullyCompressed,
    RobustPartiallyCompressed,
)
from rpcls.solution import Status

SOLVERS = [
    FullyCompressed(),
    PartiallyCompressed(),
    PartiallyCompressed("debiased"),
    RobustFullyCompressed(),
    RobustFullyCompressed(0.05),
    RobustPartiallyCompressed(),
    RobustPartiallyCompressed("cover"),
    RobustPartiallyCompressed(0.05),
]
every_solver = pytest.mark.parametrize("solver", SOLVERS, ids=repr)


def solve(c: rpcls.CompressedProblem, solver: object) -> rpcls.Solution:
    """Warnings that the case at hand deserves are other tests' business; NumPy's stay errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", SketchWarning)
        return c.solve(solver)


def data(d: int = 30, k: int | None = None):
    rng = np.random.default_rng(0)
    shape = () if k is None else (k,)
    A = rng.standard_normal((100, 6)) * np.geomspace(1, 20, 6)
    b = A @ rng.standard_normal((6, *shape)) + rng.standard_normal((100, *shape))
    return A, b, gaussian_sketch(d, 100, rng)


@every_solver
@pytest.mark.parametrize("d", [30, 4])
@given(st.integers(-40, 40), st.integers(-40, 40), st.floats(1.0, 2.0), st.booleans())
@settings(max_examples=12, deadline=None, derandomize=True)
def test_scaling_of_a_and_b(solver: object, d: int, ea: int, eb: int, extra: float, flip: bool) -> None:
    A, b, S = data(d=d)
    alpha, beta = extra * 2.0**ea, 2.0**eb * (-1 if flip else 1)
    plain, scaled = solve(summary(A, b, S), solver), solve(summary(alpha * A, beta * b, S), solver)
    assert scaled.status is plain.status
    np.testing.assert_allclose(scaled.x * (alpha / beta), plain.x, rtol=1e-8, atol=1e-9 * np.abs(plain.x).max())
    if plain.rho is not None:
        np.testing.assert_allclose(scaled.rho, alpha * plain.rho, rtol=1e-9)
        np.testing.assert_allclose(scaled.mu, alpha**2 * plain.mu, rtol=1e-7)
    if plain.residual_norm_estimate is not None:
        np.testing.assert_allclose(scaled.residual_norm_estimate, abs(beta) * plain.residual_norm_estimate, rtol=1e-7)


@every_solver
@given(st.integers(0, 2**32))
@settings(max_examples=10, deadline=None, derandomize=True)
def test_rotation_and_permutation_of_the_columns(solver: object, seed: int) -> None:
    A, b, S = data()
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    x = solve(summary(A, b, S), solver).x
    np.testing.assert_allclose(Q @ solve(summary(A @ Q, b, S), solver).x, x, rtol=1e-7, atol=1e-9)
    p = rng.permutation(6)
    np.testing.assert_allclose(solve(summary(A[:, p], b, S), solver).x, x[p], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("alpha", [1e-200, 1e-120, 1e150, 1e200])
@every_solver
def test_entries_whose_squares_leave_the_range(solver: object, alpha: float) -> None:
    A, b, S = data()
    plain = solve(summary(A, b, S), solver)
    e = int(np.frexp(alpha)[1])
    sol = solve(summary(alpha * A, b, S, exponents=(e, 0)), solver)
    np.testing.assert_allclose(sol.x * alpha, plain.x, rtol=1e-9)
    np.testing.assert_allclose(sol.residual_norm_estimate, plain.residual_norm_estimate, rtol=1e-9)
    assert sol.status is Status.OK
    if plain.rho is not None:
        np.testing.assert_allclose(sol.rho / alpha, plain.rho, rtol=1e-9)
    both = solve(summary(alpha * A, alpha * b, S, exponents=(e, e)), solver)
    np.testing.assert_allclose(both.x, plain.x, rtol=1e-9)
    np.testing.assert_allclose(both.residual_norm_estimate / alpha, plain.residual_norm_estimate, rtol=1e-9)
    if alpha < 1e200:  # a summary that took no care of exponents, as far as it is finite
        loose = solve(summary(alpha * A, b, S), solver)
        np.testing.assert_allclose(loose.x * alpha, plain.x, rtol=1e-9)


@pytest.mark.parametrize(
    "make", [FullyCompressed, lambda v: PartiallyCompressed("raw", v), lambda v: PartiallyCompressed("best", v)]
)
def test_ridge_is_in_the_callers_units(make) -> None:
    A, b, S = data()
    alpha = 2.0**100
    plain = solve(summary(A, b, S), make(3.0))
    for exponents in ((0, 0), (100, 0), (90, -5)):
        sol = solve(summary(alpha * A, b, S, exponents=exponents), make(3.0 * alpha**2))
        np.testing.assert_allclose(sol.x * alpha, plain.x, rtol=1e-10)


@pytest.mark.parametrize("solver", [RobustFullyCompressed, RobustPartiallyCompressed])
def test_absolute_rho_is_in_the_callers_units(solver: type) -> None:
    A, b, S = data()
    c = summary(A, b, S)
    relative = c.solve(solver(0.05))
    sol = c.solve(solver(Absolute(relative.rho)))
    np.testing.assert_allclose(sol.x, relative.x, rtol=1e-12)
    for exponents in ((7, 0), (-9, 4)):
        sol = summary(A, b, S, exponents=exponents).solve(solver(Absolute(relative.rho)))
        np.testing.assert_allclose([sol.rho, sol.mu], [relative.rho, relative.mu], rtol=1e-10)
        np.testing.assert_allclose(sol.x, relative.x, rtol=1e-10)


@every_solver
@pytest.mark.parametrize("d", [30, 4])
def test_several_right_hand_sides_are_independent_problems(solver: object, d: int) -> None:
    A, b, S = data(k=4, d=d)
    b = b * np.array([1.0, 1e-6, 1e8, 0.0])
    many = solve(summary(A, b, S), solver)
    assert many.x.shape == (6, 4)
    for j in range(4):
        one = solve(summary(A, b[:, j], S), solver)
        np.testing.assert_allclose(many.x[:, j], one.x, rtol=1e-10, atol=0)
        for name in ("rho", "mu", "residual_norm_estimate"):
            if getattr(one, name) is not None:
                assert isinstance(getattr(one, name), float) and getattr(many, name).shape == (4,)
                np.testing.assert_allclose(getattr(many, name)[j], getattr(one, name), rtol=1e-10)


def test_the_message_counts_the_right_hand_sides() -> None:
    A, b, S = data(k=3, d=4)
    with pytest.warns(ConvergenceWarning, match=r"Its rank is 4, n is 6, sketch_size is 4\. \(3 of 3 right-hand sides"):
        summary(A, b, S).solve(FullyCompressed())
    c = summary(A, b * np.array([1.0, 0.0, 1.0]), S)
    with pytest.warns(ConvergenceWarning, match=r"\(2 of 3 right-hand sides"):
        c.solve(RobustPartiallyCompressed(1e-9))


@every_solver
def test_zero_right_hand_side(solver: object) -> None:
    A, b, S = data()
    for d in (30, 4):
        sol = solve(summary(A, 0 * b, S[:d]), solver)
        assert sol.status is Status.ZERO_GRADIENT and sol.status.ok and not sol.x.any()
        assert sol.residual_norm_estimate in (None, 0.0)


@every_solver
def test_zero_matrix(solver: object) -> None:
    A, b, S = data()
    sol = solve(summary(0 * A, b, S), solver)
    assert sol.status is Status.ZERO_GRADIENT and not sol.x.any() and sol.rank == 0
    assert np.isclose(sol.residual_norm_estimate, np.linalg.norm(b), rtol=0.5)


@every_solver
def test_zero_column(solver: object) -> None:
    A, b, S = data()
    A[:, 2] = 0
    sol, others = solve(summary(A, b, S), solver), solve(summary(np.delete(A, 2, axis=1), b, S), solver)
    assert sol.x[2] == 0 and sol.rank == 5
    np.testing.assert_allclose(np.delete(sol.x, 2), others.x, rtol=1e-8)
    robust = "Robust" in type(solver).__name__
    assert sol.status is (Status.OK if robust else Status.SKETCH_RANK_DEFICIENT)


@every_solver
def test_a_sketch_that_is_zero_where_the_gradient_is_not(solver: object) -> None:
    A, b, S = data()
    sol = solve(replace(summary(A, b, S), SA=np.zeros((30, 6))), solver)
    assert (not sol.x.any() and sol.rank == 0 and not sol.status.ok) or sol.status is Status.SHRUNK_TO_ZERO


def test_absolute_rho_on_a_zero_sketch_says_that_no_rho_fits() -> None:
    A, b, S = data()
    c = replace(summary(A, b, S), SA=np.zeros((30, 6)))
    with pytest.warns(ConvergenceWarning, match="the sketch saw nothing of Aᵀb, so no rho fits"):
        sol = c.solve(RobustPartiallyCompressed(Absolute(2.0)))
    assert sol.status is Status.UNFITTED
    np.testing.assert_allclose(sol.x, c.Atb / 4)


@every_solver
@pytest.mark.parametrize("weighted", [False, True])
def test_intercept_and_weights(solver: object, weighted: bool) -> None:
    A, b, S = data()
    A, b = A + 5, b - 7
    w = np.random.default_rng(1).random(100) if weighted else None
    W = np.ones(100) if w is None else w
    c = summary(A, b, S, weight=w).centered()
    a_mean, b_mean = W @ A / W.sum(), W @ b / W.sum()
    by_hand = summary(A - a_mean, b - b_mean, S, weight=w)
    sol, expected = solve(c, solver), solve(by_hand, solver)
    np.testing.assert_allclose(sol.x, expected.x, rtol=1e-8)
    np.testing.assert_allclose(sol.intercept, b_mean - a_mean @ expected.x, rtol=1e-8)
    assert expected.intercept is None
    far = solve(summary(A, b, S, weight=w, exponents=(9, -4)).centered(), solver)
    np.testing.assert_allclose(far.intercept, sol.intercept, rtol=1e-8)
    two = solve(summary(A, np.stack([b, 2 * b], axis=1), S, weight=w).centered(), solver)
    np.testing.assert_allclose(two.intercept, [sol.intercept, 2 * sol.intercept], rtol=1e-8)


@every_solver
def test_centring_a_constant_column_leaves_a_zero_column(solver: object) -> None:
    A, b, S = data()
    A[:, 3] = 1234.5678
    sol = solve(summary(A, b, S).centered(), solver)
    others = solve(summary(np.delete(A, 3, axis=1), b, S).centered(), solver)
    assert sol.rank == 5 and sol.x[3] == 0
    np.testing.assert_allclose(np.delete(sol.x, 3), others.x, rtol=1e-7)
    # … and a column with a large mean is not taken for constant
    A[:, 3] = 1e5 + np.random.default_rng(2).standard_normal(100)
    assert solve(summary(A, b, S).centered(), solver).rank == 6


@every_solver
def test_float32(solver: object) -> None:
    A, b, S = data()
    exact, sol = solve(summary(A, b, S), solver), solve(summary(A, b, S, dtype=np.float32), solver)
    assert sol.x.dtype == np.float32
    np.testing.assert_allclose(sol.x, exact.x, rtol=1e-3, atol=1e-4)
    dependent = solve(summary(np.hstack([A, A @ np.full((6, 1), 0.3)]), b, S, dtype=np.float32), solver)
    assert dependent.rank == 6


@every_solver
def test_the_record(solver: object) -> None:
    A, b, S = data()
    c = replace(summary(A, b, S), columns=tuple("abcdef"))
    kept = [array.copy() for array in (c.SA, c.Sb, c.Atb)]
    sol = solve(c, solver)
    assert all(np.array_equal(*pair) for pair in zip(kept, (c.SA, c.Sb, c.Atb), strict=True))
    assert (sol.solver, sol.sweeps, sol.columns, sol.sketch) == (solver, 1, tuple("abcdef"), c.operator)
    assert sol.residual_norm is None and sol.error_estimate is None and set(sol.timings) == {"solve"}
    assert sol.condition is not None and 1 <= sol.condition < 100 and sol.rank == 6 and sol.x.shape == (6,)
    assert pickle.loads(pickle.dumps(solver)) == solver == eval(repr(solver)) and hash(solver) is not None
    with pytest.raises(AttributeError):
        solver.ridge = 1.0  # type: ignore[attr-defined]
    family, d = solver.sketch((1000, 10), np.dtype(float))  # type: ignore[attr-defined]
    assert family == rpcls.SparseSign() and d == 40
    assert solver.sketch((1000, 2), np.dtype(float))[1] == 16  # type: ignore[attr-defined]


@every_solver
def test_residual_estimates_track_the_truth(solver: object) -> None:
    rng = np.random.default_rng(3)
    ratios = []
    for snr in (0.1, 1.0, 100.0):
        for _ in range(4):
            A = rng.standard_normal((1000, 30))
            f, e = A @ rng.standard_normal(30), rng.standard_normal(1000)
            b = f * np.sqrt(snr) / np.linalg.norm(f) + e / np.linalg.norm(e)
            sol = solve(summary(A, b, sparse_sketch(120, 1000, rng)), solver)
            ratios.append(sol.residual_norm_estimate / np.linalg.norm(A @ sol.x - b))
    assert min(ratios) > 0.75 and max(ratios) < 1.33 and 0.93 < np.median(ratios) < 1.07


def test_warnings_point_at_the_callers_line() -> None:
    A, b, S = data(d=4)
    with pytest.warns(ConvergenceWarning) as record:
        summary(A, b, S).solve(FullyCompressed())
    assert [w.filename for w in record] == [__file__]
