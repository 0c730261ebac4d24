"""What every family keeps, on layers of every kind: half-steps against dense least squares, ridge, notes, seeds."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from layers import (
    FAMILIES,
    KINDS,
    SHAPES,
    bases,
    check_fit,
    check_model,
    dense_solution,
    kinds,
    layer,
    seeds,
    shapes,
    statistics,
)

import rpcls.adapters as ra
from rpcls.adapters import fit
from rpcls.adapters.family import Family, Layer
from rpcls.errors import ConvergenceWarning, InvalidValueError

every_family = pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES)
every_kind = pytest.mark.parametrize("kind", KINDS)
every_shape = pytest.mark.parametrize("shape", SHAPES)


def quiet_fit(*arguments: Any, **settings: Any) -> ra.FitResult:
    """Without the warning that more rounds would gain a little."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return fit(*arguments, **settings)


def test_every_public_family_is_listed() -> None:
    public = {c for c in vars(ra).values() if isinstance(c, type) and issubclass(c, Family) and c is not Family}
    one_layer = {c for c in public if not hasattr(c, "bind_all")}
    assert one_layer == {type(make((4, 4), 0)) for make in FAMILIES.values()}


@every_family
@settings(max_examples=8)
@given(shape=shapes, kind=kinds, seed=seeds)
def test_half_steps_are_dense_least_squares(make: Any, shape: tuple[int, int], kind: str, seed: int) -> None:
    check_model(make(shape, seed), *layer(kind, shape, seed))


@every_family
@every_kind
@every_shape
def test_the_result_is_what_it_says(make: Any, kind: str, shape: tuple[int, int]) -> None:
    X, Z, W = layer(kind, shape, 1)
    s, family = statistics(X, Z), make(shape, 1)
    result = quiet_fit(s, family, weight=W, ridge=0)
    check_fit(result, s)
    if not isinstance(family, ra.AdaMix) and not getattr(family, "nuclear", 0):  # which minimise something else
        residual = np.linalg.norm(X @ result.delta().T - Z) ** 2
        np.testing.assert_allclose(result.history[-1], residual, rtol=1e-8, atol=1e-10 * np.vdot(Z, Z))


@every_family
def test_ridge_and_preserved_inputs_are_further_tokens(make: Any) -> None:
    shape = (6, 9)
    X, Z, W = layer("few", shape, 2)
    family, kept = make(shape, 2), np.random.default_rng(3).standard_normal((4, 9))
    pull = np.sqrt(0.2 * np.trace(X.T @ X) / 9) * np.eye(9)
    few = {"weight": W, "max_iterations": 2}  # so that rounding errors do not grow
    got = quiet_fit(statistics(X, Z), family, ridge=0.2, preserve=kept.T @ kept, **few)
    rows = np.vstack([X, kept, pull])
    want = quiet_fit(statistics(rows, np.vstack([Z, np.zeros((13, 6))])), family, ridge=0, **few)
    np.testing.assert_allclose(got.delta(), want.delta(), rtol=1e-6, atol=1e-6 * np.abs(want.delta()).max())
    np.testing.assert_allclose(got.history[-1], want.history[-1], rtol=1e-9)
    np.testing.assert_allclose(got.explained, statistics(X, Z).explained(got.delta()), rtol=1e-9)


@every_family
@every_kind
def test_what_the_data_do_not_determine_is_small_and_said(make: Any, kind: str) -> None:
    X, Z, W = layer(kind, (6, 9), 4)
    family = make((6, 9), 4)
    result = quiet_fit(statistics(X, Z), family, weight=W, ridge=0)
    degenerate = {name for name, (rank, size) in result.identifiable.items() if rank is not None and rank < size}
    assert len(result.notes) == len(degenerate)
    model = family.bind(Layer(6, 9, W))
    if not model.halves_in_order or isinstance(family, ra.FineGates):  # whose own tests look at this
        return
    name = model.halves_in_order[-1]
    half = model.halves(result.factors)[name]()
    seen = X if model.inner is None else X @ model.inner.T
    design = np.stack([(seen @ G.T).ravel() for G in bases(half)], axis=1)
    assert result.identifiable[name] == (np.linalg.matrix_rank(design, tol=1e-6 * np.linalg.norm(design, 2)), half.size)
    theta, condition = dense_solution(half, seen, Z)
    assert condition < 1e5
    np.testing.assert_allclose(result.factors[name], theta, atol=1e-9 * condition**2 * np.abs(theta).max())


@every_family
def test_the_same_seed_is_the_same_result(make: Any) -> None:
    X, Z, W = layer("tall", (8, 8), 5)
    s, family = statistics(X, Z), make((8, 8), 5)
    again = pickle.loads(pickle.dumps(family))
    want = quiet_fit(s, family, weight=W, max_iterations=3).delta()
    np.testing.assert_array_equal(quiet_fit(s, again, weight=W, max_iterations=3).delta(), want)
    if hasattr(family, "seed") or hasattr(family, "random_loc_seed"):
        other = make((8, 8), 6)
        assert not np.array_equal(quiet_fit(s, other, weight=W, max_iterations=3).delta(), want)


@every_family
def test_thin_statistics_are_enough_where_there_is_one_projection(make: Any) -> None:
    X, Z, W = layer("tall", (6, 9), 7)
    family = make((6, 9), 7)
    try:
        A = family.projection(9, W)
    except InvalidValueError:
        with pytest.raises(InvalidValueError, match="thin statistics keep P and Q only"):
            fit(statistics(X, Z, thin=np.ones((2, 9))), family, weight=W)
        return
    full, thin = (quiet_fit(statistics(X, Z, **form), family, weight=W) for form in ({}, {"thin": A}))
    np.testing.assert_allclose(thin.delta(), full.delta(), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(thin.explained, full.explained, rtol=1e-9)


@every_family
def test_nothing_wanted_is_nothing_done(make: Any) -> None:
    X, Z, W = layer("tall", (6, 9), 8)
    family = make((6, 9), 8)
    result = quiet_fit(statistics(X, 0 * Z), family, weight=W)
    assert np.isfinite(result.delta()).all() and result.explained == 0
    if not isinstance(family, ra.ETHER | ra.AdaMix | ra.LinearAdapter):  # which cannot do nothing
        np.testing.assert_allclose(result.delta(), 0, atol=1e-9)
