"""fit and FitResult: errors, warnings, what is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from layers import layer, random, statistics

from rpcls.adapters import NOLA, LayerStatistics, LinearAdapter, LoRA, LoRAXS, VeRA, fit
from rpcls.adapters.quadratic import Quadratic
from rpcls.errors import ConvergenceWarning, InvalidTypeError, InvalidValueError, NonFiniteError

T = random((4, 6), 0)


@pytest.mark.parametrize(
    ("arguments", "settings", "error", "message"),
    [
        ((T, LoRA(1)), {}, InvalidTypeError, "statistics must be LayerStatistics.*, got ndarray"),
        ((None, LoRA), {}, InvalidTypeError, r"family must be a family such as .*; make a value of it: LoRA\(…\)"),
        ((None, "LoRA"), {}, InvalidTypeError, r"family must be a family such as LoRA\(rank=8\), got 'LoRA'"),
        ((None, LoRA(1)), {"ridge": -0.1}, InvalidValueError, "ridge must be at least 0, got -0.1"),
        ((None, LoRA(1)), {"ridge": np.nan}, InvalidValueError, "ridge must be at least 0, got nan"),
        ((None, LoRA(1)), {"tol": "small"}, InvalidTypeError, "tol must be a number, got str 'small'"),
        ((None, LoRA(1)), {"tol": -1}, InvalidValueError, "tol must be at least 0, got -1"),
        ((None, LoRA(1)), {"max_iterations": 0}, InvalidValueError, "max_iterations must be at least 1, got 0"),
        ((None, LoRA(1)), {"max_iterations": 2.5}, InvalidTypeError, "max_iterations must be an int, got float 2.5"),
        ((None, LoRA(1)), {"preserve": np.eye(4)}, InvalidValueError, r"preserve must have shape .* = \(6, 6\)"),
        ((None, LoRA(1)), {"preserve": np.full((6, 6), np.nan)}, NonFiniteError, r"preserve\[0, 0\] is nan"),
        ((None, LoRAXS(1)), {"weight": T.T}, InvalidValueError, r"weight must have shape .* = \(4, 6\), got \(6, 4\)"),
        ((None, LoRA(1)), {"rng": "seed"}, InvalidTypeError, "rng"),
    ],
)
def test_bad_calls(arguments: tuple[Any, Any], settings: dict[str, Any], error: type, message: str) -> None:
    s, family = arguments
    with pytest.raises(error, match=message):
        fit(LayerStatistics.from_delta(T) if s is None else s, family, **settings)


def test_a_weight_is_given_once() -> None:
    s = LayerStatistics(6, 4, weight=T).update(np.eye(6), random((6, 4), 1))
    with pytest.raises(InvalidValueError, match="weight must be None: the statistics have one already"):
        fit(s, LoRAXS(1), weight=T)
    with pytest.raises(
        InvalidValueError, match=r"LoRAXS is made from the layer's weight; give it: .*fit\(…, weight=W0\)"
    ):
        fit(LayerStatistics.from_delta(T), LoRAXS(1))


def test_thin_statistics_serve_their_own_family_only() -> None:
    X, Z, _ = layer("tall", (4, 6))
    s = statistics(X, Z, thin=VeRA(3).projection(6))
    fit(s, VeRA(3), max_iterations=200)
    with pytest.raises(
        InvalidValueError, match=r"keep the products of one A \(3, 6\) only, and the family needs another"
    ):
        fit(s, VeRA(2))
    with pytest.raises(InvalidValueError, match="NOLA does not see the inputs through one fixed matrix"):
        NOLA(2, 2, 2).projection(6)


def test_a_result_tells_what_it_is() -> None:
    s = LayerStatistics.from_delta(T)
    result = fit(s, LoRA(2))
    assert repr(result).startswith("FitResult(LoRA(rank=2, alpha=None), 4 × 6, explained=0.")
    assert "parameters=20, half-steps=1, converged=True" in repr(result)
    assert result.parameters == 20 and result.bytes == 80 and result.layer.shape == (4, 6)
    np.testing.assert_allclose(result.explained, s.explained(result.delta()))
    assert result.identifiable == {"rank": (2, 2)} and result.notes == ()


def test_rounds_end_by_tol() -> None:
    s, family = LayerStatistics.from_delta(random((9, 7), 2)), NOLA(6, 6, 2)
    loose, tight = fit(s, family, tol=0.5), fit(s, family, tol=1e-9, max_iterations=1000)
    assert loose.converged and tight.converged and len(loose.history) < len(tight.history)
    last = tight.history[-3] - tight.history[-1]
    assert last <= 1e-9 * s.energy < tight.history[-5] - tight.history[-3]
    with pytest.warns(ConvergenceWarning, match=r"1 rounds of NOLA were not enough for tol = 1e-09; .*Raise max_iter"):
        best = fit(s, family, tol=1e-9, max_iterations=1)
    assert best.history == loose.history[:3] and not best.converged


def test_statistics_are_left_alone() -> None:
    X, Z, _ = layer("tall", (4, 6))
    s = statistics(X, Z)
    C, R, energy = s.C.copy(), s.R.copy(), s.energy
    for family in (LoRA(2), LinearAdapter(random((3, 4, 6), 1)), NOLA(2, 2, 2)):
        fit(s, family, max_iterations=200)
    np.testing.assert_array_equal(s.C, C)
    np.testing.assert_array_equal(s.R, R)
    assert s.energy == energy


def test_multiples_of_the_identity_are_seen() -> None:
    R = np.ones((2, 3))
    assert Quadratic(2.5 * np.eye(3), R, 1.0).is_scalar == 2.5
    assert Quadratic(np.zeros((3, 3)), R, 1.0).is_scalar == 0.0
    for C in (np.diag([1.0, 1.0, 2.0]), np.eye(3) + 1e-3):
        assert Quadratic(C, R, 1.0).is_scalar is None
