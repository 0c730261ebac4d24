"""Rows in compressed sparse row form: compress beside SciPy's sparse S @ A."""

from __future__ import annotations

from typing import Any

import numpy as np
import peers
from dense import SKETCHES
from harness import in_turn

import rpcls

PER_ROW = 10
PEER = "SciPy {form} @ A, CountSketch"


def made_up(m: int, n: int) -> tuple[Any, np.ndarray]:
    """One entry in each of PER_ROW equal strata of the columns of every row: sorted, distinct, 32-bit indices."""
    from scipy.sparse import csr_array

    rng = np.random.default_rng(0)
    stratum = n // PER_ROW
    indices = rng.integers(0, stratum, (m, PER_ROW), dtype=np.int32)
    indices += np.arange(PER_ROW, dtype=np.int32) * np.int32(stratum)
    pointers = np.arange(0, m * PER_ROW + 1, PER_ROW, dtype=np.int32)
    A = csr_array((rng.standard_normal(m * PER_ROW), indices.reshape(-1), pointers), shape=(m, n))
    return A, rng.standard_normal(m)


def against_peers(m: int, n: int, repeats: int) -> dict[str, Any]:
    """compress of an m × n matrix, d = 4n, and SciPy's product for CountSketch; one read is of the stored values."""
    A, b = made_up(m, n)
    d = 4 * n
    S = rpcls.CountSketch().sample(d, rng=0)
    forms = peers.sparse_forms(S, m)
    peers.check_product(forms["CSR"], A, rpcls.compress(A, b, S).SA)
    jobs: dict[str, Any] = {
        f"rpcls compress, {name}": lambda sketch=sketch: rpcls.compress(A, b, sketch, sketch_size=d, rng=0)
        for name, sketch in SKETCHES.items()
    }
    jobs |= {PEER.format(form=form): lambda matrix=matrix: matrix @ A for form, matrix in forms.items()}
    timed = in_turn(A.data, jobs, repeats)
    return {
        "shape": f"{m}x{n}",
        "stored": int(A.nnz),
        "bytes": int(A.data.nbytes + A.indices.nbytes + A.indptr.nbytes),
        **timed.as_data(),
    }
