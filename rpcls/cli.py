"""The command line: ``rpcls study``, ``rpcls adapters``, ``rpcls calibrate``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InvalidValueError, RpclsError

if TYPE_CHECKING:
    import numpy as np

    from .study import StudyTable

__all__ = ["main"]

_FAILED, _WRONG_INPUT, _INTERRUPTED = 1, 2, 130
_STUDY = """Measure the error and the time of least squares, from one sketch to full accuracy, beside LAPACK, the normal
equations and SciPy's Clarkson-Woodruff transform, and write a report. Without --data: two photographs that scikit-learn
ships, with a signal-rich and a noisy target."""
_CALIBRATE = """Measure for about a minute how fast this machine reads, sketches and factorises, and let rpcls.lstsq and
rpcls.plan choose by that from now on, instead of by the table that comes with rpcls. Let nothing else run meanwhile."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; None: those of the process.

    Returns
    -------
    int
        Exit code: 0; 1 if every run failed; 2 for wrong input; 130 after Ctrl-C.
    """
    options = _parser().parse_args(argv)
    try:
        run = {"study": _study, "adapters": _adapters, "calibrate": _calibrate}[options.command]
        return run(options)
    except (RpclsError, OSError, MemoryError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        print(f"rpcls: error: {text}", file=sys.stderr)
        return _WRONG_INPUT
    except KeyboardInterrupt:
        print("rpcls: interrupted before anything was finished", file=sys.stderr)
        return _INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    from . import __version__
    from .adapters.command import add_parser

    parser = argparse.ArgumentParser(
        prog="rpcls", description="Tall least squares in as few looks at the rows as possible."
    )
    parser.add_argument("--version", action="version", version=f"rpcls {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    study = commands.add_parser("study", help="an error-time trade-off study", description=_STUDY)
    add = study.add_argument
    add("--data", metavar="FILE", help="own data: .npz, .npy, .csv or .parquet")
    add("--target", metavar="NAME", help="what to predict: a column (.csv, .parquet), column number (.npy, default the "
        "last), array (.npz, default b); without --data: pixel or detail, default both")  # fmt: skip
    add("--intercept", action="store_true", help="append a column of ones to own data")
    add("--solvers", metavar="LIST", help='names or expressions, such as "full,RobustPartiallyCompressed(rho=0.1)"')
    add("--sketches", metavar="LIST", help='such as "SparseSign(8),CountSketch()"')
    add("--sketch-sizes", metavar="LIST", help="multiples of the number of columns, default 1.2,2,4,10")
    add("--repeats", metavar="N", type=int, default=None, help="draws of every sketch, default 3")
    add("--rng", metavar="SEED", type=int, default=0, help="first seed, default 0")
    add("--rows", metavar="N", type=int, help="use N rows drawn at random: a quick look")
    add("--no-memory", action="store_true", help="leave out the peak memory, which runs every method once more")
    add(
        "--device", choices=("cpu", "cuda"), default=None, help="cuda: the rows on an NVIDIA card; leaves out baselines"
    )
    add("--output", metavar="DIR", default="rpcls-study", help="folder for the results, default rpcls-study")
    add_parser(commands)
    commands.add_parser("calibrate", help="rates of this machine, for plans", description=_CALIBRATE)
    return parser


def _calibrate(options: argparse.Namespace) -> int:
    from .calibration import calibrate
    from .rates import rates_path, to_json

    print(to_json(calibrate()) + str(rates_path()))
    return 0


def _adapters(options: argparse.Namespace) -> int:
    from .adapters.command import run

    print(run(options))
    return 0


def _study(options: argparse.Namespace) -> int:
    from . import study
    from .study.figures import require_matplotlib
    from .study.methods import named_sketches, named_solvers

    require_matplotlib("rpcls study")  # before minutes of work
    asked: dict[str, Any] = {"rng": options.rng, "memory": not options.no_memory, "device": options.device}
    if options.solvers is not None:
        asked["solvers"] = _listed(options.solvers)
        named_solvers(asked["solvers"])
    if options.sketches is not None:
        asked["sketches"] = _listed(options.sketches)
        named_sketches(asked["sketches"])
    if options.sketch_sizes is not None:
        asked["sketch_sizes"] = _numbers(options.sketch_sizes)
    if options.repeats is not None:
        asked["repeats"] = options.repeats
    if options.rng < 0:
        raise InvalidValueError(f"--rng must be at least 0, got {options.rng}")
    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)

    A, targets, descriptions = _problem(options)
    table = study.run(A, targets, descriptions=descriptions, **asked)
    if not len(table):
        raise KeyboardInterrupt
    written = _write(table, folder)
    print(f"{table}\n\n" + "\n".join(str(path) for path in written))
    if table.interrupted:
        return _INTERRUPTED
    return _FAILED if len(table.failures) == len(table) else 0


def _problem(options: argparse.Namespace) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, str]]:
    """A, its targets by name, and a sentence about each."""
    from . import datasets
    from .study import files

    if options.data is None:
        if options.intercept:
            raise InvalidValueError("--intercept is for own data; the photographs have a constant column already")
        if sys.stderr.isatty():
            print("Cutting two photographs into patches …", file=sys.stderr)
        first = datasets.photo_patches(target=options.target or "pixel")
        targets, descriptions = {first.target: first.b}, {first.target: first.description}
        if options.target is None:
            targets["detail"] = datasets.photo_target("detail")
            descriptions["detail"] = (
                "The same A; the green value of the centre less the mean of its four neighbours: what the surroundings "
                "can hardly tell."
            )
    else:
        first = files.load(options.data, options.target)
        targets, descriptions = {first.target: first.b}, {first.target: first.description}
    A = first.A
    if options.rows is not None:
        chosen = files.some_rows(first, options.rows, options.rng)
        A, targets = A[chosen], {name: b[chosen] for name, b in targets.items()}
        descriptions = {name: f"{text} {len(chosen)} rows drawn at random." for name, text in descriptions.items()}
    return files.with_intercept(A) if options.intercept else A, targets, descriptions


def _write(table: StudyTable, folder: Path) -> list[Path]:
    csv, png, svg = folder / "results.csv", folder / "tradeoff.png", folder / "tradeoff.svg"
    table.to_csv(csv)
    for picture in (png, svg):
        table.plot(picture)
    return [table.report(folder / "report.html"), csv, png, svg]


def _listed(text: str) -> list[str]:
    """Split at commas outside parentheses and brackets."""
    items, depth = [""], 0
    for character in text:
        depth += (character in "([") - (character in ")]")
        if character == "," and depth == 0:
            items.append("")
        else:
            items[-1] += character
    return [item.strip() for item in items if item.strip()]


def _numbers(text: str) -> list[float]:
    try:
        return [float(item.strip().removesuffix("n")) for item in _listed(text)]
    except ValueError:
        raise InvalidValueError(f"--sketch-sizes must be numbers such as 1.2,2,4, got {text!r}") from None


if __name__ == "__main__":
    raise SystemExit(main())
