"""Own pools: the answers and scores that the data holds, from ingest to pairs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from flows.pinning import pin
from pvar.answer_rows import PoolAnswer
from pvar.config import PipelineConfig
from pvar.errors import InputError, ScoringError
from pvar.records import Pair, Prompt, Response, Score
from pvar.retrain_decision import RetrainConfig
from pvar.row_counts import RowCounts
from tasks.engine.tables import PromptVariance, RejectedRow
from tasks.stages.ingest import ANSWERS, PROMPTS, REJECTED
from tasks.stages.pair import PAIRS
from tasks.stages.sample import RESPONSES
from tasks.stages.score import SCORES
from tasks.stages.select import VARIANCE
from tests.unit.infra.tiny_models import save_language_model
from tests.workflow import TOPICS, Workflow, fake_settings, open_wiring

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of libraries
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

Fields = dict[str, Any]
DATASET = {"kind": "dataset"}
VADER = {"kind": "vader"}
SMALL = 0.1
"""A difference of rewards with little PVar; that of `LARGE` has much."""
LARGE = 5.0


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_language_model(tmp_path_factory.mktemp("policy"), seed=1)


def pool(home: Path, policy: Path, rows: Sequence[Fields], **changes: Any) -> Workflow:
    """A workflow on these rows, with the data's scores unless `changes` name other models."""
    home.mkdir(parents=True, exist_ok=True)
    source = home / "pool.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    wiring = open_wiring(home)
    settings = fake_settings(
        source,
        **{"policy": str(policy), "sample.engine": "dataset", "score.reward_models": [DATASET]}
        | changes,
    )
    return Workflow(pin(PipelineConfig.model_validate(settings), wiring), wiring)


def text_of(topic: str) -> str:
    return f"Describe {topic}."


def plain(topic: str, scores: Sequence[float | None]) -> Fields:
    responses = [f"Answer {index} about {topic}." for index, _ in enumerate(scores)]
    return {"prompt": text_of(topic), "responses": responses, "rewards": list(scores)}


def ultrafeedback(topic: str, scores: Sequence[float | None]) -> Fields:
    row = plain(topic, scores)
    completions = [
        {"model": "m", "response": text, "overall_score": score, "fine-grained_score": 4.5}
        for text, score in zip(row["responses"], scores, strict=True)
    ]
    return {"instruction": row["prompt"], "models": ["m"], "completions": completions}


def simpo(topic: str, scores: Sequence[float | None]) -> Fields:
    row = plain(topic, scores)
    return {
        "prompt": row["prompt"],
        "all_generated_responses": row["responses"],
        "all_rm_scores": row["rewards"],
    }


def nectar(topic: str, scores: Sequence[float | None]) -> Fields:
    """Ranks are minus the scores."""
    row = plain(topic, scores)
    answers = [
        {"answer": text, "model": "m", "rank": None if score is None else -score}
        for text, score in zip(row["responses"], scores, strict=True)
    ]
    return {"prompt": f"\n\nHuman: {row['prompt']}\n\nAssistant: ", "answers": answers}


SCORES_OF = {
    topic: [1.0, 1.0 + (LARGE if row % 2 else SMALL), 1.0, None][: 2 + row % 3]
    for row, topic in enumerate(TOPICS)
}
"""Two, three or four answers; every other prompt has much PVar."""


def training(workflow: Workflow) -> dict[str, str]:
    """Text of each training prompt by its id."""
    rows = workflow.artifact("ingest").rows(PROMPTS, Prompt)
    return {row.prompt_id: row.messages[0].content for row in rows if row.split == "train"}


