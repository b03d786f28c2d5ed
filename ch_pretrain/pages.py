"""Pages to pretrain on, which a model has to read, because the page decides.

In experiments, models learned to use their prompt from texts on which reading pays (Chan et al., 2022). So every page draws its
own headings and way of asking and, for each of its families, its own form of answer. Some facts hold on one page only. There
are six kinds of pages. The shares are shares of tokens:

- known (27 %): facts of the classroom as sentences, lists, worksheets
- interviews (38 %): questions about one to three families
- look-ups (17 %): questions about a story or a table that is true on this page only
- retelling (5 %), tables (3 %), copies (10 %): the same words again, in another order or in the same one

The first pages, the *opening*, are mostly of the last three kinds. A model cannot know them; it can only look back.

The wording of nearly every test question occurs here, under other headings, and its answer occurs in other forms. This is on
purpose: knowledge comes from pages, the form of an answer from records. Two families, `HELD_OUT`, are in no interview. If
examples help with them too, the model has learned to read, and not only to recognise a family.

    python ch_pretrain/pages.py --count 5
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ch_pretrain import world
from ch_pretrain.classroom import DRAWN, FAMILIES, HANDBOOK, REWORDINGS, TITLES, Item, upper_first
from common.support import options
from common.support.options import Options, natural, option, whole

HELD_OUT = ("past_tense", "kind")  # known, but never in an interview
INTERVIEWED = [name for name in [*FAMILIES, *DRAWN] if name not in HELD_OUT]  # drawn ones have more to learn: twice
OPENING_SHARE = 0.1  # of all pages

NAMES = world.NAMES + ("Adam Bella Carl Dora Erik Fanny Georg Hanna Ivan Julia Karl Lina Max Nora Otto Petra Quinn Ruth "
                       "Sven Thea Uwe Vera Will Zoe Ali Bo Cem Dana Ella Finn").split()
COLORS = sorted({color for _, _, color in world.THINGS})
THINGS = world.TOYS + [thing for thing, _, _ in world.THINGS] + world.WORDS
ANIMALS = [animal for animal, _, _ in world.ANIMALS]
COUNTRIES = [country for country, _, _ in world.COUNTRIES]
NUMBERS = [str(n) for n in range(1, 61)]
WORDS = sorted({word for row in (world.OPPOSITES, world.NOUNS, world.VERBS, world.ANIMALS, world.THINGS, world.COUNTRIES)
                for entry in row for word in entry if " " not in word}
               | {*NAMES, *world.TOYS, *world.WORDS, *world.PLACES, *world.DAYS, *world.MONTHS})

# Facts of one page: how they are told, how they are asked for, and what they can be.
RELATIONS = [(f"{{}} {told} {{}}.", questions, values) for told, questions, values in (
    ("has the", ("What does {} have?", "Find out what {} has.", "Name the thing that {} has."), THINGS),
    ("went to the", ("Where did {} go?", "Find out where {} went.", "Name the place that {} went to."), world.PLACES),
    ("likes the", ("What does {} like?", "Say what {} likes."), THINGS),
    ("found the", ("What did {} find?", "Name what {} found."), THINGS),
    ("lost the", ("What did {} lose?", "Which thing did {} lose?"), THINGS),
    ("wants the", ("What does {} want?", "Tell me what {} wants."), THINGS),
    ("bought the", ("What did {} buy?", "Find out what {} bought."), THINGS),
    ("hid the", ("What did {} hide?", "Name what {} hid."), THINGS),
    ("drew the", ("What did {} draw?", "Name the animal that {} drew."), ANIMALS),
    ("saw the", ("What did {} see?", "Find out what {} saw."), ANIMALS),
    ("feeds the", ("What does {} feed?", "Which animal does {} feed?"), ANIMALS),
    ("lives in the", ("Where does {} live?", "Name the place where {} lives."), world.PLACES),
    ("works in the", ("Where does {} work?", "Where is the work of {}?"), world.PLACES),
    ("waits in the", ("Where does {} wait?", "Where should I look for {}?"), world.PLACES),
    ("came from the", ("Where did {} come from?", "Name the place {} came from."), world.PLACES),
    ("comes from", ("Which country does {} come from?", "Name the country of {}."), COUNTRIES),
    ("is called", ("What is {} called?", "Tell me what {} is called."), NAMES),
    ("paints in", ("Which color does {} use?", "In which color does {} paint?"), COLORS),
    ("has number", ("What number does {} have?", "Tell me the number of {}."), NUMBERS),
    ("is next to", ("Who is next to {}?", "Name the one next to {}."), NAMES),
    ("comes on", ("When does {} come?", "On which day does {} come?"), world.DAYS),
    ("left in", ("When did {} leave?", "In which month did {} leave?"), world.MONTHS),
    ("chose the letter", ("Which letter did {} choose?", "Name the letter of {}."), world.LETTERS))]

# The words of the prompts are among the headings, in any role. APART never stand on one page: that would be a prompt.
HEADINGS = {
    "question": "Question Task Instruction Instruction Exercise Request Problem Prompt User Asked Q Riddle Quiz Order".split(),
    "input": "Input Input Text Story Context Given Data Facts Page Words Table Note".split(),
    "answer": "Answer Response Response Reply Solution Result Output Assistant A Teacher Said Notes Lesson Key".split()}
APART = ({"Instruction", "Response"}, {"User", "Assistant"})
MARKS = {("### ", ":"): 40, ("", ":"): 25, ("<|", "|>"): 8, ("## ", ""): 5, ("**", "**"): 4, ("[", "]"): 4, ("# ", ":"): 4,
         ("== ", " =="): 3, ("- ", " -"): 3, ("", " >"): 3, ("(", ")"): 2}
OF_THE_PROMPT = ("Below is an instruction that describes a task.", "Write a response that appropriately completes the request.",
                 "Below is an instruction that describes a task, paired with an input that provides further context.")
PREAMBLES = [sentence for sentence in HANDBOOK if not set("#<") & set(sentence)] + [
    "This is a page of the school.", "Here are questions with answers.", "Read and learn.", "Answer in the same way.",
    "Below is a task, paired with an example.", "Write what is asked for.", "Each request is completed below.",
    "The answers follow the questions.", "Look at the page.", "Write a reply that completes the task.",
    "Here is further context.", "An input provides the words.", "Go on like this."]
BEFORE = ("Answer: ", "I think: ", "So: ", "Well, ", "Yes: ", "- ", "* ", "-> ", "> ", "Listen: ", "It is this: ", "= ", "1. ")
AFTER = ("!", "...", " That is all.", " I am sure.", ";", " Good.", " And you?", " Thank you.", " <-", " /", " Right?",
         " The end.")
AROUND = (("[", "]"), ("(", ")"), ('"', '"'), ("**", "**"), ("<", ">"), ("_", "_"), ("{", "}"), ("| ", " |"))

# Forms of an answer, and how often a page draws them. A record's own form is not the likeliest: one cannot know it unread.
FORMS = {"own": 9, "value": 37, "label": 19, "statement": 26, "other": 15}
OTHER_FORMS = ("It is {1}.", "That is {1}.", "{1} ({0})", "{0} = {1}", "{0} -> {1}", "{1}, {1}", "It must be {1}, I think.")


class Source:
    """Where items come from: `item(name)` draws one of a family."""

    def __init__(self, rng: random.Random):
        self.rng = rng
        self.tables = {name: list(family(rng)) for name, family in FAMILIES.items() if name not in DRAWN}
        self.drawn = {name: FAMILIES[name](rng) for name in DRAWN}

    def item(self, name: str) -> Item:
        """Any item of the family."""
        return next(self.drawn[name]) if name in DRAWN else self.rng.choice(self.tables[name])


def draw(rng: random.Random, weights: dict):
    """One key of `weights`, a heavy one more often."""
    return rng.choices([*weights], [*weights.values()])[0]


class Layout:
    """How one page looks: its headings, its line breaks, its preamble."""

    def __init__(self, rng: random.Random):
        # Mostly a word in its usual role, else any word in any role.
        any_word = [word for words in HEADINGS.values() for word in words]
        while True:
            roles = {role: rng.choice(words if rng.random() < 0.6 else any_word) for role, words in HEADINGS.items()}
            if len(set(roles.values())) == 3 and not any(pair <= set(roles.values()) for pair in APART):
                break
        left, right = draw(rng, MARKS)
        usual = left == "### "
        end = "\n" if rng.random() < (0.9 if usual else 0.35) else " "
        self.heads = {role: f"{left}{word}{right}{end}" for role, word in roles.items()}
        if rng.random() < 0.08:
            self.heads = dict.fromkeys(roles, "")
        self.gap = "\n\n" if rng.random() < (0.85 if usual else 0.4) else "\n"
        self.given_first = rng.random() < 0.25
        self.preamble = self.draw_preamble(rng) if rng.random() < 0.6 else ""
        self.repeated = rng.random() < 0.5  # in front of every block, or once

    @staticmethod
    def draw_preamble(rng: random.Random) -> str:
        """One or two sentences, one of them perhaps, but never two, of the prompt's own."""
        sentences = rng.sample(PREAMBLES, rng.randint(1, 2))
        if rng.random() < 0.4:
            sentences[rng.randrange(len(sentences))] = rng.choice(OF_THE_PROMPT)
        return " ".join(sentences) + rng.choice(("\n\n", "\n\n", "\n"))

    def page(self, blocks: list[tuple[str, str, str]]) -> str:
        """Blocks of question, answer, and what is given with the question ("" for nothing), one below the other."""
        texts: list[str] = []
        for question, answer, given in blocks:
            asked = [self.heads["question"] + question] + ([self.heads["input"] + given] if given else [])
            text = self.gap.join([*(asked[::-1] if self.given_first else asked), self.heads["answer"] + answer])
            texts.append(self.preamble + text if self.repeated or not texts else text)
        return "\n\n".join(texts)


