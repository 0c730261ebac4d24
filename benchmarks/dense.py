"""Dense rows: compress and the one-pass solve beside their peers, and all sketches on one shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import peers
import scipy.linalg
from harness import in_turn

import rpcls

SKETCHES = {"CountSketch": rpcls.CountSketch(), "SparseSign(8)": rpcls.SparseSign(8)}
NNZ = {"CountSketch": 1, "SparseSign(8)": 8}
PROJECTION = {name: f"scikit-learn SparseRandomProjection, density {nnz}/d" for name, nnz in NNZ.items()}
CWT = "SciPy Clarkson–Woodruff transform of A alone"
CWT_LSTSQ = "SciPy Clarkson–Woodruff transform and lstsq"
NORMAL, GELSD = "normal equations, Cholesky", "LAPACK gelsd"
FAMILIES = {
    "CountSketch": rpcls.CountSketch(),
    "SparseSign(8)": rpcls.SparseSign(8),
    "SRHT": rpcls.SRHT(),
    "BlockSRHT": rpcls.BlockSRHT(),
    "Rademacher": rpcls.Rademacher(),
    "Gaussian": rpcls.Gaussian(),
    "RowSampling": rpcls.RowSampling(),
    "RowSampling, with replacement": rpcls.RowSampling(replace=True),
    "LeverageSampling": rpcls.LeverageSampling(),
}


def made_up(m: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((m, n)), rng.standard_normal(m)


def against_peers(m: int, n: int, repeats: int, quick: bool) -> dict[str, Any]:
    """Every job on one m × n problem, d = 4n: seconds, and seconds of one read of A."""
    A, b = made_up(m, n)
    d = 4 * n
    jobs: dict[str, Callable[[], Any]] = {}
    copies: dict[str, tuple[np.ndarray, np.ndarray]] = {
        "Fortran order": (np.asfortranarray(A), b),
        "float32": (A.astype(np.float32), b.astype(np.float32)),
    }
    for name, sketch in SKETCHES.items():
        label = f"rpcls compress, {name}"
        jobs[label] = _compress(A, b, sketch, d)
        jobs |= {f"{label}, {t} thread{'s' * (t > 1)}": _compress(A, b, sketch, d, t) for t in (1, 2)}
        jobs |= {f"{label}, {kind}": _compress(*Ab, sketch, d) for kind, Ab in copies.items()}
        jobs |= _projections(name, sketch, A, b, d)
    for rho, solver in (("rho given", rpcls.RobustPartiallyCompressed(rho=0.1)), ("rho='loo'", "robust-partial")):
        jobs |= {f"rpcls robust-partial, {rho}, {name}": _solve(solver, s, A, b, d) for name, s in SKETCHES.items()}
    jobs["rpcls compress, SRHT"] = _compress(A, b, rpcls.SRHT(), d)
    jobs |= peers.cosine_transforms(A)
    jobs[CWT] = lambda: scipy.linalg.clarkson_woodruff_transform(A, d, seed=0)
    jobs[CWT_LSTSQ] = lambda: peers.clarkson_woodruff(A, b, d)
    jobs[NORMAL] = lambda: peers.normal_equations(A, b)
    if not quick:
        jobs[GELSD] = lambda: peers.gelsd(A, b)
    timed = in_turn(A, jobs, repeats, once=(GELSD,))
    return timed.as_data()


def all_families(m: int, n: int, repeats: int) -> dict[str, Any]:
    """compress with every family, d = 4n."""
    A, b = made_up(m, n)
    jobs = {name: _compress(A, b, family, 4 * n) for name, family in FAMILIES.items()}
    timed = in_turn(A, jobs, repeats)
    return {"shape": f"{m}x{n}", **timed.as_data()}


def _compress(A: np.ndarray, b: np.ndarray, sketch: Any, d: int, workers: int | None = None) -> Callable[[], Any]:
    return lambda: rpcls.compress(A, b, sketch, sketch_size=d, rng=0, workers=workers)


def _solve(solver: Any, sketch: Any, A: np.ndarray, b: np.ndarray, d: int) -> Callable[[], Any]:
    return lambda: rpcls.lstsq(A, b, solver, sketch=sketch, sketch_size=d, rng=0)


def _projections(name: str, sketch: Any, A: np.ndarray, b: np.ndarray, d: int) -> dict[str, Callable[[], Any]]:
    """Peers of S @ A with as many non-zeros in a column of S; SciPy's with the very same ones."""
    S = sketch.sample(d, rng=0)
    forms = peers.sparse_forms(S, len(A))
    peers.check_product(forms["CSC"], A, rpcls.compress(A, b, S).SA)
    return {
        **{f"SciPy {form} @ A, {name}": lambda matrix=matrix: matrix @ A for form, matrix in forms.items()},
        PROJECTION[name]: peers.projection(A, d, NNZ[name]),
    }
