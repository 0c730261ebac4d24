"""Both robust solvers: against a convex solver, dual certificates, extended precision; thresholds and odd cases."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import oracles
import pytest
from support import gaussian_sketch, matrix, sparse_sketch, summary

from rpcls.errors import ConvergenceWarning, InvalidTypeError, InvalidValueError
from rpcls.onepass import (
    Absolute,
    FullyCompressed,
    PartiallyCompressed,
    RobustFullyCompressed,
    RobustPartiallyCompressed,
)
from rpcls.ridge import GramRidge
from rpcls.solution import Status

SIZES = [(8, 30), (8, 9), (8, 8), (8, 5), (66, 100), (66, 40)]  # n, d: the Gram matrix serves from n = 64


def problem(kind: str, n: int, d: int, seed: int = 0, condition: float = 50.0):
    rng = np.random.default_rng(seed)
    A = matrix(kind, 400, n, rng, condition)
    b = A @ rng.standard_normal(n) + 0.1 * rng.standard_normal(400)
    return summary(A, b, sparse_sketch(d, 400, rng, nnz=min(8, d)))


@pytest.mark.parametrize("kind", ["gaussian", "coherent"])
@pytest.mark.parametrize("rho", [1e-3, 0.1, 2.0])
def test_partial_against_a_convex_solver(kind: str, rho: float) -> None:
    c = problem(kind, 8, 20)
    sol = c.solve(RobustPartiallyCompressed(Absolute(rho)))
    x, value = oracles.robust_partial_socp(c.SA, c.Atb, rho)
    assert oracles.robust_partial_value(c.SA, c.Atb, rho, sol.x) <= value + 1e-7 * abs(value)
    np.testing.assert_allclose(sol.x, x, atol=2e-3 * np.linalg.norm(x))


@pytest.mark.parametrize("kind", ["gaussian", "coherent"])
@pytest.mark.parametrize("rho", [1e-3, 0.02, 0.1])
def test_full_against_a_convex_solver(kind: str, rho: float) -> None:
    c = problem(kind, 8, 20)
    sol = c.solve(RobustFullyCompressed(Absolute(rho)))
    x, value = oracles.robust_full_socp(c.SA, c.Sb, rho)
    assert np.linalg.norm(c.SA @ sol.x - c.Sb) + rho * np.linalg.norm(sol.x) <= value * (1 + 1e-7)
    np.testing.assert_allclose(sol.x, x, atol=2e-3 * np.linalg.norm(x))


@pytest.mark.parametrize("kind", ["gaussian", "coherent"])
@pytest.mark.parametrize(("n", "d"), SIZES)
@pytest.mark.parametrize("rho", [1e-4, 1e-2, 0.5, 20.0])
def test_partial_dual_certificate_and_kkt(kind: str, n: int, d: int, rho: float) -> None:
    c = problem(kind, n, d, seed=n + d)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # below the threshold, where d < n
        sol = c.solve(RobustPartiallyCompressed(rho))
    radius = rho * np.linalg.norm(c.SA, 2)
    np.testing.assert_allclose(sol.rho, radius, rtol=1e-12)
    assert abs(oracles.robust_partial_gap(c.SA, c.Atb, radius, sol.x)) < 1e-10
    if sol.mu > 0:
        y = sol.x * (sol.mu + radius**2) / sol.mu
        Py = c.SA @ y
        np.testing.assert_allclose(sol.mu * np.linalg.norm(y), radius * np.linalg.norm(Py), rtol=1e-9)
        np.testing.assert_allclose(c.SA.T @ Py + sol.mu * y, c.Atb, atol=1e-10 * np.linalg.norm(c.Atb))


@pytest.mark.parametrize("kind", ["gaussian", "coherent"])
@pytest.mark.parametrize(("n", "d"), SIZES)
@pytest.mark.parametrize("rho", [1e-4, 1e-2, 0.2])
def test_full_dual_certificate_and_kkt(kind: str, n: int, d: int, rho: float) -> None:
    c = problem(kind, n, d, seed=n + d)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # below the threshold, where d < n
        sol = c.solve(RobustFullyCompressed(rho))
    radius = rho * np.linalg.norm(c.SA, 2)
    if sol.status is Status.OK and sol.mu > 0:
        assert abs(oracles.robust_full_gap(c.SA, c.Sb, radius, sol.x)) < 1e-9
        r = c.Sb - c.SA @ sol.x
        np.testing.assert_allclose(sol.mu * np.linalg.norm(sol.x), radius * np.linalg.norm(r), rtol=1e-8)
    else:
        assert d <= n or sol.status is Status.SHRUNK_TO_ZERO


@pytest.mark.parametrize("spread", [2.0, 7.0])
@pytest.mark.parametrize("rho", [1e-9, 1e-3, 1.0])
def test_partial_in_extended_precision_at_condition_1e14(spread: float, rho: float) -> None:
    rng = np.random.default_rng(1)
    A = rng.standard_normal((100, 5)) * 10.0 ** np.linspace(-spread, spread, 5)
    c = summary(A, A @ rng.standard_normal(5) + rng.standard_normal(100), gaussian_sketch(20, 100, rng))
    sol = c.solve(RobustPartiallyCompressed(rho))
    x, mu = oracles.robust_partial_mp(c.SA, c.Atb, sol.rho)
    np.testing.assert_allclose(sol.mu, mu, rtol=1e-7)
    np.testing.assert_allclose(sol.x, x, atol=1e-7 * np.linalg.norm(x))
    if rho > 1e-9:  # below, rounding in the certificate itself is divided by ρ
        assert abs(oracles.robust_partial_gap(c.SA, c.Atb, sol.rho, sol.x)) < 1e-10


@pytest.mark.parametrize("solver", [RobustPartiallyCompressed, RobustFullyCompressed])
@pytest.mark.parametrize("rho", [0.05, "loo"])
def test_the_cheap_factorisation_changes_nothing(
    solver: type, rho: float | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    c = problem("gaussian", 80, 160, condition=1e3)
    monkeypatch.setattr(solver, "_accurate", None)
    cheap = c.solve(solver(rho))
    monkeypatch.undo()
    monkeypatch.setattr(solver, "_cheap", lambda self, summary: None)
    accurate = c.solve(solver(rho))
    np.testing.assert_allclose(cheap.x, accurate.x, atol=1e-9 * np.linalg.norm(accurate.x))
    np.testing.assert_allclose([cheap.rho, cheap.mu], [accurate.rho, accurate.mu], rtol=1e-9)


def test_a_gram_matrix_that_is_not_good_enough_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    c = problem("gaussian", 80, 160)
    right = {s: c.solve(s).x for s in (RobustPartiallyCompressed(0.05), RobustFullyCompressed(0.05))}
    found, used = GramRidge.of, []

    def off(P: np.ndarray, h: np.ndarray, *_: object) -> GramRidge:
        ridge = found(P, h)
        assert ridge is not None
        used.append(dataclasses.replace(ridge, s=ridge.s * (1 + 1e-7)))
        return used[-1]

    monkeypatch.setattr(GramRidge, "of", off)
    for solver, x in right.items():
        np.testing.assert_allclose(c.solve(solver).x, x, atol=1e-9 * np.linalg.norm(x))
    assert len(used) == 2


def test_the_certificates_accept_the_solution_and_nothing_near_it() -> None:
    from rpcls.onepass import robust_full, robust_partial

    c = problem("gaussian", 8, 30)
    s = np.linalg.svd(c.SA, compute_uv=False)
    sol = c.solve(RobustPartiallyCompressed(0.05))
    y, mu, rho = (sol.x * (sol.mu + sol.rho**2) / sol.mu)[:, None], np.array([sol.mu]), np.array([sol.rho])
    args = c.SA, c.Atb[:, None]
    assert robust_partial._certified(*args, y, mu, rho, s)
    assert not robust_partial._certified(*args, y * (1 + 1e-7), mu, rho, s)
    assert not robust_partial._certified(*args, y, mu, rho * (1 + 1e-7), s)

    sol = c.solve(RobustFullyCompressed(0.05))
    x, mu, rho = sol.x[:, None], np.array([sol.mu]), np.array([sol.rho])
    for factor, radius, good in ((1, 1, True), (1 + 1e-7, 1, False), (1, 1 + 1e-7, False)):
        residual = c.Sb[:, None] - c.SA @ (factor * x)
        inside = np.array([True])
        assert robust_full._certified(c.SA, residual, factor * x, mu, radius * rho, s, inside) == good


# -- thresholds ------------------------------------------------------------------------------------------------------


def test_partial_below_the_threshold_is_unfitted_and_names_it() -> None:
    c = problem("gaussian", 8, 5)
    pinv = np.linalg.pinv(c.SA)
    lost = c.Atb - pinv @ (c.SA @ c.Atb)
    threshold = np.linalg.norm(lost) / np.linalg.norm(pinv.T @ c.Atb)
    with pytest.warns(ConvergenceWarning, match=rf"x fits the sketch from rho = {threshold:.4g} on, which is"):
        below = c.solve(RobustPartiallyCompressed(Absolute(0.99 * threshold)))
    assert below.status is Status.UNFITTED and below.mu == 0 and below.residual_norm_estimate is None
    np.testing.assert_allclose(below.x, lost / below.rho**2, rtol=1e-8)
    above = c.solve(RobustPartiallyCompressed(Absolute(1.01 * threshold)))
    assert above.status is Status.OK and above.mu > 0
    near = c.solve(RobustPartiallyCompressed(Absolute(threshold * (1 + 1e-7))))
    np.testing.assert_allclose(near.x, lost / near.rho**2, rtol=1e-4)  # continuous at the threshold
    with pytest.warns(ConvergenceWarning):
        tiny = c.solve(RobustPartiallyCompressed(Absolute(1e-140)))
    np.testing.assert_allclose(tiny.x, lost * 1e280, rtol=1e-8)


def test_full_below_the_threshold_interpolates_and_names_it() -> None:
    c = problem("gaussian", 8, 5)
    pinv = np.linalg.pinv(c.SA)
    x0 = pinv @ c.Sb
    threshold = np.linalg.norm(x0) / np.linalg.norm(pinv.T @ x0)
    with pytest.warns(ConvergenceWarning, match=rf"x interpolates the sketch up to rho = {threshold:.4g}\."):
        below = c.solve(RobustFullyCompressed(Absolute(0.99 * threshold)))
    assert below.status is Status.SKETCH_RANK_DEFICIENT and below.mu == 0
    np.testing.assert_allclose(below.x, x0, rtol=1e-8)
    above = c.solve(RobustFullyCompressed(Absolute(1.01 * threshold)))
    assert above.status is Status.OK and above.mu > 0


def test_full_is_zero_exactly_from_the_threshold_on() -> None:
    c = problem("gaussian", 8, 20)
    threshold = np.linalg.norm(c.SA.T @ c.Sb) / np.linalg.norm(c.Sb)
    over = c.solve(RobustFullyCompressed(Absolute(1.000001 * threshold)))
    assert over.status is Status.SHRUNK_TO_ZERO and not over.x.any() and over.mu == np.inf and over.status.ok
    assert f"x is zero from rho = {threshold:.4g} on" in over.message
    np.testing.assert_allclose(over.residual_norm_estimate, np.sqrt(c.btb), rtol=1e-12)
    under = c.solve(RobustFullyCompressed(Absolute(0.999999 * threshold)))
    assert under.status is Status.OK and under.x.any() and np.isfinite(under.mu)


def test_full_is_exact_on_a_consistent_system_for_small_rho() -> None:
    rng = np.random.default_rng(2)
    A, x = rng.standard_normal((100, 6)), rng.standard_normal(6)
    sol = summary(A, A @ x, gaussian_sketch(20, 100, rng)).solve(RobustFullyCompressed(0.01))
    assert sol.status is Status.OK
    np.testing.assert_allclose(sol.x, x, rtol=1e-9)


def test_rho_zero_is_the_limit() -> None:
    c = problem("gaussian", 8, 20)
    for robust, plain in (
        (RobustPartiallyCompressed(0), PartiallyCompressed("raw")),
        (RobustFullyCompressed(0), FullyCompressed()),
    ):
        sol = c.solve(robust)
        assert sol.status is Status.OK and sol.rho == sol.mu == 0
        np.testing.assert_allclose(sol.x, c.solve(plain).x, rtol=1e-10)
    np.testing.assert_allclose(
        c.solve(RobustPartiallyCompressed(1e-10)).x, c.solve(RobustPartiallyCompressed(0)).x, rtol=1e-4
    )
    short = problem("gaussian", 8, 5)
    for robust in (RobustPartiallyCompressed(0), RobustFullyCompressed(0)):
        with pytest.warns(ConvergenceWarning, match="Its rank is 5, n is 8"):
            assert short.solve(robust).status is Status.SKETCH_RANK_DEFICIENT


def test_large_rho_shrinks_along_the_gradient() -> None:
    c = problem("gaussian", 8, 20)
    sol = c.solve(RobustPartiallyCompressed(1e6))
    cosine = sol.x @ c.Atb / np.linalg.norm(sol.x) / np.linalg.norm(c.Atb)
    assert cosine > 1 - 1e-9 and 0 < np.linalg.norm(sol.x) < 1e-9 * np.linalg.norm(c.Atb)


@pytest.mark.parametrize("solver", [RobustPartiallyCompressed, RobustFullyCompressed])
@pytest.mark.parametrize("n", [8, 80])
def test_rank_deficient_matrices_have_a_robust_answer(solver: type, n: int) -> None:
    rng = np.random.default_rng(3)
    B = rng.standard_normal((300, n // 2))
    c = summary(np.hstack([B, B]), rng.standard_normal(300), gaussian_sketch(2 * n, 300, rng))
    sol = c.solve(solver(0.1))
    assert sol.status is Status.OK and sol.rank == n // 2
    np.testing.assert_allclose(sol.x[: n // 2], sol.x[n // 2 :], atol=1e-10 * np.abs(sol.x).max())


def test_cover_is_the_stated_radius() -> None:
    c = problem("gaussian", 8, 20)
    sol = c.solve(RobustPartiallyCompressed("cover"))
    rho = (np.linalg.norm(c.SA) + 2 * np.linalg.norm(c.SA, 2)) / np.sqrt(20)
    np.testing.assert_allclose(sol.rho, rho, rtol=1e-12)
    np.testing.assert_allclose(sol.x, c.solve(RobustPartiallyCompressed(Absolute(rho))).x, rtol=1e-9)


def test_cover_covers() -> None:
    rng = np.random.default_rng(4)
    for kind in ("gaussian", "coherent"):
        A = matrix(kind, 500, 12, rng)
        b = A @ rng.standard_normal(12) + rng.standard_normal(500)
        c = summary(A, b, sparse_sketch(24, 500, rng))
        sol = c.solve(RobustPartiallyCompressed("cover"))
        bound = 0.5 * b @ b + oracles.robust_partial_value(c.SA, c.Atb, sol.rho, sol.x)
        assert 0.5 * np.linalg.norm(A @ sol.x - b) ** 2 <= bound


# -- arguments -------------------------------------------------------------------------------------------------------

ALLOWED = r"a number at least 0 \(relative to ‖SA‖₂\) or Absolute\(number\), got"


@pytest.mark.parametrize("value", ["best", -0.1, np.nan, np.inf])
def test_rho_out_of_range(value: object) -> None:
    with pytest.raises(InvalidValueError, match=rf"rho must be 'loo', 'cover', 'sweep', {ALLOWED}"):
        RobustPartiallyCompressed(value)  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match=rf"rho must be 'loo', {ALLOWED}"):
        RobustFullyCompressed(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [None, True, [0.1], 1j])
def test_rho_of_the_wrong_type(value: object) -> None:
    with pytest.raises(InvalidTypeError, match=rf"rho must be 'loo', 'cover', 'sweep', {ALLOWED}"):
        RobustPartiallyCompressed(value)  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match=rf"rho must be 'loo', {ALLOWED}"):
        RobustFullyCompressed(value)  # type: ignore[arg-type]


def test_cover_is_for_partial_compression_only() -> None:
    with pytest.raises(InvalidValueError, match=r"got 'cover'"):
        RobustFullyCompressed("cover")


def test_absolute_checks_its_value() -> None:
    with pytest.raises(InvalidValueError, match=r"Absolute\(value\) must be finite and at least 0, got -1"):
        Absolute(-1)
    with pytest.raises(InvalidTypeError, match=r"Absolute\(value\) must be a real number, got str"):
        Absolute("1")  # type: ignore[arg-type]
    assert eval(repr(RobustPartiallyCompressed(Absolute(2)))) == RobustPartiallyCompressed(Absolute(2.0))
