"""Statistics of torch models: the same numbers as from recorded activations, and a model left as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch; .ci/run installs it in its second step")

import rpcls  # noqa: E402
from rpcls.adapters import LayerStatistics, LoRA, LoRAXS, VeRA, capture, extract, fit_model  # noqa: E402
from rpcls.adapters.capture import adapted, linear_layers  # noqa: E402
from rpcls.errors import InvalidTypeError, InvalidValueError, NonFiniteError  # noqa: E402

pytestmark = [pytest.mark.peft, pytest.mark.filterwarnings("default")]


class Block(torch.nn.Module):
    """Two layers with a skip connection; `tokens` (b, t) of a small vocabulary, or (b, t, 6) vectors."""

    def __init__(self, seed: int = 0, depth: int = 2, dtype: Any = torch.float32) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embed = torch.nn.Embedding(11, 6)
        self.layers = torch.nn.ModuleList(
            torch.nn.ModuleDict({"up": torch.nn.Linear(6, 9), "down": torch.nn.Linear(9, 6, bias=False)})
            for _ in range(depth)
        )
        self.dropout = torch.nn.Dropout(0.5)
        self.pooler = torch.nn.Linear(6, 4)
        self.unused = torch.nn.Linear(6, 6)
        self.to(dtype)

    def forward(self, tokens: Any, attention_mask: Any = None) -> Any:
        x = self.embed(tokens)
        for layer in self.layers:
            x = x + layer["down"](torch.tanh(layer["up"](self.dropout(x))))
        return self.pooler(x[:, 0])


LAYERS = ["layers.0.up", "layers.0.down", "layers.1.up", "layers.1.down", "pooler"]


def batches(count: int = 3, rows: int = 4, seed: int = 1) -> list[dict[str, Any]]:
    g = torch.Generator().manual_seed(seed)
    return [{"tokens": torch.randint(0, 11, (rows, 5 + k), generator=g)} for k in range(count)]


def masked(count: int = 3) -> list[dict[str, Any]]:
    found = batches(count)
    for batch in found:
        keep = torch.arange(1, 5)[:, None]
        batch["attention_mask"] = (torch.arange(batch["tokens"].shape[1]) < keep).long()
    return found


def recorded(model: Any, data: list[dict[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and outputs of a layer, by hand; padding dropped where a mask has the shape of the tokens."""
    seen: list[Any] = []
    model.eval()
    handle = model.get_submodule(name).register_forward_hook(lambda module, args, y: seen.append((args[0], y)))
    with torch.no_grad():
        for batch in data:
            model(**batch)
    handle.remove()
    inputs, results = [], []
    for batch, (x, y) in zip(data, seen, strict=True):
        keep = batch.get("attention_mask", torch.ones(x.shape[:2])).bool() if x.ndim == 3 else slice(None)
        inputs.append(x[keep].double().numpy())
        results.append(y[keep].double().numpy())
    return np.concatenate(inputs), np.concatenate(results)


def hooks(model: Any) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


@pytest.mark.parametrize("data", [batches(), masked()], ids=["all tokens", "with padding"])
def test_inputs_alone(data: list[dict[str, Any]]) -> None:
    model = Block().train()
    found = capture(model, iter(data))
    assert list(found) == LAYERS and hooks(model) == 0 and model.training and model.dropout.training
    for name, s in found.items():
        X, _ = recorded(model, data, name)
        assert s.tokens == len(X) and (s.in_features, s.out_features) == (X.shape[1], s.R.shape[0])
        np.testing.assert_allclose(s.C, X.T @ X, rtol=1e-12, atol=1e-12)
        assert not s.R.any() and s.energy == 0


@pytest.mark.parametrize("inputs", ["teacher", "model"])
def test_a_teacher(inputs: str) -> None:
    model, teacher, data = Block(0), Block(1), masked()
    found = capture(model, data, teacher=teacher, inputs=inputs)
    assert hooks(model) == hooks(teacher) == 0
    for name, s in found.items():
        X, _ = recorded(teacher if inputs == "teacher" else model, data, name)
        _, Y = recorded(teacher, data, name)
        layer = model.get_submodule(name)
        Z = Y - X @ layer.weight.detach().double().numpy().T
        if layer.bias is not None:
            Z -= layer.bias.detach().double().numpy()
        np.testing.assert_allclose(s.C, X.T @ X, rtol=1e-10)
        np.testing.assert_allclose(s.R, Z.T @ X, rtol=1e-10, atol=1e-10 * np.abs(Y).max() * np.abs(X).max() * len(X))
        np.testing.assert_allclose(s.energy, np.linalg.norm(Z) ** 2, rtol=1e-10)


