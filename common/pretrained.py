"""Loading and saving: a checkpoint is a Hugging Face folder of a GPT-2, Llama or Qwen2, for public weights and our own alike.

    config.json  model.safetensors  vocab.json  merges.txt  tokenizer_config.json  (or tokenizer.json, which says more)

A folder with adapter_config.json and adapter_model.safetensors, as `peft` writes it, stands for the model that it adapts,
with the updates added.
"""

import re
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from common.gpt2 import GPT2, GPT2Config
from common.llama import Llama, LlamaConfig
from common.lora import adapter_updates, merged_weights, read_adapter_config
from common.support import files, public_form
from common.support.device import check_memory
from common.support.files import InputError
from common.support.hub import Pin, download
from common.tokenizer import Tokenizer

CLASSROOM_FOLDER = Path(__file__).parent / "assets" / "classroom"


# Sizes and hashes are those that public manifests agree on. Where none stands here, the hub's own hash is checked.
PUBLIC = {
    "gpt2": Pin("openai-community/gpt2", "607a30d783dfa663caf39e06633721c8d4cfcd7e", 548105171,
                "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707"),
    "gpt2-medium": Pin("openai-community/gpt2-medium", "6dcaa7a952f72f9298047fd5137cd6e4f05f41da"),
    "gpt2-large": Pin("openai-community/gpt2-large", "32b71b12589c2f8d625668d2335a01cac3249519"),
    "gpt2-xl": Pin("openai-community/gpt2-xl", "15ea56dee5df4983c59b2538573817e1667135e2", None,
                   "0f8b28eb05a8075f48b61b6f35332978c74fc7763fa9fb4051a1c30511736a6a"),
    "smollm2": Pin("HuggingFaceTB/SmolLM2-135M-Instruct", "12fd25f77366fa6b3b4b768ec3050bf629380bac", 269060552,
                   "5af571cbf074e6d21a03528d2330792e532ca608f24ac70a143f6b369968ab8c"),
}

# What a hub repository may hold besides (PyTorch pickles, TensorFlow, ONNX) is never fetched.
WANTED_FILES = ["config.json", "model*.safetensors", "model.safetensors.index.json", "vocab.json", "merges.txt",
                "tokenizer.json", "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json",
                "chat_template.jinja", "adapter_config.json", "adapter_model.safetensors"]

MASK_BUFFERS = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")  # constants that older files carry along


def load_pretrained(name_or_folder: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32,
                    dropout: float = 0.0) -> tuple[GPT2, Tokenizer]:
    """Load a model and its tokenizer.

    Args:
        name_or_folder: "classroom" (ships with this repository), a public size ("gpt2", "gpt2-medium", "gpt2-large",
            "gpt2-xl", "smollm2"), the hub id of a GPT-2, Llama or Qwen2 ("distilbert/distilgpt2"), a checkpoint folder, or
            that of an adapter.
        device, dtype: where the weights go, and as what.
        dropout: share of activations set to zero in training, whatever the checkpoint says.

    Returns:
        The model, in evaluation mode, and the tokenizer. If the model has rows that no token belongs to (vocabularies are
        padded), its buffer `without_token`, bool [V], says which, so that they are never chosen.

    Raises:
        InputError: if there is no such model, it cannot be fetched, or its files are not a whole model of ours.
    """
    folder = find_folder(str(name_or_folder))
    config = replace(read_config(folder), dropout=dropout)
    tokenizer = read_tokenizer(folder)
    if tokenizer.vocab_size > config.vocab_size:
        raise InputError(f"{folder}: the tokenizer has {tokenizer.vocab_size} entries and the model only "
                         f"{config.vocab_size}; they do not belong together.")
    with torch.device("meta"), NoInit():  # shapes only: the weights come from the file
        model = Llama(config) if isinstance(config, LlamaConfig) else GPT2(config)
    load_weights(model, folder, dtype)
    if unused := tokenizer.without_token(config.vocab_size):
        mask = torch.zeros(config.vocab_size, dtype=torch.bool)
        mask[unused] = True
        model.register_buffer("without_token", mask, persistent=False)
    return model.to(device).eval(), tokenizer