@pytest.mark.parametrize("form", [plain, ultrafeedback, simpo, nectar])
def test_each_published_form_selects_and_labels_by_its_own_scores(
    tmp_path: Path, policy: Path, form: Any
) -> None:
    rows = [form(topic, scores) for topic, scores in SCORES_OF.items()]
    workflow = pool(tmp_path, policy, rows)
    workflow.make("ingest", "sample", "score-dataset", "select", "pair")
    texts = training(workflow)
    topics = {prompt_id: text[len("Describe ") : -1] for prompt_id, text in texts.items()}

    responses = workflow.artifact("sample").rows(RESPONSES, Response)
    scores = workflow.artifact("score-dataset").rows(SCORES, Score)
    found: dict[str, list[tuple[str, float | None]]] = {}
    for response, score in zip(responses, scores, strict=True):
        assert score.response_id == response.response_id
        assert response.finish_reason == "stop"
        found.setdefault(topics[response.prompt_id], []).append((response.text, score.reward))
    assert found == {
        topic: list(zip(plain(topic, them)["responses"], them, strict=True))
        for topic in topics.values()
        for them in [SCORES_OF[topic]]
    }
    table = workflow.artifact("select").rows(VARIANCE, PromptVariance)
    has_much = {row.prompt_id: max(SCORES_OF[topics[row.prompt_id]][:2]) > 2 for row in table}
    ranked = sorted(table, key=lambda row: -(row.pvar or 0.0))
    num_much = sum(has_much.values())
    assert 0 < num_much < len(table)
    assert all(has_much[row.prompt_id] for row in ranked[:num_much])
    for pair in workflow.artifact("pair").rows(PAIRS, Pair):
        assert pair.chosen == f"Answer 1 about {topics[pair.prompt_id]}."
        assert pair.rejected_reward == 1.0


def test_the_data_selects_and_a_model_labels_or_the_other_way_round(
    tmp_path: Path, policy: Path
) -> None:
    """The data prefers the sad answer, VADER the happy one."""
    rows = [
        {**plain(topic, [0.0, LARGE]), "responses": ["I love it, great!", "I hate it, awful."]}
        for topic in TOPICS
    ]
    models = {"score.reward_models": [DATASET, VADER]}
    for selects, labels, chosen in (
        ("dataset", "vader", "I love it, great!"),
        ("vader", "dataset", "I hate it, awful."),
    ):
        workflow = pool(
            tmp_path,
            policy,
            rows,
            **models,
            **{"select.models": [selects], "pair.models": [labels]},
        )
        workflow.make("ingest", "sample", "score-dataset", "score-vader", "select", "pair")
        pairs = workflow.artifact("pair").rows(PAIRS, Pair)
        assert len(pairs) > 3
        assert {pair.chosen for pair in pairs} == {chosen}


def test_training_prompts_without_two_answers_are_rejected_and_others_are_not(
    tmp_path: Path, policy: Path
) -> None:
    """Held-out prompts are answered by the models, so they need no answers."""
    good = {topic: plain(topic, [0.0, 1.0]) for topic in TOPICS[:24]}
    bad = {
        TOPICS[24]: ({"prompt": text_of(TOPICS[24])}, "no_answers"),
        TOPICS[25]: (plain(TOPICS[25], [0.0]), "too_few_answers"),
        TOPICS[26]: (plain(TOPICS[26], [0.0, 1.0]) | {"rewards": [1.0]}, "scores_do_not_match"),
        TOPICS[27]: (plain(TOPICS[27], []), "too_few_answers"),
    }
    rows = [*good.values(), *(row for row, _ in bad.values()), {"prompt": "1 + 1?", "answer": "2"}]
    workflow = pool(tmp_path, policy, rows)
    workflow.make("ingest")
    artifact = workflow.artifact("ingest")
    prompts = artifact.rows(PROMPTS, Prompt)
    answered = {answer.prompt_id for answer in artifact.rows(ANSWERS, PoolAnswer)}
    assert answered == {prompt.prompt_id for prompt in prompts if prompt.split == "train"}
    kept = {prompt.messages[0].content for prompt in prompts}
    assert {text_of(topic) for topic in good} < kept
    assert "1 + 1?" in kept
    rejected = artifact.rows(REJECTED, RejectedRow)
    assert rejected, "none of the bad rows is a training prompt; use other topics"
    for number, (topic, (_, reason)) in enumerate(bad.items(), start=25):
        is_kept = text_of(topic) in kept
        rules = [row.rule for row in rejected if row.row_id == f"line {number}"]
        assert is_kept != any(rule.startswith(reason) for rule in rules)
    assert artifact.manifest.row_counts.rows_in == len(rows)


