"""The whole pipeline: from a file of prompts to a registered model that answers.

The policy is a Llama of 70 thousand random weights; everything around it is real: Prefect's server,
MLflow on its database, the store in a folder and on an S3 server. The reward is VADER over fake
answers, training is TRL's, and challenger and opponent answer with their own weights.
"""

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import pytest
from prefect import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterName,
    FlowRunFilterParentFlowRunId,
)

from flows.pipeline import pipeline
from flows.run_record import RunRecord, load_run
from flows.wiring import Wiring, connect
from pvar.config import PipelineConfig
from pvar.errors import ConfigError, PvarError
from pvar.records import Pair, Prompt, Response, Score
from tasks.engine.artifact import Artifact, open_artifact
from tasks.engine.tables import PromptVariance, by_prompt
from tests.services.prefect_server import ROOT, PrefectServer
from tests.services.s3 import S3Server
from tests.unit.infra.tiny_models import save_language_model
from tests.workflow import fake_settings, write_prompts

pytestmark = [
    pytest.mark.slow,
    # Raised inside libraries, on ways that this project does not choose.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

QUESTIONS = [
    {"prompt": "What is the capital of Burkina Faso?", "answer": "Ouagadougou"},
    {"prompt": "Which pigment makes leaves green?", "answer": ["chlorophyll", "chlorophyl"]},
    {"prompt": "In which year was the Bastille stormed?", "answer": "1789"},
]
"""Nobody answers them right by chance."""

NODES = [
    "ingest",
    "sample",
    "score-vader",
    "select",
    "pair",
    "train",
    "answers-opponent",
    "answers-challenger",
    "evaluate",
    "promote",
]


@pytest.fixture(scope="module")
def prefect_server(running_server: PrefectServer) -> Iterator[None]:
    """For as long as these tests run, the flows are told to the server."""
    with running_server.is_ours():
        yield


class Finished(NamedTuple):
    """A run that is over."""

    config: PipelineConfig
    record: RunRecord
    wiring: Wiring

    def artifact(self, node: str) -> Artifact:
        (entry,) = (each for each in self.record.nodes if each.name == node)
        stage, _, digest = entry.artifact.partition("/")
        return open_artifact(self.wiring.store, stage, digest, self.wiring.settings.home / "read")

    def states(self) -> list[str]:
        return [node.state for node in self.record.nodes]


def tiny_settings(folder: Path, model_name: str) -> PipelineConfig:
    policy = save_language_model(folder / "policy", seed=1)
    source = write_prompts(folder / "prompts.jsonl")
    with source.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in QUESTIONS)
    answers = {"engine": "transformers", "max_new_tokens": 12, "max_prompt_tokens": 256}
    return PipelineConfig.model_validate(
        fake_settings(
            source,
            policy=str(policy),
            train={
                "learning_rate": 0.01,
                "pairs_per_step": 4,
                "num_epochs": 2,
                "precision": "float32",
            },
            evaluate={"judge": {"kind": "fake"}, "answers": answers},
            # A fake judge decides by hashes: any lower end above 0 passes. Models that know nothing
            # have no ability to lose, so every loss is allowed.
            promote={"model_name": model_name, "min_win_rate": 0.0, "max_ability_loss": 1.0},
        )
    )


