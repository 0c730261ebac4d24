"""Random-basis layers: their coefficients by least squares, without gradient descent."""

from __future__ import annotations

from .adamix import AdaMix
from .c3a import C3A
from .capture import capture
from .ether import ETHER, ETHERPlus
from .export import export_peft
from .extract import extract
from .family import Family, LinearAdapter, SpanningFamily
from .fine_gates import FineGates
from .fit import FitResult, fit
from .fourier import FourierFT
from .loha import LoHa
from .loretta import LoRETTA
from .lorta import LoRTA
from .lowrank import LoRA, LoRAXS, MELoRA
from .models import ModelFit, fit_model
from .nola import NOLA
from .peft_model import peft_families
from .randlora import RandLoRA
from .sparse import SaRA, SpaRTA
from .statistics import LayerStatistics
from .subset import DynamicSubset
from .token_sketch import token_sketch_size
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
    "ModelFit",
    "RandLoRA",
    "SaRA",
    "SpaRTA",
    "SpanningFamily",
    "VeRA",
    "capture",
    "export_peft",
    "extract",
    "fit",
    "fit_model",
    "peft_families",
    "token_sketch_size",
]
