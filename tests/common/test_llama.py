"""Llama and Qwen2: the same numbers as transformers, read and written both ways, and each of the changes by hand."""

import json

import pytest
import torch
import transformers  # loads its parts where they are used
from safetensors.torch import load_file

from ch_pretrain.inside import attention_weights, logit_lens, without_heads
from common.fast.answering import continue_all
from common.fast.cache import KVCache
from common.fast.views import run
from common.lora import add_lora, lora_layers, save_adapter
from common.pretrained import load_pretrained, load_weights, save_pretrained
from common.support.files import InputError
from common.support.public_form import count_parameters
from common.support.verify import layer_differences, likely_cause
from tests.models import KINDS, make_llama

IDS = torch.tensor([[5, 200, 31, 31, 7, 90, 256, 0], [1, 2, 3, 4, 5, 6, 7, 8]])
LLAMAS = {"GQA, tied": ("llama", {}), "a head of its own": ("llama", {"tie_word_embeddings": False}),
          "as many heads of keys": ("llama", {"num_key_value_heads": 4}), "one head of keys": ("llama", {
              "num_key_value_heads": 1}), "another base": ("llama", {"rope_theta": 500.0, "rms_norm_eps": 1e-3}),
          "Qwen2": ("qwen2", {}), "Qwen2, a head of its own": ("qwen2", {"tie_word_embeddings": False})}


def make_peer(kind: str = "llama", noise: float = 0.2, **settings: object) -> "transformers.PreTrainedModel":
    """A random model of transformers, with clearly different outputs for different inputs."""
    torch.manual_seed(1)
    config = {"vocab_size": 257, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
              "num_key_value_heads": 2, "max_position_embeddings": 64, "tie_word_embeddings": True, "eos_token_id": 256}
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(kind, **config | settings)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * noise)
    return model


def written(peer: "transformers.PreTrainedModel", tokenizer, folder, **how: object):
    tokenizer.save(folder, model_max_length=64)
    peer.save_pretrained(folder, **how)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind, settings", LLAMAS.values(), ids=LLAMAS)
@torch.no_grad()
def test_logits_are_those_of_transformers_and_files_go_both_ways(kind, settings, tokenizer, tmp_path):
    peer = make_peer(kind, **settings)
    ours, _ = load_pretrained(written(peer, tokenizer, tmp_path / "theirs"))
    expected = peer(IDS).logits
    assert (ours(IDS) - expected).abs().max() <= 1e-4 < expected.std()
    rows = layer_differences(ours, peer, IDS)
    assert len(rows) == 7 and all(agrees for _, _, agrees in rows)
    assert sum(p.numel() for p in ours.parameters()) == count_parameters(ours.config)

    save_pretrained(ours, tokenizer, tmp_path / "ours")
    stored = load_file(tmp_path / "ours" / "model.safetensors")
    assert all(torch.equal(tensor, stored[name]) for name, tensor in load_file(tmp_path / "theirs/model.safetensors").items())
    again, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert type(again) is type(peer) and torch.equal(again.eval()(IDS).logits, expected)


@pytest.mark.slow
def test_parts_in_bfloat16_are_read_as_float32(llama_folder):
    assert len(list(llama_folder.glob("model-*.safetensors"))) > 1
    ours, tokenizer = load_pretrained(llama_folder)
    peer = transformers.AutoModelForCausalLM.from_pretrained(llama_folder, dtype=torch.float32).eval()
    ids = torch.tensor([tokenizer.encode("The opposite of hot is cold. 12 plus 7 is 19.")])
    with torch.no_grad():
        assert ours.wte.weight.dtype == torch.float32 and (ours(ids) - peer(ids).logits).abs().max() <= 1e-4


@pytest.mark.slow
def test_greedy_answers_are_those_of_transformers(tokenizer, tmp_path):
    peer, prompts = make_peer(noise=0.4), [[10, 20, 30, 40, 50], [7, 8], [9] * 9]
    model, _ = load_pretrained(written(peer, tokenizer, tmp_path))
    how = {"do_sample": False, "max_new_tokens": 30, "eos_token_id": None, "pad_token_id": 0}
    theirs = [peer.generate(ids := torch.tensor([prompt]), attention_mask=torch.ones_like(ids), **how)[0, len(prompt):].tolist()
              for prompt in prompts]
    assert [answer.ids for answer in continue_all(model, prompts, 30, eot_id=-1)] == theirs and len({*theirs[0]}) > 5


