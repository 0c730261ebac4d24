"""The Gram matrix of AR⁻¹: against sums in extended precision, for every layout, width and kind of row."""

from __future__ import annotations

import numpy as np
import pytest
from market import DTYPES, LAYOUTS

from rpcls.kernels.cpu import gram as kernel
from rpcls.sources import source_of, sweeps


def by_kernel(A, b, R=None, root=None, means=None, first=0, stop=None):
    n, k = A.shape[1], b.shape[1]
    p = kernel.padded(n)
    triangle = np.zeros((p, p))
    if R is not None:
        np.fill_diagonal(triangle, 1.0)
        triangle[:n, :n] = R
    total = np.zeros((kernel.padded(p + k),) * 2)
    empty = np.empty(0)
    stop = len(A) if stop is None else stop
    kernel.gram(A, b, empty if root is None else root, empty if means is None else means, triangle, first, stop, total)
    every = [*range(n), *range(p, p + k)]
    upper = np.triu(total[np.ix_(every, every)])
    return upper + np.triu(upper, 1).T


def exactly(A, b, root=1.0, means=0.0):
    both = (np.hstack([A, b]).astype(np.longdouble) - means) * np.reshape(root, (-1, 1))
    return both.T @ both


@pytest.mark.parametrize("n", [1, 3, 4, 7, 8, 9, 20, 33, 64, 131])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_gram_is_the_sum_of_products(n, k):
    rng = np.random.default_rng(n)
    m = 300 + n
    A, b = rng.standard_normal((m, n)) * np.geomspace(1e-3, 1e3, n), rng.standard_normal((m, k))
    A[5] *= 1e4
    exact = exactly(A, b)
    scale = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
    assert np.all(np.abs(by_kernel(A, b) - exact) <= 1e-14 * scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_weighted_and_centred(layout, dtype):
    rng = np.random.default_rng(2)
    A, b = (rng.standard_normal(shape).astype(DTYPES[dtype]) + 2 for shape in ((275, 11), (275, 2)))
    root, means = rng.random(275), rng.standard_normal(13)
    root[7] = 0
    exact = exactly(A[9:270], b[9:270], root[9:270], means)
    found = by_kernel(LAYOUTS[layout](A), b, root=root, means=means, first=9, stop=270)
    np.testing.assert_allclose(found, exact.astype(float), rtol=1e-12, atol=1e-12 * np.abs(exact).max().astype(float))


@pytest.mark.parametrize("n", [2, 4, 9, 40])
@pytest.mark.parametrize("condition", [1.0, 1e6, 1e15])
def test_the_solve_is_backward_stable_row_by_row(n, condition):
    """W itself, from one-row calls with an identity beside: b = I recovers W's rows as Wᵀb."""
    rng = np.random.default_rng(n)
    Q, V = (np.linalg.qr(rng.standard_normal((n, n)))[0] for _ in range(2))
    R = np.linalg.qr((Q * np.geomspace(1, 1 / condition, n)) @ V.T)[1]
    m = 24
    A = rng.standard_normal((m, n)) * np.geomspace(1, 1e8, m)[:, None]
    W = by_kernel(A, np.eye(m), R)[:n, n:].T.astype(np.longdouble)
    error = np.abs(W @ R.astype(np.longdouble) - A)
    assert np.all(error <= 2 * n * 1.2e-16 * (np.abs(W) @ np.abs(R)))


def test_near_orthonormal_whatever_the_condition_number():
    rng = np.random.default_rng(4)
    m, n = 3000, 30
    A = rng.standard_normal((m, n))
    A[:n] += 1e3 * np.eye(n)  # coherent
    A = A @ np.linalg.qr(rng.standard_normal((n, n)))[0] @ np.diag(np.geomspace(1, 1e-12, n)) @ np.triu(np.ones((n, n)))
    R = np.linalg.qr(A)[1]
    G = by_kernel(A, A[:, :1], R)
    assert np.abs(G[:n, :n] - np.eye(n)).max() < 1e-2  # R's own rounding, times the condition number 1e13


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("solve", [False, True])
def test_blas_and_panels_agree(weighted, solve, monkeypatch):
    rng = np.random.default_rng(3)
    A, b = rng.standard_normal((700, 17)) + 1, rng.standard_normal((700, 3))
    R = np.linalg.qr(A)[1] if solve else None
    found = []
    for limit in (0, 1000):
        monkeypatch.setattr(sweeps, "_BLAS_COLUMNS", limit)
        source = source_of(A, b, sample_weight=np.arange(700.0) if weighted else None, intercept=True)
        source.means = A.mean(axis=0), b.mean(axis=0)
        found.append(source.gram(R))
    for mine, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-11, atol=1e-12 * np.abs(theirs).max())


def test_the_bits_do_not_depend_on_the_number_of_workers():
    rng = np.random.default_rng(6)
    A, b = rng.standard_normal((9000, 21)), rng.standard_normal(9000)
    R = np.linalg.qr(A)[1]
    one, many = (source_of(A, b, workers=workers).gram(R) for workers in (1, 5))
    assert all(np.array_equal(x, y) for x, y in zip(one, many, strict=True))
