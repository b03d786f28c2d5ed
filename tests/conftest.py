"""What many tests need: tiny models, a tokenizer without files, and ways to run, refuse, kill and resume a command.

The process that starts the workers reads this file first, and they wait for it. So what loads PyTorch is imported where it is
used; the models stand in models.py.
"""

import contextlib
import gc
import io
import os
import re
import runpy
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

os.environ["OMP_NUM_THREADS"] = "1"  # each process of the tests has a core; PyTorch reads this when imported

import pytest
from hypothesis import settings

from tests.started import start, told

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from common.gpt2 import GPT2
    from common.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parents[1]
# Examples that are made up are the same in every run, and none fails for being slow on a busy machine, so that a run of the
# tests is certain. python -m pytest --hypothesis-profile default tries others.
settings.register_profile("certain", derandomize=True, deadline=None)
settings.load_profile("certain")
gc.disable()  # until all is collected
os.fsync = lambda descriptor: None  # to wait for the disk takes minutes in all, and no test pulls the plug
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}  # one thread, and no hub


def pytest_collection_finish() -> None:
    """Modules and tests stay: to look through them for garbage again and again took a tenth of the quick lane."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: a worker that begins with one at the end keeps everybody waiting."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)  # otherwise in their order


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """One worker takes all files that load transformers, as that takes seconds; otherwise a file goes to any worker."""
    from xdist.scheduler import LoadFileScheduling

    loads = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py")
             if re.search("transformers|llama_folder", path.read_text(encoding="utf-8"))}

    class OneForTransformers(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "transformers" if file in loads else file

    return OneForTransformers(config, log)


@pytest.fixture
def tokenizer() -> "Tokenizer":
    """Every byte is a token, and end-of-text is 256."""
    from common.tokenizer import Tokenizer

    return Tokenizer.from_merges([])


@pytest.fixture
def tiny_model() -> "GPT2":
    """A random model of two layers for the byte tokenizer."""
    from tests.models import make_model

    return make_model()


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory) -> Path:
    """A random Llama with a tokenizer as SmolLM2's: digits one by one, control tokens, a chat template. Written by
    transformers, weights in parts and in bfloat16."""
    import torch

    from ch_pretrain.pages import pages
    from tests.models import SMOLLM2_TEMPLATE

    transformers, tokenizers = pytest.importorskip("transformers"), pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("llama")
    inner = tokenizers.Tokenizer(tokenizers.models.BPE())
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([
        tokenizers.pre_tokenizers.Digits(True), tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)])
    inner.decoder = tokenizers.decoders.ByteLevel()
    inner.train_from_iterator(pages(300, seed=5), tokenizers.trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"], show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet()))
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<|im_end|>",
                                                  chat_template=SMOLLM2_TEMPLATE, model_max_length=512)
    theirs.save_pretrained(folder)
    torch.manual_seed(1)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=len(theirs), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True, eos_token_id=theirs.eos_token_id,
        initializer_range=0.2)).to(torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="40KB")
    return folder


@pytest.fixture(scope="session")
def stopping_model():
    """A random model that sometimes stops: end-of-text gets a larger embedding, so its logit varies more."""
    import torch

    from tests.models import EOT, make_model

    model = make_model(n_positions=32)
    with torch.no_grad():
        model.wte.weight[EOT] *= 2.5
    return model


def command(script: str, *options: object, ranks: int = 1) -> list[str]:
    """The command line `python SCRIPT OPTIONS` (or `python -m MODULE OPTIONS`), or that of so many processes under torchrun."""
    launcher = [] if ranks == 1 else ["-m", "torch.distributed.run", f"--nproc-per-node={ranks}", "--master-port=0",
                                      "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    program = [str(ROOT / script)] if str(script).endswith(".py") else ["-m", script]
    return [sys.executable, *launcher, *program, *map(str, options)]


def run_command(script: str, *options: object, folder: Path, check: bool = True, ranks: int = 1,
                **environment: str) -> subprocess.CompletedProcess:
    """Run `python SCRIPT OPTIONS` in `folder`, with one thread and without a hub."""
    done = subprocess.run(command(script, *options, ranks=ranks), cwd=folder, env=ENVIRONMENT | environment,
                          capture_output=True, text=True)
    assert not check or done.returncode == 0, f"{script} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done


def roughly(savefig: Callable) -> Callable:
    """Draws a picture of a command small and without making room for its texts, which would be drawn for that once more."""
    def save(figure: "Figure", path: Path, **how: object) -> None:
        figure.set_layout_engine("none")
        savefig(figure, path, **how | {"dpi": 30})

    return save


def run_here(script: str, *options: object, folder: Path, check: bool = True) -> subprocess.CompletedProcess:
    """The same in this process: to start one and to load PyTorch takes longer than what most tests let a command do.

    It shows all but what needs a process of its own: several ranks, a kill, the environment, a terminal, what is imported.
    """
    from matplotlib.figure import Figure

    status, out, err = 0, io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(Figure, "savefig", roughly(Figure.savefig))
        patch.chdir(folder)
        patch.setattr(sys, "argv", [script, *map(str, options)])
        try:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        except SystemExit as end:
            status = end.code or 0
    done = subprocess.CompletedProcess(script, status, out.getvalue(), err.getvalue())
    assert not check or status == 0, f"{script} ended with {status}:\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture
def in_process(monkeypatch, tmp_path):
    """Runs commands by `run_here`, each test's in a folder of its own; gives what a user would see."""
    (tmp_path / "cwd").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / "cwd")
    return partial(run_here, folder=tmp_path / "cwd", check=False)


