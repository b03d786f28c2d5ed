"""In which prompt style a model is to be asked: the chat template of its folder knows in which it was trained."""

from datetime import datetime
from functools import lru_cache

from jinja2.sandbox import ImmutableSandboxedEnvironment

from ch_instruct.prompts import END, EVERY_STYLE, START, format_prompt, format_turns
from common.pretrained import adapted_folder, find_folder
from common.support.console import say
from common.support.files import InputError, reading
from common.tokenizer import Tokenizer, own_template

TALK = [{"role": role, "content": text} for role, text in (("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"))]


def choose_style(model: str, given: str | None) -> str:
    """The prompt style to use: `given`, or that of the model's folder, or alpaca. Says so if they differ.

    A template is in the style whose response header it holds.
    """
    folder = find_folder(model)
    base = adapted_folder(folder)  # of an adapter without a template of its own
    template = own_template(folder) or (own_template(base) if base else None) or ""
    headers = {style: format_prompt({"instruction": ""}, style).strip().splitlines()[-1] for style in EVERY_STYLE}
    own = next((style for style, header in headers.items() if header in template), None)
    if given and own and given != own:
        say(f"Warning: {model} was trained on {own} prompts, as its chat template says; --format {given} asks it otherwise.")
    if template and not own:
        say(f"Warning: the chat template of {model} is none of {' or '.join(EVERY_STYLE)}; it is asked in "
            f"{given or EVERY_STYLE[0]} prompts, and may answer worse than it can.")
    if own:
        prompt, answer, again = format_turns({"messages": TALK}, own)
        try:
            additions = rendered(template, TALK) != prompt + answer + END + again
        except Refusal as error:  # perhaps it takes no system message
            additions = False
            say(f"Warning: the chat template of {model} refuses a conversation with a system message and two turns ({error}).")
        if additions:
            say(f"Warning: the chat template of {model} is {own} with additions, which are left out.")
    return given or own or EVERY_STYLE[0]


def rendered(template: str, messages: list[dict[str, str]]) -> str:
    """What other tools make of these messages, with the header of the next response. A template may come from anywhere: it is
    run where it can do nothing but write text.

    Raises:
        InputError: if it is broken; a `Refusal` if it does not take these messages.
    """
    with reading("The chat template", "not to be rendered", "remove it from the model's folder, and give --format"):
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                    extensions=["jinja2.ext.loopcontrols"])
        environment.globals |= {"raise_exception": refuse, "strftime_now": datetime.now().strftime}  # as other tools have them
        return environment.from_string(template).render(messages=messages, add_generation_prompt=True, eos_token=END)


class Refusal(InputError):
    """A chat template does not take these messages, and says why."""


def refuse(message: str) -> None:
    """What such a template calls: `raise_exception`.

    Raises:
        Refusal: always.
    """
    raise Refusal(message)


def end_as(style: str, tokenizer: Tokenizer) -> None:
    """Let responses end as the style says: in chatml with <|im_end|>, whatever ends the model's documents."""
    if style == "chatml":
        tokenizer.end, tokenizer.eot_id = END, tokenizer.control(END)


@lru_cache
def default_system(template: str | None) -> str:
    """The system message that a template of the style chatml gives to a conversation without one; "" if none."""
    opening, asked, _ = rendered(template or "", TALK[1:2]).partition(f"{START}user\n")
    return opening.removeprefix(f"{START}system\n").removesuffix(f"{END}\n") if asked else ""
