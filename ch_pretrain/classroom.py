"""The classroom: pages to pretrain on and instruction records to fine-tune and test on, from one seeded generator.

Both come from the same items. An item is one thing that one can know or work out ("the capital of France is Paris",
"9, 2, 5 sorted is 2, 5, 9"). A *page* states items in plain text, as sentences, lists or worksheets. A *record* asks
about one item in Alpaca form. The right answer is known, so answers are scored without a judge.

Records are split by `key`, the thing that the question is about. No training record of a family asks about an item of its
test questions. So the answer must come from pretraining, and only its form from fine-tuning.

    python ch_pretrain/classroom.py --records records.json --noise 0.2 --redundancy 0.5
"""

import itertools
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ch_pretrain import world
from common.support import options
from common.support.files import InputError, write_json
from common.support.options import REQUIRED, Options, natural, new_file, option, share

RECORDS_PER_FAMILY = 125
VALIDATION_SHARE, TEST_SHARE = 0.07, 0.15
LARGEST = 15  # number in sums and differences


class Item(NamedTuple):
    """One thing that can be asked.

    questions: ways to ask for it. statements: ways a page says it. `answer` holds a {} where `value` goes, so
    that a wrong answer can be made by putting in another item's value.
    """

    key: str
    questions: tuple[str, ...]
    answer: str
    value: str
    statements: tuple[str, ...]
    label: str  # the left column of a list whose right column is `value`
    input: str = ""

    @property
    def output(self) -> str:
        """The right answer."""
        return self.answer.format(self.value)


def a(word: str) -> str:
    """The word with its article: "an apple", "a pear"."""
    return ("an " if word[0] in "aeiou" else "a ") + word


def upper_first(text: str) -> str:
    """The text with a capital first letter; the rest as it is."""
    return text[0].upper() + text[1:]


# Each family is a function: rng -> an endless or finite iterator of items. Finite ones list a table, endless ones draw.


def capital(rng: random.Random) -> Iterator[Item]:
    """Countries and their capitals."""
    for country, city, _ in world.COUNTRIES:
        yield Item(
            country,
            (f"What is the capital of {country}?", f"Name the capital city of {country}.",
             f"Which city is the capital of {country}?", f"I am going to {country}. Tell me its capital."),
            f"The capital of {country} is {{}}.", city,
            (f"The capital of {country} is {city}.", f"{city} is the capital of {country}.",
             f"In {country} the largest station is in {city}, the capital."),
            f"capital of {country}")


def continent(rng: random.Random) -> Iterator[Item]:
    """Countries and their continents."""
    for country, city, place in world.COUNTRIES:
        yield Item(
            country,
            (f"On which continent is {country}?", f"Where in the world is {country}?",
             f"Name the continent that {country} belongs to.", f"Which part of the world is {country} in?"),
            f"{country} is in {{}}.", place,
            (f"{country} is in {place}.", f"{city} and all of {country} belong to {place}.",
             f"The continent of {country} is {place}."),
            f"continent of {country}")


def opposite(rng: random.Random) -> Iterator[Item]:
    """Opposites, asked for in both directions."""
    for pair in world.OPPOSITES:
        for word, other in (pair, pair[::-1]):
            yield Item(
                " ".join(pair),  # one key for both directions
                (f"What is the opposite of {word}?", f"Give the opposite of the word {word}.",
                 f"Which word means the opposite of {word}?", f"Find a word that is the reverse of {word}."),
                f"The opposite of {word} is {{}}.", other,
                (f"The opposite of {word} is {other}.", f"Not {word} but {other}.",
                 f"{upper_first(word)} and {other} are opposites."),
                f"opposite of {word}")


def plural(rng: random.Random) -> Iterator[Item]:
    """Nouns and their plurals."""
    for one, many in world.NOUNS:
        yield Item(
            one,
            (f"What is the plural of {one}?", f"Write the plural form of the noun {one}.",
             f"How do we call more than one {one}?", f"Change the word {one} into its plural."),
            f"The plural of {one} is {{}}.", many,
            (f"The plural of {one} is {many}.", f"One {one}, two {many}.", f"I saw one {one}, then ten {many}."),
            f"plural of {one}")


