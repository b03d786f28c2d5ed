"""The arena by plain requests, and by clicking in a real browser where there is one."""

import http.client
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlencode

import pytest
import torch

from ch_instruct.encoding import encode_prompt
from ch_instruct.evaluation.arena import MOST_WAITING, Arena, answerer, load_votes, pages
from ch_instruct.evaluation.arena_pages import ALLOWED, Battle, battle_page, ratings_page
from ch_instruct.evaluation.arena_pages import SCRIPT as OURS
from ch_instruct.evaluation.ratings import Rating, rate
from common.pretrained import CLASSROOM_FOLDER, save_pretrained
from common.sampling import Sampling
from common.support.files import InputError
from common.support.local_server import MOST_BYTES, LocalServer
from common.tokenizer import Tokenizer
from tests.conftest import ENVIRONMENT, assert_refused
from tests.models import make_model
from tests.started import start, told

SCRIPT = "<script>document.title = 'taken'</script><img src=x onerror=\"document.title='taken'\">"
QUESTIONS = [{"instruction": "Add.", "input": "1 2", "output": "3"}, {"instruction": "Say hi.", "output": "Hi"}]
# With the names behind the answers known, a vote for "good" is a vote for good.
ANSWERERS = {"good": lambda record: f"A good answer to {record['instruction']}", "bad": lambda record: SCRIPT}


@pytest.fixture
def serve(tmp_path) -> Iterator[Callable[..., LocalServer]]:
    """Start an arena; the votes are in tmp_path / votes.jsonl."""
    running = []

    def start(answerers: dict = ANSWERERS, questions: list = QUESTIONS) -> LocalServer:
        arena = Arena(answerers, load_votes(tmp_path / "votes.jsonl"), questions)
        server = LocalServer(pages(arena), "127.0.0.1", 0, ALLOWED)
        server.arena = arena
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        running.append((server, thread))
        return server

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


def request(server: LocalServer, method: str, path: str, form: dict | None = None, **headers: str) -> tuple[int, str, dict]:
    """One request as a browser on this machine sends it; returns status, page and headers."""
    host = f"127.0.0.1:{server.server_port}"
    connection = http.client.HTTPConnection(host)
    connection.request(method, path, urlencode(form or {}) if method == "POST" else None,
                       {"Host": host, "Origin": f"http://{host}"} | headers)
    answer = connection.getresponse()
    found = answer.status, answer.read().decode(), dict(answer.getheaders())
    connection.close()
    return found


def ask(server: LocalServer, **form: str) -> str:
    """Ask, and return the path of the battle."""
    status, _, headers = request(server, "POST", "/ask", form)
    assert status == 303
    return headers["Location"]


def vote(server: LocalServer, battle: str, kind: str, **headers: str) -> int:
    return request(server, "POST", "/vote", {"battle": battle.removeprefix("/battle/"), "vote": kind}, **headers)[0]


def side_of(server: LocalServer, battle: str, name: str) -> str:
    names = server.arena.battles[battle.removeprefix("/battle/")].names
    return next(side for side in names if names[side] == name)


def test_pages_show_short_names_and_votes_keep_whole_ones():
    names = {"left": "runs/ch_instruct/001", "right": "runs/ch_sftmix/001"}
    shown = battle_page("x", Battle("a", names, {"left": "b", "right": "c"}, vote="left"), False)
    assert "<b>ch_instruct/001</b>" in shown and 'title="runs/ch_sftmix/001"><b>ch_sftmix/001</b>' in shown
    rated = ratings_page([Rating(name, 1000, 990, 1010, 1, 1, 1) for name in (*names.values(), "gpt2")], 3)
    assert ">ch_instruct/001</td>" in rated and ">gpt2</td>" in rated


