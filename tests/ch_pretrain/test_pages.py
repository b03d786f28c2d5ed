import itertools
import random
import re
from collections import Counter

import pytest

from ch_instruct.prompts import STYLES, format_prompt
from ch_pretrain import classroom
from ch_pretrain import pages as made
from ch_pretrain.pages import HELD_OUT, INTERVIEWED, Layout, Source, draw_form, pages
from tests.conftest import run_here

SEEDS = (0, 1)
MANY = 6000


@pytest.fixture(scope="module")
def corpus() -> list[str]:
    return list(pages(MANY, seed=1))


def some(kind, count: int = 300, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    source = Source(rng)
    return [kind(rng, source) for _ in range(count)]


def test_the_same_seed_gives_the_same_pages():
    assert list(pages(200, 3)) == list(pages(200, 3)) != list(pages(200, 4))


@pytest.mark.slow
def test_pages_are_not_alike(corpus):
    assert len(set(corpus)) > 0.97 * len(corpus)
    assert all(page.strip() for page in corpus)


@pytest.mark.slow
def test_the_opening_has_nothing_to_know_in_most_pages(corpus):
    """Retelling, tables and copies say everything twice: their lines or words come back."""
    def says_it_again(page: str) -> bool:
        words = re.findall(r"\w+", page)
        return max(Counter(words).values(), default=0) >= 2 and min(Counter(words).values()) >= 2

    opening = round(made.OPENING_SHARE * MANY)
    early, late = (sum(map(says_it_again, part)) / len(part) for part in (corpus[:opening], corpus[opening:]))
    assert early > 0.6 > 0.4 > late


@pytest.mark.slow
def test_no_page_holds_a_records_prompt_or_headings_of_one(corpus):
    """Nor with another question: the two headings of a prompt style, or both sentences of its preamble."""
    for page in corpus:
        for first, second in (("Instruction", "Response"), ("User", "Assistant")):
            heads = [re.search(rf"(^|\n)\W*{word}\W", page) for word in (first, second)]
            assert not all(heads) or "In a chat" in page, page
        assert not ("Below is an instruction" in page and "appropriately completes the request." in page
                    and "Write a response" in page), page


@pytest.mark.slow
@pytest.mark.parametrize("style", STYLES)
def test_no_page_holds_a_records_prompt_with_its_answer(corpus, style):
    text = "\n\n".join(corpus)
    for record in classroom.records():
        assert format_prompt(record, style) not in text


@pytest.mark.slow
def test_pages_hold_every_word_of_the_prompts(corpus):
    known = set(re.findall(r"\w+", "\n".join(corpus)))
    for style in STYLES:
        assert set(re.findall(r"\w+", format_prompt({"instruction": "", "input": "Tell"}, style))) <= known


@pytest.mark.slow
def test_families_that_are_held_out_are_in_no_interview():
    assert len(HELD_OUT) == 2 and not set(HELD_OUT) & set(INTERVIEWED)
    text = "\n\n".join(some(made.interview, 2000))
    for name in HELD_OUT:
        asked = {question for item in Source(random.Random(0)).tables[name] for question in item.questions}
        assert not any(question in text for question in asked)


@pytest.mark.slow
def test_every_item_of_the_tables_is_on_some_page():
    """Those of the families that are held out, too."""
    text = "\n\n".join(pages(16_000, seed=1))
    for name, items in Source(random.Random(0)).tables.items():
        told = sum(any(statement in text for statement in item.statements) for item in items)
        assert told > 0.95 * len(items), name


def whole(word: str, other: str, text: str) -> str:
    """The text with the other in the place of each whole word."""
    return re.sub(rf"(?<![A-Za-z]){word}(?![A-Za-z])", other, text)


@pytest.mark.slow
def test_a_form_is_the_same_for_all_items_of_a_family():
    """What stands around the value is what stood around the others' values, up to what the question is about."""
    for seed in range(60):
        rng = random.Random(seed)
        source = Source(rng)
        items = [source.item("capital") for _ in range(4)]
        form = draw_form(rng, items[0])
        shapes = {whole(item.key, "K", whole(item.value, "V", form(item))) for item in items}
        assert len(shapes) == 1, shapes


@pytest.mark.parametrize("name", INTERVIEWED)
def test_a_records_own_form_is_not_the_likeliest(name):
    rng = random.Random(0)
    source = Source(rng)
    found = Counter()
    for _ in range(600):
        item = source.item(name)
        answer = draw_form(rng, item)(item)
        found[answer == item.output, answer.rstrip(".") == item.value] += 1
    assert sum(count for (own, _), count in found.items() if own) < 0.25 * 600


@pytest.mark.slow
def test_a_story_in_front_of_a_page_is_asked_about_once_for_each_of_its_people():
    for page in some(made.look_up, 1000):
        story, *blocks = page.split("\n\n")
        who = [name for name in made.NAMES if re.match(rf"{name} has the ", story)]
        if who and "?" not in story and all(story not in block for block in blocks):
            questions = re.findall(r"What does (\w+) have\?|Find out what (\w+) has\.|Name the thing that (\w+) has\.", page)
            asked = ["".join(found) for found in questions]
            assert len(asked) == len(set(asked)) == story.count(" has the ")


def test_pages_calculate_rightly(corpus):
    sums = re.findall(r"\b(\d+) (plus|minus) (\d+) is (\d+)\b", "\n".join(corpus))
    assert len(sums) > 100
    assert all(int(result) == (int(m) + int(n) if sign == "plus" else int(m) - int(n)) for m, sign, n, result in sums)


def test_headings_of_a_layout_differ():
    for seed in range(300):
        layout = Layout(random.Random(seed))
        heads = list(layout.heads.values())
        assert len(set(heads)) == 3 or set(heads) == {""}


@pytest.mark.slow
def test_a_copy_is_one_text_again_and_again():
    for page in some(made.copies):
        half = next(k for k in range(1, len(page)) if all(len(gap) <= 2 and not gap.strip()
                                                          for gap in (page + "\n").split(page[:k])))
        assert half <= (len(page) + 1) / 2


def test_command_shows_pages(tmp_path):
    told = run_here("ch_pretrain/pages.py", "--count", 4, "--seed", 2, folder=tmp_path).stdout
    assert told.strip() == "\n\n----------\n\n".join(itertools.islice(pages(4, 2), 4)).strip()
