"""CompressedProblem: what one compress sweep leaves, and all that the one-pass solvers need."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from operator import index as operator_index
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .errors import FormatError, InvalidTypeError, InvalidValueError
from .kernels import on_card, on_host
from .linalg import column_norms, ldexp, less_outer, product
from .random import STREAM_VERSION, Key
from .sketches import FAMILIES
from .sketches.base import SketchOperator, parameters

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from .solution import Solution

__all__ = ["CompressedProblem"]

_ARRAYS = ("SA", "Sb", "S1", "Atb", "btb", "column_norms", "column_sums", "b_sum")


@dataclass(frozen=True, eq=False, repr=False)
class CompressedProblem:
    """The summary of min ‖Ax − b‖ that one sweep leaves; it holds no reference to the rows.

    Summaries of disjoint rows under the same operator add up: ``c1 + c2``. With sample weights w, "A", "b" and 1
    stand for √w·A, √w·b and √w.

    Attributes
    ----------
    SA : (d, n) array, in A's dtype
        A CuPy array if A was one; all else is in host memory.
    Sb : (d,) or (d, k) array, in A's dtype
    S1 : (d,) float64 array
        S·1, which makes the intercept free.
    Atb : (n,) or (n, k) float64 array
        Aᵀb, exact up to rounding.
    btb : float or (k,) float64 array
        ‖b‖².
    column_norms, column_sums : (n,) float64 arrays
    b_sum : float or (k,) float64 array
    weight : float
        Sum of the weights; the number of rows when there are none.
    intervals : tuple of (start, stop)
        The rows covered, in order, disjoint, not touching.
    operator : SketchOperator
    columns : tuple of str or None
        Names of A's columns.
    exponents : (int, int)
        (0, 0) unless the squares of the data overflow or underflow. Then every array is in units of A·2^-exponents[0]
        and b·2^-exponents[1]; solvers undo it.
    means : None or (column means (n,), mean of b)
        Set by `centered`.
    timings : mapping of str to float
        Seconds of the sweep.

    Examples
    --------
    >>> import numpy as np, rpcls
    >>> rng = np.random.default_rng(0)
    >>> A, b = rng.standard_normal((5000, 40)), rng.standard_normal(5000)
    >>> c = rpcls.compress(A, b, sketch_size=160, rng=0)
    >>> c.SA.shape, bool(np.allclose(c.Atb, A.T @ b)), c.intervals
    ((160, 40), True, ((0, 5000),))
    >>> solutions = [c.solve(s) for s in (rpcls.FullyCompressed(), rpcls.RobustPartiallyCompressed())]
    >>> [s.status.name for s in solutions]
    ['OK', 'OK']
    """

    SA: Any
    Sb: np.ndarray
    S1: np.ndarray
    Atb: np.ndarray
    btb: Any
    column_norms: np.ndarray
    column_sums: np.ndarray
    b_sum: Any
    weight: float
    intervals: tuple[tuple[int, int], ...]
    operator: SketchOperator
    columns: tuple[str, ...] | None = None
    exponents: tuple[int, int] = (0, 0)
    means: tuple[np.ndarray, Any] | None = None
    timings: Mapping[str, float] = field(default_factory=dict)

    FORMAT: ClassVar[str] = "rpcls.CompressedProblem"
    FORMAT_VERSION: ClassVar[int] = 1

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n): the rows covered so far and the columns of A."""
        return sum(stop - start for start, stop in self.intervals), self.SA.shape[1]

    @property
    def dtype(self) -> np.dtype:
        """A's: float32 or float64."""
        return self.SA.dtype

    @property
    def sweeps(self) -> int:
        """Sweeps behind this summary: one, and those that prepared the operator."""
        return 1 + getattr(self.operator.family, "sweeps", 0)

    @property
    def sketch_size(self) -> int:
        """d."""
        return self.SA.shape[0]

    def __repr__(self) -> str:
        m, n = self.shape
        rows = ", ".join(f"{a}:{b}" for a, b in self.intervals[:3]) + (", …" if len(self.intervals) > 3 else "")
        k = "" if self.Atb.ndim == 1 else f" × {self.Atb.shape[1]} right-hand sides"
        centred = ", centered" if self.means is not None else ""
        return f"CompressedProblem({m} × {n}{k}, {self.dtype}, rows [{rows}], {self.operator!r}{centred})"

    def solve(self, solver: Any) -> Solution:
        """Solve from this summary alone: ``solver.solve(self, None)``, no further sweep.

        Parameters
        ----------
        solver : a one-pass solver value, such as ``rpcls.RobustPartiallyCompressed()``
        """
        if not hasattr(solver, "solve"):
            raise InvalidTypeError(f"solve needs a solver such as rpcls.PartiallyCompressed(), got {solver!r}")
        return solver.solve(self, None)

    # -- merging ------------------------------------------------------------------------------------------------

    def __add__(self, other: CompressedProblem) -> CompressedProblem:
        if not isinstance(other, CompressedProblem):
            return NotImplemented
        self._check_mergeable(other)
        common = self._common_exponents(other)
        a, b = self._in_units(common), other._in_units(common)
        intervals = _merge_intervals(self.intervals, other.intervals)
        if on_card(a.SA) != on_card(b.SA):
            a, b = a._on_host(), b._on_host()
        sums = {name: getattr(a, name) + getattr(b, name) for name in _ARRAYS if name != "column_norms"}
        seconds = {k: self.timings.get(k, 0.0) + other.timings.get(k, 0.0) for k in {*self.timings, *other.timings}}
        return replace(
            a,
            **sums,
            column_norms=np.hypot(a.column_norms, b.column_norms),
            weight=a.weight + b.weight,
            intervals=intervals,
            timings=seconds,
        )

    def __radd__(self, other: Any) -> CompressedProblem:
        return self if isinstance(other, int) and other == 0 else NotImplemented  # the start of sum()

    def _check_mergeable(self, other: CompressedProblem) -> None:
        if self.means is not None or other.means is not None:
            raise InvalidValueError("centered summaries do not add up; add first, then call .centered()")
        if self.operator != other.operator:
            raise InvalidValueError(
                f"summaries add up only under the same operator, got {_short(self.operator)} and "
                f"{_short(other.operator)}; compress every part with one operator: S = family.sample(d, rng=…)"
            )
        if self.SA.shape[1] != other.SA.shape[1] or self.Atb.shape != other.Atb.shape:
            raise InvalidValueError(
                f"summaries add up only for the same columns and right-hand sides, got Atb of shapes "
                f"{self.Atb.shape} and {other.Atb.shape}"
            )
        if self.dtype != other.dtype:
            raise InvalidValueError(f"summaries add up only in the same dtype, got {self.dtype} and {other.dtype}")
        if self.columns != other.columns:
            raise InvalidValueError(f"column names differ: {self.columns} and {other.columns}")

    def _common_exponents(self, other: CompressedProblem) -> tuple[int, int]:
        """The larger exponents of two summaries; a summary of zeros has no say, or it would wipe out small data."""
        sizes = [(np.any(c.column_norms), np.any(c.btb)) for c in (self, other)]
        common = []
        for part in (0, 1):
            given = [c.exponents[part] for c, size in zip((self, other), sizes, strict=True) if size[part]]
            common.append(max(given, default=0))
        return common[0], common[1]

    def _on_host(self) -> CompressedProblem:
        return replace(self, SA=on_host(self.SA))

    def _in_units(self, exponents: tuple[int, int]) -> CompressedProblem:
        ea, eb = self.exponents[0] - exponents[0], self.exponents[1] - exponents[1]
        if ea == 0 and eb == 0:
            return self
        return replace(
            self,
            exponents=exponents,
            SA=ldexp(self.SA, ea),
            Sb=np.ldexp(self.Sb, eb),
            Atb=np.ldexp(self.Atb, ea + eb),
            btb=np.ldexp(self.btb, 2 * eb),
            column_norms=np.ldexp(self.column_norms, ea),
            column_sums=np.ldexp(self.column_sums, ea),
            b_sum=np.ldexp(self.b_sum, eb),
        )

    # -- centring -----------------------------------------------------------------------------------------------

    def centered(self) -> CompressedProblem:
        """The summary of the problem with a free intercept: every column and b less its (weighted) mean.

        It costs O(dn) and no sweep. The subtraction loses about 2·log10(|mean| / standard deviation) digits of Atb
        in a column whose mean is large; `rpcls.Direct` centres the rows themselves.

        Returns
        -------
        CompressedProblem
            With `means` set; a Solution made from it has `intercept`.
        """
        if self.means is not None:
            return self
        if not self.weight > 0:
            raise InvalidValueError(f"centering needs a positive total weight, got {self.weight}")
        a_mean = self.column_sums / self.weight
        b_mean = self.b_sum / self.weight
        squares = self.column_norms**2 - self.weight * a_mean**2
        return replace(
            self,
            SA=less_outer(self.SA, self.S1, a_mean).astype(self.dtype, copy=False),
            Sb=(self.Sb - np.multiply.outer(self.S1, b_mean)).astype(self.dtype, copy=False),
            Atb=self.Atb - np.multiply.outer(a_mean, b_mean) * self.weight,
            btb=np.maximum(self.btb - self.weight * np.square(b_mean), 0.0),
            column_norms=np.sqrt(np.maximum(squares, 0.0)),
            column_sums=np.zeros_like(self.column_sums),
            b_sum=np.zeros_like(self.b_sum)[()],
            means=(a_mean, b_mean),
        )

    def constant_columns(self, tolerance: float) -> np.ndarray:
        """Which columns centring has reduced to the rounding errors of its subtraction, sketched and summed alike."""
        if self.means is None:
            return np.zeros(self.SA.shape[1], bool)
        mean = np.abs(self.means[0])
        one = self.S1 / (np.linalg.norm(self.S1) or 1.0)
        along = product(self.SA, one[:, None], transpose=True)[:, 0]
        sketched = column_norms(less_outer(self.SA, one, along))  # less the mean's own error
        small = sketched <= tolerance * np.linalg.norm(self.S1) * mean
        squares = max(tolerance, 4096 * np.finfo(np.float64).eps)  # of sums as long as the columns
        return (mean > 0) & small & (self.column_norms <= np.sqrt(squares * self.weight) * mean)

    # -- files --------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a .npz file (versioned, no pickle). An existing file is replaced only once all is written.

        What was on a card is in host memory once it is loaded.
        """
        import json
        import os
        import secrets
        from pathlib import Path

        path = Path(path)
        header = {
            "format": self.FORMAT,
            "version": self.FORMAT_VERSION,
            "stream_version": STREAM_VERSION,
            "family": type(self.operator.family).__name__,
            "parameters": parameters(self.operator.family),
            "sketch_size": self.operator.sketch_size,
            "key": self.operator.key.value,
            "m": self.operator.m,
            "weight": self.weight,
            "intervals": self.intervals,
            "columns": self.columns,
            "exponents": self.exponents,
            "timings": dict(self.timings),
        }
        arrays = {name: np.asarray(on_host(getattr(self, name))) for name in _ARRAYS}
        if self.means is not None:
            arrays["a_mean"], arrays["b_mean"] = (np.asarray(v) for v in self.means)
        aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
        try:
            with open(aside, "xb") as file:
                np.savez(file, header=np.array(json.dumps(header)), **arrays)  # type: ignore[arg-type]
            os.replace(aside, path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CompressedProblem:
        """Read what `save` wrote.

        Raises
        ------
        FormatError
            The file is truncated, not a CompressedProblem, or from another version of the format or streams.
        OSError
            The file cannot be opened.
        """
        import json

        with open(path, "rb") as handle:
            try:
                with np.load(handle, allow_pickle=False) as file:
                    header = json.loads(str(file["header"]))
                    arrays = {name: file[name] for name in file.files if name != "header"}
            except Exception as error:  # broken archives make zipfile and NumPy raise all kinds
                raise FormatError(f"{path} is not a complete CompressedProblem file: {error}") from error
        return cls._from_file(path, header, arrays)

    @classmethod
    def _from_file(cls, path: Any, header: Any, arrays: dict[str, np.ndarray]) -> CompressedProblem:
        if not isinstance(header, dict) or header.get("format") != cls.FORMAT:
            raise FormatError(f"{path} does not hold a CompressedProblem")
        for name, known in (("version", cls.FORMAT_VERSION), ("stream_version", STREAM_VERSION)):
            if header.get(name) != known:
                raise FormatError(f"{path} has {name} {header.get(name)}, this rpcls reads {known}; compress again")
        try:
            family = FAMILIES[header["family"]](**header["parameters"])
            operator = SketchOperator(family, header["sketch_size"], Key(header["key"]), header["m"])
            a_mean, b_mean = arrays.pop("a_mean", None), arrays.pop("b_mean", None)
            _check_arrays({**arrays, "a_mean": a_mean, "b_mean": b_mean}, operator.sketch_size)
            columns, intervals = header["columns"], tuple((int(a), int(b)) for a, b in header["intervals"])
            if columns is not None and len(columns) != len(arrays["column_norms"]):
                raise ValueError(f"{len(columns)} column names for {len(arrays['column_norms'])} columns")
            if _merge_intervals(intervals, ()) != intervals or any(not 0 <= start < stop for start, stop in intervals):
                raise ValueError(f"intervals must be ordered and apart, got {intervals}")
            if not 0 <= header["weight"] < float("inf"):
                raise ValueError(f"weight must be finite and not negative, got {header['weight']}")
            ea, eb = (operator_index(e) for e in header["exponents"])
            return cls(
                **{name: _plain(arrays[name]) for name in _ARRAYS},
                weight=float(header["weight"]),
                intervals=intervals,
                operator=operator,
                columns=None if columns is None else tuple(str(name) for name in columns),
                exponents=(ea, eb),
                means=None if a_mean is None else (a_mean, _plain(b_mean)),
                timings={str(k): float(v) for k, v in header["timings"].items()},
            )
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise FormatError(f"{path} is not a valid CompressedProblem file: {reason}") from error


def _short(operator: SketchOperator) -> str:
    """The expression that rebuilds it, unless that lists thousands of rows."""
    text = repr(operator)
    return text if len(text) <= 200 else f"{text[:120]}… (chosen for other rows)"


def _plain(array: Any) -> Any:
    """A float for an array without dimensions."""
    return array if array.ndim else float(array)


def _check_arrays(arrays: dict[str, np.ndarray | None], d: int) -> None:
    """Raise unless the arrays of a file have the shapes and dtypes of one summary of d sketch rows."""
    SA, Atb = arrays["SA"], arrays["Atb"]
    if SA is None or Atb is None or SA.dtype not in (np.float32, np.float64) or Atb.ndim not in (1, 2):
        raise ValueError("SA must hold float32 or float64, and Atb have one or two dimensions")
    n, k, wide = len(Atb), Atb.shape[1:], np.dtype(np.float64)
    expected = {
        "SA": ((d, n), SA.dtype), "Sb": ((d, *k), SA.dtype), "S1": ((d,), wide), "Atb": ((n, *k), wide),
        "btb": (k, wide), "column_norms": ((n,), wide), "column_sums": ((n,), wide), "b_sum": (k, wide),
    }  # fmt: skip
    if arrays["a_mean"] is not None or arrays["b_mean"] is not None:
        expected |= {"a_mean": ((n,), wide), "b_mean": (k, wide)}
    for name, (shape, dtype) in expected.items():
        array = arrays[name]
        if array is None or array.shape != shape or array.dtype != dtype:
            got = "nothing" if array is None else f"{array.dtype} {array.shape}"
            raise ValueError(f"{name} must be {dtype} {shape}, got {got}")


def _merge_intervals(
    first: tuple[tuple[int, int], ...], second: tuple[tuple[int, int], ...]
) -> tuple[tuple[int, int], ...]:
    merged: list[tuple[int, int]] = []
    for start, stop in sorted((*first, *second)):
        if start == stop:
            continue
        if merged and start < merged[-1][1]:
            raise InvalidValueError(
                f"summaries of overlapping rows do not add up: rows {start}:{min(stop, merged[-1][1])} are in both; "
                "give each part its own row_offset"
            )
        if merged and start == merged[-1][1]:
            merged[-1] = (merged[-1][0], stop)
        else:
            merged.append((start, stop))
    return tuple(merged)
