"""What solving will cost, and the cheapest safe way: a function of the problem's shape and a table of rates alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .errors import InvalidTypeError, InvalidValueError
from .rates import CARD, CARD_VECTOR, COPY, VECTOR, Rates, card_growth, growth, rates

__all__ = ["Plan", "PlannedSolver", "plan"]

_MULTIPLES = (4, 6, 8, 10, 12, 16, 20, 24, 32)  # sketch sizes that are considered, in units of n
_LEAST_SIZE = 64
NORMAL_CONDITION = 1e4  # of unit-norm columns, up to which the normal equations keep enough digits to refine
SINGLE_CONDITION = 5e3  # by a guess from a few rows, up to which their products may be taken in float32,
SINGLE_COLUMNS = 500  # if there are as many columns
_FEW_RHS = 4  # and few right-hand sides: else that saves less than refinement costs
_SINGLE_SHARE = 0.6  # of the time of products in float64
_UNKNOWN_ROWS = 1_000_000  # row blocks do not tell how many there are
_DIGITS = 9.7  # by which conjugate gradients bring the sketched solution's error down: 9.2 at κ = 10¹², 11.7 at 10⁸
_FRESH = 3  # residuals formed explicitly


@dataclass(frozen=True)
class PlannedSolver:
    """What one way of solving is predicted to cost.

    Attributes
    ----------
    solver : {"direct", "normal", "precondition"}
    route : {"gram", "cg"} or None
        Of "precondition".
    sketch_size : int or None
    sweeps : int
        How often the rows are read.
    seconds : float
        By the table of rates.

    Examples
    --------
    >>> import rpcls
    >>> [(way.solver, way.sweeps) for way in rpcls.plan((1_000_000, 16), condition=100.0).ways[:2]]
    [('normal', 2), ('precondition', 3)]
    """

    solver: str
    route: str | None
    sketch_size: int | None
    sweeps: int
    seconds: float


@dataclass(frozen=True)
class Plan:
    """The ways of solving a problem of this shape to this accuracy, the cheapest first; print it as a table.

    Attributes
    ----------
    shape : (m, n)
    rtol : float or None
    ways : tuple of PlannedSolver
        All of them safe: none may miss the accuracy without saying so.
    device : {"cpu", "cuda"}
        Where the rows are swept.

    Examples
    --------
    >>> import rpcls
    >>> plan = rpcls.plan((100_000, 1000), rtol=1e-3)
    >>> plan.choice.route, plan.choice.sweeps < 15
    ('cg', True)
    >>> print(str(plan).splitlines()[0])
    100000 × 1000, rtol = 0.001, device cpu
    """

    shape: tuple[int | None, int]
    rtol: float | None
    ways: tuple[PlannedSolver, ...]
    device: str = "cpu"

    @property
    def choice(self) -> PlannedSolver:
        """What ``solver="auto"`` takes."""
        return self.ways[0]

    def __str__(self) -> str:
        m, n = self.shape
        wanted = "full accuracy" if self.rtol is None else f"rtol = {self.rtol:g}"
        lines = [
            f"{'?' if m is None else m} × {n}, {wanted}, device {self.device}",
            f"{'solver':14}{'route':7}{'sketch_size':>12}{'sweeps':>8}{'seconds':>10}",
        ]
        for way in self.ways:
            size = "" if way.sketch_size is None else str(way.sketch_size)
            lines.append(f"{way.solver:14}{way.route or '':7}{size:>12}{way.sweeps:>8}{way.seconds:>10.3g}")
        return "\n".join(lines)


def plan(
    shape: tuple[int | None, int],
    *,
    rtol: float | None = None,
    dtype: Any = np.float64,
    nnz: int | None = None,
    n_rhs: int = 1,
    condition: float | None = None,
    device: str | None = None,
    from_host: bool = False,
) -> Plan:
    """The ways of solving that ``rpcls.lstsq(A, b, rtol=rtol)`` chooses from, and what each is predicted to cost.

    Parameters
    ----------
    shape : (m, n)
        Of A; m is None where it is not known.
    rtol : float in (0, 1), optional
        Wanted ‖A(x − x*)‖ / ‖Ax*‖; by default full accuracy.
    dtype : float32 or float64, default float64
    nnz : int, optional
        Stored entries of a sparse A; by default A is dense.
    n_rhs : int, default 1
        Right-hand sides.
    condition : float, optional
        What the condition number of A is thought to be, with columns of unit norm; at 10⁴ or less, the normal equations
        are safe (they verify it). `rpcls.lstsq` guesses it from a few rows of an array; with a sparse A it hopes for
        the best, since trying costs little.
    device : {None, "cpu", "cuda"}, default None
        Where the rows are swept. "cuda": on a card.
    from_host : bool, default False
        Whether a card has to copy the rows from host memory for every sweep, as ``lstsq(..., device="cuda")`` does.

    Returns
    -------
    Plan

    Raises
    ------
    InvalidValueError, InvalidTypeError

    Notes
    -----
    The table of rates is the committed one, the same everywhere, unless `rpcls.calibrate` has written the user's own;
    nothing else about the machine enters, so the same call makes the same choice, with any number of threads. For a
    card it is a committed table as well, of an H200.

    Examples
    --------
    >>> import rpcls
    >>> [rpcls.plan((1_000_000, n)).choice.route for n in (16, 1000)]
    ['gram', 'cg']
    >>> rpcls.plan((1_000_000, 64), condition=100.0).choice.solver
    'normal'
    >>> rpcls.plan((50, 10)).choice.solver
    'direct'
    >>> rpcls.plan((1_000_000, 1000), device="cuda").choice.route
    'gram'
    """
    if not isinstance(shape, tuple) or len(shape) != 2:
        raise InvalidValueError(f"shape must be (m, n), got {shape!r}")
    m, n = shape
    for name, value, least in (("m", m, 0), ("n", n, 1), ("nnz", nnz, 0), ("n_rhs", n_rhs, 1)):
        if value is not None or name in ("n", "n_rhs"):
            _check_count(name, value, least)
    rtol = checked_rtol(rtol)
    if condition is not None:
        if isinstance(condition, bool) or not isinstance(condition, int | float | np.number):
            raise InvalidTypeError(f"condition must be a float, got {type(condition).__name__} {condition!r}")
        if not condition >= 1:
            raise InvalidValueError(f"condition must be at least 1, got {condition}")
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise InvalidTypeError(f"dtype must be float32 or float64, got {np.dtype(dtype)}")
    if device not in (None, "cpu", "cuda"):
        raise InvalidValueError(f"device must be None, 'cpu' or 'cuda', got {device!r}")
    if from_host and device != "cuda":
        raise InvalidValueError(f"from_host is for device='cuda', which copies the rows, got device={device!r}")
    table, vector, grows = (CARD, CARD_VECTOR, card_growth) if device == "cuda" else (rates(), VECTOR, growth)
    copy = COPY if from_host else 0.0
    work = _Work(
        table, vector, grows, copy, m if m is not None else _UNKNOWN_ROWS, n, np.dtype(dtype).itemsize, nnz, n_rhs
    )
    ways = [work.direct()]
    if m is None or m > 2 * max(_MULTIPLES[0] * n, _LEAST_SIZE):
        if nnz is None:
            ways.append(work.gram())
        ways.append(work.cg(rtol))
        if condition is not None and condition <= NORMAL_CONDITION:
            single = device != "cuda" and single_pays(n, n_rhs, nnz) and condition <= SINGLE_CONDITION
            ways.append(work.normal(single=single))
    if nnz is not None and m is not None and m > n:
        ways = [way for way in ways if way.solver != "direct"] or ways  # LAPACK would fill in what is zero
    ways = [replace(way, seconds=way.seconds + way.sweeps * work.copying) for way in ways]
    return Plan((m, n), rtol, tuple(sorted(ways, key=lambda way: way.seconds)), device or "cpu")


def single_pays(n: int, n_rhs: int, nnz: int | None) -> bool:
    """Whether products in float32 make the normal equations faster, on the CPU, where the condition number is low."""
    return nnz is None and n >= SINGLE_COLUMNS and n_rhs <= _FEW_RHS


def checked_rtol(rtol: Any) -> float | None:
    """`rtol` as a float in (0, 1), or None, or the error that says so."""
    if rtol is None:
        return None
    if isinstance(rtol, bool) or not isinstance(rtol, int | float | np.number):
        raise InvalidTypeError(f"rtol must be a float, got {type(rtol).__name__} {rtol!r}")
    if not 0 < rtol < 1:
        raise InvalidValueError(f"rtol must be in (0, 1), got {rtol}")
    return float(rtol)


def _check_count(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InvalidTypeError(f"{name} must be an int, got {type(value).__name__} {value!r}")
    if value < least:
        raise InvalidValueError(f"{name} must be at least {least}, got {value}")


@dataclass(frozen=True)
class _Work:
    rates: Rates
    vector: float
    growth: Callable[[int], float]
    copy: float
    m: int
    n: int
    itemsize: int
    nnz: int | None
    k: int

    @property
    def bytes(self) -> int:
        return self.m * self.n * self.itemsize

    @property
    def copying(self) -> float:
        """Of the rows to a card, for one sweep; an index of an entry has four bytes."""
        return self.copy * (self.bytes if self.nnz is None else self.nnz * (self.itemsize + 4))

    def direct(self) -> PlannedSolver:
        flops = 2.0 * self.m * self.n * (self.n + 2 * self.k)
        copies = 3 * self.rates.read * self.m * self.n * 8
        return PlannedSolver("direct", None, None, 1, flops * self.rates.at("direct", self.n) + copies)

    def compress(self, d: int) -> float:
        """A compress sweep and the factor of what it leaves."""
        if self.nnz is None:
            SA = 8 * d * self.n * self.itemsize  # a byte of it, cleared, filled and put together, costs as eight of A
            sweep = self.rates.compress * (self.bytes * self.growth(d) + SA)
        else:
            sweep = self.rates.compress_entry * self.nnz
        factor = 2.0 * d * self.n**2 * self.rates.at("factor", self.n)
        return sweep + factor + 3 * self.n**3 * self.rates.at("factor", self.n) + self.rates.sweep

    def iteration(self) -> float:
        entries = self.rates.entry * self.nnz if self.nnz is not None else self.rates.read * self.bytes
        return entries * max(1.0, self.k / 4) + self.rates.sweep + 4 * self.n**2 * self.k * self.vector

    def gram(self) -> PlannedSolver:
        d = max(4 * self.n, _LEAST_SIZE)
        flops = 2.0 * self.m * self.n * (self.n + self.k)
        return PlannedSolver(
            "precondition", "gram", d, 3,
            self.compress(d) + flops * self.rates.at("blas3", self.n) + self.iteration(),
        )  # fmt: skip

    def normal(self, *, single: bool) -> PlannedSolver:
        if self.nnz is None:
            gram = 1.0 * self.m * self.n * (self.n + 2 * self.k) * self.rates.at("blas3", self.n)
        else:  # every entry meets the entries of its own row
            gram = self.rates.entry * self.nnz * (1 + self.nnz / max(self.m, 1)) + self.n**3 / 3 * 1e-10
        if single:
            return PlannedSolver("normal", None, None, 6, _SINGLE_SHARE * gram + 5 * self.iteration())
        return PlannedSolver("normal", None, None, 2, gram + self.iteration())

    def cg(self, rtol: float | None) -> PlannedSolver:
        best = None
        for multiple in _MULTIPLES:
            d = max(multiple * self.n, _LEAST_SIZE)
            if best is not None and d * 2 > self.m:
                break
            rate = 0.5 * math.log10(d / self.n)
            if rtol is None:
                iterations = math.ceil(_DIGITS / rate) + _FRESH
            else:
                iterations = 1 + max(0, math.ceil((-math.log10(rtol) + 0.5) / rate) - 1)
            seconds = self.compress(d) + iterations * self.iteration()
            if best is None or seconds < best.seconds:
                best = PlannedSolver("precondition", "cg", d, 1 + iterations, seconds)
        assert best is not None
        return best


def precondition_plan(
    shape: tuple[int | None, int], route: str, rtol: float | None, **place: Any
) -> PlannedSolver | None:
    """The cheapest plan for "precondition" on a dense A by this route; None where A has too few rows for a sketch."""
    ways = [way for way in plan(shape, rtol=rtol, **place).ways if way.solver == "precondition"]
    if route != "auto":
        ways = [way for way in ways if way.route == route]
    elif rtol is not None:
        ways = [way for way in ways if way.route == "cg"]
    return ways[0] if ways else None
