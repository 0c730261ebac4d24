"""LoRTA: one tensor for all layers against dense least squares over all of them; mappings of statistics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layers import KINDS, kinds, layer, seeds, statistics

from rpcls import SparseSign
from rpcls.adapters import FitResult, LayerStatistics, LoRA, LoRTA, cp, fit, systems
from rpcls.adapters.cp import CPModel
from rpcls.adapters.family import Layer, SpanningFamily
from rpcls.adapters.linear import Linear
from rpcls.adapters.quadratic import Sum
from rpcls.errors import ConvergenceWarning, InvalidTypeError, InvalidValueError
from rpcls.random import Key

Rows = dict[str, tuple[np.ndarray, np.ndarray]]  # X and Z of every matrix

sizes = st.sampled_from([(d, H, b) for d in range(2, 10) for H in range(1, 4) for b in range(1, 4)])  # d, H, d/H
matrices = st.sampled_from(["qkvo", "qv", "o", "ko"])


def names(matrices: str, layers: int) -> list[str]:
    return [f"model.layers.{n}.self_attn.{m}_proj" for n in range(layers) for m in matrices]


def problem(size: tuple[int, int, int], matrices: str, kind: str, seed: int, layers: int = 2) -> Rows:
    """Inputs and wanted outputs of every matrix; none of the second layer's last one, if it has several."""
    d, H, b = size
    rows = {}
    for k, name in enumerate(names(matrices, layers)):
        X, Z, _ = layer(kind, (d, H * b) if name.endswith("o_proj") else (H * b, d), seed + k)
        rows[name] = X, Z
    if len(matrices) > 1:
        del rows[names(matrices, layers)[-1]]
    return rows


def collected(rows: Rows, **settings: Any) -> dict[str, LayerStatistics]:
    return {name: statistics(X, Z, **settings) for name, (X, Z) in rows.items()}


def bound(family: LoRTA, rows: Rows) -> CPModel:
    model = family.bind_all({name: Layer(Z.shape[1], X.shape[1]) for name, (X, Z) in rows.items()})
    assert isinstance(model, CPModel)
    return model


def objective(rows: Rows) -> Sum:
    return Sum({name: s.objective() for name, s in collected(rows).items()})  # type: ignore[misc]


def design(half: Linear, rows: Rows) -> np.ndarray:
    """Column k holds vec(XGₖᵀ) of all layers below each other."""
    updates = [half.apply(unit.reshape(half.theta_shape)) for unit in np.eye(half.size)]
    return np.stack([np.concatenate([(X @ G[n].T).ravel() for n, (X, _) in rows.items()]) for G in updates], axis=1)


def check_half(half: Linear, rows: Rows, start: np.ndarray, rtol: float = 1e-10) -> None:
    """The operations agree with the dense design, and the solution with its least squares."""
    f, D, Z = objective(rows), design(half, rows), np.concatenate([Z.ravel() for _, Z in rows.values()])
    M, m = D.T @ D, (D.T @ Z).reshape(half.theta_shape)
    tiny = 1e-12 * max(np.abs(M).max(), 1e-30)
    np.testing.assert_allclose(half.gram(f.C), M, atol=tiny, rtol=1e-9)
    some = np.arange(0, half.size, 2)
    np.testing.assert_allclose(half.gram(f.C, some), M[np.ix_(some, some)], atol=tiny, rtol=1e-9)
    np.testing.assert_allclose(half.adjoint(f.R), m, atol=1e-10 * np.abs(m).max(initial=1e-30), rtol=1e-9)
    blocks = half.blocks()
    if blocks is not None:
        label = np.empty(half.size, int)
        label[np.concatenate(blocks)] = np.repeat(np.arange(len(blocks)), [len(b) for b in blocks])
        assert np.abs(M[label[:, None] != label]).max(initial=0.0) <= tiny
    step = half.solve(f, start)
    theta, _, _, s = np.linalg.lstsq(D, Z, rcond=1e-9)
    s = s[s > 1e-9 * s[0]] if s[0] > 0 else np.ones(1)
    condition = s[0] / s[-1]
    want, got = half.apply(theta.reshape(half.theta_shape)), half.apply(step.theta)
    apart = np.sqrt(sum(np.linalg.norm(want[n] - got[n]) ** 2 for n in rows))
    size = np.sqrt(sum(np.linalg.norm(want[n]) ** 2 for n in rows))
    if condition < 1e5:  # normal equations lose half of the digits
        assert apart <= max(rtol, 50 * np.finfo(float).eps * condition**2) * max(size, 1e-30)
    residual = sum(np.linalg.norm(X @ got[n].T - Z) ** 2 for n, (X, Z) in rows.items())
    np.testing.assert_allclose(step.value, residual, rtol=1e-9, atol=1e-10 * np.linalg.norm(Z) ** 2)


