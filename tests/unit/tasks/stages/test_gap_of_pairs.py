"""Selection by the implicit gap: two language models, and the rewards that say what is chosen."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.presets import load_config
from infra.rewards.implicit import load_implicit_scorer
from pvar.errors import ConfigError
from pvar.ports import ScoreRequest
from pvar.records import Pair, Prompt
from tasks.engine.tables import PromptVariance
from tests.unit.infra.tiny_models import save_language_model
from tests.workflow import start_workflow

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of libraries
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def test_prompts_with_the_smallest_gap_are_selected_and_pairs_stay_the_rewards(
    tmp_path: Path,
) -> None:
    policy = save_language_model(tmp_path / "tuned", seed=1)
    reference = save_language_model(tmp_path / "start", seed=2)
    implicit = {
        "kind": "implicit", "policy": str(policy), "reference": str(reference), "beta": 0.5
    }  # fmt: skip
    models: list[dict[str, Any]] = [{"kind": "vader"}, implicit]
    nodes = ("ingest", "sample", "score-vader", "score-implicit", "select")
    changes = {"score.reward_models": models}
    every = start_workflow(tmp_path / "home", **changes, **{"select.strategy": "all"})
    small = start_workflow(
        tmp_path / "home", **changes, **{"select.strategy": "implicit_gap_small"}
    )
    large = start_workflow(
        tmp_path / "home", **changes, **{"select.strategy": "implicit_gap_large"}
    )
    small.make(*nodes, "pair")
    large.make("select", "pair")
    # The pairs of all prompts by VADER alone.
    by_vader = start_workflow(tmp_path / "home", **{"select.strategy": "all"})
    by_vader.make("select", "pair")
    pairs = by_vader.artifact("pair").rows("pairs.parquet", Pair)
    messages = {
        prompt.prompt_id: prompt.messages
        for prompt in every.artifact("ingest").rows("prompts.parquet", Prompt)
    }
    scorer = load_implicit_scorer(policy, reference, 0.5, 300)
    gaps = {}
    for pair in pairs:
        requests = [
            ScoreRequest(pair.prompt_id, text, messages[pair.prompt_id], text)
            for text in (pair.chosen, pair.rejected)
        ]
        chosen, rejected = (score.reward for score in scorer.score(requests))
        assert chosen is not None
        assert rejected is not None
        gaps[pair.prompt_id] = chosen - rejected
    assert np.ptp(list(gaps.values())) > 1

    for flow, sign in ((small, 1), (large, -1)):
        table = flow.artifact("select").rows("variance.parquet", PromptVariance)
        selected = {row.prompt_id for row in table if row.selected}
        wanted = sorted(gaps, key=lambda prompt: sign * gaps[prompt])[: len(selected)]
        assert selected == set(wanted)
        kept = flow.artifact("pair").rows("pairs.parquet", Pair)
        assert {pair for pair in pairs if pair.prompt_id in selected} == set(kept)


IMPLICIT = '{kind: implicit, policy: "./a", reference: "./b"}'


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["select.strategy=implicit_gap_small"], "give exactly one of kind implicit"),
        (
            ["select.strategy=implicit_gap_large", f"score.reward_models=[{IMPLICIT}]"],
            "which decides what is chosen",
        ),
        (
            [
                "select.strategy=implicit_gap_small",
                f"score.reward_models=[{{kind: vader}}, {IMPLICIT}]",
                "pair.rule=original",
            ],
            "annotated answers are not scored",
        ),
        (
            ['score.reward_models=[{kind: implicit, policy: "./a", reference: "./a"}]'],
            "every reward would be 0",
        ),
    ],
)
def test_a_gap_that_cannot_be_measured_is_refused(changes: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, changes)
