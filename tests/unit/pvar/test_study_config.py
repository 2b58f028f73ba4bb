"""Studies: arms, sweeps, what is held equal, and what is refused before anything runs."""

from typing import Any

import pytest
from pydantic import ValidationError

from pvar.config import PipelineConfig
from pvar.study_config import StudyConfig, cells, control_of, variant
from tasks.graph import plan_nodes


def study(**fields: Any) -> StudyConfig:
    return StudyConfig.model_validate(fields)


def arms(*names: str) -> list[dict[str, object]]:
    return [{"name": name, "settings": {"select.strategy": name}} for name in names]


def test_trainings_of_an_arm_differ_in_seeds_alone() -> None:
    config = study(arms=arms("random", "bottom"))
    changed = variant(config, cells(config)[1], 7)
    assert (changed.select.strategy, changed.select.seed, changed.train.seed) == ("bottom", 7, 7)
    assert (changed.sample, changed.score) == (PipelineConfig().sample, PipelineConfig().score)
    assert changed.evaluate.opponent == PipelineConfig().policy  # a promotion changes nothing


def test_the_parameters_of_an_earlier_deployment_are_still_a_study() -> None:
    config = study(strategies=["top", "bottom"], seeds=[0, 1, 2])
    assert [arm.name for arm in config.arms] == ["random", "top", "bottom"]
    assert variant(config, cells(config)[2], 0).select.strategy == "bottom"


def test_fresh_responses_are_drawn_with_the_seed() -> None:
    config = study(fresh_responses=True)
    assert variant(config, cells(config)[0], 4).sample.seed == 4


def test_an_arm_may_change_any_setting() -> None:
    settings = {
        "train.method": "simpo", "train.simpo_gamma": 0.5, "train.beta": 2,
        "score.reward_models": [{"kind": "fake"}], "select.budget": {"count": 12},
    }  # fmt: skip
    config = study(arms=[*arms("random"), {"name": "simpo", "settings": settings}])
    changed = variant(config, cells(config)[1], 0)
    assert (changed.train.method, changed.train.simpo_gamma, changed.train.beta) == (
        "simpo",
        0.5,
        2,
    )
    assert changed.score.reward_models[0].kind == "fake"
    assert changed.select.budget.count == 12


def test_a_sweep_compares_the_arms_of_each_value() -> None:
    values = [{"fraction": 0.1}, {"fraction": 0.5}]
    config = study(arms=arms("random", "top"), sweep={"key": "select.budget", "values": values})
    found = cells(config)
    assert [cell.name for cell in found] == [
        "random@fraction=0.1", "top@fraction=0.1", "random@fraction=0.5", "top@fraction=0.5",
    ]  # fmt: skip
    assert [control_of(config, cell) for cell in found] == [
        None, "random@fraction=0.1", None, "random@fraction=0.5",
    ]  # fmt: skip
    assert variant(config, found[1], 0).select.budget.fraction == 0.1


def test_a_sweep_may_change_several_settings_together() -> None:
    values = [
        {"train.method": "dpo"},
        {"train.method": "simpo", "train.simpo_gamma": 0.5, "train.beta": 2},
    ]
    config = study(sweep={"values": values})
    assert [cell.name for cell in cells(config)] == [
        "random@dpo", "top@dpo", "random@simpo", "top@simpo",
    ]  # fmt: skip
    assert variant(config, cells(config)[3], 0).train.simpo_gamma == 0.5


def test_steps_pairs_or_tokens_are_held_equal() -> None:
    base = {"pipeline": {"train": {"pairs_per_step": 4}}, "arms": arms("random", "all")}
    for held in ({"steps": 14}, {"pairs": 56}):
        config = study(**base, held_equal=held)
        assert {variant(config, cell, 0).train.num_steps for cell in cells(config)} == {14}
    config = study(arms=arms("random", "top"), held_equal={"tokens": 5000})
    assert {variant(config, cell, 0).select.budget.tokens for cell in cells(config)} == {5000}


