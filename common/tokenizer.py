"""Text to token ids and back, for byte-level BPE: GPT-2's, and that of later models, which cut texts in their own way.

`tiktoken` does the encoding. What stands here is where its ranks come from: the shipped rank file of GPT-2, a
checkpoint folder (`vocab.json` and `merges.txt`, or `tokenizer.json`), or merges that we trained ourselves.
"""

import json
import reprlib
import unicodedata
from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import regex
import tiktoken
from tiktoken.load import load_tiktoken_bpe

from common.support.files import InputError, check, is_there, read_json, reading, write_text

END_OF_TEXT = "<|endoftext|>"

# GPT-2 cuts text before BPE: English endings, words, numbers, other signs (each with the space before it), white space.
SPLIT_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# The same after each digit has been cut out of the text, so that one ends a text before it as the end of all does.
DIGITS_PATTERN = r"\p{N}|" + SPLIT_PATTERN.replace(r" ?\p{N}+|", "").replace(r"(?!\S)", r"(?![^\s\p{N}])")
DIGITS = {"type": "Digits", "individual_digits": True}
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}

RANK_FILE = Path(__file__).parent / "assets" / "gpt2" / "r50k_base.tiktoken"
RANK_FILE_SHA256 = "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"  # tiktoken's own for r50k_base

# tiktoken's own cutting overflows its stack on a million spaces; texts with so many are cut by another library.
# (The pattern begins where a run begins: from each place inside, it would look through the rest.)
LONG_SPACE = regex.compile(r"(?<!\p{White_Space})\p{White_Space}{10000,}")
PROBE = "a é 12\u0301\n\n  !?'s\t\x00\r\n\U0001f44d ½中\u3000"  # a pattern that leaves any of it out is not used

# What is needed of tokenizer.json.
SINGLE_FILE = {"model": {"type": str, "vocab": {str: int}, "merges": [(str, [str])]},
               "added_tokens": [{"content": str, "id": int}]}

# Settings with which other tools make other ids than GPT-2's of the same text: what each must be.
PLAIN = {"model.type": ("BPE",), "model.dropout": (None, 0), "model.continuing_subword_prefix": (None, ""),
         "model.end_of_word_suffix": (None, ""), "model.ignore_merges": (None, False), "model.byte_fallback": (None, False),
         "normalizer": (None, {"type": "NFC"})}
PLAIN_CONFIG = {"add_prefix_space": (None, False), "add_bos_token": (None, False), "add_eos_token": (None, False),
                "tokenizer_class": (None, "GPT2Tokenizer", "GPT2TokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend")}
ITS_OWN_CLASS = ("Qwen2Tokenizer", "Qwen2TokenizerFast")  # allowed besides, where tokenizer.json says all that the class does


class Cutting(NamedTuple):
    """What happens to a text before BPE."""

    pattern: str = SPLIT_PATTERN  # cuts it into pieces; no token reaches over two of them
    pre_tokenizer: dict = BYTE_LEVEL  # the same in the words of tokenizer.json
    normalizer: dict | None = None  # or Unicode's NFC: signs that look alike become one


def _byte_alphabet() -> dict[int, str]:
    """One printable character per byte, as GPT-2's vocabulary files write them.

    Bytes that print stand for themselves; the other 68 (control signs, the space, ...) become chr(256), chr(257), ...
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(rest)}


BYTE_TO_CHAR = _byte_alphabet()
CHAR_TO_BYTE = {char: byte for byte, char in BYTE_TO_CHAR.items()}


def to_chars(token: bytes) -> str:
    """b" cat" -> "Ġcat"."""
    return "".join(BYTE_TO_CHAR[byte] for byte in token)


def to_bytes(chars: str) -> bytes:
    """"Ġcat" -> b" cat". Raises KeyError for characters outside the alphabet."""
    return bytes(CHAR_TO_BYTE[char] for char in chars)


def visible(text: str) -> str:
    """A token's text with signs for spaces and line breaks, which nobody sees in a box, and a short name for end-of-text."""
    return text.replace(END_OF_TEXT, "<end>").replace(" ", "␣").replace("\n", "↵")


