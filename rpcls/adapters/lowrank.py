"""LoRA, MELoRA and LoRA-XS: low rank, each with a closed form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InvalidValueError
from ..random import Key
from . import systems
from .arrays import count, matrix, number
from .bases import normal
from .family import Family, Fitted, Layer, Model, Theta, one_half
from .linear import Linear, Step
from .places import module_of
from .quadratic import Quadratic

__all__ = ["BlockLoRA", "LoRA", "LoRAXS", "MELoRA", "reduced_rank", "top_singular"]

_DENSE_SVD = 768  # smaller side up to which all singular vectors are computed


def scale_of(alpha: float | None, rank: int) -> float:
    """alpha / rank, as peft scales; 1 for None."""
    return 1.0 if alpha is None else number(alpha, "alpha", strict=True) / rank


def top_singular(K: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The `rank` largest singular triplets of K: U (o, rank), s, Vᵀ (rank, ·), zeros beyond the rank of K.

    LAPACK for small sides, else Lanczos from a fixed start; on a card eigenvectors.
    """
    if module_of(K) is not np:
        return _top_singular_there(K, rank)
    from scipy.linalg import svd
    from scipy.sparse.linalg import svds

    small = min(K.shape)
    kept = min(rank, small)
    if small <= _DENSE_SVD or 4 * kept > small:
        U, s, Vt = svd(K, full_matrices=False, check_finite=False) if small else (K[:, :0], K[0, :0], K[:0])
    else:
        U, s, Vt = svds(K, k=kept, v0=normal(Key(0), (small,)), solver="arpack")
    order = np.argsort(-s, kind="stable")[:kept]
    U, s, Vt = U[:, order], s[order], Vt[order]
    missing = rank - kept
    return np.pad(U, ((0, 0), (0, missing))), np.pad(s, (0, missing)), np.pad(Vt, ((0, missing), (0, 0)))


def _top_singular_there(K: Any, rank: int) -> tuple[Any, Any, Any]:
    """As `top_singular`, from the eigenvectors of KKᵀ or KᵀK.

    Those squares hide all below 1e-8 of the largest singular value, and two products with K itself find it again.
    """
    from ..kernels.cuda import algebra

    xp, (o, i) = module_of(K), K.shape
    M = K if o <= i else K.T
    kept = min(rank, len(M))
    U = xp.linalg.eigh(M @ M.T)[1][:, ::-1][:, :kept]
    for _ in range(2):
        U = xp.linalg.qr(M @ (M.T @ U))[0]
    right, s, turn = algebra.economy_svd(M.T @ U)
    left, s = U @ turn.T, xp.asarray(s)
    U, Vt = (left, right.T) if o <= i else (right, left.T)
    missing = rank - kept
    return xp.pad(U, ((0, 0), (0, missing))), xp.pad(s, (0, missing)), xp.pad(Vt, ((0, missing), (0, 0)))


def reduced_rank(f: Quadratic, rank: int) -> tuple[np.ndarray, np.ndarray, float]:
    """The best dW = BA of a rank: B orthonormal columns (o, rank), A (rank, i), and f there.

    With WWᵀ = C⁺, dW = KWᵀ for the truncated singular value decomposition of K = RW (reduced-rank regression).
    """
    if f.is_scalar:
        root: Any = None
        K = f.R / np.sqrt(f.is_scalar)
    else:
        root = systems.inverse_root(f.C)
        K = f.R @ root
    U, s, Vt = top_singular(K, rank)
    A = s[:, None] * Vt
    A = A / np.sqrt(f.is_scalar) if f.is_scalar else A @ root.T
    return U, A, f.energy - float(s @ s)