def relative_error(result: FitResult, wanted: Mapping[str, np.ndarray]) -> float:
    apart = sum(np.linalg.norm(result.delta(name) - dW) ** 2 for name, dW in wanted.items())
    return float(np.sqrt(apart / sum(np.linalg.norm(dW) ** 2 for dW in wanted.values())))


@given(sizes, matrices, kinds, seeds)
def test_each_factor_is_least_squares_over_all_layers(
    size: tuple[int, int, int], matrices: str, kind: str, seed: int
) -> None:
    rows = problem(size, matrices, kind, seed % 1000)
    model = bound(LoRTA(2, size[1], alpha=3.0), rows)
    rng = np.random.default_rng(seed)
    theta = {name: rng.standard_normal(part.shape) for name, part in model.start(Key(0)).items()}
    for name, make in model.halves(theta).items():
        half = make()
        seen, again = model.seen(theta), half.delta(theta[name])
        for n in rows:
            np.testing.assert_allclose(again[n], seen[n], rtol=1e-12, atol=1e-12)
        check_half(half, rows, theta[name])


def test_the_tensor_is_the_papers() -> None:
    rows = problem((5, 3, 2), "qkvo", "tall", 0, layers=3)
    model = bound(LoRTA(4, 3, alpha=2.0), rows)
    rng = np.random.default_rng(1)
    A, B, H, L, M = (rng.standard_normal((n, 4)) for n in (5, 2, 3, 3, 4))
    T = 0.5 * np.einsum("aj,bj,hj,lj,mj->abhlm", A, B, H, L, M)
    updates = model.seen({"A": A, "B": B, "C_H": H, "C_L": L, "C_M": M})
    assert len(updates) == 11 and "model.layers.2.self_attn.o_proj" not in updates
    for n in range(3):
        for m, matrix in enumerate("qkv"):
            dW = updates[f"model.layers.{n}.self_attn.{matrix}_proj"]
            np.testing.assert_allclose(dW.reshape(3, 2, 5), T[..., n, m].transpose(2, 1, 0), atol=1e-12)
    for n in range(2):
        dW = updates[f"model.layers.{n}.self_attn.o_proj"]
        np.testing.assert_allclose(dW.reshape(5, 3, 2), T[..., n, 3].transpose(0, 2, 1), atol=1e-12)
    with pytest.raises(KeyError, match="nothing"):
        updates["nothing"]


