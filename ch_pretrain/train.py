"""Pretraining: from plain text to a base model that continues it.

    python ch_pretrain/train.py                                      # the classroom corpus; makes the shipped base again
    python ch_pretrain/train.py --data plain                         # the control: the same facts on pages of few forms
    python ch_pretrain/train.py --data a.txt b.txt                   # a new tokenizer and model for your own text
    python ch_pretrain/train.py --data a.txt --model gpt2 --lr 5e-5  # go on from a pretrained model

Trains a byte-level BPE vocabulary on the text, cuts the text into windows, and learns to predict each next token. The
run folder is a checkpoint that every other command takes as --model. With the classroom's pages it also holds
looking_back.csv: at which step the model began to look back, if it did (see look_back.py).
"""

import copy
import shlex
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from common.support import options
from common.support.console import is_main, say
from common.support.files import InputError, reading, regular
from common.support.options import DeviceOption, PrecisionOption, RunOptions, TrainingOptions, flag, option, rate, whole
from common.tokenizer import END_OF_TEXT, Tokenizer


@dataclass(frozen=True)
class Pretraining(RunOptions, PrecisionOption, DeviceOption, TrainingOptions):
    """The options of this command."""

    data: tuple[str, ...] = option(("classroom",), "classroom, plain (the classroom's facts on pages of few forms), or UTF-8 "
                                   f"text files; {END_OF_TEXT} in them separates documents (default: classroom)", nargs="+",
                                   metavar="FILE")
    model: str | None = option(None, "go on from this model and its tokenizer instead of starting anew", metavar="M")
    vocab_size: int = option(3072, "entries of the new vocabulary, at least 257 (default: %(default)s)", whole, metavar="N")
    layers: int = option(4, "layers of the new model (default: %(default)s)", whole, metavar="N")
    width: int = option(256, "its width (default: %(default)s)", whole, metavar="N")
    heads: int = option(4, "its attention heads; must divide the width (default: %(default)s)", whole, metavar="N")
    max_length: int = option(256, "tokens in a window, and longest input of a new model (default: %(default)s)", whole,
                             metavar="N")
    epochs: int = option(1, "passes over the text (default: %(default)s)", whole, metavar="N")
    batch_size: int = option(4, "windows in one forward pass (default: %(default)s)", whole, metavar="N")
    snapshots: int = option(0, "keep the model N times on the way, in half precision, for the X-ray (default: %(default)s)",
                            options.natural, metavar="N")
    lr: float = option(1e-3, "peak learning rate (default: %(default)s)", rate, metavar="X")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads:
            raise InputError(f"--heads {self.heads} does not divide --width {self.width}; choose one that does.")
        for name in ("layers", "width", "heads", "vocab_size") if self.model is not None else ():
            if (value := getattr(self, name)) != getattr(Pretraining, name):
                raise InputError(f"{flag(name)} {value}: --model {self.model} has its own; leave {flag(name)} out.")
        if self.vocab_size < 257:
            raise InputError(f"--vocab-size {self.vocab_size} is too small: 256 bytes and {END_OF_TEXT} need 257 entries.")

    @property
    def of_pages(self) -> bool:
        """Whether the text is one of the classroom's corpora, made of pages, rather than files."""
        return len(self.data) == 1 and self.data[0] in CORPORA


if __name__ == "__main__":
    options.run_command(options.parse, Pretraining, __doc__)  # --help and wrong options end here: imports take seconds

import torch

from ch_pretrain import classroom
from ch_pretrain.bpe import train_bpe
from ch_pretrain.lab.growing import SNAPSHOTS
from ch_pretrain.lab.look_back import LOOKS_FILE, add_look, read_looks
from ch_pretrain.pages import pages
from ch_pretrain.plots import draw_looking_back
from ch_pretrain.windows import encode_documents, page_dataset, window_dataset
from common.fast.answering import continue_all
from common.fast.views import recompute_blocks
from common.gpt2 import GPT2, Attention, GPT2Config
from common.losses import next_token_loss
from common.pretrained import load_pretrained, save_pretrained
from common.support import distributed, plots, reports, runs
from common.support.device import check_memory, check_mps, pick_device, pick_precision
from common.support.public_form import LARGEST, count_parameters
from common.training import TrainOptions, fit

CORPORA = {"classroom": pages, "plain": classroom.pages}  # who makes their pages
PAGES, PAGES_SEED = 300_000, 1
SMOKE, SMOKE_EVALUATIONS = 100, 5  # documents that --smoke takes, and how often it evaluates
VALIDATION_SHARE, MOST_VALIDATION = 0.02, 700  # of the documents, and at most so many of them
LONG = 5_000  # characters of a document that may be cut: a shorter one would lose its last sentence
WARMUP, EVALUATIONS = 0.02, 20  # share of the steps, and how often to evaluate and save
STRENGTH = 2  # how much larger than usual attention's weights begin
FOR_VOCABULARY = 40_000  # documents at most; the others hold the same words
SAMPLE_PROMPTS = ("The capital of", "The opposite of", "Plurals\n\n")


