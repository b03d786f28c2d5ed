import pytest

from ch_instruct import pipeline
from ch_instruct.encoding import encode_record
from ch_instruct.prompts import EVERY_STYLE, chat_template, format_prompt, format_turns
from common.fast.answering import Continuation
from common.pretrained import save_pretrained
from common.tokenizer import END_OF_TEXT
from tests.conftest import ROOT

RECORD = {"instruction": "Name a color.", "input": "", "output": "red"}
RECORD_WITH_INPUT = {"instruction": "Sort these.", "input": "3, 1\n2", "output": "1, 2, 3"}
ASKED_TWICE = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a color."},
               {"role": "assistant", "content": "red"}, {"role": "user", "content": "And one more?"},
               {"role": "assistant", "content": "blue"}]


def test_alpaca():
    assert format_prompt(RECORD, "alpaca") == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n"
        "\n"
        "### Instruction:\n"
        "Name a color.\n"
        "\n"
        "### Response:\n")


def test_the_readme_gives_ollama_the_same_prompt():
    readme = (ROOT / "ch_instruct/README.md").read_text(encoding="utf-8")
    template = readme.split('TEMPLATE """')[1].split('"""')[0]
    assert template.replace("{{ .Prompt }}", RECORD["instruction"]) == format_prompt(RECORD, "alpaca")


def test_alpaca_with_input():
    assert format_prompt(RECORD_WITH_INPUT, "alpaca") == (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n"
        "\n"
        "### Instruction:\n"
        "Sort these.\n"
        "\n"
        "### Input:\n"
        "3, 1\n"
        "2\n"
        "\n"
        "### Response:\n")


def test_phi3():
    assert format_prompt(RECORD, "phi3") == "<|User|>\nName a color.\n\n<|Assistant|>\n"


def test_phi3_with_input():
    assert format_prompt(RECORD_WITH_INPUT, "phi3") == "<|User|>\nSort these.\n3, 1\n2\n\n<|Assistant|>\n"


def test_alpaca_is_the_default():
    assert format_prompt(RECORD_WITH_INPUT) == format_prompt(RECORD_WITH_INPUT, "alpaca")


@pytest.mark.parametrize("style", EVERY_STYLE)
def test_missing_input_is_an_empty_one(style):
    assert format_prompt({"instruction": "Name a color."}, style) == format_prompt(RECORD, style)


@pytest.mark.parametrize("style", EVERY_STYLE)
def test_output_is_not_in_the_prompt(style):
    assert format_prompt(RECORD, style) == format_prompt(RECORD | {"output": "something else"}, style)


@pytest.mark.parametrize("record", [RECORD, RECORD_WITH_INPUT], ids=["alone", "with input"])
@pytest.mark.parametrize(("style", "header"), [("alpaca", "\n\n### Response:\n"), ("phi3", "\n\n<|Assistant|>\n")])
def test_prompt_ends_with_the_response_header(style, header, record):
    assert format_prompt(record, style).endswith(header)


@pytest.mark.parametrize("style", EVERY_STYLE)
def test_braces_and_headings_in_a_text_stay_as_they_are(style):
    record = {"instruction": "{x} ### Response: {}", "input": "%s {instruction}"}
    assert "{x} ### Response: {}" in format_prompt(record, style) and "%s {instruction}" in format_prompt(record, style)


@pytest.mark.parametrize("style", ["Alpaca", "", "chatML"])
def test_unknown_style(style):
    with pytest.raises(ValueError, match=f"no prompt style '{style}'; use alpaca or phi3 or chatml"):
        format_prompt(RECORD, style)


@pytest.mark.parametrize("style", ["alpaca", "phi3"])
def test_answering_begins_where_training_does(style, tokenizer, tiny_model, monkeypatch):
    """The prompt that the model answers is, token for token, the one that it was trained on."""
    seen = []

    def keep_prompts(model, prompts, *_, **__):
        seen.extend(prompts)
        return [Continuation([], True) for _ in prompts]

    monkeypatch.setattr(pipeline, "continue_all", keep_prompts)
    records = [RECORD, RECORD_WITH_INPUT, {"messages": ASKED_TWICE}]
    pipeline.answer(tiny_model, tokenizer, records, style, 5)
    trained = [encode_record(record, tokenizer, style) for record in records]
    assert seen == [example.ids[:example.spans[-1][0]] for example in trained]


