"""What many tests need: tiny models, a tokenizer without files, and ways to run, refuse, kill and resume a command."""

import contextlib
import io
import os
import runpy
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # each process of the tests has a core; PyTorch reads this when imported

import pytest
import torch
from hypothesis import settings

from common.gpt2 import GPT2, GPT2Config
from common.pretrained import CLASSROOM_FOLDER, load_pretrained, save_pretrained
from common.tokenizer import Tokenizer
from tests.started import start, told

EOT = 256  # of the byte tokenizer
ROOT = Path(__file__).resolve().parents[1]
# Examples that are made up are the same in every run, so that a run of the tests is certain.
# python -m pytest --hypothesis-profile default tries others.
settings.register_profile("certain", derandomize=True)
settings.load_profile("certain")
os.fsync = lambda descriptor: None  # to wait for the disk takes minutes in all, and no test pulls the plug
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}  # one thread, and no hub


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: a worker that begins with one at the end keeps everybody waiting."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)  # otherwise in their order


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


def save_tiny(folder: Path, **sizes: int) -> None:
    """Write a random model of two layers with the classroom's tokenizer, in whose tokens records are a quarter as long as in
    bytes: so a command that trains and answers ends in seconds."""
    tokenizer = Tokenizer.from_folder(CLASSROOM_FOLDER)
    save_pretrained(make_model(**{"vocab_size": tokenizer.vocab_size, "n_positions": 256} | sizes), tokenizer, folder)


@pytest.fixture(scope="session")
def stopping_model():
    """A random model that sometimes stops: end-of-text gets a larger embedding, so its logit varies more."""
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


def run_here(script: str, *options: object, folder: Path, check: bool = True) -> subprocess.CompletedProcess:
    """The same in this process: to start one and to load PyTorch takes longer than what most tests let a command do.

    It shows all but what needs a process of its own: several ranks, a kill, the environment, a terminal, what is imported.
    """
    status, out, err = 0, io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
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


@pytest.fixture
def browser(tmp_path) -> Iterator:
    """Headless Chromium, driven by selenium."""
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (requirements-dev.txt)")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("chromium or chromedriver is not installed (Debian: apt-get install chromium chromium-driver)")
    options = selenium.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-sync",
                 "--disable-background-networking", "--disable-component-update", "--window-size=1100,900",
                 f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    browser = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    yield browser
    browser.quit()


def run_together(script: str, *options: object, folder: Path) -> list[str]:
    """Run `python SCRIPT OPTIONS` in two processes that work together, as those of torchrun do; what each of them told."""
    processes = start(script, *options, folder=folder, ranks=2)
    for process in processes:
        process.join()
    said = [told(folder, rank) for rank in range(2)]
    assert [process.exitcode for process in processes] == [0, 0], said
    return said


def kill_and_resume(script: str, *options: object, folder: Path, when: str) -> None:
    """Start a training run into `folder`, kill it (SIGKILL) as soon as its file `when` is there, and finish it by --resume."""
    [process] = start(script, *options, "--out", folder, folder=folder.parent)
    while not (folder / when).exists():
        assert process.is_alive(), f"the run ended before it could be killed:\n{told(folder.parent)}"
        time.sleep(0.002)
    process.kill()
    process.join()
    assert not (folder / "report.json").exists(), "killed too late to show anything"
    run_here(script, "--out", folder, "--resume", folder=folder.parent)  # run.json knows the other options


def assert_same_weights(one: Path, two: Path) -> None:
    """Two checkpoints are equal bit for bit."""
    (model, _), (other, _) = load_pretrained(one), load_pretrained(two)
    assert model.state_dict().keys() == other.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), f"{name} of {one} and {two}"


def assert_refused(done: subprocess.CompletedProcess, *words: str) -> None:
    """Exit status 2 and one sentence on stderr that holds all the words."""
    assert done.returncode == 2, f"status {done.returncode}:\n{done.stdout}\n{done.stderr}"
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    for word in words:
        assert word in lines[0], f"{word!r} is not in {lines[0]!r}"
