"""Reference log-probabilities: TRL's own, computed once, and an artifact that later runs find."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from pvar.errors import PvarError
from pvar.records import Pair
from tasks.engine.stage import Job
from tasks.engine.tables import ReferenceLogps, TokenPair, read_table
from tasks.training.reference import LOGPS
from tests.unit.infra.tiny_models import save_language_model
from tests.unit.tasks.training.trainings import PAIRS, reference, token_pairs
from tests.workflow import Workflow, start_workflow

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of libraries
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

RUNTIME = {"pairs_per_device": 4, "lease_seconds": 60}
TRAIN = {"pairs_per_step": 4, "precision": "float32"}


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_language_model(tmp_path_factory.mktemp("policy"), seed=1)


def precomputed_by_trl(policy: Path, folder: Path, pairs: list[Pair]) -> list[dict[str, Any]]:
    """TRL's own way from texts to token ids and reference log-probabilities."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    examples = [
        {
            "prompt": [message._asdict() for message in pair.messages],
            "chosen": [{"role": "assistant", "content": pair.chosen}],
            "rejected": [{"role": "assistant", "content": pair.rejected}],
        }
        for pair in pairs
    ]
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(policy),
        args=DPOConfig(
            output_dir=str(folder),
            precompute_ref_log_probs=True,
            max_length=None,
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            report_to=[],
        ),
        train_dataset=Dataset.from_list(examples),
        processing_class=AutoTokenizer.from_pretrained(policy),
    )
    return list(trainer.train_dataset)


def test_ids_and_log_probabilities_are_those_of_trl(tmp_path: Path, policy: Path) -> None:
    # The tiny template writes nothing after the end of a turn, so TRL's ids can be compared.
    pairs = token_pairs(policy)
    model = AutoModelForCausalLM.from_pretrained(policy).eval()
    ours = {row.pair_id: row for row in reference(model, pairs)}
    for pair, theirs in zip(pairs, precomputed_by_trl(policy, tmp_path, PAIRS), strict=True):
        assert pair.prompt_ids == theirs["prompt_ids"]
        assert pair.chosen_ids == theirs["chosen_ids"]
        assert pair.rejected_ids == theirs["rejected_ids"]
        # Sums of some twenty float32 log-probabilities of about −5 each.
        assert ours[pair.pair_id].chosen == pytest.approx(theirs["ref_chosen_logps"], abs=1e-3)
        assert ours[pair.pair_id].rejected == pytest.approx(theirs["ref_rejected_logps"], abs=1e-3)


def references(flow: Workflow) -> set[str]:
    """Digests of the complete reference artifacts of a store."""
    keys = [info.key for info in flow.store.list("reference/")]
    return {key.split("/")[1] for key in keys if key.endswith("/manifest.json")}


def workflow(home: Path, policy: Path, **train: Any) -> Workflow:
    return start_workflow(home, policy=str(policy), train=TRAIN | train, runtime=RUNTIME)


def test_later_runs_on_the_same_pairs_find_them(tmp_path: Path, policy: Path) -> None:
    first = workflow(tmp_path, policy)
    first.make("ingest", "sample", "score-vader", "select", "pair", "train")
    (digest,) = references(first)
    manifest = first.store.read(f"reference/{digest}/manifest.json")
    modified = {info.key: info.modified for info in first.store.list(f"reference/{digest}/shards/")}

    for changed in (
        {"learning_rate": 1e-4},
        {"beta": 0.5},
        {"num_epochs": 2},
        {"method": "ipo"},
        {"seed": 1},
    ):
        again = workflow(tmp_path, policy, **changed)
        assert again.make("train").shards_made == 1
        assert references(again) == {digest}
    assert first.store.read(f"reference/{digest}/manifest.json") == manifest
    assert modified == {
        info.key: info.modified for info in first.store.list(f"reference/{digest}/shards/")
    }

    # SimPO needs none; what changes the log-probabilities or the rows makes others.
    workflow(tmp_path, policy, method="simpo", simpo_gamma=0.5).make("train")
    assert references(first) == {digest}
    workflow(tmp_path, policy, max_length_tokens=1000).make("train")
    assert len(references(first)) == 2
    workflow(tmp_path, policy, method="kto").make("train")
    assert len(references(first)) == 3