def check_sizes(given: Pretraining) -> None:
    """Refuse a new model that is larger than any can be, or than this machine can train.

    Raises:
        InputError: naming the option.
    """
    for name, size in (("layers", "n_layer"), ("width", "n_embd"), ("max_length", "n_positions"), ("vocab_size", "vocab_size")):
        if getattr(given, name) > LARGEST[size]:
            raise InputError(f"{flag(name)} {getattr(given, name)} is more than {LARGEST[size]}; choose a smaller one.")
    least = count_parameters(GPT2Config(257, given.max_length, given.width, given.layers, given.heads))
    if given.model is None:  # weights, gradients and AdamW's two averages, 4 bytes each
        check_memory(16 * least, f"To train a model of {least:,} parameters and more needs",
                     "lower --width, --layers or --max-length")


def read_documents(given: Pretraining) -> list[str]:
    """The documents to learn from: pages of the classroom, or files cut at the end-of-text token."""
    if given.of_pages:
        return list(CORPORA[given.data[0]](SMOKE if given.smoke else PAGES, PAGES_SEED))
    documents: list[str] = []
    for name in given.data:
        with reading(f"--data {name}", "no text in UTF-8", "save it again in that form"):
            text = regular(Path(name)).read_bytes().decode("utf-8-sig")  # without the mark with which some files begin
        documents += [document for document in text.split(END_OF_TEXT) if document.strip()]
    if not documents:
        raise InputError(f"--data {' '.join(given.data)}: there is no text in it.")
    if given.smoke:
        documents = [document[:2000] for document in documents[:SMOKE]]
    return documents


def split_documents(documents: list[str]) -> tuple[list[str], list[str]]:
    """Training and validation documents: the last 2 % (700 at most). Of fewer than 50, the last 2 % of the text of each long
    one; or, where none is long, the last document."""
    if len(documents) * VALIDATION_SHARE < 1:
        long = [len(document) >= LONG or len(documents) == 1 for document in documents]
        if not any(long):
            return documents[:-1], documents[-1:]
        cuts = [int(len(document) * (1 - VALIDATION_SHARE)) if cut else len(document) for document, cut in zip(documents, long)]
        return ([text[:cut] for text, cut in zip(documents, cuts)],
                [text[cut:] for text, cut in zip(documents, cuts) if cut < len(text)])
    held_out = min(round(len(documents) * VALIDATION_SHARE), MOST_VALIDATION)
    return documents[:-held_out], documents[-held_out:]


