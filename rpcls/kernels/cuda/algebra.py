"""Linear algebra of matrices on a card, float64, by cuBLAS and cuSOLVER as CuPy calls them.

Matrices stay there; vectors, and n × k arrays for few k, come from host memory and go back: that takes a few hundredths
of a millisecond. Every function works on the card that holds its first argument.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from .device import cublas, cupy, on_device, potrf, prepared, solve_triangular

__all__ = [
    "add_gram",
    "around",
    "cholesky",
    "column_norms",
    "economy_svd",
    "eigenvectors",
    "extreme_singular_values",
    "extremes",
    "gram",
    "gram_solved",
    "inverse",
    "lanczos",
    "ldexp",
    "less_outer",
    "on_same_card",
    "power",
    "product",
    "scaled",
    "shifted",
    "singular_values",
    "solve",
    "solved",
    "symmetric",
    "trace_of_inverse",
    "triangle",
    "triangle_of_products",
    "used_columns",
    "with_penalty",
    "with_ridge",
    "without",
]


_SEEN = 1e-3  # beside the smallest eigenvalue: a shift that a preconditioner may have
_HALF = 1024  # columns from which half of a product takes half the time


def _there(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(M: Any, *rest: Any, **more: Any) -> Any:
        with on_device(M):
            return function(M, *rest, **more)

    return run


def _up(array: Any) -> Any:
    return cupy().asarray(np.ascontiguousarray(array, np.float64))


def _vectors(X: np.ndarray) -> Any:
    """On the card, without its second dimension if it is one vector: CuPy then calls gemv, which is faster."""
    return _up(X[:, 0] if X.shape[1] == 1 else X)


def _down(X: Any) -> np.ndarray:
    return cupy().asnumpy(X).reshape(X.shape[0], -1)


@_there
def on_same_card(M: Any, values: np.ndarray) -> Any:
    """A copy of `values` beside M."""
    return _up(values)


# -- entries ----------------------------------------------------------------------------------------------------------


@_there
def extremes(M: Any, axis: int | None) -> tuple[np.ndarray, np.ndarray]:
    """The largest and the smallest entry, or those of every column."""
    return cupy().asnumpy(M.max(axis=axis)), cupy().asnumpy(M.min(axis=axis))


@_there
def ldexp(M: Any, exponent: Any) -> Any:
    """M·2^exponent, in M's dtype; the exponent an integer, or an array (n,) of them, by column."""
    there = cupy().asarray(np.asarray(np.clip(exponent, -5000, 5000), np.int32))
    return cupy().ldexp(M, there)


@_there
def scaled(M: Any, rows: np.ndarray | None, columns: np.ndarray) -> Any:
    """M·2^(rows + columns), with float64 factors: for exponents whose powers are in range."""
    if rows is not None:
        M = M * _up(np.ldexp(1.0, rows))[:, None]
    return M * _up(np.ldexp(1.0, columns))


@_there
def column_norms(M: Any) -> np.ndarray:
    M = M.astype(np.float64, copy=False)
    return np.sqrt(cupy().asnumpy((M * M).sum(axis=0)))


@_there
def used_columns(M: Any) -> np.ndarray:
    return cupy().asnumpy(M.any(axis=0))


@_there
def without(M: Any, columns: np.ndarray) -> Any:
    """M with these columns, a boolean mask, at zero."""
    return M * _up(~columns)


@_there
def less_outer(M: Any, u: np.ndarray, v: np.ndarray) -> Any:
    """M − uvᵀ in float64."""
    return M - _up(u)[:, None] * _up(v)


@_there
def with_ridge(M: Any, root: float) -> Any:
    """[M; root·I]."""
    return cupy().concatenate([M, root * cupy().eye(M.shape[1])], axis=0)


# -- products and factorisations --------------------------------------------------------------------------------------


@_there
def product(M: Any, X: np.ndarray, *, transpose: bool = False) -> np.ndarray:
    """MX, or MᵀX."""
    M = M.astype(np.float64, copy=False)
    return _down((M.T if transpose else M) @ _vectors(X))


@_there
def gram(M: Any, ridge: float = 0.0) -> Any:
    """MᵀM + ridge·I."""
    G = cupy().zeros((M.shape[1], M.shape[1]))
    add_gram(G, M)
    G = symmetric(G)
    return G + ridge * cupy().eye(len(G)) if ridge else G


