"""rho="sweep": one more sweep over the rows finds the best combination of points on the robust path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..accuracy import check_certifiable, error_bound
from ..errors import InvalidValueError
from ..factor import Factor
from ..linalg import Spectrum, product, times_power, triangle
from ..solution import ErrorBound, Status
from .base import Answer, Summary
from .rho import leave_one_out
from .robust import Path

if TYPE_CHECKING:
    from ..ridge import SingularRidge
    from ..sources import Source

__all__ = ["galerkin"]

_CANDIDATES = 8


def galerkin(summary: Summary, spectrum: Spectrum | SingularRidge, source: Source) -> Answer:
    """min ‖Ax − b‖ over the span of K = 8 points y(μ) = (PᵀP + μI)⁻¹g of the path, from AᵀA on that span.

    The span holds every robust solution with one of these μ, whatever its shrinkage, so x is at least as good as the
    best of them. The μ are the choice of rho="loo" and a geometric grid from the smallest eigenvalue of PᵀP, or
    ten times below (d ≥ 2n: the unregularised end is worth a candidate), up to the largest.

    `rho` and `mu` of the answer are those of the candidate with the smallest error. AᵀAx comes with the sweep, so a
    certificate costs nothing more.
    """
    P, g, s, V = summary.P, summary.g, spectrum.s, spectrum.V
    k, n, rank = summary.k, summary.n, len(spectrum.s)
    c = product(V, g, transpose=True)
    seen = np.asarray(c.any(axis=0))
    path = Path(s, c, np.linalg.norm(g - product(V, c), axis=0) * (rank < n))
    mu = np.ones((_CANDIDATES, k))
    if seen.any():
        low = max(0.1 * s[-1], 1e-4 * s[0]) ** 2
        mu[:] = np.geomspace(low, s[0] ** 2, _CANDIDATES)[:, None]
        chosen = leave_one_out(path.part(seen), summary.d, "partial")
        for j, value in zip(np.flatnonzero(seen), chosen, strict=True):
            mu[np.argmin(np.abs(np.log(mu[:, j] / value))), j] = value

    basis = np.zeros((n, k, _CANDIDATES))
    for j in np.flatnonzero(seen):
        Y = product(V, c[:, j : j + 1] / (np.square(s)[:, None] + mu[:, j]))
        basis[:, j] = _orthonormal_under(P, Y)
    image = source.normal(times_power(basis.reshape(n, -1), -2 * summary.a)).reshape(basis.shape)

    x, gradient = np.zeros((n, k)), g.copy()
    size = np.zeros(k)
    best = np.zeros(k, np.int64)
    for j in np.flatnonzero(seen):
        Z, N = basis[:, j], image[:, j]
        used = Z.any(axis=0)
        Z, N = Z[:, used], N[:, used]
        H, f = Z.T @ N, Z.T @ g[:, j]
        coefficients = np.linalg.solve(0.5 * (H + H.T), f)
        x[:, j], gradient[:, j] = Z @ coefficients, g[:, j] - N @ coefficients
        size[j] = f @ coefficients
        best[j] = _best_candidate(Path(s, c[:, j : j + 1], path.rest[j : j + 1]), mu[:, j], V, P, Z, H, f)
    power = 2 * (summary.c - summary.a - summary.b)
    squares = np.maximum(summary.btb - times_power(size, power), 0.0)
    mu = mu[best, np.arange(k)]
    rho = np.zeros(k)
    if seen.any():
        rho[seen] = mu[seen] / np.exp(path.part(seen).log_kappa(mu[seen])[0])
    status, details = (Status.OK, "") if seen.all() else (Status.UNFITTED, "The sketch saw nothing of Aᵀb.")
    return Answer(
        x=x,
        shift=summary.c - 2 * summary.a,
        statuses=[status if not ok and g[:, j].any() else Status.OK for j, ok in enumerate(seen)],
        details=["" if ok else details for ok in seen],
        condition=spectrum.condition,
        rank=rank,
        estimate=times_power(np.sqrt(squares), summary.b),
        rho=times_power(rho, summary.a),
        mu=times_power(mu * seen, 2 * summary.a),
        error=None if rank < n else _certificate(summary, gradient, np.sqrt(squares)),
        sweeps=1,
    )


def _orthonormal_under(P: Any, Y: np.ndarray) -> np.ndarray:
    """Z = YT⁻¹ with PZ orthonormal; columns of Y that depend on those before them to rounding become zero."""
    Z = np.zeros_like(Y)
    for i in range(Y.shape[1]):
        z = Y[:, i : i + 1] / np.linalg.norm(product(P, Y[:, i : i + 1]))
        for _ in range(2):
            z = z - Z[:, :i] @ (product(P, Z[:, :i]).T @ product(P, z))
        size = np.linalg.norm(product(P, z))
        if size > 1e-8:
            Z[:, i] = z[:, 0] / size
    return Z


def _best_candidate(path: Path, mu: np.ndarray, V: Any, P: Any, Z: np.ndarray, H: np.ndarray, f: np.ndarray) -> int:
    """Which robust solution τ(μ)y(μ) has the smallest ½‖Ax‖² − gᵀx, A's Gram matrix on the span being H."""
    kappa2 = np.exp(2 * path.log_kappa(mu)[0])
    Y = product(V, path.c / (np.square(path.s)[:, None] + mu)) * (kappa2 / (kappa2 + mu))
    X = product(P, Z).T @ product(P, Y)  # coordinates in Z
    return int(np.argmin(0.5 * np.sum(X * (H @ X), axis=0) - f @ X))


def _certificate(summary: Summary, gradient: np.ndarray, residual: np.ndarray) -> ErrorBound | None:
    """The bound on ‖A(x − x*)‖; None where S or d gives none."""
    operator = summary.problem.operator
    if summary.d <= summary.n:
        return None
    factor = Factor.of(triangle(summary.P), summary.tolerance)
    try:
        check_certifiable(operator)
    except InvalidValueError:
        return None
    if not factor.full:
        return None
    unit = float(np.finfo(summary.problem.dtype).eps) / 2
    shift = summary.c - summary.a
    bound = error_bound(
        factor,
        gradient,
        "any",
        operator,
        exponent=-shift,
        floor=times_power(np.sqrt(summary.btb), summary.b) * unit,
        noise=times_power(residual, summary.b) * unit,
    )
    if summary.problem.Atb.ndim > 1:
        return bound
    return ErrorBound(float(bound.lower[0]), float(bound.upper[0]), bound.confidence)
