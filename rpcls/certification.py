"""certify: bounds on the error of any x, from a sketch and one more sweep."""

from __future__ import annotations

from typing import Any

import numpy as np

from .accuracy import Kind, certificate_factor, check_certifiable, checked_confidence, error_bound
from .compressed import CompressedProblem
from .errors import InvalidTypeError, InvalidValueError, NonFiniteError
from .factor import Factor
from .front_door import _operator
from .kernels import on_host
from .linalg import times_power, triangle
from .onepass import CombinedCompressed, FullyCompressed, PartiallyCompressed, RobustPartiallyCompressed
from .onepass.base import Summary
from .random import RandomLike
from .sketches import SketchFamily, SketchOperator
from .solution import ErrorBound, Solution
from .sources import Source, source_of

__all__ = ["certify"]


def certify(
    A: Any,
    b: Any,
    x: Any,
    sketch: SketchFamily | SketchOperator | CompressedProblem | None = None,
    *,
    sketch_size: int | None = None,
    rng: RandomLike = None,
    intercept: bool = False,
    sample_weight: Any = None,
    confidence: float = 0.99,
    workers: int | None = None,
    device: str | None = None,
) -> ErrorBound:
    """Bounds on ‖A(x − x*)‖, how far the fit Ax is from that of the least-squares solution x*, without knowing x*.

    Parameters
    ----------
    A, b : as in `compress`
        Rows that can be read again.
    x : (n,) or (n, k) array_like, or Solution
        Of any origin. For the Solution of a one-pass solver and the same sketch the bounds are narrower.
    sketch : CompressedProblem, SketchFamily or SketchOperator, default SparseSign()
        A CompressedProblem of these rows saves the sweep that compresses. By default a Solution's own sketch.
    sketch_size, rng
        As in `compress`, for a family. The default sketch size is max(4n, 16).
    intercept : bool, default False
        Whether the problem has a free constant; known from a Solution or a centred CompressedProblem. The constant is
        taken to be the best for x.
    sample_weight, workers, device
        As in `compress`.
    confidence : float in [0.9, 0.999], default 0.99
        Each bound holds with at least this probability over the draw of the sketch.

    Returns
    -------
    ErrorBound
        In the units of b. ‖b − Ax‖² = ‖b − Ax*‖² + ‖A(x − x*)‖² turns it into bounds on the least residual.

    Raises
    ------
    InvalidValueError
        CountSketch and sampled rows, which give no certificate; a sketch size that does not exceed n; a sketch of
        numerical rank below n; arguments that do not fit.
    InvalidTypeError, NonFiniteError, SourceError
        As in `compress`.

    Notes
    -----
    Two sweeps, one with a CompressedProblem: Aᵀ(b − Ax), with the residual formed row by row. With R the triangle of
    SA and h = R⁻ᵀAᵀ(b − Ax), the error is ‖h‖ times a number near one that the sketch decides. The upper bound is
    1.2–3 times the error for d ≥ 2n, less the larger d; the lower is often zero below d = 4n. Ten roundings of ‖b‖ in
    A's dtype widen both. The factors were calibrated by simulation (``benchmarks/certificate.py``).

    Examples
    --------
    >>> import numpy as np, rpcls
    >>> rng = np.random.default_rng(0)
    >>> A, b = rng.standard_normal((10_000, 20)), rng.standard_normal(10_000)
    >>> c = rpcls.compress(A, b, sketch_size=100, rng=0)
    >>> solution = c.solve(rpcls.PartiallyCompressed())
    >>> bound = rpcls.certify(A, b, solution, c)
    >>> error = np.linalg.norm(A @ (solution.x - rpcls.lstsq(A, b).x))
    >>> bool(bound.lower <= error <= bound.upper <= 2 * error)
    True
    """
    checked_confidence(confidence)
    if not isinstance(intercept, bool | np.bool_):
        raise InvalidTypeError(f"intercept must be True or False, got {intercept!r}")
    solution = x if isinstance(x, Solution) else None
    given = sketch if isinstance(sketch, CompressedProblem) else None
    free = bool(intercept) or (solution is not None and solution.intercept is not None)
    if given is not None and given.means is None and free:
        given = given.centered()
    free = free or (given is not None and given.means is not None)
    source = source_of(A, b, sample_weight=sample_weight, intercept=free, workers=workers, device=device)
    X = _checked_x(x if solution is None else solution.x, source)
    if given is None:
        if sketch is None and solution is not None and sketch_size is None and rng is None:
            sketch = solution.sketch
        problem = _compressed(source, sketch, sketch_size, rng)
    else:
        _check_summary(given, source, sketch_size, rng)
        problem = given
    same = solution is not None and solution.sketch == problem.operator
    kind = kind_of(solution.solver) if same and solution is not None else "any"
    return _bound(source, problem, X, kind, confidence)


