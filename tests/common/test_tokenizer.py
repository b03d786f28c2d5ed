"""The tokenizer: the same ids as its peers, every text back unchanged, and files that others read and write."""

import hashlib
import json
import random
from pathlib import Path

import pytest
import transformers  # loads its parts where they are used
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import ByteLevelBPETokenizer

from common import tokenizer as module
from common.support.files import InputError
from common.support.from_gguf import CUTTINGS
from common.tokenizer import BYTE_LEVEL, DIGITS, END_OF_TEXT, Tokenizer, to_bytes, to_chars

NASTY = [
    "", " ", "  ", "\n", "\n\n\n", "\r\n", "\t\t x", " \n ", "a  b   c    d", "trailing  ", "  leading", "line\n\n  indented",
    "don't we'll I've they're he'd I'm it's", "DON'T O'Malley O'Sullivan", "'s 's's ''s '", "l'été n’est", "1234567890123",
    "3.14e-10", "½ ² ٣ ४ Ⅷ", "a1b2c3", "snake_case camelCase", "!!!???...", "<<<>>>", "#version: 0.2", "naïve café",
    "cafe\u0301", "Ünïcödé", "Ġ Ċ ĉ", "中文字符", "日本語テキスト", "한국어", "العربية", "עברית", "ไทย",
    "👍🏽", "👨\u200d👩\u200d👧", "🇫🇷🇩🇪", "\ufeffstart", "zero\u200bwidth", "no\u00a0break\u2003em\u3000wide",
    "\u2028line\u2029paragraph", "\x00\x01\x1f\x7f\x85", "\U0010ffff\ufffd\uffff", "x" * 300, "=" * 80, " " * 50 + "x",
    END_OF_TEXT, f"a{END_OF_TEXT}b", f"{END_OF_TEXT}{END_OF_TEXT}", "<|endoftext", "<|im_end|>",
    '### Instruction:\nSay "hi".\n\n### Response:\n', "def f(x):\n    return x ** 2\n", "https://example.org/?q=a%20b&c=d#e",
]
EXAMPLE_TEXT = ["the cat sat on the mat with the other cat, and that hat is the cat's hat\n",
                "aaaa aaa aa banana bananas 12 123 1234 été Zürich\n"] * 3
BYTES = Tokenizer.from_merges([])  # each byte is a token
texts = st.text(max_size=60) | st.lists(st.sampled_from(NASTY), max_size=5).map("".join)


@pytest.fixture(scope="module")
def gpt2() -> Tokenizer:
    return Tokenizer.gpt2()