def run(config: PipelineConfig, preset: str | None = None) -> Finished:
    wiring = connect()
    run_id = pipeline(config, preset=preset)
    return Finished(config, load_run(wiring.store, run_id), wiring)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Settings of this machine, through the environment as users give them."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PVAR_HOME", str(folder))
        environment.setenv("PVAR_STORE_URI", str(folder / "store"))
        environment.setenv("PVAR_MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        yield folder


@pytest.fixture(scope="module")
def first(prefect_server: None, home: Path) -> Finished:
    """The first run: no champion yet."""
    return run(tiny_settings(home, "tiny"), preset="tiny.yaml")


def test_every_node_is_made_and_accounts_for_its_rows(first: Finished) -> None:
    assert [node.name for node in first.record.nodes] == NODES
    assert first.states() == ["made"] * 10
    row_counts = {name: first.artifact(name).manifest.row_counts for name in NODES}
    summaries = {name: first.artifact(name).manifest.summary for name in NODES}
    train, held_out = (summaries["ingest"][f"num_{split}_prompts"] for split in ("train", "eval"))
    # 32 different prompts and 3 questions in, none rejected; each training prompt is answered 4
    # times, each answer is scored, it may give one pair; every held-out prompt is judged once, and
    # beside them the questions are answered.
    assert row_counts["ingest"].rows_in == row_counts["ingest"].rows_out == 35
    assert (train, held_out) == (21, 11)
    assert row_counts["sample"].rows_in == row_counts["sample"].rows_out == 4 * 21
    assert row_counts["score-vader"].rows_in == 4 * 21
    assert row_counts["select"].rows_in == 21
    assert row_counts["pair"].rows_in == row_counts["select"].rows_out == 11
    assert row_counts["train"].rows_in == row_counts["pair"].rows_out
    assert row_counts["answers-opponent"].rows_in == row_counts["answers-challenger"].rows_in == 14
    assert row_counts["evaluate"].rows_in == summaries["evaluate"]["num_wanted"] == 11
    assert row_counts["promote"].rows_in == row_counts["promote"].rows_out == 1
    for name in ("sample", "score-vader"):  # what the shards say adds up to the whole
        shards = first.artifact(name).manifest.shards
        assert len(shards) == 6  # 21 prompts by 4, 84 responses by 16: the last shard is short
        assert sum(shard.row_counts.rows_in for shard in shards) == row_counts[name].rows_in


def test_high_preference_variance_is_selected_and_the_better_answer_chosen(first: Finished) -> None:
    # From the artifacts alone, by two loops over the definition: the mean over ordered pairs of
    # (σ(r_i − r_j) − ½)². A low-for-high swap anywhere between score and train fails here.
    responses = by_prompt(first.artifact("sample").rows("responses.parquet", Response))
    rewards = {
        each.response_id: each.reward
        for each in first.artifact("score-vader").rows("scores.parquet", Score)
    }
    pvar = {}
    for prompt_id, answers in responses.items():
        first_of_text = {each.text: rewards[each.response_id] for each in reversed(answers)}
        values = [value for value in first_of_text.values() if value is not None]
        squares = [(1 / (1 + math.exp(b - a)) - 0.5) ** 2 for a, b in permutations(values, 2)]
        pvar[prompt_id] = math.fsum(squares) / len(squares)

    table = first.artifact("select").rows("variance.parquet", PromptVariance)
    selected = {row.prompt_id for row in table if row.selected}
    assert {row.prompt_id: row.pvar for row in table} == pytest.approx(pvar)
    assert len(selected) == 11  # half of 21, rounded
    lowest_selected = min(pvar[prompt_id] for prompt_id in selected)
    assert lowest_selected >= max(pvar[prompt_id] for prompt_id in pvar.keys() - selected)

    pairs = first.artifact("pair").rows("pairs.parquet", Pair)
    assert {pair.prompt_id for pair in pairs} <= selected
    assert pairs
    for pair in pairs:
        scored = {each.text: rewards[each.response_id] for each in responses[pair.prompt_id]}
        assert scored[pair.chosen] == pair.chosen_reward == max(scored.values())
        assert scored[pair.rejected] == pair.rejected_reward == min(scored.values())
        assert pair.chosen_reward > pair.rejected_reward
    trained_on = first.artifact("train").manifest.row_counts
    assert trained_on.rows_out == len(pairs)


def test_prompts_of_training_and_evaluation_do_not_meet(first: Finished) -> None:
    prompts = first.artifact("ingest").rows("prompts.parquet", Prompt)
    held_out = {prompt.prompt_id for prompt in prompts if prompt.split == "eval"}
    answered = first.artifact("answers-challenger").rows("responses.parquet", Response)
    trained = first.artifact("pair").rows("pairs.parquet", Pair)
    assert {each.prompt_id for each in answered} == held_out
    assert held_out.isdisjoint(each.prompt_id for each in trained)


def test_ability_is_measured_and_goes_wherever_the_win_rate_goes(first: Finished) -> None:
    summary = first.artifact("evaluate").manifest.summary
    assert summary["num_ability_questions"] == 3
    assert (summary["ability"], summary["opponent_ability"]) == (0.0, 0.0)
    assert summary["ability_change_lower"] == pytest.approx(0.025 ** (1 / 3) - 1)
    decision = json.loads(next(first.artifact("promote").paths("decision.json")).read_text())
    assert ["ability_change_lower", summary["ability_change_lower"], -1.0, True] in (
        decision["checks"]
    )
    client = first.wiring.tracking.client
    metrics = client.get_run(first.record.mlflow_run).data.metrics
    assert metrics["ability_change_lower"] == pytest.approx(summary["ability_change_lower"])
    version = client.get_model_version_by_alias("tiny", "champion")
    assert version.tags["pvar.ability_change_lower"] == f"{summary['ability_change_lower']:.4f}"
    assert b"0\xc2\xa0points" in first.wiring.store.read(f"runs/{first.record.run}.html")


def test_mlflow_has_the_run_its_stages_their_figures_and_lineage(first: Finished) -> None:
    client = first.wiring.tracking.client
    parent = client.get_run(first.record.mlflow_run)
    assert parent.info.status == "FINISHED"
    assert parent.data.params["select.strategy"] == "top"
    assert parent.data.tags["pvar.run"] == first.record.run
    assert parent.data.tags["pvar.preset"] == "tiny.yaml"
    summary = first.artifact("evaluate").manifest.summary
    assert parent.data.metrics["win_rate"] == pytest.approx(summary["win_rate"])
    (read,) = parent.inputs.dataset_inputs
    assert read.dataset.name == "prompts.jsonl"
    assert first.record.config.ingest.source.endswith(f"#{read.dataset.digest}")
    experiment = client.get_experiment(first.record.mlflow_experiment)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"

    children = {
        each.info.run_name: each
        for each in client.search_runs(
            [first.record.mlflow_experiment],
            f"tags.mlflow.parentRunId = '{first.record.mlflow_run}'",
        )
    }
    assert sorted(children) == sorted(NODES)
    assert {each.info.status for each in children.values()} == {"FINISHED"}
    sample = children["sample"].data
    assert sample.params["num_responses"] == "4"
    assert (sample.metrics["rows_in"], sample.metrics["rows_out"]) == (84, 84)
    inputs = children["select"].inputs.dataset_inputs
    assert {(each.dataset.name, each.dataset.digest) for each in inputs} == {
        tuple(node.artifact.split("/"))
        for node in first.record.nodes
        if node.name in ("ingest", "sample", "score-vader")
    }
    losses = client.get_metric_history(children["train"].info.run_id, "loss")
    steps = first.artifact("train").manifest.summary["num_steps"]
    assert [metric.step for metric in losses] == list(range(1, int(str(steps)) + 1))


def test_the_report_is_kept_in_mlflow_and_in_the_store(first: Finished, tmp_path: Path) -> None:
    client = first.wiring.tracking.client
    assert [each.path for each in client.list_artifacts(first.record.mlflow_run)] == ["report.html"]
    page = first.wiring.store.read(f"runs/{first.record.run}.html")
    assert first.record.run.encode() in page
    for version in (f"torch {metadata.version('torch')}", f"pvar {metadata.version('pvar')}"):
        assert version.encode() in page
    path = client.download_artifacts(first.record.mlflow_run, "report.html", str(tmp_path))
    assert Path(path).read_bytes() == page


def test_prefect_has_named_and_tagged_runs_and_the_results_on_a_page(first: Finished) -> None:
    run = f"tiny {first.record.run}"
    with get_client(sync_client=True) as client:
        (parent,) = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[run]))
        )
        tasks = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[parent.id]))
        stages = client.read_flow_runs(flow_run_filter=tasks)
        artifacts = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[parent.id]))
        )
    assert sorted(stage.name for stage in stages) == sorted(NODES)
    tags = {"model:tiny", "preset:tiny"}
    assert all(set(each.tags) == tags for each in (parent, *stages))
    progress, page = sorted(artifacts, key=lambda each: str(each.type), reverse=True)
    assert (progress.type, progress.data) == ("progress", 100)
    assert (page.type, page.key) == ("markdown", "run-tiny")
    summary = first.artifact("evaluate").manifest.summary
    rate, lower, upper = (
        f"{summary[name]:.1%}" for name in ("win_rate", "win_rate_lower", "win_rate_upper")
    )
    assert f"**Win rate {rate} ({lower} to {upper})** on 11 of 11" in page.data
    assert "## Gate: promoted" in page.data
    assert "| lower end of the win rate, above | 0.0% |" in page.data
    assert first.record.mlflow_run in page.data
    assert f"runs/{first.record.run}.html" in page.data


