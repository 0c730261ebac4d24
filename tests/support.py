"""What several test modules use: problems of known kind, and summaries made without the kernels."""

from __future__ import annotations

import itertools

import numpy as np

from rpcls.compressed import CompressedProblem
from rpcls.random import Key
from rpcls.sketches import Gaussian, SketchFamily
from rpcls.sketches.base import SketchOperator


def summary(
    A: np.ndarray,
    b: np.ndarray,
    S: np.ndarray,
    *,
    family: SketchFamily | None = None,
    weight: np.ndarray | None = None,
    exponents: tuple[int, int] = (0, 0),
    dtype: type | None = None,
) -> CompressedProblem:
    """The CompressedProblem of (A, b) under the dense S (d × m), by plain NumPy.

    With `exponents` the arrays are A·2^-exponents[0] and b·2^-exponents[1]'s.
    """
    dtype = A.dtype if dtype is None else dtype
    A, b = np.ldexp(np.asarray(A, float), -exponents[0]), np.ldexp(np.asarray(b, float), -exponents[1])
    one = np.ones(len(A))
    if weight is not None:
        one = np.sqrt(weight)
        A, b = A * one[:, None], (b.T * one).T
    scalar = b.ndim == 1
    btb, b_sum = np.sum(b * b, axis=0), one @ b
    return CompressedProblem(
        SA=(S @ A).astype(dtype),
        Sb=(S @ b).astype(dtype),
        S1=S @ one,
        Atb=A.T @ b,
        btb=float(btb) if scalar else btb,
        column_norms=np.linalg.norm(A, axis=0),
        column_sums=one @ A,
        b_sum=float(b_sum) if scalar else b_sum,
        weight=float(one @ one),
        intervals=((0, len(A)),),
        operator=SketchOperator(Gaussian() if family is None else family, len(S), Key(0)),
        exponents=exponents,
    )


def gaussian_sketch(d: int, m: int, rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((d, m)) / np.sqrt(d)


def sparse_sketch(d: int, m: int, rng: np.random.Generator, nnz: int = 8) -> np.ndarray:
    """ζ disjoint row blocks, one ±1/√ζ in each, per column."""
    S = np.zeros((d, m))
    edges = np.linspace(0, d, nnz + 1).astype(int)
    for low, high in itertools.pairwise(edges):
        S[rng.integers(low, high, m), np.arange(m)] = rng.choice([-1.0, 1.0], m) / np.sqrt(nnz)
    return S


def matrix(kind: str, m: int, n: int, rng: np.random.Generator, condition: float = 100.0) -> np.ndarray:
    """m × n, singular values from 1 down to 1/condition; "gaussian": rows alike, "coherent": a few rows carry most."""
    U = rng.standard_normal((m, n))
    if kind == "coherent":
        U *= np.where(rng.random(m) < 3 * n / m, 1.0, 1e-4)[:, None]
        U[:n] += 10 * np.eye(n)
    elif kind != "gaussian":
        raise ValueError(kind)
    U = np.linalg.qr(U)[0]
    V = np.linalg.qr(rng.standard_normal((n, n)))[0]
    return U * np.geomspace(1, 1 / condition, n) @ V.T
