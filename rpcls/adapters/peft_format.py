"""The adapter formats of the peft library, as version 0.21.2 defines them: settings and tensors of fitted layers.

Each function turns results of one kind into what adapter_config.json says and what adapter_model.safetensors holds.
Tensors that all layers share, such as RandLoRA's bases, are written once, at the level of the model.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..errors import InvalidValueError
from .adamix import AdaMix
from .c3a import C3A
from .fit import FitResult
from .fourier import FourierFT, peft_indices
from .loha import LoHa
from .lowrank import LoRA, LoRAXS, MELoRA, scale_of
from .names import listed
from .nola import NOLA
from .randlora import RandLoRA
from .sparse import SaRA, SpaRTA
from .subset import DynamicSubset
from .vera import VeRA

__all__ = ["PEFT_VERSION", "Written", "written"]

PEFT_VERSION = "0.21.2"

Results = Mapping[str, FitResult]


class Written(NamedTuple):
    """An adapter in peft's terms.

    Attributes
    ----------
    config : dict
        Of adapter_config.json: what differs from peft's defaults.
    shared : dict of arrays
        Tensors of the whole model.
    layers : dict of dicts of arrays
        Tensors of each layer.
    """

    config: dict[str, Any]
    shared: dict[str, np.ndarray]
    layers: dict[str, dict[str, np.ndarray]]


def written(results: Results) -> Written:
    """Settings and tensors, or InvalidValueError that says why peft has no place for these results."""
    kinds = {type(result.family) for result in results.values()}
    formats = {FORMATS.get(kind) for kind in kinds}
    if None in formats:
        lost = sorted(kind.__name__ for kind in kinds if kind not in FORMATS)
        raise InvalidValueError(
            f"the peft library has no format for {', '.join(lost)}; it has for "
            f"{', '.join(sorted(kind.__name__ for kind in FORMATS))}. delta() gives dW to add to the weights"
        )
    if len(formats) != 1:
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise InvalidValueError(f"all layers of one peft adapter must be of one format, got {names}; export them apart")
    return formats.pop()(results)  # type: ignore[misc]


# -- plain LoRA ----------------------------------------------------------------------------------------------------


def _lora(results: Results) -> Written:
    """lora_A (r, i), lora_B (o, r), dW = lora_alpha/r · BA."""
    layers, ranks, alphas = {}, {}, {}
    for name, result in results.items():
        family: Any = result.family
        B, A = result.model().low_rank(result.factors)
        scale = scale_of(family.alpha, family.rank)
        layers[name] = {"lora_A.weight": A, "lora_B.weight": B / scale}
        ranks[name], alphas[name] = len(A), _plain(scale * len(A))
    config = {"peft_type": "LORA", "r": _common(ranks), "lora_alpha": _common(alphas)}
    config |= {"rank_pattern": _pattern(ranks, _lora_key), "alpha_pattern": _pattern(alphas, _lora_key)}
    return Written(config, {}, layers)


# -- their own factors, and nothing else ------------------------------------------------------------------------


def _loha(results: Results) -> Written:
    """hada_w1_a, hada_w1_b, hada_w2_a, hada_w2_b: dW = alpha/r · (w1_a·w1_b) ⊙ (w2_a·w2_b)."""
    names = {"hada_w1_a": "B1", "hada_w1_b": "A1", "hada_w2_a": "B2", "hada_w2_b": "A2"}
    layers, ranks, alphas = {}, {}, {}
    for name, result in results.items():
        family: Any = result.family
        layers[name] = {theirs: result.factors[ours] for theirs, ours in names.items()}
        ranks[name], alphas[name] = family.rank, _plain(scale_of(family.alpha, family.rank) * family.rank)
    config = {"peft_type": "LOHA", "r": _common(ranks), "alpha": _common(alphas)}
    config |= {"rank_pattern": _pattern(ranks, _lora_key), "alpha_pattern": _pattern(alphas, _lora_key)}
    return Written(config, {}, layers)


def _c3a(results: Results) -> Written:
    """c3a_kernel (o/b, i/b, b)."""
    layers = {name: {"c3a_kernel": result.factors["kernel"]} for name, result in results.items()}
    sizes = {name: result.factors["kernel"].shape[-1] for name, result in results.items()}
    config = {"peft_type": "C3A", "block_size": _common(sizes), "block_size_pattern": _pattern(sizes, _dotted_key)}
    return Written(config, {}, layers)


def _fourier(results: Results) -> Written:
    """fourierft_spectrum (k,), at places that peft draws from random_loc_seed when it loads."""
    family = _one_family(results, ("scaling", "random_loc_seed"))
    layers, sizes = {}, {}
    for name, result in results.items():
        its: Any = result.family
        (o, i), k = result.shape, result.factors["spectrum"].size
        u, v = its.indices_in((o, i))
        if not np.array_equal(u * i + v, peft_indices(family.random_loc_seed, o * i, k)):
            raise InvalidValueError(
                f"layer {name!r}: peft keeps no indices of FourierFT but draws them, for random_loc_seed = "
                f"{family.random_loc_seed} others than these; fit without indices, for peft's own"
            )
        layers[name], sizes[name] = {"fourierft_spectrum": result.factors["spectrum"]}, k
    config = {"peft_type": "FOURIERFT", "scaling": family.scaling, "random_loc_seed": family.random_loc_seed}
    config |= {"n_frequency": _common(sizes), "n_frequency_pattern": _pattern(sizes, _dotted_key)}
    return Written(config, {}, layers)


# -- bases that all layers share -----------------------------------------------------------------------------------


def _randlora(results: Results) -> Written:
    """randlora_lambda (r, n), randlora_gamma (n, d); of the largest size randlora_A (r, 1, d), randlora_B (D, n, r)."""
    family = _one_family(results, ("rank", "alpha"))
    shape = _largest(results)
    A, B = family.bases(shape)
    layers = {}
    for name, result in results.items():
        its: Any = result.family
        d, D = min(result.shape), max(result.shape)
        a, b = its.bases(result.shape)
        _check_shared(name, (a, A[:, :, :d]), (b, B[:D, : b.shape[1]]))
        layers[name] = {f"randlora_{key}": result.factors[key] for key in ("lambda", "gamma")}
    scale = scale_of(family.alpha, family.rank)
    config = {"peft_type": "RANDLORA", "r": family.rank, "randlora_alpha": _plain(scale * family.rank)}
    return Written({**config, "save_projection": True}, {"randlora_A": A, "randlora_B": B}, layers)


def _vera(results: Results) -> Written:
    """vera_lambda_b (o,), vera_lambda_d (r,); of the largest size vera_A (r, i), vera_B (o, r).

    A is brought to the variance 2/i that peft draws it with, and b takes the factor, so that training can go on.
    """
    family = _one_family(results, ("rank",))
    o, i = _largest(results)
    A, B = family.projection(i), family.output_basis(o)
    factor = 1.0 if family.A is not None else math.sqrt(2 / i)
    layers = {}
    for name, result in results.items():
        its: Any = result.family
        rows, columns = result.shape
        _check_shared(name, (its.projection(columns), A[:, :columns]), (its.output_basis(rows), B[:rows]))
        layers[name] = {"vera_lambda_b": result.factors["b"] / factor, "vera_lambda_d": result.factors["d"]}
    config = {"peft_type": "VERA", "r": family.rank, "save_projection": True}
    return Written(config, {"vera_A": A * factor, "vera_B": B}, layers)


def _largest(results: Results) -> tuple[int, int]:
    """The size that peft gives shared bases: the most outputs and the most inputs of all layers."""
    shapes = [result.shape for result in results.values()]
    return max(o for o, _ in shapes), max(i for _, i in shapes)


def _check_shared(name: str, *pairs: tuple[np.ndarray, np.ndarray]) -> None:
    if not all(np.array_equal(mine, common) for mine, common in pairs):
        raise InvalidValueError(
            f"layer {name!r} was fitted with other bases than the first, and peft keeps one set for the whole model; "
            "fit all layers with one family"
        )


# -- sparse --------------------------------------------------------------------------------------------------------


def _shira(results: Results) -> Written:
    """shira_weight (k,) at shira_indices (2, k), where peft wants k = r(o + i): the rest is filled with zeros."""
    flat = {name: np.flatnonzero(result.delta()) for name, result in results.items()}
    r = max(1, *(-(-len(flat[name]) // sum(result.shape)) for name, result in results.items()))
    layers = {}
    for name, result in results.items():
        o, i = result.shape
        if r * (o + i) > o * i:
            most = max(results, key=lambda name: len(flat[name]) / sum(results[name].shape))
            raise InvalidValueError(
                f"SHiRA keeps r(o + i) entries of each layer, and {len(flat[most])} of {most!r} need r = {r}; layer "
                f"{name!r} has {o} × {i} only, too few. Lower density, or export the layers apart"
            )
        positions = _filled(flat[name], r * (o + i))
        values = result.delta().reshape(-1)[positions]
        indices = np.stack(np.divmod(positions, i)).astype(np.int32)
        layers[name] = {"shira_weight": values, "shira_indices": indices}
    return Written({"peft_type": "SHIRA", "r": r}, {}, layers)


def _filled(positions: np.ndarray, count: int) -> np.ndarray:
    """With the first unused positions, until there are `count`; sorted."""
    unused = np.setdiff1d(np.arange(count), positions, assume_unique=True)
    return np.sort(np.concatenate([positions, unused[: count - len(positions)]]))


# -- settings that differ between layers ---------------------------------------------------------------------------


def _one_family(results: Results, fields: tuple[str, ...]) -> Any:
    """The family of the first layer; all others must agree with it."""
    first, *others = results.items()
    for name, result in others:
        for field in fields:
            mine, its = getattr(first[1].family, field), getattr(result.family, field)
            if mine != its:
                kind = type(result.family).__name__
                raise InvalidValueError(
                    f"peft keeps one {field} of {kind} for the whole model, got {mine} for {first[0]!r} and {its} for "
                    f"{name!r}; export them apart"
                )
    return first[1].family


def _common(values: Mapping[str, Any]) -> Any:
    return Counter(values.values()).most_common(1)[0][0]


def _lora_key(keys: list[str], name: str) -> str | None:
    """Which key of a pattern peft applies to a layer: the first that matches the end of its name."""
    return next((key for key in keys if re.match(rf"(.*\.)?({key})$", name)), None)


def _dotted_key(keys: list[str], name: str) -> str | None:
    """The same for C3A and FourierFT, where a key matches after a dot, and a whole name only if no other matches."""
    return next((key for key in keys if re.match(rf".*\.{key}$", name)), name if name in keys else None)


def _pattern(values: Mapping[str, Any], key_of: Callable[[list[str], str], str | None]) -> dict[str, Any]:
    """Values by name; empty if all agree. Longer names come first, since peft takes the first that matches."""
    if len(set(values.values())) == 1:
        return {}
    names = sorted(values, key=len, reverse=True)
    wrong = [name for name in names if (key := key_of(names, name)) is None or values[key] != values[name]]
    if wrong:
        raise InvalidValueError(
            f"peft would take the settings of another layer, whose name is the end of this one's, for {listed(wrong)}; "
            "give these layers the same settings, or export them apart"
        )
    return {name: values[name] for name in names}


def _plain(value: float) -> int | float:
    """An int where it is one, as peft writes it."""
    return int(value) if float(value).is_integer() else float(value)


FORMATS: dict[type, Callable[[Results], Written]] = {
    **dict.fromkeys((LoRA, LoRAXS, MELoRA, NOLA, AdaMix), _lora),
    LoHa: _loha,
    C3A: _c3a,
    FourierFT: _fourier,
    RandLoRA: _randlora,
    VeRA: _vera,
    **dict.fromkeys((SpaRTA, SaRA, DynamicSubset), _shira),
}
