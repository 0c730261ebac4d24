"""The study: right errors, honest rows, and files that stand alone."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, replace
from fractions import Fraction
from html.parser import HTMLParser

import numpy as np
import pytest

import rpcls
from rpcls import study
from rpcls.datasets import synthetic
from rpcls.onepass.base import OnePass
from rpcls.study import StudyRow, StudyTable, jobs
from rpcls.study.figures import draw, pareto_front, solver_label
from rpcls.study.findings import findings, grids, number, seconds
from rpcls.study.memory import Gauge
from rpcls.study.methods import LADDER, label_of, named_sketches, named_solvers
from rpcls.study.reference import Reference

SMALL = {"repeats": 2, "sketch_sizes": [1.5, 4], "memory": False, "progress": False}


@pytest.fixture(scope="module", autouse=True)
def no_pauses():
    """Without the pauses that make timings fair: none is looked at here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "_QUIET", 0.0)
        yield


@pytest.fixture(scope="module")
def data():
    return synthetic(3000, 40, snr=20.0, condition=100, rng=0)


@pytest.fixture(scope="module")
def table(data):
    noisy = data.b + 5 * np.random.default_rng(1).standard_normal(len(data.b))
    return study.run(data.A, {"clean": data.b, "noisy": noisy}, descriptions={"clean": "A <made> problem."}, **SMALL)


@dataclass(frozen=True)
class Failing(OnePass):
    """A solver that cannot solve anything with few rows."""

    least: int = 10**9

    def solve(self, problem, source=None):
        if problem.sketch_size < self.least:
            raise ValueError(f"<b>{problem.sketch_size}</b> rows\nare too few")
        return rpcls.FullyCompressed().solve(problem, source)


class Impatient(OnePass):
    """A solver during whose n-th run somebody presses Ctrl-C."""

    def __init__(self, after):
        self.after, self.calls = after, 0

    def __repr__(self):
        return "Impatient()"

    def solve(self, problem, source=None):
        self.calls += 1
        if self.calls > self.after:
            raise KeyboardInterrupt
        return rpcls.FullyCompressed().solve(problem, source)


# -- the yardstick --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [50, 9000])
def test_the_reference_measures_what_the_rows_say(rows):
    rng = np.random.default_rng(0)
    A = rng.standard_normal((rows, 7)) @ np.diag(10.0 ** -np.arange(7))
    B = rng.standard_normal((rows, 2))
    reference = Reference.of(A, B)
    assert reference.rank == 7
    assert reference.condition == pytest.approx(np.linalg.cond(A), rel=1e-8)
    for j in range(2):
        x_star = np.linalg.lstsq(A, B[:, j], rcond=None)[0]
        np.testing.assert_allclose(reference.X[:, j], x_star, rtol=1e-9)
        x = x_star * (1 + 0.1 * rng.standard_normal(7))
        error = np.linalg.norm(A @ (x - x_star)) / np.linalg.norm(A @ x_star)
        ratio = np.linalg.norm(B[:, j] - A @ x) / np.linalg.norm(B[:, j] - A @ x_star)
        assert reference.relative_error(x, j) == pytest.approx(error, rel=1e-9)
        assert reference.residual_ratio(x, j) == pytest.approx(ratio, rel=1e-12)


@pytest.mark.skipif(np.finfo(np.longdouble).eps >= np.finfo(float).eps, reason="long double is no longer than double")
def test_the_reference_knows_more_digits_than_float64_has():
    rng = np.random.default_rng(1)
    A, b = rng.integers(-9, 10, (40, 4)).astype(float), rng.integers(-99, 100, 40).astype(float)
    A[:, 3] += A[:, 2] * 99
    reference = Reference.of(A, b[:, None])
    assert 1e3 < reference.condition < 1e5
    exact = rational_solution(A, b)
    found = [
        Fraction(float(x)) + Fraction(float(r)) for x, r in zip(reference.X[:, 0], reference.rest[:, 0], strict=True)
    ]
    assert all(abs(f - e) < abs(e) * Fraction(1, 10**17) for f, e in zip(found, exact, strict=True))


