"""Selection by the implicit gap: two language models, and the rewards that say what is chosen."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.presets import load_config
from infra.rewards.implicit import load_implicit_scorer
from pvar.errors import ConfigError
from pvar.ports import ScoreRequest
from pvar.records import Pair, Prompt
from tasks.engine.tables import MeasuredPrompt, PromptVariance
from tests.unit.infra.tiny_models import save_language_model
from tests.workflow import Workflow, start_workflow

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of libraries
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def gaps_under(
    policy: Path, reference: Path, pairs: list[Pair], prompts: list[Prompt]
) -> dict[str, float]:
    """The implicit gap of each prompt's pair, with β = 0.5."""
    messages = {prompt.prompt_id: prompt.messages for prompt in prompts}
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
    return gaps


def selected_by(flow: Workflow) -> set[str]:
    table = flow.artifact("select").rows("variance.parquet", PromptVariance)
    return {row.prompt_id for row in table if row.selected}


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
    prompts = every.artifact("ingest").rows("prompts.parquet", Prompt)
    gaps = gaps_under(policy, reference, pairs, prompts)
    assert np.ptp(list(gaps.values())) > 1

    for flow, sign in ((small, 1), (large, -1)):
        selected = selected_by(flow)
        wanted = sorted(gaps, key=lambda prompt: sign * gaps[prompt])[: len(selected)]
        assert selected == set(wanted)
        kept = flow.artifact("pair").rows("pairs.parquet", Pair)
        assert {pair for pair in pairs if pair.prompt_id in selected} == set(kept)


def test_losses_are_those_of_the_first_policy_and_of_the_one_tuned_on_validation_pairs(
    tmp_path: Path,
) -> None:
    warm, validation, start = (
        save_language_model(tmp_path / name, seed=seed)
        for seed, name in enumerate(("warm", "validation", "start"))
    )
    models: list[dict[str, Any]] = [{"kind": "vader"}] + [
        {
            "kind": "implicit",
            "name": policy.name,
            "policy": str(policy),
            "reference": str(start),
            "beta": 0.5,
        }
        for policy in (warm, validation)
    ]
    both = start_workflow(
        tmp_path / "home",
        **{"score.reward_models": models, "select.strategy": "lossdiff_irm"},
    )
    both.make("ingest", "sample", "score-vader", "score-warm", "score-validation", "select")
    one = start_workflow(
        tmp_path / "home",
        **{"score.reward_models": models[:2], "select.strategy": "selective"},
    )
    one.make("select")
    by_vader = start_workflow(tmp_path / "home", **{"select.strategy": "all"})
    by_vader.make("select", "pair")
    pairs = by_vader.artifact("pair").rows("pairs.parquet", Pair)
    prompts = both.artifact("ingest").rows("prompts.parquet", Prompt)
    margins, after = (gaps_under(policy, start, pairs, prompts) for policy in (warm, validation))
    losses = {prompt: math.log1p(math.exp(-gap)) for prompt, gap in margins.items()}
    differences = {
        prompt: losses[prompt] - math.log1p(math.exp(-after[prompt])) for prompt in after
    }

    easiest = sorted(losses, key=lambda prompt: losses[prompt])
    assert selected_by(one) == set(easiest[: len(selected_by(one))])
    rows = both.artifact("select").rows("measures.parquet", MeasuredPrompt)
    widths = {row.prompt_id: row.value for row in rows if row.measure == "lossdiff_irm"}
    orders = [sorted(scores, key=lambda each: scores[each]) for scores in (margins, differences)]
    assert widths == pytest.approx(
        {
            prompt: max(abs((order.index(prompt) + 0.5) / len(order) - 0.5) for order in orders)
            for prompt in margins
        }
    )
    assert max(widths[prompt] for prompt in selected_by(both)) <= min(
        width for prompt, width in widths.items() if prompt not in selected_by(both)
    )


IMPLICIT = '{kind: implicit, policy: "./a", reference: "./b"}'
OTHER = '{kind: implicit, name: o, policy: "./o", reference: "./b"}'
UNLIKE = '{kind: implicit, name: o, policy: "./o", reference: "./b", beta: 0.5}'
SAME = '{kind: implicit, name: o, policy: "./a", reference: "./b"}'


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["select.strategy=implicit_gap_small"], "give exactly 1 of kind implicit"),
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
            ["select.strategy=lossdiff_irm", f"score.reward_models=[{{kind: vader}}, {IMPLICIT}]"],
            "give exactly 2 of kind implicit .the policy after a warm-up, then a policy tuned on",
        ),
        (
            [
                "select.strategy=selective",
                f"score.reward_models=[{{kind: vader}}, {IMPLICIT}, {OTHER}]",
            ],
            "give exactly 1 of kind implicit",
        ),
        (
            [
                "select.strategy=lossdiff_irm",
                f"score.reward_models=[{{kind: vader}}, {IMPLICIT}, {UNLIKE}]",
            ],
            r"their reward models differ .implicit: \./b, 0\.1; o: \./b, 0\.5",
        ),
        (
            [
                "select.strategy=lossdiff_irm",
                f"score.reward_models=[{{kind: vader}}, {IMPLICIT}, {SAME}]",
            ],
            r"have the same policy \./a",
        ),
        (
            [
                "select.strategy=selective",
                f"score.reward_models=[{{kind: vader}}, {IMPLICIT}]",
                "sample.adaptive={first_responses: 2}",
            ],
            "sample.adaptive gives all responses only to prompts with a high PVar",
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
