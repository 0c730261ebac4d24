"""Random-basis layers: their coefficients by least squares, without gradient descent."""

from __future__ import annotations

from .family import Family, LinearAdapter, SpanningFamily
from .fit import FitResult, fit
from .loretta import LoRETTA
from .lorta import LoRTA
from .lowrank import LoRA, LoRAXS, MELoRA
from .nola import NOLA
from .randlora import RandLoRA
from .sparse import DynamicSubset, SaRA, SpaRTA
from .statistics import LayerStatistics, token_sketch_size
from .vera import VeRA

__all__ = [
    "NOLA",
    "DynamicSubset",
    "Family",
    "FitResult",
    "LayerStatistics",
    "LinearAdapter",
    "LoRA",
    "LoRAXS",
    "LoRETTA",
    "LoRTA",
    "MELoRA",
    "RandLoRA",
    "SaRA",
    "SpaRTA",
    "SpanningFamily",
    "VeRA",
    "fit",
    "token_sketch_size",
]
