import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from ch_instruct.support.html_page import SCRIPT, make_page, mark_differences

EVIL = """<script>document.title = "owned"</script><img src=x onerror='document.title = "owned"'> & "quoted" it's"""


def response(family: str, output: str, **answers: str) -> dict:
    return {"instruction": f"Ask for {output}", "input": "", "output": output, "family": family,
            "answers": {arm: {"answer": answer, "stopped": "..." not in answer} for arm, answer in answers.items()}}


RESPONSES = [response("b", "10 minus 2 is 8.", base="Ten ...", ntp="10 minus 2 is 7."),
             response("a", "44", base="44", ntp="44."),
             response(EVIL, EVIL, base=f"{EVIL} {EVIL}", ntp=EVIL)]


class Page(HTMLParser):
    """Every tag with its attributes, and the text of each table row."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.rows, self.in_table = [], [], True
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append("")
        self.in_table = tag not in ("script", "style")

    def handle_data(self, data: str) -> None:
        if self.rows and self.in_table:
            self.rows[-1] += data


@pytest.mark.parametrize(("answer", "expected", "marked"), [
    ("10 minus 2 is 8.", "10 minus 2 is 8.", "10 minus 2 is 8."),
    ("10 minus 2 is 7.", "10 minus 2 is 8.", "10 minus 2 is <del>8.</del> <ins>7.</ins>"),
    ("a b c", "a c", "a <ins>b</ins> c"),
    ("a c", "a b c", "a <del>b</del> c"),
    ("44", "Yes 44", "<del>Yes</del> 44"),
    ("", "44", "<del>44</del>"),
    ("one\ntwo", "one two", "one\ntwo"),  # spacing is kept, and no difference
    ("<b> & 1", "<b> 1", "&lt;b&gt; <ins>&amp;</ins> 1")])
def test_differences_are_marked_word_by_word(answer, expected, marked):
    assert mark_differences(answer, expected) == marked


def test_every_text_of_every_record_stands_in_the_table():
    page = Page(make_page(RESPONSES, EVIL))
    heading, *rows = page.rows
    assert heading.strip() == "#familyquestionexpectedbasentp" and len(rows) == 3
    assert "1bAsk for 10 minus 2 is 8." in rows[0] and rows[0].count("✗ wrong") == 2 and "did not stop" in rows[0]
    assert rows[1].count("✓ right") == 2  # a full stop makes no difference to exact match
    assert rows[2].startswith(f"3{EVIL}Ask for {EVIL}{EVIL}{EVIL}") and rows[2].count(EVIL) == 6


def test_an_answer_to_a_question_without_an_expected_one_is_neither_right_nor_wrong():
    open_question = response("a", "", base="<b>", ntp="Nothing ...")
    page = Page(make_page([*RESPONSES, open_question], "x"))
    assert page.rows[-1].split() == ["4aAsk", "for", "<b>Nothing", "...did", "not", "stop"]
    assert "base 33.3%, ntp 66.7%" in make_page([*RESPONSES, open_question], "x")  # of the three that have one
    assert "base 33.3%, ntp 66.7%" in make_page([*RESPONSES, RESPONSES[0]], "x")  # asked again, it counts once
    assert "none has an expected answer" in make_page([open_question], "x")


def test_another_wording_of_free_text_is_not_called_wrong():
    long = "The moon moves round the earth once a month and always shows it the same side."
    text = make_page([response("a", long, base=long.replace("always", "ever"), ntp=long)], "x")
    assert "✗ wrong" not in text and "other words, ROUGE-L 0.94" in text and "✓ right" in text
    assert "✗ wrong" in make_page([response("a", "Paris", base="Rome", ntp="Paris")], "x")


def test_answers_that_do_not_stop_fold_after_two_lines():
    short, lines, wide = "one\ntwo ...", "one\ntwo\nthree ...", "word " * 40 + "..."
    pages = [make_page([response("a", "44", base=answer)], "x") for answer in (short, lines, wide, lines.replace(" ...", ""))]
    assert ["<details>" in page for page in pages] == [False, True, True, False]  # the last one did stop
    assert "three" in pages[1]


def test_arms_can_be_sorted_by_rouge_l():
    text = make_page(RESPONSES, "x")
    assert '<select name="key"><option value="key">right and wrong</option><option value="rouge">ROUGE-L</option>' in text
    cells = [attributes for tag, attributes in Page(text).tags if tag == "td" and "data-arm" in attributes]
    assert len(cells) == 6 and cells[1]["data-rouge"] == "0.8000" and cells[3]["data-rouge"] == "1.0000"


def test_texts_stay_texts_and_nothing_is_fetched():
    text = make_page(RESPONSES, EVIL)
    tags = Page(text).tags
    assert [attributes for tag, attributes in tags if tag == "script"] == [{}]  # ours
    assert not {"img", "link", "iframe", "object", "base"} & {tag for tag, _ in tags}
    assert not any(name in ("src", "href") or name.startswith("on") for _, attributes in tags for name in attributes)
    assert not re.search(r"https?:|@import|url\(", text)
    (policy,) = [attributes["content"] for tag, attributes in tags if "http-equiv" in attributes]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-")


def test_without_families_there_is_no_column_for_them():
    plain = {key: value for key, value in RESPONSES[0].items() if key != "family"}
    assert "<th>family</th>" not in make_page([plain], "x") and "<th>family</th>" in make_page(RESPONSES, "x")


@pytest.mark.slow
def test_a_browser_filters_sorts_and_runs_no_script_of_an_answer(tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here (apt-get install chromium)")
    (tmp_path / "page.html").write_text(make_page(RESPONSES, "a run"), encoding="utf-8")
    # A reader's hands: every step notes which rows are shown. The page's own policy would forbid a second script.
    steps = """
    const seen = [], note = () => seen.push(rows.filter(r => !r.hidden).map(r => r.cells[0].textContent).join(""));
    for (const [name, value] of [["result", "wrong"], ["result", "right"], ["result", "endless"], ["result", ""],
                                 ["family", "a"], ["family", ""], ["text", "MINUS"], ["text", ""], ["arm", "ntp"]]) {
      form[name].value = value; show(); note(); }
    form.result.value = "wrong"; show(); note(); form.reset(); show();
    const [number, , , expected, base] = table.tHead.rows[0].cells;
    for (const heading of [expected, expected, base]) { heading.firstChild.click(); note(); }
    rows.find(row => row.cells[0].textContent === "1").cells[4].dataset.rouge = "9";
    form.key.value = "rouge"; form.key.onchange(); note();
    document.title += " seen " + seen.join(" ");
    """
    policy = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
    page = (tmp_path / "page.html").read_text()
    (tmp_path / "driven.html").write_text(policy.sub("", page).replace(SCRIPT, SCRIPT + steps))

    def dump(name: str) -> str:
        return subprocess.run([browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
                               f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / name).as_uri()],
                              capture_output=True, text=True, timeout=120).stdout

    shown = dump("page.html")
    assert "<title>Answers: a run</title>" in shown and "<form autocomplete" in shown  # our script ran, no other did
    driven = re.search(r"<title>Answers: a run seen (.*)</title>", dump("driven.html")).group(1)
    assert driven == "13 2 1 123 2 123 1 123 123 1 312 213 132 321"


def test_long_texts_fold_and_short_ones_do_not():
    long = " ".join(f"<{number}>" for number in range(300))
    text = make_page([response("a", "44", base="44", ntp=long)], "long")
    tags = [tag for tag, _ in Page(text).tags]
    assert tags.count("details") == tags.count("summary") == 1
    assert "(300 words)" in text and "&lt;299&gt;" in text and "<299>" not in text
    assert "<details>" not in make_page(RESPONSES, "short")
