"""How public files write a model down: its sizes in config.json, its tensors by their names. GPT-2's form, Llama's and Qwen2's.

Names of tensors are without the prefix of public files ("transformer.", "model.").
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from common.gpt2 import GPT2, GPT2Config
from common.llama import Llama, LlamaConfig
from common.support.files import InputError, reading

# The largest sizes that are taken for meant: with larger ones, only to build the model would take minutes or overflow.
LARGEST = {"vocab_size": 10**7, "n_positions": 10**7, "n_embd": 10**5, "n_layer": 1000, "n_head": 10**5, "n_inner": 10**6,
           "n_kv_head": 10**5}


class Form(NamedTuple):
    """One kind of model, as `model_type` in config.json names it."""

    name: str
    fixed: dict[str, tuple]  # settings that change the computation, with the values that are computed here, the default first
    sizes: dict[str, str]  # our name of each size -> the one in config.json
    epsilon: tuple[str, float]  # its name and its default
    optional: str  # the size that may be null


GPT2_FORM = Form("GPT-2", {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"), "tie_word_embeddings": (True,), "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,), "add_cross_attention": (False,)},
    {name: name for name in LARGEST if name != "n_kv_head"}, ("layer_norm_epsilon", 1e-5), "n_inner")
LLAMA_FORM = Form("Llama", {
    "hidden_act": ("silu",), "attention_bias": (False,), "mlp_bias": (False,), "tie_word_embeddings": (False, True),
    "rope_type": ("default",), "type": ("default",), "partial_rotary_factor": (1,), "rope_interleaved": (False,),
    "layer_types": (None,), "use_sliding_window": (False,), "quantization_config": (None,)},
    {"vocab_size": "vocab_size", "n_positions": "max_position_embeddings", "n_embd": "hidden_size",
     "n_layer": "num_hidden_layers", "n_head": "num_attention_heads", "n_inner": "intermediate_size",
     "n_kv_head": "num_key_value_heads"}, ("rms_norm_eps", 1e-6), "n_kv_head")
FORMS = {"gpt2": GPT2_FORM, "llama": LLAMA_FORM, "qwen2": LLAMA_FORM._replace(name="Qwen2")}


def config_from(content: dict[str, Any], path: Path) -> GPT2Config:
    """The sizes in a config.json that was read from `path`. Dropout is not read: it is a matter of training.

    Raises:
        InputError: if it describes a model that is none of ours.
    """
    kind = content.get("model_type")
    if kind not in list(FORMS):
        raise InputError(f"{path} says model_type = {kind!r}; only {', '.join(map(repr, FORMS))} are written here; use another "
                         "model.")
    form, llama = FORMS[kind], kind != "gpt2"
    with reading(path, f"not the config.json of a {form.name}", "fetch or copy it again"):
        if llama:  # newer files keep what turns queries and keys in one place, older ones in two
            content = content | (content.get("rope_scaling") or {}) | (content.get("rope_parameters") or {})
            content["layer_types"] = next((t for t in content.get("layer_types") or () if t != "full_attention"), None)
        for key, allowed in form.fixed.items():
            if (value := content.get(key, allowed[0])) not in allowed:
                raise InputError(f"{path} says {key} = {value!r}; only {' or '.join(map(repr, allowed))} is {form.name} as "
                                 "written here; use another model.")
        sizes: dict[str, Any] = {name: content.get(key) for name, key in form.sizes.items()}
        for name, value in sizes.items():
            if not (name == form.optional and value is None) and not (type(value) is int and 1 <= value <= LARGEST[name]):
                raise InputError(f"{path} says {form.sizes[name]} = {value!r}; it must be a whole number from 1 to "
                                 f"{LARGEST[name]}.")
        epsilon = content.get(*form.epsilon)
        if type(epsilon) not in (int, float) or not 0 < epsilon < 1:
            raise InputError(f"{path} says {form.epsilon[0]} = {epsilon!r}; it must be a number between 0 and 1.")
        if not llama:
            return GPT2Config(**sizes, layer_norm_epsilon=float(epsilon))
        theta = content.get("rope_theta", 10000.0)
        if type(theta) not in (int, float) or not 1 < theta < 1e30:
            raise InputError(f"{path} says rope_theta = {theta!r}; it must be a number from 1 to 1e30.")
        sizes["n_kv_head"] = sizes["n_kv_head"] or sizes["n_head"]
        config = LlamaConfig(**sizes, layer_norm_epsilon=float(epsilon), rope_theta=float(theta),
                             tied=content.get("tie_word_embeddings", False), qkv_bias=kind == "qwen2")
        width = config.n_embd // config.n_head
        if config.n_head % config.n_kv_head or width % 2 or content.get("head_dim") not in (None, width):
            raise InputError(f"{path} has {config.n_head} heads of queries, {config.n_kv_head} of keys, and head_dim "
                             f"{content.get('head_dim')}; here, heads of keys divide those of queries, and head_dim is {width} "
                             "and even; use another model.")
    return config


def content_of(config: GPT2Config, eot_id: int, dtype: torch.dtype) -> dict[str, Any]:
    """The config.json of a model of these sizes."""
    ends = {"bos_token_id": eot_id, "eos_token_id": eot_id, "dtype": str(dtype).removeprefix("torch.")}
    if isinstance(config, LlamaConfig):
        kind, name = ("qwen2", "Qwen2") if config.qkv_bias else ("llama", "Llama")
        return {"architectures": [f"{name}ForCausalLM"], "model_type": kind, "hidden_act": "silu"} | {
            key: getattr(config, size) for size, key in LLAMA_FORM.sizes.items()} | {
            "rms_norm_eps": config.layer_norm_epsilon, "rope_theta": config.rope_theta,
            "attention_dropout": config.dropout, "tie_word_embeddings": config.tied} | ends
    return {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "activation_function": "gelu_new",
            "n_ctx": config.n_positions} | {name: getattr(config, name) for name in GPT2_FORM.sizes} | {
            "layer_norm_epsilon": config.layer_norm_epsilon, "attn_pdrop": config.dropout, "embd_pdrop": config.dropout,
            "resid_pdrop": config.dropout, "tie_word_embeddings": True} | ends


def count_parameters(config: GPT2Config) -> int:
    """How many numbers a model of these sizes learns, without making one."""
    D, inner, L = config.n_embd, config.n_inner or 4 * config.n_embd, config.n_layer
    if isinstance(config, LlamaConfig):
        shared = D // config.n_head * config.n_kv_head
        per_layer = 2 * D * (D + shared) + 3 * D * inner + 2 * D + (D + 2 * shared) * config.qkv_bias
        return (2 - config.tied) * config.vocab_size * D + L * per_layer + D
    per_layer = 4 * D * D + 2 * D * inner + 9 * D + inner  # the matrices of attention and MLP, then biases and gains
    return (config.vocab_size + config.n_positions) * D + L * per_layer + 2 * D


# GPT-2's public files keep these linear layers as [in, out] ("Conv1D"); nn.Linear keeps [out, in].
TRANSPOSED = re.compile(r"h\.\d+\.(attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)\.weight")
# Llama's call our parts so. What stands side by side here is apart there.
LLAMA_PARTS = {"wte": ("embed_tokens",), "ln_f": ("norm",), "lm_head": ("lm_head",), "ln_1": ("input_layernorm",),
               "ln_2": ("post_attention_layernorm",), "attn.c_proj": ("self_attn.o_proj",), "mlp.c_proj": ("mlp.down_proj",),
               "attn.c_attn": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
               "mlp.c_fc": ("mlp.gate_proj", "mlp.up_proj")}


def public_names(model: GPT2, name: str) -> list[str]:
    """The public names of one of our tensors: "h.3.mlp.c_fc.weight" -> [itself], or Llama's two, in the order of their rows."""
    if not isinstance(model, Llama):
        return [name]
    place, _, kind = name.rpartition(".")
    _, layer, part = re.split(r"^(?:h\.(\d+)\.)?", place, maxsplit=1)
    return [f"layers.{layer}.{theirs}.{kind}" if layer else f"{theirs}.{kind}" for theirs in LLAMA_PARTS[part]]


def apart(model: GPT2, name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    """The tensors that public files make of one of ours, with their names; all of them have its columns."""
    names = public_names(model, name)
    attention: Any = model.get_submodule("h.0.attn")
    sizes = attention.sizes if len(names) == 3 else len(tensor) // len(names)
    return list(zip(names, tensor.split(sizes)))


def to_public(model: GPT2, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """All tensors of the model as public files have them."""
    if not isinstance(model, Llama):
        return {name: tensor.t() if TRANSPOSED.fullmatch(name) else tensor for name, tensor in tensors.items()}
    return dict(pair for name, tensor in tensors.items() for pair in apart(model, name, tensor))


def to_ours(model: GPT2, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The way back."""
    if not isinstance(model, Llama):
        return to_public(model, tensors)  # transposed twice is as before
    return {name: torch.cat([tensors[part] for part in public_names(model, name)]) for name in model.state_dict()}


def with_prefix(model: GPT2, name: str) -> str:
    """A public name as public files have it."""
    return name if name.startswith("lm_head") else ("model." if isinstance(model, Llama) else "transformer.") + name