def test_bfloat16_is_summed_in_float64() -> None:
    """Activations are rounded to bfloat16 by the model; their sums are exact ones of those numbers."""
    model, teacher, data = Block(0, dtype=torch.bfloat16), Block(1, dtype=torch.bfloat16), masked()
    found = capture(model, data, ["up"], teacher=teacher)
    assert list(found) == ["layers.0.up", "layers.1.up"]
    for name, s in found.items():
        X, Y = recorded(teacher, data, name)
        layer = model.get_submodule(name)
        Z = Y - X @ layer.weight.detach().double().numpy().T - layer.bias.detach().double().numpy()
        np.testing.assert_allclose(s.C, X.T @ X, rtol=1e-14)
        np.testing.assert_allclose(s.R, Z.T @ X, rtol=1e-9, atol=1e-9 * np.abs(Y.T @ X).max())
    X = torch.randn(50, 6, dtype=torch.bfloat16)
    W = torch.randn(9, 6, dtype=torch.bfloat16)
    s = LayerStatistics(6, 9, weight=W).update(X, X @ W.T)
    exact = X.double().numpy()
    np.testing.assert_array_equal(s.C, exact.T @ exact)
    np.testing.assert_array_equal(s.weight, W.double().numpy())
    assert 0 < s.energy < 1e-4 * np.linalg.norm(exact @ s.weight.T) ** 2  # what bfloat16 rounds off


def test_thin_and_sketched_statistics() -> None:
    model, teacher, data = Block(0), Block(1), masked()
    exact = capture(model, data, teacher=teacher)
    family = VeRA(rank=5)
    thin = capture(model, data, teacher=teacher, thin=family)
    full = capture(model, data, teacher=teacher, sketch=rpcls.Gaussian(), sketch_size=2000, rng=0)
    for name in LAYERS:
        one, other = (fit_model({name: found[name]}, family, max_iterations=60) for found in (exact, thin))
        np.testing.assert_allclose(one[name].delta(), other[name].delta(), rtol=1e-6, atol=1e-9)
        assert full[name].form == "full" and full[name].tokens == exact[name].tokens
        np.testing.assert_allclose(full[name].C, exact[name].C, atol=0.2 * np.trace(exact[name].C))
    own = capture(model, data, teacher=teacher, thin=LoRAXS(rank=2))
    assert fit_model(own, LoRAXS(rank=2))["pooler"].explained > 0


def test_batches_of_other_kinds() -> None:
    model, data = Block(), batches()
    tensors = [batch["tokens"] for batch in data]
    want = capture(model, data, "pooler")["pooler"].C
    for same in (tensors, [(t,) for t in tensors], [[t, None] for t in tensors], (t for t in tensors)):
        np.testing.assert_array_equal(capture(model, same, "pooler")["pooler"].C, want)
    with pytest.raises(InvalidTypeError, match="a batch must be a mapping, a tuple, a list or a tensor, got str"):
        capture(model, ["text"])


def test_which_tokens_count() -> None:
    model, data = Block(), masked()
    for batch in data:
        batch["tokens"].clamp_(max=9)
        batch["tokens"][batch["attention_mask"] == 0] = 10
    want = capture(model, data, ["layers.0.up"])["layers.0.up"]
    plain = [{"tokens": batch["tokens"]} for batch in data]
    got = capture(model, plain, ["layers.0.up"], mask=lambda batch: batch["tokens"] != 10)["layers.0.up"]
    assert got.tokens == want.tokens < sum(batch["tokens"].numel() for batch in data)
    np.testing.assert_array_equal(got.C, want.C)
    np.testing.assert_array_equal(capture(model, data, ["layers.0.up"], mask="attention_mask")["layers.0.up"].C, want.C)
    with pytest.raises(InvalidValueError, match="batch 0 has no entry 'mask'; it holds 'tokens', 'attention_mask'"):
        capture(model, data, mask="mask")

    class TwoMasks(Block):
        def forward(self, tokens: Any, attention_mask: Any, decoder_attention_mask: Any) -> Any:
            return super().forward(tokens, attention_mask)

    both = [{**batch, "decoder_attention_mask": 1 - batch["attention_mask"]} for batch in data]
    with pytest.raises(InvalidValueError, match=r"layer 'layers.0.up', batch 0: several masks .* say which one"):
        capture(TwoMasks(), both)
    assert capture(TwoMasks(), both, ["0.up"], mask="attention_mask")["layers.0.up"].tokens == want.tokens


def test_tokens_in_one_long_row() -> None:
    """Some models flatten (b, t, i) to (b·t, i) before their layers: the mask is flattened too."""

    class Flat(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = torch.nn.Linear(6, 3)

        def forward(self, x: Any, attention_mask: Any) -> Any:
            return self.fc(input=x.reshape(-1, 6))

    x = torch.randn(2, 4, 6)
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0]])
    s = capture(Flat(), [{"x": x, "attention_mask": mask}])["fc"]
    kept = x[mask.bool()].double().numpy()
    np.testing.assert_allclose(s.C, kept.T @ kept, rtol=1e-14)


