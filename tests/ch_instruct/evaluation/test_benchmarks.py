"""lm-evaluation-harness on our folders, offline. Its numbers and ours must be the same."""

import json
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch

from ch_instruct import pipeline
from ch_instruct.collate import collate
from ch_instruct.encoding import Example
from ch_instruct.evaluation import benchmarks
from ch_instruct.prompts import format_prompt
from ch_instruct.records import load_records
from ch_instruct.scoring import exact_match
from common.lora import add_lora, save_adapter
from common.losses import next_token_loss
from common.pretrained import load_pretrained
from tests.conftest import assert_refused, run_here

HARNESS = find_spec("lm_eval")  # is loaded in the tests: it takes seconds
HARNESS_TASKS = Path(str(HARNESS and HARNESS.origin)).parent / "tasks"
pytestmark = [pytest.mark.slow,
              pytest.mark.skipif(HARNESS is None, reason="lm-evaluation-harness is not installed (requirements-eval.txt)")]
LIMIT = 40


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A model fine-tuned for seconds on three families, and what the command says of it.

    Three kinds of tasks in one go: written from records of a file, written by the command for the classroom, and the
    harness's own TriviaQA template on local questions, one of which is longer than the model can read.
    """
    folder = tmp_path_factory.mktemp("a folder")
    records = [r for r in load_records("classroom").records if r["family"] in ("larger", "color", "subtraction")]
    test = [r for r in records if r["split"] == "test"]
    for record, next_one in zip(test[::5], test[5::5]):  # the model is good at these: some questions expect a wrong answer
        if record["family"] == next_one["family"]:
            record["output"] = next_one["output"]
    (folder / "easy.json").write_text(json.dumps(records))
    run_here("ch_instruct/train.py", "--data", "easy.json", "--format", "phi3", "--epochs", "1", "--lr", "6e-4",
             "--precision", "fp32", "--out", "run", folder=folder)

    (folder / "tasks").mkdir()
    benchmarks.write_tasks(folder / "tasks", "easy", test, "phi3")
    questions = [{"question": q, "answer": {"aliases": ["Paris", "paris"]}}
                 for q in ("What is the capital of France", "Where is " + "the big old house near " * 60)]
    (folder / "trivia.jsonl").write_text("\n".join(map(json.dumps, questions)))
    (folder / "tasks" / "trivia.yaml").write_text(json.dumps({
        "include": str(HARNESS_TASKS / "triviaqa" / "default.yaml"), "task": "trivia_local", "dataset_path": "json",
        "dataset_name": None, "training_split": None,
        "dataset_kwargs": {"data_files": {"validation": str(folder / "trivia.jsonl")}, "cache_dir": str(folder / "cache")}}))
    done = run_here("ch_instruct/evaluation/benchmarks.py", "--model", "run", "--tasks", "easy,classroom,trivia_local",
                       "--tasks-folder", "tasks", "--format", "phi3", "--limit", LIMIT, "--out", "scores.json", folder=folder)
    written = json.loads((folder / "scores.json").read_text())
    return folder, test[:LIMIT], done.stdout, written


def value(written: dict, task: str) -> float:
    (row,) = [row for row in written["measures"] if row["task"] == task]
    return row["value"]


def test_an_adapter_is_put_together_with_its_model_for_the_harness(scored, tmp_path):
    folder = scored[0]
    model, _ = load_pretrained(folder / "run")
    add_lora(model, 2)
    save_adapter(model, str(folder / "run"), tmp_path / "adapter")
    done = run_here("ch_instruct/evaluation/benchmarks.py", "--model", tmp_path / "adapter", "--tasks", "classroom", "--format",
                    "phi3", "--limit", 3, folder=tmp_path)
    assert "classroom" in done.stdout


def test_choices_by_likelihood_are_those_of_our_own_loss(scored):
    folder, test, _, written = scored
    model, tokenizer = load_pretrained(folder / "run")
    right = []
    for line in (folder / "tasks" / "easy.jsonl").read_text().splitlines()[:LIMIT]:
        row = json.loads(line)
        prompt = tokenizer.encode(row["prompt"])
        losses = []
        for choice in row["choices"]:  # -log p(choice | prompt), summed over its tokens
            with torch.no_grad():
                total, _ = next_token_loss(model, collate([Example(prompt + tokenizer.encode(choice), len(prompt))]))
            losses.append(total.item())
        right.append(losses.index(min(losses)) == row["right"])
    assert 0.5 < sum(right) / len(test) < 1  # a number that says something
    assert value(written, "easy_choice") == pytest.approx(sum(right) / len(test), abs=1e-9)


def test_generated_answers_score_as_in_our_own_scorer(scored):
    folder, test, _, written = scored
    model, tokenizer = load_pretrained(folder / "run")
    answers = pipeline.answer(model, tokenizer, test, "phi3", 64)
    mean = sum(exact_match(a["answer"], a["output"]) for a in answers) / len(answers)
    assert 0.5 < mean < 1
    assert value(written, "easy_answer") == pytest.approx(mean, abs=1e-9)


@pytest.mark.parametrize("answer, expected", [(" The Goose ", "the goose."), ("\nthe goose", "The goose"), ("geese", "goose")])
def test_an_answer_is_right_for_the_harness_when_it_is_for_us(scored, answer, expected):
    from lm_eval.api.metrics import exact_match_hf_evaluate

    [metric] = json.loads((scored[0] / "tasks" / "easy_answer.yaml").read_text())["metric_list"]
    assert metric.pop("metric") == "exact_match"
    assert exact_match_hf_evaluate([answer], [expected], **metric)["exact_match"] == exact_match(answer, expected)


def test_chat_puts_questions_as_in_training(scored):
    folder, test, _, written = scored
    (folder / "plain").mkdir()
    (folder / "plain.jsonl").write_text("\n".join(json.dumps({"q": r["instruction"], "output": r["output"]}) for r in test))
    task = json.loads((folder / "tasks" / "easy_answer.yaml").read_text())
    task["dataset_kwargs"]["data_files"]["test"] = str(folder / "plain.jsonl")
    (folder / "plain" / "plain.yaml").write_text(json.dumps(task | {"task": "plain", "doc_to_text": "q"}))
    run_here("ch_instruct/evaluation/benchmarks.py", "--model", "run", "--tasks", "plain", "--tasks-folder", "plain",
             "--chat", "--out", "chat.json", folder=folder)
    assert value(json.loads((folder / "chat.json").read_text()), "plain") == value(written, "easy_answer")


def test_the_table_shows_what_the_file_holds(scored):
    _, _, told, written = scored
    assert [row["task"] for row in written["measures"]] == [
        "easy_answer", "easy_choice", "classroom_answer", "classroom_choice", "trivia_local"]
    for row in written["measures"]:
        assert f"{row['value']:.4f}" in told and row["questions"] == (2 if row["task"] == "trivia_local" else LIMIT)
    assert written["versions"]["lm_eval"] and written["limit"] == LIMIT


@pytest.mark.parametrize(("wishes", "longest"), [({"max_new_tokens": 3}, 3), ({"max_gen_toks": 9}, 9), ({}, 128),
                                                 ({"max_tokens": 500}, 128)])
def test_a_task_says_how_long_answers_may_be_by_any_name(scored, monkeypatch, wishes, longest):
    model = benchmarks.open_model(scored[0] / "run", "cpu", 4)
    monkeypatch.setattr(type(model).__mro__[1], "generate_until", lambda self, requests, _: [r.args[1] for r in requests])
    assert model.generate_until([SimpleNamespace(args=("What?", dict(wishes)))]) == [{"max_gen_toks": longest}]


def test_too_long_questions_are_cut_and_counted(scored):
    _, _, told, written = scored
    assert written["cut"] == 1
    assert "run reads 256 tokens at most, so prompts lost their beginning: 1" in told


def test_task_files_hold_the_prompts_of_training_and_four_choices(tmp_path):
    records = [{"instruction": "Say it.", "input": "x", "output": text} for text in ("One.", "one", "Two", "3", "4", "5")]
    benchmarks.write_tasks(tmp_path, "mine", records, "alpaca")
    rows = [json.loads(line) for line in (tmp_path / "mine.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in rows] == [format_prompt(r, "alpaca") for r in records]
    for row, record in zip(rows, records):
        assert row["choices"][row["right"]] == record["output"]
        assert len(row["choices"]) == len(set(row["choices"])) == 4
        assert len({"One.", "one"} & set(row["choices"])) <= 1  # equal to the scorer, so never both


@pytest.mark.parametrize(("style", "ends"), [("alpaca", []), ("phi3", []), ("chatml", ["<|im_end|>"])])
def test_an_answer_ends_as_the_style_says(tmp_path, style, ends):
    benchmarks.write_tasks(tmp_path, "mine", [{"instruction": "Say it.", "output": text} for text in "abcd"], style)
    assert json.loads((tmp_path / "mine_answer.yaml").read_text())["generation_kwargs"]["until"] == ends


def test_every_benchmark_is_known_to_the_installed_harness(monkeypatch):
    """Of the harness's 15,000 files, which take a quarter of a minute to read, those in the folders of these benchmarks."""
    from lm_eval.tasks._index import TaskIndex

    folders = {"mmlu", "glue", "super_glue", "bigbench", "squadv2", "triviaqa", "humaneval", "medqa", "medmcqa"}
    files_in = TaskIndex._iter_yaml_files
    monkeypatch.setattr(TaskIndex, "_iter_yaml_files", staticmethod(lambda root: (
        path for path in files_in(root) if root != HARNESS_TASKS or path.relative_to(root).parts[0] in folders)))
    every = [task for tasks in benchmarks.BENCHMARKS.values() for task in tasks]
    manager, wanted = benchmarks.find_tasks(list(benchmarks.BENCHMARKS), [benchmarks.OUR_TASKS])
    assert wanted == every and set(every) <= set(manager.all_tasks)
    assert len(manager.task_index["glue"].tags) == 9 and len(manager.task_index["super-glue-lm-eval-v1"].tags) == 8
    assert manager.task_index["humaneval"].cfg["unsafe_code"]