@_there
def add_gram(total: Any, M: Any) -> None:
    """total += MᵀM, of which the lower triangle counts; total (n, n) in C order."""
    if len(total) < _HALF:
        total += M.T @ M
    else:
        rows = ("N", M.T) if M.flags.f_contiguous else ("T", M)  # else CuPy copies M
        cublas().syrk(*rows, out=total, beta=1.0, lower=True)


@_there
def symmetric(G: Any) -> Any:
    """The symmetric matrix of the lower triangle of G."""
    below = cupy().tril(G, -1)
    return cupy().tril(G) + below.T


@_there
def triangle(M: Any, *blocks: Any) -> Any:
    """R of the Householder QR of [M blocks[0] …]; the blocks come from host memory."""
    if blocks:
        M = cupy().concatenate([M, *map(_up, blocks)], axis=1)
    return cupy().linalg.qr(M.astype(np.float64, copy=False), mode="r")


@_there
def cholesky(G: Any) -> Any:
    """R with RᵀR = G, or None where G is not positive definite."""
    return potrf(G)


@_there
def triangle_of_products(M: Any, q: np.ndarray) -> tuple[Any, Any, np.ndarray, np.ndarray] | None:
    """R, R⁻¹ if at hand, e and Z with 2^-e·MᵀM·2^-e = RᵀR and RᵀZ = 2^-e·Mᵀq, nearly, by shifted Cholesky QR [1]_.

    The shift, which is what rounding may leave of a zero eigenvalue, makes up for what squaring loses, and W = MR⁻¹, of
    far lower condition number, is factorised once more: half the time of QR. Up to a condition number of 10¹² the
    columns of MR⁻¹ are then orthonormal to a few digits. None where there is no Cholesky factor.

    References
    ----------
    .. [1] T. Fukaya, R. Kannan, Y. Nakatsukasa, Y. Yamamoto, Y. Yanagisawa, "Shifted Cholesky QR for computing the QR
       factorization of ill-conditioned matrices", SIAM J. Sci. Comput. 42, 2020, doi:10.1137/18M1218212.
    """
    xp, n = cupy(), M.shape[1]
    G = gram(M)
    squares = xp.asnumpy(G.diagonal())
    if not np.all((squares > 1e-200) & (squares < 1e200)):
        return None
    e = np.rint(0.5 * np.log2(squares)).astype(np.int64)
    shift = n * np.finfo(np.float64).eps / 2 * float(np.sum(np.ldexp(squares, -2 * e)))
    R = cholesky(scaled(G, -e, -e) + shift * xp.eye(n))
    if R is None:
        return None
    X = inverse(R)
    Y = X * _up(np.ldexp(1.0, -e))[:, None]
    if shift * float((X * X).sum()) <= _SEEN:
        return R, X, e, product(Y, product(M, q, transpose=True), transpose=True)
    W = M @ Y
    again = cholesky(gram(W))
    if again is None:
        return None
    return again @ R, None, e, solve(again, product(W, q, transpose=True), transpose=True)


@_there
def trace_of_inverse(G: Any, mu: float) -> float:
    """tr (G + μI)⁻¹; NaN where that is not positive definite."""
    R = cholesky(G + mu * cupy().eye(len(G)))
    return float("nan") if R is None else float(cupy().square(inverse(R)).sum())


@_there
def inverse(R: Any) -> Any:
    """R⁻¹ of an upper triangle, each column of it backward stable; not finite where R is singular."""
    return solve_triangular(R, cupy().eye(len(R)), trans="N")


@_there
def with_penalty(M: Any, R: Any, ridge: float) -> Any:
    """M + ridge·R⁻ᵀR⁻¹, R None for I."""
    if R is None:
        return M + ridge * cupy().eye(len(M))
    X = inverse(R)
    return M + ridge * (X.T @ X)


@_there
def shifted(R: Any, X: Any, tau: float) -> Any:
    """T with TᵀT = RᵀR + τ²I, X = R⁻¹, for a τ small enough beside R; None where there is none."""
    T = cholesky(tau**2 * gram(X) + cupy().eye(len(X)))
    return None if T is None else T @ R


@_there
def solve(R: Any, Y: np.ndarray, *, transpose: bool = False) -> np.ndarray:
    """R⁻¹Y, or R⁻ᵀY, by substitution."""
    return _down(solve_triangular(R, _vectors(Y), trans="T" if transpose else "N"))


@_there
def solved(R: Any, X: Any, Y: np.ndarray, *, transpose: bool = False) -> np.ndarray:
    """R⁻¹Y, or R⁻ᵀY, by X = R⁻¹ and one correction: several times faster than substitution, which waits row by row.

    The correction makes it as accurate, as long as the condition number of R is far below 1/ε.
    """
    y = _vectors(Y)
    return _down(_corrected(R.T, X.T, y) if transpose else _corrected(R, X, y))


