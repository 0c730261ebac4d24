"""The front door: names, defaults, what is refused, intercept and weights, and what a Solution says."""

from __future__ import annotations

import copy
import pickle
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from market import DTYPES, EXACT, LAYOUTS, MORE_SWEEPS, NO_SKETCH, ONE_PASS, PROBLEMS, SOLVERS, SOURCES, blocks_of

import rpcls
from rpcls.errors import ConvergenceWarning, InvalidTypeError, InvalidValueError, NonFiniteError, NotConvergedError
from rpcls.front_door import SOLVERS as NAMES
from rpcls.solution import Status

every_solver = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
one_pass, more_sweeps = ([SOLVERS[name] for name in SOLVERS if name in names] for names in (ONE_PASS, MORE_SWEEPS))
no_sketch = (rpcls.Direct, rpcls.NormalEquations)


def data(m: int = 300, n: int = 32, k: int | None = None, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    A = 5 * rng.standard_normal((m, n)) + rng.standard_normal(n)
    b = A @ rng.standard_normal((n, k or 1)) + 3 * rng.standard_normal((m, k or 1)) + 20
    return A, (b if k else b[:, 0]), rng.integers(1, 5, m) * 0.25


def sketched(solver: Any, seed: int = 0, size: int = 128) -> dict[str, Any]:
    return {} if isinstance(solver, no_sketch) else {"sketch": rpcls.SparseSign().sample(size, rng=seed)}


def sources(solver: Any) -> list[str]:
    """The kinds of source that serve this solver."""
    return [kind for kind in SOURCES if kind != "iterator" or solver not in more_sweeps]


# -- names and defaults -----------------------------------------------------------------------------


def test_names_are_the_solvers_with_their_defaults() -> None:
    expected = {
        "full": rpcls.FullyCompressed,
        "partial": rpcls.PartiallyCompressed,
        "robust-full": rpcls.RobustFullyCompressed,
        "robust-partial": rpcls.RobustPartiallyCompressed,
        "combined": rpcls.CombinedCompressed,
        "precondition": rpcls.SketchAndPrecondition,
        "normal": rpcls.NormalEquations,
        "direct": rpcls.Direct,
    }
    assert expected.items() <= NAMES.items()
    A, b, _ = data()
    for name, kind in NAMES.items():
        by_name, by_value = rpcls.lstsq(A, b, name, rng=3), rpcls.lstsq(A, b, kind(), rng=3)
        assert by_name.solver == kind() and np.array_equal(by_name.x, by_value.x)


@pytest.mark.parametrize("k", [None, 2])
@pytest.mark.parametrize("problem", PROBLEMS)
def test_auto_is_lapacks_answer(problem: str, k: int | None) -> None:
    A, b = PROBLEMS[problem]()
    b = b if k is None else np.stack([b.reshape(len(A), -1)[:, 0], A[:, 0]], axis=1)
    x = np.linalg.lstsq(A, b, rcond=None)[0]
    for solution in (
        rpcls.lstsq(A, b),
        rpcls.lstsq(A, b, "auto"),
        rpcls.lstsq(A, b, rtol=1e-3),
        rpcls.lstsq(A, b, "direct"),
    ):
        assert type(solution.solver) is not rpcls.SketchAndPrecondition or solution.solver.rtol is None
        # two backward stable answers: 1e-12, times the condition of the problem
        tolerance = 1e-12 * max(1.0, np.linalg.cond(A) / 10)
        np.testing.assert_allclose(solution.x, x, rtol=tolerance, atol=tolerance * np.abs(x).max())
        residual = np.linalg.norm(b - A @ x, axis=0)
        np.testing.assert_allclose(solution.residual_norm, residual, rtol=1e-9, atol=1e-12 * np.linalg.norm(b))
        assert solution.rank == A.shape[1]


def test_auto_with_rtol_takes_the_normal_equations_where_they_are_cheapest() -> None:
    A, b, _ = data(200_000, 32)
    assert rpcls.plan(A.shape, rtol=1e-3, condition=10.0).choice.solver == "normal"
    found = rpcls.lstsq(A, b, rtol=1e-3)
    assert isinstance(found.solver, rpcls.NormalEquations) and found.sweeps == 2
    assert not isinstance(rpcls.lstsq(A, b, rtol=1e-3, sketch_size=200).solver, rpcls.NormalEquations)
    hard = A @ (np.eye(32) + np.full((32, 32), 1e7))  # no scaling of columns helps
    found = rpcls.lstsq(hard, b, rtol=1e-3)
    assert isinstance(found.solver, rpcls.SketchAndPrecondition)
    error = np.linalg.norm(hard @ (found.x - np.linalg.lstsq(hard, b, rcond=None)[0]))
    assert error <= 1e-3 * np.linalg.norm(hard @ found.x)


def test_default_sketch_of_one_pass_solvers() -> None:
    A, b, _ = data()
    for name in {name.partition(",")[0] for name in ONE_PASS}:
        solution = rpcls.lstsq(A, b, name, rng=4)
        assert solution.sketch == rpcls.SparseSign().sample(4 * 32, rng=4) and solution.sweeps == 1
    assert rpcls.lstsq(A, b, "full", sketch_size=77, rng=4).sketch == rpcls.SparseSign().sample(77, rng=4)
    assert rpcls.lstsq(A, b, "full", sketch=rpcls.Gaussian(), rng=4).sketch == rpcls.Gaussian().sample(128, rng=4)
    S = rpcls.CountSketch().sample(200, rng=1)
    assert rpcls.lstsq(A, b, "full", sketch=S).sketch is S
    assert rpcls.lstsq(A, b, "full").sketch != rpcls.lstsq(A, b, "full").sketch


@every_solver
def test_lstsq_is_compress_and_solve(solver: Any) -> None:
    A, b, w = data()
    if solver not in one_pass:
        return
    options = sketched(solver)
    solution = rpcls.lstsq(A, b, solver, sample_weight=w, intercept=True, **options)
    other = rpcls.compress(A, b, options["sketch"], sample_weight=w).centered().solve(solver)
    assert np.array_equal(solution.x, other.x) and solution.intercept == other.intercept
    assert solution.status == other.status and solution.rho == other.rho and solution.mu == other.mu


# -- intercept and weights: the explicit problem, by another road -----------------------------------


def centred(A: np.ndarray, b: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, ...]:
    """√w(A − ā), √w(b − b̄), ā, b̄."""
    a_mean, b_mean = w @ A / w.sum(), w @ b / w.sum()
    return np.sqrt(w)[:, None] * (A - a_mean), (np.sqrt(w) * (b - b_mean).T).T, a_mean, b_mean


@every_solver
@pytest.mark.parametrize("k", [None, 3])
def test_intercept_and_weights_are_the_explicit_problem(solver: Any, k: int | None) -> None:
    A, b, w = data(k=k)
    for weight in (None, w):
        for intercept in (False, True):
            one = np.ones(len(A)) if weight is None else w
            explicit = centred(A, b, one) if intercept else (np.sqrt(one)[:, None] * A, (np.sqrt(one) * b.T).T)
            solution = rpcls.lstsq(A, b, solver, intercept=intercept, sample_weight=weight, **sketched(solver))
            expected = rpcls.lstsq(*explicit[:2], solver, **sketched(solver))
            np.testing.assert_allclose(solution.x, expected.x, rtol=1e-8, atol=1e-9 * np.abs(expected.x).max())
            if intercept:
                np.testing.assert_allclose(
                    solution.intercept, explicit[3] - explicit[2] @ solution.x, rtol=1e-10, atol=1e-10
                )
                assert isinstance(solution.intercept, float) if k is None else solution.intercept.shape == (k,)
            else:
                assert solution.intercept is None


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("k", [None, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_direct_with_intercept_and_weights_is_the_augmented_problem(kind: str, k: int | None, weighted: bool) -> None:
    A, b, w = data(k=k)
    one = w if weighted else np.ones(len(A))
    M = np.sqrt(one)[:, None] * np.hstack([np.ones((len(A), 1)), A])
    rhs = (np.sqrt(one) * b.T).T
    expected = np.linalg.lstsq(M, rhs, rcond=None)[0]
    rows, right, weight = SOURCES[kind](A, b, w if weighted else None)
    solution = rpcls.lstsq(rows, right, intercept=True, sample_weight=weight)
    np.testing.assert_allclose(solution.x, expected[1:], rtol=1e-11)
    np.testing.assert_allclose(solution.intercept, expected[0], rtol=1e-11)
    np.testing.assert_allclose(solution.residual_norm, np.linalg.norm(rhs - M @ expected, axis=0), rtol=1e-11)


@every_solver
def test_full_compression_with_intercept_is_least_squares_on_the_sketched_augmented_rows(solver: Any) -> None:
    if solver != rpcls.FullyCompressed():
        return
    A, b, w = data()
    S = rpcls.SparseSign().sample(128, 300, rng=0)
    # not the same model as a sketched column of ones: the mean is exact. So: sketch of the centred rows
    B, c, a_mean, b_mean = centred(A, b, w)
    x = np.linalg.lstsq(S.toarray() @ B, S.toarray() @ c, rcond=None)[0]
    solution = rpcls.lstsq(A, b, solver, sketch=S, intercept=True, sample_weight=w)
    np.testing.assert_allclose(solution.x, x, rtol=1e-10)
    assert solution.intercept == pytest.approx(b_mean - a_mean @ x, rel=1e-10)


@every_solver
def test_an_intercept_makes_shifts_free(solver: Any) -> None:
    A, b, _ = data()
    base, shifted = (
        rpcls.lstsq(A + shift, b + 7 * shift, solver, intercept=True, **sketched(solver)) for shift in (0.0, 3.0)
    )
    np.testing.assert_allclose(shifted.x, base.x, rtol=1e-9, atol=1e-9)
    assert shifted.intercept == pytest.approx(base.intercept + 21 - 3 * base.x.sum(), rel=1e-9)


# -- sources ----------------------------------------------------------------------------------------


@every_solver
def test_row_blocks_and_iterators_are_the_array(solver: Any) -> None:
    A, b, w = data(k=2)
    expected = rpcls.lstsq(A, b, solver, sample_weight=w, intercept=True, **sketched(solver))
    for kind in sources(solver):
        rows, rhs, weight = SOURCES[kind](A, b, w)
        solution = rpcls.lstsq(rows, rhs, solver, sample_weight=weight, intercept=True, **sketched(solver))
        np.testing.assert_allclose(solution.x, expected.x, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(solution.intercept, expected.intercept, rtol=1e-8)
        assert solution.sweeps == expected.sweeps and solution.status is expected.status
        assert (solution.sweeps == 1) == (solver not in more_sweeps)


@every_solver
def test_threads_do_not_change_a_bit(solver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    A, b = rng.standard_normal((9000, 30)), rng.standard_normal(9000)
    one = rpcls.lstsq(A, b, solver, workers=1, **sketched(solver)).x
    assert np.array_equal(one, rpcls.lstsq(A, b, solver, workers=4, **sketched(solver)).x)
    monkeypatch.setenv("RPCLS_NUM_THREADS", "3")
    assert np.array_equal(one, rpcls.lstsq(A, b, solver, **sketched(solver)).x)
    monkeypatch.setenv("RPCLS_NUM_THREADS", "many")
    with pytest.raises(InvalidValueError, match="RPCLS_NUM_THREADS must be a positive int, got 'many'"):
        rpcls.lstsq(A, b, solver, **sketched(solver))


def test_data_frames_name_the_columns() -> None:
    pandas = pytest.importorskip("pandas")
    A, b, _ = data(n=2)
    frame = pandas.DataFrame(A, columns=["height", "width"])
    for solver in ("direct", "full"):
        solution = rpcls.lstsq(frame, pandas.Series(b), solver)
        assert solution.columns == ("height", "width") and isinstance(solution.x, np.ndarray)
    blocks = rpcls.RowBlocks(lambda: [(frame[:100], b[:100]), (frame[100:], b[100:])], 2)
    assert rpcls.lstsq(blocks, None).columns == ("height", "width")
    assert rpcls.lstsq(A, b).columns is None


def test_integers_and_lists() -> None:
    A, b = [[1, 0], [1, 1], [1, 2]], [1, 3, 5]
    solution = rpcls.lstsq(A, b)
    assert solution.x.dtype == np.float64
    np.testing.assert_allclose(solution.x, [1, 2])


@every_solver
def test_inputs_are_never_changed(solver: Any) -> None:
    for layout in ("C", "F", "every second row"):
        A, b, w = data(k=2)
        A = LAYOUTS[layout](A)
        copies = [v.copy() for v in (A, b, w)]
        for intercept in (False, True):
            rpcls.lstsq(A, b, solver, intercept=intercept, sample_weight=w, **sketched(solver))
        assert all(np.array_equal(a, c) and a.flags.writeable for a, c in zip((A, b, w), copies, strict=True))
        for v in (A, b, w):
            v.flags.writeable = False
        rpcls.lstsq(A, b, solver, intercept=True, sample_weight=w, **sketched(solver))


@every_solver
@pytest.mark.parametrize("where", ["A", "b"])
def test_nan_is_reported_by_every_solver(solver: Any, where: str) -> None:
    A, b, _ = data()
    {"A": A, "b": b[:, None]}[where][250, 0] = np.nan
    for kind in sources(solver):
        rows, rhs, _ = SOURCES[kind](A, b, None)
        with pytest.raises(
            NonFiniteError, match=f"{where} must be finite, got nan in row 250, column 0; remove or impute such r"
        ):
            rpcls.lstsq(rows, rhs, solver, **sketched(solver))


# -- units ------------------------------------------------------------------------------------------


@every_solver
@pytest.mark.parametrize("alpha", [1e-200, 2.0**-30, 1e150, 1e200])
@pytest.mark.parametrize("beta", [1e-150, 1.0, 1e120])
def test_units_of_a_and_b(solver: Any, alpha: float, beta: float) -> None:
    if getattr(solver, "ridge", 0) or getattr(solver, "rho", None) == rpcls.Absolute(2.0):
        return  # a ridge and an absolute rho are in the units of A
    if abs(np.log10(beta) - np.log10(alpha)) > 290:
        return  # x itself is out of range
    if isinstance(solver, rpcls.NormalEquations) and not 1e-90 < min(alpha, beta) <= max(alpha, beta) < 1e90:
        return  # tests/test_normal.py
    A, b, w = data()
    for options in ({}, {"intercept": True, "sample_weight": w}):
        plain = rpcls.lstsq(A, b, solver, **options, **sketched(solver))
        scaled = rpcls.lstsq(A * alpha, b * beta, solver, **options, **sketched(solver))
        np.testing.assert_allclose(scaled.x * alpha / beta, plain.x, rtol=1e-9, atol=1e-10 * np.abs(plain.x).max())
        if options:
            assert scaled.intercept / beta == pytest.approx(plain.intercept, rel=1e-9)
        assert scaled.status is plain.status is Status.OK


@every_solver
def test_zero_b(solver: Any) -> None:
    A, b, _ = data()
    solution = rpcls.lstsq(A, 0 * b, solver, **sketched(solver))
    assert not solution.x.any() and solution.status.ok and solution.x.shape == (32,)


@every_solver
def test_zero_a(solver: Any) -> None:
    A, b, _ = data()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        solution = rpcls.lstsq(0 * A, b, solver, **sketched(solver))
    assert not solution.x.any() and np.isfinite(solution.x).all()


# -- what is refused --------------------------------------------------------------------------------


def test_unknown_solvers() -> None:
    A, b, _ = data()
    names = ", ".join(repr(name) for name in ("auto", *NAMES))
    with pytest.raises(InvalidValueError, match=f"solver must be one of {names} or a solver value, got 'lapack'"):
        rpcls.lstsq(A, b, "lapack")
    for value in (None, 5, np.linalg.lstsq):
        with pytest.raises(
            InvalidTypeError, match=r"solver must be a name or a solver value such as rpcls.Direct\(\), got "
        ):
            rpcls.lstsq(A, b, value)
    with pytest.raises(InvalidTypeError, match=r"got <class 'rpcls.*Direct'>; make a value of it: Direct\(\)"):
        rpcls.lstsq(A, b, rpcls.Direct)


def test_sketches_for_solvers_that_use_none() -> None:
    A, b, _ = data()
    for options, names in [
        ({"sketch_size": 50}, "sketch_size"),
        ({"sketch": rpcls.Gaussian(), "sketch_size": 50, "rng": 0}, "sketch and sketch_size"),
    ]:
        for solver in ("direct", rpcls.Direct(ridge=1.0), "normal"):
            with pytest.raises(
                InvalidValueError,
                match=rf"(Direct|NormalEquations)\(.*\) uses no sketch, so {names} must be None; for a one-pass answer",
            ):
                rpcls.lstsq(A, b, solver, **options)
    for solver in ("direct", "normal"):  # a seed changes nothing
        assert np.array_equal(rpcls.lstsq(A, b, solver, rng=0).x, rpcls.lstsq(A, b, solver).x)
    with pytest.raises(InvalidTypeError, match=r"got <class 'rpcls.*SparseSign'>; make a value of it: SparseSign\(\)"):
        rpcls.lstsq(A, b, "full", sketch=rpcls.SparseSign)


def test_rtol() -> None:
    A, b, _ = data()
    for value in (0, 1, -1e-3, 2.0, float("nan")):
        with pytest.raises(InvalidValueError, match=rf"rtol must be in \(0, 1\), got {value}"):
            rpcls.lstsq(A, b, rtol=value)
    for value in (True, "1e-3", [1e-3]):
        with pytest.raises(InvalidTypeError, match=f"rtol must be a float, got {type(value).__name__} "):
            rpcls.lstsq(A, b, rtol=value)  # type: ignore[arg-type]
    for name in ("full", "partial", "robust-full", "robust-partial", "combined"):
        with pytest.raises(
            InvalidValueError,
            match=r"Compressed\(.*\) answers from one sketch and cannot promise rtol = 0.01; leave solver='auto' for",
        ):
            rpcls.lstsq(A, b, name, rtol=1e-2)
    assert rpcls.lstsq(A, b, rtol=np.float32(0.5)).status.ok


def test_rcond() -> None:
    rng = np.random.default_rng(0)
    U, V = (np.linalg.qr(rng.standard_normal((m, 4)))[0] for m in (50, 4))
    A, b = U * [1, 0.1, 1e-3, 1e-5] @ V.T, rng.standard_normal(50)
    for rcond, rank in ((1e-2, 2), (1e-4, 3), (0.0, 4)):
        for solver in ("auto", "direct", rpcls.Direct(), "precondition"):
            solution = rpcls.lstsq(A, b, solver, rcond=rcond)
            assert solution.rank == rank and solution.solver.rcond == rcond
            np.testing.assert_allclose(solution.x, np.linalg.lstsq(A, b, rcond=max(rcond, 1e-9))[0], rtol=1e-9)
    for name in ("full", "partial", "robust-full", "robust-partial"):
        with pytest.raises(
            InvalidValueError, match=r"rcond is for 'auto', 'precondition' and 'direct', which decide a rank; .*\) has"
        ):
            rpcls.lstsq(A, b, name, rcond=1e-3)
    for value in (-1.0, 1.0):
        with pytest.raises(InvalidValueError, match="rcond must be at least 0 and below 1"):
            rpcls.lstsq(A, b, rcond=value)


def test_other_arguments() -> None:
    A, b, _ = data()
    for value in (1, "yes", None):
        with pytest.raises(InvalidTypeError, match=f"intercept must be True or False, got {value!r}"):
            rpcls.lstsq(A, b, intercept=value)  # type: ignore[arg-type]
    assert rpcls.lstsq(A, b, intercept=np.True_).intercept is not None
    with pytest.raises(InvalidValueError, match="workers must be at least 1, got 0"):
        rpcls.lstsq(A, b, workers=0)
    with pytest.raises(InvalidValueError, match="sketch_size must be at least 8 for SparseSign"):
        rpcls.lstsq(A, b, "full", sketch_size=3)
    with pytest.raises(InvalidValueError, match="rng must be None with an operator"):
        rpcls.lstsq(A, b, "full", sketch=rpcls.SparseSign().sample(50, rng=0), rng=1)
    with pytest.raises(
        InvalidTypeError, match=r"sketch must be a family such as rpcls.SparseSign\(\) or an operator that it sam"
    ):
        rpcls.lstsq(A, b, "full", sketch="gaussian")  # type: ignore[arg-type]


@every_solver
def test_an_intercept_needs_weight(solver: Any) -> None:
    A, b, w = data()
    for kind in sources(solver):
        rows, rhs, weight = SOURCES[kind](A, b, 0 * w)
        with pytest.raises(InvalidValueError, match=r"needs a positive total weight, got 0\.0"):
            rpcls.lstsq(rows, rhs, solver, intercept=True, sample_weight=weight, **sketched(solver))
    with pytest.raises(InvalidValueError, match=r"needs a positive total weight, got 0\.0"):
        rpcls.lstsq(A[:0], b[:0], solver, intercept=True, **sketched(solver))


def test_the_rows_are_needed_by_direct() -> None:
    A, b, _ = data()
    with pytest.raises(InvalidTypeError, match="Direct needs the rows of A, got only a summary"):
        rpcls.compress(A, b, rng=0).solve(rpcls.Direct())


# -- Solution ---------------------------------------------------------------------------------------


def test_repr_is_short() -> None:
    A, b, _ = data()
    text = repr(rpcls.lstsq(A, b, "robust-partial", rng=0, intercept=True))
    assert text.startswith(
        "Solution(x: float64 (32,), status=OK, solver=RobustPartiallyCompressed(rho='loo'), sweeps=1, intercept="
    )
    assert "rho=" in text and len(text) < 300 and "\n" not in text
    many = repr(rpcls.lstsq(A, np.stack([b] * 5, axis=1), "direct"))
    assert "x: float64 (32, 5)" in many and ", …]" in many and len(many) < 300


def test_raise_for_status() -> None:
    A, b, _ = data()
    solution = rpcls.lstsq(A, b)
    assert solution.raise_for_status() is solution and solution.message == Status.OK.value
    with pytest.warns(ConvergenceWarning, match="The sketch SA has numerical rank below n"):
        short = rpcls.lstsq(A, b, "full", sketch_size=20, rng=0)
    assert short.status is Status.SKETCH_RANK_DEFICIENT and not short.status.ok
    with pytest.raises(NotConvergedError, match=r"The sketch SA has numerical rank below n.*Raise sketch_size above n"):
        short.raise_for_status()


def test_warnings_point_at_the_caller() -> None:
    A, b, _ = data()
    with pytest.warns(ConvergenceWarning) as caught:
        rpcls.lstsq(A, b, "full", sketch_size=20, rng=0)
    assert [w.filename for w in caught] == [__file__]


def test_statuses_speak_in_sentences() -> None:
    for status in Status:
        assert status.value.endswith(".") and len(status.value) > 30 and "\n" not in status.value
    assert [s.name for s in Status if s.ok] == ["OK", "ZERO_GRADIENT", "SHRUNK_TO_ZERO", "MINIMUM_NORM"]
    assert Status.worst([]) is Status.OK
    assert Status.worst([Status.UNFITTED, Status.OK, Status.MINIMUM_NORM]) is Status.UNFITTED


@every_solver
def test_a_solution_is_a_frozen_record_that_travels(solver: Any) -> None:
    A, b, _ = data(k=2)
    solution = rpcls.lstsq(A, b, solver, intercept=True, **sketched(solver))
    with pytest.raises(AttributeError):
        solution.x = 0  # type: ignore[misc]
    assert set(solution.timings) >= {"solve", "total"} and all(t >= 0 for t in solution.timings.values())
    assert ("compress" in solution.timings) == (not isinstance(solver, no_sketch))
    assert sum(t for name, t in solution.timings.items() if name != "total") <= solution.timings["total"]
    for again in (pickle.loads(pickle.dumps(solution)), copy.deepcopy(solution)):
        assert np.array_equal(again.x, solution.x) and repr(again) == repr(solution)
        assert again.solver == solver and again.sketch == solution.sketch


@dataclass(frozen=True)
class NormalEquations:
    """The smallest solver there is: two methods make one."""

    def sketch(self, shape: Any, dtype: Any) -> None:
        return None

    def solve(self, problem: Any, source: Any) -> rpcls.Solution:
        (rows,) = source.blocks()
        x = np.linalg.solve(rows.A.T @ rows.A, rows.A.T @ rows.b)[:, 0]
        return rpcls.Solution(x=x, status=Status.OK, solver=self, sweeps=1)


def test_a_solver_from_outside_is_served_like_any_other() -> None:
    pandas = pytest.importorskip("pandas")
    A, b, _ = data(n=2)
    solution = rpcls.lstsq(pandas.DataFrame(A, columns=["u", "v"]), b, NormalEquations())
    np.testing.assert_allclose(solution.x, np.linalg.lstsq(A, b, rcond=None)[0], rtol=1e-10)
    assert solution.columns == ("u", "v") and "total" in solution.timings and solution.solver == NormalEquations()


def test_registry_lists_every_solver() -> None:
    assert {type(solver) for solver in SOLVERS.values()} == set(NAMES.values())
    assert {name for name, solver in SOLVERS.items() if isinstance(solver, no_sketch)} == NO_SKETCH
    assert {name.partition(",")[0] for name in SOLVERS} == NAMES.keys() and not ONE_PASS & (MORE_SWEEPS | EXACT)


@given(st.sampled_from(list(SOLVERS.values())))
def test_solvers_are_values(solver: Any) -> None:
    names = {name: getattr(rpcls, name) for name in rpcls.__all__}
    assert eval(repr(solver), names) == solver == pickle.loads(pickle.dumps(solver)) == replace(solver)
    assert hash(solver) == hash(replace(solver))
    with pytest.raises(AttributeError):
        solver.anything = 1


def test_a_fresh_iterator_serves_one_sweep_solvers_only_once() -> None:
    A, b, _ = data()
    rows = blocks_of(A, b, None)
    rpcls.lstsq(rows, None)
    with pytest.raises(InvalidValueError, match="must give at least one block, got none"):
        rpcls.lstsq(rows, None)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_x_has_the_dtype_of_a(dtype: type) -> None:
    A, b, _ = data()
    for solver in SOLVERS.values():
        solution = rpcls.lstsq(A.astype(dtype), b, solver, **sketched(solver))
        assert solution.x.dtype == dtype


@pytest.mark.parametrize("solver", ["direct", "full", "partial", "robust-full", "robust-partial"])
def test_x_beyond_the_range_of_its_dtype_is_not_ok(solver: str) -> None:
    rng = np.random.default_rng(0)
    A, b = rng.standard_normal((400, 40)), rng.standard_normal(400)
    for alpha, beta, dtype in ((1e-200, 1e200, np.float64), (1e-30, 1e20, np.float32)):
        with pytest.warns(rpcls.ConvergenceWarning, match="x is too large for its dtype, and partly infinite; rescale"):
            solution = rpcls.lstsq((A * alpha).astype(dtype), (b * beta).astype(dtype), solver, rng=0)
        assert solution.status is rpcls.Status.OUT_OF_RANGE and not np.isfinite(solution.x).all()
