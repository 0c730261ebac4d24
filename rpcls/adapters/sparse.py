"""SpaRTA, SaRA and dynamic subsets: few entries of dW, every row of them a small system of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import InvalidTypeError, InvalidValueError
from ..random import Key
from . import systems
from .arrays import count, number, plain
from .bases import choice
from .family import Family, Fitted, Layer, Model, Theta, one_half
from .linear import Linear, Step, quadratic_value
from .quadratic import Quadratic

__all__ = ["DynamicSubset", "Masked", "SaRA", "SpaRTA"]

_BATCH_BYTES = 64 << 20


class Masked(Linear):
    """The entries of dW at given positions, all others zero: θ_q = C[S_q, S_q]⁻¹R[q, S_q] for each row q.

    Parameters
    ----------
    shape : (o, i)
    positions : (k,) int array
        Sorted, different: q·i + c for row q and column c.
    """

    def __init__(self, shape: tuple[int, int], positions: np.ndarray) -> None:
        self.shape, self.positions = shape, positions
        self.theta_shape = positions.shape
        self._starts = np.searchsorted(positions, np.arange(shape[0] + 1) * shape[1])

    def apply(self, theta: np.ndarray) -> np.ndarray:
        dW = np.zeros(self.shape[0] * self.shape[1])
        dW[self.positions] = theta
        return dW.reshape(self.shape)

    def adjoint(self, G: np.ndarray) -> np.ndarray:
        return G.reshape(-1)[self.positions]

    def gram(self, C: np.ndarray, block: np.ndarray | None = None) -> np.ndarray:
        here = self.positions if block is None else self.positions[block]
        rows, columns = np.divmod(here, self.shape[1])
        return np.where(rows[:, None] == rows, C[np.ix_(columns, columns)], 0.0)

    def blocks(self) -> Sequence[np.ndarray]:
        return [np.arange(a, b) for a, b in zip(self._starts[:-1], self._starts[1:], strict=True) if b > a]

    def batches(self) -> Iterator[np.ndarray]:
        """Numbers of the unknowns of rows with equally many, (rows, k)."""
        sizes = np.diff(self._starts)
        for k in np.unique(sizes[sizes > 0]):
            rows = np.flatnonzero(sizes == k)
            step = max(1, _BATCH_BYTES // (8 * int(k) ** 2))
            for start in range(0, len(rows), step):
                yield self._starts[rows[start : start + step]][:, None] + np.arange(k)

    def solve(self, f: Quadratic, start: np.ndarray | None = None) -> Step:
        rhs = self.adjoint(f.R)
        theta, rank, value = np.zeros(self.size), 0, f.energy
        for numbers in self.batches():
            columns = self.positions[numbers] % self.shape[1]
            M = f.C[columns[:, :, None], columns[:, None, :]]
            solved = systems.solve_batch(M, rhs[numbers])
            theta[numbers] = solved.x
            rank += solved.rank
            value += quadratic_value(M, rhs[numbers], solved.x)
        return Step(theta, value, rank)


def entries(density: float | int, shape: tuple[int, int]) -> int:
    """How many entries: a share of them (float in (0, 1]) or a number (int)."""
    total = shape[0] * shape[1]
    if isinstance(density, int | np.integer) and not isinstance(density, bool):
        return count(density, "density", most=total, why=", the entries of the layer")
    share = number(density, "density", strict=True)
    if share > 1:
        raise InvalidValueError(f"density must be a share in (0, 1] or an int, a number of entries; got {density}")
    return max(1, round(share * total))


def checked_positions(value: Any, shape: tuple[int, int]) -> np.ndarray:
    """Sorted flat positions from those given as (k,) flat or (2, k) rows and columns."""
    array = plain(value, "positions")
    if array.dtype.kind not in "iu":
        raise InvalidTypeError(f"positions must hold integers, got {array.dtype}")
    o, i = shape
    if array.ndim == 2 and len(array) == 2:
        if array.size and not (array.min() >= 0 and array[0].max() < o and array[1].max() < i):
            raise InvalidValueError(f"positions must be within the layer, {o} × {i}")
        array = array[0].astype(np.int64) * i + array[1]
    flat = np.unique(array.astype(np.int64))
    if array.ndim != 1 or flat.size != array.size or flat.size == 0:
        raise InvalidValueError(
            f"positions must be different ones, of shape (k,) or (2, k), got shape {np.shape(value)} "
            f"with {flat.size} different"
        )
    if flat[0] < 0 or flat[-1] >= o * i:
        raise InvalidValueError(f"positions must be in 0 … {o * i - 1}, got {flat[0]} … {flat[-1]}")
    return flat


@dataclass(frozen=True)
class SpaRTA(Family):
    """A sparse dW at random positions [1]_: one small system for each row.

    Parameters
    ----------
    density : float or int, default 0.01
        The share of the entries in (0, 1], or their number.
    seed : int, default 0
        Of the positions.
    positions : (k,) or (2, k) array_like of int, optional
        The positions themselves, flat in C order or rows and columns; `density` and `seed` are then ignored.

    Notes
    -----
    Factors: "theta" (k,), in the order of the sorted flat positions, which `positions_in(shape)` gives. Cost: Σ over
    rows of their number of positions cubed, far below the cost of C.

    References
    ----------
    .. [1] J. Rios, P. Dognin, R. Luss, K. N. Ramamurthy, "Sparsity may be all you need: sparse random parameter
       adaptation", arXiv:2502.15975.

    Examples
    --------
    >>> import numpy as np
    >>> from rpcls.adapters import LayerStatistics, SpaRTA, fit
    >>> result = fit(LayerStatistics.from_delta(np.ones((3, 4))), SpaRTA(density=6), ridge=0)
    >>> int(result.delta().sum()), result.explained
    (6, 0.5)
    """

    density: float | int = 0.01
    seed: int = 0
    positions: Any = field(default=None, repr=False, compare=False)

    def positions_in(self, shape: tuple[int, int]) -> np.ndarray:
        """The flat positions in a layer of this shape, (out_features, in_features)."""
        if self.positions is not None:
            return checked_positions(self.positions, shape)
        return choice(Key.of(self.seed), shape[0] * shape[1], entries(self.density, shape))

    def bind(self, layer: Layer) -> Model:
        return one_half(Masked(layer.shape, self.positions_in(layer.shape)))


@dataclass(frozen=True)
class SaRA(Family):
    """Entries where abs(W₀) is below a threshold, those that matter least, with a pull to low rank [1]_.

    Minimises f(dW) + nuclear·‖dW‖_* over the dW that are zero elsewhere; without the pull one masked system for each
    row, with it alternating directions (masked rows, then singular value thresholding), of which the best masked dW is
    returned.

    Parameters
    ----------
    threshold : float, optional
        For abs(W₀); by default what leaves `density` of the entries.
    density : float, default 0.1
        The share of the smallest entries, when there is no threshold.
    nuclear : float, default 0.0
        Weight of the sum of singular values, relative to ‖R‖₂, at which dW = 0 is the answer when nothing is masked.

    Notes
    -----
    Factors: "theta" (k,), at the flat positions in order where abs(W₀) < threshold.

    References
    ----------
    .. [1] T. Hu et al., "SaRA: high-efficient diffusion model fine-tuning with progressive sparse low-rank
       adaptation", arXiv:2409.06633.

    Examples
    --------
    >>> import numpy as np
    >>> from rpcls.adapters import LayerStatistics, SaRA, fit
    >>> W = np.array([[1.0, 0.1], [0.2, 2.0]])
    >>> fit(LayerStatistics.from_delta(np.ones((2, 2))), SaRA(threshold=0.5), weight=W, ridge=0).delta()
    array([[0., 1.],
           [1., 0.]])
    """

    needs_weight = True

    threshold: float | None = None
    density: float = 0.1
    nuclear: float = 0.0

    def __post_init__(self) -> None:
        number(self.nuclear, "nuclear")
        if self.threshold is not None:
            number(self.threshold, "threshold", strict=True)

    def bind(self, layer: Layer) -> Model:
        size = np.abs(layer.needed_weight(self)).reshape(-1)
        if self.threshold is None:
            kept = entries(self.density, layer.shape)
            positions = np.sort(np.argsort(size, kind="stable")[:kept])
        else:
            positions = np.flatnonzero(size < self.threshold)
        if positions.size == 0:
            raise InvalidValueError(
                f"no entry of the weight is below threshold = {self.threshold}; the smallest is {size.min():.3g}"
            )
        masked = Masked(layer.shape, positions)
        return one_half(masked) if self.nuclear == 0 else _LowRankMasked(masked, self.nuclear)


class _LowRankMasked(Model):
    halves_in_order = ()

    def __init__(self, masked: Masked, nuclear: float) -> None:
        self.masked, self.nuclear = masked, nuclear

    def start(self, key: Key) -> Theta:
        return {"theta": np.zeros(self.masked.theta_shape)}

    def halves(self, theta: Theta) -> Any:
        return {"theta": lambda: self.masked}

    def seen(self, theta: Theta) -> np.ndarray:
        return self.masked.apply(theta["theta"])

    def own_fit(self, f: Quadratic, key: Key, max_iterations: int, tol: float) -> Fitted:
        """Alternating directions with step σ on f(dW) + w‖V‖_*, dW = V."""
        from scipy.linalg import svd

        w = 2 * self.nuclear * float(np.linalg.norm(f.R, 2))
        sigma = float(np.trace(f.C)) / len(f.C) or 1.0
        C = f.C + sigma * np.eye(len(f.C))
        V, U = np.zeros(f.shape), np.zeros(f.shape)
        best, history, converged = np.zeros(self.masked.size), [f.energy], False
        for _ in range(10 * max_iterations):
            theta = self.masked.solve(Quadratic(C, f.R + sigma * (V - U), 0.0)).theta
            dW = self.masked.apply(theta)
            left, s, right = svd(dW + U, full_matrices=False, check_finite=False)
            before, V = V, (left * np.maximum(s - w / (2 * sigma), 0.0)) @ right
            U = U + dW - V
            value = f.value(dW) + w * float(svd(dW, compute_uv=False, check_finite=False).sum())
            if value < history[-1]:
                best = theta
            history.append(min(value, history[-1]))
            size = max(float(np.linalg.norm(dW)), float(np.linalg.norm(V)))
            if max(np.linalg.norm(dW - V), np.linalg.norm(V - before)) <= np.sqrt(tol) * 0.1 * size:
                converged = True
                break
        rank = None, self.masked.size
        return Fitted({"theta": best}, tuple(history), {"theta": rank}, (), converged)


@dataclass(frozen=True)
class DynamicSubset(Family):
    """The best share of entries, chosen by the data [1]_: iterative hard thresholding, then the masked least squares.

    Positions are chosen among all entries of dW together. Each round takes a gradient step with a diagonal metric,
    keeps the largest entries by what they gain, and solves for them exactly; a round that does not lower the objective
    ends the search, so the answer is a local optimum: choosing the best subset is NP-hard.

    Parameters
    ----------
    density : float or int, default 0.01
        The share of the entries in (0, 1], or their number.

    Notes
    -----
    Factors: "theta" (k,) and "positions" (k,), flat in C order. The positions have to be stored beside the values.

    References
    ----------
    .. [1] F. Stahlberg et al., "Dynamic subset tuning: expanding the operational range of parameter-efficient
       training for large language models", arXiv:2411.08610.
    .. [2] T. Blumensath, M. E. Davies, "Iterative hard thresholding for compressed sensing", arXiv:0805.0510.

    Examples
    --------
    >>> import numpy as np
    >>> from rpcls.adapters import DynamicSubset, LayerStatistics, fit
    >>> T = np.array([[5.0, 0.1, 0.2], [0.3, 4.0, 3.0]])
    >>> fit(LayerStatistics.from_delta(T), DynamicSubset(density=3), ridge=0).factors["positions"]
    array([0, 4, 5])
    """

    density: float | int = 0.01

    def bind(self, layer: Layer) -> Model:
        return _Subset(layer, entries(self.density, layer.shape))


class _Subset(Model):
    halves_in_order = ()

    def __init__(self, layer: Layer, kept: int) -> None:
        self.layer, self.kept = layer, kept

    def start(self, key: Key) -> Theta:
        return {"theta": np.zeros(0), "positions": np.zeros(0, np.int64)}

    def halves(self, theta: Theta) -> Any:
        return {"theta": lambda: Masked(self.layer.shape, theta["positions"])}

    def seen(self, theta: Theta) -> np.ndarray:
        return Masked(self.layer.shape, theta["positions"]).apply(theta["theta"])

    def own_fit(self, f: Quadratic, key: Key, max_iterations: int, tol: float) -> Fitted:
        diagonal = np.diagonal(f.C)
        inverse = np.divide(1.0, diagonal, out=np.zeros_like(diagonal), where=diagonal > 0)
        theta, history, rank = self.start(key), [f.energy], 0
        residual = f.R
        dW = np.zeros(f.shape)
        step, converged = 1.0, False
        for _ in range(max_iterations):
            moved = dW + step * residual * inverse
            gains = (moved**2 * diagonal).reshape(-1)
            positions = np.sort(np.argpartition(-gains, self.kept - 1)[: self.kept])
            solved = Masked(f.shape, positions).solve(f)
            if solved.value >= history[-1] - tol * f.energy and theta["positions"].size:
                step /= 4
                if np.array_equal(positions, theta["positions"]) or step < 0.01:
                    converged = True
                    break
                if solved.value >= history[-1]:
                    continue
            theta, rank = {"theta": solved.theta, "positions": positions}, solved.rank or 0
            history.append(min(solved.value, history[-1]))
            dW = self.seen(theta)
            residual = f.R - dW @ f.C
        notes = ()
        if rank < self.kept:
            notes = (f"theta: {self.kept - rank} of {self.kept} unknowns are not determined; they have minimum norm.",)
        return Fitted(theta, tuple(history), {"theta": (rank, self.kept)}, notes, converged)
