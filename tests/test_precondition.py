"""SketchAndPrecondition: routes, rank, ridge, the accuracy that is asked for, and what happens when a sketch fails."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from oracles import normal_equations_mp
from support import matrix

import rpcls
from rpcls import SketchAndPrecondition, Status
from rpcls.errors import InvalidTypeError, InvalidValueError, NonFiniteError, SourceError
from rpcls.multipass import precondition

both_routes = pytest.mark.parametrize("route", ["gram", "cg"])
both_kinds_of_rows = pytest.mark.parametrize("kind", ["gaussian", "coherent"])


def by(route: str, **settings: Any) -> SketchAndPrecondition:
    return SketchAndPrecondition(route, **settings)  # type: ignore[arg-type]


def problem(
    kind: str, condition: float, noise: float = 1.0, *, m: int = 400, n: int = 10, k: int | None = None, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """‖A‖ = 1, ‖x‖ = 1, and a residual of norm `noise` that is orthogonal to the range."""
    rng = np.random.default_rng(seed)
    A = matrix(kind, m, n, rng, condition=condition)
    X, Y = rng.standard_normal((n, k or 1)), rng.standard_normal((m, k or 1))
    Q = np.linalg.qr(A)[0]
    for _ in range(2):
        Y -= Q @ (Q.T @ Y)
    b = A @ (X / np.linalg.norm(X, axis=0)) + noise * Y / np.linalg.norm(Y, axis=0)
    return A, b if k else b[:, 0]


def error_of(A: np.ndarray, b: np.ndarray, x: np.ndarray) -> Any:
    """‖A(x − x*)‖, by LAPACK."""
    U = np.linalg.svd(A, full_matrices=False)[0]
    return np.linalg.norm(U.T @ (b - A @ x), axis=0)


class Counted:
    """Row blocks that count their sweeps, and do what they are told in one of them."""

    def __init__(self, A: Any, b: np.ndarray, size: int = 150) -> None:
        self.A, self.b, self.size = A, b, size
        self.sweeps, self.when, self.what = 0, (-1, -1), None

    def __call__(self) -> Iterator[Any]:
        self.sweeps += 1
        for number, i in enumerate(range(0, self.A.shape[0], self.size)):
            A, b = self.A[i : i + self.size], self.b[i : i + self.size]
            if (self.sweeps, number) == self.when:
                if isinstance(self.what, BaseException):
                    raise self.what
                A = A * self.what
            yield A, b

    @property
    def rows(self) -> rpcls.RowBlocks:
        return rpcls.RowBlocks(self, self.A.shape[1])


# -- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"route": "qr"}, InvalidValueError, r"route must be one of 'auto', 'gram', 'cg', got 'qr'"),
        ({"refine": "more"}, InvalidValueError, r"refine must be one of 'standard', 'extra', got 'more'"),
        ({"ridge": -1.0}, InvalidValueError, r"ridge must be finite and at least 0, got -1\.0"),
        ({"ridge": "1"}, InvalidTypeError, r"ridge must be a real number, got str '1'"),
        ({"rcond": 1.0}, InvalidValueError, r"rcond must be at least 0 and below 1, or None \(15ε\), got 1\.0"),
        ({"rtol": 1.0}, InvalidValueError, r"rtol must be in \(0, 1\), got 1\.0"),
        ({"rtol": True}, InvalidTypeError, r"rtol must be a float, got bool True"),
        ({"confidence": 0.5}, InvalidValueError, r"confidence must be in 0\.9 … 0\.999, for which the bounds were"),
    ],
)
def test_settings(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        SketchAndPrecondition(**settings)


def test_it_needs_the_rows() -> None:
    A, b = problem("gaussian", 10.0)
    with pytest.raises(
        InvalidTypeError, match=r"SketchAndPrecondition needs the rows of A, got only a summary; call r"
    ):
        rpcls.compress(A, b, rng=0).solve(SketchAndPrecondition())


@pytest.mark.parametrize("solver", ["auto", "precondition"])
def test_complex_numbers_are_refused_by_name(solver: str) -> None:
    A, b = problem("gaussian", 10.0)
    for given, rhs in ((A + 1j, b), (A, b + 1j), (sp.csr_array(A + 1j), b)):
        with pytest.raises(InvalidTypeError, match="complex problems are not supported"):
            rpcls.lstsq(given, rhs, solver)


@both_routes
def test_the_same_call_gives_the_same_bits(route: str) -> None:
    A, b = problem("coherent", 1e8, m=9000)
    solver = by(route)
    one = rpcls.lstsq(A, b, solver)
    for again in (rpcls.lstsq(A, b, solver, rng=0), rpcls.lstsq(A, b, pickle.loads(pickle.dumps(solver)), workers=3)):
        assert np.array_equal(again.x, one.x) and again.sweeps == one.sweeps
    other = rpcls.lstsq(A, b, solver, rng=1)
    assert other.sketch != one.sketch and not np.array_equal(other.x, one.x)


# -- sweeps -----------------------------------------------------------------------------------------------------------


@both_routes
@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
def test_sweeps_are_counted(route: str, intercept: bool, form: Any) -> None:
    A, b = problem("gaussian", 1e6)
    counted = Counted(form(A), b)
    solution = rpcls.lstsq(counted.rows, None, by(route), intercept=intercept)
    assert solution.sweeps == counted.sweeps and (solution.sweeps == 3 if route == "gram" else solution.sweeps < 40)


@both_routes
@both_kinds_of_rows
def test_right_hand_sides_share_their_sweeps(route: str, kind: str) -> None:
    A, B = problem(kind, 1e6, k=6)
    together = rpcls.lstsq(A, B, by(route))
    alone = [rpcls.lstsq(A, b, by(route)) for b in B.T]
    assert together.sweeps <= max(one.sweeps for one in alone) + 1
    for j, one in enumerate(alone):
        assert np.linalg.norm(A @ (together.x[:, j] - one.x)) <= 1e-9
        np.testing.assert_allclose(together.residual_norm[j], one.residual_norm, rtol=1e-12)
    assert together.error_estimate.upper.shape == (6,)


@both_routes
def test_easy_and_hard_right_hand_sides_together(route: str) -> None:
    A, B = problem("coherent", 1e10, k=3)
    B[:, 1] = A @ np.ones(10)
    B[:, 2] = 0.0
    for rtol in (None, 0.1):
        solution = rpcls.lstsq(A, B, by(route, rtol=rtol))
        assert solution.status is Status.OK and not solution.x[:, 2].any()
        assert np.linalg.norm(A @ solution.x[:, 1] - B[:, 1]) <= 1e-14 * np.linalg.norm(B[:, 1])
        rounding = 1e-5 if rtol is None else 0.0  # LAPACK's error on the first, κu‖r‖ at most
        assert np.all(error_of(A, B, solution.x) <= solution.error_estimate.upper + rounding)


# -- ridge, rank ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["gram", "cg", "direct"])
@pytest.mark.parametrize("ridge", [1e-14, 1e-6, 1.0, 1e6])
@both_kinds_of_rows
def test_ridge_against_extended_precision(solver: str, ridge: float, kind: str) -> None:
    A, b = problem(kind, 1e6, m=200, n=4)
    value = rpcls.Direct(ridge) if solver == "direct" else by(solver, ridge=ridge)
    found = rpcls.lstsq(A, b, value)
    expected = normal_equations_mp(A, A.T @ b, ridge)
    # κ_LS of [A; √λI] and [b; 0], in which ‖r‖ = 1
    kappa = 1 / np.sqrt(1e-12 + ridge) if ridge < 1 else 1.0
    bound = kappa + kappa**2 / max(np.linalg.norm(expected), 1e-300)
    # Aᵀb of the oracle is rounded, which its own conditioning amplifies
    assert np.linalg.norm(found.x - expected) <= 20 * 1.1e-16 * bound * np.linalg.norm(expected) * max(1, ridge)
    assert found.status is Status.OK
    residual = np.hypot(np.linalg.norm(b - A @ found.x), 0)
    np.testing.assert_allclose(found.residual_norm, residual, rtol=1e-9)


def of_low_rank(seed: int, decades: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A = BC exactly, small integers times powers of two, b, and A⁺b by extended precision."""
    import mpmath

    rng = np.random.default_rng(seed)
    B, b = rng.integers(-9, 10, (300, 4)), rng.standard_normal(300)
    C = np.hstack([np.eye(4, dtype=int), rng.integers(-5, 6, (4, 3))])
    scales = 2.0 ** np.rint(np.log2(10) * np.linspace(-decades, decades, 7))
    with mpmath.workdps(80):
        left, right = mpmath.matrix(B.tolist()), mpmath.matrix((C * scales).tolist())
        y = mpmath.lu_solve(left.T * left, left.T * mpmath.matrix(b.tolist()))
        x = right.T * mpmath.lu_solve(right * right.T, y)
        return (B @ C) * scales, b, np.array([float(v) for v in x])


