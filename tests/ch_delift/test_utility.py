"""The utility matrix against a plain double loop, and what must never happen to it."""

import math

import numpy as np
import pytest
import torch

from ch_delift.fast import shared_prefix
from ch_delift.fast.matrix_file import grow, partial
from ch_delift.fast.shared_prefix import SharedPrefix, distances, kinds_of_targets, make_batches
from ch_delift.utility import SEPARATOR, plain_utility, shown, similarity, utility_matrix
from ch_instruct.encoding import Example, encode_record
from common.support.files import InputError
from tests.models import make_model

CONTEXT = 700  # Alpaca prompts in bytes are long


@pytest.fixture(scope="module")
def model():
    return make_model(n_positions=CONTEXT)


def record(instruction: str, output: str, given: str = "") -> dict:
    return {"instruction": instruction, "input": given, "output": output}


RECORDS = [record("Say hello.", "Hello."), record("Name a colour.", "Red"), record("Add.", "5", "2 and 3"),
           record("Name a day.", "Monday, or any other"), record("Turn around.", "olleh", "hello"), record("Ünï", "日本")]


def plain_distance(model, tokenizer, target: dict, example: dict | None, style: str) -> float:
    """d(i) or d(i | j), one pair alone: concatenate, run the whole model, look at every response token."""
    before = [] if example is None else encode_record(example, tokenizer, style).ids[:-1] + tokenizer.encode(SEPARATOR)
    ids, prompt_length, _ = encode_record(target, tokenizer, style)
    with torch.no_grad():
        p = model(torch.tensor([before + ids])).softmax(dim=-1)[0]
    places = range(len(before) + prompt_length, len(before) + len(ids))
    squares = [(1 - p[t - 1, (before + ids)[t]].item()) ** 2 for t in places]
    return math.sqrt(sum(squares) / len(squares))


def encoded(records: list[dict], tokenizer, style: str = "alpaca") -> list[Example]:
    return [encode_record(r, tokenizer, style) for r in records]


def matrix(model, tokenizer, targets: list[dict], candidates: list[dict], style: str = "alpaca", **options) -> np.ndarray:
    """The fast way, from records."""
    rows, columns = (encoded(records, tokenizer, style) for records in (targets, candidates))
    return utility_matrix(model, tokenizer, rows, columns, **options)


def plain_matrix(model, tokenizer, targets, candidates, style="alpaca") -> list[list[float]]:
    return [[plain_distance(model, tokenizer, i, None, style) - plain_distance(model, tokenizer, i, j, style)
             for j in candidates] for i in targets]


@pytest.mark.slow
@pytest.mark.parametrize("style", ["alpaca", "phi3"])
@pytest.mark.parametrize(("rows", "columns"), [
    (slice(None), slice(None)), (slice(0, 4), slice(3, 6)), (slice(2, 3), slice(None))])
