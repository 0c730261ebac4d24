"""Sketching the tokens of a layer: what the sweep costs, and what the fits lose on held-out tokens.

    python benchmarks/token_sketch.py [--quick]

writes token_sketch.json and token_sketch.md to benchmarks/results/, or with --quick to a temporary folder. The
activations are made up, with what is known of real ones: stable rank 3 or 7, condition number 2e4, tokens of very
different size. Three minutes and 2 GiB of memory.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from harness import RESULTS, in_turn, median, table, write

import rpcls
from rpcls.adapters import Family, LayerStatistics, LoRA, SpaRTA, VeRA, fit, token_sketch_size

COMMAND = "python benchmarks/token_sketch.py"
CONDITION = 2e4
NOISE = 0.2  # of the outputs' energy, which no update explains
STABLE_RANKS = (3.0, 7.0)
BATCHES = (2048, 8192, 32768)  # tokens
BATCH = BATCHES[1]
LARGE = 4096  # rows of a sketch for fits with many unknowns
SKETCHES: dict[str, rpcls.SketchFamily] = {"CountSketch": rpcls.CountSketch(), "SparseSign(8)": rpcls.SparseSign()}
DRAWS = 3  # of each sketch


def spectrum(features: int, stable_rank: float) -> np.ndarray:
    """Singular values j^-a·e^-cj from 1 to 1/CONDITION, with a such that their squares add up to the stable rank."""
    j = np.arange(1, features + 1)

    def values(a: float) -> np.ndarray:
        decay = math.log(CONDITION) - a * math.log(features)
        return j**-a * np.exp(-decay * (j - 1) / (features - 1))

    low, high = 0.0, 4.0
    for _ in range(60):
        a = (low + high) / 2
        low, high = (a, high) if np.sum(values(a) ** 2) > stable_rank else (low, a)
    return values(low)


class Layer:
    """Inputs and wanted outputs, float32: a generic update of the weights, and noise."""

    def __init__(self, features: int, stable_rank: float) -> None:
        self.rng = np.random.default_rng(0)
        V = np.linalg.qr(self.rng.standard_normal((features, features)))[0]
        self.basis = (spectrum(features, stable_rank)[:, None] * V.T).astype(np.float32)
        self.update = self.rng.standard_normal((features, features), dtype=np.float32)

        self.noise = math.sqrt(NOISE / (1 - NOISE) * float(np.mean(self._rows(BATCH)[1] ** 2)))

    def _rows(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """X and Z without noise."""
        normals = self.rng.standard_normal((count, len(self.basis)), dtype=np.float32)
        normals *= np.exp(0.5 * self.rng.standard_normal((count, 1), dtype=np.float32))
        X = normals @ self.basis
        return X, X @ self.update.T

    def tokens(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """X and Z of as many tokens."""
        X, Z = (np.empty((count, len(self.basis)), np.float32) for _ in range(2))
        for start in range(0, count, BATCH):
            here = slice(start, min(count, start + BATCH))
            X[here], Z[here] = self._rows(here.stop - start)
            Z[here] += np.float32(self.noise) * self.rng.standard_normal(Z[here].shape, dtype=np.float32)
        return X, Z


def collect(
    X: np.ndarray, Z: np.ndarray, batch: int = BATCH, dtype: type = np.float32, **settings: Any
) -> LayerStatistics:
    s = LayerStatistics(X.shape[1], Z.shape[1], **settings)
    for start in range(0, len(X), batch):
        here = slice(start, start + batch)
        s.update(X[here].astype(dtype, copy=False), Z[here].astype(dtype, copy=False))
    return s


def families(features: int) -> dict[str, tuple[Family, int]]:
    """Families, and how many unknowns count for the size: those for each output, four times that where two parts of a
    family are fitted in turn by few numbers."""
    rank, wide = max(2, features // 64), max(8, features // 4)
    share = 10 / features
    return {
        f"LoRA, rank {rank}": (LoRA(rank), 2 * rank),
        "SpaRTA, 10 entries a row": (SpaRTA(share, seed=1), 10),
        f"VeRA, rank {wide}": (VeRA(wide, seed=1), math.ceil(4 * (features + wide) / features)),
    }


def losses(features: int, tokens: int, stable_rank: float) -> list[dict[str, Any]]:
    """Explained energy on held-out tokens, by the exact statistics and by sketches of the size that the rule gives."""
    layer = Layer(features, stable_rank)
    X, Z = layer.tokens(tokens)
    held_out, exact = collect(*layer.tokens(max(2000, tokens // 10))), collect(X, Z)

    def explained(s: LayerStatistics, family: Family) -> float:
        return held_out.explained(fit(s, family, tol=1e-3).delta())

    found = []
    for name, (family, unknowns) in families(features).items():
        best = explained(exact, family)
        size = token_sketch_size(unknowns, best)
        settings: dict[str, Any] = {"sketch_size": size}
        lost = {
            label: [best - explained(collect(X, Z, sketch=S, rng=draw, **settings), family) for draw in range(DRAWS)]
            for label, S in SKETCHES.items()
        }
        wide = collect(X, Z, dtype=np.float64, sketch=SKETCHES["CountSketch"], rng=0, **settings)
        found.append(
            {
                "stable_rank": stable_rank,
                "family": name,
                "unknowns": unknowns,
                "explained": best,
                "sketch_size": size,
                "lost": lost,
                "lost_more_in_float32": lost["CountSketch"][0] - (best - explained(wide, family)),
            }
        )
        print(f"  stable rank {stable_rank:g}, {name}: {size} rows for {best:.3f}, lost {lost}", flush=True)
    return found


def times(features: int, tokens: int, sizes: list[int], repeats: int) -> dict[str, Any]:
    """Seconds from the tokens to C, R and ‖Z‖²: of all sizes, and of the smallest and a large one for other batches."""
    X, Z = Layer(features, 5.0).tokens(tokens)
    cases = [(size, BATCH) for size in sizes] + [(size, batch) for size in (sizes[0], LARGE) for batch in BATCHES]
    jobs: dict[str, Callable[[], Any]] = {"exact": lambda: collect(X, Z).objective()}
    for label, S in SKETCHES.items():
        for size, batch in cases:
            settings: dict[str, Any] = {"batch": batch, "sketch": S, "sketch_size": size, "rng": 0}
            jobs[key(label, size, batch)] = lambda s=settings: collect(X, Z, **s).objective()
    return in_turn(X, jobs, repeats, budget=2.0).as_data()


def key(label: str, size: int, batch: int) -> str:
    return f"{label}, {size} rows, batches of {batch}"


def render(data: dict[str, Any]) -> str:
    seconds = {name: median(taken) for name, taken in data["seconds"].items()}
    exact = seconds["exact"]
    rows = []
    for found in data["losses"]:
        for label, lost in found["lost"].items():
            share = seconds[key(label, found["sketch_size"], BATCH)] / exact
            met = "yes" if max(lost) <= 0.01 and share <= 0.1 else "no"
            rows.append(
                [
                    f"{found['stable_rank']:g}",
                    found["family"],
                    found["unknowns"],
                    f"{100 * found['explained']:.1f}",
                    f"{label}, {found['sketch_size']}",
                    ", ".join(f"{100 * value:.2f}" for value in lost),
                    f"{share:.3f}",
                    met,
                ]
            )
    columns = ["stable rank", "family", "d", "explained, %", "sketch, rows", "lost, points", "of the exact time", "met"]
    least = min(found["sketch_size"] for found in data["losses"])
    cells = [
        [f"{label}, {size} rows", *(f"{seconds[key(label, size, batch)] / exact:.3f}" for batch in BATCHES)]
        for label in SKETCHES
        for size in (least, LARGE)
    ]
    narrow = max(abs(found["lost_more_in_float32"]) for found in data["losses"])
    return f"""{data["tokens"]} tokens, {data["features"]} inputs and outputs, float32, condition number {CONDITION:g}; {100 * NOISE:g} % of the
