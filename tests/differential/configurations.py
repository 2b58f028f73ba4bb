"""The pipeline configurations that are compared, by name.

None needs a server. Engines, rewards and judges are fakes or lexicons where a figure must be the
same on every machine, and tiny random models where the models are the point.
"""

from dataclasses import replace

from pydantic import JsonValue

from tests.differential.sources import (
    BAD_ROWS,
    FEW,
    LIKE_OTHERS,
    LONG,
    PROMPTS,
    QUESTIONS,
    conversations,
    scored_labels,
)
from tests.differential.vocabulary import Configuration, Faults, Run, Settings

BUNDLED = "bundled:smollm2-135m-instruct"
"""Never loaded by fakes, and pinned without a network."""

VADER: JsonValue = {"kind": "vader"}
FAKE: JsonValue = {"kind": "fake"}
OTHER_FAKE: JsonValue = {"kind": "fake", "name": "other"}
IMPLICIT: JsonValue = {
    "kind": "implicit", "policy": "model:tuned", "reference": "model:policy", "beta": 0.5
}  # fmt: skip

_top = Run(
    {"runtime.sampled_responses_per_shard": 12, "evaluate.opponent": "champion"},
    goal="promotion",
    source=PROMPTS,
)

_models: Settings = {
    "sample.engine": "transformers",
    "sample.dtype": "float32",
    "sample.temperature": 1.3,
    "sample.top_p": 0.9,
    "score.reward_models": [
        {"kind": "classifier", "name": "tiny", "model": "model:reward", "dtype": "float32"}
    ],
    "train.lora": {"rank": 4, "alpha": 8},
    "evaluate.judge": {
        "kind": "reward_model",
        "scale": 0.5,
        "reward_model": {
            "kind": "classifier", "name": "judge", "model": "model:judge", "dtype": "float32"
        },
    },
    "evaluate.answers.engine": "transformers",
    "evaluate.answers.dtype": "float32",
    "evaluate.answers.temperature": 1.0,
    # Untrained bytes seldom end: cut-off answers are all there is.
    "select.keep_truncated": True,
}  # fmt: skip

_FORMATS = ("sample.dtype", "evaluate.answers.dtype")

_retraining = Run(
    {
        "evaluate.opponent": "champion",
        "evaluate.judge": {"kind": "fake"},
        "evaluate.answers.engine": "transformers",
        "evaluate.answers.dtype": "float32",
    },
    goal="promotion",
)

