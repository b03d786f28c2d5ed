"""Instruction fine-tuning, the plain way: prompt, response, cross-entropy on the response.

    python ch_instruct/train.py                                           # the classroom, minutes on a laptop
    python ch_instruct/train.py --model gpt2 --data my.json --epochs 2    # your own Alpaca-format file

Trains on the training part, stops when the validation loss has not improved for two epochs, keeps the best checkpoint,
then answers the whole test part and scores the answers: once with the untouched model ("base"), once with the
fine-tuned one ("ntp", for next-token prediction). The run folder is a checkpoint.
"""

from ch_instruct import answers, pipeline
from common import distributed, files, options, plots, runs
from common.losses import next_token_loss
from common.training import fit

PATIENCE = 2  # epochs without a better validation loss


def main() -> None:
    parser = options.Parser(__doc__)
    options.add_model_option(parser)
    options.add_instruction_options(parser)
    options.add_training_options(parser, epochs=3, batch_size=16)
    options.add_device_options(parser)
    options.add_run_options(parser, "ch_instruct")
    work = pipeline.prepare(parser.parse_args())
    folder = runs.open_run("ch_instruct", work.args, work.facts)

    base, base_responses = pipeline.test(work, seconds=None)
    run = fit(work.model, work.tokenizer, work.dataset("train"), work.dataset("validation"), next_token_loss,
              work.train_options(patience=PATIENCE), folder, work.args.resume)
    tuned, tuned_responses = pipeline.test(work, run.seconds)

    if distributed.is_main():
        responses = pipeline.merge_responses({"base": base_responses, "ntp": tuned_responses})
        files.write_json(folder / "responses.json", responses)
        answers.write_page(folder / "answers.html", responses, str(folder))
        plots.save_picture(folder / "losses.png", lambda ax: plots.draw_losses(ax, {"fine-tuning": run.history}))
        pipeline.show_answers(responses)
        runs.finish_run(folder, {"arms": {"base": base, "ntp": tuned}})


if __name__ == "__main__":
    options.run_command(main)
