"""In which prompt style a folder is asked."""

import json
from pathlib import Path

import pytest

from ch_instruct import pipeline
from ch_instruct.pipeline import FineTuning
from ch_instruct.prompts import STYLES, chat_template
from ch_instruct.support.prompt_style import choose_style
from common.lora import add_lora, save_adapter
from common.pretrained import load_pretrained, save_pretrained
from common.support.files import InputError
from common.tokenizer import Tokenizer
from tests.models import SMOLLM2_TEMPLATE, make_llama, make_model

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


def save(folder: Path, template: str | None) -> str:
    """A tiny checkpoint with this chat template."""
    tokenizer = Tokenizer.from_merges([])
    tokenizer.chat_template = template
    save_pretrained(make_model(n_positions=512), tokenizer, folder)
    return str(folder)


@pytest.mark.parametrize("style", STYLES)
def test_the_folder_decides(style, tmp_path, capsys):
    name = save(tmp_path / "own", chat_template(style))
    other = min({*STYLES} - {style})
    assert choose_style(name, None) == choose_style(name, style) == style and capsys.readouterr().out == ""
    assert choose_style(name, other) == other
    assert f"{name} was trained on {style} prompts" in (told := capsys.readouterr().out) and f"--format {other}" in told


def test_a_model_without_a_template_is_asked_in_alpacas_style(tmp_path, capsys):
    name = save(tmp_path / "plain", None)
    assert [choose_style(name, given) for given in (None, "phi3")] == ["alpaca", "phi3"]
    assert choose_style("classroom", None) == "alpaca" and capsys.readouterr().out == ""


def test_an_adapter_is_asked_as_it_was_trained_or_else_as_its_base(tmp_path):
    base, model = save(tmp_path / "base", chat_template("phi3")), make_model(n_positions=512)
    add_lora(model, 2)
    save_adapter(model, base, tmp_path / "theirs")
    save_adapter(model, base, tmp_path / "ours", chat_template("alpaca"))
    assert [choose_style(str(tmp_path / name), None) for name in ("theirs", "ours")] == ["phi3", "alpaca"]


def test_a_template_of_another_style_is_told(tmp_path, capsys):
    assert choose_style(save(tmp_path / "other", CHATML), None) == "alpaca"
    assert "is none of alpaca or phi3 or chatml" in capsys.readouterr().out


def test_additions_to_a_template_are_told_and_ones_own_has_none(tmp_path, capsys):
    foreign = "{% for m in messages %}### {{ m.role }}:\n{{ m.content }}\n{% endfor %}### Response:\n"
    assert choose_style(save(tmp_path / "foreign", foreign), None) == "alpaca"
    assert "is alpaca with additions, which are left out" in capsys.readouterr().out


def test_of_several_templates_the_default_one_counts(tmp_path):
    save(tmp_path / "m", None)
    file = tmp_path / "m" / "tokenizer_config.json"
    named = [{"name": "tools", "template": "x"}, {"name": "default", "template": chat_template("phi3")}]
    for templates, style in ((named, "phi3"), (named[:1], "alpaca"), (["x"], "alpaca")):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": templates}))
        assert choose_style(str(tmp_path / "m"), None) == style


def test_responses_in_chatml_end_with_its_own_token_whatever_ends_documents(tmp_path):
    """Qwen's base models have the template, and <|endoftext|> as their end. Other tools then end responses with <|im_end|>."""
    transformers = pytest.importorskip("transformers")
    tokenizer = Tokenizer([bytes([byte]) for byte in range(256)], list(range(256)),
                          {"<|endoftext|>": 256, "<|im_start|>": 257, "<|im_end|>": 258})
    tokenizer.chat_template = SMOLLM2_TEMPLATE
    save_pretrained(make_llama(vocab_size=259, n_positions=512), tokenizer, tmp_path / "qwen")
    records = [{"messages": [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 2, turns)]}
               for turns in (f"a{n} b{n} c{n} d{n}".split() for n in range(9))]
    (tmp_path / "d.json").write_text(json.dumps(records))
    work = pipeline.prepare(FineTuning(model=str(tmp_path / "qwen"), data=str(tmp_path / "d.json"), device="cpu"))
    assert work.options.style == "chatml" and work.tokenizer.eot_id == 258
    save_pretrained(work.model, work.tokenizer, tmp_path / "run")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "run")
    ids = theirs.apply_chat_template(work.records["train"][0]["messages"], tokenize=True, return_dict=False)
    ours = work.examples["train"][0].ids
    assert ours == ids[:len(ours)] and ours[-1] == 258  # theirs has a line break after that
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["eos_token_id"] == theirs.eos_token_id == 258


def test_a_template_in_a_file_of_its_own_counts(tmp_path):
    """transformers writes chat_template.jinja since version 4.52, and leaves it out of tokenizer_config.json."""
    transformers = pytest.importorskip("transformers")
    save(tmp_path / "ours", chat_template("phi3"))
    transformers.AutoTokenizer.from_pretrained(tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    assert choose_style(str(tmp_path / "theirs"), None) == "phi3"
    (tmp_path / "theirs" / "tokenizer_config.json").write_text("{")
    (tmp_path / "theirs" / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(InputError, match=r"tokenizer_config\.json is not JSON"):
        choose_style(str(tmp_path / "theirs"), None)


@pytest.mark.slow
def test_respond_asks_as_the_folder_was_trained(in_process, tmp_path):
    name = save(tmp_path / "own", chat_template("phi3"))
    (tmp_path / "cwd").mkdir(exist_ok=True)
    (tmp_path / "cwd" / "q.json").write_text(json.dumps([{"instruction": "Say hello.", "output": "Hello."}]))
    done = in_process("ch_instruct/respond.py", "--model", name, "--data", "q.json", "--out", "a.json", "--max-new-tokens", 8)
    [given] = json.loads(Path("a.json").read_text())
    model, tokenizer = load_pretrained(name)
    record = {"instruction": "Say hello.", "output": "Hello."}
    ways = {style: pipeline.answer(model, tokenizer, [record], style, 8)[0]["answer"] for style in ("alpaca", "phi3")}
    assert done.returncode == 0 and given["answer"] == ways["phi3"] != ways["alpaca"]


@pytest.mark.slow
def test_training_goes_on_in_the_style_of_its_model(tmp_path):
    name = save(tmp_path / "own", chat_template("phi3"))
    work = pipeline.prepare(FineTuning(model=name, smoke=True, device="cpu"))
    assert work.options.style == "phi3" and work.tokenizer.chat_template == chat_template("phi3")
    assert work.tokenizer.decode(work.examples["train"][0].ids).startswith("<|User|>")