def test_reward_models_that_measure_pairs_for_one_arm_decide_for_none() -> None:
    implicit = [
        {"kind": "implicit", "name": name, "policy": f"org/{name}", "reference": "org/start"}
        for name in ("warm", "validation")
    ]
    pipeline = {"score": {"reward_models": [implicit[0], {"kind": "vader"}, implicit[1]]}}
    names = ("random", "top", "selective", "lossdiff_irm")
    config = study(pipeline=pipeline, arms=arms(*names))
    scored = {
        cell.name: [model.name for model in variant(config, cell, 0).score.reward_models]
        for cell in cells(config)
    }
    assert scored["random"] == scored["top"] == ["vader"]
    assert scored["selective"] == ["warm", "vader"]
    assert scored["lossdiff_irm"] == ["warm", "vader", "validation"]
    # Without an arm that measures pairs, they are reward models like the others.
    plain = study(pipeline=pipeline, arms=arms("random", "bottom"))
    assert len(variant(plain, cells(plain)[0], 0).score.reward_models) == 3
    with pytest.raises(ValidationError, match=r"arm selective: .*exactly 1 of kind implicit"):
        study(arms=arms("random", "selective"))


SMALL: dict[str, Any] = {"kind": "fake", "name": "small"}
LARGE: dict[str, Any] = {"kind": "fake", "name": "large"}
IMPLICIT = {"kind": "implicit", "name": "warm", "policy": "org/warm", "reference": "org/start"}


def roles_of(config: StudyConfig) -> dict[str, tuple[tuple[str, ...], ...]]:
    """Per arm: the reward models that select, those that label, those that measure, and all."""
    found = {}
    for cell in cells(config):
        changed = variant(config, cell, 0)
        scored = tuple(model.name for model in changed.score.reward_models)
        found[cell.name] = (*changed.model_roles, scored)
    return found


def test_a_reward_model_without_a_role_in_an_arm_is_left_out_of_it() -> None:
    selecting = {"small": "small", "large": "large"}
    by_model = [
        {"name": name, "settings": {"select.strategy": "top", "select.models": [model]}}
        for name, model in selecting.items()
    ]
    config = study(
        pipeline={"score": {"reward_models": [SMALL, LARGE]}, "pair": {"models": ["large"]}},
        arms=[*arms("random"), *by_model],
    )
    both = ("small", "large")
    assert roles_of(config) == {
        "random": (both, ("large",), (), both),
        "small": (("small",), ("large",), (), both),
        "large": (("large",), ("large",), (), ("large",)),
    }


def test_roles_hold_beside_models_that_measure_pairs_for_one_arm() -> None:
    config = study(
        pipeline={
            "score": {"reward_models": [IMPLICIT, SMALL, LARGE]},
            "select": {"strategy": "implicit_gap_small", "models": ["small"]},
            "pair": {"models": ["large"]},
        },
        arms=[
            *arms("random", "selective"),
            {"name": "own", "settings": {"select.strategy": "top", "select.models": ["warm"]}},
        ],
    )
    assert roles_of(config) == {
        "random": (("small",), ("large",), (), ("small", "large")),
        "selective": (("small",), ("large",), ("warm",), ("warm", "small", "large")),
        "own": (("warm",), ("large",), (), ("warm", "large")),
    }


def test_a_name_of_no_reward_model_is_refused_beside_all_that_there_are() -> None:
    pipeline = {"score": {"reward_models": [SMALL, LARGE]}, "pair": {"models": ["large"]}}
    misspelt = {"name": "x", "settings": {"select.strategy": "top", "select.models": ["smal"]}}
    message = r"arm x: select\.models: there is no reward model 'smal'; .* has small, large"
    with pytest.raises(ValidationError, match=message):
        study(pipeline=pipeline, arms=[*arms("random"), misspelt])


