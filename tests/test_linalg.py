"""Factor and Spectrum against NumPy, and the cases where scaling must not matter."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import solve_triangular

from rpcls.factor import Factor
from rpcls.factor.triangles import eliminated, triangle_with_shift
from rpcls.linalg import (
    condition_number,
    exponent_of,
    product,
    spectrum,
    times_power,
    triangle,
)


def test_times_power_is_exact_and_quiet_at_both_ends() -> None:
    assert times_power(np.array([3.0]), 2) == 12.0
    assert np.array_equal(times_power(np.array([1.0, 0.5]), np.array([1500, 3])), [np.inf, 4.0])
    assert times_power(1.0, -1074) == 5e-324 and times_power(1.0, -3000) == 0.0
    assert times_power(5e-324, 1074 + 10) == 1024.0


def test_exponent_of() -> None:
    assert exponent_of(np.array([[0.75, -4.0]])) == 3
    assert np.array_equal(exponent_of(np.array([[0.75, -4.0, 0.0]]), axis=0), [0, 3, 0])
    assert exponent_of(np.zeros((0, 3))) == 0


def test_triangle_has_the_gram_matrix_of_its_blocks() -> None:
    rng = np.random.default_rng(0)
    A, b = rng.standard_normal((30, 4)), rng.standard_normal((30, 2))
    R = triangle(A, b)
    M = np.hstack([A, b])
    assert R.shape == (6, 6) and np.array_equal(R, np.triu(R))
    np.testing.assert_allclose(R.T @ R, M.T @ M, atol=1e-12)
    assert triangle(A[:3], b[:3]).shape == (3, 6)


@pytest.mark.parametrize("power", [0, 10])
def test_elimination_factors_as_qr_does(power: int) -> None:
    rng = np.random.default_rng(7)
    M, q = rng.standard_normal((60, 12)) * 10.0 ** rng.uniform(-9, 9, 12), rng.standard_normal((60, 2))
    M[:, 3] = M[:, 4] + 10.0**-power * M[:, 3] * abs(M[0, 4] / M[0, 3])
    before = M.copy()
    found = eliminated(M, q)
    assert found is not None and np.array_equal(M, before)
    R, Z = found
    sizes = np.linalg.norm(M, axis=0)
    assert np.array_equal(R, np.triu(R))
    np.testing.assert_allclose((R / sizes).T @ (R / sizes), (M / sizes).T @ (M / sizes), atol=1e-14)
    np.testing.assert_allclose((R / sizes).T @ Z, (M / sizes).T @ q, atol=1e-13)
    Q = solve_triangular(R, M.T, trans="T").T  # and not only as a Gram matrix would: Q is orthonormal to κ·ε, not κ²·ε
    np.testing.assert_allclose(Q.T @ Q, np.eye(12), atol=1e-13 * 10.0**power)


def test_elimination_is_refused_where_it_may_lose_digits() -> None:
    q, growing = np.ones((60, 1)), np.tril(-np.ones((60, 40)), -1) + np.eye(60, 40)
    growing[:40, -1] = 1.0  # Wilkinson's matrix: the inverse of L grows like 2ⁿ
    assert eliminated(growing, q) is None
    assert eliminated(np.ones((60, 2)), q) is None  # a pivot is zero


def test_triangle_with_shift() -> None:
    R = np.triu(np.random.default_rng(8).standard_normal((40, 40)))
    for tau in (3.0, 1e-9):
        before = R.copy()
        T, expected = triangle_with_shift(R, tau), triangle(np.vstack([R, tau * np.eye(40)]))
        assert np.array_equal(R, before)
        np.testing.assert_allclose(np.abs(T), np.abs(expected), atol=1e-13)


def test_condition_number_of_the_odd_cases() -> None:
    assert condition_number(np.array([4.0, 2.0])) == 2.0
    assert condition_number(np.array([4.0, 0.0])) == np.inf
    assert condition_number(np.zeros(3)) == condition_number(np.zeros(0)) == 1.0


@pytest.mark.parametrize(("t", "n", "rank"), [(8, 8, 8), (8, 8, 5), (5, 8, 5), (5, 8, 3), (8, 8, 0)])
def test_factor_is_the_pseudoinverse(t: int, n: int, rank: int) -> None:
    rng = np.random.default_rng(1)
    M = rng.standard_normal((t, rank)) @ rng.standard_normal((rank, n))
    z, g = rng.standard_normal((t, 2)), rng.standard_normal((n, 2))
    R = np.linalg.qr(M, mode="r") if t == n else M
    z = np.linalg.qr(M)[0].T @ z if t == n else z
    factor = Factor(R, 1e-12)
    assert factor.rank == rank and factor.full == (rank == n)
    pinv = np.linalg.pinv(R, rcond=1e-12)
    np.testing.assert_allclose(factor.pinv(z), pinv @ z, atol=1e-10 * np.linalg.norm(pinv))
    np.testing.assert_allclose(factor.gram_pinv(g), pinv @ (pinv.T @ g), atol=1e-10 * np.linalg.norm(pinv) ** 2)


def test_column_scaling_costs_no_rank_and_the_minimum_norm_is_the_callers() -> None:
    rng = np.random.default_rng(2)
    B = rng.standard_normal((40, 4))
    scales = 10.0 ** np.linspace(-9, 9, 4)
    assert Factor(triangle(B * scales), 40 * 2.2e-16).rank == 4
    # [B, 10B]: the minimum-norm solution splits as 1 : 10
    M = np.hstack([B, 10 * B])
    z = rng.standard_normal((8, 1))
    R = triangle(M)
    x = Factor(R, 40 * 2.2e-16).pinv(z)
    np.testing.assert_allclose(x, np.linalg.pinv(R, rcond=1e-10) @ z, rtol=1e-9)
    np.testing.assert_allclose(x[4:], 10 * x[:4], rtol=1e-9)


def test_minimum_norm_with_columns_of_extreme_size() -> None:
    rng = np.random.default_rng(3)
    B = rng.standard_normal((20, 3))
    M = np.hstack([B * 1e-180, B * 2e-180, np.zeros((20, 1))])
    z = triangle(M)[:, :3] @ np.ones((3, 1))
    y = Factor(triangle(M), 20 * 2.2e-16).pinv(z)
    np.testing.assert_allclose(y.ravel(), [0.2] * 3 + [0.4] * 3 + [0.0], rtol=1e-10, atol=1e-10)


def test_minimum_norm_with_columns_160_decades_apart() -> None:
    B = np.random.default_rng(3).standard_normal((20, 3))
    M = np.hstack([B * 1e-100, B[:, :1] * 1e60])
    factor = Factor(triangle(M), 20 * 2.2e-16)
    x = np.array([0.0, 1.0, 1.0, 1e-160])  # the large column takes all that both could carry, up to 1e-320
    R = triangle(M)
    found = factor.pinv(R @ x[:, None]).ravel(), factor.gram_pinv(R.T @ (R @ x[:, None])).ravel()
    assert factor.rank == 3
    for y in found:
        np.testing.assert_allclose(y[1:], x[1:], rtol=1e-11)
        assert abs(y[0]) < 1e-12


def test_product_is_matmul() -> None:
    rng = np.random.default_rng(4)
    M = rng.standard_normal((30, 5))
    for k in (1, 3):
        X, Y = rng.standard_normal((5, k)), rng.standard_normal((30, k))
        np.testing.assert_allclose(product(M, X), M @ X, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(product(M, Y, transpose=True), M.T @ Y, rtol=1e-12, atol=1e-12)


def test_spectrum_keeps_columns_in_small_units_and_drops_dependent_ones() -> None:
    rng = np.random.default_rng(7)
    B = rng.standard_normal((50, 4)) * np.array([1e16, 1.0, 1.0, 1.0])
    assert len(spectrum(B, B[:, :1], 1e-14).s) == 4
    assert len(spectrum(np.hstack([B, B[:, :2]]), B[:, :1], 1e-14).s) == 4
    assert len(spectrum(np.zeros((5, 3)), np.ones((5, 1)), 1e-14).s) == 0