def rational_solution(A, b):
    """The solution of AᵀAx = Aᵀb by elimination in exact arithmetic."""
    rows = [[Fraction(int(v)) for v in (*left, right)] for left, right in zip(A.T @ A, A.T @ b, strict=True)]
    for i, pivot in enumerate(rows):
        pivot[:] = [v / pivot[i] for v in pivot]
        for j, row in enumerate(rows):
            if j != i:
                row[:] = [v - row[i] * p for v, p in zip(row, pivot, strict=True)]
    return [row[-1] for row in rows]


def test_a_consistent_system_has_no_residual_ratio():
    A = np.random.default_rng(0).standard_normal((60, 4))
    reference = Reference.of(A, A @ np.ones((4, 1)))
    assert reference.residual_ratio(np.zeros(4), 0) is None
    assert reference.relative_error(np.zeros(4), 0) == pytest.approx(1.0)


def test_no_signal_has_no_relative_error():
    A = np.array([[1.0], [0.0], [0.0]])
    reference = Reference.of(A, np.array([[0.0], [1.0], [0.0]]))
    assert reference.relative_error(np.ones(1), 0) is None


def test_a_rank_deficient_reference_is_of_minimum_norm():
    A = np.random.default_rng(0).standard_normal((80, 3))
    A = np.column_stack([A, A[:, 0]])
    b = A @ np.array([2.0, 1.0, 1.0, 0.0])
    reference = Reference.of(A, b[:, None])
    assert reference.rank == 3
    np.testing.assert_allclose(reference.X[:, 0], [1, 1, 1, 1], rtol=1e-10)


# -- rows -----------------------------------------------------------------------------------------------------------


def test_every_combination_has_its_rows(table):
    names = ("full", "partial-raw", "partial", "robust-full", "robust-partial", "combined")
    own = (*LADDER, "normal")
    for target in ("clean", "noisy"):
        for sketch in ("SparseSign(nnz_per_column=8)", "CountSketch()"):
            for name in names:
                rows = table.select(target=target, sketch=sketch, solver=name)
                assert [(r.sketch_size, r.repeat, r.seed) for r in rows] == [
                    (60, 0, 0),
                    (160, 0, 0),
                    (60, 1, 1),
                    (160, 1, 1),
                ]
        baselines = [r for r in table.select(target=target) if r.sketch is None]
        found = sorted((r.solver, r.sketch_size, r.repeat) for r in baselines if r.sketch_size)
        assert found == [("scipy-cwt", d, r) for d in (60, 160) for r in (0, 1)]
        alone = sorted((r.solver, r.repeat) for r in baselines if not r.sketch_size)
        assert alone == sorted([("lapack", 0), *((name, r) for name in ("cholesky", *own) for r in (0, 1))])
        for name in own:
            rows = table.select(target=target, solver=name)
            assert [r.seed for r in rows] == ([None, None] if name == "normal" else [0, 1])
    assert len(table) == 2 * (2 * 2 * 2 * 6 + 4 + 3 + 2 * len(own))
    assert not table.interrupted and not table.failures and table.targets == ("clean", "noisy")


def test_every_name_of_the_front_door_is_one_of_the_study():
    from rpcls.front_door import SOLVERS
    from rpcls.study.methods import named_solvers

    assert named_solvers(SOLVERS) == {name: kind() for name, kind in SOLVERS.items()}