def kind_of(solver: Any) -> Kind:
    """Which calibrated factor an x from this solver has."""
    if isinstance(solver, FullyCompressed):
        return "full" if solver.ridge == 0 else "any"
    if isinstance(solver, PartiallyCompressed):
        return "partial" if solver.ridge == 0 and solver.scale == "raw" else "iterate"
    if isinstance(solver, CombinedCompressed):
        return "iterate"
    if isinstance(solver, RobustPartiallyCompressed):
        return "any" if solver.rho == "sweep" else "iterate"
    return "any"


def _checked_x(x: Any, source: Source) -> np.ndarray:
    try:
        X = np.asarray(on_host(x), np.float64)
    except (TypeError, ValueError):
        raise InvalidTypeError(f"x must be an array of real numbers or a Solution, got {type(x).__name__}") from None
    wanted = (source.n_columns, *source.rhs_shape)
    if X.shape != wanted:
        raise InvalidValueError(f"x must have the shape {wanted} of the coefficients of A and b, got {X.shape}")
    if not np.isfinite(X).all():
        raise NonFiniteError("x must be finite to be certified; it holds NaN or infinity")
    return X


def _compressed(source: Source, sketch: Any, sketch_size: int | None, rng: RandomLike) -> CompressedProblem:
    operator = _operator(sketch, sketch_size, rng, source)
    check_certifiable(operator)  # before a sweep is spent on it
    certificate_factor("any", operator.sketch_size, source.n_columns)
    problem = source.compress(operator)
    return problem.centered() if source.intercept else problem


def _check_summary(problem: CompressedProblem, source: Source, sketch_size: Any, rng: Any) -> None:
    for name, value in (("sketch_size", sketch_size), ("rng", rng)):
        if value is not None:
            raise InvalidValueError(f"{name} must be None with a CompressedProblem, which fixes it, got {value!r}")
    m, n = problem.shape
    if n != source.n_columns or problem.Atb.shape[1:] != source.rhs_shape or m != (source.n_rows or m):
        raise InvalidValueError(
            f"the CompressedProblem must be of these rows: it covers {m} × {n} with Atb {problem.Atb.shape}, A and b "
            f"are {source.n_rows} × {source.n_columns} with Aᵀb {(source.n_columns, *source.rhs_shape)}"
        )
    check_certifiable(problem.operator)
    certificate_factor("any", problem.sketch_size, n)
    if problem.means is not None:
        ea, eb = problem.exponents
        source.means = times_power(problem.means[0], ea), times_power(problem.means[1], eb)


def _bound(source: Source, problem: CompressedProblem, X: np.ndarray, kind: Kind, confidence: float) -> ErrorBound:
    summary = Summary.of(problem)
    factor = Factor.of(triangle(summary.P), summary.tolerance)
    squares, gradient = source.gradient(X)
    if not np.isfinite(gradient).all():
        raise InvalidValueError("Aᵀ(b − Ax) overflows; rescale A, b and x before they are certified")
    unit = float(np.finfo(source.dtype).eps) / 2
    b_norm = times_power(np.sqrt(summary.btb), summary.b)
    return error_bound(
        factor,
        gradient,
        kind,
        problem.operator,
        confidence,
        exponent=summary.a,
        floor=(b_norm if source.rhs_shape else b_norm[0]) * unit,
        noise=np.sqrt(squares) * unit,
    )
