"""Own data for a study: A and b from .npz, .npy, .csv and .parquet files."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets import Dataset
from ..errors import FormatError, InvalidValueError, MissingDependencyError

__all__ = ["SUFFIXES", "load", "some_rows", "with_intercept"]

SUFFIXES = (".npz", ".npy", ".csv", ".parquet")


def load(path: str | os.PathLike[str], target: str | None = None) -> Dataset:
    """Read a least-squares problem.

    Parameters
    ----------
    path : path
        .npz: the array named by `target` (default "b") is b; "A", or the only other array with two dimensions, is A.
        .npy: one array with two dimensions; `target` is the number of the column that is b (default −1, the last).
        .csv (comma-separated, with a header), .parquet: `target` names the column that is b, all others are A.
    target : str, optional

    Raises
    ------
    InvalidValueError
        An unknown suffix or target, or columns that are not numbers or have gaps.
    FormatError
        The file cannot be read as what its suffix says.
    MissingDependencyError
        pandas (and for .parquet pyarrow) is not installed.
    FileNotFoundError
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in SUFFIXES:
        raise InvalidValueError(f"--data must end in {', '.join(SUFFIXES)}, got {path.name!r}")
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        if kind == ".npz":
            return _from_npz(path, target)
        if kind == ".npy":
            return _from_npy(path, target)
    except (zipfile.BadZipFile, EOFError, ValueError, OSError) as error:
        if isinstance(error, InvalidValueError):
            raise
        raise FormatError(f"{path.name} cannot be read as {kind}: {' '.join(str(error).split())}") from error
    return _from_frame(path, kind, target)


def some_rows(data: Dataset, rows: int, seed: int) -> np.ndarray:
    """The indices, in order, of that many rows drawn without replacement."""
    m, n = data.shape
    if not n < rows <= m:
        raise InvalidValueError(
            f"--rows must be above the {n} columns and at most the {m} rows of the data, got {rows}"
        )
    return np.sort(np.random.default_rng(seed).choice(m, size=rows, replace=False))


def with_intercept(A: np.ndarray) -> np.ndarray:
    """A with a last column of ones."""
    out = np.empty((A.shape[0], A.shape[1] + 1), dtype=A.dtype if A.dtype.kind == "f" else np.float64)
    out[:, :-1] = A
    out[:, -1] = 1.0
    return out


def _from_npz(path: Path, target: str | None) -> Dataset:
    name = target or "b"
    with np.load(path, allow_pickle=False) as file:
        if name not in file.files:
            raise InvalidValueError(f"{path.name} has no array {name!r}; --target can be {_listed(file.files)}")
        matrices = [n for n in file.files if n != name and file[n].ndim == 2]
        if "A" in matrices:
            matrices = ["A"]
        if len(matrices) != 1:
            raise InvalidValueError(
                f"{path.name} needs an array 'A', or exactly one array with two dimensions besides {name!r}; "
                f"found {_listed(matrices) if matrices else 'none'}"
            )
        A, b = file[matrices[0]], file[name]
    if b.ndim == 2 and b.shape[1] == 1:
        b = b[:, 0]
    if b.shape != A.shape[:1]:
        raise InvalidValueError(
            f"{name!r} must have shape ({len(A)},) to match {matrices[0]!r} {A.shape}, got {b.shape}"
        )
    return Dataset(path.stem, A, b, name, None, f"Arrays {matrices[0]!r} and {name!r} of {path.name}.")


def _from_npy(path: Path, target: str | None) -> Dataset:
    table = np.load(path, allow_pickle=False)
    if table.ndim != 2 or table.shape[1] < 2:
        raise InvalidValueError(f"{path.name} must hold an array with two dimensions and columns, got {table.shape}")
    width = table.shape[1]
    try:
        column = int(target) if target is not None else -1
        b = table[:, column]
    except (ValueError, IndexError):
        raise InvalidValueError(
            f"--target of an .npy file must be a column number, {-width} … {width - 1}, got {target!r}"
        ) from None
    A = np.delete(table, column, axis=1)
    number = column % width
    return Dataset(path.stem, A, np.ascontiguousarray(b), f"column {number}", None, f"Column {number} of {path.name}.")


def _from_frame(path: Path, kind: str, target: str | None) -> Dataset:
    try:
        import pandas as pd

        frame: Any = pd.read_csv(path) if kind == ".csv" else pd.read_parquet(path)
    except ImportError as error:
        extra, package = ("parquet", "pandas with pyarrow") if kind == ".parquet" else ("study", "pandas")
        raise MissingDependencyError.for_package(package, extra, f"Reading {kind} files") from error
    except Exception as error:  # pandas and pyarrow raise many kinds
        raise FormatError(f"{path.name} cannot be read as {kind}: {' '.join(str(error).split())}") from error
    frame.columns = frame.columns.map(str)
    names = list(frame.columns)
    if target is None:
        raise InvalidValueError(f"--target is needed with {path.name}: one of {_listed(names)}")
    if target not in names:
        raise InvalidValueError(f"{path.name} has no column {target!r}; --target can be {_listed(names)}")
    if len(names) < 2:
        raise InvalidValueError(f"{path.name} has one column only; are its cells separated by commas?")
    text = [n for n in names if not (pd.api.types.is_numeric_dtype(frame[n]) or pd.api.types.is_bool_dtype(frame[n]))]
    if text:
        raise InvalidValueError(
            f"columns that are not numbers: {_listed(text)}; encode or drop them in {path.name} first"
        )
    gaps = [f"{n} ({k})" for n in names if (k := int(frame[n].isna().sum()))]
    if gaps:
        raise InvalidValueError(f"columns with missing values: {_listed(gaps)}; fill or drop them in {path.name} first")
    columns = [n for n in names if n != target]
    A = np.ascontiguousarray(frame[columns].to_numpy(dtype=np.float64))
    b = frame[target].to_numpy(dtype=np.float64)
    return Dataset(path.stem, A, b, target, tuple(columns), f"Column {target!r} of {path.name} from the others.")


def _listed(names: Any) -> str:
    names = list(names)
    return ", ".join(names[:12]) + (f", … ({len(names)} in all)" if len(names) > 12 else "")
