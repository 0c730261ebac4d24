"""Conjugate gradients on PᵀAᵀAP in stages, each begun from a residual that was formed explicitly."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..factor import Factor
from .posed import FINE, NEAR, Posed

__all__ = ["conjugate_gradients", "staged"]

_STAGES = 10
_MOST = 100  # iterations of a stage; one that needs them all has a failed sketch
_STAGE_GAIN = 1e-4  # in backward error


def conjugate_gradients(
    normal: Callable[[np.ndarray], np.ndarray],
    h: np.ndarray,
    stop: Callable[[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    most: int = _MOST,
) -> tuple[np.ndarray, int]:
    """Solve My = h for k columns at once, M positive definite, from y = 0.

    Parameters
    ----------
    normal : function of p (r, k)
        Mp.
    stop : function of the number of iterations, the last step (k,) and direction p (r, k), y and the residual h − My
        Which columns are done, (k,); y has just become y + step·p.

    Returns
    -------
    y : (r, k) array
    iterations : int
    """
    y, rho, p = np.zeros_like(h), h.copy(), h.copy()
    gamma = np.sum(rho * rho, axis=0)
    done = gamma == 0
    iterations = 0
    while iterations < most and not done.all():
        Mp = normal(p)
        iterations += 1
        curvature = np.sum(p * Mp, axis=0)
        alive = ~done & (curvature > 0)
        step = np.divide(gamma, curvature, out=np.zeros_like(gamma), where=alive)
        y += step * p
        rho -= step * Mp
        new = np.sum(rho * rho, axis=0)
        done |= stop(iterations, step, p, y, rho) | ~alive | (new == 0)
        p = rho + np.divide(new, gamma, out=np.zeros_like(gamma), where=gamma > 0) * p
        gamma = new
    return y, iterations


def staged(
    posed: Posed,
    factor: Factor,
    x: np.ndarray,
    enough: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None,
    *,
    extra: bool = False,
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Refine x until the backward error is at the rounding level, or `enough(x, h)` says so, column by column.

    The first stage stops when updates are lost in the rounding error of the residual that it began from; the later
    ones, each with a fresh residual, on the backward error [1]_.

    A small backward error is not enough where the step that is still due, Ph, is not small beside x: then x is mostly
    what the sketch's noise left in small singular directions, and the backward error, which is relative to ‖x‖, says
    little. Such an x is refined for as long as ‖h‖ falls by a digit.

    Parameters
    ----------
    posed : Posed
    factor : Factor
        Of the sketch.
    x : (n, k) array
        The minimiser of the sketched problem. Conjugate gradients from zero instead would lose digits.
    enough : function, optional
        Of x (n, k), h (r, k) and Aᵀ(b − Ax) − λx (n, k): which columns are accurate enough, (k,).
    extra : bool, default False
        One more stage at the end.

    Returns
    -------
    x : (n, k) array
    h : (r, k) array
        PᵀAᵀ(b − Ax): the explicit one, or the recurrence's for an x that was `enough`.
    converged : bool

    References
    ----------
    .. [1] E. N. Epperly, M. Meier, Y. Nakatsukasa, "Fast randomized least-squares solvers can be just as accurate and
       stable as classical direct solvers", arXiv:2406.03468.
    """
    unit = posed.unit
    moved = turned = x  # what the current p adds to x, and takes from Aᵀ(b − Ax) − λx

    def normal(p: np.ndarray) -> np.ndarray:
        nonlocal moved, turned
        moved, turned, found = factor.around(posed.normal, p)
        return found

    def rounding(x: np.ndarray) -> np.ndarray:
        """About what rounding leaves of ‖h‖, in units."""
        return factor.norm * posed.size(factor, x) + 0.04 * factor.condition * posed.residual

    before, previous, iterations = np.full(posed.k, math.inf), np.full(posed.k, math.inf), 0
    for stage in range(_STAGES + 1):
        h = factor.half_transpose(posed.gradient(x))
        if stage == 0 and posed.lost(factor):
            return x, h, False
        error, size = posed.backward_error(factor, x, h, bound=stage == 0), np.linalg.norm(h, axis=0)
        known = posed.size(factor, factor.half(h)) <= posed.size(factor, x) / 2
        fine = (error <= FINE * unit) & (known | (size > previous / 10) | (size <= unit * rounding(x)))
        if stage == 1:  # what stage 0 leaves in ‖A(x − x*)‖ may be ten times what QR does
            fine &= size <= 10 * posed.floor
        if enough is not None:
            fine |= enough(x, h, posed.slope)
        stuck = (error > before / 2) & (size > previous / 2)
        if np.all(fine | stuck) or stage == _STAGES or iterations == _MOST:
            if not (extra and fine.all() and stage < _STAGES):
                break
            extra, fine = False, np.zeros_like(fine)
        found = np.where(fine, h, 0.0)
        now, slope = x.copy(), posed.slope.copy()
        goal, before, previous = np.maximum(unit / 2, _STAGE_GAIN * error), error, size

        def stop(
            iteration: int, step: np.ndarray, p: np.ndarray, y: np.ndarray, rho: np.ndarray,
            now: np.ndarray = now, slope: np.ndarray = slope,
            stage: int = stage, found: np.ndarray = found, goal: np.ndarray = goal,
        ) -> np.ndarray:  # fmt: skip
            now += step * moved
            slope -= step * turned
            if enough is not None:
                done = enough(now, rho, slope)
                if done.any():
                    found[:, done] = rho[:, done]
                    return done
            if stage == 0:
                return step * np.linalg.norm(p, axis=0) <= 10 * unit * rounding(now)
            return posed.backward_error(factor, now, rho, slope, bound=True) <= goal

        y, iterations = conjugate_gradients(normal, np.where(fine, 0.0, h), stop)  # pyright: ignore[reportGeneralTypeIssues]
        x = x + factor.half(y)
        if enough is not None and np.all(fine | found.any(axis=0)):
            return x, found, True
    return x, h, bool(np.all((error <= NEAR * unit) | fine))
