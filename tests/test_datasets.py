"""Datasets: what they state is what is measured."""

from __future__ import annotations

import builtins

import numpy as np
import pytest

import rpcls
from rpcls.datasets import diabetes, photo_patches, photo_target, synthetic

sklearn_datasets = pytest.importorskip("sklearn.datasets")
NAMES = ("china.jpg", "flower.jpg")


@pytest.fixture(scope="module")
def patches():
    return photo_patches(window=5, gap=1)


# -- photographs ----------------------------------------------------------------------------------------------------


def slow_row(photo, row, column, window, gap):
    """One row of A by the definition: loops over the window, one number at a time."""
    values, radius = [], window // 2
    for i in range(-radius, radius + 1):
        for j in range(-radius, radius + 1):
            if max(abs(i), abs(j)) > gap:
                values += [photo[row + i, column + j, colour] / 255 for colour in range(3)]
    return [*values, 1.0]


@pytest.mark.parametrize(("window", "gap"), [(5, 1), (7, 0), (7, 2), (3, 0)])
def test_patches_equal_those_cut_by_slow_loops(window, gap):
    data = photo_patches(window, gap)
    radius = window // 2
    photos = [sklearn_datasets.load_sample_image(name) for name in NAMES]
    height, width = (photos[0].shape[0] - 2 * radius), (photos[0].shape[1] - 2 * radius)
    assert data.shape == (2 * height * width, 3 * (window**2 - (2 * gap + 1) ** 2) + 1)
    for index in (0, 1, width - 1, width, height * width - 1, height * width, 2 * height * width - 1, 123_456):
        photo, rest = photos[index // (height * width)], index % (height * width)
        row, column = rest // width + radius, rest % width + radius
        np.testing.assert_array_equal(data.A[index], slow_row(photo, row, column, window, gap))
        assert data.b[index] == photo[row, column, 1] / 255


def test_detail_is_the_centre_less_its_four_neighbours(patches):
    photo = sklearn_datasets.load_sample_image(NAMES[0]) / 255
    b = photo_target("detail", window=5)
    assert b.shape == patches.b.shape
    width = photo.shape[1] - 4
    for index in (0, 7, width + 3):
        i, j = index // width + 2, index % width + 2
        mean = (photo[i - 1, j, 1] + photo[i + 1, j, 1] + photo[i, j - 1, 1] + photo[i, j + 1, 1]) / 4
        assert b[index] == pytest.approx(photo[i, j, 1] - mean, abs=1e-15)


def test_patches_are_named_c_ordered_float64(patches):
    assert patches.A.flags.c_contiguous and patches.A.dtype == np.float64 and patches.b.dtype == np.float64
    assert len(patches.columns) == patches.shape[1] == len(set(patches.columns))
    assert patches.columns[0] == "red(-2,-2)" and patches.columns[-1] == "constant"
    assert patches.columns.index("green(-2,1)") == 10  # fourth position of the first line, second colour
    assert patches.x is None and "photo-patches" in repr(patches)


def test_the_default_patches_have_the_stated_shape_condition_and_r2():
    data = photo_patches()
    assert data.shape == (529_616, 217)
    gram = data.A.T @ data.A
    sigma = np.sqrt(np.linalg.eigvalsh(gram))
    assert sigma[-1] / sigma[0] == pytest.approx(1598, rel=1e-3)
    for target, r2, snr in (("pixel", 0.942, 52), ("detail", 0.150, 0.18)):
        b = data.b if target == "pixel" else photo_target(target)
        fit = data.A @ np.linalg.solve(gram, data.A.T @ b)
        residual = np.sum((b - fit) ** 2)
        assert 1 - residual / np.sum((b - b.mean()) ** 2) == pytest.approx(r2, abs=5e-4)
        assert np.sum(fit**2) / residual == pytest.approx(snr, rel=0.03)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"window": 8}, rpcls.InvalidValueError, "window must be an odd number of pixels in 3 … 427, got 8"),
        ({"window": 9.0}, rpcls.InvalidTypeError, "window must be an int, got float 9.0"),
        ({"gap": True}, rpcls.InvalidTypeError, "gap must be an int, got bool True"),
        ({"gap": 4}, rpcls.InvalidValueError, "gap must be at least 0 and below window // 2 = 4, got 4"),
        ({"target": "red"}, rpcls.InvalidValueError, "target must be one of 'pixel', 'detail', got 'red'"),
    ],
)
def test_wrong_patch_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        photo_patches(**arguments)