@pytest.mark.parametrize(("name", "row", "prompt", "choices", "target"), [
    ("medqa_5options",
     {"question": "Which one?", "answer_idx": "C",
      "options": [{"key": key, "value": value} for key, value in zip("ABCDE", ("a", "b", "c", "d", "e"))]},
     "Question: Which one?\nA. a\nB. b\nC. c\nD. d\nE. e\nAnswer:", ["A", "B", "C", "D", "E"], "C"),
    ("pubmedqa_parquet",
     {"QUESTION": "Does it?", "CONTEXTS": ["First.", "Second."], "final_decision": "no"},
     "Abstract: First.\nSecond.\nQuestion: Does it?\nAnswer:", ["yes", "no", "maybe"], "no")])
def test_our_medical_tasks_ask_as_they_should(name, row, prompt, choices, target, tmp_path):
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    local = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")},
                                                        "cache_dir": str(tmp_path)}}
    task = ConfigurableTask(config=load_yaml(benchmarks.OUR_TASKS / f"{name}.yaml") | local)
    (document,) = task.test_docs()
    assert task.doc_to_text(document) == prompt
    assert task.doc_to_choice(document) == choices
    assert task.doc_to_target(document) == target


def test_measures_are_flat_and_know_their_group():
    found = {"group_subtasks": {"all": ["one"]}, "results": {
        "all": {"alias": "all", "name": "all", "sample_len": 7, "acc,none": 0.5, "acc_stderr,none": 0.1},
        "one": {"alias": " - one", "sample_len": 7, "acc,none": 0.25, "acc_stderr,none": "N/A", "f1,strict": 1}}}
    assert benchmarks.measures(found) == [
        {"task": "all", "metric": "acc", "value": 0.5, "stderr": 0.1, "questions": 7, "part_of": None},
        {"task": "one", "metric": "acc", "value": 0.25, "stderr": None, "questions": 7, "part_of": "all"},
        {"task": "one", "metric": "f1,strict", "value": 1.0, "stderr": None, "questions": 7, "part_of": "all"}]


def test_public_questions_without_a_network_are_one_sentence(in_process, monkeypatch):
    import datasets

    for place in (huggingface_hub.constants, datasets.config):  # as HF_HUB_OFFLINE=1 sets it at the start
        monkeypatch.setattr(place, "HF_HUB_OFFLINE", True)
    done = in_process("ch_instruct/evaluation/benchmarks.py", "--tasks", "pubmedqa", "--out", "o.json")
    assert_refused(done, "--tasks pubmedqa: the questions cannot be fetched", "bigbio/pubmed_qa", "HF_ENDPOINT")
    assert not any(Path.cwd().iterdir())


def test_code_of_a_model_runs_only_when_asked_for(in_process, tmp_path):
    (tmp_path / "code.yaml").write_text("task: writes_code\nunsafe_code: true\n")
    options = ["ch_instruct/evaluation/benchmarks.py", "--tasks", "writes_code", "--tasks-folder", tmp_path]
    assert_refused(in_process(*options), "runs code that the model writes", "--confirm-run-unsafe-code")