def test_names_are_shown_after_the_vote_and_not_before(serve, tmp_path):
    server = serve({"runs/model-one": lambda record: "yes", "runs/model-two": lambda record: "no"})
    battle = ask(server, question="Is it\r\nso?")
    _, page, _ = request(server, "GET", battle)
    assert "Is it\nso?" in page and ">yes<" in page and ">no<" in page and "model-" not in page
    assert vote(server, battle, "both bad") == 303
    _, page, _ = request(server, "GET", battle)
    assert "runs/model-one" in page and "runs/model-two" in page and "You voted: <b>Both are bad</b>" in page
    [entry] = load_votes(tmp_path / "votes.jsonl").entries
    assert entry["vote"] == "both bad" and entry["question"] == "Is it\nso?" and entry["time"].startswith("20")
    assert {entry["left"]: entry["left_answer"], entry["right"]: entry["right_answer"]} == {
        "runs/model-one": "yes", "runs/model-two": "no"}


@pytest.mark.slow
def test_sides_and_pairs_are_drawn(serve):
    server = serve({name: lambda record: "x" for name in "abc"})
    seen = {tuple(server.arena.battles[ask(server, question="?")[8:]].names.values()) for _ in range(60)}
    assert len(seen) > 4 and all(left != right for left, right in seen)


def test_a_battle_takes_one_vote(serve):
    server = serve()
    battle = ask(server, question="?")
    assert [vote(server, battle, kind) for kind in ("left", "right", "right")] == [303, 303, 303]
    assert [entry["vote"] for entry in server.arena.votes.entries] == ["left"]


def test_votes_survive_a_restart(serve):
    server = serve()
    for _ in range(3):
        battle = ask(server, question="?")
        vote(server, battle, side_of(server, battle, "good"))
    again = serve({"good": str, "third": str})
    _, page, _ = request(again, "GET", "/ratings")
    assert "Ratings from 3 votes" in page and page.index("good") < page.index("bad</td>")
    assert f"<b>{rate(again.arena.votes.entries)[0].rating:.0f}</b>" in page


def test_questions_of_a_file_are_asked_in_turn(serve):
    server = serve()
    asked = [server.arena.battles[ask(server, next="1", question="")[8:]].question for _ in range(3)]
    assert asked == ["Add.\n\n1 2", "Say hi.", "Add.\n\n1 2"]
    vote(server, ask(server, next="1"), "tie")
    _, page, _ = request(serve(), "GET", "/")
    assert "Next question from the file" in page
    assert serve().arena.next_question() == QUESTIONS[0]  # "Say hi." has a vote already
    assert "Next question" not in request(serve(questions=[]), "GET", "/")[1]


def test_an_answer_stays_text(serve):
    server = serve({"<b>good</b>": lambda record: "x", "bad": lambda record: SCRIPT})
    battle = ask(server, question="<i>?</i>")
    vote(server, battle, "tie")
    for path in (battle, "/ratings"):
        status, page, headers = request(server, "GET", path)
        assert status == 200 and not re.search("<script|<img|<i>|<b>good", page.replace(f"<script>{OURS}</script>", ""))
        policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
        assert "&lt;b&gt;good" in page and policy["default-src"] == "'none'" and policy["script-src"].startswith("'sha256-")
    assert not re.search(r"""(src|href)=["'](https?:)?//""", page)


def test_other_pages_can_neither_vote_nor_read(serve):
    server = serve()
    battle = ask(server, question="?")
    here = f"127.0.0.1:{server.server_port}"
    for origin in ("https://example.org", "http://127.0.0.1:1", f"https://{here}", "null", ""):
        assert vote(server, battle, "left", Origin=origin) == 403
        assert request(server, "POST", "/ask", {"question": "?"}, Origin=origin)[0] == 403
    for host in ("example.org", f"example.org:{server.server_port}", "", "127.0.0.1.example.org", "[::1"):
        assert request(server, "GET", "/ratings", Host=host)[0] == 403
        assert vote(server, battle, "left", Host=host, Origin=f"http://{host}") == 403
    assert server.arena.votes.entries == []
    name = f"localhost:{server.server_port}"
    assert vote(server, battle, "left", Host=name, Origin=f"http://{name}") == 303
    assert len(server.arena.votes.entries) == 1


@pytest.mark.parametrize(("path", "form", "status", "words"), [
    ("/ask", {}, 400, "That question is empty"), ("/ask", {"question": " \n"}, 400, "That question is empty"),
    ("/vote", {"battle": "none", "vote": "left"}, 404, "not there"), ("/elsewhere", {}, 404, "not there")])