@dataclass(frozen=True)
class LoRA(Family):
    """dW = s·BA of rank r [1]_: reduced-rank regression gives the global minimum in one step.

    With RC⁻¹Rᵀ's top r eigenvectors V: B = V, A = VᵀRC⁻¹/s. For C = I it is the truncated singular value
    decomposition of the wanted update. No family of the same number of parameters explains more by random bases:
    measure them against this one.

    Parameters
    ----------
    rank : int
        r, at least 1.
    alpha : float, optional
        s = alpha/r, as the peft library has it; s = 1 by default.

    Notes
    -----
    Factors: "A" (r, i), "B" (o, r). Cost: i³ + oi² flops and a few hundred products with an o × i matrix.

    References
    ----------
    .. [1] E. J. Hu et al., "LoRA: low-rank adaptation of large language models", arXiv:2106.09685.
    .. [2] A. J. Izenman, "Reduced-rank regression for the multivariate linear model", J. Multivariate Anal. 5 (1975),
       doi:10.1016/0047-259X(75)90042-1.

    Examples
    --------
    >>> import numpy as np
    >>> from rpcls.adapters import LayerStatistics, LoRA, fit
    >>> result = fit(LayerStatistics.from_delta(np.diag([3.0, 2.0, 1.0])), LoRA(rank=2), ridge=0)
    >>> np.round(abs(result.delta()), 9), round(result.explained, 3)
    (array([[3., 0., 0.],
            [0., 2., 0.],
            [0., 0., 0.]]), 0.929)
    """

    rank: int
    alpha: float | None = None

    def __post_init__(self) -> None:
        scale_of(self.alpha, count(self.rank, "rank"))

    def bind(self, layer: Layer) -> Model:
        count(self.rank, "rank", most=min(layer.shape), why=", the smaller side of the layer")
        return BlockLoRA(1, self.rank, scale_of(self.alpha, self.rank), layer)


