"""Everything that contracts are tested on, listed once: families, layouts, sources, solvers, problems.

A new family, source or solver is tested everywhere by one line here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
from support import matrix

import rpcls

FAMILIES = {
    "count": rpcls.CountSketch(),
    "sparse8": rpcls.SparseSign(),
    "sparse3": rpcls.SparseSign(nnz_per_column=3),
    "gaussian": rpcls.Gaussian(),
    "rademacher": rpcls.Rademacher(),
    "block-srht": rpcls.BlockSRHT(block=64),
}

DTYPES = {"float64": np.float64, "float32": np.float32}


def _within(array: np.ndarray, shape: tuple[int, ...], where: Any) -> np.ndarray:
    """A copy of `array` as a view into a larger array of NaN: a kernel that strays reads NaN."""
    room = np.full(shape, np.nan, array.dtype)
    room[where] = array
    return room[where]


def _unaligned(a: np.ndarray) -> np.ndarray:
    raw = np.zeros(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    raw[...] = a
    return raw


def _field(a: np.ndarray) -> np.ndarray:
    """Rows that are no whole number of entries apart."""
    records = np.zeros(len(a), [("row", a.dtype, (a.shape[1],)), ("tag", np.uint8)])
    records["row"] = a
    return records["row"]


def _read_only(a: np.ndarray) -> np.ndarray:
    a = a.copy()
    a.flags.writeable = False
    return a


# the same matrix in memory of every kind
LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "every second row": lambda a: _within(a, (2 * len(a), a.shape[1]), np.s_[::2]),
    "every second column": lambda a: _within(a, (len(a), 2 * a.shape[1]), np.s_[:, ::2]),
    "rows reversed": lambda a: _within(a, a.shape, np.s_[::-1]),
    "columns reversed": lambda a: _within(a, a.shape, np.s_[:, ::-1]),
    "some columns of a wider matrix": lambda a: _within(a, (len(a), a.shape[1] + 5), np.s_[:, 3:-2]),
    "some rows of a taller F matrix": lambda a: _within(a.T, (a.shape[1], len(a) + 5), np.s_[:, 3:-2]).T,
    "read-only": _read_only,
    "unaligned": _unaligned,
    "field of a record": _field,
}


def blocks_of(
    A: np.ndarray, b: np.ndarray, w: np.ndarray | None, sizes: tuple[int, ...] = (7, 0, 64, 1)
) -> Iterator[Any]:
    """Row blocks of changing sizes, one of them empty."""
    start, turn = 0, 0
    while start < len(A):
        stop = start + sizes[turn % len(sizes)]
        yield (A[start:stop], b[start:stop]) if w is None else (A[start:stop], b[start:stop], w[start:stop])
        start, turn = min(stop, len(A)), turn + 1


# (A, b, w) in every kind of source: what to pass for A, b and sample_weight
SOURCES: dict[str, Callable[[np.ndarray, np.ndarray, Any], tuple[Any, Any, Any]]] = {
    "array": lambda A, b, w: (A, b, w),
    "row blocks": lambda A, b, w: (rpcls.RowBlocks(lambda: blocks_of(A, b, w), A.shape[1]), None, None),
    "iterator": lambda A, b, w: (blocks_of(A, b, w), None, None),
}

SOLVERS = {
    "full": rpcls.FullyCompressed(),
    "full, ridge": rpcls.FullyCompressed(ridge=3.0),
    "partial": rpcls.PartiallyCompressed(),
    "partial, raw": rpcls.PartiallyCompressed("raw"),
    "partial, debiased, ridge": rpcls.PartiallyCompressed("debiased", ridge=3.0),
    "robust-full": rpcls.RobustFullyCompressed(),
    "robust-full, number": rpcls.RobustFullyCompressed(0.05),
    "robust-partial": rpcls.RobustPartiallyCompressed(),
    "robust-partial, number": rpcls.RobustPartiallyCompressed(0.05),
    "robust-partial, absolute": rpcls.RobustPartiallyCompressed(rpcls.Absolute(2.0)),
    "robust-partial, cover": rpcls.RobustPartiallyCompressed("cover"),
    "direct": rpcls.Direct(),
    "direct, ridge": rpcls.Direct(ridge=3.0),
}
NO_SKETCH = {"direct", "direct, ridge"}
EXACT = {"direct"}

M, N = 600, 32  # n ≥ 30: below it rho="loo" warns


@cache
def _made(kind: str, condition: float, noise: float, k: int | None) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    A = 30 * matrix(kind, M, N, rng, condition=condition)
    trailing = () if k is None else (k,)
    return A, A @ rng.standard_normal((N, *trailing)) + noise * rng.standard_normal((M, *trailing))


def _problem(kind: str, condition: float, noise: float, k: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    A, b = _made(kind, condition, noise, k)
    return A.copy(), b.copy()


# name → (A, b); m × n is M × N, full rank
PROBLEMS: dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]] = {
    "plain": lambda: _problem("gaussian", 10.0, 1.0),
    "ill-conditioned": lambda: _problem("gaussian", 1e5, 1.0),
    "coherent rows": lambda: _problem("coherent", 10.0, 1.0),
    "little noise": lambda: _problem("gaussian", 10.0, 1e-6),
    "mostly noise": lambda: _problem("gaussian", 10.0, 30.0),
    "three right-hand sides": lambda: _problem("gaussian", 10.0, 1.0, 3),
}
