"""What a layer's statistics are kept in: exact sums, a sketch of the tokens, both, or the products of one thin A.

Each keeps linear sums of the inputs X and the targets Y only, so parts add up; what the weight and the bias predict
is subtracted from the sums (Z = Y − XW₀ᵀ − bias), and Z is never formed; or, for exact R without C, block by block.

Sums are where the tokens are, in NumPy or CuPy arrays; all else is done with sums on the host.
"""

from __future__ import annotations

import copy
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..compressed import CompressedProblem
from ..errors import InvalidValueError, RpclsWarning
from ..kernels import on_host
from ..sketches.base import SketchOperator
from .places import module_of
from .quadratic import Projected, Quadratic

__all__ = ["Accumulator", "Exact", "Frozen", "Full", "Partial", "Sketched", "Thin"]


class Frozen(NamedTuple):
    """The frozen layer: W₀ (o, i) and bias (o,); both None when the targets are the wanted update's own output."""

    weight: Any
    bias: Any

    def sent(self, to: Callable[[Any], Any]) -> Frozen:
        """With arrays elsewhere."""
        return Frozen(*(None if array is None else to(array) for array in self))

    def predict(self, X: Any) -> Any:
        """XW₀ᵀ + bias, or 0; X beside the weight."""
        if self.weight is None:
            return 0.0
        return X @ self.weight.T + (0.0 if self.bias is None else self.bias)


class Accumulator(ABC):
    """Sums over tokens; `names` are its arrays, which add up, and `fixed` those that a batch is multiplied by.

    `whole` ones take a batch at once, float32 as it is; the others take float64 rows, some thousand at a time. Those
    that predict need the frozen layer in an update.
    """

    names: ClassVar[tuple[str, ...]]
    fixed: ClassVar[tuple[str, ...]] = ()
    whole: ClassVar[bool] = False
    predicts: ClassVar[bool] = False

    @abstractmethod
    def update(self, X: Any, Y: Any, first: int, frozen: Frozen) -> None:
        """Add rows, the first of which is token `first` of the layer; the sums and `frozen` are where the rows are."""

    @abstractmethod
    def objective(self, frozen: Frozen, tokens: int) -> Quadratic | Projected:
        """The objective without ridge."""

    def copy(self) -> Accumulator:
        """One whose later updates leave this one alone."""
        other = copy.copy(self)
        for name in self.names:
            setattr(other, name, getattr(self, name).copy())
        return other

    def sent(self, to: Callable[[Any], Any]) -> Accumulator:
        """The same with arrays elsewhere, by a function such as cupy.asarray."""
        other = copy.copy(self)
        for name in (*self.names, *self.fixed):
            setattr(other, name, to(getattr(self, name)))
        return other

    def merge(self, other: Any) -> Accumulator:
        """The sums of both."""
        result = copy.copy(self)
        for name in self.names:
            setattr(result, name, getattr(self, name) + getattr(other, name))
        return result

    def arrays(self) -> dict[str, np.ndarray]:
        """What a file keeps."""
        return {name: np.asarray(getattr(self, name)) for name in self.names}


def _check_range(*squares: Any) -> None:
    if not all(np.isfinite(float(value)) for value in squares):
        raise InvalidValueError("the squares of X or Y overflow float64; scale X and Y down. Nothing was added")