@pytest.mark.parametrize(("module", "package"), [("sklearn.datasets", "scikit-learn"), ("PIL", "Pillow")])
def test_a_missing_package_is_named_with_the_command(monkeypatch, module, package):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == module or (module == "PIL" and name.startswith("PIL")):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(rpcls.MissingDependencyError, match=rf'needs {package}.*pip install "rpcls\[study\]"'):
        photo_target()


def test_diabetes_is_the_table_with_a_constant():
    data = diabetes()
    assert data.shape == (442, 11) and data.A.flags.c_contiguous and data.A.dtype == np.float64
    assert data.columns == ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6", "constant")
    np.testing.assert_array_equal(data.A[0, :4], [59, 2, 32.1, 101])
    assert np.all(data.A[:, -1] == 1) and data.b[0] == 151
    sigma = np.linalg.svd(data.A, compute_uv=False)
    assert sigma[0] / sigma[-1] == pytest.approx(7236, rel=1e-3)
    residual = data.b - data.A @ np.linalg.lstsq(data.A, data.b, rcond=None)[0]
    assert 1 - residual @ residual / np.sum((data.b - data.b.mean()) ** 2) == pytest.approx(0.518, abs=5e-4)


# -- made to measure ------------------------------------------------------------------------------------------------


def measured(data):
    """Condition, leverage scores, x* and SNR by LAPACK from A and b alone."""
    U, sigma, _ = np.linalg.svd(data.A, full_matrices=False)
    x = np.linalg.lstsq(data.A, data.b, rcond=None)[0]
    fit = data.A @ x
    return sigma, np.sum(U**2, axis=1), x, np.sum(fit**2), np.sum((data.b - fit) ** 2)


@pytest.mark.parametrize("spectrum", ["geometric", "power", "spiked", "step"])
@pytest.mark.parametrize("signal", ["even", "large", "small"])
@pytest.mark.parametrize(("condition", "snr"), [(1.0, 2.0), (1e6, 0.1), (50.0, 1e4)])
def test_stated_condition_snr_and_solution_are_measured(spectrum, signal, condition, snr):
    data = synthetic(600, 40, condition=condition, spectrum=spectrum, signal=signal, snr=snr, rng=3)
    sigma, leverage, x, fitted, residual = measured(data)
    assert sigma[0] / sigma[-1] == pytest.approx(condition, rel=1e-7)
    assert sigma[0] == pytest.approx(np.sqrt(600), rel=1e-10)
    assert leverage.max() == pytest.approx(data.coherence, rel=1e-7)
    assert np.linalg.norm(data.A @ (x - data.x)) <= 1e-8 * np.linalg.norm(data.A @ data.x)
    assert fitted == pytest.approx(600, rel=1e-8)
    assert fitted / residual == pytest.approx(snr, rel=1e-7)
    assert np.sqrt(residual) == pytest.approx(data.residual_norm, rel=1e-7)
    assert (data.condition, data.snr) == (pytest.approx(condition), snr)


@pytest.mark.parametrize(
    ("spectrum", "expected"),
    [
        ("geometric", 10.0 ** -np.linspace(0, 3, 40)),
        ("power", np.arange(1, 41) ** (-3 / np.log10(40))),
        ("spiked", np.r_[np.ones(2), np.full(38, 1e-3)]),
        ("step", np.r_[np.ones(20), np.full(20, 1e-3)]),
    ],
)
def test_spectra_have_the_stated_shape(spectrum, expected):
    sigma = np.linalg.svd(synthetic(500, 40, spectrum=spectrum, condition=1e3, rng=0).A, compute_uv=False)
    np.testing.assert_allclose(sigma / sigma[0], expected, rtol=1e-9)


def test_given_singular_values_are_used_as_they_are():
    sigma = np.array([5.0, 4.0, 0.25])
    data = synthetic(50, 3, spectrum=sigma, rng=0)
    np.testing.assert_allclose(np.linalg.svd(data.A, compute_uv=False), sigma, rtol=1e-12)
    assert data.condition == 20