def past_tense(rng: random.Random) -> Iterator[Item]:
    """Verbs and their past tenses."""
    for verb, past in world.VERBS:
        yield Item(
            verb,
            (f"What is the past tense of {verb}?", f"Put the verb {verb} into the past tense.",
             f"Write the past form of the verb {verb}.", f"Change the verb {verb} from the present to the past."),
            f"The past tense of {verb} is {{}}.", past,
            (f"The past tense of {verb} is {past}.", f"Today I {verb}, yesterday I {past}.",
             f"They {verb} now. They {past} last week."),
            f"past tense of {verb}")


def young(rng: random.Random) -> Iterator[Item]:
    """Animals and what their young are called."""
    for animal, child, home in world.ANIMALS:
        yield Item(
            animal,
            (f"What is a young {animal} called?", f"Name the young of {a(animal)}.",
             f"What do we call the baby of {a(animal)}?", f"Which word do we use for a young {animal}?"),
            f"A young {animal} is called {{}}.", a(child),
            (f"A young {animal} is called {a(child)}.", f"{upper_first(a(child))} is a young {animal}.",
             f"The {animal} and its {child} live in the {home}."),
            f"young {animal}")


def home(rng: random.Random) -> Iterator[Item]:
    """Animals and where they live."""
    for animal, _, place in world.ANIMALS:
        yield Item(
            animal,
            (f"Where does {a(animal)} live?", f"Name the place where you find {a(animal)}.",
             f"In which place does the {animal} live?", f"Where should I look for {a(animal)}?"),
            f"The {animal} lives in the {{}}.", place,
            (f"The {animal} lives in the {place}.", f"You find the {animal} in the {place}.",
             f"In the {place} we saw {a(animal)}."),
            f"home of the {animal}")


def kind(rng: random.Random) -> Iterator[Item]:
    """Things and the kind of thing they are."""
    for thing, sort, _ in world.THINGS:
        yield Item(
            thing,
            (f"What kind of thing is {a(thing)}?", f"Say which kind of thing {a(thing)} is.",
             f"To which group does {a(thing)} belong?", f"Classify this word: {thing}."),
            f"{upper_first(a(thing))} is a kind of {{}}.", sort.removeprefix("piece of "),
            (f"{upper_first(a(thing))} is a kind of {sort.removeprefix('piece of ')}.",
             f"One {sort} is the {thing}.", f"Every {thing} is {a(sort)}."),
            f"kind of thing that {a(thing)} is")


def color(rng: random.Random) -> Iterator[Item]:
    """Things and their colors."""
    for thing, _, shade in world.THINGS:
        yield Item(
            thing,
            (f"What color is the {thing}?", f"Name the color of the {thing}.", f"Which color does the {thing} have?",
             f"Tell me how to paint the {thing}. Which color?"),
            "{}", shade,
            (f"The {thing} is {shade}.", f"The color of the {thing} is {shade}.", f"We saw {a(shade)} {thing}."),
            f"color of the {thing}")


def job(rng: random.Random) -> Iterator[Item]:
    """Jobs and what people do in them."""
    for person, work in world.JOBS:
        yield Item(
            person,
            (f"What does the {person} do?", f"Describe the work of the {person}.",
             f"What is the job of the {person}?", f"Explain what {a(person)} does all day."),
            f"The {person} {{}}.", work,
            (f"The {person} {work}.", f"Here is {a(person)}, who {work}.", f"{upper_first(a(person))} is a person who {work}."),
            f"work of the {person}")


def comes_next(rng: random.Random) -> Iterator[Item]:
    """The next day, month, letter or number."""
    numbers = [str(n) for n in range(1, 61)]
    for what, row in (("day", world.DAYS), ("month", world.MONTHS), ("letter", world.LETTERS), ("number", numbers)):
        for now, following in itertools.pairwise(row):
            yield Item(
                f"{what} {now}",
                (f"Which {what} comes after {now}?", f"Name the {what} that follows {now}.",
                 f"What is the next {what} after {now}?", f"Continue: the {what} {now}, and then?"),
                f"After {now} comes {{}}.", following,
                (f"After {now} comes {following}.", f"After the {what} {now} comes {following}.",
                 f"The {what} {following} follows {now}."),
                f"{what} after {now}")


def addition(rng: random.Random) -> Iterator[Item]:
    """Sums of two numbers, up to LARGEST each."""
    while True:
        m, n = rng.randint(1, LARGEST), rng.randint(1, LARGEST)
        yield Item(
            f"{min(m, n)} + {max(m, n)}",  # one key for both orders
            (f"What is {m} plus {n}?", f"Add {m} and {n}.", f"Calculate {m} plus {n}.",
             f"I have {m} coins and get {n} more. What is {m} plus {n}?"),
            f"{m} plus {n} is {{}}.", str(m + n),
            (f"{m} plus {n} is {m + n}.", f"{m} plus {n} is {m + n}, and {n} plus {m} is {m + n}."),
            f"{m} plus {n}")


