"""The front door: lstsq and compress. Arguments are validated here, once; then the road runs.

rows ──compress──▶ CompressedProblem ──solver──▶ Solution
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np

from .automatic import automatic
from .compressed import CompressedProblem
from .errors import InvalidTypeError, InvalidValueError
from .multipass import Direct, IterativeHessianSketch, NormalEquations, SketchAndPrecondition
from .onepass import (
    CombinedCompressed,
    FullyCompressed,
    PartiallyCompressed,
    RobustFullyCompressed,
    RobustPartiallyCompressed,
)
from .planning import checked_rtol
from .random import RandomLike
from .sizes import default_sketch_size
from .sketches import LeverageSampling, SketchFamily, SketchOperator, SparseSign
from .sketches.base import ROWS_LIMIT
from .solution import Solution
from .sources import Source, source_of

__all__ = ["SOLVERS", "compress", "lstsq"]

SOLVERS = {
    "full": FullyCompressed,
    "partial": PartiallyCompressed,
    "robust-full": RobustFullyCompressed,
    "robust-partial": RobustPartiallyCompressed,
    "combined": CombinedCompressed,
    "precondition": SketchAndPrecondition,
    "normal": NormalEquations,
    "direct": Direct,
    "hessian-sketch": IterativeHessianSketch,
}


def compress(
    A: Any,
    b: Any,
    sketch: SketchFamily | SketchOperator | LeverageSampling | None = None,
    *,
    sketch_size: int | None = None,
    rng: RandomLike = None,
    row_offset: int = 0,
    sample_weight: Any = None,
    workers: int | None = None,
    device: str | None = None,
) -> CompressedProblem:
    """Read A and b once and keep a summary that every one-pass solver can answer from.

    Parameters
    ----------
    A : (m, n) array_like, sparse matrix or table, RowBlocks, or iterator of (A_block, b_block)
        CuPy arrays and matrices of cupyx.scipy.sparse stay on their card, b and sample_weight with them; SA and its
        factors too, x on the card.
        Arrays and memory maps of float32 or float64, in any memory order, are used without a copy. Integers, booleans
        and the other byte order are used as floats, a block of rows at a time: float32 as such, all else as float64.
        SciPy sparse matrices of any form stay sparse; all but CSR of floats, sorted and without repeated entries, are
        copied once.
        Tables (pandas DataFrame, Arrow Table or RecordBatch) hold numbers or booleans without nulls and keep the names
        of their columns. They are used as float32 if all columns are, else as float64: in place if they are one such
        array, else a block of rows at a time. Frames whose columns are all sparse, with 0 left out, stay sparse.
    b : (m,) or (m, k) array_like, Series, Arrow array or table; None when A brings its own
        Dense; used in A's dtype.
    sketch : SketchFamily, SketchOperator or LeverageSampling, default SparseSign()
        With an operator, `sketch_size` and `rng` must be None: this is how parts are compressed that are added later.
    sketch_size : int, optional
        d, at least the family's `minimum_size`; default max(4n, 2·minimum_size).
    rng : int, SeedSequence, Generator, Key or None
        Fixes S; see `Key.of`.
    row_offset : int, default 0
        Index of the first row of A in the whole problem, for parts of one; rows are numbered below 2⁶².
    sample_weight : (m,) array_like, optional
        Non-negative weights w of min Σ wᵢ(aᵢx − bᵢ)².
    workers : int, optional
        Threads; default RPCLS_NUM_THREADS or every processor at hand. The result does not depend on it.
    device : {None, "cpu", "cuda"}, default None
        Where rows in host memory are swept. "cuda": on the current NVIDIA card, to which they are copied a block at a
        time while the block before is swept, so that they may be more than it can hold; it takes CuPy, and the time of
        the copies. Rows in pinned memory (``cupyx.empty_pinned``) are copied from where they are; a sparse matrix of
        up to 4 GiB is copied once for all sweeps. The summary is in host memory. None and "cpu": where they lie.

    Returns
    -------
    CompressedProblem

    Raises
    ------
    InvalidValueError, InvalidTypeError
        Arguments that do not fit.
    NonFiniteError
        NaN or infinity in the data; found without an extra sweep.
    SourceError
        The rows could not be read; the message names the block.
    DeviceError, MissingDependencyError
        There is no card or no room on it; CuPy is not installed.

    Notes
    -----
    One sweep, 2mn(ζ + 3) flops for a sparse sketch; memory beyond A at most twice the size of SA plus 64 MiB. Rows that
    are used as another dtype take two blocks more, each of at most 16 MiB, 4096 rows or 2d rows, whichever is most.

    Examples
    --------
    >>> import numpy as np, rpcls
    >>> rng = np.random.default_rng(0)
    >>> A, b = rng.standard_normal((10_000, 20)), rng.standard_normal(10_000)
    >>> S = rpcls.SparseSign().sample(80, rng=0)
    >>> whole = rpcls.compress(A, b, S)
    >>> parts = rpcls.compress(A[:6000], b[:6000], S) + rpcls.compress(A[6000:], b[6000:], S, row_offset=6000)
    >>> bool(np.allclose(whole.SA, parts.SA)), parts.intervals
    (True, ((0, 10000),))
    """
    if isinstance(row_offset, bool) or not isinstance(row_offset, int | np.integer):
        raise InvalidTypeError(f"row_offset must be an int, got {type(row_offset).__name__} {row_offset!r}")
    if not 0 <= row_offset <= ROWS_LIMIT:
        raise InvalidValueError(f"row_offset must be in [0, 2**62], got {row_offset}")
    source = source_of(A, b, sample_weight=sample_weight, row_offset=int(row_offset), workers=workers, device=device)
    if row_offset + (source.n_rows or 0) > ROWS_LIMIT:
        raise InvalidValueError(f"rows are numbered below 2**62, got {source.n_rows} rows from row_offset {row_offset}")
    return source.handed_out(source.compress(_operator(sketch, sketch_size, rng, source)))


def lstsq(
    A: Any,
    b: Any,
    solver: Any = "auto",
    *,
    sketch: SketchFamily | SketchOperator | LeverageSampling | None = None,
    sketch_size: int | None = None,
    rtol: float | None = None,
    rcond: float | None = None,
    intercept: bool = False,
    sample_weight: Any = None,
    workers: int | None = None,
    device: str | None = None,
    rng: RandomLike = None,
) -> Solution:
    """Solve min ‖Ax − b‖ for a tall A.

    Parameters
    ----------
    A : (m, n) array_like, sparse matrix or table, RowBlocks, or iterator of (A_block, b_block)
        As in `compress`. The names of a table's columns are those of `Solution.columns`.
    b : (m,) or (m, k) array_like, Series, Arrow array or table; None when A brings its own
    solver : str or solver value, default "auto"
        "auto", "precondition", "normal", "direct" and "hessian-sketch" give LAPACK's answer, or say that they could
        not. "full", "partial", "robust-full", "robust-partial" and "combined" read the rows once and answer
        approximately from a sketch. A solver value, such as ``RobustPartiallyCompressed(rho=0.1)``, carries settings.
    sketch, sketch_size, rng
        As in `compress`; the first two only for solvers that sketch.
    rtol : float in (0, 1), optional
        Wanted ‖A(x − x*)‖ / ‖Ax*‖. Solvers of full accuracy meet any; one-pass solvers cannot promise one and refuse
        it.
    rcond : float in [0, 1), optional
        Solvers of full accuracy only: singular values below rcond·σ_max count as zero. By default rank is decided
        on unit-norm columns at 15ε, so that the scaling of columns never costs rank.
    intercept : bool, default False
        Add a free constant, returned as `Solution.intercept`.
    sample_weight, workers, device
        As in `compress`.

    Returns
    -------
    Solution
        x is a NumPy array for rows in host memory, whatever the device, and a CuPy array for rows on a card.

    Raises
    ------
    InvalidValueError, InvalidTypeError, NonFiniteError, SourceError, DeviceError, MissingDependencyError
        As in `compress`.

    Warns
    -----
    ConvergenceWarning
        The answer is not what was asked for; `Solution.status` says why.

    Notes
    -----
    Rank-deficient problems get the solution of minimum norm. The inputs are never changed.

    Examples
    --------
    >>> import numpy as np, rpcls
    >>> rng = np.random.default_rng(0)
    >>> A = rng.standard_normal((10_000, 5))
    >>> b = A @ np.arange(5) + rng.standard_normal(10_000)
    >>> np.round(rpcls.lstsq(A, b).x, 1) + 0
    array([0., 1., 2., 3., 4.])
    >>> rpcls.lstsq(A, b, "full", sketch_size=200, rng=0).sweeps
    1
    """
    if not isinstance(intercept, bool | np.bool_):
        raise InvalidTypeError(f"intercept must be True or False, got {intercept!r}")
    began = time.perf_counter()
    source = source_of(A, b, sample_weight=sample_weight, intercept=bool(intercept), workers=workers, device=device)
    solver, rtol = _solver(solver), checked_rtol(rtol)
    size, solution, wasted = None, None, 0
    if solver == "auto":
        sketched = sketch is not None or sketch_size is not None
        solver, size = automatic(source, rtol, sketched=sketched, ranked=rcond is not None)
        if isinstance(solver, NormalEquations):
            solution, wasted = solver.attempt(source)
            solver = SketchAndPrecondition()
    if solution is None:
        solver = _with_settings(solver, rtol, rcond)
        problem = _compressed(solver, source, sketch, sketch_size, size, rng)
        solution = solver.solve(problem, source)
        solution = replace(solution, sweeps=solution.sweeps + wasted)
    timings = {**solution.timings, "total": time.perf_counter() - began}
    return replace(solution, x=source.returned(solution.x), timings=timings, columns=solution.columns or source.columns)


def _compressed(
    solver: Any, source: Source, sketch: Any, sketch_size: int | None, planned: int | None, rng: RandomLike
) -> CompressedProblem | None:
    """The compress sweep that the solver wants, or None."""
    place = source.place if isinstance(solver, SketchAndPrecondition) else {}
    wanted = (SparseSign(), planned) if planned else solver.sketch(source.shape, source.dtype, **place)
    if wanted is None and (sketch is None or isinstance(solver, Direct | NormalEquations)):
        given = [n for n, v in (("sketch", sketch), ("sketch_size", sketch_size)) if v is not None]
        if given:
            raise InvalidValueError(
                f"{solver!r} uses no sketch, so {' and '.join(given)} must be None; "
                f"for a one-pass answer name a solver, such as 'robust-partial'"
            )
        return None
    if sketch is None:
        sketch, size = wanted or (SparseSign(), None)
        sketch_size = size if sketch_size is None else sketch_size
    exact = isinstance(solver, SketchAndPrecondition | IterativeHessianSketch)
    if rng is None and exact and not isinstance(sketch, SketchOperator):
        rng = 0  # the same call gives the same answer
    problem = source.compress(_operator(sketch, sketch_size, rng, source))
    return problem.centered() if source.intercept else problem


def _operator(sketch: Any, sketch_size: int | None, rng: RandomLike, source: Source) -> SketchOperator:
    if isinstance(sketch, SketchOperator):
        for name, value in (("sketch_size", sketch_size), ("rng", rng)):
            if value is not None:
                raise InvalidValueError(
                    f"{name} must be None with an operator, which fixes it already, got {value!r}; "
                    f"pass the family {sketch.family!r} to choose another"
                )
        return sketch
    if sketch is None:
        sketch = SparseSign()
    n = source.n_columns
    if not isinstance(sketch, SketchFamily | LeverageSampling):
        hint = f"; make a value of it: {sketch.__name__}()" if isinstance(sketch, type) else ""
        raise InvalidTypeError(
            f"sketch must be a family such as rpcls.SparseSign() or an operator that it sampled, got {sketch!r}{hint}"
        )
    if sketch_size is None:
        sketch_size = default_sketch_size(n, sketch)
    elif isinstance(sketch_size, int | np.integer) and sketch_size < sketch.minimum_size:
        raise InvalidValueError(
            f"sketch_size must be at least {sketch.minimum_size} for {sketch!r}, got {sketch_size}; "
            f"leave it None for max(4n, {2 * sketch.minimum_size}) = {default_sketch_size(n, sketch)}"
        )
    if isinstance(sketch, LeverageSampling):
        return sketch.prepare(source, sketch_size, rng=rng)
    m = None
    if not sketch.mergeable:
        if source.n_rows is None:
            raise InvalidValueError(
                f"{sketch!r} needs the number of rows before the sweep, and row blocks do not tell; use a mergeable "
                "family, such as BlockSRHT() or SparseSign()"
            )
        m = source.row_offset + source.n_rows
    return sketch.sample(sketch_size, m=m, rng=rng)


def _solver(solver: Any) -> Any:
    """The solver value, or "auto"."""
    if isinstance(solver, str):
        if solver == "auto":
            return solver
        if solver not in SOLVERS:
            names = ", ".join(repr(name) for name in ("auto", *SOLVERS))
            raise InvalidValueError(f"solver must be one of {names} or a solver value, got {solver!r}")
        return SOLVERS[solver]()
    if isinstance(solver, type) or not (hasattr(solver, "solve") and hasattr(solver, "sketch")):
        hint = f"; make a value of it: {solver.__name__}()" if isinstance(solver, type) else ""
        raise InvalidTypeError(f"solver must be a name or a solver value such as rpcls.Direct(), got {solver!r}{hint}")
    return solver


def _with_settings(solver: Any, rtol: float | None, rcond: Any) -> Any:
    """The solver with rtol and rcond in it, or the error that says that it has no use for them."""
    if rcond is not None:
        if not hasattr(solver, "rcond"):
            raise InvalidValueError(
                f"rcond is for 'auto', 'precondition' and 'direct', which decide a rank; {solver!r} has none"
            )
        solver = replace(solver, rcond=rcond)
    if rtol is not None and not isinstance(solver, Direct | NormalEquations):
        if not hasattr(solver, "rtol"):
            raise InvalidValueError(
                f"{solver!r} answers from one sketch and cannot promise rtol = {rtol}; leave solver='auto' for a "
                "promise"
            )
        solver = replace(solver, rtol=rtol)
    return solver
