"""What other libraries offer for the same work. Whatever does not depend on A's entries is built before the clock runs,
except where their own function builds it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.fft
import scipy.linalg
from harness import cores

import rpcls


def normal_equations(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    return scipy.linalg.cho_solve(scipy.linalg.cho_factor(A.T @ A), A.T @ b)


def clarkson_woodruff(A: np.ndarray, b: np.ndarray, d: int) -> np.ndarray:
    """SciPy's transform of [A b], and LAPACK on what it leaves."""
    sketched = scipy.linalg.clarkson_woodruff_transform(np.column_stack([A, b]), d, seed=0)
    return scipy.linalg.lstsq(sketched[:, :-1], sketched[:, -1])[0]


def gelsd(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    return scipy.linalg.lstsq(A, b, check_finite=False, lapack_driver="gelsd")[0]


def sparse_forms(S: rpcls.SketchOperator, m: int) -> dict[str, Any]:
    """The first m columns of S as SciPy's CSC and CSR, with the 32-bit indices that SciPy is fastest with."""
    columns: Any = S.columns(0, m)
    forms = {"CSC": columns, "CSR": columns.tocsr()}
    for form in forms.values():
        form.indices, form.indptr = form.indices.astype(np.int32), form.indptr.astype(np.int32)
    return forms


def check_product(S: Any, A: Any, SA: np.ndarray) -> None:
    """Stop unless S @ A is what rpcls found: peers must do the same work."""
    product = S @ A
    product = product if isinstance(product, np.ndarray) else product.toarray()
    if not np.allclose(product, SA, atol=1e-9 * float(np.abs(SA).max())):
        raise SystemExit("S @ A by SciPy and by rpcls.compress disagree: these timings would not compare")


def projection(A: np.ndarray, d: int, nnz_per_column: int) -> Callable[[], Any]:
    """scikit-learn's sparse random projection, which projects columns: of Aᵀ, fitted to its shape beforehand.

    With A in C order its product is CSR times A, the form that reads A row by row.
    """
    from sklearn.random_projection import SparseRandomProjection

    model = SparseRandomProjection(n_components=d, density=nnz_per_column / d, dense_output=True, random_state=0)
    model.fit(np.zeros((1, len(A)), A.dtype))
    return lambda: model.transform(A.T)


def cosine_transforms(A: np.ndarray) -> dict[str, Callable[[], Any]]:
    """SciPy's DCT of the columns of A on all processors, as they are and padded to the next length it is fast at."""
    workers, m = cores(), len(A)

    def transform(length: int) -> Callable[[], Any]:
        return lambda: scipy.fft.dct(A, n=length, axis=0, norm="ortho", workers=workers)

    lengths = {"m": m, "next_fast_len(m)": scipy.fft.next_fast_len(m, real=True)}
    if lengths["m"] == lengths["next_fast_len(m)"]:
        lengths = {"m = next_fast_len(m)": m}
    return {f"SciPy DCT of the columns, length {name}": transform(length) for name, length in lengths.items()}