def new_model(given: Pretraining, documents: list[str]) -> tuple[GPT2, Tokenizer]:
    """Train a vocabulary on the documents, or on a sample of many, and draw a random model for it."""
    documents = documents[::-(-len(documents) // FOR_VOCABULARY)]
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.txt"
        corpus.write_bytes(END_OF_TEXT.join(documents).encode())
        _, merges = train_bpe(corpus, given.vocab_size, [END_OF_TEXT])
    tokenizer = Tokenizer.from_merges(merges)
    torch.manual_seed(given.seed)
    model = GPT2(GPT2Config(vocab_size=tokenizer.vocab_size, n_positions=given.max_length, n_embd=given.width,
                            n_layer=given.layers, n_head=given.heads, dropout=given.dropout))
    begin_alike(model)
    return model, tokenizer


@torch.no_grad()
def begin_alike(model: GPT2) -> None:
    """Start with attention that looks for what is alike and copies what it finds, instead of with noise.

    In each head the keys begin as the queries, so a token looks at tokens like itself; and the output matrix as the values'
    transpose, so what it reads there is added to it, hardly changed (Trockman and Kolter, 2023). Positions begin as sines and
    cosines (Vaswani et al., 2017): neighbours are alike. Nothing is copied yet, but copying is learnt in fewer steps.
    """
    for attention in model.modules():
        if isinstance(attention, Attention):
            q, k, v = attention.c_attn.weight.chunk(3)  # each [D, D], and the heads are rows of it
            k.copy_(q.mul_(STRENGTH))
            attention.c_proj.weight.copy_(v.mul_(STRENGTH).T)
    T, D = model.wpe.weight.shape
    angles = torch.arange(T)[:, None] * 100 ** (-torch.arange(0, D, 2) / D)  # [T, D / 2]; a place turns by 1 to 1/100
    model.wpe.weight.copy_(0.03 * torch.cat([angles.sin(), angles.cos()], dim=1)[:, :D])


def main() -> None:
    given = options.parse(Pretraining, __doc__)
    check_sizes(given)
    runs.check_run(given)
    if given.smoke:
        given = replace(given, epochs=1, max_length=min(given.max_length, 64))
    if given.smoke and given.model is None:
        given = replace(given, layers=2, width=64, heads=2, vocab_size=min(given.vocab_size, 512))
    device = pick_device(given.device)
    distributed.start(device)
    training, held_out = split_documents(read_documents(given))

    if given.model is None:
        say("Training the vocabulary ...")
        model, tokenizer = new_model(given, training)
    else:
        model, tokenizer = load_pretrained(given.model, dropout=given.dropout)
        if Pretraining.max_length != given.max_length > model.config.n_positions:
            raise InputError(f"--max-length {given.max_length} is more than {given.model} can read, which is "
                             f"{model.config.n_positions} tokens.")
    model.to(device)
    if given.recompute:
        recompute_blocks(model)
    context = min(given.max_length, model.config.n_positions)
    rows = [encode_documents(part, tokenizer) for part in (training, held_out)]
    if min(row.numel() for row in rows) < 2:
        raise InputError(f"--data {' '.join(given.data)}: the text is too short to learn from and to validate on.")
    data, validation = (page_dataset(row, context, tokenizer.eot_id) if given.of_pages
                        else window_dataset(row, context, given.seed) for row in rows)

    check_mps(model, data.collate(list(data.items[:given.batch_size])), next_token_loss)
    name, why = pick_precision(given.precision, device)
    precision = distributed.from_main(runs.recorded_precision(given, name))
    facts: dict[str, object] = {"data_sha256": runs.data_hash([training, held_out]), "precision": precision}
    if given.model is not None:  # its weights, and its vocabulary: the ids of a text
        facts |= {"model_sha256": runs.model_hash(model), "ids_sha256": runs.data_hash([row[:10_000].tolist() for row in rows])}
    folder = runs.open_run("ch_pretrain", given, facts)
    length = data.size(data.items[0])  # of a window: of all texts together, if they are shorter than the context
    text_bytes = sum(len(document.encode()) for document in training)
    say(f"{sum(p.numel() for p in model.parameters()):,} parameters, {tokenizer.vocab_size:,} vocabulary entries, "
        f"{rows[0].numel():,} tokens ({text_bytes / rows[0].numel():.2f} bytes each), "
        f"{len(data):,} windows of {length} to learn from, {len(validation):,} to validate on, {precision} on {device} ({why})")

    torch.manual_seed(given.seed)  # of dropout
    how = TrainOptions(given.epochs, given.batch_size, given.accumulate, given.lr, precision, warmup=WARMUP)
    total = how.total_steps(len(data))
    every = max(1, total // (SMOKE_EVALUATIONS if given.smoke else EVALUATIONS))

    # Only on the classroom's pages, and where a token and the same again fit.
    looking = given.of_pages and model.config.n_positions > 2

    def look(row: dict) -> None:
        """At each evaluation: does it look back by now? And now and then keep a snapshot, as a checkpoint."""
        step = row["step"]
        epochs, rest = divmod(step, how.steps_per_epoch(len(data)))
        tokens = (epochs * len(data) + rest * how.step_size) * length
        if is_main() and looking and (step % every == 0 or step == total):
            add_look(folder / LOOKS_FILE, model, tokenizer, step, tokens)
        if is_main() and given.snapshots and step * given.snapshots // total > (step - 1) * given.snapshots // total:
            save_pretrained(copy.deepcopy(model).half(), tokenizer, folder / SNAPSHOTS / f"{tokens:012d}")

    run = fit(model, tokenizer, data, validation, next_token_loss, replace(how, evaluate_every=every), folder, given.resume,
              look)
    if is_main():
        plots.save_picture(folder / "losses.png", lambda ax: plots.draw_losses(ax, {"pretraining": run.history}))
        if (folder / LOOKS_FILE).exists():
            plots.save_picture(folder / "looking_back.png", lambda ax: draw_looking_back(ax, read_looks(folder / LOOKS_FILE)))
        reports.finish_run(folder, {"arms": {"pretrained": reports.arm_result(run.best_loss, None, run.seconds)},
                                    "weights_sha256": runs.model_hash(model)})
        prompts = {prompt: ids for prompt in SAMPLE_PROMPTS if len(ids := tokenizer.encode(prompt)) < model.config.n_positions}
        say("\nHow it goes on (greedily):" if prompts else "")
        for prompt, new in zip(prompts, continue_all(model, list(prompts.values()), 24, tokenizer.eot_id)):
            say(f"  {prompt!r} -> {tokenizer.decode(new.ids)!r}")
        say(f"\nNext: python ch_pretrain/generate.py --model {shlex.quote(str(folder))} --prompt \"...\"")


if __name__ == "__main__":
    options.run_command(main)
