"""calibrate: every rate is measured, the file holds what is returned, plans use it, and nothing is left half-done."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rpcls
from rpcls import calibration, cli, rates
from rpcls.errors import FormatError, InvalidValueError
from rpcls.rates import COMMITTED, Rates, from_json, to_json


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Few bytes, few columns, no time; and a folder, not there yet, for the table."""
    monkeypatch.setattr(calibration, "_COLUMNS", (4, 8, 10))
    monkeypatch.setattr(calibration, "_BYTES", 1 << 14)
    monkeypatch.setattr(calibration, "_SWEPT_BYTES", 1 << 14)
    monkeypatch.setattr(calibration, "_SKETCH_ROWS", 16)
    for name in ("_SECONDS", "_PAUSE"):
        monkeypatch.setattr(calibration, name, 0.0)
    path = tmp_path / "rpcls" / "rates.json"
    monkeypatch.setenv("RPCLS_RATES", str(path))
    rates.rates.cache_clear()
    yield path
    rates.rates.cache_clear()


def test_what_is_returned_is_written_and_used(place: Path) -> None:
    assert rates.rates() is COMMITTED and not place.parent.exists()
    found = rpcls.calibrate()
    assert isinstance(found, Rates) and found != COMMITTED
    assert from_json(place.read_text(encoding="utf-8")) == found == rates.rates()
    assert [path.name for path in place.parent.iterdir()] == ["rates.json"]
    assert rpcls.plan((100_000, 50)) == rpcls.plan((100_000, 50))
    seconds = 2 * 100_000 * 50 * 52 * found.at("direct", 50) + 3 * found.read * 100_000 * 50 * 8
    direct = next(way for way in rpcls.plan((100_000, 50)).ways if way.solver == "direct")
    assert direct.seconds == pytest.approx(seconds)


def test_every_rate_is_measured() -> None:
    found = rpcls.calibrate()
    for field in fields(Rates):
        value = getattr(found, field.name)
        if isinstance(value, tuple):
            assert tuple(n for n, _ in value) == (4, 8, 10)
            value = [rate for _, rate in value]
        assert all(math.isfinite(rate) and rate > 0 for rate in np.atleast_1d(value)), field.name


def test_rates_are_seconds_by_amount_of_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that says one second for everything, each rate is one over the work that its name promises."""
    monkeypatch.setattr(calibration, "_seconds", lambda job, prepare=lambda: None: (job(prepare()), 1.0)[1])
    found = rpcls.calibrate()
    for position, n in enumerate((4, 8, 10)):
        m = (1 << 14) // (8 * n)
        assert found.blas3[position] == (n, pytest.approx(1 / (2 * m * n * (n + 1))))
        assert found.direct[position] == (n, pytest.approx(1 / (2 * m * n**2)))
        assert found.factor[position] == (n, pytest.approx(1 / (2 * max(4 * n, 16) * n**2)))
    assert found.compress == pytest.approx(1 / ((1 << 14) // 64 * 64)) and found.sweep == 1
    assert found.read == pytest.approx(found.compress / calibration._IN_A_ROW)
    assert found.entry == found.compress_entry == pytest.approx(1 / ((1 << 14) // 80 * 5))


def test_the_median_leaves_out_preparation_and_the_first_run(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, runs = [0.0], []
    monkeypatch.setattr(calibration.time, "perf_counter", lambda: clock[0])

    def prepare() -> int:
        clock[0] += 100
        return len(runs)

    def job(given: int) -> None:
        runs.append(given)
        clock[0] += (50.0, 3.0, 1.0, 2.0)[given]

    assert calibration._seconds(job, prepare) == 2.0 and runs == [0, 1, 2, 3]


def test_the_clock_is_given_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(calibration, "_SECONDS", 10.0)
    monkeypatch.setattr(calibration.time, "perf_counter", lambda: clock[0])
    runs = []

    def job(_: Any) -> None:
        runs.append(1)
        clock[0] += 1

    assert calibration._seconds(job) == 1.0 and len(runs) == 11


def test_an_older_table_is_replaced_and_a_broken_one_too(place: Path) -> None:
    place.parent.mkdir()
    place.write_text("{", encoding="utf-8")
    with pytest.raises(FormatError, match=r"rates\.json must be what rpcls\.calibrate\(\) writes.*calibrate\(\) again"):
        rpcls.plan((1000, 5))
    first = rpcls.calibrate()
    assert rates.rates() == first
    second = rpcls.calibrate()
    assert rates.rates() == second and from_json(place.read_text(encoding="utf-8")) == second


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_calibration_changes_nothing(place: Path, monkeypatch: pytest.MonkeyPatch, error: type) -> None:
    place.parent.mkdir()
    place.write_text(to_json(COMMITTED), encoding="utf-8")

    def stopped(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(calibration, "_by_entries", stopped)
    with pytest.raises(error):
        rpcls.calibrate()
    assert place.read_text(encoding="utf-8") == to_json(COMMITTED)
    assert [path.name for path in place.parent.iterdir()] == ["rates.json"]


def test_a_failing_rename_leaves_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise PermissionError("locked by another program")

    monkeypatch.setattr(calibration.os, "replace", refused)
    with pytest.raises(PermissionError, match="locked by another program"):
        rpcls.calibrate()
    assert list(place.parent.iterdir()) == []


def test_a_place_that_cannot_be_written_is_found_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("kept", encoding="utf-8")
    monkeypatch.setenv("RPCLS_RATES", str(tmp_path / "file" / "rates.json"))
    monkeypatch.setattr(calibration, "_measured", lambda: pytest.fail("measured for nothing"))
    message = (
        r"must go to a file that can be written, .*file.rates\.json cannot \(.*\); let the environment variable RPCLS"
    )
    with pytest.raises(InvalidValueError, match=message):
        rpcls.calibrate()
    assert (tmp_path / "file").read_text(encoding="utf-8") == "kept"


def test_the_command_prints_the_rates_and_where_they_are(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["calibrate"]) == 0
    table, _, where = capsys.readouterr().out.rstrip("\n").rpartition("\n")
    assert where == str(place) and from_json(table) == rates.rates() and json.loads(table)["rpcls rates"] == 1


def test_the_command_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RPCLS_RATES", str(tmp_path / "file" / "rates.json"))
    assert cli.main(["calibrate"]) == 2
    assert capsys.readouterr().err.startswith("rpcls: error: the table of machine rates must go to a file that can be")
