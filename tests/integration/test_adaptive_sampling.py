"""Two rounds of sampling through the stages: fewer responses, nearly as good a choice."""

from collections import Counter
from pathlib import Path

import pytest

from pvar.config import PipelineConfig, SampleConfig
from pvar.records import Prompt, Response, Score
from tasks.engine.tables import PromptVariance, by_prompt
from tests.workflow import Workflow, start_workflow, write_prompts

PROMPTS = 80
FIRST, ALL = 4, 16
ADAPTIVE = {
    "sample.num_responses": ALL,
    "sample.max_new_tokens": 40,
    "ingest.near_duplicate_similarity": None,
    "select.budget": {"fraction": 0.1},
    "runtime": {
        "sampled_responses_per_shard": 16 * ALL,
        "responses_per_shard": 512,
        "lease_seconds": 60,
    },
}
ROUND_1, ROUND_2 = ("ingest", "first-sample", "first-score-vader"), ("sample", "score-vader")


def start(home: Path, **changes: object) -> Workflow:
    home.mkdir()
    source = write_prompts(home / "many.jsonl", (f"number {n}" for n in range(PROMPTS)))
    return start_workflow(home, **ADAPTIVE, **{"ingest.source": str(source)}, **changes)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    flow = start(tmp_path_factory.mktemp("adaptive") / "full")
    flow.make("ingest", "sample", "score-vader", "select")
    return flow


@pytest.fixture(scope="module")
def two_rounds(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    rounds = {"first_responses": FIRST, "second_round_share": 0.25}
    flow = start(tmp_path_factory.mktemp("adaptive") / "rounds", **{"sample.adaptive": rounds})
    flow.make(*ROUND_1, *ROUND_2, "select")
    return flow


def training_prompts(flow: Workflow) -> list[Prompt]:
    rows = flow.artifact("ingest").rows("prompts.parquet", Prompt)
    return [prompt for prompt in rows if prompt.split == "train"]


def test_a_quarter_of_the_prompts_gets_the_rest_and_the_summary_says_what_it_cost(
    two_rounds: Workflow,
) -> None:
    num_prompts = len(training_prompts(two_rounds))
    manifest = two_rounds.artifact("sample").manifest
    responses = two_rounds.artifact("sample").rows("responses.parquet", Response)
    num_again = round(0.25 * num_prompts)
    counts = Counter(each.prompt_id for each in responses)
    assert list(counts.values()) == [ALL] * num_again
    # Everybody has had the first round.
    num_drawn = num_prompts * FIRST + num_again * (ALL - FIRST)
    assert manifest.summary["num_drawn"] == num_drawn
    assert manifest.summary["drawn_share"] == num_drawn / (num_prompts * ALL)
    assert manifest.row_counts.rows_in == num_prompts * ALL
    assert manifest.row_counts.rows_out == num_again * ALL
    assert manifest.row_counts.rejected == {"not_promising": (num_prompts - num_again) * ALL}


def test_a_good_choice_is_found_for_less_than_half_the_responses(
    full: Workflow, two_rounds: Workflow
) -> None:
    def selected(flow: Workflow) -> set[str]:
        rows = flow.artifact("select").rows("variance.parquet", PromptVariance)
        return {row.prompt_id for row in rows if row.selected}

    truth = {
        row.prompt_id: row.pvar or 0.0
        for row in full.artifact("select").rows("variance.parquet", PromptVariance)
    }

    def mean(ids: set[str]) -> float:
        return sum(truth[each] for each in ids) / len(ids)

    found, wanted, everything = selected(two_rounds), selected(full), set(truth)
    assert len(found) == len(wanted)
    assert (two_rounds.artifact("sample").manifest.summary["drawn_share"] or 1) < 0.5
    # Of the way from a random choice to the best one more than half is gone (a random one: 0).
    assert mean(found) - mean(everything) > 0.5 * (mean(wanted) - mean(everything))


def test_the_second_round_goes_on_from_the_first_and_does_not_repeat_it(
    two_rounds: Workflow,
) -> None:
    first = two_rounds.artifact("first-sample").rows("responses.parquet", Response)
    both = two_rounds.artifact("sample").rows("responses.parquet", Response)
    again = {each.prompt_id for each in both}
    assert {each for each in first if each.prompt_id in again} <= set(both)
    assert len({each.response_id for each in both}) == len(both)
    for answers in by_prompt(both).values():
        assert [each.sample_index for each in answers] == list(range(len(answers)))
        texts = [each.text for each in answers if each.num_tokens > 8]
        assert len(set(texts)) == len(texts)
    assert [each.prompt_id for each in both] == sorted(each.prompt_id for each in both)


def test_what_the_first_round_scored_is_taken_over(two_rounds: Workflow) -> None:
    first = two_rounds.artifact("first-score-vader").rows("scores.parquet", Score)
    both = two_rounds.artifact("score-vader").rows("scores.parquet", Score)
    responses = two_rounds.artifact("sample").rows("responses.parquet", Response)
    again = {each.prompt_id for each in responses}
    assert {each for each in first if each.prompt_id in again} <= set(both)
    assert [each.response_id for each in both] == [each.response_id for each in responses]


def test_a_prompt_that_the_first_round_rejected_is_not_asked_again(tmp_path: Path) -> None:
    rounds = {"first_responses": FIRST, "second_round_share": 0.9}
    # Of "Describe number 7." only the first two words, of "Describe x." all two: those are left.
    home = tmp_path / "home"
    home.mkdir()
    texts = [f"number {n}" for n in range(12)] + [f"x{n}" for n in range(12)]
    source = write_prompts(home / "many.jsonl", texts)
    flow = start_workflow(
        home,
        **ADAPTIVE,
        **{"ingest.source": str(source), "sample.adaptive": rounds, "sample.max_prompt_tokens": 2},
    )
    flow.make(*ROUND_1, "sample")
    prompts = training_prompts(flow)
    num_long = sum("number" in prompt.messages[0].content for prompt in prompts)
    num_short = len(prompts) - num_long
    assert num_long
    assert num_short
    num_again = round(0.9 * num_short)
    assert flow.artifact("sample").manifest.row_counts.rejected == {
        "prompt_too_long": num_long * ALL,
        "not_promising": (num_short - num_again) * ALL,
    }


def test_without_the_option_nothing_about_an_artifact_changes(
    full: Workflow, two_rounds: Workflow
) -> None:
    # The option is no part of a plain recipe, so artifacts of before it was there are reused.
    assert "adaptive" not in full.nodes["sample"].recipe.model_dump_json()
    assert set(full.nodes["score-vader"].inputs) == {"prompts", "responses"}
    # And the first round is a plain sampling of few responses: it is shared with such a run.
    few = full.config.model_copy(
        update={"sample": full.config.sample.model_copy(update={"num_responses": FIRST})}
    )
    plain = Workflow(few, full.wiring).nodes["sample"].recipe
    assert plain.config == two_rounds.nodes["first-sample"].recipe.config


def test_a_first_round_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"first_responses \(8\) must be less than"):
        SampleConfig.model_validate({"num_responses": 8, "adaptive": {"first_responses": 8}})


def test_other_strategies_are_refused_for_two_rounds() -> None:
    # Their choice would be among the promising prompts only: no random control, no bottom.
    with pytest.raises(ValueError, match=r"select.strategy is random, but sample.adaptive"):
        PipelineConfig.model_validate(
            {"sample": {"adaptive": {}}, "select": {"strategy": "random"}}
        )