@both_routes
@pytest.mark.parametrize("source", ["array", "csr", "row blocks"])
@pytest.mark.parametrize("decades", [0, 9])
def test_minimum_norm_in_the_callers_units(route: str, source: str, decades: int) -> None:
    A, b, x = of_low_rank(1, decades)
    solver = by(route)
    if source == "row blocks":
        found = rpcls.lstsq(Counted(A, b).rows, None, solver)
    else:
        found = rpcls.lstsq(sp.csr_array(A) if source == "csr" else A, b, solver)
    assert found.status is Status.MINIMUM_NORM and found.rank == 4 and found.error_estimate is None
    assert "Its rank is 4, its shape (300, 7)." in found.message
    np.testing.assert_allclose(found.x, x, rtol=1e-11)


@both_routes
@pytest.mark.parametrize("intercept", [False, True])
def test_dependent_columns(route: str, intercept: bool) -> None:
    rng = np.random.default_rng(1)
    B, b = rng.standard_normal((300, 4)) + 2, rng.standard_normal(300)
    for A in (np.hstack([B, 10 * B]), np.hstack([B, B]), np.hstack([B[:, :2], np.zeros((300, 1)), B[:, 2:]])):
        found = rpcls.lstsq(A, b, by(route), intercept=intercept)
        center, right = (A - A.mean(axis=0), b - b.mean()) if intercept else (A, b)
        assert found.status is Status.MINIMUM_NORM and found.rank == 4
        np.testing.assert_allclose(found.x, np.linalg.pinv(center, rcond=1e-10) @ right, rtol=1e-10, atol=1e-14)


