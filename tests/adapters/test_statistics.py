"""LayerStatistics: batches, shards, files, sketches of the tokens, bad input."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layers import random

import rpcls
from rpcls.adapters import LayerStatistics, LinearAdapter, LoRA, fit, statistics, token_sketch_size
from rpcls.adapters.quadratic import Projected, Quadratic
from rpcls.errors import FormatError, InvalidTypeError, InvalidValueError, NonFiniteError

TOKENS, IN, OUT = 40, 5, 3
W, BIAS, A = random((OUT, IN), 1), random((OUT,), 2), random((2, IN), 3)
X = random((TOKENS, IN), 4)
Y = X @ W.T + BIAS + random((TOKENS, OUT), 5)
Z = Y - X @ W.T - BIAS
S = rpcls.SparseSign(3).sample(12, rng=6)

# every form, with a frozen layer and without
FORMS: dict[str, dict[str, Any]] = {
    "exact": {},
    "full": {"sketch": S},
    "partial": {"sketch": S, "form": "partial"},
    "robust-partial": {"sketch": S, "form": "robust-partial"},
    "thin": {"thin": A},
}
FROZEN = {"weight and bias": {"weight": W, "bias": BIAS}, "weight": {"weight": W}, "none": {}}
every_form = pytest.mark.parametrize("form", FORMS)


def collected(form: str, rows: slice = slice(None), **settings: Any) -> LayerStatistics:
    first = {"first_token": rows.start or 0} if "sketch" in FORMS[form] else {}
    s = LayerStatistics(IN, OUT, **{**FROZEN["weight and bias"], **FORMS[form], **first, **settings})
    return s.update(X[rows], Y[rows])


def arrays(s: LayerStatistics) -> tuple[np.ndarray, np.ndarray, float]:
    f = s.objective()
    inner = f.inner if isinstance(f, Projected) else f
    return inner.C, inner.R, inner.energy


def same(a: LayerStatistics, b: LayerStatistics, rtol: float = 1e-10) -> None:
    assert a.tokens == b.tokens and a.form == b.form
    for left, right in zip(arrays(a), arrays(b), strict=True):
        np.testing.assert_allclose(left, right, rtol=rtol, atol=rtol * np.abs(right).max(initial=1e-300))


# -- what is kept -----------------------------------------------------------------------------------


@pytest.mark.parametrize("frozen", FROZEN)
@every_form
def test_sums_are_those_of_the_wanted_update(form: str, frozen: str) -> None:
    layer = FROZEN[frozen]
    wanted = Y - (X @ W.T if "weight" in layer else 0) - (BIAS if "bias" in layer else 0)
    C, R, energy = arrays(LayerStatistics(IN, OUT, **layer, **FORMS[form]).update(X, Y))
    dense = S.family.sample(12, m=TOKENS, rng=S.key).toarray()
    SX, SZ = dense @ X, dense @ wanted
    expected = {
        "exact": (X.T @ X, wanted.T @ X, np.vdot(wanted, wanted)),
        "full": (SX.T @ SX, SZ.T @ SX, np.vdot(SZ, SZ)),
        "partial": (SX.T @ SX, wanted.T @ X, np.vdot(wanted, wanted)),
        "thin": (A @ X.T @ X @ A.T, wanted.T @ X @ A.T, np.vdot(wanted, wanted)),
    }
    if form in expected:
        for got, want in zip((C, R, energy), expected[form], strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-10)
    else:  # a ridge is added, and the target shrunk
        extra = C - SX.T @ SX
        np.testing.assert_allclose(extra, extra[0, 0] * np.eye(IN), atol=1e-10)
        share = R / (wanted.T @ X)
        np.testing.assert_allclose(share, share[0, 0], rtol=1e-9)
        assert extra[0, 0] > 0 and 0 < share[0, 0] < 1


def test_the_robust_form_is_the_robust_solver() -> None:
    rng = np.random.default_rng(0)
    inputs, sketch = rng.standard_normal((300, 40)), rpcls.SparseSign(3).sample(60, rng=0)
    z = inputs @ rng.standard_normal((40, 1)) + 5 * rng.standard_normal((300, 1))
    s = LayerStatistics(40, 1, sketch=sketch, form="robust-partial").update(inputs, z)
    every = LinearAdapter(np.eye(40).reshape(40, 1, 40))
    x = rpcls.compress(inputs, z[:, 0], sketch).solve(rpcls.RobustPartiallyCompressed()).x
    np.testing.assert_allclose(fit(s, every, ridge=0).delta()[0], x, rtol=1e-8)


@every_form
@given(cuts=st.lists(st.integers(0, TOKENS), max_size=4))
def test_batches_do_not_matter(form: str, cuts: list[int]) -> None:
    s = LayerStatistics(IN, OUT, **FROZEN["weight and bias"], **FORMS[form])
    for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), TOKENS], strict=True):
        assert s.update(X[start:stop], Y[start:stop]) is s
    same(s, collected(form))


@every_form
def test_large_batches_are_read_in_chunks(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = collected(form)
    monkeypatch.setattr(statistics, "_CHUNK", 7)
    same(collected(form), whole)


def test_leading_dimensions_are_tokens() -> None:
    s = LayerStatistics(IN, OUT, W, BIAS).update(X.reshape(4, 10, IN), Y.reshape(4, 10, OUT).tolist())
    same(s, collected("exact"))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8])
def test_sums_are_float64_whatever_comes(dtype: type) -> None:
    narrow = (4 * X).astype(dtype), (4 * Y).astype(dtype)
    s = LayerStatistics(IN, OUT).update(*narrow)
    wide = [part.astype(np.float64) for part in narrow]
    np.testing.assert_allclose(s.C, wide[0].T @ wide[0], rtol=1e-14)
    np.testing.assert_allclose(s.R, wide[1].T @ wide[0], rtol=1e-13, atol=1e-13)
    assert s.C.dtype == s.R.dtype == np.float64


class Tensor:
    """What is needed of a torch tensor."""

    def __init__(self, array: np.ndarray, dtype: str = "torch.float32") -> None:
        self.array, self.dtype = array, dtype

    def detach(self) -> Tensor:
        return self

    def cpu(self) -> Tensor:
        return self

    def float(self) -> Tensor:
        return Tensor(self.array)

    def numpy(self) -> np.ndarray:
        if self.dtype == "torch.bfloat16":
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self.array


@pytest.mark.parametrize("dtype", ["torch.float32", "torch.bfloat16"])
def test_tensors_are_taken(dtype: str) -> None:
    same(LayerStatistics(IN, OUT, W, BIAS).update(Tensor(X, dtype), Tensor(Y, dtype)), collected("exact"))


def test_bfloat16_of_torch_itself() -> None:
    torch = pytest.importorskip("torch")
    narrow = torch.tensor(X, requires_grad=True).to(torch.bfloat16), torch.tensor(Y).to(torch.bfloat16)
    wide = [part.detach().to(torch.float64).numpy() for part in narrow]
    same(LayerStatistics(IN, OUT, W).update(*narrow), LayerStatistics(IN, OUT, W).update(*wide), rtol=1e-14)


def test_the_norm_of_a_small_update_survives_a_large_output() -> None:
    tiny = Y + 1e-5 * (Z - Y + X @ W.T + BIAS) - (Y - X @ W.T - BIAS)
    s = LayerStatistics(IN, OUT, W, BIAS).update(X, tiny)
    wanted = tiny - X @ W.T - BIAS
    assert s.energy >= 0
    np.testing.assert_allclose(s.energy, np.vdot(wanted, wanted), atol=1e-12 * np.vdot(tiny, tiny))


# -- known updates ----------------------------------------------------------------------------------


def test_a_known_update() -> None:
    T = random((OUT, IN), 7)
    s = LayerStatistics.from_delta(T)
    np.testing.assert_array_equal(s.C, np.eye(IN))
    np.testing.assert_array_equal(s.R, T)
    np.testing.assert_allclose(s.energy, np.vdot(T, T))
    for inputs in (X, X.reshape(4, 10, IN), LayerStatistics(IN, OUT).update(X, Y)):
        same(LayerStatistics.from_delta(T, inputs=inputs), LayerStatistics(IN, OUT).update(X, X @ T.T))
    seen = LayerStatistics(IN, OUT).update(X, Y)
    more = LayerStatistics.from_delta(T, inputs=seen).update(X, X @ T.T)  # does not reach into what it came from
    same(seen, LayerStatistics(IN, OUT).update(X, Y))
    assert more.tokens == 2 * TOKENS
    np.testing.assert_allclose(more.explained(T), 1.0)


def test_explained_energy() -> None:
    s, dW = collected("exact"), random((OUT, IN), 8)
    np.testing.assert_allclose(s.explained(dW), 1 - np.sum((X @ dW.T - Z) ** 2) / np.sum(Z**2), rtol=1e-10)
    assert LayerStatistics(IN, OUT).update(X, 0 * Y).explained(dW) == 0


def test_ridge_and_preserved_inputs() -> None:
    s, kept = collected("exact"), LayerStatistics(IN, 1).update(X[:4], Y[:4, :1])
    for preserve in (kept, X[:4].T @ X[:4]):
        f = s.objective(0.5, preserve)
        want = s.C + X[:4].T @ X[:4] + 0.5 * np.trace(s.C) / IN * np.eye(IN)
        assert isinstance(f, Quadratic)
        np.testing.assert_allclose(f.C, want, rtol=1e-12)
    np.testing.assert_allclose(s.C, X.T @ X, rtol=1e-12)  # the statistics themselves stay
    thin = collected("thin").objective(0.5)
    assert isinstance(thin, Projected)
    np.testing.assert_allclose(thin.inner.C, A @ (X.T @ X + 0.5 * np.trace(s.C) / IN * np.eye(IN)) @ A.T, rtol=1e-10)


# -- shards -----------------------------------------------------------------------------------------


@every_form
def test_shards_add_up(form: str) -> None:
    parts = [collected(form, slice(a, b)) for a, b in [(0, 11), (25, TOKENS), (11, 25)]]
    before = [arrays(part) for part in parts]
    total = sum(parts)
    assert isinstance(total, LayerStatistics)
    same(total, collected(form))
    for part, kept in zip(parts, before, strict=True):
        for left, right in zip(arrays(part), kept, strict=True):
            np.testing.assert_array_equal(left, right)


def test_shards_that_do_not_belong_together() -> None:
    s = collected("exact")
    for other, message in [
        (LayerStatistics(IN, OUT + 1), "layers and forms that agree"),
        (collected("partial"), "layers and forms that agree"),
        (LayerStatistics(IN, OUT, W + 1, BIAS), "only for the same weight, and these differ"),
        (LayerStatistics(IN, OUT, W), "only for the same bias, and these differ"),
    ]:
        with pytest.raises(InvalidValueError, match=message):
            s + other
    with pytest.raises(InvalidValueError, match="only for the same A"):
        collected("thin") + collected("thin", thin=A + 1)
    other = rpcls.SparseSign(3).sample(12, rng=7)
    with pytest.raises(InvalidValueError, match=r"only under the same operator.*give every shard"):
        collected("full", slice(0, 5)) + collected("full", slice(5, 9), sketch=other)
    with pytest.raises(InvalidValueError, match="overlap"):
        collected("full", slice(0, 5)) + collected("full", slice(4, 9))
    with pytest.raises(TypeError):
        s + 1


# -- files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frozen", FROZEN)
@every_form
def test_files_hold_everything(form: str, frozen: str, tmp_path: Path) -> None:
    s = LayerStatistics(IN, OUT, **FROZEN[frozen], **FORMS[form]).update(X[:25], Y[:25])
    s.save(path := tmp_path / "layer.npz")
    loaded = LayerStatistics.load(str(path))
    assert repr(loaded) == repr(s)
    for left, right in zip(arrays(loaded), arrays(s), strict=True):
        np.testing.assert_array_equal(left, right)
    same(loaded.update(X[25:], Y[25:]), LayerStatistics(IN, OUT, **FROZEN[frozen], **FORMS[form]).update(X, Y))
    assert [p.name for p in tmp_path.iterdir()] == ["layer.npz"]
    empty = LayerStatistics(IN, OUT, **FROZEN[frozen], **FORMS[form])
    empty.save(path)  # replaces the other
    same(LayerStatistics.load(path).update(X, Y), empty.update(X, Y))


def test_files_that_are_not_whole(tmp_path: Path) -> None:
    collected("full").save(good := tmp_path / "good.npz")
    data = good.read_bytes()
    (bad := tmp_path / "bad.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(FormatError, match=r"bad\.npz is not a complete LayerStatistics file"):
        LayerStatistics.load(bad)
    np.savez(bad, header=np.array("7"))
    with pytest.raises(FormatError, match="does not hold LayerStatistics"):
        LayerStatistics.load(bad)
    with np.load(good) as file:
        content = {name: file[name] for name in file.files}
    header = json.loads(str(content["header"]))
    for change, message in [
        ({"version": 99}, "has version 99, this rpcls reads 1; collect again"),
        ({"stream_version": -1}, "sketched with other random streams"),
        ({"family": "Nothing"}, "is not a valid LayerStatistics file: KeyError"),
        ({"in_features": 7}, "is not a valid LayerStatistics file"),
    ]:
        np.savez(bad, **{**content, "header": np.array(json.dumps({**header, **change}))})
        with pytest.raises(FormatError, match=message):
            LayerStatistics.load(bad)
    collected("exact").save(good)
    with np.load(good) as file:
        content = {name: file[name] for name in file.files}
    for gram in (np.full((IN, IN), np.nan), np.eye(IN + 1), np.eye(IN, dtype=np.float32)):
        np.savez(bad, **{**content, "sum_gram": gram})
        with pytest.raises(FormatError, match=r"gram must be finite float64 of shape \(5, 5\)"):
            LayerStatistics.load(bad)
    with pytest.raises(FileNotFoundError):
        LayerStatistics.load(tmp_path / "none.npz")


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collected("exact").save(path := tmp_path / "layer.npz")
    before = path.read_bytes()

    def full(*arguments: Any, **settings: Any) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        collected("thin").save(path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["layer.npz"]


# -- bad input --------------------------------------------------------------------------------------


def with_nan(array: np.ndarray, row: int, value: float = np.nan) -> np.ndarray:
    array = array.copy()
    array[row, 1] = value
    return array


@every_form
def test_bad_batches_change_nothing(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "_CHUNK", 8)
    s = LayerStatistics(IN, OUT, W, BIAS, **FORMS[form]).update(X[:20], Y[:20])
    before = arrays(s)
    huge = 1e200 * X[20:]
    for x, y, error, message in [
        (with_nan(X, 30), Y, NonFiniteError, r"X\[30, 1\] is nan: every entry must be finite; nothing was added"),
        (X, with_nan(Y, 3, -np.inf), NonFiniteError, r"Y\[3, 1\] is -inf"),
        (X, Y[1:], InvalidValueError, "same number of tokens, got 40 and 39"),
        (X[:, 1:], Y, InvalidValueError, r"X must have shape \(tokens, in_features\) = \(…, 5\), got \(40, 4\)"),
        (X, Y.T, InvalidValueError, r"Y must have shape \(tokens, out_features\) = \(…, 3\), got \(3, 40\)"),
        (X + 1j, Y, InvalidTypeError, "X must hold real numbers, got dtype complex128"),
        ([[1.0, 2.0], [3.0]], Y, InvalidValueError, "X must be an array of numbers"),
    ]:
        with pytest.raises(error, match=message):
            s.update(x, y)
    with pytest.raises(InvalidValueError, match=r"overflow float64; scale X and Y down\. Nothing was added"):
        s.update(np.vstack([X[:20], huge]), Y)
    assert s.tokens == 20
    for left, right in zip(arrays(s), before, strict=True):
        np.testing.assert_array_equal(left, right)
    same(s.update(X[20:], Y[20:]), collected(form))


def test_bad_layers() -> None:
    family = rpcls.SparseSign(3)
    for settings, message in [
        ({"weight": W.T}, r"weight must have shape \(out_features, in_features\) = \(3, 5\), got \(5, 3\)"),
        ({"bias": BIAS}, "needs weight; got no weight"),
        ({"weight": W, "bias": BIAS[1:]}, r"bias must have shape \(out_features,\) = \(3,\), got \(2,\)"),
        ({"first_token": -1}, "first_token must be at least 0, got -1"),
        ({"sketch_size": 9}, "sketch_size needs a sketch"),
        ({"sketch": family}, r"a sketch of tokens needs a size; token_sketch_size\(unknowns, explained\) gives one"),
        ({"sketch": S, "rng": 0}, "must be None with an operator"),
        ({"sketch": rpcls.SRHT(), "sketch_size": 9}, r"the sketch must be mergeable, and SRHT\(\) is not"),
        ({"sketch": S, "form": "half"}, "form must be one of 'full', 'partial', 'robust-partial', got 'half'"),
        ({"sketch": S, "thin": A}, "thin and sketch exclude each other"),
        ({"thin": A.T}, r"thin must have shape \(r, in_features\) = \(…, 5\), got \(5, 2\)"),
    ]:
        with pytest.raises(InvalidValueError, match=message):
            LayerStatistics(IN, OUT, **settings)
    with pytest.raises(InvalidTypeError, match="sketch must be a family such as"):
        LayerStatistics(IN, OUT, sketch="sparse")  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match="in_features must be an int, got float"):
        LayerStatistics(2.0, OUT)  # type: ignore[arg-type]
    with pytest.raises(NonFiniteError, match=r"bias\[1\] is nan"):
        LayerStatistics(IN, OUT, W, [0, np.nan, 0])


def test_bad_questions() -> None:
    with pytest.raises(InvalidValueError, match="these statistics are empty: call update"):
        _ = LayerStatistics(IN, OUT).C
    s, thin = collected("exact"), collected("thin")
    with pytest.raises(InvalidValueError, match="thin statistics have no C: they keep P = ACAᵀ and Q = RAᵀ only"):
        _ = thin.C
    with pytest.raises(InvalidValueError, match="thin statistics cannot preserve"):
        thin.objective(preserve=np.eye(IN))
    with pytest.raises(InvalidValueError, match="ridge must be at least 0, got -1"):
        s.objective(-1)
    with pytest.raises(InvalidValueError, match=r"preserve must have shape .* = \(5, 5\), got \(3, 3\)"):
        s.objective(preserve=np.eye(3))
    with pytest.raises(InvalidValueError, match="preserve must be symmetric"):
        s.objective(preserve=np.triu(np.ones((IN, IN))))
    with pytest.raises(InvalidValueError, match=r"delta must have shape .* = \(3, 5\), got \(5, 3\)"):
        s.explained(W.T)
    for inputs in (collected("full"), LayerStatistics(IN + 1, OUT)):
        with pytest.raises(InvalidValueError, match="inputs must be exact statistics of a layer with 5 inputs"):
            LayerStatistics.from_delta(W, inputs=inputs)
    with pytest.raises(InvalidValueError, match="keep the products of one A"):
        thin.objective().project(A + 1)


def test_sizes_of_token_sketches() -> None:
    assert token_sketch_size(100, 0.5) == 6250 and token_sketch_size(100, 0.99) == 200
    for arguments, message in [((0, 0.5), "unknowns must be at least 1"), ((5, 1.0), r"explained must be in \(0, 1\)")]:
        with pytest.raises(InvalidValueError, match=message):
            token_sketch_size(*arguments)


def test_the_size_of_the_rule_costs_a_tenth_of_what_is_explained() -> None:
    """Excess loss ≈ (d/m)(1 − R²): at the rule's m at most a tenth of R² on average, here over ten sketches."""
    rng = np.random.default_rng(0)
    inputs, T = rng.standard_normal((4000, 30)), rng.standard_normal((20, 30))
    wanted = inputs @ T.T + np.sqrt(45) * rng.standard_normal((4000, 20))
    full, family = LayerStatistics(30, 20).update(inputs, wanted), LinearAdapter(np.eye(600).reshape(600, 20, 30))
    best = full.explained(fit(full, family, ridge=0).delta())
    size = token_sketch_size(30, best)
    lost = [
        best
        - full.explained(
            fit(
                LayerStatistics(30, 20, sketch=rpcls.SparseSign(), sketch_size=size, rng=seed).update(inputs, wanted),
                family,
                ridge=0,
            ).delta()
        )
        for seed in range(10)
    ]
    assert 0 < np.mean(lost) < 0.15 * best


def test_statistics_without_tokens_cannot_be_fitted() -> None:
    with pytest.raises(InvalidValueError, match="empty"):
        fit(LayerStatistics(IN, OUT), LoRA(1))
