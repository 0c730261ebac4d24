"""How often the certificates hold, and how tight they are, on 10 000 random problems.

    python benchmarks/certificate.py             # a few minutes
    python benchmarks/certificate.py --quick     # a few seconds, written nowhere

Every problem has its own A, b and sketch. n = 5 … 60, d = 1.1n … 10n, 600 rows (SNR and condition number drawn over
decades), Gaussian and coherent rows alike; every certified sketch family meets every kind of rows. Each solver's x is
certified from the same summary, and compared with ‖A(x − x*)‖. Errors only: nothing here is timed.
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np
from harness import table, write
from threadpoolctl import threadpool_limits

import rpcls
from rpcls.accuracy import CONFIDENCES, Kind, certificate_factor, certificate_floor, damped_step
from rpcls.factor import Factor
from rpcls.linalg import triangle

PROBLEMS, QUICK = 10_000, 250
M = 600
COLUMNS = (5, 10, 20, 40, 60)
RATIOS = (1.1, 1.5, 2.0, 4.0, 10.0)
SKETCHES = {
    "SparseSign(8)": rpcls.SparseSign(),
    "SparseSign(4)": rpcls.SparseSign(4),
    "Gaussian": rpcls.Gaussian(),
    "Rademacher": rpcls.Rademacher(),
    "SRHT": rpcls.SRHT(),
    "BlockSRHT": rpcls.BlockSRHT(),
}
SOLVERS: dict[str, tuple[Any, Kind]] = {
    "full": (rpcls.FullyCompressed(), "full"),
    "partial, raw": (rpcls.PartiallyCompressed("raw"), "partial"),
    "partial, debiased": (rpcls.PartiallyCompressed("debiased"), "iterate"),
    "partial, best": (rpcls.PartiallyCompressed(), "iterate"),
    "robust-partial": (rpcls.RobustPartiallyCompressed(), "iterate"),
    "robust-partial, 0.1": (rpcls.RobustPartiallyCompressed(0.1), "iterate"),
    "combined": (rpcls.CombinedCompressed(), "iterate"),
    "robust-full": (rpcls.RobustFullyCompressed(), "any"),
}
ITERATIONS = 8


class Case(NamedTuple):
    """One certificate: truth/‖h‖, and the factors that were to hold it from both sides, by confidence."""

    solver: str
    rows: str
    family: str
    n: int
    ratio: float
    d: int
    kind: Kind
    truth: float
    upper: tuple[float, ...]
    lower: tuple[float, ...]


LEVELS = (CONFIDENCES[0], 0.95, 0.99, CONFIDENCES[1])
STATED = LEVELS.index(0.99)


def _gaussian(n: int, rng: np.random.Generator) -> np.ndarray:
    return np.linalg.qr(rng.standard_normal((M, n)))[0]


def _coordinates(n: int, rng: np.random.Generator) -> np.ndarray:
    """[I; δG]: every direction hangs on one row."""
    U = 1e-3 / math.sqrt(M) * rng.standard_normal((M, n))
    U[rng.choice(M, n, replace=False)] += np.eye(n)
    return np.linalg.qr(U)[0]


def _heavy(n: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of a multivariate Student t with one degree of freedom."""
    return np.linalg.qr(rng.standard_normal((M, n)) / np.abs(rng.standard_normal((M, 1))))[0]


