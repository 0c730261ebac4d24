"""CompressedProblem: merging, centring, files that are whole, broken or foreign, and every error."""

from __future__ import annotations

import copy
import io
import itertools
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from market import FAMILIES

import rpcls
from rpcls.compressed import CompressedProblem, _merge_intervals
from rpcls.errors import FormatError, InvalidTypeError, InvalidValueError

ARRAYS = ("SA", "Sb", "S1", "Atb", "btb", "column_norms", "column_sums", "b_sum")
S = rpcls.SparseSign(3).sample(20, rng=5)


def summary(rows: slice = slice(0, 60), k: int | None = None, dtype: Any = float, **options: Any) -> CompressedProblem:
    rng = np.random.default_rng(1)
    A, b = rng.standard_normal((60, 5)) + 3, rng.standard_normal((60, 1 if k is None else k)) + 1
    w = rng.random(60)
    b = b[:, 0] if k is None else b
    operator = options.pop("operator", S)
    scale = options.pop("scale", 1.0)
    return rpcls.compress(
        (A[rows] * scale).astype(dtype), b[rows], operator, row_offset=rows.start, sample_weight=w[rows], **options
    )


def equal(a: CompressedProblem, b: CompressedProblem) -> None:
    for name in ARRAYS:
        left, right = getattr(a, name), getattr(b, name)
        assert isinstance(left, np.ndarray) == isinstance(right, np.ndarray) and np.array_equal(left, right), name
        assert isinstance(left, float) or left.dtype == right.dtype, name
    for name in ("weight", "intervals", "operator", "columns", "exponents", "timings", "shape", "dtype"):
        assert getattr(a, name) == getattr(b, name), name
    assert (a.means is None) == (b.means is None)
    if a.means is not None:
        assert np.array_equal(a.means[0], b.means[0]) and np.array_equal(a.means[1], b.means[1])


# -- merging ----------------------------------------------------------------------------------------


def test_sums_are_sums() -> None:
    a, b = summary(slice(0, 20), k=2), summary(slice(30, 60), k=2)
    total = a + b
    for name in ("SA", "Sb", "S1", "Atb", "btb", "column_sums", "b_sum", "weight"):
        np.testing.assert_allclose(getattr(total, name), getattr(a, name) + getattr(b, name))
    np.testing.assert_allclose(total.column_norms**2, a.column_norms**2 + b.column_norms**2)
    assert total.intervals == ((0, 20), (30, 60)) and total.shape == (50, 5)
    assert total.timings["compress"] == pytest.approx(a.timings["compress"] + b.timings["compress"])
    np.testing.assert_array_equal((b + a).SA, total.SA)
    kept = a.SA.copy()
    a + b
    assert np.array_equal(a.SA, kept)


def test_a_part_without_rows_changes_nothing() -> None:
    a = summary()
    for total in (a + summary(slice(60, 60)), summary(slice(7, 7)) + a):
        assert all(np.array_equal(getattr(total, n), getattr(a, n)) for n in ARRAYS) and total.intervals == ((0, 60),)


@given(st.permutations([(0, 10), (10, 20), (25, 30), (30, 31), (50, 60)]))
def test_intervals_are_ordered_and_joined(parts: list[tuple[int, int]]) -> None:
    total = summary(slice(*parts[0]))
    for start, stop in parts[1:]:
        total = total + summary(slice(start, stop))
    assert total.intervals == ((0, 20), (25, 31), (50, 60)) and total.shape[0] == 36


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 6)), max_size=6))
def test_intervals_against_sets_of_rows(spans: list[tuple[int, int]]) -> None:
    merged: tuple[tuple[int, int], ...] = ()
    rows: set[int] = set()
    for start, length in spans:
        new = set(range(start, start + length))
        if rows & new:
            with pytest.raises(InvalidValueError, match="overlapping"):
                _merge_intervals(merged, ((start, start + length),))
            continue
        merged = _merge_intervals(merged, ((start, start + length),))
        rows |= new
    assert rows == {row for start, stop in merged for row in range(start, stop)}
    assert all(a[1] < b[0] for a, b in itertools.pairwise(merged))
    assert all(start < stop for start, stop in merged)


