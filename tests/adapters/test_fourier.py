"""FourierFT and C3A: peft's layouts, and what a Fourier transform makes of the normal equations."""

from __future__ import annotations

import numpy as np
import pytest
from layers import KINDS, layer, statistics

from rpcls.adapters import C3A, FourierFT, LayerStatistics, LinearAdapter, fit
from rpcls.adapters.fourier import peft_indices
from rpcls.errors import InvalidTypeError, InvalidValueError


def test_places_are_those_of_torch() -> None:
    # torch 2.13.0: torch.randperm(population, generator=torch.Generator().manual_seed(seed))[:8]
    known = {
        (777, 64 * 48): [1127, 1744, 1773, 2960, 851, 516, 1659, 1904],
        (0, 10): [4, 1, 7, 5, 3, 9, 0, 8],
        (2**32 + 5, 4096 * 4096): [13929315, 2115805, 15225261, 13756732, 15436986, 1957452, 2759448, 12381990],
    }
    for (seed, population), places in known.items():
        np.testing.assert_array_equal(peft_indices(seed, population, 8), places)
    assert sorted(peft_indices(3, 50, 50)) == list(range(50))


def test_places_are_those_of_the_torch_installed_here() -> None:
    torch = pytest.importorskip("torch")
    for seed, population in [(777, 300), (12345, 768 * 768)]:
        want = torch.randperm(population, generator=torch.Generator().manual_seed(seed))[:200].numpy()
        np.testing.assert_array_equal(peft_indices(seed, population, 200), want)


def test_fourierft_is_the_inverse_transform_of_a_sparse_spectrum() -> None:
    X, Z, _ = layer("tall", (6, 9))
    family = FourierFT(12, scaling=37.0, random_loc_seed=4)
    result = fit(statistics(X, Z), family)
    u, v = family.indices_in((6, 9))
    p, q = np.arange(6)[:, None], np.arange(9)
    waves = [np.exp(2j * np.pi * (a * p / 6 + b * q / 9)) for a, b in zip(u, v, strict=True)]
    dW = 37.0 / 54 * sum(t * wave for t, wave in zip(result.factors["spectrum"], waves, strict=True)).real
    np.testing.assert_allclose(result.delta(), dW, atol=1e-12)
    given = fit(statistics(X, Z), FourierFT(scaling=37.0, indices=[u, v]))
    np.testing.assert_array_equal(given.delta(), result.delta())


def test_a_weight_target_gives_its_own_transform() -> None:
    T = np.random.default_rng(0).standard_normal((6, 8))
    u, v = np.array([0, 3, 1, 2, 5, 4]), np.array([0, 4, 1, 7, 0, 1])  # (2, 7) and (4, 1) are the same wave
    result = fit(LayerStatistics.from_delta(T), FourierFT(indices=[u, v]), ridge=0)
    want = (
        np.array([1, 1, 2, 1, 2, 1]) * np.fft.fft2(T)[u, v].real / 150
    )  # (0, 0) and (3, 4) are their own mirror images
    np.testing.assert_allclose(result.factors["spectrum"], want, atol=1e-12)
    assert result.identifiable == {"spectrum": (5, 6)} and "1 of 6 unknowns are not determined" in result.notes[0]


@pytest.mark.parametrize("kind", KINDS)
def test_circulants_of_size_one_are_every_matrix_and_all_waves_every_symmetric_one(kind: str) -> None:
    X, Z, _ = layer(kind, (4, 6))
    s = statistics(X, Z)
    best = X @ np.linalg.lstsq(X, Z, rcond=1e-9)[0]
    np.testing.assert_allclose(X @ fit(s, C3A(1), ridge=0).delta().T, best, atol=1e-9)
    dW = fit(s, FourierFT(24), ridge=0).delta()
    mirrored = dW[-np.arange(4) % 4][:, -np.arange(6) % 6]
    np.testing.assert_allclose(dW, mirrored, atol=1e-9)
    pairs = np.eye(24).reshape(24, 4, 6) + np.eye(24).reshape(24, 4, 6)[:, -np.arange(4) % 4][:, :, -np.arange(6) % 6]
    np.testing.assert_allclose(X @ dW.T, X @ fit(s, LinearAdapter(pairs), ridge=0).delta().T, atol=1e-9)


def test_c3a_blocks_are_circulant() -> None:
    X, Z, _ = layer("tall", (6, 9))
    result = fit(statistics(X, Z), C3A(3))
    kernel, dW = result.factors["kernel"], result.delta()
    assert kernel.shape == (2, 3, 3) and result.parameters == 18
    for m, n, p, j in np.ndindex(2, 3, 3, 3):
        np.testing.assert_allclose(dW[3 * m + p, 3 * n + j], kernel[m, n, (j - p) % 3] / 9, rtol=1e-12)


def test_bad_settings() -> None:
    s = LayerStatistics.from_delta(np.ones((4, 6)))
    for make, message in [
        (lambda: FourierFT(0), "n_frequency must be at least 1, got 0"),
        (lambda: FourierFT(scaling=0), "scaling must be more than 0, got 0"),
        (lambda: FourierFT(random_loc_seed=-1), "random_loc_seed must be at least 0, got -1"),
        (lambda: FourierFT(25), "n_frequency must be in 1 … 24, the entries of the layer, got 25"),
        (lambda: FourierFT(indices=[1, 2]), r"indices must have shape \(2, k\), got \(2,\)"),
        (lambda: FourierFT(indices=[[4], [0]]), "indices must be within the layer, 4 × 6"),
        (lambda: FourierFT(indices=[[1, 1], [2, 2]]), "indices must be different ones"),
        (lambda: C3A(0), "block_size must be at least 1, got 0"),
        (lambda: C3A(4), "block_size must divide both sides of the layer, 4 and 6, got 4"),
    ]:
        with pytest.raises(InvalidValueError, match=message):
            fit(s, make())
    with pytest.raises(InvalidTypeError, match="indices must hold integers, got float64"):
        fit(s, FourierFT(indices=[[0.5], [1.0]]))
    with pytest.raises(InvalidValueError, match=r"drawn for fewer than 214,748,364 entries only.*give indices"):
        FourierFT().indices_in((20_000, 20_000))