def test_names_of_layers() -> None:
    model, data = Block(), batches(1)
    assert list(capture(model, data, r"layers\.\d\.up")) == ["layers.0.up", "layers.1.up"]
    assert list(capture(model, data, ["down", "pooler"])) == ["layers.0.down", "layers.1.down", "pooler"]
    for layers, message in [
        (["layers.0.upp"], r"'layers.0.upp' is none of the Linear layers of the model; near it: 'layers.0.up'"),
        (["embed"], r"'embed' is none of the Linear layers of the model"),
        ("q_proj", r"layers, 'q_proj', matches none of the Linear layers of the model; there are 'layers.0.up'"),
        ("(", r"layers is not a regular expression: '\('"),
        ([], "layers is empty; leave it None for all 6 Linear layers of the model"),
        (["unused"], r"the batches never reach these layers: 'unused'; leave them out"),
    ]:
        with pytest.raises(InvalidValueError, match=message):
            capture(model, data, layers)
    for wrong in (7, [7]):
        with pytest.raises(InvalidTypeError, match="layers must"):
            capture(model, data, wrong)
    with pytest.raises(InvalidValueError, match="reach none of the 6 Linear layers: is batches empty"):
        capture(model, [])


def test_wrong_arguments() -> None:
    model, data = Block(), batches(1)
    with pytest.raises(InvalidTypeError, match=r"must be a torch.nn.Module, got LoRA"):
        capture(LoRA(1), data)
    with pytest.raises(InvalidValueError, match="inputs must be 'teacher' or 'model', got 'both'"):
        capture(model, data, teacher=model, inputs="both")
    for settings in ({"thin": VeRA(2)}, {"sketch": rpcls.SparseSign(), "sketch_size": 20}):
        with pytest.raises(InvalidValueError, match="thin and sketch need the wanted outputs beside the inputs"):
            capture(model, data, **settings)
    with pytest.raises(InvalidValueError, match=r"'layers.1.up' is none of the Linear layers of the teacher"):
        capture(model, data, teacher=Block(depth=1))
    teacher = Block()
    teacher.pooler = torch.nn.Linear(6, 5)
    with pytest.raises(InvalidValueError, match=r"'pooler' must be of one size .* \(4, 6\) in the model and \(5, 6\)"):
        capture(model, data, teacher=teacher)


def test_nan_names_the_layer_and_nothing_stays_behind() -> None:
    model, data = Block().train(), masked()
    with torch.no_grad():
        model.layers[1]["up"].bias[3] = torch.nan
    with pytest.raises(NonFiniteError, match=r"layer 'layers.1.down', batch 0: X\[0, 3\] is nan"):
        capture(model, data)
    assert hooks(model) == 0 and model.training
    teacher = Block()
    with pytest.raises(NonFiniteError, match=r"layer 'layers.1.up', batch 0: Y\[0, 3\] is nan"):
        capture(teacher, data, teacher=model)
    assert hooks(model) == hooks(teacher) == 0


def test_ctrl_c_removes_the_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    model, teacher = Block().train(), Block(1)

    def interrupted() -> Any:
        yield from batches(2)
        raise KeyboardInterrupt

    for settings in ({}, {"teacher": teacher}, {"teacher": teacher, "inputs": "model"}):
        with pytest.raises(KeyboardInterrupt):
            capture(model, interrupted(), **settings)
        assert hooks(model) == hooks(teacher) == 0 and model.training and model.pooler.training
    monkeypatch.setattr(LayerStatistics, "update", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):  # in the middle of a hook
        capture(model, batches())
    assert hooks(model) == 0


def test_a_layer_that_is_called_twice() -> None:
    class Shared(torch.nn.Module):
        def __init__(self, times: int, seed: int) -> None:
            super().__init__()
            torch.manual_seed(seed)
            self.times, self.fc = times, torch.nn.Linear(6, 6)

        def forward(self, x: Any) -> Any:
            for _ in range(self.times):
                x = torch.tanh(self.fc(x))
            return x

    x = torch.randn(20, 6)
    model, teacher = Shared(2, 0), Shared(2, 1)
    s = capture(model, [x], teacher=teacher, inputs="model")["fc"]
    with torch.no_grad():
        X = torch.cat([x, torch.tanh(model.fc(x))]).double().numpy()
        Y = torch.cat([teacher.fc(x), teacher.fc(torch.tanh(teacher.fc(x)))]).double().numpy()
    W, bias = (p.detach().double().numpy() for p in model.fc.parameters())
    np.testing.assert_allclose(s.R, (Y - X @ W.T - bias).T @ X, rtol=1e-9, atol=1e-9)
    with pytest.raises(InvalidValueError, match="'fc', batch 0: the model calls this layer more often"):
        capture(Shared(3, 0), [x], teacher=teacher, inputs="model")


