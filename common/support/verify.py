"""Is our GPT-2, or our Llama, the same as transformers'? Compare the two layer by layer on one model.

    python common/support/verify.py --model gpt2
    python common/support/verify.py --model runs/ch_instruct/001

Needs transformers (pip install -r requirements-dev.txt). Exit status 0 if all layers and the logits agree, 1 if not.
"""

import math
import sys
from typing import Any

from common.support import options
from common.support.console import say, table
from common.support.files import InputError, needs, reading

if __name__ == "__main__":
    options.run_command(options.parse, options.ModelOption, __doc__)  # --help and wrong options end here: imports take seconds

import torch
from torch import Tensor, nn

from common.gpt2 import GPT2
from common.pretrained import adapted_folder, find_folder, load_pretrained

TEXT = "The quick brown fox jumps over the lazy dog. 12 plus 7 is 19."
TOLERANCE = 1e-4  # largest difference relative to the largest value of the layer, or 1, whichever is larger

# Where a first difference appears, and what usually lies behind it.
CAUSES = {
    "embeddings": "token or position embeddings are mixed up, or another tokenizer's ids were used",
    "attention": "c_attn or c_proj is not transposed (c_proj is square, so no shape check finds it), the order of heads "
                 "differs, or the mask does; in a Llama, rope_theta, or which numbers of a head are turned together",
    "mlp": "the GELU is not the tanh form, or c_fc or c_proj is not transposed; in a Llama, gate and value are mixed up",
    "final LayerNorm": "the epsilon differs, or ln_f was not loaded",
    "logits": "the head is not tied to the token embedding, or tied where it should not be",
}


@torch.no_grad()
def outputs_of(model: nn.Module, ids: Tensor, modules: dict[str, nn.Module]) -> dict[str, Tensor]:
    """What these modules of the model give for `ids`, by name, in the order of computation; its own output is "logits".

    Of a module that gives several things, the first counts.
    """
    found: dict[str, Tensor] = {}

    def keep(name: str):
        return lambda module, inputs, output: found.__setitem__(name, output[0] if isinstance(output, tuple) else output)

    hooks = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    output = model(ids)
    for hook in hooks:
        hook.remove()
    return found | {"logits": output[0] if isinstance(output, tuple) else getattr(output, "logits", output)}


def layer_outputs(model: nn.Module, ids: Tensor) -> dict[str, Tensor]:
    """Every intermediate result, in the order of computation."""
    body: Any = getattr(model, "transformer", getattr(model, "model", model))  # transformers wraps it once more
    blocks, norm = (body.h, body.ln_f) if hasattr(body, "h") else (body.layers, body.norm)  # or by Llama's names there
    modules = {"final LayerNorm": norm}
    for i, block in enumerate(blocks):
        modules |= {f"layer {i} attention": getattr(block, "attn", None) or block.self_attn, f"layer {i} mlp": block.mlp}
    first: dict[str, Tensor] = {}  # what goes into the first layer
    hook = blocks[0].register_forward_pre_hook(lambda module, inputs: first.update(embeddings=inputs[0]))
    found = outputs_of(model, ids, modules)
    hook.remove()
    return first | found


def layer_differences(ours: GPT2, theirs: nn.Module, ids: Tensor) -> list[tuple[str, float, bool]]:
    """(place, largest difference, whether it is within tolerance), in the order of computation.

    Args:
        theirs: a model of transformers.
        ids: int64 [B, T].
    """
    mine, reference = layer_outputs(ours, ids), layer_outputs(theirs, ids)
    rows = []
    for name, expected in reference.items():  # a part that was never called differs
        difference = (mine[name] - expected).abs().max().item() if name in mine else math.inf
        rows.append((name, difference, difference <= TOLERANCE * max(1.0, expected.abs().max().item())))
    return rows


def likely_cause(place: str) -> str:
    """What usually lies behind a first difference at this place."""
    return next(cause for part, cause in CAUSES.items() if place.endswith(part))


def quiet_transformers() -> Any:
    """The library, without its notes and progress bars.

    Raises:
        InputError: if it is not installed.
    """
    with needs("transformers"):
        import transformers
        from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    return transformers


def against_transformers(name: str) -> tuple[list[int], list[int], list[tuple[str, float, bool]]]:
    """Read the model `name` by both, on the CPU.

    Returns:
        The ids of TEXT by our tokenizer and by theirs, and the rows of `layer_differences` for ours.

    Raises:
        InputError: without transformers, or if a model cannot be read.
    """
    transformers, folder = quiet_transformers(), find_folder(name)
    if adapted_folder(folder):
        raise InputError(f"--model {name} is an adapter; give a folder that holds the whole model, as the one around it does.")
    ours, tokenizer = load_pretrained(name)
    with reading(name, "not to be read by transformers", "fetch or copy it again"):
        theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        their_ids = transformers.AutoTokenizer.from_pretrained(folder)(TEXT)["input_ids"]
    ids = tokenizer.encode(TEXT)
    return ids, their_ids, layer_differences(ours, theirs, torch.tensor([ids[:ours.config.n_positions]]))


def main() -> None:
    args = options.parse(options.ModelOption, __doc__)
    ids, their_ids, rows = against_transformers(args.model)
    say(f"{args.model}: the same tokens for {TEXT!r}: {'yes' if ids == their_ids else f'no, {ids} and {their_ids}'}")
    say(table(["place", "largest difference", "agrees"], [[n, f"{d:.1e}", "yes" if ok else "NO"] for n, d, ok in rows]))
    wrong = [place for place, _, ok in rows if not ok]
    if wrong:
        say(f"\nThe first difference is in {wrong[0]}. Likely cause: {likely_cause(wrong[0])}.")
    if wrong or ids != their_ids:
        sys.exit(1)
    say("\nBoth compute the same.")


if __name__ == "__main__":
    options.run_command(main)