def test_a_row_can_be_made_again_by_hand(table, data):
    row = table.select(target="clean", solver="robust-partial", sketch="SparseSign(nnz_per_column=8)", repeat=1).rows[1]
    problem = rpcls.compress(data.A, data.b, rpcls.SparseSign(8), sketch_size=row.sketch_size, rng=row.seed)
    x = problem.solve(rpcls.RobustPartiallyCompressed()).x
    error = np.linalg.norm(data.A @ (x - data.x)) / np.linalg.norm(data.A @ data.x)
    assert row.relative_error == pytest.approx(error, rel=1e-8)
    ratio = np.linalg.norm(data.b - data.A @ x) / data.residual_norm
    assert row.residual_ratio == pytest.approx(ratio, rel=1e-8)
    assert (row.sweeps, row.status, row.message) == (1, "OK", "")


def test_times_add_up_and_solvers_of_one_sweep_are_charged_alike(table):
    for row in table:
        parts = [s for s in (row.compress_seconds, row.solve_seconds) if s is not None]
        assert row.seconds == pytest.approx(sum(parts)) and row.seconds > 0
    shared = table.select(target="clean", sketch="CountSketch()", sketch_size=60, repeat=0)
    assert len(shared) == 6 and len({row.compress_seconds for row in shared}) == 1


def test_baselines_are_what_they_claim(table, data):
    for name in ("lapack", "cholesky"):
        assert all(row.relative_error < 1e-10 for row in table.select(solver=name))
    cwt = [r.relative_error for r in table.select(target="clean", solver="scipy-cwt", sketch_size=160)]
    full = [
        r.relative_error for r in table.select(target="clean", solver="full", sketch="CountSketch()", sketch_size=160)
    ]
    assert 0.3 < np.mean(cwt) / np.mean(full) < 3  # the same method with another sketch
    assert min(cwt) > 1e-3


def test_the_ladder_goes_from_a_digit_to_all_of_them(table, data):
    for target in table.targets:
        for name in LADDER[:-1]:
            rows = table.select(target=target, solver=name).rows
            assert all(r.relative_error <= float(name.removeprefix("precondition-")) for r in rows)
            assert all(r.sketch is None and r.status == "OK" and r.sweeps > 1 for r in rows)
        for name in ("precondition", "normal", "lapack"):
            assert all(r.relative_error < 1e-13 for r in table.select(target=target, solver=name))
    row = table.select(target="clean", solver="precondition-1e-2", repeat=1).rows[0]
    again = rpcls.lstsq(data.A, data.b, rpcls.SketchAndPrecondition(rtol=1e-2), rng=row.seed)
    error = np.linalg.norm(data.A @ (again.x - data.x)) / np.linalg.norm(data.A @ data.x)
    assert (again.sweeps, row.relative_error) == (row.sweeps, pytest.approx(error, rel=1e-8))


def test_a_solver_of_a_given_sketch_may_sweep_on_its_own(data):
    options = {**SMALL, "repeats": 1, "solvers": ["robust-partial", "robust-partial-sweep"], "baselines": []}
    table = study.run(data.A, data.b, sketches=["SparseSign"], **options)
    one, two = (table.select(solver=name).rows for name in options["solvers"])
    assert [(r.sketch_size, r.sweeps) for r in two] == [(60, 2), (160, 2)]
    assert [r.seed for r in two] == [r.seed for r in one]
    assert all(b.relative_error <= a.relative_error for a, b in zip(one, two, strict=True))


def test_the_problems_say_what_was_made(table):
    clean = table.problems[0]
    assert (clean.target, clean.m, clean.n, clean.rank) == ("clean", 3000, 40, 40)
    assert clean.condition == pytest.approx(100, rel=1e-6) and clean.snr == pytest.approx(20, rel=1e-6)
    assert 0.9 < clean.r2 < 0.96 and table.problems[1].r2 < 0.5


def test_one_target_needs_no_name_and_inputs_stay_as_they_are(data):
    A, b = data.A.copy(), data.b.copy()
    A.flags.writeable = b.flags.writeable = False
    table = study.run(A, b, solvers="full", sketches=rpcls.SparseSign(4), sketch_sizes=2, repeats=1, memory=False)
    assert table.targets == ("b",) and {r.sketch for r in table} == {"SparseSign(nnz_per_column=4)", None}
    assert np.array_equal(A, data.A) and np.array_equal(b, data.b)


