"""How fast the steps of IterativeHessianSketch converge, and how often they do not, draw by draw.

    python benchmarks/hessian_sketch.py          # half a minute

The error of a step depends on the singular values s of SQ alone, Q an orthonormal basis of the range of A: with
λ = 1/s², e ← (1 − αλ)e + β(e − e_before) in each direction. So every draw of S gives its rate exactly, and without a
right-hand side: the largest root of z² − (1 + β − αλ)z + β in absolute value. At 1 or more it diverges.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from harness import table, write
from threadpoolctl import threadpool_limits

import rpcls

M, DRAWS = 600, 200
ROWS = ("Gaussian", "coherent", "[I; G/1000]")
COLUMNS = (2, 5, 20, 60)
SIZES = {"4n": lambda n: 4 * n, "8n": lambda n: 8 * n, "16n": lambda n: 16 * n, "16n + 64": lambda n: 16 * n + 64}
STEPS = ("tuned", "plain")


def basis(rows: str, n: int, rng: np.random.Generator) -> np.ndarray:
    """An orthonormal basis (M, n) of a range whose rows are alike, or a few of which carry most of it."""
    A = rng.standard_normal((M, n))
    if rows == "coherent":
        A *= np.where(rng.random(M) < 3 * n / M, 1.0, 1e-4)[:, None]
        A[:n] += 10 * np.eye(n)
    elif rows == "[I; G/1000]":
        A[:n], A[n:] = np.eye(n), A[n:] / 1000
    return np.linalg.qr(A)[0]


def rate(stretch: np.ndarray, d: int, steps: str) -> float:
    """What the slowest direction is multiplied by in every step, in the end."""
    gamma = len(stretch) / d
    alpha, beta = ((1 - gamma) ** 2, gamma) if steps == "tuned" else (1.0, 0.0)
    middle = 1 + beta - alpha / stretch.astype(complex) ** 2
    root = np.sqrt(middle**2 - 4 * beta)
    return float(np.max(np.abs([middle + root, middle - root])) / 2)


def measured(rows: str, n: int, size: str) -> list[dict[str, Any]]:
    d = max(SIZES[size](n), 16)
    found: dict[str, list[float]] = {steps: [] for steps in STEPS}
    for draw in range(DRAWS):
        Q = basis(rows, n, np.random.default_rng(draw))
        stretch = np.linalg.svd(rpcls.SparseSign().sample(d, rng=draw) @ Q, compute_uv=False)
        for steps in STEPS:
            found[steps].append(rate(stretch, d, steps))
    return [
        {
            "rows": rows, "n": n, "sketch_size": size, "steps": steps, "draws": DRAWS,
            "diverge": float(np.mean(np.array(rates) >= 1)), "median": float(np.median(rates)), "worst": max(rates),
            "theory": (n / d) ** 0.5 if steps == "tuned" else (1 - (n / d) ** 0.5) ** -2 - 1,
        }
        for steps, rates in found.items()
    ]  # fmt: skip


def main() -> None:
    with threadpool_limits(1):
        cells = [cell for rows in ROWS for n in COLUMNS for size in SIZES for cell in measured(rows, n, size)]
    head = ["rows of A", "n", "d", *(f"{s}: {c}" for s in STEPS for c in ("diverge", "median rate", "worst", "theory"))]
    lines = []
    for tuned, plain in zip(cells[::2], cells[1::2], strict=True):
        figures = [
            text
            for cell in (tuned, plain)
            for text in (f"{cell['diverge']:.1%}", *(f"{cell[name]:.2f}" for name in ("median", "worst", "theory")))
        ]
        lines.append([tuned["rows"], tuned["n"], tuned["sketch_size"], *figures])
    write(
        "hessian_sketch",
        "python benchmarks/hessian_sketch.py",
        "Iterative Hessian sketch: rates on a fixed sketch",
        {"rows": M, "cells": cells},
        f"SparseSign(8), {DRAWS} draws a line, {M} rows, d at least 16: the share of draws that diverge, and what a "
        f"step multiplies the error by in the end. Theory: √(n/d), and (1 − √(n/d))⁻² − 1.\n\n{table(head, lines)}",
    )


if __name__ == "__main__":
    main()