def test_what_does_not_add_up() -> None:
    a = summary(slice(0, 30))
    overlap = r"summaries of overlapping rows do not add up: rows 20:30 are in both; give each part its own row_offset"
    with pytest.raises(InvalidValueError, match=overlap):
        a + summary(slice(20, 60))
    with pytest.raises(InvalidValueError, match=r"rows 0:30 are in both"):
        a + a
    with pytest.raises(
        InvalidValueError, match=r"summaries add up only under the same operator, got .*rng=Key.* and .*SparseSi"
    ):
        a + summary(slice(30, 60), operator=rpcls.SparseSign(3).sample(20, rng=6))
    with pytest.raises(
        InvalidValueError, match=r"same columns and right-hand sides, got Atb of shapes \(5,\) and \(5, 1\)"
    ):
        a + summary(slice(30, 60), k=1)
    with pytest.raises(InvalidValueError, match="summaries add up only in the same dtype, got float64 and float32"):
        a + summary(slice(30, 60), dtype=np.float32)
    with pytest.raises(
        InvalidValueError, match=r"centered summaries do not add up; add first, then call .centered\(\)"
    ):
        a + summary(slice(30, 60)).centered()
    with pytest.raises(InvalidValueError, match=r"centered summaries do not add up"):
        a.centered() + summary(slice(30, 60))
    with pytest.raises(TypeError, match="unsupported operand"):
        a + 1  # type: ignore[operator]


def test_column_names_must_agree() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(np.ones((4, 2)), columns=["one", "two"])
    a = rpcls.compress(frame, np.ones(4), S)
    b = rpcls.compress(frame.rename(columns={"two": "zwei"}), np.ones(4), S, row_offset=4)
    assert a.columns == ("one", "two")
    with pytest.raises(InvalidValueError, match=r"column names differ: \('one', 'two'\) and \('one', 'zwei'\)"):
        a + b


# -- centring ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("k", [None, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_centered_is_the_summary_of_centred_rows(family: Any, k: int | None, weighted: bool) -> None:
    rng = np.random.default_rng(0)
    A, b = rng.standard_normal((80, 6)) + rng.standard_normal(6), rng.standard_normal((80, k or 1)) + 2
    b = b if k else b[:, 0]
    w = rng.random(80) if weighted else np.ones(80)
    operator = family.sample(24, rng=0)
    c = rpcls.compress(A, b, operator, sample_weight=w).centered()
    a_mean, b_mean = np.average(A, axis=0, weights=w), np.average(b, axis=0, weights=w)
    direct = rpcls.compress(A - a_mean, b - b_mean, operator, sample_weight=w)
    for name in ARRAYS:
        np.testing.assert_allclose(getattr(c, name), getattr(direct, name), rtol=1e-11, atol=1e-11, err_msg=name)
    assert c.means is not None
    np.testing.assert_allclose(c.means[0], a_mean, rtol=1e-13)
    np.testing.assert_allclose(c.means[1], b_mean, rtol=1e-13)
    assert c.centered() is c and "centered" in repr(c) and c.weight == direct.weight


def test_centering_float32_and_scaled_summaries() -> None:
    narrow, wide = summary(dtype=np.float32).centered(), summary().centered()
    assert narrow.SA.dtype == narrow.Sb.dtype == np.float32 and narrow.Atb.dtype == np.float64
    np.testing.assert_allclose(narrow.SA, wide.SA, atol=1e-4)
    scaled = summary(scale=2.0**-660).centered()
    assert scaled.exponents[0] < -600
    np.testing.assert_allclose(np.ldexp(scaled.SA, scaled.exponents[0] + 660), wide.SA, atol=1e-12)
    np.testing.assert_allclose(np.ldexp(scaled.means[0], scaled.exponents[0] + 660), wide.means[0], rtol=1e-13)  # type: ignore[index]


def test_centering_needs_weight() -> None:
    with pytest.raises(InvalidValueError, match=r"centering needs a positive total weight, got 0\.0"):
        summary(slice(3, 3)).centered()


