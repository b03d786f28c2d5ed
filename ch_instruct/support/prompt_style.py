"""In which prompt style a model is to be asked: the chat template of its folder knows in which it was trained."""

from ch_instruct.prompts import STYLES, format_prompt
from common.pretrained import find_folder
from common.support.console import say
from common.support.files import is_there, read_json, reading


def own_template(model: str) -> str:
    """The chat template of a model as --model names it, from tokenizer_config.json or from a file of its own, as newer
    tools write it. Empty if there is none."""
    folder = find_folder(model)
    alone, beside = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    if is_there(alone):
        with reading(alone, "no chat template"):
            return alone.read_text(encoding="utf-8")
    template = read_json(beside, {str: object}).get("chat_template") if is_there(beside) else ""
    return template if isinstance(template, str) else ""


def choose_style(model: str, given: str | None) -> str:
    """The prompt style to use: `given`, or that of the model's folder, or alpaca. Says so if they differ.

    A template is in the style whose response header it holds.
    """
    template = own_template(model)
    headers = {style: format_prompt({"instruction": ""}, style).strip().splitlines()[-1] for style in STYLES}
    own = next((style for style, header in headers.items() if header in template), None)
    if given and own and given != own:
        say(f"Warning: {model} was trained on {own} prompts, as its chat template says; --format {given} asks it otherwise.")
    if template and not own:
        say(f"Warning: the chat template of {model} is none of {' or '.join(STYLES)}; it is asked in {given or STYLES[0]} "
            "prompts, and may answer worse than it can.")
    return given or own or STYLES[0]