class Tokenizer:
    """Byte-level BPE. Text given by users never becomes a control token: "<|endoftext|>" in it is encoded as letters.

    Attributes:
        eot_id: id of the end-of-text token, which ends documents and answers.
        vocab_size: the largest id, plus one.
        chat_template: how other tools should put messages to the model, as a Jinja template; saved with the rest. None
            for a model that only continues text.
    """

    chat_template: str | None = None

    def __init__(self, tokens: list[bytes], ids: list[int], special: dict[str, int], added: dict[str, int] | None = None,
                 end: str = END_OF_TEXT, cutting: Cutting | None = None):
        """
        Args:
            tokens: the 256 bytes and then one token per merge, in merge order. A byte without a token is dropped from texts.
            ids: the id of each.
            special: control tokens with their ids; must hold the end-of-text token, whose name is `end`.
            added: words that somebody added to the vocabulary, with their ids. They are cut out of a text before all else.
            cutting: GPT-2's if None.
        """
        self.end, self.eot_id, self.cutting = end, special[end], cutting or Cutting()
        self._ids = dict(zip(tokens, ids))
        self._special, self._added = special, added or {}
        further = self._special | self._added
        self.vocab_size = 1 + max([*ids, *further.values()])
        self._token_of_id = dict(zip(ids, tokens)) | {id_: name.encode() for name, id_ in further.items()}
        # tiktoken joins the pair of lowest rank first, so ranks are merge order. They are ids too in most vocabularies.
        self._id_of_rank = ids
        ranks = {token: rank for rank, token in enumerate(tokens)}
        self._encoding = tiktoken.Encoding("gpt2-like", pat_str=self.cutting.pattern, mergeable_ranks=ranks, special_tokens={})
        self._unknown = bytes(byte for byte in range(256) if bytes([byte]) not in ranks)
        longest_first = sorted(self._added, key=len, reverse=True)
        self._words = regex.compile(f"({'|'.join(map(regex.escape, longest_first))})") if added else None

    def same_as(self, other: "Tokenizer") -> bool:
        """Whether both mean the same by every id."""
        return (self._token_of_id, self._added, self.cutting) == (other._token_of_id, other._added, other.cutting)

    def control(self, name: str) -> int:
        """The id of a control token, which no text gives.

        Raises:
            InputError: if there is none of this name.
        """
        if name not in self._special:
            raise InputError(f"This model's tokenizer has no control token {name}, which the prompt style chatml needs; use "
                             "--format alpaca or phi3.")
        return self._special[name]

    def without_token(self, size: int) -> list[int]:
        """The ids below `size`, a model's rows, that stand for nothing."""
        return [id_ for id_ in range(size) if id_ not in self._token_of_id]

    def encode(self, text: str) -> list[int]:
        """Text -> ids. Never gives a special token."""
        if self._words is None:
            return self._encode(text)
        parts = self._words.split(text)  # text, added word, text, added word, ..., text
        return list(chain.from_iterable([self._added[part]] if number % 2 else self._encode(part)
                                        for number, part in enumerate(parts)))

    def encode_pieces(self, pieces: Sequence[str]) -> list[int]:
        """Text, control token, text, control token, ... -> ids. Only what stands at a control token's place becomes one."""
        return list(chain.from_iterable([self.control(piece)] if number % 2 else self.encode(piece)
                                        for number, piece in enumerate(pieces)))

    def _encode(self, text: str) -> list[int]:
        text = unicodedata.normalize("NFC", text) if self.cutting.normalizer else text
        if LONG_SPACE.search(text) or (self._unknown and set(self._unknown) & set(text.encode(errors="replace"))):
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # as tiktoken does
            pieces = (match[0].encode().translate(None, self._unknown) for match in regex.finditer(self.cutting.pattern, text))
            ranks = list(chain.from_iterable(self._encoding._encode_single_piece(piece) for piece in pieces if piece))
        else:
            ranks = self._encoding.encode_ordinary(text)
        return [self._id_of_rank[rank] for rank in ranks]

    def decode(self, ids: list[int]) -> str:
        """Ids -> text. Bytes that are no UTF-8 (half a character, say) and ids without a token become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: list[int]) -> bytes:
        """Ids -> the bytes they stand for. (A model may have more rows than the tokenizer has entries.)"""
        return b"".join(self._token_of_id.get(i, "\ufffd".encode()) for i in ids)

    @classmethod
    def gpt2(cls) -> "Tokenizer":
        """GPT-2's own vocabulary of 50,257 entries, from the rank file that ships with this repository."""
        try:
            ranks = load_tiktoken_bpe(str(RANK_FILE), expected_hash=RANK_FILE_SHA256)
        except ValueError as error:
            raise InputError(f"{RANK_FILE} is not the file it should be ({error}); check it out again.") from error
        tokens = sorted(ranks, key=ranks.__getitem__)
        return cls(tokens, list(range(len(tokens))), {END_OF_TEXT: len(tokens)})

    @classmethod
    def from_merges(cls, merges: list[tuple[bytes, bytes]]) -> "Tokenizer":
        """From merges that we trained: 256 bytes, one token per merge, end-of-text last."""
        tokens = [bytes([byte]) for byte in range(256)] + [left + right for left, right in merges]
        tokens = list(dict.fromkeys(tokens))  # two merges can spell the same token; it needs one id
        return cls(tokens, list(range(len(tokens))), {END_OF_TEXT: len(tokens)})

    @classmethod
    def from_folder(cls, folder: Path) -> "Tokenizer":
        """From a checkpoint folder: `tokenizer.json`, or `vocab.json` with `merges.txt`.

        Raises:
            InputError: if there are no such files, or other tools would make other ids of a text by them.
        """
        what, advice = "no file of GPT-2's byte-level BPE", "fetch or copy it again"
        config, cutting, single_file = {}, Cutting(), folder / "tokenizer.json"
        if is_there(config_file := folder / "tokenizer_config.json"):
            config = read_json(config_file, {str: object}, "no tokenizer_config.json", advice)
            if not (is_there(single_file) and config.get("tokenizer_class") in ITS_OWN_CLASS):
                _check_plain(config_file, config, PLAIN_CONFIG)
        if is_there(single_file):  # what other tools read if there are both
            vocab, merges, more, cutting = _read_single(single_file, what, advice)
        elif is_there(folder / "vocab.json") and is_there(folder / "merges.txt"):
            vocab = read_json(folder / "vocab.json", {str: int}, what, advice)
            with reading(folder / "merges.txt", what, advice):
                lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
                if not lines:
                    raise ValueError("it is empty")
            lines = lines[1:] if lines and lines[0].startswith("#version") else lines
            merges = [line.split(" ") for line in lines if line]
            with reading(f"The added words of {folder}", "not as other tools write them", advice):
                more = _added_words(folder, config)
        else:
            raise InputError(f"{folder} has no tokenizer: put vocab.json and merges.txt (or tokenizer.json) "
                             "beside the weights.")
        with reading(f"The tokenizer in {folder}", "not GPT-2's byte-level BPE", advice):
            vocab |= {word["content"]: word["id"] for word in more}
            # Of a byte that no text of theirs has, some vocabularies have no token; it is dropped, as other tools do.
            known = [c for c in CHAR_TO_BYTE if c in vocab or not is_there(single_file)]
            chars = dict.fromkeys([*known, *(left + right for left, right in merges)])
            missing = [c for c in chars if c not in vocab]
            if missing or min(vocab.values()) < 0 or len(set(vocab.values())) < len(vocab):
                raise ValueError(f"it gives {missing[0]!r} no id" if missing else "its ids are not all different and from 0 up")
            ids = [vocab[c] for c in chars]
            tokens = [to_bytes(c) for c in chars]
        end = config.get("eos_token") or END_OF_TEXT
        end = end["content"] if isinstance(end, dict) else end
        if end not in vocab:
            raise InputError(f"The tokenizer in {folder} has no {end} token, which ends documents and answers; use "
                             "another model.")
        added = {}
        for word in more:
            if not word.get("special") and word["content"] != end:
                if word.get("lstrip") or word.get("rstrip") or word.get("single_word"):
                    raise InputError(f"The tokenizer in {folder} has the added word {word['content']!r}, which takes the space "
                                     "beside it or stands alone (lstrip, rstrip, single_word); that is not done here: use "
                                     "another model.")
                added[word["content"]] = word["id"]
        special = {name: id_ for name, id_ in vocab.items() if name not in chars and name not in added}
        tokenizer = cls(tokens, ids, special, added, end, cutting)
        tokenizer.chat_template = own_template(folder)
        return tokenizer

    def merges(self) -> list[tuple[bytes, bytes]]:
        """The merges, in their order."""
        return self._merges

    @cached_property  # each checkpoint writes them, and for GPT-2's vocabulary this takes seconds
    def _merges(self) -> list[tuple[bytes, bytes]]:
        """Found again from the ranks: a token's last two parts are what lower ranks make of its bytes."""
        ranks = {token: rank for rank, token in enumerate(self._ids)}
        pairs = []
        for token, rank in ranks.items():
            if len(token) == 1:
                continue
            parts = [token[i:i + 1] for i in range(len(token))]
            while len(parts) > 2:
                at = min(range(len(parts) - 1), key=lambda i: ranks.get(parts[i] + parts[i + 1], rank))
                parts[at:at + 2] = [parts[at] + parts[at + 1]]
            pairs.append((parts[0], parts[1]))
        return pairs

    def save(self, folder: Path, model_max_length: int) -> None:
        """Write `vocab.json`, `merges.txt` and `tokenizer_config.json`, and, if there are added words or further control
        tokens, `tokenizer.json`, as transformers reads them."""
        vocab = {to_chars(token): id_ for token, id_ in self._ids.items()} | self._special
        vocab = dict(sorted(vocab.items(), key=lambda entry: entry[1]))
        merges = "".join(f"{to_chars(left)} {to_chars(right)}\n" for left, right in self.merges())
        write_text(folder / "vocab.json", json.dumps(vocab))
        write_text(folder / "merges.txt", "#version: 0.2\n" + merges)
        own = self.cutting != Cutting()
        # Only tokenizer.json can say how a text is cut, what is control, and that some bytes have no token.
        if own or self._unknown or len(self._special | self._added) > 1:
            flags = dict.fromkeys(("lstrip", "rstrip", "single_word"), False)
            write_text(folder / "tokenizer.json", json.dumps({
                "version": "1.0", "truncation": None, "padding": None, "normalizer": self.cutting.normalizer,
                "pre_tokenizer": self.cutting.pre_tokenizer, "post_processor": BYTE_LEVEL, "decoder": BYTE_LEVEL,
                "added_tokens": [
                    {"id": id_, "content": name, "special": name in self._special, "normalized": False} | flags
                    for name, id_ in sorted((self._special | self._added).items(), key=lambda entry: entry[1])],
                "model": {"type": "BPE", "vocab": vocab | self._added, "merges": merges.splitlines()}}))
        write_text(folder / "tokenizer_config.json", json.dumps({
            # The class of GPT-2's would cut as GPT-2 does, whatever tokenizer.json says.
            "tokenizer_class": "PreTrainedTokenizerFast" if own else "GPT2Tokenizer",
            "model_max_length": model_max_length, "add_prefix_space": False,
            "bos_token": self.end, "eos_token": self.end, "unk_token": self.end,
            **({"chat_template": self.chat_template} if self.chat_template else {})}, indent=2))


