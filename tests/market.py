"""Everything that contracts are tested on, listed once: families, layouts, sources, solvers, problems.

A new family, source or solver is tested everywhere by one line here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from support import matrix

import rpcls

# whose columns do not depend on the number of rows
FAMILIES = {
    "count": rpcls.CountSketch(),
    "sparse8": rpcls.SparseSign(),
    "sparse3": rpcls.SparseSign(nnz_per_column=3),
    "gaussian": rpcls.Gaussian(),
    "rademacher": rpcls.Rademacher(),
    "block-srht": rpcls.BlockSRHT(block=64),
}

# the others: they must know the number of rows, or see the rows first
OTHER_FAMILIES = {
    "srht": rpcls.SRHT(),
    "rows": rpcls.RowSampling(),
    "rows, with replacement": rpcls.RowSampling(replace=True),
    "leverage": rpcls.LeverageSampling(),
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


def _with_int64_indices(a: np.ndarray) -> sp.csr_array:
    rows = sp.csr_array(a)
    rows.indices, rows.indptr = rows.indices.astype(np.int64), rows.indptr.astype(np.int64)
    return rows


def _with_duplicates(a: np.ndarray) -> sp.csr_array:
    """Every entry twice, as a quarter and three quarters of it, which add up exactly."""
    rows = sp.csr_array(a)
    data = np.column_stack([rows.data / 4, rows.data - rows.data / 4]).ravel()
    return sp.csr_array((data, rows.indices.repeat(2), 2 * rows.indptr), a.shape)


def _with_explicit_zeros(a: np.ndarray) -> sp.csr_array:
    m, n = a.shape
    return sp.csr_array((a.ravel(), np.tile(np.arange(n), m), n * np.arange(m + 1)), a.shape)


def _diagonals(a: np.ndarray, form: type) -> Any:
    m, n = a.shape
    i, j = np.indices((m, n))
    data = np.zeros((m + n - 1, n), a.dtype)
    data[j - i + m - 1, j] = a
    return form((data, np.arange(1 - m, n)), shape=(m, n))


def _unsorted(a: np.ndarray) -> sp.csr_array:
    m, n = a.shape
    columns = np.arange(n)[::-1]
    return sp.csr_array((a[:, ::-1].ravel(), np.tile(columns, m), n * np.arange(m + 1)), a.shape)


def _frame(a: np.ndarray) -> Any:
    return pytest.importorskip("pandas").DataFrame(a, columns=[f"c{j}" for j in range(a.shape[1])])


def _frame_by_columns(a: np.ndarray) -> Any:
    return pytest.importorskip("pandas").DataFrame({f"c{j}": a[:, j].copy() for j in range(a.shape[1])})


def _sparse_frame(a: np.ndarray) -> Any:
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame.sparse.from_spmatrix(sp.csc_array(a), columns=[f"c{j}" for j in range(a.shape[1])])


def _arrow_table(a: np.ndarray) -> Any:
    return pytest.importorskip("pyarrow").table({f"c{j}": a[:, j].copy() for j in range(a.shape[1])})


def _arrow_batch(a: np.ndarray) -> Any:
    return _arrow_table(a).to_batches()[0]


# the same matrix in every form that A may come in and in its dtype, float64 or float32
MATRICES: dict[str, Callable[[np.ndarray], Any]] = {
    **LAYOUTS,
    "csr_array": sp.csr_array,
    "csr_matrix": sp.csr_matrix,
    "csc_array": sp.csc_array,
    "csc_matrix": sp.csc_matrix,
    "coo_array": sp.coo_array,
    "coo_matrix": sp.coo_matrix,
    "bsr_array": lambda a: sp.bsr_array(a, blocksize=(3, 1)),
    "bsr_matrix": lambda a: sp.bsr_matrix(a, blocksize=(3, 1)),
    "lil_array": sp.lil_array,
    "lil_matrix": sp.lil_matrix,
    "dok_array": sp.dok_array,
    "dok_matrix": sp.dok_matrix,
    "dia_array": lambda a: _diagonals(a, sp.dia_array),
    "dia_matrix": lambda a: _diagonals(a, sp.dia_matrix),
    "csr, int64 indices": _with_int64_indices,
    "csr, duplicates": _with_duplicates,
    "csr, explicit zeros": _with_explicit_zeros,
    "csr, unsorted": _unsorted,
    "frame": _frame,
    "frame by columns": _frame_by_columns,
    "sparse frame": _sparse_frame,
    "Arrow table": _arrow_table,
    "Arrow batch": _arrow_batch,
}

# small integers in every form whose numbers are used as float64
OTHER_DTYPES: dict[str, Callable[[np.ndarray], Any]] = {
    "int64": lambda a: a.astype(np.int64),
    "int64, F": lambda a: np.asfortranarray(a.astype(np.int64)),
    "int8, every second row": lambda a: a.astype(np.int8).repeat(2, axis=0)[::2],
    "uint16": lambda a: np.abs(a).astype(np.uint16),
    "boolean": lambda a: a != 0,
    "boolean, F": lambda a: np.asfortranarray(a != 0),
    "other byte order": lambda a: a.astype(np.dtype(np.float64).newbyteorder()),
    "lists": lambda a: a.tolist(),
    "csr, int32": lambda a: sp.csr_array(a.astype(np.int32)),
    "csr, boolean": lambda a: sp.csr_array(a != 0),
    "frame of integers": lambda a: _frame(a.astype(np.int64)),
    "frame of several dtypes": lambda a: _frame(a).astype({"c0": np.int32, "c1": np.float32, "c2": bool}),
    "Arrow table of integers": lambda a: _arrow_table(a.astype(np.int16)),
}


def blocks_of(A: Any, b: np.ndarray, w: np.ndarray | None, sizes: tuple[int, ...] = (70, 0, 129, 1)) -> Iterator[Any]:
    """Row blocks of changing sizes, one of them empty."""
    start, turn = 0, 0
    while start < A.shape[0]:
        stop = start + sizes[turn % len(sizes)]
        yield (A[start:stop], b[start:stop]) if w is None else (A[start:stop], b[start:stop], w[start:stop])
        start, turn = min(stop, A.shape[0]), turn + 1


# (A, b, w) in every kind of source: what to pass for A, b and sample_weight
SOURCES: dict[str, Callable[[Any, np.ndarray, Any], tuple[Any, Any, Any]]] = {
    "array": lambda A, b, w: (A, b, w),
    "row blocks": lambda A, b, w: (rpcls.RowBlocks(lambda: blocks_of(A, b, w), A.shape[1]), None, None),
    "iterator": lambda A, b, w: (blocks_of(A, b, w), None, None),
}

# the forms whose rows can be sliced, so that they can come in blocks
IN_BLOCKS = ("C", "F", "every second row", "columns reversed", "csr_array", "csr, duplicates", "frame")
# (family, source) that cannot be: what the error says
_KNOWS_ROWS = r"needs the number of rows before the sweep.*use a mergeable family"
_TWICE = r"can be read only once, and this call needs another sweep; pass rpcls\.RowBlocks"
REFUSED = {
    **{(family, source): _KNOWS_ROWS for family in ("srht", "rows", "rows, with replacement") for source in SOURCES},
    ("leverage", "iterator"): _TWICE,
}
for _family in ("srht", "rows", "rows, with replacement"):
    del REFUSED[_family, "array"]

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
    "combined": rpcls.CombinedCompressed(),
    "direct": rpcls.Direct(),
    "direct, ridge": rpcls.Direct(ridge=3.0),
    "precondition, gram": rpcls.SketchAndPrecondition("gram"),
    "precondition, cg": rpcls.SketchAndPrecondition("cg"),
    "precondition, gram, ridge": rpcls.SketchAndPrecondition("gram", ridge=3.0),
    "precondition, cg, ridge": rpcls.SketchAndPrecondition("cg", ridge=3.0),
    "normal": rpcls.NormalEquations(),
    "normal, ridge": rpcls.NormalEquations(ridge=3.0),
    "hessian-sketch": rpcls.IterativeHessianSketch(),
}
ONE_PASS = {name for name in SOLVERS if name.partition(",")[0] in ("full", "partial", "combined") or "robust" in name}
NO_SKETCH = {name for name in SOLVERS if name.partition(",")[0] in ("direct", "normal")}
MORE_SWEEPS = SOLVERS.keys() - ONE_PASS - {"direct", "direct, ridge"}  # which an iterator does not offer
EXACT = SOLVERS.keys() - ONE_PASS - {name for name in SOLVERS if name.endswith("ridge")}

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