@pytest.mark.parametrize("make", [np.asfortranarray, lambda A: A.astype(np.float32), lambda A: (100 * A).astype(int)])
def test_other_layouts_and_types(data, make):
    A = make(data.A)
    table = study.run(A, data.b, **{**SMALL, "repeats": 1})
    assert not table.failures
    assert min(r.relative_error for r in table.select(solver="lapack")) < 1e-3


def test_a_solver_that_wants_the_rows_goes_through_the_front_door(data):
    table = study.run(data.A, data.b, solvers=["direct", "full"], baselines=[], **SMALL)
    direct = table.select(solver="direct")
    assert len(direct) == 2 and all(r.sketch is None and r.relative_error < 1e-12 for r in direct)
    assert direct.rows[0].sweeps == 1


def test_seeds_from_a_generator_are_recorded(data):
    options = {**SMALL, "sketch_sizes": [2], "solvers": ["full"], "baselines": []}
    table = study.run(data.A, data.b, rng=np.random.default_rng(5), **options)
    seeds = sorted({r.seed for r in table})
    assert seeds[1] == seeds[0] + 1
    again = study.run(data.A, data.b, rng=seeds[0], **options)
    assert [r.relative_error for r in table] == [r.relative_error for r in again]


# -- what goes wrong ------------------------------------------------------------------------------------------------


def test_a_failing_method_is_a_row_and_the_others_go_on(data):
    table = study.run(data.A, data.b, solvers=[Failing(100), "full"], sketches=["CountSketch"], **SMALL)
    failing = table.select(solver="Failing(least=100)")
    assert [r.status for r in failing] == ["ERROR", "OK", "ERROR", "OK"]
    bad = failing.rows[0]
    assert bad.message == "ValueError: <b>60</b> rows are too few"
    assert bad.relative_error is None and bad.seconds is None and bad.failed
    assert len(table.failures) == 2 and len(table.select(solver="full")) == 4
    assert "2 failed" in repr(table) and "2 of" in str(table) and "too few" in str(table)


def test_a_failing_sweep_fails_every_solver_of_it(data, monkeypatch):
    monkeypatch.setattr(rpcls, "compress", lambda *_, **__: (_ for _ in ()).throw(MemoryError()))
    options = {**SMALL, "solvers": ["full", "combined", "normal"]}
    table = study.run(data.A, data.b, sketches=["CountSketch"], baselines=["cholesky"], **options)
    assert len(table.failures) == 8 and {r.message for r in table.failures} == {"MemoryError: no message"}
    assert len(table) == 12


def test_warnings_become_messages(data):
    table = study.run(data.A, data.b, solvers=["full"], sketch_sizes=[0.5], baselines=[], repeats=1, memory=False)
    assert {r.status for r in table} == {"SKETCH_RANK_DEFICIENT"}
    assert all("ConvergenceWarning" in r.message for r in table)


def test_ctrl_c_keeps_what_is_finished(data, tmp_path):
    # one warm-up call, then three runs
    table = study.run(data.A, data.b, solvers=["full", Impatient(4)], sketches=["CountSketch"], **SMALL)
    assert table.interrupted and len(table.select(solver="Impatient()")) == 3 and len(table.select(solver="full")) == 4
    assert "interrupted" in repr(table) and "Interrupted" in str(table)
    table.report(tmp_path / "report.html")
    assert "interrupted" in (tmp_path / "report.html").read_text()


def test_ctrl_c_before_the_first_run_gives_an_empty_table(data, tmp_path):
    table = study.run(data.A, data.b, solvers=[Impatient(0)], **SMALL)
    assert table.interrupted and len(table) == 0 and table.problems[0].n == 40
    table.report(tmp_path / "report.html")
    table.to_csv(tmp_path / "rows.csv")
    table.plot(tmp_path / "plot.png")
    assert StudyTable.from_csv(tmp_path / "rows.csv").rows == ()