@pytest.fixture(scope="module")
def gpt2_folder(gpt2, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("gpt2")
    gpt2.save(folder, model_max_length=1024)
    return folder


@pytest.fixture(scope="module")
def peer(gpt2_folder) -> "transformers.GPT2Tokenizer":
    return transformers.GPT2Tokenizer.from_pretrained(gpt2_folder)


@pytest.fixture(scope="module")
def trained() -> ByteLevelBPETokenizer:
    """Trained by another library, which gives the special token id 0 and the bytes the ids from 1 up."""
    peer = ByteLevelBPETokenizer()
    peer.train_from_iterator(EXAMPLE_TEXT, vocab_size=330, min_frequency=1, special_tokens=[END_OF_TEXT], show_progress=False)
    return peer


@pytest.fixture(scope="module", params=["tokenizer.json", "vocab.json and merges.txt"])
def reread(request, trained, tmp_path_factory) -> Tokenizer:
    """The trained one, read from its files."""
    folder = tmp_path_factory.mktemp("trained")
    if request.param == "tokenizer.json":
        trained.save(str(folder / "tokenizer.json"))
    else:
        trained.save_model(str(folder))
    return Tokenizer.from_folder(folder)


@pytest.mark.slow
@pytest.mark.parametrize("text", NASTY)
def test_ids_are_those_of_transformers(gpt2, peer, text):
    assert gpt2.encode(text) == peer.encode(text, split_special_tokens=True)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(text=texts)
def test_ids_are_those_of_transformers_for_any_text(gpt2, peer, text):
    assert gpt2.encode(text) == peer.encode(text, split_special_tokens=True)


def test_transformers_reads_the_saved_folder_as_gpt2(peer):
    assert (len(peer), peer.eos_token, peer.eos_token_id, peer.model_max_length) == (50257, END_OF_TEXT, 50256, 1024)


@pytest.mark.parametrize("name, size, start", [("vocab.json", 1_042_301, "196139668be6"),
                                               ("merges.txt", 456_318, "1ce1664773c5")])
def test_saved_files_of_gpt2_are_the_published_ones(gpt2_folder, name, size, start):
    content = (gpt2_folder / name).read_bytes()
    assert len(content) == size
    assert hashlib.sha256(content).hexdigest().startswith(start)


def test_gpt2_has_its_known_ids(gpt2):
    assert (gpt2.vocab_size, gpt2.eot_id) == (50257, 50256)
    assert gpt2.encode("Hello world") == [15496, 995]
    assert gpt2.decode([15496, 995]) == "Hello world"


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(text=texts)
def test_any_text_comes_back(gpt2, reread, text):
    for tokenizer in (gpt2, reread, BYTES):
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("text", [END_OF_TEXT, f"a{END_OF_TEXT} b", f"{END_OF_TEXT}\n" * 3])
def test_end_of_text_written_by_a_user_is_text(gpt2, reread, text):
    for tokenizer in (gpt2, reread, BYTES):
        ids = tokenizer.encode(text)
        assert tokenizer.eot_id not in ids
        assert tokenizer.decode(ids) == text


def test_the_control_token_itself_is_decoded(gpt2):
    assert gpt2.decode([*gpt2.encode("end"), gpt2.eot_id]) == "end" + END_OF_TEXT


def test_half_a_character_becomes_a_replacement_sign(gpt2):
    ids = gpt2.encode("😀")
    assert len(ids) > 1
    assert "\ufffd" in gpt2.decode(ids[:1])
    assert gpt2.decode_bytes(ids[:-1]) + gpt2.decode_bytes(ids[-1:]) == "😀".encode()


def test_half_a_surrogate_pair_becomes_a_replacement_sign(gpt2):
    assert gpt2.decode(gpt2.encode("a\ud83db")) == "a\ufffdb"


def test_an_id_without_a_token_is_shown_as_unknown(gpt2):
    """A model may have more rows than its tokenizer has entries."""
    assert gpt2.decode([15496, 50257]) == "Hello\ufffd"


def test_characters_for_bytes_and_back():
    every_byte = bytes(range(256))
    assert to_bytes(to_chars(every_byte)) == every_byte
    assert len(set(to_chars(every_byte))) == 256
    assert to_chars(b" cat\n") == "ĠcatĊ"
    with pytest.raises(KeyError):
        to_bytes("中")


def test_merges_of_our_own_get_ids_in_their_order():
    tokenizer = Tokenizer.from_merges([(b"a", b"b"), (b" ", b"c"), (b"ab", b"ab")])
    assert (tokenizer.vocab_size, tokenizer.eot_id) == (260, 259)
    assert tokenizer.encode("abab c ab") == [258, 257, 32, 256]
    assert tokenizer.merges() == [(b"a", b"b"), (b" ", b"c"), (b"ab", b"ab")]
    assert tokenizer.merges() is tokenizer.merges()  # to find them takes long


def test_earlier_merges_come_first():
    """In "abc", either "ab" or "bc" can be joined: the one learnt first is."""
    ab_first = Tokenizer.from_merges([(b"a", b"b"), (b"b", b"c")])
    bc_first = Tokenizer.from_merges([(b"b", b"c"), (b"a", b"b")])
    assert ab_first.encode("abc") == [256, ord("c")]
    assert bc_first.encode("abc") == [ord("a"), 256]


def test_two_merges_that_spell_the_same_token_share_an_id():
    tokenizer = Tokenizer.from_merges([(b"a", b"b"), (b"b", b"c"), (b"ab", b"c"), (b"a", b"bc")])
    assert tokenizer.vocab_size == 256 + 3 + 1
    assert tokenizer.decode(tokenizer.encode("abc")) == "abc"


def test_no_merge_reaches_over_a_word_boundary():
    tokenizer = Tokenizer.from_merges([(b"a", b" "), (b"1", b"a"), (b"a", b"!")])
    assert tokenizer.encode("a 1a a!") == list(b"a 1a a!")


def test_our_own_tokenizer_survives_saving(tmp_path):
    before = Tokenizer.from_merges([(b"a", b"b"), (b" ", b"c"), (b"ab", b"ab"), (b"\xc3", b"\xa9")])
    before.save(tmp_path, model_max_length=64)
    after = Tokenizer.from_folder(tmp_path)
    assert (after.vocab_size, after.eot_id, after.merges()) == (before.vocab_size, before.eot_id, before.merges())
    assert after.encode("abab c é") == before.encode("abab c é")
    assert {path.name for path in tmp_path.iterdir()} == {"vocab.json", "merges.txt", "tokenizer_config.json"}


def test_files_of_another_library_give_its_ids(reread, trained):
    assert (reread.eot_id, reread.vocab_size) == (0, trained.get_vocab_size())
    for text in [*EXAMPLE_TEXT, *NASTY]:
        if END_OF_TEXT not in text:  # the other library makes it the control token
            assert reread.encode(text) == trained.encode(text).ids


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(text=st.text(st.sampled_from("abnthecs 123'é\n")))
def test_files_of_another_library_give_its_ids_for_any_text(reread, trained, text):
    assert reread.encode(text) == trained.encode(text).ids


def test_ids_that_are_not_in_merge_order_survive_saving(reread, trained, tmp_path):
    reread.save(tmp_path, model_max_length=64)
    after = Tokenizer.from_folder(tmp_path)
    assert after.eot_id == 0
    for text in EXAMPLE_TEXT:
        assert after.encode(text) == trained.encode(text).ids


def test_merges_written_as_pairs_or_as_strings_are_the_same(trained, tmp_path):
    path = tmp_path / "tokenizer.json"
    trained.save(str(path))
    content = json.loads(path.read_text(encoding="utf-8"))
    merges = [m.split(" ") if isinstance(m, str) else m for m in content["model"]["merges"]]
    for style in (merges, [" ".join(m) for m in merges]):
        content["model"]["merges"] = style
        path.write_text(json.dumps(content))
        assert Tokenizer.from_folder(tmp_path).encode(EXAMPLE_TEXT[0]) == trained.encode(EXAMPLE_TEXT[0]).ids


def test_merges_with_windows_line_ends_are_read(reread, tmp_path):
    reread.save(tmp_path, model_max_length=64)
    merges = (tmp_path / "merges.txt").read_bytes()
    (tmp_path / "merges.txt").write_bytes(merges.replace(b"\n", b"\r\n"))
    assert Tokenizer.from_folder(tmp_path).merges() == reread.merges() and merges.count(b"\n") > 50


def without_end_of_text(folder: Path) -> None:
    vocab = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps({name: id_ for name, id_ in vocab.items() if name != END_OF_TEXT}))


