from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ch_pretrain.windows import collate_windows, encode_documents, page_dataset, page_starts, window_starts


def cut(tokens: int, context: int) -> tuple[torch.Tensor, torch.Tensor]:
    """All windows of the row 0, 1, 2, ..., in which every token is its own position."""
    return collate_windows(window_starts(tokens, context), torch.arange(tokens), context)


def test_windows_that_fit():
    assert window_starts(9, 4) == [0, 4]
    inputs, targets = cut(9, 4)
    assert inputs.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert targets.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]


def test_last_window_is_moved_back():
    assert window_starts(11, 4) == [0, 4, 6]
    _, targets = cut(11, 4)
    assert targets.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8], [7, 8, 9, 10]]


def test_text_shorter_than_a_window():
    assert window_starts(3, 8) == [0]
    inputs, targets = cut(3, 8)
    assert inputs.tolist() == [[0, 1]] and targets.tolist() == [[1, 2]]


def test_text_one_token_longer_than_a_window():
    inputs, targets = cut(5, 4)
    assert inputs.tolist() == [[0, 1, 2, 3]] and targets.tolist() == [[1, 2, 3, 4]]


def test_any_windows_make_a_batch():
    row = torch.tensor([5, 6, 7, 8, 9])
    inputs, targets = collate_windows([2, 0], row, 2)
    assert inputs.tolist() == [[7, 8], [5, 6]] and targets.tolist() == [[8, 9], [6, 7]]
    assert inputs.dtype == targets.dtype == torch.int64


@pytest.mark.slow
@given(tokens=st.integers(2, 80), context=st.integers(1, 20))
def test_each_token_is_a_target_once_but_in_the_last_overlap(tokens, context):
    _, targets = cut(tokens, context)
    assert sorted(set(targets.flatten().tolist())) == list(range(1, tokens))
    before_last = Counter(targets[:-1].flatten().tolist())
    assert all(count == 1 for count in before_last.values())
    assert len(targets) == -(-(tokens - 1) // context)
    assert targets[-1, -1] == tokens - 1


@pytest.mark.slow
@given(row=st.lists(st.integers(0, 300), min_size=2, max_size=50), context=st.integers(1, 20))
def test_targets_are_the_next_tokens(row, context):
    starts = window_starts(len(row), context)
    inputs, targets = collate_windows(starts, torch.tensor(row), context)
    assert inputs.shape == targets.shape == (len(starts), min(context, len(row) - 1))
    for start, given_, asked in zip(starts, inputs.tolist(), targets.tolist()):
        assert given_ == row[start:start + len(given_)]
        assert asked == row[start + 1:start + 1 + len(asked)]


def test_documents_end_with_end_of_text(tokenizer):
    row = encode_documents(["ab", "c"], tokenizer)
    assert row.tolist() == [97, 98, 256, 99, 256]
    assert row.dtype == torch.int64


def test_end_of_text_written_in_a_document_is_letters(tokenizer):
    row = encode_documents(["a<|endoftext|>b"], tokenizer).tolist()
    assert row.count(tokenizer.eot_id) == 1 and row[-1] == tokenizer.eot_id
    assert tokenizer.decode(row[:-1]) == "a<|endoftext|>b"


def test_windows_of_pages_begin_with_a_page_and_leave_out_what_they_cut():
    row = torch.tensor([1, 2, 0, 3, 4, 0, 5, 6, 7, 8, 9, 0, 10, 0, 11, 12, 0, 13, 0])  # 0 ends a page
    assert page_starts(row, 5, eot_id=0) == [0, 6, 12]
    data = page_dataset(row, 5, eot_id=0)
    assert data.order(0) == data.order(1) == [0, 6, 12]  # the pages' own order
    inputs, targets = data.collate(data.items)
    assert inputs.tolist() == [[1, 2, 0, 3, 4], [5, 6, 7, 8, 9], [10, 0, 11, 12, 0]]
    assert targets.tolist() == [[2, 0, 3, 4, 0], [6, 7, 8, 9, 0], [0, 11, 12, 0, 13]]


def test_pages_shorter_than_a_window_make_one():
    row = torch.tensor([1, 0, 2, 0])
    assert page_starts(row, 8, eot_id=0) == [0]
    assert page_dataset(row, 8, eot_id=0).collate([0])[1].tolist() == [[0, 2, 0]]