def refuse(folder: Path, condition: str) -> Path:
    """A policy whose template refuses conversations that begin in some way."""
    policy = save_language_model(folder, seed=1)
    template = policy / "chat_template.jinja"
    refusal = f"{{% if {condition} %}}{{{{ raise_exception('not this one') }}}}{{% endif %}}"
    template.write_text(refusal + template.read_text())
    return policy


def test_pairs_that_the_policys_template_refuses_are_left_out_and_counted(tmp_path: Path) -> None:
    """The answers may be those of another sampler, which took all prompts."""
    policy = refuse(tmp_path / "policy", "messages[0]['content'] | length is even")
    flow = workflow(tmp_path, policy)
    flow.make("ingest", "sample", "score-vader", "select", "pair", "train")
    pairs = flow.artifact("pair").rows("pairs.parquet", Pair)
    num_refused = sum(len(pair.messages[0].content) % 2 == 0 for pair in pairs)
    assert 0 < num_refused < len(pairs)
    row_counts = flow.artifact("train").manifest.row_counts
    assert row_counts.rejected == {"template_refused": num_refused}
    assert row_counts.rows_out == len(pairs) - num_refused
    assert len(references(flow)) == 1


def test_a_template_that_refuses_every_prompt_is_one_line(tmp_path: Path) -> None:
    policy = refuse(tmp_path / "policy", "messages[0]['content'] | length > 1")
    flow = workflow(tmp_path, policy)
    flow.make("ingest", "sample", "score-vader", "select", "pair")
    wanted = (
        r"none of its \d+ pairs .* refused by the policy's chat template, such as prompt .*: not"
    )
    with pytest.raises(PvarError, match=wanted):
        flow.make("train")


def test_the_trainer_gets_what_the_artifact_holds(tmp_path: Path, policy: Path) -> None:
    flow = workflow(tmp_path, policy)
    flow.make("ingest", "sample", "score-vader", "select", "pair", "train")
    (digest,) = references(flow)
    (shard,) = {
        key for key in (info.key for info in flow.store.list(f"reference/{digest}/shards/"))
        if key.endswith(LOGPS)
    }  # fmt: skip
    flow.store.download(shard, tmp_path / "logps.parquet")
    found = {row.pair_id: row for row in read_table(tmp_path / "logps.parquet", ReferenceLogps)}

    pairs = flow.artifact("pair").rows("pairs.parquet", Pair)
    expected = reference(AutoModelForCausalLM.from_pretrained(policy).eval(), rows_of(flow, pairs))
    assert len(found) == len(pairs)
    summary = flow.artifact("train").manifest.summary
    num_steps = -(-len(pairs) // 4)
    assert (summary["num_steps"], summary["num_pairs_seen"]) == (num_steps, 4 * num_steps)
    assert isinstance(summary["num_tokens"], int)
    assert summary["num_tokens"] >= sum(
        2 * len(row.prompt_ids) + len(row.chosen_ids) + len(row.rejected_ids)
        for row in rows_of(flow, pairs)
    )
    assert isinstance(summary["training_seconds"], float)
    assert summary["training_seconds"] > 0
    for row in expected:
        assert found[row.pair_id].chosen == pytest.approx(row.chosen, abs=1e-3)
        assert found[row.pair_id].rejected == pytest.approx(row.rejected, abs=1e-3)
        assert found[row.pair_id].neighbour_chosen is None


def rows_of(flow: Workflow, pairs: list[Pair]) -> list[TokenPair]:
    from pvar.records import Response
    from tasks.training.token_rows import encode_pairs

    job: Job[Any] = flow.job("train")
    tokenizer = AutoTokenizer.from_pretrained(flow.wiring.model_folder(job.spec.policy))
    responses = flow.artifact("sample").rows("responses.parquet", Response)
    return encode_pairs(pairs, responses, tokenizer, 10_000).pairs
