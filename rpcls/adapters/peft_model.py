"""Families as a model of the peft library has them: its own ranks, bases and positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import InvalidTypeError, InvalidValueError
from .arrays import plain
from .c3a import C3A
from .family import Family
from .fourier import FourierFT
from .loha import LoHa
from .lowrank import LoRA
from .names import unknown
from .randlora import RandLoRA
from .sparse import SpaRTA
from .vera import VeRA

__all__ = ["peft_families"]


def peft_families(model: Any, adapter: str = "default") -> dict[str, Family]:
    """The family of each layer of a peft model, so that what is fitted fits that very adapter.

    The bases that peft draws depend on the machine and on all layers that are adapted; they are read here.

    Parameters
    ----------
    model : peft.PeftModel
        With an adapter of RandLoRA, VeRA, LoRA, FourierFT, C3A, LoHa or SHiRA, trained or not.
    adapter : str, default "default"
        Its name.

    Returns
    -------
    dict of str to Family
        From the layers' names in the base model; for `fit_model` and `extract`.

    Raises
    ------
    InvalidTypeError, InvalidValueError
        No peft model; no such adapter; one of another kind.

    Examples
    --------
    >>> from rpcls.adapters import capture, fit_model, peft_families
    >>> families = peft_families(peft.get_peft_model(base, peft.VeraConfig(r=64)))  # doctest: +SKIP
    >>> fit_model(capture(base, batches, list(families), teacher=teacher), families)  # doctest: +SKIP
    """
    settings = getattr(model, "peft_config", None)
    if not isinstance(settings, dict) or not hasattr(model, "get_base_model"):
        raise InvalidTypeError(f"the model must be a peft.PeftModel, got {type(model).__name__}")
    if adapter not in settings:
        raise unknown(adapter, settings, "adapters of the model")
    kind = getattr(settings[adapter].peft_type, "value", settings[adapter].peft_type)
    if kind not in _READERS:
        raise InvalidValueError(f"the adapter must be one of {', '.join(_READERS)}, got {kind}")
    parameter, read = _READERS[kind]
    return {
        name: read(module, adapter)
        for name, module in model.get_base_model().named_modules()
        if adapter in getattr(module, parameter, ())
    }


def _alpha(layer: Any, adapter: str) -> float:
    return float(layer.scaling[adapter] * layer.r[adapter])


def _randlora(layer: Any, adapter: str) -> Family:
    A, B = plain(layer.randlora_A[adapter], "randlora_A"), plain(layer.randlora_B[adapter], "randlora_B")
    return RandLoRA(layer.r[adapter], _alpha(layer, adapter), A=A, B=B)


def _vera(layer: Any, adapter: str) -> Family:
    A, B = plain(layer.vera_A[adapter], "vera_A"), plain(layer.vera_B[adapter], "vera_B")
    return VeRA(layer.r[adapter], A=A, B=B)


def _shira(layer: Any, adapter: str) -> Family:
    return SpaRTA(positions=plain(layer.shira_indices[adapter], "shira_indices").astype(np.int64))


def _fourier(layer: Any, adapter: str) -> Family:
    settings = layer.fourierft_n_frequency, layer.fourierft_scaling, layer.fourierft_random_loc_seed
    return FourierFT(*(setting[adapter] for setting in settings))


_READERS: dict[str, tuple[str, Callable[[Any, str], Family]]] = {
    "RANDLORA": ("randlora_lambda", _randlora),
    "VERA": ("vera_lambda_b", _vera),
    "LORA": ("lora_A", lambda layer, adapter: LoRA(layer.r[adapter], _alpha(layer, adapter))),
    "FOURIERFT": ("fourierft_spectrum", _fourier),
    "C3A": ("c3a_kernel", lambda layer, adapter: C3A(layer.block_size[adapter])),
    "LOHA": ("hada_w1_a", lambda layer, adapter: LoHa(layer.r[adapter], _alpha(layer, adapter))),
    "SHIRA": ("shira_weight", _shira),
}
