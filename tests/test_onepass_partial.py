"""PartiallyCompressed: closed forms, the scales and their moments, ridge."""

from __future__ import annotations

import contextlib

import numpy as np
import oracles
import pytest
from support import gaussian_sketch, matrix, sparse_sketch, summary

from rpcls.errors import ConvergenceWarning, InvalidValueError, SketchWarning
from rpcls.onepass import PartiallyCompressed
from rpcls.sketches import CountSketch
from rpcls.solution import Status


@pytest.mark.parametrize("kind", ["gaussian", "coherent"])
@pytest.mark.parametrize("ridge", [0.0, 1e-6, 0.3])
def test_closed_form_in_extended_precision(kind: str, ridge: float) -> None:
    rng = np.random.default_rng(0)
    A = matrix(kind, 300, 6, rng, condition=1e3)
    c = summary(A, rng.standard_normal(300), gaussian_sketch(25, 300, rng))
    sol = c.solve(PartiallyCompressed("raw", ridge))
    x = oracles.normal_equations_mp(c.SA, c.Atb, ridge)
    assert sol.status is Status.OK and sol.rank == 6
    np.testing.assert_allclose(sol.x, x, rtol=0, atol=1e-10 * np.linalg.norm(x))


def test_no_gram_matrix_at_condition_1e14() -> None:
    # cond(PᵀP) is 1e28: a Gram matrix would have no digit; QR loses cond(P)·u, relative to ‖x‖.
    rng = np.random.default_rng(1)
    A = rng.standard_normal((200, 6)) * 10.0 ** np.linspace(-7, 7, 6)
    c = summary(A, rng.standard_normal(200), gaussian_sketch(30, 200, rng))
    sol = c.solve(PartiallyCompressed("raw"))
    x = oracles.normal_equations_mp(c.SA, c.Atb)
    np.testing.assert_allclose(sol.x, x, rtol=1e-11)


@pytest.mark.parametrize("d", [20, 3])
def test_rank_deficient_is_the_minimum_norm_answer(d: int) -> None:
    rng = np.random.default_rng(2)
    B = rng.standard_normal((100, 4))
    c = summary(np.hstack([B, 3 * B]), rng.standard_normal(100), gaussian_sketch(d, 100, rng))
    with pytest.warns(ConvergenceWarning, match=rf"numerical rank below n.*Its rank is {min(4, d)}, n is 8"):
        sol = c.solve(PartiallyCompressed("raw"))
    pinv = np.linalg.pinv(c.SA, rcond=1e-10)
    assert sol.status is Status.SKETCH_RANK_DEFICIENT
    np.testing.assert_allclose(sol.x, pinv @ (pinv.T @ c.Atb), rtol=1e-9)


def test_the_scales_use_the_rank() -> None:
    rng = np.random.default_rng(3)
    B = rng.standard_normal((100, 4))
    for A, d in ((B, 20), (np.hstack([B, np.zeros((100, 1))]), 20)):
        c = summary(A, rng.standard_normal(100), gaussian_sketch(d, 100, rng))
        x = {}
        for scale in ("raw", "debiased", "best"):
            with pytest.warns(ConvergenceWarning) if A.shape[1] == 5 else contextlib.nullcontext():
                x[scale] = c.solve(PartiallyCompressed(scale)).x
        np.testing.assert_allclose(x["debiased"], x["raw"] * 15 / 20, rtol=1e-12)
        np.testing.assert_allclose(x["best"], x["raw"] * (16 * 13) / (20 * 19), rtol=1e-12)


@pytest.mark.parametrize("kind", ["gaussian", "coherent"])
def test_moments_of_a_gaussian_sketch(kind: str) -> None:
    rng = np.random.default_rng(4)
    m, n, d, repeats = 60, 6, 30, 800
    A = matrix(kind, m, n, rng)
    x = rng.standard_normal(n)
    b = A @ x
    xs = np.array(
        [summary(A, b, gaussian_sketch(d, m, rng)).solve(PartiallyCompressed("raw")).x for _ in range(repeats)]
    )
    size = np.linalg.norm(b) ** 2
    mu1 = d / (d - n - 1)
    mu2 = d**2 * (d - 1) / ((d - n) * (d - n - 1) * (d - n - 3))
    along = xs @ (A.T @ b) / size  # E = μ₁
    assert abs(along.mean() - mu1) < 4 * along.std() / np.sqrt(repeats) < 0.05 * mu1
    for scale, alpha in (
        ("raw", 1.0),
        ("debiased", (d - n - 1) / d),
        ("best", (d - n) * (d - n - 3) / (d * (d - 1))),
    ):
        squares = np.sum(np.square((alpha * xs - x) @ A.T), axis=1) / size
        expected = alpha**2 * mu2 - 2 * alpha * mu1 + 1
        assert abs(squares.mean() - expected) < 4 * squares.std() / np.sqrt(repeats) < 0.2 * expected, scale