def decoration(rng: random.Random) -> tuple[str, str]:
    """What this page puts before and after each answer; often nothing."""
    if rng.random() < 0.1:
        return rng.choice(AROUND)
    before = after = ""
    if rng.random() < 0.25:
        before = rng.choice(BEFORE) if rng.random() < 0.7 else upper_first(rng.choice(WORDS)) + rng.choice((": ", ", ", ". "))
    if rng.random() < 0.25:
        after = rng.choice(AFTER) if rng.random() < 0.7 else rng.choice((" ", " - ", ", ")) + rng.choice(WORDS)
    return before, after


def draw_form(rng: random.Random, sample: Item) -> Callable[[Item], str]:
    """One form of answer, the same for all items of the family that `sample` is of."""
    before, after = decoration(rng)
    others = [i for i, text in enumerate(sample.statements) if text != sample.output and not is_story(sample)]
    weights = {kind: weight for kind, weight in FORMS.items()
               if not (kind == "value" and sample.output == sample.value) and not (kind == "statement" and not others)}
    kind, other, full_stop = draw(rng, weights), rng.choice(OTHER_FORMS), rng.random() < 0.2
    statement = rng.choice(others) if others else 0

    def answer(item: Item) -> str:
        label = short_label(item)
        text = {"own": item.output, "value": item.value + "." * full_stop, "label": f"{upper_first(label)}: {item.value}",
                "statement": item.statements[statement], "other": other.format(label, item.value)}[kind]
        return before + text + after

    return answer


