"""What is missing is said before a run: files, folders, the judge's server, the harness."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from infra.preconditions import find_problems, inline_stages, preconditions, refuse_missing
from pvar.config import PipelineConfig
from pvar.errors import InputError, UnavailableError
from pvar.placement import PlacementConfig
from tasks.graph import STAGES
from tests.services.loopback_http import Handler, Sent, listening, sent_json

SERVER_JUDGE = {"kind": "alpaca_eval", "model": "gpt-4-1106-preview"}
ALL = frozenset(STAGES)


@pytest.fixture(autouse=True)
def no_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PVAR_JUDGE_BASE_URL", raising=False)
    monkeypatch.delenv("PVAR_JUDGE_API_KEY", raising=False)


def config_of(*benchmarks: Mapping[str, Any], **others: Any) -> PipelineConfig:
    return PipelineConfig.model_validate({"benchmarks": benchmarks, **others})


def alpaca_eval(folder: Path, **changes: Any) -> dict[str, Any]:
    """A benchmark whose files are all there."""
    for name in ("questions.json", "baseline.json"):
        (folder / name).write_text('[{"instruction": "a"}]')
    for name in ("instruction_difficulty.csv", "df_gamed.csv"):
        (folder / name).write_text("a,b\n")
    return {
        "kind": "alpaca_eval",
        "questions": str(folder / "questions.json"),
        "baseline_outputs": str(folder / "baseline.json"),
        "calibration": str(folder),
        "judge": {"kind": "fake"},
        **changes,
    }


def keys(config: PipelineConfig, stages: frozenset[str] = ALL) -> list[str]:
    """The keys of what is missing."""
    return [each.key for each in preconditions(config, stages) if each.problem() is not None]


def test_nothing_is_missing_where_all_files_are_there(tmp_path: Path) -> None:
    config = config_of(alpaca_eval(tmp_path))
    assert keys(config) == []
    refuse_missing(config, ALL)


def test_every_missing_file_is_named_with_its_key_at_once(tmp_path: Path) -> None:
    config = config_of(
        alpaca_eval(tmp_path, questions="/no/questions.json", calibration="/no/tables"),
        ingest={"source": "/no/prompts.jsonl"},
        benchmark_models=[{"name": "other", "outputs": "/no/outputs.json"}],
    )
    with pytest.raises(InputError) as refused:
        refuse_missing(config, ALL)
    assert str(refused.value).splitlines() == [
        "5 things are missing:",
        *(
            f"  {key}: {file}: no such file; check the path"
            for key, file in (
                ("ingest.source", "/no/prompts.jsonl"),
                ("benchmarks.0.questions", "/no/questions.json"),
                (
                    "benchmarks.0.calibration.instruction_difficulty",
                    "/no/tables/instruction_difficulty.csv",
                ),
                ("benchmarks.0.calibration.df_gamed", "/no/tables/df_gamed.csv"),
                ("benchmark_models.0.outputs", "/no/outputs.json"),
            )
        ),
    ]


def test_a_page_is_no_file_of_rows_and_a_data_set_no_table(tmp_path: Path) -> None:
    table = tmp_path / "prompts.csv"
    table.write_text("prompt\nx\n")
    tables = {"instruction_difficulty": "hub:org/name", "df_gamed": str(table)}
    page = tmp_path / "prompts.xml"
    page.write_text("<p/>")
    config = config_of(alpaca_eval(tmp_path, questions=str(page), calibration=tables))
    problems = {each.key: each.problem() for each in preconditions(config, ALL)}
    assert "unknown file type" in (problems["benchmarks.0.questions"] or "")
    difficulty = problems["benchmarks.0.calibration.instruction_difficulty"]
    assert "download the file" in (difficulty or "")
    assert problems["benchmarks.0.calibration.df_gamed"] is None


def test_what_is_elsewhere_is_checked_when_it_is_pinned(tmp_path: Path) -> None:
    config = config_of(
        alpaca_eval(
            tmp_path, questions="hub:org/name", baseline_outputs="s3://b/k", calibration="s3://b/t"
        )
    )
    references = {"ingest.source", "benchmarks.0.questions", "benchmarks.0.calibration"}
    assert references & {each.key for each in preconditions(config, ALL)} == {"ingest.source"}


@contextmanager
def answering(answer: Sent) -> Iterator[str]:
    """Address, up to /v1, of a server that answers every request in the same way."""

    class Answers(Handler):
        def do_GET(self) -> None:
            self.send(answer)

    with listening(Answers) as address:
        yield f"{address}/v1"


def test_a_judge_needs_a_key_or_a_server_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(alpaca_eval(tmp_path, judge=SERVER_JUDGE), evaluate={"judge": SERVER_JUDGE})
    both = ["evaluate.judge", "benchmarks.0.judge"]
    assert keys(config) == both
    with pytest.raises(InputError, match="set PVAR_JUDGE_API_KEY, or set PVAR_JUDGE_BASE_URL"):
        refuse_missing(config, ALL)
    monkeypatch.setenv("PVAR_JUDGE_BASE_URL", "judge.example/v1")
    assert keys(config) == both  # no scheme
    for answer in (  # not every server lists its models
        Sent(b"no such page", 404),
        Sent(b"<html></html>", content_type="text/html"),
        Sent(b"{not JSON"),
    ):
        with answering(answer) as address:
            monkeypatch.setenv("PVAR_JUDGE_BASE_URL", address)
            assert keys(config) == []
    monkeypatch.delenv("PVAR_JUDGE_BASE_URL")
    monkeypatch.setenv("PVAR_JUDGE_API_KEY", "sk-1")
    assert [each.key for each in find_problems(config, ALL, ask=False)] == []


def test_a_server_that_does_not_answer_is_an_outage_and_a_wrong_key_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = config_of(evaluate={"judge": SERVER_JUDGE, "answers": {"engine": "openai"}})
    with answering(sent_json({"error": {"message": "Incorrect API key"}}, 401)) as address:
        for name in ("PVAR_JUDGE_BASE_URL", "PVAR_SAMPLER_BASE_URL"):
            monkeypatch.setenv(name, address)
        with pytest.raises(InputError) as refused:
            refuse_missing(config, ALL)
    assert [line.partition(";")[2] for line in str(refused.value).splitlines()[1:]] == [
        " correct PVAR_SAMPLER_API_KEY",
        " correct PVAR_JUDGE_API_KEY",
    ]
    refuse_missing(config, ALL, ask=False)
    with pytest.raises(UnavailableError) as unreachable:  # it is closed now
        refuse_missing(config, ALL)
    assert "2 things are missing" in str(unreachable.value)
    assert "PVAR_JUDGE_BASE_URL names does not answer (Connect" in str(unreachable.value)
    assert address not in str(unreachable.value)


def test_a_server_that_is_slow_is_no_outage(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("infra.judges.access.ANSWER_SECONDS", 0.1)
    config, over = config_of(evaluate={"judge": SERVER_JUDGE}), Event()

    class Slow(Handler):
        def do_GET(self) -> None:
            over.wait()
            self.send(sent_json({}))

    with listening(Slow) as address:
        monkeypatch.setenv("PVAR_JUDGE_BASE_URL", f"{address}/v1")
        refuse_missing(config, ALL)
        over.set()
    assert "PVAR_JUDGE_BASE_URL names took the request and has not answered" in caplog.text
    assert address not in caplog.text


def test_servers_are_asked_as_well_once_something_else_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One report has all of it."""
    with answering(sent_json({})) as address:
        monkeypatch.setenv("PVAR_JUDGE_BASE_URL", address)
    config = config_of(evaluate={"judge": SERVER_JUDGE}, ingest={"source": "/no/prompts.jsonl"})
    found = find_problems(config, ALL, ask=False)
    assert [each.key for each in found] == ["ingest.source", "evaluate.judge"]


