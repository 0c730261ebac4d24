"""CombinedCompressed: the formula, its limits, and that the mixture is better than either part."""

from __future__ import annotations

import math

import numpy as np
import oracles
import pytest
from support import gaussian_sketch, matrix, sparse_sketch, summary

import rpcls
from rpcls.errors import ConvergenceWarning, SketchWarning
from rpcls.onepass import CombinedCompressed, FullyCompressed, PartiallyCompressed
from rpcls.solution import Status

both_kinds_of_rows = pytest.mark.parametrize("rows", ["gaussian", "coherent"])


@both_kinds_of_rows
@pytest.mark.parametrize("noise", [0.0, 0.3, 10.0])
def test_the_formula_in_extended_precision(rows: str, noise: float) -> None:
    rng = np.random.default_rng(0)
    m, n, d = 300, 6, 25
    A = matrix(rows, m, n, rng, condition=1e3)
    b = A @ rng.standard_normal(n) + noise * rng.standard_normal(m) / math.sqrt(m)
    c = summary(A, b, gaussian_sketch(d, m, rng))
    full = oracles.normal_equations_mp(c.SA, c.SA.T @ c.Sb)
    partial = oracles.normal_equations_mp(c.SA, c.Atb)
    signal = max(c.Atb @ full, 0.0)
    left = np.linalg.norm(c.Sb - c.SA @ full) ** 2 * d / (d - n)
    alpha = (d - n) * (d - n - 3) / (d * (d - 1))
    kappa = 1 - (d - n) * (d - n - 3) / ((d - 1) * (d - n - 1))
    snr = signal / left
    w = kappa * snr / (n / (d - n - 1) + kappa * snr)
    x = w * full + (1 - w) * alpha * partial
    sol = c.solve(CombinedCompressed())
    assert sol.status is Status.OK and sol.rank == n
    np.testing.assert_allclose(sol.x, x, rtol=0, atol=1e-9 * np.linalg.norm(x))
    if noise == 0:
        np.testing.assert_allclose(sol.x, np.linalg.lstsq(A, b, rcond=None)[0], rtol=1e-8)


@both_kinds_of_rows
@pytest.mark.parametrize("snr", [0.1, 1.0, 10.0])
def test_the_error_is_that_of_the_best_mixture(rows: str, snr: float) -> None:
    rng = np.random.default_rng(1)
    m, n, d, repeats = 500, 50, 125, 60
    A = matrix(rows, m, n, rng)
    U = np.linalg.svd(A, full_matrices=False)[0]
    fit, noise = U @ rng.standard_normal(n), rng.standard_normal(m)
    noise -= U @ (U.T @ noise)
    b = fit * math.sqrt(snr) / np.linalg.norm(fit) + noise / np.linalg.norm(noise)
    squares = np.zeros((repeats, 3))
    for i in range(repeats):
        c = summary(A, b, sparse_sketch(d, m, rng))
        for j, solver in enumerate((FullyCompressed(), PartiallyCompressed(), CombinedCompressed())):
            squares[i, j] = np.linalg.norm(U.T @ (A @ c.solve(solver).x - b)) ** 2
    full, partial, combined = squares.mean(axis=0)
    best = 1 / (1 / full + 1 / partial)
    chance = 4 * squares[:, 2].std() / math.sqrt(repeats)
    assert abs(combined - best) < 0.08 * best + chance < 0.35 * best
    assert combined < min(full, partial) + chance / 2


def test_several_right_hand_sides_are_independent_and_in_their_own_units() -> None:
    rng = np.random.default_rng(2)
    A, b = matrix("coherent", 200, 5, rng), rng.standard_normal((200, 3))
    S = gaussian_sketch(25, 200, rng)
    scale = np.array([1.0, 2.0**-300, 2.0**200])
    together = summary(A, b, S).solve(CombinedCompressed())
    scaled = summary(A, b * scale, S).solve(CombinedCompressed())
    np.testing.assert_allclose(scaled.x / scale, together.x, rtol=1e-12)
    for j in range(3):
        alone = summary(A, b[:, j], S).solve(CombinedCompressed())
        np.testing.assert_allclose(alone.x, together.x[:, j], rtol=1e-10)
        assert alone.residual_norm_estimate == pytest.approx(together.residual_norm_estimate[j])
    columns = 2.0 ** np.array([40, -3, 0, 11, -60])
    units = summary(A * columns, b, S).solve(CombinedCompressed())
    np.testing.assert_allclose(units.x * columns[:, None], together.x, rtol=1e-10)


def test_a_b_that_the_sketch_does_not_see_and_a_zero_b() -> None:
    rng = np.random.default_rng(3)
    A = matrix("gaussian", 100, 4, rng)
    S = gaussian_sketch(20, 100, rng)
    zero = summary(A, np.zeros(100), S).solve(CombinedCompressed())
    assert zero.status is Status.ZERO_GRADIENT and not zero.x.any() and zero.residual_norm_estimate == 0
    unseen = summary(A, np.linalg.qr(S.T, mode="complete")[0][:, -1], S).solve(CombinedCompressed())
    assert np.isfinite(unseen.x).all()


def test_too_few_rows_for_the_moments_is_full_with_a_warning() -> None:
    rng = np.random.default_rng(4)
    A, b = rng.standard_normal((50, 6)), rng.standard_normal(50)
    for d in (6, 7, 9):
        c = summary(A, b, gaussian_sketch(d, 50, rng))
        with pytest.warns(SketchWarning, match=rf"needs sketch_size > n \+ 3, got sketch_size = {d} for rank 6"):
            sol = c.solve(CombinedCompressed())
        np.testing.assert_allclose(sol.x, c.solve(FullyCompressed()).x, rtol=1e-12)
    summary(A, b, gaussian_sketch(10, 50, rng)).solve(CombinedCompressed())  # no warning from n + 4 on


def test_rank_deficient_is_the_minimum_norm_mixture() -> None:
    rng = np.random.default_rng(5)
    B = rng.standard_normal((100, 4))
    b = rng.standard_normal(100)
    S = gaussian_sketch(30, 100, rng)
    with pytest.warns(ConvergenceWarning, match="Its rank is 4, n is 8"):
        sol = summary(np.hstack([B, 3 * B]), b, S).solve(CombinedCompressed())
    alone = summary(B, b, S).solve(CombinedCompressed())
    np.testing.assert_allclose(sol.x, np.concatenate([0.1 * alone.x, 0.3 * alone.x]), rtol=1e-9)


def test_count_sketch_warns_on_coherent_rows_only() -> None:
    rng = np.random.default_rng(6)
    m, n = 2000, 10
    smooth, coherent = rng.standard_normal((m, n)), 1e-3 * rng.standard_normal((m, n))
    coherent[:n] += np.eye(n)
    b = rng.standard_normal(m)
    rpcls.compress(smooth, b, rpcls.CountSketch(), sketch_size=200, rng=0).solve(CombinedCompressed())
    with pytest.warns(SketchWarning, match=r"the weight of CombinedCompressed\(\) assumes that the rows"):
        rpcls.compress(coherent, b, rpcls.CountSketch(), sketch_size=200, rng=0).solve(CombinedCompressed())


def test_by_name() -> None:
    rng = np.random.default_rng(7)
    A, b = rng.standard_normal((400, 5)), rng.standard_normal(400)
    named = rpcls.lstsq(A, b, "combined", sketch_size=40, rng=0)
    np.testing.assert_array_equal(named.x, rpcls.compress(A, b, sketch_size=40, rng=0).solve(CombinedCompressed()).x)
    assert named.sweeps == 1
