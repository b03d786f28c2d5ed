"""Text to token ids and back, for GPT-2's byte-level BPE.

`tiktoken` does the encoding. What stands here is where its ranks come from: the shipped rank file of GPT-2, a
checkpoint folder (`vocab.json` and `merges.txt`, or `tokenizer.json`), or merges that we trained ourselves.
"""

import json
from pathlib import Path

import tiktoken
from tiktoken.load import load_tiktoken_bpe

from common.support.files import InputError, check, is_there, read_json, reading, write_text

END_OF_TEXT = "<|endoftext|>"

# GPT-2 cuts text before BPE: English endings, words, numbers, other signs (each with the space before it), white space.
SPLIT_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

RANK_FILE = Path(__file__).parent / "assets" / "gpt2" / "r50k_base.tiktoken"
RANK_FILE_SHA256 = "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"  # tiktoken's own for r50k_base

# What is needed of tokenizer.json.
SINGLE_FILE = {"model": {"type": str, "vocab": {str: int}, "merges": [(str, [str])]},
               "added_tokens": [{"content": str, "id": int}]}


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


class Tokenizer:
    """Byte-level BPE. Text given by users never becomes a control token: "<|endoftext|>" in it is encoded as letters.

    Attributes:
        eot_id: id of the end-of-text token, which ends documents and answers.
        vocab_size: the largest id, plus one.
        chat_template: how other tools should put messages to the model, as a Jinja template; saved with the rest. None
            for a model that only continues text.
    """

    chat_template: str | None = None

    def __init__(self, tokens: list[bytes], ids: list[int], special: dict[str, int]):
        """
        Args:
            tokens: the 256 bytes and then one token per merge, in merge order.
            ids: the id of each.
            special: further entries with their ids; must hold the end-of-text token.
        """
        self.eot_id = special[END_OF_TEXT]
        self._ids = dict(zip(tokens, ids))
        self._special = special
        self.vocab_size = 1 + max([*ids, *special.values()])
        self._token_of_id = dict(zip(ids, tokens)) | {id_: name.encode() for name, id_ in special.items()}
        # tiktoken joins the pair of lowest rank first, so ranks are merge order. They are ids too in most vocabularies.
        self._id_of_rank = ids
        ranks = {token: rank for rank, token in enumerate(tokens)}
        self._encoding = tiktoken.Encoding("gpt2-like", pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens={})

    def same_as(self, other: "Tokenizer") -> bool:
        """Whether both mean the same by every id."""
        return self._token_of_id == other._token_of_id

    def encode(self, text: str) -> list[int]:
        """Text -> ids. Never gives a special token."""
        return [self._id_of_rank[rank] for rank in self._encoding.encode_ordinary(text)]

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
        """From a checkpoint folder: `vocab.json` with `merges.txt`, or `tokenizer.json`."""
        what, advice = "no file of GPT-2's byte-level BPE", "fetch or copy it again"
        vocab_file, merges_file, single_file = (folder / name for name in ("vocab.json", "merges.txt", "tokenizer.json"))
        if is_there(vocab_file) and is_there(merges_file):
            vocab = read_json(vocab_file, {str: int}, what, advice)
            with reading(merges_file, what, advice):
                lines = merges_file.read_text(encoding="utf-8").splitlines()
                if not lines:
                    raise ValueError("it is empty")
            lines = lines[1:] if lines and lines[0].startswith("#version") else lines
            merges = [line.split(" ") for line in lines if line]
        elif is_there(single_file):
            content = read_json(single_file, {"model": {"type": str}}, what, advice)
            with reading(single_file, what, advice):
                kind, cut = content["model"]["type"], content.get("pre_tokenizer") or {}
                if (kind != "BPE" or cut.get("type") != "ByteLevel" or cut.get("add_prefix_space")
                        or content.get("normalizer") is not None):
                    raise InputError(f"{single_file} ({kind}) is not GPT-2's byte-level BPE, without normalizer and with a "
                                     "ByteLevel pre-tokenizer that adds no space; use another model.")
                check(content, SINGLE_FILE)
            vocab = content["model"]["vocab"] | {t["content"]: t["id"] for t in content["added_tokens"]}
            merges = [m.split(" ") if isinstance(m, str) else m for m in content["model"]["merges"]]
        else:
            raise InputError(f"{folder} has no tokenizer: put vocab.json and merges.txt (or tokenizer.json) "
                             "beside the weights.")
        with reading(f"The tokenizer in {folder}", "not GPT-2's byte-level BPE", advice):
            chars = dict.fromkeys([*CHAR_TO_BYTE, *(left + right for left, right in merges)])
            missing = [c for c in chars if c not in vocab]
            if missing or min(vocab.values()) < 0 or len(set(vocab.values())) < len(vocab):
                raise ValueError(f"it gives {missing[0]!r} no id" if missing else "its ids are not all different and from 0 up")
            ids = [vocab[c] for c in chars]
            tokens = [to_bytes(c) for c in chars]
        if is_there(folder / "tokenizer_config.json"):  # not needed here, but by other tools
            read_json(folder / "tokenizer_config.json", {str: object}, "no tokenizer_config.json", advice)
        if END_OF_TEXT not in vocab:
            raise InputError(f"The tokenizer in {folder} has no {END_OF_TEXT} token, which ends documents and answers; use "
                             "another model.")
        return cls(tokens, ids, {name: id_ for name, id_ in vocab.items() if name not in chars})

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
        """Write `vocab.json`, `merges.txt` and `tokenizer_config.json`, as transformers reads them."""
        vocab = {to_chars(token): id_ for token, id_ in self._ids.items()} | self._special
        vocab = dict(sorted(vocab.items(), key=lambda entry: entry[1]))
        merges = "".join(f"{to_chars(left)} {to_chars(right)}\n" for left, right in self.merges())
        write_text(folder / "vocab.json", json.dumps(vocab))
        write_text(folder / "merges.txt", "#version: 0.2\n" + merges)
        write_text(folder / "tokenizer_config.json", json.dumps({
            "tokenizer_class": "GPT2Tokenizer", "model_max_length": model_max_length, "add_prefix_space": False,
            "bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "unk_token": END_OF_TEXT,
            **({"chat_template": self.chat_template} if self.chat_template else {})}, indent=2))
