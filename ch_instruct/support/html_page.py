"""All answers of a test as one page to read by eye: a single HTML file that asks nothing of any server.

A falling loss says nothing about answers, and a score says little. The page shows each question, the expected answer and
every arm's answer with the differences marked word by word. It can be sorted and filtered; without JavaScript it is a
plain table.
"""

import re
from difflib import SequenceMatcher
from html import escape
from statistics import fmean

from ch_instruct.prompts import question_text
from ch_instruct.records import different_questions
from ch_instruct.scoring import exact_match, rouge_l
from common.support.console import shorten
from common.support.local_server import only_script

STYLE = """
:root { color-scheme: light dark; font: 16px/1.45 system-ui, sans-serif; }
body { margin: 1.5rem; }
h1 { font-size: 1.4rem; margin: 0; }
form { display: flex; flex-wrap: wrap; gap: .5rem 1.2rem; align-items: center; margin: 1rem 0; }
form[hidden] { display: none; }
input, select, button { font: inherit; }
table { border-collapse: collapse; }
th, td { border: 1px solid #8886; padding: .4rem .6rem; text-align: left; vertical-align: top; }
td { white-space: pre-wrap; overflow-wrap: anywhere; min-width: 3rem; max-width: 26rem; }
thead th { position: sticky; top: 0; background: Canvas; box-shadow: 0 1px #888; }
th button { border: 0; padding: 0; background: none; color: inherit; font-weight: bold; cursor: pointer; }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
tbody tr:nth-child(even) { background: #8881; }
td.wrong { border-left: .35rem double #888; }
.verdict { display: block; font-size: .8rem; }
.right .verdict { color: light-dark(#1a7f37, #6bd68a); }
.wrong .verdict { color: light-dark(#b3261e, #ff9d94); font-weight: bold; }
summary { cursor: pointer; }
details[open] summary { color: #888; }
ins { text-decoration: underline 2px; font-weight: bold; }
del { opacity: .65; }
.number, .family { white-space: nowrap; }
.number { text-align: right; }
@media print { form { display: none; } thead th { position: static; } }
"""

MOST_CHARACTERS = 600  # of a text that is shown whole; a longer one is folded
MOST_ENDLESS = 2, 120  # lines and characters of an answer that did not stop
FREE_TEXT = 12  # words: a longer expected answer has many right wordings, so another one is not called wrong

RESULTS = [("", "all"), ("right", "all right"), ("wrong", "some wrong"), ("differ", "arms differ"), ("endless", "did not stop")]

# Rows are hidden and reordered, nothing is written into the page: what stands in it stays text.
SCRIPT = """
const table = document.querySelector("#answers"), body = table.tBodies[0], rows = [...body.rows];
const form = document.forms[0];

function show() {
  const text = form.text.value.toLowerCase(), arm = form.arm.value, result = form.result.value;
  let count = 0;
  for (const cell of table.querySelectorAll("[data-arm]")) cell.hidden = arm !== "" && cell.dataset.arm !== arm;
  for (const row of rows) {
    const answers = [...row.cells].filter(cell => "arm" in cell.dataset && !cell.hidden);
    const [right, wrong] = ["right", "wrong"].map(kind => answers.filter(cell => cell.className === kind).length);
    const fits = { "": true, right: right === answers.length, wrong: wrong > 0, differ: right > 0 && wrong > 0,
                   endless: answers.some(cell => cell.dataset.stopped === "no") }[result];
    row.hidden = !(fits && row.textContent.toLowerCase().includes(text)
                   && (form.family.value === "" || row.dataset.family === form.family.value));
    count += !row.hidden;
  }
  form.count.value = `${count} of ${rows.length} questions`;
}

function sort(heading) {
  const down = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1, column = heading.cellIndex;
  const key = row => row.cells[column].dataset[form.key.value] ?? row.cells[column].textContent;
  rows.sort((a, b) => down * key(a).localeCompare(key(b), undefined, { numeric: true }));
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", down === 1 ? "ascending" : "descending");
  body.append(...rows);
}

for (const heading of table.tHead.rows[0].cells) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...heading.childNodes);
  button.onclick = () => sort(heading);
  heading.append(button);
}
form.key.onchange = () => {
  const sorted = table.tHead.querySelector("[aria-sort]");
  if (sorted) { sorted.removeAttribute("aria-sort"); sort(sorted); }
};
form.oninput = form.onreset = () => setTimeout(show);
form.hidden = false;
show();
"""


