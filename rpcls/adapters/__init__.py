"""Random-basis layers: their coefficients by least squares, without gradient descent."""

from __future__ import annotations

from .capture import capture
from .export import export_peft
from .extract import extract
from .family import Family, LinearAdapter
from .fit import FitResult, fit
from .lowrank import LoRA, LoRAXS, MELoRA
from .models import ModelFit, fit_model
from .nola import NOLA
from .peft_model import peft_families
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
    "MELoRA",
    "ModelFit",
    "RandLoRA",
    "SaRA",
    "SpaRTA",
    "VeRA",
    "capture",
    "export_peft",
    "extract",
    "fit",
    "fit_model",
    "peft_families",
    "token_sketch_size",
]
