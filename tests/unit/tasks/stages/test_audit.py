"""Stage audit: the labels of a source, and what reward models, judge and champion say of them."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from flows.pinning import pin
from pvar.config import PipelineConfig
from pvar.evaluation.label_audit import AskedLabel
from pvar.evaluation.preference_accuracy import LabelLogps
from pvar.records import Message, Prompt, Row
from pvar.references import replace_references
from tasks.engine.artifact import ArtifactKeys
from tasks.engine.tables import write_table
from tasks.graph import plan_nodes
from tasks.label_nodes import AUDIT_NODE, LABELS_NODE, label_nodes
from tasks.stages.audit import ASKED, AUDIT, AskedModel, AuditSpec, judged_pairs
from tasks.stages.audited_labels import ALL_LABELS, LabelledPair, read_labelled_pairs
from tasks.stages.exam_questions import QUESTIONS, LabelQuestions, QuestionsSpec
from tasks.stages.likelihood import LABEL_LOGPS
from tests.artifacts import StageBench, opened, put_artifact
from tests.workflow import Workflow, fake_settings, open_wiring

GOOD, BAD = "A wonderful, lovely hotel.", "A horrible, awful hotel."
ROWS: list[dict[str, object]] = [
    {"prompt": "p", "chosen": GOOD, "rejected": BAD, "source": "web", "who": 7},
    {"prompt": "q", "chosen": BAD, "rejected": GOOD, "source": "web", "who": "ann"},
    {"prompt": "r", "chosen": "One.", "rejected": "Two.", "source": "mail"},
    {"prompt": "only a prompt"},
    {"prompt": "p", "chosen": GOOD, "rejected": "No.", "source": "web"},
    {"prompt": "replayed", "chosen": GOOD, "rejected": BAD, "source": "web"},
]


@pytest.fixture
def bench(tmp_path: Path) -> StageBench:
    return StageBench(open_wiring(tmp_path), tmp_path)


def labels_of(bench: StageBench, *, source_field: str | None = "source") -> ArtifactKeys:
    questions = LabelQuestions(
        kind="labels",
        source="here#x",
        source_field=source_field,
        annotator_field="who",
        num_rows=5,
    )
    rows = [Row(number, fields) for number, fields in enumerate(ROWS, start=1)]
    made = bench.run(
        QUESTIONS, QuestionsSpec(benchmark=questions), {}, source_rows=lambda _: iter(rows)
    )
    return made.keys


def test_the_first_rows_are_read_with_source_and_annotator(bench: StageBench) -> None:
    keys = labels_of(bench)
    artifact = opened(bench.ports.store, keys, bench.folder)
    pairs = read_labelled_pairs(artifact)
    assert [(p.prompt.source, p.annotator) for p in pairs] == [
        ("web", "7"),
        ("web", "ann"),
        ("mail", None),
    ]
    counts = artifact.manifest.row_counts
    assert (counts.rows_in, counts.rejected) == (5, {"no_labels": 1, "duplicate": 1})
    unnamed = opened(bench.ports.store, labels_of(bench, source_field=None), bench.folder)
    assert {p.prompt.source for p in read_labelled_pairs(unnamed)} == {ALL_LABELS}


def test_reward_models_and_judge_agree_with_a_label_or_not(tmp_path: Path) -> None:
    source = tmp_path / "labels.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    changes = {"ingest.source_field": "source", "label_audit": {"num_rows": 5, "max_judged": 2}}
    wiring = open_wiring(tmp_path)
    settings = fake_settings(source, **changes)
    workflow = Workflow(pin(PipelineConfig.model_validate(settings), wiring), wiring)
    workflow.make(LABELS_NODE, "labels-score-vader", AUDIT_NODE)
    artifact = workflow.artifact(AUDIT_NODE)
    rows = artifact.rows(ASKED, AskedLabel)
    by_vader = [row.margin for row in rows if row.model == "vader"]
    assert [None if m is None else (m > 0) - (m < 0) for m in by_vader] == [1, -1, 0]
    by_judge = {row.source: row.margin for row in rows if row.kind == "judge"}
    assert by_judge["mail"] == 0.0  # one of each source is judged
    assert abs(by_judge["web"] or 0) == 0.5
    summary = artifact.manifest.summary
    assert (summary["vader_agreement"], summary["vader_num_labels"]) == (0.5, 3)
    assert summary["judge_afinn_num_labels"] == 2


def test_a_small_source_is_judged_as_often_as_a_large_one() -> None:
    def pair(number: int, source: str) -> LabelledPair:
        prompt = Prompt(f"{source} {number}", (Message("user", "x"),), "eval", source, "a", "b")
        return LabelledPair(prompt, None, "", "")

    pairs = [*(pair(n, "large") for n in range(50)), *(pair(n, "small") for n in range(3))]
    chosen = judged_pairs(pairs, 10)
    assert sorted(each.prompt.source for each in chosen) == ["large"] * 7 + ["small"] * 3
    assert judged_pairs(pairs[::-1], 10) == chosen
    assert set(judged_pairs(pairs, 6)) < set(chosen)


def logps(
    bench: StageBench, margins: dict[str, float], number_format: str = "float32"
) -> ArtifactKeys:
    rows = [LabelLogps(name, "web", -10 + margin, -10, 3, 3) for name, margin in margins.items()]
    path = bench.folder / "logps.parquet"
    write_table(path, rows, LabelLogps)
    return put_artifact(
        bench.ports.store,
        "likelihood",
        config={"margins": sorted(margins.values()), "format": number_format},
        files={LABEL_LOGPS: path.read_bytes()},
        summary={"number_format": number_format},
    )


def champions_margins(bench: StageBench, first_format: str) -> Sequence[float | None]:
    labels = labels_of(bench)
    ids = [
        p.prompt.prompt_id
        for p in read_labelled_pairs(opened(bench.ports.store, labels, bench.folder))
    ]
    spec = AuditSpec(
        reward_models=(), champion=AskedModel(name="the champion", settings="x"), judge=None
    )
    inputs = {
        "labels": labels,
        "likelihood-champion": logps(bench, {ids[0]: 2.0, ids[1]: -1.0}),
        "likelihood-first": logps(bench, {ids[0]: 3.0, ids[1]: -4.0, ids[2]: 1.0}, first_format),
    }
    return [row.margin for row in bench.run(AUDIT, spec, inputs).rows(ASKED, AskedLabel)]


def test_the_champions_margin_is_relative_to_the_first_model(bench: StageBench) -> None:
    # It prefers the first label, but less than the first model did; of the third it has no answer.
    assert champions_margins(bench, "float32") == [-1.0, 3.0, None]
    # Rounding does not cancel between number formats.
    assert champions_margins(bench, "bfloat16") == [None, None, None]


def test_the_audit_changes_no_other_node_and_asks_a_champion_that_is_one(tmp_path: Path) -> None:
    def plan(**changes: object) -> PipelineConfig:
        settings = fake_settings(tmp_path / "labels.jsonl", **changes)
        config = PipelineConfig.model_validate(settings)
        return replace_references(config, lambda each: f"{each.text}#sha256-{each.text}")

    before, after = plan(), plan(label_audit={})
    own = {node.name for node in label_nodes(after)}
    assert own == {"labels", "labels-score-vader", "audit"}
    without = {name: node.keys for name, node in plan_nodes(after).items() if name not in own}
    assert without == {name: node.keys for name, node in plan_nodes(before).items()}
    champion = {"label_audit": {}, "evaluate.opponent": "org/champion"}
    names = {node.name for node in label_nodes(plan(**champion))}
    assert names - own == {"labels-likelihood-champion", "labels-likelihood-first"}
    not_asked = {**champion, "label_audit": {"champion": False}}
    assert {node.name for node in label_nodes(plan(**not_asked))} == own