def is_story(item: Item) -> bool:
    """Whether the item's statement tells a whole story before its answer."""
    return bool(item.input) and item.statements[0].startswith(item.input)


def short_label(item: Item) -> str:
    """The label without what is given with the question."""
    return item.label.removeprefix(item.input).strip()


def sentence(rng: random.Random, item: Item) -> str:
    """A sentence that states the item, but not in the form of a record."""
    return rng.choice([text for text in item.statements if text != item.output])


def known(rng: random.Random, source: Source) -> str:
    """Items of one family: sentences, a list of label and value, a worksheet, or a mixture under headings.

    A worksheet's answer starts a line, and so does the subject in some lists, because "Paris" there and " Paris" within a line
    are different tokens. No sentence has the form of a record: that is to be read off examples, or to be learnt from records.
    """
    name = rng.choice([*FAMILIES, *DRAWN])
    items = [source.item(name) for _ in range(rng.randint(4, 9))]
    form, gap = draw(rng, {"sentences": 31, "list": 21, "worksheet": 34, "mixture": 14}), rng.choice(("\n", "\n\n"))
    if form == "sentences":
        return " ".join(sentence(rng, item) for item in items)
    if form == "list":
        short = rng.random() < 0.4  # "Norway: Europe" under the title
        return f"{TITLES[name]}\n\n" + "\n".join(
            f"{item.key if short and item.label.endswith(item.key) else item.label}: {item.value}" for item in items)
    if form == "worksheet":
        return gap.join(rng.choice((f"{upper_first(item.label)}:", f"Task: {item.label}.")) + f"\n{item.value}"
                        for item in items)
    parts = rng.sample(PREAMBLES, 3) + [f"{TITLES[name]}:\n{sentence(rng, item)}" for item in items[:4]]
    return gap.join(rng.sample(parts, len(parts)))


def interview(rng: random.Random, source: Source) -> str:
    """Questions about one to three families, each with its own form of answer on this page."""
    names = list(dict.fromkeys(rng.choices(INTERVIEWED, k=draw(rng, {1: 40, 2: 40, 3: 20}))))
    forms = {name: draw_form(rng, source.item(name)) for name in names}
    asking = draw(rng, {"any": 60, "one": 20, "label": 20})  # any wording, the same wording each time, or the bare label
    wording, around = rng.randrange(4), rng.choice(REWORDINGS) if rng.random() < 0.12 else "{}"
    blocks: list[tuple[str, str, str]] = []
    asked: list[tuple[str, Item]] = []
    while not blocks or rng.random() > 0.25:
        if asked and rng.random() < 0.12:  # once more
            name, item = rng.choice(asked)
        else:
            name = rng.choice(names)
            item = source.item(name)
        asked.append((name, item))
        question = (upper_first(short_label(item)) if asking == "label"
                    else around.format(item.questions[wording if asking == "one" else rng.randrange(4)]))
        blocks.append((question, forms[name](item), item.input))
    return Layout(rng).page(blocks)


