"""SFTMix: split the data by the model's own confidence, then train with mixup between the halves.

    python ch_sftmix/train.py                                         # the classroom, minutes on a laptop
    python ch_sftmix/train.py --model gpt2 --data my.json --epochs 3  # your own Alpaca-format file
    python ch_sftmix/train.py --seeds 5                               # with 95 % intervals
    python ch_sftmix/train.py --split random                          # the control: do the halves matter?

What happens: (1) a reference run by plain next-token prediction (NTP), noting the perplexity of every training response
at C checkpoints; (2) confidence = minus the mean perplexity, and two halves at its median; (3) the SFTMix run, from the
pretrained model again, with as many steps on as many examples; (4) the same test for the untouched model, the NTP run
and the SFTMix run.

The method: Xiao et al., "SFTMix", arXiv 2410.05248.
"""

import csv
import io
from pathlib import Path

import torch
from torch import Tensor

from ch_instruct import answers, pipeline
from ch_instruct.perplexity import response_perplexities
from ch_sftmix import plots as sftmix_plots
from ch_sftmix.confidence import confidence, negative_loss, random_split, split
from ch_sftmix.mixup import PairDataset, sftmix_loss
from common import distributed, files, options, plots, runs
from common.console import say
from common.losses import next_token_loss
from common.training import Run, fit


def parse() -> options.argparse.Namespace:
    parser = options.Parser(__doc__)
    options.add_model_option(parser)
    options.add_instruction_options(parser)
    options.add_training_options(parser, epochs=3, batch_size=16)
    parser.add_argument("--alpha", type=options.positive, default=0.5, metavar="X",
                        help="λ ~ Beta(α, α): below 1 mixtures lie near one example, above 1 near the middle "
                             "(default: %(default)s, as reported for the paper)")
    parser.add_argument("--mu", type=options.not_negative, default=0.2, metavar="X",
                        help="weight of the mixup loss; 0 is plain training (default: %(default)s, as reported for the paper)")
    parser.add_argument("--split", default="confidence", choices=["confidence", "random", "loss"],
                        help="how the halves are made: by minus the mean perplexity, at random (the control), or by minus "
                             "the mean loss (default: %(default)s)")
    parser.add_argument("--checkpoints", type=options.whole, metavar="C",
                        help="how often the reference run is asked for perplexities, at equal distances "
                             "(default: once an epoch)")
    parser.add_argument("--seeds", type=options.whole, default=1, metavar="N",
                        help="repeat the comparison with N seeds and print means and 95 %% intervals (default: %(default)s)")
    options.add_device_options(parser)
    options.add_run_options(parser, "ch_sftmix")
    args = parser.parse_args()
    if args.batch_size % 2:
        parser.error(f"--batch-size {args.batch_size} is odd; a batch holds as many confident as unconfident examples")
    return args


def reference_run(work: pipeline.Work, folder: Path, seed: int) -> tuple[Run, Tensor]:
    """Plain fine-tuning that notes how well each training response is known on the way.

    Returns:
        The run, and the perplexities, float64 [C, N].
    """
    args = work.args
    data = work.dataset("train", seed=seed)
    responses = work.dataset("train", loss_on="response")
    total = args.epochs * -(-len(data) // (args.batch_size * args.accumulate))
    count = min(args.checkpoints or args.epochs, total)
    checkpoints = {round(total * c / count): c for c in range(1, count + 1)}  # step -> number of the checkpoint

    def note(step: int) -> None:
        if step in checkpoints:
            found = response_perplexities(work.model, responses, 2 * args.batch_size, work.precision)
            if distributed.is_main():
                files.write_json(folder / f"perplexities-{checkpoints[step]}.json", found.tolist())

    run = fit(work.model, work.tokenizer, data, work.dataset("validation"), next_token_loss, work.train_options(), folder,
              args.resume, after_step=note)
    distributed.barrier()
    rows = [files.read_json(folder / f"perplexities-{c}.json") for c in range(1, count + 1)]
    return run, torch.tensor(rows, dtype=torch.float64)


def make_halves(how: str, perplexities: Tensor, seed: int) -> tuple[list[int], list[int]]:
    """The two halves, as --split says: ids of confident and of unconfident examples."""
    if how == "random":
        return random_split(perplexities.size(1), seed)
    return split(confidence(perplexities) if how == "confidence" else negative_loss(perplexities))


def write_dynamics(path: Path, records: list[dict], perplexities: Tensor, halves: tuple[list[int], list[int]]) -> None:
    """The training dynamics as a table: perplexity at each checkpoint, confidence, half, and the record's texts."""
    confident = set(halves[0])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["example", *(f"perplexity_{c + 1}" for c in range(len(perplexities))), "confidence", "half", "instruction",
                     "output"])
    for i, (column, sure) in enumerate(zip(perplexities.T.tolist(), confidence(perplexities).tolist())):
        writer.writerow([i, *column, sure, "confident" if i in confident else "unconfident",
                         records[i]["instruction"], records[i]["output"]])
    files.write_text(path, text.getvalue())


