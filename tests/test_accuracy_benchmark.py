"""benchmarks/accuracy.py: its measures against oracles, that it runs, and that its committed tables are its data's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from oracles import exact_backward_error

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
RESULTS = BENCHMARKS / "results"


@pytest.mark.parametrize("condition", [1e0, 1e3, 1e6])
@pytest.mark.parametrize("residual", [1e-3, 1.0])
def test_backward_error_is_that_of_the_exact_formula(load, condition: float, residual: float) -> None:
    rng = np.random.default_rng(0)
    A, b = load("problems").of_singular_values("incoherent", 60, np.geomspace(1, 1 / condition, 6), residual, rng)
    A /= 1.5 * np.linalg.norm(A, axis=0)
    A *= 2  # norms of 4/3: scaling by powers of two leaves them
    best = np.linalg.lstsq(A, b, rcond=None)[0]
    X = best[:, None] + np.linalg.norm(best) * rng.standard_normal((6, 5)) * 10.0 ** -np.arange(1, 6)
    measured = load("backward").Measure(A, b).backward(X)
    for x, found in zip(X.T, measured, strict=True):
        assert 0.6 < found / exact_backward_error(A, b, x) < 1.7


def test_backward_error_does_not_depend_on_powers_of_two_in_the_columns(load) -> None:
    rng = np.random.default_rng(1)
    A, b, x = rng.standard_normal((50, 4)), rng.standard_normal(50), rng.standard_normal(4)
    scale = 2.0 ** np.array([-40, 0, 3, 40])
    Measure = load("backward").Measure
    plain, scaled = Measure(A, b).backward(x[:, None]), Measure(A * scale, b).backward((x / scale)[:, None])
    np.testing.assert_allclose(plain, scaled, rtol=1e-12)
    assert np.isinf(Measure(A, b).backward(np.full((4, 1), np.nan)))


def test_exact_answers_agree_with_higher_precision(load) -> None:
    import mpmath

    backward = load("backward")
    rng = np.random.default_rng(2)
    A, b = load("problems").of_singular_values("semi-coherent", 40, np.geomspace(1, 1e-11, 5), 0.1, rng)
    with mpmath.workdps(60):
        wide = mpmath.matrix(A.tolist())
        x = mpmath.lu_solve(wide.T * wide, wide.T * mpmath.matrix(b.tolist()))
        exact = np.array([np.longdouble(mpmath.nstr(value, 25)) for value in x])
    measure = backward.Measure(A, b)
    small = backward.exact_answer(measure)
    lapack = np.linalg.lstsq(A, b, rcond=1e-17)[0]
    errors = measure.distances(np.column_stack([small, measure.refined(lapack), lapack]), exact)[0]
    assert errors[2] > 1e-14
    assert max(errors[:2]) < 1e-2 * errors[2]


def test_failures_are_seen(load) -> None:
    hard_problems, problems = load("hard_problems"), load("problems")
    rng = np.random.default_rng(3)
    A, b = problems.of_singular_values("incoherent", 400, np.geomspace(1, 1e-9, 10), 1e-3, rng)
    answers = {one.solver: one for one in hard_problems.judge(problems.Problem("f", "p", A, b), "float64", 0)}
    for name in ("rpcls", "rpcls, gram", "rpcls, cg", hard_problems.MARK):
        assert not answers[name].failed, answers[name]
    assert "forward" in answers["normal equations, Cholesky"].failed
    half = rng.standard_normal((400, 5))
    both = problems.Problem("f", "p", np.hstack([half, half]), b, deficient=True)
    answers = {one.solver: one for one in hard_problems.judge(both, "float64", 0)}
    assert not answers["rpcls"].failed
    assert set(answers["rpcls"].ratios) == {"backward", "norm"}


def test_families_are_distinct_and_finite(load) -> None:
    found = list(load("problems").hard(240, 12, 0))
    assert len({(p.family, p.name) for p in found}) == len(found) > 60
    for p in found:
        assert p.A.shape[0] == 240 and p.b.shape == (240,) and np.isfinite(p.A).all() and np.isfinite(p.b).all()


def test_runs(tmp_path) -> None:
    command = [sys.executable, str(BENCHMARKS / "accuracy.py"), "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["accuracy.json", "accuracy.md", "accuracy.svg"]
    data = json.loads((tmp_path / "accuracy.json").read_text())
    assert {"speed", "families", "nist", "sparse", "checks"} <= set(data)


def test_committed_tables_and_picture_are_those_of_the_data(load, tmp_path) -> None:
    data = json.loads((RESULTS / "accuracy.json").read_text())
    text = (RESULTS / "accuracy.md").read_text(encoding="utf-8")
    assert load("accuracy_report").render(data) in text, "stale: run python benchmarks/accuracy.py --redraw"
    checks = [{**check._asdict(), "met": check.met} for check in load("accuracy_targets").checks(data)]
    assert data["checks"] == checks
    assert set(data["speed"]) == {f"{m}x{n}" for m, n in load("accuracy").SHAPES}
    assert {"nist", "sparse"} <= set(data)
    assert data["families"]["seeds"] == 10
