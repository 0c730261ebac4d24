"""Least squares with bounds: the x in [0, 1]ᵏ that minimises xᵀMx − 2xᵀm, exactly."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from . import systems

__all__ = ["Bounded", "boxed", "clipped"]

_EPS = float(np.finfo(np.float64).eps)
_SHORTEST = 2.0**-40  # share of a step, beyond which nothing but rounding is left of it


class Bounded(NamedTuple):
    """The minimiser in the box.

    Attributes
    ----------
    x : (k,) array
    value : float
        xᵀMx − 2xᵀm.
    rank, free : int
        The rank of M among the unknowns between their bounds, and how many these are.
    """

    x: np.ndarray
    value: float
    rank: int
    free: int


def clipped(diagonal: np.ndarray, m: np.ndarray, start: np.ndarray) -> Bounded:
    """`boxed` for diagonal M."""
    used = systems.used(diagonal)
    x = np.clip(np.divide(m, diagonal, out=start.copy(), where=used), 0.0, 1.0)
    between = (x > 0) & (x < 1)
    return Bounded(x, float(x @ (diagonal * x - 2 * m)), int((between & used).sum()), int(between.sum()))


def boxed(M: np.ndarray, m: np.ndarray, start: np.ndarray) -> Bounded:
    """The minimiser by an active set that changes many bounds at once.

    On a face of the box, whose other unknowns stay at their bounds, Newton steps are cut at the box and halved until
    the objective falls; what reaches a bound stays there, so that a few of them end at the minimum of a smaller face.
    Then all bounds that the slope pushes off are released. The objective falls with every face, so none comes twice.

    Parameters
    ----------
    M : (k, k) array
        Symmetric positive semidefinite.
    m : (k,) array
    start : (k,) array in [0, 1]
        Unknowns that M does not determine end near it.

    Notes
    -----
    Each step solves one system of the free unknowns, at most k³/3 flops; usually there are 5 to 30.

    Examples
    --------
    >>> boxed(np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([4.0, 0.5]), np.ones(2)).x
    array([1., 0.])
    """
    x = start.copy()
    slope = M @ x - m
    value = float(x @ (slope - m))
    free = (x > 0) & (x < 1)
    rank = 0
    while True:
        noise = 100 * _EPS * (np.abs(M) @ x + np.abs(m))
        free |= ((x <= 0) & (slope < -noise)) | ((x >= 1) & (slope > noise))
        before = value
        while free.any():
            solved = systems.solve(M[np.ix_(free, free)], -slope[free])
            rank = solved.rank
            inside = x[free]
            whole = inside + solved.x
            if whole.min() >= 0 and whole.max() <= 1:
                x[free] = whole
                slope = M @ x - m
                value = float(x @ (slope - m))
                break
            x, slope, value = _cut(M, m, x, free, solved.x, value)
            free &= (x > 0) & (x < 1)
        if not value < before:
            return Bounded(x, value, rank if free.any() else 0, int(free.sum()))


def _cut(
    M: np.ndarray, m: np.ndarray, x: np.ndarray, free: np.ndarray, step: np.ndarray, value: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """x, slope and value after a step that leaves the box: cut at it, and halved, at most down to the first bound."""
    inside = x[free]
    room = np.full(len(step), np.inf)
    np.divide(np.where(step > 0, 1 - inside, -inside), step, out=room, where=step != 0)
    first, share = room.min(), 1.0
    least = max(first, _SHORTEST)
    while True:
        y = x.copy()
        y[free] = np.clip(inside + share * step, 0.0, 1.0)
        if share == first:  # the bound itself, not what rounding makes of it
            reached = np.flatnonzero(free)[room == first]
            y[reached] = np.where(step[room == first] > 0, 1.0, 0.0)
        slope = M @ y - m
        new = float(y @ (slope - m))
        if new < value or share == least:
            return y, slope, new
        share = max(share / 2, least)
