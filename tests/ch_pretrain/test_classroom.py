import json
import re
import sys
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

from ch_instruct.prompts import STYLES, format_prompt
from ch_pretrain import classroom, world
from ch_pretrain.classroom import pages
from common.support import options

records = cache(classroom.records)  # most sets are looked at by several tests
SEEDS = (0, 1, 2)
TABLES = {"capital": world.COUNTRIES, "continent": world.COUNTRIES, "plural": world.NOUNS, "past_tense": world.VERBS,
          "young": world.ANIMALS, "home": world.ANIMALS, "kind": world.THINGS, "color": world.THINGS, "job": world.JOBS}
COLUMN = {"capital": 1, "continent": 2, "plural": 1, "past_tense": 1, "young": 1, "home": 2, "kind": 1, "color": 2, "job": 1}
OPPOSITE = dict(world.OPPOSITES) | {other: word for word, other in world.OPPOSITES}
ROWS = {"day": world.DAYS, "month": world.MONTHS, "letter": world.LETTERS, "number": [str(n) for n in range(1, 61)]}


def part(rows: list[dict], split: str) -> list[dict]:
    return [row for row in rows if row["split"] == split]


def as_set(rows: Iterable[dict]) -> set[tuple]:
    return {tuple(sorted(row.items())) for row in rows}


def question(row: dict) -> tuple[str, str, str]:
    return row["family"], row["instruction"], row["input"]


def numbers(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", text)]


@cache
def whole(word: str) -> re.Pattern:
    return re.compile(rf"\b{word}\b")  # `re` itself keeps fewer than there are words, and to compile them takes seconds


def known_words(text: str, words: Iterable[str]) -> list[str]:
    """Those of `words` that stand in the text as whole words."""
    return [word for word in words if whole(word).search(text)]


def one_asked(row: dict, words: Iterable[str]) -> str:
    found = known_words(row["instruction"], words)
    assert len(found) == 1, f"{row['instruction']!r} asks about {found}"
    return found[0]


def read_question(row: dict) -> tuple[object, str]:
    """What a question is about, and its right answer or how that ends, both worked out from the question's text alone."""
    family, text = row["family"], row["instruction"]
    if family in TABLES:
        thing = one_asked(row, [entry[0] for entry in TABLES[family]])
        value = next(entry[COLUMN[family]] for entry in TABLES[family] if entry[0] == thing)
        return thing, value.removeprefix("piece of ")
    if family == "opposite":
        word = one_asked(row, OPPOSITE)
        return frozenset((word, OPPOSITE[word])), OPPOSITE[word]
    if family == "comes_next":
        what, now = one_asked(row, ROWS), re.search(r"(\w+)[,.?]", text).group(1)
        return (what, now), ROWS[what][ROWS[what].index(now) + 1]
    if family in ("addition", "subtraction"):
        m, n = numbers(text)[-2:]
        return (tuple(sorted((m, n))), str(m + n)) if family == "addition" else ((m, n), str(m - n))
    if family == "larger":
        return frozenset(numbers(text)), str(max(numbers(text)))
    if family == "sort_numbers":
        return tuple(sorted(numbers(row["input"]))), ", ".join(map(str, sorted(numbers(row["input"]))))
    if family == "reverse_words":
        words = row["input"].split(", ")
        return frozenset(words), ", ".join(words[::-1])
    if family in ("what_has", "where_to"):
        name = one_asked(row, world.NAMES)
        sentences = frozenset(row["input"].split(". "))
        return (sentences, name), re.search(rf"\b{name} (?:has|went to) the (\w+)\.", row["input"]).group(1)
    raise AssertionError(f"there is no check for the family {family}")


@pytest.mark.slow
@pytest.mark.parametrize("make", [classroom.records, lambda seed: list(pages(50, seed))], ids=["records", "pages"])
def test_seed_decides(make):
    assert make(seed=3) == make(seed=3)
    assert make(seed=3) != make(seed=4)


def test_page_count():
    assert len(list(pages(17, seed=0))) == 17
    assert all(page.strip() == page and page for page in pages(200, seed=0))


@pytest.mark.parametrize("seed", SEEDS)
def test_size_and_shape_of_the_record_set(seed):
    rows = records(seed)
    assert 1900 <= len(rows) <= 2300
    assert len({row["family"] for row in rows}) >= 10
    assert all(row.keys() == {"instruction", "input", "output", "family", "key", "split"} for row in rows)
    assert all(isinstance(value, str) for row in rows for value in row.values())
    assert {row["split"] for row in rows} == {"train", "validation", "test"}


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_every_family_is_in_every_part(split):
    assert {row["family"] for row in part(records(), split)} == set(classroom.FAMILIES)


def test_no_question_is_asked_twice():
    rows = records()
    assert len({question(row) for row in rows}) == len(rows)


@pytest.mark.slow
@pytest.mark.parametrize("dials", [{}, {"noise": 0.3}, {"redundancy": 0.5}])
@pytest.mark.parametrize("seed", SEEDS)
def test_no_key_is_in_two_parts(seed, dials):
    rows = records(seed, **dials)
    keys = [{(row["family"], row["key"]) for row in part(rows, split)} for split in ("train", "validation", "test")]
    assert sum(map(len, keys)) == len(set.union(*keys))


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_asked_in_the_test_part_is_asked_in_training(seed):
    """By the text of the questions: sums in either order, opposites in either direction, lists in any order."""
    rows = records(seed)
    asked = {split: {(row["family"], read_question(row)[0]) for row in part(rows, split)}
             for split in ("train", "validation", "test")}
    assert len(asked["test"]) > 150
    assert not asked["test"] & (asked["train"] | asked["validation"])
    assert not asked["validation"] & asked["train"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_every_answer_is_right(seed):
    for row in records(seed):
        assert re.search(rf"(^|\b){re.escape(read_question(row)[1])}\.?$", row["output"]), row


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "redundancy"), [(0.2, 0.0), (0.5, 0.0), (1.0, 0.0), (0.2, 0.5)])
def test_noise_makes_the_stated_share_of_training_answers_wrong(noise, redundancy):
    clean, noisy = records(5, redundancy=redundancy), records(5, noise, redundancy)
    right = {question(row): row for row in clean}
    training = part(noisy, "train")
    wrong = [row for row in training if "wrong" in row]
    assert len(wrong) == round(noise * len(training)) > 0
    for row in wrong:
        assert row["wrong"] == "yes"
        assert row["output"] != right[question(row)]["output"]
        assert row | {"output": right[question(row)]["output"]} == right[question(row)] | {"wrong": "yes"}
    assert as_set(row for row in noisy if "wrong" not in row) <= as_set(clean)