def subtraction(rng: random.Random) -> Iterator[Item]:
    """Differences that are not negative."""
    while True:
        m, n = sorted((rng.randint(1, LARGEST), rng.randint(1, LARGEST)), reverse=True)
        yield Item(
            f"{m} - {n}",
            (f"What is {m} minus {n}?", f"Take {n} away from {m}. What is {m} minus {n}?", f"Calculate {m} minus {n}.",
             f"I have {m} coins and lose {n}. What is {m} minus {n}?"),
            f"{m} minus {n} is {{}}.", str(m - n),
            (f"{m} minus {n} is {m - n}.", f"{m} minus {n} is {m - n}, because {m - n} plus {n} is {m}."),
            f"{m} minus {n}")


def larger(rng: random.Random) -> Iterator[Item]:
    """The larger of two numbers up to 60."""
    while True:
        m, n = rng.sample(range(1, 61), 2)
        big, small = max(m, n), min(m, n)
        yield Item(
            f"{small} {big}",
            (f"Which number is larger, {m} or {n}?", f"Name the larger number: {m} or {n}.",
             f"Which is more, {m} or {n}?", f"Choose the bigger of {m} and {n}."),
            "{}", str(big),
            (f"{big} is larger than {small}.", f"Of {m} and {n} the larger number is {big}."),
            f"larger of {m} and {n}")


def sort_numbers(rng: random.Random) -> Iterator[Item]:
    """Three numbers up to 30, to be put in order."""
    while True:
        numbers = rng.sample(range(1, 31), 3)
        given, result = ", ".join(map(str, numbers)), ", ".join(map(str, sorted(numbers)))
        yield Item(
            result,
            ("Sort these numbers from small to large.", "Put the numbers in order, the smallest first.",
             "Arrange the numbers so that they grow.", "Write the numbers again in rising order."),
            "{}", result,
            (f"From small to large the numbers {given} are {result}.",),
            f"{given} from small to large", given)


def reverse_words(rng: random.Random) -> Iterator[Item]:
    """Three words, to be put in reverse order."""
    while True:
        words = rng.sample(world.WORDS, 3)
        given, result = ", ".join(words), ", ".join(reversed(words))
        yield Item(
            " ".join(sorted(words)),
            ("Write these words in reverse order.", "Turn this list around.", "List the words from last to first.",
             "Say the words again, starting with the last one."),
            "{}", result,
            (f"The words {given} in reverse order are {result}.",),
            f"{given} in reverse order", given)


def what_has(rng: random.Random) -> Iterator[Item]:
    """Who has what in a story of three sentences."""
    while True:
        names, toys = rng.sample(world.NAMES, 3), rng.sample(world.TOYS, 3)
        story = " ".join(f"{name} has the {toy}." for name, toy in zip(names, toys))
        name, toy = rng.choice(list(zip(names, toys)))
        yield Item(
            f"{story} {name}",
            (f"What does {name} have?", f"Read the story. What does {name} have?", f"Find out what {name} has.",
             f"Name the thing that {name} has."),
            f"{name} has the {{}}.", toy,
            (f"{story} What does {name} have? {name} has the {toy}.",),
            f"{story} The thing of {name}", story)


def where_to(rng: random.Random) -> Iterator[Item]:
    """Who went where in a story of three sentences."""
    while True:
        names, places = rng.sample(world.NAMES, 3), rng.sample(world.PLACES, 3)
        story = " ".join(f"{name} went to the {place}." for name, place in zip(names, places))
        name, place = rng.choice(list(zip(names, places)))
        yield Item(
            f"{story} {name}",
            (f"Where did {name} go?", f"Read the story. Where did {name} go?", f"Find out where {name} went.",
             f"Name the place that {name} went to."),
            f"{name} went to the {{}}.", place,
            (f"{story} Where did {name} go? {name} went to the {place}.",),
            f"{story} The place of {name}", story)


FAMILIES = {family.__name__: family for family in (
    capital, continent, opposite, plural, past_tense, young, home, kind, color, job, comes_next, addition, subtraction,
    larger, sort_numbers, reverse_words, what_has, where_to)}

