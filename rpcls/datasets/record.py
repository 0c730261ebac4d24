"""Dataset: A, b, and what is known about them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Dataset"]


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A least-squares problem min ‖Ax − b‖ with its names and, where it was made to measure, its exact answer.

    Attributes
    ----------
    name : str
    A : (m, n) float64 array, C order
    b : (m,) float64 array
    target : str
        What b is.
    columns : tuple of str or None
        What the columns of A are; None for synthetic data.
    description : str
        One paragraph, with units.
    x : (n,) float64 array or None
        The exact least-squares solution x*, where it is known by construction.
    residual_norm : float or None
        ‖b − Ax*‖, where it is known by construction.
    condition : float or None
        2-norm condition number of A, where it is known by construction.
    coherence : float or None
        The largest leverage score: the largest squared row norm of an orthonormal basis of range(A); in [n/m, 1].
    snr : float or None
        ‖Ax*‖² / ‖b − Ax*‖², not centred; infinity when the system is consistent.
    """

    name: str
    A: np.ndarray
    b: np.ndarray
    target: str
    columns: tuple[str, ...] | None
    description: str
    x: np.ndarray | None = None
    residual_norm: float | None = None
    condition: float | None = None
    coherence: float | None = None
    snr: float | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n)."""
        return self.A.shape[0], self.A.shape[1]

    def __repr__(self) -> str:
        m, n = self.shape
        known = "".join(
            f", {name}={value:.4g}"
            for name in ("condition", "coherence", "snr")
            if (value := getattr(self, name)) is not None
        )
        return f"Dataset({self.name!r}, {m} × {n}, target={self.target!r}{known})"
