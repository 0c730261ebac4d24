"""Sketch sizes of the one-pass solvers: the default, and what the theorems say."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .errors import InvalidTypeError, InvalidValueError
from .sketches import (
    SRHT,
    BlockSRHT,
    CountSketch,
    Gaussian,
    LeverageSampling,
    Rademacher,
    RowSampling,
    SketchFamily,
    SparseSign,
)

__all__ = ["SketchSize", "default_sketch_size", "suggest_sketch_size"]


def default_sketch_size(n: int, family: SketchFamily | LeverageSampling) -> int:
    """max(4n, 2·family.minimum_size): the size to recommend for a one-pass answer in n unknowns.

    At d = 4n the error of full compression is about √(n/(d − n)) = 0.6 of the residual norm, and robust partial
    compression is within a few per cent of what it reaches at much larger d.
    """
    return max(4 * n, 2 * family.minimum_size)


@dataclass(frozen=True)
class SketchSize:
    """A sketch size and where it comes from.

    Attributes
    ----------
    size : int
        d.
    formula : str
        With η the distortion, ε = 2η − η² the distortion of squared lengths, δ the failure probability.
    reference : str
    proven : bool
        False where the formula is another family's, which this one is only known to follow in experiments.

    Examples
    --------
    >>> import rpcls
    >>> rpcls.suggest_sketch_size(100, 0.5, rpcls.Gaussian()).formula
    '(√n + √(2 ln(2/δ)))²/η²'
    """

    size: int
    formula: str
    reference: str
    proven: bool


def suggest_sketch_size(
    n: int,
    distortion: float,
    family: SketchFamily | LeverageSampling | None = None,
    failure_probability: float = 0.01,
    *,
    m: int | None = None,
    coherence: float | None = None,
) -> SketchSize:
    """The d at which S preserves the lengths of an n-dimensional range within 1 ± distortion.

    Parameters
    ----------
    n : int
        Columns of A (one more to cover b as well).
    distortion : float in (0, 1)
        η in (1 − η)‖y‖ ≤ ‖Sy‖ ≤ (1 + η)‖y‖ for all y in the range of A.
    family : SketchFamily or LeverageSampling, default SparseSign()
    failure_probability : float in (0, 1), default 0.01
        δ.
    m : int, optional
        Rows of A; SRHT and BlockSRHT need it.
    coherence : float in [n, m], optional
        m times the largest leverage of a row of A; RowSampling needs it.

    Returns
    -------
    SketchSize

    Raises
    ------
    InvalidValueError, InvalidTypeError
        An argument out of range or missing, or a family without a rule.

    Notes
    -----
    Theorems ask for more than is needed in practice, those of CountSketch and the Hadamard families for far more.

    Examples
    --------
    >>> import rpcls
    >>> rpcls.suggest_sketch_size(100, 0.5, rpcls.Gaussian(), 0.01).size
    703
    """
    family = SparseSign() if family is None else family
    n = int(_number(n, "n", 1, math.inf))
    eta, delta = _open(distortion, "distortion"), _open(failure_probability, "failure_probability")
    eps = 2 * eta - eta * eta
    size, formula, reference, proven = _rule(family, n, eta, eps, delta, m, coherence)
    return SketchSize(max(math.ceil(size), family.minimum_size), formula, reference, proven)


def _rule(
    family: Any, n: int, eta: float, eps: float, delta: float, m: Any, coherence: Any
) -> tuple[float, str, str, bool]:
    gaussian = (math.sqrt(n) + math.sqrt(2 * math.log(2 / delta))) ** 2 / eta**2
    normal = ("(√n + √(2 ln(2/δ)))²/η²", "Davidson & Szarek 2001, Theorem II.13, doi:10.1016/S1874-5849(01)80010-3")
    if isinstance(family, Gaussian):
        return gaussian, *normal, True
    if isinstance(family, SparseSign) and family.nnz_per_column >= 8:
        return (
            gaussian,
            normal[0],
            f"{normal[1]}, for Gaussian S; measured for ζ ≥ 8, see Chenakkod et al. 2311.10680",
            False,
        )
    if isinstance(family, CountSketch | SparseSign):
        return n * (n + 1) / (eps**2 * delta), "n(n + 1)/(ε²δ)", "Nelson & Nguyễn, arXiv:1211.1002, Theorem 5", True
    if isinstance(family, Rademacher):
        size = (n * math.log(9) + math.log(2 / delta)) / (eps**2 / 16 - eps**3 / 48)
        source = "Achlioptas 2003, doi:10.1016/S0022-0000(03)00025-4, on a ¼-net: Vershynin, HDP 2018, §4.4"
        return size, "(n ln 9 + ln(2/δ))/(ε²/16 − ε³/48)", source, True
    if isinstance(family, SRHT | BlockSRHT):
        padded = 1 << (int(_number(m, f"m, which {family!r} needs,", n, math.inf)) - 1).bit_length()
        size = 6 / eps**2 * (math.sqrt(n) + math.sqrt(8 * math.log(3 * padded / delta))) ** 2 * math.log(3 * n / delta)
        formula = "6ε⁻²(√n + √(8 ln(3m′/δ)))² ln(3n/δ)"
        source = "Boutsidis & Gittens 2013, doi:10.1137/120874540, Lemma 4; m′ the power of two that holds m"
        if isinstance(family, SRHT):
            return min(size, padded), f"{formula}, at most m′", source, True
        return size, formula, f"{source}, for SRHT; measured for BlockSRHT, see Balabanov et al. 2210.11295", False
    if isinstance(family, RowSampling):
        mu = _number(coherence, f"coherence, which {family!r} needs,", n, math.inf)
        return (
            3 * mu * math.log(2 * n / delta) / eps**2,
            "3µ ln(2n/δ)/ε², µ the coherence",
            "Tropp, arXiv:1011.1595",
            True,
        )
    if isinstance(family, LeverageSampling):
        mu = 2 * n / (1 - family.uniform) if family.uniform < 1 else math.inf
        if math.isinf(mu):
            raise InvalidValueError("LeverageSampling(uniform=1) is RowSampling; ask for that, with a coherence")
        source = "Tropp, arXiv:1011.1595, with scores within a factor 2 of the leverages"
        return 3 * mu * math.log(2 * n / delta) / eps**2, "3βn ln(2n/δ)/ε², β = 2/(1 − uniform)", source, False
    raise InvalidTypeError(f"family must be one that rpcls has a rule for, such as rpcls.SparseSign(), got {family!r}")


def _number(value: Any, name: str, least: float, most: float) -> float:
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise InvalidTypeError(f"{name} must be a number, got {value!r}")
    if not least <= float(value) <= most:
        raise InvalidValueError(f"{name} must be at least {least:g}, got {value}")
    return float(value)


def _open(value: Any, name: str) -> float:
    number = _number(value, name, -math.inf, math.inf)
    if not 0 < number < 1:
        raise InvalidValueError(f"{name} must be in (0, 1), got {value}")
    return number
