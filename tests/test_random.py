"""Keys and Philox against published answers, and every error of a seed."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rpcls
from rpcls.errors import InvalidTypeError, InvalidValueError
from rpcls.random import STREAM_TAGS, STREAM_VERSION, Key, philox4x32

# Random123 1.14, tests/kat_vectors: philox4x32 10 <counter> <key> <answer>
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
KNOWN_ANSWERS_7 = [
    ((0, 0, 0, 0), (0, 0), (0x5F6FB709, 0x0D893F64, 0x4F121F81, 0x4F730A48)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x5207DDC2, 0x45165E59, 0x4D8EE751, 0x8C52F662)),
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_philox_known_answers(counter: tuple, key: tuple, answer: tuple) -> None:
    assert philox4x32(counter, key) == answer


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS_7)
def test_philox_known_answers_with_seven_rounds(counter: tuple, key: tuple, answer: tuple) -> None:
    assert philox4x32(counter, key, rounds=7) == answer


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_compiled_philox_known_answers(counter: tuple, key: tuple, answer: tuple) -> None:
    from rpcls.kernels.cpu import philox

    out = np.empty((1, 4), np.uint32)
    index = np.uint64(counter[0] + (counter[1] << 32))
    philox.words(np.uint64(key[0] + (key[1] << 32)), index, np.uint64(counter[2]), np.uint64(counter[3]), out)
    assert tuple(int(v) for v in out[0]) == answer


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 3), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_compiled_philox_is_its_python_twin(key: int, index: int, draw: int, tag: int) -> None:
    from rpcls.kernels.cpu import philox

    out = np.empty((2, 4), np.uint32)
    philox.words(np.uint64(key), np.uint64(index), np.uint64(draw), np.uint64(tag), out)
    for i in range(2):
        counter = ((index + i) % 2**32, (index + i) >> 32, draw, tag)
        assert tuple(int(v) for v in out[i]) == philox4x32(counter, (key % 2**32, key >> 32))


def test_streams_are_frozen() -> None:
    """If this fails, results of old seeds change: raise STREAM_VERSION and say so in the changelog."""
    assert STREAM_VERSION == 1
    assert STREAM_TAGS == {"fold": 0, "sparse-sign": 1, "rademacher": 2, "gaussian": 3, "hadamard": 4, "permutation": 5}
    assert Key.of(0) == Key(0xDB2CD7E7B0F478BE)
    assert Key.of(12345) == Key(int(np.random.SeedSequence(12345).generate_state(1, np.uint64)[0]))
    assert Key(0).fold(0) == Key(0xE169C58D6627E8D5)


def test_seeds() -> None:
    assert Key.of(5) == Key.of(np.int32(5)) == Key.of(np.uint64(5)) == Key.of(np.random.SeedSequence(5))
    assert Key.of(Key(9)) == Key(9) and Key(np.uint64(9)) == Key(9) and type(Key(np.uint64(9)).value) is int
    assert Key.of(2**200) != Key.of(2**201)
    generator, twin = np.random.default_rng(3), np.random.default_rng(3)
    first, second = Key.of(generator), Key.of(generator)
    assert first != second and first.value == int(twin.integers(0, 2**64, dtype=np.uint64))
    assert len({Key.of(None) for _ in range(8)}) == 8
    sequence = np.random.SeedSequence(4)
    assert Key.of(sequence) == Key.of(sequence)


def test_keys_of_consecutive_seeds_look_random() -> None:
    bits = np.array([[Key.of(seed).value >> b & 1 for b in range(64)] for seed in range(500)])
    assert abs(bits.mean() - 0.5) < 5 * 0.5 / np.sqrt(bits.size)  # fails once in 1.7 million
    assert len({Key.of(seed) for seed in range(500)}) == 500


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_fold_is_two_philox_words(key: int, i: int) -> None:
    low, high, _, _ = philox4x32((i % 2**32, i >> 32, 0, 0), (key % 2**32, key >> 32))
    assert Key(key).fold(i) == Key(low + (high << 32))
    assert Key(key).fold(np.uint64(i)) == Key(key).fold(i)


@given(st.integers(0, 2**64 - 1))
def test_keys_round_trip(value: int) -> None:
    key = Key(value)
    assert eval(repr(key), {"Key": rpcls.Key}) == key == pickle.loads(pickle.dumps(key)) and hash(key) == hash(
        Key(value)
    )
    assert repr(key) == f"Key(0x{value:016x})"
    assert key.words == (value % 2**32, value // 2**32)


def test_a_key_is_frozen() -> None:
    with pytest.raises(AttributeError):
        Key(1).value = 2  # type: ignore[misc]


@pytest.mark.parametrize("value", [True, 1.0, "1", None])
def test_key_of_a_wrong_type(value: object) -> None:
    with pytest.raises(InvalidTypeError, match=f"a Key holds an int, got {type(value).__name__}"):
        Key(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [-1, 2**64])
def test_key_out_of_range(value: int) -> None:
    with pytest.raises(InvalidValueError, match=rf"a Key must be in \[0, 2\*\*64\), got {value}; use Key.of\(seed\)"):
        Key(value)


@pytest.mark.parametrize("rng", [True, 1.5, "0", [1], np.random.RandomState(0)])
def test_seed_of_a_wrong_type(rng: object) -> None:
    kinds = r"an int, numpy.random.SeedSequence, numpy.random.Generator, rpcls.Key or None"
    with pytest.raises(InvalidTypeError, match=f"rng must be {kinds}, got {type(rng).__name__}"):
        Key.of(rng)  # type: ignore[arg-type]


def test_negative_seed() -> None:
    with pytest.raises(InvalidValueError, match="rng must be a non-negative int, got -3"):
        Key.of(-3)


@pytest.mark.parametrize("i", [-1, 2**64])
def test_fold_out_of_range(i: int) -> None:
    with pytest.raises(InvalidValueError, match=rf"fold needs an int in \[0, 2\*\*64\), got {i}"):
        Key(0).fold(i)


@pytest.mark.parametrize("i", [1.5, True, "1"])
def test_fold_of_a_wrong_type(i: object) -> None:
    with pytest.raises(InvalidTypeError, match=rf"fold needs an int in \[0, 2\*\*64\), got {type(i).__name__} {i!r}"):
        Key(0).fold(i)  # type: ignore[arg-type]
