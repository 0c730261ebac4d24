"""``rpcls adapters``: files in, an adapter out, one line for every mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rpcls import cli
from rpcls.adapters import LayerStatistics, LoRA, VeRA, extract, fit

safetensors = pytest.importorskip("safetensors.numpy")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """base.safetensors, finetuned.safetensors, statistics/LAYER.npz, inputs/LAYER.npz."""
    rng = np.random.default_rng(0)
    base = {f"h.{k}.q.weight": rng.standard_normal((8, 6)) for k in range(2)} | {"h.0.q.bias": rng.standard_normal(8)}
    safetensors.save_file(base, tmp_path / "base.safetensors")
    safetensors.save_file(
        {n: a + rng.standard_normal(a.shape) for n, a in base.items()}, tmp_path / "finetuned.safetensors"
    )
    for folder in ("statistics", "inputs"):
        (tmp_path / folder).mkdir()
    for k in range(2):
        X = rng.standard_normal((20, 6)) * np.geomspace(3, 0.1, 6)
        LayerStatistics(6, 8).update(X, X @ rng.standard_normal((6, 8))).save(tmp_path / "statistics" / f"h.{k}.q.npz")
        LayerStatistics(6, 8).update(X).save(tmp_path / "inputs" / f"h.{k}.q.npz")
    return tmp_path


@pytest.fixture
def run(files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(files)

    def call(*arguments: Any) -> tuple[int, str, str]:
        code = cli.main(["adapters", *map(str, arguments)])
        return code, *capsys.readouterr()

    return call


def test_fit(run: Any, files: Path) -> None:
    settings = ["--ridge", "0.1", "--max-iterations", "50", "--tol", "1e-3"]
    settings += ["--base-model", "some/base", "--task-type", "CAUSAL_LM"]
    code, out, err = run("fit", "statistics", "--family", "VeRA(rank=4, seed=1)", "--output", "adapter", *settings)
    assert code == 0 and err == "" and out.splitlines()[-1] == "adapter"
    assert [line.split()[0] for line in out.splitlines()[1:3]] == ["h.0.q", "h.1.q"]
    config = json.loads((files / "adapter" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["task_type"]) == ("VERA", 4, "CAUSAL_LM")
    assert config["base_model_name_or_path"] == "some/base"
    tensors = safetensors.load_file(files / "adapter" / "adapter_model.safetensors")
    for name in ("h.0.q", "h.1.q"):
        s = LayerStatistics.load(files / "statistics" / f"{name}.npz")
        want = fit(s, VeRA(rank=4, seed=1), ridge=0.1, max_iterations=50, tol=1e-3)
        got = tensors[f"base_model.model.{name}.vera_lambda_d"]
        np.testing.assert_allclose(got, want.factors["d"], rtol=1e-6)


def test_fit_of_some_layers(run: Any, files: Path) -> None:
    given = [files / "statistics" / f"h.{k}.q.npz" for k in (1, 0)]
    code, out, _ = run("fit", *given, "--layers", "1.q", "--family", "LoRA(2)", "--output", "adapter")
    assert code == 0 and "h.1.q " in out and "h.0.q" not in out
    config = json.loads((files / "adapter" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["h.1.q"] and config["r"] == 2 and config["peft_type"] == "LORA"


def test_extract(run: Any, files: Path) -> None:
    lora = "LoRA(rank=2)"
    code, out, err = run("extract", "base.safetensors", "finetuned.safetensors", "--family", lora, "--output", "blind")
    assert code == 0 and err == "" and "1 changed tensor is not in the adapter: 'h.0.q.bias'." in out
    code, _, _ = run("extract", "base.safetensors", "finetuned.safetensors", "--family", lora, "--output", "aware",
                     "--inputs", "inputs")  # fmt: skip
    assert code == 0
    inputs = {name: LayerStatistics.load(files / "inputs" / f"{name}.npz") for name in ("h.0.q", "h.1.q")}
    for folder, given in (("blind", None), ("aware", inputs)):
        want = extract(files / "base.safetensors", files / "finetuned.safetensors", LoRA(2), inputs=given)
        tensors = safetensors.load_file(files / folder / "adapter_model.safetensors")
        for name, layer in want.items():
            A, B = (tensors[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
            np.testing.assert_allclose(B @ A, layer.delta(), atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("fit statistics --output statistics", "statistics exists; an adapter is written to a new directory"),
        ("fit statistics --output no/where", "no is no directory"),
        ("fit nothing.npz --output a", "no such file: nothing.npz"),
        ("fit base.safetensors --output a", "statistics must be in files called LAYER.npz, got base.safetensors"),
        ("fit statistics inputs --output a", "layer 'h.0.q' has two files: 'statistics/h.0.q.npz', 'inputs/h.0.q.npz'"),
        ("fit . --output a", ". has no .npz files of statistics"),
        ("fit statistics --output a --layers k", "'k' is none of the layers of the statistics; there are 'h.0.q'"),
        (
            "fit statistics --output a --family LoRAA(2)",
            "unknown name in --family: 'LoRAA(2)'; known: C3A, DynamicSubset",
        ),
        ("fit statistics --output a --family LoRA", "unknown name in --family: 'LoRA'"),
        ("fit statistics --output a --family LoRA(range=3)", "--family: LoRA(range=3): "),
        ("fit statistics --output a --family LoRA(0)", "rank must be at least 1, got 0"),
        ("fit statistics --output a --family LoRA(7)", "layer 'h.0.q': rank must be in 1 … 6"),
        ("fit statistics --output a --family LoRA(2) --ridge -1", "layer 'h.0.q': ridge must be at least 0, got -1"),
        ("extract base.safetensors missing.safetensors --output a", "missing.safetensors"),
        ("extract base.safetensors statistics/h.0.q.npz --output a", "is not a complete .safetensors file"),
        ("extract base.safetensors base.safetensors --output a", "no layer changed from base to finetuned"),
        ("extract base.safetensors statistics --output a", "statistics has no .safetensors files"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(arguments: str, message: str, run: Any, files: Path) -> None:
    before = sorted(files.rglob("*"))
    code, out, err = run(*arguments.split())
    assert code == 2 and out == "" and err.startswith("rpcls: error: ") and err.count("\n") == 1 and message in err
    assert sorted(files.rglob("*")) == before


def test_help_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    for action, words in (("fit", "STATISTICS"), ("extract", "BASE FINETUNED --inputs")):
        with pytest.raises(SystemExit) as stop:
            cli.main(["adapters", action, "--help"])
        text = capsys.readouterr().out
        common = "--family --output --layers --ridge --max-iterations --tol --base-model --task-type RandLoRA"
        assert stop.value.code == 0 and all(word in text for word in f"{words} {common}".split())
    for arguments in ([], ["fit"], ["fit", "x"], ["extract", "x", "--output", "y"]):
        with pytest.raises(SystemExit) as stop:
            cli.main(["adapters", *arguments])
        assert stop.value.code == 2
