"""`pvar gradients` on tiny models: at the start, at other models, at a checkpoint of adapters."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from flows.commands.gradients import gradients
from pvar.errors import IncompleteError, ModelError
from pvar.records import Prompt
from tasks.stages.ingest import PROMPTS
from tests.unit.infra.tiny_models import save_language_model
from tests.workflow import TOPICS, Workflow, start_workflow

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of libraries
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

NUM_PROMPTS = 6


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    policy = save_language_model(tmp_path_factory.mktemp("policy"), seed=1)
    flow = start_workflow(tmp_path_factory.mktemp("home"), policy=str(policy))
    flow.make("ingest", "sample", "score-vader")
    return flow


@pytest.fixture(autouse=True)
def home(flow: Workflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVAR_HOME", str(flow.wiring.settings.home))


def preset_of(flow: Workflow, folder: Path) -> str:
    path = folder / "tiny.yaml"
    path.write_text(flow.config.model_dump_json())
    return str(path)


def measure(
    flow: Workflow, folder: Path, capsys: pytest.CaptureFixture[str], **options: Any
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The printed summary, and the rows of the file."""
    gradients(
        preset=preset_of(flow, folder),
        **{"prompts": NUM_PROMPTS, **options},
        out=folder / "out",
        as_json=True,
    )
    lines = (folder / "out" / "gradients.jsonl").read_text().splitlines()
    return json.loads(capsys.readouterr().out), [json.loads(line) for line in lines]


