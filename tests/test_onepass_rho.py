"""rho="loo": how near the best rho it comes, and when it warns."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from support import gaussian_sketch, matrix, sparse_sketch, summary

from rpcls.errors import SketchWarning
from rpcls.onepass import Absolute, RobustFullyCompressed, RobustPartiallyCompressed
from rpcls.onepass.robust import increasing_root
from rpcls.sketches import CountSketch
from rpcls.solution import Status


def ratio_to_the_best(solver: type, kind: str, n: int, d: int, seed: int) -> float:
    """‖A(x − x*)‖ with "loo" over its minimum on a grid of 24 rho."""
    rng = np.random.default_rng(seed)
    A = matrix(kind, 800, n, rng, condition=10 ** rng.uniform(0, 3))
    f, e = A @ rng.standard_normal(n), rng.standard_normal(800)
    b = f + e * np.linalg.norm(f) / np.linalg.norm(e) / np.sqrt(10 ** rng.uniform(-1, 1.5))
    x = np.linalg.lstsq(A, b, rcond=None)[0]
    c = summary(A, b, sparse_sketch(d, 800, rng))

    def error(rho: float | str) -> float:
        return float(np.linalg.norm(A @ (c.solve(solver(rho)).x - x)))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rho below the threshold at d < n
        return error("loo") / min(error(rho) for rho in np.geomspace(1e-3, 3, 24))


@pytest.mark.parametrize("kind", ["gaussian", "coherent"])
@pytest.mark.parametrize("solver", [RobustPartiallyCompressed, RobustFullyCompressed])
def test_loo_is_near_the_best_rho(solver: type, kind: str) -> None:
    sizes = (25, 60, 160)
    ratios = [ratio_to_the_best(solver, kind, 40, d, seed=10 * i + d) for d in sizes for i in range(3)]
    assert np.median(ratios) < 1.15 and max(ratios) < 3.0, ratios


@pytest.mark.parametrize("solver", [RobustPartiallyCompressed, RobustFullyCompressed])
@pytest.mark.parametrize("d", [20, 80])
def test_loo_minimises_its_criterion_and_reports_the_rho_that_gives_its_mu(solver: type, d: int) -> None:
    rng = np.random.default_rng(0)
    A = matrix("gaussian", 300, 40, rng)
    c = summary(A, A @ rng.standard_normal(40) + 0.3 * rng.standard_normal(300), sparse_sketch(d, 300, rng))
    sol = c.solve(solver("loo"))
    assert sol.status is Status.OK
    again = c.solve(solver(Absolute(sol.rho)))
    np.testing.assert_allclose([again.rho, again.mu], [sol.rho, sol.mu], rtol=1e-8)
    np.testing.assert_allclose(again.x, sol.x, rtol=1e-7)

    G, eye = c.SA.T @ c.SA, np.eye(40)

    def criterion(mu: float) -> float:
        h = c.Atb if solver is RobustPartiallyCompressed else c.SA.T @ c.Sb
        y = np.linalg.solve(G + mu * eye, h)
        df = np.trace(np.linalg.solve(G + mu * eye, G))
        F = (1 - df / d) ** -2 * (1 + 1 / np.sqrt(2 * (d - df)))
        if df > 0.9 * d:
            return np.inf
        if solver is RobustFullyCompressed:
            return F * np.linalg.norm(c.Sb - c.SA @ y) ** 2
        kappa = np.linalg.norm(c.SA @ y) / np.linalg.norm(y)
        tau = kappa**2 / (kappa**2 + mu)
        return 0.5 * tau**2 * F * np.linalg.norm(c.SA @ y) ** 2 - tau * c.Atb @ y

    values = [criterion(sol.mu * 10.0 ** (i / 20)) for i in range(-20, 21)]
    assert np.argmin(values) == 20
    assert np.trace(np.linalg.solve(G + sol.mu * eye, G)) <= 0.9 * d


def test_loo_chooses_more_than_the_threshold() -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        A = rng.standard_normal((200, 40))
        c = summary(A, A @ rng.standard_normal(40), gaussian_sketch(15, 200, rng))
        pinv = np.linalg.pinv(c.SA)
        lost = c.Atb - pinv @ (c.SA @ c.Atb)
        sol = c.solve(RobustPartiallyCompressed())
        assert sol.status is Status.OK and sol.mu > 0
        assert sol.rho > np.linalg.norm(lost) / np.linalg.norm(pinv.T @ c.Atb)


def test_loo_for_partial_warns_below_30_columns() -> None:
    rng = np.random.default_rng(1)
    A, b, S = rng.standard_normal((200, 30)), rng.standard_normal(200), gaussian_sketch(60, 200, rng)
    with pytest.warns(SketchWarning, match="rho='loo' is unreliable for n < 30, got n = 29"):
        summary(A[:, :29], b, S).solve(RobustPartiallyCompressed())
    summary(A, b, S).solve(RobustPartiallyCompressed())
    summary(A[:, :29], b, S).solve(RobustPartiallyCompressed(0.1))
    summary(A[:, :29], b, S).solve(RobustFullyCompressed())


@pytest.mark.parametrize("n", [40, 100])  # leverages found, and estimated
@pytest.mark.parametrize("solver", [RobustPartiallyCompressed, RobustFullyCompressed])
def test_loo_warns_when_count_sketch_met_coherent_rows(solver: type, n: int) -> None:
    rng = np.random.default_rng(2)
    m, n, d = 3000, n, 5 * n
    smooth, coherent = rng.standard_normal((m, n)), 1e-3 * rng.standard_normal((m, n))
    coherent[:n] += np.eye(n)
    b, S = rng.standard_normal(m), sparse_sketch(d, m, rng, nnz=1)
    summary(smooth, b, S, family=CountSketch()).solve(solver())
    summary(coherent, b, S).solve(solver())
    summary(coherent, b, S, family=CountSketch()).solve(solver(0.1))
    with pytest.warns(SketchWarning, match="rho='loo' assumes that the rows of the sketch are alike, but CountSketch"):
        summary(coherent, b, S, family=CountSketch()).solve(solver())


def test_increasing_root_of_hard_functions() -> None:
    centers = np.array([-250.0, -3.0, 0.0, 5.0, 280.0])

    def steep(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with np.errstate(over="ignore"):
            return np.tanh(t - centers), 1 / np.cosh(np.clip(t - centers, -300, 300)) ** 2

    np.testing.assert_allclose(increasing_root(steep, np.zeros(5), -300, 300), centers, rtol=1e-12, atol=1e-12)
    high = increasing_root(lambda t: (np.full(1, -1.0), np.zeros(1)), np.zeros(1), -300, 300)
    assert 299 < high[0] <= 300
