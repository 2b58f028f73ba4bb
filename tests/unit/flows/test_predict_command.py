"""`pvar predict` with a tiny policy, fake responses, and an evaluation written by hand."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from flows.commands.predict import predict
from pvar.artifacts import ShardSpec
from pvar.chat import prompt_token_ids
from pvar.errors import IncompleteError, InputError
from pvar.records import Prompt, Response, Verdict
from pvar.row_counts import RowCounts
from tasks.engine.stage import Job, Work, run_stage
from tasks.engine.tables import write_table
from tasks.stages.ingest import PROMPTS, training_prompts
from tasks.stages.judgments import VERDICTS
from tasks.stages.sample import RESPONSES
from tests.unit.infra.tiny_models import save_language_model
from tests.workflow import TOPICS, Workflow, start_workflow

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of libraries
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    policy = save_language_model(tmp_path_factory.mktemp("policy"), seed=1)
    source = tmp_path_factory.mktemp("source") / "prompts.jsonl"
    rows = [
        {"prompt": f"{verb} {topic}.", "form": verb}
        for number, topic in enumerate(TOPICS)
        for verb in ("Praise", "Blame")[number % 2 : number % 2 + 1]
    ]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flow = start_workflow(
        tmp_path_factory.mktemp("home"),
        policy=str(policy),
        **{"ingest.source": str(source), "ingest.eval_fraction": 0.2, "sample.num_responses": 8},
    )
    flow.make("ingest", "sample", "score-vader")
    return flow


@pytest.fixture(autouse=True)
def home(flow: Workflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVAR_HOME", str(flow.wiring.settings.home))


def predicted(
    flow: Workflow, folder: Path, capsys: pytest.CaptureFixture[str], **options: Any
) -> dict[str, Any]:
    predict(preset=preset_of(flow, folder), as_json=True, **options)
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def preset_of(flow: Workflow, folder: Path) -> str:
    path = folder / "tiny.yaml"
    path.write_text(flow.config.model_dump_json())
    return str(path)


def evaluated(flow: Workflow, verdicts: Sequence[Verdict]) -> None:
    """The evaluation with these verdicts, without a training and without a judge."""

    @contextmanager
    def open_worker(_: Job[Any]) -> Iterator[Work]:
        def write(_: ShardSpec, folder: Path) -> RowCounts:
            write_table(folder / VERDICTS, verdicts, Verdict)
            return RowCounts(rows_in=len(verdicts), rows_out=len(verdicts))

        yield write

    node = flow.nodes["evaluate"]
    stage = replace(node.stage, open_worker=open_worker, summarise=lambda *_: {})
    run_stage(
        stage,
        node.recipe,
        Job(
            spec=node.spec,
            runtime=flow.config.runtime,
            inputs={},
            ports=flow.wiring,
            keys=node.keys,
            scratch=flow.wiring.settings.home,
            log_step=lambda *_: None,
        ),
    )


def test_the_prediction_stands_beside_fewer_responses_with_its_cost(
    flow: Workflow, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = predicted(flow, tmp_path, capsys, by="form")
    prompts = training_prompts(flow.artifact("ingest"))
    assert found["prompts"] + found["prompts_left_out"] == len(prompts)
    assert found["prompts_left_out"] == 0
    assert list(found["responses"]) == ["2", "3", "4"]
    for row in (found["prediction_of_all"], found["prediction"], *found["responses"].values()):
        lower, upper = row["spearman_interval"]
        assert -1 <= lower <= row["spearman"] <= upper <= 1
        assert 0 <= row["overlap"] <= 1
    # The fake's tone depends on the prompt's id alone, which no embedding knows.
    lower, upper = found["prediction"]["spearman_interval"]
    assert lower < 0 < upper
    assert found["responses"]["4"]["spearman"] > found["prediction"]["spearman"]
    assert found["top_share"] == 13 / 25  # half, select.budget
    assert list(found["groups"]) == ["Blame", "Praise"]
    assert sum(group["prompts"] for group in found["groups"].values()) == found["prompts"]
    assert "prediction" not in found["groups"]["Blame"]  # fewer than 20 prompts
    assert found["prediction_by_group"]["spearman"] != found["prediction"]["spearman"]
    assert found["win_rates"] == {}  # not evaluated yet

    tokenizer = AutoTokenizer.from_pretrained(flow.config.policy.rpartition("#")[0])
    ids = [prompt_token_ids(tokenizer, prompt.messages) for prompt in prompts]
    responses = flow.artifact("sample").rows(RESPONSES, Response)
    assert found["cost"]["prompt_tokens"] == sum(map(len, ids))
    assert found["cost"]["response_tokens"] == sum(each.num_tokens for each in responses) / 8
    assert found["cost"]["embedding_seconds"] > 0


def test_the_win_rate_is_shown_by_a_field_of_the_rows(
    flow: Workflow, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = flow.artifact("ingest").rows(PROMPTS, Prompt)
    held_out = [prompt for prompt in prompts if prompt.split == "eval"]
    wins = {prompt.prompt_id: "Praise" in prompt.messages[0].content for prompt in held_out}
    assert set(wins.values()) == {True, False}
    evaluated(flow, [Verdict(prompt_id, float(won)) for prompt_id, won in wins.items()])
    rates = predicted(flow, tmp_path, capsys, by="form")["win_rates"]
    assert {name: rate["win_rate"] for name, rate in rates.items()} == {"Blame": 0, "Praise": 1}
    assert rates["Praise"]["num_judged"] == sum(wins.values())
    assert rates["Praise"]["ci_lower"] < 1

    predict(preset=preset_of(flow, tmp_path), by="form")
    table = capsys.readouterr().out
    for text in (
        "prediction",
        "2 responses",
        "form alone",
        "By form",
        "Praise",
        "100%",
        "its cost:",
    ):
        assert text in table


def test_the_win_rate_by_a_field_is_over_an_exam_of_its_own(
    flow: Workflow, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exam = tmp_path / "exam.jsonl"
    rows = [{"prompt": f"Praise number {n}.", "form": "Praise" if n else "Other"} for n in range(3)]
    exam.write_text("".join(json.dumps(row) + "\n" for row in rows))
    examined = start_workflow(
        flow.wiring.settings.home,
        policy=flow.config.policy.rpartition("#")[0],
        **{
            "ingest.source": flow.config.ingest.source.rpartition("#")[0],
            "sample.num_responses": 4,
            "evaluate.prompts": [str(exam)],
        },
    )
    examined.make("ingest", "exam", "exclude", "sample", "score-vader")
    asked = examined.artifact("exam").rows(PROMPTS, Prompt)
    evaluated(examined, [Verdict(prompt.prompt_id, 1.0) for prompt in asked])
    rates = predicted(examined, tmp_path, capsys, by="form")["win_rates"]
    assert {name: rate["num_judged"] for name, rate in rates.items()} == {"Other": 1, "Praise": 2}


def test_what_is_missing_is_named(flow: Workflow, tmp_path: Path) -> None:
    preset = preset_of(flow, tmp_path)
    with pytest.raises(InputError, match=r"no prompt of .* has the field topic; .* form, prompt"):
        predict(preset=preset, by="topic")
    with pytest.raises(IncompleteError, match="run stage sample first"):
        predict(preset=preset, set_=("sample.seed=7",))
