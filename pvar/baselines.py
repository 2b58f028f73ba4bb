"""The baseline of each identity setting: the default that it had when it was introduced.

`pvar/identity.py` does not hash settings that equal their baseline. Rules, checked by the tests:

- A new field with a default gets a row here with that default. No digest changes.
- A row is never changed or removed, even if the default of the field changes later. Existing
  artifacts keep their digests, and configurations that relied on the old default get a new one.
- A field without a default has no row and is always hashed. So a new field of a stage's settings
  needs a default and a row, even if the configuration already has a default.

Values are as they are hashed: for a nested model, the fields that differ from its own baselines.
"""

from collections.abc import Mapping

from pydantic import JsonValue

BASELINES: Mapping[str, Mapping[str, JsonValue]] = {
    "IngestSpec": {
        "format": "auto",
        "columns": {},
        "source_field": None,
        "join_labels": False,
        "with_answers": False,
        "withdrawn": [],
        "strict_below_words": 0,
    },
    "QuestionsSpec": {"withdrawn": []},
    "LabelQuestions": {"format": "auto", "columns": {}},
    "SourceColumns": {
        "prompt": None,
        "messages": None,
        "conversations": None,
        "system": None,
        "instruction": None,
        "input": None,
        "chosen": None,
        "rejected": None,
        "completion": None,
        "label": None,
        "answer": None,
        "responses": None,
        "rewards": None,
        "score_chosen": None,
        "score_rejected": None,
    },
    "ExamQuestions": {"source_field": None},
    "SamplerSettings": {
        "engine": "transformers",
        "max_new_tokens": 512,
        "max_prompt_tokens": 2048,
        "temperature": 1.0,
        "top_p": 1.0,
        "dtype": "auto",
    },
    "VaderReward": {"name": "vader", "scale": 4.0},
    "ClassifierReward": {"dtype": "auto", "max_length_tokens": 4096},
    "ImplicitReward": {"name": "implicit", "beta": 0.1, "max_length_tokens": 4096},
    "FakeReward": {"name": "fake", "missing_share": 0.0},
    "DatasetReward": {"name": "dataset"},
    "RewardSettings": {
        "keep_truncated": False,
        "missing_eos_penalty": 0.0,
        "reward_scale": 1.0,
    },
    "SelectSpec": {"implicit_gap": None, "split": "train"},
    "PairSpec": {"split": "train"},
    "ImplicitGapSpec": {"further_models": [], "pair_models": None},
    "SelectConfig": {
        "keep_truncated": False,
        "missing_eos_penalty": 0.0,
        "reward_scale": 1.0,
        "strategy": "top",
        "budget": {"fraction": 0.5},
        "threshold": None,
        "combination": "mean_pvar",
        "seed": 0,
        "models": None,
    },
    "AnnotateSpec": {"uses_labels": False},
    "AnnotateConfig": {"budget": 100, "measure": "pvar_lower"},
    "PairConfig": {
        "rule": "best_worst",
        "own_labels": False,
        "pairs_per_prompt": 1,
        "min_margin": 0.0,
        "seed": 0,
        "models": None,
    },
    "Budget": {"fraction": None, "count": None, "tokens": None},
    "TrainConfig": {
        "method": "dpo",
        "beta": 0.1,
        "simpo_gamma": None,
        "learning_rate": 5e-07,
        "num_epochs": 1,
        "num_steps": None,
        "pairs_per_step": 8,
        "warmup_share": 0.1,
        "lr_schedule": "linear",
        "max_grad_norm": 1.0,
        "label_weight": 1,
        "max_length_tokens": 2048,
        "precision": "auto",
        "lora": None,
        "seed": 0,
    },
    "LoraAdapter": {"rank": 16, "alpha": 32, "dropout": 0.0, "keep_adapter": False},
    "RewardTrainConfig": {
        "learning_rate": 1e-05,
        "num_epochs": 1,
        "pairs_per_step": 8,
        "max_length_tokens": 2048,
        "seed": 0,
    },
    "RewardGateConfig": {
        "min_accuracy": 0.6,
        "max_accuracy_loss": 0.1,
        "max_brier": 0.25,
        "min_coverage": 0.95,
    },
    "AfinnJudge": {"scale": None},
    "AlpacaEvalJudge": {"template": None},
    "ArenaHardJudge": {
        "version": "v2.0",
        "max_tokens": 4096,
        "temperature": 0.0,
        "instructions": None,
    },
    "RewardModelJudge": {"scale": 1.0},
    "FakeJudge": {"missing_share": 0.0},
    "JudgeSpec": {"epoch": 1},
    "BenchmarkGate": {"min_difference_lower": None, "max_loss": None},
    "LmEvalSettings": {
        "include_path": None,
        "num_fewshot": None,
        "limit": None,
        "backend": "transformers",
        "apply_chat_template": True,
        "max_length_tokens": None,
        "dtype": "auto",
    },
    "PromoteSpec": {"first": None},
    "PromoteConfig": {
        "model_name": "pvar",
        "min_win_rate": 0.5,
        "min_coverage": 0.95,
        "min_ended_share": 0.0,
        "max_ability_loss": None,
        "max_total_ability_loss": None,
        "max_total_divergence": None,
        "alpha_budget": None,
        "mode": "automatic",
        "benchmarks": [],
    },
}
"""Class of the settings → field → baseline."""