def test_wrong_answers_keep_the_form_of_right_ones():
    for row in records(5, noise=1.0):
        if row.get("wrong") and row["family"] == "capital":
            assert re.fullmatch(r"The capital of .+ is .+\.", row["output"])
            assert known_words(row["output"], [entry[1] for entry in world.COUNTRIES])


@pytest.mark.slow
@pytest.mark.parametrize("redundancy", [0.1, 0.5, 0.8])
def test_redundancy_makes_the_stated_share_paraphrases(redundancy):
    clean, redundant = part(records(5), "train"), part(records(5, redundancy=redundancy), "train")
    assert len(redundant) == len(clean)
    known = as_set(clean)
    originals, copies = ([row for row in redundant if (as_set([row]) <= known) == old] for old in (True, False))
    assert abs(len(copies) - redundancy * len(clean)) <= 1
    kept = {(row["family"], row["key"], row["input"], row["output"]): [] for row in originals}
    for row in originals:
        kept[row["family"], row["key"], row["input"], row["output"]].append(row["instruction"])
    for copy in copies:
        of = kept[copy["family"], copy["key"], copy["input"], copy["output"]]
        assert any(original in copy["instruction"] for original in of), copy
    assert len({question(row) for row in redundant}) == len(redundant)


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "redundancy"), [(0.2, 0.95), (1.0, 0.9), (0.5, 1.0)])
def test_both_dials_high(noise, redundancy):
    training = part(records(0, noise, redundancy), "train")
    assert len(training) == len(part(records(0), "train"))
    assert sum("wrong" in row for row in training) == round(noise * len(training))


@pytest.mark.slow
@pytest.mark.parametrize("dials", [{"noise": 0.4}, {"redundancy": 0.7}, {"noise": 0.2, "redundancy": 0.3}])
@pytest.mark.parametrize("split", ["validation", "test"])
def test_dials_leave_the_other_parts_alone(split, dials):
    assert as_set(part(records(6, **dials), split)) == as_set(part(records(6), split))


