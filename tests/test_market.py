"""Every family on every form of A: the same summary as plain NumPy makes from a dense S and the dense matrix."""

from __future__ import annotations

import pickle
from typing import Any

import entries
import numpy as np
import pytest
import scipy.sparse as sp
from market import DTYPES, FAMILIES, IN_BLOCKS, MATRICES, OTHER_DTYPES, OTHER_FAMILIES, REFUSED, SOURCES
from support import summary

import rpcls

ROWS, COLUMNS, SIZE = 300, 7, 24
FIELDS = ("SA", "Sb", "S1", "Atb", "btb", "column_norms", "column_sums", "b_sum", "weight")
EVERY_FAMILY = FAMILIES | OTHER_FAMILIES

every_family = pytest.mark.parametrize("family", EVERY_FAMILY)
every_dtype = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)


def plain(matrix: Any) -> np.ndarray:
    """The float64 array of any form of A."""
    if hasattr(matrix, "to_pylist"):
        matrix = np.column_stack([column.to_pylist() for column in matrix.columns])
    return np.array(matrix.toarray() if sp.issparse(matrix) else matrix, np.float64)


def integers() -> np.ndarray:
    """Entries -4..4, two thirds of them zero; empty rows, first and last among them, and two empty columns."""
    rng = np.random.default_rng(3)
    A = rng.integers(-4, 5, (ROWS, COLUMNS)) * (rng.random((ROWS, COLUMNS)) < 1 / 3).astype(float)
    A[[0, 1, 77, 78, ROWS - 1]], A[:, [2, COLUMNS - 1]] = 0.0, 0.0
    return A


def fractions(dtype: Any) -> np.ndarray:
    """The same pattern with entries that no short sum holds exactly."""
    rng = np.random.default_rng(4)
    return (integers() * rng.uniform(1, 2, (ROWS, COLUMNS))).astype(dtype)


