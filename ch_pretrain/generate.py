"""Continue a text with any model, by greedy choice or by sampling.

    python ch_pretrain/generate.py --prompt "The capital of France"
    python ch_pretrain/generate.py --model gpt2 --prompt "Once upon a time" --temperature 0.8 --top-k 40 --num-samples 3
    python ch_pretrain/generate.py --prompt "There was" --greedy --no-repeat-ngram 3      # no loops, without chance
"""

from dataclasses import dataclass

from common.support import options
from common.support.console import say
from common.support.files import InputError
from common.support.options import REQUIRED, natural, option, whole


@dataclass(frozen=True)
class GenerateOptions(options.AnswerPrecisionOption, options.DeviceOption, options.SamplingOptions, options.ModelOption):
    """The options of this command."""

    prompt: str = option(REQUIRED, "the text to go on from", metavar="TEXT")
    num_samples: int = option(1, "how many continuations, made in one batch (default: %(default)s)", whole, metavar="N")
    seed: int = option(0, "seed of the sampling (default: %(default)s)", natural)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.greedy or self.temperature == 0) and self.num_samples > 1:
            raise InputError("the greedy choice (--greedy, --temperature 0) has one outcome; leave out --num-samples, or "
                             "sample; --help lists all options.")


if __name__ == "__main__":
    options.run_command(options.parse, GenerateOptions, __doc__)  # --help and wrong options end here: imports take seconds


from common.fast.answering import continue_all
from common.fast.int8 import precision_to_answer
from common.pretrained import load_pretrained
from common.sampling import asked_for
from common.support.device import check_memory, evaluating, pick_device


def main() -> None:
    args = options.parse(GenerateOptions, __doc__)

    device = pick_device(args.device)
    model, tokenizer = load_pretrained(args.model, device)
    prompt = tokenizer.encode(args.prompt)
    longest = model.config.n_positions - 1
    if not 0 < len(prompt) <= longest:
        raise InputError(f"--prompt has {len(prompt)} tokens; {args.model} takes 1 to {longest}.")
    sizes = model.config
    longest = min(sizes.n_positions, len(prompt) + args.max_new_tokens)
    check_memory(8 * sizes.n_layer * sizes.n_embd * longest * args.num_samples,  # keys and values, 4 bytes a number
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
