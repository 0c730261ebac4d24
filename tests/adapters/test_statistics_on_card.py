"""LayerStatistics of CuPy arrays and of torch tensors on a card: what the host gives, and no token leaves the card."""

from __future__ import annotations

import itertools
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from layers import random

import rpcls
from rpcls.adapters import NOLA, AdaMix, LayerStatistics, LoRA, MELoRA, RandLoRA, VeRA, fit, statistics
from rpcls.adapters.joint import Joint
from rpcls.adapters.lowrank import BlockLoRA, top_singular
from rpcls.adapters.quadratic import Projected
from rpcls.errors import ConvergenceWarning, DeviceError, InvalidTypeError, InvalidValueError, NonFiniteError
from rpcls.kernels import on_card, on_host

TOKENS, IN, OUT = 47, 6, 4
W, BIAS, A = random((OUT, IN), 1), random((OUT,), 2), random((3, IN), 3)
X = random((TOKENS, IN), 4)
Y = X @ W.T + BIAS + random((TOKENS, OUT), 5)
FORMS: dict[str, dict[str, Any]] = {
    "exact": {},
    "full": {"sketch": rpcls.SparseSign(3).sample(14, rng=6)},
    "partial": {"sketch": rpcls.Gaussian().sample(14, rng=6), "form": "partial"},
    "robust-partial": {"sketch": rpcls.SparseSign(3).sample(14, rng=6), "form": "robust-partial"},
    "thin": {"thin": A},
}
every_form = pytest.mark.parametrize("form", FORMS)


