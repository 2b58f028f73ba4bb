"""AlpacaEval's judge: order and odds against published annotations, prompts by hand."""

import math

import pytest
from benchmark_data import alpaca_eval_run, needs_shared_data

from pvar.errors import ConfigError
from pvar.evaluation.alpaca_eval_judge import (
    DEFAULT_TEMPLATE,
    is_swapped,
    judge_messages,
    preference_from_logprobs,
)

PUBLISHED_WITH_LOGPROBS = (
    "alpaca-7b",
    "gpt-3.5-turbo-1106_concise",
    "NullModel",
    "OpenHermes-2.5-Mistral-7B",
)


def test_preference_is_two_minus_the_odds_of_the_first_answer() -> None:
    # P(m) : P(M) = 3 : 1, whatever the probability of other tokens: 2 − 3/4.
    logprobs = {"m": math.log(0.6), "M": math.log(0.2), "Both": math.log(0.1)}

    assert preference_from_logprobs(logprobs, swapped=False) == pytest.approx(1.25)
    assert preference_from_logprobs(logprobs, swapped=True) == pytest.approx(1.75)


def test_a_token_outside_the_top_counts_as_impossible() -> None:
    assert preference_from_logprobs({"M": -3.0}, swapped=False) == 2.0
    assert preference_from_logprobs({"m": -3.0}, swapped=False) == 1.0


def test_neither_token_is_no_preference() -> None:
    assert preference_from_logprobs({"I": -0.1}, swapped=False) is None
    assert preference_from_logprobs({"m": -math.inf}, swapped=False) is None


def test_odds_of_very_unlikely_tokens_do_not_vanish() -> None:
    # exp(−800) is zero in floating point; the odds are e : 1 all the same.
    preference = preference_from_logprobs({"m": -800.0, "M": -801.0}, swapped=False)

    assert preference == pytest.approx(2 - math.e / (math.e + 1))


@needs_shared_data
@pytest.mark.parametrize("model", PUBLISHED_WITH_LOGPROBS)
def test_published_preferences_follow_from_their_logprobs_and_our_order(model: str) -> None:
    rows = [
        row
        for row in alpaca_eval_run(model).annotations
        if row["logprob_m"] is not None and row["logprob_M"] is not None
    ]

    assert len(rows) > 800
    for row in rows:
        preference = preference_from_logprobs(
            {"m": row["logprob_m"], "M": row["logprob_M"]}, swapped=is_swapped(row["instruction"])
        )
        # Ten digits are published.
        assert preference == pytest.approx(row["preference"], abs=1e-9)


def test_both_orders_occur_and_depend_on_the_seed() -> None:
    instructions = [f"Question {number}" for number in range(100)]
    orders = [is_swapped(instruction) for instruction in instructions]

    assert 30 < sum(orders) < 70  # fair coins: 50 ± 4 standard deviations of 5
    assert orders != [is_swapped(instruction, seed=1) for instruction in instructions]


def test_the_model_is_shown_first_when_swapped() -> None:
    plain = judge_messages("Q", "baseline answer", "model answer", swapped=False)[-1].content
    swapped = judge_messages("Q", "baseline answer", "model answer", swapped=True)[-1].content

    assert plain.index("baseline answer") < plain.index("model answer")
    assert swapped.index("model answer") < swapped.index("baseline answer")


def test_braces_in_an_answer_stay_text() -> None:
    content = judge_messages("Q", "use {output_2} here", "other", swapped=False)[-1].content

    assert "use {output_2} here" in content
    assert content.count("other") == 1


def test_a_template_in_chatml_becomes_messages() -> None:
    template = (
        "<|im_start|>system\nBe brief.\n<|im_end|>\n"
        "<|im_start|>user\n{instruction}|{output_1}|{output_2}\n<|im_end|>\n"
    )
    messages = judge_messages("Q", "A", "B", swapped=False, template=template)

    assert [(message.role, message.content) for message in messages] == [
        ("system", "Be brief."),
        ("user", "Q|A|B"),
    ]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (DEFAULT_TEMPLATE.replace("{output_2}", ""), r"lacks \{output_2\}"),
        ("{instruction} {output_1} {output_2}", "no ChatML block"),
    ],
)
def test_a_template_that_cannot_be_filled_is_refused(template: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        judge_messages("Q", "A", "B", swapped=False, template=template)
