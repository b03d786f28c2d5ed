from collections import Counter
from itertools import pairwise

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from ch_pretrain.bpe import count_words, join, plain_merges, train_bpe
from ch_pretrain.classroom import pages
from common.tokenizer import END_OF_TEXT, SPLIT_PATTERN, Tokenizer

CORPUS = END_OF_TEXT.join(pages(300, seed=3))


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    """train_bpe from a text instead of a file."""
    path = tmp_path_factory.mktemp("bpe") / "corpus.txt"

    def run(text: str, vocab_size: int, special_tokens: list[str]):
        path.write_bytes(text.encode())
        return train_bpe(path, vocab_size, special_tokens)

    return run


@pytest.fixture(scope="module")
def trained(train):
    """Vocabulary and merges of the classroom corpus, and the tokenizer made of them."""
    vocab, merges = train(CORPUS, 400, [END_OF_TEXT])
    return vocab, merges, Tokenizer.from_merges(merges)


def naive_merges(text: str, count: int, special_tokens: list[str]) -> list[tuple[bytes, bytes]]:
    """BPE by the definition: count every pair anew before each merge."""
    parts = regex.split("|".join(map(regex.escape, special_tokens)), text) if special_tokens else [text]
    words = Counter(piece for part in parts for piece in regex.findall(SPLIT_PATTERN, part))
    split = {piece: [bytes([byte]) for byte in piece.encode()] for piece in words}
    merges = []
    while len(merges) < count:
        pairs = Counter()
        for piece, tokens in split.items():
            for pair in pairwise(tokens):
                pairs[pair] += words[piece]
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        for piece, tokens in split.items():
            joined = []
            for token in tokens:
                if joined and (joined[-1], token) == best:
                    joined[-1] += token
                else:
                    joined.append(token)
            split[piece] = joined
    return merges


def apply_merges(text: str, merges: list[tuple[bytes, bytes]]) -> list[bytes]:
    tokens = []
    for piece in regex.findall(SPLIT_PATTERN, text):
        word = tuple(bytes([byte]) for byte in piece.encode())
        for pair in merges:
            word = join(word, pair)
        tokens += word
    return tokens


def test_classic_example_worked_by_hand(train):
    # low x 5, lower x 2, widest x 3, newest x 6; line breaks are words of one byte.
    #   e s 9, s t 9                     tie: s t is greater            -> st
    #   e st 9                                                          -> est
    #   w e 2, w est 6, l o 7, o w 7     tie: o w is greater than l o   -> ow
    #   l ow 7                                                          -> low
    #   n e 6, e w 6, w est 6            tie: w est                     -> west
    #   n e 6, e west 6                  tie: n e                       -> ne
    #   ne west 6                                                       -> newest
    #   w i 3, i d 3, d est 3            tie: w i                       -> wi
    #   wi d 3, d est 3                  tie: wi d                      -> wid
    #   wid est 3                                                       -> widest
    #   low e 2, e r 2                   tie: low e                     -> lowe
    #   lowe r 2                                                        -> lower
    text = "\n".join(["low"] * 5 + ["lower"] * 2 + ["widest"] * 3 + ["newest"] * 6)
    vocab, merges = train(text, 500, [])
    assert merges == [(b"s", b"t"), (b"e", b"st"), (b"o", b"w"), (b"l", b"ow"), (b"w", b"est"), (b"n", b"e"),
                      (b"ne", b"west"), (b"w", b"i"), (b"wi", b"d"), (b"wid", b"est"), (b"low", b"e"), (b"lowe", b"r")]
    assert [vocab[i] for i in range(256, len(vocab))] == [
        b"st", b"est", b"ow", b"low", b"west", b"ne", b"newest", b"wi", b"wid", b"widest", b"lowe", b"lower"]


def test_tie_goes_to_greater_pair(train):
    _, merges = train("ab\ncd\nca", 257, [])
    assert merges == [(b"c", b"d")]


def test_tie_compares_pairs_not_joined_tokens(train):
    """(ab, c) is greater than (a, z), although "abc" is less than "az"."""
    _, merges = train("ab\nab\nabc\naz", 259, [])
    assert merges == [(b"a", b"b"), (b"ab", b"c"), (b"a", b"z")]


def test_tie_compares_bytes_as_unsigned(train):
    _, merges = train("zz\n\u00e9", 257, [])
    assert merges == [("\u00e9".encode()[:1], "\u00e9".encode()[1:])]


def test_no_token_crosses_a_word(train):
    _, merges = train("ab ab ab 12ab", 500, [])
    assert {left + right for left, right in merges} == {b"ab", b" ab", b"12", b" 12"}


def test_special_token_is_neither_merged_nor_counted(train):
    text = f"ab{END_OF_TEXT}" * 20 + "cd"
    _, merges = train(text, 500, [END_OF_TEXT])
    assert merges == [(b"a", b"b"), (b"c", b"d")]


