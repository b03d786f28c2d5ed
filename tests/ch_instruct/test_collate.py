import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ch_instruct.collate import collate, show_batch
from ch_instruct.encoding import Example, encode_prompt, encode_record
from ch_instruct.prompts import STYLES, format_prompt
from common.losses import IGNORE_INDEX, next_token_loss
from common.tokenizer import END_OF_TEXT, Tokenizer
from tests.models import make_model

__ = IGNORE_INDEX  # not in the loss
END = 256  # end-of-text of the byte tokenizer
BYTES = Tokenizer.from_merges([])


@st.composite
def example_batches(draw):
    """Between one and five examples of unlike lengths, with ids from a small range so that they often repeat."""
    batch = []
    for _ in range(draw(st.integers(1, 5))):
        ids = draw(st.lists(st.integers(0, 6), min_size=2, max_size=12))
        batch.append(Example(ids, draw(st.integers(1, len(ids) - 1))))
    return batch


def tensors(examples: list[tuple[list[int], int]], **options: object) -> tuple[list, list]:
    inputs, targets = collate([Example(*example) for example in examples], **options)
    assert inputs.dtype == targets.dtype == torch.int64
    return inputs.tolist(), targets.tolist()


def test_loss_on_response():
    assert tensors([([10, 11, 12, 20, 21, END], 3)]) == ([[10, 11, 12, 20, 21]], [[__, __, 20, 21, END]])


def test_loss_on_all():
    assert tensors([([10, 11, 12, 20, 21, END], 3)], loss_on="all") == ([[10, 11, 12, 20, 21]], [[11, 12, 20, 21, END]])


def test_ragged_rows():
    inputs, targets = tensors([([10, 11, 20, END], 2), ([12, 13, 14, 22, 23, 24, END], 3), ([15, 25, END], 1)], pad_id=7)
    assert inputs == [[10, 11, 20, 7, 7, 7],
                      [12, 13, 14, 22, 23, 24],
                      [15, 25, 7, 7, 7, 7]]
    assert targets == [[__, 20, END, __, __, __],
                       [__, __, 22, 23, 24, END],
                       [25, END, __, __, __, __]]


def test_ragged_rows_with_loss_on_all():
    inputs, targets = tensors([([10, 11, 20, END], 2), ([12, 13, 22, 23, END], 2)], pad_id=7, loss_on="all")
    assert inputs == [[10, 11, 20, 7], [12, 13, 22, 23]]
    assert targets == [[11, 20, END, __], [13, 22, 23, END]]


def test_response_of_one_token():
    assert tensors([([10, 11, 12, END], 3), ([10, END], 1)]) == ([[10, 11, 12], [10, 0, 0]],
                                                                 [[__, __, END], [END, __, __]])


def test_truncated_response_has_no_end():
    assert tensors([([10, 11, 20, 21], 2)]) == ([[10, 11, 20]], [[__, 20, 21]])


def test_row_without_a_response_has_no_target():
    assert tensors([([10, 11, 12], 3), ([10, 20, 21], 1)]) == ([[10, 11], [10, 20]], [[__, __], [20, 21]])


@pytest.mark.parametrize("loss_on", ["response", "all"])
def test_pad_id_inside_a_text_stays(loss_on):
    inputs, targets = tensors([([7, 11, 7, 20, 7, 7], 3), ([10, 20], 1)], pad_id=7, loss_on=loss_on)
    assert inputs == [[7, 11, 7, 20, 7], [10, 7, 7, 7, 7]]
    assert targets == [[__, __, 20, 7, 7] if loss_on == "response" else [11, 7, 20, 7, 7], [20, __, __, __, __]]


def test_padding_with_end_of_text_keeps_the_first_one_as_target():
    _, targets = tensors([([10, 20, END], 1), ([10, 20, 21, 22, END], 1)], pad_id=END)
    assert targets == [[20, END, __, __], [20, 21, 22, END]]


def test_examples_stay_as_they_were():
    example = Example([10, 11, 20, END], 2)
    collate([example, Example([1, 2, 3, 4, 5, 6], 3)])
    assert example == Example([10, 11, 20, END], 2)


@given(batch=example_batches(), pad_id=st.integers(0, 6))
def test_targets_are_the_ids_one_further_on(batch, pad_id):
    inputs, targets = collate(batch, pad_id)
    assert inputs.shape == targets.shape == (len(batch), max(len(e.ids) for e in batch) - 1)
    for (ids, prompt_length, _), given_, asked in zip(batch, inputs.tolist(), targets.tolist()):
        n = len(ids) - 1
        assert given_ == ids[:-1] + [pad_id] * (len(given_) - n)
        assert asked == [ids[t + 1] if prompt_length - 1 <= t < n else __ for t in range(len(asked))]