@contextlib.contextmanager
def open_browser(profile: Path) -> Iterator:
    """Headless Chromium, driven by selenium."""
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (requirements-dev.txt)")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("chromium or chromedriver is not installed (Debian: apt-get install chromium chromium-driver)")
    options = selenium.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-sync",
                 "--disable-background-networking", "--disable-component-update", "--window-size=1100,900",
                 f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    browser = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    try:
        yield browser
    finally:
        browser.quit()


@pytest.fixture
def browser(tmp_path) -> Iterator:
    """A browser of its own for each test."""
    with open_browser(tmp_path / "profile") as browser:
        yield browser


def run_together(script: str, *options: object, folder: Path) -> list[str]:
    """Run `python SCRIPT OPTIONS` in two processes that work together, as those of torchrun do; what each of them told."""
    processes = start(script, *options, folder=folder, ranks=2)
    for process in processes:
        process.join()
    said = [told(folder, rank) for rank in range(2)]
    assert [process.exitcode for process in processes] == [0, 0], said
    return said


def kill_and_resume(script: str, *options: object, folder: Path, when: Sequence[str]) -> None:
    """Start a training run into `folder`, kill it (SIGKILL) as soon as its first file of `when` is there, go on by --resume
    until the second one is, and so on; then finish it."""
    for file in when:
        [process] = start(script, *(options if file == when[0] else ["--resume"]), "--out", folder, folder=folder.parent)
        while not (folder / file).exists():
            assert process.is_alive(), f"the run ended before it could be killed:\n{told(folder.parent)}"
            time.sleep(0.002)
        process.kill()
        process.join()
    assert not (folder / "report.json").exists(), "killed too late to show anything"
    run_here(script, "--out", folder, "--resume", folder=folder.parent)  # run.json knows the other options


def assert_refused(done: subprocess.CompletedProcess, *words: str) -> None:
    """Exit status 2 and one sentence on stderr that holds all the words."""
    assert done.returncode == 2, f"status {done.returncode}:\n{done.stdout}\n{done.stderr}"
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    for word in words:
        assert word in lines[0], f"{word!r} is not in {lines[0]!r}"
