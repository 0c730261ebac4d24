"""Adapters fitted to one large layer, from its statistics: time, memory, and the arithmetic behind them.

    python benchmarks/adapters.py [--quick]

writes adapters.json and adapters.md to benchmarks/results/, or with --quick, for a layer of 512 × 512, to a temporary
folder. The inputs are made up: the spectrum of their second moment falls as 1/j, and the wanted update is half of low
rank. Memory is measured in a process of its own, above the statistics. 15 minutes, 4 GiB.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from harness import RESULTS, peak_bytes, table, write

from rpcls import ConvergenceWarning
from rpcls.adapters import NOLA, Family, LayerStatistics, LoRA, RandLoRA, SpaRTA, VeRA, fit

COMMAND = "python benchmarks/adapters.py"
FEATURES, QUICK = 4096, 512
MOST_SECONDS, MOST_BYTES = {"RandLoRA": 600, "NOLA": 600}, 8 * 10**9  # wanted; 60 s for all others


def families(features: int) -> dict[str, Family]:
    small = features / FEATURES
    return {
        "SpaRTA": SpaRTA(0.01),
        "VeRA": VeRA(max(8, int(256 * small))),
        "LoRA": LoRA(16),
        "RandLoRA": RandLoRA(32),
        "NOLA": NOLA(max(32, int(1024 * small)), max(32, int(1024 * small)), 16),
    }


def statistics(features: int) -> LayerStatistics:
    """Of as many tokens as there are two times inputs."""
    rng = np.random.default_rng(0)
    fall = 1 / np.sqrt(np.arange(1, features + 1))
    turn = np.linalg.qr(rng.standard_normal((features, features)))[0].astype(np.float32)
    low = rng.standard_normal((2, features, max(1, features // 64)), dtype=np.float32)
    update = low[0] @ low[1].T / np.sqrt(features // 64) + rng.standard_normal((features, features), dtype=np.float32)
    held = LayerStatistics(features, features)
    for _ in range(4):
        X = (rng.standard_normal((features // 2, features), dtype=np.float32) * fall.astype(np.float32)) @ turn
        held.update(X, X @ update.T)
    return held


def flops(name: str, family: Any, d: int, half_steps: int) -> float:
    """Multiplications and additions of a fit of that many half-steps, to leading order; d inputs and outputs."""
    rounds = max(1, half_steps / 2)
    if name == "SpaRTA":  # a Cholesky factorisation for every output
        return d * (family.density * d) ** 3 / 3
    if name == "VeRA":  # P and Q, then products with B
        r = family.rank
        return 4.0 * r * d * d + rounds * (3 * d * r * r + r**3 + 12 * 2 * d * r * r)
    if name == "LoRA":  # Cholesky factorisation, triangular solve, products
        return d**3 / 3 + 3.0 * d**3
    if name == "RandLoRA":  # an exact solve for λ and the steps that move λ and γ
        K = -(-d // family.rank) * family.rank
        return rounds * (1 + family.steps / 2) * 2 * K * d * (K + d)
    k, bases, r = family.a_size, family.b_size, family.rank  # NOLA: b's normal equations, and steps that move both
    return rounds * (bases * bases * r * d + 12 * (4 * r * d * (k + bases) + 6 * r * d * d))


def measured(name: str, family: Family, path: Path, features: int) -> dict[str, Any]:
    """One fit for its time, and one round of it in another process for its memory: later rounds need no more."""
    held = LayerStatistics.load(path)
    began = time.perf_counter()
    result = fit(held, family)
    seconds = time.perf_counter() - began
    half_steps = len(result.history) - 1
    setup = (
        "from rpcls.adapters import *\n"
        f"held = LayerStatistics.load({str(path)!r}); held.C; held.R\n"
        f"fit(LayerStatistics.from_delta(__import__('numpy').eye(8)), LoRA(1))"
    )
    peak = peak_bytes(setup, f"fit(held, {family!r}, max_iterations=1)")
    return {
        "family": repr(family),
        "seconds": seconds,
        "peak_bytes": peak,
        "half_steps": half_steps,
        "converged": result.converged,
        "explained": result.explained,
        "parameters": result.parameters,
        "flops": flops(name, family, features, half_steps),
        "dense_bytes": 8 * result.parameters * features**2,
    }


def report(data: dict[str, Any]) -> str:
    rows = []
    for name, one in data["fits"].items():
        wanted = MOST_SECONDS.get(name, 60)
        met = one["seconds"] <= wanted and one["peak_bytes"] <= MOST_BYTES
        rows.append([
            one["family"], f"{one['parameters']:,}", f"{one['seconds']:.1f} s",
            f"≤ {wanted} s, {'met' if met else '**not met**'}", f"{one['peak_bytes'] / 1e9:.2f} GB",
            f"{one['half_steps']}{'' if one['converged'] else ', not converged'}", f"{one['explained']:.3f}",
            f"{float(format(one['flops'] / 1e9, '.3g')):,g}", f"{one['flops'] / 1e9 / one['seconds']:.2g}",
            f"{one['dense_bytes'] / 1e12:,.3g} TB",
        ])  # fmt: skip
    header = [
        "family", "parameters", "time", "wanted", "peak memory", "half-steps", "explained", "Gflop", "Gflop/s",
        "dense design matrix",
    ]  # fmt: skip
    n = data["features"]
    return (
        f"A layer of {n} × {n}, from statistics, which took {data['statistics_seconds']:.0f} s to collect and "
        f"hold {2 * 8 * n * n / 1e6:.0f} MB.\n\n{table(header, rows)}\n\n"
        "Peak memory is that of one round, above the statistics. Gflop counts the leading terms of "
        "the algorithm, over the whole time. The dense design matrix is what least squares on vec(dW) would be given."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} × {QUICK}, into a temporary folder")
    quick = parser.parse_args().quick
    features = QUICK if quick else FEATURES
    warnings.simplefilter("ignore", ConvergenceWarning)  # the table says so
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer.npz"
        began = time.perf_counter()
        held = statistics(features)
        collected = time.perf_counter() - began
        held.save(path)
        del held
        fits = {}
        for name, family in families(features).items():
            fits[name] = one = measured(name, family, path, features)
            print(
                f"{family!r}: {one['seconds']:.1f} s, {one['peak_bytes'] / 1e9:.2f} GB, {one['explained']:.3f}",
                flush=True,
            )
    data = {"features": features, "statistics_seconds": collected, "fits": fits}
    into = Path(tempfile.mkdtemp()) if quick else RESULTS
    write("adapters", COMMAND, "Adapters of one large layer", data, report(data), into)


if __name__ == "__main__":
    main()