def test_updates_are_added_and_taken_away() -> None:
    model, data = Block(0).eval(), batches(1)[0]
    before = model(**data)
    dW = np.random.default_rng(0).standard_normal((9, 6))
    with adapted(model, {"layers.0.up": dW}):
        got = model(**data)
    assert hooks(model) == 0
    by_hand = Block(0).eval()
    with torch.no_grad():
        by_hand.layers[0]["up"].weight += torch.from_numpy(dW)
    assert torch.allclose(got, by_hand(**data), atol=1e-6) and not torch.allclose(got, before, atol=1e-2)
    assert torch.equal(model(**data), before)


def test_in_sequence_errors_are_made_up_for() -> None:
    """On new data the model comes nearest to the teacher in sequence; fitted at once on its own inputs, hardly."""
    torch.manual_seed(3)
    model, teacher = Block(0, depth=4).eval(), Block(0, depth=4).eval()
    with torch.no_grad():
        for name, parameter in teacher.named_parameters():
            if name.endswith("weight") and "embed" not in name:
                parameter += 0.3 * torch.randn(parameter.shape) * parameter.std()
    data, new = batches(12), batches(6, seed=2)

    def error(fitted: Any) -> float:
        with torch.no_grad(), adapted(model, {name: result.delta() for name, result in fitted.items()}):
            return sum(float((model(**b) - teacher(**b)).square().sum()) for b in new)

    family = LoRA(rank=2)
    at_once = fit_model(capture(model, data, teacher=teacher), family)
    own = fit_model(capture(model, data, teacher=teacher, inputs="model"), family)
    sequence = fit_model(at_once_statistics := capture(model, data), family, model=model, teacher=teacher, batches=data)
    assert list(sequence) == list(at_once_statistics) and hooks(model) == hooks(teacher) == 0
    assert error(sequence) < error(at_once) < min(error(own), error({}))
    for name in ("layers.0.up",):  # nothing before it differs
        np.testing.assert_allclose(sequence[name].delta(), at_once[name].delta(), rtol=1e-6, atol=1e-9)


def test_in_sequence_needs_all_of_three() -> None:
    model, data = Block(), batches()
    found = capture(model, data)
    with pytest.raises(InvalidValueError, match="give model, teacher and batches, all three"):
        fit_model(found, LoRA(1), model=model, batches=data)
    with pytest.raises(InvalidValueError, match="batches must be a collection that can be gone through again"):
        fit_model(found, LoRA(1), model=model, teacher=model, batches=iter(data))
    with pytest.raises(InvalidTypeError, match="fit_model takes 'mask' only with batches"):
        fit_model(found, LoRA(1), mask="attention_mask")


def test_extract_from_modules_aware_of_the_data() -> None:
    """With inputs the outputs come nearer than without, for the same rank."""
    base, finetuned, data = Block(0), Block(1), masked(8)
    finetuned.embed.load_state_dict(base.embed.state_dict())
    inputs = capture(base, data, ["up", "down"])
    aware, blind = (extract(base, finetuned, LoRA(rank=2), inputs=i, layers=["up", "down"]) for i in (inputs, None))
    for name, s in inputs.items():
        T = (finetuned.get_submodule(name).weight - base.get_submodule(name).weight).detach().double().numpy()
        truth = LayerStatistics.from_delta(T, inputs=s)
        assert truth.explained(aware[name].delta()) > truth.explained(blind[name].delta())
        np.testing.assert_allclose(truth.explained(aware[name].delta()), aware[name].explained, rtol=1e-7)
    assert list(aware) == ["layers.0.up", "layers.0.down", "layers.1.up", "layers.1.down"]
    assert "pooler.weight" in aware.notes[0] and "layers.0.up.bias" in aware.notes[0]


def test_only_plain_layers_count() -> None:
    model = Block()
    model.pooler.weight = torch.nn.Parameter(torch.zeros(24, dtype=torch.int8), requires_grad=False)
    assert list(linear_layers(model)) == [*LAYERS[:-1], "unused"]


def test_a_progress_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):  # rich then takes what pytest captures for a terminal
        monkeypatch.setenv(name, "1")
    for data in (batches(), iter(batches())):  # of known and unknown length
        capture(Block(), data, progress=True)
        assert "batch 2" in capsys.readouterr().err
    capture(Block(), batches())
    assert capsys.readouterr() == ("", "")
