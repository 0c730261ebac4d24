"""SketchFamily and SketchOperator: what S is. Nothing is realised until it is asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from ..errors import InvalidTypeError, InvalidValueError
from ..random import Key, RandomLike

if TYPE_CHECKING:
    from scipy.sparse import csc_array

__all__ = ["ROWS_LIMIT", "SketchFamily", "SketchOperator", "Sums", "read_only"]

ROWS_LIMIT = 1 << 62  # rows are numbered below this, so that sums of two row numbers are 64-bit integers


class Sums(NamedTuple):
    """What one fused sweep over some rows leaves behind: every entry is a sum over those rows.

    With weights w, "A" and "b" below are the rows multiplied by √w, and 1 is √w.
    """

    SA: np.ndarray  # (d, n), dtype of A
    Sb: np.ndarray  # (d, k), dtype of A
    S1: np.ndarray  # (d,) float64, S·1
    Atb: np.ndarray  # (n, k) float64
    A1: np.ndarray  # (n,) float64, Aᵀ1
    AA: np.ndarray  # (n,) float64, squared column norms
    b1: np.ndarray  # (k,) float64, bᵀ1
    bb: np.ndarray  # (k,) float64, squared norms of b
    weight: float  # 1ᵀ1


class SketchFamily(ABC):
    """How a sketching operator S (d × m) is distributed; a frozen value, scaled so that E[SᵀS] = I.

    Every family defined here is *mergeable*: column i of S is a pure function of (family, d, key, i), so the
    number of rows m may stay open, and rows may come in blocks, shards or streams.

    Examples
    --------
    >>> import rpcls
    >>> isinstance(rpcls.SparseSign(), rpcls.SketchFamily), rpcls.SparseSign() == rpcls.SparseSign(8)
    (True, True)
    """

    mergeable: ClassVar[bool] = True

    @property
    def minimum_size(self) -> int:
        """The smallest d that this family allows."""
        return 1

    def sample(self, sketch_size: int, m: int | None = None, *, rng: RandomLike = None) -> SketchOperator:
        """Draw an operator.

        Parameters
        ----------
        sketch_size : int
            d, the number of rows of S, at least `minimum_size`; it may exceed m.
        m : int, optional
            Number of columns of S (rows of A). Left open by default; only `S.T` and `S.toarray()` need it.
        rng : int, SeedSequence, Generator, Key or None
            See `Key.of`.

        Raises
        ------
        InvalidValueError, InvalidTypeError
            A size out of range or of the wrong type.

        Examples
        --------
        >>> import rpcls
        >>> S = rpcls.SparseSign(4).sample(100, m=1000, rng=0)
        >>> S.shape
        (100, 1000)
        """
        return SketchOperator(self, sketch_size, Key.of(rng), m)

    @abstractmethod
    def columns(self, S: SketchOperator, start: int, stop: int) -> np.ndarray | csc_array:
        """Columns start..stop of S as a matrix."""

    @abstractmethod
    def sweep(
        self,
        S: SketchOperator,
        A: np.ndarray,
        b: np.ndarray,
        weight: np.ndarray | None,
        start: int,
        workers: int,
        scale: tuple[float, float] = (1.0, 1.0),
    ) -> Sums:
        """One fused pass over rows start, start+1, … of the problem: A (rows, n), b (rows, k), weight (rows,).

        A is multiplied by scale[0] and b by scale[1] on the way (powers of two, for data whose squares would
        overflow or underflow).
        """

    def sweep_csr(
        self,
        S: SketchOperator,
        A: Any,
        b: np.ndarray,
        weight: np.ndarray | None,
        start: int,
        workers: int,
        scale: tuple[float, float] = (1.0, 1.0),
    ) -> Sums:
        """`sweep` for A in compressed sparse row form, never densified: columns of S times its stored entries."""
        from .moments import Running, row_blocks

        d, dtype = S.sketch_size, A.dtype
        running = Running(A.shape[1], b.shape[1])
        SA, Sb, S1 = np.zeros((d, A.shape[1])), np.zeros((d, b.shape[1])), np.zeros(d)
        for block in row_blocks(A, b, weight, scale, max(64, _CSR_BYTES // (8 * d))):
            columns = self.columns(S, start + block.first, start + block.stop)
            SA += (block.A.T @ columns.T).T
            Sb += columns @ block.b
            S1 += columns @ block.root
            running.add(block)
        return running.sums(SA.astype(dtype, copy=False), Sb.astype(dtype, copy=False), S1)


_CSR_BYTES = 8 << 20  # of S realised at a time


def _as_size(value: Any, name: str, least: int, reason: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InvalidTypeError(f"{name} must be an int, got {type(value).__name__} {value!r}")
    if value < least:
        raise InvalidValueError(f"{name} must be at least {reason}, got {value}")
    return int(value)


@dataclass(frozen=True, slots=True, repr=False)
class SketchOperator:
    """A sketching operator S (d × m): a family, a size, a key. It costs a few bytes until it meets rows.

    Made by `SketchFamily.sample`. ``S @ A`` sketches rows, ``S.T @ Y`` is the adjoint, ``S.columns(i, j)`` the part
    that meets rows i..j of A, ``S.toarray()`` all of it. Equal operators have equal bits everywhere.

    Attributes
    ----------
    family : SketchFamily
    sketch_size : int
    key : Key
    m : int or None

    Examples
    --------
    >>> import numpy as np, rpcls
    >>> S = rpcls.CountSketch().sample(3, m=5, rng=0)
    >>> S
    CountSketch().sample(3, m=5, rng=Key(0xdb2cd7e7b0f478be))
    >>> A = np.arange(10.0).reshape(5, 2)
    >>> bool(np.array_equal(S @ A, S.toarray() @ A)), (S.T @ np.ones(3)).shape
    (True, (5,))
    """

    family: SketchFamily
    sketch_size: int
    key: Key
    m: int | None = None

    def __post_init__(self) -> None:
        least = self.family.minimum_size
        reason = f"nnz_per_column = {least}" if least > 1 else "1"
        object.__setattr__(self, "sketch_size", _as_size(self.sketch_size, "sketch_size", least, reason))
        if self.sketch_size >= 1 << 31:
            raise InvalidValueError(f"sketch_size must be below 2**31, got {self.sketch_size}")
        if self.m is not None:
            object.__setattr__(self, "m", _as_size(self.m, "m", 0, "0"))
            if self.m > ROWS_LIMIT:
                raise InvalidValueError(f"m must be at most 2**62, got {self.m}")

    @property
    def shape(self) -> tuple[int, int | None]:
        """(d, m); m is None while it is open."""
        return self.sketch_size, self.m

    def __repr__(self) -> str:
        m = "" if self.m is None else f", m={self.m}"
        return f"{self.family!r}.sample({self.sketch_size}{m}, rng={self.key!r})"

    def columns(self, start: int, stop: int) -> np.ndarray | csc_array:
        """Columns start..stop of S (d × (stop − start)), float64: a CSC array for sparse families, else dense.

        Raises
        ------
        InvalidValueError
            Unless 0 ≤ start ≤ stop ≤ m.
        """
        if not 0 <= start <= stop <= (ROWS_LIMIT if self.m is None else self.m):
            limit = "2**62" if self.m is None else f"m = {self.m}"
            raise InvalidValueError(f"columns needs 0 ≤ start ≤ stop ≤ {limit}, got {start}, {stop}")
        return self.family.columns(self, int(start), int(stop))

    def toarray(self) -> np.ndarray:
        """S as a dense float64 array (d × m)."""
        block = self.columns(0, self._known_m("toarray"))
        return block if isinstance(block, np.ndarray) else block.toarray()

    def __matmul__(self, A: Any) -> np.ndarray:
        """S @ A for dense A (m, n) or (m,), in A's dtype (float64 for integers). One read of A."""
        from ..kernels import lanes

        A = np.asarray(A)
        if A.ndim not in (1, 2):
            raise InvalidValueError(f"S @ A needs A with one or two dimensions, got shape {A.shape}")
        if self.m is not None and A.shape[0] != self.m:
            raise InvalidValueError(f"S @ A needs A with m = {self.m} rows, got shape {A.shape}")
        if A.dtype not in (np.float32, np.float64):
            if A.dtype.kind not in "biu":
                raise InvalidTypeError(f"S @ A needs float32, float64, integer or boolean A, got {A.dtype}")
            A = A.astype(np.float64)
        matrix = A if A.ndim == 2 else A[:, None]
        no_rhs = read_only(np.zeros((len(matrix), 1), matrix.dtype))
        SA = self.family.sweep(self, read_only(matrix), no_rhs, None, 0, lanes.count_workers(None)).SA
        return SA if A.ndim == 2 else SA[:, 0]

    @property
    def T(self) -> Adjoint:
        """The adjoint: ``S.T @ Y`` is (m, k) for Y (d, k)."""
        return Adjoint(self)

    def _known_m(self, what: str) -> int:
        if self.m is None:
            raise InvalidValueError(
                f"{what} needs the number of rows, which this operator leaves open; "
                f"give it when sampling: sample({self.sketch_size}, m=…, rng=…)"
            )
        return self.m


