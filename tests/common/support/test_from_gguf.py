"""A GGUF file, made as llama.cpp's converter makes it, becomes a folder that computes what the model computed."""

import re
from pathlib import Path

import pytest
import torch
import transformers  # loads its parts where they are used

from common.llama import Llama
from common.pretrained import load_pretrained
from common.support.from_gguf import CONFIG, NAMES
from common.support.public_form import LLAMA_FORM, to_public
from common.tokenizer import BYTE_TO_CHAR
from tests.conftest import assert_refused
from tests.models import make_llama

gguf = pytest.importorskip("gguf")
pytestmark = pytest.mark.slow
IDS = torch.tensor([[5, 200, 31, 31, 7, 90, 258, 0]])
WORDS = ["<|endoftext|>", "<|im_end|>", *BYTE_TO_CHAR.values(), "12", "Ġh"]
SIZES = {"vocab_size": len(WORDS), "n_inner": 64}
SETTINGS = {"rms_norm_eps": "layer_norm_epsilon", "rope_theta": "rope_theta"} | {
    key: size for size, key in LLAMA_FORM.sizes.items()}


def write(path: Path, model: Llama, pre: str = "smollm", kind: str = "llama", **more: str | float | bool) -> Path:
    """A file of this model, with matrices in 8 bits; `more` are further fields, "__" in their names for "."."""
    writer = gguf.GGUFWriter(path, kind)
    for key, name in CONFIG.items():
        if key in SETTINGS:
            value = getattr(model.config, SETTINGS[key])
            (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(f"{kind}.{name}", value)
    for name, value in more.items():
        add = {str: writer.add_string, bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}[type(value)]
        name = name.replace("__", ".")
        add(name if name.startswith("tokenizer") else f"{kind}.{name}", value)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(WORDS)
    writer.add_token_types([3, 3] + [1] * (len(WORDS) - 2))
    writer.add_token_merges(["1 2", "Ġ h"])
    writer.add_eos_token_id(1)
    writer.add_chat_template("{{ messages }}")
    short = {theirs: name for name, theirs in NAMES.items()}
    for name, tensor in to_public(model, model.state_dict()).items():
        layer, part, end = re.fullmatch(r"(?:layers\.(\d+)\.)?(.+)\.(weight|bias)", name).groups()
        if kind == "llama" and short[part] in ("attn_q", "attn_k"):  # llama.cpp turns neighbours together
            tensor = tensor.unflatten(0, (-1, 2, 4)).transpose(1, 2).flatten(0, 2)
        array = tensor.detach().contiguous().numpy()
        precision = gguf.GGMLQuantizationType.Q8_0 if array.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(f"blk.{layer}.{short[part]}.{end}" if layer else f"{short[part]}.{end}",
                          gguf.quantize(array, precision), raw_dtype=precision)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("kind, pre, more", [("llama", "smollm", {}), ("llama", "gpt-2", {"tied": False}),
                                             ("qwen2", "qwen2", {"qkv_bias": True})])
def test_the_folder_computes_what_was_written(kind, pre, more, in_process, tmp_path):
    model = make_llama(**SIZES, **more)
    done = in_process("common/support/from_gguf.py", write(tmp_path / "m.gguf", model, pre, kind), "--out", tmp_path / "made")
    assert done.returncode == 0 and f"{sum(p.numel() for p in model.parameters()):,} parameters" in done.stdout
    read, tokenizer = load_pretrained(tmp_path / "made")
    assert read.config == model.config.__class__(**{**vars(model.config), "layer_norm_epsilon": read.config.layer_norm_epsilon})
    with torch.no_grad():  # 8 bits round by half of 1/127 of the largest of 32 numbers
        assert 0 < (read(IDS) - model(IDS)).std() < 0.05 * model(IDS).std()
    assert (tokenizer.eot_id, tokenizer.chat_template) == (1, "{{ messages }}")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "made")
    for text in ("a  12 h", "é½ h12", "<|im_end|>"):
        assert tokenizer.encode(text) == theirs.encode(text, split_special_tokens=True)
    assert (len(tokenizer.encode("12")) == 1) == (pre == "gpt-2")  # the others cut digits one by one


@pytest.mark.parametrize("how, words", [
    ({"kind": "falcon"}, "its architecture is 'falcon'"), ({"pre": "llama-bpe"}, "'llama-bpe'"),
    ({"rope__scaling__type": "yarn"}, "rope_type = 'yarn'"), ({"rope__scaling__factor": 2.0}, "rope.scaling.factor = 2"),
    ({"rope__scale_linear": 2.0}, "rope.scale_linear = 2"), ({"rope__dimension_count": 4}, "rope.dimension_count = 4"),
    ({"attention__sliding_window": 4096}, "attention.sliding_window = 4096"),
    ({"tokenizer__ggml__add_bos_token": True}, "tokenizer.ggml.add_bos_token = True")])
def test_other_files_are_refused(how, words, in_process, tmp_path):
    file = write(tmp_path / "m.gguf", make_llama(**SIZES), **how)
    assert_refused(in_process("common/support/from_gguf.py", file, "--out", tmp_path / "made"), words)
    assert not (tmp_path / "made").exists()


def test_fields_that_change_nothing_are_passed_over(in_process, tmp_path):
    file = write(tmp_path / "m.gguf", make_llama(**SIZES), rope__scaling__type="none", rope__scaling__factor=4.0,
                 rope__dimension_count=8, attention__sliding_window=0, tokenizer__ggml__add_bos_token=False)
    assert in_process("common/support/from_gguf.py", file, "--out", tmp_path / "made").returncode == 0


def test_what_is_no_such_file_is_refused(in_process, tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    done = in_process("common/support/from_gguf.py", tmp_path / "m.gguf", "--out", tmp_path / "made")
    assert_refused(done, "no GGUF file of a Llama or Qwen2")
    assert_refused(in_process("common/support/from_gguf.py", tmp_path / "none", "--out", tmp_path / "made"), "no such file")
