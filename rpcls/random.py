"""Keys and counter-based random streams: the same key is the same operator on every machine.

A `Key` is 64 bits. Every random number in rpcls is one 32-bit word of Philox4x32-10 [1]_, a pure function of
the key and a 128-bit counter, so any part of a stream can be made anywhere, in any order, by any number of
threads. The counter has four 32-bit words:

====  =====================================================================
word  meaning
====  =====================================================================
0, 1  low and high half of the 64-bit column index i of S (row i of A)
2     draw number within that column: 0, 1, 2, … (four words a draw)
3     stream tag: which use the numbers are for (the table `STREAM_TAGS`)
====  =====================================================================

How the words of a draw become entries of S:

* sparse sign (tag 1): word w of draw t belongs to entry z = 4t + w; its lowest bit is the sign (1 is minus), the
  other 31 bits u choose the row within the entry's block, ⌊z·d/ζ⌋ … ⌊(z+1)·d/ζ⌋ − 1 of width B, as ⌊u·B / 2³¹⌋
  (each row has probability 1/B up to 2⁻³¹).
* rademacher (tag 2): bit j mod 32 (lowest first) of word ⌊j/32⌋ mod 4 of draw ⌊j/128⌋ is the sign of entry j.
* gaussian (tag 3): draw t gives entries 2t and 2t + 1 by Box and Muller's method from two 53-bit uniforms, each
  made from two words (low word first); logarithm, sine and cosine are polynomials in plain IEEE float64
  operations, so the bits do not depend on a maths library.
* hadamard (tag 4): bit 0 of word 0 of draw 0 is the sign of column i. With the index of a block of rows in place of
  the column's, bit r mod 32 of word ⌊r/32⌋ mod 4 of draw 1 + ⌊r/128⌋ is the sign of row r in that block.
* permutation (tag 5): word 0 of draw t at the right half is the round function of round t of a Feistel network, t < 8;
  draw 8 of column i gives two words for a uniform integer.
* fold (tag 0): `Key.fold`.

`STREAM_VERSION` changes whenever any of this does.

References
----------
.. [1] J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3",
   SC'11, doi:10.1145/2063384.2063405.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from .errors import InvalidTypeError, InvalidValueError

__all__ = ["STREAM_TAGS", "STREAM_VERSION", "Key", "RandomLike", "philox4x32"]

STREAM_VERSION: Final = 1
STREAM_TAGS: Final = {"fold": 0, "sparse-sign": 1, "rademacher": 2, "gaussian": 3, "hadamard": 4, "permutation": 5}

_MASK = 0xFFFFFFFF


def philox4x32(counter: tuple[int, int, int, int], key: tuple[int, int], rounds: int = 10) -> tuple[int, int, int, int]:
    """Philox4x32 on Python integers: the slow, obvious twin of the compiled kernels.

    Parameters
    ----------
    counter : four ints in [0, 2**32)
    key : two ints in [0, 2**32)
    rounds : int, default 10

    Returns
    -------
    four ints in [0, 2**32)

    Examples
    --------
    >>> [f"{word:08x}" for word in philox4x32((0, 0, 0, 0), (0, 0))]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        p0 = 0xD2511F53 * c0
        p1 = 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & _MASK, (p0 >> 32) ^ c3 ^ k1, p0 & _MASK
        k0 = (k0 + 0x9E3779B9) & _MASK
        k1 = (k1 + 0xBB67AE85) & _MASK
    return c0, c1, c2, c3


@dataclass(frozen=True, slots=True)
class Key:
    """64 bits that fix a random operator.

    Parameters
    ----------
    value : int
        In [0, 2**64). `Key.of` makes one from anything that NumPy users call a seed.

    Examples
    --------
    >>> Key.of(0) == Key.of(0), Key.of(0) == Key.of(1)
    (True, False)
    >>> Key(7).fold(0) == Key(7).fold(1)
    False
    """

    value: int

    def __post_init__(self) -> None:
        if isinstance(self.value, bool) or not isinstance(self.value, int | np.integer):
            raise InvalidTypeError(f"a Key holds an int, got {type(self.value).__name__}")
        if not 0 <= self.value < 1 << 64:
            raise InvalidValueError(f"a Key must be in [0, 2**64), got {self.value}; use Key.of(seed) for any seed")
        object.__setattr__(self, "value", int(self.value))

    def __repr__(self) -> str:
        return f"Key(0x{self.value:016x})"

    @classmethod
    def of(cls, rng: RandomLike) -> Key:
        """Make a Key from a seed.

        Parameters
        ----------
        rng : int, numpy.random.SeedSequence, numpy.random.Generator, Key or None
            An int (≥ 0) or a SeedSequence always gives the same key; a Generator gives its next 64 bits and
            moves on; None takes fresh entropy from the operating system; a Key is returned as it is.

        Raises
        ------
        InvalidTypeError
            For any other type, bool and numpy.random.RandomState included.
        InvalidValueError
            For a negative int.
        """
        if isinstance(rng, Key):
            return rng
        if isinstance(rng, np.random.Generator):
            return cls(int(rng.integers(0, 1 << 64, dtype=np.uint64)))
        if rng is None:
            rng = np.random.SeedSequence()
        elif isinstance(rng, int | np.integer) and not isinstance(rng, bool):
            if rng < 0:
                raise InvalidValueError(f"rng must be a non-negative int, got {rng}")
            rng = np.random.SeedSequence(int(rng))
        if not isinstance(rng, np.random.SeedSequence):
            raise InvalidTypeError(
                "rng must be an int, numpy.random.SeedSequence, numpy.random.Generator, rpcls.Key or None, "
                f"got {type(rng).__name__}"
            )
        return cls(int(rng.generate_state(1, np.uint64)[0]))

    @property
    def words(self) -> tuple[int, int]:
        """The two 32-bit key words of Philox, low half first."""
        return self.value & _MASK, self.value >> 32

    def fold(self, i: int) -> Key:
        """An independent key for substream i, 0 ≤ i < 2**64: two Philox words at counter (i, 0, tag 0)."""
        if isinstance(i, bool) or not isinstance(i, int | np.integer):
            raise InvalidTypeError(f"fold needs an int in [0, 2**64), got {type(i).__name__} {i!r}")
        i = int(i)
        if not 0 <= i < 1 << 64:
            raise InvalidValueError(f"fold needs an int in [0, 2**64), got {i}")
        low, high, _, _ = philox4x32((i & _MASK, i >> 32, 0, STREAM_TAGS["fold"]), self.words)
        return Key(high << 32 | low)


if TYPE_CHECKING:  # numpy.random costs an import, so it is loaded by the first seed
    RandomLike: TypeAlias = int | np.random.SeedSequence | np.random.Generator | Key | None
else:
    RandomLike = object
