"""IterativeHessianSketch: its steps are the published ones, their rates the documented ones, its failures told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from support import matrix

import rpcls
from rpcls import IterativeHessianSketch, Status
from rpcls.errors import ConvergenceWarning, InvalidTypeError, InvalidValueError

M, N = 600, 12
both_sketches = pytest.mark.parametrize("sketches", ["fixed", "fresh"])
both_steps = pytest.mark.parametrize("steps", ["tuned", "plain"])
both_kinds_of_rows = pytest.mark.parametrize("kind", ["gaussian", "coherent"])


def problem(
    kind: str = "gaussian", condition: float = 100.0, noise: float = 1.0, k: int | None = None, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """‖A‖ = ‖x*‖ = 1 or about that, and a residual of norm `noise` that is orthogonal to the range."""
    rng = np.random.default_rng(seed)
    A = matrix(kind, M, N, rng, condition=condition)
    X, Y = rng.standard_normal((N, k or 1)), rng.standard_normal((M, k or 1))
    Q = np.linalg.qr(A)[0]
    Y -= Q @ (Q.T @ Y)
    b = A @ (X / np.linalg.norm(X, axis=0)) + noise * Y / np.linalg.norm(Y, axis=0)
    return A, b if k else b[:, 0]


def error_of(A: np.ndarray, b: np.ndarray, x: np.ndarray) -> Any:
    """‖A(x − x*)‖/‖Ax*‖ by LAPACK."""
    U = np.linalg.svd(A, full_matrices=False)[0]
    return np.linalg.norm(U.T @ (A @ x - b), axis=0) / np.linalg.norm(U.T @ b, axis=0)


def quiet(A: Any, b: Any, solver: IterativeHessianSketch, **options: Any) -> rpcls.Solution:
    """The solution, its NOT_CONVERGED expected."""
    with pytest.warns(ConvergenceWarning, match="stopped before it met its tolerance"):
        solution = rpcls.lstsq(A, b, solver, **options)
    assert solution.status is Status.NOT_CONVERGED
    return solution


# -- the steps --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [None, 3])
@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_the_first_step_is_partial_compression(k: int | None, intercept: bool, ridge: float) -> None:
    A, b = problem("coherent", k=k)
    A, b, w = A + 0.1, b + 2.0, np.random.default_rng(1).random(M)
    S = rpcls.SparseSign().sample(240, rng=2)
    options: dict[str, Any] = {"sketch": S, "intercept": intercept, "sample_weight": w}
    raw = rpcls.lstsq(A, b, rpcls.PartiallyCompressed("raw", ridge=ridge), **options)
    for sketches in ("fixed", "fresh"):
        one = quiet(A, b, IterativeHessianSketch(sketches, "plain", ridge=ridge, max_sweeps=2), **options)
        np.testing.assert_allclose(one.x, raw.x, rtol=1e-10, atol=1e-12 * np.abs(raw.x).max())
        np.testing.assert_allclose(one.intercept, raw.intercept, rtol=1e-10) if intercept else None
        tuned = quiet(A, b, IterativeHessianSketch(sketches, ridge=ridge, max_sweeps=2), **options)
        np.testing.assert_allclose(tuned.x, (1 - N / 240) ** 2 * raw.x, rtol=1e-10, atol=1e-12 * np.abs(raw.x).max())


def by_numpy(A: np.ndarray, b: np.ndarray, S: Any, sketches: str, steps: str, count: int) -> np.ndarray:
    """`count` steps as their formula says, with dense operators."""
    d, m = S.shape
    gamma = A.shape[1] / d
    alpha, beta = {"tuned": ((1 - gamma) ** 2, gamma if sketches == "fixed" else 0.0), "plain": (1.0, 0.0)}[steps]
    x = before = np.zeros(A.shape[1])
    for t in range(count):
        operator = S if sketches == "fixed" or t == 0 else S.family.sample(d, m, rng=S.key.fold(t))
        SA = operator.toarray() @ A
        x, before = x + alpha * np.linalg.solve(SA.T @ SA, A.T @ (b - A @ x)) + beta * (x - before), x
    return x


@both_sketches
@both_steps
@both_kinds_of_rows
@pytest.mark.parametrize("family", [rpcls.SparseSign(), rpcls.SRHT()], ids=["sparse sign", "SRHT"])
def test_the_steps_are_the_formula(sketches: Any, steps: Any, kind: str, family: Any) -> None:
    A, b = problem(kind)
    S = family.sample(240, m=M, rng=3)
    for count in (2, 5):
        most = 1 + count if sketches == "fixed" else 2 * count
        solution = quiet(A, b, IterativeHessianSketch(sketches, steps, max_sweeps=most), sketch=S)
        x = by_numpy(A, b, S, sketches, steps, count)
        np.testing.assert_allclose(solution.x, x, rtol=0, atol=1e-11 * np.abs(x).max())
        assert solution.sweeps == most and solution.sketch == S
        assert f"{count} steps" in solution.details and f"cut off by max_sweeps = {most}; raise it" in solution.message
        assert solution.residual_norm == pytest.approx(np.linalg.norm(b - A @ x), rel=1e-9)


# -- the answer -------------------------------------------------------------------------------------------------------


@both_sketches
@both_kinds_of_rows
@pytest.mark.parametrize("condition", [1.0, 1e4])
def test_it_is_least_squares(sketches: Any, kind: str, condition: float) -> None:
    A, b = problem(kind, condition, noise=1e-2, k=2)
    solution = rpcls.lstsq(A, b, IterativeHessianSketch(sketches))
    exact = np.linalg.lstsq(A, b, rcond=None)[0]
    np.testing.assert_allclose(solution.x, exact, rtol=0, atol=1e-14 * condition**1.5)
    assert solution.status is Status.OK and solution.rank == N and solution.condition == pytest.approx(condition, rel=1)
    np.testing.assert_allclose(solution.residual_norm, np.linalg.norm(b - A @ exact, axis=0), rtol=1e-12)
    assert np.all(solution.error_estimate.lower == 0) and solution.error_estimate.confidence == 0.99
    assert np.all(error_of(A, b, solution.x) * np.linalg.norm(A @ exact, axis=0) <= solution.error_estimate.upper)


@both_sketches
@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("ridge", [0.0, 2.0])
def test_weights_intercept_ridge_and_sources(sketches: Any, intercept: bool, ridge: float) -> None:
    A, b = problem(k=2)
    A, b, w = A + 0.3, b + 2.0, np.random.default_rng(1).random(M)
    A[np.abs(A - 0.3) < 0.02] = 0.0
    solver = IterativeHessianSketch(sketches, ridge=ridge)
    expected = rpcls.lstsq(A, b, rpcls.Direct(ridge=ridge), intercept=intercept, sample_weight=w)
    rows = rpcls.RowBlocks(lambda: ((A[i : i + 250], b[i : i + 250], w[i : i + 250]) for i in range(0, M, 250)), N)
    for data, rhs, weight in ((A, b, w), (np.asfortranarray(A), b, w), (sp.csr_array(A), b, w), (rows, None, None)):
        solution = rpcls.lstsq(data, rhs, solver, intercept=intercept, sample_weight=weight)
        np.testing.assert_allclose(solution.x, expected.x, rtol=1e-10, atol=1e-11)
        np.testing.assert_allclose(solution.residual_norm, expected.residual_norm, rtol=1e-10)
        if intercept:
            np.testing.assert_allclose(solution.intercept, expected.intercept, rtol=1e-10)
        else:
            assert solution.intercept is None
        assert solution.status is Status.OK


def test_float32() -> None:
    A, b = (part.astype(np.float32) for part in problem("coherent", 10.0))
    solution = rpcls.lstsq(A, b, "hessian-sketch")
    exact = np.linalg.lstsq(A.astype(float), b.astype(float), rcond=None)[0]
    assert solution.x.dtype == np.float32 and solution.status is Status.OK and solution.sweeps < 15
    np.testing.assert_allclose(solution.x, exact, rtol=0, atol=1e-5)


def test_the_name_is_the_solver_with_its_defaults() -> None:
    A, b = problem()
    found = rpcls.lstsq(A, b, "hessian-sketch")
    assert found.solver == IterativeHessianSketch() and found.sketch == rpcls.SparseSign().sample(16 * N + 64, rng=0)
    assert np.array_equal(found.x, rpcls.lstsq(A, b, IterativeHessianSketch(), rng=0).x)
    assert rpcls.lstsq(A, b, "hessian-sketch", sketch_size=300, rng=1).sketch == rpcls.SparseSign().sample(300, rng=1)
    assert rpcls.lstsq(A, b, "hessian-sketch", rtol=0.1).solver == IterativeHessianSketch(rtol=0.1)


@both_sketches
def test_every_sweep_is_counted(sketches: Any) -> None:
    A, b = problem()
    reads = []

    def blocks() -> Any:
        reads.append(1)
        return ((A[i : i + 200], b[i : i + 200]) for i in range(0, M, 200))

    for intercept in (False, True):
        reads.clear()
        solution = rpcls.lstsq(rpcls.RowBlocks(blocks, N), None, IterativeHessianSketch(sketches), intercept=intercept)
        assert solution.sweeps == len(reads)
        steps = int(solution.details.split(" steps")[0])
        assert solution.sweeps == (steps + 1 if sketches == "fixed" else 2 * steps)


@both_sketches
def test_same_bits_whatever_the_threads(sketches: Any) -> None:
    rng = np.random.default_rng(0)
    A, b = rng.standard_normal((9000, N)), rng.standard_normal(9000)
    one = rpcls.lstsq(A, b, IterativeHessianSketch(sketches), workers=1)
    assert np.array_equal(one.x, rpcls.lstsq(A, b, IterativeHessianSketch(sketches), workers=4).x)


@both_sketches
def test_right_hand_sides_do_not_disturb_one_another(sketches: Any) -> None:
    """One that converges at once, one that is zero and one of another size, beside one by itself."""
    A, b = problem("coherent", k=2)
    B = np.column_stack([b[:, 0], 0 * b[:, 0], 1e9 * b[:, 1]])
    solver = IterativeHessianSketch(sketches, rtol=1e-4)
    together = rpcls.lstsq(A, B, solver)
    for j in range(3):
        alone = rpcls.lstsq(A, B[:, j], solver)
        np.testing.assert_allclose(together.x[:, j], alone.x, rtol=0, atol=1e-13 * np.abs(alone.x).max())
        assert together.error_estimate.upper[j] == pytest.approx(alone.error_estimate.upper, rel=1e-6)


# -- rates ------------------------------------------------------------------------------------------------------------


def errors(kind: str, sketches: Any, d: int, count: int, draws: int) -> np.ndarray:
    A, b = problem(kind, 1e3, noise=0.5)
    most = 1 + count if sketches == "fixed" else 2 * count
    solver = IterativeHessianSketch(sketches, max_sweeps=most)
    return np.array([error_of(A, b, quiet(A, b, solver, sketch_size=d, rng=s).x) for s in range(draws)])


@both_kinds_of_rows
@pytest.mark.parametrize("ratio", [8, 16])
@pytest.mark.parametrize("count", [1, 4])
def test_the_rate_of_a_fixed_sketch_is_that_of_theory_in_the_median(kind: str, ratio: int, count: int) -> None:
    found = errors(kind, "fixed", ratio * N, count, 25)
    # logarithms of single draws spread by 0.2 (one step) to 0.7 (four), so the median of 25 by less than 0.2
    assert abs(np.log(np.median(found)) - count * np.log(ratio**-0.5)) < 0.5


@both_kinds_of_rows
@pytest.mark.parametrize("count", [1, 4])
def test_the_rate_of_fresh_sketches_is_that_of_theory_in_the_mean_square(kind: str, count: int) -> None:
    found = errors(kind, "fresh", 8 * N, count, 25)
    assert abs(np.log(np.sqrt(np.mean(np.square(found)))) - count * np.log(8**-0.5)) < 0.5


@pytest.mark.parametrize("n", [1, 2, 5, 30])
@both_kinds_of_rows
def test_the_default_sketch_converges_in_every_draw(n: int, kind: str) -> None:
    rng = np.random.default_rng(n)
    A = matrix(kind, 400, n, rng, condition=10.0)
    b = rng.standard_normal(400)
    sweeps = []
    for draw in range(20):
        solution = rpcls.lstsq(A, b, "hessian-sketch", rng=draw)
        assert solution.status is Status.OK
        sweeps.append(solution.sweeps)
    assert np.median(sweeps) <= 28


# -- certified accuracy -----------------------------------------------------------------------------------------------


@both_sketches
@both_kinds_of_rows
@pytest.mark.parametrize("rtol", [0.3, 1e-2, 1e-6])
def test_rtol_is_kept(sketches: Any, kind: str, rtol: float) -> None:
    A, b = problem(kind, 1e3, noise=3.0, k=2)
    full = rpcls.lstsq(A, b, IterativeHessianSketch(sketches))
    for draw in range(10):
        solution = rpcls.lstsq(A, b, IterativeHessianSketch(sketches, rtol=rtol), rng=draw)
        assert solution.status is Status.OK and solution.sweeps < full.sweeps
        error, size = error_of(A, b, solution.x), np.linalg.norm(A @ full.x, axis=0)
        assert np.all(error <= rtol) and np.all(error * size <= solution.error_estimate.upper)
        assert np.all(solution.error_estimate.upper <= rtol * 1.01 * size)


def test_rtol_below_rounding_ends_as_full_accuracy() -> None:
    A, b = problem(noise=3.0)
    solution = rpcls.lstsq(A, b, "hessian-sketch", rtol=1e-16)
    full = rpcls.lstsq(A, b, "hessian-sketch")
    assert solution.status is Status.OK and 0 <= full.sweeps - solution.sweeps <= 1


def test_the_certificate_with_a_ridge_and_an_intercept() -> None:
    A, b = problem(noise=3.0)
    A, b = A + 1.0, b + 1.0
    for ridge in (0.0, 0.1):
        exact = rpcls.lstsq(A, b, rpcls.Direct(ridge=ridge), intercept=True)
        solution = rpcls.lstsq(A, b, IterativeHessianSketch(ridge=ridge, rtol=1e-2), intercept=True)
        centred = A - A.mean(axis=0)
        error = np.linalg.norm(centred @ (solution.x - exact.x))
        assert error <= solution.error_estimate.upper and error <= 1e-2 * np.linalg.norm(centred @ exact.x)


# -- what it cannot do, it says ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "ratio", "seed"), [("plain", 2, 1), ("tuned", 3, 11), ("tuned", 4, 29)])
def test_divergence_is_noticed_and_the_best_iterate_returned(steps: Any, ratio: int, seed: int) -> None:
    A, b = problem("coherent")
    solution = quiet(A, b, IterativeHessianSketch("fixed", steps), sketch_size=ratio * N, rng=seed)
    what = f"They do not converge at sketch_size = {ratio * N} for n = 12; at 16n + 64 tuned steps do."
    assert what in solution.message and "Raise sketch_size, or ask for solver='precondition'" in solution.message
    assert solution.sweeps <= 9 and np.isfinite(solution.x).all()
    error = error_of(A, b, solution.x)
    assert error <= 1  # that of x = 0
    assert error * np.linalg.norm(A @ np.linalg.lstsq(A, b, rcond=None)[0]) <= solution.error_estimate.upper
    with pytest.raises(rpcls.NotConvergedError, match="They do not converge at sketch_size"):
        solution.raise_for_status()


def test_one_right_hand_side_that_diverges_spoils_the_status_and_no_other_column() -> None:
    A, _ = problem()
    S = rpcls.SparseSign().sample(3 * N, rng=0)
    _, s, Vt = np.linalg.svd(A, full_matrices=False)
    stretch, W = np.linalg.svd((S @ A) @ (Vt.T / s))[1:]
    # right-hand sides for which the error lies in the direction that the sketch shrinks most, and in a tame one
    tame = np.argmin(abs(stretch - 1))
    B = A @ (Vt.T / s) @ W[[-1, tame]].T
    solution = quiet(A, B, IterativeHessianSketch("fixed", "plain"), sketch=S)
    assert "They do not converge" in solution.message
    alone = rpcls.lstsq(A, B[:, 1], IterativeHessianSketch("fixed", "plain", rtol=1e-5), sketch=S)
    assert alone.status is Status.OK and error_of(A, B[:, 1], solution.x[:, 1]) <= 1e-5


def test_stagnation_is_noticed_and_x_as_good_as_the_conditioning_allows() -> None:
    unit, condition = 1.1e-16, 1e10
    A, b = problem("gaussian", condition, noise=1.0)
    solution = quiet(A, b, IterativeHessianSketch())
    assert "Rounding stopped them." in solution.message and solution.sweeps < 60
    exact = np.linalg.lstsq(A, b, rcond=None)[0]
    kappa = condition * (1 + condition)  # ‖r‖ = ‖A‖ = ‖x‖ = 1
    assert np.linalg.norm(solution.x - exact) <= 10 * unit * kappa
    assert "backward error" in solution.details and solution.error_estimate.upper < 1e-4


@pytest.mark.parametrize("solver", [IterativeHessianSketch(), rpcls.SketchAndPrecondition("cg")], ids=["steps", "cg"])
def test_a_sketch_that_lost_directions_of_a_is_noticed(solver: Any) -> None:
    """Two rows that alone carry a direction each, in one row of a CountSketch: its rank is below that of A."""
    A = np.zeros((400, 20))
    A[:20] = np.eye(20)
    b = np.arange(400.0)
    S = rpcls.CountSketch().sample(60, rng=0)
    assert np.linalg.matrix_rank(S @ A) < 20
    if isinstance(solver, IterativeHessianSketch):
        with pytest.warns(ConvergenceWarning, match="sketch SA has numerical rank below n"):
            solution = rpcls.lstsq(A, b, solver, sketch=S)
        assert solution.status is Status.SKETCH_RANK_DEFICIENT and solution.error_estimate is None
    else:
        solution = rpcls.lstsq(A, b, solver, sketch=S)
        assert solution.status is Status.OK and "The first sketch lost directions of A" in solution.details
        np.testing.assert_allclose(solution.x, b[:20], atol=1e-10)


def test_a_sketch_smaller_than_the_rank_is_no_answer_for_preconditioning_either() -> None:
    A, b = problem()
    solution = rpcls.lstsq(A, b, rpcls.SketchAndPrecondition("cg"), sketch_size=8, rng=0)
    assert solution.status is Status.OK and "lost directions of A; this is from a second" in solution.details
    np.testing.assert_allclose(solution.x, np.linalg.lstsq(A, b, rcond=None)[0], rtol=0, atol=1e-11)


# -- rank, zeros, units -----------------------------------------------------------------------------------------------


@both_sketches
@pytest.mark.parametrize("scale", [1.0, 10.0, 1e8])
def test_minimum_norm(sketches: Any, scale: float) -> None:
    A, b = problem("coherent")
    A = np.hstack([A, scale * A[:, :5], np.zeros((M, 1))])
    solution = rpcls.lstsq(A, b, IterativeHessianSketch(sketches))
    exact = np.linalg.pinv(A) @ b
    assert solution.status is Status.MINIMUM_NORM and solution.rank == N and f"shape ({M}, 18)" in solution.details
    np.testing.assert_allclose(solution.x, exact, rtol=1e-8, atol=1e-10 * np.abs(exact).max())


def test_fewer_rows_than_columns() -> None:
    rng = np.random.default_rng(0)
    A, b = rng.standard_normal((15, 40)), rng.standard_normal(15)
    solution = rpcls.lstsq(A, b, "hessian-sketch")
    assert solution.status is Status.MINIMUM_NORM and solution.rank == 15
    np.testing.assert_allclose(solution.x, np.linalg.lstsq(A, b, rcond=None)[0], rtol=0, atol=1e-12)


@both_sketches
def test_zeros(sketches: Any) -> None:
    A, b = problem()
    solution = rpcls.lstsq(A, 0 * b, IterativeHessianSketch(sketches))
    assert solution.status is Status.ZERO_GRADIENT and solution.sweeps == 1 and not solution.x.any()
    solution = rpcls.lstsq(0 * A, b, IterativeHessianSketch(sketches))
    assert solution.status.ok and solution.sweeps == 1 and not solution.x.any()
    assert solution.residual_norm == pytest.approx(np.linalg.norm(b))


@pytest.mark.parametrize("scale", [1e-180, 1e150])
def test_units_of_columns_and_extreme_ones(scale: float) -> None:
    A, b = problem()
    units = np.geomspace(1e-12, 1e12, N)
    plain, scaled = rpcls.lstsq(A, b, "hessian-sketch"), rpcls.lstsq(A * units, b, "hessian-sketch")
    np.testing.assert_allclose(scaled.x * units, plain.x, rtol=0, atol=1e-12)
    extreme = rpcls.lstsq(A * scale, b, "hessian-sketch")
    assert extreme.status is Status.OK and extreme.solver == IterativeHessianSketch() and extreme.sweeps == 2
    assert "By LAPACK: the units of A or b are extreme." in extreme.details
    np.testing.assert_allclose(extreme.x * scale, plain.x, rtol=0, atol=1e-12)


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"sketches": "new"}, InvalidValueError, "sketches must be 'fixed' or 'fresh', got 'new'"),
        ({"steps": "momentum"}, InvalidValueError, "steps must be 'tuned' or 'plain', got 'momentum'"),
        ({"ridge": -1.0}, InvalidValueError, r"ridge must be finite and at least 0, got -1\.0"),
        ({"rtol": 1.5}, InvalidValueError, r"rtol must be in \(0, 1\), got 1\.5"),
        ({"rtol": "1e-3"}, InvalidTypeError, "rtol must be a float, got str '1e-3'"),
        ({"confidence": 0.5}, InvalidValueError, r"confidence must be in 0\.9 … 0\.999"),
        (
            {"max_sweeps": 1},
            InvalidValueError,
            r"max_sweeps must be at least 2, .*, got 1; for one sweep take rpcls\.Part",
        ),
        ({"max_sweeps": 10.0}, InvalidTypeError, r"max_sweeps must be an int, got float 10\.0"),
        ({"max_sweeps": True}, InvalidTypeError, "max_sweeps must be an int, got bool True"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        IterativeHessianSketch(**settings)


def test_calls_that_are_refused() -> None:
    A, b = problem()
    c = rpcls.compress(A, b, sketch_size=100, rng=0)
    with pytest.raises(InvalidTypeError, match="IterativeHessianSketch needs the rows of A, got only a summary"):
        c.solve(IterativeHessianSketch())
    with pytest.raises(
        InvalidValueError, match=r"sketch_size must exceed n = 12 for Iter.*, got 10; .*16n \+ 64 = 256"
    ):
        rpcls.lstsq(A, b, "hessian-sketch", sketch_size=10, rng=0)
    with pytest.raises(InvalidValueError, match=r"CountSketch\(\) gives no certificate"):
        rpcls.lstsq(A, b, IterativeHessianSketch(rtol=0.1), sketch=rpcls.CountSketch(), sketch_size=200, rng=0)
    with pytest.raises(InvalidValueError, match="fresh sketches need a family to draw them from, got rows"):
        rpcls.lstsq(A, b, IterativeHessianSketch("fresh"), sketch=rpcls.LeverageSampling(), sketch_size=200, rng=0)
    with pytest.raises(InvalidValueError, match="rcond is for 'auto', 'precondition' and 'direct'"):
        rpcls.lstsq(A, b, "hessian-sketch", rcond=1e-10)
    with pytest.raises(rpcls.SourceError, match="can be read only once, and this call needs another sweep"):
        rpcls.lstsq(iter([(A, b)]), None, "hessian-sketch")


def test_sketches_without_a_certificate_still_solve() -> None:
    A, b = problem()
    solution = rpcls.lstsq(A, b, "hessian-sketch", sketch=rpcls.CountSketch(), sketch_size=400, rng=0)
    assert solution.status is Status.OK and solution.error_estimate is None
    sampled = rpcls.lstsq(A, b, "hessian-sketch", sketch=rpcls.LeverageSampling(), sketch_size=300, rng=0)
    assert sampled.status is Status.OK and sampled.sweeps > 4
    for found in (solution, sampled):
        np.testing.assert_allclose(found.x, np.linalg.lstsq(A, b, rcond=None)[0], rtol=0, atol=1e-12)
