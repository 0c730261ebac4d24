"""Plans: a pure function of what they are asked and of a table of rates; the table, its file, and what both refuse."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rpcls
from rpcls import rates
from rpcls.errors import FormatError, InvalidTypeError, InvalidValueError
from rpcls.planning import NORMAL_CONDITION, SINGLE_CONDITION, plan, precondition_plan
from rpcls.rates import COMMITTED, Rates, from_json, rates_path, to_json

SHAPES = [(1_000_000, 16), (1_000_000, 64), (500_000, 256), (100_000, 1000), (20_000, 100)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """No table but the committed one, whatever the machine has; where another would be."""
    path = tmp_path / "rates.json"
    monkeypatch.setenv("RPCLS_RATES", str(path))
    rates.rates.cache_clear()
    yield path
    rates.rates.cache_clear()


def by_name(found: rpcls.Plan) -> dict[tuple[str, str | None], rpcls.PlannedSolver]:
    return {(way.solver, way.route): way for way in found.ways}


def use(table: Rates, place: Path) -> None:
    place.write_text(to_json(table), encoding="utf-8")
    rates.rates.cache_clear()


# -- a pure function ------------------------------------------------------------------------------------------------


@every_shape
@pytest.mark.parametrize("rtol", [None, 1e-3])
def test_the_same_call_makes_the_same_plan(shape: Any, rtol: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    found = plan(shape, rtol=rtol, condition=100.0)
    for threads in ("1", "7"):
        monkeypatch.setenv("RPCLS_NUM_THREADS", threads)
        rates.rates.cache_clear()
        assert plan(shape, rtol=rtol, condition=100.0) == found and str(plan(shape, rtol=rtol, condition=100.0)) == str(
            found
        )
    assert plan((np.int64(shape[0]), np.int64(shape[1])), rtol=rtol, condition=100.0).ways == found.ways


@every_shape
def test_ways_are_in_order_and_the_first_is_taken(shape: Any) -> None:
    found = plan(shape, condition=10.0)
    assert [way.seconds for way in found.ways] == sorted(way.seconds for way in found.ways)
    assert found.choice is found.ways[0] and found.shape == shape
    assert set(by_name(found)) == {("direct", None), ("precondition", "gram"), ("precondition", "cg"), ("normal", None)}


def test_costs_are_the_documented_sums() -> None:
    m, n = 1_000_000, 64
    ways = by_name(plan((m, n), condition=10.0))
    sweep = COMMITTED.read * m * n * 8 + COMMITTED.sweep + 4 * n**2 * 1e-9
    normal = m * n * (n + 2) * COMMITTED.at("blas3", n) + sweep
    assert ways["normal", None].seconds == pytest.approx(normal) and ways["normal", None].sweeps == 2
    direct = 2 * m * n * (n + 2) * COMMITTED.at("direct", n) + 3 * COMMITTED.read * m * n * 8
    assert ways["direct", None].seconds == pytest.approx(direct) and ways["direct", None].sweeps == 1
    factor = (2 * 256 * n**2 + 3 * n**3) * COMMITTED.at("factor", n)
    compress = COMMITTED.compress * 8 * n * (m + 8 * 256) + factor + COMMITTED.sweep
    gram = compress + 2 * m * n * (n + 1) * COMMITTED.at("blas3", n) + sweep
    assert ways["precondition", "gram"].seconds == pytest.approx(gram)
    assert ways["precondition", "gram"].sketch_size == 256 and ways["precondition", "gram"].sweeps == 3
    cg = ways["precondition", "cg"]
    assert cg.sketch_size is not None and cg.sketch_size % n == 0
    factor = (2 * cg.sketch_size * n**2 + 3 * n**3) * COMMITTED.at("factor", n)
    growth = 1 + 0.2 * max(0.0, np.log2(cg.sketch_size / 1000))
    compress = COMMITTED.compress * 8 * n * (m * growth + 8 * cg.sketch_size) + factor + COMMITTED.sweep
    assert cg.seconds == pytest.approx(compress + (cg.sweeps - 1) * sweep)


def test_a_sweep_of_sparse_rows_costs_by_the_entry() -> None:
    shape, nnz = (1_000_000, 500), 3_000_000
    found = by_name(plan(shape, nnz=nnz, condition=1.0))
    assert set(found) == {("precondition", "cg"), ("normal", None)}  # LAPACK and BLAS 3 would fill in what is zero
    twice = by_name(plan(shape, nnz=2 * nnz, condition=1.0))
    assert all(found[name].seconds < twice[name].seconds for name in found)
    gram = COMMITTED.entry * nnz * (1 + 3) + 500**3 / 3 * 1e-10
    sweep = COMMITTED.entry * nnz + COMMITTED.sweep + 4 * 500**2 * 1e-9
    assert found["normal", None].seconds == pytest.approx(gram + sweep)


# -- what enters, and which way --------------------------------------------------------------------------------------


@every_shape
def test_more_of_anything_costs_more(shape: Any) -> None:
    m, n = shape
    base = by_name(plan(shape, condition=10.0))
    for dearer in (
        plan((2 * m, n), condition=10.0),
        plan((m, n + 1), condition=10.0),
        plan(shape, condition=10.0, n_rhs=9),
    ):
        found = by_name(dearer)
        assert all(found[name].seconds > base[name].seconds for name in base)
    half = by_name(plan(shape, dtype=np.float32, condition=10.0))
    assert all(half[name].seconds <= base[name].seconds for name in base)
    assert half["precondition", "cg"].seconds < base["precondition", "cg"].seconds


@every_shape
def test_more_digits_cost_more_sweeps(shape: Any) -> None:
    found = [by_name(plan(shape, rtol=rtol))["precondition", "cg"] for rtol in (0.5, 1e-1, 1e-2, 1e-4, 1e-8)]
    found.append(by_name(plan(shape))["precondition", "cg"])
    for looser, tighter in itertools.pairwise(found):
        assert looser.seconds <= tighter.seconds
    assert found[0].sweeps < found[-1].sweeps and found[0].seconds < found[-1].seconds


def test_products_in_float32_save_two_fifths_of_the_gram_matrix_and_cost_four_more_sweeps() -> None:
    m, n = 100_000, 1000
    iteration = COMMITTED.read * m * n * 8 + COMMITTED.sweep + 4 * n**2 * 1e-9
    gram = m * n * (n + 2) * COMMITTED.at("blas3", n)
    for sweeps, seconds, asked in (
        (6, 0.6 * gram + 5 * iteration, {"condition": SINGLE_CONDITION}),
        (2, gram + iteration, {"condition": 1.01 * SINGLE_CONDITION}),
    ):
        way = by_name(plan((m, n), **asked))["normal", None]
        assert way.sweeps == sweeps and way.seconds == pytest.approx(seconds)
    for shape, more in (((m, 499), {}), ((m, n), {"n_rhs": 5}), ((m, n), {"device": "cuda"})):
        assert by_name(plan(shape, condition=10.0, **more))["normal", None].sweeps == 2


def test_the_normal_equations_only_up_to_their_condition_number() -> None:
    for condition, safe in ((None, False), (1.0, True), (NORMAL_CONDITION, True), (1.01 * NORMAL_CONDITION, False)):
        assert (("normal", None) in by_name(plan((100_000, 50), condition=condition))) == safe


@pytest.mark.parametrize("rows", [0, 10, 128])
def test_too_few_rows_for_a_sketch(rows: int) -> None:
    found = plan((rows, 10), condition=1.0)
    assert [way.solver for way in found.ways] == ["direct"] and precondition_plan((rows, 10), "auto", None) is None
    assert len(plan((129, 10), condition=1.0).ways) == 4


def test_a_sketch_is_never_most_of_the_rows() -> None:
    for m in (300, 1000, 5000):
        for n in (5, 20, 30):
            for way in plan((m, n)).ways:
                assert way.sketch_size is None or way.sketch_size <= m / 2


def test_unknown_rows_are_taken_for_many() -> None:
    assert plan((None, 64)).ways == plan((1_000_000, 64)).ways
    assert str(plan((None, 64))).startswith("? × 64, full accuracy, device cpu\n")


def test_the_plan_for_preconditioning() -> None:
    shape = (1_000_000, 64)
    ways = by_name(plan(shape, rtol=1e-3))
    assert precondition_plan(shape, "gram", 1e-3) == ways["precondition", "gram"]
    for route in ("auto", "cg"):  # "gram" always gives all digits, so it is not for rtol
        assert precondition_plan(shape, route, 1e-3) == ways["precondition", "cg"]
    ways = by_name(plan(shape))
    best = min((ways["precondition", route] for route in ("gram", "cg")), key=lambda way: way.seconds)
    assert precondition_plan(shape, "auto", None) == best


# -- on a card -------------------------------------------------------------------------------------------------------


def test_a_card_has_rates_of_its_own(place: Path) -> None:
    shape = (1_000_000, 1000)
    here, there = plan(shape), plan(shape, device="cuda")
    assert here.choice.route == "cg" and there.choice.route == "gram"  # products of matrices are cheap there
    assert plan(shape, device="cpu") == here and there.device == "cuda"
    assert str(there).startswith("1000000 × 1000, full accuracy, device cuda\n")
    use(replace(COMMITTED, read=1e-3), place)
    assert plan(shape, device="cuda") == there != plan(shape)
    assert precondition_plan(shape, "auto", None, device="cuda") == there.choice


@pytest.mark.parametrize("nnz", [None, 3_000_000])
def test_rows_that_are_copied_to_the_card_cost_their_copy_for_every_sweep(nnz: int | None) -> None:
    shape = (1_000_000, 256)
    held, copied = (
        by_name(plan(shape, device="cuda", nnz=nnz, condition=10.0, from_host=host)) for host in (False, True)
    )
    size = 8 * 256_000_000 if nnz is None else 12 * nnz
    assert set(held) == set(copied)
    for name, way in copied.items():
        assert way.seconds == pytest.approx(held[name].seconds + way.sweeps * rates.COPY * size)


# -- as text ---------------------------------------------------------------------------------------------------------


def test_every_column_is_printed() -> None:
    found = plan((100_000, 50), rtol=1e-2, condition=10.0)
    title, head, *lines = str(found).splitlines()
    assert title == "100000 × 50, rtol = 0.01, device cpu" and head.split() == [
        "solver",
        "route",
        "sketch_size",
        "sweeps",
        "seconds",
    ]
    assert len(lines) == len(found.ways) == 4
    for way, line in zip(found.ways, lines, strict=True):
        cells = (line[:14], line[14:21], line[21:33], line[33:41], line[41:])
        size = "" if way.sketch_size is None else str(way.sketch_size)
        expected = [way.solver, way.route or "", size, str(way.sweeps), f"{way.seconds:.3g}"]
        assert [cell.strip() for cell in cells] == expected


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "options", "error", "message"),
    [
        ((100, 0), {}, InvalidValueError, "n must be at least 1, got 0"),
        ((-1, 5), {}, InvalidValueError, "m must be at least 0, got -1"),
        ((100, 5.0), {}, InvalidTypeError, r"n must be an int, got float 5\.0"),
        ((True, 5), {}, InvalidTypeError, "m must be an int, got bool True"),
        ((100, 5), {"n_rhs": 0}, InvalidValueError, "n_rhs must be at least 1, got 0"),
        ((100, 5), {"nnz": -3}, InvalidValueError, "nnz must be at least 0, got -3"),
        ((100, 5), {"nnz": 2.5}, InvalidTypeError, r"nnz must be an int, got float 2\.5"),
        ((100, 5), {"rtol": 0}, InvalidValueError, r"rtol must be in \(0, 1\), got 0"),
        ((100, 5), {"rtol": "1e-3"}, InvalidTypeError, "rtol must be a float, got str '1e-3'"),
        ((100, 5), {"condition": 0.5}, InvalidValueError, r"condition must be at least 1, got 0\.5"),
        ((100, 5), {"condition": float("nan")}, InvalidValueError, "condition must be at least 1, got nan"),
        ((100, 5), {"condition": "10"}, InvalidTypeError, "condition must be a float, got str '10'"),
        ((100, 5), {"dtype": np.float16}, InvalidTypeError, "dtype must be float32 or float64, got float16"),
        ((100, 5), {"dtype": "complex"}, InvalidTypeError, "dtype must be float32 or float64, got complex128"),
        ((100, 5), {"device": "gpu"}, InvalidValueError, "device must be None, 'cpu' or 'cuda', got 'gpu'"),
        ((100, 5), {"from_host": True}, InvalidValueError, "from_host is for device='cuda', .*, got device=None"),
        ((100,), {}, InvalidValueError, r"shape must be \(m, n\), got \(100,\)"),
        (100, {}, InvalidValueError, r"shape must be \(m, n\), got 100"),
    ],
)
def test_arguments_that_make_no_plan(shape: Any, options: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        plan(shape, **options)


# -- rates -----------------------------------------------------------------------------------------------------------


def test_rates_between_columns() -> None:
    for name in ("blas3", "factor", "direct"):
        table = getattr(COMMITTED, name)
        for n, rate in table:
            assert COMMITTED.at(name, n) == pytest.approx(rate, rel=1e-12)
        assert COMMITTED.at(name, 1) == table[0][1] and COMMITTED.at(name, 10**6) == table[-1][1]
        for (n0, r0), (n1, r1) in itertools.pairwise(table):
            assert COMMITTED.at(name, round((n0 * n1) ** 0.5)) == pytest.approx((r0 * r1) ** 0.5, rel=0.02)


def test_every_rate_matters(place: Path) -> None:
    """Twice the seconds of one kind of work make some plan dearer and none cheaper."""

    def asked() -> list[float]:
        dense = plan((200_000, 128), condition=10.0)
        sparse = plan((200_000, 128), nnz=600_000, condition=10.0)
        return [way.seconds for found in (dense, sparse) for way in by_name(found).values()]

    def dearer(value: Any) -> Any:
        return tuple((n, 2 * rate) for n, rate in value) if isinstance(value, tuple) else 2 * value

    before = sum(asked())
    for field in fields(Rates):
        use(replace(COMMITTED, **{field.name: dearer(getattr(COMMITTED, field.name))}), place)
        assert before < sum(asked()) < 2.01 * before, field.name
    use(Rates(**{field.name: dearer(getattr(COMMITTED, field.name)) for field in fields(Rates)}), place)
    assert sum(asked()) == pytest.approx(2 * before, rel=0.01)  # but for a few constants


def test_a_users_rates_change_plans_and_only_they(place: Path) -> None:
    shape = (1_000_000, 16)
    before = plan(shape)
    assert rates.rates() is COMMITTED
    slow = replace(
        COMMITTED,
        blas3=tuple((n, 100 * rate) for n, rate in COMMITTED.blas3),
        direct=tuple((n, 100 * rate) for n, rate in COMMITTED.direct),
    )
    use(slow, place)
    assert rates.rates() == slow and before.choice.route == "gram" and plan(shape).choice.route == "cg"
    place.unlink()
    rates.rates.cache_clear()
    assert plan(shape) == before


def test_the_table_is_read_once_a_process(place: Path) -> None:
    first = rates.rates()
    place.write_text(to_json(replace(COMMITTED, read=1.0)), encoding="utf-8")
    assert rates.rates() is first


def test_where_the_table_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RPCLS_RATES", str(tmp_path / "mine"))
    assert rates_path() == tmp_path / "mine"
    monkeypatch.delenv("RPCLS_RATES")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert rates_path() == tmp_path / "rpcls" / "rates.json"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert rates_path() == tmp_path / ".config" / "rpcls" / "rates.json"


def test_json_and_back() -> None:
    assert from_json(to_json(COMMITTED)) == COMMITTED
    assert json.loads(to_json(COMMITTED))["rpcls rates"] == 1


def _edited(**entries: Any) -> str:
    return json.dumps({**json.loads(to_json(COMMITTED)), **entries})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "JSONDecodeError"),
        (to_json(COMMITTED)[:-20], "JSONDecodeError"),
        ("[1, 2]", 'no "rpcls rates": 1'),
        ("{}", 'no "rpcls rates": 1'),
        (_edited(**{"rpcls rates": 2}), 'no "rpcls rates": 1'),
        (_edited(read=0), "read must be a positive number, got 0"),
        (_edited(read=float("inf")), "read must be a positive number, got inf"),
        (_edited(read=True), "read must be a positive number, got True"),
        (_edited(read=[[16, 1e-10]]), "read must be a positive number"),
        (_edited(blas3=[]), r"blas3 must have growing numbers of columns, got \[\]"),
        (_edited(blas3=1e-10), r"blas3 must be a list of \[columns, rate\]"),
        (_edited(blas3=[[64, 1e-10], [16, 1e-10]]), r"growing numbers of columns, got \[64, 16\]"),
        (_edited(blas3=[[16, -1.0]]), r"blas3 must be a positive number, got -1\.0"),
        (_edited(blas3=[16]), r"blas3 must be a list of \[columns, rate\], got \[16\]"),
        (_edited(speed=1.0), r"unknown entries \['speed'\]"),
        (json.dumps({"rpcls rates": 1, "read": 1.0}), "KeyError: 'compress'"),
    ],
)
def test_a_broken_table(place: Path, text: str, reason: str) -> None:
    place.write_text(text, encoding="utf-8")
    message = (
        rf"the table of machine rates .*rates\.json must be what .*{reason}.*; delete it, or call rpcls\.calibrate"
    )
    for _ in range(2):  # an error is not kept
        with pytest.raises(FormatError, match=message):
            plan((1000, 5))


def test_a_folder_is_no_table(place: Path) -> None:
    place.mkdir()
    with pytest.raises(FormatError, match=r"rates\.json must be what rpcls\.calibrate\(\) writes.*delete it"):
        rpcls.lstsq(np.eye(300, 2), np.ones(300))
