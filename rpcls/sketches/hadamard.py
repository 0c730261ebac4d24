"""SRHT and BlockSRHT: signs, a fast Walsh–Hadamard transform, a uniform sample of its rows."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from ..errors import InvalidTypeError, InvalidValueError
from ..random import Key
from . import tiled
from .base import SketchFamily, SketchOperator, Sums

__all__ = ["SRHT", "BlockSRHT"]

_BLOCK = 2048  # rows transformed at a time: a few tiles of them fit the second-level cache
_GROUP_BYTES = 256


class _Layout(NamedTuple):
    """Row r of S is row low[r] of the transform of length q in every block, with the sign of (high[r], block)."""

    q: int
    low: np.ndarray
    high: np.ndarray
    shared: bool


class _Hadamard(SketchFamily):
    @abstractmethod
    def _layout(self, S: SketchOperator) -> _Layout: ...

    def columns(self, S: SketchOperator, start: int, stop: int) -> np.ndarray:
        from ..kernels.cpu import hadamard

        out = np.empty((stop - start, S.sketch_size))
        hadamard.columns(np.uint64(S.key.value), start, *self._layout(S), out)
        out *= 1 / np.sqrt(S.sketch_size)
        return out.T

    def sweep(
        self,
        S: SketchOperator,
        A: np.ndarray,
        b: np.ndarray,
        weight: np.ndarray | None,
        start: int,
        workers: int,
        scale: tuple[float, float] = (1.0, 1.0),
    ) -> Sums:
        from ..kernels.cpu import hadamard

        q, low, high, shared = self._layout(S)
        key = np.uint64(S.key.value)

        def kernel(x, A, stride, b, weights, cut: tuple[int, int], group, panel, side, out, out_side, sums, totals):
            hadamard.sweep(
                x, A, stride, b, weights, *cut, start, key, q, low, high, shared, group.starts, group.wide, *scale,
                panel, side, out, out_side, sums, totals,
            )  # fmt: skip

        cut = tiled.Cut(A, S.sketch_size, group_bytes=_GROUP_BYTES, lane_rows=q, start=start)
        return tiled.sweep(cut, A, b, weight, 1 / np.sqrt(S.sketch_size), workers, kernel, rows_of_panel=q)


def _sampled(key: Key, size: int, d: int) -> np.ndarray:
    """d rows of a transform of length `size`: without replacement, and all of them before any comes again."""
    from ..kernels.cpu import permutation

    rows = np.empty(d, np.int64)
    for round_, first in enumerate(range(0, d, size)):
        part = rows[first : first + size]
        permutation.permute(np.uint64(key.fold(round_).value), size, 0, part)
    return rows


@dataclass(frozen=True)
class SRHT(_Hadamard):
    """Subsampled randomized Hadamard transform: √(m′/d)·R·H·D with m′ the power of two that holds m.

    D is a diagonal of random signs, H the orthonormal Walsh–Hadamard matrix, R a uniform sample of d of its m′ rows
    without replacement (if d > m′, every row ⌊d/m′⌋ times first). It preserves squared lengths on the range within 1
    ± ε with probability 1 − δ when d ≥ 6ε⁻²(√n + √(8 ln(3m′/δ)))² ln(3n/δ) [1]_, on coherent rows as on any other.

    Every column of S depends on m through R, so m must be known when sampling, and rows cannot come in blocks of an
    open number: `BlockSRHT` is the form for those.

    Notes
    -----
    One sweep and about mn·log₂(d) additions: a transform of length q within blocks of q rows, then one signed
    addition per block and row of S, which together are the transform of length m′ at the d sampled places.

    References
    ----------
    .. [1] J. A. Tropp, "Improved analysis of the subsampled randomized Hadamard transform", 2011, arXiv:1011.1595;
       C. Boutsidis, A. Gittens, "Improved matrix algorithms via the subsampled randomized Hadamard transform", SIMAX 34
       (2013), doi:10.1137/120874540, Lemma 4.

    Examples
    --------
    >>> import numpy as np, rpcls
    >>> S = rpcls.SRHT().sample(4, m=8, rng=0).toarray()
    >>> np.round(S @ S.T, 12).tolist() == (2 * np.eye(4)).tolist()
    True
    """

    mergeable: ClassVar[bool] = False

    def _layout(self, S: SketchOperator) -> _Layout:
        if S.m is None:
            raise InvalidValueError(
                "SRHT() needs the number of rows of A: sample(d, m=…); for rows that come in blocks use BlockSRHT()"
            )
        size = 1 << max(0, S.m - 1).bit_length()
        rows = _sampled(S.key, size, S.sketch_size)
        q = min(size, max(_BLOCK, 1 << (S.sketch_size // 4).bit_length()))
        return _Layout(q, rows % q, rows // q, True)


@dataclass(frozen=True)
class BlockSRHT(_Hadamard):
    """Block SRHT: an independent randomized Hadamard transform of every block of rows, sampled alike and summed.

    S = [S₁ S₂ …], Sᵢ = √(q/d)·D̃ᵢ·R·H·Dᵢ for the i-th block of q rows [1]_: R samples d of the q rows once for all
    blocks
    (if d > q, every row ⌊d/q⌋ times first), Dᵢ and D̃ᵢ are signs of the block's own. The mergeable form of `SRHT`, with
    the same guarantee up to the logarithms.

    Parameters
    ----------
    block : int, optional
        q, a power of two in [2, 2**20]; by default the least that is at least max(2048, d).

    References
    ----------
    .. [1] O. Balabanov, M. Beaupère, L. Grigori, V. Lederer, "Block subsampled randomized Hadamard transform for
       low-rank approximation on distributed architectures", ICML 2023, arXiv:2210.11295.

    Examples
    --------
    >>> import numpy as np, rpcls
    >>> S = rpcls.BlockSRHT(block=8).sample(4, m=20, rng=0)
    >>> np.unique(S.toarray())
    array([-0.5,  0.5])
    """

    block: int | None = None

    def __post_init__(self) -> None:
        block = self.block
        if block is None:
            return
        if isinstance(block, bool) or not isinstance(block, int | np.integer):
            raise InvalidTypeError(f"block must be an int or None, got {type(block).__name__} {block!r}")
        if not 2 <= block <= 1 << 20 or block & (block - 1):
            raise InvalidValueError(f"block must be a power of two in [2, 2**20], got {block}")
        object.__setattr__(self, "block", int(block))

    def _layout(self, S: SketchOperator) -> _Layout:
        q = self.block or max(_BLOCK, 1 << max(0, S.sketch_size - 1).bit_length())
        rows = _sampled(S.key, q, S.sketch_size)
        return _Layout(q, rows, np.zeros_like(rows), False)