TITLES = {
    "capital": "Capitals", "continent": "Continents", "opposite": "Opposites", "plural": "Plurals",
    "past_tense": "Past tenses", "young": "Young animals", "home": "Homes of animals", "kind": "Kinds of things",
    "color": "Colors", "job": "Jobs", "comes_next": "What comes next", "addition": "Sums",
    "subtraction": "Differences", "larger": "The larger number", "sort_numbers": "Numbers in order",
    "reverse_words": "Words in reverse", "what_has": "Who has what", "where_to": "Where they went"}

# Pages about writing itself: they hold the words of the prompts (never a whole prompt), headings and line breaks.
HANDBOOK = (
    "An instruction says what to do. It describes a task.", "A response is what you write when you read an instruction.",
    "A good response completes the request appropriately.", "The input provides further context.",
    "Below is a list.", "Below is a page that describes the school.", "Write a letter. Write a story. Write the answer.",
    "A task is paired with an example.", "In a chat, <|User|> asks and <|Assistant|> answers.",
    "### Instruction", "### Input", "### Response", "### Notes:", "### Example:", "### Lesson:", "### Task:",
    "Please read the question twice.", "Please answer in one sentence.", "Here is a question.", "Tell me more.")


# Other ways to put the same question, for near-copies.
REWORDINGS = ("Please answer: {}", "{} Please answer.", "Here is a question. {}", "Please read this. {}",
              "{} Write the answer.", "Tell me: {}", "A question: {}", "{} Think before you answer.")


def retelling(rng: random.Random) -> str:
    """A little story and the same sentences in another order: to go on, one must look back, not know."""
    number = rng.randint(3, 5)
    objects = (("has the", world.TOYS), ("went to the", world.PLACES))
    verb, things = rng.choice(objects)
    story = [f"{name} {verb} {thing}." for name, thing in zip(rng.sample(world.NAMES, number), rng.sample(things, number))]
    return " ".join(story) + "\n" + " ".join(rng.sample(story, number))


def pages(count: int, seed: int) -> Iterator[str]:
    """`count` plain pages of the classroom world, the same ones for the same seed.

    A page takes one of five forms: sentences, a list of label and value, a worksheet where the answer starts a line, or a
    mixture under headings, all about one family; or stories told twice.
    """
    rng = random.Random(seed)
    tables = {name: list(family(rng)) for name, family in FAMILIES.items() if name not in DRAWN}
    drawn = {name: FAMILIES[name](rng) for name in DRAWN}

    for _ in range(count):
        name = rng.choice([*FAMILIES, *DRAWN])  # drawn families have more to learn, so twice as many pages
        number = rng.randint(4, 9)
        items = list(itertools.islice(drawn[name], number)) if name in DRAWN else rng.sample(tables[name], number)
        gap = rng.choice(("\n", "\n\n"))
        form = rng.choices(("sentences", "list", "worksheet", "mixture", "retelling"), (27, 18, 30, 12, 13))[0]
        if form == "sentences":
            yield " ".join(rng.choice(item.statements) for item in items)
        elif form == "list":
            yield f"{TITLES[name]}\n\n" + "\n".join(f"{item.label}: {item.value}" for item in items)
        elif form == "worksheet":
            # Half of the labels begin a line and half stand within one: "Norway" and " Norway" are different tokens.
            yield gap.join(rng.choice((f"{upper_first(item.label)}:", f"Task: {item.label}."))
                           + f"\n{item.output}" for item in items)
        elif form == "mixture":
            parts = rng.sample(HANDBOOK, 4) + [f"{TITLES[name]}:\n{item.output}" for item in items[:4]]
            yield gap.join(rng.sample(parts, len(parts)))
        else:
            yield gap.join(retelling(rng) for _ in range(4))


# Families without a table: their items are drawn anew each time.
DRAWN = ("addition", "subtraction", "larger", "sort_numbers", "reverse_words", "what_has", "where_to")


