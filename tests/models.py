"""Random models that many tests need, and what compares and keeps them. Not in conftest.py: that is also read by the process
that only starts the workers, which then would wait for PyTorch."""

from pathlib import Path

import torch

from common.gpt2 import GPT2, GPT2Config
from common.llama import Llama, LlamaConfig
from common.pretrained import CLASSROOM_FOLDER, load_pretrained, save_pretrained
from common.tokenizer import Tokenizer

EOT = 256  # of the byte tokenizer


def make_model(**sizes: int) -> GPT2:
    """A random model in evaluation mode, the same one for the same sizes."""
    torch.manual_seed(0)
    config = GPT2Config(**{"vocab_size": 257, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4} | sizes)
    model = GPT2(config).eval()
    with torch.no_grad():  # larger than at the start of training, so that outputs differ clearly
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    return model


def make_llama(**sizes: object) -> Llama:
    """The same of the other kind, with half as many heads of keys as of queries."""
    torch.manual_seed(0)
    model = Llama(LlamaConfig(**{"vocab_size": 257, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 48,
                                 "n_kv_head": 2} | sizes)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    return model


KINDS = {"GPT-2": make_model, "Llama": make_llama, "a head of its own": lambda **sizes: make_llama(tied=False, **sizes),
         "Qwen2": lambda **sizes: make_llama(qkv_bias=True, **sizes)}

SMOLLM2_TEMPLATE = """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""  # as the model's tokenizer_config.json has it


def save_tiny(folder: Path, **sizes: int) -> None:
    """Write a random model of two layers with the classroom's tokenizer, in whose tokens records are a quarter as long as in
    bytes: so a command that trains and answers ends in seconds."""
    tokenizer = Tokenizer.from_folder(CLASSROOM_FOLDER)
    save_pretrained(make_model(**{"vocab_size": tokenizer.vocab_size, "n_positions": 256} | sizes), tokenizer, folder)


def assert_same_weights(one: Path, two: Path) -> None:
    """Two checkpoints are equal bit for bit."""
    (model, _), (other, _) = load_pretrained(one), load_pretrained(two)
    assert model.state_dict().keys() == other.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), f"{name} of {one} and {two}"
