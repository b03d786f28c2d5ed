"""Instruction fine-tuning, the plain way: prompt, response, cross-entropy on the response.

    python ch_instruct/train.py                                           # the classroom, minutes on a laptop
    python ch_instruct/train.py --model gpt2 --data my.json --epochs 2    # your own Alpaca-format file

Trains on the training part, stops when the validation loss has not improved for two epochs, keeps the best checkpoint,
then answers the whole test part and scores the answers: once with the untouched model ("base"), once with the
fine-tuned one ("ntp", for next-token prediction). The run folder is a checkpoint.
"""

from ch_instruct import pipeline
from common import options
from common.losses import next_token_loss

PATIENCE = 2  # epochs without a better validation loss


def main() -> None:
    work = pipeline.prepare(options.parse(pipeline.FineTuning, __doc__))
    folder = pipeline.open_run("ch_instruct", work)
    base = pipeline.test(work)
    run = pipeline.train(work, work.dataset("train"), next_token_loss, folder, work.options.seed, patience=PATIENCE)
    tuned = pipeline.test(work, run)
    pipeline.finish(work, folder, {"base": base, "ntp": tuned}, {"fine-tuning": run.history}, "ntp",
                    "plain next-token prediction")


if __name__ == "__main__":
    options.run_command(main)