A0 = np.arange(40.0).reshape(20, 2)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"A": A0.astype(complex)}, rpcls.InvalidTypeError, "A must be float32 or float64.* got complex128"),
        ({"A": A0[:2]}, rpcls.InvalidValueError, r"more rows than columns, got A of shape \(2, 2\)"),
        ({"A": A0[:, 0]}, rpcls.InvalidValueError, r"two dimensions and at least one column, got shape \(20,\)"),
        ({"A": np.where(A0 == 7, np.nan, A0)}, rpcls.NonFiniteError, r"A\[3, 1\] is nan"),
        ({"b": np.ones(19)}, rpcls.InvalidValueError, r"target 'b' must have shape \(20,\).* got \(19,\)"),
        ({"b": {"y": np.r_[np.inf, np.ones(19)]}}, rpcls.NonFiniteError, "target 'y' is inf at row 0"),
        ({"b": np.ones(20) * 1j}, rpcls.InvalidTypeError, "target 'b' must hold real numbers, got complex128"),
        ({"b": {}}, rpcls.InvalidValueError, "b is an empty mapping"),
        ({"repeats": 0}, rpcls.InvalidValueError, "repeats must be at least 1, got 0"),
        ({"repeats": 2.0}, rpcls.InvalidTypeError, "repeats must be an int, got float 2.0"),
        ({"sketch_sizes": []}, rpcls.InvalidValueError, "sketch_sizes is empty"),
        ({"sketch_sizes": [2, -1]}, rpcls.InvalidValueError, "positive multiples of n, such as 1.2 or 4, got -1"),
        ({"sketch_sizes": ["2"]}, rpcls.InvalidValueError, "positive multiples of n, such as 1.2 or 4, got '2'"),
        ({"baselines": ["qr"]}, rpcls.InvalidValueError, "unknown name in baselines: 'qr'; known: cholesky, scipy-cwt"),
        ({"solvers": ["fast"]}, rpcls.InvalidValueError, "unknown name in solvers: 'fast'; known: full"),
        ({"solvers": []}, rpcls.InvalidValueError, "solvers is empty; known names: full"),
        (
            {"solvers": [3]},
            rpcls.InvalidTypeError,
            "solvers takes a solver name or a value with a `solve` method, got 3",
        ),
        ({"sketches": [rpcls.CountSketch]}, rpcls.InvalidTypeError, "sketches takes a sketch family"),
        ({"sketches": ["SRFT"]}, rpcls.InvalidValueError, "unknown name in sketches: 'SRFT'; known: CountSketch"),
        ({"sketches": ["__import__('os')"]}, rpcls.InvalidValueError, "unknown name in sketches"),
        ({"sketches": ["SparseSign(open('x'))"]}, rpcls.InvalidValueError, "unknown name in sketches"),
        ({"sketches": ["SparseSign(zeta=8)"]}, rpcls.InvalidTypeError, r"sketches: SparseSign\(zeta=8\): .*zeta"),
        ({"rng": -1}, rpcls.InvalidValueError, "rng must be a non-negative int, got -1"),
    ],
)
def test_wrong_input(arguments, error, message):
    with pytest.raises(error, match=message):
        study.run(**{"A": A0, "b": np.ones(20), "memory": False, **arguments})


def test_names_expressions_and_values_mean_the_same():
    by_name = named_solvers(["partial-raw", "robust-partial"])
    assert by_name["partial-raw"] == rpcls.PartiallyCompressed(scale="raw")
    text = "RobustPartiallyCompressed(rho=0.1)"
    (label, value), *_ = named_solvers([text]).items()
    assert value == rpcls.RobustPartiallyCompressed(rho=0.1) and label == repr(value)
    assert (
        named_sketches(["SparseSign", "CountSketch()"]).keys()
        == named_sketches([rpcls.SparseSign(), "CountSketch"]).keys()
    )
    assert label_of("SparseSign(nnz_per_column=4)") == "SparseSign(4)" and label_of("CountSketch()") == "CountSketch"


