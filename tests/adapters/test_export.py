"""Directories for the peft library: what is in them, what is refused, and that nothing is left half-written."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rpcls
from rpcls.adapters import (
    C3A,
    NOLA,
    FourierFT,
    LayerStatistics,
    LinearAdapter,
    LoHa,
    LoRA,
    LoRAXS,
    MELoRA,
    RandLoRA,
    SpaRTA,
    VeRA,
    export_peft,
    fit,
    fit_model,
)
from rpcls.errors import InvalidTypeError, InvalidValueError, MissingDependencyError

load_file = pytest.importorskip("safetensors.numpy").load_file

SIZES = {"h.0.up": (12, 8), "h.0.down": (8, 12), "h.1.up": (12, 8)}


def fitted(family: Any, scale: float = 1.0) -> Any:
    rng = np.random.default_rng(0)
    drawn = {name: rng.standard_normal(size) for name, size in SIZES.items()}
    statistics = {name: LayerStatistics.from_delta(scale * T) for name, T in drawn.items()}
    return fit_model(statistics, family, weights=drawn, max_iterations=3, tol=1.0)


def read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    return json.loads((path / "adapter_config.json").read_text()), load_file(path / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("family", "kind", "parts"),
    [
        (LoRA(2, alpha=6.0), "LORA", {"lora_A.weight": (2, 8), "lora_B.weight": (12, 2)}),
        (LoRAXS(3), "LORA", {"lora_A.weight": (3, 8), "lora_B.weight": (12, 3)}),
        (MELoRA(1, blocks=4), "LORA", {"lora_A.weight": (4, 8), "lora_B.weight": (12, 4)}),
        (NOLA(9, 7, 2), "LORA", {"lora_A.weight": (2, 8), "lora_B.weight": (12, 2)}),
        (LoHa(2), "LOHA", {"hada_w1_a": (12, 2), "hada_w1_b": (2, 8), "hada_w2_a": (12, 2), "hada_w2_b": (2, 8)}),
        (C3A(4), "C3A", {"c3a_kernel": (3, 2, 4)}),
        (FourierFT(11), "FOURIERFT", {"fourierft_spectrum": (11,)}),
        (VeRA(5), "VERA", {"vera_lambda_b": (12,), "vera_lambda_d": (5,)}),
        (RandLoRA(3), "RANDLORA", {"randlora_lambda": (3, 3), "randlora_gamma": (3, 8)}),
        (SpaRTA(0.3), "SHIRA", {"shira_weight": (40,), "shira_indices": (2, 40)}),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str | dict) else "",
)
def test_what_is_written(family: Any, kind: str, parts: dict[str, tuple[int, ...]], tmp_path: Path) -> None:
    path = export_peft(fitted(family), tmp_path / "adapter", base_model="some/base", task_type="CAUSAL_LM")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adapter"]
    config, tensors = read(path)
    assert config["peft_type"] == kind and config["inference_mode"] is True and config["task_type"] == "CAUSAL_LM"
    assert config["base_model_name_or_path"] == "some/base" and config["target_modules"] == sorted(SIZES)
    here = {name: array for name, array in tensors.items() if name.startswith("base_model.model.h.0.up.")}
    assert {name.removeprefix("base_model.model.h.0.up."): array.shape for name, array in here.items()} == parts
    for name, array in tensors.items():
        assert array.dtype == (np.int32 if name.endswith("shira_indices") else np.float32)
    shared = sorted(name for name in tensors if not name.startswith("base_model.model."))
    both = {"RANDLORA": "randlora", "VERA": "vera"}
    assert shared == ([f"base_model.{both[kind]}_{side}" for side in "AB"] if kind in both else [])
    with open(path / "adapter_model.safetensors", "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    assert header["__metadata__"] == {"format": "pt"}


def test_lora_gives_the_update_back(tmp_path: Path) -> None:
    for k, family in enumerate((LoRA(2, alpha=6.0), MELoRA(1, 4), NOLA(9, 7, 2, alpha=1.0), LoRAXS(3, alpha=2.0))):
        result = fitted(family)
        config, tensors = read(export_peft(result, tmp_path / str(k)))
        for name, layer in result.items():
            A, B = (tensors[f"base_model.model.{name}.lora_{side}.weight"].astype(float) for side in "AB")
            np.testing.assert_allclose(config["lora_alpha"] / config["r"] * B @ A, layer.delta(), atol=1e-6)
            assert config["rank_pattern"] == config["alpha_pattern"] == {}


def test_sparse_layers_are_filled_to_one_number(tmp_path: Path) -> None:
    result = fitted({"h.0.up": SpaRTA(30), "h.0.down": SpaRTA(5), "h.1.up": SpaRTA(1)})
    config, tensors = read(export_peft(result, tmp_path / "adapter"))
    assert config["r"] == 2
    for name, layer in result.items():
        weight, indices = (tensors[f"base_model.model.{name}.shira_{part}"] for part in ("weight", "indices"))
        dW = np.zeros(SIZES[name])
        dW[tuple(indices)] = weight
        np.testing.assert_allclose(dW, layer.delta(), rtol=1e-6)
        assert len(set(map(tuple, indices.T.tolist()))) == len(weight) == 40
    with pytest.raises(InvalidValueError, match=r"r\(o \+ i\) entries of each layer, and 81 of 'h.0.up' need r = 5"):
        export_peft(fitted({**dict.fromkeys(SIZES, SpaRTA(1)), "h.0.up": SpaRTA(81)}), tmp_path / "other")


def test_patterns_put_longer_names_first(tmp_path: Path) -> None:
    """peft takes the first key that is the end of a name."""
    T = LayerStatistics.from_delta(np.random.default_rng(0).standard_normal((8, 8)))
    result = {name: fit(T, LoRA(rank)) for name, rank in (("a", 1), ("z.a", 2), ("b.z.a", 3))}
    config, _ = read(export_peft(result, tmp_path / "lora"))
    for pattern in ("rank_pattern", "alpha_pattern"):
        assert list(config[pattern].items()) == [("b.z.a", 3), ("z.a", 2), ("a", 1)]
    result = {name: fit(T, C3A(size)) for name, size in (("h.q", 4), ("g.h.q", 8))}
    with pytest.raises(InvalidValueError, match=r"the settings of another layer, .* for 'g.h.q'"):
        export_peft(result, tmp_path / "c3a")


def test_layers_that_do_not_go_together(tmp_path: Path) -> None:
    one = LayerStatistics.from_delta(np.random.default_rng(0).standard_normal((12, 8)))

    def pair(first: Any, second: Any) -> dict[str, Any]:
        return {"a": fit(one, first, max_iterations=1, tol=1.0), "b": fit(one, second, max_iterations=1, tol=1.0)}

    A, B = np.ones((3, 1, 8)), np.ones((12, 3, 3))
    for result, message in [
        (pair(LoRA(1), VeRA(2)), "of one format, got LoRA, VeRA; export them apart"),
        (pair(LoRA(1), LinearAdapter(np.ones((1, 12, 8)))), "no format for LinearAdapter; it has for AdaMix, C3A"),
        (pair(VeRA(2), VeRA(3)), "one rank of VeRA for the whole model, got 2 for 'a' and 3 for 'b'"),
        (pair(RandLoRA(3), RandLoRA(3, alpha=2.0)), "one alpha of RandLoRA .* got None for 'a' and 2.0 for 'b'"),
        (pair(RandLoRA(3), RandLoRA(3, A=A, B=B)), "layer 'b' was fitted with other bases than the first"),
        (pair(VeRA(2), VeRA(2, seed=1)), "layer 'b' was fitted with other bases than the first"),
        (pair(FourierFT(3), FourierFT(3, scaling=1.0)), "one scaling of FourierFT .* got 150.0 for 'a' and 1.0"),
        (pair(FourierFT(3), FourierFT(indices=[[0], [0]])), "layer 'b': peft keeps no indices of FourierFT but draws"),
        (
            {"a": fit(LayerStatistics.from_delta(1e40 * np.ones((3, 3))), LoRA(1))},
            "a.lora_A.weight has .*, beyond float32",
        ),
    ]:
        with pytest.raises(InvalidValueError, match=message):
            export_peft(result, tmp_path / "adapter")
        assert not any(tmp_path.iterdir())
    for wrong, message in (({}, "got dict; {name: fit"), (one, "got LayerStatistics"), ({"a": one}, "under 'a'")):
        with pytest.raises(InvalidTypeError, match=message):
            export_peft(wrong, tmp_path / "adapter")  # type: ignore[arg-type]


def test_directories_that_are_refused(tmp_path: Path) -> None:
    result = fitted(LoRA(1))
    (tmp_path / "file").write_text("kept")
    (tmp_path / "full").mkdir()
    for name in ("file", "full"):
        with pytest.raises(InvalidValueError, match=f"{name} exists; an adapter is written to a new directory"):
            export_peft(result, tmp_path / name)
    with pytest.raises(InvalidValueError, match="nowhere is no directory"):
        export_peft(result, tmp_path / "nowhere" / "adapter")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "full"] and (tmp_path / "file").read_text() == "kept"


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    """The system refuses to write beyond a limit, in the middle of the second file."""
    result = fitted(LoRA(4))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            export_peft(result, tmp_path / "adapter")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not any(tmp_path.iterdir())
    assert export_peft(result, tmp_path / "adapter").is_dir()


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_peft(fitted(LoRA(1)), tmp_path / "adapter")
    assert not any(tmp_path.iterdir())


class Module:
    """As much of a torch module as is looked at."""

    def __init__(self, **children: Any) -> None:
        self.name_or_path = "its/name"
        self.children = children

    def named_modules(self) -> Any:
        return self.children.items()


class Linear:
    def __init__(self, shape: tuple[int, int]) -> None:
        self.out_features, self.in_features = shape


def test_the_base_model_is_looked_at(tmp_path: Path) -> None:
    result = fitted(LoRA(1))
    modules = {name: Linear(size) for name, size in SIZES.items()}
    config, _ = read(export_peft(result, tmp_path / "a", model=Module(**modules)))
    assert config["base_model_name_or_path"] == "its/name" and config["target_modules"] == sorted(SIZES)
    config, _ = read(export_peft(result, tmp_path / "b", model=Module(**modules), base_model="given"))
    assert config["base_model_name_or_path"] == "given"
    more = {**modules, "vision.h.0.up": Linear((12, 8))}  # which the list would match, too
    config, _ = read(export_peft(result, tmp_path / "c", model=Module(**more)))
    assert config["target_modules"] == r"h\.0\.down|h\.0\.up|h\.1\.up"
    del modules["h.1.up"]
    with pytest.raises(InvalidValueError, match=r"'h.1.up' is none of the modules of the model; near it: 'h.0.up'"):
        export_peft(result, tmp_path / "d", model=Module(**modules))
    modules["h.1.up"] = Linear((8, 8))
    with pytest.raises(InvalidValueError, match=r"layer 'h.1.up' was fitted as \(12, 8\), in the model it is \(8, 8\)"):
        export_peft(result, tmp_path / "d", model=Module(**modules))


def test_without_safetensors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(MissingDependencyError, match=r'needs safetensors.*pip install "rpcls\[adapters\]"'):
        export_peft(fitted(LoRA(1)), tmp_path / "adapter")
    assert not any(tmp_path.iterdir())


def test_torch_is_asked_for_only_where_it_is_needed() -> None:
    code = (
        "import sys; sys.modules.update(torch=None, peft=None, transformers=None); import rpcls.adapters as a\n"
        "try: a.capture(None, [])\n"
        "except rpcls.MissingDependencyError as error: print(error)"
    ).replace("import sys;", "import sys, rpcls;")
    root = Path(rpcls.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=False)
    want = 'Working with torch models needs torch, which is not installed; run: pip install "rpcls[peft]"\n'
    assert (done.stdout, done.stderr) == (want, "")