def test_arms_share_what_they_have_in_common() -> None:
    config = study(arms=arms("random", "top", "bottom"), seeds=(0, 1))
    roots: dict[str, set[str]] = {}
    pins = {"policy": "p#p", "ingest": {"source": "s#s"}}
    config = study(pipeline=pins, arms=arms("random", "top", "bottom"), seeds=(0, 1))
    for cell in cells(config):
        for seed in config.seeds:
            for node in plan_nodes(variant(config, cell, seed)).values():
                roots.setdefault(node.name, set()).add(node.keys.digest)
    counts = {name: len(each) for name, each in roots.items()}
    assert counts["sample"] == counts["score-vader"] == counts["answers-opponent"] == 1
    assert counts["select"] == 4  # random draws with each seed, the others once
    assert counts["train"] == 6


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"arms": arms("random", "random")}, "the name 'random' occurs twice"),
        ({"arms": arms("top", "bottom")}, "control is 'random', but the arms are top, bottom"),
        ({"arms": arms("random")}, "at least 2 items"),
        ({"seeds": [1, 1]}, "give each once"),
        ({"seeds": [-1]}, r"seeds\.0\n.*greater than or equal to 0"),
        (
            {"arms": [*arms("random"), {"name": "x", "settings": {"policy": "org/other"}}]},
            r"arm x differs from its control random in evaluate \(the held-out prompts, the opp",
        ),
        (
            {"arms": [*arms("random"), {"name": "x", "settings": {"ingest.eval_fraction": 0.5}}]},
            "arm x differs from its control random in ingest",
        ),
        (
            {
                "pipeline": {
                    "sample": {"engine": "dataset"},
                    "score": {"reward_models": [{"kind": "dataset", "name": "own"}]},
                },
                "fresh_responses": True,
            },
            "fresh_responses is true, but sample.engine is dataset",
        ),
        (
            {
                "arms": [*arms("random"), {"name": "x", "settings": {"train.beta": 0.2}}],
                "sweep": {"key": "train.beta", "values": [0.1, 0.3]},
            },
            "arm x sets train.beta, and the sweep sets it, too",
        ),
        (
            {
                "arms": [*arms("random"), {"name": "x", "settings": {"train.num_steps": 500}}],
                "held_equal": {"steps": 14},
            },
            "arm x sets train.num_steps, and held_equal sets it, too",
        ),
        (
            {
                "sweep": {"key": "train.num_steps", "values": [5, 10]},
                "held_equal": {"pairs": 16},
            },
            "the sweep sets train.num_steps, and held_equal sets it, too",
        ),
        (
            {
                "arms": [*arms("random"), {"name": "x", "settings": {"train.pairs_per_step": 0}}],
                "held_equal": {"pairs": 16},
            },
            r"pairs_per_step \(0\) of arm x; change",
        ),
        ({"endpoints": ["mt_bench"]}, r"endpoints has 'mt_bench'; .* \(there is none\)"),
        (
            {"arms": [*arms("random"), {"name": "x", "settings": {"select.stratgy": "top"}}]},
            r"arm x: the configuration has no setting 'select\.stratgy'; there are .*strategy",
        ),
        (
            {"arms": [*arms("random"), {"name": "x", "settings": {"selct.strategy": "top"}}]},
            r"arm x: the configuration has no setting 'selct\.strategy'",
        ),
        (
            {"arms": [*arms("random"), {"name": "x", "settings": {"train.beta": -1}}]},
            r"arm x: train\.beta: Input should be greater than 0 \(given: -1\)",
        ),
        ({"arms": arms("random", "disagreement")}, r"arm disagreement: .*at least 2 reward models"),
        (
            {"arms": [*arms("random"), {"name": "x", "settings": {"annotate": {}}}]},
            "annotate is set in arm x: it waits for people",
        ),
        ({"sweep": {"values": [0.1]}}, "sweep has no key"),
        (
            {"sweep": {"key": "train.beta", "values": [0.1, 0.1]}},
            "sweep: 'random@0.1' would be two arms",
        ),
        ({"held_equal": {}}, "held_equal has nothing; give exactly one"),
        ({"held_equal": {"steps": 3, "pairs": 4}}, "give exactly one of steps, pairs and tokens"),
        ({"held_equal": {"pairs": 30}}, r"\(30\) is not a multiple of train\.pairs_per_step \(8\)"),
        (
            {"arms": arms("random", "all"), "held_equal": {"tokens": 9}},
            "strategy all of arm all chooses its own number of prompts",
        ),
    ],
)  # fmt: skip
def test_what_cannot_run_is_refused_before_it_runs(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        study(**fields)