@pytest.mark.parametrize("mark", ["Below is an instruction", "instruction that describes a task", "### Response:"])
def test_prompt_text_stands_in_one_file(mark):
    sources = [path for folder in ROOT.iterdir() if folder.name.startswith(("common", "ch_")) for path in folder.rglob("*.py")]
    assert [path.relative_to(ROOT).as_posix() for path in sources
            if mark in path.read_text(encoding="utf-8")
            and path.name != "pages.py"  # in which single sentences of the prompts stand, so that a base model has seen them
            ] == ["ch_instruct/prompts.py"]


# Conversations


def test_conversation_in_the_phi3_style():
    assert format_turns({"messages": ASKED_TWICE}, "phi3") == [
        "<|System|>\nBe brief.\n\n<|User|>\nName a color.\n\n<|Assistant|>\n", "red",
        "\n\n<|User|>\nAnd one more?\n\n<|Assistant|>\n", "blue"]


def test_conversation_in_the_alpaca_style():
    assert format_turns({"messages": ASKED_TWICE}, "alpaca") == [
        "Be brief.\n\n### Instruction:\nName a color.\n\n### Response:\n", "red",
        "\n\n### Instruction:\nAnd one more?\n\n### Response:\n", "blue"]


@pytest.mark.parametrize("style", EVERY_STYLE)
def test_conversation_of_one_turn_is_a_plain_record(style):
    messages = [{"role": "user", "content": "Name a color."}, {"role": "assistant", "content": "red"}]
    assert format_turns({"messages": messages}, style) == format_turns(RECORD, style) == [format_prompt(RECORD, style), "red"]


@pytest.mark.parametrize("style", EVERY_STYLE)
def test_prompt_of_a_conversation_is_all_before_the_last_response(style):
    turns = format_turns({"messages": ASKED_TWICE}, style)
    assert format_prompt({"messages": ASKED_TWICE}, style) == "".join(turns[:3])
    assert format_prompt({"messages": ASKED_TWICE[:-1]}, style) == "".join(turns[:3])  # the answer is still to come
    assert format_prompt({"messages": ASKED_TWICE[:2]}, style) == turns[0]


def their_tokenizer(style, model, tokenizer, folder):
    """transformers' tokenizer of a folder that was written with the style's template."""
    transformers = pytest.importorskip("transformers")
    tokenizer.chat_template = chat_template(style)
    save_pretrained(model, tokenizer, folder)
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("style", ["alpaca", "phi3"])
@pytest.mark.parametrize("instruction", [
    "Name a color.", 'Two\nlines, "quotes" and {{ braces }} {% if %}', "<|User|> ### Input:"])
def test_transformers_asks_as_we_do(style, instruction, tiny_model, tokenizer, tmp_path):
    theirs = their_tokenizer(style, tiny_model, tokenizer, tmp_path)
    asked = [{"role": "user", "content": instruction}]
    prompt = format_prompt({"instruction": instruction}, style)
    assert theirs.apply_chat_template(asked, tokenize=False, add_generation_prompt=True) == prompt
    assert theirs.apply_chat_template(asked, add_generation_prompt=True)["input_ids"] == tokenizer.encode(prompt)
    answered = [*asked, {"role": "assistant", "content": "red"}]
    assert theirs.apply_chat_template(answered, tokenize=False) == prompt + "red" + END_OF_TEXT
    ids = theirs.apply_chat_template(answered)["input_ids"]
    assert ids == encode_record({"instruction": instruction, "output": "red"}, tokenizer, style).ids


@pytest.mark.parametrize(("style", "text"), [
    ("alpaca", "Be brief.\n\n### Instruction:\na\n\n### Response:\nb<|endoftext|>\n\n### Instruction:\nc\n\n### Response:\n"),
    ("phi3", "<|System|>\nBe brief.\n\n<|User|>\na\n\n<|Assistant|>\nb<|endoftext|>\n\n<|User|>\nc\n\n<|Assistant|>\n")])
def test_a_conversation_by_the_chat_template(style, text, tiny_model, tokenizer, tmp_path):
    theirs = their_tokenizer(style, tiny_model, tokenizer, tmp_path)
    messages = [{"role": role, "content": content} for role, content in (
        ("system", "Be brief."), ("user", "a"), ("assistant", "b"), ("user", "c"))]
    assert theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == text