def test_bad_requests_get_a_page_that_says_why(serve, path, form, status, words):
    found, page, _ = request(serve(), "POST", path, form)
    assert found == status and words in page and "<form" in page


def test_a_question_that_is_far_too_long_is_not_read(serve):
    status, text, headers = request(serve(), "POST", "/ask", {"question": "x" * MOST_BYTES})
    assert status == 413 and "at most 100,000 bytes" in text and headers["Content-Type"].startswith("text/plain")


def test_a_vote_that_cannot_be_written_can_be_cast_again(serve, tmp_path, capsys):
    resource = pytest.importorskip("resource")  # not on Windows
    server = serve()
    battle = ask(server, question="?")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40, limits[1]))  # as a full disk: a part of the line fits
    try:
        status, text, _ = request(server, "POST", "/vote", {"battle": battle.removeprefix("/battle/"), "vote": "left"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert status == 500 and "try again when that is mended" in text and "Traceback" not in capsys.readouterr().err
    assert vote(server, battle, "left") == 303
    assert [entry["vote"] for entry in load_votes(tmp_path / "votes.jsonl").entries] == ["left"]


@pytest.mark.slow
def test_two_arenas_share_a_file_of_votes(serve, tmp_path):
    servers = [serve(), serve()]
    battles = [(server, ask(server, question="?")) for _ in range(20) for server in servers]
    threads = [threading.Thread(target=vote, args=(*one, "left")) for one in battles]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(load_votes(tmp_path / "votes.jsonl").entries) == 40
    vote(servers[0], ask(servers[0], question="?"), "tie")
    assert "Ratings from 41 votes" in request(servers[0], "GET", "/ratings")[1]


@pytest.mark.slow
def test_votes_that_can_be_written_nowhere_are_refused_at_once(in_process, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert_refused(in_process("ch_instruct/evaluation/arena.py", "--models", "classroom", CLASSROOM_FOLDER, "--port", 0,
                              "--votes", tmp_path / "notes.txt" / "votes.jsonl"), "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_too_many_questions_at_once_are_told_to_wait(serve):
    answering = threading.Event()
    server = serve({name: lambda record: answering.wait(20) and "x" for name in "ab"})
    threads = [threading.Thread(target=request, args=(server, "POST", "/ask", {"question": "?"})) for _ in range(MOST_WAITING)]
    for thread in threads:
        thread.start()
    while server.arena.places._value:
        time.sleep(0.01)
    assert request(server, "POST", "/ask", {"question": "mine"})[0] == 503
    assert request(server, "GET", "/ratings")[0] == 200
    answering.set()
    for thread in threads:
        thread.join()
    assert request(server, "POST", "/ask", {"question": "mine"})[0] == 303


def test_bad_votes_are_not_counted(serve):
    server = serve()
    battle = ask(server, question="?")
    assert vote(server, battle, "both good") == 404 and server.arena.votes.entries == []
    assert request(server, "GET", "/battle/none")[0] == 404
    assert request(server, "POST", "/ask", {"question": "?"}, **{"Content-Length": "many"})[0] == 413


@pytest.mark.slow
def test_models_answer_and_refuse_what_is_too_long(serve, tmp_path):
    save_pretrained(make_model(n_positions=256), Tokenizer.from_merges([]), tmp_path / "model")
    answer = answerer(str(tmp_path / "model"), torch.device("cpu"), "fp32", "alpaca", 8)
    assert isinstance(answer({"instruction": "Hello"}), str)
    def talk(first: str) -> dict:  # the answer in it ends with a token of its own, which counts
        said = (("user", first), ("assistant", "b"), ("user", "c"))
        return {"instruction": "c", "messages": [{"role": role, "content": text} for role, text in said]}

    room = 256 - len(encode_prompt(talk(""), Tokenizer.from_merges([])))
    assert isinstance(answer(talk("a" * (room - 1))), str)
    with pytest.raises(InputError, match="it has 256 tokens"):
        answer(talk("a" * room))
    server = serve({"one": answer, "two": answer}, [{"instruction": "long" * 70}, {"instruction": "short"}])
    status, page, _ = request(server, "POST", "/ask", {"question": "long" * 60})
    assert status == 400 and "That question is too long" in page and "long" * 60 in page
    assert request(server, "POST", "/ask", {"next": "1"})[0] == 400
    assert server.arena.battles[ask(server, next="1")[8:]].question == "short"  # a question that fails does not come again


@pytest.mark.slow
def test_answers_are_the_likeliest_or_drawn_anew(tmp_path):
    save_pretrained(make_model(n_positions=256), Tokenizer.from_merges([]), tmp_path / "model")
    given = str(tmp_path / "model"), torch.device("cpu"), "fp32", "alpaca", 8
    greedy, drawn, narrow = (answerer(*given, how) for how in (Sampling(), Sampling(1.5), Sampling(1.5, top_k=1)))
    likeliest, *others = [greedy({"instruction": "Hi"}) for _ in range(3)]
    assert {likeliest} == set(others) == {narrow({"instruction": "Hi"})}
    assert len({drawn({"instruction": "Hi"}) for _ in range(5)}) > 2


@pytest.mark.slow
def test_the_command_serves_until_ctrl_c(tmp_path):
    save_pretrained(make_model(n_positions=1024), Tokenizer.from_merges([]), tmp_path / "model")
    options = ["--models", "model", "classroom", "--questions", "classroom", "--part", "test", "--votes", "v.jsonl",
               "--port", "0", "--max-new-tokens", "400", "--repetition-penalty", "1.1"]
    [process] = start("ch_instruct/evaluation/arena.py", *options, folder=tmp_path, environment=ENVIRONMENT)
    try:
        while not (line := re.search(r"^Open http://127\.0\.0\.1:(\d+)/ in a browser", told(tmp_path), re.MULTILINE)):
            assert process.is_alive(), told(tmp_path)
            time.sleep(0.02)
        assert re.match(r"Asked are the \d+ of \d+ records that were held out", told(tmp_path))
        server = SimpleNamespace(server_port=int(line[1]))
        assert vote(server, ask(server, next="1"), "tie") == 303
        with socket.create_connection(("127.0.0.1", server.server_port)) as browser:  # Ctrl-C comes while a model answers
            browser.sendall(b"POST /ask HTTP/1.0\r\nHost: [::1]\r\nOrigin: http://[::1]\r\nContent-Length: 6\r\n\r\nnext=1")
            time.sleep(0.2)
            os.kill(process.pid, signal.SIGINT)
        process.join(30)
        assert told(tmp_path, 0, "out").endswith("\n\nStopped; votes in v.jsonl: 1.\n") and process.exitcode == 0
    finally:
        process.kill()
    [entry] = load_votes(tmp_path / "v.jsonl").entries
    assert {entry["left"], entry["right"]} == {"model", "classroom"} and entry["vote"] == "tie"


@pytest.mark.parametrize("line", ["3", "{}", '{"question": "?", "left": "a", "right": "b", "vote": "maybe"}',
                                  '{"question": "?", "left": "a", "right": "a", "vote": "tie"}',
                                  '{"question": "?", "left": 1, "right": "b", "vote": "tie"}', "left"])
def test_a_file_that_holds_no_votes_is_left_alone(line, tmp_path):
    path = tmp_path / "votes.jsonl"
    path.write_text(f"{line}\n")
    with pytest.raises(InputError, match="line 1 is no"):
        load_votes(path)
    assert path.read_text() == f"{line}\n"


@pytest.mark.parametrize("content", ["notes without a last line feed", '{"my": "json"}', "[1, 2,\n 3]", "caf\u00e9\n",
                                     "[" * 100_000])
def test_somebody_elses_file_is_left_alone(content, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"line [12] is no vote of an arena"):
        load_votes(path)
    assert path.read_text() == content


def test_a_vote_that_lost_its_line_feed_is_kept_and_half_of_one_is_not(serve, tmp_path):
    path, server = tmp_path / "votes.jsonl", serve()
    vote(server, ask(server, question="?"), "left")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert len(load_votes(path).entries) == 1
    path.write_bytes(whole + whole[:30])
    again = serve()
    assert path.read_bytes() == whole + whole[:30]  # only looked at
    vote(again, ask(again, question="?"), "tie")
    assert [entry["vote"] for entry in load_votes(path).entries] == ["left", "tie"]


@pytest.mark.slow
def test_nothing_is_made_before_the_port_is_known_to_be_free(serve, in_process):
    port = serve().server_port
    assert_refused(in_process("ch_instruct/evaluation/arena.py", "--models", "classroom", CLASSROOM_FOLDER, "--port", port),
                   f"--port {port} cannot be listened at")
    assert not any(Path.cwd().iterdir())


def test_a_part_of_no_file_is_refused(in_process):
    assert_refused(in_process("ch_instruct/evaluation/arena.py", "--models", "classroom", "gpt2", "--part", "test"),
                   "--part test", "Give --questions")


def test_a_slow_request_keeps_nobody_waiting(serve):
    """One that says that it will send a question, and does not."""
    server = serve()
    with socket.create_connection(("127.0.0.1", server.server_port)) as slow:
        host = f"127.0.0.1:{server.server_port}"
        slow.sendall(f"POST /ask HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nContent-Length: 99\r\n\r\nq".encode())
        started = time.monotonic()
        assert request(server, "GET", "/")[0] == 200
        assert time.monotonic() - started < 5


@pytest.mark.slow
def test_a_full_round_in_a_browser(serve, browser, tmp_path):
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.expected_conditions import staleness_of
    from selenium.webdriver.support.ui import WebDriverWait

    server = serve()

    def click(css: str) -> None:
        page = browser.find_element("tag name", "html")
        browser.find_element("css selector", css).click()
        # The next page has come. (Asked in between, the driver knows of no document, and is asked again.)
        WebDriverWait(browser, 20, ignored_exceptions=[WebDriverException]).until(staleness_of(page))

    browser.get(server.address)
    browser.find_element("name", "question").send_keys("What is <b>this</b>?")
    click("button.main")
    body = browser.find_element("tag name", "body").text
    assert "What is <b>this</b>?" in body and SCRIPT in body  # the reader sees the tags; nothing came of them
    assert browser.title == "Arena" and not browser.find_elements("css selector", "main script, img, main b")
    good = next(side for side in ("left", "right") if "A good answer" in browser.find_element("id", side).text)
    click(f"button[value={good}]")
    assert browser.find_element("css selector", f"#{good} .name").text == "good"
    assert browser.find_element("css selector", ".chosen").get_attribute("id") == good
    assert browser.find_element("id", "voted").text == f"You voted: {good.title()} is better."

    for kind in ("good", "good", "bad", "tie"):  # with the first: three times good, once bad, one tie
        click("button[name=next]")
        side = next(side for side in ("left", "right") if ("A good answer" in browser.find_element("id", side).text) == (
            kind == "good"))
        click(f"button[value='{kind if kind == 'tie' else side}']")
    long = next(iter(server.arena.battles.values()))
    long.answers["left"], long.vote = "word " * 5000, None  # many screens high
    browser.get(f"{server.address}battle/{next(iter(server.arena.battles))}")
    button = browser.find_element("css selector", "button[value=right]")
    assert 0 < button.rect["y"] < browser.execute_script("return innerHeight")  # in sight without scrolling
    asked = len(server.arena.votes.entries)
    page = browser.find_element("tag name", "html")
    browser.find_element("tag name", "body").send_keys(Keys.ARROW_RIGHT)
    WebDriverWait(browser, 20, ignored_exceptions=[WebDriverException]).until(staleness_of(page))
    assert browser.find_element("id", "voted").text == "You voted: Right is better."
    assert server.arena.votes.entries.pop()["vote"] == "right" and len(server.arena.votes.entries) == asked
    click("a[href='/ratings']")
    rows = [[cell.text for cell in row.find_elements("tag name", "td")]
            for row in browser.find_elements("css selector", "tbody tr")]
    # Odds of (3 + 1/2 + 1/2) to (1 + 1/2 + 1/2), so 400 log10(2) = 120 points apart.
    assert [row[:3] + row[5:] for row in rows] == [["1", "good", "1060", "3", "1", "1"], ["2", "bad", "940", "1", "1", "3"]]
    assert len((tmp_path / "votes.jsonl").read_text().splitlines()) == 6

    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    outside = [url for url in urls if not url.startswith((server.address, "data:", "chrome:"))]  # chrome: its own first page
    assert urls and outside == []