outputs' energy is noise. Rows by `token_sketch_size(d, explained)`. Explained energy, and what is lost of it in {DRAWS}
draws, on held-out tokens; time from the tokens, in batches of {BATCH}, to C, R and ‖Z‖². Wanted: at most 1 point lost, in
at most 0.1 of the time.

{table(columns, rows)}

The exact statistics take {exact:.2f} s. Shares of that, by the tokens in a batch: a batch costs some passes over all
rows of the sketch beside one over its tokens.

{table(["sketch", *map(str, BATCHES)], cells)}

Sketching in float32, as the tokens come, changes the explained energy by at most {100 * narrow:.1g} points against
float64."""  # noqa: E501


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small layer and few tokens: does it still run?")
    quick = parser.parse_args().quick
    features, tokens = (128, 8000) if quick else (1024, 100_000)
    found = [row for stable_rank in STABLE_RANKS for row in losses(features, tokens, stable_rank)]
    sizes = sorted({row["sketch_size"] for row in found})
    data = {"features": features, "tokens": tokens, "losses": found, **times(features, tokens, sizes, 3)}
    folder = Path(tempfile.gettempdir()) / "rpcls-benchmarks" if quick else RESULTS
    write("token_sketch", COMMAND, "Sketching the tokens of a layer", data, render(data), folder)


if __name__ == "__main__":
    main()
