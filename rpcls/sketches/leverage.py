"""LeverageSampling: sample rows by importance, which takes a look at the rows first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InvalidTypeError, InvalidValueError
from ..factor import Factor
from ..kernels import on_card, on_host
from ..linalg import as_float64, triangle
from ..random import Key, RandomLike
from .base import SketchOperator
from .dense import Gaussian
from .sampling import SampledRows
from .sparse_sign import SparseSign

__all__ = ["LeverageSampling"]

_PROBES = 16  # random directions that estimate each leverage, within about 35 % in standard deviation


@dataclass(frozen=True)
class LeverageSampling:
    """Sampling of d rows, with replacement, in proportion to their leverage.

    Not a family, since S depends on A: `prepare` sweeps the rows twice, once for a first sketch and once for the scores
    ‖aᵢR⁻¹‖² (R the triangle of that sketch), and returns an operator that stores its rows. `rpcls.compress` and
    `rpcls.lstsq` accept it as `sketch` and count those sweeps.

    Parameters
    ----------
    uniform : float, default 0.1
        The share of the sample that is drawn uniformly, in (0, 1]: it bounds the factors √(1/(d·pᵢ)) by √(m/(0.1·d)).

    Notes
    -----
    Preserves lengths on the range within 1 ± η with probability 1 − δ when d ≥ 3βn·ln(2n/δ)/η², where the scores are
    within a factor β of the leverages [1]_, [2]_ (β about 2 here), on coherent rows as on any other. Memory 8 bytes a
    row, on the card for rows that are there. Scores are rounded otherwise on a card, so that a draw next to the edge of
    a row may pick its neighbour.

    References
    ----------
    .. [1] P. Drineas, M. Magdon-Ismail, M. W. Mahoney, D. P. Woodruff, "Fast approximation of matrix coherence and
       statistical leverage", JMLR 13 (2012) 3475, arXiv:1109.3843.
    .. [2] M. W. Mahoney, "Randomized algorithms for matrices and data", 2011, arXiv:1104.5557.

    Examples
    --------
    >>> import numpy as np, rpcls
    >>> A = np.random.default_rng(0).standard_normal((5000, 4))
    >>> A[17] *= 1000.0
    >>> c = rpcls.compress(A, A[:, 0], rpcls.LeverageSampling(), sketch_size=60, rng=0)
    >>> 17 in c.operator.family.indices, c.sweeps
    (True, 3)
    """

    uniform: float = 0.1

    def __post_init__(self) -> None:
        if isinstance(self.uniform, bool) or not isinstance(self.uniform, int | float | np.number):
            raise InvalidTypeError(f"uniform must be a float, got {type(self.uniform).__name__} {self.uniform!r}")
        if not 0 < self.uniform <= 1:
            raise InvalidValueError(f"uniform must be in (0, 1], got {self.uniform}")
        object.__setattr__(self, "uniform", float(self.uniform))

    @property
    def minimum_size(self) -> int:
        """The smallest d: 1."""
        return 1

    def prepare(self, source: Any, sketch_size: int, *, rng: RandomLike = None) -> SketchOperator:
        """Two sweeps over a source of rows: the operator.

        Parameters
        ----------
        source : Source
            Rows that can be swept more than once.
        sketch_size : int
            d.
        rng : int, SeedSequence, Generator, Key or None
        """
        from ..kernels.cpu import permutation

        key, n = Key.of(rng), source.n_columns
        first = SparseSign().sample(max(4 * n, 16), rng=key.fold(0))
        P = as_float64(source.compress(first).SA)
        factor = Factor.of(triangle(P), max(P.shape) * float(np.finfo(source.dtype).eps))
        probes = Gaussian().sample(_PROBES, m=max(1, factor.rank), rng=key.fold(1)).toarray()
        scores = source.scores(factor.half(probes.T[: factor.rank]))
        m, total = len(scores), float(scores.sum())
        if m == 0:
            raise InvalidValueError("LeverageSampling needs at least one row")
        share = 1 - self.uniform if total > 0 else 0.0
        chances = share * scores / (total or 1.0) + (1 - share) / m
        drawn = np.empty(sketch_size, np.int64)
        permutation.draw(np.uint64(key.fold(2).value), 1 << 53, 0, drawn)
        index, picked = _drawn(chances, drawn / 2.0**53)
        factors = 1 / np.sqrt(sketch_size * picked)
        start = getattr(source, "row_offset", 0)
        family = SampledRows(tuple((index + start).tolist()), tuple(factors.tolist()), sweeps=2)
        return family.sample(sketch_size, rng=key)


def _drawn(chances: Any, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows at those places in [0, 1) of the running sum of the chances, on a card or not, and their chances."""
    ends = chances.cumsum()
    places = places * float(ends[-1])
    if not on_card(chances):
        index = np.minimum(np.searchsorted(ends, places, side="right"), len(ends) - 1)
        return index, chances[index]
    from ..kernels.cuda.device import on_device

    with on_device(chances) as xp:
        index = np.minimum(on_host(xp.searchsorted(ends, xp.asarray(places), side="right")), len(ends) - 1)
        return index, on_host(chances[xp.asarray(index)])