def read_aloud(records: list[dict], perplexities: Tensor) -> None:
    """Print the surest and the least sure training examples."""
    sure = confidence(perplexities)
    order = sure.argsort(descending=True).tolist()
    for title, ids in (("The model is surest of", order[:3]), ("and least sure of", order[:-4:-1])):
        say(f"\n{title}")
        for i in ids:
            asked = " | ".join(filter(None, (records[i]["instruction"], records[i].get("input", ""))))
            say(f"  {-sure[i]:8.3f}  {pipeline.shorten(asked, 60)} -> {pipeline.shorten(records[i]['output'], 40)}")


def compare(work: pipeline.Work, initial: dict[str, Tensor], base: tuple[dict, list[dict]], folder: Path,
            seed: int) -> dict:
    """One comparison: reference run, halves, SFTMix run, tests, pictures. Returns the arms of the report."""
    args = work.args
    say(f"\n1. Reference run by next-token prediction, seed {seed}")
    work.model.load_state_dict(initial)
    torch.manual_seed(seed)
    (folder / "ntp").mkdir(parents=True, exist_ok=True)
    ntp_run, perplexities = reference_run(work, folder / "ntp", seed)
    ntp, ntp_responses = pipeline.test(work, ntp_run.seconds)

    say(f"\n2. Two halves by {args.split}, from {len(perplexities)} checkpoints")
    halves = make_halves(args.split, perplexities, seed)
    read_aloud(work.records["train"], perplexities)

    say(f"\n3. SFTMix run from the pretrained model, α = {args.alpha:g}, μ = {args.mu:g}")
    work.model.load_state_dict(initial)
    torch.manual_seed(seed)
    pairs = PairDataset(work.examples["train"], halves, work.tokenizer.eot_id, args.loss_on, args.alpha, args.mu, seed)
    mix_run = fit(work.model, work.tokenizer, pairs, work.dataset("validation"), sftmix_loss,
                  work.train_options(batch_size=args.batch_size // 2), folder, args.resume)
    mix, mix_responses = pipeline.test(work, mix_run.seconds)

    arms = {"base": base[0], "ntp": ntp, "sftmix": mix}
    if distributed.is_main():
        write_dynamics(folder / "dynamics.csv", work.records["train"], perplexities, halves)
        plots.save_picture(folder / "losses.png", lambda ax: sftmix_plots.draw_both_losses(
            ax, ntp_run.history, mix_run.history))
        plots.save_picture(folder / "confidence.png", lambda ax: sftmix_plots.draw_confidence(ax, perplexities, halves))
        plots.save_picture(folder / "data_map.png", lambda ax: sftmix_plots.draw_data_map(ax, perplexities, halves))
        responses = pipeline.merge_responses({"base": base[1], "ntp": ntp_responses, "sftmix": mix_responses})
        files.write_json(folder / "responses.json", responses)
        answers.write_page(folder / "answers.html", responses, str(folder))
        pipeline.show_answers(responses)
        runs.finish_run(folder, {"seed": seed, "arms": arms})
        say(f"\nSFTMix needs the reference run too: {ntp_run.seconds + mix_run.seconds:.0f} s of training in all.")
    return arms


def main() -> None:
    work = pipeline.prepare(parse())
    args = work.args
    folder = runs.open_run("ch_sftmix", args, work.facts)
    initial = {name: tensor.clone() for name, tensor in work.model.state_dict().items()}
    base = pipeline.test(work, seconds=None)
    if args.seeds == 1:
        compare(work, initial, base, folder, args.seed)
        return

    seeds = range(args.seed, args.seed + args.seeds)
    arms = [compare(work, initial, base, folder / f"seed-{seed}", seed) for seed in seeds]
    if distributed.is_main():
        say(f"\n{args.seeds} seeds, mean ± half of the 95 % interval")
        runs.finish_comparison(folder, list(seeds), arms, [("sftmix", "ntp")])


if __name__ == "__main__":
    options.run_command(main)
