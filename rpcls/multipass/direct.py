"""Direct: LAPACK's answer, the yardstick for everything else."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import ConvergenceWarning, InvalidTypeError, InvalidValueError, warn
from ..factor import Factor
from ..linalg import constant_tolerance, exponent_of, rank_tolerance, times_power, triangle
from ..solution import Solution, Status

if TYPE_CHECKING:
    from ..compressed import CompressedProblem

__all__ = ["Direct"]


@dataclass(frozen=True)
class Direct:
    """Householder QR of all rows: backward stable, 2mn² flops, one sweep.

    Arrays are factorised by LAPACK in a private float64 copy; sources whose rows do not live in one array, and ridge
    problems, by the row-blocked `triangle` sweep, in memory of a few blocks.

    Parameters
    ----------
    ridge : float, default 0.0
        λ ≥ 0 in ½‖Ax − b‖² + ½λ‖x‖², in the units of A²; a free intercept is not penalised.
    rcond : float in [0, 1) or None, default None
        None: the numerical rank is decided with columns scaled to unit norm (to the nearest power of two), at
        15ε of the largest singular value (ε that of A's dtype), so the units of the columns never cost rank. What
        rounding leaves of a zero singular value stays below that; NumPy's max(m, n)·ε would give up digits that QR has.
        A number: NumPy's rule, rcond times the largest singular value of A as given.

    Notes
    -----
    At rank n, x = R⁻¹Qᵀb. Otherwise, m < n included, x is the minimum-norm solution in the caller's units, from
    the singular value decomposition of R, and the status is MINIMUM_NORM. `rank` and `condition` belong to the matrix
    on which the rank was decided. `residual_norm` comes from the factorisation, at no further sweep. All is done
    in float64; x is returned in A's dtype.

    References
    ----------
    .. [1] G. H. Golub, C. F. Van Loan, "Matrix Computations", 4th ed. (2013), sections 5.3 and 5.5.

    Examples
    --------
    >>> import numpy as np, rpcls
    >>> A = np.vander([0.0, 1.0, 2.0, 3.0], 2)
    >>> sol = rpcls.lstsq(A, np.array([1.0, 3.0, 5.0, 7.0]), rpcls.Direct())
    >>> sol.x.round(12)
    array([2., 1.])
    """

    ridge: float = 0.0
    rcond: float | None = None

    def __post_init__(self) -> None:
        for name, value in checked_settings(self.ridge, self.rcond).items():
            object.__setattr__(self, name, value)

    def sketch(self, shape: tuple[int, int], dtype: Any) -> None:
        """None: no compress sweep."""
        return

    def solve(self, problem: CompressedProblem | None, source: Any) -> Solution:
        """Solve from the rows; `problem` is not used.

        Parameters
        ----------
        problem : ignored
        source : a source of rows
            `rpcls.lstsq` makes it.

        Returns
        -------
        Solution
            With `residual_norm` measured.

        Raises
        ------
        InvalidTypeError
            `source` is None: a summary does not hold the rows.
        """
        if source is None:
            raise InvalidTypeError(
                "Direct needs the rows of A, got only a summary; call rpcls.lstsq(A, b, rpcls.Direct()), or solve the "
                "summary with a one-pass solver such as rpcls.RobustPartiallyCompressed()"
            )
        started = time.perf_counter()
        n = source.shape[1]
        reduced = _reduce(source, n, dense=self.ridge == 0)
        m, k = reduced.rows, reduced.Z.shape[1]
        x, factor, size = self._from_triangle(reduced, rank_tolerance(source.dtype))
        one = not source.rhs_shape

        def squeeze(value: np.ndarray | None) -> Any:
            return value if value is None or not one else float(value[0])

        intercept = reduced.intercept(x)
        zero = ~x.any(axis=0) & (factor.rank == n)
        status = Status.OK if factor.rank == n else Status.MINIMUM_NORM
        if k and zero.all():
            status = Status.ZERO_GRADIENT
        details = f"Its rank is {factor.rank}, its shape ({m}, {n})." if status is Status.MINIMUM_NORM else ""
        seconds = time.perf_counter() - started
        with np.errstate(over="ignore"):
            x = x.astype(source.dtype)
        if not np.isfinite(x).all():
            status, details = Status.OUT_OF_RANGE, ""
        solution = Solution(
            x=x[:, 0] if one else x,
            status=status,
            solver=self,
            sweeps=1,
            residual_norm=squeeze(size),
            condition=factor.condition,
            rank=factor.rank,
            intercept=squeeze(intercept),
            columns=source.columns,
            timings={"solve": seconds},
            details=details,
        )
        if not status.ok:
            warn(solution.message, ConvergenceWarning)
        return solution

    def _from_triangle(self, reduced: _Reduced, smallest: float) -> tuple[np.ndarray, Factor, np.ndarray]:
        R, Z, e = reduced.R, reduced.Z, reduced.columns
        n = R.shape[1]
        tolerance = smallest if self.rcond is None else self.rcond
        M, z, power = R, Z, e
        if self.ridge > 0:
            top = int(np.max(exponent_of(R, axis=0) + e, initial=0))
            root = float(np.sqrt(times_power(self.ridge, -2 * top)))
            T = triangle(
                np.vstack([times_power(R, e - top), root * np.eye(n)]), np.vstack([Z, np.zeros((n, Z.shape[1]))])
            )
            M, z, power = T[:n, :n], T[:n, n:], np.full(n, top)
        factor = Factor(M, tolerance, scaled=self.rcond is None, exponents=power)
        y = factor.pinv(z)  # in the units of the right-hand sides' exponents
        missed = np.linalg.norm(Z - R @ times_power(y, e[:, None]), axis=0)
        size = times_power(np.hypot(missed, reduced.tail), reduced.rhs)
        return times_power(y, reduced.rhs), factor, size


def checked_settings(ridge: Any, rcond: Any) -> dict[str, float | None]:
    """ridge and rcond as finite floats ≥ 0, rcond below 1 or None, or the error that says so."""
    settings: dict[str, float | None] = {"ridge": ridge, "rcond": rcond}
    for name, value in settings.items():
        if name == "rcond" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, Real):
            raise InvalidTypeError(f"{name} must be a real number, got {type(value).__name__} {value!r}")
        settings[name] = float(value)
    if not (math.isfinite(ridge) and ridge >= 0):
        raise InvalidValueError(f"ridge must be finite and at least 0, got {ridge!r}")
    if rcond is not None and not 0 <= rcond < 1:
        raise InvalidValueError(f"rcond must be at least 0 and below 1, or None (15ε), got {rcond!r}")
    return settings


class _Reduced(NamedTuple):
    """min ‖Ax − b‖ after QR: R·2^columns (t × n), Z·2^rhs (t × k), and tail·2^rhs (k,), the norm of the rest of Qᵀb."""

    R: np.ndarray
    Z: np.ndarray
    tail: np.ndarray
    columns: np.ndarray
    rhs: np.ndarray
    rows: int
    first: np.ndarray | None = None  # row [1 | A | b] of the triangle that belongs to the intercept
    means: tuple[np.ndarray, Any] | None = None

    def intercept(self, x: np.ndarray) -> np.ndarray | None:
        n = len(x)
        if self.means is not None:
            a_mean, b_mean = self.means
            return np.atleast_1d(b_mean) - a_mean @ x
        if self.first is None:
            return None
        return (self.first[n + 1 :] - self.first[1 : n + 1] @ x) / (self.first[0] or 1.0)


def _reduce(source: Any, n: int, *, dense: bool) -> _Reduced:
    copy = source.dense() if dense else None
    if copy is not None:
        A, b, means = copy
        return _of_array(A, b, means)
    T, rows = source.triangle()
    first = None
    if source.intercept:
        first, T = T[0], T[1:, 1:]
        rounding = constant_tolerance(source.dtype) * np.abs(first[1 : n + 1])
        T[:, :n][:, np.max(np.abs(T[:, :n]), axis=0, initial=0.0) <= rounding] = 0.0
    rhs = exponent_of(T[:, n:], axis=0)
    columns = _extreme(exponent_of(T[:, :n], axis=0))
    R, B = times_power(T[:, :n], -columns), times_power(T[:, n:], -rhs)
    return _Reduced(R[:n], B[:n], np.linalg.norm(B[n:], axis=0), columns, rhs, rows, first)


def _of_array(A: np.ndarray, b: np.ndarray, means: Any) -> _Reduced:
    """QR by LAPACK of copies that may be overwritten; a second copy only if they are not float64 in Fortran order."""
    from scipy.linalg import lapack

    m, n = A.shape
    A, b = np.asfortranarray(A, np.float64), np.asfortranarray(b, np.float64)
    columns = _extreme(np.array([exponent_of(A[:, j]) for j in range(n)], dtype=np.int64))
    for j in np.flatnonzero(columns):
        A[:, j] = times_power(A[:, j], -columns[j])
    rhs = exponent_of(b, axis=0)
    for j in range(b.shape[1]):
        b[:, j] = times_power(b[:, j], -rhs[j])
    t = min(m, n)
    if t and b.shape[1]:
        QR, tau, _, info = lapack.dgeqrf(A, lwork=int(lapack.dgeqrf_lwork(m, n)[0]), overwrite_a=1)
        b, _, info2 = lapack.dormqr("L", "T", QR[:, :t], tau, b, lwork=64 * b.shape[1] + 65 * 64, overwrite_c=1)
        if info or info2:
            raise RuntimeError(f"LAPACK geqrf and ormqr returned {info} and {info2}")
        A = np.triu(QR[:t])
    return _Reduced(A[:t], b[:t], np.linalg.norm(b[t:], axis=0), columns, rhs, m, means=means)


def _extreme(e: np.ndarray) -> np.ndarray:
    """Exponents of the columns that need scaling lest squares overflow or underflow; 0 for the others."""
    return np.where(np.abs(e) > 300, e, 0)