def sides(dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """b (m, 2) with a mean, and weights, one of them zero."""
    rng = np.random.default_rng(5)
    w = rng.random(ROWS)
    w[10] = 0.0
    return (rng.standard_normal((ROWS, 2)) + 1).astype(dtype), w


def sketch_of(family: str) -> tuple[Any, dict[str, Any]]:
    """What `compress` is given for S: an operator, or what prepares one."""
    value = EVERY_FAMILY[family]
    if isinstance(value, rpcls.LeverageSampling):
        return value, {"sketch_size": SIZE, "rng": 6}
    return value.sample(SIZE, None if value.mergeable else ROWS, rng=6), {}


def check(c: rpcls.CompressedProblem, A: np.ndarray, b: np.ndarray, w: np.ndarray | None, dtype: Any) -> None:
    """Each field within rounding of the sum of absolute values."""
    block = c.operator.columns(0, ROWS)
    S = block if isinstance(block, np.ndarray) else block.toarray()
    expected, sizes = summary(A, b, S, weight=w), summary(abs(A), abs(b), abs(S), weight=w)
    eps = float(np.finfo(dtype).eps)
    exact = 2.0**-52 if w is None else eps  # √w·A is rounded to A's dtype first
    units = {"SA": eps, "Sb": eps, "S1": eps, "Atb": exact, "column_norms": exact, "column_sums": exact}
    for name in FIELDS:
        found, value = np.asarray(getattr(c, name)), np.asarray(getattr(expected, name))
        assert found.shape == value.shape and found.dtype == (dtype if name in ("SA", "Sb") else np.float64), name
        bound = 2 * (4 + np.sqrt(ROWS)) * units.get(name, 2.0**-52) * np.asarray(getattr(sizes, name))
        assert np.all(np.abs(found - value) <= bound), name
    assert c.shape == A.shape and c.intervals == ((0, ROWS),) and c.exponents == (0, 0)


def contract(family: str, matrix: Any, dtype: Any, source: str = "array") -> None:
    """`compress` of (matrix, b), with and without weights, under this family; the inputs stay as they are."""
    A = plain(matrix)
    b, w = sides(dtype)
    sketch, options = sketch_of(family)
    before = pickle.dumps((matrix, b, w))
    for rhs, weight in ((b[:, 0], None), (b, w)):
        data, right, sample_weight = SOURCES[source](matrix, rhs, weight)
        c = rpcls.compress(data, right, sketch, sample_weight=sample_weight, **options)
        check(c, A, rhs.astype(float), weight, dtype)
        if options:  # the rows that were chosen are those of the dense matrix
            same = rpcls.compress(A.astype(dtype), rhs, sketch, sample_weight=weight, **options).operator.family
            assert isinstance(c.operator.family, rpcls.SampledRows) and isinstance(same, rpcls.SampledRows)
            assert c.operator.family.indices == same.indices
            np.testing.assert_allclose(c.operator.family.factors, same.factors, rtol=8 * np.finfo(dtype).eps ** 0.75)
        else:
            assert c.operator == sketch
    assert pickle.dumps((matrix, b, w)) == before


@every_family
@pytest.mark.parametrize("form", MATRICES)
@every_dtype
def test_every_family_on_every_form(family: str, form: str, dtype: Any) -> None:
    matrix = MATRICES[form](fractions(dtype))
    contract(family, matrix, dtype)


@every_family
@pytest.mark.parametrize("form", OTHER_DTYPES)
def test_every_family_on_every_other_dtype(family: str, form: str) -> None:
    contract(family, OTHER_DTYPES[form](integers()), np.float64)


@every_family
@pytest.mark.parametrize("source", [name for name in SOURCES if name != "array"])
@pytest.mark.parametrize("form", IN_BLOCKS)
@every_dtype
def test_every_family_on_blocks_of_rows(family: str, source: str, form: str, dtype: Any) -> None:
    matrix = MATRICES[form](fractions(dtype))
    if (family, source) in REFUSED:
        data, b, w = SOURCES[source](matrix, *sides(dtype))
        with pytest.raises(rpcls.RpclsError, match=REFUSED[family, source]):
            rpcls.compress(data, b, EVERY_FAMILY[family], sketch_size=SIZE, rng=6, sample_weight=w)
    if family == "srht":
        data, b, w = SOURCES[source](matrix, *sides(dtype))
        with pytest.raises(rpcls.InvalidValueError, match=r"does not sweep over row blocks; use BlockSRHT\(\)"):
            rpcls.compress(data, b, sketch_of(family)[0], sample_weight=w)
    elif (family, source) != ("leverage", "iterator"):  # families that only must be told m take it with the operator
        contract(family, matrix, dtype, source)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("start", [2**38 - 3, 2**61 - 3, 2**62 - 7], ids=["2**38 - 3", "2**61 - 3", "the last rows"])
@every_dtype
def test_row_numbers_of_more_than_32_bits(family: rpcls.SketchFamily, start: int, dtype: Any) -> None:
    """Rows start..start + 7 have the columns of S that the documented layout gives them, in pure Python."""
    count = 7
    S = family.sample(SIZE, rng=8)
    dense = entries.operator(family, SIZE, S.key.value, start, start + count)
    block = S.columns(start, start + count)
    columns = block if isinstance(block, np.ndarray) else block.toarray()
    np.testing.assert_allclose(columns, dense, rtol=4e-16)
    A, (b, w) = fractions(dtype)[2 : 2 + count], (part[2 : 2 + count] for part in sides(dtype))
    expected = summary(A, b, dense, weight=w)
    for form in (np.ascontiguousarray, np.asfortranarray, sp.csr_array):
        c = rpcls.compress(form(A), b, S, row_offset=start, sample_weight=w)
        assert c.intervals == ((start, start + count),)
        for name in FIELDS:
            tolerance = 100 * np.finfo(dtype).eps
            found, value = getattr(c, name), getattr(expected, name)
            np.testing.assert_allclose(found, value, rtol=tolerance, atol=tolerance, err_msg=name)


@every_family
def test_parts_of_one_operator_add_up(family: str) -> None:
    """Summaries of disjoint rows, but for LeverageSampling, whose operator is another for other rows."""
    A, (b, w) = fractions(np.float64), sides(np.float64)
    sketch, options = sketch_of(family)
    halves = [
        rpcls.compress(A[i:j], b[i:j], sketch, sample_weight=w[i:j], row_offset=i, **options)
        for i, j in ((0, 111), (111, ROWS))
    ]
    if family != "leverage":
        parts = halves[0] + halves[1]
        check(parts, A, b, w, np.float64)
    else:
        with pytest.raises(rpcls.InvalidValueError, match="add up only under the same operator"):
            _ = halves[0] + halves[1]
