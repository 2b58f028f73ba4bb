"""`pvar export`: pairs in the forms of other trainers."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from flows.commands.export import export
from pvar.errors import ConfigError, InputError
from pvar.pair_forms import Trainer, unreadable_pairs
from pvar.records import Message, Pair
from tasks.engine.tables import PromptVariance
from tasks.retraining.withdrawals import withdraw
from tasks.stages.pair import PAIRS
from tasks.stages.select import VARIANCE
from tests.code_blocks import code_blocks
from tests.services.fake_hub import TOKEN, fake_hub
from tests.unit.infra.tiny_models import save_language_model
from tests.workflow import Workflow, start_workflow

NODES = ("ingest", "sample", "score-vader", "select", "pair")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    workflow = start_workflow(tmp_path_factory.mktemp("made"))
    workflow.make(*NODES)
    return workflow


@pytest.fixture
def artifact(made: Workflow, monkeypatch: pytest.MonkeyPatch) -> str:
    """The pairs' artifact, in the store that the environment names."""
    monkeypatch.setenv("PVAR_HOME", str(made.wiring.settings.home))
    monkeypatch.setenv("PVAR_STORE_URI", made.store.uri)
    return made.nodes["pair"].keys.root


def exported(artifact: str, to: Trainer, out: Path) -> list[dict[str, Any]]:
    export(artifact, to=to, out=out)
    return [json.loads(line) for line in out.read_text().splitlines()]


@pytest.mark.parametrize("to", ["trl", "openrlhf", "axolotl", "llama_factory", "plain"])
def test_rows_have_the_pair_and_what_is_known_of_its_prompt(
    made: Workflow, artifact: str, to: Trainer, tmp_path: Path
) -> None:
    rows = exported(artifact, to, tmp_path / "pairs.jsonl")
    pairs = made.artifact("pair").rows(PAIRS, Pair)
    measured = made.artifact("select").rows(VARIANCE, PromptVariance)
    values = {row.prompt_id: row.pvar for row in measured}
    assert len(rows) == len(pairs) > 0
    for row, pair in zip(rows, pairs, strict=True):
        messages = [message._asdict() for message in pair.messages]
        answers = {
            name: {"role": "assistant", "content": text}
            for name, text in (("chosen", pair.chosen), ("rejected", pair.rejected))
        }
        expected = {
            "trl": {"prompt": messages, **{name: [each] for name, each in answers.items()}},
            "axolotl": {"messages": messages, **answers},
            "plain": {"messages": messages, "chosen": pair.chosen, "rejected": pair.rejected},
        }
        form = {"openrlhf": "trl", "llama_factory": "axolotl"}.get(to, to)
        assert row == expected[form] | {
            "chosen_reward": pair.chosen_reward,
            "rejected_reward": pair.rejected_reward,
            "pvar": values[pair.prompt_id],
            "source": "prompts.jsonl",
            "prompt_id": pair.prompt_id,
        }
        assert row["pvar"] is not None


