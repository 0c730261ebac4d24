"""Random-basis layers: their coefficients by least squares, without gradient descent."""

from __future__ import annotations

from .adamix import AdaMix
from .c3a import C3A
from .ether import ETHER, ETHERPlus
from .family import Family, LinearAdapter, SpanningFamily
from .fine_gates import FineGates
from .fit import FitResult, fit
from .fourier import FourierFT
from .loha import LoHa
from .loretta import LoRETTA
from .lorta import LoRTA
from .lowrank import LoRA, LoRAXS, MELoRA
from .nola import NOLA
from .randlora import RandLoRA
from .sparse import SaRA, SpaRTA
from .statistics import LayerStatistics, token_sketch_size
from .subset import DynamicSubset
from .vera import VeRA

__all__ = [
    "C3A",
    "ETHER",
    "NOLA",
    "AdaMix",
    "DynamicSubset",
    "ETHERPlus",
    "Family",
    "FineGates",
    "FitResult",
    "FourierFT",
    "LayerStatistics",
    "LinearAdapter",
    "LoHa",
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
