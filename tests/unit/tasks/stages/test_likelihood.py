"""Stage likelihood on a tiny model, and the result that is made of several models' artifacts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pvar.benchmark_config import LabelAgreementBenchmark
from pvar.evaluation.preference_accuracy import LabelLogps
from pvar.records import Message, Prompt
from pvar.row_counts import RowCounts
from tasks.engine.artifact import Artifact
from tasks.engine.tables import RejectedRow, write_table
from tasks.graph import Node
from tasks.stages.benchmark_inputs import ScoredModel
from tasks.stages.benchmark_label_agreement import (
    LIKELIHOOD_INPUT,
    LabelAgreementScoring,
    label_agreement,
    label_agreement_figures,
    score_label_agreement,
)
from tasks.stages.ingest import PROMPTS
from tasks.stages.likelihood import LABEL_LOGPS, LIKELIHOOD, REJECTED, likelihood_spec
from tests.artifacts import StageBench, opened, put_artifact
from tests.unit.infra.tiny_models import change_weights, save_language_model
from tests.workflow import open_wiring

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of libraries
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

BENCHMARK = LabelAgreementBenchmark(max_length_tokens=60, dtype="float32")


def labelled(prompt_id: str, chosen: str, rejected: str, split: str = "eval") -> Prompt:
    messages = (Message("user", f"Question {prompt_id}"),)
    return Prompt(prompt_id, messages, split, f"source of {prompt_id}", chosen, rejected)  # type: ignore[arg-type]


PAIRS = [
    labelled("a", "A fine answer.", "No."),
    labelled("b", "Yes.", "I do not know, sorry."),
    labelled("c", "é 中", "<|eot_id|>"),
]
OTHERS = [
    labelled("d", "short", "x" * 60),
    labelled("e", "trained", "on", split="train"),
    Prompt("f", (Message("user", "no labels"),), "eval", "s"),
]


@pytest.fixture
def bench(tmp_path: Path) -> StageBench:
    return StageBench(open_wiring(tmp_path), tmp_path)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_language_model(tmp_path_factory.mktemp("policy"), seed=1)


def likelihood(bench: StageBench, prompts: Sequence[Prompt], **ports: Any) -> Artifact:
    inputs = {"prompts": bench.put("ingest", PROMPTS, prompts, Prompt)}
    return bench.run(LIKELIHOOD, likelihood_spec(BENCHMARK, "here#x"), inputs, **ports)


def by_the_model_itself(policy: Path, prompt: Prompt, answer: str) -> float:
    """The sum over the answer's tokens, from the rendered conversation and the model's logits."""
    tokenizer = AutoTokenizer.from_pretrained(policy)
    messages = [message._asdict() for message in prompt.messages]
    before = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    whole = tokenizer.apply_chat_template(
        [*messages, {"role": "assistant", "content": answer}], tokenize=False
    )
    assert whole.startswith(before)
    ids, start = (
        tokenizer.encode(text, add_special_tokens=False) for text in (whole, before)
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32).eval()
    with torch.inference_mode():
        logps = model(torch.tensor([ids])).logits[0].log_softmax(dim=1)
    return float(sum(logps[i - 1, ids[i]] for i in range(len(start), len(ids))))


def test_log_probabilities_are_those_of_the_model_itself(bench: StageBench, policy: Path) -> None:
    artifact = likelihood(bench, PAIRS[:2] + OTHERS, model_folder=lambda _: policy)
    rows = artifact.rows(LABEL_LOGPS, LabelLogps)
    assert [(row.prompt_id, row.source) for row in rows] == [
        ("a", "source of a"),
        ("b", "source of b"),
    ]
    for row, pair in zip(rows, PAIRS, strict=False):
        for text, found in ((pair.chosen, row.chosen), (pair.rejected, row.rejected)):
            assert text is not None
            # Sums of some twenty float32 log-probabilities of about −5 each.
            assert found == pytest.approx(by_the_model_itself(policy, pair, text), abs=1e-3)
    # One token a byte, and the end of the turn.
    assert (rows[0].num_chosen_tokens, rows[0].num_rejected_tokens) == (15, 4)
    assert artifact.manifest.summary["number_format"] == "float32"
    assert artifact.manifest.summary["num_pairs"] == 2


def test_pairs_that_are_too_long_are_left_out_and_counted(bench: StageBench, policy: Path) -> None:
    artifact = likelihood(bench, PAIRS + OTHERS, model_folder=lambda _: policy)
    (rejected,) = artifact.rows(REJECTED, RejectedRow)
    assert (rejected.row_id, rejected.rule) == ("d", "too_long")
    assert artifact.manifest.row_counts == RowCounts(
        rows_in=4, rows_out=3, rejected={"too_long": 1}
    )
    # The bench has four responses a shard, so two pairs.
    assert len(artifact.manifest.shards) == 2


def test_without_labelled_pairs_no_model_is_loaded(bench: StageBench) -> None:
    def refuse(_: str) -> Path:
        raise AssertionError("a model was asked for")

    artifact = likelihood(bench, OTHERS[1:], model_folder=refuse)
    assert artifact.rows(LABEL_LOGPS, LabelLogps) == []
    assert artifact.manifest.summary["num_pairs"] == 0
    assert artifact.manifest.summary["likelihood_accuracy"] is None
    result = label_agreement(
        {"challenger": artifact, "opponent": artifact, "reference": artifact},
        beta=0.1, confidence=0.95, seed=0,
    )  # fmt: skip
    assert result == ((), "no labelled pairs")
    figures = label_agreement_figures(result)
    assert figures.pop("not_measured") == "no labelled pairs"
    assert set(figures.values()) == {None}


def test_a_model_that_overflows_has_no_log_probabilities(bench: StageBench, tmp_path: Path) -> None:
    damaged = save_language_model(tmp_path / "damaged")
    change_weights(damaged, model__norm__weight=torch.full((32,), float("nan")))
    artifact = likelihood(bench, PAIRS, model_folder=lambda _: damaged)
    assert artifact.manifest.row_counts.rejected == {"not_finite": 3}
    sound = put(bench, [LabelLogps("a", "s", -1, -2, 3, 3)], "float32")
    result = label_agreement(
        {"challenger": artifact, "opponent": sound}, beta=0.1, confidence=0.95, seed=0
    )
    assert result.not_measured == (
        "no labelled pair is left of every model (3 not_finite of challenger)"
    )


def test_one_artifact_of_a_model_serves_every_benchmark_that_asks_the_same(
    bench: StageBench,
) -> None:
    inputs = {"prompts": bench.put("ingest", PROMPTS, PAIRS, Prompt)}

    def digest(policy: str, **changes: Any) -> str:
        benchmark = BENCHMARK.model_copy(update=changes)
        return Node("n", LIKELIHOOD, likelihood_spec(benchmark, policy), inputs).keys.digest

    assert digest("here#x", name="other") == digest("there#x")
    others = [
        digest("here#y"),
        digest("here#x", max_length_tokens=9),
        digest("here#x", dtype="auto"),
    ]
    assert len({digest("here#x"), *others}) == 4


def put(bench: StageBench, rows: Sequence[LabelLogps], number_format: str) -> Artifact:
    """A complete artifact of stage likelihood."""
    path = bench.folder / LABEL_LOGPS
    write_table(path, rows, LabelLogps)
    keys = put_artifact(
        bench.ports.store,
        "likelihood",
        config={"content": repr(rows) + number_format},
        files={LABEL_LOGPS: path.read_bytes()},
        summary={"number_format": number_format},
        row_counts=RowCounts(rows_in=len(rows), rows_out=len(rows)),
    )
    return opened(bench.ports.store, keys, bench.folder / "inputs")


def put_margins(
    bench: StageBench, margins: Mapping[str, Sequence[float]], number_format: str = "float32"
) -> dict[str, Artifact]:
    return {
        role: put(
            bench,
            [LabelLogps(f"p{i}", "s", each - 9, -9, 5, 5) for i, each in enumerate(them)],
            number_format,
        )
        for role, them in margins.items()
    }


def test_the_challenger_is_compared_with_every_other_role(bench: StageBench) -> None:
    roles = put_margins(
        bench, {"challenger": (1, 1, -1), "opponent": (1, -1, -1), "reference": (2, -1, -2)}
    )
    result = label_agreement(roles, beta=0.5, confidence=0.95, seed=0)
    assert result.not_measured is None
    assert [row.compared_with for row in result.accuracies] == ["opponent", "reference"]
    figures = label_agreement_figures(result)
    assert (figures["num_pairs"], figures["not_measured"]) == (3, None)
    assert figures["likelihood_before"] == pytest.approx(1 / 3)
    assert figures["likelihood_after"] == pytest.approx(2 / 3)
    # Margins relative to the reference are −1, 2 and 1: two of three, and β · 2/3 on average.
    assert figures["implicit"] == pytest.approx(2 / 3)
    assert figures["implicit_margin_mean"] == pytest.approx(1 / 3)


def test_models_in_different_number_formats_are_not_compared(bench: StageBench) -> None:
    roles = put_margins(bench, {"challenger": (1,)}) | put_margins(
        bench, {"opponent": (1,)}, "bfloat16"
    )
    result = label_agreement(roles, beta=0.1, confidence=0.95, seed=0)
    assert result.accuracies == ()
    assert result.not_measured is not None
    assert "(challenger in float32, opponent in bfloat16)" in result.not_measured
    assert "set the benchmark's dtype to float32" in result.not_measured


def test_the_first_model_has_a_score_and_a_difference_beside_those_of_the_opponent(
    bench: StageBench,
) -> None:
    """Of four pairs the challenger is right on 4, the opponent on 3 and the first model on 1."""
    margins = {
        "challenger": (1, 1, 1, 1),
        "opponent": (1, 1, 1, -1),
        "first": (1, -1, -1, -1),
        "reference": (1, 1, 1, -1),
    }
    inputs = {
        f"{LIKELIHOOD_INPUT}{role}": each for role, each in put_margins(bench, margins).items()
    }
    models = tuple(
        ScoredModel(role=role, name=role) for role in ("challenger", "opponent", "first")
    )
    scoring = LabelAgreementScoring(kind="label_agreement", beta=0.1, seed=0)
    with_first = score_label_agreement(inputs, models, scoring)
    scores = [(score.role, score.score) for score in with_first.scores]
    assert scores == [("challenger", 100.0), ("opponent", 75.0), ("first", 25.0)]
    assert [each.difference for each in with_first.differences] == [25.0]
    assert with_first.figures["first_difference"] == 75.0
    lower, upper = (with_first.figures[f"first_difference_{end}"] for end in ("lower", "upper"))
    assert isinstance(lower, float)
    assert isinstance(upper, float)
    assert lower <= 75.0 <= upper

    del inputs[f"{LIKELIHOOD_INPUT}first"]
    without = score_label_agreement(inputs, models[:2], scoring)
    assert without.scores == with_first.scores[:2]
    assert "first_difference" not in without.figures