class NoInit(TorchFunctionMode):
    """Within this context the functions of `torch.nn.init` leave their tensor as it is, which saves their time."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return function(*args, **kwargs)


def find_folder(name: str) -> Path:
    """The folder that holds the model `name`, fetched from the hub if need be.

    Raises:
        InputError: if there is no such model, or a folder that holds a model has the name of a public one.
    """
    if (name == "classroom" or name in PUBLIC) and any(files.is_there(Path(name) / file) for file in WANTED_FILES):
        raise InputError(f"{name} is the name of a public model, and of a folder here; write ./{name} for the folder, or "
                         "rename the folder to use the model.")
    if name == "classroom":
        return CLASSROOM_FOLDER
    if name in PUBLIC:
        return download(name, PUBLIC[name], WANTED_FILES)
    if name and Path(name).is_dir():
        return Path(name)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and name[0] not in "./":
        pinned = {pin.repo: pin for pin in PUBLIC.values()}  # an adapter names its model by the hub id
        return download(name, pinned.get(name, Pin(name, "main")), WANTED_FILES)
    raise InputError(f"There is no model {name!r}: use classroom, {', '.join(PUBLIC)}, a hub id such as "
                     "distilbert/distilgpt2, or a folder with config.json and model.safetensors, or with an adapter of peft.")


def public_name(name: str) -> str:
    """The model `name` as other tools find it: its hub id, or its folder."""
    return PUBLIC[name].repo if name in PUBLIC else str(CLASSROOM_FOLDER) if name == "classroom" else name


def adapted_folder(folder: Path) -> Path | None:
    """The folder of the model to which the adapter in this one belongs; None if there is none.

    Raises:
        InputError: if there is no such model, or a model lies beside the adapter.
    """
    if not files.is_there(folder / "adapter_config.json"):
        return None
    if any(folder.glob("model*.safetensors")):
        raise InputError(f"{folder} holds a model and an adapter_config.json, so two models could be meant; move the adapter's "
                         "two files to a folder of their own.")
    base = read_adapter_config(folder)["base_model_name_or_path"]
    try:
        return find_folder(base)
    except InputError as error:
        raise InputError(f"{folder} is an adapter of the model {base!r}, which cannot be found; write its name or folder as "
                         f"base_model_name_or_path into adapter_config.json ({str(error).rstrip('.')}).") from error


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer in the folder, or, if it holds an adapter and none, that of the adapted model."""
    base = adapted_folder(folder)
    own = any((folder / name).exists() for name in ("tokenizer.json", "vocab.json"))
    return Tokenizer.from_folder(folder) if own or base is None else read_tokenizer(base)


def read_config(folder: Path) -> GPT2Config:
    """Read `config.json`; refuse models that are none of ours. Its dropout is not read: it is a matter of training."""
    if base := adapted_folder(folder):
        return read_config(base)
    path = folder / "config.json"
    if not files.is_there(path):
        hint = "; give one of its folders seed-0, seed-1, ..." * (folder / "seed-0").is_dir()
        raise InputError(f"{folder} is no checkpoint: it has no config.json{hint}.")
    content = files.read_json(path, {str: object}, "not the config.json of a model", "fetch or copy it again")
    config = public_form.config_from(content, path)
    count = public_form.count_parameters(config)
    check_memory(4 * count, f"{path}: a model of {count:,} parameters needs", "use a smaller one")
    return config


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of `model.safetensors`, or of the parts that `model.safetensors.index.json` lists, by their names without
    their prefix; with the updates of an adapter added, if the folder holds one."""
    if base := adapted_folder(folder):
        tensors = read_tensors(base)
        for name, update in adapter_updates(folder).items():
            update = update.T if public_form.TRANSPOSED.fullmatch(name) else update
            if name not in tensors or tensors[name].shape != update.shape:
                raise InputError(f"{folder} has an update of {name}, {tuple(update.shape)}, and its model {base} no such "
                                 "matrix; they do not belong together.")
            tensors[name] = tensors[name].float() + update
        return tensors
    names, index = {"model.safetensors"}, folder / "model.safetensors.index.json"
    if not files.is_there(folder / "model.safetensors"):
        if not files.is_there(index):
            raise InputError(f"{folder} has no model.safetensors; other formats (pytorch_model.bin, ...) are not read: convert "
                             "them with transformers' save_pretrained.")
        listed = files.read_json(index, {"weight_map": {str: str}}, "no list of safetensors files", "fetch or copy it again")
        names = set(listed["weight_map"].values())
    tensors = {}
    for name in sorted(names):
        if Path(name).name != name:
            raise InputError(f"{index} names the part {name!r}; parts lie in the same folder: fetch or copy it again.")
        tensors |= read_part(folder / name)
    return {re.sub(r"^(transformer|model)\.", "", name): tensor for name, tensor in tensors.items()}


def read_part(path: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file."""
    with files.reading(path, "not to be read as safetensors, it may be cut off", "fetch or copy it again"):
        return load_file(path)