def test_constant_columns_have_no_negative_squares() -> None:
    A = np.full((50, 3), 0.1)
    c = rpcls.compress(A, np.full(50, 0.3), S).centered()
    assert np.all(c.column_norms >= 0) and np.all(np.isfinite(c.column_norms)) and c.btb >= 0
    assert np.max(np.abs(c.SA)) < 1e-13 and np.max(np.abs(c.Atb)) < 1e-13


# -- solving, printing, copying ---------------------------------------------------------------------


def test_solve_is_the_solvers_solve() -> None:
    c = summary()
    solver = rpcls.FullyCompressed()
    assert np.array_equal(c.solve(solver).x, solver.solve(c, None).x)
    with pytest.raises(
        InvalidTypeError, match=r"solve needs a solver such as rpcls.PartiallyCompressed\(\), got 'full'"
    ):
        c.solve("full")


def test_repr() -> None:
    assert repr(summary(k=2)) == (
        "CompressedProblem(60 × 5 × 2 right-hand sides, float64, rows [0:60], "
        f"SparseSign(nnz_per_column=3).sample(20, rng={S.key!r}))"
    )
    many = summary(slice(0, 1))
    for start in (2, 4, 6):
        many = many + summary(slice(start, start + 1))
    assert "rows [0:1, 2:3, 4:5, …]" in repr(many) and "× 5, float64" in repr(many)


def test_it_is_frozen_and_pickles() -> None:
    c = summary()
    with pytest.raises(AttributeError):
        c.weight = 2.0  # type: ignore[misc]
    for again in (pickle.loads(pickle.dumps(c)), copy.deepcopy(c)):
        equal(again, c)


# -- files ------------------------------------------------------------------------------------------

CASES = {
    "plain": lambda: summary(),
    "several right-hand sides": lambda: summary(k=3),
    "float32": lambda: summary(dtype=np.float32),
    "centered": lambda: summary().centered(),
    "centered, several": lambda: summary(k=2).centered(),
    "scaled": lambda: summary(scale=1e-200),
    "gaps": lambda: summary(slice(0, 10)) + summary(slice(20, 60)),
    "without rows": lambda: summary(slice(0, 0)),
    "known m": lambda: summary(operator=rpcls.Gaussian().sample(7, 60, rng=2**70)),
    "a key above 2**63": lambda: summary(operator=rpcls.CountSketch().sample(7, rng=rpcls.Key(2**64 - 1))),
}


@pytest.mark.parametrize("case", CASES)
def test_files_round_trip(case: str, tmp_path: Path) -> None:
    c = CASES[case]()
    c.save(tmp_path / "c.npz")
    again = CompressedProblem.load(tmp_path / "c.npz")
    equal(again, c)
    assert repr(again) == repr(c) and os.listdir(tmp_path) == ["c.npz"]
    again.save(str(tmp_path / "c.npz"))  # over itself, by str
    equal(CompressedProblem.load(str(tmp_path / "c.npz")), c)


def test_a_loaded_summary_solves_and_merges(tmp_path: Path) -> None:
    a, b = summary(slice(0, 30)), summary(slice(30, 60))
    a.save(tmp_path / "no suffix")
    b.save(tmp_path / "b.bin")
    assert sorted(os.listdir(tmp_path)) == ["b.bin", "no suffix"]
    total = CompressedProblem.load(tmp_path / "no suffix") + CompressedProblem.load(tmp_path / "b.bin")
    np.testing.assert_array_equal(total.SA, (a + b).SA)
    np.testing.assert_array_equal(total.solve(rpcls.FullyCompressed()).x, (a + b).solve(rpcls.FullyCompressed()).x)


