"""What many tests need: tiny models, a tokenizer without files, and a way to run a command as a user does."""

import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # each process of the tests has a core; PyTorch reads this when imported

import pytest
import torch

from common.gpt2 import GPT2, GPT2Config
from common.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def tokenizer() -> Tokenizer:
    """Every byte is a token, and end-of-text is 256."""
    return Tokenizer.from_merges([])


@pytest.fixture
def tiny_model() -> GPT2:
    """A random model of two layers for the byte tokenizer."""
    return make_model()


def make_model(**sizes: int) -> GPT2:
    """A random model in evaluation mode, the same one for the same sizes."""
    torch.manual_seed(0)
    config = GPT2Config(**{"vocab_size": 257, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4} | sizes)
    model = GPT2(config).eval()
    with torch.no_grad():  # larger than at the start of training, so that outputs differ clearly
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    return model


def run_command(script: str, *options: object, folder: Path, check: bool = True,
                **environment: str) -> subprocess.CompletedProcess:
    """Run `python SCRIPT OPTIONS` in `folder`, with one thread and without a hub."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | environment
    done = subprocess.run([sys.executable, str(ROOT / script), *map(str, options)], cwd=folder, env=env,
                          capture_output=True, text=True)
    assert not check or done.returncode == 0, f"{script} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done


def assert_refused(done: subprocess.CompletedProcess, *words: str) -> None:
    """Exit status 2 and one sentence on stderr that holds all the words."""
    assert done.returncode == 2, f"status {done.returncode}:\n{done.stdout}\n{done.stderr}"
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    for word in words:
        assert word in lines[0], f"{word!r} is not in {lines[0]!r}"
