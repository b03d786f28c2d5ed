"""Text to token ids and back, for GPT-2's byte-level BPE.

`tiktoken` does the encoding. What stands here is where its ranks come from: the shipped rank file of GPT-2, a
checkpoint folder (`vocab.json` and `merges.txt`, or `tokenizer.json`), or merges that we trained ourselves.
"""

import json
import reprlib
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import regex
import tiktoken
from tiktoken.load import load_tiktoken_bpe

from common.support.files import InputError, check, is_there, read_json, reading, write_text

END_OF_TEXT = "<|endoftext|>"

# GPT-2 cuts text before BPE: English endings, words, numbers, other signs (each with the space before it), white space.
SPLIT_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

RANK_FILE = Path(__file__).parent / "assets" / "gpt2" / "r50k_base.tiktoken"
RANK_FILE_SHA256 = "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"  # tiktoken's own for r50k_base

# tiktoken's own cutting overflows its stack on a million spaces, so such runs are cut out before.
# (The pattern begins where a run begins: from each place inside, it would look through the rest.)
LONG_SPACE = regex.compile(r"(?<!\p{White_Space})\p{White_Space}{10000,}")

# What is needed of tokenizer.json.
SINGLE_FILE = {"model": {"type": str, "vocab": {str: int}, "merges": [(str, [str])]},
               "added_tokens": [{"content": str, "id": int}]}

# Settings with which other tools make other ids than GPT-2's of the same text: what each must be.
PLAIN = {"model.type": ("BPE",), "model.dropout": (None, 0), "model.continuing_subword_prefix": (None, ""),
         "model.end_of_word_suffix": (None, ""), "model.ignore_merges": (None, False), "normalizer": (None,),
         "pre_tokenizer.type": ("ByteLevel",), "pre_tokenizer.add_prefix_space": (None, False),
         "pre_tokenizer.use_regex": (None, True)}
