"""The published studies: their tables follow from the published outcomes."""

import gzip
import json
from collections import defaultdict
from importlib.resources import files
from pathlib import Path

import pytest

from infra.studies import load_study
from pvar.prompt_rows import parse_prompt
from pvar.records import Prompt
from pvar.study_config import cells
from pvar.study_results import FIGURES, TrainingResult, tabulate

FOLDER = Path(__file__).parents[2] / "docs" / "studies"
STUDIES = sorted(path.parent.name for path in FOLDER.glob("*/certificate.json"))


def published_results(study: str) -> dict[str, list[TrainingResult]]:
    values: dict[tuple[str, int], dict[str, float]] = defaultdict(dict)
    with gzip.open(FOLDER / study / "outcomes.jsonl.gz", "rt", encoding="utf-8") as file:
        for row in map(json.loads, file):
            if row["endpoint"] == "evaluate":
                values[row["arm"], row["seed"]][row["prompt_id"]] = row["value"]
    results: dict[str, list[TrainingResult]] = defaultdict(list)
    for (arm, _), of_prompts in values.items():
        training = TrainingResult({"evaluate": of_prompts}, {}, dict.fromkeys(FIGURES))
        results[arm].append(training)
    return results


def test_the_studies_are_there() -> None:
    assert STUDIES == ["frontier-cpu", "mixed-pool", "uniform-pool"]


@pytest.mark.parametrize("study", STUDIES)
def test_the_table_follows_from_the_outcomes(study: str) -> None:
    certificate = json.loads((FOLDER / study / "certificate.json").read_text())
    rows = {row.cell: row for row in tabulate(load_study(study), published_results(study), {})}
    assert {row["cell"] for row in certificate["arms"]} == set(rows)
    planned = len(cells(load_study(study))) * len(load_study(study).seeds)
    is_interim = sum(row.num_trainings for row in rows.values()) < planned
    assert certificate["interim"] is is_interim
    page = (FOLDER / study / "certificate.md").read_text()
    assert ("**Interim**" in page) is is_interim
    for said in certificate["arms"]:
        row = rows[said["cell"]]
        assert said["by_training"] == pytest.approx(sorted_as(row.by_training, said["by_training"]))
        assert said["win_rate"]["difference"] == pytest.approx(row.win_rate.difference)
        if row.claim is None:
            continue
        assert certificate["verdicts"][row.cell] == row.claim.verdict
        for end in ("difference", "ci_lower", "ci_upper"):
            claimed = said["claim"]["difference"][end]
            assert claimed == pytest.approx(getattr(row.claim.difference, end))


def test_the_table_by_source_follows_from_the_outcomes() -> None:
    lines = Path(str(files("pvar") / "data" / "mixed_prompts.jsonl")).read_text().splitlines()
    fields = [json.loads(line) for line in lines]
    prompts = [parse_prompt(row, row.get("pool", "questions")) for row in fields]
    sources = {row.prompt_id: row.source for row in prompts if isinstance(row, Prompt)}
    study = load_study("mixed-pool")
    rows = tabulate(study, published_results("mixed-pool"), {}, sources=sources)
    page = (FOLDER / "README.md").read_text()
    for source in ("expressive", "plain"):
        found = [row.by_source[source] for row in rows if row.by_source]
        values = [
            f"{100 * each.difference:+.1f} "
            f"({100 * each.ci_lower:+.1f} to {100 * each.ci_upper:+.1f})"
            for each in found
        ]
        (number,) = {each.num_prompts for each in found}
        line = f"| {source} | {number} | {' | '.join(values)} |"
        assert line.replace("-", "−") in page


def sorted_as(values: tuple[float, ...], order: list[float]) -> list[float]:
    """The values in the order of another list of as many."""
    ranks = sorted(range(len(order)), key=order.__getitem__)
    found = [0.0] * len(order)
    for rank, value in zip(ranks, sorted(values), strict=True):
        found[rank] = value
    return found
