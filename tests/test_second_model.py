"""Every chapter with a Llama in the place of the classroom model: training, answering, talking, looking inside."""

import io
import json

import pytest

from ch_pretrain import classroom
from common.pretrained import load_pretrained

pytestmark = pytest.mark.slow

SMALL = ["--smoke", "--device", "cpu", "--precision", "fp32"]


@pytest.mark.parametrize("script, options", {
    "instruct": ("ch_instruct/train.py", ["--dropout", "0.1"]),
    "instruct, LoRA": ("ch_instruct/train.py", ["--lora", "4", "--recompute", "--format", "alpaca"]),
    "SFTMix": ("ch_sftmix/train.py", []),
    "DELIFT": ("ch_delift/train.py", ["--compare", "random"]),
}.values(), ids=lambda value: value if isinstance(value, str) else "")
def test_a_chapter_trains_it(script, options, llama_folder, in_process, tmp_path):
    by_split = {split: [r for r in classroom.records() if r["split"] == split] for split in ("train", "validation", "test")}
    few = [*by_split["train"][:16], *by_split["validation"][:3], *by_split["test"][:3]]
    (tmp_path / "few.json").write_text(json.dumps(few))
    done = in_process(script, *SMALL, *options, "--data", tmp_path / "few.json", "--model", llama_folder, "--out",
                      tmp_path / "run")
    assert done.returncode == 0, done.stderr
    recorded = json.loads((tmp_path / "run" / "run.json").read_text())["options"]
    assert recorded["format"] == ("alpaca" if "alpaca" in options else "chatml")
    before, after = load_pretrained(llama_folder)[0], load_pretrained(tmp_path / "run")[0]
    moved = sum((p - q).abs().sum().item() for p, q in zip(before.parameters(), after.parameters()))
    assert type(after) is type(before) and moved > 0


def test_it_answers_talks_and_opens(llama_folder, in_process, tmp_path, monkeypatch):
    (tmp_path / "questions.json").write_text(json.dumps([{"instruction": "What is 3 plus 4?", "output": "7"}] * 2))
    common = ["--model", llama_folder, "--device", "cpu"]
    done = in_process("ch_instruct/respond.py", *common, "--data", tmp_path / "questions.json", "--out", tmp_path / "a.json",
                      "--max-new-tokens", "5")
    first, second = json.loads((tmp_path / "a.json").read_text())
    assert done.returncode == 0 and first["answer"] == second["answer"]

    monkeypatch.setattr("sys.stdin", io.StringIO("Name a color.\n/format phi3\nAnd one more?\n"))
    done = in_process("ch_instruct/chat.py", *common, "--greedy", "--max-new-tokens", "5")
    assert done.returncode == 0 and "chatml prompts, 512 tokens of context" in done.stdout
    assert done.stdout.count("model> ") == 2 and "phi3 prompts from here on" in done.stdout

    done = in_process("ch_pretrain/xray.py", "--model", llama_folder, "--save", tmp_path / "page.html", "The sun is 12 big")
    page = (tmp_path / "page.html").read_text()
    assert done.returncode == 0 and "layer 1, head 3" in page and "Every head" in page
    done = in_process("ch_pretrain/generate.py", *common, "--prompt", "The", "--greedy", "--max-new-tokens", "5")
    assert done.returncode == 0 and done.stdout.startswith("The")
