"""Real data from files that scikit-learn ships: two photographs and a small medical table. No download."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import InvalidTypeError, InvalidValueError, MissingDependencyError
from .record import Dataset

__all__ = ["diabetes", "photo_patches", "photo_target"]

_PHOTOS = ("china.jpg", "flower.jpg")
_COLOURS = ("red", "green", "blue")
_GREEN = 1
_TARGETS = {
    "pixel": "the green value of the centre",
    "detail": "the green value of the centre less the mean of its four neighbours",
}


def photo_patches(window: int = 9, gap: int = 1, target: str = "pixel") -> Dataset:
    """Predict a pixel of a photograph from the colours around it.

    One row for every pixel of two photographs (427 × 640, "china.jpg" and "flower.jpg", which scikit-learn ships)
    whose whole window lies inside. The columns are the red, green and blue values of all positions at Chebyshev
    distance gap + 1 … window // 2 from that pixel, row by row of the window, then a constant. Values are in [0, 1].
    With the defaults A is 529 616 × 217 (0.92 GB) with condition number 1598.

    Parameters
    ----------
    window : int, default 9
        Side of the window in pixels: odd, 3 … 427.
    gap : int, default 1
        Positions up to this Chebyshev distance are hidden: 0 … window // 2 − 1. The default hides the 3 × 3 centre.
    target : {"pixel", "detail"}, default "pixel"
        "pixel": the green value in the centre, signal-rich (R² = .942 with the defaults, SNR = 52).
        "detail": that value less the mean of its four neighbours, noisy (R² = .150, SNR = .18).

    Returns
    -------
    Dataset

    Raises
    ------
    InvalidValueError, InvalidTypeError
        A window, gap or target out of range.
    MissingDependencyError
        scikit-learn or Pillow is not installed.

    Notes
    -----
    Neighbouring pixels resemble each other, so the columns are nearly collinear and the singular values fall like
    those of a smooth kernel: a real spectrum, not a drawn one. Cost: about a second and, above A itself, a few MB.

    Examples
    --------
    >>> data = photo_patches(window=5)
    >>> data.shape, data.columns[:3], data.columns[-1]
    ((538056, 49), ('red(-2,-2)', 'green(-2,-2)', 'blue(-2,-2)'), 'constant')
    """
    _check_window(window, gap)
    b = photo_target(target, window)
    photos = _photographs()
    radius = window // 2
    steps = range(-radius, radius + 1)
    names = [f"{c}({i},{j})" for i in steps for j in steps if max(abs(i), abs(j)) > gap for c in _COLOURS]

    A = np.empty((len(b), len(names) + 1))
    A[:, -1] = 1.0
    row = 0
    for photo in photos:
        values = (photo / 255.0).reshape(len(photo), -1)  # red, green, blue of the first pixel of a line, the second, …
        for centre in range(radius, len(photo) - radius):  # a line at a time, which stays in cache
            lines = values[centre - radius : centre + radius + 1]
            windows = np.lib.stride_tricks.sliding_window_view(lines, 3 * window, axis=1)[:, ::3]
            block = A[row : row + windows.shape[1]]
            column = 0
            for i, run in zip(steps, windows, strict=True):  # run: (centres, 3·window), one line of every window
                hidden = slice(3 * (radius - gap), 3 * (radius + gap + 1))
                for part in (run,) if abs(i) > gap else (run[:, : hidden.start], run[:, hidden.stop :]):
                    block[:, column : column + part.shape[1]] = part
                    column += part.shape[1]
            row += len(block)
    return Dataset(
        name="photo-patches",
        A=A,
        b=b,
        target=target,
        columns=(*names, "constant"),
        description=(
            f"Every {window} × {window} patch of two photographs ({', '.join(_PHOTOS)}, shipped with scikit-learn): "
            f"{_TARGETS[target]}, from all colour values at Chebyshev distance {gap + 1} to {radius}, and a constant. "
            "Values in [0, 1]."
        ),
    )


def photo_target(target: str = "pixel", window: int = 9) -> np.ndarray:
    """The b of `photo_patches` alone, for a second target on the same A.

    Parameters
    ----------
    target : {"pixel", "detail"}
    window : int, default 9
        As in `photo_patches`.

    Returns
    -------
    (m,) float64 array
    """
    if target not in _TARGETS:
        raise InvalidValueError(f"target must be one of {', '.join(map(repr, _TARGETS))}, got {target!r}")
    _check_window(window, 0)
    radius = window // 2
    parts = []
    for photo in _photographs():
        green = photo[:, :, _GREEN] / 255.0
        inside = _shifted(green, radius, 0, 0)
        if target == "detail":
            neighbours = [_shifted(green, radius, *step) for step in ((-1, 0), (1, 0), (0, -1), (0, 1))]
            inside = inside - sum(neighbours) / 4
        parts.append(inside.ravel())
    return np.concatenate(parts)


def diabetes() -> Dataset:
    """Disease progression of 442 diabetes patients from ten measurements, in their own units, and a constant.

    The table of Efron, Hastie, Johnstone and Tibshirani [1]_, small (442 × 11) and quick: for examples and tests.
    Columns have very different scales (blood pressure near 95, the logarithm of a triglyceride level near 4.6), so
    the condition number is 7236; R² = .518.

    Returns
    -------
    Dataset

    Raises
    ------
    MissingDependencyError
        scikit-learn is not installed.

    References
    ----------
    .. [1] B. Efron, T. Hastie, I. Johnstone, R. Tibshirani, "Least angle regression", Annals of Statistics 32:407
       (2004), doi:10.1214/009053604000000067.

    Examples
    --------
    >>> data = diabetes()
    >>> data.shape, data.columns[2]
    ((442, 11), 'bmi')
    """
    bunch: Any = _sklearn_datasets("datasets.diabetes()").load_diabetes(scaled=False)
    return Dataset(
        name="diabetes",
        A=np.ascontiguousarray(np.column_stack([bunch.data, np.ones(len(bunch.data))]), dtype=np.float64),
        b=np.array(bunch.target, dtype=np.float64),
        target="disease progression",
        columns=(*map(str, bunch.feature_names), "constant"),
        description=(
            "Disease progression one year after baseline of 442 diabetes patients, from age, sex, body mass index, "
            "blood pressure and six blood serum measurements in their own units, and a constant."
        ),
    )


def _check_window(window: Any, gap: Any) -> None:
    for name, value in (("window", window), ("gap", gap)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise InvalidTypeError(f"{name} must be an int, got {type(value).__name__} {value!r}")
    if not 3 <= window <= 427 or window % 2 == 0:
        raise InvalidValueError(f"window must be an odd number of pixels in 3 … 427, got {window}")
    if not 0 <= gap < window // 2:
        raise InvalidValueError(
            f"gap must be at least 0 and below window // 2 = {window // 2}, got {gap}; a wider gap hides every position"
        )


def _shifted(image: np.ndarray, radius: int, down: int, right: int) -> np.ndarray:
    height, width = image.shape
    return image[radius + down : height - radius + down, radius + right : width - radius + right]


def _sklearn_datasets(purpose: str) -> Any:
    try:
        import sklearn.datasets
    except ImportError as error:
        raise MissingDependencyError.for_package("scikit-learn", "study", purpose) from error
    return sklearn.datasets


def _photographs() -> list[np.ndarray]:
    datasets = _sklearn_datasets("datasets.photo_patches()")
    try:
        return [datasets.load_sample_image(name) for name in _PHOTOS]
    except ImportError as error:  # scikit-learn reads JPEG files with Pillow
        raise MissingDependencyError.for_package("Pillow", "study", "datasets.photo_patches()") from error
