"""The recipe's commands: the shortest way is walked with a tiny model, and the others have the options that they are given."""

import csv
import re
import shlex
import shutil
from pathlib import Path

import pytest

from common.pretrained import save_pretrained
from common.tokenizer import Tokenizer
from tests.conftest import ROOT
from tests.models import make_model

RECIPE = (ROOT / "ch_instruct" / "recipe.md").read_text(encoding="utf-8")
STEPS = [line.partition("#")[0].split() for line in RECIPE.split("```")[1].splitlines() if line.startswith("python")]
INLINE = [shlex.split(" ".join(text.split())) for text in re.findall(r"`(python [^`]+)`", RECIPE)]


@pytest.mark.slow
def test_the_shortest_way_is_walked(in_process, tmp_path, monkeypatch):
    assert [Path(step[1]).name for step in STEPS] == ["train.py", "compare.py", "chat.py"]
    (tmp_path / "cwd").mkdir(exist_ok=True)
    save_pretrained(make_model(n_positions=512), Tokenizer.from_merges([]), tmp_path / "cwd" / "tiny")
    with open(tmp_path / "cwd" / "my.csv", "w", newline="") as file:
        csv.writer(file).writerows([["question", "reply"], *([f"What is {n} plus 1?", str(n + 1)] for n in range(40))])
    asked = iter(["What is 3 plus 1?"])
    monkeypatch.setattr("builtins.input", lambda prompt="": next(asked, None) or (_ for _ in ()).throw(EOFError))
    for _, script, *given in STEPS:
        done = in_process(script, *("tiny" if word == "gpt2" else word for word in given))
        assert done.returncode == 0, done.stderr
        if script.endswith("train.py"):
            assert "Warning: 4 test questions are few" in done.stdout
            shutil.copytree("runs/mine", "runs/another")
    assert "model>" in done.stdout and Path("comparison.png").exists()


@pytest.mark.parametrize("given", INLINE, ids=" ".join)
def test_every_command_in_the_text_has_its_options(given, in_process):
    script = given[2].replace(".", "/") + ".py" if given[1] == "-m" else given[1]
    told = in_process(script, "--help").stdout
    options = {word for word in given[2:] if word.startswith("--")}
    assert (ROOT / script).exists() and options <= set(re.findall(r"--[\w-]+", told))
