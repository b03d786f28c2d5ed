import csv
import json
import re
from dataclasses import replace

import pytest
import torch

from ch_pretrain.bpe import train_bpe
from ch_pretrain.train import SMOKE, Pretraining, begin_alike, read_documents, split_documents
from common.pretrained import load_pretrained, save_pretrained
from common.support.files import InputError
from tests.conftest import assert_refused, kill_and_resume, run_here
from tests.models import assert_same_weights, make_model

FILES = ["config.json", "losses.png", "merges.txt", "metrics.csv", "model.safetensors", "report.json", "run.json",
         "tokenizer_config.json", "training_state.pt", "vocab.json"]


@pytest.mark.slow
def test_own_text_gives_a_model_that_goes_on_from_it(in_process, tmp_path):
    """From a text file to a continuation, in a folder with a space in its name."""
    folder = tmp_path / "my texts"
    folder.mkdir()
    (folder / "rhyme.txt").write_text("one two three four five six seven eight nine ten\n" * 400)
    run_here("ch_pretrain/train.py", "--data", "rhyme.txt", "--smoke", "--out", "base", folder=folder)
    assert sorted(p.name for p in (folder / "base").iterdir()) == FILES
    run = json.loads((folder / "base" / "run.json").read_text())
    assert run["options"]["seed"] == 0 and run["facts"]["precision"] in ("fp32", "bf16") and run["versions"]["torch"]

    told = in_process("ch_pretrain/generate.py", "--model", folder / "base", "--prompt", "one two", "--greedy",
                      "--max-new-tokens", 8).stdout
    assert told.startswith("one two")
    assert_refused(in_process("ch_pretrain/train.py", "--data", folder / "rhyme.txt", "--smoke", "--out", folder / "base"),
                   "already holds something")


@pytest.mark.slow
def test_looking_back_is_measured_at_each_evaluation_and_a_killed_run_equals_one_never_interrupted(tmp_path):
    """SIGKILL before the first saved state and after it, then --resume: the same bit for bit, with dropout too."""
    given = ["ch_pretrain/train.py", "--smoke", "--device", "cpu", "--precision", "fp32", "--seed", 3, "--dropout", 0.1]
    run_here(*given, "--out", tmp_path / "whole", folder=tmp_path)
    kill_and_resume(*given, folder=tmp_path / "broken", when=["looking_back.csv", "training_state.pt"])
    assert_same_weights(tmp_path / "whole", tmp_path / "broken")
    curves = [[{**row, "tokens_per_second": None} for row in csv.DictReader(open(tmp_path / name / "metrics.csv"))]
              for name in ("whole", "broken")]
    assert curves[0] == curves[1]
    assert sorted(p.name for p in (tmp_path / "whole").iterdir()) == sorted([*FILES, "looking_back.csv", "looking_back.png"])
    evaluated = [(row["step"], row["tokens"]) for row in csv.DictReader(open(tmp_path / "whole" / "metrics.csv"))
                 if row["validation_loss"] and row["step"] != "0"]
    looks = [(row["step"], row["tokens"]) for row in csv.DictReader(open(tmp_path / "whole" / "looking_back.csv"))]
    assert looks == evaluated and len(looks) >= 5
    texts = [(tmp_path / name / "looking_back.csv").read_text() for name in ("whole", "broken")]
    assert texts[0] == texts[1]


@pytest.mark.slow
def test_training_goes_on_from_a_model(in_process, tmp_path):
    (tmp_path / "a.txt").write_text("The capital of France is Paris. " * 300)
    out = in_process("ch_pretrain/train.py", "--data", tmp_path / "a.txt", "--model", "classroom", "--smoke", "--lr", "1e-4",
                     "--out", tmp_path / "more").stdout
    losses = [float(row["validation_loss"]) for row in csv.DictReader(open(tmp_path / "more" / "metrics.csv"))
              if row["validation_loss"]]
    assert min(losses) < losses[0]
    assert f"{load_pretrained('classroom')[1].vocab_size:,} vocabulary entries" in out


@pytest.mark.slow
def test_dropout_changes_what_is_learnt_and_equal_runs_stay_equal(in_process, tmp_path):
    (tmp_path / "rhyme.txt").write_text("one two three four five six seven eight nine ten\n" * 20)
    given = ["ch_pretrain/train.py", "--data", tmp_path / "rhyme.txt", "--smoke", "--precision", "fp32"]
    runs = {"none": ["--vocab-size", 260], "some": ["--vocab-size", 260, "--dropout", 0.3],
            "none more": ["--model", tmp_path / "none"], "some more": ["--model", tmp_path / "none", "--dropout", 0.3],
            "same more": ["--model", tmp_path / "none", "--dropout", 0.3]}
    found = {}
    for name, options in runs.items():
        assert in_process(*given, *options, "--out", tmp_path / name).returncode == 0
        found[name] = json.loads((tmp_path / name / "report.json").read_text())["weights_sha256"]
    assert found["none"] != found["some"]
    assert found["none more"] != found["some more"] == found["same more"]


@pytest.mark.slow
def test_samples_are_numbered_and_repeatable(in_process):
    options = ["--prompt", "The capital of", "--num-samples", 2, "--temperature", 1.2, "--top-k", 50, "--max-new-tokens", 12]
    one, two, other = (in_process("ch_pretrain/generate.py", *options, "--seed", seed).stdout for seed in (1, 1, 2))
    assert one == two != other
    assert one.count("--- sample") == 2


