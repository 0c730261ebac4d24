"""StudyTable: the tidy rows of a study, and what can be made from them."""

from __future__ import annotations

import csv
import math
import os
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import FormatError, InvalidValueError, MissingDependencyError

if TYPE_CHECKING:
    import pandas

__all__ = ["Problem", "Spread", "StudyRow", "StudyTable", "Summary"]


@dataclass(frozen=True, slots=True)
class StudyRow:
    """One run of one method on one target. None where a quantity does not apply or was not measured.

    Attributes
    ----------
    target : str
    solver : str
        "full", "partial-raw", "partial" (best-scaled), "robust-full", "robust-partial", … or the expression of a
        solver value; baselines are "lapack", "cholesky" and "scipy-cwt".
    sketch : str or None
        The expression of the sketch family; None for solvers that choose their own.
    sketch_size : int or None
        d.
    d_over_n : float or None
    repeat : int
    seed : int or None
        ``rpcls.compress(A, b, sketch, sketch_size=d, rng=seed)`` draws the same operator again, and so does
        ``rpcls.lstsq(A, b, solver, rng=seed)`` for a solver that chooses its own.
    compress_seconds, solve_seconds, seconds : float or None
        Wall time of the sweep, of the rest, and their sum.
    sweeps : int or None
        How often the rows were read; None for LAPACK, which works on a copy.
    relative_error : float or None
        ‖A(x − x*)‖ / ‖Ax*‖.
    residual_ratio : float or None
        ‖b − Ax‖ / ‖b − Ax*‖; None when the system is consistent.
    peak_mib : float or None
        Peak memory above the data, in MiB, from one run of this method and size in a process of its own.
    status : str
        The name of a `rpcls.Status`, or "ERROR".
    message : str
        What went wrong, and warnings; often empty.
    """

    target: str
    solver: str
    sketch: str | None
    sketch_size: int | None
    d_over_n: float | None
    repeat: int
    seed: int | None
    compress_seconds: float | None
    solve_seconds: float | None
    seconds: float | None
    sweeps: int | None
    relative_error: float | None
    residual_ratio: float | None
    peak_mib: float | None
    status: str
    message: str = ""

    @property
    def failed(self) -> bool:
        return self.status == "ERROR"


@dataclass(frozen=True, slots=True)
class Problem:
    """What is known about one target: sizes, condition number of A, and how much of b the columns explain."""

    target: str
    m: int
    n: int
    dtype: str
    condition: float
    rank: int
    snr: float
    r2: float
    description: str = ""


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and greatest of the repeats."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float | None]) -> Spread | None:
        known = [v for v in values if v is not None and math.isfinite(v)]
        return cls(statistics.median(known), min(known), max(known)) if known else None


@dataclass(frozen=True, slots=True)
class Summary:
    """All repeats of one method on one target: medians and ranges."""

    target: str
    solver: str
    sketch: str | None
    sketch_size: int | None
    d_over_n: float | None
    runs: int
    failures: int
    error: Spread | None
    residual_ratio: Spread | None
    seconds: Spread | None
    compress_seconds: Spread | None
    solve_seconds: Spread | None
    sweeps: int | None
    peak_mib: float | None
    statuses: tuple[str, ...]