@both_routes
def test_a_constant_column_next_to_an_intercept_has_no_coefficient(route: str) -> None:
    rng = np.random.default_rng(2)
    A, b = rng.standard_normal((2500, 5)), rng.standard_normal(2500)
    for value in (1.0, 0.1, 1e9 / 3, 1e-9 / 3):
        A[:, 2] = value
        found = rpcls.lstsq(A, b + 3, by(route), intercept=True)
        assert found.status is Status.MINIMUM_NORM and found.rank == 4 and found.x[2] == 0
        rest = np.linalg.lstsq(np.delete(A, 2, 1) - np.delete(A, 2, 1).mean(axis=0), b - b.mean())[0]
        np.testing.assert_allclose(np.delete(found.x, 2), rest, rtol=1e-10)


@both_routes
@pytest.mark.parametrize("rcond", [0.0, 1e-20, 1e-12, 1e-6, 1e-2, 0.5])
def test_rcond_is_numpys_rule(route: str, rcond: float) -> None:
    A, b = problem("coherent", 1e4)
    half = np.hstack([A[:, :5], 10 * A[:, :5]])
    for given in (A, half):
        found = rpcls.lstsq(given, b, by(route, rcond=rcond))
        s = np.linalg.svd(given, compute_uv=False)
        rank = int(np.sum(s > rcond * s[0]))
        if rank == 5 or given is A:  # rounding decides of singular values that are zero
            assert found.rank == rank
            np.testing.assert_allclose(found.x, np.linalg.lstsq(given, b, rcond=rcond)[0], rtol=1e-8)
    undecided = "By LAPACK: the sketch cannot decide a rank by this rcond."
    assert undecided in rpcls.lstsq(half, b, by(route, rcond=rcond)).details
    clear = rpcls.lstsq(A, b, by(route, rcond=1e-7))
    assert undecided not in clear.details and clear.rank == 10


