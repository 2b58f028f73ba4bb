"""Stage harness: a shard per task, results by question, and a change between two models."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from infra.fake_harness import FakeHarness
from pvar.artifacts import Recipe
from pvar.benchmark_config import LmEvalBenchmark, LmEvalSettings
from pvar.errors import StageError
from pvar.lm_eval_records import HarnessResult, LmEvalAggregate, LmEvalSample
from pvar.row_counts import RowCounts
from tasks.engine.artifact import Artifact
from tasks.stages.benchmark_inputs import ScoredModel
from tasks.stages.benchmark_lm_eval import LmEvalScored, LmEvalScoring, score_tasks
from tasks.stages.harness import AGGREGATES, HARNESS, SAMPLES, HarnessSpec, figure_name
from tests.artifacts import StageBench
from tests.workflow import open_wiring

TASKS = ("first", "second", "third")


def spec(policy: str = "somewhere#a policy", **changes: object) -> HarnessSpec:
    settings = LmEvalSettings.model_validate({"tasks": TASKS, "backend": "fake", **changes})
    return HarnessSpec(policy=policy, settings=settings, allow_code_execution=False)


def run(folder: Path, wanted: HarnessSpec, **ports: object) -> Artifact:
    folder.mkdir(exist_ok=True)
    return StageBench(open_wiring(folder), folder).run(HARNESS, wanted, {}, **ports)


@dataclass
class FailingHarness:
    """The fake one, which fails at a task."""

    fails_at: str | None = None
    calls: list[str] = field(default_factory=list)
    num_closed: int = 0

    def open(self, *_: object, **__: object) -> "FailingHarness":
        return self

    def run(self, name: str) -> HarnessResult:
        self.calls.append(name)
        if name == self.fails_at:
            raise StageError(f"task {name} failed")
        return FakeHarness("a policy", None).run(name)

    def close(self) -> None:
        self.num_closed += 1


def test_each_task_is_a_shard_with_a_row_per_question(tmp_path: Path) -> None:
    artifact = run(tmp_path, spec())
    rows = artifact.rows(SAMPLES, LmEvalSample)
    assert [shard.row_counts.rows_out for shard in artifact.manifest.shards] == [20, 20, 20]
    assert [(row.name, row.doc_id) for row in rows] == [
        (name, number) for name in TASKS for number in range(20)
    ]
    aggregates = artifact.rows(AGGREGATES, LmEvalAggregate)
    assert [row.task for row in aggregates] == [*TASKS]
    summary = artifact.manifest.summary
    assert (summary["num_questions"], summary["harness_version"]) == (60, "fake")
    assert summary["acc_none_second"] == aggregates[1].value


def test_names_of_figures_are_those_that_mlflow_accepts(tmp_path: Path) -> None:
    summary = run(tmp_path, spec(tasks=("group::task +1",))).manifest.summary
    assert "acc_none_group__task__1" in summary
    assert figure_name("pass@1_create_test_humaneval") == "pass_1_create_test_humaneval"


def test_a_failed_task_loses_no_other_task(tmp_path: Path) -> None:
    broken, repaired = FailingHarness("second"), FailingHarness()
    with pytest.raises(StageError, match="task second failed"):
        run(tmp_path, spec(), harness=broken.open)
    assert (broken.calls, broken.num_closed) == (["first", "second"], 1)
    run(tmp_path, spec(), harness=repaired.open)
    assert (repaired.calls, repaired.num_closed) == (["second", "third"], 1)


def test_a_question_without_any_value_is_counted(tmp_path: Path) -> None:
    @dataclass
    class Undefined:
        """The fake one; its first question has no value."""

        def open(self, *_: object, **__: object) -> "Undefined":
            return self

        def run(self, name: str) -> HarnessResult:
            result = FakeHarness("a policy", 4).run(name)
            first = result.samples[0]._replace(value=None)
            return result._replace(samples=(first, *result.samples[1:]))

        def close(self) -> None:
            pass

    artifact = run(tmp_path, spec(tasks=("one",)), harness=Undefined().open)
    expected = RowCounts(rows_in=4, rows_out=3, rejected={"no_value": 1})
    assert artifact.manifest.row_counts == expected


def test_the_harness_is_given_the_model_and_the_resolved_number_format(tmp_path: Path) -> None:
    given: list[object] = []

    def open_harness(
        settings: LmEvalSettings, policy: str, folder: Path | None, *_: object, **more: object
    ) -> FakeHarness:
        given.extend([settings.dtype, policy, folder, more["allow_code_execution"]])
        return FakeHarness(policy, settings.limit)

    run(
        tmp_path,
        spec(backend="transformers"),
        harness=open_harness,
        model_folder=lambda reference: Path("/models", reference.rpartition("#")[2]),
        number_format=lambda choice, learns: "bfloat16",
    )
    assert given == ["bfloat16", "a policy", Path("/models/a policy"), False]


def scored(models: dict[str, Artifact]) -> LmEvalScored:
    return score_tasks(
        {f"harness-{role}": artifact for role, artifact in models.items()},
        tuple(ScoredModel(role=role, name=role) for role in models),
        LmEvalScoring(kind="lm_eval", metrics=(), seed=0),
    )


def test_scores_and_change_are_those_of_both_artifacts(tmp_path: Path) -> None:
    models = {
        "challenger": run(tmp_path, spec("somewhere#one", limit=10)),
        "opponent": run(tmp_path, spec("somewhere#another", limit=10)),
    }
    result = scored(models)
    by_role = {(row.role, row.category): row.score for row in result.scores}
    mean, *changes = result.differences
    assert [row.category for row in changes] == [f"{name} (acc,none)" for name in TASKS]
    for name, row in zip(TASKS, changes, strict=True):
        ours, theirs = by_role["challenger", row.category], by_role["opponent", row.category]
        own = [
            sample.value or 0
            for sample in models["challenger"].rows(SAMPLES, LmEvalSample)
            if sample.name == name
        ]
        assert ours is not None
        assert theirs is not None
        assert ours == pytest.approx(100 * sum(own) / 10)
        assert row.difference == pytest.approx(ours - theirs)
        assert result.figures[f"change_{name}"] == row.difference
    values = [row.difference or 0 for row in changes]
    assert any(values)
    assert mean.category is None
    assert mean.difference == pytest.approx(sum(values) / 3)
    assert mean.ci_lower is not None
    assert mean.ci_lower < sum(values) / 3
    assert (mean.num_questions, result.figures["num_questions"]) == (30, 30)
    overall = by_role["challenger", None]
    assert overall == pytest.approx(
        sum(by_role["challenger", row.category] or 0 for row in changes) / 3
    )
    assert result.figures["challenger_harness_version"] == "fake"


def test_one_model_alone_has_scores_and_no_change(tmp_path: Path) -> None:
    alone = scored({"other": run(tmp_path, spec())})
    assert alone.differences == []
    assert [row.category for row in alone.scores] == [
        None,
        *(f"{name} (acc,none)" for name in TASKS),
    ]
    assert alone.figures == {"other_harness_version": "fake"}


def test_what_decides_the_results_is_hashed_and_nothing_else() -> None:
    def digest(**changes: object) -> str:
        benchmark = LmEvalBenchmark.model_validate({"tasks": ["a"], **changes})
        settings = spec().model_copy(
            update={
                "settings": benchmark.harness_settings,
                "allow_code_execution": benchmark.allow_code_execution,
            }
        )
        return Recipe.of("lm_eval", 1, settings, {}).digest

    assert digest() == digest(name="other", metrics=["acc"], allow_code_execution=True)
    assert digest(include_path="/here#sha256-1") == digest(include_path="/there#sha256-1")
    different = [
        digest(),
        digest(tasks=["b"]),
        digest(include_path="/here#sha256-1"),
        digest(include_path="/here#sha256-2"),
        digest(num_fewshot=0),
        digest(limit=5),
        digest(backend="vllm"),
        digest(apply_chat_template=False),
        digest(max_length_tokens=512),
        digest(dtype="float32"),
    ]
    assert len({*different}) == len(different)