# -- memory ---------------------------------------------------------------------------------------------------------


def test_peak_memory_tells_a_copy_from_a_sketch():
    rng = np.random.default_rng(0)
    A, b = rng.standard_normal((60_000, 100)), rng.standard_normal(60_000)
    with Gauge(A, b) as gauge:
        copy, note = gauge.measure("lapack", None, None, 0)
        sketch, other = gauge.measure(rpcls.FullyCompressed(), rpcls.CountSketch(), 200, 0)
    if copy is None:
        pytest.skip(note)
    mib = A.nbytes / 2**20
    assert note == other == ""
    assert 0.9 * mib < copy < 2.5 * mib
    assert 0 <= sketch < 0.5 * mib


def test_memory_is_measured_once_and_put_on_every_repeat(data):
    options = {**SMALL, "memory": True, "solvers": ["full"], "sketches": ["CountSketch"], "baselines": ["cholesky"]}
    table = study.run(data.A, data.b, **options)
    assert {r.sketch_size for r in table if r.peak_mib is not None} == {160, None}
    assert all(r.peak_mib is not None for r in table.select(sketch_size=160))


def test_a_method_that_cannot_be_sent_to_a_child_says_so(data):
    class Local(OnePass):
        def solve(self, problem, source=None):
            return rpcls.FullyCompressed().solve(problem, source)

    with Gauge(data.A, data.b) as gauge:
        mib, note = gauge.measure(Local(), rpcls.CountSketch(), 80, 0)
        failed, why = gauge.measure(rpcls.FullyCompressed(), rpcls.SparseSign(8), 4, 0)
    assert mib is None and "cannot be sent to a child process" in note
    assert failed is None and "sketch_size must be at least" in why


# -- table, figures, report -----------------------------------------------------------------------------------------


def test_csv_round_trip(table, tmp_path):
    path = tmp_path / "rows.csv"
    table.to_csv(path)
    assert StudyTable.from_csv(path).rows == table.rows
    with open(path, newline="", encoding="utf-8") as file:
        first = next(csv.DictReader(file))
    assert first["solver"] == "full" and float(first["relative_error"]) == table.rows[0].relative_error
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(rpcls.FormatError, match="not a study table"):
        StudyTable.from_csv(tmp_path / "other.csv")
    path.write_text(path.read_text().replace("full", "full", 1).replace(",60,", ",sixty,", 1))
    with pytest.raises(rpcls.FormatError, match=r"line 2: .*sixty"):
        StudyTable.from_csv(path)


def test_to_pandas_holds_the_same(table):
    pytest.importorskip("pandas")
    frame = table.to_pandas()
    assert len(frame) == len(table) and list(frame["solver"]) == [r.solver for r in table]
    np.testing.assert_array_equal(frame["relative_error"].to_numpy(), [r.relative_error for r in table])


def test_select_knows_its_fields(table):
    with pytest.raises(rpcls.InvalidValueError, match=r"select knows target, solver.* got colour"):
        table.select(colour="red")


def row(solver="full", d=2.0, error=0.5, time=1.0, repeat=0, target="t", sketch="CountSketch()"):
    return StudyRow(
        target, solver, sketch, int(10 * d), d, repeat, 0, time / 2, time / 2, time, 1, error, 1.0, None, "OK"
    )


def test_summaries_are_medians_with_ranges():
    errors = [0.4, 0.1, 0.2]
    table = StudyTable(tuple(row(error=e, time=e, repeat=i) for i, e in enumerate(errors)))
    (summary,) = table.summary()
    assert (summary.error.median, summary.error.low, summary.error.high) == (0.2, 0.1, 0.4)
    assert summary.runs == 3 and summary.failures == 0 and summary.compress_seconds.median == 0.1
    failed = replace(row(repeat=3), relative_error=None, seconds=None, status="ERROR", message="no")
    (summary,) = StudyTable((*table.rows, failed)).summary()
    assert summary.runs == 4 and summary.failures == 1 and summary.error.median == 0.2


