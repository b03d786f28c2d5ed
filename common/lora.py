"""LoRA: leave the pretrained matrices as they are and learn a small update of each (Hu et al., 2021, arXiv 2106.09685).

    h = W₀ x + ΔW x = W₀ x + (α / r) B A x          (equation 3, with the paper's scale)

W₀ [d, k] is frozen. A [r, k] and B [d, r] are learnt: r (d + k) numbers instead of d · k, and the optimizer keeps its two
averages for these alone. B begins at zero, so training starts at the pretrained model. Afterwards W₀ + (α / r) B A is one
matrix again ("merged"): the model has the form, the files and the speed that it had before.

The paper adapts queries and values; here, as is usual since, all four linear layers of each block are adapted.
"""

import math
import re
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from common.gpt2 import GPT2
from common.llama import Llama
from common.support import files
from common.support.files import InputError
from common.support.public_form import LLAMA_PARTS, apart, with_prefix

ALPHA = 16  # α. With α / r, a good learning rate depends little on r, so α is left alone
ADAPTED = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")  # of each block

# What adapter_config.json may say. These settings change what is computed: the values with which it is the formula above.
PLAIN = {"peft_type": ("LORA",), "bias": ("none",), "init_lora_weights": (True, False, None, "gaussian"),
         "revision": (None, "main")}
# These change nothing when the adapter is read. All others must be off.
HARMLESS = {"auto_mapping", "base_model_name_or_path", "exclude_modules", "fan_in_fan_out", "inference_mode",
            "layers_pattern", "layers_to_transform", "lora_alpha", "lora_dropout", "megatron_core", "peft_version",
            "qalora_group_size", "r", "rank_pattern", "runtime_config", "target_modules", "task_type", "use_rslora"}
THEIR_NAME = re.compile(r"base_model\.model\.(?:transformer\.|model\.)?(.+)\.lora_([AB])\.weight")
THEIR_PARTS = {theirs for name in ADAPTED for theirs in (name, *LLAMA_PARTS[name])}


class LoRALinear(nn.Linear):
    """A linear layer with frozen W₀ and bias, and its update. The parameters keep their names; A and B are new ones."""

    def __init__(self, linear: nn.Linear, r: int):
        super().__init__(linear.in_features, linear.out_features, device="meta")  # takes no memory
        self.weight, self.bias = linear.weight, linear.bias  # W₀ [d, k], b [d]
        self.scale = ALPHA / r
        d, k = self.weight.shape
        self.A = nn.Parameter(self.weight.new_empty(r, k).uniform_(-1 / math.sqrt(k), 1 / math.sqrt(k)))  # as the authors' code
        self.B = nn.Parameter(self.weight.new_zeros(d, r))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.scale * F.linear(F.linear(x, self.A), self.B)  # [..., k] -> [..., r] -> [..., d]

    @torch.no_grad()
    def merged(self) -> Tensor:
        """W₀ + (α / r) B A, [d, k]."""
        return self.weight + self.scale * self.B @ self.A


def add_lora(model: GPT2, r: int) -> None:
    """Freeze the model and give every layer of ADAPTED an update of rank r, drawn at random. r: from 1 to the model's width."""
    model.requires_grad_(False)
    for block in model.h:
        for name in ADAPTED:
            linear: Any = block.get_submodule(name)
            block.set_submodule(name, LoRALinear(linear, r))


def remove_lora(model: GPT2) -> None:
    """Take the updates away, if there are any: the pretrained model, not frozen."""
    for name, layer in lora_layers(model).items():
        plain = nn.Linear(layer.in_features, layer.out_features, device="meta")
        plain.weight, plain.bias = layer.weight, layer.bias
        model.set_submodule(name, plain)
    model.requires_grad_(True)


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """By name, what is trained: all parameters, or the updates of LoRA."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def merged_weights(model: GPT2) -> dict[str, Tensor]:
    """The weights of an ordinary GPT-2 that computes the same: every update added to its W₀. Others are the model's own."""
    weights = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith((".A", ".B"))}
    return weights | {f"{name}.weight": layer.merged() for name, layer in lora_layers(model).items()}


def lora_layers(model: GPT2) -> dict[str, LoRALinear]:
    """The adapted layers by name; none in an ordinary model."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, LoRALinear)}


def save_adapter(model: GPT2, base: str, folder: Path, chat_template: str | None = None) -> None:
    """Write the updates alone, in the format of Hugging Face's `peft`, and the chat template, if there is one. base: the hub id
    or folder of the pretrained model."""
    layers, tensors = lora_layers(model), {}
    for name, layer in layers.items():
        for part, B in apart(model, f"{name}.weight", layer.B):  # where they are apart, each part has the same A
            for letter, matrix in (("A", layer.A), ("B", B)):
                their_name = with_prefix(model, part).replace(".weight", f".lora_{letter}.weight")
                tensors[f"base_model.model.{their_name}"] = matrix.detach().clone()
    [r] = {layer.A.size(0) for layer in layers.values()}
    files.write_json(folder / "adapter_config.json", {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "r": r, "lora_alpha": ALPHA,
        "lora_dropout": 0.0, "bias": "none", "target_modules": sorted({name.split(".")[-3] for name in tensors}),
        "fan_in_fan_out": not isinstance(model, Llama),  # public files keep GPT-2's linear layers transposed
        "inference_mode": True})
    if chat_template:
        files.write_text(folder / "chat_template.jinja", chat_template)
    files.write_whole(folder / "adapter_model.safetensors", lambda path: save_file(tensors, path, metadata={"format": "pt"}))


def read_adapter_config(folder: Path) -> dict:
    """adapter_config.json of an adapter that `peft` or `save_adapter` wrote.

    Raises:
        InputError: if it is none, or one that is no plain LoRA.
    """
    path = folder / "adapter_config.json"
    config = files.read_json(path, {"base_model_name_or_path": str, "lora_alpha": float, "r": int, "peft_type": str},
                             "not the adapter_config.json of a LoRA", "fetch or copy it again")
    for key, value in config.items():
        if value not in PLAIN.get(key, (value,) if key in HARMLESS else (None, False, {}, [])):
            raise InputError(f"{path} says {key} = {value!r}, which is no plain LoRA; merge it with peft's merge_and_unload "
                             "and use the merged folder.")
    return config


def adapter_updates(folder: Path) -> dict[str, Tensor]:
    """The updates of an adapter that `peft` wrote: (α / r) B A by the name of their matrix, float32 [d, k].

    Raises:
        InputError: if the folder holds something else besides.
    """
    config, path = read_adapter_config(folder), folder / "adapter_model.safetensors"
    with files.reading(path, "not to be read as safetensors, it may be cut off", "fetch or copy it again"):
        halves: dict[str, dict[str, Tensor]] = {}
        for name, tensor in load_file(path).items():
            found = THEIR_NAME.fullmatch(name)
            if not found or ".".join(found[1].split(".")[-2:]) not in THEIR_PARTS:
                raise InputError(f"{path} holds {name}, which is no update of a block's linear layer; merge it with peft's "
                                 "merge_and_unload and use the merged folder.")
            halves.setdefault(f"{found[1]}.weight", {})[found[2]] = tensor.float()
        return {name: config["lora_alpha"] / (math.sqrt(len(ab["A"])) if config.get("use_rslora") else len(ab["A"]))
                * ab["B"] @ ab["A"] for name, ab in halves.items()}
