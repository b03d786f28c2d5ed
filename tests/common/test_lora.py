"""LoRA against its formula, against peft on the same weights, and on its way through training."""

import json
import math

import pytest
import torch

from common.gpt2 import GPT2
from common.lora import ALPHA, LoRALinear, add_lora, lora_layers, merged_weights, remove_lora, save_adapter, trained_parameters
from common.losses import next_token_loss
from common.pretrained import load_pretrained, save_pretrained
from common.support.checkpoints import load_state
from common.training import TrainOptions, fit, make_optimizer
from tests.common.test_training import NOTHING, dataset
from tests.models import assert_same_weights, make_model

RANK = 3
IDS = torch.arange(24).view(2, 12) * 7 % 257
HOW = TrainOptions(epochs=2, batch_size=4, accumulate=1, lr=1e-2, precision="fp32", lora=RANK, base="some/base")


def adapted(seed: int = 1) -> GPT2:
    """The tiny model with updates that change what it computes."""
    model = make_model()
    torch.manual_seed(seed)
    add_lora(model, RANK)
    with torch.no_grad():
        for layer in lora_layers(model).values():
            layer.B.normal_(std=0.1)
    return model


def test_a_layer_computes_the_formula():
    torch.manual_seed(0)
    linear, x = torch.nn.Linear(5, 7), torch.randn(4, 5)
    layer = LoRALinear(linear, 2)
    with torch.no_grad():
        layer.B.normal_()
    by_hand = torch.stack([linear.weight @ row + linear.bias + ALPHA / 2 * layer.B @ (layer.A @ row) for row in x])
    torch.testing.assert_close(layer(x), by_hand)
    torch.testing.assert_close(layer.merged() @ x.T + linear.bias[:, None], by_hand.T)


@pytest.mark.slow
def test_it_begins_as_the_pretrained_model_and_trains_the_updates_alone():
    plain, model = make_model(), make_model()
    add_lora(model, RANK)
    assert torch.equal(model(IDS), plain(IDS))
    trained = trained_parameters(model)
    D = model.config.n_embd
    assert sum(p.numel() for p in trained.values()) == 2 * RANK * ((D + 3 * D) + (D + D) + (D + 4 * D) + (4 * D + D))
    assert all(name.endswith((".A", ".B")) for name in trained) and len(lora_layers(model)) == 8
    for layer in lora_layers(model).values():
        assert 0 < layer.A.abs().max() <= 1 / math.sqrt(layer.in_features)
    optimizer = make_optimizer(model, HOW)
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {id(p) for p in trained.values()}


def test_taken_away_the_model_is_what_it_was():
    plain, model = make_model(), adapted()
    assert not torch.allclose(model(IDS), plain(IDS))
    remove_lora(model)
    assert torch.equal(model(IDS), plain(IDS)) and not lora_layers(model)
    assert all(p.requires_grad for p in model.parameters()) and model.state_dict().keys() == plain.state_dict().keys()


def test_merged_it_computes_the_same_in_the_form_of_a_plain_model(tokenizer, tmp_path):
    model = adapted()
    save_pretrained(model, tokenizer, tmp_path)
    loaded, _ = load_pretrained(tmp_path)
    torch.testing.assert_close(loaded(IDS), model(IDS), atol=1e-5, rtol=0)
    assert merged_weights(model).keys() == loaded.state_dict().keys() and not lora_layers(loaded)


@pytest.mark.slow
def test_it_equals_peft_on_the_same_weights(tokenizer, tmp_path):
    """Outputs, the gradients of A and B, three steps of training, and the adapter that we write."""
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    save_pretrained(make_model(), tokenizer, tmp_path / "base")
    ours = adapted()
    save_adapter(ours, str(tmp_path / "base"), tmp_path / "adapter")
    base = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "base")
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "adapter", is_trainable=True).eval()
    torch.testing.assert_close(ours(IDS), theirs(IDS).logits, atol=1e-5, rtol=0)

    def pairs():  # ours and theirs, of each A and B
        named = dict(theirs.named_parameters())
        return [(p, named[f"base_model.model.transformer.{name[:-1]}lora_{name[-1]}.default.weight"])
                for name, p in trained_parameters(ours).items()]

    assert len(pairs()) == sum(p.requires_grad for p in theirs.parameters()) == 16
    optimizers = [torch.optim.AdamW([pair[side] for pair in pairs()], lr=1e-2) for side in (0, 1)]
    for _ in range(3):
        for logits in (ours(IDS), theirs(IDS).logits):
            torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), IDS[:, 1:].flatten()).backward()
        for mine, other in pairs():
            torch.testing.assert_close(mine.grad, other.grad, atol=1e-6, rtol=1e-4)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    merged = theirs.merge_and_unload()
    save_pretrained(ours, tokenizer, tmp_path / "ours")
    torch.testing.assert_close(load_pretrained(tmp_path / "ours")[0](IDS), merged(IDS).logits, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_training_leaves_an_ordinary_checkpoint_and_its_adapter(tokenizer, tmp_path):
    model = make_model()
    torch.manual_seed(0)
    run = fit(model, tokenizer, dataset(8), dataset(4, seed=1), next_token_loss, HOW, tmp_path)
    assert run.history[-1]["train_loss"] < run.history[1]["train_loss"]
    plain, saved = make_model(), load_pretrained(tmp_path)[0]
    assert not lora_layers(model) and torch.equal(model(IDS), saved(IDS))
    for name, tensor in plain.state_dict().items():
        changed = not torch.equal(tensor, saved.state_dict()[name])
        assert changed == (name.endswith("weight") and ".c_" in name), name
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "some/base" and config["r"] == RANK
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    save_pretrained(plain, tokenizer, tmp_path / "base")
    base = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "base")
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    torch.testing.assert_close(theirs(IDS).logits, saved(IDS), atol=1e-5, rtol=0)


class Interrupted(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 2, 3])
def test_resumed_it_equals_never_interrupted(tokenizer, tmp_path, at):
    def train(folder, resume=False, stop=None):
        def after_step(row):
            if row["step"] == stop:
                raise Interrupted

        torch.manual_seed(0)
        fit(make_model(), tokenizer, dataset(8), dataset(4, seed=1), next_token_loss, HOW, folder, resume, after_step)

    train(tmp_path / "straight")
    with pytest.raises(Interrupted):
        train(tmp_path / "broken", stop=at)
    train(tmp_path / "broken", resume=True)
    assert_same_weights(tmp_path / "straight", tmp_path / "broken")
    one, two = ((tmp_path / name / "adapter" / "adapter_model.safetensors").read_bytes() for name in ("straight", "broken"))
    assert one == two


@pytest.mark.slow
def test_the_state_holds_the_updates_alone(tokenizer, tmp_path):
    def stop(row):
        if row["step"] == 3:
            raise Interrupted

    with pytest.raises(Interrupted):
        fit(make_model(), tokenizer, dataset(8), NOTHING, next_token_loss, HOW, tmp_path, after_step=stop)
    content = torch.load(tmp_path / "training_state.pt", weights_only=True)
    model = make_model()
    add_lora(model, RANK)
    assert content["model"].keys() == trained_parameters(model).keys()
    assert load_state(tmp_path, model, make_optimizer(model, HOW), HOW).step == 2
