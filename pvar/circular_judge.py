"""A circular judge: a judge that is also a reward model that selects prompts or labels answers.

Every model in score.reward_models does one of the two (`pvar/model_roles.py`). The judge's win rate
then measures how well the policy was fitted to that model. It is rejected unless
evaluate.allow_circular_judge is true; the report then says so.
"""

from collections.abc import Sequence

from pydantic import BaseModel

from pvar.errors import ConfigError
from pvar.judge_config import JudgeConfig
from pvar.references import Pinned, find_references, is_pinned
from pvar.reward_config import PythonReward, RewardModelConfig


def refuse_circular_judge(
    judge: JudgeConfig, reward_models: Sequence[RewardModelConfig], *, allowed: bool
) -> str | None:
    """Reject a judge that is also one of the reward models; None if it is not.

    Judge and reward model are the same if their models have the same digests or names or, without
    a model, if they are of the same kind. Raises ConfigError, or with `allowed` returns the
    sentence for the report.
    """
    decides = _names(judge.reward_model if judge.kind == "reward_model" else judge)
    shared = sorted(name for model in reward_models for name in decides & _names(model))
    if not shared:
        return None
    if not allowed:
        raise ConfigError(
            f"evaluate.judge is also in score.reward_models ({shared[0]}), so its verdict would be "
            "circular; use another judge, or set evaluate.allow_circular_judge=true"
        )
    return (
        f"The judge ({shared[0]}) is also a reward model that selects or labels. "
        "evaluate.allow_circular_judge allowed this, but it is circular: the win rate says how "
        "well the policy was fitted to that model, not that people would prefer its answers."
    )


def _names(settings: BaseModel) -> frozenset[str]:
    """Locations and digests of all models, or of the function, that the settings refer to."""
    references = [
        reference.text for reference in find_references(settings) if reference.kind == "model"
    ]
    if isinstance(settings, PythonReward):
        folder = settings.folder
        where = Pinned.parse(folder) if is_pinned(folder) else [folder]
        return frozenset(f"{settings.function} of {each}" for each in where)
    if references and all(map(is_pinned, references)):
        pinned = [Pinned.parse(reference) for reference in references]
        locations, digests = zip(*pinned, strict=True)
        return frozenset({" and ".join(locations), " and ".join(digests)})
    if references:
        return frozenset({" and ".join(references)})
    on_a_server = getattr(settings, "model", None)
    return frozenset({str(on_a_server or settings.model_dump()["kind"])})
