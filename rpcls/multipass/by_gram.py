"""The solve by BLAS 3: the Gram matrix of AR⁻¹, R from a sketch, and refinement from explicit residuals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..factor import Factor
from ..kernels import on_card
from ..linalg import cholesky_solver, scaled_gram, times_power
from .posed import NEAR, Posed

__all__ = ["MOST", "SETTLED", "refine", "solve_gram"]

SETTLED = 1e-11  # backward error from which a refinement, which costs no sweep, is known to reach rounding
MOST = 4
_MOST_ON_CARD = 8  # where a refinement costs a fraction of the Gram matrix


def solve_gram(
    posed: Posed, factor: Factor, *, plain: bool, extra: bool = False
) -> tuple[np.ndarray, np.ndarray, bool]:
    """x from (AR⁻¹)ᵀ(AR⁻¹) y = (AR⁻¹)ᵀb, refined; `plain`: from AᵀA with its columns at unit norm.

    W = AR⁻¹ has singular values near one whatever those of A, so its Gram matrix keeps every digit; the triangular
    solve is backward stable row by row, and x = R⁻¹y as good as Householder QR after one refinement.

    Returns
    -------
    x, h, converged
        As `refine`; False also when the Gram matrix is not positive definite.
    """
    M, z = posed.gram(None if plain else factor.triangle)
    e = factor.exponents[:, None]
    most = _MOST_ON_CARD if on_card(M) else MOST
    solve = cholesky_solver(scaled_gram(M, e[:, 0]) if plain else M)
    if solve is None:
        return np.zeros_like(z), np.zeros_like(z), False

    def from_gradient(g: np.ndarray) -> np.ndarray:
        if plain:
            return times_power(solve(times_power(g, -e)), -e)
        return factor.half(solve(factor.half_transpose(g)))

    x = from_gradient(z) if plain else factor.half(solve(z))
    return refine(posed, factor, x, from_gradient, extra=extra, most=most)


def refine(
    posed: Posed,
    factor: Factor,
    x: np.ndarray,
    step: Callable[[np.ndarray], np.ndarray],
    *,
    extra: bool,
    most: int = MOST,
    settled: float = SETTLED,
    bound: bool = False,
) -> tuple[np.ndarray, np.ndarray, bool]:
    """x ← x + step(Aᵀ(b − Ax)) until the backward error before the last step was near the rounding level; one more time
    if `extra`.

    Near: at most `settled`, from where one more step is known to reach rounding; `bound`: by an upper bound, without a
    factorisation, where R is so well conditioned that this decides the same.

    A step that is not small beside an x whose backward error will do is left out: it would change x, within its
    conditioning, but not improve it.

    Returns
    -------
    x : (n, k) array
    h : (n, k) array
        PᵀAᵀ(b − Ax) before the last step.
    converged : bool
    """
    previous = np.full(posed.k, np.inf)
    for _ in range(most + extra):
        g = posed.gradient(x)
        h = factor.half_transpose(g)
        error, move = posed.backward_error(factor, x, h, bound=bound), step(g)
        small = posed.size(factor, move) <= posed.size(factor, x) / 2
        stay = (error <= NEAR * posed.unit) & ~small
        x = x + np.where(stay, 0.0, move)
        if np.all(stay | (small & (error <= settled))):
            if not extra:
                return x, h, True
            extra = False
        elif np.any((error > settled) & (error > previous / 2)):
            break
        previous = error
    return x, h, False
