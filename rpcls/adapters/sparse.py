"""SpaRTA and SaRA: few entries of dW, every row of them a small system of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import InvalidTypeError, InvalidValueError
from ..random import Key
from .arrays import count, number, plain
from .bases import choice
from .family import Family, Fitted, Layer, Model, Theta, one_half
from .grouped import Masked
from .quadratic import Quadratic

__all__ = ["SaRA", "SpaRTA", "entries"]


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
