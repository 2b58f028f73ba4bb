"""Selection and win rate by source: the counts add up, and one source alone has no table."""

import json
from pathlib import Path

from flows.outcome import _lines
from flows.report_sources import rows_by_source
from flows.run_record import RunRecord
from pvar.records import Prompt, Verdict
from tasks.engine.artifact import Artifact
from tasks.engine.tables import PromptVariance
from tasks.stages.ingest import PROMPTS
from tasks.stages.judgments import VERDICTS
from tasks.stages.select import VARIANCE
from tests.artifacts import StageBench, opened
from tests.workflow import TOPICS, Workflow, start_workflow


def selected(home: Path, source_field: str | None) -> Workflow:
    """A run up to its selection, over prompts of two files, two of which do not say of which."""
    rows = [
        {"prompt": f"Describe {text}.", **({"from": "web" if n % 3 else "mail"} if n > 1 else {})}
        for n, text in enumerate(TOPICS)
    ]
    path = home / "letters.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flow = start_workflow(home, **{"ingest.source": str(path), "ingest.source_field": source_field})
    flow.make("ingest", "sample", "score-vader", "select")
    return flow


def artifacts(flow: Workflow, *names: str) -> dict[str, Artifact]:
    return {name: flow.artifact(name) for name in names}


def test_every_training_prompt_is_counted_once_and_held_out_ones_are_not(tmp_path: Path) -> None:
    flow = selected(tmp_path, "from")
    made = artifacts(flow, "ingest", "select")
    rows = rows_by_source(made, 0.95)
    assert [row.source for row in rows] == ["letters.jsonl", "mail", "web"]
    prompts = made["ingest"].rows(PROMPTS, Prompt)
    table = made["select"].rows(VARIANCE, PromptVariance)
    assert [row.num_prompts for row in rows] == [
        sum(each.source == row.source and each.split == "train" for each in prompts) for row in rows
    ]
    assert sum(row.num_selected for row in rows) == sum(each.selected for each in table) > 0
    assert all(row.win_rate is None for row in rows)


def test_the_win_rate_of_a_source_is_over_its_own_held_out_prompts(tmp_path: Path) -> None:
    flow = selected(tmp_path, "from")
    made = artifacts(flow, "ingest", "select")
    held_out = [each for each in made["ingest"].rows(PROMPTS, Prompt) if each.split == "eval"]
    bench = StageBench(flow.wiring, tmp_path)
    # Mail always wins; of the rest nothing is judged but one loss on the web.
    lost = next(each.prompt_id for each in held_out if each.source == "web")
    given = [
        Verdict(each.prompt_id, 1.0 if each.source == "mail" else None, None)
        for each in held_out
        if each.prompt_id != lost
    ]
    keys = bench.put("evaluate", VERDICTS, [*given, Verdict(lost, 0.0, None)], Verdict)
    made["evaluate"] = opened(flow.store, keys, tmp_path / "cache")
    other, mail, web = rows_by_source(made, 0.95)
    assert mail.win_rate is not None
    assert mail.win_rate.win_rate == 1.0
    assert mail.win_rate.num_judged == sum(each.source == "mail" for each in held_out)
    assert other.win_rate is None
    assert web.win_rate is not None
    assert (web.win_rate.win_rate, web.win_rate.num_judged) == (0.0, 1)


def test_one_source_has_no_table(tmp_path: Path) -> None:
    flow = selected(tmp_path, None)
    assert rows_by_source(artifacts(flow, "ingest", "select"), 0.95) == ()
    assert rows_by_source({}, 0.95) == ()


def test_an_exam_of_its_own_is_no_source_of_what_is_selected(tmp_path: Path) -> None:
    flow = selected(tmp_path, None)
    made = artifacts(flow, "ingest", "select")
    bench = StageBench(flow.wiring, tmp_path)
    asked = [Prompt("of the exam", (), "eval", "exam.jsonl.gz")]
    keys = bench.put("questions", PROMPTS, asked, Prompt)
    made["exam"] = opened(flow.store, keys, tmp_path / "cache")
    assert rows_by_source(made, 0.95) == ()


def test_the_last_lines_say_what_was_selected_of_each_source(tmp_path: Path) -> None:
    flow = selected(tmp_path, "from")
    made = artifacts(flow, "ingest", "select")
    record = RunRecord.model_construct(run="r", config=flow.config, nodes=())
    summaries = {name: each.manifest.summary for name, each in made.items()}
    other, mail, web = rows = rows_by_source(made, 0.95)
    line = list(_lines(record, summaries, rows, "file:///s"))[1]
    figures = made["select"].manifest.summary
    assert line == (
        f"selected {figures['num_selected']} of {figures['num_prompts']} prompts (top), mean PVar "
        f"{figures['pvar_mean_selected']:.3f}, of all {figures['pvar_mean']:.3f}: "
        f"{other.num_selected} of {other.num_prompts} letters.jsonl, "
        f"{mail.num_selected} of {mail.num_prompts} mail, "
        f"{web.num_selected} of {web.num_prompts} web"
    )