def test_column_names_survive(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    c = rpcls.compress(pandas.DataFrame({"ä": [1.0, 2.0], "b": [3.0, 5.0]}), np.ones(2), S)
    c.save(tmp_path / "c.npz")
    assert CompressedProblem.load(tmp_path / "c.npz").columns == ("ä", "b")


def test_the_file_holds_no_pickle_and_plain_names(tmp_path: Path) -> None:
    summary().save(tmp_path / "c.npz")
    with np.load(tmp_path / "c.npz", allow_pickle=False) as file:
        assert sorted(file.files) == sorted([*ARRAYS, "header"])
        header = json.loads(str(file["header"]))
    assert header["format"] == "rpcls.CompressedProblem" and header["version"] == 1 and header["stream_version"] == 1
    assert (header["family"], header["parameters"], header["m"]) == ("SparseSign", {"nnz_per_column": 3}, None)
    assert header["key"] == S.key.value and header["sketch_size"] == 20


def test_truncated_files(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    summary().save(path)
    whole = path.read_bytes()
    for size in [*range(0, 400, 7), *range(400, len(whole), 61), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(FormatError, match=r"c\.npz is not a complete CompressedProblem file"):
            CompressedProblem.load(path)


def test_files_with_a_flipped_byte_are_refused_or_unharmed(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    c = summary()
    c.save(path)
    whole = path.read_bytes()
    refused = 0
    for at in range(0, len(whole), 9):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            equal(CompressedProblem.load(path), c)
        except FormatError:
            refused += 1
    assert refused > len(whole) / 9 / 3  # the rest are time stamps, alignment and attributes, which nothing reads


def foreign() -> dict[str, bytes]:
    out = {"text": b"m,n\n1,2\n", "empty": b"", "zip": b"PK\x05\x06" + bytes(18), "pickle": pickle.dumps({"SA": 1})}
    for name, arrays in {
        "npz": {"A": np.ones(3)},
        "npz with objects": {"header": np.array([{"format": "rpcls.CompressedProblem"}], dtype=object)},
        "npz with a number": {"header": np.array(5)},
        "npz with text": {"header": np.array("not json")},
    }.items():
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        out[name] = buffer.getvalue()
    buffer = io.BytesIO()
    np.save(buffer, np.ones((3, 3)))
    out["npy"] = buffer.getvalue()
    return out


@pytest.mark.parametrize("kind", foreign())
def test_foreign_files(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(foreign()[kind])
    with pytest.raises(
        FormatError, match=r"x\.npz (is not a complete CompressedProblem file: |does not hold a Compressed)"
    ):
        CompressedProblem.load(path)


class Bomb:
    """Unpickling it runs code."""

    went_off = False

    def __reduce__(self) -> Any:
        return setattr, (Bomb, "went_off", True)


@pytest.mark.parametrize("name", ["header", "SA"])
def test_nothing_is_unpickled(name: str, tmp_path: Path) -> None:
    path = tampered(tmp_path, summary(), {}, {})
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    np.savez(path, **(arrays | {name: np.array([Bomb()], dtype=object)}))
    with pytest.raises(FormatError, match=r"is not a complete CompressedProblem file: .*allow_pickle=False"):
        CompressedProblem.load(path)
    assert not Bomb.went_off


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        CompressedProblem.load(tmp_path / "nothing.npz")
    with pytest.raises(FileNotFoundError):
        summary().save(tmp_path / "nowhere" / "c.npz")
    with pytest.raises(OSError, match=r"directory|denied"):
        CompressedProblem.load(tmp_path)


def tampered(tmp_path: Path, c: CompressedProblem, arrays: dict[str, Any], header: dict[str, Any]) -> Path:
    """A saved file with some arrays and entries of the header replaced; None removes them."""
    path = tmp_path / "t.npz"
    c.save(path)
    with np.load(path) as file:
        data = {name: file[name] for name in file.files}
    text = json.loads(str(data["header"])) | header
    data |= arrays
    data["header"] = np.array(json.dumps({k: v for k, v in text.items() if v is not None or k in ("m", "columns")}))
    np.savez(path, **{k: v for k, v in data.items() if v is not None})
    return path


@pytest.mark.parametrize("name", [*ARRAYS, "a_mean", "b_mean"])
@pytest.mark.parametrize("case", ["centered", "centered, several"])
def test_arrays_that_do_not_fit(name: str, case: str, tmp_path: Path) -> None:
    c = CASES[case]()
    value = np.asarray({"a_mean": c.means[0], "b_mean": c.means[1]}.get(name, getattr(c, name, None)))  # type: ignore[index]
    wrong = {
        "missing": None,
        "longer": np.concatenate([np.atleast_1d(value), np.atleast_1d(value)[:1]]),
        "transposed": value[None],
        "flat": np.zeros(()) if value.ndim else np.zeros(1),
        "integers": value.astype(int),
        "complex": value.astype(complex),
        "half": value.astype(np.float16),
    }
    for array in wrong.values():
        path = tampered(tmp_path, c, {name: array}, {})
        with pytest.raises(FormatError, match=r"t\.npz is not a valid CompressedProblem file: "):
            CompressedProblem.load(path)


@pytest.mark.parametrize(
    "header",
    [
        {"family": "Cauchy"}, {"family": ["SparseSign"]}, {"family": None}, {"parameters": {"nnz": 3}},
        {"parameters": None},
        {"parameters": {"nnz_per_column": 0}}, {"parameters": {"nnz_per_column": "3"}}, {"sketch_size": 21},
        {"sketch_size": "20"}, {"sketch_size": 2}, {"key": -1}, {"key": 1.5}, {"m": -2}, {"weight": -1.0},
        {"weight": float("nan")}, {"weight": float("inf")}, {"weight": "1"}, {"weight": None}, {"intervals": [[0]]},
        {"intervals": [[5, 3]]}, {"intervals": [[0, 30], [20, 60]]}, {"intervals": [[20, 60], [0, 10]]},
        {"intervals": [[-5, 60]]}, {"intervals": 7}, {"intervals": None}, {"columns": ["a"]}, {"columns": 7},
        {"exponents": [0]}, {"exponents": [0.5, 0]}, {"exponents": "00"}, {"exponents": None}, {"timings": [1]},
        {"timings": {"compress": "fast"}}, {"timings": None},
    ],
    ids=str,
)  # fmt: skip
def test_headers_that_do_not_fit(header: dict[str, Any], tmp_path: Path) -> None:
    path = tampered(tmp_path, summary(), {}, header)
    with pytest.raises(FormatError, match=r"t\.npz is not a valid CompressedProblem file: \w+Error: "):
        CompressedProblem.load(path)


@pytest.mark.parametrize("name", ["version", "stream_version"])
@pytest.mark.parametrize("value", [0, 2, "1", None])
def test_files_of_other_versions(name: str, value: Any, tmp_path: Path) -> None:
    path = tampered(tmp_path, summary(), {}, {name: value})
    with pytest.raises(FormatError, match=rf"t\.npz has {name} {value}, this rpcls reads 1; compress again"):
        CompressedProblem.load(path)


@pytest.mark.parametrize("value", ["rpcls.Other", None])
def test_files_of_another_format(value: Any, tmp_path: Path) -> None:
    path = tampered(tmp_path, summary(), {}, {"format": value})
    with pytest.raises(FormatError, match=r"t\.npz does not hold a CompressedProblem"):
        CompressedProblem.load(path)


def test_unknown_arrays_are_ignored(tmp_path: Path) -> None:
    c = summary()
    equal(CompressedProblem.load(tampered(tmp_path, c, {"later": np.ones(3)}, {"later": 1})), c)


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failed_save_leaves_the_old_file_and_nothing_else(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.npz"
    old = summary()
    old.save(path)

    def fail(file: Any, **_: Any) -> None:
        file.write(b"half a file")
        raise error

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(type(error)):
        summary(k=2).save(path)
    with pytest.raises(type(error)):
        summary(k=2).save(tmp_path / "new.npz")
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["c.npz"]
    equal(CompressedProblem.load(path), old)


def test_a_saved_file_has_the_permissions_of_a_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    summary().save(tmp_path / "c.npz")
    assert (tmp_path / "c.npz").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_file_is_a_zip_that_anything_can_read(tmp_path: Path) -> None:
    summary().save(tmp_path / "c.npz")
    with zipfile.ZipFile(tmp_path / "c.npz") as file:
        assert file.testzip() is None and "SA.npy" in file.namelist()


def test_sum_of_shards() -> None:
    rng = np.random.default_rng(0)
    A, b = rng.standard_normal((300, 4)), rng.standard_normal(300)
    S = rpcls.SparseSign().sample(40, rng=0)
    shards = [rpcls.compress(A[i : i + 100], b[i : i + 100], S, row_offset=i) for i in range(0, 300, 100)]
    np.testing.assert_allclose(sum(shards).SA, rpcls.compress(A, b, S).SA, atol=1e-12)
    with pytest.raises(TypeError, match="unsupported operand"):
        1 + shards[0]
