"""The certificate of two planted pools: one of which half teaches nothing, and one of like prompts.

Selection, table and verdict are the product's. Training is planted: a model gains as much as the
mean teaching of the prompts that it saw, trainings scatter, and every verdict has noise.
"""

import numpy as np
from numpy.typing import NDArray

from pvar.selection import Budget, Candidates, RewardMatrix, measure_rewards, select
from pvar.study_config import StudyConfig
from pvar.study_results import FIGURES, TrainingResult, tabulate

STUDY = StudyConfig.model_validate(
    {
        "arms": [
            {"name": name, "settings": {"select.strategy": name}}
            for name in ("random", "top", "bottom")
        ],
    }
)
NUM_PROMPTS, NUM_RESPONSES, EXAM = 200, 8, 300
GAIN, SCATTER = 0.16, 0.015
"""Win rate that prompts which all teach add, and the standard deviation of a training's."""


def verdicts(rng: np.random.Generator, spread: NDArray[np.float64]) -> dict[str, str]:
    """Verdicts of one study. `spread` is how much a prompt's rewards differ, and it teaches."""
    rewards = rng.normal(size=(NUM_PROMPTS, NUM_RESPONSES)) * spread[:, None]
    ids = np.array([f"p{row}" for row in range(NUM_PROMPTS)])
    candidates = Candidates(ids, measure_rewards(RewardMatrix(rewards[None], (1.0,))))
    teaching = dict(zip(ids.tolist(), (spread / spread.max()).tolist(), strict=True))
    difficulty = rng.normal(0, 0.1, EXAM)
    results: dict[str, list[TrainingResult]] = {}
    for arm in STUDY.arms:
        for seed in STUDY.seeds:
            strategy = str(arm.settings["select.strategy"])
            chosen = select(candidates, strategy, Budget(fraction=0.5), seed=seed)
            taught = float(np.mean([teaching[each] for each in chosen.prompt_ids.tolist()]))
            rate = 0.5 + GAIN * taught + rng.normal(0, SCATTER)
            results.setdefault(arm.name, []).append(_trained(rng, rate, difficulty))
    return {row.cell: row.claim.verdict for row in tabulate(STUDY, results, {}) if row.claim}


def _trained(
    rng: np.random.Generator, rate: float, difficulty: NDArray[np.float64]
) -> TrainingResult:
    values = np.clip(rate + difficulty + rng.normal(0, 0.15, EXAM), 0, 1)
    preferences = {f"e{row}": float(value) for row, value in enumerate(values)}
    return TrainingResult({"evaluate": preferences}, {}, dict.fromkeys(FIGURES))


def test_selection_helps_on_a_pool_of_which_half_teaches_nothing() -> None:
    """Top finds the half that teaches, random half of it: a difference of GAIN / 2 = 8 points."""
    rng = np.random.default_rng(1)
    spread = np.where(np.arange(NUM_PROMPTS) % 2, 2.0, 0.01)
    found = [verdicts(rng, spread) for _ in range(20)]
    assert sum(each["top"] == "helps" for each in found) >= 19
    assert sum(each["bottom"] == "hurts" for each in found) >= 19
    assert not any(each["top"] == "hurts" or each["bottom"] == "helps" for each in found)


def test_nothing_is_claimed_on_a_pool_of_like_prompts() -> None:
    """PVar differs by luck there, and what is taught does not: at most 5 % of studies claim."""
    rng = np.random.default_rng(2)
    found = [verdicts(rng, np.full(NUM_PROMPTS, 2.0)) for _ in range(60)]
    claims = [set(each.values()) & {"helps", "hurts"} for each in found]
    assert sum(map(bool, claims)) <= 7  # 5 % of 60 are 3; 8 or more come up once in 90 times