def test_it_equals_the_plain_double_loop(model, tokenizer, style, rows, columns):
    targets, candidates = RECORDS[rows], RECORDS[columns]
    found = matrix(model, tokenizer, targets, candidates, style)
    assert found.dtype == np.float32 and found.shape == (len(targets), len(candidates))
    np.testing.assert_allclose(found, plain_matrix(model, tokenizer, targets, candidates, style), atol=1e-5)
    plain = plain_utility(model, tokenizer, encoded(targets, tokenizer, style), encoded(candidates, tokenizer, style))
    np.testing.assert_allclose(found, plain, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("tokens", [1, 150, 10**6])
def test_how_targets_are_put_together_changes_nothing(model, tokenizer, tokens, monkeypatch):
    monkeypatch.setitem(shared_prefix.TOKENS_PER_PASS, "cpu", tokens)
    found = matrix(model, tokenizer, RECORDS, RECORDS[:2])
    np.testing.assert_allclose(found, plain_matrix(model, tokenizer, RECORDS, RECORDS[:2]), atol=1e-5)


class Certain(torch.nn.Module):
    """A stand-in for a model: it gives each position these probabilities, whatever it reads."""

    device = torch.device("cpu")
    table = torch.tensor([[1, 0, 0, 0], [1 / 2, 1 / 6, 1 / 6, 1 / 6], [1 / 4, 1 / 4, 1 / 4, 1 / 4], [0, 0, 0, 1]])

    wte = torch.nn.Embedding(4, 1)

    def hidden_states(self, inputs, view=None):
        positions = view.positions if inputs.dim() == 1 else torch.arange(inputs.size(1)).expand_as(inputs)
        return self.table[positions]

    def logits(self, hidden):
        return hidden.log()


def test_three_tokens_by_hand():
    """A response of three tokens with p = 1/2, 1/4 and 1: d = sqrt((1/4 + 9/16 + 0) / 3)."""
    [batch] = make_batches([Example([2, 2, 0, 1, 3], 2)], [0], [], pad_id=0, tokens=10)
    assert distances(Certain(), batch, None).item() == pytest.approx(math.sqrt((1 / 4 + 9 / 16 + 0) / 3))


def test_padding_does_not_count():
    """The second response has the tokens with p = 1/2 and 1/4 only; what pads it is not in its mean."""
    [batch] = make_batches([Example([2, 2, 0, 1], 2), Example([2, 2, 0, 1, 3], 2)], [0, 1], [], pad_id=0, tokens=10)
    assert batch.rows == [0, 1]
    assert distances(Certain(), batch, None).tolist() == pytest.approx([math.sqrt(13 / 32), math.sqrt(13 / 48)])


def test_batches_hold_each_row_once_and_little_padding():
    targets = [Example([0] * n, n - 2) for n in (30, 11, 12, 50, 13, 31, 12)]
    batches = make_batches(targets, range(7), [0] * 10, pad_id=0, tokens=60)
    assert [batch.rows for batch in batches] == [[1, 2, 6], [4], [0, 5], [3]]
    assert all(batch.inputs.numel() <= 60 for batch in batches)


def test_the_common_beginning_stops_before_the_last_prompt_token():
    [kind] = kinds_of_targets([Example([1, 2, 3, 4, 5], 4), Example([1, 2, 3, 4, 6], 4)])
    assert kind.beginning == [1, 2, 3]
    [kind] = kinds_of_targets([Example([1, 2], 1)])
    assert kind.beginning == []


def test_of_a_cut_example_every_token_is_shown(tokenizer):
    whole = encode_record(RECORDS[0], tokenizer)
    cut = Example(whole.ids[:-3], whole.prompt_length)  # without the end and two letters before it
    assert shown(whole, tokenizer) == whole.ids[:-1] + tokenizer.encode(SEPARATOR)
    assert shown(cut, tokenizer) == cut.ids + tokenizer.encode(SEPARATOR)


def test_kinds_of_targets_begin_alike(tokenizer):
    """The two preambles of Alpaca prompts make two kinds; many beginnings make none."""
    kinds = kinds_of_targets(encoded(RECORDS, tokenizer))
    assert sorted(kind.rows for kind in kinds) == [[0, 1, 3, 5], [2, 4]]
    assert all("### Instruction:" in tokenizer.decode(kind.beginning) for kind in kinds)
    [only] = kinds_of_targets([Example([1, token, 3, 4], 3) for token in range(9)])
    assert only.rows == list(range(9)) and only.beginning == [1]


def test_of_a_conversation_every_answer_counts(model, tokenizer):
    turns = [("user", "Hi."), ("assistant", "Yes?"), ("user", "Add 1 and 1."), ("assistant", "2")]
    conversation = record("Add 1 and 1.", "2") | {"messages": [{"role": role, "content": text} for role, text in turns]}
    example, target = RECORDS[0], encode_record(conversation, tokenizer, "phi3")

    def d(front: list[int]) -> float:
        with torch.no_grad():
            p = model(torch.tensor([front + target.ids])).softmax(dim=-1)[0]
        places = [t for start, end in target.spans for t in range(start, end)]
        squares = [(1 - p[len(front) + t - 1, target.ids[t]].item()) ** 2 for t in places]
        return math.sqrt(sum(squares) / len(squares))

    assert len(target.spans) == 2
    front = encode_record(example, tokenizer, "phi3").ids[:-1] + tokenizer.encode(SEPARATOR)
    found = matrix(model, tokenizer, [*RECORDS, conversation], [example], "phi3")
    assert found[-1, 0] == pytest.approx(d([]) - d(front), abs=1e-5)


@pytest.mark.slow
def test_some_pairs_are_the_same_as_in_the_whole(model, tokenizer):
    pairs = np.array([[1, 0], [0, 1], [5, 2], [3, 4], [4, 1], [2, 5]])
    whole = matrix(model, tokenizer, RECORDS, RECORDS)
    some = matrix(model, tokenizer, RECORDS, RECORDS, pairs=pairs)
    np.testing.assert_allclose(some, np.take_along_axis(whole, pairs, axis=1), atol=1e-6)


@pytest.mark.slow
def test_bf16_is_close(model, tokenizer):
    whole = matrix(model, tokenizer, RECORDS, RECORDS)
    np.testing.assert_allclose(matrix(model, tokenizer, RECORDS, RECORDS, precision="bf16"), whole, atol=0.02)


def test_the_model_is_left_as_it_was(model, tokenizer):
    model.train()
    before, state = torch.get_rng_state(), {name: t.clone() for name, t in model.state_dict().items()}
    matrix(model, tokenizer, RECORDS[:2], RECORDS[:2])
    assert model.training and torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(t, state[name]) for name, t in model.state_dict().items())
    model.eval()


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(model, tokenizer, tmp_path, monkeypatch):
    file, examples = tmp_path / "utility.npy", []

    def counting(model, ids, before=None):
        examples.append(ids)
        if len(examples) == 10:  # two kinds of targets alone; two candidates, each before two kinds; and half of the third
            raise KeyboardInterrupt
        return SharedPrefix(model, ids, before)

    monkeypatch.setattr(shared_prefix, "SharedPrefix", counting)
    with pytest.raises(KeyboardInterrupt):
        matrix(model, tokenizer, RECORDS, RECORDS, file=file)
    assert not file.exists()  # only a whole matrix has its name
    done = ~np.isnan(np.load(partial(file))).any(axis=0)
    assert done.tolist() == [True, True, False, False, False, False]
    examples[:] = [None] * 10
    found = matrix(model, tokenizer, RECORDS, RECORDS, file=file)
    assert len(examples) - 10 == 2 + 4 * 3  # alone, and only what was missing
    np.testing.assert_allclose(found, plain_matrix(model, tokenizer, RECORDS, RECORDS), atol=1e-5)
    assert [p.name for p in tmp_path.iterdir()] == ["utility.npy"]
    examples[:] = []
    np.testing.assert_array_equal(matrix(model, tokenizer, RECORDS, RECORDS, file=file), found)
    assert examples == []  # read, not computed