def test_signal_says_where_the_energy_lies():
    energy = {}
    for signal in ("large", "even", "small"):
        data = synthetic(2000, 100, condition=100, signal=signal, rng=1)
        U = np.linalg.svd(data.A, full_matrices=False)[0]
        c2 = (U.T @ (data.A @ data.x)) ** 2
        energy[signal] = c2[:50].sum() / c2.sum()
    assert energy["large"] > 0.95 and 0.3 < energy["even"] < 0.7 and energy["small"] < 0.05


@pytest.mark.parametrize("k", [1, 5, 20])
@pytest.mark.parametrize("coherence", [0.5, 0.99, 1.0])
def test_a_stated_coherence_is_exact_in_that_many_rows(coherence, k):
    data = synthetic(2000, 20, coherence=coherence, coherent_rows=k, condition=10, rng=5)
    leverage = np.sort(measured(data)[1])
    np.testing.assert_allclose(leverage[-k:], coherence, rtol=1e-9)
    assert leverage[-k - 1] < 0.1
    assert data.coherence == pytest.approx(coherence, rel=1e-9)


def test_low_and_heavy_tailed_coherence():
    low = measured(synthetic(4000, 20, rng=2))[1]
    heavy = measured(synthetic(4000, 20, coherence="heavy-tailed", rng=2))[1]
    assert low.max() < 4 * 20 / 4000 < 0.3 < heavy.max()


def test_a_consistent_system_and_pure_noise():
    exact = synthetic(300, 10, snr=np.inf, rng=0)
    assert exact.residual_norm == 0 and np.linalg.norm(exact.A @ exact.x - exact.b) <= 1e-13 * np.linalg.norm(exact.b)
    noise = synthetic(300, 10, snr=0, rng=0)
    assert np.all(noise.x == 0) and np.linalg.norm(noise.b) == pytest.approx(np.sqrt(300))
    assert np.linalg.norm(np.linalg.qr(noise.A)[0].T @ noise.b) < 1e-12


def test_the_same_seed_is_the_same_problem():
    first, again, other = (synthetic(50, 3, rng=seed) for seed in (7, 7, 8))
    assert np.array_equal(first.A, again.A) and np.array_equal(first.b, again.b)
    assert not np.array_equal(first.A, other.A)
    assert first.A.flags.c_contiguous
    generator = np.random.default_rng(0)
    assert not np.array_equal(synthetic(50, 3, rng=generator).A, synthetic(50, 3, rng=generator).A)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"m": 5, "n": 5}, rpcls.InvalidValueError, "needs more rows than columns and a column, got m = 5, n = 5"),
        ({"m": 5.0}, rpcls.InvalidTypeError, "m must be an int, got float 5.0"),
        ({"condition": 0.5}, rpcls.InvalidValueError, "condition must be a number in 1 … 1e14, got 0.5"),
        ({"n": 1}, rpcls.InvalidValueError, "one column always has condition number 1, got condition = 1000"),
        ({"spectrum": "flat"}, rpcls.InvalidValueError, "spectrum must be one of 'geometric'.* got 'flat'"),
        ({"spectrum": [1.0, -1.0]}, rpcls.InvalidValueError, "spectrum must be n = 5 positive finite singular values"),
        ({"signal": "none"}, rpcls.InvalidValueError, "signal must be one of 'large', 'even', 'small', got 'none'"),
        ({"snr": -1}, rpcls.InvalidValueError, "snr must be a number from 0 to infinity, got -1"),
        ({"snr": float("nan")}, rpcls.InvalidValueError, "snr must be a number from 0 to infinity, got nan"),
        ({"coherence": "high"}, rpcls.InvalidValueError, "coherence must be one of 'low', 'heavy-tailed' or a number"),
        ({"coherence": 0.01}, rpcls.InvalidValueError, "must be above n/m = 0.05 and at most 1, got 0.01"),
        ({"coherence": 0.06}, rpcls.InvalidValueError, "coherence = 0.06 is not the largest leverage score"),
        ({"coherent_rows": 6}, rpcls.InvalidValueError, r"between 1 and min\(n, m − n\) = 5, got 6"),
    ],
)
def test_wrong_synthetic_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        synthetic(**{"m": 100, "n": 5, "rng": 0, **arguments})
