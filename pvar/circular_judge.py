"""A judge that is also a reward model by which the training data was selected.

Its win rate measures how well the policy was fitted to that model. It is refused unless the user
allows it, and then the report says so.
"""

from collections.abc import Sequence

from pydantic import BaseModel

from pvar.errors import ConfigError
from pvar.judge_config import JudgeConfig
from pvar.references import Pinned, find_references, is_pinned
from pvar.reward_config import RewardModelConfig


def refuse_circular_judge(
    judge: JudgeConfig, reward_models: Sequence[RewardModelConfig], *, allowed: bool
) -> str | None:
    """Refuse a judge that is a reward model of the selection; None where it is none.

    The same are: models of the same digests or names, and without a model the same kind. Raises
    ConfigError, or with `allowed` returns the sentence for the report.
    """
    decides = _names(judge.reward_model if judge.kind == "reward_model" else judge)
    shared = sorted(name for model in reward_models for name in decides & _names(model))
    if not shared:
        return None
    if not allowed:
        raise ConfigError(
            f"the judge is also a reward model of the selection ({shared[0]}): its verdict would "
            "be circular; choose another judge, or set evaluate.allow_circular_judge=true"
        )
    return (
        f"The judge ({shared[0]}) is also a reward model of the selection. "
        "evaluate.allow_circular_judge allowed this, but it is circular: the win rate says how "
        "well the policy was fitted to that model, not that people would prefer its answers."
    )


def _names(settings: BaseModel) -> frozenset[str]:
    """Names of what decides: of its models, wherever they stand, the locations and the digests."""
    references = [each.text for each in find_references(settings) if each.kind == "model"]
    if references and all(map(is_pinned, references)):
        pinned = [Pinned.parse(reference) for reference in references]
        locations, digests = zip(*pinned, strict=True)
        return frozenset({" and ".join(locations), " and ".join(digests)})
    if references:
        return frozenset({" and ".join(references)})
    on_a_server = getattr(settings, "model", None)
    return frozenset({str(on_a_server or settings.model_dump()["kind"])})
