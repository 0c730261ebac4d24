"""Problems of known difficulty: the families that accuracy is judged on, the NIST sets, and large ones to be timed."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

NIST = Path(__file__).parent.parent / "tests" / "data" / "nist_strd"
KINDS = ("incoherent", "semi-coherent", "coherent", "heavy-tailed")
_LADDER = (1e0, 1e3, 1e6, 1e8, 1e10, 1e12, 1e14, 1e15, 1e16)
_NOISY = ((1e6, 1.0), (1e10, 1e-3), (1e12, 1.0), (1e14, 1e-3), (1e14, 1.0))  # condition number, ‖r‖ with ‖x‖ = 1
_U = 2.0**-53


class Problem(NamedTuple):
    """min ‖Ax − b‖, float64."""

    family: str
    name: str
    A: np.ndarray
    b: np.ndarray
    deficient: bool = False  # exactly: x is the answer of minimum norm


def _basis(kind: str, m: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """An orthonormal basis of a subspace whose directions lie on many rows or hang on few."""
    if kind == "incoherent":
        U = rng.standard_normal((m, n))
    elif kind == "semi-coherent":
        half = n // 2
        U = np.zeros((m, n))
        U[:half, :half] = np.eye(half)
        U[half:, half:] = rng.standard_normal((m - half, n - half))
    elif kind == "coherent":
        U = np.vstack([np.eye(n), 1e-8 * rng.standard_normal((m - n, n))])
    else:
        U = rng.standard_t(1, (m, n))
    return np.linalg.qr(U)[0]


def of_singular_values(
    kind: str, m: int, s: np.ndarray, residual: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A = U·diag(s)·Vᵀ, U of the kind; b = Ax + r with ‖x‖ = 1, r ⟂ A and ‖r‖ = residual."""
    U, V = _basis(kind, m, len(s), rng), np.linalg.qr(rng.standard_normal((len(s), len(s))))[0]
    A = (U * s) @ V.T
    x, r = rng.standard_normal(len(s)), rng.standard_normal(m)
    for _ in range(2):
        r -= U @ (U.T @ r)
    return A, A @ (x / np.linalg.norm(x)) + residual / np.linalg.norm(r) * r


def hard(m: int, n: int, seed: int) -> Iterator[Problem]:
    """Every family, one draw of each problem; m ≥ 4n."""
    rng = np.random.default_rng(seed)
    for kind in KINDS:
        for t in _LADDER:  # the difficulty ladder: condition number t, ‖r‖ = ut
            yield Problem(
                f"ladder, {kind}", f"{t:.0e}", *of_singular_values(kind, m, np.geomspace(1, 1 / t, n), _U * t, rng)
            )
        for t, residual in _NOISY:
            Ab = of_singular_values(kind, m, np.geomspace(1, 1 / t, n), residual, rng)
            yield Problem(f"noisy, {kind}", f"{t:.0e}, ‖r‖ = {residual:.0e}", *Ab)
    yield from _named(m, n, rng)


