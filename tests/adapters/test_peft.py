"""Exported adapters in the peft library itself: the outputs are those of W₀ + dW."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch; .ci/run installs it in its second step")
peft = pytest.importorskip("peft", reason="needs the peft library; .ci/run installs it in its second step")
transformers = pytest.importorskip("transformers", reason="needs transformers; .ci/run installs it in its second step")

from rpcls.adapters import (  # noqa: E402
    C3A,
    NOLA,
    AdaMix,
    DynamicSubset,
    Family,
    FourierFT,
    LayerStatistics,
    LoHa,
    LoRA,
    LoRAXS,
    MELoRA,
    ModelFit,
    RandLoRA,
    SaRA,
    SpaRTA,
    VeRA,
    export_peft,
    fit_model,
    peft_families,
)
from rpcls.adapters.peft_format import FORMATS, PEFT_VERSION  # noqa: E402

pytestmark = [pytest.mark.peft, pytest.mark.filterwarnings("default")]

ATTENTION = [f"model.layers.{k}.self_attn.{p}" for k in range(2) for p in ("q_proj", "k_proj", "o_proj")]
LAYERS = [*ATTENTION, "model.layers.1.mlp.up_proj", "model.layers.1.mlp.down_proj"]  # o > i, o < i, o = i
SIZES = list(zip(LAYERS, [(32, 32), (16, 32), (32, 32)] * 2 + [(48, 32), (32, 48)], strict=True))
FAMILIES = [
    LoRA(rank=3),
    LoRA(rank=4, alpha=2.0),
    LoRAXS(rank=5),
    LoRAXS(rank=2, alpha=3.0),
    MELoRA(rank=2, blocks=4, alpha=8.0),
    NOLA(a_size=20, b_size=30, rank=3),
    NOLA(a_size=20, b_size=30, rank=3, alpha=1.5),
    LoHa(rank=2),
    LoHa(rank=3, alpha=2.0),
    C3A(block_size=8),
    FourierFT(n_frequency=40),
    FourierFT(n_frequency=200, scaling=30.0, random_loc_seed=5),
    VeRA(rank=24, seed=1),
    RandLoRA(rank=5),
    RandLoRA(rank=8, alpha=4.0, seed=3),
    SpaRTA(density=0.05),
    SaRA(density=0.1),
    DynamicSubset(density=0.02),
]


def base() -> Any:
    settings = transformers.LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32,
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(settings).eval()


def outputs(model: Any) -> Any:
    with torch.no_grad():
        return model(input_ids=torch.arange(48).reshape(4, 12)).logits


def fitted(family: Family | dict[str, Family], layers: list[str] = LAYERS) -> ModelFit:
    """Updates of a tenth of the weights' size, so that the outputs feel them."""
    rng, model = np.random.default_rng(0), base()
    weights = {name: model.get_submodule(name).weight.detach().double().numpy() for name in layers}
    wanted = {
        name: LayerStatistics.from_delta(3 * W.std() * rng.standard_normal(W.shape)) for name, W in weights.items()
    }
    return fit_model(wanted, family, weights=weights, max_iterations=5, tol=1.0)


