"""extract: a fine-tuned checkpoint as an adapter of its base."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import InvalidTypeError, InvalidValueError
from ..random import Key, RandomLike
from .arrays import matrix, plain
from .checkpoints import tensors_of
from .family import Family
from .lazy import Lazy
from .models import ModelFit, fit_layers
from .names import chosen, listed, unknown
from .statistics import LayerStatistics

__all__ = ["extract"]

_EMBEDDING = re.compile(r"(^|[._])(emb|embed\w*|\w*embeddings?|wte|wpe|shared)($|[._])", re.IGNORECASE)


def extract(
    base: Any,
    finetuned: Any,
    family: Family | Mapping[str, Family],
    *,
    inputs: Mapping[str, Any] | None = None,
    layers: Any = None,
    ridge: float = 0.01,
    max_iterations: int = 20,
    tol: float = 1e-4,
    rng: RandomLike = 0,
    progress: bool | None = None,
) -> ModelFit:
    """Fit adapters to what fine-tuning changed: dW near T = W_finetuned − W_base, layer by layer.

    Parameters
    ----------
    base, finetuned : path, mapping or torch.nn.Module
        A .safetensors file or a folder of them, a state dict, or a module. Tensors are read one at a time. Weights are
        (out × in), as Linear layers have them.
    family : Family, or mapping of str to Family
    inputs : mapping of str to LayerStatistics or (…, i) array_like, optional
        Layers' inputs, such as ``capture(base, batches)``: then dW changes the layer's outputs as T does, in the mean
        over these inputs. Without, all directions of weight space count alike.
    layers : None, str or list of str, optional
        As ``target_modules`` of the peft library. None: those in `inputs`; without these, all matrices called
        NAME.weight that changed, unless a part of NAME says that it is an embedding.
    ridge, max_iterations, tol, rng
        As in `fit`, for every layer.
    progress : bool, optional
        A progress bar on standard error; None: if that is a terminal.

    Returns
    -------
    ModelFit
        Its notes name the tensors that changed too and are not in the adapter: biases, norms, embeddings.

    Raises
    ------
    InvalidValueError, InvalidTypeError, NonFiniteError
        Layers that are missing or of different sizes; nothing changed; what `fit` raises.
    FormatError, OSError
        A file cannot be read.

    Examples
    --------
    >>> import numpy as np
    >>> from rpcls.adapters import LoRA, extract
    >>> base = {"fc.weight": np.eye(3), "fc.bias": np.zeros(3)}
    >>> finetuned = {"fc.weight": np.eye(3) + 1, "fc.bias": np.ones(3)}
    >>> result = extract(base, finetuned, LoRA(rank=1), ridge=0)
    >>> round(result["fc"].explained, 12), result.notes
    (1.0, ("1 changed tensor is not in the adapter: 'fc.bias'.",))
    """
    old, new = tensors_of(base, "base"), tensors_of(finetuned, "finetuned")
    if inputs is not None and (not isinstance(inputs, Mapping) or not inputs):
        raise InvalidTypeError(f"inputs must map layers' names to their inputs, got {type(inputs).__name__}")
    matrices = [n.removesuffix(".weight") for n in old if n.endswith(".weight") and len(_shape(old, n)) == 2]
    if not matrices:
        raise InvalidValueError(f"base has no matrix called NAME.weight; it holds {listed(list(old))}")
    changed = None
    if layers is None and inputs is None:
        changed = {name for name in old if name in new and _differs(old, new, name)}
        names = [n for n in matrices if f"{n}.weight" in changed and not _EMBEDDING.search(n)]
        if not names:
            raise InvalidValueError(
                f"no layer changed from base to finetuned; {len(changed)} other tensors did: {listed(sorted(changed))}"
            )
    else:
        names = chosen(matrices, layers, "matrices of base") if layers is not None else list(inputs or ())
        for name in names:
            if name not in matrices:
                raise unknown(name, matrices, "matrices of base")
            if inputs is not None and name not in inputs:
                raise unknown(name, list(inputs), "layers of inputs")
    for name in names:
        if f"{name}.weight" not in new:
            raise unknown(f"{name}.weight", list(new), "tensors of finetuned")
    settings = {"ridge": ridge, "max_iterations": max_iterations, "tol": tol, "rng": Key.of(rng)}

    def difference(name: str) -> LayerStatistics:
        W, its = _weight(old, name), _weight(new, name)
        if W.shape != its.shape:
            raise InvalidValueError(f"{name}.weight must be of one size in both, got {W.shape} and {its.shape}")
        return LayerStatistics.from_delta(its - W, inputs=None if inputs is None else inputs[name])

    differences, weights = Lazy(names, difference), Lazy(names, lambda name: _weight(old, name))
    fitted = dict(fit_layers(differences, family, settings, weights, {}, progress))
    if changed is None:
        changed = {name for name in old if name in new and _differs(old, new, name)}
    lost = sorted(changed - {f"{name}.weight" for name in fitted})
    notes = ()
    if lost:
        one = len(lost) == 1
        notes = (f"{len(lost)} changed tensor{'' if one else 's'} {'is' if one else 'are'} not in the adapter: "
                 f"{listed(lost)}.",)  # fmt: skip
    return ModelFit(fitted, notes)


def _weight(tensors: Mapping[str, Any], name: str) -> np.ndarray:
    return matrix(tensors[f"{name}.weight"], f"{name}.weight", (None, None), "(out_features, in_features)")


def _shape(tensors: Any, name: str) -> tuple[int, ...]:
    return tensors.shape(name) if hasattr(tensors, "shape") else tuple(np.shape(tensors[name]))


def _differs(old: Mapping[str, Any], new: Mapping[str, Any], name: str) -> bool:
    a, b = plain(old[name], name), plain(new[name], name)
    return a.shape != b.shape or not np.array_equal(a, b)
