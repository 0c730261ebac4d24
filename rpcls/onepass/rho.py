"""How ρ is chosen: a number, Absolute, leave-one-out on the rows of the sketch, or a cover of the compression error."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..errors import InvalidTypeError, InvalidValueError
from ..linalg import column_norms
from .base import nonnegative
from .robust import Path

__all__ = ["Absolute", "checked_rho", "cover", "leave_one_out"]


@dataclass(frozen=True)
class Absolute:
    """ρ in the units of A, rather than relative to ‖SA‖₂.

    Parameters
    ----------
    value : float
        Finite and at least 0.

    Examples
    --------
    >>> from rpcls.onepass import Absolute, RobustPartiallyCompressed
    >>> RobustPartiallyCompressed(rho=Absolute(2.5))
    RobustPartiallyCompressed(rho=Absolute(value=2.5))
    """

    value: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", nonnegative(self.value, "Absolute(value)"))


def checked_rho(rho: Any, rules: tuple[str, ...]) -> float | str | Absolute:
    """`rho` as a rule, a float or an Absolute, or the error that lists what is allowed."""
    if isinstance(rho, Absolute) or (isinstance(rho, str) and rho in rules):
        return rho
    allowed = ", ".join([repr(rule) for rule in rules])
    what = f"rho must be {allowed}, a number at least 0 (relative to ‖SA‖₂) or Absolute(number), got {rho!r}"
    if isinstance(rho, str):
        raise InvalidValueError(what)
    try:
        return nonnegative(rho, "rho")
    except InvalidTypeError:
        raise InvalidTypeError(what) from None
    except InvalidValueError:
        raise InvalidValueError(what) from None


def cover(P: Any, norm: float) -> float:
    """(‖P‖_F + 2‖P‖₂)/√d: at least |‖Px‖ − ‖Ax‖|/‖x‖ for every x, with high probability for a good sketch."""
    return (float(np.linalg.norm(column_norms(P))) + 2 * norm) / math.sqrt(len(P))


_PER_DECADE = 20
_MOST_DF = 0.9


def leave_one_out(path: Path, d: int, model: Literal["partial", "full"]) -> np.ndarray:
    """μ (k,) that minimises the leave-one-sketch-row-out estimate of ‖Ax − b‖² over a grid, 20 values a decade.

    With f = Σσ²/(σ²+μ) degrees of freedom, leaving out one row of the sketch inflates its prediction by
    √F = 1/(1 − f/d) (the mean leverage stands for each). So ‖Ay‖² ≈ F‖Py‖² and, up to a constant, the error is

        partial   ½τ²F‖Py‖²·(1 + 1/√(2(d−f))) − τgᵀy,   τ = κ²/(κ² + μ)
        full      F‖q − Py‖²·(1 + 1/√(2(d−f)))          (generalised cross-validation)

    The last factor is half the relative standard error of the estimate: it cuts the tail of bad choices, and so does
    f ≤ 0.9d. Points of a grid anchored at σ₁², not a minimiser to the last digit: the error is flat there, and the
    choice is the same bits for any scaling of A or b by powers of two.
    """
    s2 = np.square(path.s)
    low, high = 1e-3 * s2[-1], 1e4 * s2[0]
    points = math.ceil(_PER_DECADE * math.log10(high / low)) + 1
    mu = high * 10.0 ** (-np.arange(points) / _PER_DECADE)
    df = np.sum(s2[:, None] / (s2[:, None] + mu), axis=0)
    keep = df <= _MOST_DF * d  # df grows along the grid; its first point, μ = 10⁴σ₁², has df ≤ r/10⁴
    mu, df = mu[keep], df[keep]
    factor = (1 + 1 / np.sqrt(2 * (d - df))) / np.square(1 - df / d)
    chosen = np.empty(path.c.shape[1])
    for j in range(len(chosen)):
        one = Path(path.s, path.c[:, j : j + 1], path.rest[j : j + 1])
        chosen[j] = mu[np.argmin(_objective(one, mu, factor, model))]
    return chosen


def _objective(path: Path, mu: np.ndarray, factor: np.ndarray, model: str) -> np.ndarray:
    """The estimate along the path of one problem, (len(mu),)."""
    s2, c2 = np.square(path.s)[:, None], np.square(path.c)
    inverse = 1.0 / (s2 + mu)
    if model == "full":
        return factor * (np.sum(c2 * np.square(mu * inverse), axis=0) + path.rest**2)
    fitted = np.sum(c2 * s2 * np.square(inverse), axis=0)
    aligned = np.sum(c2 * inverse, axis=0) + path.rest**2 / mu
    kappa2 = np.exp(2 * path.log_kappa(mu)[0])
    tau = kappa2 / (kappa2 + mu)
    return 0.5 * np.square(tau) * fitted * factor - tau * aligned
