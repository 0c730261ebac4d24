"""Adapters from checkpoints: files that are read right, layers that are found, what is said to be left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rpcls.adapters import LayerStatistics, LoRA, LoRAXS, SpaRTA, extract, fit
from rpcls.adapters.checkpoints import SafetensorsFile, tensors_of
from rpcls.errors import FormatError, InvalidTypeError, InvalidValueError, NonFiniteError

safetensors = pytest.importorskip("safetensors.numpy")


def checkpoints(dtype: type = np.float32) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    sizes = {
        "embed_tokens.weight": (11, 6), "h.0.q.weight": (8, 6), "h.0.q.bias": (8,), "h.0.norm.weight": (6,),
        "h.1.q.weight": (8, 6), "h.1.q.bias": (8,), "head.weight": (11, 6),
    }  # fmt: skip
    base = {name: rng.standard_normal(size).astype(dtype) for name, size in sizes.items()}
    finetuned = {name: array + rng.standard_normal(array.shape).astype(dtype) for name, array in base.items()}
    finetuned["head.weight"] = base["head.weight"]
    return base, finetuned


def inputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {name: rng.standard_normal((30, 6)) * np.geomspace(10, 0.1, 6) for name in ("h.0.q", "h.1.q")}


def test_layers_that_changed() -> None:
    base, finetuned = checkpoints()
    result = extract(base, finetuned, LoRA(2))
    assert list(result) == ["h.0.q", "h.1.q"]
    for name in result:
        T = finetuned[f"{name}.weight"].astype(float) - base[f"{name}.weight"]
        np.testing.assert_array_equal(result[name].delta(), fit(LayerStatistics.from_delta(T), LoRA(2)).delta())
    assert result.notes == (
        "4 changed tensors are not in the adapter: 'embed_tokens.weight', 'h.0.norm.weight', 'h.0.q.bias', "
        "'h.1.q.bias'.",
    )
    assert str(result).endswith(result.notes[0])
    named = extract(base, finetuned, LoRA(2), layers=["embed_tokens", "head"])
    assert list(named) == ["embed_tokens", "head"] and not named["head"].delta().any()


def test_inputs_make_it_aware_of_the_data() -> None:
    base, finetuned = checkpoints()
    X = inputs()
    aware, blind = (extract(base, finetuned, LoRA(1), inputs=given, ridge=0) for given in (X, None))
    collected = {name: LayerStatistics(6, 8).update(x) for name, x in X.items()}
    same = extract(base, finetuned, LoRA(1), inputs=collected, ridge=0)
    for name, x in X.items():
        T = finetuned[f"{name}.weight"].astype(float) - base[f"{name}.weight"]
        miss = {k: np.linalg.norm(x @ (r[name].delta() - T).T) for k, r in (("aware", aware), ("blind", blind))}
        assert miss["aware"] < 0.9 * miss["blind"]
        np.testing.assert_allclose(1 - (miss["aware"] / np.linalg.norm(x @ T.T)) ** 2, aware[name].explained, rtol=1e-9)
        np.testing.assert_allclose(same[name].delta(), aware[name].delta(), atol=1e-12)
    assert list(extract(base, finetuned, LoRA(1), inputs=X, layers="h.1.*")) == ["h.1.q"]


def test_families_made_from_the_weight() -> None:
    base, finetuned = checkpoints()
    result = extract(base, finetuned, LoRAXS(3))
    T = finetuned["h.0.q.weight"].astype(float) - base["h.0.q.weight"]
    want = fit(LayerStatistics.from_delta(T), LoRAXS(3), weight=base["h.0.q.weight"])
    np.testing.assert_array_equal(result["h.0.q"].delta(), want.delta())


class Model:
    def __init__(self, tensors: dict[str, np.ndarray]) -> None:
        self.tensors = tensors

    def state_dict(self) -> dict[str, np.ndarray]:
        return self.tensors


def test_files_folders_and_modules_are_the_same(tmp_path: Path) -> None:
    base, finetuned = checkpoints()
    want = extract(base, finetuned, SpaRTA(0.3))
    safetensors.save_file(base, tmp_path / "base.safetensors")
    folder = tmp_path / "finetuned"
    folder.mkdir()
    names = sorted(finetuned)
    for k in range(2):
        safetensors.save_file({name: finetuned[name] for name in names[k::2]}, folder / f"model-{k}.safetensors")
    for pair in [(tmp_path / "base.safetensors", str(folder)), (Model(base), Model(finetuned))]:
        result = extract(*pair, SpaRTA(0.3))
        assert result.notes == want.notes
        for name in want:
            np.testing.assert_array_equal(result[name].delta(), want[name].delta())


def test_what_is_refused() -> None:
    base, finetuned = checkpoints()
    cases: list[tuple[Any, Any, dict[str, Any], type[Exception], str]] = [
        (3, finetuned, {}, InvalidTypeError, "base must be a module, a state dict or the path .* got int"),
        (base, base, {}, InvalidValueError, "no layer changed from base to finetuned; 0 other tensors did"),
        ({"x": np.ones(3)}, finetuned, {}, InvalidValueError, "base has no matrix called NAME.weight; it holds 'x'"),
        (base, finetuned, {"layers": ["h.0.k"]}, InvalidValueError, "'h.0.k' is none of the matrices of base; near"),
        (base, finetuned, {"inputs": {"h.2.q": 0}}, InvalidValueError, "'h.2.q' is none of the matrices of base"),
        (base, finetuned, {"inputs": inputs(), "layers": "head"}, InvalidValueError, "'head' is none of the layers of"),
        (base, finetuned, {"inputs": np.ones((3, 3))}, InvalidTypeError, "inputs must map layers' .* got ndarray"),
        (base, {"h.0.q.weight": base["h.0.q.weight"]}, {"layers": ["q"]}, InvalidValueError,
         "'h.1.q.weight' is none of the tensors of finetuned"),
        (base, {**finetuned, "h.1.q.weight": np.ones((8, 5))}, {}, InvalidValueError,
         r"layer 'h.1.q': h.1.q.weight must be of one size in both, got \(8, 6\) and \(8, 5\)"),
        (base, {**finetuned, "h.1.q.weight": np.full((8, 6), np.nan)}, {}, NonFiniteError,
         r"layer 'h.1.q': h.1.q.weight\[0, 0\] is nan"),
        (base, finetuned, {"inputs": {"h.0.q": np.ones((3, 5))}}, InvalidValueError, "layer 'h.0.q': inputs must have"),
    ]  # fmt: skip
    for old, new, settings, error, message in cases:
        with pytest.raises(error, match=message):
            extract(old, new, LoRA(1), **settings)


def test_every_type_of_number(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    kinds = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"]
    tensors = {kind: (8 * rng.standard_normal((3, 4))).astype(kind) for kind in kinds}
    tensors["scalar"], tensors["none"] = np.array(3.5), np.zeros((0, 4), np.float32)
    safetensors.save_file(tensors, tmp_path / "t.safetensors", metadata={"format": "pt"})
    file = SafetensorsFile(tmp_path / "t.safetensors")
    assert set(file) == set(tensors) and len(file) == len(tensors)
    for name, array in tensors.items():
        assert file[name].dtype == array.dtype and file.shape(name) == array.shape
        np.testing.assert_array_equal(file[name], array)


def test_bfloat16_is_read_exactly(tmp_path: Path) -> None:
    values = np.array([[1.0, -2.5, 3.140625], [0.0, 1e-38, -3e38]], np.float32)
    values = (values.view(np.uint32) & 0xFFFF0000).view(np.float32)
    half = (values.view(np.uint32) >> 16).astype("<u2")
    header = b'{"w":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]}}'
    path = tmp_path / "t.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + half.tobytes())
    np.testing.assert_array_equal(tensors_of(path, "base")["w"], values)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "does not begin with the length of a header"),
        (b"\xff" * 20, "does not begin with the length of a header"),
        ((4).to_bytes(8, "little") + b"null", "not a complete"),
        ((9).to_bytes(8, "little") + b"{nonsense", "not a complete"),
        ((10).to_bytes(8, "little") + b'{"w": 3}  ', "not a complete"),
        (b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,9]}}', "'w' has another size than its shape"),
        (b'{"w":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}', "'w' reaches beyond the end of the file"),
    ],
)
def test_files_that_are_not_complete(content: bytes, message: str, tmp_path: Path) -> None:
    if content.startswith(b"{"):
        content = len(content).to_bytes(8, "little") + content + b"123456789"
    (tmp_path / "t.safetensors").write_bytes(content)
    with pytest.raises(FormatError, match=rf"t\.safetensors is not a complete .safetensors file.*{message}|{message}"):
        SafetensorsFile(tmp_path / "t.safetensors")


def test_types_and_folders_that_cannot_be_read(tmp_path: Path) -> None:
    header = b'{"w":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}'
    (tmp_path / "t.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"12")
    with pytest.raises(FormatError, match="'w' is of type F8_E4M3; known: F64, F32"):
        SafetensorsFile(tmp_path / "t.safetensors")["w"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match=r"empty has no .safetensors files"):
        tensors_of(tmp_path / "empty", "base")
    with pytest.raises(FileNotFoundError):
        tensors_of(tmp_path / "missing.safetensors", "base")
