"""calibrate: measure the rates of this machine, from which later plans predict the cost of every solver."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from .errors import InvalidValueError
from .linalg import triangle, triangle_in_place
from .multipass.posed import factored
from .rates import TABLES, Rates, rates, rates_path, to_json
from .sketches import SparseSign
from .sources import source_of

__all__ = ["calibrate"]

_COLUMNS = (16, 64, 256, 1000)
_BYTES = 1 << 27  # of A: more than caches hold
_SWEPT_BYTES = 1 << 29  # where sweeps are timed: long enough that waking threads does not count
_SKETCH_ROWS = 1000  # more where columns need more
_ENTRIES = 5  # of a row of the sparse A
_SECONDS = 1.0  # for each rate
_IN_A_ROW = 5  # sweeps of which solvers make many, one after the other
_PAUSE = 0.1  # in which the threads of an earlier BLAS call stop spinning


def calibrate() -> Rates:
    """Measure the rates of this machine, in about a minute, and let plans of later processes rest on them.

    Without it every machine plans by the same committed table, so that the same call makes the same choice everywhere.
    With it `rpcls.plan`, and so ``rpcls.lstsq``, choose what is fastest here. Call it while nothing else runs. The
    command ``rpcls calibrate`` does so, and prints the rates and the name of the file.

    Returns
    -------
    Rates
        What was written, as JSON, to `rpcls.rates.rates_path()`: the file that RPCLS_RATES names, else
        rpcls/rates.json in the user's configuration (XDG_CONFIG_HOME or ~/.config; APPDATA on Windows). Delete it to
        return to the committed table. An older file is replaced only once all is measured and written. This process,
        too, plans by the new rates from here on.

    Raises
    ------
    InvalidValueError
        The file cannot be written; found out before anything is measured.

    Notes
    -----
    Medians of at least three runs on random data of 128 MiB, with the threads that sweeps and BLAS have by default.
    Memory 0.5 GiB.

    Examples
    --------
    >>> import rpcls
    >>> rates = rpcls.calibrate()  # doctest: +SKIP
    >>> rates.read  # seconds per byte of A in a sweep  # doctest: +SKIP
    3.5e-11
    """
    with _aside(rates_path()) as file:
        table = _measured()
        file.write(to_json(table))
    rates.cache_clear()
    return table


@contextmanager
def _aside(path: Path) -> Iterator[IO[str]]:
    """A file beside `path` that takes its place at the end, or leaves no trace."""
    aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(aside, "x", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise InvalidValueError(
            f"the table of machine rates must go to a file that can be written, {path} cannot ({error}); let the "
            "environment variable RPCLS_RATES name another"
        ) from error
    try:
        with file:
            yield file
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def _measured() -> Rates:
    rng = np.random.default_rng(0)
    tables = {n: _by_columns(n, rng) for n in _COLUMNS}
    found: dict[str, Any] = {name: tuple((n, tables[n][name]) for n in _COLUMNS) for name in TABLES}
    return Rates(**found, **_by_bytes(rng), **_by_entries(rng))


def _by_columns(n: int, rng: np.random.Generator) -> dict[str, float]:
    """Seconds per flop of BLAS 3 sweeps, of the factor of a sketch, and of the QR factorisation of all of A."""
    m = max(_BYTES // (8 * n), 4 * n)
    A = rng.standard_normal((m, n))
    source, R = source_of(A, A[:, 0].copy()), triangle(A[: 2 * n])
    found = {"blas3": _seconds(lambda _: source.gram(R)) / (2 * m * n * (n + 1))}
    found["direct"] = _seconds(triangle_in_place, lambda: np.array(A, order="F")) / (2 * m * n**2)
    SA = A[: max(4 * n, _SKETCH_ROWS)]
    found["factor"] = _seconds(lambda _: factored(SA, SA[:, :1], 0.0)) / (2 * len(SA) * n**2)
    return found


def _by_bytes(rng: np.random.Generator) -> dict[str, Any]:
    """Seconds per byte of sweeps over dense rows, and of a sweep over next to nothing."""
    n, S = _COLUMNS[-2], SparseSign().sample(_SKETCH_ROWS, rng=0)
    A = rng.standard_normal((max(_SWEPT_BYTES // (8 * n), n), n))
    source, few, x = source_of(A, A[:, 0].copy()), source_of(A[:n], A[:n, 0].copy()), np.ones(n)
    return {
        "read": _seconds(lambda _: [source.normal(x[:, None]) for _ in range(_IN_A_ROW)]) / (_IN_A_ROW * A.nbytes),
        "compress": _seconds(lambda _: source.compress(S)) / A.nbytes,
        "sweep": _seconds(lambda _: few.gradient(x)),
    }


def _by_entries(rng: np.random.Generator) -> dict[str, Any]:
    """Seconds per stored entry of sweeps over sparse rows with entries all over."""
    from scipy.sparse import csr_array

    m, n, each, S = max(_BYTES // (16 * _ENTRIES), 16), _COLUMNS[-1], _ENTRIES, SparseSign().sample(_SKETCH_ROWS, rng=0)
    columns = rng.integers(0, n // each, (m, each)) + np.arange(each) * (n // each)
    A = csr_array((rng.standard_normal(m * each), columns.ravel(), each * np.arange(m + 1)), shape=(m, n))
    source, x = source_of(A, rng.standard_normal(m)), np.ones(n)
    return {
        "entry": _seconds(lambda _: source.gradient(x)) / A.nnz,
        "compress_entry": _seconds(lambda _: source.compress(S)) / A.nnz,
    }


def _seconds(job: Callable[[Any], Any], prepare: Callable[[], Any] = lambda: None) -> float:
    """The median of what job(prepare()) takes, `prepare` left out, after one run that compiles and warms up."""
    job(prepare())
    taken: list[float] = []
    end = time.perf_counter() + _SECONDS
    while len(taken) < 3 or time.perf_counter() < end:
        given = prepare()
        time.sleep(_PAUSE)
        began = time.perf_counter()
        job(given)
        taken.append(time.perf_counter() - began)
    return float(np.median(taken))
