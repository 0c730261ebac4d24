"""A study on a card: the same errors, times that wait for the card, memory of its pool, baselines named as left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import rpcls
from rpcls import cli, study
from rpcls.datasets import synthetic
from rpcls.study import jobs
from rpcls.study.place import CardGauge, OnCard

SOLVERS = ["full", "robust-partial", "robust-partial-sweep", "precondition", "precondition-1e-2", "normal", "direct"]


@pytest.fixture(scope="module")
def data() -> Any:
    return synthetic(1500, 20, snr=10.0, rng=0)


def test_errors_are_those_of_the_host(xp: Any, data: Any) -> None:
    asked: dict[str, Any] = {"solvers": SOLVERS, "sketch_sizes": [2, 4], "repeats": 1, "progress": False}
    card = study.run(data.A, {"one": data.b, "two": data.b**2}, device="cuda", memory=True, **asked)
    host = study.run(data.A, {"one": data.b, "two": data.b**2}, baselines=[], memory=False, **asked)
    assert not card.failures and not card.interrupted and len(card) == len(host)
    for mine, theirs in zip(card, host, strict=True):
        assert (mine.solver, mine.sketch, mine.sketch_size, mine.status) == (
            theirs.solver, theirs.sketch, theirs.sketch_size, theirs.status,
        )  # fmt: skip
        if mine.solver == "precondition-1e-2":  # whose sketch the rates of the card make another
            assert mine.relative_error < 1e-2 and theirs.relative_error < 1e-2  # type: ignore[operator]
        else:
            assert mine.relative_error == pytest.approx(theirs.relative_error, rel=1e-6, abs=1e-13)
        assert mine.seconds is not None and mine.seconds > 0
    measured = [row for row in card if row.peak_mib is not None]
    assert {row.solver for row in measured} == set(SOLVERS) and all(row.peak_mib > 0 for row in measured)  # type: ignore
    assert card.settings["left out"].endswith("LAPACK gelsd: these need the rows in host memory")
    assert card.settings["baselines"] == "none" and card.settings["device"].startswith("cuda")
    assert card.machine["card"] and "one read of A" not in card.machine and "left out" not in host.settings


def test_times_end_when_the_card_is_done(stand_in: Any, data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(jobs.time, "perf_counter", lambda: order.append("clock") or float(len(order)))
    monkeypatch.setattr(stand_in.cuda.get_current_stream(), "synchronize", lambda: order.append("wait"))
    A, b = OnCard().put(data.A), OnCard().put(data.b)
    found = jobs.compress_once(A, b, rpcls.CountSketch(), 80, 0, None)
    assert order[-2:] == ["wait", "clock"]
    order.clear()
    outcome = jobs.run_front_door(rpcls.Direct(), A, b, None, None, None, None)
    assert order[-2:] == ["wait", "clock"] and isinstance(outcome.x, np.ndarray)
    order.clear()
    jobs.solve_once(rpcls.FullyCompressed(), *found)
    assert order[-1] == "clock" and ("wait" in order) == isinstance(found[0].SA, stand_in.ndarray)


def test_memory_that_cannot_be_told(stand_in: Any, data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gauge = CardGauge(OnCard().put(data.A), OnCard().put(data.b))
    assert gauge.measure(rpcls.FullyCompressed(), rpcls.SparseSign(8), 4, 0)[0] is None
    monkeypatch.setattr(stand_in.get_default_memory_pool(), "total_bytes", lambda: 0)
    told = gauge.measure(rpcls.Direct(), None, None, 0)
    assert told == (None, "CuPy's own memory pool is not in use")


def test_baselines_are_named_only_where_some_were_wanted(stand_in: Any) -> None:
    place = OnCard()
    assert place.baselines(()) == () and "left out" not in place.settings


def test_which_devices_there_are(data: Any) -> None:
    with pytest.raises(rpcls.InvalidValueError, match="device must be None, 'cpu' or 'cuda', got 'gpu'"):
        study.run(data.A, data.b, device="gpu")


def test_the_command_line(stand_in: Any, data: Any, tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    np.savez(tmp_path / "data.npz", A=data.A, b=data.b)
    options = ["--solvers", "normal,direct", "--repeats", "1", "--sketch-sizes", "4", "--device", "cuda"]
    code = cli.main(["study", "--data", str(tmp_path / "data.npz"), "--output", str(tmp_path / "out"), *options])
    assert code == 0 and "direct" in capsys.readouterr().out
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "a stand-in" in report and "these need the rows in host memory" in report