@pytest.mark.slow
@pytest.mark.parametrize("page_seed", SEEDS)
def test_pages_calculate_rightly(page_seed):
    text = "\n".join(pages(1000, page_seed))
    sums = re.findall(r"(\d+) (plus|minus) (\d+)(?: is|:|\.\n\d+ (?:plus|minus) \d+ is) (\d+)", text)
    assert len(sums) > 100
    assert all(int(result) == (int(m) + int(n) if sign == "plus" else int(m) - int(n)) for m, sign, n, result in sums)
    larger = re.findall(r"(\d+) is larger than (\d+)", text)
    assert len(larger) > 20 and all(int(m) > int(n) for m, n in larger)
    orders = re.findall(r"the numbers ([\d, ]+) are ([\d, ]+)\.", text)
    assert len(orders) > 20 and all(sorted(numbers(given)) == numbers(result) for given, result in orders)


@pytest.mark.slow
def test_no_page_holds_a_whole_prompt():
    """Nor one of the lines that prompts are made of: a preamble, or a heading with its colon."""
    rows = [{"instruction": "\0", "input": ""}, {"instruction": "\0", "input": "\0"}]
    pieces = {piece.strip() for row in rows for style in STYLES
              for piece in re.split("\0|\n\n", format_prompt(row, style)) if piece.strip()}
    assert {"### Instruction:", "### Input:", "### Response:", "<|User|>", "<|Assistant|>"} < pieces
    for page in pages(5000, seed=1):
        assert not pieces & set(page.splitlines()), page
        assert "Below is an instruction" not in page


@pytest.mark.slow
def test_pages_hold_every_word_of_the_prompts():
    """What no page ever held, a pretrained model cannot read."""
    known = set(re.findall(r"\w+", "\n".join(pages(3000, seed=1))))
    for style in STYLES:
        assert set(re.findall(r"\w+", format_prompt({"instruction": "", "input": "Tell"}, style))) <= known


@pytest.mark.slow
def test_pages_hold_every_table_entry():
    text = "\n".join(pages(8000, seed=1))
    missing = {entry[0] for table in TABLES.values() for entry in table if not re.search(rf"\b{entry[0]}\b", text)}
    assert missing == set()


@pytest.mark.slow
def test_articles_fit_their_words():
    texts = [*pages(3000, seed=1), *(f"{row['instruction']} {row['output']}" for row in records())]
    wrong = {found for text in texts for found in re.findall(r"\b[Aa] [aeiou]\w+|\b[Aa]n [^\Waeiou]\w*", text)}
    assert wrong == set()


@pytest.mark.parametrize("name", ["COUNTRIES", "NOUNS", "VERBS", "ANIMALS", "THINGS", "JOBS"])
def test_tables_have_no_double_keys(name):
    entries = getattr(world, name)
    assert [key for key, count in Counter(entry[0] for entry in entries).items() if count > 1] == []
    assert len({len(entry) for entry in entries}) == 1
    assert all(part for entry in entries for part in entry)


def test_each_word_has_one_opposite():
    words = [word for pair in world.OPPOSITES for word in pair]
    assert [word for word, count in Counter(words).items() if count > 1] == []


@pytest.mark.parametrize("name", ["DAYS", "MONTHS", "LETTERS", "NAMES", "TOYS", "WORDS", "PLACES"])
def test_lists_have_no_double_words(name):
    words = getattr(world, name)
    assert len(words) == len(set(words)) > 5


@pytest.mark.slow
def test_command_writes_the_records(in_process):
    done = in_process("ch_pretrain/classroom.py", "--records", "new/r.json", "--noise", "0.2", "--redundancy", "0.5",
                      "--seed", "3")
    expected = records(3, 0.2, 0.5)
    assert done.returncode == 0 and json.loads(Path("new/r.json").read_text(encoding="utf-8")) == expected
    assert done.stdout.startswith(f"{len(expected)} records (") and done.stdout.strip().endswith("in new/r.json")


@pytest.mark.parametrize(("given", "told"), [
    (["--noise", "1.5"], "share between 0 and 1"), (["--noise", "-0.1"], "'-0.1'"),
    (["--noise", "nan"], "'nan'"), (["--redundancy", "much"], "'much'"), (["--seed", "-1"], "'-1'"),
    (["--records", "r.txt"], "r.txt must end in .json"), (["--nois", "0.2"], "--nois"), ([], "--records")])
def test_command_refuses_bad_values(given, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    known = [] if not given or "--records" in given else ["--records", "r.json"]
    monkeypatch.setattr(sys, "argv", ["classroom.py", *known, *given])
    with pytest.raises(SystemExit) as ended:
        options.run_command(classroom.main)
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1 and told in message
    assert list(tmp_path.iterdir()) == []
