"""A stage alone: its nodes whose inputs are complete run, and the others say what they wait for."""

import json
from pathlib import Path

import pytest
import yaml

from flows.cli import main
from flows.exit_codes import DONE, WRONG_CALL
from flows.stage_nodes import BlockedNode, blocked_nodes, chosen_nodes, run_nodes_of
from infra.machine_memory import Memory
from pvar.errors import ConfigError, IncompleteError
from tests.artifacts import put_artifact
from tests.workflow import Workflow, fake_settings, start_workflow

ADAPTIVE = {"first_responses": 2, "second_round_share": 0.5}


def run(flow: Workflow, stage: str, node: str | None = None) -> list[str]:
    """Names of the nodes that ran."""
    results = run_nodes_of(flow.config, stage, node, flow.wiring, lambda each: flow.make(each.name))
    return [each.node for each in results]


def waiting(flow: Workflow, stage: str, node: str | None = None) -> list[BlockedNode]:
    return blocked_nodes(flow.config, stage, node, flow.wiring)


def test_of_a_stage_those_nodes_run_whose_inputs_are_complete(tmp_path: Path) -> None:
    flow = start_workflow(tmp_path)
    with pytest.raises(IncompleteError, match="answers-opponent waits for ingest: run stage inges"):
        run(flow, "sample")
    assert run(flow, "ingest") == ["ingest"]
    assert run(flow, "sample") == ["sample", "answers-opponent"]
    needed = ("score", "select", "pair", "train")
    assert waiting(flow, "sample") == [BlockedNode("answers-challenger", ("train",), needed)]
    with pytest.raises(IncompleteError, match="challenger waits for train: run stage score, then"):
        run(flow, "sample", "answers-challenger")
    assert run(flow, "sample", "answers-opponent") == ["answers-opponent"]
    # The answers of the opponent are there: what waits is named alone.
    (evaluate,) = waiting(flow, "evaluate")
    assert evaluate.inputs == ("answers-challenger",)
    assert evaluate.stages == (*needed, "sample")


def test_a_node_may_need_another_one_of_its_stage(tmp_path: Path) -> None:
    flow = start_workflow(tmp_path, **{"sample.adaptive": ADAPTIVE, "sample.num_responses": 4})
    flow.make("ingest")
    first, later = ["first-sample", "answers-opponent"], ["sample", "answers-challenger"]
    assert run(flow, "sample") == first
    assert [each.node for each in waiting(flow, "sample")] == later
    assert waiting(flow, "sample")[0].stages == ("score",)
    assert run(flow, "score") == ["first-score-vader"]
    assert waiting(flow, "score") == [BlockedNode("score-vader", ("sample",), ("sample",))]
    assert run(flow, "sample", "sample") == ["sample"]
    assert waiting(flow, "score") == []


def test_whatever_is_missing_is_named_with_the_first_stage_to_run(tmp_path: Path) -> None:
    changes = {
        "sample.adaptive": ADAPTIVE,
        "sample.num_responses": 4,
        "evaluate.margins": True,
        "evaluate.against_first": True,
    }
    flow = start_workflow(tmp_path, **changes)
    stages = {node.stage.name for node in flow.nodes.values()}
    for stage in stages - {"ingest"}:
        assert {each.stages[0] for each in waiting(flow, stage)} == {"ingest"}


def test_a_model_of_another_configuration_is_an_input_too(tmp_path: Path) -> None:
    """The champion, which earlier data trained: no node of this plan makes it."""
    flow = start_workflow(tmp_path)
    flow.make("ingest")
    keys = put_artifact(flow.store, "train")
    for root in (keys.root, "train/0123456789abcdef"):
        champion = {"opponent": f"artifact:{root}#{root}"}
        evaluate = flow.config.evaluate.model_copy(update=champion)
        later = Workflow(flow.config.model_copy(update={"evaluate": evaluate}), flow.wiring)
        assert root in {each.root for each in later.nodes["answers-opponent"].inputs.values()}
        found = waiting(later, "sample", "answers-opponent")
        if root == keys.root:
            assert found == []
        else:
            assert found == [BlockedNode("answers-opponent", (root,), ("train",))]


def test_a_node_that_is_not_there_is_said_with_those_that_are(tmp_path: Path) -> None:
    nodes = start_workflow(tmp_path).nodes
    with pytest.raises(ConfigError, match="no node 'x'; it has sample, answers-opponent, answers-"):
        chosen_nodes(nodes, "sample", "x")
    with pytest.raises(ConfigError, match="no node 'train'; train is a node of stage train: give"):
        chosen_nodes(nodes, "sample", "train")
    with pytest.raises(ConfigError, match="no node of stage annotate; it has nodes of ingest, sam"):
        chosen_nodes(nodes, "annotate", None)


def test_a_stage_is_refused_for_what_its_own_incomplete_nodes_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("flows.preflight.read_memory", lambda: Memory(10**8, 10**8))
    monkeypatch.setattr("flows.preflight.read_gpu_memory", list)
    flow = start_workflow(tmp_path, **{"evaluate.answers.engine": "transformers"})
    flow.make("ingest", "sample")
    monkeypatch.setenv("PVAR_HOME", str(tmp_path))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    preset = tmp_path / "my.yaml"
    tree = fake_settings(tmp_path / "prompts.jsonl", **{"evaluate.answers.engine": "transformers"})
    preset.write_text(yaml.safe_dump(tree))

    def end(*arguments: str) -> object:
        with pytest.raises(SystemExit) as ended:
            main(["stage", "sample", str(preset), *arguments])
        return ended.value.code

    assert end() == WRONG_CALL
    said = capsys.readouterr().err
    assert said.startswith("error: answers-opponent: the weights of bundled:smollm2-135m-instruct")
    assert end("--node", "sample") == DONE
    assert "reused" in capsys.readouterr().out


def test_a_stage_that_cannot_run_yet_says_what_to_run_and_ends_with_4(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flow = start_workflow(tmp_path)
    monkeypatch.setenv("PVAR_HOME", str(tmp_path))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    preset = tmp_path / "my preset.yaml"
    preset.write_text(yaml.safe_dump(fake_settings(tmp_path / "prompts.jsonl")))
    command = ["--preset", str(preset), "--set", "sample.seed=1"]
    with pytest.raises(SystemExit) as end:
        main(["stage", "score", *command])
    assert end.value.code == 4
    assert capsys.readouterr().out.strip() == (
        f"score-vader: waits for ingest, sample; run pvar stage ingest --preset '{preset}' "
        "--set sample.seed=1 (then sample)"
    )
    with pytest.raises(SystemExit) as end:
        main(["stage", "score", *command, "--json"])
    assert end.value.code == 4
    blocked = {
        "node": "score-vader",
        "inputs": ["ingest", "sample"],
        "stages": ["ingest", "sample"],
    }
    assert json.loads(capsys.readouterr().out) == {"nodes": [], "waiting": [blocked]}
    assert list(flow.store.list("")) == []