def only(name: str, content: str):
    def damage(folder: Path) -> None:
        for path in folder.iterdir():
            path.unlink()
        (folder / name).write_text(content, encoding="utf-8")
    return damage


def overwrite(name: str, content: bytes):
    return lambda folder: (folder / name).write_bytes(content)


@pytest.mark.parametrize("damage, word", [
    (without_end_of_text, END_OF_TEXT),
    (lambda folder: (folder / "merges.txt").unlink(), "merges.txt"),
    (lambda folder: (folder / "vocab.json").unlink(), "vocab.json"),
    (overwrite("vocab.json", b'{"a": 0, '), "byte-level BPE"),
    (overwrite("vocab.json", b"[]"), "byte-level BPE"),
    (overwrite("vocab.json", b"\xff\xfe"), "byte-level BPE"),
    (overwrite("merges.txt", b"#version: 0.2\na b c\n"), "byte-level BPE"),
    (overwrite("merges.txt", b"#version: 0.2\na b\n"), "byte-level BPE"),  # "ab" is not in vocab.json
    (overwrite("merges.txt", b"\xff\xfe"), "byte-level BPE"),
    (only("tokenizer.json", "{"), "byte-level BPE"),
    (only("tokenizer.json", "[]"), "byte-level BPE"),
    (only("tokenizer.json", '{"model": {"type": "WordPiece", "vocab": {}}}'), "WordPiece"),
])
def test_files_that_are_no_such_tokenizer_are_refused(tmp_path, damage, word):
    Tokenizer.from_merges([]).save(tmp_path, model_max_length=64)
    damage(tmp_path)
    with pytest.raises(InputError) as refused:
        Tokenizer.from_folder(tmp_path)
    message = str(refused.value)
    assert word in message
    assert message.endswith(".") and "\n" not in message