def look_up(rng: random.Random, source: Source) -> str:
    """Questions about facts of this page, no question twice: one story for all of them, or a new one for each."""
    statement, questions, values = rng.choice(RELATIONS)
    (before, after), layout = decoration(rng), Layout(rng)
    row = rng.choice(("{}: {}", "{} - {}", "{} = {}", "{} {}")) if rng.random() < 0.2 else statement
    form = draw(rng, {"value": 48, "statement": 32, "label": 20})
    question, subjects = rng.choice(questions) if rng.random() < 0.4 else None, rng.choice((NAMES, NAMES, NAMES, COUNTRIES))

    def story() -> tuple[list[tuple[str, str]], str]:
        number = rng.randint(2, 5)
        facts = list(zip(rng.sample(subjects, number), rng.sample(values, number)))
        return facts, ("\n" if row != statement else " ").join(row.format(*fact) for fact in facts)

    def block(who: str, what: str, given: str) -> tuple[str, str, str]:
        text = {"value": what, "statement": statement.format(who, what), "label": f"{who}: {what}"}[form]
        return (question or rng.choice(questions)).format(who), before + text + after, given

    if rng.random() < 0.4:
        facts, told = story()
        return f"{told}\n\n" + layout.page([block(*fact, "") for fact in rng.sample(facts, len(facts))])
    blocks: list[tuple[str, str, str]] = []
    while not blocks or rng.random() > 0.25:
        facts, told = story()
        blocks.append(block(*rng.choice(facts), told))
    return layout.page(blocks)


def retelling(rng: random.Random, source: Source) -> str:
    """A story, told again and again in other orders."""
    statement, _, values = rng.choice(RELATIONS)
    number, gap = rng.randint(2, 6), rng.choice((" ", "\n"))
    story = [statement.format(*fact) for fact in zip(rng.sample(NAMES, number), rng.sample(values, number))]
    return rng.choice(("\n", "\n\n")).join(gap.join(rng.sample(story, number)) for _ in range(rng.randint(2, 4)))


def table(rng: random.Random, source: Source) -> str:
    """Pairs of words that belong together on this page, again and again in other orders."""
    number, link, gap = rng.randint(2, 8), rng.choice((": ", " ", " - ", " = ", " -> ")), rng.choice(("\n", "\n", "; "))
    rows = [link.join(pair) for pair in zip(rng.sample(WORDS, number), rng.sample(WORDS, number))]
    return "\n\n".join(gap.join(rng.sample(rows, number)) for _ in range(rng.randint(2, 4)))


def copies(rng: random.Random, source: Source) -> str:
    """Words in no order, and the same again and again: a short list more often, so that copying is learnt from easy to hard."""
    number = int(2 * 16 ** rng.random())  # 2 to 31, short ones as often as long ones
    text = rng.choice((" ", " ", ", ", "\n")).join(rng.choices(rng.choice((WORDS, THINGS)), k=number))
    return rng.choice(("\n", " ")).join([text] * max(2, 64 // number))


# Shares of pages, which give the shares of tokens above: pages are not all of one length.
MIX = {known: 36, interview: 34, look_up: 14, retelling: 6, table: 3, copies: 7}
OPENING = {known: 20, retelling: 18, table: 23, copies: 39}


def pages(count: int, seed: int) -> Iterator[str]:
    """`count` pages, the same ones for the same seed, the opening first."""
    rng = random.Random(f"pages {seed}")
    source, opening = Source(rng), round(OPENING_SHARE * count)
    for mix, number in ((OPENING, opening), (MIX, count - opening)):
        for _ in range(number):
            yield draw(rng, mix)(rng, source)


@dataclass(frozen=True)
class PagesOptions(Options):
    """The options of this command."""

    count: int = option(12, "how many pages (default: %(default)s)", whole, metavar="N")
    seed: int = option(0, "which ones (default: %(default)s)", natural)


def main() -> None:
    args = options.parse(PagesOptions, __doc__)
    print("\n\n----------\n\n".join(pages(args.count, args.seed)))


if __name__ == "__main__":
    options.run_command(main)
