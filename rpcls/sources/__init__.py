"""Where the rows live: one kind a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..errors import InvalidTypeError, InvalidValueError
from ..kernels import lanes, of_tensor, on_card
from .array import ArraySource
from .base import Source
from .blocks import BlockSource, RowBlocks
from .device import DeviceSource
from .device_sparse import DeviceSparseSource, is_device_sparse
from .sparse import SparseSource, is_sparse
from .streamed import StreamedSource
from .tables import column_names, plain

__all__ = [
    "ArraySource",
    "BlockSource",
    "DeviceSource",
    "DeviceSparseSource",
    "RowBlocks",
    "Source",
    "SparseSource",
    "StreamedSource",
    "source_of",
]


def source_of(
    A: Any,
    b: Any,
    *,
    sample_weight: Any = None,
    row_offset: int = 0,
    intercept: bool = False,
    workers: int | None = None,
    device: str | None = None,
) -> Source:
    """The source for whatever A is: the one place that decides."""
    if device not in (None, "cpu", "cuda"):
        raise InvalidValueError(f"device must be None, 'cpu' or 'cuda', got {device!r}")
    threads = lanes.count_workers(workers)
    if isinstance(A, RowBlocks) or (isinstance(A, Iterator) and not hasattr(A, "shape")):
        told = "RowBlocks" if isinstance(A, RowBlocks) else "an iterator of row blocks"
        for name, value in (("b", b), ("sample_weight", sample_weight)):
            if value is not None:
                raise InvalidValueError(
                    f"{name} must be None when A is {told}: each block brings its own, as (A_block, b_block) or "
                    f"(A_block, b_block, weight_block)"
                )
        blocks = BlockSource(A, row_offset=row_offset, intercept=intercept, workers=threads)
        return StreamedSource(blocks) if device == "cuda" else blocks
    if callable(A) and not hasattr(A, "__array__"):
        raise InvalidTypeError("A must be an array or RowBlocks, got a function; use rpcls.RowBlocks(A, n_columns)")
    columns, A = column_names(A), plain(of_tensor(A), "A")
    b, sample_weight = of_tensor(b), of_tensor(sample_weight)
    there = on_card(A) or is_device_sparse(A)
    if there and device == "cpu":
        given, how = ("CuPy array", "cupy.asnumpy(A)") if on_card(A) else (type(A).__name__, "A.get()")
        raise InvalidTypeError(
            f"device='cpu' sweeps rows in host memory, and A is a {given} on a card; pass {how} and cupy.asnumpy(b), "
            "or leave device None"
        )
    dense, sparse = (DeviceSource, DeviceSparseSource) if there else (ArraySource, SparseSource)
    kind = sparse if is_sparse(A) else dense
    source = kind(A, b, sample_weight=sample_weight, row_offset=row_offset, intercept=intercept, workers=threads)
    source.columns = columns
    return StreamedSource(source) if device == "cuda" and not there else source