@_there
def gram_solved(R: Any, X: Any, G: np.ndarray) -> np.ndarray:
    """R⁻¹R⁻ᵀG, as `solved`."""
    return _down(_corrected(R, X, _corrected(R.T, X.T, _vectors(G))))


@_there
def around(R: Any, X: Any, scales: Any, normal: Callable[[Any], Any], Y: np.ndarray) -> tuple[np.ndarray, ...]:
    """Z = D·R⁻¹Y, NZ and R⁻ᵀD·NZ for D = diag(scales) and N = `normal`; one way up and one way down."""
    y, n = _vectors(Y), len(R)
    D = scales if y.ndim == 1 else scales[:, None]
    z = D * _corrected(R, X, y)
    Nz = normal(z.reshape(n, -1)).reshape(z.shape)
    both = cupy().concatenate([z, Nz, _corrected(R.T, X.T, D * Nz)], axis=0)
    return tuple(_down(both).reshape(3, n, -1))


def _corrected(R: Any, X: Any, y: Any) -> Any:
    z = X @ y
    return z + X @ (y - R @ z)


@_there
def extreme_singular_values(R: Any, X: Any) -> np.ndarray:
    """The largest and smallest singular value of R, X = R⁻¹, by power iteration, within some per cent.

    The vectors are not normalised on the way: the columns of R have about unit norm, and six iterations leave the range
    of float64 only if the condition number does not count as one.
    """
    xp, sizes = cupy(), []
    for M in (R, X.T):
        y = _up(np.cos(np.arange(len(R))))  # any vector that no structure of R is orthogonal to
        for _ in range(5):
            y = M.T @ (M @ y)
        sizes += [(y * y).sum(), xp.square(M @ y).sum()]
    large, small = xp.asnumpy(xp.stack(sizes)).reshape(2, 2)
    with np.errstate(all="ignore"):
        return np.array([np.sqrt(large[1] / large[0]), np.sqrt(small[0] / small[1])])


@_there
def eigenvectors(G: Any) -> tuple[np.ndarray, Any]:
    """Eigenvalues, on the host, and eigenvectors of a symmetric G, largest first."""
    values, V = cupy().linalg.eigh(G)
    return cupy().asnumpy(values)[::-1].copy(), cupy().ascontiguousarray(V[:, ::-1])


@_there
def economy_svd(M: Any) -> tuple[Any, np.ndarray, Any]:
    """U, the singular values on the host, and Vᵀ; LinAlgError where cuSOLVER does not converge."""
    from cupyx import errstate  # pyright: ignore[reportMissingImports]  # CuPy's

    with errstate(linalg="raise"):
        U, s, Vt = cupy().linalg.svd(M, full_matrices=False)
    return U, cupy().asnumpy(s), Vt


@_there
def singular_values(M: Any) -> np.ndarray:
    return cupy().asnumpy(cupy().linalg.svd(M, compute_uv=False))


@_there
def power(G: Any, squarings: int) -> tuple[Any, float]:
    """M of trace one, and log c, with cM = G^(2^squarings)."""
    xp, sizes, M = cupy(), [], G
    for i in range(squarings + 1):
        M = M @ M if i else M
        sizes.append(M.trace())
        M = M / sizes[-1]
    weights = 2.0 ** np.arange(squarings, -1, -1)
    return M, float(weights @ np.log(xp.asnumpy(xp.stack(sizes))))


@_there
def lanczos(G: Any, v: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray, Any]:
    """Diagonal and subdiagonal, (steps,) each, of a symmetric G in the Krylov space of v, and its vectors (steps, n).

    There is no wait for the card between. The vectors are not kept orthogonal: eigenvalues may come twice, none comes
    wrong. The last entry of the subdiagonal leads out of the space; after a zero nothing means anything.
    """
    xp, n = cupy(), len(G)
    V, found, w = xp.empty((steps + 1, n)), xp.empty((steps, 2)), xp.empty(n)
    V[0] = _up(v / np.linalg.norm(v))
    step = prepared("lanczos", "next_vector", np.float64, 8 * 32)
    for j in range(steps):
        xp.dot(G, V[j], out=w)
        step((1,), 1024, (w, V, found, j, n))
    diagonal, beside = xp.asnumpy(found).T
    return diagonal, beside, V[:steps]
