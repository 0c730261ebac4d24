"""C3A: a matrix of circulant blocks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InvalidValueError
from . import systems
from .arrays import count
from .family import Family, Layer, Model, one_half
from .linear import Linear, Step
from .quadratic import Quadratic

__all__ = ["C3A"]


@dataclass(frozen=True)
class C3A(Family):
    """dW of circulant b × b blocks, in the layout of the peft library [1]_.

    Block (m, n) is dW[m·b + p, n·b + j] = kernel[m, n, (j − p) mod b]/i. All rows of a block row have the same
    unknowns, shifted, so that the objective sees C through the mean of its shifts, which is circulant in blocks: a
    Fourier transform makes b independent Hermitian systems of i/b unknowns, with o/b right-hand sides.

    Parameters
    ----------
    block_size : int, default 256
        b; it divides both sides of the layer.

    Notes
    -----
    Factors: "kernel" (o/b, i/b, b), peft's c3a_kernel; oi/b numbers. Cost: i²·log b + oi flops, and i³/b² for the
    systems.

    References
    ----------
    .. [1] A. Chen et al., "Parameter-efficient fine-tuning via circular convolution", arXiv:2407.19342.

    Examples
    --------
    >>> import numpy as np
    >>> from rpcls.adapters import C3A, LayerStatistics, fit
    >>> fit(LayerStatistics.from_delta(np.diag([1.0, 2.0, 3.0])), C3A(block_size=3), ridge=0).delta().round(9) + 0
    array([[2., 0., 0.],
           [0., 2., 0.],
           [0., 0., 2.]])
    """

    block_size: int = 256

    def __post_init__(self) -> None:
        count(self.block_size, "block_size")

    def bind(self, layer: Layer) -> Model:
        o, i = layer.shape
        if o % self.block_size or i % self.block_size:
            raise InvalidValueError(
                f"block_size must divide both sides of the layer, {o} and {i}, got {self.block_size}"
            )
        return one_half(_Circulant(layer.shape, self.block_size), name="kernel")


class _Circulant(Linear):
    def __init__(self, shape: tuple[int, int], b: int) -> None:
        self.shape, self.b = shape, b
        self.theta_shape = shape[0] // b, shape[1] // b, b

    def diagonals(self, G: np.ndarray) -> np.ndarray:
        """Sums along the wrapped diagonals of every block: Σ over p of G[m·b + p, n·b + (p + t) mod b], (m, n, t)."""
        b = self.b
        blocks = G.reshape(-1, b, G.shape[1] // b, b)
        out = np.zeros((len(blocks), blocks.shape[2], b))
        for p in range(b):
            out[:, :, : b - p] += blocks[:, p, :, p:]
            out[:, :, b - p :] += blocks[:, p, :, :p]
        return out

    def apply(self, theta: np.ndarray) -> np.ndarray:
        b = self.b
        shift = (np.arange(b) - np.arange(b)[:, None]) % b
        return theta[:, :, shift].transpose(0, 2, 1, 3).reshape(self.shape) / self.shape[1]

    def adjoint(self, G: np.ndarray) -> np.ndarray:
        return self.diagonals(G) / self.shape[1]

    def gram(self, C: np.ndarray, block: np.ndarray | None = None) -> np.ndarray:
        k, b = self.theta_shape[1:]
        shift = (np.arange(b) - np.arange(b)[:, None]) % b
        row = self.diagonals(C)[:, :, shift].transpose(0, 2, 1, 3).reshape(k * b, k * b) / self.shape[1] ** 2
        M = np.kron(np.eye(self.theta_shape[0]), (row + row.T) / 2)
        return M if block is None else M[np.ix_(block, block)]

    def blocks(self) -> list[np.ndarray]:
        return list(np.arange(self.size).reshape(self.theta_shape[0], -1))

    def solve(self, f: Quadratic, start: np.ndarray | None = None) -> Step:
        i, b = self.shape[1], self.b
        m = self.adjoint(f.R)
        rhs = np.fft.rfft(m).transpose(2, 1, 0)  # frequencies, unknowns, right-hand sides
        H = np.fft.rfft(self.diagonals(f.C)).conj().transpose(2, 0, 1) / i**2
        X, rank = np.empty_like(rhs), 0
        for n, (matrix, columns) in enumerate(zip(H, rhs, strict=True)):
            real = (2 * n) % b == 0
            X[n], found = _hermitian(matrix, columns, real)
            rank += found
        theta = np.fft.irfft(X.transpose(2, 1, 0), b)
        product = np.fft.irfft(np.matmul(H, X).transpose(2, 1, 0), b)
        value = f.energy + float(np.vdot(theta, product - 2 * m))
        return Step(theta, value, rank * self.theta_shape[0])


def _hermitian(H: np.ndarray, B: np.ndarray, real: bool) -> tuple[np.ndarray, int]:
    """The minimum-norm solution of HX = B, and how many real unknowns of one column it determines."""
    re, im = np.real(H), np.imag(H)
    if real:
        solved = systems.solve(re, np.real(B))
        return solved.x.astype(complex), solved.rank
    solved = systems.solve(np.block([[re, -im], [im, re]]), np.concatenate([np.real(B), np.imag(B)]))
    top, bottom = np.split(solved.x, 2)
    return top + 1j * bottom, solved.rank