class Adjoint:
    """Sᵀ, applied block by block; made by `SketchOperator.T`."""

    __slots__ = ("operator",)
    _BLOCK = 1 << 14  # columns realised at a time: bounds the memory of dense families

    def __init__(self, operator: SketchOperator) -> None:
        self.operator = operator

    def __repr__(self) -> str:
        return f"{self.operator!r}.T"

    @property
    def T(self) -> SketchOperator:
        return self.operator

    @property
    def shape(self) -> tuple[int | None, int]:
        d, m = self.operator.shape
        return m, d

    def __matmul__(self, Y: Any) -> np.ndarray:
        S = self.operator
        m = S._known_m("S.T @ Y")
        Y = np.asarray(Y)
        if Y.ndim not in (1, 2) or Y.shape[0] != S.sketch_size:
            raise InvalidValueError(f"S.T @ Y needs Y with d = {S.sketch_size} rows, got shape {Y.shape}")
        if Y.dtype not in (np.float32, np.float64) and Y.dtype.kind not in "biu":
            raise InvalidTypeError(f"S.T @ Y needs float32, float64, integer or boolean Y, got {Y.dtype}")
        dtype = np.float32 if Y.dtype == np.float32 else np.float64
        out = np.empty((m, *Y.shape[1:]), dtype)
        for start in range(0, m, self._BLOCK):
            stop = min(m, start + self._BLOCK)
            out[start:stop] = S.columns(start, stop).T @ Y
        return out


def read_only(array: np.ndarray) -> np.ndarray:
    """A view that cannot be written to: inputs stay as they are, and kernels are compiled for one kind of array."""
    view = array.view()
    view.flags.writeable = False
    return view


def parameters(family: SketchFamily) -> dict[str, Any]:
    """The parameters of a family, by name."""
    return {f.name: getattr(family, f.name) for f in fields(family)}  # type: ignore[arg-type]
