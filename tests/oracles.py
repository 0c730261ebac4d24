"""Independent answers: a convex solver, dual certificates, extended precision. Slow and obvious on purpose."""

from __future__ import annotations

import numpy as np


def robust_partial_socp(P: np.ndarray, g: np.ndarray, rho: float) -> tuple[np.ndarray, float]:
    """argmin and min of ½(‖Px‖ + ρ‖x‖)² − gᵀx as a second-order cone program."""
    import cvxpy as cp

    x, t, v, w = cp.Variable(P.shape[1]), cp.Variable(), cp.Variable(), cp.Variable()
    problem = cp.Problem(
        cp.Minimize(0.5 * cp.square(t) - g @ x), [cp.norm(P @ x) <= v, rho * cp.norm(x) <= w, v + w <= t]
    )
    problem.solve(solver=cp.CLARABEL)
    return x.value, problem.value


def robust_full_socp(P: np.ndarray, q: np.ndarray, rho: float) -> tuple[np.ndarray, float]:
    """argmin and min of ‖Px − q‖ + ρ‖x‖."""
    import cvxpy as cp

    x = cp.Variable(P.shape[1])
    problem = cp.Problem(cp.Minimize(cp.norm(P @ x - q) + rho * cp.norm(x)))
    problem.solve(solver=cp.CLARABEL)
    return x.value, problem.value


def robust_partial_value(P: np.ndarray, g: np.ndarray, rho: float, x: np.ndarray) -> float:
    return 0.5 * (np.linalg.norm(P @ x) + rho * np.linalg.norm(x)) ** 2 - g @ x


def robust_partial_gap(P: np.ndarray, g: np.ndarray, rho: float, x: np.ndarray) -> float:
    """Duality gap of x relative to |value|: F(x) + ½max(‖u‖, ‖g − Pᵀu‖/ρ)² ≥ 0 for every u; 0 at the solution."""
    value = robust_partial_value(P, g, rho, x)
    Px = P @ x
    if np.linalg.norm(Px) > 1e-12 * np.linalg.norm(P, 2) * np.linalg.norm(x):
        u = (np.linalg.norm(Px) + rho * np.linalg.norm(x)) * Px / np.linalg.norm(Px)
    else:
        u = np.linalg.pinv(P).T @ g
    bound = 0.5 * max(np.linalg.norm(u), np.linalg.norm(g - P.T @ u) / rho) ** 2
    return (value + bound) / abs(value)


def robust_full_gap(P: np.ndarray, q: np.ndarray, rho: float, x: np.ndarray) -> float:
    """Duality gap relative to the value: min ‖Px−q‖ + ρ‖x‖ = max qᵀu over ‖u‖ ≤ 1, ‖Pᵀu‖ ≤ ρ."""
    r = q - P @ x
    value = np.linalg.norm(r) + rho * np.linalg.norm(x)
    u = r / np.linalg.norm(r)
    u = u / max(1.0, np.linalg.norm(P.T @ u) / rho)
    return (value - q @ u) / value


def normal_equations_mp(P: np.ndarray, h: np.ndarray, ridge: float = 0.0, digits: int = 60) -> np.ndarray:
    """(PᵀP + λI)⁻¹h in extended precision, for exactly these float64 numbers."""
    import mpmath

    with mpmath.workdps(digits):
        M = mpmath.matrix(P.tolist())
        G = M.T * M
        for i in range(P.shape[1]):
            G[i, i] += mpmath.mpf(ridge)
        return np.array([float(v) for v in mpmath.lu_solve(G, mpmath.matrix(h.tolist()))])


def robust_partial_mp(P: np.ndarray, g: np.ndarray, rho: float, digits: int = 80) -> tuple[np.ndarray, float]:
    """x and μ by bisection on μ‖y‖ = ρ‖Py‖ in extended precision, P of full column rank."""
    import mpmath

    with mpmath.workdps(digits):
        M, h, r = mpmath.matrix(P.tolist()), mpmath.matrix(g.tolist()), mpmath.mpf(rho)
        G = M.T * M
        n = P.shape[1]

        def ridge(mu: mpmath.mpf) -> mpmath.matrix:
            return mpmath.lu_solve(G + mu * mpmath.eye(n), h)

        low, high = mpmath.mpf(0), r * mpmath.mnorm(M, "f")
        for _ in range(100):
            mu = mpmath.sqrt(low * high) if low > 0 else high / 2**8
            y = ridge(mu)
            if mu * mpmath.norm(y) < r * mpmath.norm(M * y):
                low = mu
            elif low == 0 and mu > high * mpmath.mpf(2) ** -400:
                high = mu
            else:
                high = mu
        x = (mu / (mu + r**2)) * y
        return np.array([float(v) for v in x]), float(mu)


def exact_backward_error(A: np.ndarray, b: np.ndarray, x: np.ndarray) -> float:
    """The formula of Waldén, Karlson and Sun, by the singular values of an m × (n + m) matrix."""
    r = b - A @ x
    size, theta = np.linalg.norm(A), np.linalg.norm(A) / np.linalg.norm(b)
    mu = theta**2 * (x @ x) / (1 + theta**2 * (x @ x))
    phi = np.sqrt(mu) * np.linalg.norm(r) / np.linalg.norm(x)
    wide = np.hstack([A, phi * (np.eye(len(b)) - np.outer(r, r) / (r @ r))])
    return min(phi, np.linalg.svd(wide, compute_uv=False)[-1]) / size