@dataclass(frozen=True, eq=False, repr=False)
class StudyTable:
    """What `run` returns: tidy rows, one for every run of every method.

    Attributes
    ----------
    rows : tuple of StudyRow
    problems : tuple of Problem
        One for every target.
    settings, machine : mapping of str to str
        What was asked for, and where it ran.
    interrupted : bool
        True when Ctrl-C ended the study early; the rows are those that were finished.

    Examples
    --------
    >>> import rpcls.datasets, rpcls.study
    >>> data = rpcls.datasets.synthetic(2000, 10, rng=0)
    >>> table = rpcls.study.run(data.A, data.b, solvers=["full"], sketch_sizes=[4], repeats=1, memory=False)
    >>> table
    StudyTable(5 rows, targets b)
    >>> sorted({row.solver for row in table})
    ['cholesky', 'full', 'lapack', 'scipy-cwt']
    """

    rows: tuple[StudyRow, ...]
    problems: tuple[Problem, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, str] = field(default_factory=dict)
    interrupted: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[StudyRow]:
        return iter(self.rows)

    def __repr__(self) -> str:
        failed = sum(row.failed for row in self.rows)
        return (
            f"StudyTable({len(self.rows)} rows, targets {', '.join(self.targets) or 'none'}"
            f"{f', {failed} failed' if failed else ''}{', interrupted' if self.interrupted else ''})"
        )

    def __str__(self) -> str:
        from .text import as_text

        return as_text(self)

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets, in the order in which they were first run."""
        return tuple(dict.fromkeys([*(p.target for p in self.problems), *(row.target for row in self.rows)]))

    @property
    def failures(self) -> tuple[StudyRow, ...]:
        """The rows whose method raised an error."""
        return tuple(row for row in self.rows if row.failed)

    def select(self, **where: Any) -> StudyTable:
        """The rows whose fields equal what is given, as a table: ``table.select(target="pixel", solver="full")``."""
        unknown = set(where) - set(_FIELDS)
        if unknown:
            raise InvalidValueError(f"select knows {', '.join(_FIELDS)}, got {', '.join(sorted(unknown))}")
        rows = tuple(r for r in self.rows if all(getattr(r, name) == value for name, value in where.items()))
        return StudyTable(rows, self.problems, self.settings, self.machine, self.interrupted)

    def summary(self) -> list[Summary]:
        """Median and range over the repeats, one entry for every (target, solver, sketch, d), in order of the rows."""
        groups: dict[tuple[Any, ...], list[StudyRow]] = {}
        for row in self.rows:
            key = (row.target, row.solver, row.sketch, row.sketch_size, row.d_over_n)
            groups.setdefault(key, []).append(row)
        return [_summarise(key, rows) for key, rows in groups.items()]

    # -- files --------------------------------------------------------------------------------------------------

    def to_pandas(self) -> pandas.DataFrame:
        """The rows as a data frame (needs pandas)."""
        try:
            import pandas
        except ImportError as error:
            raise MissingDependencyError.for_package("pandas", "study", "StudyTable.to_pandas()") from error
        return pandas.DataFrame([{name: getattr(row, name) for name in _FIELDS} for row in self.rows], columns=_FIELDS)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the rows, with a header; empty cells stand for None. Floats are written so that they read back."""
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(_FIELDS)
            for row in self.rows:
                writer.writerow(["" if (v := getattr(row, name)) is None else v for name in _FIELDS])

    @classmethod
    def from_csv(cls, path: str | os.PathLike[str]) -> StudyTable:
        """Read the rows that `to_csv` wrote; problems, settings and machine are not in that file.

        Raises
        ------
        FormatError
            The file has other columns, or a cell that does not parse.
        """
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            if header != _FIELDS:
                raise FormatError(f"{path} is not a study table: its columns are {header}, not {_FIELDS}")
            rows = []
            for line in reader:
                try:
                    values = {n: _PARSERS[n](cell) for n, cell in zip(header, line, strict=True)}
                except ValueError as error:
                    raise FormatError(f"{path}, line {reader.line_num}: {error}") from error
                rows.append(StudyRow(**values))
        return cls(tuple(rows))

    def plot(self, path: str | os.PathLike[str] | None = None, kind: str = "both") -> Any:
        """Draw the study (needs Matplotlib).

        Parameters
        ----------
        path : path, optional
            Where to write the picture; the suffix is the format (.svg, .png, .pdf). None: nothing is written.
        kind : {"both", "size", "time"}, default "both"
            Error against d/n, the Pareto front of error against time, or both. One column for every target.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from .figures import draw, write

        figure = draw(self, kind)
        if path is not None:
            write(figure, path)
        return figure

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write one self-contained HTML page: figures, tables, machine and versions, how to read it.

        Returns
        -------
        pathlib.Path
            The file.
        """
        from .report import write_report

        return write_report(self, path)


_FIELDS = [f.name for f in fields(StudyRow)]


def _optional(parse: Any) -> Any:
    return lambda cell: None if cell == "" else parse(cell)


_PARSERS: dict[str, Any] = {
    **dict.fromkeys(_FIELDS, _optional(float)),
    **dict.fromkeys(("target", "solver", "status", "message"), str),
    **dict.fromkeys(("sketch_size", "seed", "sweeps"), _optional(int)),
    "repeat": int,
    "sketch": _optional(str),
}


def _summarise(key: tuple[Any, ...], rows: list[StudyRow]) -> Summary:
    target, solver, sketch, sketch_size, d_over_n = key
    spreads = {
        name: Spread.of([getattr(row, name) for row in rows])
        for name in ("residual_ratio", "seconds", "compress_seconds", "solve_seconds")
    }
    return Summary(
        target=target,
        solver=solver,
        sketch=sketch,
        sketch_size=sketch_size,
        d_over_n=d_over_n,
        runs=len(rows),
        failures=sum(row.failed for row in rows),
        error=Spread.of([row.relative_error for row in rows]),
        **spreads,
        sweeps=next((row.sweeps for row in rows if row.sweeps is not None), None),
        peak_mib=next((row.peak_mib for row in rows if row.peak_mib is not None), None),
        statuses=tuple(dict.fromkeys(row.status for row in rows)),
    )