@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("matrices", ["qkvo", "o"])
@pytest.mark.parametrize("kind", KINDS)
def test_conjugate_gradients_solve_the_same(
    kind: str, matrices: str, same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For A, and for B of a single head; they are exactly preconditioned if all inputs are alike."""
    rows = problem((6, 1, 5), matrices, kind, 3, layers=3)
    if same:
        X = {False: rows[names("q" + matrices, 1)[-1]][0], True: layer(kind, (6, 6))[0]}
        rows = {n: (X[not n.endswith("o_proj")] * (2 + k), Z) for k, (n, (_, Z)) in enumerate(rows.items())}
    model, f = bound(LoRTA(3, 1), rows), objective(rows)
    rng = np.random.default_rng(5)
    theta = {name: rng.standard_normal(part.shape) for name, part in model.start(Key(0)).items()}
    halves = {name: model.halves(theta)[name]() for name in ("A", "B")}
    dense = {name: half.solve(f) for name, half in halves.items()}
    iterations, plain = [], systems.conjugate_gradients

    def counted(*args: Any, **settings: Any) -> Any:
        solved = plain(*args, **settings)
        iterations.append(solved[1])
        return solved

    monkeypatch.setattr(systems, "conjugate_gradients", counted)
    monkeypatch.setattr(cp, "_DENSE", 0)
    for start in (None, theta):
        for name, half in halves.items():
            step = half.solve(f, None if start is None else start[name])
            np.testing.assert_allclose(step.value, dense[name].value, rtol=1e-9, atol=1e-9 * f.energy)
            assert step.rank is None or (name, matrices) == ("A", "o")  # no input side: one small system
    assert len(iterations) == (2 if matrices == "o" else 4)
    if same:
        assert max(iterations) <= (8 if kind == "few" else 3)  # rounding errors where C is singular


def planted(seed: int, rank: int = 3, layers: int = 3) -> tuple[dict[str, LayerStatistics], dict[str, np.ndarray]]:
    rows = problem((10, 3, 4), "qkvo", "tall", seed, layers)
    model = bound(LoRTA(rank, 3), rows)
    rng = np.random.default_rng(seed)
    wanted = dict(model.seen({name: rng.standard_normal((n, rank)) for name, n in model.sizes.items()}))
    return {n: statistics(X, X @ wanted[n].T) for n, (X, _) in rows.items()}, wanted


@pytest.mark.parametrize("seed", range(3))
def test_a_planted_tensor_is_recovered(seed: int) -> None:
    s, wanted = planted(seed)
    result = fit(s, LoRTA(3, 3), ridge=0, max_iterations=200, tol=1e-14)
    assert relative_error(result, wanted) < 1e-6
    assert result.converged and result.explained > 1 - 1e-9
    assert result.parameters == 3 * (10 + 4 + 3 + 3 + 4) and result.bytes == 4 * result.parameters
    assert repr(result).startswith("FitResult(LoRTA(rank=3, heads=3, alpha=None, places=None), 11 layers, explained=1")


def test_the_start_finds_the_factors_of_one_component() -> None:
    rows = {**problem((6, 3, 2), "qo", "tall", 0), "model.layers.1.self_attn.o_proj": layer("tall", (6, 6))[:2]}
    model = bound(LoRTA(1, 3), rows)
    rng = np.random.default_rng(2)
    theta = {name: rng.standard_normal((n, 1)) for name, n in model.sizes.items()}
    f = Sum({name: LayerStatistics.from_delta(dW).objective() for name, dW in model.seen(theta).items()})  # type: ignore[misc]
    start = model.start_for(f, Key(9))
    assert not start["A"].any()
    for name in ("B", "C_H", "C_L", "C_M"):
        assert abs(np.vdot(start[name], theta[name])) > (1 - 1e-12) * np.linalg.norm(theta[name])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("matrices", ["qkvo", "qv", "o"])
def test_the_objective_never_rises(kind: str, matrices: str) -> None:
    rows = problem((8, 2, 3), matrices, kind, 7, layers=4)
    s = collected(rows)
    for ridge in (0.0, 0.1):
        with pytest.warns(ConvergenceWarning, match="3 rounds of LoRTA were not enough"):
            result = fit(s, LoRTA(3, 2), ridge=ridge, max_iterations=3, tol=0)
        history = np.array(result.history)
        assert len(history) == 16 and np.all(np.diff(history) <= 0)
        loss = sum(
            np.linalg.norm(X @ result.delta(n).T - Z) ** 2
            + ridge * np.trace(X.T @ X) / X.shape[1] * np.linalg.norm(result.delta(n)) ** 2
            for n, (X, Z) in rows.items()
        )
        np.testing.assert_allclose(history[-1], loss, rtol=1e-9)
        np.testing.assert_allclose(history[0], sum(np.linalg.norm(Z) ** 2 for _, Z in rows.values()), rtol=1e-12)
        for name in ("A", "C_L", "C_M", "C_H"):  # B was the last to be solved for
            np.testing.assert_allclose(np.linalg.norm(result.factors[name], axis=0), 1.0, rtol=1e-12)
        residual = sum(np.linalg.norm(X @ result.delta(n).T - Z) ** 2 for n, (X, Z) in rows.items())
        np.testing.assert_allclose(result.explained, 1 - residual / history[0], atol=1e-10)


def test_preserved_inputs_of_some_layers() -> None:
    rows = problem((6, 2, 2), "qo", "tall", 2)
    s, first = collected(rows), next(iter(rows))
    kept = np.random.default_rng(0).standard_normal((9, 6))
    X, Z = rows[first]
    joined = {**s, first: statistics(np.vstack([X, kept]), np.vstack([Z, np.zeros((9, Z.shape[1]))]))}
    settings: dict[str, Any] = {"ridge": 0.0, "max_iterations": 5, "tol": 1.0}
    want = fit(joined, LoRTA(2, 2), **settings)
    for C0 in (kept.T @ kept, statistics(kept, np.zeros((9, Z.shape[1])))):
        got = fit(s, LoRTA(2, 2), preserve={first: C0}, **settings)
        np.testing.assert_allclose(got.history, want.history, rtol=1e-9)


def test_one_matrix_and_rank_one_is_reduced_rank_regression_by_heads() -> None:
    """One head, one layer, one matrix: the best rank-one update."""
    X, Z, _ = layer("tall", (4, 7))
    s = statistics(X, Z)
    result = fit({"h.0.attn.q": s}, LoRTA(1, 1), ridge=0, max_iterations=500, tol=1e-13)
    best = fit(s, LoRA(1), ridge=0)
    np.testing.assert_allclose(result.history[-1], best.history[-1], rtol=1e-9)
    np.testing.assert_allclose(result.delta("h.0.attn.q"), best.delta(), atol=1e-5)


def test_what_is_degenerate_is_said() -> None:
    zero = {name: LayerStatistics.from_delta(np.zeros((4, 4))) for name in names("qo", 2)}
    result = fit(zero, LoRTA(2, 2), ridge=0)
    assert not any(result.delta(name).any() for name in zero)
    assert result.explained == 0.0 and result.history[-1] == 0.0
    T = np.outer([1, 2, 0, 1], [1, 0, 3, 1.0])
    rank_one = {name: LayerStatistics.from_delta(T if name.endswith("q_proj") else T.T) for name in zero}
    result = fit(rank_one, LoRTA(3, 2), ridge=0, rng=1)
    np.testing.assert_allclose(result.explained, 1.0, atol=1e-9)
    assert any("unknowns are not determined by these inputs" in note for note in result.notes)
    assert set(result.identifiable) == {"A", "B", "C_H", "C_L", "C_M"}


def test_names_tell_the_place() -> None:
    family = LoRTA(1, 1)
    for name, place in {
        "model.layers.11.self_attn.q_proj": (11, "q"),
        "roberta.encoder.layer.3.attention.self.key": (3, "k"),
        "roberta.encoder.layer.3.attention.output.dense": (3, "o"),
        "distilbert.transformer.layer.0.attention.v_lin": (0, "v"),
        "layers.2.attention.wo": (2, "o"),
        "vision.1.blocks.4.attn.out_proj": (4, "o"),
        "7.v": (7, "v"),
    }.items():
        assert family._place(name) == place
    s = {"a": LayerStatistics.from_delta(np.ones((4, 3))), "b": LayerStatistics.from_delta(np.ones((3, 4)))}
    result = fit(s, LoRTA(1, 2, places={"a": (0, "k"), "b": (0, "o")}), ridge=0)
    np.testing.assert_allclose(result.delta("a"), np.ones((4, 3)), atol=1e-6)
    np.testing.assert_allclose(result.delta("b"), np.ones((3, 4)), atol=1e-6)
    assert result.factors["C_L"].shape == (1, 1) and result.factors["C_M"].shape == (2, 1)


def test_bad_names_and_shapes() -> None:
    one, other = LayerStatistics.from_delta(np.ones((4, 6))), LayerStatistics.from_delta(np.ones((6, 6)))
    for mapping, family, message in [
        ({"layers.q_proj": one}, LoRTA(1, 2), r"'layers.q_proj' does not tell the number of its layer; give places="),
        ({"layers.0.up_proj": one}, LoRTA(1, 2), r"'layers.0.up_proj' does not tell which of q, k, v, o it is"),
        ({"layers.0.dense": one}, LoRTA(1, 2), "does not tell which of q, k, v, o it is"),
        ({"a.0.q": one, "b.0.query": one}, LoRTA(1, 2), r"'a.0.q' and 'b.0.query' are both matrix q of layer 0"),
        ({"0.q": one}, LoRTA(1, 3), "heads must divide the outputs of '0.q', 4, got 3"),
        ({"0.o": one}, LoRTA(1, 4), "heads must divide the inputs of '0.o', 6, got 4"),
        ({"0.q": one, "0.k": other}, LoRTA(1, 2), r"'0.q' makes that 4 × 6, and '0.k', of matrix k, is 6 × 6"),
        ({"0.q": one, "0.o": one}, LoRTA(1, 2), r"'0.q' makes that 4 × 6, and '0.o', of matrix o, is 4 × 6"),
        ({"x": one}, LoRTA(1, 2, places={}), "places must have every layer of statistics, and 'x' is missing"),
        (
            {"x": one},
            LoRTA(1, 2, places={"x": (0, "z")}),
            r"places\['x'\] must be \(layer, matrix\) with a matrix of q",
        ),
        ({"x": one}, LoRTA(1, 2, places={"x": (-1, "q")}), r"the layer of places\['x'\] must be at least 0, got -1"),
    ]:
        with pytest.raises(InvalidValueError, match=message):
            fit(mapping, family)
    with pytest.raises(InvalidValueError, match="rank must be at least 1, got 0"):
        LoRTA(0, 2)
    with pytest.raises(InvalidValueError, match="heads must be at least 1, got 0"):
        LoRTA(2, 0)
    with pytest.raises(InvalidValueError, match="alpha must be more than 0"):
        LoRTA(2, 2, alpha=0)


def test_bad_mappings() -> None:
    s = LayerStatistics.from_delta(np.ones((4, 4)))
    with pytest.raises(
        InvalidValueError, match="LoRA fits one layer at a time, and statistics is a mapping of 2; call"
    ):
        fit({"0.q": s, "0.k": s}, LoRA(1))
    with pytest.raises(InvalidValueError, match="parameters of LoRTA are shared by several layers; give a mapping"):
        fit(s, LoRTA(1, 2))
    with pytest.raises(InvalidValueError, match="at least one layer, got an empty mapping"):
        fit({}, LoRTA(1, 2))
    with pytest.raises(InvalidTypeError, match="must map names to LayerStatistics, got ndarray under"):
        fit({"0.q": np.ones((4, 4))}, LoRTA(1, 2))  # type: ignore[dict-item]
    with pytest.raises(InvalidTypeError, match="must map names to LayerStatistics, got LayerStatistics under 0"):
        fit({0: s}, LoRTA(1, 2))  # type: ignore[dict-item]
    with pytest.raises(InvalidTypeError, match="must be LayerStatistics or a mapping of them, got list"):
        fit([s], LoRTA(1, 2))  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match="preserve must be a mapping as statistics is, got ndarray"):
        fit({"0.q": s}, LoRTA(1, 2), preserve=np.eye(4))
    with pytest.raises(InvalidValueError, match=r"weight has '1.q', which is no layer of statistics: '0.q'"):
        fit({"0.q": s}, LoRTA(1, 2), weight={"1.q": np.eye(4)})
    with pytest.raises(InvalidValueError, match="these statistics are empty"):
        fit({"0.q": LayerStatistics(4, 4)}, LoRTA(1, 2))
    thin = LayerStatistics(4, 4, thin=np.eye(4)[:2]).update(np.eye(4), np.eye(4))
    with pytest.raises(InvalidValueError, match="needs all of C and R, and thin statistics"):
        fit({"0.q": thin}, LoRTA(1, 2))
    result = fit({f"{n}.q": s for n in range(10)}, LoRTA(1, 2))
    with pytest.raises(
        InvalidValueError, match=r"name must be one of the fitted layers, '0.q', .* … \(10 in all\); got"
    ):
        result.delta()
    with pytest.raises(InvalidValueError, match=r"got '10\.q'"):
        result.delta("10.q")
    with pytest.raises(InvalidValueError, match="name must be None: this is the fit of one layer; got 'x'"):
        fit(s, LoRA(1)).delta("x")
    assert isinstance(LoRTA(1, 2), SpanningFamily)


def test_statistics_of_any_form_and_weights_by_name() -> None:
    rows = problem((6, 2, 3), "qv", "tall", 1)
    exact = fit(collected(rows), LoRTA(2, 2), max_iterations=2, tol=1.0)
    sketched = fit(collected(rows, sketch=SparseSign(), sketch_size=400, rng=0), LoRTA(2, 2), max_iterations=2, tol=1.0)
    assert abs(exact.explained - sketched.explained) < 0.2
    W = {name: np.ones((6, 6)) for name in rows}
    weighted = fit(collected(rows), LoRTA(2, 2), weight=W, max_iterations=2, tol=1.0)
    assert isinstance(weighted.layer, Mapping)
    for name in rows:
        np.testing.assert_array_equal(weighted.layer[name].weight, W[name])
        np.testing.assert_array_equal(weighted.delta(name), exact.delta(name))