# -- the accuracy that is asked for -----------------------------------------------------------------------------------


@both_kinds_of_rows
@pytest.mark.parametrize("condition", [10.0, 1e8])
@pytest.mark.parametrize("noise", [1e-3, 1.0, 30.0])
def test_rtol_is_met(kind: str, condition: float, noise: float) -> None:
    """At 99 % each; none of these draws misses."""
    for seed in range(4):
        A, b = problem(kind, condition, noise, k=2, seed=seed)
        Ax = np.linalg.norm(A @ np.linalg.lstsq(A, b, rcond=1e-15)[0], axis=0)
        full = rpcls.lstsq(A, b, SketchAndPrecondition("cg"), rng=seed).sweeps
        before = 0
        for rtol in (0.3, 1e-2, 1e-4):
            found = rpcls.lstsq(A, b, SketchAndPrecondition("cg", rtol=rtol), rng=seed)
            error = error_of(A, b, found.x)
            assert np.all(error <= rtol * Ax + 10 * 1.1e-16 * np.linalg.norm(b, axis=0))
            assert np.all(error <= found.error_estimate.upper) and found.error_estimate.confidence == 0.99
            assert before <= found.sweeps < full
            before = found.sweeps


@pytest.mark.parametrize("ridge", [1e-3, 1.0, 100.0])
def test_rtol_with_a_ridge_is_that_of_the_fit(ridge: float) -> None:
    """λ‖x‖² is no part of ‖Ax*‖²; with it, this would stop a factor √(1 + λκ²) too early."""
    for seed in range(6):
        A, b = problem("coherent", 100.0, seed=seed)
        x = np.linalg.solve(A.T @ A + ridge * np.eye(10), A.T @ b)
        found = rpcls.lstsq(A, b, SketchAndPrecondition("cg", ridge=ridge, rtol=1e-2), sketch_size=40, rng=seed)
        error = np.linalg.norm(A @ (found.x - x))
        assert error <= 1e-2 * np.linalg.norm(A @ x) and error <= found.error_estimate.upper
        assert found.sweeps < rpcls.lstsq(A, b, SketchAndPrecondition("cg", ridge=ridge), sketch_size=40).sweeps


@pytest.mark.parametrize("mean", [1.0, 1e4, 1e9])
def test_rtol_next_to_large_means(mean: float) -> None:
    """Centring costs digits of Aᵀb, and with them of what would be certified."""
    for seed in range(6):
        A, b = problem("gaussian", 10.0, seed=seed)
        rows, rhs = 20 * A + mean, b + 3 * mean
        found = rpcls.lstsq(rows, rhs, SketchAndPrecondition("cg", rtol=1e-2), intercept=True, rng=seed)
        center, right = rows - rows.mean(axis=0), rhs - rhs.mean()
        x = np.linalg.lstsq(center, right)[0]
        assert np.linalg.norm(center @ (found.x - x)) <= 1e-2 * np.linalg.norm(center @ x)


def test_rtol_where_nothing_fits_or_all_does() -> None:
    A, b = problem("coherent", 10.0)
    U = np.linalg.qr(A)[0]
    for _ in range(3):
        b = b - U @ (U.T @ b)
    found = rpcls.lstsq(A, b, SketchAndPrecondition("cg", rtol=1e-3))
    assert found.status.ok and error_of(A, b, found.x) <= 10 * 1.1e-16 * np.linalg.norm(b)
    exact = rpcls.lstsq(A, A @ np.ones(10), SketchAndPrecondition("cg", rtol=1e-3))
    assert exact.sweeps == 2 and np.linalg.norm(A @ (exact.x - 1)) <= 1e-14
    zero = rpcls.lstsq(A, 0 * b, SketchAndPrecondition("cg", rtol=1e-3))
    assert zero.status is Status.ZERO_GRADIENT and not zero.x.any()


