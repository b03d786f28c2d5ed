"""Continue a text with any model, by greedy choice or by sampling.

    python ch_pretrain/generate.py --prompt "The capital of France"
    python ch_pretrain/generate.py --model gpt2 --prompt "Once upon a time" --temperature 0.8 --top-k 40 --num-samples 3
    python ch_pretrain/generate.py --prompt "There was" --greedy --no-repeat-ngram 3      # no loops, without chance
"""

import argparse

from common.support import options
from common.support.console import say
from common.support.files import InputError


def parse() -> argparse.Namespace:
    parser = options.Parser(__doc__)
    options.add(parser, options.ModelOption)
    parser.add_argument("--prompt", required=True, metavar="TEXT", help="the text to go on from")
    options.add(parser, options.SamplingOptions)
    parser.add_argument("--num-samples", type=options.whole, default=1, metavar="N",
                        help="how many continuations, made in one batch (default: %(default)s)")
    parser.add_argument("--seed", type=options.natural, default=0, help="seed of the sampling (default: %(default)s)")
    options.add(parser, options.DeviceOption, options.AnswerPrecisionOption)
    args = parser.parse_args()
    if (args.greedy or args.temperature == 0) and args.num_samples > 1:
        parser.error("the greedy choice (--greedy, --temperature 0) has one outcome; leave out --num-samples, or sample")
    return args


if __name__ == "__main__":
    options.run_command(parse)  # --help and wrong options end here: the imports below take seconds


from common.fast.answering import continue_all
from common.fast.int8 import precision_to_answer
from common.pretrained import load_pretrained
from common.sampling import asked_for
from common.support.device import check_memory, evaluating, pick_device


def main() -> None:
    args = parse()

    device = pick_device(args.device)
    model, tokenizer = load_pretrained(args.model, device)
    prompt = tokenizer.encode(args.prompt)
    longest = model.config.n_positions - 1
    if not 0 < len(prompt) <= longest:
        raise InputError(f"--prompt has {len(prompt)} tokens; {args.model} takes 1 to {longest}.")
    sizes = model.config
    check_memory(8 * sizes.n_layer * sizes.n_embd * sizes.n_positions * args.num_samples,  # keys and values, 4 bytes a number
                 f"--num-samples {args.num_samples} needs", "lower it")
    with evaluating(model, precision_to_answer(args.precision, model)):
        samples = continue_all(model, [prompt] * args.num_samples, args.max_new_tokens, tokenizer.eot_id, args.num_samples,
                               "continuing", asked_for(args), args.seed)
    for number, sample in enumerate(samples, 1):
        if args.num_samples > 1:
            say(f"--- sample {number}")
        say(args.prompt + tokenizer.decode(sample.ids))


if __name__ == "__main__":
    options.run_command(main)
