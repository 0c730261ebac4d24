"""run: every solver with every sketch at every size, beside the baselines, measured against the exact answer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import InvalidValueError
from ..progress import Progress
from ..random import Key, RandomLike
from .checks import as_baselines, as_matrix, as_ratios, as_repeats, as_target
from .jobs import (
    Outcome,
    compress_once,
    needs_rows,
    run_baseline,
    run_front_door,
    run_method,
    solve_once,
    takes_sketch,
)
from .machine import describe_machine
from .methods import BASELINES, DEFAULT_SKETCHES, DEFAULT_SOLVERS, label_of, named_sketches, named_solvers
from .place import Host, place_of
from .reference import Reference
from .table import Problem, StudyRow, StudyTable

__all__ = ["run"]

_SWEEP_READS = 6.0  # rough cost of a compress sweep in reads of A, for the progress bar
_FULL_READS = 30.0  # of a solver that goes back to the rows
_CHILD_READS = 15.0


def run(
    A: Any,
    b: Any,
    *,
    solvers: Iterable[Any] = DEFAULT_SOLVERS,
    sketches: Iterable[Any] = DEFAULT_SKETCHES,
    sketch_sizes: Iterable[float] = (1.2, 2.0, 4.0, 10.0),
    repeats: int = 3,
    rng: RandomLike = 0,
    baselines: Iterable[str] = ("cholesky", "scipy-cwt", "lapack"),
    memory: bool = True,
    descriptions: Mapping[str, str] | None = None,
    progress: bool | None = None,
    workers: int | None = None,
    device: str | None = None,
) -> StudyTable:
    """Measure the error–time trade-off of solvers, sketches and sketch sizes on one matrix.

    Parameters
    ----------
    A : (m, n) array
        float32 or float64, m > n; other real types are converted to float64.
    b : (m,) array, or mapping of str to (m,) arrays
        One target, or several by name: independent studies that share A.
    solvers : iterable of names, expressions or solver values
        Names: "full", "partial-raw", "partial-debiased", "partial" (best-scaled), "robust-full", "robust-partial",
        "robust-partial-sweep", "combined"; and, with sketches that they choose for themselves or none, "precondition",
        "precondition-1e-1", "-1e-2", "-1e-3", "-1e-6" (stopped at that `rtol`), "normal", "hessian-sketch", "direct".
        An expression is text such as "RobustPartiallyCompressed(rho=0.1)". Default: all but "partial-debiased",
        "robust-partial-sweep", "hessian-sketch", "direct".
    sketches : iterable of names, expressions or families
        Default SparseSign(8) and CountSketch().
    sketch_sizes : iterable of float
        As multiples of n: d = ⌈multiple · n⌉, but at least what the family needs. Default 1.2, 2, 4, 10.
    repeats : int, default 3
        Independent draws of every sketch; at least 1.
    rng : int, SeedSequence, Generator, Key or None, default 0
        Repeat r uses seed rng + r if rng is an int, and that seed is in the table.
    baselines : iterable of {"cholesky", "scipy-cwt", "lapack"}
        Normal equations with Cholesky, unrefined; SciPy's Clarkson–Woodruff transform, then lstsq on the sketch;
        scipy.linalg.lstsq with its default driver gelsd (once for every target).
    memory : bool, default True
        Also run every method once, at the largest size and on the first target, in a process of its own for its
        peak memory. It needs A's size in temporary disk space.
    descriptions : mapping of str to str, optional
        A sentence about each target, for the report.
    progress : bool, optional
        A progress bar on standard error; None: if that is a terminal.
    workers : int, optional
        Threads of the sweeps, as in `rpcls.compress`.
    device : {None, "cpu", "cuda"}, default None
        "cuda": the rows are moved to the current NVIDIA card once, outside all timings, and every solver gets them as
        CuPy arrays. Times end when the card is done, peak memory is that on the card, and the baselines, which need the
        rows in host memory, are left out; the table's settings say so.

    Returns
    -------
    StudyTable
        Ctrl-C ends the study early and returns what is finished, with ``interrupted=True``.

    Raises
    ------
    InvalidValueError, InvalidTypeError, NonFiniteError
        Wrong input. A method that fails is a row with status "ERROR" and its message, not an exception.

    Notes
    -----
    Errors are measured against x* from one row-blocked QR of [A b], outside all timings. One compress sweep serves
    all one-pass solvers of the same (target, sketch, size, repeat); each is charged with the whole sweep. All
    methods run on a few rows first, so that no timing contains compilation or loading.

    Examples
    --------
    >>> import rpcls.datasets, rpcls.study
    >>> data = rpcls.datasets.synthetic(3000, 30, snr=100.0, rng=0)
    >>> table = rpcls.study.run(
    ...     data.A, data.b, solvers=["full", "robust-partial"], sketch_sizes=[2], repeats=1, memory=False, baselines=[]
    ... )
    >>> [(row.solver, row.sweeps, row.relative_error < 1) for row in table.select(sketch="CountSketch()")]
    [('full', 1, True), ('robust-partial', 1, True)]
    """
    study = _Study.checked(A, b, solvers, sketches, sketch_sizes, repeats, rng, baselines, workers, device)
    return study.run(memory=bool(memory), descriptions=dict(descriptions or {}), progress=progress)


@dataclass
class _Study:
    """Checked input and the rows so far."""

    A: np.ndarray
    targets: dict[str, np.ndarray]
    solvers: dict[str, Any]
    sketches: dict[str, Any]
    ratios: tuple[float, ...]
    repeats: int
    first_seed: int
    baselines: tuple[str, ...]
    workers: int | None
    rows: list[StudyRow]
    place: Host
    held: Any  # A where the methods find it
    reference: Reference | None = None

    @classmethod
    def checked(
        cls,
        A: Any,
        b: Any,
        solvers: Any,
        sketches: Any,
        sizes: Any,
        repeats: Any,
        rng: Any,
        baselines: Any,
        workers: Any,
        device: Any,
    ) -> _Study:
        A = as_matrix(A)
        targets = {str(k): v for k, v in b.items()} if isinstance(b, Mapping) else {"b": b}
        if not targets:
            raise InvalidValueError("b is an empty mapping; give at least one target")
        targets = {name: as_target(value, name, A) for name, value in targets.items()}
        key = Key.of(rng)  # checks it, too
        place = place_of(device)
        return cls(
            A,
            targets,
            named_solvers(solvers),
            named_sketches(sketches),
            as_ratios(sizes),
            as_repeats(repeats),
            int(rng) if isinstance(rng, int | np.integer) else key.value >> 33,
            place.baselines(as_baselines(baselines)),
            workers,
            [],
            place,
            place.put(A),
        )

    # -- the plan -----------------------------------------------------------------------------------------------

    @property
    def one_pass(self) -> dict[str, Any]:
        """The solvers that share a sweep."""
        return {label: solver for label, solver in self.solvers.items() if not needs_rows(solver)}

    @property
    def sweepers(self) -> dict[str, Any]:
        """The solvers of a given sketch that sweep on their own."""
        return {label: s for label, s in self.solvers.items() if takes_sketch(s) and needs_rows(s)}

    @property
    def others(self) -> dict[str, Any]:
        """The solvers that choose their own sketch, or need none."""
        return {label: solver for label, solver in self.solvers.items() if not takes_sketch(solver)}

    def sizes(self, family: Any) -> list[int]:
        n = self.A.shape[1]
        return list(dict.fromkeys(max(math.ceil(r * n - 1e-9), family.minimum_size) for r in self.ratios))

    def cost(self, memory: bool) -> float:
        """Rough cost of everything in reads of A; only the progress bar uses it."""
        sketched = sum(len(self.sizes(f)) for f in self.sketches.values())
        each = sketched * _SWEEP_READS * (bool(self.one_pass) + len(self.sweepers)) + len(self.others) * _FULL_READS
        total = each * self.repeats
        for name in self.baselines:
            baseline = BASELINES[name]
            runs = (1 if baseline.once else self.repeats) * (len(self.ratios) if baseline.sketched else 1)
            total += runs * baseline.reads
        total *= len(self.targets)
        if memory:
            total += sum(BASELINES[name].reads for name in self.baselines)
            given = len(self.solvers) - len(self.others)
            total += _CHILD_READS * (len(self.baselines) + given * len(self.sketches))
            total += (_CHILD_READS + _FULL_READS) * len(self.others)
        return total + 2 * _SWEEP_READS * 5

    # -- the work -----------------------------------------------------------------------------------------------

    def run(self, memory: bool, descriptions: dict[str, str], progress: bool | None) -> StudyTable:
        machine = describe_machine()
        interrupted = False
        with Progress(self.cost(memory), progress, "study") as bar:
            try:
                bar.step("exact answer")
                B = np.column_stack([np.asarray(v, dtype=np.float64) for v in self.targets.values()])
                self.reference = Reference.of(self.A, B)
                machine |= self.place.facts(self.held)
                bar.done(_SWEEP_READS * 5)
                bar.step("warming up (compiles once after installation)")
                self.warm_up()
                bar.done(_SWEEP_READS * 5)
                for repeat in range(self.repeats):
                    self.sketched_runs(repeat, bar)
                    self.baseline_runs(repeat, bar, once=False)
                self.baseline_runs(0, bar, once=True)
                if memory:
                    self.measure_memory(bar)
            except KeyboardInterrupt:
                interrupted = True
        return StudyTable(
            tuple(self.rows), self.problems(descriptions), self.settings(), machine, interrupted=interrupted
        )

    def warm_up(self) -> None:
        m, n = self.A.shape
        few = min(m, max(4 * n, 1000))
        A, b = self.held[:few], self.place.put(next(iter(self.targets.values())))[:few]
        for solver in self.solvers.values():
            for family in self.sketches.values() if takes_sketch(solver) else (None,):
                d = None if family is None else max(2 * n, family.minimum_size)
                run_method(solver, family, d, 0, A, b, self.workers)  # a failure will show again in the study proper
        for name in self.baselines:
            run_baseline(name, A, b, 2 * n, 0)

    def sketched_runs(self, repeat: int, bar: Progress) -> None:
        seed = self.first_seed + repeat
        for j, (target, host) in enumerate(self.targets.items()):
            b = self.place.put(host)
            for name, family in self.sketches.items():
                for d in self.sizes(family):
                    where = f"{target}, {label_of(name)}, d = {d}, repeat {repeat + 1} of {self.repeats}"
                    if self.one_pass:
                        bar.step(where)
                        self._shared_sweep(j, target, b, name, family, d, repeat, seed)
                        bar.done(_SWEEP_READS)
                    for label, solver in self.sweepers.items():
                        bar.step(f"{label}, {where}")
                        outcome = run_front_door(solver, self.held, b, family, d, seed, self.workers)
                        self.record(j, target, label, name, d, repeat, seed, outcome)
                        bar.done(_SWEEP_READS)
            for label, solver in self.others.items():
                bar.step(f"{label}, {target}, repeat {repeat + 1} of {self.repeats}")
                drawn = seed if solver.sketch(self.A.shape, self.A.dtype) is not None else None
                outcome = run_front_door(solver, self.held, b, None, None, drawn, self.workers)
                self.record(j, target, label, None, None, repeat, drawn, outcome)
                bar.done(_FULL_READS)

    def _shared_sweep(
        self, j: int, target: str, b: Any, name: str, family: Any, d: int, repeat: int, seed: int
    ) -> None:
        found = compress_once(self.held, b, family, d, seed, self.workers)
        for label, solver in self.one_pass.items():
            outcome = found if isinstance(found, Outcome) else solve_once(solver, *found)
            self.record(j, target, label, name, d, repeat, seed, outcome)

    def baseline_runs(self, repeat: int, bar: Progress, *, once: bool) -> None:
        seed = self.first_seed + repeat
        n = self.A.shape[1]
        for name in self.baselines:
            baseline = BASELINES[name]
            if baseline.once != once:
                continue
            for j, (target, b) in enumerate(self.targets.items()):
                for d in [max(1, math.ceil(r * n - 1e-9)) for r in self.ratios] if baseline.sketched else [None]:
                    bar.step(f"{baseline.label}, {target}" + (f", d = {d}" if d else ""))
                    outcome = run_baseline(name, self.A, b, d or 0, seed)
                    self.record(j, target, name, None, d, repeat, seed if d else None, outcome)
                    bar.done(baseline.reads)

    def record(
        self,
        j: int,
        target: str,
        solver: str,
        sketch: str | None,
        d: int | None,
        repeat: int,
        seed: int | None,
        o: Outcome,
    ) -> None:
        assert self.reference is not None
        self.rows.append(
            StudyRow(
                target=target,
                solver=solver,
                sketch=sketch,
                sketch_size=d,
                d_over_n=None if d is None else d / self.A.shape[1],
                repeat=repeat,
                seed=seed,
                compress_seconds=o.compress_seconds,
                solve_seconds=o.solve_seconds,
                seconds=o.seconds,
                sweeps=o.sweeps,
                relative_error=None if o.x is None else self.reference.relative_error(o.x, j),
                residual_ratio=None if o.x is None else self.reference.residual_ratio(o.x, j),
                peak_mib=None,
                status=o.status,
                message=o.message,
            )
        )

    def measure_memory(self, bar: Progress) -> None:
        b = next(iter(self.targets.values()))
        ratio = max(self.ratios)
        largest = max(1, math.ceil(ratio * self.A.shape[1] - 1e-9))
        methods: list[tuple[str, Any, str | None, Any, int | None, float]] = []
        for label, solver in self.solvers.items():
            if takes_sketch(solver):
                methods += [(label, solver, s, f, max(self.sizes(f)), 0.0) for s, f in self.sketches.items()]
            else:
                methods.append((label, solver, None, None, None, _FULL_READS))
        for name in self.baselines:
            baseline = BASELINES[name]
            methods.append((name, name, None, None, largest if baseline.sketched else None, baseline.reads))
        bar.step("peak memory: writing the data")
        with self.place.gauge(self.held, self.place.put(b), self.workers) as gauge:
            for label, solver, sketch, family, d, reads in methods:
                bar.step(f"peak memory: {label}" + (f", {label_of(sketch)}" if sketch else ""))
                mib, note = gauge.measure(solver, family, d, self.first_seed)
                self._attach(label, sketch, d, mib, note)
                bar.done(_CHILD_READS + reads)

    def _attach(self, solver: str, sketch: str | None, d: int | None, mib: float | None, note: str) -> None:
        for i, row in enumerate(self.rows):
            if (row.solver, row.sketch, row.sketch_size) == (solver, sketch, d):
                why = f"peak memory not measured: {note}" if mib is None and not row.failed else ""
                message = " | ".join(filter(None, (row.message, why)))
                self.rows[i] = replace(row, peak_mib=mib, message=message)

    # -- what the table says about itself -----------------------------------------------------------------------

    def problems(self, descriptions: dict[str, str]) -> tuple[Problem, ...]:
        if self.reference is None:
            return ()
        found = []
        m, n = self.A.shape
        for j, (target, b) in enumerate(self.targets.items()):
            least, signal = self.reference.least_residual_norm(j), self.reference.signal_norm(j)
            spread = float(np.linalg.norm(b - b.mean(dtype=np.float64)))
            found.append(
                Problem(
                    target=target,
                    m=m,
                    n=n,
                    dtype=str(self.A.dtype),
                    condition=self.reference.condition,
                    rank=self.reference.rank,
                    snr=(signal / least) ** 2 if least else math.inf,
                    r2=1.0 - (least / spread) ** 2 if spread else math.nan,
                    description=descriptions.get(target, ""),
                )
            )
        return tuple(found)

    def settings(self) -> dict[str, str]:
        return {
            "solvers": ", ".join(self.solvers),
            "sketches": ", ".join(self.sketches),
            "sketch sizes": ", ".join(f"{r:g}n" for r in self.ratios),
            "repeats": str(self.repeats),
            "first seed": str(self.first_seed),
            "baselines": ", ".join(BASELINES[name].label for name in self.baselines) or "none",
            **self.place.settings,
        }