PLAIN_CONFIG = {"add_prefix_space": (None, False), "add_bos_token": (None, False), "add_eos_token": (None, False),
                "tokenizer_class": (None, "GPT2Tokenizer", "GPT2TokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend")}


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

    def __init__(self, tokens: list[bytes], ids: list[int], special: dict[str, int], added: dict[str, int] | None = None):
        """
        Args:
            tokens: the 256 bytes and then one token per merge, in merge order.
            ids: the id of each.
            special: control tokens with their ids; must hold the end-of-text token.
            added: words that somebody added to the vocabulary, with their ids. They are cut out of a text before all else.
        """
        self.eot_id = special[END_OF_TEXT]
        self._ids = dict(zip(tokens, ids))
        self._special, self._added = special, added or {}
        further = self._special | self._added
        self.vocab_size = 1 + max([*ids, *further.values()])
        self._token_of_id = dict(zip(ids, tokens)) | {id_: name.encode() for name, id_ in further.items()}
        # tiktoken joins the pair of lowest rank first, so ranks are merge order. They are ids too in most vocabularies.
        self._id_of_rank = ids
        self._ranks = {token: rank for rank, token in enumerate(tokens)}
        self._encoding = tiktoken.Encoding("gpt2-like", pat_str=SPLIT_PATTERN, mergeable_ranks=self._ranks, special_tokens={})
        longest_first = sorted(self._added, key=len, reverse=True)
        self._words = regex.compile(f"({'|'.join(map(regex.escape, longest_first))})") if added else None

    def same_as(self, other: "Tokenizer") -> bool:
        """Whether both mean the same by every id."""
        return (self._token_of_id, self._added) == (other._token_of_id, other._added)

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

    def _encode(self, text: str) -> list[int]:
        ranks, start = [], 0
        for run in LONG_SPACE.finditer(text):
            end = run.end() - (run.end() < len(text))  # the pattern leaves the last one to what follows
            ranks += self._encoding.encode_ordinary(text[start:run.start()])
            ranks += self._one_word.encode_ordinary(text[run.start():end])
            start = end
        ranks += self._encoding.encode_ordinary(text[start:])
        return [self._id_of_rank[rank] for rank in ranks]

    @cached_property
    def _one_word(self) -> tiktoken.Encoding:
        """Encodes a text as it is, without cutting it."""
        return tiktoken.Encoding("uncut", pat_str=r"(?s:.+)", mergeable_ranks=self._ranks, special_tokens={})

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
        config = {}
        if is_there(config_file := folder / "tokenizer_config.json"):
            config = read_json(config_file, {str: object}, "no tokenizer_config.json", advice)
            _check_plain(config_file, config, PLAIN_CONFIG)
        if is_there(single_file := folder / "tokenizer.json"):  # what other tools read if there are both
            vocab, merges, more = _read_single(single_file, what, advice)
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
            chars = dict.fromkeys([*CHAR_TO_BYTE, *(left + right for left, right in merges)])
            missing = [c for c in chars if c not in vocab]
            if missing or min(vocab.values()) < 0 or len(set(vocab.values())) < len(vocab):
                raise ValueError(f"it gives {missing[0]!r} no id" if missing else "its ids are not all different and from 0 up")
            ids = [vocab[c] for c in chars]
            tokens = [to_bytes(c) for c in chars]
        if END_OF_TEXT not in vocab:
            raise InputError(f"The tokenizer in {folder} has no {END_OF_TEXT} token, which ends documents and answers; use "
                             "another model.")
        added = {}
        for word in more:
            if not word.get("special") and word["content"] != END_OF_TEXT:
                if word.get("lstrip") or word.get("rstrip") or word.get("single_word"):
                    raise InputError(f"The tokenizer in {folder} has the added word {word['content']!r}, which takes the space "
                                     "beside it or stands alone (lstrip, rstrip, single_word); that is not done here: use "
                                     "another model.")
                added[word["content"]] = word["id"]
        return cls(tokens, ids, {name: id_ for name, id_ in vocab.items() if name not in chars and name not in added}, added)

    def merges(self) -> list[tuple[bytes, bytes]]:
        """The merges, found again from the ranks: a token's last two parts are what lower ranks make of its bytes."""
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
        if len(self._special | self._added) > 1:  # only tokenizer.json can say which words are control tokens
            plain = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
            flags = dict.fromkeys(("lstrip", "rstrip", "single_word"), False)
            write_text(folder / "tokenizer.json", json.dumps({
                "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "pre_tokenizer": plain,
                "post_processor": plain, "decoder": plain, "added_tokens": [
                    {"id": id_, "content": name, "special": name in self._special, "normalized": False} | flags
                    for name, id_ in sorted((self._special | self._added).items(), key=lambda entry: entry[1])],
                "model": {"type": "BPE", "vocab": vocab | self._added, "merges": merges.splitlines()}}))
        write_text(folder / "tokenizer_config.json", json.dumps({
            "tokenizer_class": "GPT2Tokenizer", "model_max_length": model_max_length, "add_prefix_space": False,
            "bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "unk_token": END_OF_TEXT,
            **({"chat_template": self.chat_template} if self.chat_template else {})}, indent=2))


def _check_plain(path: Path, content: dict, plain: dict[str, tuple]) -> None:
    """Refuse settings of a tokenizer file (at "key", or "key.key" inside) that are others than these."""
    for name, allowed in plain.items():
        value: Any = content
        for key in name.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if value not in allowed:
            raise InputError(f"{path} says {name} = {reprlib.repr(value)}, and with that other ids belong to a text than with "
                             f"GPT-2's byte-level BPE, where it is {allowed[-1]!r}; use another model.")


def _read_single(path: Path, what: str, advice: str) -> tuple[dict[str, int], list[list[str]], list[dict]]:
    """Vocabulary, merges and added words of a tokenizer.json."""
    content = read_json(path, {"model": {"type": str}}, what, advice)
    _check_plain(path, content, PLAIN)
    with reading(path, what, advice):
        check(content, SINGLE_FILE)
        around = content.get("post_processor") or {}
        if around.get("type", "ByteLevel") != "ByteLevel" and any("SpecialToken" in part for part in around.get("single", [{
                "SpecialToken": around}])):
            raise InputError(f"{path} puts control tokens around each text (post_processor {around['type']}); GPT-2 as written "
                             "here does not: use another model.")
    return (content["model"]["vocab"], [m.split(" ") if isinstance(m, str) else m for m in content["model"]["merges"]],
            content["added_tokens"])


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
