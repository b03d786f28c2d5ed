"""The model card of a run folder: README.md, with the front matter that the Hugging Face hub reads."""

from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import ModelCardData

from ch_instruct.support.prompt_style import rendered
from ch_instruct.support.public_sets import PUBLIC_SETS, is_hub_id
from common.pretrained import PUBLIC
from common.support.options import TrainingOptions
from common.support.reports import with_interval

LICENCES = dict.fromkeys(("classroom", "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"), "MIT") | {"smollm2": "Apache-2.0"}
QUESTION = "What is the capital of France?"
ASK = f"""\
from transformers import pipeline

ask = pipeline("text-generation", "FOLDER")  # this folder, or where you have uploaded it
print(ask([{{"role": "user", "content": "{QUESTION}"}}], max_new_tokens=128, do_sample=False))
"""


def known_licence(model: str, data: str) -> tuple[str | None, str | None]:
    """The licences of a base model and of a data set as --model and --data name them; None where they are not known here."""
    named = {name: known.licence for name, known in PUBLIC_SETS.items()} | {"classroom": "MIT"}
    return LICENCES.get(model), named.get(data)


def score_table(arms: Mapping[str, dict], questions: int) -> str:
    """Loss and exact match of these arms in Markdown, with 95 % intervals for the choice of the questions."""
    rows = [f"| {name} | {arm['test_loss']:.4f} | {with_interval(arm['exact_match'], questions)} | {arm['rouge_l']:.1%} |"
            for name, arm in arms.items()]
    return "\n".join(["| | test loss | exact match | ROUGE-L |", "|---|---|---|---|", *rows])


def seen(history: list[dict]) -> str:
    """How often the kept checkpoint has seen the data, and how long the training went on."""
    judged = [row for row in history if "validation_loss" in row and row["step"]]
    kept = min(judged, key=lambda row: row["validation_loss"]) if judged else history[-1]
    told = f"{kept['epoch']:.3g} epoch{'s' * (kept['epoch'] != 1)}"
    return told if kept is history[-1] else f"{told} (of {history[-1]['epoch']:.3g} trained, it had the lowest validation loss)"


def model_card(model: str, data: str, template: str, method: str, how: TrainingOptions, facts: dict, arms: Mapping[str, dict],
               questions: int, history: list[dict]) -> str:
    """The card as text. It quotes nothing of the data, which may be private.

    Args:
        model, data: as on the command line.
        template: the chat template that is saved with the model.
        method: in some words, what was done.
        facts: as in run.json.
        arms: rows of the report, of the untouched model and of this one.
        questions: how many were asked in the test.
        history: of the training, as in metrics.csv; the checkpoint with the lowest validation loss was kept.
    """
    licences = known_licence(model, data)
    mit = all(licence == "MIT" for licence in licences)
    on_hub = PUBLIC[model].repo if model in PUBLIC else model if model != "classroom" and not Path(model).exists() else None
    data_id = PUBLIC_SETS[data].repo if data in PUBLIC_SETS else data if is_hub_id(data) else None
    front = ModelCardData(base_model=on_hub, datasets=[data_id] if data_id else None,
                          license="mit" if mit else "other" if all(licences) else "unknown", library_name="transformers",
                          pipeline_tag="text-generation", tags=["instruction-tuning"])
    base, of_data = (licence or "not known here" for licence in licences)
    records = ", ".join(f"{count:,} {split}" for split, count in facts["records"].items())
    skipped = facts.get("skipped_rows", {})
    left_out = f"; {len(skipped):,} rows could not be used (run.json says which, and why)" if skipped else ""
    return f"""---
{front.to_yaml()}
---

# {Path(model).name}, fine-tuned on {Path(data).name}

- Base model: {on_hub or Path(model).name} (licence: {base}); its weights have the SHA-256 {facts["model_sha256"]}
- Data: {Path(data).name} (licence: {of_data}); {records} records{left_out}, SHA-256 {facts["data_sha256"]}
- Method: {method}
- Training: {seen(history)}, {how.batch_size * how.accumulate} records a step, peak learning rate \
{facts["learning_rate"]:g}, {facts["precision"]}

## Scores

{score_table(arms, questions)}

Answers to {questions:,} questions of the test part; 95 % intervals (Wilson) for the choice of the questions. A low loss is no
proof of good answers: read them.

## How to ask it

```python
{ASK}```

The chat template makes this prompt, which the model was trained on. The answer follows it:

```
{rendered(template, [{"role": "user", "content": QUESTION}])}```

It was made for learning how such models are made. What it says may be wrong.
"""