def test_too_few_rows_for_the_moments_is_raw_with_a_warning() -> None:
    rng = np.random.default_rng(5)
    A, b = rng.standard_normal((50, 6)), rng.standard_normal(50)
    for d in (6, 7, 8, 9):
        c = summary(A, b, gaussian_sketch(d, 50, rng))
        with pytest.warns(SketchWarning, match=rf"scale='best' needs sketch_size > n \+ 3, got sketch_size = {d}"):
            sol = c.solve(PartiallyCompressed())
        np.testing.assert_array_equal(sol.x, c.solve(PartiallyCompressed("raw")).x)
        assert sol.status is Status.OK
    summary(A, b, gaussian_sketch(10, 50, rng)).solve(PartiallyCompressed())  # no warning from n + 4 on


def test_debiased_ridge_is_unbiased_for_a_larger_ridge() -> None:
    rng = np.random.default_rng(6)
    m, n, d, ridge, repeats = 80, 12, 40, 0.3, 200
    A = matrix("gaussian", m, n, rng, condition=10) * 3
    b = rng.standard_normal(m)
    xs, dfs = [], []
    for _ in range(repeats):
        c = summary(A, b, gaussian_sketch(d, m, rng))
        s2 = np.linalg.svd(c.SA, compute_uv=False) ** 2
        dfs.append(np.sum(s2 / (s2 + ridge)))
        xs.append(c.solve(PartiallyCompressed("debiased", ridge)).x)
    target = np.linalg.solve(A.T @ A + ridge / (1 - np.mean(dfs) / d) * np.eye(n), A.T @ b)
    direction = A.T @ (A @ target)
    along = np.array(xs) @ direction / (target @ direction)
    assert abs(along.mean() - 1) < 4 * along.std() / np.sqrt(repeats) + 1 / d
    assert np.mean(dfs) > 3  # the ridge is neither negligible nor all


def test_best_ridge_minimises_the_estimate_and_reduces_to_best() -> None:
    rng = np.random.default_rng(7)
    c = summary(rng.standard_normal((100, 6)), rng.standard_normal(100), gaussian_sketch(30, 100, rng))
    tiny, none = c.solve(PartiallyCompressed("best", 1e-12)), c.solve(PartiallyCompressed("best"))
    np.testing.assert_allclose(tiny.x, none.x, rtol=1e-9)
    ridge = 5.0
    raw, best = c.solve(PartiallyCompressed("raw", ridge)), c.solve(PartiallyCompressed("best", ridge))
    s2 = np.linalg.svd(c.SA, compute_uv=False) ** 2
    df = np.sum(s2 / (s2 + ridge))
    alpha = (30 - df) * (30 - df - 3) / (30 * 29) * (c.Atb @ raw.x) / np.linalg.norm(c.SA @ raw.x) ** 2
    np.testing.assert_allclose(best.x, alpha * raw.x, rtol=1e-10)


def test_count_sketch_warns_on_coherent_rows_only() -> None:
    rng = np.random.default_rng(8)
    m, n, d = 2000, 10, 60
    smooth, coherent = rng.standard_normal((m, n)), 1e-3 * rng.standard_normal((m, n))
    coherent[:n] += np.eye(n)
    b, S = rng.standard_normal(m), sparse_sketch(d, m, rng, nnz=1)
    while np.linalg.matrix_rank(S[:, :n]) < n:
        S = sparse_sketch(d, m, rng, nnz=1)
    summary(smooth, b, S, family=CountSketch()).solve(PartiallyCompressed())
    summary(coherent, b, S, family=CountSketch()).solve(PartiallyCompressed("raw"))
    with pytest.warns(SketchWarning, match=r"scale='best' assumes that the rows of the sketch are alike, but CountSk"):
        summary(coherent, b, S, family=CountSketch()).solve(PartiallyCompressed())
    summary(coherent, b, S).solve(PartiallyCompressed())  # another family


@pytest.mark.parametrize("scale", ["Best", 1.0, None])
def test_unknown_scale(scale: object) -> None:
    with pytest.raises(InvalidValueError, match="scale must be 'raw', 'debiased' or 'best', got"):
        PartiallyCompressed(scale)  # type: ignore[arg-type]