def _half(n: int, rng: np.random.Generator) -> np.ndarray:
    """Half of the directions on one row each, the others spread out."""
    U = rng.standard_normal((M, n)) / math.sqrt(M)
    heavy = rng.choice(M, n // 2, replace=False)
    U[:, : n // 2] *= 1e-3
    U[heavy, : n // 2] += np.eye(n // 2)
    return np.linalg.qr(U)[0]


ROWS = {"Gaussian": _gaussian, "coordinates": _coordinates, "heavy-tailed": _heavy, "half coherent": _half}


def one(index: int, seed: int) -> list[Case]:
    """The certificates of one random problem."""
    rng = np.random.default_rng([seed, index])
    rows, family = list(ROWS)[index % len(ROWS)], list(SKETCHES)[index // len(ROWS) % len(SKETCHES)]
    n, ratio = int(rng.choice(COLUMNS)), float(rng.choice(RATIOS))
    d = max(math.ceil(ratio * n), n + 1, 2 * SKETCHES[family].minimum_size)
    U = ROWS[rows](n, rng)
    s = np.geomspace(1, 10.0 ** -rng.uniform(0, 6), n)
    V = np.linalg.qr(rng.standard_normal((n, n)))[0]
    signal = rng.standard_normal(n) * s ** rng.choice([-1.0, 0.0, 1.0])
    signal /= np.linalg.norm(signal)
    spread = rng.standard_normal(M) if rng.random() < 0.5 else rng.standard_t(1, M)
    noise = spread - U @ (U.T @ spread)
    noise *= 10.0 ** -rng.uniform(-1, 1.5) / np.linalg.norm(noise)
    A, b = (U * s) @ V.T, U @ signal + noise
    c = rpcls.compress(A, b, SKETCHES[family].sample(d, m=M, rng=rng), workers=1)
    factor = Factor(triangle(c.SA), d * 2.2e-16)
    if not factor.full:
        return []
    hadamard = family == "SRHT"

    def case(solver: str, kind: Kind, x: np.ndarray) -> Case:
        left = signal - (s * (V.T @ x))  # x* − x in the coordinates of U
        size = float(np.linalg.norm(factor.half_transpose((V @ (s * left))[:, None])))
        kinds = [{"m": M, "hadamard": hadamard, "confidence": level} for level in LEVELS]
        upper = tuple(certificate_factor(kind, d, n, **k) for k in kinds)
        lower = tuple(certificate_floor(kind, d, n, **k) for k in kinds)
        return Case(solver, rows, family, n, ratio, d, kind, float(np.linalg.norm(left)) / size, upper, lower)

    found, answers = [], {}
    for name, (solver, kind) in SOLVERS.items():
        answers[name] = c.solve(solver).x
        found.append(case(name, kind, answers[name]))
    x = answers["full"]
    h = factor.half_transpose((V @ (s * (signal - s * (V.T @ x))))[:, None])
    found.append(case("full, one damped step", "any", damped_step(factor, x[:, None], h, d)[:, 0]))
    for count, iterate in _iterates(factor, A, b, x):
        found.append(case(f"conjugate gradients, {count}", "iterate", iterate))
    found.append(case("independent of S", "any", V @ (rng.standard_normal(n) / s)))
    return found


def _iterates(factor: Factor, A: np.ndarray, b: np.ndarray, x: np.ndarray) -> Any:
    """Preconditioned conjugate gradients from x, some of the iterates."""
    y = np.zeros((len(x), 1))
    r = factor.half_transpose(A.T @ (b - A @ x)[:, None])
    p, size = r, np.sum(r * r)
    for count in range(1, min(ITERATIONS, len(x) - 1) + 1):
        Mp = factor.half_transpose(A.T @ (A @ factor.half(p)))
        alpha = size / np.sum(p * Mp)
        y, r = y + alpha * p, r - alpha * Mp
        p, size = r + np.sum(r * r) / size * p, np.sum(r * r)
        if count in (1, 3, ITERATIONS):
            yield count, x + factor.half(y)[:, 0]


def run(problems: int, seed: int = 0) -> list[Case]:
    """All certificates."""
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", rpcls.SketchWarning)  # n < 30 with rho="loo", d = n + 1: on purpose
        return [case for index in range(problems) for case in one(index, seed)]


def share(cases: list[Case], level: int = STATED, side: str = "upper") -> float:
    """How often the bound holds."""
    if side == "upper":
        return sum(c.truth <= c.upper[level] for c in cases) / len(cases)
    return sum(c.truth >= c.lower[level] for c in cases) / len(cases)


def middle(cases: list[Case], side: str = "upper") -> float:
    """The median of upper/truth or lower/truth."""
    return float(np.median([getattr(c, side)[STATED] / c.truth for c in cases]))


def groups(cases: list[Case], *by: str) -> dict[tuple[Any, ...], list[Case]]:
    found: dict[tuple[Any, ...], list[Case]] = defaultdict(list)
    for case in cases:
        found[tuple(getattr(case, name) for name in by)].append(case)
    return dict(found)


def report(cases: list[Case]) -> str:
    """The tables."""
    by_solver = groups(cases, "solver")
    head = ["x from", "factor", "cases", *(f"upper at {level:g}" for level in LEVELS), "lower at 0.99",
            "upper/error, d = 2n", "4n", "10n", "lower/error, d = 4n"]  # fmt: skip
    rows = []
    for (solver,), some in by_solver.items():
        at = {ratio: [c for c in some if c.ratio == ratio] for ratio in RATIOS}
        kinds = "/".join(dict.fromkeys(c.kind for c in some))
        rows.append(
            [
                solver,
                kinds,
                len(some),
                *(f"{share(some, i):.2%}" for i in range(len(LEVELS))),
                f"{share(some, side='lower'):.2%}",
                *(f"{middle(at[r]):.2f}" for r in (2.0, 4.0, 10.0)),
                f"{middle(at[4.0], 'lower'):.2f}",
            ]
        )
    parts = [
        "How often each bound holds, and medians of how tight they are. Each is to hold with at least its confidence.",
        table(head, rows),
    ]
    for by, header in (("rows", "rows of A"), ("family", "sketch"), ("ratio", "d/n"), ("n", "n")):
        names = list(dict.fromkeys(getattr(c, by) for c in cases))
        names = sorted(names) if by in ("ratio", "n") else names
        body = []
        for (solver,), some in by_solver.items():
            split = groups(some, by)
            body.append([solver, *(f"{share(split[name,]):.2%}" if (name,) in split else "–" for name in names)])
        parts.append(f"The upper bound at 0.99 by {header}:")
        parts.append(table(["x from", *map(str, names)], body))
    cells = {
        (solver, rows, ratio): some for (solver, rows, ratio), some in groups(cases, "solver", "rows", "ratio").items()
    }
    worst = sorted(cells.items(), key=lambda item: share(item[1]))[:12]
    parts.append("The lowest of all combinations of solver, rows and d/n:")
    lines = [[*key, len(some), f"{share(some):.2%}", f"{middle(some):.2f}"] for key, some in worst]
    parts.append(table(["x from", "rows of A", "d/n", "cases", "upper at 0.99", "upper/error"], lines))
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    cases = run(QUICK if quick else PROBLEMS)
    text = report(cases)
    if quick:
        print(text)
        return
    cells = [
        {
            **dict(zip(("solver", "rows", "family", "d/n"), key, strict=True)),
            "cases": len(some),
            "upper holds": {f"{level:g}": share(some, i) for i, level in enumerate(LEVELS)},
            "lower holds": {f"{level:g}": share(some, i, "lower") for i, level in enumerate(LEVELS)},
            "median upper/error": middle(some),
            "median lower/error": middle(some, "lower"),
        }
        for key, some in groups(cases, "solver", "rows", "family", "ratio").items()
    ]
    write(
        "certificate",
        "python benchmarks/certificate.py",
        "Certificates: coverage and tightness",
        {"problems": PROBLEMS, "cells": cells},
        f"{PROBLEMS} random problems of {M} rows; see the script for what is drawn.\n\n{text}",
    )


if __name__ == "__main__":
    main()
