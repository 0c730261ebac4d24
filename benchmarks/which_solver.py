"""Which one-pass solver errs least, by signal-to-noise ratio, sketch size and where the signal lies.

    python benchmarks/which_solver.py

Synthetic problems of 20 000 × 100 with condition number 1000 (rpcls.datasets.synthetic), SparseSign(8), medians over
seven draws of the sketch. A minute or two. Errors only: nothing here is timed.
"""

from __future__ import annotations

import statistics
import warnings

import numpy as np
from harness import table, write
from threadpoolctl import threadpool_limits

import rpcls
import rpcls.datasets

M, N, CONDITION, DRAWS = 20_000, 100, 1e3, 7
SOLVERS = {
    "full": rpcls.FullyCompressed(),
    "partial": rpcls.PartiallyCompressed(),
    "robust-full": rpcls.RobustFullyCompressed(),
    "robust-partial": rpcls.RobustPartiallyCompressed(),
}
SIGNALS = ("large", "even", "small")
SNRS = (100.0, 10.0, 1.0, 0.1)
RATIOS = (1.2, 2.0, 4.0, 10.0)


def errors(data: rpcls.datasets.Dataset) -> dict[float, dict[str, float]]:
    """d/n → solver → median relative error."""
    fit = data.A @ data.x
    found: dict[float, dict[str, float]] = {}
    for ratio in RATIOS:
        draws: dict[str, list[float]] = {name: [] for name in SOLVERS}
        for seed in range(DRAWS):
            c = rpcls.compress(data.A, data.b, sketch_size=round(ratio * N), rng=seed)
            for name, solver in SOLVERS.items():
                draws[name].append(float(np.linalg.norm(data.A @ c.solve(solver).x - fit) / np.linalg.norm(fit)))
        found[ratio] = {name: statistics.median(values) for name, values in draws.items()}
    return found


def main() -> None:
    rows, all_errors = [], []
    for signal in SIGNALS:
        for snr in SNRS:
            data = rpcls.datasets.synthetic(M, N, condition=CONDITION, snr=snr, signal=signal, rng=0)
            found = errors(data)
            all_errors += [{"signal": signal, "snr": snr, "d/n": r, **e} for r, e in found.items()]
            cells = []
            for e in found.values():
                least = min(e.values())
                names = [name for name, value in e.items() if value <= 1.05 * least]
                cells.append(f"{' or '.join(names)} ({least:.2g})")
            rows.append([signal, f"{snr:g}", *cells])
    text = table(["signal in singular directions", "SNR", *(f"d = {r:g}n" for r in RATIOS)], rows)
    write(
        "which_solver",
        "python benchmarks/which_solver.py",
        "Which one-pass solver errs least",
        {"errors": all_errors},
        f"The least median error ‖A(x − x*)‖/‖Ax*‖ and the solvers within 5 % of it; {M} × {N}, condition "
        f"{CONDITION:g}, SparseSign(8), {DRAWS} draws.\n\n{text}",
    )


if __name__ == "__main__":
    with threadpool_limits(1), warnings.catch_warnings():  # tiny factorisations gain nothing from threads
        warnings.simplefilter("error")
        main()