def test_a_key_that_may_not_list_models_is_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(evaluate={"judge": SERVER_JUDGE})
    said = {"error": {"message": "insufficient permissions. Missing scopes: api.model.read"}}
    with answering(sent_json(said, 401)) as address:
        monkeypatch.setenv("PVAR_JUDGE_BASE_URL", address)
        refuse_missing(config, ALL)


def test_packages_are_looked_for_where_their_stage_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = {"vllm", "trl", "peft", "deepspeed"}
    monkeypatch.setattr(
        "infra.needed_packages.find_spec", lambda name: None if name in absent else name
    )
    config = config_of(
        sample={"engine": "vllm"},
        train={"lora": {}},
        runtime={"sharding": "deepspeed", "scoring_backend": "vllm"},
        score={"reward_models": [{"kind": "classifier", "name": "rm", "model": "/no/model"}]},
    )
    found = {each.key: str(each.error) for each in find_problems(config, ALL)}
    assert set(found) == {
        *("sample.engine", "score.reward_models.0", "train", "runtime.sharding"),
        "score.reward_models.0.model",
    }
    assert found["train"] == (
        "trl, peft are not installed; run: pip install 'pvar[pipeline]' (in a checkout: make setup)"
    )
    assert "'pvar[pipeline,vllm]'" in found["sample.engine"]
    assert "/no/model: no such folder" in found["score.reward_models.0.model"]
    assert set(keys(config, ALL - {"sample", "score", "train"})) == {"score.reward_models.0.model"}


def test_only_stages_that_run_here_need_the_judge(tmp_path: Path) -> None:
    config = config_of(
        alpaca_eval(tmp_path, judge=SERVER_JUDGE),
        evaluate={"judge": SERVER_JUDGE},
        runtime={"placement": {"judge": {"pool": "docker"}}},
    )
    assert inline_stages(config) == ALL - {"judge"}
    assert keys(config, inline_stages(config)) == ["evaluate.judge"]
    assert keys(config, frozenset({"sample", "audit"})) == []
    for max_judged, expected in ((1, ["evaluate.judge"]), (0, [])):
        audited = config_of(
            evaluate={"judge": SERVER_JUDGE}, label_audit={"max_judged": max_judged}
        )
        assert keys(audited, frozenset({"audit"})) == expected


def test_a_folder_of_tasks_must_be_there_and_hold_files(tmp_path: Path) -> None:
    lm_eval = {"kind": "lm_eval", "tasks": ["a"], "backend": "fake"}
    missing = config_of({**lm_eval, "include_path": str(tmp_path / "none")})
    with pytest.raises(InputError, match=r"benchmarks.0.include_path: .*none: no such folder"):
        refuse_missing(missing, ALL)
    (tmp_path / "empty").mkdir()
    empty = config_of({**lm_eval, "include_path": str(tmp_path / "empty")})
    with pytest.raises(InputError, match="has no files"):
        refuse_missing(empty, ALL)


def test_the_harness_is_needed_by_its_real_backends_only() -> None:
    """Whether it is there depends on the installation; that it is looked for does not."""

    def looked_for(stages: frozenset[str], **changes: str) -> list[str]:
        config = config_of({"kind": "lm_eval", "tasks": ["a"], **changes})
        return [each.what for each in preconditions(config, stages)]

    assert "lm-evaluation-harness" in looked_for(ALL)
    assert "lm-evaluation-harness" not in looked_for(ALL, backend="fake")
    assert "lm-evaluation-harness" not in looked_for(frozenset({"judge"}))


def test_the_stages_that_need_something_exist() -> None:
    assert {"evaluate", "judge", "harness"} <= set(PlacementConfig.model_fields)
