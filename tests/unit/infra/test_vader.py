"""VADER as a reward: published compound scores, times the scale; blank texts have none."""

import pytest

from infra.rewards.vader import VaderScorer
from pvar.ports import ScoreRequest
from pvar.records import Message, Score


def request(response: str, prompt: str = "How was it?") -> ScoreRequest:
    return ScoreRequest("p", "r", (Message("user", prompt),), response)


@pytest.mark.parametrize(
    ("text", "compound"),
    # From the table of examples in VADER's README.
    [
        ("VADER is smart, handsome, and funny.", 0.8316),
        ("VADER is VERY SMART, handsome, and FUNNY!!!", 0.9342),
        ("The book was good.", 0.4404),
        ("Today SUX!", -0.5461),
        ("Not bad at all", 0.4310),
    ],
)
def test_reward_is_the_published_compound_score_times_the_scale(text: str, compound: float) -> None:
    [score] = VaderScorer(scale=4.0).score([request(text)])

    assert score.reward == pytest.approx(4 * compound, abs=1e-12)
    assert score.reason is None


@pytest.mark.parametrize("blank", ["", " \n\t"])
def test_a_blank_response_has_no_reward_rather_than_a_neutral_one(blank: str) -> None:
    assert VaderScorer(scale=4.0).score([request(blank)]) == [
        Score("p", "r", None, "empty_response")
    ]


def test_a_text_without_sentiment_words_is_neutral_not_missing() -> None:
    [score] = VaderScorer(scale=4.0).score([request("The chair is wooden.")])

    assert score.reward == 0.0


def test_scores_keep_the_order_and_ids_of_the_requests() -> None:
    requests = [
        ScoreRequest("p1", "r1", (), "bad"),
        ScoreRequest("p2", "r2", (), ""),
        ScoreRequest("p1", "r3", (), "good"),
    ]

    scores = VaderScorer(scale=1.0).score(requests)

    assert [(s.prompt_id, s.response_id) for s in scores] == [
        ("p1", "r1"),
        ("p2", "r2"),
        ("p1", "r3"),
    ]
    # "good" has valence 1.9 and "bad" −2.5: 1.9/√(1.9² + 15) = 0.4404, −2.5/√(2.5² + 15) = −0.5423.
    assert [s.reward for s in scores] == [-0.5423, None, 0.4404]


def test_the_prompt_does_not_change_the_reward() -> None:
    scorer = VaderScorer(scale=1.0)

    assert scorer.score([request("Fine.", "I hate you.")]) == scorer.score(
        [request("Fine.", "Hi.")]
    )