def test_the_start_is_measured_with_a_file_a_figure_and_a_table(
    flow: Workflow, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary, rows = measure(flow, tmp_path, capsys)

    assert [row["group"] for row in rows] == ["low"] * 2 + ["middle"] * 2 + ["high"] * 2
    pvars = [row["pvar"] for row in rows]
    assert pvars == sorted(pvars)
    assert all(row["is_within_bound"] for row in rows)
    assert all(row["policy_pvar"] == 0 and set(row["log_ratios"]) == {0.0} for row in rows)
    for row in rows:
        assert row["label_gap"] == pytest.approx(row["pvar"])
        assert row["bound"] == pytest.approx(row["pvar"] ** 0.5 * row["difference_norm"])
        # No reward, no pair: a tie of all responses, whose PVar is 0.
        assert (row["trained_norm"] is None) == (row["num_pairs"] == 0) == (row["pvar"] == 0)
    num_pairs = sum(row["num_pairs"] for row in rows)
    assert summary["prompts"] == summary["within_bound"] == NUM_PROMPTS
    assert summary["prompts_with_pair"] == num_pairs
    assert summary["spearman_policy_pvar"] is None
    assert summary["drift"] is None
    assert set(summary["soft_ratio"]) == {"low", "middle", "high"}
    assert "<svg" in (tmp_path / "out" / "gradients.svg").read_text()

    gradients(preset=preset_of(flow, tmp_path), prompts=NUM_PROMPTS, out=tmp_path / "out")
    table = capsys.readouterr().out
    assert "by thirds of PVar" in table
    assert "Trained pairs" in table


def test_naming_the_policy_itself_changes_nothing(
    flow: Workflow, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = measure(flow, tmp_path, capsys)
    policy = flow.config.policy.rpartition("#")[0]
    assert measure(flow, tmp_path, capsys, model=policy) == start


def test_another_model_has_a_pvar_of_its_own(
    flow: Workflow, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, start = measure(flow, tmp_path, capsys)
    trained = save_language_model(tmp_path / "trained", seed=2)
    summary, rows = measure(flow, tmp_path, capsys, model=str(trained))
    assert [row["prompt_id"] for row in rows] == [row["prompt_id"] for row in start]
    assert [row["pvar"] for row in rows] == [row["pvar"] for row in start]
    assert all(row["policy_pvar"] > 0 and row["is_within_bound"] for row in rows)
    assert summary["drift"] == pytest.approx(
        sum(abs(row["policy_pvar"] - row["pvar"]) for row in rows) / NUM_PROMPTS
    )
    assert summary["spearman_policy_pvar"] is not None


def test_a_checkpoint_of_adapters_is_measured_on_the_policy(
    flow: Workflow, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from peft import LoraConfig, get_peft_model

    model = AutoModelForCausalLM.from_pretrained(flow.config.policy.rpartition("#")[0])
    adapted = get_peft_model(
        model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    )
    adapted.save_pretrained(tmp_path / "checkpoint-4")
    by_adapter = measure(flow, tmp_path, capsys, model=str(tmp_path / "checkpoint-4"))[1]
    assert all(row["policy_pvar"] > 0 for row in by_adapter)

    # The same as the merged model in one folder.
    save_language_model(tmp_path / "merged")  # for its tokenizer
    adapted.merge_and_unload().save_pretrained(tmp_path / "merged")
    merged = measure(flow, tmp_path, capsys, model=str(tmp_path / "merged"))[1]
    for one, other in zip(by_adapter, merged, strict=True):
        assert one["soft_norm"] == pytest.approx(other["soft_norm"], rel=1e-4)
        assert one["policy_pvar"] == pytest.approx(other["policy_pvar"], rel=1e-4, abs=1e-9)


def test_a_training_that_is_not_complete_is_named(flow: Workflow, tmp_path: Path) -> None:
    keys = flow.nodes["train"].keys
    with pytest.raises(IncompleteError, match=keys.digest):
        gradients(preset=preset_of(flow, tmp_path), model=f"artifact:{keys.root}", out=tmp_path)
    with pytest.raises(ModelError, match="does not name a trained model"):
        gradients(preset=preset_of(flow, tmp_path), model="artifact:train", out=tmp_path)


def test_the_datas_own_pairs_are_measured_with_rule_original(
    tmp_path: Path,
    flow: Workflow,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Three of four prompts have annotated answers; sampled ones must not take the place of others.
    lines = [
        {"prompt": f"Describe {topic}.", "chosen": f"I liked {topic}.", "rejected": "No."}
        if number % 4
        else {"prompt": f"Describe {topic}."}
        for number, topic in enumerate(TOPICS)
    ]
    source = tmp_path / "labelled.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    home = tmp_path / "home"
    policy = flow.config.policy.rpartition("#")[0]
    changes = {"policy": policy, "ingest.source": str(source), "pair.rule": "original"}
    other = start_workflow(home, **changes)
    other.make("ingest", "sample", "score-vader")
    monkeypatch.setenv("PVAR_HOME", str(home))

    summary, rows = measure(other, tmp_path, capsys)

    prompts = other.artifact("ingest").rows(PROMPTS, Prompt)
    labelled = {prompt.prompt_id for prompt in prompts if prompt.chosen is not None}
    measured = {row["prompt_id"] for row in rows if row["trained_norm"] is not None}
    assert measured == labelled & {row["prompt_id"] for row in rows}
    assert 0 < len(measured) < NUM_PROMPTS
    assert summary["prompts_with_pair"] == len(measured)


def test_pairs_are_those_of_the_labelling_models_and_pvar_that_of_the_selecting_ones(
    tmp_path: Path,
    flow: Workflow,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def rows_of(*names: str, **roles: Any) -> dict[str, dict[str, Any]]:
        models = [{"kind": "fake", "name": name} for name in names]
        changes = {"policy": policy, "score.reward_models": models, **roles}
        other = start_workflow(tmp_path / "home", **changes)
        other.make("ingest", "sample", *(f"score-{name}" for name in names))
        # All prompts, since those between the lowest and the highest differ with the PVar.
        found = measure(other, tmp_path, capsys, prompts=len(TOPICS))[1]
        return {row["prompt_id"]: row for row in found}

    policy = flow.config.policy.rpartition("#")[0]
    monkeypatch.setenv("PVAR_HOME", str(tmp_path / "home"))
    both = rows_of("small", "large", **{"select.models": ["small"], "pair.models": ["large"]})
    small, large = rows_of("small"), rows_of("large")
    for prompt, row in both.items():
        assert row["pvar"] == small[prompt]["pvar"]
        assert row["trained_norm"] == pytest.approx(large[prompt]["trained_norm"])
    assert any(row["trained_norm"] != small[prompt]["trained_norm"] for prompt, row in both.items())


def test_responses_that_are_missing_are_named_before_a_model_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PVAR_HOME", str(tmp_path))
    elsewhere = "nobody/has-this@" + "0" * 40
    flow = start_workflow(tmp_path, policy=f"{elsewhere}#{elsewhere}")
    with pytest.raises(IncompleteError, match="run stage ingest first"):
        gradients(preset=preset_of(flow, tmp_path), out=tmp_path)