def _check_plain(path: Path, content: dict, plain: dict[str, tuple]) -> None:
    """Refuse settings of a tokenizer file (at "key", or "key.key" inside) that are others than these."""
    for name, allowed in plain.items():
        value: Any = content
        for key in name.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if value not in allowed:
            raise InputError(f"{path} says {name} = {reprlib.repr(value)}, and with that other ids belong to a text than with "
                             f"byte-level BPE as it is done here, where it is {allowed[-1]!r}; use another model.")


def _read_single(path: Path, what: str, advice: str) -> tuple[dict[str, int], list[list[str]], list[dict], Cutting]:
    """Vocabulary, merges, added words and cutting of a tokenizer.json."""
    content = read_json(path, {"model": {"type": str}}, what, advice)
    _check_plain(path, content, PLAIN)
    with reading(path, what, advice):
        check(content, SINGLE_FILE)
        around = content.get("post_processor") or {}
        if around.get("type", "ByteLevel") != "ByteLevel" and any("SpecialToken" in part for part in around.get("single", [{
                "SpecialToken": around}])):
            raise InputError(f"{path} puts control tokens around each text (post_processor {around['type']}); that is not done "
                             "here: use another model.")
        cutting, model = _read_cutting(path, content), content["model"]
        if model.get("unk_token") and not CHAR_TO_BYTE.keys() <= model["vocab"].keys():
            raise ValueError(f"some bytes have no token, and {model['unk_token']} stands for them; that is not done here")
    return (model["vocab"], [m.split(" ") if isinstance(m, str) else m for m in model["merges"]], content["added_tokens"],
            cutting)