@dataclass(frozen=True)
class MELoRA(Family):
    """A block-diagonal dW of n small LoRAs [1]_: one reduced-rank regression for each block.

    Parameters
    ----------
    rank : int
        Of each block; the whole has rank n·r and the parameters of one LoRA of rank r.
    blocks : int
        n; it divides both sides of the layer.
    alpha : float, optional
        s = alpha/r; 1 by default.

    Notes
    -----
    Factors: "A" (n, r, i/n), "B" (n, o/n, r). Blocks do not meet in the objective, so each is its global minimum.

    References
    ----------
    .. [1] P. Ren et al., "MELoRA: mini-ensemble low-rank adapters for parameter-efficient fine-tuning",
       arXiv:2402.17263.

    Examples
    --------
    >>> import numpy as np
    >>> from rpcls.adapters import LayerStatistics, MELoRA, fit
    >>> T = np.kron(np.eye(2), np.ones((3, 2)))
    >>> round(fit(LayerStatistics.from_delta(T), MELoRA(rank=1, blocks=2), ridge=0).explained, 12)
    1.0
    """

    rank: int
    blocks: int
    alpha: float | None = None

    def __post_init__(self) -> None:
        scale_of(self.alpha, count(self.rank, "rank"))
        count(self.blocks, "blocks")

    def bind(self, layer: Layer) -> Model:
        o, i = layer.shape
        if o % self.blocks or i % self.blocks:
            raise InvalidValueError(f"blocks must divide both sides of the layer, {o} and {i}, got {self.blocks}")
        count(self.rank, "rank", most=min(o, i) // self.blocks, why=", the smaller side of a block")
        return BlockLoRA(self.blocks, self.rank, scale_of(self.alpha, self.rank), layer)


class BlockLoRA(Model):
    """A block-diagonal dW of LoRAs: one of them, or n."""

    halves_in_order = ()
    goes_to_cards = True

    def __init__(self, blocks: int, rank: int, scale: float, layer: Layer) -> None:
        self.blocks, self.rank, self.scale, self.layer = blocks, rank, scale, layer

    def start(self, key: Key) -> Theta:
        o, i = self.layer.shape
        n = self.blocks
        theta = {"A": np.zeros((n, self.rank, i // n)), "B": np.zeros((n, o // n, self.rank))}
        return theta if n > 1 else {name: factor[0] for name, factor in theta.items()}

    def halves(self, theta: Theta) -> Mapping[str, Callable[[], Linear]]:
        return {}

    def seen(self, theta: Theta) -> np.ndarray:
        o, i = self.layer.shape
        n = self.blocks
        if n == 1:
            return self.scale * (theta["B"] @ theta["A"])
        dW = module_of(theta["B"]).zeros((n, o // n, n, i // n))
        for j in range(n):
            dW[j, :, j] = self.scale * (theta["B"][j] @ theta["A"][j])
        return dW.reshape(o, i)

    def low_rank(self, theta: Theta) -> tuple[np.ndarray, np.ndarray]:
        from scipy.linalg import block_diag

        A, B = theta["A"], self.scale * theta["B"]
        return (B, A) if self.blocks == 1 else (block_diag(*B), block_diag(*A))

    def own_fit(self, f: Quadratic, key: Key, max_iterations: int, tol: float) -> Fitted:
        o, i = self.layer.shape
        n = self.blocks
        A, B, value = [], [], f.energy
        for j in range(n):
            rows, columns = slice(j * o // n, (j + 1) * o // n), slice(j * i // n, (j + 1) * i // n)
            part = Quadratic(f.C[columns, columns], f.R[rows, columns], 0.0)
            left, right, drop = reduced_rank(part if n > 1 else f, self.rank)
            B.append(left)
            A.append(right / self.scale)
            value += drop if n > 1 else drop - f.energy
        xp = module_of(f.R)
        theta = {"A": xp.stack(A), "B": xp.stack(B)} if n > 1 else {"A": A[0], "B": B[0]}
        used = int(sum((xp.abs(a).max(axis=1) > 0).sum() for a in A))
        notes = ()
        if used < n * self.rank:
            notes = (f"the data determine rank {used} only, of {n * self.rank}; the other factors are zero.",)
        return Fitted(theta, (f.energy, min(value, f.energy)), {"rank": (used, n * self.rank)}, notes)


@dataclass(frozen=True)
class LoRAXS(Family):
    """dW = s·B·M·A with A and B from the singular value decomposition of W₀, and only M (r, r) fitted [1]_.

    A holds the r leading right singular vectors of W₀, B the left ones times their singular values;
    M = (BᵀB)⁻¹BᵀRAᵀ(ACAᵀ)⁻¹/s.

    Parameters
    ----------
    rank : int
        r.
    alpha : float, optional
        s = alpha/r; 1 by default.

    Notes
    -----
    Factors: "M" (r, r). It sees the inputs through A alone, so thin statistics are enough.

    References
    ----------
    .. [1] K. Bałazy et al., "LoRA-XS: low-rank adaptation with extremely small number of parameters",
       arXiv:2405.17604.

    Examples
    --------
    >>> import numpy as np
    >>> from rpcls.adapters import LayerStatistics, LoRAXS, fit
    >>> W = np.diag([4.0, 2.0, 1.0])
    >>> fit(LayerStatistics.from_delta(0.5 * W), LoRAXS(rank=2), weight=W, ridge=0).delta().round(9) + 0
    array([[2., 0., 0.],
           [0., 1., 0.],
           [0., 0., 0.]])
    """

    needs_weight = True

    rank: int
    alpha: float | None = None

    def __post_init__(self) -> None:
        scale_of(self.alpha, count(self.rank, "rank"))

    def _bases(self, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        count(self.rank, "rank", most=min(weight.shape), why=", the smaller side of the layer")
        U, s, Vt = top_singular(weight, self.rank)
        signs = np.where(Vt[np.arange(self.rank), np.abs(Vt).argmax(axis=1)] < 0, -1.0, 1.0)
        return U * (s * signs), Vt * signs[:, None]

    def projection(self, in_features: int, weight: Any = None) -> np.ndarray:
        W0 = matrix(weight, "weight", (None, in_features), "(out_features, in_features)")
        return self._bases(W0)[1]

    def bind(self, layer: Layer) -> Model:
        B, A = self._bases(layer.needed_weight(self))
        return one_half(_Core(B, scale_of(self.alpha, self.rank)), A, "M")


class _Core(Linear):
    """L = s·BM for M (p, r), in a layer of r inputs."""

    def __init__(self, B: np.ndarray, scale: float) -> None:
        o, r = B.shape
        self.B, self.scale = B, scale
        self.shape, self.theta_shape = (o, r), (r, r)

    def apply(self, theta: np.ndarray) -> np.ndarray:
        return self.scale * (self.B @ theta)

    def adjoint(self, G: np.ndarray) -> np.ndarray:
        return self.scale * (self.B.T @ G)

    def gram(self, C: np.ndarray, block: np.ndarray | None = None) -> np.ndarray:
        M = self.scale**2 * np.kron(self.B.T @ self.B, C)
        return M if block is None else M[np.ix_(block, block)]

    def solve(self, f: Quadratic, start: np.ndarray | None = None) -> Step:
        G, rhs = self.B.T @ self.B, self.B.T @ f.R
        left, row_rank = systems.solve(G, rhs)
        right, column_rank = systems.solve(f.C, left.T)
        theta = right.T / self.scale
        return Step(theta, f.value(self.apply(theta)), row_rank * column_rank)
