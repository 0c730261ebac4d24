"""Whole models without torch: mappings of statistics, shared bases, names in errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from layers import FAMILIES

from rpcls import Key
from rpcls.adapters import (
    NOLA,
    DynamicSubset,
    LayerStatistics,
    LoRA,
    LoRAXS,
    MELoRA,
    RandLoRA,
    SaRA,
    SpaRTA,
    VeRA,
    fit,
    fit_model,
)
from rpcls.adapters.lazy import Lazy
from rpcls.errors import ConvergenceWarning, InvalidTypeError, InvalidValueError, NonFiniteError

SIZES = {"a.up": (9, 6), "a.down": (6, 9), "b.up": (9, 6)}


def wanted(seed: int = 0) -> dict[str, LayerStatistics]:
    rng = np.random.default_rng(seed)
    found = {}
    for name, (o, i) in SIZES.items():
        W, X = rng.standard_normal((o, i)), rng.standard_normal((40, i))
        found[name] = LayerStatistics(i, o, weight=W).update(X, X @ (W + rng.standard_normal((o, i))).T)
    return found


def test_each_layer_is_fitted_as_by_itself() -> None:
    statistics = wanted()
    families = [
        LoRA(2),
        LoRAXS(2),
        MELoRA(1, 3),
        NOLA(8, 7, 2),
        VeRA(5),
        RandLoRA(3),
        SpaRTA(0.2),
        SaRA(),
        DynamicSubset(),
    ]
    for family in families:
        result = fit_model(statistics, family, ridge=0.02, max_iterations=40, tol=1e-3, rng=Key.of(3))
        assert list(result) == list(SIZES) and len(result) == 3
        for name, s in statistics.items():
            alone = fit(s, family, ridge=0.02, max_iterations=40, tol=1e-3, rng=3)
            np.testing.assert_array_equal(result[name].delta(), alone.delta())
            assert result.explained[name] == alone.explained
        assert result.parameters == sum(r.parameters for r in result.values()) and result.bytes == 4 * result.parameters


def test_results_keep_neither_bases_nor_weights_that_they_do_not_need() -> None:
    s = wanted()["a.down"]
    for make in FAMILIES.values():
        family = make((6, 9), 0)
        result = fit_model({"a": s}, family, tol=1.0)["a"]
        assert result._model is None and (result.layer.weight is not None) == family.needs_weight
        np.testing.assert_array_equal(result.delta(), fit(s, family, tol=1.0).delta())


def test_bases_of_smaller_layers_are_parts_of_those_of_larger_ones() -> None:
    """One A and one B for all layers, whatever their sizes."""
    family = RandLoRA(rank=3, seed=5)
    A, B = family.bases((11, 8))
    assert A.shape == (3, 1, 8) and B.shape == (11, 3, 3) and np.abs(np.sqrt([A.var(), B.var()]) - 1).max() < 0.2
    for shape in SIZES.values():
        a, b = family.bases(shape)
        np.testing.assert_array_equal(a, A[:, :, : a.shape[2]])
        np.testing.assert_array_equal(b, B[: b.shape[0], : b.shape[1]])
    family = VeRA(rank=4, seed=5)
    np.testing.assert_array_equal(family.projection(6), family.projection(9)[:, :6])
    np.testing.assert_array_equal(family.output_basis(6), family.output_basis(9)[:6])
    assert np.abs(family.projection(400).var() - 1) < 0.1 and np.abs(family.output_basis(400).var() - 0.5) < 0.05


def test_statistics_are_asked_for_one_at_a_time() -> None:
    statistics, asked = wanted(), []

    def load(name: str) -> LayerStatistics:
        asked.append(name)
        return statistics[name]

    lazy = Lazy(statistics, load)
    assert "b.up" in lazy and "c" not in lazy and lazy.get("c") is None and not asked
    fit_model(lazy, LoRA(1))
    assert asked == list(SIZES)


def test_weights_and_preserved_inputs_by_name() -> None:
    rng = np.random.default_rng(0)
    weights = {name: rng.standard_normal(size) for name, size in SIZES.items()}
    statistics = {name: LayerStatistics.from_delta(rng.standard_normal(size)) for name, size in SIZES.items()}
    result = fit_model(statistics, LoRAXS(2), weights=weights)
    np.testing.assert_array_equal(
        result["b.up"].delta(), fit(statistics["b.up"], LoRAXS(2), weight=weights["b.up"]).delta()
    )
    C0 = np.diag(np.arange(9.0))
    result = fit_model(statistics, LoRA(2), preserve={"a.down": C0})
    for name, s in statistics.items():
        alone = fit(s, LoRA(2), preserve=C0 if name == "a.down" else None)
        np.testing.assert_array_equal(result[name].delta(), alone.delta())


def test_families_by_name() -> None:
    families = {"a.up": LoRA(1), "a.down": LoRA(2), "b.up": SpaRTA(0.5), "c": VeRA(2)}
    result = fit_model(wanted(), families)
    assert [result[name].family for name in SIZES] == list(families.values())[:3]
    with pytest.raises(InvalidValueError, match=r"family has no entry for the layers 'a.down', 'b.up'"):
        fit_model(wanted(), {"a.up": LoRA(1)})


def test_one_warning_for_all_layers() -> None:
    with pytest.warns(
        ConvergenceWarning, match=r"3 of 3 layers did not reach tol = 1e-12 in 1 rounds: 'a.up', 'a"
    ) as w:
        result = fit_model(wanted(), VeRA(4), max_iterations=1, tol=1e-12)
    assert len(w) == 1 and w[0].filename == __file__ and not result["a.up"].converged


def test_text() -> None:
    result = fit_model(wanted(), LoRA(2))
    lines = str(result).splitlines()
    assert len(lines) == 4 and lines[0].split() == ["layer", "out", "×", "in", "explained", "parameters", "family"]
    assert lines[2].startswith("a.down ") and "6 × 9" in lines[2] and lines[2].endswith("LoRA(rank=2, alpha=None)")
    assert repr(result).startswith("ModelFit(3 layers, explained=") and repr(result).endswith("parameters=90)")


def test_errors_name_the_layer() -> None:
    statistics: dict[str, Any] = wanted()
    cases: list[tuple[Any, Any, dict[str, Any], type[Exception], str]] = [
        ({}, LoRA(1), {}, InvalidTypeError, "statistics must be a mapping .* got dict without any"),
        (
            statistics["a.up"],
            LoRA(1),
            {},
            InvalidTypeError,
            "must be a mapping from layers' names .* got LayerStatistics",
        ),
        (statistics, "LoRA", {}, InvalidTypeError, "family must be a family such as"),
        (
            statistics,
            {**dict.fromkeys(SIZES, LoRA(1)), "b.up": 3},
            {},
            InvalidTypeError,
            "family must be a family such as",
        ),
        (statistics, MELoRA(1, 2), {}, InvalidValueError, "layer 'a.up': blocks must divide both sides"),
        (
            {**statistics, "b.up": 3},
            LoRA(1),
            {},
            InvalidTypeError,
            "layer 'b.up': its statistics must be Layer.* got int",
        ),
        (
            statistics,
            LoRA(1),
            {"weights": {"a.upp": 0}},
            InvalidValueError,
            "weights: 'a.upp' is none .* near it: 'a.up'",
        ),
        (
            statistics,
            LoRA(1),
            {"preserve": {"a": 0}},
            InvalidValueError,
            "preserve: 'a' is none of the layers of statis",
        ),
        (
            statistics,
            LoRA(1),
            {"preserve": {"a.up": np.full((6, 6), np.nan)}},
            NonFiniteError,
            "layer 'a.up': preserve",
        ),
        (statistics, LoRA(1), {"tol": -1}, InvalidValueError, "layer 'a.up': tol must be at least 0, got -1"),
        (
            statistics,
            LoRA(1),
            {"batches": [1]},
            InvalidValueError,
            "to fit in sequence give model, teacher and batches",
        ),
    ]
    for given, family, settings, error, message in cases:
        with pytest.raises(error, match=message):
            fit_model(given, family, **settings)


def test_inputs_alone() -> None:
    X = np.random.default_rng(0).standard_normal((20, 6))
    s = LayerStatistics(6, 9).update(X)
    np.testing.assert_array_equal(s.C, X.T @ X)
    assert not s.R.any() and s.energy == 0 and fit(s, LoRA(1)).explained == 0
    T = np.ones((9, 6))
    np.testing.assert_allclose(LayerStatistics.from_delta(T, inputs=s).R, T @ X.T @ X, rtol=1e-14)
    with pytest.raises(InvalidValueError, match="Y must be given: with a weight it is the wanted output; got None"):
        LayerStatistics(6, 9, weight=T).update(X)
