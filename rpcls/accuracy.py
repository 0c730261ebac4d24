"""How wrong is this x? Certificates from the gradient and the sketch, a damped step, confidence intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from .errors import InvalidTypeError, InvalidValueError
from .factor import Factor
from .linalg import times_power
from .sketches import SRHT, RowSampling, SampledRows, SketchOperator
from .solution import ErrorBound

__all__ = [
    "CONFIDENCES",
    "Inference",
    "Kind",
    "certifiable",
    "certificate_factor",
    "certificate_floor",
    "check_certifiable",
    "checked_confidence",
    "damped_step",
    "error_bound",
    "thinning",
]

Kind = Literal["any", "full", "partial", "iterate"]

CONFIDENCES = (0.9, 0.999)  # the range in which the factors were calibrated
_Z99 = 2.3263478740408408  # the normal quantile of 0.99


def certificate_factor(
    kind: Kind, d: int, n: int, *, m: int | None = None, hadamard: bool = False, confidence: float = 0.99
) -> float:
    """The c with ‖A(x − x*)‖ ≤ c‖h‖, h = R⁻ᵀAᵀ(b − Ax), R the triangle of SA, with probability at least `confidence`.

    Parameters
    ----------
    kind : {"any", "full", "partial", "iterate"}
        How x came about. "any": independently of S, or by any refinement: c bounds the largest singular value of S on
        the range of A. The others hold for x made from the same S: "full" by `FullyCompressed`, "partial" by
        `PartiallyCompressed("raw")`, "iterate" by best-scaled or debiased partial compression, a robust or combined
        model, or preconditioned conjugate gradients.
    d, n : int
        Sketch size and columns, d > n.
    m : int, optional
        Rows of A; with `hadamard`, for an `SRHT`, whose rows are drawn without replacement, γ = n/d is then multiplied
        by 1 − d/m′ for "full" and "partial" (m′ the power of two that holds m).
    hadamard : bool, default False
    confidence : float, default 0.99
        0.9 … 0.999.

    Notes
    -----
    With γ = n/d and u = 1 − γ (centres exact as n → ∞ under a Gaussian S; the terms in 1/√d calibrated by simulation
    over n = 3 … 60 and d = 1.1n … 10n for S Gaussian, and checked by ``benchmarks/certificate.py`` with sparse and
    Hadamard sketches on coherent rows):

        any       1.05(1 + √γ) + 1/√d
        full      u + 2.05/√d
        partial   u√((1 − 2u² + u³)/(2 − u − 2u² + u⁴)) + (1.2 + 3u³ + 12/n²)/√d
        iterate   1 + 2.7/√d

    and never more than "any". The last terms are multiplied by 1 + 0.4(z − 2.326), z the normal quantile of the
    confidence. Within a factor two of the error only for d ≥ 2n.
    """
    gamma, g = _gammas(d, n, m, hadamard)
    spread = (1 + 0.4 * (_quantile(checked_confidence(confidence)) - _Z99)) / math.sqrt(d)
    anyhow = 1.05 * (1 + math.sqrt(gamma)) + spread
    u = 1 - g
    if kind == "any":
        return anyhow
    if kind == "full":
        c = u + 2.05 * spread
    elif kind == "partial":
        c = _centre_of_partial(u) + (1.2 + 3 * u**3 + 12 / n**2) * spread
    else:
        c = 1 + 2.7 * spread
    return min(c, anyhow)


def certificate_floor(
    kind: Kind, d: int, n: int, *, m: int | None = None, hadamard: bool = False, confidence: float = 0.99
) -> float:
    """The c ≥ 0 with ‖A(x − x*)‖ ≥ c‖h‖ with probability at least `confidence`; parameters as `certificate_factor`.

    Notes
    -----
    "any": 0.95(1 − √γ) − 1/√d, below the smallest singular value of S on the range of A. The others, calibrated with
    the upper ones, and never less than that:

        full      u − 1.8√(u/d)
        partial   the centre of its upper factor − 1.6√(u/d)
        iterate   u^1.5 − (0.5 + 2u³)/√d
    """
    gamma, g = _gammas(d, n, m, hadamard)
    spread = (1 + 0.4 * (_quantile(checked_confidence(confidence)) - _Z99)) / math.sqrt(d)
    u = 1 - g
    c = 0.95 * (1 - math.sqrt(gamma)) - spread
    if kind == "full":
        c = max(c, u - 1.8 * math.sqrt(u) * spread)
    elif kind == "partial":
        c = max(c, _centre_of_partial(u) - 1.6 * math.sqrt(u) * spread)
    elif kind == "iterate":
        u = 1 - gamma
        c = max(c, u**1.5 - (0.5 + 2 * u**3) * spread)
    return max(c, 0.0)


def _centre_of_partial(u: float) -> float:
    return u * math.sqrt((1 - 2 * u**2 + u**3) / (2 - u - 2 * u**2 + u**4))


def _gammas(d: int, n: int, m: int | None, hadamard: bool) -> tuple[float, float]:
    """n/d, and the same less what sampling without replacement takes off."""
    if not d > n:
        raise InvalidValueError(
            f"a certificate needs sketch_size > n, got sketch_size = {d} and n = {n}: the sketch does not see every "
            "direction of the error; compress with sketch_size ≥ 2n"
        )
    return n / d, n / d * (thinning(d, m) if hadamard else 1.0)


def thinning(d: int, m: int | None) -> float:
    """1 − d/m′, which multiplies variances when d of the m′ rows of a transform are drawn without replacement."""
    if m is None:
        return 1.0
    return max(1 - d / (1 << max(m - 1, 0).bit_length()), 0.0)


def _quantile(confidence: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(confidence)


def checked_confidence(confidence: Any) -> float:
    """`confidence` as a float in the calibrated range, or the error that says so."""
    if isinstance(confidence, bool) or not isinstance(confidence, int | float | np.number):
        raise InvalidTypeError(f"confidence must be a float, got {type(confidence).__name__} {confidence!r}")
    low, high = CONFIDENCES
    if not low <= confidence <= high:
        raise InvalidValueError(
            f"confidence must be in {low} … {high}, for which the bounds were calibrated, got {confidence!r}"
        )
    return float(confidence)


def certifiable(operator: SketchOperator) -> bool:
    """Whether sketches of this kind keep lengths on every range, coherent or not."""
    return _objection(operator) is None


def check_certifiable(operator: SketchOperator) -> None:
    """Raise unless `certifiable`.

    Raises
    ------
    InvalidValueError
        CountSketch, SparseSign(1), sampled rows: rows of A that alone carry a direction may be lost.
    """
    why, family = _objection(operator), operator.family
    if why is not None:
        name = type(family).__name__ if isinstance(family, SampledRows) else repr(family)  # which lists all of them
        raise InvalidValueError(
            f"{name} gives no certificate, because {why}, and nothing in the summary shows it; "
            "compress with rpcls.SparseSign()"
        )


def _objection(operator: SketchOperator) -> str | None:
    if getattr(operator.family, "nnz_per_column", None) == 1:
        return "two heavy rows of A may fall into one row of a sketch with one entry a column"
    if isinstance(operator.family, RowSampling | SampledRows):
        return "sampling may miss rows of A that alone carry a direction"
    return None


def error_bound(
    factor: Factor,
    gradient: np.ndarray,
    kind: Kind,
    operator: SketchOperator,
    confidence: float = 0.99,
    *,
    exponent: Any = 0,
    floor: Any = 0.0,
    noise: Any = 0.0,
) -> ErrorBound:
    """Bounds on ‖A(x − x*)‖ from Aᵀ(b − Ax).

    Parameters
    ----------
    factor : Factor
        Of the sketch SA without ridge, in units of A·2^-exponent.
    gradient : (n,) or (n, k) array
        Aᵀ(b − Ax), in the caller's units.
    kind : {"any", "full", "partial", "iterate"}
        As for `certificate_factor`.
    operator : SketchOperator
        S, which decides whether there is a certificate, and which.
    confidence : float, default 0.99
        Each of the two bounds holds with this probability.
    exponent : int, default 0
    floor : float or (k,) array, default 0.0
        ‖b‖ times the rounding unit of A's dtype: ten of it widen the bounds.
    noise : float or (k,) array, default 0.0
        ‖b − Ax‖ times that unit; times the condition number, it is what rounding leaves of h at x*, and not error.

    Raises
    ------
    InvalidValueError
        d ≤ n, a sketch of lower rank than n, a family without a certificate, or a confidence out of range.
    """
    check_certifiable(operator)
    d, n = operator.sketch_size, factor.n
    if kind not in get_args(Kind):
        raise InvalidValueError(f"kind must be one of {', '.join(map(repr, get_args(Kind)))}, got {kind!r}")
    settings: dict[str, Any] = {
        "m": operator.m,
        "hadamard": isinstance(operator.family, SRHT),
        "confidence": confidence,
    }
    c, least = certificate_factor(kind, d, n, **settings), certificate_floor(kind, d, n, **settings)
    if factor.rank < n:
        raise InvalidValueError(
            f"a certificate needs a sketch of full rank, got numerical rank {factor.rank} for n = {n}: errors in the "
            "directions that SA does not see cannot be bounded; leave out the columns of A that depend on others"
        )
    h = factor.half_transpose(np.asarray(gradient, np.float64).reshape(n, -1))
    with np.errstate(over="ignore"):
        size = times_power(np.linalg.norm(h, axis=0), -np.asarray(exponent))
    if np.ndim(gradient) == 1:
        size = size[0]
    return ErrorBound(
        lower=_plain(np.maximum(least * (size - factor.condition * noise) - 10 * floor, 0.0)),
        upper=_plain(c * size + 10 * floor),
        confidence=float(confidence),
    )


def damped_step(factor: Factor, x: np.ndarray, h: np.ndarray, d: int) -> np.ndarray:
    """x + αR⁻¹h with α = (1 − γ)²/(1 + γ), γ = n/d, for h = R⁻ᵀAᵀ(b − Ax): a better x from the sweep of a certificate.

    The error falls to about .65, .59, .45, .33 of what it was at d = 1.5n, 2n, 4n, 8n. (The full step, α = 1, makes
    the x of full compression worse below d ≈ 5n.) A certificate of the new x is of the kind "any", and costs one more
    sweep.

    Parameters
    ----------
    factor : Factor
    x, h : (n, k) arrays
        In the units of the factor: x·R makes sense.
    d : int
        Sketch size, above n.
    """
    gamma, _ = _gammas(d, factor.n, None, False)
    return x + (1 - gamma) ** 2 / (1 + gamma) * factor.half(h)


def _plain(value: Any) -> Any:
    return float(value) if np.ndim(value) == 0 else value


@dataclass(frozen=True)
class Inference:
    """What confidence intervals for vᵀx* need: a centre, and var(vᵀx) = thin·(noise²·vᵀG⁻¹v + slope²(vᵀcentre)²).

    Attributes
    ----------
    factor : Factor
        Of P = R, G = PᵀP, in units of order one.
    center : (n, k) array
    shift : (k,) int array
        center·2^shift is in the caller's units, and so are the widths.
    noise : (k,) array
    slope : float
    freedom : int
        d − n, the degrees of freedom of Student's t.
    thin : float
        1, or 1 − d/m′ for an SRHT.
    """

    factor: Factor
    center: np.ndarray
    shift: np.ndarray
    noise: np.ndarray
    slope: float
    freedom: int
    thin: float

    def interval(self, v: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper ends, (k,), in the caller's units, for vᵀx* with v (n,)."""
        from scipy.special import stdtrit

        half = np.linalg.norm(self.factor.half_transpose(v[:, None]))
        middle = v @ self.center
        width = stdtrit(self.freedom, 0.5 + 0.5 * level) * math.sqrt(self.thin)
        width = width * np.hypot(self.noise * half, self.slope * middle)
        return times_power(middle - width, self.shift), times_power(middle + width, self.shift)