def test_the_pareto_front_by_exhaustion():
    rng = np.random.default_rng(3)
    rows = [row(solver=f"s{i}", error=float(e), time=float(t)) for i, (e, t) in enumerate(rng.random((40, 2)) * 1.3)]
    rows.append(row(solver="hasty", error=1.1, time=1e-6))  # faster than all, and worse than x = 0
    points = StudyTable(tuple(rows)).summary()

    def beaten(p):
        return p.error.median >= 1 or any(
            q.error.median <= p.error.median and q.seconds.median <= p.seconds.median for q in points if q is not p
        )

    front = pareto_front(points)
    assert {p.solver for p in front} == {p.solver for p in points if not beaten(p)} and len(front) > 2
    assert [p.seconds.median for p in front] == sorted(p.seconds.median for p in front)


def test_findings_are_computed_from_the_rows():
    rows = [
        row("full", 1.2, 0.9), row("full", 2, 0.3), row("full", 4, 0.1), row("partial-raw", 1.2, 12.0),
        row("robust-partial", 1.2, 0.2), row("robust-partial", 2, 0.2), row("robust-partial", 4, 0.19),
    ]  # fmt: skip
    (name, sentence), *_ = findings(StudyTable(tuple(rows)))
    assert name == "t"
    assert (
        "robust partial from d = 1.2n (0.200) to 2n (0.200), then of full (sketch and solve) at d = 4n (0.100)"
        in sentence
    )
    assert "At d = 1.2n robust partial errs by 0.200, against 0.900 for full and 12.0 for raw partial" in sentence
    assert sentence.endswith("full is ahead of it from 4n on.")
    (grid,) = grids(StudyTable(tuple(rows)).summary())
    assert grid.column("partial-raw") == {1.2: 12.0} and grid.column("none") == {}
    rows[2] = row("full", 4, 0.25)
    assert findings(StudyTable(tuple(rows)))[0][1].endswith("it stays ahead of full up to 4n.")


def test_findings_tell_what_full_accuracy_and_less_cost():
    alone = {"precondition-1e-2": (4e-3, 0.2), "precondition": (2e-15, 0.9), "lapack": (3e-15, 7.0)}
    rows = [row(), *(row(s, error=e, time=t, sketch=None) for s, (e, t) in alone.items())]
    rows[1:] = [replace(r, sketch_size=None, d_over_n=None) for r in rows[1:]]
    sentence = findings(StudyTable(tuple(rows)))[-1][1]
    assert sentence.startswith(
        "full accuracy takes precondition 0.900 s (error 2.0e-15), LAPACK gelsd 7.00 s (error 3.0e-15); stopped once "
        "certified, rtol 1e-2 takes 0.200 s (error 0.00400); "
    )


def test_numbers_for_people():
    assert [number(v) for v in (0.12345, 12, 123.4, 1e-11, 0.0, None)] == ["0.123", "12.0", "123", "1.0e-11", "0", "–"]
    assert [seconds(v) for v in (13.04, 0.25, 0.0042, None)] == ["13.0 s", "0.250 s", "4.20 ms", "–"]


@pytest.mark.parametrize(("kind", "panels"), [("both", 4), ("size", 4), ("time", 2)])
def test_plots_have_their_panels(table, tmp_path, kind, panels):
    pytest.importorskip("matplotlib")
    figure = table.plot(tmp_path / "figure.svg", kind)
    assert len(figure.axes) == panels
    assert all(ax.get_yscale() == "log" and ax.get_title(loc="left") and ax.get_xlabel() for ax in figure.axes)
    assert (tmp_path / "figure.svg").read_text().lstrip().startswith("<?xml")


