"""Instruction fine-tuning, the plain way: prompt, response, cross-entropy on the response.

    python ch_instruct/train.py                                 # the classroom, minutes on a laptop
    python ch_instruct/train.py --model gpt2 --data my.json     # your own file

Trains on the training part, stops when the validation loss has not improved for two epochs, keeps
the best checkpoint, then answers the test part (500 questions at most, --test-limit) and scores the
answers: once with the fine-tuned model ("ntp", for next-token prediction), once with the untouched
one ("base"). The run folder is a checkpoint.
"""

from ch_instruct.support.fine_tuning_options import FineTuning, parse
from common.support import options

if __name__ == "__main__":  # --help and wrong options end here: the imports below take seconds
    options.run_command(parse, FineTuning, __doc__)

from ch_instruct import pipeline
from ch_instruct.support import cost
from common.losses import next_token_loss

PATIENCE = 2  # epochs without a better validation loss


def main() -> None:
    work = pipeline.prepare(parse(FineTuning, __doc__))
    folder = pipeline.open_run("ch_instruct", work)
    data, given = work.dataset("train"), work.options
    items = given.epochs * len(data)  # in all passes, for the time that it will take
    cost.tell(work, [cost.Training(data, next_token_loss, work.train_options(), items)])
    run = pipeline.train(work, data, next_token_loss, folder, given.seed, patience=PATIENCE)
    tuned, base = pipeline.test(work, run), pipeline.test_base(work)
    pipeline.finish(work, folder, arms={"base": base, "ntp": tuned},
                    curves={"fine-tuning": run.history}, tuned="ntp",
                    method="plain next-token prediction")


if __name__ == "__main__":
    options.run_command(main)
