"""Shapes that stay the same: the states, losses and gradients of padded rows, and nothing that would wait for a GPU."""

import pytest
import torch
import torch.nn.attention.flex_attention as flex
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode

from common.fast.packed import PART, Packed, compile_blocks, filled, run_packed
from common.fast.views import run
from common.gpt2 import GPT2, GPT2Config
from common.losses import IGNORE_INDEX, head_loss, up_to_last_target
from tests.common.fast.test_views import gradients_of
from tests.models import KINDS, make_model

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def backward_on_the_cpu(monkeypatch):
    """flex_attention refuses to go back on a CPU, where it has no fast kernels; PyTorch's slow form of it can."""
    monkeypatch.setattr(flex, "_validate_device", lambda *_: None)
    with torch._dynamo.config.patch(recompile_limit=8):  # afterwards it is as it was
        yield
    torch._dynamo.reset()


def needed_for(lengths: list[int]) -> torch.Tensor:
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def batch_of(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs, and targets in the second half of each row."""
    ids = torch.randint(0, 256, (len(lengths), max(lengths) + 1), generator=torch.Generator().manual_seed(len(lengths)))
    places = torch.arange(max(lengths))
    learnt = needed_for(lengths) & (places >= torch.tensor(lengths)[:, None] // 2)
    return ids[:, :-1], ids[:, 1:].masked_fill(~learnt, IGNORE_INDEX)


@pytest.mark.slow
@pytest.mark.parametrize("kind, lengths", [("GPT-2", [12, 5]), *((kind, [1, 60, 33, 64, 64, 64]) for kind in KINDS)])
def test_losses_and_gradients_are_those_of_padded_rows(kind, lengths):
    model, (inputs, targets) = KINDS[kind](), batch_of(lengths)
    found = []
    for states in (lambda needed: run(model, inputs), lambda needed: run_packed(model, inputs, needed)):
        model.zero_grad()
        hidden = states(up_to_last_target(targets))
        loss, count = head_loss(model, hidden, targets)
        loss.backward()
        found.append([loss.detach() / count, hidden.detach()[needed_for(lengths)], *gradients_of(model)])
    assert len(found[0]) > 14
    for padded, fast in zip(*found, strict=True):
        torch.testing.assert_close(fast, padded, atol=2e-4, rtol=1e-4)
    assert not hidden[~needed_for(lengths)].any()


@pytest.mark.slow
def test_a_row_does_not_see_the_one_before_it():
    """What the comparison above rests on: in its own row, a text reads as if it were alone."""
    model, (inputs, _) = make_model(), batch_of([40, 50])
    with torch.no_grad():
        before = run_packed(model, inputs, needed_for([40, 50]))
        inputs[0] = inputs[0].flip(0)
        after = run_packed(model, inputs, needed_for([40, 50]))
    assert torch.equal(before[1], after[1]) and not torch.allclose(before[0], after[0])


@pytest.mark.parametrize("lengths", [[3], [300, 200, 12], [128, 128, 256, 511], [1, 2, 900, 127, 130], [1] * 700])
def test_no_part_of_the_scores_is_forgotten(lengths):
    """PyTorch's own way looks at each pair of tokens. Only parts above its limits may be asked for without need: none is."""
    view = Packed(needed_for(lengths), CPU)
    N = filled(sum(lengths))
    assert len(view.positions) == N
    slow = flex.create_block_mask(view.blocks.mask_mod, 1, 1, N, N, device="cpu", BLOCK_SIZE=PART)
    assert slow.kv_num_blocks.sum() > 0
    for name in ("kv_num_blocks", "kv_indices", "full_kv_num_blocks", "full_kv_indices",
                 "q_num_blocks", "q_indices", "full_q_num_blocks", "full_q_indices"):
        assert torch.equal(getattr(view.blocks, name), getattr(slow, name)), name


def test_few_numbers_of_tokens_occur():
    sizes = [filled(n) for n in range(16_385)]
    assert all(n <= size and size % (2 * PART) == 0 for n, size in enumerate(sizes)) and sizes[0] == 256
    assert len(set(sizes)) == 20 and max(size / n for n, size in enumerate(sizes) if n > 1024) < 1.26


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["GPT-2", "Llama"])
def test_blocks_are_compiled_once_for_all_lengths(kind):
    """In one piece, which a pause for the GPU would cut; other lengths need no other kernels, other numbers of tokens do."""
    model, counter = KINDS[kind](n_positions=400), CompileCounterWithBackend("aot_eager")
    plain = [p.detach().clone() for p in model.parameters()]
    compile_blocks(model, backend=counter)
    for lengths, compiled in (([12, 5], 1), ([7, 40, 200], 1), ([300, 50], 2), ([100, 101], 2)):
        model.zero_grad()
        inputs, _ = batch_of(lengths)
        hidden = run_packed(model, inputs, needed_for(lengths))
        hidden.square().sum().backward()
        assert counter.frame_count == compiled, lengths
    fast = gradients_of(model)
    model = KINDS[kind](n_positions=400)
    assert all(torch.equal(a, b) for a, b in zip(plain, model.parameters(), strict=True))
    run(model, inputs)[needed_for(lengths)].square().sum().backward()
    for a, b in zip(fast, gradients_of(model), strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def test_rows_of_equal_length_are_no_matter_of_this_view(monkeypatch):
    model, (inputs, _) = make_model(), batch_of([9, 9])
    monkeypatch.setattr("common.fast.packed.Packed", None)
    assert torch.equal(run_packed(model, inputs, needed_for([9, 9])), run(model, inputs))


def test_dropout_in_attention_is_refused():
    model, (inputs, _) = make_model(dropout=0.1).train(), batch_of([9, 5])
    with pytest.raises(ValueError, match="no dropout; train with dropout 0"):
        run_packed(model, inputs, needed_for([9, 5]))


@pytest.mark.slow
def test_a_step_of_the_124m_shape_reads_no_number(monkeypatch):
    """With tensors that have shapes only: what asks for a number, and would wait for the GPU, cannot be answered here."""
    monkeypatch.setattr(flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)  # shapes pass through the operation itself
    view = Packed(needed_for([400, 40, 333, 120, 77, 398, 256, 90]), CPU)
    with FakeTensorMode(allow_non_fake_inputs=True):
        ids = torch.zeros(8, 400, dtype=torch.long)
        model = GPT2(GPT2Config())
        hidden = model.hidden_states(view.pack(ids), view)
        assert hidden.shape == (1792, 768) and view.unpack(hidden).shape == (8, 400, 768)
        model.logits(hidden[:900]).logsumexp(1).sum().backward()
        assert model.h[0].attn.c_attn.weight.grad.shape == (2304, 768) and model.wte.weight.grad.shape == (50257, 768)
        with pytest.raises(DynamicOutputShapeException):
            hidden.nonzero()


def test_all_that_a_step_reads_is_on_its_device():
    view = Packed(needed_for([300, 20]), torch.device("meta"))
    (row,) = (cell.cell_contents for cell in view.blocks.mask_mod.__closure__)
    tensors = [x for x in (*vars(view).values(), *vars(view.blocks).values(), row) if isinstance(x, torch.Tensor)]
    assert len(tensors) == 2 + 8 + 1 and {x.device.type for x in tensors} == {"meta"}