def test_of_equal_prompts_the_first_answers_stay(tmp_path: Path, policy: Path) -> None:
    rows = [plain(topic, [0.0, 1.0]) for topic in TOPICS]
    again = [{**row, "responses": ["other", "others"]} for row in rows]
    workflow = pool(tmp_path, policy, [*rows, *again])
    workflow.make("ingest", "sample")
    responses = workflow.artifact("sample").rows(RESPONSES, Response)
    assert len(responses) == 2 * len(training(workflow))
    assert all(response.text.startswith("Answer ") for response in responses)
    assert workflow.artifact("sample").manifest.row_counts == RowCounts(
        rows_in=len(responses), rows_out=len(responses)
    )


def test_tokens_are_those_of_the_policy_with_the_end_of_an_answer(
    tmp_path: Path, policy: Path
) -> None:
    """The tiny policy's tokenizer has one token for a byte."""
    workflow = pool(tmp_path, policy, [plain(topic, [0.0, 1.0]) for topic in TOPICS])
    workflow.make("ingest", "sample")
    for response in workflow.artifact("sample").rows(RESPONSES, Response):
        assert response.num_tokens == len(response.text.encode()) + 1


def test_data_without_scores_is_scored_by_models_only(tmp_path: Path, policy: Path) -> None:
    rows = [plain(topic, [None, None]) for topic in TOPICS]
    unscored = pool(tmp_path, policy, rows)
    unscored.make("ingest", "sample")
    with pytest.raises(ScoringError, match=r"no_score.*use another reward model"):
        unscored.make("score-dataset")
    by_model = pool(tmp_path, policy, rows, **{"score.reward_models": [VADER]})
    assert by_model.make("score-vader").artifact.manifest.summary["num_rewards"]


def test_a_file_of_prompts_alone_says_what_rows_are_wanted(tmp_path: Path, policy: Path) -> None:
    with pytest.raises(InputError, match=r"0 prompts are left for training.*no_answers"):
        pool(tmp_path, policy, [{"prompt": text_of(topic)} for topic in TOPICS]).make("ingest")
    with pytest.raises(InputError, match=r'"responses": \["…", "…"\]'):
        pool(tmp_path, policy, [{"text": topic} for topic in TOPICS]).make("ingest")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"score": {"reward_models": [DATASET]}}, "set sample.engine to dataset"),
        ({"sample": {"engine": "dataset", "adaptive": {}}}, "set sample.adaptive to null"),
        ({"evaluate": {"answers": {"engine": "dataset"}}}, "evaluate.answers.engine"),
        (
            {"evaluate": {"judge": {"kind": "reward_model", "reward_model": DATASET}}},
            "does not match any of the expected tags",
        ),
    ],
)
def test_what_the_data_cannot_do_is_refused(parts: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as error:
        PipelineConfig.model_validate(parts)
    assert message in str(error.value)


def test_answers_may_be_longer_than_those_that_would_be_sampled() -> None:
    short = {"train": {"max_length_tokens": 100}}
    with pytest.raises(ValidationError, match="less than"):
        PipelineConfig.model_validate(short)
    PipelineConfig.model_validate({**short, "sample": {"engine": "dataset"}})


def test_retraining_on_batches_is_refused() -> None:
    with pytest.raises(ValidationError, match="run the pipeline on the file itself"):
        RetrainConfig.model_validate({"pipeline": {"sample": {"engine": "dataset"}}})
