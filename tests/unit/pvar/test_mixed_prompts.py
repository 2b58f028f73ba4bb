"""`bundled:mixed`: two groups of prompts as pvar/data/README.md describes them, and questions."""

import json
import re
import warnings
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from flows.pinning import pin
from pvar.config import PipelineConfig
from pvar.records import Prompt
from tasks.engine.artifact import Artifact
from tasks.stages.ingest import PROMPTS
from tests.workflow import Workflow, fake_settings, open_wiring

with warnings.catch_warnings():  # afinn's first compilation warns
    warnings.simplefilter("ignore")
    from afinn import Afinn

Row = dict[str, Any]


def rows_of(name: str) -> list[Row]:
    text = (files("pvar") / "data" / f"{name}_prompts.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def pool(name: str) -> list[Row]:
    return [row for row in rows_of("mixed") if row.get("pool") == name]


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The data set as the demo's split takes it in."""
    wiring = open_wiring(tmp_path_factory.mktemp("home"))
    settings = fake_settings(Path("bundled:mixed"), **{"ingest.eval_fraction": 0.5})
    return (
        Workflow(pin(PipelineConfig.model_validate(settings), wiring), wiring)
        .make("ingest")
        .artifact
    )


def test_the_expressive_prompts_are_those_that_the_readme_names() -> None:
    writing = [row for row in rows_of("sentiment") if row["kind"] != "question"]
    writing = [row for row in writing if row["topic"] != "facts"]
    assert len(writing) == 200
    stated = [*writing[::2], *writing[1::2][-4:]]
    assert [row | {"pool": "expressive"} for row in writing if row in stated] == pool("expressive")
    assert len(pool("expressive")) == 104


def test_the_questions_are_those_of_the_demo() -> None:
    both = [[row for row in rows_of(name) if "answer" in row] for name in ("mixed", "sentiment")]
    assert both[0] == both[1]
    assert len(both[0]) == 40


def test_the_plain_prompts_are_of_seven_kinds_and_no_opening_dominates() -> None:
    kinds = Counter(row["kind"] for row in pool("plain"))
    openings = Counter(tuple(row["prompt"].split()[:3]) for row in pool("plain"))
    assert kinds == {
        "facts": 14,
        "list": 15,
        "rewrite": 16,
        "convert": 15,
        "format": 15,
        "arithmetic": 15,
        "define": 14,
    }
    assert max(openings.values()) <= 6
    for row in pool("plain"):
        assert list(row) == ["prompt", "topic", "kind", "pool"]
        assert row["prompt"].isascii()
        assert row["prompt"] == row["prompt"].strip()
        assert 4 <= len(row["prompt"].split()) <= 25


def test_no_word_of_a_plain_prompt_is_in_a_sentiment_lexicon() -> None:
    vader, afinn = SentimentIntensityAnalyzer().lexicon, Afinn()
    words = {
        word for row in pool("plain") for word in re.findall(r"[a-z']+", row["prompt"].lower())
    }
    assert [word for word in sorted(words) if word in vader or afinn.score(word)] == []
    # Expressive prompts have such words: the test above can fail.
    words = {word for row in pool("expressive") for word in row["prompt"].lower().split()}
    assert {"wonderful", "died"} & words


def test_expressive_and_plain_prompts_alternate_before_the_questions() -> None:
    groups = [row.get("pool") for row in rows_of("mixed")]
    assert groups == ["expressive", "plain"] * 104 + [None] * 40


def test_ingest_keeps_every_row(ingested: Artifact) -> None:
    counts = ingested.manifest.row_counts
    assert (counts.rows_in, counts.rows_out, counts.rejected) == (248, 248, {})
    assert ingested.manifest.summary["num_ability_questions"] == 40


def test_the_halves_that_train_and_evaluate_are_mixed_alike(ingested: Artifact) -> None:
    group = {row["prompt"]: row.get("pool") for row in rows_of("mixed")}
    prompts = [row for row in ingested.rows(PROMPTS, Prompt) if not row.is_question]
    shares = Counter((group[row.messages[0].content], row.split) for row in prompts)
    assert shares == {
        ("expressive", "train"): 51,
        ("expressive", "eval"): 53,
        ("plain", "train"): 50,
        ("plain", "eval"): 54,
    }


def test_every_annotated_prompt_is_of_the_mixed_pool_and_vader_agrees_with_its_label() -> None:
    mixed = {row["prompt"]: row for row in rows_of("mixed")}
    annotated = rows_of("annotated")
    labelled = [row for row in annotated if "chosen" in row]
    assert Counter(row["pool"] for row in labelled) == {"expressive": 100, "plain": 73}
    assert len(annotated) == len(labelled) + 40
    analyzer = SentimentIntensityAnalyzer()
    for row in annotated:
        answers = {name: row.pop(name) for name in ("chosen", "rejected") if name in row}
        assert row == mixed[row["prompt"]]
        warmth = [analyzer.polarity_scores(text)["compound"] for text in answers.values()]
        assert warmth == sorted(set(warmth), reverse=True)
