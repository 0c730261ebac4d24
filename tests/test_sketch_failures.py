"""Where sketches fail: the distortion of an orthonormal basis, and the table of docs/sketches.md that shows it.

python -m pytest tests/test_sketch_failures.py -n 0 -s prints that table.
"""

from __future__ import annotations

import math
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import rpcls

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "sketches.md").read_text(encoding="utf-8")
M, N, DRAWS = 2000, 20, 50
KINDS = ("incoherent", "coherent")
RATIOS = (4, 40)  # d/n
FAMILIES: dict[str, Any] = {
    "`CountSketch()`": rpcls.CountSketch(),
    "`SparseSign(3)`": rpcls.SparseSign(3),
    "`SparseSign(8)`": rpcls.SparseSign(8),
    "`Gaussian()`": rpcls.Gaussian(),
    "`Rademacher()`": rpcls.Rademacher(),
    "`SRHT()`": rpcls.SRHT(),
    "`BlockSRHT(256)`": rpcls.BlockSRHT(256),  # eight blocks, and d beyond one of them
    "`RowSampling()`": rpcls.RowSampling(),
    "`RowSampling(replace=True)`": rpcls.RowSampling(replace=True),
    "`LeverageSampling()`": rpcls.LeverageSampling(),
}


@cache
def basis(kind: str) -> np.ndarray:
    """Q (M × N), QᵀQ = I: of a Gaussian matrix, or with nearly all of each column in a row of its own."""
    rng = np.random.default_rng(0)
    A = rng.standard_normal((M, N))
    if kind == "coherent":
        A *= 1e-6
        A[rng.choice(M, N, replace=False)] += np.eye(N)
    return np.linalg.qr(A)[0]


class Draws(NamedTuple):
    """Of SQ, for every draw of S."""

    smallest: np.ndarray  # singular value
    largest: np.ndarray

    @property
    def distortion(self) -> np.ndarray:
        return np.maximum(self.largest - 1, 1 - self.smallest)

    @property
    def lost(self) -> int:
        """Draws in which a direction of the range has less than a hundredth of its length left."""
        return int(np.sum(self.smallest < 0.01))


@cache
def draws(name: str, kind: str, ratio: int) -> Draws:
    Q, d = basis(kind), ratio * N
    ends = []
    for seed in range(DRAWS):
        if name == "`LeverageSampling()`":
            SQ = rpcls.compress(Q, Q[:, 0], FAMILIES[name], sketch_size=d, rng=seed).SA
        else:
            SQ = FAMILIES[name].sample(d, M, rng=seed) @ Q
        s = np.linalg.svd(SQ, compute_uv=False)
        ends.append((s[-1], s[0]))
    smallest, largest = np.array(ends).T
    return Draws(smallest, largest)


def table() -> str:
    columns = [(kind, ratio) for kind in KINDS for ratio in RATIOS]
    lines = ["| | " + " | ".join(f"{kind}, d = {ratio}n" for kind, ratio in columns) + " |"]
    lines.append("| --- |" + " --- |" * len(columns))
    for name in FAMILIES:
        cells = []
        for kind, ratio in columns:
            found = draws(name, kind, ratio)
            cell = f"{np.median(found.distortion):.2f} / {found.distortion.max():.2f}"
            cells.append(cell + (f", {found.lost} lost" if found.lost else ""))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def test_the_page_has_the_table() -> None:
    sys.stdout.write(f"\n{M} × {N}, {DRAWS} draws\n\n{table()}\n")
    assert table() in PAGE, "docs/sketches.md is stale: put what this test prints with -s there"
    assert f"{M} × {N}" in PAGE and f"{DRAWS} draws" in PAGE


@pytest.mark.parametrize("name", FAMILIES)
def test_all_succeed_on_incoherent_rows(name: str) -> None:
    # √(n/d) is what Gaussian S tends to: 0.5 and 0.16; t/√d on top of it has probability 2 exp(-t²/2) at most
    for ratio, limit in ((4, 0.85), (40, 0.3)):
        found = draws(name, "incoherent", ratio)
        assert found.distortion.max() < limit
        assert np.median(found.distortion) > 0.6 * math.sqrt(1 / ratio)  # a sketch that loses nothing is no sketch


