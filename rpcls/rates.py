"""How fast a machine is: the few rates from which the cost of every solver is predicted.

The committed table is what `rpcls calibrate` found on a machine with two cores, rounded. A user's own takes its place
in every later process; nothing else about the machine enters a plan, so equal tables give equal plans. Rows on a card
have a table of their own, of an H200.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from .errors import FormatError

__all__ = ["Rates", "rates", "rates_path"]

TABLES = ("blas3", "factor", "direct")  # by the number of columns


@dataclass(frozen=True)
class Rates:
    """Seconds per unit of each kind of work, with all threads.

    Attributes
    ----------
    read : float
        Per byte of A, in a sweep bound by memory (`gradient`, `normal`).
    compress : float
        Per byte of A, in a SparseSign(8) `compress` sweep with a sketch of up to 1000 rows, `growth(d)` times as much
        with more; and eight times as much per byte of SA.
    blas3 : tuple of (int, float)
        Per flop of the `gram` sweep at numbers of columns n; between them, by interpolation in log n.
    factor : tuple of (int, float)
        Per flop of the factor of a sketch, counted as QR, likewise.
    direct : tuple of (int, float)
        Per flop of LAPACK's QR of a whole A, likewise.
    entry : float
        Per stored entry of a sparse A, in a sweep.
    compress_entry : float
        Per stored entry of a sparse A, in a SparseSign(8) `compress` sweep.
    sweep : float
        Per sweep, whatever its size: threads, allocations.

    Examples
    --------
    >>> from rpcls.rates import COMMITTED
    >>> COMMITTED.at("blas3", 64) > COMMITTED.at("blas3", 1000)
    True
    """

    read: float
    compress: float
    blas3: tuple[tuple[int, float], ...]
    factor: tuple[tuple[int, float], ...]
    direct: tuple[tuple[int, float], ...]
    entry: float
    compress_entry: float
    sweep: float

    def at(self, name: str, n: int) -> float:
        """Seconds per flop of `name` at n columns."""
        table = getattr(self, name)
        if n <= table[0][0]:
            return table[0][1]
        for (n0, r0), (n1, r1) in itertools.pairwise(table):
            if n <= n1:
                share = math.log(n / n0) / math.log(n1 / n0)
                return math.exp((1 - share) * math.log(r0) + share * math.log(r1))
        return table[-1][1]


COMMITTED = Rates(
    read=4.2e-11,
    compress=1.3e-10,
    blas3=((16, 3e-11), (64, 1.6e-11), (256, 1.6e-11), (1000, 1.3e-11)),
    factor=((16, 1.4e-9), (64, 2.4e-10), (256, 6e-11), (1000, 2.1e-11)),
    direct=((16, 1.6e-10), (64, 1.2e-10), (256, 4.1e-11), (1000, 1.8e-11)),
    entry=2.1e-9,
    compress_entry=1.9e-8,
    sweep=0.00025,
)


# By the times of sweeps, of products and of QR on an H200, rounded. Nothing was measured of sparse rows: an entry is
# taken to cost as much as three of a dense A.
CARD = Rates(
    read=2.8e-13,
    compress=8e-13,
    blas3=((16, 4e-13), (64, 1e-13), (256, 4.3e-14), (2000, 2.6e-14)),
    factor=((16, 1e-8), (64, 5e-10), (256, 1.4e-11), (2000, 9e-14)),
    direct=((16, 2.5e-11), (64, 7e-12), (256, 5e-13), (2000, 1.9e-13)),
    entry=9e-12,
    compress_entry=4e-11,
    sweep=0.0002,
)
COPY = 2e-11  # seconds per byte of rows in host memory that a sweep copies to the card
VECTOR, CARD_VECTOR = 1e-9, 1e-11  # seconds per flop of what an iteration does with vectors and a triangle


def growth(d: int) -> float:
    """How much longer a `compress` sweep takes with a sketch of d rows than of 1000, as SA leaves the caches."""
    return 1 + 0.2 * max(0.0, math.log2(d / 1000))


def card_growth(d: int) -> float:
    """The same on a card, which goes over A again for every thousand rows, or once for every block of S."""
    return min(1 + 0.3 * max(0.0, d / 1024 - 1), 2.6)


def rates_path() -> Path:
    """Where `rpcls.calibrate` writes and plans look: RPCLS_RATES, else rpcls/rates.json in the user's configuration."""
    named = os.environ.get("RPCLS_RATES")
    if named:
        return Path(named)
    home = os.environ.get("XDG_CONFIG_HOME") or (os.environ.get("APPDATA") if os.name == "nt" else None)
    return (Path(home) if home else Path.home() / ".config") / "rpcls" / "rates.json"


@cache
def rates() -> Rates:
    """The user's rates if `rpcls.calibrate` has written them, else the committed ones; read once a process."""
    path = rates_path()
    if not path.exists():
        return COMMITTED
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise FormatError(
            f"the table of machine rates {path} must be what rpcls.calibrate() writes, and could not be read "
            f"({type(error).__name__}: {error}); delete it, or call rpcls.calibrate() again"
        ) from error


def to_json(table: Rates) -> str:
    return json.dumps({"rpcls rates": 1, **asdict(table)}, indent=1) + "\n"


def from_json(text: str) -> Rates:
    data = json.loads(text)
    if not isinstance(data, dict) or data.pop("rpcls rates", None) != 1:
        raise ValueError('no "rpcls rates": 1')
    values = {}
    for field in fields(Rates):
        value = data.pop(field.name)
        values[field.name] = _by_columns(field.name, value) if field.name in TABLES else _positive(field.name, value)
    if data:
        raise ValueError(f"unknown entries {sorted(data)}")
    return Rates(**values)


def _by_columns(name: str, value: Any) -> tuple[tuple[int, float], ...]:
    if not isinstance(value, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        raise ValueError(f"{name} must be a list of [columns, rate], got {value!r}")
    columns = [n for n, _ in value]
    if not columns or not all(type(n) is int and n > 0 for n in columns) or sorted(set(columns)) != columns:
        raise ValueError(f"{name} must have growing numbers of columns, got {columns}")
    return tuple((n, _positive(name, rate)) for n, rate in value)


def _positive(name: str, value: Any) -> float:
    if type(value) not in (int, float) or not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a positive number, got {value!r}")
    return float(value)
