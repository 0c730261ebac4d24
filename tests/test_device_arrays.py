"""CuPy arrays in, CuPy arrays out: what NumPy arrays give, by sweeps that leave the rows where they are.

On a card with `pytest -m gpu`; everywhere with a stand-in for CuPy whose kernels the host's compiler has built.
"""

from __future__ import annotations

import sys
import warnings
from types import SimpleNamespace
from typing import Any

import cupy_stand_in
import numpy as np
import pytest
from market import FAMILIES, OTHER_FAMILIES
from ml_dtypes import bfloat16
from support import matrix

import rpcls
from rpcls import kernels
from rpcls.errors import DeviceError, InvalidTypeError, InvalidValueError, MissingDependencyError, NonFiniteError
from rpcls.kernels.cuda import device
from rpcls.sources import source_of

M, N = 420, 9
FIELDS = ("SA", "Sb", "S1", "Atb", "btb", "column_norms", "column_sums", "b_sum", "weight")
SWEPT = {**FAMILIES, **{name: OTHER_FAMILIES[name] for name in ("srht", "rows", "rows, with replacement")}}


def problem(dtype: Any = np.float64, k: int | None = None, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coherent rows, a right-hand side with signal and noise, weights."""
    rng = np.random.default_rng(seed)
    A = 30 * matrix("coherent", M, N, rng)
    b = A @ rng.standard_normal((N, k or 1)) + rng.standard_normal((M, k or 1))
    return A.astype(dtype), (b if k else b[:, 0]).astype(dtype), rng.random(M)


def agree(got: Any, expected: Any, eps: float) -> None:
    for name in FIELDS:
        mine, theirs = np.asarray(kernels.on_host(getattr(got, name))), np.asarray(getattr(expected, name))
        assert mine.dtype == theirs.dtype and mine.shape == theirs.shape, name
        assert np.allclose(mine, theirs, rtol=0, atol=200 * eps * max(1.0, float(np.abs(theirs).max()))), name
    assert got.intervals == expected.intervals and got.operator == expected.operator


@pytest.mark.parametrize("name", SWEPT)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_summaries_are_those_of_the_host(xp: Any, name: str, dtype: Any) -> None:
    A, b, w = problem(dtype, 2)
    S = SWEPT[name].sample(70, m=M + 30, rng=3)
    weight = w if dtype == np.float64 else None
    expected = rpcls.compress(A, b, S, sample_weight=weight, row_offset=30)
    there = None if weight is None else xp.asarray(weight)
    got = rpcls.compress(xp.asarray(A), xp.asarray(b), S, sample_weight=there, row_offset=30)
    agree(got, expected, float(np.finfo(dtype).eps))
    if S.family.mergeable:
        rest = rpcls.compress(A[:30], b[:30], S, sample_weight=None if weight is None else w[:30])
        assert (rest + got).intervals == ((0, M + 30),)


def test_memory_order_half_precision_and_many_right_hand_sides(xp: Any) -> None:
    A, b, _ = problem(np.float16, 6)
    S = rpcls.SparseSign().sample(60, rng=0)
    expected = rpcls.compress(A.astype(np.float32), b.astype(np.float32), S)
    for layout in (
        xp.ascontiguousarray,
        xp.asfortranarray,
        lambda a: xp.asarray(np.repeat(xp.asnumpy(a), 2, 1))[:, ::2],
    ):
        agree(rpcls.compress(layout(xp.asarray(A)), xp.asarray(b), S), expected, 2.0**-23)


@pytest.mark.parametrize(
    "family", [rpcls.CountSketch(), rpcls.SparseSign(3), rpcls.Gaussian(), rpcls.BlockSRHT(block=32)]
)
def test_bfloat16(xp: Any, family: Any) -> None:
    A, b, w = (value.astype(bfloat16) for value in problem(np.float32, 2))
    S, plain = family.sample(40, m=len(A), rng=0), tuple(value.astype(np.float32) for value in (A, b, w))
    expected = rpcls.compress(*plain[:2], S, sample_weight=plain[2])
    held = [xp.asarray(value) for value in (A, b, w)]
    agree(rpcls.compress(*held[:2], S, sample_weight=held[2]), expected, 2.0**-23)
    wanted = rpcls.lstsq(*plain[:2], sample_weight=plain[2], rng=0)
    got = rpcls.lstsq(*held[:2], sample_weight=held[2], rng=0)
    assert got.status.ok and got.x.dtype == wanted.x.dtype
    assert np.allclose(xp.asnumpy(got.x), wanted.x, rtol=1e-5, atol=1e-6 * np.abs(wanted.x).max())


SOLVERS = [
    "auto", "precondition", "normal", "direct", "full", "partial", "combined",
    rpcls.RobustFullyCompressed(0.1), rpcls.RobustPartiallyCompressed(0.1), rpcls.RobustPartiallyCompressed("sweep"),
]  # fmt: skip


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
@pytest.mark.parametrize("intercept", [False, True])
def test_solvers_give_the_answer_of_the_host_on_the_card(xp: Any, solver: Any, intercept: bool) -> None:
    A, b, w = problem()
    A += 0.5 * intercept
    more: dict[str, Any] = {"rng": 0} if solver not in ("normal", "direct") else {}
    expected = rpcls.lstsq(A, b, solver, sample_weight=w, intercept=intercept, **more)
    held = xp.asarray(A), xp.asarray(b), xp.asarray(w)
    got = rpcls.lstsq(*held[:2], solver, sample_weight=held[2], intercept=intercept, **more)
    assert isinstance(got.x, xp.ndarray) and got.x.dtype == np.float64 and got.status is expected.status
    assert np.allclose(xp.asnumpy(got.x), expected.x, rtol=0, atol=1e-9 * np.linalg.norm(expected.x))
    assert (got.intercept is None) == (expected.intercept is None) and got.sweeps == expected.sweeps
    assert np.array_equal(xp.asnumpy(held[0]), A) and np.array_equal(xp.asnumpy(held[1]), b)


def test_auto_goes_by_the_rates_of_the_card(xp: Any) -> None:
    rng = np.random.default_rng(0)
    A = matrix("gaussian", 20_000, 20, rng, condition=1e6)
    b = A @ np.ones(20) + rng.standard_normal(20_000)
    here, there, copied = (
        rpcls.lstsq(*held, device=where)
        for held, where in (((A, b), None), ((xp.asarray(A), xp.asarray(b)), None), ((A, b), "cuda"))
    )
    assert isinstance(here.solver, rpcls.SketchAndPrecondition)
    assert isinstance(there.solver, rpcls.Direct) and isinstance(copied.solver, rpcls.Direct)
    easy = matrix("gaussian", 20_000, 20, rng, condition=10.0)
    for held, where in (((xp.asarray(easy), xp.asarray(b)), None), ((easy, b), "cuda")):
        assert isinstance(rpcls.lstsq(*held, device=where).solver, rpcls.NormalEquations)  # by a few rows, there


@pytest.mark.parametrize("solver", ["auto", "precondition", "normal", "direct", "full", "partial"])
def test_a_right_hand_side_of_zeros(xp: Any, solver: str) -> None:
    A, b, _ = problem()
    more: dict[str, Any] = {"rng": 0} if solver not in ("normal", "direct") else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rpcls.ConvergenceWarning)
        got = rpcls.lstsq(xp.asarray(A), xp.asarray(0 * b), solver, **more)
        assert got.status is rpcls.lstsq(A, 0 * b, solver, **more).status
    assert not xp.asnumpy(got.x).any()


def test_several_right_hand_sides_rtol_and_the_certificate(xp: Any) -> None:
    A, b, _ = problem(np.float64, 6)
    held = xp.asarray(A), xp.asarray(b)
    exact = np.linalg.lstsq(A, b)[0]
    got = rpcls.lstsq(*held, rtol=1e-6)
    assert got.x.shape == (N, 6) and np.allclose(xp.asnumpy(got.x), exact, rtol=1e-5, atol=1e-6)
    one = rpcls.lstsq(held[0], held[1][:, 0], "partial", sketch_size=80, rng=0)
    bound = rpcls.certify(held[0], held[1][:, 0], one)
    error = np.linalg.norm(A @ (xp.asnumpy(one.x) - exact[:, 0]))
    assert bound.lower <= error <= bound.upper <= 5 * error


@pytest.mark.parametrize("k", [1, 3, 6])
@pytest.mark.parametrize("intercept", [False, True])
def test_every_sweep_is_that_of_the_host(xp: Any, k: int, intercept: bool) -> None:
    A, b, w = problem(np.float64, k)
    S = rpcls.SparseSign().sample(64, rng=0)
    host = source_of(A, b, sample_weight=w, intercept=intercept)
    card = source_of(xp.asarray(A), xp.asarray(b), sample_weight=xp.asarray(w), intercept=intercept)
    for source in (host, card):
        source.compress(S)
    rng = np.random.default_rng(2)
    X, P, R = rng.standard_normal((N, k)), rng.standard_normal((N, 7)), np.triu(rng.random((N, N))) + 3 * np.eye(N)
    for sweep in (
        lambda s: s.gradient(X), lambda s: (s.normal(P),), lambda s: (s.normal(P[:, :2]),), lambda s: s.gram(),
        lambda s: s.gram(R), lambda s: (s.triangle()[0].T @ s.triangle()[0],),
    ):  # fmt: skip
        for mine, theirs in zip(sweep(card), sweep(host), strict=True):
            mine = kernels.on_host(mine)
            assert np.allclose(mine, theirs, rtol=1e-10, atol=1e-10 * np.abs(theirs).max())
    assert np.allclose(xp.asnumpy(card.predict(X)), host.predict(X))
    with pytest.raises(InvalidTypeError, match=r"this needs the rows in host memory, .*pass cupy.asnumpy\(A\)"):
        card.blocks()


def test_rows_are_sampled_by_the_leverages_that_the_card_has_found(xp: Any) -> None:
    rng = np.random.default_rng(4)
    m, n = 4000, 5
    A = 1e-6 * rng.standard_normal((m, n))  # few rows carry the range
    A[rng.choice(m, n, replace=False)] += np.eye(n)
    Q, w = np.linalg.qr(A)[0], rng.random(m) + 0.5
    for seed in range(5):
        c = rpcls.compress(xp.asarray(A), xp.asarray(A[:, 0]), rpcls.LeverageSampling(), sketch_size=300, rng=seed)
        s = np.linalg.svd(c.operator @ Q, compute_uv=False)
        assert max(abs(s[0] - 1), abs(s[-1] - 1)) < 0.5
        assert np.allclose(xp.asnumpy(c.SA), c.operator @ A) and c.sweeps == 3
    x, y = rng.standard_normal(m), rng.standard_normal(300)
    S = c.operator.family.sample(300, m=m, rng=0)
    assert np.isclose((S @ x) @ y, x @ (S.T @ y))
    X, R = rng.standard_normal((n, 3)), 7 * A
    held = source_of(xp.asarray(R), xp.asarray(x), sample_weight=xp.asarray(w))
    assert np.allclose(xp.asnumpy(held.scores(X)), source_of(R, x, sample_weight=w).scores(X))
    assert np.allclose(source_of(R, x, sample_weight=w).scores(X), w * np.sum((R @ X) ** 2, axis=1))
    A[:, 2] = 0.0  # and of lower rank
    c = rpcls.compress(xp.asarray(A), xp.asarray(x), rpcls.LeverageSampling(), sketch_size=300, rng=0)
    assert np.linalg.matrix_rank(xp.asnumpy(c.SA)) == n - 1
    zero = rpcls.compress(xp.asarray(0 * A), xp.asarray(x), rpcls.LeverageSampling(), sketch_size=20, rng=0)
    assert np.allclose(zero.operator.family.factors, np.sqrt(m / 20))  # type: ignore[attr-defined]


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_units_that_overflow_or_underflow_squares(xp: Any, size: float) -> None:
    A, b, _ = problem()
    expected = rpcls.lstsq(A, b, "full", rng=0).x
    got = rpcls.lstsq(xp.asarray(A * size), xp.asarray(b * size), "full", rng=0).x
    assert np.allclose(xp.asnumpy(got), expected)


def test_nothing_of_m_rows_comes_to_the_host(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    A, b, _ = problem()
    copied = []
    monkeypatch.setattr(stand_in, "asnumpy", lambda a: copied.append(a.shape) or a.held.copy())
    held = stand_in.asarray(A), stand_in.asarray(b)
    for solver in SOLVERS:
        rpcls.lstsq(*held, solver, **({"sketch_size": 30, "rng": 0} if solver in ("full", "partial") else {}))
    for family in (*SWEPT.values(), rpcls.LeverageSampling()):
        rpcls.compress(*held, family, sketch_size=30, rng=0)
    assert copied and max(max(shape, default=0) for shape in copied) < M / 2


def test_non_finite_entries_are_named(xp: Any) -> None:
    A, b, w = problem()
    A[17, 3] = np.nan
    with pytest.raises(NonFiniteError, match="A must be finite, got nan in row 17, column 3"):
        rpcls.compress(xp.asarray(A), xp.asarray(b), rng=0)
    with pytest.raises(NonFiniteError, match="A must be finite, got nan in row 17, column 3"):
        rpcls.lstsq(xp.asarray(A), xp.asarray(b), "direct")
    A[17, 3], b[400] = 0.0, np.inf
    with pytest.raises(NonFiniteError, match="b must be finite, got inf in row 400, column 0"):
        rpcls.compress(xp.asarray(A), xp.asarray(b), rng=0)
    for value, error, rule in ((-1.0, InvalidValueError, "non-negative"), (np.nan, NonFiniteError, "finite")):
        w[5] = value
        with pytest.raises(error, match=f"sample_weight must be {rule}, got {value} in row 5"):
            rpcls.compress(xp.asarray(A), xp.asarray(b), sample_weight=xp.asarray(w))


def test_host_and_card_do_not_mix(xp: Any) -> None:
    A, b, w = problem()
    with pytest.raises(InvalidTypeError, match=r"b must be a CuPy array as A is, got numpy.ndarray; cupy.asarray\(b\)"):
        rpcls.lstsq(xp.asarray(A), b)
    with pytest.raises(InvalidTypeError, match=r"sample_weight must be a CuPy array as A is, got numpy.ndarray"):
        rpcls.lstsq(xp.asarray(A), xp.asarray(b), sample_weight=w)
    with pytest.raises(InvalidTypeError, match=r"b must be a NumPy array \(A is in host memory\), .*with cupy.asnumpy"):
        rpcls.lstsq(A, xp.asarray(b))
    with pytest.raises(InvalidTypeError, match="b must be given with an array A"):
        rpcls.lstsq(xp.asarray(A), None)


@pytest.mark.parametrize(
    ("A", "b", "error", "told"),
    [
        (
            np.ones((5, 2), int),
            np.ones(5),
            InvalidTypeError,
            "a CuPy A must hold float16, bfloat16, float32 or float64, got int64",
        ),
        (np.ones(5), np.ones(5), InvalidValueError, r"two dimensions \(m, n\), got shape \(5,\); a single column is A"),
        (np.ones((5, 0)), np.ones(5), InvalidValueError, r"A must have at least one column, got shape \(5, 0\)"),
        (np.ones((5, 2)), np.ones(4), InvalidValueError, r"b must have shape \(m,\) or \(m, k\) with A's m = 5 rows"),
        (np.ones((5, 2)), np.ones((5, 0)), InvalidValueError, r"b must have at least one column, got shape \(5, 0\)"),
        (np.ones((5, 2)), np.ones(5, complex), InvalidTypeError, "b must hold real numbers, got complex128"),
    ],
)
def test_shapes_and_dtypes(xp: Any, A: np.ndarray, b: np.ndarray, error: type, told: str) -> None:
    with pytest.raises(error, match=told):
        rpcls.compress(xp.asarray(A), xp.asarray(b))
    if A.shape == (5, 2) and b.shape == (5,) and A.dtype == b.dtype:
        return
    with pytest.raises(InvalidValueError, match=r"sample_weight must have shape \(m,\) = \(5,\), got \(4,\)"):
        rpcls.compress(xp.asarray(np.ones((5, 2))), xp.asarray(np.ones(5)), sample_weight=xp.asarray(np.ones(4)))


class Tensor:
    """What rpcls knows of a torch tensor on a card."""

    is_cuda, dtype = True, "torch.float64"

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def detach(self) -> np.ndarray:
        return self.array


def test_torch_tensors_on_a_card_share_their_memory(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    A, b, w = problem()
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(Tensor=Tensor))
    source = source_of(Tensor(A), Tensor(b), sample_weight=Tensor(w))
    assert np.shares_memory(source.A.held, A) and np.shares_memory(source.b.held, b)  # type: ignore[attr-defined]
    got = rpcls.lstsq(Tensor(A), Tensor(b), "direct", sample_weight=Tensor(w))
    assert isinstance(got.x, stand_in.ndarray)
    assert np.allclose(got.x.held, rpcls.lstsq(A, b, "direct", sample_weight=w).x)
    with monkeypatch.context() as patch:

        def refuse(tensor: Any) -> Any:
            raise NotImplementedError("CuPy does not support bfloat16 yet")

        told = r"CuPy {} cannot share a tensor of torch\.bfloat16; that takes CuPy 14 .*tensor\.float\(\)"
        patch.setattr(Tensor, "dtype", "torch.bfloat16")
        patch.setattr(stand_in, "__version__", "13.0.0")  # which is not even asked
        with pytest.raises(InvalidTypeError, match=told.format(r"13\.0\.0")):
            rpcls.lstsq(Tensor(A), Tensor(b))
        patch.setattr(stand_in, "from_dlpack", refuse)
        patch.setattr(stand_in, "__version__", "14.2.0")
        with pytest.raises(InvalidTypeError, match=told.format(r"14\.2\.0")):
            rpcls.lstsq(Tensor(A), Tensor(b))
    told = r"a torch tensor on a card needs CuPy, .*pip install cupy-"
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "cupy", None)
        with pytest.raises(MissingDependencyError, match=told):
            rpcls.lstsq(Tensor(A), Tensor(b))


# -- what can go wrong on a card ----------------------------------------------------------------------


def test_arrays_of_two_cards(stand_in: Any) -> None:
    A, b, _ = problem()
    other = stand_in.asarray(b)
    other.device = type("Device", (), {"id": 1})()
    with pytest.raises(InvalidTypeError, match="b must be on A's card 0, got one on card 1"):
        rpcls.compress(stand_in.asarray(A), other)


@pytest.mark.parametrize(
    ("name", "raised", "told"),
    [
        ("OutOfMemoryError", "Out of memory allocating 9 bytes", "the card is out of memory: .*lower sketch_size"),
        ("CUDARuntimeError", "cudaErrorInsufficientDriver: too old", "InsufficientDriver.*the driver is older than"),
        ("CUDARuntimeError", "cudaErrorNoDevice: none", "no card is visible: see nvidia-smi and CUDA_VISIBLE_DEVICES"),
        ("CUDADriverError", "CUDA_ERROR_ILLEGAL_ADDRESS", "CUDA_ERROR_ILLEGAL_ADDRESS: the sweep failed"),
        ("CompileException", "sweep.cu(3): error: no such thing", r"(?s)quads.cu does not compile for this card;"
         r" the compiler says:\nsweep.cu\(3\): error: no such thing"),
    ],
)  # fmt: skip
def test_what_the_driver_says_is_told(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch, name: str, raised: str, told: str
) -> None:
    A, b, _ = problem()
    held = stand_in.asarray(A), stand_in.asarray(b)

    def fail(*_: Any, **__: Any) -> None:
        raise getattr(cupy_stand_in, name)(raised)

    if name == "CompileException":
        monkeypatch.setattr(cupy_stand_in.RawModule, "get_function", fail)
    else:
        monkeypatch.setattr(stand_in, "empty", fail)
    with pytest.raises(DeviceError, match=told):
        rpcls.compress(*held, rng=0)


def test_kernels_are_chosen_by_the_array(stand_in: Any) -> None:
    assert kernels.of(np.ones(3)).__name__ == "rpcls.kernels.cpu"
    assert kernels.of(stand_in.asarray(np.ones(3))).__name__ == "rpcls.kernels.cuda"
    assert isinstance(kernels.on_host(stand_in.asarray(np.ones(3))), np.ndarray) and kernels.on_host("x") == "x"


def test_a_module_is_one_text() -> None:
    for path in device._FOLDER.glob("*.cu"):
        text = device.source(path.stem)
        assert '#include "' not in text and "#pragma once" not in text and text.count("typedef unsigned int u32;") == 1