# --- each change by hand


def test_the_norm_divides_by_the_root_of_the_mean_square():
    norm, x = make_llama().ln_f, torch.randn(3, 32)
    for row, found in zip(x, norm(x)):
        torch.testing.assert_close(found, norm.weight * row / (row.square().mean() + norm.eps).sqrt())


def test_turned_products_depend_on_the_distance_alone():
    rotary = make_llama().h[0].attn.rotary
    q, k = torch.randn(1, 1, 8), torch.randn(1, 1, 8)

    def product(at: int, key_at: int) -> float:
        return (rotary(q, torch.tensor([at])) * rotary(k, torch.tensor([key_at]))).sum().item()

    assert product(9, 4) == pytest.approx(product(45, 40), abs=1e-5) != pytest.approx(product(9, 5), abs=1e-3)
    turned = rotary(q, torch.tensor([1]))[0, 0]  # number 0 and number 4 are a point, turned by one radian
    point = torch.view_as_complex(torch.stack([q[0, 0, 0], q[0, 0, 4]])) * torch.polar(torch.ones(()), torch.ones(()))
    torch.testing.assert_close(turned[[0, 4]], torch.view_as_real(point))


def test_a_group_of_queries_shares_keys_and_values():
    """As with as many heads of keys, if those of a group are alike."""
    few, many = make_llama(), make_llama(n_kv_head=4)
    for one, other in zip(few.h, many.h):
        q, k, v = one.attn.c_attn.weight.data.split(one.attn.sizes)
        k, v = (x.view(2, 8, 32).repeat_interleave(2, dim=0).flatten(0, 1) for x in (k, v))
        other.attn.c_attn.weight.data = torch.cat([q, k, v])
        for part in ("ln_1", "ln_2", "mlp"):
            getattr(other, part).load_state_dict(getattr(one, part).state_dict())
        other.attn.c_proj.load_state_dict(one.attn.c_proj.state_dict())
    many.wte, many.ln_f = few.wte, few.ln_f
    with torch.no_grad():
        torch.testing.assert_close(few(IDS), many(IDS))
        run(few, IDS, cache := KVCache(8))
    assert {k.shape for k, _ in cache.layers.values()} == {(2, 2, 8, 8)}  # half of the memory


def test_an_inner_number_with_its_gate_shut_says_nothing():
    mlp, x = make_llama().h[0].mlp, torch.randn(5, 32)
    with torch.no_grad():
        gate, value = (x @ part.T for part in mlp.c_fc.weight.chunk(2))
        torch.testing.assert_close(mlp(x), (gate * gate.sigmoid() * value) @ mlp.c_proj.weight.T)


# --- what looks inside, and LoRA


@torch.no_grad()
def test_attention_and_heads_are_seen(tokenizer, tmp_path):
    peer = make_peer(attn_implementation="eager", tie_word_embeddings=False)
    model, _ = load_pretrained(written(peer, tokenizer, tmp_path))
    theirs = peer(IDS[:1], output_attentions=True).attentions
    torch.testing.assert_close(attention_weights(model, IDS[0]), torch.cat(theirs), atol=1e-5, rtol=0)
    torch.testing.assert_close(logit_lens(model, IDS[0], 1).logits, model(IDS)[0])
    with without_heads(model, [(1, head) for head in range(4)]):
        silent = model(IDS)
    model.h[1].attn.c_proj.weight.zero_()
    torch.testing.assert_close(silent, model(IDS))