@pytest.mark.parametrize("size", [6, 8, 12])
def test_no_stage_is_spent_on_rounding_errors(size: int) -> None:
    """The third stage would be a third of the sweeps: what is left of h after the second is rounding."""
    rng = np.random.default_rng(0)
    V, sigma = np.linalg.qr(rng.standard_normal((100, 100)))[0], np.geomspace(1, 1e-12, 100)
    Q, R = np.linalg.qr(rng.standard_normal((10_000, 100)))
    A, r = Q @ R @ (V * sigma) @ V.T, rng.standard_normal(10_000)
    b, r = A @ (V @ (rng.standard_normal(100) / np.sqrt(sigma))), r - Q @ (Q.T @ r)
    b += np.linalg.norm(b) / np.linalg.norm(r) * r
    digits = 10 / (0.5 * np.log10(size))  # and the sketch, three residuals, and what rounds up
    qr = error_of(A, b, np.linalg.lstsq(A, b, rcond=None)[0])
    for seed in range(4):
        found = rpcls.lstsq(A, b, SketchAndPrecondition("cg"), sketch_size=size * 100, rng=seed)
        assert found.status.ok and found.sweeps <= digits + 6
        assert error_of(A, b, found.x) <= 3 * qr


@pytest.mark.parametrize(
    ("sketch", "name"),
    [
        (rpcls.CountSketch(), r"CountSketch\(\)"),
        (rpcls.RowSampling(), "RowSampling"),
        (rpcls.LeverageSampling(), "SampledRows gives"),
    ],
)
def test_rtol_needs_a_sketch_that_certifies(sketch: Any, name: str) -> None:
    A, b = problem("gaussian", 10.0)
    with pytest.raises(InvalidValueError, match=f"{name}.* no certificate, because .*; compress with rpcls.SparseSign"):
        rpcls.lstsq(A, b, "precondition", rtol=1e-2, sketch=sketch, sketch_size=100, rng=0)
    with pytest.raises(InvalidValueError, match=r"needs sketch_size > n, got sketch_size = 10 and n = 10"):
        rpcls.lstsq(A, b, SketchAndPrecondition("cg"), rtol=1e-2, sketch_size=10)
    assert rpcls.lstsq(A, b, "precondition", sketch=sketch, sketch_size=100, rng=0).error_estimate is None


def test_extra_refinement_gives_forward_accuracy(load: Any) -> None:
    """On families on which stopping on the backward error leaves digits."""
    problems, hard_problems = load("problems"), load("hard_problems")
    names = {"one row × 1e8", "in n of the rows", "monomials"}
    gains: dict[str, list[float]] = {name: [] for name in names}
    for seed in range(4):
        for p in problems.hard(400, 12, seed):
            if p.name in names:
                solutions = [rpcls.lstsq(p.A, p.b, by("cg", refine=refine)) for refine in ("standard", "extra")]
                ratios = hard_problems.Mark(p, "float64").ratios(np.column_stack([s.x for s in solutions]))
                gains[p.name].append(ratios[0]["forward"] / ratios[1]["forward"])
                assert solutions[0].sweeps < solutions[1].sweeps
    assert all(np.median(gain) > 1 for gain in gains.values()), gains
    assert np.exp(np.mean(np.log(list(gains.values())))) > 2  # "standard" refines once itself


# -- when a sketch fails ----------------------------------------------------------------------------------------------