@given(batch=example_batches())
def test_as_many_targets_as_response_tokens(batch):
    _, on_response = collate(batch)
    _, on_all = collate(batch, loss_on="all")
    assert (on_response != __).sum(1).tolist() == [len(ids) - prompt_length for ids, prompt_length, _ in batch]
    assert (on_all != __).sum(1).tolist() == [len(ids) - 1 for ids, _, _ in batch]
    assert torch.equal(on_all[on_response != __], on_response[on_response != __])


@settings(deadline=None, max_examples=25)
@given(batch=example_batches(), pad_id=st.integers(0, 256))
def test_padding_changes_no_logits_and_no_loss(batch, pad_id):
    model = make_model(n_layer=1, n_embd=16, n_head=2)
    with torch.no_grad():
        inputs, targets = collate(batch, pad_id)
        together, (total, count) = model(inputs), next_token_loss(model, (inputs, targets))
        alone = [collate([example]) for example in batch]
        for row, (one, _) in enumerate(alone):
            torch.testing.assert_close(together[row, :one.size(1)], model(one)[0], rtol=1e-4, atol=1e-5)
        losses, counts = zip(*(next_token_loss(model, one) for one in alone))
    assert count == sum(counts)
    torch.testing.assert_close(total, sum(losses), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("loss_on", ["", "Response", "prompt", None])
def test_bad_loss_on(loss_on):
    with pytest.raises(ValueError, match=r"loss_on is .*; use 'response' or 'all'"):
        collate([Example([1, 2, 3], 1)], loss_on=loss_on)


@pytest.mark.parametrize("style", STYLES)
def test_record_is_prompt_response_end(style, tokenizer):
    record = {"instruction": "Say hello.", "input": "to Ä", "output": "Hello, Ä!\n"}
    ids, prompt_length, _ = encode_record(record, tokenizer, style)
    assert tokenizer.decode(ids[:prompt_length]) == format_prompt(record, style)
    assert tokenizer.decode(ids[prompt_length:-1]) == "Hello, Ä!\n"
    assert ids[-1] == tokenizer.eot_id


def test_prompt_and_response_are_encoded_apart():
    """Where the last token of the prompt and the first of the response could be one, they stay two."""
    tokenizer = Tokenizer.from_merges([(b"\n", b"x")])
    ids, prompt_length, _ = encode_record({"instruction": "a\nx", "output": "x\nx"}, tokenizer, "phi3")
    assert prompt_length == len(tokenizer.encode(format_prompt({"instruction": "a\nx"}, "phi3")))
    assert tokenizer.decode(ids[prompt_length:-1]) == "x\nx" and tokenizer.decode([ids[prompt_length]]) == "x"


@pytest.mark.parametrize("field", ["instruction", "input", "output"])
def test_end_of_text_written_by_a_user_is_letters(field, tokenizer):
    record = {"instruction": "Go on.", "input": "a", "output": "b"} | {field: f"x{END_OF_TEXT}y"}
    ids, prompt_length, _ = encode_record(record, tokenizer)
    assert ids.index(tokenizer.eot_id) == len(ids) - 1
    assert f"x{END_OF_TEXT}y" in tokenizer.decode(ids[:-1])
    _, targets = collate([Example(ids, prompt_length), Example(ids + [1] * 9, prompt_length)], tokenizer.eot_id)
    assert targets[0].tolist().count(tokenizer.eot_id) == 1


@pytest.mark.parametrize("loss_on", ["response", "all"])
@settings(deadline=None, max_examples=30)
@given(outputs=st.lists(st.text(alphabet="ab<|endoftext|>", max_size=20), min_size=1, max_size=4))
def test_last_target_of_every_row_is_the_end(loss_on, outputs):
    examples = [encode_record({"instruction": "Say it.", "output": output}, BYTES, "phi3") for output in outputs]
    _, targets = collate(examples, BYTES.eot_id, loss_on)
    for row in targets.tolist():
        asked = [token for token in row if token != __]
        assert asked.index(BYTES.eot_id) == len(asked) - 1


# Conversations


def talk(*texts: str) -> dict:
    """A conversation: system, then user and assistant in turn."""
    roles = ["system", *["user", "assistant"] * len(texts)]
    return {"messages": [{"role": role, "content": text} for role, text in zip(roles, texts)]}


def test_every_token_of_a_conversation(tokenizer):
    """The assistant's tokens and the end-of-text after each turn are targets, at the position before; nothing else is."""
    example = encode_record(talk("S", "a?", "bc", "d?", "ef"), tokenizer, "phi3")
    inputs, targets = collate([example], tokenizer.eot_id)
    first, second = "<|System|>\nS\n\n<|User|>\na?\n\n<|Assistant|>\n", "\n\n<|User|>\nd?\n\n<|Assistant|>\n"
    assert inputs.tolist() == [[*first.encode(), *b"bc", END, *second.encode(), *b"ef"]]
    assert targets.tolist() == [[*[__] * (len(first) - 1), *b"bc", END, *[__] * len(second), *b"ef", END]]


def test_every_token_of_a_conversation_with_loss_on_all(tokenizer):
    example = encode_record(talk("S", "a?", "bc", "d?", "ef"), tokenizer, "alpaca")
    inputs, targets = collate([example], loss_on="all")
    assert torch.equal(targets[0, :-1], inputs[0, 1:]) and targets[0, -1] == END


def test_conversations_and_records_in_one_batch():
    long, short = Example([10, 11, 20, END, 12, 13, 21, 22, END], 2, ((2, 4), (6, 9))), Example([10, 20, END], 1)
    inputs, targets = collate([short, long], pad_id=7)
    assert inputs.tolist() == [[10, 20, 7, 7, 7, 7, 7, 7], [10, 11, 20, END, 12, 13, 21, 22]]
    assert targets.tolist() == [[20, END, __, __, __, __, __, __], [__, 20, END, __, __, 21, 22, END]]
    assert (short.response_tokens, long.response_tokens) == (2, 5)


@pytest.mark.parametrize("style", STYLES)
@settings(deadline=None, max_examples=40)
@given(texts=st.lists(st.text(alphabet="ab\n <|endoftext|>Assistant#:", max_size=15), min_size=3, max_size=9))
def test_the_supervised_tokens_are_the_assistants(style, texts):
    record = talk(*texts[:len(texts) - 1 + len(texts) % 2])
    example = encode_record(record, BYTES, style)
    _, targets = collate([example], BYTES.eot_id)
    said = [[*message["content"].encode(), END] for message in record["messages"] if message["role"] == "assistant"]
    assert [token for token in targets[0].tolist() if token != __] == [token for turn in said for token in turn]
    assert [example.ids[start:end] for start, end in example.spans] == said


@pytest.mark.parametrize("style", STYLES)
def test_prompts_turn_by_turn_are_what_training_saw(style):
    """Every turn begins after the ids that the training example has there, although some tokens could span the seam."""
    tokenizer = Tokenizer.from_merges([(b"\n", b"\n"), (b"\n", b"x"), (b"x", b"\n")])
    record = talk("\nx", "x\n\nx", "x\nx", "\nx\n", "x\n", "x", "\n")
    example = encode_record(record, tokenizer, style)
    for turn, (start, end) in enumerate(example.spans):
        messages = record["messages"][:2 * turn + 2]
        assert encode_prompt({"messages": messages}, tokenizer, style) == example.ids[:start]
        answered = {"messages": record["messages"][:2 * turn + 3]}
        assert encode_prompt(answered, tokenizer, style) == example.ids[:start]
        assert encode_record(answered, tokenizer, style).ids == example.ids[:end]


@pytest.mark.parametrize("style", STYLES)
def test_conversation_of_one_turn_encodes_like_a_record(style, tokenizer):
    record = {"instruction": "Say hello.", "output": "Hello."}
    messages = talk("", "Say hello.", "Hello.")["messages"][1:]
    assert encode_record({"messages": messages}, tokenizer, style) == encode_record(record, tokenizer, style)
    assert encode_prompt(record, tokenizer, style) == tokenizer.encode(format_prompt(record, style))


def test_show_batch(tokenizer):
    inputs, targets = collate([Example([*b"ab", *b"xy", END], 2), Example([*b"abcdef", END], 6)], tokenizer.eot_id)
    assert show_batch(inputs, targets, tokenizer).splitlines() == [
        "position  input            target           in loss",
        "       0  'a'              -100             -",
        "       1  'b'              'x'              yes",
        "       2  'x'              'y'              yes",
        "       3  'y'              '<|endoftext|>'  yes",
        "       4  '<|endoftext|>'  -100             -",
        "       5  '<|endoftext|>'  -100             -"]
    assert show_batch(inputs, targets, tokenizer, row=1).splitlines()[-1] == \
        "       5  'f'    '<|endoftext|>'  yes"


@given(batch=example_batches(), loss_on=st.sampled_from(["response", "all"]))
def test_show_batch_says_of_every_position_whether_it_is_in_the_loss(batch, loss_on):
    inputs, targets = collate(batch, loss_on=loss_on)
    for row in range(len(batch)):
        lines = show_batch(inputs, targets, BYTES, row).splitlines()[1:]
        assert [line.endswith(" yes") for line in lines] == (targets[row] != __).tolist()