class Exact(Accumulator):
    """C = XᵀX, YᵀX, and the sums that give ‖Z‖² without Z."""

    names: ClassVar = ("gram", "cross", "input_sum", "target_sum", "target_squares")

    def __init__(self, i: int, o: int) -> None:
        self.gram, self.cross = np.zeros((i, i)), np.zeros((o, i))
        self.input_sum, self.target_sum = np.zeros(i), np.zeros(o)
        self.target_squares: Any = np.zeros(())

    def update(self, X: Any, Y: Any, first: int, frozen: Frozen) -> None:
        with np.errstate(over="ignore", invalid="ignore"):  # found by the check
            gram, squares = X.T @ X, module_of(Y).vdot(Y, Y)
        _check_range(gram.trace(), squares)
        self.gram += gram
        if Y.any():  # else inputs alone, which need no product
            self.cross += Y.T @ X
        self.input_sum = self.input_sum + X.sum(axis=0)
        self.target_sum = self.target_sum + Y.sum(axis=0)
        self.target_squares = self.target_squares + squares

    def objective(self, frozen: Frozen, tokens: int) -> Quadratic:
        W, bias = frozen
        if W is None:
            return Quadratic(self.gram, self.cross, float(self.target_squares))
        R = self.cross - W @ self.gram
        if bias is not None:
            R -= np.multiply.outer(bias, self.input_sum)
        # ‖Z‖² = ‖Y‖² − ⟨Y, XW₀ᵀ + bias⟩ − ⟨Z, XW₀ᵀ + bias⟩
        energy = float(self.target_squares) - float(np.vdot(self.cross, W)) - float(np.vdot(R, W))
        if bias is not None:
            rest = self.target_sum - W @ self.input_sum - tokens * bias
            energy -= float(bias @ self.target_sum) + float(bias @ rest)
        return Quadratic(self.gram, R, max(energy, 0.0))


class Thin(Accumulator):
    """P = HᵀH and Q = ZᵀH for H = XAᵀ, ‖Z‖², and ‖X‖² for the mean of diag C."""

    names: ClassVar = ("P", "Q", "energy", "input_squares")
    fixed: ClassVar = ("A",)
    predicts: ClassVar = True

    def __init__(self, i: int, o: int, A: np.ndarray) -> None:
        self.A = A
        self.P, self.Q = np.zeros((len(A), len(A))), np.zeros((o, len(A)))
        self.energy: Any = np.zeros(())
        self.input_squares: Any = np.zeros(())

    def update(self, X: Any, Y: Any, first: int, frozen: Frozen) -> None:
        with np.errstate(over="ignore", invalid="ignore"):  # found by the check
            H, Z, vdot = X @ self.A.T, Y - frozen.predict(X), module_of(X).vdot
            energy, squares = vdot(Z, Z), vdot(X, X)
        _check_range(energy, squares)
        self.P += H.T @ H
        self.Q += Z.T @ H
        self.energy, self.input_squares = self.energy + energy, self.input_squares + squares

    def merge(self, other: Any) -> Accumulator:
        if not np.array_equal(self.A, other.A):
            raise InvalidValueError("thin statistics add up only for the same A")
        return super().merge(other)

    def arrays(self) -> dict[str, np.ndarray]:
        return {**super().arrays(), "A": self.A}

    def objective(self, frozen: Frozen, tokens: int) -> Projected:
        return Projected(self.A, Quadratic(self.P, self.Q, float(self.energy)))


class Sketched(Accumulator):
    """CompressedProblems of the inputs, and where a form wants it of the targets."""

    names: ClassVar = ()

    def __init__(self, i: int, o: int, operator: SketchOperator) -> None:
        self.i, self.o, self.operator = i, o, operator
        self.problems: dict[str, CompressedProblem] = {}

    def _compress(self, first: int, **rows: Any) -> None:
        """Add S·rows to the problem of each name, which is on the host."""
        from ..sources import source_of

        parts = {}
        for name, part in rows.items():
            zeros = module_of(part).zeros(len(part), part.dtype)
            problem = source_of(part, zeros, row_offset=first).compress(self.operator)
            parts[name] = replace(problem, SA=on_host(problem.SA))
        with np.errstate(over="ignore"):
            norms = [np.ldexp(np.linalg.norm(part.column_norms), part.exponents[0]) for part in parts.values()]
            _check_range(*np.square(norms))
        self.problems = {name: _sum(self.problems.get(name), part) for name, part in parts.items()}

    def merge(self, other: Any) -> Accumulator:
        result = super().merge(other)
        if self.operator != other.operator:
            raise InvalidValueError(
                f"sketched statistics add up only under the same operator, got {self.operator!r} and "
                f"{other.operator!r}; give every shard sketch=family.sample(size, rng=…) and its first_token"
            )
        assert isinstance(result, Sketched)
        result.problems = {
            name: _sum(self.problems.get(name), other.problems.get(name))
            for name in {**self.problems, **other.problems}
        }
        return result

    def _sketch(self, name: str, columns: int) -> tuple[np.ndarray, np.ndarray]:
        """SX (or SY) and S·1, float64."""
        if name not in self.problems:
            return np.zeros((self.operator.sketch_size, columns)), np.zeros(self.operator.sketch_size)
        problem = self.problems[name]
        return np.ldexp(problem.SA.astype(np.float64), problem.exponents[0]), problem.S1


