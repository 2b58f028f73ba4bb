"""Stage exclude, and what stage select makes of it: no prompt of an exam can be trained on."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from pvar.errors import InputError
from pvar.exclusion import Exclusion
from pvar.records import Message, Pair, Prompt, Response, Score
from pvar.row_counts import RowCounts
from pvar.selection_config import PairConfig, SelectConfig
from tasks.engine.artifact import Artifact, ArtifactKeys
from tasks.engine.tables import PromptVariance
from tasks.stages.exclude import EXCLUDE, EXCLUDED, ExcludeSpec, excluded_by_exam
from tasks.stages.ingest import PROMPTS
from tasks.stages.pair import PAIR, PAIRS, pair_spec
from tasks.stages.sample import RESPONSES
from tasks.stages.score import SCORES
from tasks.stages.select import SELECT, VARIANCE, SelectSpec
from tests.artifacts import StageBench
from tests.workflow import open_wiring

SPEC = ExcludeSpec(ngram_words=13, min_similarity=0.6)
LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"


def prompt(prompt_id: str, text: str, split: str = "train") -> Prompt:
    return Prompt(prompt_id, (Message("user", text),), split, "x")  # type: ignore[arg-type]


TRAINING = [
    prompt("a", "Name a river."),
    prompt("b", "Tell me a joke."),
    prompt("c", f"Count: {LONG}."),
    prompt("d", "Describe object number 3 of the town called Thorp3."),
    prompt("e", "name a RIVER", split="eval"),
]


def exclude(bench: StageBench, exams: Mapping[str, Sequence[Prompt]]) -> Artifact:
    inputs = {f"exam-{name}": bench.put("questions", PROMPTS, rows, Prompt)
              for name, rows in exams.items()}  # fmt: skip
    prompts = bench.put("ingest", PROMPTS, TRAINING, Prompt)
    return bench.run(EXCLUDE, SPEC, {"prompts": prompts, **inputs})


EXAMS = {
    "rivers": [prompt("q1", "Name a river!", "eval"), prompt("q2", "Name a lake.")],
    "counts": [prompt("q3", f"{LONG} fifteen", "eval"), prompt("q4", "Name a river", "eval")],
    "objects": [prompt("q5", "Describe object number 4 of the town called Thorp3.", "eval")],
}


@pytest.fixture
def bench(tmp_path: Path) -> StageBench:
    return StageBench(open_wiring(tmp_path), tmp_path)


def test_training_prompts_of_all_exams_are_listed_and_held_out_ones_are_not(
    bench: StageBench,
) -> None:
    artifact = exclude(bench, EXAMS)
    assert [row[:4] for row in artifact.rows(EXCLUDED, Exclusion)] == [
        ("a", "counts", "q4", "same_text"),
        ("a", "rivers", "q1", "same_text"),
        ("c", "counts", "q3", "shared_words"),
    ]
    # Two prompts, of which two exams exclude the first: the third exam found none.
    assert artifact.manifest.summary == {
        "num_excluded": 2,
        "excluded_counts": 2,
        "excluded_objects": 0,
        "excluded_rivers": 1,
    }
    assert excluded_by_exam(artifact) == {"counts": 2, "objects": 0, "rivers": 1}
    assert artifact.manifest.row_counts == RowCounts(
        rows_in=4, rows_out=2, rejected={"same_text": 1, "shared_words": 1}
    )


def answers_to(bench: StageBench) -> dict[str, ArtifactKeys]:
    """Two answers per training prompt, that differ most for `a`, then for `b`, and so on."""
    spreads = {"a": 4.0, "b": 3.0, "c": 2.0, "d": 1.0}
    ids = [(name, index) for name in spreads for index in range(2)]
    responses = [
        Response(name, f"{name}{index}", index, f"answer {index}", 3, "stop") for name, index in ids
    ]
    scores = [Score(name, f"{name}{index}", index * spreads[name]) for name, index in ids]
    return {
        "prompts": bench.put("ingest", PROMPTS, TRAINING, Prompt),
        "responses": bench.put("sample", RESPONSES, responses, Response),
        "scores-m": bench.put("score", SCORES, scores, Score),
    }


def select(bench: StageBench, exclusions: Artifact | None, **settings: object) -> Artifact:
    inputs = answers_to(bench)
    if exclusions is not None:
        inputs["exclusions"] = exclusions.keys
    config = SelectConfig.model_validate(settings)
    return bench.run(SELECT, SelectSpec(settings=config, reward_models=("m",)), inputs)


def selected(artifact: Artifact) -> list[str]:
    return [row.prompt_id for row in artifact.rows(VARIANCE, PromptVariance) if row.selected]


def test_what_an_exam_excludes_is_no_candidate_and_counted_by_reason(bench: StageBench) -> None:
    budget = {"budget": {"fraction": 0.5}}
    # Of all four prompts the two with the largest spread: half of four.
    assert selected(select(bench, None, **budget)) == ["a", "b"]
    # Without `a` and `c`: half of the two that are left.
    chosen = select(bench, exclude(bench, EXAMS), **budget)
    assert [row.prompt_id for row in chosen.rows(VARIANCE, PromptVariance)] == ["b", "d"]
    assert selected(chosen) == ["b"]
    assert chosen.manifest.row_counts == RowCounts(
        rows_in=4, rows_out=1, rejected={"exam": 2, "over_budget": 1}
    )
    figures = chosen.manifest.summary
    assert figures["left_out_exam"] == 2
    # Their responses are not counted as unusable ones.
    assert [name for name in figures if name.startswith("left_out_")] == ["left_out_exam"]


def test_strategy_all_selects_no_prompt_of_an_exam(bench: StageBench) -> None:
    assert selected(select(bench, exclude(bench, EXAMS), strategy="all")) == ["b", "d"]


def test_without_exclusions_nothing_is_said_of_them_and_with_none_found_it_is_zero(
    bench: StageBench,
) -> None:
    nothing = exclude(bench, {"objects": EXAMS["objects"]})
    without, with_none = select(bench, None), select(bench, nothing)
    assert "left_out_exam" not in without.manifest.summary
    assert with_none.manifest.summary == {**without.manifest.summary, "left_out_exam": 0}
    assert with_none.manifest.row_counts == without.manifest.row_counts


def test_pairs_have_the_reward_scale_of_the_selection(bench: StageBench) -> None:
    inputs = answers_to(bench) | {"exclusions": exclude(bench, EXAMS).keys}
    # A second model in units ten times as large: its fitted scale is ten times the first one's.
    scores = [
        Score(name, f"{name}{index}", 10 * index * spread)
        for name, spread in {"a": 4.0, "b": 3.0, "c": 2.0, "d": 1.0}.items()
        for index in range(2)
    ]
    inputs["scores-n"] = bench.put("score", SCORES, scores, Score)
    config = SelectConfig(reward_scale="spread", strategy="all")
    chosen = bench.run(SELECT, SelectSpec(settings=config, reward_models=("m", "n")), inputs)
    spec = pair_spec(PairConfig(), config.reward_settings, ("m", "n"))
    pairs = bench.run(PAIR, spec, inputs | {"selection": chosen.keys}).rows(PAIRS, Pair)
    scale = chosen.manifest.summary["reward_scale_m"]
    assert isinstance(scale, float)
    margins = {
        pair.prompt_id: (pair.chosen_reward or 0.0) - (pair.rejected_reward or 0.0)
        for pair in pairs
    }
    # The mean over both models of difference / scale, with the scales of `b` and `d` alone.
    assert margins == {"b": pytest.approx(3 / scale), "d": pytest.approx(1 / scale)}


def test_exams_that_exclude_every_prompt_are_an_error_that_names_them(bench: StageBench) -> None:
    all_of_them = exclude(bench, {"copy": [row for row in TRAINING if row.split == "train"]})
    with pytest.raises(InputError) as caught:
        select(bench, all_of_them)
    assert "all 4 training prompts are prompts of an exam" in str(caught.value)
    assert all_of_them.keys.root in str(caught.value)