def _named(m: int, n: int, rng: np.random.Generator) -> Iterator[Problem]:
    b = rng.standard_normal(m)
    half = rng.standard_normal((m, n // 2))
    yield Problem("rank", "[B, B]", np.hstack([half, half]), b, deficient=True)
    yield Problem("rank", "[B, 10B]", np.hstack([half, 10 * half]), b, deficient=True)
    zero = rng.standard_normal((m, n))
    zero[:, n // 3] = 0
    yield Problem("rank", "zero column", zero, b, deficient=True)
    yield Problem("rank", "1e20", of_singular_values("incoherent", m, np.geomspace(1, 1e-20, n), 1.0, rng)[0], b)
    for delta in (1e-3, 1e-8):
        rows = np.vstack([np.eye(n), delta * rng.standard_normal((m - n, n))])
        yield Problem("coordinate subspace", f"[I; {delta:g} G]", rows, b)
    spike = rng.standard_normal((m, n))
    spike[m // 2] *= 1e8
    yield Problem("spiked and stepped", "one row × 1e8", spike, b)
    steps = np.zeros((m, n))
    steps[np.arange(m), np.arange(m) * n // m] = 1
    yield Problem("spiked and stepped", "steps", steps + 1e-8 * rng.standard_normal((m, n)), b)
    for level in (1e-6, 1e-12):  # half of the singular values are 1, half are small
        s = np.where(np.arange(n) < n // 2, 1.0, level)
        Ab = of_singular_values("coherent", m, s, 1e-3, rng)
        yield Problem("spiked and stepped", f"singular values 1 and {level:g}", *Ab)
    c = 0.285
    scale = (1 - c * c) ** (np.arange(n) / 2)
    kahan = scale[:, None] * (np.eye(n) - c * np.triu(np.ones((n, n)), 1))
    padded = np.vstack([kahan, np.zeros((m - n, n))])[rng.permutation(m)]
    yield Problem("Kahan", "in n of the rows", padded, b)
    yield Problem("Kahan", "rotated", _basis("incoherent", m, n, rng) @ kahan, b)
    decades = 10 ** np.linspace(-12, 12, n)
    yield Problem("scaled columns", "Gaussian × 1e-12 … 1e12", rng.standard_normal((m, n)) * decades, b)
    conditioned = of_singular_values("incoherent", m, np.geomspace(1, 1e-10, n), 1.0, rng)[0]
    yield Problem("scaled columns", "1e10 × 1e12 … 1e-12", conditioned * decades[::-1], b)
    t = np.sort(rng.random(m))
    curve = np.sin(9 * t) + 0.1 * b
    for width in (1.0, 3.0):
        kernel = np.exp(-0.5 * ((t[:, None] - np.linspace(0, 1, n)) * n / width) ** 2)
        yield Problem("kernel columns", f"Gaussian, {width:g} spacings wide", kernel, curve)
    yield Problem("kernel columns", "monomials", np.vander(2 * t - 1, min(n, 25)), curve)
    yield Problem("sparse", "3 entries a row", sparse(m, n, seed=int(rng.integers(2**31)))[0].toarray(), b)
    A = of_singular_values("incoherent", m, np.geomspace(1, 1e-12, n), 1.0, rng)[0]
    yield Problem("consistent", "1e12", A, A @ np.ones(n))


def sparse(m: int, n: int, seed: int = 0) -> tuple[Any, np.ndarray]:
    """CSR rows of three Gaussian entries, one in each third of the columns; b = Ax + noise of its size."""
    from scipy.sparse import csr_array

    rng = np.random.default_rng(seed)
    edges = np.array([0, n // 3, 2 * n // 3, n])
    indices = np.column_stack([rng.integers(edges[i], edges[i + 1], m, dtype=np.int32) for i in range(3)])
    pointers = np.arange(0, 3 * m + 1, 3, dtype=np.int32)
    A = csr_array((rng.standard_normal(3 * m), indices.reshape(-1), pointers), shape=(m, n))
    b = A @ rng.standard_normal(n)
    return A, b + np.linalg.norm(b) / np.sqrt(m) * rng.standard_normal(m)


def large(m: int, n: int, condition: float) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian rows times an n × n matrix of this condition number; b = Ax + r, r ⟂ A, ‖r‖ = ‖Ax‖.

    x has more weight in the smaller singular directions, as σ^(-1/2): there a solver that squares the condition number
    is wrong enough for its backward error to show it, although the residual is large.
    """
    rng = np.random.default_rng(0)
    G = rng.standard_normal((m, n)) / np.sqrt(m)
    V, s = np.linalg.qr(rng.standard_normal((n, n)))[0], np.geomspace(1, 1 / condition, n)
    A = G @ ((V * s) @ V.T)
    r = rng.standard_normal(m)
    inverse = np.linalg.inv(G.T @ G)
    for _ in range(2):
        r -= G @ (inverse @ (G.T @ r))
    b = A @ (V @ (rng.standard_normal(n) / np.sqrt(s)))
    return A, b + np.linalg.norm(b) / np.linalg.norm(r) * r


def nist(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A, b and the exact coefficients of a NIST linear regression set."""
    entry = nist_sets()[name]
    with open(NIST / f"{name}.csv", newline="") as file:
        rows = np.array([[float(value) for value in row] for row in list(csv.reader(file))[1:]])
    y, X = rows[:, 0], rows[:, 1:]
    if entry["design"].startswith("powers"):
        X = X ** np.arange(entry["columns"])
    elif entry["design"].startswith("intercept"):
        X = np.hstack([np.ones((len(X), 1)), X])
    return X, y, np.array([float(value) for value in entry["coefficients"]])


def nist_sets() -> dict[str, Any]:
    """What is known of each set, by name."""
    return json.loads((NIST / "exact.json").read_text(encoding="utf-8"))
