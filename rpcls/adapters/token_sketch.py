"""How many rows a sketch of the tokens needs."""

from __future__ import annotations

import math

from ..errors import InvalidValueError
from .arrays import count, number

__all__ = ["token_sketch_size"]


def token_sketch_size(unknowns: int, explained: float, loss: float = 0.01) -> int:
    """How many sketch rows keep what sketching the tokens loses of the explained energy below `loss`.

    With m rows a fit loses about (d/m)(1 − R²) of ‖Z‖², d being its unknowns for each output. So m is
    1.25·d(1 − R²)/loss: a quarter more than on average, for the draws that are worse. Where R²/10 is less than `loss`,
    it stands in for it.

    Parameters
    ----------
    unknowns : int
        d: a fit's parameters divided by out_features, rounded up. For families of two parts with few numbers, NOLA and
        VeRA, take four times that: they lose two to four times what a linear family would.
    explained : float in (0, 1)
        R², the explained share of ‖Z‖² to expect.
    loss : float in (0, 1), default 0.01
        One point of explained energy.

    Returns
    -------
    int
        m, at least 2·unknowns.

    Raises
    ------
    InvalidValueError, InvalidTypeError
        An argument out of range.

    Notes
    -----
    The residual's errors at different outputs hardly correlate, so a block of unknowns that all outputs share loses as
    little as the same number spread over them. ``benchmarks/token_sketch.py`` measures this.

    Examples
    --------
    >>> from rpcls.adapters import token_sketch_size
    >>> token_sketch_size(64, 0.2), token_sketch_size(64, 0.2, loss=0.05), token_sketch_size(64, 0.9)
    (6400, 3200, 800)
    """
    d = count(unknowns, "unknowns")
    share, allowed = number(explained, "explained"), number(loss, "loss")
    for name, value in (("explained", share), ("loss", allowed)):
        if not 0 < value < 1:
            raise InvalidValueError(f"{name} must be in (0, 1), got {value:g}")
    return max(2 * d, math.ceil(1.25 * d * (1 - share) / min(allowed, share / 10)))