def _read_cutting(path: Path, content: dict) -> Cutting:
    """How a text is cut: as GPT-2 does, so after each digit was cut out, or by a pattern in the file."""
    found = content.get("pre_tokenizer") or {}
    *before, last = found["pretokenizers"] if found.get("type") == "Sequence" else [found]
    own = last.get("use_regex", True)
    pattern = SPLIT_PATTERN if own and not before else None
    if own and len(before) == 1 and before[0] == DIGITS:
        pattern = DIGITS_PATTERN
    elif not own and len(before) == 1 and before[0].get("type") == "Split" and before[0]["behavior"] == "Isolated":
        pattern = before[0]["pattern"].get("Regex") if not before[0].get("invert") else None
    if (pattern is None or last.get("type") != "ByteLevel" or last.get("add_prefix_space")
            or "".join(piece[0] for piece in regex.finditer(pattern, PROBE)) != PROBE):
        raise InputError(f"{path} says pre_tokenizer = {reprlib.repr(found)}, which cuts texts in a way that is not known here "
                         "(GPT-2's, digits one by one, or one pattern that leaves nothing out); use another model.")
    return Cutting(pattern, found if before else BYTE_LEVEL, content.get("normalizer"))


def own_template(folder: Path) -> str | None:
    """The chat template of a folder, from tokenizer_config.json or from a file of its own, as newer tools write it."""
    alone, beside = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    if is_there(alone):
        with reading(alone, "no chat template"):
            return alone.read_text(encoding="utf-8")
    template = read_json(beside, {str: object}).get("chat_template") if is_there(beside) else None
    if isinstance(template, list):  # of several by name
        template = {one.get("name"): one.get("template") for one in template if isinstance(one, dict)}.get("default")
    return template if isinstance(template, str) and template else None


def _added_words(folder: Path, config: dict) -> list[dict]:
    """The words added to a `vocab.json`, as tokenizer.json lists them: those of `tokenizer_config.json` and of the older
    `added_tokens.json`, which are control tokens if the config or `special_tokens_map.json` gives them a part to play."""
    words = [word | {"id": int(id_)} for id_, word in config.get("added_tokens_decoder", {}).items()]
    read = {name: read_json(folder / name) for name in ("added_tokens.json", "special_tokens_map.json")
            if (folder / name).exists()}
    roles = [value for key, value in (config | read.get("special_tokens_map.json", {})).items()
             if key.endswith(("_token", "_tokens"))]
    control = {name["content"] if isinstance(name, dict) else name for value in roles
               for name in (value if isinstance(value, list) else [value]) if isinstance(name, (str, dict))}
    return words + [{"content": name, "id": id_, "special": name in control}
                    for name, id_ in read.get("added_tokens.json", {}).items()
                    if name not in {word["content"] for word in words}]
