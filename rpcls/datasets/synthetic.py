"""Problems made to measure: stated condition number, coherence and signal-to-noise ratio, known answer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..errors import InvalidTypeError, InvalidValueError
from ..random import Key, RandomLike
from .record import Dataset

__all__ = ["synthetic"]

_SPECTRA = ("geometric", "power", "spiked", "step")
_SIGNALS = {"large": 1.0, "even": 0.0, "small": -1.0}  # energy of Ax* in direction i: σᵢ to twice this power
_COHERENCE = ("low", "heavy-tailed")


def synthetic(
    m: int,
    n: int,
    *,
    condition: float = 1e3,
    spectrum: str | np.ndarray = "geometric",
    coherence: str | float = "low",
    coherent_rows: int = 1,
    snr: float = 1.0,
    signal: str = "even",
    rng: RandomLike = None,
) -> Dataset:
    """A least-squares problem whose difficulty is stated and whose exact answer is known.

    A = UΣVᵀ with V uniformly random orthogonal, and b = Ax* + r with r exactly orthogonal to range(A). Each setting
    turns one knob that the error of a sketched solution depends on and leaves the others alone.

    Parameters
    ----------
    m, n : int
        Rows and columns, m > n ≥ 1.
    condition : float, default 1e3
        2-norm condition number of A, 1 … 1e14. Ignored when `spectrum` is an array.
    spectrum : {"geometric", "power", "spiked", "step"} or (n,) array, default "geometric"
        Singular values from √m down to √m/condition: at equal ratios; as a power law in their index; one in twenty
        (at least one) at the top and all others at the bottom; half at the top and half at the bottom. Or the
        positive singular values themselves.
    coherence : {"low", "heavy-tailed"} or float, default "low"
        Leverage scores of the rows. "low": those of a Gaussian matrix, all near n/m. "heavy-tailed": those of a
        multivariate Student t with one degree of freedom, a few rows carrying most. A number in (n/m, 1]:
        `coherent_rows` rows, at random places, have exactly this leverage, and all others less.
    coherent_rows : int, default 1
        1 … n. With a number for `coherence`: 1 is one huge row, n an identity block (rotated) on noise, where a
        sketch must find every one of n rows.
    snr : float, default 1.0
        ‖Ax*‖²/‖r‖², 0 … infinity. Infinity: the system is consistent. 0: x* = 0 and b is noise.
    signal : {"even", "large", "small"}, default "even"
        Where Ax* lies: evenly over the left singular vectors (Gaussian coefficients), with energy in proportion to
        σᵢ² (x* is then uniformly random: easy for shrinkage), or to 1/σᵢ² (the hard case for every regularised
        or robust model).
    rng : int, SeedSequence, Generator, Key or None
        See `rpcls.random.Key.of`.

    Returns
    -------
    Dataset
        With `x`, `residual_norm`, `condition`, `coherence` and `snr` filled in; ‖Ax*‖² = m (unless snr is 0, when
        ‖r‖² = m). Exact up to rounding; the coherence is measured on U.

    Raises
    ------
    InvalidValueError, InvalidTypeError
        A setting out of range, or a coherence that the other rows exceed.

    Notes
    -----
    Cost: O(mn²) flops and three arrays of A's size.

    Examples
    --------
    >>> import numpy as np
    >>> data = synthetic(2000, 20, condition=1e4, coherence=0.9, snr=np.inf, rng=0)
    >>> data
    Dataset('synthetic', 2000 × 20, target='b'..., condition=1e+04, coherence=0.9, snr=inf)
    >>> bool(np.linalg.norm(data.A @ data.x - data.b) <= 1e-12 * np.linalg.norm(data.b))
    True
    """
    _check_sizes(m, n, coherent_rows)
    sigma = _singular_values(spectrum, condition, m, n)
    if signal not in _SIGNALS:
        raise InvalidValueError(f"signal must be one of {', '.join(map(repr, _SIGNALS))}, got {signal!r}")
    if not _is_number(snr) or not snr >= 0:
        raise InvalidValueError(f"snr must be a number from 0 to infinity, got {snr!r}")
    draw = rng if isinstance(rng, np.random.Generator) else np.random.default_rng(Key.of(rng).value)

    U = _left_basis(coherence, coherent_rows, m, n, draw)
    V = _haar(n, draw)
    A = (U * sigma) @ V.T

    coefficients = draw.standard_normal(n) * sigma ** _SIGNALS[signal]
    coefficients *= (0.0 if snr == 0 else math.sqrt(m)) / np.linalg.norm(coefficients)
    x = V @ (coefficients / sigma)
    residual_norm = math.sqrt(m if snr == 0 else m / snr)
    b = A @ x
    if residual_norm > 0:
        r = draw.standard_normal(m)
        for _ in range(2):  # once leaves rounding of order 1e-16‖r‖ in range(A), which twice removes
            r -= U @ (U.T @ r)
        b += r * (residual_norm / np.linalg.norm(r))
    leverage = np.einsum("ij,ij->i", U, U)
    kappa = float(sigma.max() / sigma.min())
    return Dataset(
        name="synthetic",
        A=A,
        b=b,
        target="b",
        columns=None,
        description=(
            f"A made to measure: {spectrum if isinstance(spectrum, str) else 'given'} spectrum with condition number "
            f"{kappa:.3g}, {coherence if isinstance(coherence, str) else 'stated'} coherence {leverage.max():.3g}, "
            f"{signal} signal, SNR {snr:.3g}."
        ),
        x=x,
        residual_norm=residual_norm,
        condition=kappa,
        coherence=float(leverage.max()),
        snr=float(snr),
    )


def _check_sizes(m: Any, n: Any, coherent_rows: Any) -> None:
    for name, value in (("m", m), ("n", n), ("coherent_rows", coherent_rows)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise InvalidTypeError(f"{name} must be an int, got {type(value).__name__} {value!r}")
    if not m > n >= 1:
        raise InvalidValueError(f"synthetic needs more rows than columns and a column, got m = {m}, n = {n}")
    if not 1 <= coherent_rows <= min(n, m - n):
        raise InvalidValueError(
            f"coherent_rows must be between 1 and min(n, m − n) = {min(n, m - n)}, got {coherent_rows}"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _singular_values(spectrum: Any, condition: Any, m: int, n: int) -> np.ndarray:
    if not isinstance(spectrum, str):
        sigma = np.asarray(spectrum, dtype=np.float64)
        if sigma.shape != (n,) or not np.all(np.isfinite(sigma)) or not np.all(sigma > 0):
            raise InvalidValueError(f"spectrum must be n = {n} positive finite singular values, got {spectrum!r}")
        return sigma
    if spectrum not in _SPECTRA:
        raise InvalidValueError(
            f"spectrum must be one of {', '.join(map(repr, _SPECTRA))} or n singular values, got {spectrum!r}"
        )
    if not _is_number(condition) or not 1 <= condition <= 1e14:
        raise InvalidValueError(f"condition must be a number in 1 … 1e14, got {condition!r}")
    if n == 1 and condition != 1:
        raise InvalidValueError(f"one column always has condition number 1, got condition = {condition}")
    if spectrum == "geometric":
        exponents = np.linspace(0.0, 1.0, n)
    elif spectrum == "power":
        exponents = np.log(np.arange(1, n + 1)) / max(np.log(n), 1e-300)
    else:
        top = max(1, n // 20 if spectrum == "spiked" else n // 2)
        exponents = (np.arange(n) >= top).astype(np.float64)
    return math.sqrt(m) * float(condition) ** -exponents


def _haar(n: int, draw: np.random.Generator) -> np.ndarray:
    Q, R = np.linalg.qr(draw.standard_normal((n, n)))
    return Q * np.sign(np.diag(R))  # the sign makes Q uniform over the orthogonal group


def _left_basis(coherence: Any, k: int, m: int, n: int, draw: np.random.Generator) -> np.ndarray:
    """U (m, n) with orthonormal columns and the wanted leverage scores."""
    if isinstance(coherence, str):
        if coherence not in _COHERENCE:
            raise InvalidValueError(
                f"coherence must be one of {', '.join(map(repr, _COHERENCE))} or a number, got {coherence!r}"
            )
        rows = draw.standard_normal((m, n))
        if coherence == "heavy-tailed":  # a Gaussian over |a Gaussian| is a Student t with one degree of freedom
            rows /= np.maximum(np.abs(draw.standard_normal(m)), 1e-8)[:, None]
        return np.linalg.qr(rows)[0]

    if not _is_number(coherence) or not n / m < coherence <= 1:
        raise InvalidValueError(
            f"a number for coherence must be above n/m = {n / m:.3g} and at most 1, got {coherence!r}"
        )
    # With V_k (n, k) and Q orthonormal, [√c·V_kᵀ; Q(I − βV_kV_kᵀ)] is orthonormal iff (1 − β)² = 1 − c.
    c = float(coherence)
    Vk = _haar(n, draw)[:, :k]
    Q = np.linalg.qr(draw.standard_normal((m - k, n)))[0]
    Q -= (1.0 - math.sqrt(1.0 - c)) * (Q @ Vk) @ Vk.T
    others = float(np.einsum("ij,ij->i", Q, Q).max())
    if others > c:
        raise InvalidValueError(
            f"coherence = {c:.3g} is not the largest leverage score: another row has {others:.3g}; "
            f"state at least {others:.2g}, or use coherence='low'"
        )
    U = np.empty((m, n))
    special = np.zeros(m, dtype=bool)
    special[draw.choice(m, size=k, replace=False)] = True
    U[special] = math.sqrt(c) * Vk.T
    U[~special] = Q
    return U
