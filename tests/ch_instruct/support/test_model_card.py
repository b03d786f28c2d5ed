"""The model card, as the hub's own parser reads it."""

import pytest
from huggingface_hub import ModelCard

from ch_instruct.pipeline import FineTuning
from ch_instruct.prompts import chat_template, format_prompt
from ch_instruct.support.model_card import QUESTION, known_licence, model_card, score_table, seen
from tests.models import SMOLLM2_TEMPLATE

FACTS = {"records": {"train": 1700, "validation": 100, "test": 200}, "model_sha256": "a" * 64, "data_sha256": "b" * 64,
         "learning_rate": 5e-5, "precision": "fp32"}
ARMS = {"base": {"test_loss": 3.2, "exact_match": 0.0, "rouge_l": 0.25}, "ntp": {"test_loss": 1.2, "exact_match": 0.5,
                                                                                  "rouge_l": 0.75}}

HISTORY = [{"step": 0, "epoch": 0.0, "validation_loss": 0.5}, *({"step": n, "epoch": n / 3} for n in range(1, 10))]


@pytest.mark.parametrize(("model", "data", "base", "licence", "sets"), [
    ("classroom", "classroom", None, "mit", None),
    ("gpt2", "dolly", "openai-community/gpt2", "other", ["databricks/databricks-dolly-15k"]),
    ("distilbert/distilgpt2", "some/where/my.csv", "distilbert/distilgpt2", "unknown", None),
    ("gpt2-xl", "classroom", "openai-community/gpt2-xl", "mit", None),
    ("gpt2", "some/set", "openai-community/gpt2", "unknown", ["some/set"])])
def test_the_front_matter_says_what_is_known(model, data, base, licence, sets):
    card = ModelCard(model_card(model, data, chat_template("phi3"), "by hand", FineTuning(), FACTS, ARMS, 200, HISTORY))
    assert (card.data.base_model, card.data.license, card.data.datasets) == (base, licence, sets)
    assert card.data.pipeline_tag == "text-generation" and card.data.tags == ["instruction-tuning"]
    assert "Method: by hand" in card.text and "<|Assistant|>" in card.text and "some/where" not in card.text


def test_the_prompt_on_the_card_is_that_of_training():
    """With the system message of the model's own template."""
    for template, prompt in ((chat_template("phi3"), format_prompt({"instruction": QUESTION}, "phi3")),
                             (SMOLLM2_TEMPLATE, "<|im_start|>system\n")):
        card = model_card("smollm2", "classroom", template, "m", FineTuning(), FACTS, ARMS, 200, HISTORY)
        assert f"follows it:\n\n```\n{prompt}" in card and QUESTION in card.split("follows it:")[1]


def test_a_folder_is_no_hub_id(tmp_path):
    card = ModelCard(model_card(str(tmp_path), "classroom", chat_template(), "m", FineTuning(), FACTS, ARMS, 200, HISTORY))
    assert card.data.base_model is None and str(tmp_path.parent) not in card.content and card.data.license == "unknown"


def test_scores_stand_with_intervals():
    """Wilson's interval of 100 in 200: 0.5 ± 0.0686; of 0 in 200: up to 3.84 / 203.84."""
    table = score_table(ARMS, 200)
    assert "| ntp | 1.2000 | 50.0% (43.1% to 56.9%) | 75.0% |" in table
    assert "| base | 3.2000 | 0.0% (0.0% to 1.9%) | 25.0% |" in table


def test_licences():
    assert known_licence("gpt2", "alpaca") == ("MIT", "CC BY-NC 4.0")
    assert known_licence("smollm2", "classroom") == ("Apache-2.0", "MIT")
    assert known_licence("some/model", "my.json") == (None, None)


def test_the_card_says_how_often_the_kept_checkpoint_saw_the_data():
    """Ten steps of a third of an epoch; the start is judged, too, and is no checkpoint."""
    assert seen(HISTORY) == "3 epochs"  # nothing was judged: the last one is kept
    judged = [row | ({"validation_loss": 2.0 if row["step"] == 7 else 3.0} if row["step"] else {}) for row in HISTORY]
    assert seen(judged) == "2.33 epochs (of 3 trained, it had the lowest validation loss)"
    assert seen(judged[:4]) == "0.333 epochs (of 1 trained, it had the lowest validation loss)"
    assert "Training: 2.33 epochs (of 3" in model_card(
        "gpt2", "d", chat_template(), "m", FineTuning(epochs=1), FACTS, ARMS, 9, judged)
