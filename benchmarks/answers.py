"""The ways of solving that accuracy.py compares, under the names that its tables use."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import peers
import scipy.linalg

import rpcls

AUTO, GRAM, CG, OWN_NORMAL, RTOL = "rpcls", "rpcls, gram", "rpcls, cg", "rpcls, normal", "rpcls, rtol=1e-3"
NE, GELSD, GELSY = "normal equations, Cholesky", "SciPy gelsd", "SciPy gelsy"
NUMPY, SKLEARN, INTELEX = "NumPy lstsq", "scikit-learn, tol=0", "scikit-learn-intelex"
OWN: dict[str, Callable[[Any, Any], rpcls.Solution]] = {
    AUTO: lambda A, b: rpcls.lstsq(A, b),
    GRAM: lambda A, b: rpcls.lstsq(A, b, rpcls.SketchAndPrecondition("gram")),
    CG: lambda A, b: rpcls.lstsq(A, b, rpcls.SketchAndPrecondition("cg")),
    OWN_NORMAL: lambda A, b: rpcls.lstsq(A, b, "normal"),
    RTOL: lambda A, b: rpcls.lstsq(A, b, rtol=1e-3),
}
Answer = np.ndarray | rpcls.Solution


def _numpy(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.linalg.lstsq(A, b, rcond=None)[0]


def _gelsy(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    return scipy.linalg.lstsq(A, b, check_finite=False, lapack_driver="gelsy")[0]


def _sklearn(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    from sklearn.linear_model import LinearRegression

    tight = {"tol": 0.0} if "tol" in inspect.signature(LinearRegression).parameters else {}
    return LinearRegression(fit_intercept=False, **tight).fit(A, b).coef_


PEERS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    NE: peers.normal_equations,
    GELSD: peers.gelsd,
    GELSY: _gelsy,
    NUMPY: _numpy,
    SKLEARN: _sklearn,
}


def intelex() -> Callable[[np.ndarray, np.ndarray], np.ndarray] | None:
    """scikit-learn-intelex's LinearRegression; None where it is not installed."""
    try:
        from sklearnex.linear_model import LinearRegression  # type: ignore[import-not-found]
    except ImportError:
        return None
    return lambda A, b: LinearRegression(fit_intercept=False).fit(A, b).coef_


def qr(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Householder QR with column pivoting that drops nothing: the mark that accuracy is held against."""
    unit = np.finfo(A.dtype).eps / 2
    return scipy.linalg.lstsq(A, b, cond=0.1 * unit, check_finite=False, lapack_driver="gelsy")[0]


def answer(solve: Callable[[Any, Any], Answer], A: Any, b: np.ndarray) -> Answer:
    """The answer, without its warnings; where the solver raises, NaN."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            return solve(A, b)
        except (np.linalg.LinAlgError, ValueError):
            return np.full(A.shape[1], np.nan)


def coefficients(found: Answer) -> np.ndarray:
    return np.ravel(found.x if isinstance(found, rpcls.Solution) else found)
