"""Bases: the same key is the same basis, by the slow twin of the stream too."""

from __future__ import annotations

import numpy as np
import pytest

from rpcls import Gaussian, Key
from rpcls.adapters import bases
from rpcls.random import philox4x32


def test_uniform_is_the_documented_stream() -> None:
    key = Key.of(5)
    got = bases.uniform(key, (3, 5))
    for e, value in enumerate(got.ravel()):
        word = philox4x32((e // 4, 0, 0, 6), key.words)[e % 4]
        assert value == (2 * (word >> 8) + 1) / 2**24 - 1
    np.testing.assert_array_equal(bases.uniform(key, (3, 5), np.float32).astype(float), got)


def test_uniform_does_not_depend_on_how_much_is_asked_for() -> None:
    key = Key.of(1)
    many = bases.uniform(key, ((1 << 22) + 8,))
    np.testing.assert_array_equal(bases.uniform(key, (10,)), many[:10])
    assert abs(many).max() < 1
    # mean and variance of 4·10⁶ draws: six standard deviations
    assert abs(many.mean()) < 6 / np.sqrt(3 * many.size) and abs(many.var() - 1 / 3) < 6 * 0.3 / np.sqrt(many.size)


def test_normal_is_the_gaussian_sketch_unscaled() -> None:
    key = Key.of(2)
    S = Gaussian().sample(5, m=6, rng=key).toarray()
    np.testing.assert_allclose(bases.normal(key, (2, 3, 5)).reshape(6, 5), S.T * np.sqrt(5), rtol=1e-15)
    assert bases.normal(key, (0, 5)).shape == (0, 5)


@pytest.mark.parametrize(("population", "count"), [(10, 0), (10, 1), (10, 5), (10, 9), (10, 10), (10**6, 1000), (1, 1)])
def test_choice(population: int, count: int) -> None:
    got = bases.choice(Key.of(3), population, count)
    assert len(got) == count == len(set(got.tolist())) and np.array_equal(got, np.sort(got))
    assert count == 0 or (got[0] >= 0 and got[-1] < population)
    np.testing.assert_array_equal(got, bases.choice(Key.of(3), population, count))


def test_choice_is_fair() -> None:
    """Each of 12 is chosen 4 times in 12; 4000 subsets, failure probability below 1e-6 by Hoeffding's bound."""
    counts = np.zeros(12)
    for seed in range(4000):
        counts[bases.choice(Key(seed), 12, 4)] += 1
    assert np.abs(counts / 4000 - 1 / 3).max() < np.sqrt(np.log(2 * 12 / 1e-6) / (2 * 4000))