def test_a_new_file_is_all_unknown(tmp_path):
    assert np.isnan(grow(tmp_path / "m.npy", (3, 4))).all()


def test_a_target_longer_than_the_context_is_refused(tokenizer):
    with pytest.raises(InputError, match="leave it out"):
        matrix(make_model(n_positions=64), tokenizer, RECORDS, RECORDS)


def test_nothing_fits_behind_a_cut_example_that_fills_the_context(model, tokenizer):
    """Such an example is trained on; shown to others, it helps none of them."""
    short = encode_record(RECORDS[0], tokenizer)
    full = Example((short.ids[:-1] * 40)[:model.config.n_positions + 1], model.config.n_positions - 5)
    found = utility_matrix(model, tokenizer, [short, full], [full, short])
    assert found[:, 0].tolist() == [0, 0] and found[0, 1] != 0


def test_it_is_told_how_much_there_is_to_measure(model, tokenizer, capsys):
    matrix(model, tokenizer, RECORDS, RECORDS[:2])
    said = capsys.readouterr().out
    assert "2 candidates for 6 targets: 12 pairs, 0.0 MB" in said


def test_similarity_kernels():
    U = np.array([[-0.5, 0.0], [0.25, 0.5]])
    np.testing.assert_array_equal(similarity(U), [[0, 0], [0.25, 0.5]])
    np.testing.assert_array_equal(similarity(U, "minmax"), [[0, 0.5], [0.75, 1]])
    np.testing.assert_array_equal(similarity(np.full((2, 2), 0.3), "minmax"), np.zeros((2, 2)))