def test_a_vocabulary_without_end_of_text_is_refused_with_the_name_of_its_folder(tmp_path):
    Tokenizer.from_merges([]).save(tmp_path, model_max_length=64)
    without_end_of_text(tmp_path)
    with pytest.raises(InputError, match=tmp_path.name):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("sign", [" ", "\n", "\u00a0", " \n"], ids=ascii)
@pytest.mark.parametrize(("before", "after"), [("", ""), ("a", ""), ("", "b c"), (" a ", "\tb")])
@pytest.mark.parametrize("count", [9_999, 10_000, 20_001])
def test_long_runs_of_white_space_get_the_ids_of_transformers(gpt2, peer, sign, before, after, count):
    text = before + sign * count + after + sign * count + after
    assert gpt2.encode(text) == peer.encode(text)


@pytest.mark.slow
@pytest.mark.parametrize("sign", [" ", "\n"], ids=ascii)
def test_a_million_spaces_are_encoded(gpt2, sign):
    text = "a" + sign * 1_000_000 + "b"
    assert gpt2.decode(gpt2.encode(text)) == text


# Folders as other tools write them: ids equal transformers', or the folder is refused.

SOME = ["ab he a", " he he", "don't  stop\n\n he", "<|word|> he<|word|>ab", "<|im_start|>user\nhe<|im_end|>", "été <|wor",
        "ab<|word|>  <|im_end|> he", ""]
WORD, START = ({"id": id_, "content": content, "special": special, "lstrip": False, "rstrip": False, "single_word": False,
                "normalized": not special} for id_, content, special in ((261, "<|word|>", False), (262, "<|im_start|>", True)))


def small_folder(folder: Path, config: dict | None = None, **files: object) -> Path:
    """vocab.json, merges.txt and tokenizer_config.json, some settings in the latter, and other files by their stems."""
    Tokenizer.from_merges([(b"a", b"b"), (b" ", b"h"), (b" h", b"e"), (b"h", b"e")]).save(folder, 64)
    settings = json.loads((folder / "tokenizer_config.json").read_text()) | (config or {})
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text('{"model_type": "gpt2"}')  # transformers asks it for the kind of tokenizer
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def saved_by_transformers(folder: Path, **changes: object) -> Path:
    """A folder with tokenizer.json, words added by transformers, and changes: key__key=value."""
    theirs = transformers.GPT2Tokenizer.from_pretrained(small_folder(folder / "before"))
    theirs.add_tokens(["<|word|>"])
    theirs.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    theirs.save_pretrained(folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    for keys, value in changes.items():
        *path, last = keys.split("__")
        inner = content
        for key in path:
            inner = inner[key]
        inner[last] = value
    (folder / "tokenizer.json").write_text(json.dumps(content))
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    return folder


QWEN2 = CUTTINGS["qwen2"][0]["pretokenizers"][0]  # known by llama.cpp's name


def own_cutting(folder: Path, *steps: dict, **changes: object) -> Path:
    """tokenizer.json with these steps before BPE, and a class that does what it says."""
    saved_by_transformers(folder, pre_tokenizer={"type": "Sequence", "pretokenizers": list(steps)}, **changes)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"tokenizer_class": "PreTrainedTokenizerFast"}))
    return folder


