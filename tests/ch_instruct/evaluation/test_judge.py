"""The judge against a server that does what a script says: answers, refuses, babbles, fails, hangs, hangs up."""

import contextlib
import json
import re
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ch_instruct.evaluation import judge, judge_server
from ch_instruct.evaluation.judge import REPLY, find_score, find_verdict, outcome, summarise_pairs
from common.support.files import InputError, Journal, write_json
from common.support.reports import share_interval

KEY = "sk-not-to-be-seen-anywhere-1234"


class Server(ThreadingHTTPServer):
    """`play(prompt, n)` says what becomes of the n-th request with this prompt: a text is the reply, a number an HTTP
    status, "<hang>" and "<cut>" what they say."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.play: Callable[[str, int], str | int] = lambda prompt, n: "Score: 50"
        self.models: int | bytes = b'{"data": [{"id": "oracle"}]}'
        self.error_text = "something went wrong"
        self.spell: Callable[[str], str] = str  # how it writes its JSON
        self.headers: dict[str, str] = {}
        self.prompts: list[str] = []
        self.keys: list[str | None] = []
        self.bodies: list[dict] = []
        self.let_go = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        models = self.server.models
        self.send(models if isinstance(models, int) else 200, models if isinstance(models, bytes) else b"no")

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][0]["content"]
        server.prompts.append(prompt)
        server.bodies.append(body)
        server.keys.append(self.headers["Authorization"])
        part = server.play(prompt, server.prompts.count(prompt))
        if part == "<hang>":
            server.let_go.wait(5)
        elif part == "<cut>":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"choices": [{"mess')
        elif isinstance(part, int):
            self.send(part, server.error_text.encode())
        else:
            reason = "length" if part.endswith("<length>") else "stop"
            message = {"role": "assistant", "content": part.removesuffix("<length>")}
            self.send(200, server.spell(json.dumps({"choices": [{"message": message, "finish_reason": reason}]})).encode())

    def send(self, status: int, content: bytes) -> None:
        self.send_response(status)
        for name, value in (self.server.headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.let_go.set()
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def waits(monkeypatch) -> list[float]:
    """Waits between tries are noted and not waited."""
    found = []
    monkeypatch.setattr(judge_server.time, "sleep", found.append)
    monkeypatch.delenv(judge_server.KEY_VARIABLE, raising=False)
    return found


def answers(*texts: str) -> list[dict]:
    return [{"instruction": f"Question {i}?", "input": "", "output": f"right {i}", "answer": text, "stopped": True}
            for i, text in enumerate(texts)]


def run(monkeypatch, folder: Path, server: Server | str, *options: object) -> dict:
    """Run the command in this process; returns its report."""
    url = server if isinstance(server, str) else server.url
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["judge.py", "--judge-model", "oracle", "--url", url, *map(str, options)])
    judge.main()
    return json.loads((folder / "out" / "report.json").read_text())


def written(folder: Path) -> str:
    """All that stands in files below the folder."""
    return "\n".join(path.read_text() for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.mark.parametrize(("reply", "score"), [
    ("It is right.\nScore: 85", 85), ("**Score:** 70/100", 70), ("score = 7.5", 7.5), ("Score: 100.", 100), ("Score: 0", 0),
    ("42", 42), (" 42\n", 42), ('{"reason": "ok", "score": 12}', 12), ("Score: 90 out of 100", 90), ("Score: 85 points", 85),
    ("85/100", 85), ("It is fine.\n\n**85 / 100**", 85), ("I rate it [[85]]", 85), ("[[85]]", 85), ("Score: [[85]]", 85),
    ("Score\uff1a85", 85), ("**Score**:\n85", 85), ("1.\n2.\nScore: 5", 5), ("Score: 85%", 85),
    ("<think>Score: 10?</think>It is fine.\nScore: 20", 20),
    ("Score: 101", None), ("Score: -5", None), ("Score: 8/10", None), ("8/10", None), ("Score: N", None), ("", None),
    ("It names 3 of 4 things.", None), ("I cannot rate this.", None), ("Score: 20 to 30", None), ("Score: high", None),
    ("101", None), ("<think>Perhaps\nScore: 10\nbut", None), ("I'd give a score of\n\n85 cats", None),
    ("Final score: 3\n\nScore: 4", None), ("Score: 70\nScore: 70", None), ("[[3]] or [[4]]", None),
    ("Score: <whole number from 0 to 100>/100", None), ("Score: \u0663", None), ("Score: 9" + "9" * 5000, None)])
def test_find_score(reply, score):
    assert find_score(reply) == score


@pytest.mark.parametrize(("reply", "verdict"), [
    ("A is better.\nVerdict: A", "a"), ("Verdict: **B**", "b"), ("verdict: Tie.", "tie"), ("Verdict: [[A]]", "a"), ("B", "b"),
    ("[[tie]]", "tie"), ("Verdict: Answer B", "b"), ("<think>Verdict: A</think> B", "b"), ("Fine. [Verdict B]", "b"),
    ("Verdict\uff1aA", "a"), ("So: [[B]]", "b"), ("[[C]]", "tie"), ("My verdict is clear", None), ("A: A", None),
    ("A: 2", None), ("A or B?", None), ("Verdict: C", None), ("Verdict: A or B", None), ("", None),
    ("Answer A is better", None), ("I am sorry.", None), ("Verdict: A\nNo.\nVerdict: B", None), ("[[A]] or [[B]]", None),
    (judge.PAIR_PROMPT, None), ("Verdict: A\nVerdict: A", None)])
def test_find_verdict(reply, verdict):
    assert find_verdict(reply) == verdict


PIECES = ["score", "Score: 85", "verdict", "Verdict: A", ":", "\uff1a", "=", " ", "\t", "\n", "*", "**", "_", '"', "[", "]]",
          "[[8", "/", "/100", " out of ", "1", "9.", ".", "%", "answer ", "tie", "a", "<think>", "</think>", "\u2028", "\x1b",
          "x"]


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(before=st.lists(st.sampled_from(PIECES), max_size=3), again=st.lists(st.sampled_from(PIECES), min_size=1, max_size=3),
       after=st.lists(st.sampled_from(PIECES), max_size=3))
def test_a_long_reply_is_read_in_proportion_to_its_length(before, again, after):
    """Whatever it repeats: a pattern that went back and forth would need minutes."""
    many = "".join(again)
    reply = "".join(before) + many * (200_000 // len(many)) + "".join(after)
    started = time.process_time()
    find_score(reply), find_verdict(reply)
    assert time.process_time() - started < 2  # it takes some hundredths of a second


@pytest.mark.parametrize(("ours_first", "ours_second", "value"), [
    ("a", "b", 1.0), ("b", "a", 0.0), ("a", "a", 0.5), ("b", "b", 0.5), ("tie", "tie", 0.5), ("a", "tie", 0.5),
    ("tie", "a", 0.5), (None, "b", None), ("a", None, None), (None, None, None)])
def test_both_orders_count(ours_first, ours_second, value):
    assert outcome(ours_first, ours_second) == value


def test_pairs_by_hand():
    found = summarise_pairs([("a", "b"), ("a", "b"), ("b", "a"), ("a", "a"), ("tie", "tie"), ("b", "b"), (None, "a")])
    assert found == {"wins": 2, "ties": 3, "losses": 1, "judged": 6, "missing": 1, "win_rate": pytest.approx(3.5 / 6),
                     "interval": pytest.approx(share_interval(3.5 / 6, 6)), "first_place_both_times": 1,
                     "second_place_both_times": 1}


@pytest.mark.slow
def test_scores_of_a_server_that_fails_in_every_way(server, waits, monkeypatch, capsys, tmp_path):
    write_json(tmp_path / "a.json", answers("good", "fair", "refused", "babble", "stumbles", "gone", "cut", "broken"))
    script = {"good": ["Fine.\nScore: 90"], "fair": ["Half \ud83d\nScore: 60"], "refused": ["I am sorry, I cannot rate this."],
              "babble": ["8/10, I would say"], "stumbles": [500, 429, "Score: 30"], "gone": ["<cut>"] * 5,
              "cut": ["<cut>", "Score: 20"], "broken": [400]}
    server.play = lambda prompt, n: script[prompt.split("[Answer to rate]\n")[1].split("\n")[0]][n - 1]
    report = run(monkeypatch, tmp_path, server, "--responses", "a.json", "--out", "out")
    assert report["scores"]["all"] == {"mean": 50.0, "half_interval": pytest.approx(50.31, abs=0.01), "judged": 4, "missing": 4}
    assert report["missing"] == {"no_reply": 2, "no_verdict": 2}
    assert waits == [1, 2, 1, 2, 4, 8, 1]  # stumbles 1 2, gone 1 2 4 8, cut 1; a 400 is not tried again

    verdicts = json.loads((tmp_path / "out" / "verdicts.json").read_text())
    assert [v["score"] for v in verdicts] == [90, 60, None, None, 30, None, 20, None]
    assert verdicts[2]["reply"] == "I am sorry, I cannot rate this." and verdicts[5]["reply"] is None
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["replies.jsonl", "report.json", "run.json", "verdicts.json"]
    shown = capsys.readouterr().out
    assert "2 of 8 replies hold no verdict, or more than one; the first: 'I am sorry, I cannot rate this.'" in shown
    assert "1 of 8 requests failed: connection cut (5 tries)" in shown
    assert "1 of 8 requests failed: HTTP 400: something went wrong" in shown
    assert {body["temperature"] for body in server.bodies} == {0} and {body["model"] for body in server.bodies} == {"oracle"}
    assert "right 0" in server.prompts[0] and "Question 0?" in server.prompts[0]


@pytest.mark.slow
def test_a_server_that_hangs_is_not_waited_for(server, monkeypatch, capsys, tmp_path):
    write_json(tmp_path / "a.json", answers("fine", "hangs"))
    monkeypatch.setattr(judge_server, "TRIES", 2)
    server.play = lambda prompt, n: "<hang>" if "\nhangs\n" in prompt else "Score: 70"
    report = run(monkeypatch, tmp_path, server, "--responses", "a.json", "--timeout", "0.3", "--out", "out")
    assert report["scores"]["all"]["mean"] == 70 and report["missing"] == {"no_reply": 1, "no_verdict": 0}
    assert "1 of 2 requests failed: no answer in time (2 tries)" in capsys.readouterr().out


@pytest.mark.slow
def test_a_broken_run_goes_on_without_asking_again(server, monkeypatch, tmp_path):
    texts = [f"answer {i}" for i in range(12)]
    write_json(tmp_path / "a.json", answers(*texts))
    server.play = lambda prompt, n: "Score: 40" if len(server.prompts) <= 4 else 503
    options = ["--responses", "a.json", "--out", "out"]
    with pytest.raises(InputError, match="5 requests in a row failed, the last with: HTTP 503: something went wrong "
                                         r"\(5 tries\); .*--resume --out out"):
        run(monkeypatch, tmp_path, server, *options)
    assert len(Journal(tmp_path / "out" / "replies.jsonl", REPLY, "no reply").entries) == 4
    with open(tmp_path / "out" / "replies.jsonl", "ab") as file:
        file.write(b'{"request": "cut off by a po')  # the power went away

    server.prompts.clear()
    server.play = lambda prompt, n: "Score: 70"
    report = run(monkeypatch, tmp_path, server, *options, "--resume")
    assert len(server.prompts) == 8 and not any("answer 3\n" in prompt for prompt in server.prompts)
    assert report["scores"]["all"]["mean"] == pytest.approx((4 * 40 + 8 * 70) / 12) and report["scores"]["all"]["missing"] == 0

    server.prompts.clear()
    assert run(monkeypatch, tmp_path, server, *options, "--resume") == report
    monkeypatch.setattr(sys, "argv", ["judge.py", "--resume", "--out", "out"])
    (tmp_path / "out" / "report.json").unlink()
    judge.main()  # the folder holds the other options
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report and server.prompts == []
    with pytest.raises(InputError, match="has --judge-model oracle, not other"):
        run(monkeypatch, tmp_path, server, *options, "--resume", "--judge-model", "other")
    write_json(tmp_path / "a.json", answers("another"))
    with pytest.raises(InputError, match="responses_sha256 has changed"):
        run(monkeypatch, tmp_path, server, *options, "--resume")


@pytest.mark.slow
def test_the_key_goes_to_the_server_and_nowhere_else(server, monkeypatch, capsys, tmp_path):
    write_json(tmp_path / "a.json", answers("one", "two"))
    monkeypatch.setenv("JUDGE_API_KEY", f"{KEY}\n")
    server.error_text = f"bad request, your key {KEY} notwithstanding"
    server.play = lambda prompt, n: "Score: 80" if "Question 0" in prompt else 400
    run(monkeypatch, tmp_path, server, "--responses", "a.json", "--out", "out")
    assert server.keys == [f"Bearer {KEY}"] * 2
    assert "your key [key] notwithstanding" in (shown := capsys.readouterr().out)
    assert KEY not in written(tmp_path) + shown

    server.play = lambda prompt, n: 401
    with pytest.raises(InputError, match="JUDGE_API_KEY, the key in it is refused") as error:
        run(monkeypatch, tmp_path, server, "--responses", "a.json", "--out", "again")
    assert KEY not in str(error.value) + written(tmp_path)
    monkeypatch.setenv("JUDGE_API_KEY", f"{KEY}\u00e9")
    with pytest.raises(InputError, match="characters that no key has") as error:
        run(monkeypatch, tmp_path, server, "--responses", "a.json", "--out", "third")
    assert KEY not in str(error.value) and not (tmp_path / "third").exists()


def drip(handler: Handler) -> None:
    """A byte every tenth of a second, for as long as somebody listens."""
    with contextlib.suppress(OSError):
        while not handler.server.let_go.wait(0.1):
            handler.wfile.write(b" ")


def after_a_head(handler: Handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    drip(handler)


def within_a_head(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    drip(handler)


def without_end(handler: Handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    with contextlib.suppress(OSError):
        while True:
            handler.wfile.write(b'{"id": "m"}, ' * 10_000)


def chunk_of_minus_one(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    with contextlib.suppress(OSError):
        handler.wfile.write(b"-1\r\n")
        while not handler.server.let_go.is_set():
            handler.wfile.write(b"x" * 100_000)


def to_be_continued(handler: Handler) -> None:
    with contextlib.suppress(OSError):
        while not handler.server.let_go.wait(0.001):
            handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def in_circles(handler: Handler) -> None:
    handler.send_response(302)
    handler.send_header("Location", f"{handler.server.url}/{len(handler.path)}")
    handler.send_header("Content-Length", "0")
    handler.end_headers()


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "words"), [
    (after_a_head, "no answer in time"), (within_a_head, "no answer in time"), (in_circles, "HTTP 302|redirect|no server"),
    (without_end, "longer than|no answer in time"), (chunk_of_minus_one, "connection cut"),
    (to_be_continued, "no answer in time")])
def test_a_server_gets_one_time_limit_whatever_it_does(answer, words, server, monkeypatch):
    monkeypatch.setattr(judge_server, "PROBE_TIMEOUT", 0.4)
    monkeypatch.setattr(judge_server, "TRIES", 2)
    monkeypatch.setattr(Handler, "do_GET", answer)
    monkeypatch.setattr(Handler, "do_POST", answer)
    asked = judge_server.JudgeServer(server.url, "oracle", 0.4)
    started, memory = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=words):
        asked.probe()
    with pytest.raises(judge_server.NoReply, match=words):
        asked.ask("?")
    assert time.monotonic() - started < 3 * 0.4 + 2  # three requests
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 200_000  # kB


@pytest.mark.slow
@pytest.mark.parametrize("spell", [
    lambda text: text.replace("/", "\\/"), lambda text: "".join(f"\\u{ord(c):04x}" if c in KEY else c for c in text),
    lambda text: text.replace("k", "\\u006B").replace("s", "\\u0073")], ids=["slash", "all", "capitals"])
def test_a_key_that_comes_back_in_other_letters_is_hidden(spell, server, monkeypatch, capsys, tmp_path):
    write_json(tmp_path / "a.json", answers("one", "two"))
    monkeypatch.setenv("JUDGE_API_KEY", KEY + "/b")
    server.spell = lambda text: re.sub(r"<.*>", lambda found: spell(found.group().strip("<>")), text)
    server.play = lambda prompt, n: f"You sent <{KEY}/b>.\nScore: 80"
    run(monkeypatch, tmp_path, server, "--responses", "a.json", "--out", "out")
    assert KEY not in (seen := written(tmp_path) + capsys.readouterr().out) and "You sent [key]." in seen
    assert KEY not in seen.replace("\\/", "/").replace("\\u0073", "s")


@pytest.mark.slow
def test_what_a_server_says_does_not_steer_the_terminal(server, monkeypatch, capsys, tmp_path):
    write_json(tmp_path / "a.json", answers("one", "two"))
    server.models = b'{"data": [{"id": "\\u001b[2J\\u0007gone\\u009b"}]}'
    server.play = lambda prompt, n: "\x1b[31mred" if "Question 0" in prompt else "Score: 80"
    run(monkeypatch, tmp_path, server, "--responses", "a.json", "--out", "out")
    shown = capsys.readouterr().out
    assert "gone" in shown and "red" in shown and not set("\x1b\x07\x9b") & set(shown)


@pytest.mark.slow
def test_a_reply_that_its_length_cut_off_is_missing(server, monkeypatch, capsys, tmp_path):
    """Of "Score: 85" the end may be gone."""
    write_json(tmp_path / "a.json", answers("one", "two", "three"))
    server.play = lambda prompt, n: "Score: 8<length>" if "Question 0" in prompt else "Score: 80"
    report = run(monkeypatch, tmp_path, server, "--responses", "a.json", "--out", "out")
    assert report["scores"]["all"]["mean"] == 80 and report["missing"]["no_verdict"] == 1
    assert "(1 are cut off after 1024 tokens); the first: 'Score: 8'" in capsys.readouterr().out
    server.prompts.clear()
    assert run(monkeypatch, tmp_path, server, "--responses", "a.json", "--out", "out", "--resume") == report
    assert server.prompts == []


@pytest.mark.slow
@pytest.mark.parametrize(("scores", "warned"), [((0.2, 0.9), True), ((7, 10), True), ((0, 0), False), ((7, 11), False)])
def test_a_judge_on_another_scale_is_warned_of(scores, warned, server, monkeypatch, capsys, tmp_path):
    write_json(tmp_path / "a.json", answers("one", "two"))
    server.play = lambda prompt, n: f"Score: {scores[0] if 'Question 0' in prompt else scores[1]}"
    run(monkeypatch, tmp_path, server, "--responses", "a.json", "--out", "out")
    assert ("does this judge rate to 10, not 100?" in capsys.readouterr().out) == warned
    assert "from 0 to 100>/100" in server.prompts[0]


@pytest.mark.slow
@pytest.mark.parametrize("host", ["a..b", "a" * 70, "xn--a", "a b", "\u2603" * 70, "[::1", "1.2.3.4.5", "-"])
def test_a_host_whose_name_is_none_gets_one_sentence(host, monkeypatch, tmp_path):
    write_json(tmp_path / "a.json", answers("one"))
    with pytest.raises(InputError, match=r"--url.*(not an address|no server answers there)") as error:
        run(monkeypatch, tmp_path, f"http://{host}/v1", "--responses", "a.json", "--out", "out")
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("models", [b'{"data": [1]}', b'{"data": [{"id": 5}]}', b'{"data": [{"id": "\\ud800"}]}',
                                    b"[" * 100_000, b"\xff\xfe", b'{"data": {"id": "a"}}'])
def test_a_list_of_models_that_is_none_is_told(models, server):
    server.models = models
    with pytest.raises(InputError, match="is not an OpenAI-compatible server"):
        judge_server.JudgeServer(f"{server.url} ", "oracle", 1.0).probe()  # a space was copied, too


@pytest.mark.slow
def test_the_key_is_not_sent_on(server, monkeypatch, tmp_path):
    """A server that sends us elsewhere does not get our key sent there."""
    write_json(tmp_path / "a.json", answers("one"))
    monkeypatch.setenv("JUDGE_API_KEY", KEY)
    seen = []
    with Server() as other:
        other.play = lambda prompt, n: "Score: 1"
        monkeypatch.setattr(Handler, "do_GET", lambda self: (
            seen.append(self.headers["Authorization"]), self.send(200, b'{"data": []}')))
        threading.Thread(target=other.serve_forever, args=(0.02,)).start()
        server.headers = {"Location": f"{other.url}/chat/completions"}
        server.play = lambda prompt, n: 302
        with pytest.raises(InputError, match="settled no question"):
            run(monkeypatch, tmp_path, server, "--responses", "a.json", "--out", "out")
        other.shutdown()
    assert seen == [f"Bearer {KEY}", None]


@pytest.mark.slow
def test_a_wait_that_the_server_asks_for(server, waits, monkeypatch, tmp_path):
    write_json(tmp_path / "a.json", answers("one"))
    server.headers = {"Retry-After": "7"}
    server.play = lambda prompt, n: 429 if n < 3 else "Score: 10"
    run(monkeypatch, tmp_path, server, "--responses", "a.json", "--out", "out")
    assert waits == [7, 7]


@pytest.mark.slow
def test_pairs_are_asked_in_both_orders(server, monkeypatch, capsys, tmp_path):
    arms = {"ntp": ["long one", "short", "same", "bad one"], "sftmix": ["short", "long one", "same", "very bad one"]}
    write_json(tmp_path / "responses.json", [
        {"instruction": f"Question {i}?", "output": "right", "answers": {arm: {"answer": texts[i], "stopped": True}
                                                                         for arm, texts in arms.items()}} for i in range(4)])

    def longer_wins(prompt: str, n: int) -> str:
        a, b = (prompt.split(f"[Answer {name}]\n")[1].split("\n")[0] for name in "AB")
        if "bad" in a:
            return "I will not compare these."
        return f"Verdict: {'tie' if len(a) == len(b) else 'A' if len(a) > len(b) else 'B'}"

    server.play = longer_wins
    options = ["--responses", "responses.json", "--arm", "sftmix", "--against-arm", "ntp", "--out", "out"]
    report = run(monkeypatch, tmp_path, server, *options)
    assert report["pairs"] == {
        "wins": 1, "ties": 1, "losses": 1, "judged": 3, "missing": 1, "win_rate": 0.5,
        "interval": pytest.approx(share_interval(0.5, 3)), "first_place_both_times": 0, "second_place_both_times": 0}
    assert report["missing"] == {"no_reply": 0, "no_verdict": 2} and len(server.prompts) == 7  # equal answers are asked once
    outcomes = [v["outcome"] for v in json.loads((tmp_path / "out" / "verdicts.json").read_text())]
    assert outcomes == [0.0, 1.0, 0.5, None]
    assert "50.0%" in capsys.readouterr().out


@pytest.mark.slow
def test_a_question_that_comes_again_counts_once(server, monkeypatch, capsys, tmp_path):
    """Or 20 copies of 6 questions would be told as 120 answers, with a narrow interval."""
    once, again = answers("one", "two", "three"), answers("four", "five", "six")
    server.play = lambda prompt, n: f"Score: {50 + 10 * ('Question 0' in prompt)}" if "Score" in prompt else "Verdict: A"
    reports = []
    for name, some in (("a", once), ("b", once + again + once)):
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "b.json", some)
        reports.append(run(monkeypatch, tmp_path / name, server, "--responses", "b.json", "--out", "out"))
    assert reports[0] == reports[1] and reports[1]["answers"] == 3
    assert "6 of 9 questions repeat an earlier one; only the first answer to a question is judged" in capsys.readouterr().out
    (tmp_path / "c").mkdir()
    write_json(tmp_path / "c" / "a.json", again + once + again)
    pairs = run(monkeypatch, tmp_path / "c", server, "--responses", tmp_path / "b" / "b.json", "--against", "a.json", "--out",
                "out")["pairs"]
    assert pairs["judged"] == 3


@pytest.mark.slow
def test_a_judge_that_likes_a_place_gives_ties(server, monkeypatch, capsys, tmp_path):
    write_json(tmp_path / "a.json", answers("one", "two", "three"))
    write_json(tmp_path / "b.json", answers("eins", "zwei", "drei"))
    server.play = lambda prompt, n: "Verdict: A"
    report = run(monkeypatch, tmp_path, server, "--responses", "a.json", "--against", "b.json", "--out", "out")
    assert report["pairs"]["ties"] == 3 and report["pairs"]["first_place_both_times"] == 3
    assert "preferred the one shown first for 3 and the one shown second for 0 of 3 questions" in capsys.readouterr().out


def test_files_with_other_questions_are_not_compared(monkeypatch, tmp_path):
    write_json(tmp_path / "a.json", answers("one", "two"))
    options = ["--responses", "a.json", "--against", "b.json", "--out", "out"]
    for other, words in ((answers("eins"), "One file holds 2 answers, the other 1"),
                         (answers("zwei", "eins")[::-1], "Record 1 asks 'Question 0?' in one file and 'Question 1?' in the")):
        write_json(tmp_path / "b.json", other)
        with pytest.raises(InputError, match=re.escape(words)):
            run(monkeypatch, tmp_path, "http://127.0.0.1:1/v1", *options)
    assert not (tmp_path / "out").exists()


def test_verdicts_that_settle_no_question_are_no_result(server, monkeypatch, tmp_path):
    write_json(tmp_path / "a.json", answers("one", "two"))
    write_json(tmp_path / "b.json", answers("eins", "zwei"))
    server.play = lambda prompt, n: "Verdict: A" if len(server.prompts) % 2 else "Hm."
    with pytest.raises(InputError, match="settled no question"):
        run(monkeypatch, tmp_path, server, "--responses", "a.json", "--against", "b.json", "--out", "out")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["pairs"]["win_rate"] is None and report["pairs"]["interval"] is None and report["pairs"]["missing"] == 2


def test_no_verdict_at_all_is_no_result(server, monkeypatch, tmp_path):
    write_json(tmp_path / "a.json", answers("one", "two"))
    server.play = lambda prompt, n: "As a language model"
    with pytest.raises(InputError, match="The judge oracle settled no question, so there is no result"):
        run(monkeypatch, tmp_path, server, "--responses", "a.json", "--out", "out")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["scores"]["all"] == {"mean": None, "half_interval": None, "judged": 0, "missing": 2}
    assert "As a language model" in (tmp_path / "out" / "replies.jsonl").read_text()


QUESTIONS = [{"question_id": 81, "turns": ["Name a color.", "And another?"], "reference": ["red", "blue"]},
             {"question_id": 82, "category": "math", "turns": ["1 + 1?"]}]
ANSWERS = [{"question_id": 82, "answer_id": "x", "model_id": "m", "choices": [{"index": 0, "turns": ["two"]}], "tstamp": 1.0},
           {"question_id": 81, "answer_id": "y", "model_id": "m", "choices": [{"index": 0, "turns": ["green", "pink"]}]}]


def write_lines(path: Path, rows: list) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.slow
def test_mt_bench_turns_stand_apart(server, monkeypatch, capsys, tmp_path):
    write_lines(tmp_path / "q.jsonl", QUESTIONS)
    write_lines(tmp_path / "a.jsonl", ANSWERS)
    server.play = lambda prompt, n: f"Score: {30 if '[Earlier' in prompt else 80 if 'green' in prompt else 60}"
    report = run(monkeypatch, tmp_path, server, "--responses", "a.jsonl", "--questions", "q.jsonl", "--out", "out")
    assert [(name, part["mean"], part["judged"]) for name, part in report["scores"].items()] == [("turn 1", 70, 2),
                                                                                                  ("turn 2", 30, 1)]
    second = next(prompt for prompt in server.prompts if "[Earlier" in prompt)
    assert "User: Name a color.\nAssistant: green\n" in second and "[Request]\nAnd another?" in second and "blue" in second
    assert "turn 2" in capsys.readouterr().out


@pytest.mark.parametrize(("models", "words"), [
    (401, "wants a key .* JUDGE_API_KEY, it is not set"), (404, "answers 404 .*ends in /v1"),
    (b"<html>Please log in</html>", "not an OpenAI-compatible server .*Please log in"), (b"[]", "not an OpenAI-compatible")])
def test_the_server_is_probed_first(server, models, words, monkeypatch, tmp_path):
    write_json(tmp_path / "a.json", answers("one"))
    server.models = models
    with pytest.raises(InputError, match=words):
        run(monkeypatch, tmp_path, server, "--responses", "a.json", "--out", "out")
    assert server.prompts == [] and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_server_without_a_list_of_models_may_still_answer(server, monkeypatch, capsys, tmp_path):
    write_json(tmp_path / "a.json", answers("one"))
    server.models = 500
    assert run(monkeypatch, tmp_path, server, "--responses", "a.json", "--out", "out")["scores"]["all"]["mean"] == 50
    assert "it does not list that model, but nothing" in capsys.readouterr().out


def test_where_no_server_answers_the_command_to_start_one_is_told(monkeypatch, tmp_path):
    write_json(tmp_path / "a.json", answers("one"))
    with Server() as gone:
        url = gone.url
    with pytest.raises(InputError, match=r"no server answers there \(Connection refused\); start one .*`OLLAMA_HOST=127.0.0.1:"
                                         r"\d+ ollama serve` .*`ollama pull oracle`.*`llama-server -m MODEL.gguf --port"):
        run(monkeypatch, tmp_path, url, "--responses", "a.json", "--out", "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("url", "words"), [
    ("127.0.0.1:11434/v1", "is not an address"), ("ftp://example.org/v1", "not an address"), ("http:///v1", "not an address"),
    ("http://me:secret@127.0.0.1/v1", "a key belongs in the environment variable JUDGE_API_KEY"),
    ("http://127.0.0.1/v1?key=secret", "a key belongs in"), ("http://127.0.0.1:port/v1", "is not an address")])
def test_addresses_that_are_none(url, words, monkeypatch, tmp_path):
    write_json(tmp_path / "a.json", answers("one"))
    with pytest.raises(InputError, match=words) as error:
        run(monkeypatch, tmp_path, url, "--responses", "a.json", "--out", "out")
    assert "secret" not in str(error.value) and not (tmp_path / "out").exists()


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30) | st.sampled_from(["http://", "https://", "[", "@", ":", "/", "%", "..", "\u3002"]).flatmap(
    lambda part: st.tuples(st.just("http://"), st.text(max_size=9), st.just(part), st.text(max_size=9)).map("".join)))
def test_any_address_is_taken_or_refused(url):
    try:
        judge_server.JudgeServer(url, "m", 1.0)
    except InputError as error:
        assert "--url" in str(error)


@pytest.mark.parametrize("url", ["http://" + "a." * 500_000, "http://h/" + "%41" * 300_000, "http://[" + ":" * 1_000_000,
                                 "http://" + "\u2603" * 1_000_000, "x" * 1_000_000, "http://h:" + "9" * 1_000_000])
def test_a_megabyte_of_address_is_read_at_once(url):
    started = time.process_time()
    with contextlib.suppress(InputError):
        judge_server.JudgeServer(url, "m", 1.0)
    assert time.process_time() - started < 5