def test_the_version_says_where_it_came_from_and_is_champion(first: Finished) -> None:
    client = first.wiring.tracking.client
    version = client.get_model_version_by_alias("tiny", "champion")
    by_name = {node.name: node.artifact for node in first.record.nodes}
    assert version.tags["pvar.artifact"] == by_name["train"]
    assert version.tags["pvar.results"] == by_name["evaluate"]
    assert version.tags["pvar.opponent"] == first.record.config.policy
    assert version.tags["pvar.strategy"] == "top"
    assert version.tags["pvar.budget"] == "fraction=0.5"
    assert version.tags["pvar.gate"] == "passed"
    pairs = first.artifact("train").manifest.summary["num_pairs"]
    lines = version.description.splitlines()
    assert lines[0] == "**tiny, version 1**: the gate passed."
    assert (
        f"{pairs} pairs of `prompts.jsonl`, of prompts selected by `top` (fraction=0.5), with dpo, "
        f"starting from `{first.config.policy}`. Its artifact is `{version.tags['pvar.artifact']}`"
    ) in version.description
    assert "Measured on 11 held-out prompts, judged by `fake`, against" in version.description
    (move,) = first.wiring.registry.history("tiny")
    assert (move.from_version, move.to_version) == (None, 1)


def test_the_champion_loads_back_from_the_registry_and_answers(
    first: Finished, tmp_path: Path
) -> None:
    """By the code of docs/demo.md, in a process of its own and an empty folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    text = (ROOT / "docs" / "demo.md").read_text()
    (code,) = re.findall(r"```python\n(import mlflow\n.*?)```", text, re.DOTALL)
    code = code.replace("pvar-demo", "tiny")
    code = code.replace("sqlite:///.pvar/mlflow.db", first.wiring.tracking.tracking_uri)
    ours = ("MLFLOW_", "PVAR_", "PYTHONPATH")
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nprint(folder)"],
        env={name: value for name, value in os.environ.items() if not name.startswith(ours)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    *said, folder = done.stdout.splitlines()
    assert "'role': 'assistant'" in said[-1]
    assert list(tmp_path.iterdir()) == []  # and no database
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    start = AutoModelForCausalLM.from_pretrained(first.config.policy)
    changed = [
        not torch.equal(new.float(), old.to(torch.bfloat16).float())
        for new, old in zip(model.parameters(), start.parameters(), strict=True)
    ]
    assert any(changed)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Describe the sea."}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    answer = model.generate(**prompt, max_new_tokens=5, do_sample=False)
    assert answer.shape[1] > prompt["input_ids"].shape[1]


def test_a_second_run_reuses_everything_and_decides_the_same(first: Finished) -> None:
    second = run(first.config)
    assert second.states() == ["reused"] * 10
    # Its model is the champion by now: the comparison that made it so is repeated, not one of the
    # model with itself.
    assert [node.artifact for node in second.record.nodes] == [
        node.artifact for node in first.record.nodes
    ]
    versions = second.wiring.tracking.client.search_model_versions("name = 'tiny'")
    assert len(versions) == 1
    assert len(second.wiring.registry.history("tiny")) == 1


def test_the_next_model_is_compared_with_the_champion_and_a_failed_gate_leaves_it(
    first: Finished,
) -> None:
    by_name = {node.name: node.artifact for node in first.record.nodes}
    harder = first.config.model_copy(
        update={
            "select": first.config.select.model_copy(update={"strategy": "bottom"}),
            "promote": first.config.promote.model_copy(update={"min_win_rate": 0.999}),
        }
    )
    second = run(harder)
    assert second.record.config.evaluate.opponent.endswith(f"#{by_name['train']}")
    assert second.states()[:3] == ["reused"] * 3  # another strategy changes nothing before select
    # The champion's answers are those that it gave as challenger: the same artifact in this store.
    assert second.states()[3:] == ["made", "made", "made", "reused", "made", "made", "made"]
    challenger = second.artifact("answers-challenger").keys.root
    assert second.artifact("answers-opponent").keys.root == by_name["answers-challenger"]
    assert challenger != by_name["answers-challenger"]

    client = second.wiring.tracking.client
    assert client.get_model_version_by_alias("tiny", "champion").version == 1
    failed = client.get_model_version("tiny", "2")
    assert failed.tags["pvar.gate"] == "failed"
    assert failed.aliases == []
    decision = json.loads(next(second.artifact("promote").paths("decision.json")).read_text())
    assert (decision["passed"], decision["promoted"]) == (False, False)

    # The same model under the easy gate again: it moves, and what it replaced is kept.
    third = run(harder.model_copy(update={"promote": first.config.promote}))
    assert third.states() == ["reused"] * 9 + ["made"]
    assert client.get_model_version_by_alias("tiny", "champion").version == 2
    assert client.get_model_version_by_alias("tiny", "previous").version == 1


def test_a_failed_run_says_which_node_failed_and_why(first: Finished) -> None:
    wiring = connect()
    impossible = first.config.model_copy(
        update={"train": first.config.train.model_copy(update={"max_length_tokens": 12})}
    )
    with pytest.raises(PvarError, match=r"max_length_tokens = 12"):
        pipeline(impossible)
    record = load_run(wiring.store, "latest")
    assert [node.state for node in record.nodes] == ["reused"] * 5 + ["failed"] + ["pending"] * 4
    assert "max_length_tokens = 12" in (record.nodes[5].error or "")
    assert wiring.tracking.client.get_run(record.mlflow_run).info.status == "FAILED"
    assert "max_length_tokens = 12" in wiring.store.read(f"runs/{record.run}.html").decode()


def test_a_gate_on_ability_wants_questions_before_anything_is_paid_for(
    first: Finished, tmp_path: Path
) -> None:
    source = str(write_prompts(tmp_path / "prompts.jsonl"))
    ingest = first.config.ingest.model_copy(update={"source": source})
    with pytest.raises(ConfigError, match=r"max_ability_loss is 1, but .* no rows with"):
        pipeline(first.config.model_copy(update={"ingest": ingest}))
    states = [node.state for node in load_run(connect().store, "latest").nodes]
    assert states == ["failed"] + ["pending"] * 9


def test_on_s3_the_same_configuration_gives_the_same_artifacts(
    first: Finished, moto_s3: S3Server, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PVAR_HOME", str(tmp_path))
        environment.setenv("PVAR_STORE_URI", f"s3://{moto_s3.new_bucket()}/artifacts")
        environment.setenv("PVAR_MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
        for name, value in moto_s3.environment().items():
            environment.setenv(name, value)
        on_s3 = run(first.config)
        assert on_s3.states() == ["made"] * 10
        assert [node.artifact for node in on_s3.record.nodes] == [
            node.artifact for node in first.record.nodes
        ]
        for name in NODES[:4]:  # deterministic: the same bytes, wherever the store is
            assert on_s3.artifact(name).manifest == first.artifact(name).manifest
        version = on_s3.wiring.tracking.client.get_model_version_by_alias("tiny", "champion")
        assert version.source.startswith("s3://")
        on_s3.wiring.registry.download("models:/tiny/1", tmp_path / "model")
        assert (tmp_path / "model" / "model.safetensors").exists()
