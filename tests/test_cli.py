"""The command line: files in, files out, one line for every mistake."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import rpcls
from rpcls import cli, datasets
from rpcls.datasets import Dataset, synthetic
from rpcls.study import StudyTable, files, jobs, runner

pytest.importorskip("matplotlib")
pd = pytest.importorskip("pandas")

QUICK = ["--solvers", "full,robust-partial", "--sketches", "CountSketch", "--sketch-sizes", "2,4n", "--repeats", "1"]


@pytest.fixture(scope="module")
def data():
    return synthetic(2000, 35, snr=10.0, rng=0)


@pytest.fixture
def run(tmp_path, capsys):
    """main(["study", …]) into tmp_path/out → (exit code, output, error)."""

    def call(*arguments, quick=True):
        options = [*QUICK, "--no-memory"] if quick else []
        code = cli.main(["study", "--output", str(tmp_path / "out"), *options, *map(str, arguments)])
        return code, *capsys.readouterr()

    return call


def frame_of(data):
    frame = pd.DataFrame(data.A, columns=[f"a{i}" for i in range(data.shape[1])])
    frame.insert(3, "price", data.b)
    return frame


def write(data, path):
    kind = path.suffix
    if kind == ".npz":
        np.savez(path, A=data.A, b=data.b, other=data.b[:, None] * 2)
    elif kind == ".npy":
        np.save(path, np.column_stack([data.A, data.b]))
    elif kind == ".csv":
        frame_of(data).to_csv(path, index=False)
    else:
        frame_of(data).to_parquet(path)
    return path


# -- data -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "target"), [("d.npz", None), ("d.npz", "b"), ("d.npy", None), ("d.csv", "price"), ("d.parquet", "price")]
)
def test_files_hold_what_was_written(data, tmp_path, name, target):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    found = files.load(write(data, tmp_path / name), target)
    np.testing.assert_allclose(found.A, data.A, rtol=1e-14)
    np.testing.assert_allclose(found.b, data.b, rtol=1e-14)
    assert (found.columns is not None) == (target == "price")
    if found.columns:
        assert found.columns[:4] == ("a0", "a1", "a2", "a3") and found.target == "price"


def test_npz_with_other_names_and_npy_with_a_column_number(data, tmp_path):
    np.savez(tmp_path / "d.npz", rows=data.A, y=data.b[:, None])
    found = files.load(tmp_path / "d.npz", "y")
    assert found.A.shape == data.A.shape and np.array_equal(found.b, data.b)
    found = files.load(write(data, tmp_path / "d.npy"), "0")
    assert np.array_equal(found.b, data.A[:, 0]) and np.array_equal(found.A[:, -1], data.b)
    assert found.target == "column 0"


@pytest.mark.parametrize(
    ("name", "content", "target", "error", "message"),
    [
        (
            "d.txt",
            b"",
            None,
            rpcls.InvalidValueError,
            r"--data must end in \.npz, \.npy, \.csv, \.parquet, got 'd\.txt'",
        ),
        ("d.npz", b"nonsense", None, rpcls.FormatError, r"d\.npz cannot be read as \.npz"),
        ("d.npy", b"nonsense", None, rpcls.FormatError, r"d\.npy cannot be read as \.npy"),
        ("d.parquet", b"nonsense", "y", rpcls.FormatError, r"d\.parquet cannot be read as \.parquet"),
        ("d.csv", b"", "y", rpcls.FormatError, r"d\.csv cannot be read as \.csv"),
        ("d.csv", b"x,y\n1,2\n", None, rpcls.InvalidValueError, r"--target is needed with d\.csv: one of x, y"),
        ("d.csv", b"x,y\n1,2\n", "z", rpcls.InvalidValueError, r"has no column 'z'; --target can be x, y"),
        ("d.csv", b"x;y\n1;2\n", "x;y", rpcls.InvalidValueError, "one column only; are its cells separated by commas"),
        ("d.csv", b"x,y,c\n1,2,red\n", "y", rpcls.InvalidValueError, "columns that are not numbers: c; encode or drop"),
        ("d.csv", b"x,y\n1,2\n,3\n", "y", rpcls.InvalidValueError, r"columns with missing values: x \(1\)"),
    ],
)
def test_files_that_do_not_hold_a_problem(tmp_path, name, content, target, error, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=message):
        files.load(tmp_path / name, target)


@pytest.mark.parametrize(
    ("arrays", "target", "message"),
    [
        ({"A": np.ones((4, 2))}, None, r"has no array 'b'; --target can be A"),
        ({"X": np.ones((4, 2)), "Z": np.ones((4, 2)), "b": np.ones(4)}, None, "besides 'b'; found X, Z"),
        ({"b": np.ones(4)}, None, "besides 'b'; found none"),
        (
            {"A": np.ones((4, 2)), "b": np.ones(3)},
            None,
            r"'b' must have shape \(4,\) to match 'A' \(4, 2\), got \(3,\)",
        ),
    ],
)
def test_npz_files_that_do_not_hold_a_problem(tmp_path, arrays, target, message):
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(rpcls.InvalidValueError, match=message):
        files.load(tmp_path / "d.npz", target)


def test_npy_files_that_do_not_hold_a_problem(tmp_path):
    np.save(tmp_path / "d.npy", np.ones(4))
    with pytest.raises(
        rpcls.InvalidValueError, match=r"must hold an array with two dimensions and columns, got \(4,\)"
    ):
        files.load(tmp_path / "d.npy")
    np.save(tmp_path / "d.npy", np.ones((4, 3)))
    for target in ("3", "price"):
        with pytest.raises(rpcls.InvalidValueError, match=f"must be a column number, -3 … 2, got '{target}'"):
            files.load(tmp_path / "d.npy", target)


def test_rows_are_drawn_without_replacement_in_order():
    data = Dataset("d", np.ones((10, 2)), np.ones(10), "b", None, "")
    chosen = files.some_rows(data, 6, seed=0)
    assert len(set(chosen)) == 6 and list(chosen) == sorted(chosen) and max(chosen) < 10
    for rows in (2, 11):
        with pytest.raises(rpcls.InvalidValueError, match=f"above the 2 columns and at most the 10 rows.* got {rows}"):
            files.some_rows(data, rows, seed=0)


# -- the command ----------------------------------------------------------------------------------------------------


def test_a_study_of_own_data_writes_everything(data, tmp_path, run):
    code, out, err = run("--data", write(data, tmp_path / "d.csv"), "--target", "price")
    assert code == 0 and err == ""
    folder = tmp_path / "out"
    assert sorted(p.name for p in folder.iterdir()) == ["report.html", "results.csv", "tradeoff.png", "tradeoff.svg"]
    for path in folder.iterdir():
        assert str(path) in out and path.stat().st_size > 200
    table = StudyTable.from_csv(folder / "results.csv")
    assert {r.solver for r in table} == {"full", "robust-partial", "cholesky", "scipy-cwt", "lapack"}
    assert {r.sketch_size for r in table} == {70, 140, None} and table.targets == ("price",)
    assert out.startswith("price: 2000 × 35, R² =") and "LAPACK gelsd" in out
    assert (folder / "tradeoff.png").read_bytes()[:4] == b"\x89PNG"
    assert "price" in (folder / "report.html").read_text(encoding="utf-8")


def test_intercept_and_rows(data, tmp_path, run):
    code, out, _ = run("--data", write(data, tmp_path / "d.npy"), "--rows", 500, "--intercept", "--rng", 4)
    assert code == 0 and out.startswith("column 35: 500 × 36, R² =")
    assert {r.seed for r in StudyTable.from_csv(tmp_path / "out" / "results.csv")} == {4, None}
    A = files.with_intercept(np.arange(6).reshape(3, 2))
    np.testing.assert_array_equal(A, [[0, 1, 1], [2, 3, 1], [4, 5, 1]])


def test_without_data_both_photograph_targets_are_studied(run, monkeypatch, tmp_path):
    pytest.importorskip("sklearn")
    pytest.importorskip("PIL")
    patches, b_of = datasets.photo_patches, datasets.photo_target  # a smaller window, for a quicker test
    monkeypatch.setattr(datasets, "photo_patches", lambda target: patches(window=5, target=target))
    monkeypatch.setattr(datasets, "photo_target", lambda target: b_of(target, window=5))
    code, out, _ = run("--rows", 1500)
    assert code == 0
    assert "pixel: 1500 × 49, R² = 0.9" in out and "detail: 1500 × 49, R² =" in out
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "four neighbours" in text and "1500 rows drawn at random" in text
    code, out, _ = run("--rows", 1500, "--target", "detail")
    assert code == 0 and "pixel" not in out


def test_a_failing_method_does_not_fail_the_command(data, tmp_path, run):
    path = write(data, tmp_path / "d.npz")
    code, out, _ = run("--data", path, "--solvers", "full,FullyCompressed(ridge=1.0)", "--sketch-sizes", "0.1,2")
    assert code == 0  # d = 4 suits CountSketch
    code, out, _ = run("--data", path, "--sketches", "SparseSign(8),CountSketch()")
    assert code == 0 and "SparseSign(8)" in out


def test_when_everything_fails_the_exit_code_says_so(data, tmp_path, run, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("no luck")

    monkeypatch.setattr(rpcls, "compress", refuse)
    failure = jobs.Outcome.failure(RuntimeError("no luck"), [])
    monkeypatch.setattr(runner, "run_baseline", lambda *_: failure)
    code, out, _ = run("--data", write(data, tmp_path / "d.npz"))
    assert code == 1 and "8 of 8 runs failed" in out and "RuntimeError: no luck" in out


def test_ctrl_c_writes_what_is_finished(data, tmp_path, run, monkeypatch):
    real, calls = runner.solve_once, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(runner, "solve_once", interrupted)
    code, out, _ = run("--data", write(data, tmp_path / "d.npz"))
    assert code == 130 and "Interrupted" in out
    assert len(StudyTable.from_csv(tmp_path / "out" / "results.csv")) == 3
    calls.extend([()] * 5)
    code, out, err = run("--data", tmp_path / "d.npz")
    assert code == 130 and out == "" and "interrupted before anything was finished" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "missing.csv"], "no such file: missing.csv"),
        (["--data", "d.npz", "--target", "c"], "d.npz has no array 'c'; --target can be A, b, other"),
        (["--data", "d.npz", "--solvers", "quick"], "unknown name in solvers: 'quick'"),
        (["--data", "d.npz", "--solvers", ","], "solvers is empty"),
        (["--data", "d.npz", "--sketches", "SparseSign(0)"], "nnz_per_column"),
        (["--data", "d.npz", "--sketch-sizes", "two"], "--sketch-sizes must be numbers such as 1.2,2,4, got 'two'"),
        (["--data", "d.npz", "--sketch-sizes", "-2"], "positive multiples of n"),
        (["--data", "d.npz", "--repeats", "0"], "repeats must be at least 1, got 0"),
        (["--data", "d.npz", "--rng", "-1"], "--rng must be at least 0, got -1"),
        (["--data", "d.npz", "--rows", "7"], "--rows must be above the 35 columns"),
        (["--target", "sky"], "target must be one of 'pixel', 'detail', got 'sky'"),
        (["--intercept"], "--intercept is for own data"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(data, tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    write(data, Path("d.npz"))
    arguments = [*arguments, *(() if "--repeats" in arguments else ("--repeats", "1"))]
    assert cli.main(["study", "--no-memory", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("rpcls: error: ") and err.count("\n") == 1 and message in err


def test_argparse_mistakes_and_version(capsys):
    for arguments in ([], ["study", "--repeats", "many"], ["studdy"]):
        with pytest.raises(SystemExit) as stop:
            cli.main(arguments)
        assert stop.value.code == 2
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0 and capsys.readouterr().out.strip() == f"rpcls {rpcls.__version__}"


def test_lists_split_outside_parentheses():
    assert cli._listed(" full, Robust(rho='loo', x=[1,2]),,b ") == ["full", "Robust(rho='loo', x=[1,2])", "b"]


def test_the_command_runs_in_a_process_of_its_own(data, tmp_path):
    write(data, tmp_path / "d.npz")
    path = os.pathsep.join([str(Path(rpcls.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "rpcls.cli", "study", "--data", "d.npz", *QUICK, "--output", "here"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0 and done.stderr == ""
    assert "report.html" in done.stdout and (tmp_path / "here" / "report.html").is_file()
    table = StudyTable.from_csv(tmp_path / "here" / "results.csv")
    assert not table.failures and not any("Error" in row.message for row in table)