@pytest.mark.parametrize("name", [name for name in FAMILIES if "Sampling" not in name and name != "`CountSketch()`"])
def test_those_that_mix_rows_succeed_on_coherent_rows_too(name: str) -> None:
    assert draws(name, "coherent", 4).distortion.max() < 0.85
    assert draws(name, "coherent", 40).distortion.max() < 0.4


@pytest.mark.parametrize("ratio", RATIOS)
def test_count_sketch_loses_two_rows_that_meet(ratio: int) -> None:
    """N rows carry the range; two of them in one row of SA leave one direction for both: the birthday paradox."""
    found = draws("`CountSketch()`", "coherent", ratio)
    clash = 1 - np.prod(1 - np.arange(N) / (ratio * N))
    assert abs(found.lost / DRAWS - clash) < 4 * math.sqrt(clash * (1 - clash) / DRAWS)
    assert found.lost > (DRAWS // 2 if ratio == 4 else 3)
    meets = 0
    heavy = np.flatnonzero(np.max(np.abs(basis("coherent")), axis=1) > 0.5)
    assert len(heavy) == N
    for seed in range(DRAWS):
        rows = rpcls.CountSketch().sample(ratio * N, M, rng=seed).toarray()[:, heavy].nonzero()[0]
        meets += len(set(rows.tolist())) < N
    assert meets == found.lost  # and nothing else goes wrong


@pytest.mark.parametrize("name", ["`RowSampling()`", "`RowSampling(replace=True)`"])
@pytest.mark.parametrize("ratio", RATIOS)
def test_row_sampling_misses_rows_that_carry_the_range(name: str, ratio: int) -> None:
    assert (ratio * N / M) ** N < 1e-7  # the chance of having them all
    assert draws(name, "coherent", ratio).lost == DRAWS
    assert draws("`LeverageSampling()`", "coherent", 40).distortion.max() < 0.85  # at the larger of these sizes


def test_leverage_sampling_needs_n_log_n_rows() -> None:
    """N rows of equal importance, d draws with replacement: the coupon collector misses some at d = 4n."""
    found = draws("`LeverageSampling()`", "coherent", 4)
    missed = 1 - (1 - math.exp(-0.9 * 4)) ** N  # 0.43, and more where an estimate is low
    assert missed / 2 < found.lost / DRAWS < 0.95
    assert draws("`LeverageSampling()`", "coherent", 40).lost == 0


def test_cost_of_a_row_is_the_number_of_entries_in_a_column_of_s() -> None:
    d, m = 64, 100
    per_column = {"`CountSketch()`": 1, "`SparseSign(3)`": 3, "`SparseSign(8)`": 8}
    for name, family in FAMILIES.items():
        if isinstance(family, rpcls.LeverageSampling):
            continue
        entries = np.count_nonzero(family.sample(d, m, rng=0).toarray(), axis=0)
        if isinstance(family, rpcls.RowSampling):
            assert entries.sum() == d  # a row of S has one
        else:
            assert np.all(entries == per_column.get(name, d))


def test_the_page_has_the_formulas_of_suggest_sketch_size() -> None:
    lines = [line for line in PAGE.split("\n## ")[0].splitlines() if line.startswith("| `")]
    for name, family in FAMILIES.items():
        size = rpcls.suggest_sketch_size(N, 0.5, family, m=M, coherence=100.0)
        names = re.escape(name.strip("`").partition("(")[0])
        mine = [line for line in lines if re.match(rf"\| .*`{names}\(", line) and size.formula.split(",")[0] in line]
        assert mine, f"{name}: {size.formula}"
        for identifier in re.findall(r"10\.\d{4,}/\S+?(?=[,;]|\s|$)|\d{4}\.\d{4,5}", size.reference):
            assert identifier in PAGE, f"{name}: {identifier}"


def test_links_of_the_page_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", PAGE) if "://" not in link]
    assert links
    root = Path(__file__).resolve().parent.parent / "docs"
    assert [link for link in links if not (root / link).exists()] == []
    named = set(re.findall(r"`?(tests/\w+\.py)`?", PAGE))
    assert named and all((root.parent / name).exists() for name in named)