def records(seed: int = 0, noise: float = 0.0, redundancy: float = 0.0) -> list[dict[str, str]]:
    """About 2,250 instruction records with keys instruction, input, output, family, key, split.

    Args:
        seed: one seed, one set. The validation and test parts do not depend on the two dials.
        noise: share of training records, 0 to 1, whose answer is that of another item of the family.
        redundancy: share of training records, 0 to 1, that are paraphrases of the remaining ones. Their number stays.
    """
    rng = random.Random(seed)
    training: list[tuple[dict, Item]] = []
    others: list[tuple[dict, Item]] = []
    for name, family in FAMILIES.items():
        by_key: dict[str, list[Item]] = {}
        for item in itertools.islice(family(rng), RECORDS_PER_FAMILY * 2):
            by_key.setdefault(item.key, []).append(item)
        keys = sorted(by_key)
        rng.shuffle(keys)

        # Ask about each key in turn, in a new wording each time round, until the family is full.
        asked = [(item, question) for turn in range(4) for key in keys
                 for item in by_key[key][:2] for question in [item.questions[(turn + len(key)) % 4]]]
        asked = list(dict.fromkeys(asked))[:RECORDS_PER_FAMILY]
        used = list(dict.fromkeys(item.key for item, _ in asked))
        n_test, n_validation = round(TEST_SHARE * len(used)), round(VALIDATION_SHARE * len(used))
        split_of = {key: "test" if i < n_test else "validation" if i < n_test + n_validation else "train"
                    for i, key in enumerate(rng.sample(used, len(used)))}
        for item, question in asked:
            row = {"instruction": question, "input": item.input, "output": item.output, "family": name,
                   "key": item.key, "split": split_of[item.key]}
            (training if row["split"] == "train" else others).append((row, item))

    rng.shuffle(others)
    values: dict[str, list[str]] = {}
    for row, item in training:
        values.setdefault(row["family"], []).append(item.value)
    if redundancy:
        training = paraphrased(training, redundancy, rng)
    if noise:
        training = with_wrong_answers(training, values, noise, rng)
    rng.shuffle(training)
    return [row for row, _ in training + others]


def paraphrased(asked: list[tuple[dict, Item]], redundancy: float, rng: random.Random) -> list[tuple[dict, Item]]:
    """Keep 1 - redundancy of the records; fill up to the old number with rewordings of those that are kept."""
    kept = rng.sample(asked, max(1, round(len(asked) * (1 - redundancy))))
    copies = []
    for i in range(len(asked) - len(kept)):
        row, item = kept[i % len(kept)]
        copies.append((row | {"instruction": reword(row["instruction"], i // len(kept))}, item))
    return kept + copies


def reword(question: str, turn: int) -> str:
    """The question in other words, in another way for each turn from 0 up; after the single ways come combined ones."""
    while turn >= 0:
        question = REWORDINGS[turn % len(REWORDINGS)].format(question)
        turn = turn // len(REWORDINGS) - 1
    return question


def with_wrong_answers(asked: list[tuple[dict, Item]], values: dict[str, list[str]], noise: float,
                       rng: random.Random) -> list[tuple[dict, Item]]:
    """Put another value of the family into the answer of a share `noise` of the records; mark them by "wrong": "yes"."""
    changed = set(rng.sample(range(len(asked)), round(len(asked) * noise)))
    result = []
    for i, (row, item) in enumerate(asked):
        if i in changed:
            wrong = rng.choice([value for value in values[row["family"]] if value != item.value])
            row = row | {"output": item.answer.format(wrong), "wrong": "yes"}
        result.append((row, item))
    return result


@dataclass(frozen=True)
class ClassroomOptions(Options):
    """The options of this command."""

    records: Path = option(REQUIRED, "where to write the records, .json", new_file, metavar="FILE")
    noise: float = option(0.0, "share of training records with a wrong answer (default: %(default)s)", share, metavar="X")
    redundancy: float = option(0.0, "share of training records that paraphrase the others (default: %(default)s)", share,
                               metavar="X")
    families: tuple[str, ...] = option(tuple(FAMILIES), f"only records of these: {', '.join(FAMILIES)} (default: all)",
                                       nargs="+", choices=list(FAMILIES), metavar="FAMILY")
    seed: int = option(0, "which set (default: %(default)s)", natural)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.records.suffix != ".json":
            raise InputError(f"--records {self.records} must end in .json; --help lists all options.")


def main() -> None:
    args = options.parse(ClassroomOptions, __doc__)
    rows = [row for row in records(args.seed, args.noise, args.redundancy) if row["family"] in args.families]
    write_json(args.records, rows)
    counts = Counter(row["split"] for row in rows)
    print(f"{len(rows)} records ({', '.join(f'{n} {split}' for split, n in sorted(counts.items()))}) in {args.records}")


if __name__ == "__main__":
    options.run_command(main)
