"""The ridge path: tridiagonal against singular values, and both against plain solves."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import eigh_tridiagonal

from rpcls.ridge import GramRidge, SingularRidge


def tridiagonals() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Diagonals and subdiagonals."""
    rng = np.random.default_rng(0)
    graded = 10.0 ** -np.arange(0, 15, 0.5)
    return {
        "one": (np.array([3.0]), np.empty(0)),
        "random": (rng.standard_normal(60), rng.standard_normal(59)),
        "diagonal": (rng.standard_normal(9), np.zeros(8)),
        "zero": (np.zeros(5), np.zeros(4)),
        "falls apart": (rng.standard_normal(20), rng.standard_normal(19) * (np.arange(19) % 5 > 0)),
        "equal": (np.full(30, 2.0), np.full(29, -1.0)),
        "zero diagonal": (np.zeros(21), np.ones(20)),
        "graded": (graded, 0.3 * np.sqrt(graded[1:] * graded[:-1])),
        "Wilkinson's, with nearly equal pairs": (np.abs(np.arange(-10.0, 11.0)), np.ones(20)),
    }


@pytest.mark.parametrize("name", tridiagonals())
def test_eigenvalues_and_coordinates_of_tridiagonal_matrices(name: str) -> None:
    from rpcls.kernels.cpu import tridiagonal

    diagonal, beside = tridiagonals()[name]
    T = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
    n, size = len(T), np.abs(T).sum(axis=1).max()
    V, values = np.eye(n), diagonal.copy()
    assert tridiagonal.diagonalise(values, np.append(beside, 0.0), V)  # V becomes VᵀI
    np.testing.assert_allclose(V @ V.T, np.eye(n), atol=1e-14 * n)
    np.testing.assert_allclose(V @ T @ V.T, np.diag(values), atol=1e-15 * n * size)
    np.testing.assert_allclose(np.sort(values), eigh_tridiagonal(diagonal, beside)[0], atol=1e-15 * n * size)
    C = np.random.default_rng(1).standard_normal((n, 3))
    again, turned = diagonal.copy(), C.copy()
    tridiagonal.diagonalise(again, np.append(beside, 0.0), turned)
    assert np.array_equal(again, values)
    np.testing.assert_allclose(turned, V @ C, atol=1e-14 * n)


def test_what_does_not_converge_is_told() -> None:
    from rpcls.kernels.cpu import tridiagonal

    assert not tridiagonal.diagonalise(np.full(3, np.nan), np.full(3, np.nan), np.zeros((3, 1)))


@pytest.mark.parametrize(("d", "n", "k"), [(200, 70, 1), (64, 64, 3), (300, 100, 2)])
def test_both_ridges_are_the_solutions(d: int, n: int, k: int) -> None:
    rng = np.random.default_rng(5)
    P, h, mu = rng.standard_normal((d, n)), rng.standard_normal((n, k)), 10.0 ** rng.uniform(-2, 2, k)
    _, s, Vt = np.linalg.svd(P, full_matrices=False)
    accurate, cheap = SingularRidge(s, Vt @ h, s[0] / s[-1], Vt.T), GramRidge.of(P, h)
    assert cheap is not None and accurate.certified and not cheap.certified
    solutions = np.column_stack([np.linalg.solve(P.T @ P + mu[j] * np.eye(n), h[:, j]) for j in range(k)])
    tolerance = 1e-15 * accurate.condition**2
    np.testing.assert_allclose(cheap.s, s, rtol=tolerance)
    np.testing.assert_allclose(cheap.condition, accurate.condition, rtol=tolerance)
    np.testing.assert_allclose(np.abs(cheap.c), np.abs(accurate.c), atol=1e-10)
    Y = rng.standard_normal((n, 5))
    for ridge in (accurate, cheap):
        np.testing.assert_allclose(ridge.at(mu), solutions, rtol=1e-9, atol=1e-10)
        B = ridge.half(np.eye(n))
        np.testing.assert_allclose(B.T @ P.T @ P @ B, np.eye(n), atol=n * tolerance)
        np.testing.assert_allclose(ridge.half(Y), B @ Y, rtol=1e-9, atol=1e-9 * np.abs(B).max())


def test_the_gram_matrix_is_not_trusted_when_it_cannot_be() -> None:
    rng = np.random.default_rng(6)
    h = np.zeros((70, 1))
    U, V = np.linalg.qr(rng.standard_normal((200, 70)))[0], np.linalg.qr(rng.standard_normal((70, 70)))[0]
    assert GramRidge.of(U * np.geomspace(1, 1e-5, 70) @ V, h) is not None
    assert GramRidge.of(U * np.geomspace(1, 1e-6, 70) @ V, h) is None
    assert GramRidge.of(rng.standard_normal((60, 70)), h) is None
    assert GramRidge.of(rng.standard_normal((200, 10)), h[:10]) is None
