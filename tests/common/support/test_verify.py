"""The layer-by-layer comparison: silent on a right model, and pointing at the first wrong place of a wrong one."""

import sys
from collections.abc import Callable

import pytest
import torch
import transformers  # loads its parts where they are used
from torch import nn

from common.gpt2 import GPT2
from common.pretrained import load_pretrained, save_pretrained
from common.support import verify

IDS = torch.tensor([[5, 200, 31, 31, 7, 90, 256, 0]])


@pytest.fixture
def folder(tiny_model, tokenizer, tmp_path):
    save_pretrained(tiny_model, tokenizer, tmp_path / "model")
    return tmp_path / "model"


def transpose(layer: nn.Linear) -> None:
    layer.weight.data = layer.weight.data.t().contiguous()


def exact_gelu(model: GPT2) -> None:
    mlp = model.h[0].mlp
    mlp.forward = lambda x: mlp.c_proj(nn.functional.gelu(mlp.c_fc(x)))


def untie(model: GPT2) -> None:
    head = model.wte.weight.detach() * 1.01
    model.logits = lambda hidden: hidden @ head.t()


def swap_queries_and_keys(model: GPT2) -> None:
    layer = model.h[1].attn.c_attn
    for p in (layer.weight, layer.bias):
        queries, keys, values = p.data.chunk(3)
        p.data = torch.cat([keys, queries, values])


WRONG = {
    "position embeddings reversed": (lambda m: m.wpe.weight.data.copy_(m.wpe.weight.data.flip(0)), "embeddings", "position"),
    "square matrix transposed": (lambda m: transpose(m.h[1].attn.c_proj), "layer 1 attention", "c_proj is square"),
    "queries and keys mixed up": (swap_queries_and_keys, "layer 1 attention", "order of heads"),
    "exact GELU": (exact_gelu, "layer 0 mlp", "tanh"),
    "mlp weights of another layer": (lambda m: m.h[1].mlp.load_state_dict(m.h[0].mlp.state_dict()), "layer 1 mlp", "c_fc"),
    "other epsilon at the end": (lambda m: setattr(m.ln_f, "eps", 0.1), "final LayerNorm", "epsilon"),
    "head not tied": (untie, "logits", "tied"),
}


@pytest.mark.slow
def test_equal_models_agree_everywhere(folder):
    ours, theirs = load_pretrained(folder)[0], transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
    rows = verify.layer_differences(ours, theirs, IDS)
    assert [name for name, _, _ in rows] == ["embeddings", "layer 0 attention", "layer 0 mlp", "layer 1 attention",
                                             "layer 1 mlp", "final LayerNorm", "logits"]
    assert all(agrees and difference < 1e-4 for _, difference, agrees in rows)


@pytest.mark.slow
@pytest.mark.parametrize("damage, place, cause", WRONG.values(), ids=WRONG)
def test_the_first_wrong_place_and_its_cause_are_named(folder, damage: Callable, place: str, cause: str):
    ours = load_pretrained(folder)[0]
    damage(ours)
    rows = verify.layer_differences(ours, transformers.GPT2LMHeadModel.from_pretrained(folder).eval(), IDS)
    assert next(name for name, _, agrees in rows if not agrees) == place
    assert cause in verify.likely_cause(place)


def test_a_result_that_is_not_a_number_does_not_agree(folder):
    ours = load_pretrained(folder)[0]
    ours.h[0].mlp.c_proj.bias.data[3] = torch.nan
    rows = verify.layer_differences(ours, transformers.GPT2LMHeadModel.from_pretrained(folder).eval(), IDS)
    assert next(name for name, _, agrees in rows if not agrees) == "layer 0 mlp"


def test_comparing_leaves_no_hooks(folder):
    ours, theirs = load_pretrained(folder)[0], transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
    verify.layer_differences(ours, theirs, IDS)
    assert not any(module._forward_hooks for model in (ours, theirs) for module in model.modules())


def test_the_command_finds_our_model_equal(folder, in_process):
    done = in_process("common/support/verify.py", "--model", folder)
    assert done.returncode == 0
    assert "the same tokens" in done.stdout and "yes" in done.stdout
    assert " NO" not in done.stdout
    assert "Both compute the same." in done.stdout


def test_the_command_names_a_wrong_layer_with_exit_status_1(folder, monkeypatch, capsys):
    def load_wrong(name):
        model, tokenizer = load_pretrained(name)
        transpose(model.h[1].attn.c_proj)
        return model, tokenizer

    monkeypatch.setattr(verify, "load_pretrained", load_wrong)
    monkeypatch.setattr(sys, "argv", ["verify.py", "--model", str(folder)])
    with pytest.raises(SystemExit) as ended:
        verify.main()
    assert ended.value.code == 1
    printed = capsys.readouterr().out
    assert "first difference is in layer 1 attention" in printed and "c_proj is square" in printed
    assert "Both compute the same." not in printed