def test_trls_own_trainer_trains_on_the_file(
    artifact: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the code of docs/own-trainer.md, with a tiny model and for two steps."""
    (block,) = (each for each in code_blocks("docs/own-trainer.md") if each.kind == "python")
    small = (
        "max_steps=2, report_to=[], use_cpu=True, bf16=False, gradient_checkpointing=False, "
        'dataloader_pin_memory=False, save_strategy="no", '
    )
    code = block.text.replace("Qwen/Qwen2.5-1.5B-Instruct", str(tmp_path / "model"))
    code = code.replace("DPOConfig(", f"DPOConfig({small}")
    export(artifact, to="trl", out=tmp_path / "pairs.parquet")
    save_language_model(tmp_path / "model")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["trainer"].state.global_step == 2


def test_llama_factorys_list_of_data_sets_keeps_its_other_entries(
    artifact: str, tmp_path: Path
) -> None:
    info = tmp_path / "dataset_info.json"
    info.write_text('{"theirs": {"file_name": "theirs.json"}}')
    for name in ("first.jsonl", "second.jsonl"):
        export(artifact, to="llama_factory", out=tmp_path / name)
    found = json.loads(info.read_text())
    assert found["theirs"] == {"file_name": "theirs.json"}
    assert found["pvar_pairs"]["file_name"] == "second.jsonl"
    info.write_text("[]")
    with pytest.raises(InputError, match=r"dataset_info\.json: not a JSON object; correct it"):
        export(artifact, to="llama_factory", out=tmp_path / "third.jsonl")
    assert not (tmp_path / "third.jsonl").exists()


def test_prompts_that_llama_factory_skips_are_counted() -> None:
    user, answer = Message("user", "Hello"), Message("assistant", "Hi")
    system = Message("system", "Be kind.")
    readable = ((user,), (system, user), (user, answer, user))
    others = ((user, user, user), (user, answer), (system,), (user, system, user))
    pairs = [Pair("p", messages, "a", "b", None, None) for messages in (*readable, *others)]
    assert unreadable_pairs(pairs, "llama_factory") == len(others)
    assert unreadable_pairs(pairs, "trl") == 0


def test_pairs_of_withdrawn_prompts_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    workflow = start_workflow(tmp_path / "home")
    workflow.make(*NODES)
    monkeypatch.setenv("PVAR_HOME", str(tmp_path / "home"))
    pairs = workflow.artifact("pair").rows(PAIRS, Pair)
    ids = [pair.prompt_id for pair in pairs]
    now = datetime(2026, 1, 1, tzinfo=UTC)
    withdraw(workflow.store, ids[:1], reason=None, now=now)
    root = workflow.nodes["pair"].keys.root
    rows = exported(root[:9], "plain", tmp_path / "pairs.jsonl")
    assert {row["prompt_id"] for row in rows} == set(ids[1:])
    assert "1 pairs of withdrawn prompts are left out" in capsys.readouterr().out
    withdraw(workflow.store, ids, reason=None, now=now)
    with pytest.raises(InputError, match=f"it has {len(ids)}, all of withdrawn prompts"):
        export(root, to="plain", out=tmp_path / "none.jsonl")
    assert not (tmp_path / "none.jsonl").exists()


def test_what_is_unknown_is_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Garbage collection took the selection."""
    workflow = start_workflow(tmp_path / "home")
    workflow.make(*NODES)
    monkeypatch.setenv("PVAR_HOME", str(tmp_path / "home"))
    workflow.store.delete(workflow.nodes["select"].keys.manifest)
    export(workflow.nodes["pair"].keys.root, to="trl", out=tmp_path / "pairs.parquet")
    table = pq.read_table(tmp_path / "pairs.parquet")
    assert table["pvar"].null_count == table["source"].null_count == table.num_rows > 0
    assert "source and pvar are empty" in capsys.readouterr().out


def test_the_file_is_pushed_with_a_card_that_says_what_it_is(
    artifact: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    out = tmp_path / "pairs #1: mine.parquet"
    with fake_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        export(artifact, to="trl", out=out, push="hub:mine/pairs")
        address = f"{hub.address}/datasets/mine/pairs"
    assert f"pushed: {address}" in capsys.readouterr().out
    files = hub.files["mine/pairs"]["main"]
    assert files[out.name] == out.read_bytes()
    assert hub.private["mine/pairs"]
    _, fields, text = files["README.md"].decode().split("---\n", 2)
    card = yaml.safe_load(fields)
    assert card["license"] == "unknown"
    assert card["configs"][0]["data_files"] == [{"split": "train", "path": out.name}]
    assert f"# {pq.read_table(out).num_rows} preference pairs" in text
    assert f"Artifact `{artifact}`, exported by pvar" in text


def test_json_says_what_was_written(
    artifact: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pairs.jsonl"
    capsys.readouterr()
    export(artifact, to="trl", out=out, as_json=True)
    assert json.loads(capsys.readouterr().out) == {
        "artifact": artifact,
        "run": None,
        "path": str(out),
        "pairs": len(out.read_text().splitlines()),
        "remarks": [],
        "pushed": None,
    }


def test_what_cannot_be_pushed_is_named_before_anything_is_written(
    artifact: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    out = tmp_path / "pairs.jsonl"
    with pytest.raises(ConfigError, match="needs a token"):
        export(artifact, to="trl", out=out, push="hub:mine/pairs")
    with pytest.raises(ConfigError, match="write hub:org/name"):
        export(artifact, to="trl", out=out, push="mine/pairs")
    with pytest.raises(ConfigError, match="give --push hub:org/name, too"):
        export(artifact, to="trl", out=out, public=True)
    assert not out.exists()


@pytest.mark.parametrize(
    ("reference", "out", "message"),
    [
        ("pair/ffff", "p.jsonl", r"'pair/ffff' is not in .*; there are pair/"),
        ("latest", "p.jsonl", r"has no runs yet; start one"),
        ("{artifact}", "p.csv", r"cannot write this file type"),
        ("{artifact}", "none/p.jsonl", r"does not exist; create it first"),
    ],
)
def test_what_cannot_be_exported_is_named(
    artifact: str, reference: str, out: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        export(reference.format(artifact=artifact), to="trl", out=tmp_path / out)
