"""Certificates hold and are tight, intervals cover, and both refuse what they cannot promise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.stats import binom
from support import gaussian_sketch, matrix, summary

import rpcls
from rpcls.accuracy import certificate_factor, certificate_floor, damped_step, error_bound
from rpcls.errors import InvalidTypeError, InvalidValueError, NonFiniteError
from rpcls.factor import Factor
from rpcls.linalg import triangle

KINDS = ("any", "full", "partial", "iterate")
both_kinds_of_rows = pytest.mark.parametrize("rows", ["gaussian", "coherent"])


def most_misses(count: int, probability: float) -> int:
    """So many misses, or fewer, happen in `count` trials with probability 1 − 1e-6."""
    return int(binom.isf(1e-6, count, probability))


def problem(rows: str, m: int, n: int, rng: np.random.Generator, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    A = matrix(rows, m, n, rng, condition=1e3)
    fit = A @ (np.linalg.pinv(A) @ rng.standard_normal(m))
    return A, fit / np.linalg.norm(fit) + noise * rng.standard_normal(m) / math.sqrt(m)


def error_of(A: np.ndarray, b: np.ndarray, x: np.ndarray) -> Any:
    """‖A(x − x*)‖ by LAPACK."""
    U = np.linalg.svd(A, full_matrices=False)[0]
    return np.linalg.norm(U.T @ (A @ x - b), axis=0)


# -- the factors --------------------------------------------------------------------------------------


def test_the_factors_are_the_documented_formulas() -> None:
    d, n = 400, 100
    root = 1 / math.sqrt(d)
    assert certificate_factor("any", d, n) == pytest.approx(1.05 * 1.5 + root, rel=1e-12)
    assert certificate_factor("full", d, n) == pytest.approx(0.75 + 2.05 * root, rel=1e-12)
    assert certificate_factor("iterate", d, n) == pytest.approx(1 + 2.7 * root, rel=1e-12)
    u = 0.75
    centre = u * math.sqrt((1 - 2 * u**2 + u**3) / (2 - u - 2 * u**2 + u**4))
    assert certificate_factor("partial", d, n) == pytest.approx(centre + (1.2 + 3 * u**3 + 12e-4) * root, rel=1e-12)
    assert certificate_floor("any", d, n) == pytest.approx(0.95 * 0.5 - root, rel=1e-12)
    assert certificate_floor("full", d, n) == pytest.approx(0.75 - 1.8 * math.sqrt(0.75) * root, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_factors_are_ordered(kind: Any) -> None:
    for n in (1, 2, 5, 30, 300):
        for d in (n + 1, n + 2, 2 * n + 1, 5 * n, 40 * n, 4000 * n):
            upper = [certificate_factor(kind, d, n, confidence=p) for p in (0.9, 0.95, 0.99, 0.999)]
            lower = [certificate_floor(kind, d, n, confidence=p) for p in (0.9, 0.95, 0.99, 0.999)]
            assert upper == sorted(upper) and lower == sorted(lower, reverse=True)
            assert 0 <= lower[0] < upper[0] and upper[2] <= certificate_factor("any", d, n)
            assert lower[2] >= certificate_floor("any", d, n)
    assert certificate_factor(kind, 10**7, 10) == pytest.approx(1, abs=0.06)
    assert certificate_floor(kind, 10**7, 10) == pytest.approx(1, abs=0.06)


def test_an_srht_that_keeps_all_rows_is_an_isometry() -> None:
    near = {"m": 1024, "hadamard": True}
    assert certificate_factor("full", 1000, 500, **near) > certificate_factor("full", 1000, 500)
    assert certificate_factor("full", 1024, 500, **near) == pytest.approx(1 + 2.05 / 32)
    assert certificate_factor("any", 1000, 500, **near) == certificate_factor("any", 1000, 500)


@pytest.mark.parametrize("d", [3, 10])
def test_a_sketch_no_larger_than_n_has_no_certificate(d: int) -> None:
    for function in (certificate_factor, certificate_floor):
        with pytest.raises(InvalidValueError, match=rf"needs sketch_size > n, got sketch_size = {d} and n = 10"):
            function("any", d, 10)
    A, b = np.random.default_rng(0).standard_normal((50, 10)), np.ones(50)
    with pytest.raises(InvalidValueError, match=r"needs sketch_size > n.*compress with sketch_size ≥ 2n"):
        rpcls.certify(A, b, np.zeros(10), sketch_size=max(d, 8), rng=0)


@pytest.mark.parametrize("confidence", [0.89, 0.9991, 1.0, math.nan])
def test_confidences_that_were_not_calibrated(confidence: float) -> None:
    with pytest.raises(InvalidValueError, match=r"confidence must be in 0\.9 … 0\.999, .*got"):
        rpcls.certify(np.eye(50, 2), np.ones(50), np.zeros(2), confidence=confidence)
    with pytest.raises(InvalidTypeError, match=r"confidence must be a float, got str '0\.9'"):
        certificate_factor("any", 20, 2, confidence="0.9")  # type: ignore[arg-type]


# -- coverage -----------------------------------------------------------------------------------------


SOLVERS = {
    "full": rpcls.FullyCompressed(),
    "raw": rpcls.PartiallyCompressed("raw"),
    "best": rpcls.PartiallyCompressed(),
    "robust": rpcls.RobustPartiallyCompressed(0.05),
    "combined": rpcls.CombinedCompressed(),
    "robust-full": rpcls.RobustFullyCompressed(0.05),
}


@both_kinds_of_rows
@pytest.mark.parametrize("ratio", [1.5, 4.0])
def test_bounds_hold_as_often_as_they_say(rows: str, ratio: float) -> None:
    rng = np.random.default_rng(1)
    m, n, count = 400, 12, 120
    A, _ = problem(rows, m, n, rng)
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in SOLVERS}
    for draw in range(count):
        b = problem("gaussian", m, n, rng)[1] if draw % 2 else A @ rng.standard_normal(n)
        b = b + 10 ** rng.uniform(-2, 1) * rng.standard_normal(m) / math.sqrt(m)
        c = rpcls.compress(A, b, sketch_size=round(ratio * n), rng=draw)
        for name, solver in SOLVERS.items():
            solution = c.solve(solver)
            bound = rpcls.certify(A, b, solution, c)
            found[name].append((bound.lower, float(error_of(A, b, solution.x)), bound.upper))
    most = most_misses(count, 0.01)
    for name, values in found.items():
        lower, error, upper = np.array(values).T
        assert np.sum(error > upper) <= most and np.sum(error < lower) <= most, name
        assert np.median(upper / error) < (2.2 if ratio == 4 else 4.5), name
        if ratio == 4 and name == "full":
            assert np.median(lower / error) > 0.5


@both_kinds_of_rows
def test_an_x_of_other_origin_is_certified_too(rows: str) -> None:
    rng = np.random.default_rng(2)
    A, b = problem(rows, 500, 15, rng)
    exact = rpcls.lstsq(A, b, "direct")
    for draw in range(30):
        x = exact.x + np.linalg.lstsq(A, rng.standard_normal(500), rcond=None)[0] * 10.0 ** rng.uniform(-6, 3)
        bound = rpcls.certify(A, b, x, sketch_size=60, rng=draw, confidence=0.999)
        assert bound.lower <= error_of(A, b, x) <= bound.upper <= 3 * error_of(A, b, x) and bound.confidence == 0.999
    at_the_answer = rpcls.certify(A, b, exact, rng=0)
    assert at_the_answer.lower == 0 and at_the_answer.upper < 1e-12 * np.linalg.norm(b)


def test_the_worst_direction_is_covered() -> None:
    """x* + the direction that S stretches most: only the factor of "any" holds it, and h is known exactly."""
    rng = np.random.default_rng(3)
    A, b = problem("coherent", 400, 20, rng)
    c = rpcls.compress(A, b, sketch_size=40, rng=0)
    _, s, Vt = np.linalg.svd(A, full_matrices=False)
    stretch, directions = np.linalg.svd(c.SA @ Vt.T / s)[1:]
    x = np.linalg.lstsq(A, b, rcond=None)[0] + Vt.T @ (directions[0] / s)
    bound = rpcls.certify(A, b, x, c)
    assert bound.upper == pytest.approx(certificate_factor("any", 40, 20) / stretch[0], rel=1e-6)
    assert 1 <= bound.upper < 1.5
    least = np.linalg.lstsq(A, b, rcond=None)[0] + Vt.T @ (directions[-1] / s)
    assert rpcls.certify(A, b, least, c).lower <= 1


# -- units, dtypes, right-hand sides ---------------------------------------------------------------------


def test_the_bound_is_in_the_units_of_b_and_free_of_those_of_the_columns() -> None:
    rng = np.random.default_rng(4)
    A, b = problem("coherent", 300, 8, rng)
    c = rpcls.compress(A, b, sketch_size=40, rng=0)
    x = c.solve(rpcls.FullyCompressed()).x
    bound = rpcls.certify(A, b, x, c)
    for scale, size in ((np.full(8, 2.0**300), 2.0**-200), (2.0 ** np.arange(-40, 40, 10), 8.0)):
        data, rhs = A * scale, b * size
        other = rpcls.compress(data, rhs, c.operator)
        found = rpcls.certify(data, rhs, x * size / scale, other)
        assert found.upper == pytest.approx(bound.upper * size, rel=1e-9)
        assert found.lower == pytest.approx(bound.lower * size, rel=1e-9)


def test_float32_has_a_floor_of_its_roundings() -> None:
    rng = np.random.default_rng(5)
    A, b = (part.astype(np.float32) for part in problem("gaussian", 400, 8, rng))
    exact = np.linalg.lstsq(A.astype(float), b.astype(float), rcond=None)[0]
    bound = rpcls.certify(A, b, exact, sketch_size=80, rng=0)
    assert bound.lower == 0
    assert 10 * 2.0**-24 * np.linalg.norm(b) <= bound.upper <= 20 * 2.0**-24 * np.linalg.norm(b)
    x = np.zeros(8, np.float32)
    bound = rpcls.certify(A, b, x, sketch_size=80, rng=0)
    assert bound.lower <= error_of(A.astype(float), b.astype(float), x) <= bound.upper


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
def test_right_hand_sides_weights_and_intercept(intercept: bool, sparse: bool) -> None:
    rng = np.random.default_rng(6)
    m, n, k = 500, 6, 3
    A, b, w = rng.standard_normal((m, n)) + 3, rng.standard_normal((m, k)) + 5, rng.random(m)
    A[np.abs(A - 3) < 0.5] = 0
    data = sp.csr_array(A) if sparse else A
    solution = rpcls.lstsq(data, b, "full", sketch_size=60, sample_weight=w, intercept=intercept, rng=0)
    bound = rpcls.certify(data, b, solution, sample_weight=w)
    c = rpcls.compress(data, b, solution.sketch, sample_weight=w)
    same = rpcls.certify(data, b, solution, c, sample_weight=w)
    np.testing.assert_allclose(same.upper, bound.upper, rtol=1e-10)
    root = np.sqrt(w)[:, None]
    if intercept:
        A, b = A - w @ A / w.sum(), b - w @ b / w.sum()
    truth = error_of(A * root, b * root, solution.x)
    assert bound.upper.shape == bound.lower.shape == (k,)
    assert np.all(bound.lower <= truth) and np.all(truth <= bound.upper) and np.all(bound.upper < 3 * truth)


def test_one_sweep_with_a_summary_two_without() -> None:
    rng = np.random.default_rng(7)
    A, b = problem("gaussian", 300, 5, rng)
    reads = []

    def blocks() -> Any:
        reads.append(1)
        return ((A[i : i + 100], b[i : i + 100]) for i in (0, 100, 200))

    rows = rpcls.RowBlocks(blocks, 5)
    c = rpcls.compress(rows, None, rng=0)
    solution = c.solve(rpcls.CombinedCompressed())
    start = len(reads)
    one = rpcls.certify(rows, None, solution, c)
    assert len(reads) == start + 1
    two = rpcls.certify(rows, None, solution)
    assert len(reads) == start + 3
    assert one.upper == pytest.approx(two.upper, rel=1e-12)
    # under another sketch, or without a record of the solver, nothing is known of where x came from
    assert rpcls.certify(rows, None, solution, rng=1) == rpcls.certify(rows, None, solution.x, rng=1)
    assert rpcls.certify(rows, None, solution.x, c).upper > one.upper


# -- refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "why"),
    [
        (rpcls.CountSketch(), "two heavy rows of A may fall into one row"),
        (rpcls.SparseSign(1), "two heavy rows of A may fall into one row"),
        (rpcls.RowSampling(), "sampling may miss rows"),
        (rpcls.LeverageSampling(), "sampling may miss rows"),
    ],
)
def test_families_without_a_certificate(family: Any, why: str) -> None:
    rng = np.random.default_rng(8)
    A, b = rng.standard_normal((200, 4)), rng.standard_normal(200)
    with pytest.raises(InvalidValueError, match=rf"gives no certificate, because {why}.*rpcls\.SparseSign\(\)"):
        rpcls.certify(A, b, np.zeros(4), family, sketch_size=100, rng=0)


def test_arguments_that_do_not_fit() -> None:
    rng = np.random.default_rng(9)
    A, b = rng.standard_normal((200, 4)), rng.standard_normal(200)
    c = rpcls.compress(A, b, rng=0)
    with pytest.raises(InvalidValueError, match=r"x must have the shape \(4,\).*got \(5,\)"):
        rpcls.certify(A, b, np.zeros(5))
    with pytest.raises(NonFiniteError, match="x must be finite"):
        rpcls.certify(A, b, np.full(4, np.nan))
    with pytest.raises(InvalidTypeError, match="x must be an array of real numbers or a Solution, got str"):
        rpcls.certify(A, b, "full")
    with pytest.raises(InvalidValueError, match=r"must be of these rows: it covers 200 × 4"):
        rpcls.certify(A[:100], b[:100], np.zeros(4), c)
    with pytest.raises(InvalidValueError, match="sketch_size must be None with a CompressedProblem, which fixes it"):
        rpcls.certify(A, b, np.zeros(4), c, sketch_size=20)
    with pytest.raises(InvalidTypeError, match="intercept must be True or False"):
        rpcls.certify(A, b, np.zeros(4), c, intercept=1)  # type: ignore[arg-type]
    A[:, 3] = A[:, 0]
    with pytest.raises(InvalidValueError, match=r"needs a sketch of full rank, got numerical rank 3 for n = 4"):
        rpcls.certify(A, b, np.zeros(4), rng=0)
    factor = Factor(np.eye(4), 1e-12)
    with pytest.raises(InvalidValueError, match="kind must be one of 'any', 'full', 'partial', 'iterate', got 'cg'"):
        error_bound(factor, np.zeros(4), "cg", c.operator)  # type: ignore[arg-type]


# -- the damped step ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ratio", "expected"), [(1.5, 0.65), (2, 0.59), (4, 0.45), (8, 0.33)])
def test_the_damped_step_takes_the_error_down(ratio: float, expected: float) -> None:
    rng = np.random.default_rng(10)
    m, n, gains = 600, 40, []
    for _ in range(20):
        A, b = problem("coherent", m, n, rng)
        d = round(ratio * n)
        c = summary(A, b, gaussian_sketch(d, m, rng))
        factor = Factor(triangle(c.SA), 1e-12)
        x = c.solve(rpcls.FullyCompressed()).x[:, None]
        better = damped_step(factor, x, factor.half_transpose(A.T @ (b[:, None] - A @ x)), d)
        gains.append(error_of(A, b, better[:, 0]) / error_of(A, b, x[:, 0]))
    assert abs(np.median(gains) - expected) < 0.07


# -- confidence intervals ---------------------------------------------------------------------------------


@both_kinds_of_rows
@pytest.mark.parametrize("family", [rpcls.SparseSign(), rpcls.SRHT()], ids=["sparse sign", "SRHT"])
@pytest.mark.parametrize(("solver", "d"), [("full", 25), ("full", 80), ("partial", 80), ("partial", 128)])
def test_intervals_cover(rows: str, family: Any, solver: str, d: int) -> None:
    rng = np.random.default_rng(11)
    m, n, count, level = 500, 20, 300, 0.9
    A, b = problem(rows, m, n, rng, noise=2.0)
    exact = np.linalg.lstsq(A, b, rcond=None)[0]
    inside = 0
    for draw in range(count):
        c = rpcls.compress(A, b, family.sample(d, m=m, rng=draw))
        v = rng.standard_normal(n)
        low, high = c.solve(SOLVERS["full" if solver == "full" else "best"]).interval(v, level)
        inside += low <= v @ exact <= high
    # 0.87 … 0.96 are the coverages that such sketches were seen to have; chance comes on top
    assert binom.isf(1 - 1e-5, count, 0.87) <= inside <= binom.isf(1e-5, count, 0.955)


def test_the_interval_is_the_documented_formula() -> None:
    from scipy.stats import t

    rng = np.random.default_rng(12)
    m, n, d = 200, 5, 30
    A, b = problem("gaussian", m, n, rng)
    b = np.column_stack([b, rng.standard_normal(m)])
    c = summary(A, b, gaussian_sketch(d, m, rng))
    v = rng.standard_normal(n)
    spread = v @ np.linalg.solve(c.SA.T @ c.SA, v)
    full, partial = c.solve(rpcls.FullyCompressed()), c.solve(rpcls.PartiallyCompressed())
    missed = np.linalg.norm(c.SA @ full.x - c.Sb, axis=0)
    half = t.ppf(0.975, d - n) * missed * np.sqrt(spread / (d - n))
    np.testing.assert_allclose(full.interval(v, 0.95), [v @ full.x - half, v @ full.x + half], rtol=1e-9)
    raw = c.solve(rpcls.PartiallyCompressed("raw")).x
    variance = (d - n) / d**2 * (np.sum((c.SA @ raw) ** 2, axis=0) * spread + (v @ raw) ** 2)
    half, centre = t.ppf(0.95, d - n) * np.sqrt(variance), (d - n) / d * (v @ raw)
    np.testing.assert_allclose(partial.interval(v), [centre - half, centre + half], rtol=1e-9)


def test_intervals_scale_with_the_units() -> None:
    rng = np.random.default_rng(13)
    A, b = problem("gaussian", 200, 5, rng)
    v = rng.standard_normal(5)
    for solver in (rpcls.FullyCompressed(), rpcls.PartiallyCompressed()):
        first = rpcls.compress(A, b, sketch_size=40, rng=0).solve(solver).interval(v)
        other = rpcls.compress(A * 2.0**600, b * 2.0**-300, sketch_size=40, rng=0).solve(solver).interval(v)
        assert other == tuple(np.ldexp(end, -900) for end in first)


def test_no_interval_where_none_is_known() -> None:
    rng = np.random.default_rng(14)
    A, b = problem("gaussian", 200, 5, rng)
    c, v = rpcls.compress(A, b, sketch_size=40, rng=0), np.ones(5)
    message = r"interval is for FullyCompressed\(\) and PartiallyCompressed\(\), without ridge, .*got "
    for solver in (
        rpcls.CombinedCompressed(),
        rpcls.RobustPartiallyCompressed(0.1),
        rpcls.FullyCompressed(ridge=0.1),
        rpcls.PartiallyCompressed(ridge=0.1),
    ):
        with pytest.raises(InvalidValueError, match=message + type(solver).__name__):
            c.solve(solver).interval(v)
    with pytest.raises(InvalidValueError, match=message + "Direct"):
        rpcls.lstsq(A, b, "direct").interval(v)
    count = rpcls.compress(A, b, rpcls.CountSketch(), sketch_size=40, rng=0)
    count.solve(rpcls.FullyCompressed()).interval(v)
    with pytest.raises(InvalidValueError, match=message + r".*CountSketch"):
        count.solve(rpcls.PartiallyCompressed("raw")).interval(v)
    for family in (rpcls.RowSampling(), rpcls.LeverageSampling()):
        sampled = rpcls.compress(A, b, family, sketch_size=40, rng=0)
        with pytest.raises(InvalidValueError, match=message):
            sampled.solve(rpcls.FullyCompressed()).interval(v)
    with pytest.raises(InvalidValueError, match=message):
        summary(A, b, gaussian_sketch(5, 200, rng)).solve(rpcls.FullyCompressed()).interval(v)
    solution = c.solve(rpcls.FullyCompressed())
    with pytest.raises(InvalidValueError, match=r"v must be finite, of shape \(5,\)"):
        solution.interval(np.ones(4))
    for level in (0, 1, 1.5):
        with pytest.raises(InvalidValueError, match=r"level must be in \(0, 1\), got"):
            solution.interval(v, level)
    with pytest.raises(InvalidTypeError, match="level must be a float, got str"):
        solution.interval(v, "0.9")  # type: ignore[arg-type]
    assert "inference" not in repr(solution)