def make_page(responses: list[dict], title: str) -> str:
    """The page as text. Whatever stands in the responses is escaped.

    Args:
        responses: as in responses.json: records with "answers", arm -> {"answer", "stopped"}; the same arms in each.
        title: what the answers are of; a run folder, say.

    An answer to a question whose "output" is empty is neither right nor wrong.
    """
    arms = list(responses[0]["answers"])
    families = sorted({r["family"] for r in responses if "family" in r})
    known = different_questions([r for r in responses if r["output"].strip()])  # as everywhere, each question counts once
    right = {arm: fmean([exact_match(r["answers"][arm]["answer"], r["output"]) for r in known]) for arm in arms if known}
    summary = ", ".join(f"{escape(arm)} {share:.1%}" for arm, share in right.items()) or "none has an expected answer"
    headings = "".join(f"<th>{name}</th>" for name in ("#", *(["family"] if families else []), "question", "expected"))
    headings += "".join(f'<th data-arm="{escape(arm)}">{escape(arm)}</th>' for arm in arms)
    rows = "\n".join(_row(number, response, bool(families)) for number, response in enumerate(responses, 1))
    # The browser is told to fetch nothing and to run this one script only.
    policy = f"default-src 'none'; style-src 'unsafe-inline'; {only_script(SCRIPT)}"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>Answers: {escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>Answers: {escape(title)}</h1>
<p>{len(responses)} questions; right by exact match: {summary}. Where the expected answer has more than {FREE_TEXT} words,
another wording is not called wrong. In an answer, <ins>underlined</ins> words are not in the expected one,
<del>struck out</del> words are in the expected one alone.</p>
<form hidden autocomplete="off">
<label>Text <input name="text" type="search"></label>
<label>Family {_choice("family", [("", "all"), *((family, family) for family in families)])}</label>
<label>Arm {_choice("arm", [("", "all"), *((arm, arm) for arm in arms)])}</label>
<label>Answers {_choice("result", RESULTS)}</label>
<label>Sort arms by {_choice("key", [("key", "right and wrong"), ("rouge", "ROUGE-L")])}</label>
<button type="reset">Show all</button>
<output name="count"></output>
</form>
<table id="answers">
<thead><tr>{headings}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
</main>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _choice(name: str, values: list[tuple[str, str]]) -> str:
    chosen = "".join(f'<option value="{escape(value)}">{escape(text)}</option>' for value, text in values)
    return f'<select name="{name}">{chosen}</select>'


def _row(number: int, response: dict, with_family: bool) -> str:
    family = escape(response.get("family", ""))
    question, expected = question_text(response, "\n"), response["output"].strip()
    cells = [f'<td class="number">{number}</td>', *([f'<td class="family">{family}</td>'] if with_family else []),
             *(f"<td>{_fold(escape(text), text)}</td>" for text in (question, expected))]
    for arm, given in response["answers"].items():
        answer, right = given["answer"], exact_match(given["answer"], expected)
        free = not right and len(expected.split()) > FREE_TEXT
        kind = "unknown" if not expected or free else "right" if right else "wrong"
        rouge = rouge_l(answer, expected)
        told = [{"right": "✓ right", "wrong": "✗ wrong", "unknown": "other words" if free else ""}[kind],
                f"ROUGE-L {rouge:.2f}" if expected and not right else "", "" if given["stopped"] else "did not stop"]
        # Wrong ones first, the worst of all at the top; last those that cannot be wrong.
        key = right + rouge if expected else 3.0
        limits = (None, MOST_CHARACTERS) if given["stopped"] else MOST_ENDLESS
        cells.append(f'<td class="{kind}" data-arm="{escape(arm)}" data-key="{key:.4f}" data-rouge="{rouge:.4f}" '
                     f'data-stopped="{"yes" if given["stopped"] else "no"}">'
                     f'{_fold(mark_differences(answer, expected) if expected else escape(answer), answer, *limits)}'
                     f'<span class="verdict">{", ".join(filter(None, told))}</span></td>')
    return f'<tr data-family="{family}">{"".join(cells)}</tr>'


def _fold(html: str, text: str, lines: int | None = None, characters: int = MOST_CHARACTERS) -> str:
    """A text of more than so many lines or characters folded behind its beginning, to be opened by a click."""
    if len(text) <= characters and (lines is None or len(text.strip().splitlines()) <= lines):
        return html
    beginning = f'{escape(shorten(text, min(240, characters)))} <span class="number">({len(text.split()):,} words)</span>'
    return f"<details><summary>{beginning}</summary>{html}</details>"


def mark_differences(answer: str, expected: str) -> str:
    """The answer as HTML: words that are not expected within <ins>, expected words that are missing within <del>."""
    ours, theirs = (re.findall(r"\s*\S+", text.rstrip()) for text in (answer, expected))  # a word with the space before it
    matcher = SequenceMatcher(None, [word.strip() for word in theirs], [word.strip() for word in ours], autojunk=False)
    parts = []
    for kind, i, j, m, n in matcher.get_opcodes():
        for tag, words in [("", ours[m:n])] if kind == "equal" else [("del", theirs[i:j]), ("ins", ours[m:n])]:
            text = "".join(words)
            bare = text.lstrip()
            if bare:
                space = text[:len(text) - len(bare)] or " "  # the first word of a text has none
                parts.append(space + (f"<{tag}>{escape(bare)}</{tag}>" if tag else escape(bare)))
    return "".join(parts).strip()
