"""FourierFT: a few waves of the two-dimensional Fourier transform."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import InvalidTypeError, InvalidValueError
from .arrays import count, number, plain
from .family import Family, Layer, Model, one_half
from .grouped import Entries, Grouped

__all__ = ["FourierFT", "peft_indices"]

_LARGEST = (2**32 - 1) // 20  # entries of a layer from which torch permutes in another way


@dataclass(frozen=True)
class FourierFT(Family):
    """dW = s·Re(ifft2(F)), where F has few entries that are not zero [1]_: those of the peft library for its seed.

    The wave of entry (u, v) is cos(2π(u·p/o + v·q/i))·s/(oi). C joins waves of the same u, or −u, only: a small system
    for each, with the entries of C's own Fourier transform. The waves of (u, v) and (−u, −v) are the same; if both
    were drawn, they share what one would have. For C = I and a target T, a wave that is alone and not its own mirror
    image has 2·Re(fft2(T))[u, v]/s. Cosines alone make matrices with dW[p, q] = dW[−p, −q] only (indices mod o and i),
    whatever the number of waves: half of a generic update's energy is out of reach.

    Parameters
    ----------
    n_frequency : int, default 1000
        How many entries of F.
    scaling : float, default 150.0
        s.
    random_loc_seed : int, default 777
        Of their places: the first of the permutation that torch 2 makes of all o·i from this seed, as in peft, which
        does not store them.
    indices : (2, k) array_like of int, optional
        The places themselves, rows u and columns v; `n_frequency` and `random_loc_seed` are then ignored.

    Notes
    -----
    Factors: "spectrum" (k,), as in peft. Cost: two Fourier transforms of o × i, two of C, and k³/o² for the systems.

    References
    ----------
    .. [1] Z. Gao et al., "Parameter-efficient fine-tuning with discrete Fourier transform", arXiv:2405.03003.

    Examples
    --------
    >>> import numpy as np
    >>> from rpcls.adapters import FourierFT, LayerStatistics, fit
    >>> wave = np.cos(2 * np.pi * (np.arange(6)[:, None] / 6 + 3 * np.arange(8) / 8))
    >>> result = fit(LayerStatistics.from_delta(wave), FourierFT(indices=[[1, 2], [3, 0]]), ridge=0)
    >>> result.factors["spectrum"].round(9) + 0, round(result.explained, 9)
    (array([0.32, 0.  ]), 1.0)
    """

    n_frequency: int = 1000
    scaling: float = 150.0
    random_loc_seed: int = 777
    indices: Any = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        count(self.n_frequency, "n_frequency")
        number(self.scaling, "scaling", strict=True)
        count(self.random_loc_seed, "random_loc_seed", least=0)

    def indices_in(self, shape: tuple[int, int]) -> np.ndarray:
        """u and v (2, k) in a layer of this shape, (out_features, in_features), in the order of "spectrum"."""
        o, i = shape
        if self.indices is None:
            count(self.n_frequency, "n_frequency", most=o * i, why=", the entries of the layer")
            return np.stack(np.divmod(peft_indices(self.random_loc_seed, o * i, self.n_frequency), i))
        given = plain(self.indices, "indices")
        if given.dtype.kind not in "iu":
            raise InvalidTypeError(f"indices must hold integers, got {given.dtype}")
        if given.ndim != 2 or len(given) != 2 or given.shape[1] == 0:
            raise InvalidValueError(f"indices must have shape (2, k), got {given.shape}")
        u, v = given = given.astype(np.int64)
        if given.min() < 0 or u.max() >= o or v.max() >= i:
            raise InvalidValueError(f"indices must be within the layer, {o} × {i}")
        if len(np.unique(u * i + v)) != len(u):
            raise InvalidValueError("indices must be different ones, and some are repeated")
        return given

    def bind(self, layer: Layer) -> Model:
        u, v = self.indices_in(layer.shape)
        return one_half(_Waves(layer.shape, u, v, float(self.scaling)), name="spectrum")


def peft_indices(seed: int, population: int, k: int) -> np.ndarray:
    """The first k of ``torch.randperm(population)`` after ``manual_seed(seed)``: Fisher–Yates by the Mersenne Twister.

    Examples
    --------
    >>> peft_indices(777, 64 * 48, 4)
    array([1127, 1744, 1773, 2960])
    """
    if population >= _LARGEST:
        raise InvalidValueError(
            f"the places of FourierFT are drawn for fewer than {_LARGEST:,} entries only, and the layer has "
            f"{population:,}; give indices, such as those of a peft model"
        )
    # NumPy's frozen legacy generator: the same recurrence and the same seeding as torch's
    words = np.random.RandomState(seed % 2**32).randint(0, 2**32, size=k, dtype=np.uint32)
    moved: dict[int, int] = {}  # what no longer stands in its own place
    chosen = np.empty(k, np.int64)
    for n, word in enumerate(words.tolist()):
        other = n + int(word) % (population - n)
        chosen[n] = moved.get(other, other)
        moved[other] = moved.get(n, n)
    return chosen


class _Waves(Grouped):
    """Gₖ = s/(oi)·cos(2π(u·p/o + v·q/i)) for row p and column q."""

    def __init__(self, shape: tuple[int, int], u: np.ndarray, v: np.ndarray, scale: float) -> None:
        o, i = shape
        mirrored = 2 * u > o
        self.u, self.v = np.where(mirrored, o - u, u), np.where(mirrored, -v % i, v)  # the same waves, 0 ≤ u ≤ o/2
        self.places, self.scale = (u, v), scale
        super().__init__(shape, self.u)

    def apply(self, theta: np.ndarray) -> np.ndarray:
        F = np.zeros(self.shape)
        F[self.places] = theta
        return self.scale * np.fft.ifft2(F).real

    def adjoint(self, G: np.ndarray) -> np.ndarray:
        return (self.scale / G.size) * np.fft.fft2(G)[self.places].real

    def entries(self, C: np.ndarray) -> Entries:
        """s²/(2oi²)·Re(Ĉ[v, w]), Ĉ[v, w] = Σ C[q, q']·exp(2πi(vq − wq')/i); where u = −u, with Ĉ[v, −w] beside it."""
        o, i = self.shape
        transform = np.fft.fft(np.fft.ifft(C, axis=0), axis=1).real
        factor = self.scale**2 / (2 * o * i)
        own_mirror = (2 * self.u) % o == 0

        def entry(k: np.ndarray, l: np.ndarray) -> np.ndarray:  # noqa: E741
            v, w = self.v[k], self.v[l]
            return factor * (transform[v, w] + np.where(own_mirror[k], transform[v, -w % i], 0.0))

        return entry