def check(result: ModelFit, directory: Path) -> Any:
    """Load with peft, and compare with the sum done by hand, in float64."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        loaded = peft.PeftModel.from_pretrained(base(), directory)
    complaints = [str(w.message) for w in seen if "adapter" in str(w.message)]
    shared = ("randlora_A.default", "randlora_B.default")
    for text in complaints:  # the shared bases, once more for every layer; nothing else may be missing
        keys = text.partition("[")[2].partition("]")[0].split(", ")
        assert "missing adapter keys" in text and all(key.strip("'").endswith(shared) for key in keys), text
    by_hand = base().double()
    before = outputs(by_hand)
    with torch.no_grad():
        for name, layer in result.items():
            by_hand.get_submodule(name).weight += torch.from_numpy(layer.delta())
    after = outputs(by_hand)
    assert (after - before).abs().max() > 1e-2
    assert (outputs(loaded).double() - after).abs().max() < 1e-5
    return loaded


def test_the_version_is_the_one_that_is_stated() -> None:
    assert peft.__version__ == PEFT_VERSION


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
def test_outputs_are_those_of_the_sum(family: Family, tmp_path: Path) -> None:
    result = fitted(family)
    check(result, export_peft(result, tmp_path / "adapter", model=base(), task_type="CAUSAL_LM"))


def test_every_format_is_tried() -> None:
    assert {type(family) for family in FAMILIES} | {AdaMix} == set(FORMATS)


def test_settings_that_differ_between_layers(tmp_path: Path) -> None:
    ranks = {name: LoRA(rank=1 + k % 4, alpha=None if k % 3 else 5.0) for k, name in enumerate(LAYERS)}
    result = fitted(ranks)
    loaded = check(result, export_peft(result, tmp_path / "adapter"))
    assert loaded.base_model.model.model.layers[1].self_attn.o_proj.r == {"default": ranks[LAYERS[5]].rank}
    others = [
        {name: LoHa(rank=1 + k % 2, alpha=None if k % 3 else 5.0) for k, name in enumerate(LAYERS)},
        {name: C3A(block_size=16 if "self_attn" in name else 4) for name in LAYERS},
        {name: FourierFT(n_frequency=30 + k % 3) for k, name in enumerate(LAYERS)},
        {name: AdaMix(2, np.random.default_rng(k).standard_normal((2, *size))) for k, (name, size) in enumerate(SIZES)},
    ]
    for families in others:
        result = fitted(families)
        check(result, export_peft(result, tmp_path / type(families[LAYERS[0]]).__name__))


def test_names_that_end_other_names(tmp_path: Path) -> None:
    """Each layer has its own settings, and layers that only end like one of them are left alone."""

    class Nested(torch.nn.Module):
        def __init__(self, depth: int = 3) -> None:
            super().__init__()
            self.fc, self.inner = torch.nn.Linear(8, 8), Nested(depth - 1) if depth else None

        def forward(self, x: Any) -> Any:
            return torch.tanh(self.fc(x if self.inner is None else self.inner(x)))

    torch.manual_seed(0)
    model, x = Nested().eval(), torch.randn(5, 8)
    names = ["fc", "inner.fc", "inner.inner.fc"]  # and not inner.inner.inner.fc
    rng = np.random.default_rng(0)
    wanted = {name: LayerStatistics.from_delta(rng.standard_normal((8, 8))) for name in names}
    result = fit_model(wanted, {name: LoRA(rank=k + 1) for k, name in enumerate(names)})
    directory = export_peft(result, tmp_path / "adapter", model=model)
    with torch.no_grad():
        before = model(x)
        loaded = peft.PeftModel.from_pretrained(copy.deepcopy(model), directory)
        assert type(loaded.get_base_model().get_submodule("inner.inner.inner.fc")) is torch.nn.Linear
        for name, layer in result.items():
            model.get_submodule(name).weight += torch.from_numpy(layer.delta())
        assert (loaded(x) - model(x)).abs().max() < 1e-5 < (model(x) - before).abs().max()


CONFIGS = [
    ("LoraConfig", {"r": 3, "lora_alpha": 6, "rank_pattern": {"k_proj": 2}}),
    ("LoHaConfig", {"r": 2, "alpha": 4}),
    ("C3AConfig", {"block_size": 8, "block_size_pattern": {"down_proj": 16}}),
    ("FourierFTConfig", {"n_frequency": 50, "scaling": 90.0, "random_loc_seed": 3}),
    ("VeraConfig", {"r": 16, "projection_prng_key": 5}),
    ("RandLoraConfig", {"r": 5, "projection_prng_key": 5}),
    ("ShiraConfig", {"r": 2, "random_seed": 4}),
]


@pytest.mark.parametrize(("config", "settings"), CONFIGS, ids=[name for name, _ in CONFIGS])
def test_the_bases_of_a_peft_model(config: str, settings: dict[str, Any], tmp_path: Path) -> None:
    """Fitted for a given peft model: loaded again, bases and positions are those that it has."""
    model = peft.get_peft_model(base(), getattr(peft, config)(**settings, target_modules=LAYERS))
    families = peft_families(model)
    assert sorted(families) == sorted(LAYERS)
    result = fitted(families)
    directory = export_peft(result, tmp_path / "adapter", model=model.get_base_model())
    loaded = check(result, directory)
    for (name, mine), (same, theirs) in zip(loaded.named_buffers(), model.named_buffers(), strict=True):
        assert name == same and torch.equal(mine, theirs)
    for name in LAYERS:
        mine, theirs = (m.get_base_model().get_submodule(name) for m in (loaded, model))
        for places in ("indices", "shira_indices"):
            if hasattr(mine, places):
                assert torch.equal(getattr(mine, places)["default"], getattr(theirs, places)["default"])
        for setting in ("r", "scaling", "fourierft_scaling", "block_size"):
            assert getattr(mine, setting, None) == getattr(theirs, setting, None)


def test_models_that_have_no_families() -> None:
    from rpcls.errors import InvalidTypeError, InvalidValueError

    with pytest.raises(InvalidTypeError, match=r"must be a peft\.PeftModel, got LlamaForCausalLM"):
        peft_families(base())
    model = peft.get_peft_model(base(), peft.OFTConfig(target_modules=["q_proj"], oft_block_size=8))
    with pytest.raises(InvalidValueError, match=r"must be one of RANDLORA, .*, got OFT"):
        peft_families(model)
    with pytest.raises(InvalidValueError, match="'other' is none of the adapters of the model; there are 'default'"):
        peft_families(model, "other")


def test_training_can_go_on(tmp_path: Path) -> None:
    """peft's own file of the loaded adapter says the same, and one step of gradient descent changes the outputs."""
    for family in (VeRA(rank=16), RandLoRA(rank=8), SpaRTA(density=0.03)):
        result = fitted(family, ATTENTION)
        directory = export_peft(result, tmp_path / type(family).__name__)
        loaded = peft.PeftModel.from_pretrained(base(), directory, is_trainable=True)
        again = tmp_path / f"again-{type(family).__name__}"
        loaded.save_pretrained(again)
        from safetensors.numpy import load_file

        mine, theirs = (load_file(folder / "adapter_model.safetensors") for folder in (directory, again))
        assert set(mine) <= set(theirs)
        for name, array in mine.items():
            np.testing.assert_array_equal(array, theirs[name])
        config = json.loads((directory / "adapter_config.json").read_text())
        for key, value in json.loads((again / "adapter_config.json").read_text()).items():
            if key in config and key not in ("inference_mode", "task_type"):
                assert sorted(config[key]) == sorted(value) if key == "target_modules" else config[key] == value
        before = outputs(loaded)
        loaded(input_ids=torch.arange(12)[None]).logits.square().mean().backward()
        with torch.no_grad():
            for parameter in loaded.parameters():
                if parameter.grad is not None:
                    parameter -= 1e-2 * parameter.grad
        assert (outputs(loaded) - before).abs().max() > 1e-7


def test_peft_keeps_the_bases_once(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    result = fitted(RandLoRA(rank=4))
    names = load_file(export_peft(result, tmp_path / "adapter") / "adapter_model.safetensors")
    assert sorted(n for n in names if n.endswith(("_A", "_B"))) == ["base_model.randlora_A", "base_model.randlora_B"]
    assert names["base_model.randlora_A"].shape == (4, 1, 48) and names["base_model.randlora_B"].shape == (48, 12, 4)