def test_nothing_is_merged_across_a_special_token(train):
    assert train(f"a{END_OF_TEXT}b", 500, [END_OF_TEXT])[1] == []
    assert train("ab", 500, [END_OF_TEXT])[1] == [(b"a", b"b")]


def test_special_tokens_come_last_in_their_order(train):
    vocab, merges = train("abab", 500, [END_OF_TEXT, "<pad>"])
    assert list(vocab) == list(range(256 + len(merges) + 2))
    assert [vocab[i] for i in range(256)] == [bytes([i]) for i in range(256)]
    assert [vocab[len(vocab) - 2], vocab[len(vocab) - 1]] == [END_OF_TEXT.encode(), b"<pad>"]


def test_longest_of_two_special_tokens_is_taken():
    assert count_words("a<e>!b<e>c", ["<e>", "<e>!"]) == {b"a": 1, b"b": 1, b"c": 1}


def test_count_words_cuts_like_gpt2():
    assert count_words("we're here, here  12", []) == {
        b"we": 1, b"'re": 1, b" here": 2, b",": 1, b" ": 1, b" 12": 1}


def test_join_goes_from_left_to_right():
    assert join((b"a", b"a", b"a"), (b"a", b"a")) == (b"aa", b"a")
    assert join((b"a", b"b", b"c", b"a", b"b"), (b"a", b"b")) == (b"ab", b"c", b"ab")
    assert join((b"b", b"a"), (b"a", b"b")) == (b"b", b"a")


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(text=st.text(alphabet="aab\u00e9 \n1'<|>", max_size=80), count=st.integers(0, 40),
       special_tokens=st.sampled_from([[], ["<|>"], ["a1", "b"]]))
def test_equals_naive_bpe_on_small_corpora(train, text, count, special_tokens):
    vocab, merges = train(text, 256 + count + len(special_tokens), special_tokens)
    assert merges == naive_merges(text, count, special_tokens) == plain_merges(count_words(text, special_tokens), count)
    assert len(vocab) == 256 + len(merges) + len(special_tokens)


@pytest.mark.slow
def test_equals_naive_bpe_on_classroom_pages(trained):
    _, merges, _ = trained
    assert len(merges) == 143
    assert merges == naive_merges(CORPUS, 143, [END_OF_TEXT])


def test_vocabulary_has_the_asked_size(trained):
    vocab, merges, _ = trained
    assert len(vocab) == 400 == 256 + len(merges) + 1
    assert len(set(vocab.values())) == 400


@pytest.mark.slow
def test_smaller_vocabulary_is_a_prefix(train, trained):
    _, merges = train(CORPUS, 300, [END_OF_TEXT])
    assert merges == trained[1][:43]


def test_no_room_for_merges(train):
    vocab, merges = train("abab", 257, [END_OF_TEXT])
    assert merges == [] and len(vocab) == 257


def test_fewer_entries_when_no_pair_is_left(train):
    vocab, merges = train("abc", 1000, [])
    assert len(merges) == 2 and len(vocab) == 258


@pytest.mark.parametrize(("vocab_size", "special_tokens"), [(255, []), (256, [END_OF_TEXT]), (0, []), (-1, [])])
def test_too_small_vocabulary_is_refused(train, vocab_size, special_tokens):
    with pytest.raises(ValueError, match=f"A vocabulary of {vocab_size} cannot hold 256 bytes and {len(special_tokens)}"):
        train("abab", vocab_size, special_tokens)


def test_empty_text(train):
    vocab, merges = train("", 300, [END_OF_TEXT])
    assert merges == []
    assert list(vocab.values()) == [bytes([i]) for i in range(256)] + [END_OF_TEXT.encode()]


def test_line_ends_are_not_translated(train):
    _, merges = train("a\r\n\r\n" * 3, 500, [])
    assert (b"\r", b"\n") in merges


def test_tokenizer_has_the_ids_of_the_vocabulary(trained):
    vocab, _, tokenizer = trained
    assert tokenizer.vocab_size == len(vocab)
    assert {i: tokenizer.decode_bytes([i]) for i in range(len(vocab))} == vocab


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(text=st.text(max_size=60) | st.text(alphabet="The capitlofFrnsP.\n ", max_size=60))
def test_every_text_comes_back(trained, text):
    _, _, tokenizer = trained
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(text=st.text(max_size=40) | st.text(alphabet="The capitlofFrnsP.\n ", max_size=60))
def test_tokenizer_equals_applying_the_merges_in_order(trained, text):
    vocab, merges, tokenizer = trained
    assert [vocab[i] for i in tokenizer.encode(text)] == apply_merges(text, merges)


@pytest.mark.slow
@settings(deadline=None, max_examples=80)
@given(corpus=st.text(alphabet="aab", max_size=40), text=st.text(alphabet="aab", max_size=30))
def test_tokenizer_equals_applying_the_merges_with_much_repetition(train, corpus, text):
    vocab, merges = train(corpus, 290, [END_OF_TEXT])
    assert [vocab[i] for i in Tokenizer.from_merges(merges).encode(text)] == apply_merges(text, merges)