KINDS = {
    "vocab.json and merges.txt": lambda f: small_folder(f),
    "added_tokens.json": lambda f: small_folder(f, added_tokens={"<|word|>": 261, "<|im_start|>": 262, "<|im_end|>": 263}),
    "added_tokens.json and special_tokens_map.json": lambda f: small_folder(
        f, added_tokens={"<|word|>": 261, "<|im_start|>": 262, "<|im_end|>": 263},
        special_tokens_map={"pad_token": "<|im_start|>", "cls_token": {"__type": "AddedToken", "content": "<|im_end|>"}}),
    "words in tokenizer_config.json": lambda f: small_folder(f, {"added_tokens_decoder": {"261": WORD, "262": START}}),
    "tokenizer.json": lambda f: saved_by_transformers(f),
    "tokenizer.json without use_regex": lambda f: saved_by_transformers(f, pre_tokenizer={
        "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}),
    "tokenizer.json beside another vocab.json": lambda f: saved_by_transformers(small_folder(f)),
    "digits one by one": lambda f: own_cutting(f, DIGITS, BYTE_LEVEL),
    "a pattern of its own": lambda f: own_cutting(f, QWEN2, BYTE_LEVEL | {"use_regex": False}, normalizer={"type": "NFC"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_folder_gives_the_ids_of_transformers_and_survives_saving(kind, tmp_path):
    """Control tokens in a text stay letters, as with transformers' split_special_tokens; added words do not."""
    theirs = transformers.AutoTokenizer.from_pretrained(KINDS[kind](tmp_path / "a"))
    ours = Tokenizer.from_folder(tmp_path / "a")
    ours.save(tmp_path / "b", 64)
    (tmp_path / "b" / "config.json").write_text('{"model_type": "gpt2"}')
    again, theirs_again = Tokenizer.from_folder(tmp_path / "b"), transformers.AutoTokenizer.from_pretrained(tmp_path / "b")
    assert again.same_as(ours) and again.vocab_size == ours.vocab_size == len(theirs)
    for text in SOME:
        ids = theirs.encode(text, split_special_tokens=True)
        assert ours.encode(text) == again.encode(text) == ids == theirs_again.encode(text, split_special_tokens=True)
        assert ours.decode(ids) == text
        with_control = theirs.encode(text)
        assert theirs_again.encode(text) == with_control and again.decode(with_control) == text


SIGNS = [*"ab he12 ", " he", "\n", "\r\n", "  ", "\t", "'s", "'LL", "'ſ", "é", "e\u0301", "½", "٣", "²", "Ⅷ", "中", "👍🏽",
         "\u2028", "\u00a0", "\u3000", "\x00", "\x85", "\u200d", "!?", "...", "_", "ﬁ", "Å", "가", "\ufeff", "<|word|>",
         "<|im_end|>", "<|im_", "\U0010ffff", " " * 5 + "7", "x" * 30, "Ⴀ", "ǅ", "ª", "ः"]


@pytest.mark.parametrize("count", [500, pytest.param(3000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["digits one by one", "a pattern of its own"])
def test_nasty_strings_get_the_ids_of_transformers(kind, count, tmp_path):
    theirs = transformers.AutoTokenizer.from_pretrained(KINDS[kind](tmp_path))
    ours, rng = Tokenizer.from_folder(tmp_path), random.Random(0)
    texts = ["".join(rng.choices(SIGNS, k=rng.randint(1, 25))) for _ in range(count)]
    assert [ours.encode(text) for text in texts] == theirs(texts, split_special_tokens=True)["input_ids"]
    long = "a" + " " * 10_000 + "7" + "\n" * 10_000 + " b"  # cut by another library
    assert ours.encode(long) == theirs.encode(long)


@pytest.mark.parametrize(("make", "words"), {
    "a space in front": (lambda f: small_folder(f, {"add_prefix_space": True}), "add_prefix_space = True"),
    "end-of-text in front": (lambda f: small_folder(f, {"add_bos_token": True}), "add_bos_token = True"),
    "another class": (lambda f: small_folder(f, {"tokenizer_class": "Qwen2Tokenizer"}), "tokenizer_class = 'Qwen2Tokenizer'"),
    "no cutting": (lambda f: saved_by_transformers(f, pre_tokenizer__use_regex=False), "pre_tokenizer = "),
    "another cutting": (lambda f: saved_by_transformers(f, pre_tokenizer={"type": "Whitespace"}),
                        "pre_tokenizer = {'type': 'Whitespace'}"),
    "two ways to cut": (lambda f: own_cutting(f, DIGITS, DIGITS, BYTE_LEVEL), "pre_tokenizer = "),
    "a pattern that leaves signs out": (lambda f: own_cutting(
        f, QWEN2 | {"pattern": {"Regex": "\\w+"}}, BYTE_LEVEL | {"use_regex": False}), "pre_tokenizer = "),
    "a pattern that takes signs away": (lambda f: own_cutting(
        f, QWEN2 | {"behavior": "Removed"}, BYTE_LEVEL | {"use_regex": False}), "pre_tokenizer = "),
    "pieces of words": (lambda f: saved_by_transformers(f, model__byte_fallback=True), "model.byte_fallback"),
    "dropout": (lambda f: saved_by_transformers(f, model__dropout=0.1), "model.dropout = 0.1"),
    "whole words first": (lambda f: saved_by_transformers(f, model__ignore_merges=True), "model.ignore_merges"),
    "a normalizer": (lambda f: saved_by_transformers(f, normalizer={"type": "NFD"}), "normalizer = {'type': 'NFD'}"),
    "control tokens around": (lambda f: saved_by_transformers(f, post_processor={
        "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": END_OF_TEXT, "type_id": 0}}], "pair": [],
        "special_tokens": {}}), "control tokens around each text"),
    "Roberta's": (lambda f: saved_by_transformers(f, post_processor={"type": "RobertaProcessing"}), "RobertaProcessing"),
    "a word that takes the space": (lambda f: small_folder(f, {"added_tokens_decoder": {"261": WORD | {"lstrip": True}}}),
                                    "'<|word|>', which takes the space"),
    "words that are a list": (lambda f: small_folder(f, added_tokens=["<|word|>"]), "The added words of"),
}.values(), ids=lambda value: "" if callable(value) else value)
def test_folders_that_would_get_other_ids_are_refused(make, words, tmp_path):
    with pytest.raises(InputError) as refused:
        Tokenizer.from_folder(make(tmp_path / "a"))
    assert words in str(refused.value) and str(refused.value).endswith(("use another model.", "fetch or copy it again."))


def test_ids_that_stand_for_nothing_are_known(tmp_path):
    tokenizer = Tokenizer.from_folder(small_folder(tmp_path / "a", added_tokens={"<|word|>": 263}))
    assert (tokenizer.vocab_size, tokenizer.without_token(266)) == (264, [261, 262, 264, 265])


@pytest.mark.parametrize("options", [{"lowercase": True}, {"add_prefix_space": True}], ids=["lower case", "space in front"])
def test_a_tokenizer_that_changes_the_text_first_is_refused(tmp_path, options):
    peer = ByteLevelBPETokenizer(**options)
    peer.train_from_iterator(EXAMPLE_TEXT, vocab_size=300, special_tokens=[END_OF_TEXT], show_progress=False)
    peer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(InputError):
        Tokenizer.from_folder(tmp_path)


def test_a_changed_rank_file_is_refused(tmp_path, monkeypatch):
    changed = tmp_path / "ranks"
    changed.write_bytes(module.RANK_FILE.read_bytes().replace(b"\n", b"\r\n"))
    monkeypatch.setattr(module, "RANK_FILE", changed)
    with pytest.raises((InputError, ValueError), match=r"[Hh]ash"):
        Tokenizer.gpt2()


def test_a_vocabulary_without_all_bytes_can_be_saved_and_read_again(tmp_path):
    """As the package tokenizers trains one that is not told to begin with all bytes."""
    tokenizers = pytest.importorskip("tokenizers")
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.decoder = tokenizers.decoders.ByteLevel()
    theirs.train_from_iterator(["the quick brown fox jumps " * 9], tokenizers.trainers.BpeTrainer(
        vocab_size=60, special_tokens=["<|endoftext|>"]))
    theirs.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    ours = Tokenizer.from_folder(tmp_path)
    ours.save(tmp_path / "again", 64)
    again = Tokenizer.from_folder(tmp_path / "again")
    assert again.same_as(ours) and again.encode("the fox") == theirs.encode("the fox").ids