def test_attention_begins_by_looking_for_what_is_alike():
    model = make_model(n_embd=32, n_head=2)
    begin_alike(model)
    with torch.no_grad():
        for block in model.h:
            q, k, v = block.attn.c_attn.weight.chunk(3)
            assert torch.equal(q, k) and torch.equal(block.attn.c_proj.weight, v.T)
        near = [(model.wpe.weight[20] @ model.wpe.weight[20 + k]).item() for k in range(4)]
    assert near == sorted(near, reverse=True)


def test_a_model_that_is_given_has_its_own_shape():
    for given in ({"layers": 9}, {"vocab_size": 900}):
        with pytest.raises(InputError, match="--model classroom has its own; leave"):
            Pretraining(model="classroom", **given)
    assert Pretraining(model="classroom", epochs=2, max_length=64).layers == 4


def test_few_of_many_documents_are_for_validation():
    texts = [str(i) for i in range(100_000)]
    for count, held_out in ((50, 1), (1000, 20), (100_000, 700)):
        training, validation = split_documents(texts[:count])
        assert training + validation == texts[:count] and len(validation) == held_out


def test_of_a_few_files_each_is_learnt_from_and_validated_on():
    texts = ["a" * 5000, "b" * 10_000, "a" * 5000]  # the last is the first once more, and is not its own validation
    assert split_documents(texts) == (["a" * 4900, "b" * 9800, "a" * 4900], ["a" * 100, "b" * 200, "a" * 100])
    assert split_documents(texts[1:2]) == (["b" * 9800], ["b" * 200])


def test_of_a_few_short_texts_none_loses_its_end():
    texts = ["A moth.", "A goose. " * 3000, "A frog."]
    training, validation = split_documents(texts)
    assert (training[0], training[2], len(validation)) == ("A moth.", "A frog.", 1)
    assert training[1] + validation[0] == texts[1]
    assert split_documents(["A moth.", "A frog."]) == (["A moth."], ["A frog."])
    assert split_documents(["A moth."])[1] == ["."]  # of a single one there is no other way


def test_a_window_that_the_model_cannot_read_is_refused(in_process, tmp_path):
    (tmp_path / "a.txt").write_text("The capital of France is Paris. " * 300)
    given = ("--data", tmp_path / "a.txt", "--model", "classroom", "--max-length", 2000)
    done = in_process("ch_pretrain/train.py", *given)
    assert_refused(done, "--max-length 2000 is more than classroom can read, which is 256 tokens.")


@pytest.mark.slow
def test_a_run_does_not_go_on_from_another_model(in_process, tmp_path):
    (tmp_path / "a.txt").write_text("The capital of France is Paris. " * 300)
    model, tokenizer = load_pretrained("classroom")
    save_pretrained(model, tokenizer, tmp_path / "model")
    in_process("ch_pretrain/train.py", "--data", tmp_path / "a.txt", "--model", tmp_path / "model", "--smoke", "--out",
               tmp_path / "more")
    vocab = json.loads((tmp_path / "model" / "vocab.json").read_text())
    paris = max((name for name in vocab if "Paris" in name), key=len)
    vocab[paris], vocab["e"] = vocab["e"], vocab[paris]
    (tmp_path / "model" / "vocab.json").write_text(json.dumps(vocab))
    assert_refused(in_process("ch_pretrain/train.py", "--resume", "--out", tmp_path / "more"), "ids_sha256 has changed")


def test_a_byte_order_mark_is_no_text(tmp_path):
    texts = []
    for encoding in ("utf-8", "utf-8-sig"):
        (tmp_path / f"{encoding}.txt").write_text("Été. Tout va bien.", encoding=encoding)
        texts.append(read_documents(Pretraining(data=(str(tmp_path / f"{encoding}.txt"),))))
    assert texts[0] == texts[1] == ["Été. Tout va bien."]
    assert train_bpe(tmp_path / "utf-8.txt", 270, []) == train_bpe(tmp_path / "utf-8-sig.txt", 270, [])


def test_the_control_reads_its_pages_as_the_shipped_base_does():
    """Windows that begin with pages, in order, and a curve of looking back: for both corpora, and for no file."""
    shipped, control, own = (Pretraining(data=(name,)) for name in ("classroom", "plain", "classroom.txt"))
    assert shipped.of_pages and control.of_pages and not own.of_pages and not Pretraining(data=("plain", "a.txt")).of_pages
    few, many = read_documents(replace(control, smoke=True)), read_documents(replace(shipped, smoke=True))
    assert len(few) == len(many) == SMOKE and few != many


@pytest.mark.slow
def test_a_text_shorter_than_the_context_counts_its_own_tokens(tmp_path):
    """The only window is all of it."""
    (tmp_path / "short.txt").write_text("abc def ghi\n" * 6)
    told = run_here("ch_pretrain/train.py", "--data", "short.txt", "--vocab-size", 257, "--max-length", 200, "--epochs", 2,
                    "--layers", 1, "--width", 16, "--heads", 1, "--snapshots", 1, "--out", "base", folder=tmp_path).stdout
    rows = list(csv.DictReader((tmp_path / "base" / "metrics.csv").open()))
    [snapshot] = (tmp_path / "base" / "snapshots").iterdir()
    assert int(snapshot.name) == 2 * int(re.search(r"windows of (\d+) to learn from", told)[1]) < 200
    assert int(rows[-1]["tokens"]) == int(snapshot.name)