CONFIGURATIONS: dict[str, Configuration] = {
    "top": Configuration.of(replace(_top, num_gradients=6)),
    "killed": Configuration.of(
        replace(
            _top,
            num_gradients=6,
            deaths=(
                "ingest/*/manifest.json",
                "sample/*/shards/00003.json",
                "score/*/shards/00001-*/scores.parquet",
                "select/*/shards/00000.json",
                "reference/*/manifest.json",
                "train/*/checkpoints/00000004.json",
                "train/*/manifest.json",
                "sample/*/manifest.json",
                "evaluate/*/shards/00000.json",
                "promote/*/shards/00000.json",  # the alias was moved already
            ),
        ),
        same_as="top",
    ),
    "bottom": Configuration.of(
        Run(goal="promotion", source=PROMPTS),
        {
            "select.strategy": "bottom",
            "select.budget": {"count": 12},
            "select.pairs": "best_random",
            "select.pairs_per_prompt": 2,
            "select.seed": 3,
            "train.method": "ipo",
            "evaluate.judge": {"kind": "fake"},
            "evaluate.judge_orders": "seeded",
            "evaluate.num_answers": 2,
            "evaluate.confidence": 0.9,
        },
    ),
    "random": Configuration.of(
        Run(goal="promotion", source=PROMPTS),
        {
            "sample.num_responses": 8,
            "sample.seed": 5,
            "select.strategy": "random",
            "select.seed": 7,
            "select.pairs": "max_mu_minus_2sigma",
            "select.pairs_per_prompt": 2,
            "train.method": "kto",
            "train.seed": 7,
            "evaluate.judge": {"kind": "fake", "missing_share": 0.2},
            "promote.min_coverage": 0.3,
        },
    ),
    "all": Configuration.of(
        Run(goal="promotion", source=PROMPTS),
        {
            "ingest.near_duplicate_similarity": None,
            "select.strategy": "all",
            "select.min_margin": 1.0,
            "train.method": "simpo",
            "train.simpo_gamma": 0.5,
            "train.beta": 2.0,
            "train.lr_schedule": "cosine",
            "evaluate.judge": {
                "kind": "reward_model", "reward_model": {"kind": "fake", "missing_share": 0.1}
            },
            "promote.min_coverage": 0.3,
            "promote.mode": "never",
        },
    ),
    "threshold": Configuration.of(
        Run(goal="promotion", source=PROMPTS),
        {
            "select.strategy": "threshold",
            "select.threshold": 0.02,
            "train.method": "orpo",
            "evaluate.judge": {"kind": "reward_model", "reward_model": VADER},
            "evaluate.allow_circular_judge": True,
            "promote.mode": "approval",
        },
    ),
    "stratified": Configuration.of(
        Run(goal="model", source=(*PROMPTS, LONG)),
        {
            "select.strategy": "stratified",
            "select.seed": 2,
            "select.budget": {"count": 11},
            "train.lora": {"rank": 4, "alpha": 8, "keep_adapter": True},
            "train.lr_schedule": "constant_with_warmup",
            "train.warmup_share": 0.3,
            "train.max_length_tokens": 105,  # some pairs are longer
        },
    ),
    "reward_gap": Configuration.of(
        Run(goal="model", source=PROMPTS),
        {
            "select.strategy": "reward_gap",
            "select.budget": {"tokens": 150},
            "train.lora": {"rank": 4, "alpha": 8, "dropout": 0.1},
            "train.precision": "bfloat16",
        },
    ),
    "reward_variance": Configuration.of(
        Run(source=PROMPTS),
        {
            "score.reward_models": [VADER, FAKE],
            "select.strategy": "reward_variance",
            "select.reward_scale": "spread",
        },
    ),
    "disagreement": Configuration.of(
        Run(source=PROMPTS),
        {
            "score.reward_models": [VADER, FAKE, OTHER_FAKE],
            "select.strategy": "disagreement",
            "select.combination": "mean_probability",
            "select.reward_scale": 2.0,
            "select.pairs": "best_random",
        },
    ),
    "implicit_gap_small": Configuration.of(
        Run(source=PROMPTS),
        {
            "score.reward_models": [VADER, IMPLICIT],
            "select.strategy": "implicit_gap_small",
            "select.pairs": "best_random",
            "select.pairs_per_prompt": 2,
        },
    ),
    "implicit_gap_large": Configuration.of(
        Run(source=PROMPTS),
        {
            "score.reward_models": [FAKE, IMPLICIT, VADER],
            "select.strategy": "implicit_gap_large",
            "select.min_margin": 1.5,  # a prompt without a pair has no gap
        },
    ),
    "labels": Configuration.of(
        Run(source=scored_labels()[5:24]),
        {
            "policy": BUNDLED,
            "evaluate.opponent": BUNDLED,
            "sample.num_responses": 2,
            "select.pairs": "original",
            "select.min_margin": 2.5,
            "select.budget": {"fraction": 0.95},
        },
    ),
    "unscored_labels": Configuration.of(
        Run(goal="model", source=conversations()),
        {"select.pairs": "original", "select.strategy": "random", "train.method": "ipo"},
    ),
    "adaptive": Configuration.of(
        Run(source=PROMPTS[:12], faults=Faults(truncated_share=0.2)),
        {
            "policy": BUNDLED,
            "evaluate.opponent": BUNDLED,
            "sample.num_responses": 6,
            "sample.adaptive": {"first_responses": 2, "second_round_share": 0.4},
            "score.reward_models": [VADER, FAKE],
            "select.combination": "mean_probability",
            "select.keep_truncated": True,
            "select.missing_eos_penalty": 1.0,
        },
    ),
    "adaptive_spread": Configuration.of(
        Run(goal="model", source=(*PROMPTS, LONG), faults=Faults(empty_share=0.1)),
        {
            "sample.num_responses": 8,
            "sample.max_prompt_tokens": 40,
            "sample.adaptive": {"first_responses": 3, "second_round_share": 0.5},
            "select.reward_scale": "spread",
            "select.pairs_per_prompt": 3,
        },
    ),
    "missing": Configuration.of(
        Run(
            goal="promotion",
            source=(*PROMPTS, LONG),
            faults=Faults(truncated_share=0.1, empty_share=0.1, nan_share=0.1),
        ),
        {
            "sample.max_prompt_tokens": 40,
            "evaluate.answers.max_prompt_tokens": 5,
            "score.reward_models": [VADER, {"kind": "fake", "missing_share": 0.2}],
            "evaluate.judge": {"kind": "fake", "missing_share": 0.1},
            "evaluate.allow_circular_judge": True,
            "promote.min_coverage": 0.3,
        },
    ),
    "truncated": Configuration.of(
        Run(goal="promotion", source=PROMPTS, faults=Faults(truncated_share=0.4)),
        {
            "sample.num_responses": 6,
            "select.keep_truncated": True,
            "select.missing_eos_penalty": 1.5,
            "promote.min_ended_share": 0.9,
        },
    ),
    "questions": Configuration.of(
        Run(goal="promotion", source=(*PROMPTS[:11], *QUESTIONS), trains=False),
        {
            "policy": BUNDLED,
            "evaluate.opponent": "champion",
            "evaluate.num_answers": 2,
            "sample.num_responses": 3,
        },
    ),
    "duplicates": Configuration.of(
        Run(
            source=(*BAD_ROWS, *PROMPTS, *LIKE_OTHERS),
            benchmark=(
                "Please describe the self-checkout machine.",
                "Write about an old bicycle repaired by a clown.",
                "What is the capital of Peru?",
            ),
        ),
        {"ingest.near_duplicate_similarity": 0.7, "ingest.decontaminate_ngram_words": 3},
    ),
    "models": Configuration.of(Run(_models, goal="promotion", source=FEW)),
    "default_formats": Configuration.of(
        Run(
            {
                **{key: value for key, value in _models.items() if key not in _FORMATS},
                "score.reward_models": [
                    {"kind": "classifier", "name": "tiny", "model": "model:reward"}
                ],
            },
            by_default=("train.precision",),
            goal="promotion",
            source=FEW,
        )
    ),
    "processes": Configuration.of(
        Run(goal="model", source=PROMPTS),
        {"runtime.num_processes": 2, "runtime.pairs_per_device": 2, "train.num_epochs": 1},
    ),
    "retraining": Configuration(
        (
            replace(
                _retraining,
                arriving={
                    "monday.jsonl": PROMPTS[:12],
                    "broken.jsonl": BAD_ROWS[:3],
                    "tuesday.jsonl": (*PROMPTS[12:24], BAD_ROWS[1]),
                },
            ),
            replace(
                _retraining,
                changes={**_retraining.changes, "promote.max_ability_loss": 0.5},
                arriving={
                    "again.jsonl": PROMPTS[:12],  # monday's content
                    "wednesday.jsonl": (*PROMPTS[8:], *QUESTIONS),
                },
            ),
        )
    ),
    "variants": Configuration(
        (
            Run(goal="model", source=PROMPTS),
            Run({"select.pairs": "best_random", "select.pairs_per_prompt": 2}, source=PROMPTS),
            Run({"select.strategy": "random"}, source=PROMPTS),
            Run({"train.beta": 0.3}, goal="model", source=PROMPTS),
            Run({"score.reward_models": [VADER, FAKE]}, source=PROMPTS),
            Run({"runtime.responses_per_shard": 7}, goal="model", source=PROMPTS),
        )
    ),
    "no_rewards": Configuration.of(
        Run(source=FEW), {"score.reward_models": [{"kind": "fake", "missing_share": 1.0}]}
    ),
    "no_pairs": Configuration.of(
        Run(goal="promotion", source=FEW),
        {"select.strategy": "threshold", "select.threshold": 0.25},
    ),
}  # fmt: skip

GOLDEN = ("labels", "adaptive", "questions")
"""Kept in the repository: without a trained figure, so that they are the same on every machine."""
