import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from ch_instruct.pipeline import merge_responses
from ch_instruct.prompts import chat_template, format_prompt
from ch_instruct.support.model_card import QUESTION
from common.pretrained import load_pretrained
from tests.conftest import assert_refused, run_here
from tests.models import save_tiny

FILES = ["README.md", "answers.html", "config.json", "losses.png", "merges.txt", "metrics.csv", "model.safetensors",
         "report.json", "responses.json", "run.json", "tokenizer_config.json", "training_state.pt", "vocab.json"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One smoke run of the command, from another folder."""
    folder = tmp_path_factory.mktemp("a folder")
    done = run_here("ch_instruct/train.py", "--smoke", folder=folder)
    return folder / "runs" / "ch_instruct" / "001", done.stdout


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    save_tiny(folder := tmp_path_factory.mktemp("tiny"))
    return folder


@pytest.mark.slow
def test_it_writes_the_whole_run_folder(run):
    folder, _ = run
    assert sorted(p.name for p in folder.iterdir()) == FILES


@pytest.mark.slow
def test_the_report_has_both_arms_and_the_table_shows_them(run):
    folder, told = run
    report = json.loads((folder / "report.json").read_text())
    assert report["records"]["test"] == 6 and report["test_limit"] == 500 and report["validation_limit"] == 200
    arms = report["arms"]
    assert list(arms) == ["base", "ntp"]
    for arm in arms.values():
        assert set(arm) == {"test_loss", "perplexity", "exact_match", "rouge_l", "stopped", "seconds", "families"}
        assert 0 <= arm["exact_match"] <= 1 and 0 <= arm["rouge_l"] <= 1 and 0 <= arm["stopped"] <= 1
    assert arms["ntp"]["test_loss"] < arms["base"]["test_loss"]
    assert f"{arms['ntp']['test_loss']:.4f}" in told


@pytest.mark.slow
def test_responses_stand_beside_the_expected_answers(run):
    folder, _ = run
    responses = json.loads((folder / "responses.json").read_text())
    assert len(responses) == json.loads((folder / "run.json").read_text())["facts"]["records"]["test"] == 6
    for response in responses:
        assert response["output"] and set(response["answers"]) == {"base", "ntp"}
        assert isinstance(response["answers"]["ntp"]["stopped"], bool)


@pytest.mark.slow
def test_what_is_in_the_loss_is_told_and_kept(run):
    folder, told = run
    facts = json.loads((folder / "run.json").read_text())["facts"]
    assert f"In the loss: {facts['supervised_tokens']:,} of {facts['training_tokens']:,} training tokens" in told
    assert facts["supervised_tokens"] < facts["training_tokens"]


@pytest.mark.slow
def test_transformers_loads_the_run_folder(run):
    transformers = pytest.importorskip("transformers")
    folder, _ = run
    model, tokenizer = load_pretrained(folder)
    theirs, info = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    ids = torch.tensor([tokenizer.encode("The capital of France is")])
    with torch.no_grad():
        torch.testing.assert_close(theirs.eval()(ids).logits, model(ids), atol=1e-4, rtol=0)
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert len(their_tokenizer) == tokenizer.vocab_size
    assert their_tokenizer.chat_template == chat_template("alpaca")


@pytest.mark.slow
def test_the_model_card_is_read_by_the_hubs_own_parser(run):
    folder, _ = run
    card = ModelCard.load(folder / "README.md")
    assert card.data.license == "mit" and card.data.library_name == "transformers" and card.data.base_model is None
    facts = json.loads((folder / "run.json").read_text())["facts"]
    assert facts["data_sha256"] in card.text and "48 train, 6 validation, 6 test" in card.text
    arms = json.loads((folder / "report.json").read_text())["arms"]
    for name, arm in arms.items():
        assert f"| {name} | {arm['test_loss']:.4f} | {arm['exact_match']:.1%} (" in card.text
    assert format_prompt({"instruction": QUESTION}) in card.text


@pytest.mark.slow
def test_respond_answers_a_file_and_scores_it(run, in_process, tmp_path):
    folder, _ = run
    records = [{"instruction": "What is the capital of France?", "output": "The capital of France is Paris."},
               {"instruction": "Add 2 and 3.", "input": "", "output": "2 plus 3 is 5."},
               {"instruction": "What do you like?"}]  # no answer is the right one
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, records)))
    options = ["ch_instruct/respond.py", "--model", folder, "--data", tmp_path / "questions.jsonl", "--out", "answers.json"]
    told = in_process(*options).stdout
    answers = json.loads(Path("answers.json").read_text())
    assert [a["instruction"] for a in answers] == [r["instruction"] for r in records]
    assert all(isinstance(a["answer"], str) and isinstance(a["stopped"], bool) for a in answers)
    assert "3 answers in answers.json, 2 of them scored, to read in answers.html" in told
    assert "Add 2 and 3." in Path("answers.html").read_text()
    assert_refused(in_process(*options), "already exists")


@pytest.mark.slow
def test_respond_names_questions_that_are_too_long_and_leaves_them_out(in_process, tmp_path):
    """A table of one's own with strange names, a bad row, a long one: every advice is followed until it works."""
    rows = [["id", "Frage"], ["1", "What is 2 plus 3?"], ["2"], ["3", "Why? " * 2000], ["4", "What is the capital of France?"]]
    (tmp_path / "a.csv").write_text("".join(",".join(row) + "\n" for row in rows))
    options = ["ch_instruct/respond.py", "--data", tmp_path / "a.csv", "--max-new-tokens", 5, "--out", "answers.json"]
    for advice, more in (("--fields instruction=Frage", []), ("--bad-rows skip", ["--fields", "instruction=Frage"]),
                         ("1 (row 3) have more than", ["--bad-rows", "skip"]), ("", ["--over-length", "drop"])):
        options += more
        done = in_process(*options)
        assert (done.returncode, bool(advice)) in ((2, True), (0, False)) and advice in done.stderr, done.stderr
    assert "left out, more than" in done.stdout and "1 (row 3)" in done.stdout and "not used: id (3 records)" in done.stdout
    answers = json.loads(Path("answers.json").read_text())
    assert [a["instruction"] for a in answers] == [rows[1][1], rows[4][1]]


@pytest.mark.slow
def test_skipped_rows_stand_in_the_run_the_report_and_the_card(tiny, in_process, tmp_path):
    rows = [{"question": f"What is {n} plus 1?", "answer": n + 1} for n in range(40)]
    rows[7] = {"question": "q", "answer": {"text": "8"}}
    (tmp_path / "a.json").write_text(json.dumps(rows))
    command = ["ch_instruct/train.py", "--smoke", "--model", tiny, "--data", tmp_path / "a.json", "--out", tmp_path / "run"]
    assert_refused(in_process(*command), "record 8: 'answer' is {'text': '8'}", "--bad-rows skip leaves this one of 40")
    done = in_process(*command, "--bad-rows", "skip")
    assert done.returncode == 0 and "skipped, cannot be used: 1 (row 8)" in done.stdout
    report, run = (json.loads((tmp_path / "run" / name).read_text()) for name in ("report.json", "run.json"))
    assert report["skipped_rows"] == run["facts"]["skipped_rows"] and list(report["skipped_rows"]) == ["8"]
    assert "must be a text" in report["skipped_rows"]["8"]
    assert "; 1 rows could not be used (run.json says which, and why)" in (tmp_path / "run" / "README.md").read_text()
    again = in_process("ch_instruct/train.py", "--resume", "--out", tmp_path / "run")
    assert again.returncode == 0, again.stderr
    other = in_process(*command[:-1], tmp_path / "other", "--bad-rows", "skip", "--model", tmp_path / "run", "--seed", 1)
    assert f"{tmp_path / 'run'} learnt from --data {tmp_path / 'a.json'} divided by --seed 0" in other.stdout


@pytest.mark.slow
def test_the_phi3_style_and_loss_on_all_train_too(tiny, in_process, tmp_path):
    assert in_process("ch_instruct/train.py", "--smoke", "--model", tiny, "--format", "phi3", "--loss-on", "all", "--out",
                      tmp_path / "run").returncode == 0
    facts = json.loads((tmp_path / "run" / "run.json").read_text())["facts"]
    assert facts["supervised_tokens"] == facts["training_tokens"]


@pytest.mark.slow
def test_lora_leaves_an_adapter_beside_the_checkpoint(tiny, in_process, tmp_path):
    told = in_process("ch_instruct/train.py", "--smoke", "--model", tiny, "--lora", 4, "--out", tmp_path / "run").stdout
    assert "LoRA of rank 4" in told
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == sorted([*FILES, "adapter"])
    assert sorted(p.name for p in (tmp_path / "run" / "adapter").iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "chat_template.jinja"]
    arms = json.loads((tmp_path / "run" / "report.json").read_text())["arms"]
    assert arms["ntp"]["test_loss"] < arms["base"]["test_loss"]


def test_merged_responses_keep_the_record_and_every_answer():
    record = {"instruction": "a", "output": "b", "family": "f"}
    wrong, right = {"answer": "x", "stopped": False}, {"answer": "b", "stopped": True}
    merged = merge_responses({"base": [record | wrong], "ntp": [record | right]})
    assert merged == [record | {"answers": {"base": wrong, "ntp": right}}]