def _sum(a: CompressedProblem | None, b: CompressedProblem | None) -> CompressedProblem:
    """Of those there are; in float64 unless all tokens were float32."""
    present = [problem for problem in (a, b) if problem is not None]
    if len({problem.dtype for problem in present}) > 1:
        present = [replace(p, SA=p.SA.astype(np.float64), Sb=p.Sb.astype(np.float64)) for p in present]
    return sum(present[1:], present[0])


class Full(Sketched):
    """SX and SY: everything from the sketch. The cheapest sweep.

    Tokens go to the sketch in their own precision: a sum of some float32 tokens is as near as those tokens are to what
    they stand for. The products of sums, where small singular values of X would drown, are float64.
    """

    whole: ClassVar = True

    def update(self, X: Any, Y: Any, first: int, frozen: Frozen) -> None:
        self._compress(first, inputs=X, targets=Y)

    def objective(self, frozen: Frozen, tokens: int) -> Quadratic:
        (SX, ones), (SZ, _) = self._sketch("inputs", self.i), self._sketch("targets", self.o)
        if frozen.weight is not None:
            SZ = SZ - SX @ frozen.weight.T
            if frozen.bias is not None:
                SZ -= np.multiply.outer(ones, frozen.bias)
        return Quadratic(SX.T @ SX, SZ.T @ SX, float(np.vdot(SZ, SZ)))


class Partial(Sketched):
    """SX for C, and R = ZᵀX and ‖Z‖² exact; robust: C and R as the robust solver would have them."""

    names: ClassVar = ("cross", "energy")
    predicts: ClassVar = True

    def __init__(self, i: int, o: int, operator: SketchOperator, *, robust: bool) -> None:
        super().__init__(i, o, operator)
        self.robust = robust
        self.cross = np.zeros((o, i))
        self.energy: Any = np.zeros(())

    def update(self, X: Any, Y: Any, first: int, frozen: Frozen) -> None:
        with np.errstate(over="ignore", invalid="ignore"):  # found by the check
            Z, vdot = Y - frozen.predict(X), module_of(X).vdot
            energy = vdot(Z, Z)
            _check_range(energy, vdot(X, X))
        self._compress(first, inputs=X)
        self.cross += Z.T @ X
        self.energy = self.energy + energy

    def objective(self, frozen: Frozen, tokens: int) -> Quadratic:
        SX, _ = self._sketch("inputs", self.i)
        C, R = SX.T @ SX, self.cross
        if self.robust and R.any():
            mu, shrinkage = self._robust()
            C, R = C + mu * np.eye(self.i), shrinkage * R
        return Quadratic(C, R, float(self.energy))

    def _robust(self) -> tuple[float, float]:
        """μ and τ: for dW as a whole the robust problem is the ridge problem at μ, times τ = μ/(μ + ρ²)."""
        from ..onepass import RobustPartiallyCompressed

        problem = self.problems["inputs"]
        e = problem.exponents[0]
        d, o = self.operator.sketch_size, self.o
        Atb = np.ldexp(self.cross.T, -e)
        whole = replace(problem, Sb=np.zeros((d, o)), Atb=Atb, btb=np.full(o, float(self.energy)), b_sum=np.zeros(o))
        with warnings.catch_warnings():  # a choice of rho that one output makes badly is outvoted by the median
            warnings.simplefilter("ignore", RpclsWarning)
            solution = whole.solve(RobustPartiallyCompressed())
        mu, rho = float(np.median(solution.mu)), float(np.median(solution.rho))
        return mu, mu / (mu + rho**2) if mu > 0 else 1.0