def few_rows_carry_all(rest: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows 100 to 107 are the unit matrix, the others `rest` times Gaussian."""
    rng = np.random.default_rng(5)
    A = rest * rng.standard_normal((600, 8))
    A[100:108] += np.eye(8)
    return A, rng.standard_normal(600)


@both_routes
@pytest.mark.parametrize("consistent", [False, True])
def test_a_sketch_without_the_rows_that_matter_is_noticed(route: str, consistent: bool) -> None:
    A, b = few_rows_carry_all(0.0)
    if consistent:
        b = A @ np.arange(8.0)
    sketch = rpcls.RowSampling().sample(30, m=600, rng=3)
    found = rpcls.lstsq(A, b, by(route), sketch=sketch)
    assert found.status is Status.OK and found.rank == 8
    assert found.details.startswith("The first sketch lost directions of A; this is from a second. By ")
    assert isinstance(found.sketch.family, rpcls.SparseSign) and found.sketch.sketch_size == 64
    np.testing.assert_allclose(found.x, b[100:108], rtol=1e-12, atol=1e-14)


def test_a_sketch_that_makes_iterations_slow_is_replaced() -> None:
    A, b = few_rows_carry_all(1e-8)
    found = rpcls.lstsq(A, b, SketchAndPrecondition("cg"), sketch=rpcls.RowSampling(), sketch_size=30, rng=3)
    assert found.status is Status.OK
    assert found.details == "The first sketch stagnated; this is from a second. By conjugate gradients."
    np.testing.assert_allclose(found.x, b[100:108], rtol=1e-6, atol=1e-6)
    assert found.sweeps < 150  # not much more than the iterations of one stage


@both_routes
def test_lapack_is_the_last_resort(route: str, monkeypatch: pytest.MonkeyPatch) -> None:
    A, b = few_rows_carry_all(0.0)
    bad = rpcls.CountSketch()  # eight rows fall on eight: hardly ever each on one of its own
    monkeypatch.setattr(precondition, "_second_sketch", lambda problem, source: source.compress(bad.sample(8, rng=1)))
    counted = Counted(A, b)
    found = rpcls.lstsq(counted.rows, None, by(route), sketch=bad, sketch_size=8)
    assert found.details == "By LAPACK: two sketches failed." and found.status is Status.OK
    assert found.solver == by(route) and found.sketch is None
    assert found.sweeps == counted.sweeps == 5
    np.testing.assert_allclose(found.x, b[100:108], rtol=1e-12)


@both_routes
@pytest.mark.parametrize("size", [8, 9, 10, 11, 12, 15, 20])
def test_sketches_of_any_size(route: str, size: int) -> None:
    A, b = problem("gaussian", 1e3, n=10)
    counted = Counted(A, b)
    found = rpcls.lstsq(counted.rows, None, by(route), sketch_size=size)
    assert found.status is Status.OK and found.rank == 10 and found.sweeps == counted.sweeps
    assert error_of(A, b, found.x) <= 1e-13
    assert ("lost directions" in found.details) == (size < 10)
    assert (found.error_estimate is None) == (size == 10)
    ridge = rpcls.lstsq(A, b, by(route, ridge=0.1), sketch_size=size)
    np.testing.assert_allclose(ridge.x, np.linalg.solve(A.T @ A + 0.1 * np.eye(10), A.T @ b), rtol=1e-10)
    assert (ridge.error_estimate is None) == (size <= 10)


@both_routes
@pytest.mark.parametrize("m", [3, 9, 10, 11, 14, 40, 90])
@pytest.mark.parametrize("intercept", [False, True])
def test_row_blocks_may_turn_out_to_be_few(route: str, m: int, intercept: bool) -> None:
    A, b = problem("gaussian", 10.0)
    found = rpcls.lstsq(Counted(A[:m], b[:m]).rows, None, by(route), intercept=intercept)
    direct = rpcls.lstsq(A[:m], b[:m], "direct", intercept=intercept)
    assert found.rank == direct.rank == min(m - intercept, 10) and found.status is direct.status
    np.testing.assert_allclose(found.x, direct.x, atol=1e-11 * np.abs(direct.x).max())


@pytest.mark.parametrize(("m", "n"), [(60, 10), (300, 50)])
def test_few_rows_go_to_lapack(m: int, n: int) -> None:
    A, b = problem("gaussian", 10.0, m=m, n=n)
    found = rpcls.lstsq(A, b, "precondition")
    assert found.details == "By LAPACK: A has too few rows for a sketch to help." and found.sweeps == 1
    assert found.solver == SketchAndPrecondition() and np.array_equal(found.x, rpcls.lstsq(A, b, "direct").x)


@both_routes
@pytest.mark.parametrize(("alpha", "beta"), [(1e-200, 1.0), (1e200, 1e150), (1.0, 1e-200), (1e120, 1.0), (1e-120, 1e9)])
def test_extreme_units_go_to_lapack(route: str, alpha: float, beta: float) -> None:
    A, b = problem("gaussian", 10.0)
    plain = rpcls.lstsq(A, b, "direct")
    for form in (np.asarray, sp.csr_array):
        found = rpcls.lstsq(form(A * alpha), b * beta, by(route))
        np.testing.assert_allclose(found.x * alpha / beta, plain.x, rtol=1e-12)
        assert found.details == "By LAPACK: the units of A or b are extreme." and found.sweeps == 2
    columns = 10.0 ** np.linspace(-200, 200, 10)
    np.testing.assert_allclose(rpcls.lstsq(A * columns, b, by(route)).x * columns, plain.x, rtol=1e-11)


# -- when rows fail ---------------------------------------------------------------------------------------------------

SOLVERS = {
    "gram": (SketchAndPrecondition("gram"), 3),
    "cg": (SketchAndPrecondition("cg"), 6),
    "rtol": (SketchAndPrecondition("cg", rtol=1e-2), 4),
    "normal": (rpcls.NormalEquations(), 2),
    "hessian-sketch": (rpcls.IterativeHessianSketch(), 6),
}


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("intercept", [False, True])
def test_a_sweep_that_fails_names_the_row_block(name: str, intercept: bool) -> None:
    A, b = problem("gaussian", 1e6 if name == "gram" else 1e3)
    solver, sweeps = SOLVERS[name]
    for sweep in range(1, sweeps + 1):
        counted = Counted(A, b, 100)
        counted.when, counted.what = (sweep, 2), OSError("the disk is gone")
        with pytest.raises(
            SourceError, match=r"reading row block 2 \(from row 200\) failed: OSError: the disk is gone"
        ):
            rpcls.lstsq(counted.rows, None, solver, intercept=intercept)
        assert counted.sweeps == sweep


@pytest.mark.parametrize("name", SOLVERS)
def test_an_interruption_leaves_all_in_order(name: str) -> None:
    A, b = problem("gaussian", 1e6 if name == "gram" else 1e3)
    solver, sweeps = SOLVERS[name]
    expected = rpcls.lstsq(Counted(A, b, 100).rows, None, solver)
    for sweep in range(1, sweeps + 1):
        counted = Counted(A, b, 100)
        counted.when, counted.what = (sweep, 1), KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            rpcls.lstsq(counted.rows, None, solver, workers=2)
        counted.when = (-1, -1)
        again = rpcls.lstsq(counted.rows, None, solver, workers=2)
        assert np.array_equal(again.x, expected.x) and again.sweeps == expected.sweeps


@pytest.mark.parametrize("name", ["gram", "cg"])
def test_rows_that_turn_into_nan_are_no_answer(name: str) -> None:
    A, b = problem("gaussian", 1e6)
    solver, sweeps = SOLVERS[name]
    for sweep in range(2, sweeps):
        counted = Counted(A, b, 100)
        original = counted.A

        def spoiled(counted: Counted = counted, sweep: int = sweep, original: np.ndarray = original) -> Iterator[Any]:
            counted.sweeps += 1
            A = original.copy()
            if counted.sweeps >= sweep:
                A[333, 4] = np.nan
            yield from ((A[i : i + 100], b[i : i + 100]) for i in range(0, 400, 100))

        with pytest.raises(NonFiniteError, match=r"A must be finite, got nan in row 333, column 4"):
            rpcls.lstsq(rpcls.RowBlocks(spoiled, 10), None, solver)


def test_rows_must_be_the_same_in_every_sweep() -> None:
    A, b = problem("gaussian", 1e3)
    turn = iter(range(100))
    rows = rpcls.RowBlocks(lambda: [(A[: 400 - 10 * t], b[: 400 - 10 * t]) for t in (next(turn),)], 10)
    with pytest.raises(SourceError, match=r"every sweep must see the same rows, but this one gave 390 and the one be"):
        rpcls.lstsq(rows, None, "precondition")