def load_weights(model: GPT2, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Fill `model` with the folder's weights.

    Accepted: names with and without their prefix, mask buffers (dropped), and for a tied head an `lm_head.weight` equal to the
    embedding (dropped) or alone (it is the embedding, too). Everything else must match: the set of names, and every shape.

    Raises:
        InputError: naming what is missing, unexpected, or of the wrong shape.
    """
    tensors = {name: tensor for name, tensor in read_tensors(folder).items() if not MASK_BUFFERS.fullmatch(name)}
    expected = public_form.to_public(model, model.state_dict())
    head = None if "lm_head.weight" in expected else tensors.pop("lm_head.weight", None)
    [embedding] = public_form.public_names(model, "wte.weight")
    if head is not None and not torch.equal(head, tensors.setdefault(embedding, head)):
        raise InputError(f"{folder}: lm_head.weight differs from {embedding}; config.json says that embedding and head share "
                         "one matrix, so this is another model.")

    missing, unexpected = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or unexpected:
        raise InputError(f"{folder} does not hold this model: missing {_some(missing)}, unexpected {_some(unexpected)}.")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise InputError(f"{folder}: {name} has shape {tuple(tensor.shape)}; config.json asks for "
                             f"{tuple(expected[name].shape)}.")
        tensor = tensor.to(expected[name].device if expected[name].device.type != "meta" else "cpu", dtype)
        if not tensor.isfinite().all():
            raise InputError(f"{folder}: {name} holds values that are no finite numbers, so nothing can be computed with it; "
                             "fetch or copy it again, or use an earlier checkpoint.")
        tensors[name] = tensor
    tensors = public_form.to_ours(model, tensors)
    if model.wte.weight.is_meta:
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        model.load_state_dict(tensors, assign=True)  # take the tensors themselves, there is nothing to copy into
    else:
        model.load_state_dict(tensors)  # keep the parameters: an optimizer may hold them


def _some(names: list[str]) -> str:
    if not names:
        return "no name"
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def save_pretrained(model: GPT2, tokenizer: Tokenizer, folder: str | Path) -> None:
    """Write a checkpoint folder that this code, transformers and other readers of such folders load.

    The weights are written in the model's own dtype and come last, so a folder with `model.safetensors` is whole. Updates by
    LoRA are added to their matrices.
    """
    folder = Path(folder)
    tokenizer.save(folder, model_max_length=model.config.n_positions)
    files.write_json(folder / "config.json", public_form.content_of(model.config, tokenizer.eot_id, model.wte.weight.dtype))
    tensors = {public_form.with_prefix(model, name): tensor.contiguous()
               for name, tensor in public_form.to_public(model, merged_weights(model)).items()}
    files.write_whole(folder / "model.safetensors", lambda path: save_file(tensors, path, metadata={"format": "pt"}))