def test_the_lines_of_a_plot_are_the_medians(table):
    pytest.importorskip("matplotlib")
    ax = draw(table, "size").axes[0]
    summary = table.select(target="clean", solver="full", sketch="SparseSign(nnz_per_column=8)").summary()
    wanted = [s.error.median for s in summary]
    assert any(np.array_equal(line.get_ydata(), wanted) for line in ax.get_lines())
    words = {text.get_text() for text in ax.texts}
    assert {solver_label(s) for s in ("full", "partial", "robust-partial", "scipy-cwt")} <= words


def test_the_ladder_of_a_plot_is_a_line_with_names(table):
    pytest.importorskip("matplotlib")
    ax = draw(table, "time").axes[0]
    rungs = [table.select(target="clean", solver=name).summary()[0].error.median for name in LADDER]
    assert any(np.array_equal(line.get_ydata(), rungs) for line in ax.get_lines())
    words = {text.get_text() for text in ax.texts}
    assert {"rtol 1e-3", "precondition", "refined normal equations", "plain normal equations", "LAPACK gelsd"} <= words
    assert ax.get_ylim()[0] < min(rungs)


def test_plot_refuses_what_it_cannot_draw(table, tmp_path):
    with pytest.raises(rpcls.InvalidValueError, match="kind must be 'both', 'size' or 'time', got 'pie'"):
        table.plot(kind="pie")
    with pytest.raises(rpcls.InvalidValueError, match=r"by the suffix of the path, got .*figure\.xyz"):
        table.plot(tmp_path / "figure.xyz")


class Page(HTMLParser):
    """Tags in balance, references, and text."""

    VOID = ("meta", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.stack, self.references, self.words, self.images = [], [], [], 0
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.stack.append(tag)
        self.images += tag == "img"
        self.references += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        assert tag not in ("script", "link", "iframe", "object", "base")

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_the_report_stands_alone(table, tmp_path):
    path = table.report(tmp_path / "report.html")
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.stack == [] and page.images == 2
    assert all(reference.startswith("data:image/svg+xml;base64,") for reference in page.references)
    assert "url(" not in text and "@import" not in text
    words = " ".join(page.words)
    for expected in ("How to read this", "Who wins where", "Machine and versions", "LAPACK gelsd", "A <made> problem."):
        assert expected in words
    assert number(table.select(target="clean", solver="lapack").rows[0].relative_error) in words
    assert rpcls.__version__ in words and np.__version__ in words
    assert str(tmp_path) not in text


def test_a_report_escapes_what_a_failure_says(data, tmp_path):
    table = study.run(data.A, data.b, solvers=[Failing()], sketches=["CountSketch"], baselines=[], **SMALL)
    text = table.report(tmp_path / "report.html").read_text()
    assert "&lt;b&gt;60&lt;/b&gt; rows are too few" in text and "<b>60</b>" not in text
    assert "4 of 4 runs failed" in text
    Page(text)


def test_text_marks_the_best(table):
    lines = str(table).splitlines()
    assert lines[0].startswith("clean: 3000 × 40, R² = 0.9")
    best = min(grids(table.summary())[0].errors[0])
    assert f"{number(best)}*" in lines[3] and lines[3].split()[0] == "1.5n"


def test_a_progress_bar_ends_with_the_work(data, capsys):
    pytest.importorskip("rich")
    study.run(data.A, data.b, solvers=["full"], baselines=[], **{**SMALL, "progress": True})
    study.run(data.A, data.b, solvers=["full"], baselines=[], **{**SMALL, "progress": None})
    assert capsys.readouterr().out == ""


def test_consistent_and_infinite_facts_reach_the_report(tmp_path):
    exact = synthetic(400, 35, snr=math.inf, rng=0)
    table = study.run(exact.A, exact.b, solvers=["full", "partial"], **SMALL)
    assert all(r.residual_ratio is None for r in table)
    assert all(r.relative_error < 1e-10 for r in table.select(solver="full"))  # exact on consistent systems
    assert "infinite (consistent)" in table.report(tmp_path / "report.html").read_text()