@pytest.fixture(autouse=True)
def downloaded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of all that was copied from the card to the host, in which no number is that of the tokens."""
    module = request.getfixturevalue("xp" if "xp" in request.fixturenames else "stand_in")
    own, shapes = module.asnumpy, []

    def asnumpy(array: Any) -> np.ndarray:
        shapes.append(array.shape)
        assert TOKENS not in array.shape
        return own(array)

    monkeypatch.setattr(module, "asnumpy", asnumpy)
    return shapes


def empty(form: str, frozen: bool = True, **more: Any) -> LayerStatistics:
    return LayerStatistics(IN, OUT, **{**({"weight": W, "bias": BIAS} if frozen else {}), **FORMS[form], **more})


def arrays(s: LayerStatistics) -> tuple[np.ndarray, np.ndarray, float]:
    f = s.objective()
    inner = f.inner if isinstance(f, Projected) else f
    return inner.C, inner.R, inner.energy


def same(a: LayerStatistics, b: LayerStatistics, rtol: float = 1e-12) -> None:
    assert a.tokens == b.tokens and repr(a) == repr(b)
    for left, right in zip(arrays(a), arrays(b), strict=True):
        assert type(left) is type(right)
        np.testing.assert_allclose(left, right, rtol=rtol, atol=rtol * np.abs(right).max())


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@every_form
def test_sums_are_those_of_the_host(
    xp: Any,
    form: str,
    dtype: Any,
    frozen: bool,
    monkeypatch: pytest.MonkeyPatch,
    downloaded: list[tuple[int, ...]],
) -> None:
    monkeypatch.setattr(statistics, "_CHUNK", 10)
    rows, wanted = X.astype(dtype), Y.astype(dtype)
    host = empty(form, frozen).update(rows[:20], wanted[:20]).update(rows[20:], wanted[20:])
    held = xp.asarray(rows), xp.asarray(wanted)
    there = empty(form, frozen).update(held[0][:20], held[1][:20])
    assert there.update(held[0][20:].reshape(3, 9, IN), held[1][20:].reshape(3, 9, OUT)) is there
    if form == "exact":
        assert not downloaded  # the sums stay on the card until they are read
    same(there, host, rtol=1e-12 if dtype == np.float64 or form != "full" else 1e-5)


def test_bfloat16(xp: Any) -> None:
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    rows, wanted = X.astype(bfloat16), Y.astype(bfloat16)
    host = empty("exact").update(rows.astype(np.float64), wanted.astype(np.float64))
    same(empty("exact").update(xp.asarray(rows), xp.asarray(wanted)), host)
    same(empty("exact").update(rows, wanted), host)


def test_fits_agree(xp: Any) -> None:
    host = empty("exact").update(X, Y)
    there = LayerStatistics(IN, OUT, xp.asarray(W), xp.asarray(BIAS)).update(xp.asarray(X), xp.asarray(Y))
    for family in (LoRA(2), VeRA(5), RandLoRA(2)):
        want = fit(host, family, max_iterations=30)
        got = fit(there, family, max_iterations=30)
        np.testing.assert_allclose(got.delta(), want.delta(), rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(there.explained(xp.asarray(want.delta())), want.explained, rtol=1e-10)


MANY = {
    "RandLoRA": (RandLoRA(rank=4, seed=1), (40, 36)),
    "RandLoRA, wide": (RandLoRA(rank=5, seed=1), (40, 44)),
    "NOLA": (NOLA(a_size=40, b_size=50, rank=2, seed=1), (12, 10)),
    "VeRA": (VeRA(rank=200, seed=1), (150, 12)),
}


@pytest.mark.parametrize("name", MANY)
@pytest.mark.parametrize("tol", [1e-5, 1e-8])
@pytest.mark.parametrize("inputs", ["normal", "few", "identity"])
def test_fits_of_many_unknowns_work_on_the_card(
    xp: Any, monkeypatch: pytest.MonkeyPatch, name: str, tol: float, inputs: str
) -> None:
    """What the host finds, from arrays that are on the card; with inputs of low rank, and of C = I.

    The looks at f agree to rounding, and so do short fits; long ones end in other points of flat valleys.
    """
    family, (o, i) = MANY[name]
    x = {"normal": random((60, i), 1), "few": random((i // 2, i), 1), "identity": np.eye(i)}[inputs]
    y = x @ random((o, i), 2).T
    own, where, looks = Joint.fit, [], []

    def watched(self: Any, v: Any, shape: tuple[int, ...], *rest: Any) -> Any:
        where.append(on_card(v))
        to = xp.asarray if on_card(v) else np.asarray
        at, beside = to(random(v.shape, 3)), to(random((int(np.prod(shape)),), 4))
        M, m = self.normal_equations(at)
        both = (xp if on_card(v) else np).concatenate([beside, at.reshape(-1)])
        value, gradient = self.evaluation(np.float64)(both)
        steps = self.precondition(M, beside, at)(gradient)
        looks.append([value, *map(on_host, (v, M, m, gradient, steps))])
        return own(self, v, shape, *rest)

    monkeypatch.setattr(Joint, "fit", watched)
    host, there = LayerStatistics(i, o).update(x, y), LayerStatistics(i, o).update(xp.asarray(x), xp.asarray(y))
    assert (host.card, there.card) == (None, 0)
    more: dict[str, Any] = {"max_iterations": 40, "tol": tol, "ridge": 0.0 if inputs == "few" else 0.01}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        wanted, got = fit(host, family, **more), fit(there, family, **more)
    assert where == [False, True]
    for mine, its, rounding in zip(*looks, [1e-9] * 5 + [1e-5], strict=True):  # preconditioners: of condition 1e8
        np.testing.assert_allclose(its, mine, rtol=0, atol=rounding * np.abs(mine).max())
    assert all(isinstance(part, np.ndarray) for part in got.factors.values())
    assert abs(got.explained - wanted.explained) < 0.02 and got.identifiable.keys() == wanted.identifiable.keys()
    assert abs(host.explained(got.delta()) - got.explained) < 1e-9
    assert all(later <= before for before, later in itertools.pairwise(got.history))


@pytest.mark.parametrize("inputs", ["normal", "few", "identity"])
@pytest.mark.parametrize("shape", [(8, 12), (12, 8)])
@pytest.mark.parametrize("family", [LoRA(3, alpha=6.0), LoRA(7), MELoRA(2, 1), "AdaMix"], ids=str)
def test_closed_forms_on_the_card(
    xp: Any, monkeypatch: pytest.MonkeyPatch, family: Any, shape: tuple[int, int], inputs: str
) -> None:
    """The host's update, to rounding, from products of arrays on the card."""
    o, i = shape
    family = AdaMix(2, [random(shape, 5), random(shape, 6)]) if family == "AdaMix" else family
    x = {"normal": random((60, i), 1), "few": random((i // 2, i), 1), "identity": np.eye(i)}[inputs]
    y = x @ random((o, i), 2).T
    own, where = BlockLoRA.own_fit, []
    monkeypatch.setattr(BlockLoRA, "own_fit", lambda self, f, *a: where.append(on_card(f.R)) or own(self, f, *a))
    host, there = LayerStatistics(i, o).update(x, y), LayerStatistics(i, o).update(xp.asarray(x), xp.asarray(y))
    wanted, got = fit(host, family, ridge=0.0), fit(there, family, ridge=0.0)
    assert where == [False, True] and got.notes == wanted.notes and got.identifiable == wanted.identifiable
    np.testing.assert_allclose(got.delta(), wanted.delta(), rtol=0, atol=1e-9 * np.abs(wanted.delta()).max())
    np.testing.assert_allclose(got.explained, wanted.explained, rtol=1e-10)


def test_singular_values_that_squares_hide(xp: Any) -> None:
    U, V = (np.linalg.qr(random((n, 5), n))[0] for n in (30, 40))
    s = np.array([1.0, 1e-3, 1e-6, 1e-9, 1e-12])
    for K in ((U * s) @ V.T, (V * s) @ U.T):
        left, found, right = map(on_host, top_singular(xp.asarray(K), 4))
        np.testing.assert_allclose(found, s[:4], rtol=1e-5)
        np.testing.assert_allclose((left * found) @ right, K, rtol=0, atol=2e-12)


def test_a_known_update_with_inputs_on_the_card(xp: Any) -> None:
    T = random((OUT, IN), 7)
    same(LayerStatistics.from_delta(T, inputs=xp.asarray(X)), LayerStatistics.from_delta(T, inputs=X))


@every_form
def test_shards_and_files(xp: Any, form: str, tmp_path: Path) -> None:
    first: dict[str, Any] = {"first_token": 20} if "sketch" in FORMS[form] else {}
    there = empty(form).update(xp.asarray(X[:20]), xp.asarray(Y[:20]))
    there.save(path := tmp_path / "layer.npz")
    same(LayerStatistics.load(path), there)
    rest = empty(form, **first).update(X[20:], Y[20:])
    whole = empty(form).update(X, Y)
    same(there + rest, whole)
    same(rest + there, whole)
    same(LayerStatistics.load(path).update(X[20:], Y[20:]), whole)
    same(there.update(xp.asarray(X[20:]), xp.asarray(Y[20:])), whole)


# -- batches that are refused -------------------------------------------------------------------------


@every_form
def test_bad_batches_change_nothing(xp: Any, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "_CHUNK", 8)
    s = empty(form).update(xp.asarray(X[:20]), xp.asarray(Y[:20]))
    before = arrays(s)
    bad = Y.copy()
    bad[3, 1] = -np.inf
    huge = np.vstack([X[:30], 1e200 * X[30:]])
    host, card = r"the host", r"card 0"
    for x, y, error, message in [
        (xp.asarray(X), xp.asarray(bad), NonFiniteError, r"Y\[3, 1\] is -inf: every entry must be finite"),
        (xp.asarray(huge), xp.asarray(Y), InvalidValueError, "overflow float64; scale X and Y down"),
        (xp.asarray(X), xp.asarray(Y[1:]), InvalidValueError, "same number of tokens, got 47 and 46"),
        (xp.asarray(X), Y, InvalidTypeError, f"X and Y must be in one place, got X on {card} and Y on {host}"),
        (X, xp.asarray(Y), InvalidTypeError, rf"got X on {host} and Y on {card}; cupy\.asarray\(…\) copies"),
        (X, Y, InvalidTypeError, rf"must be where those before were, on {card}, got .* on {host}; .*cupy\.asnumpy"),
        (xp.asarray(X + 1j), xp.asarray(Y), InvalidTypeError, "X must hold real numbers, got dtype complex128"),
    ]:
        with pytest.raises(error, match=message):
            s.update(x, y)
    assert s.tokens == 20
    for left, right in zip(arrays(s), before, strict=True):
        np.testing.assert_array_equal(left, right)
    with pytest.raises(
        InvalidTypeError, match=r"before were, on the host, got X and Y on card 0; .*add those to these"
    ):
        empty(form).update(X, Y).update(xp.asarray(X), xp.asarray(Y))


def test_what_the_card_says(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise stand_in.cuda.memory.OutOfMemoryError("Out of memory allocating 9 bytes")

    monkeypatch.setattr(stand_in, "vdot", full)
    with pytest.raises(DeviceError, match="the card is out of memory"):
        empty("exact").update(stand_in.asarray(X), stand_in.asarray(Y))


class Tensor:
    """What rpcls knows of a torch tensor on a card."""

    is_cuda = True

    def __init__(self, array: np.ndarray, dtype: str = "torch.float64") -> None:
        self.array, self.dtype = array, dtype

    def __dlpack__(self, **settings: Any) -> Any:
        return self.array.__dlpack__(**settings)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()

    def detach(self) -> Tensor:
        return self

    def cpu(self) -> Tensor:
        return self

    def numpy(self) -> np.ndarray:
        return self.array

    def float(self) -> Tensor:
        return Tensor(self.array)


@pytest.mark.parametrize("dtype", ["torch.float64", "torch.bfloat16"])
def test_torch_tensors_are_summed_on_their_card(
    stand_in: Any,
    monkeypatch: pytest.MonkeyPatch,
    dtype: str,
) -> None:
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(Tensor=Tensor))
    there, host = empty("exact").update(Tensor(X, dtype), Tensor(Y, dtype)), empty("exact").update(X, Y)
    same(there, host)
    with pytest.raises(InvalidTypeError, match="must be where those before were, on card 0"):
        there.update(X, Y)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "cupy", None)  # not installed: copied to the host
        same(host.update(Tensor(X, dtype), Tensor(Y, dtype)), empty("exact").update(X, Y).update(X, Y))