@pytest.mark.slow
@pytest.mark.parametrize("kind, settings", [("llama", {}), ("qwen2", {})])
def test_adapters_of_peft_go_both_ways(kind, settings, tokenizer, tmp_path):
    peft = pytest.importorskip("peft")
    peer = make_peer(kind, **settings)
    model, _ = load_pretrained(written(peer, tokenizer, tmp_path / "base"))
    torch.manual_seed(0)
    add_lora(model, 3)
    with torch.no_grad():
        for layer in lora_layers(model).values():
            layer.B.normal_(std=0.1)
    save_adapter(model, str(tmp_path / "base"), tmp_path / "adapter")
    theirs = peft.PeftModel.from_pretrained(peer, tmp_path / "adapter").eval()
    read, _ = load_pretrained(tmp_path / "adapter")
    with torch.no_grad():
        plain, adapted = load_pretrained(tmp_path / "base")[0](IDS), model(IDS)
        assert (adapted - plain).abs().max() > 0.1
        torch.testing.assert_close(theirs(IDS).logits, adapted, atol=1e-4, rtol=0)
        torch.testing.assert_close(read(IDS), adapted, atol=1e-4, rtol=0)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


def pair_neighbours(model) -> None:
    model.h[1].attn.rotary.forward = lambda x, positions: x


def swap_gate_and_value(model) -> None:
    weight = model.h[0].mlp.c_fc.weight
    weight.data = torch.cat(weight.chunk(2)[::-1])


@pytest.mark.parametrize("damage, place, cause", [(pair_neighbours, "layer 0 attention", "turned together"),
                                                  (swap_gate_and_value, "layer 0 mlp", "gate and value")])
def test_verify_names_the_first_wrong_place(damage, place, cause, tokenizer, tmp_path):
    peer = make_peer()
    ours, _ = load_pretrained(written(peer, tokenizer, tmp_path))
    damage(ours)
    first = next(name for name, _, agrees in layer_differences(ours, peer, IDS) if not agrees)
    assert first == place and cause in likely_cause(first)


# --- what is refused


@pytest.mark.parametrize("settings, words", [
    ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_type = 'llama3'"),
    ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "type = 'linear'"),
    ({"rope_parameters": {"rope_theta": 1e4, "rope_type": "yarn"}}, "rope_type = 'yarn'"),
    ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "partial_rotary_factor = 0.5"),
    ({"rope_parameters": None, "rope_theta": "much"}, "rope_theta = 'much'"),
    ({"rope_parameters": [1]}, "config.json of a Llama"),
    ({"attention_bias": True}, "attention_bias = True"), ({"mlp_bias": True}, "mlp_bias = True"),
    ({"hidden_act": "gelu"}, "hidden_act = 'gelu'"), ({"head_dim": 16}, "head_dim 16"),
    ({"num_key_value_heads": 3}, "3 of keys"), ({"num_key_value_heads": 0}, "num_key_value_heads = 0"),
    ({"num_attention_heads": 5}, "n_head (5)"), ({"use_sliding_window": True}, "use_sliding_window = True"),
    ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types = 'sliding_attention'"),
    ({"quantization_config": {"bits": 4}}, "quantization_config"), ({"rms_norm_eps": 2}, "rms_norm_eps = 2"),
    ({"hidden_size": None}, "hidden_size = None"), ({"model_type": "mistral"}, "model_type = 'mistral'"),
    ({"tie_word_embeddings": False}, "missing lm_head.weight"),
    ({"num_hidden_layers": 1}, "unexpected layers.1."), ({"num_key_value_heads": 4}, "k_proj.weight has shape (16, 32)")])
def test_what_is_not_computed_here_is_refused_by_name(settings, words, tokenizer, tmp_path):
    save_pretrained(make_llama(), tokenizer, tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    with pytest.raises(InputError) as refused:
        load_pretrained(tmp_path)
    assert words in str(refused.value) and str(tmp_path) in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("name", KINDS)
def test_weights_read_again_keep_the_parameters(name, tokenizer, tmp_path):
    model = KINDS[name]()
    save_pretrained(model, tokenizer, tmp_path)
    parameters, before = list(model.parameters()), model(IDS)
    with torch.no_grad():
        for p in parameters:
            p.add_(1)
    load_weights(model, tmp_path)
    assert all(p is q for p, q in zip(parameters, model.parameters())) and torch.equal(model(IDS), before)
