"""Which reward models select prompts, and which label answers as chosen and rejected.

By default every reward model does both: the results of several are combined (`pvar/combine.py`).
`select.models` and `pair.models` name those of each role, so that a small model can select and a
large one label. Reward models of kind implicit that the strategy measures with have no other role.
"""

from collections.abc import Sequence
from typing import NamedTuple

from pvar.pairs import ORIGINAL
from pvar.reward_config import ImplicitReward, RewardModelConfig
from pvar.selection import STRATEGIES
from pvar.selection_config import PairConfig, SelectConfig


class ModelRoles(NamedTuple):
    """Names of reward models by role, in the order of score.reward_models."""

    selecting: tuple[str, ...]
    """Their rewards determine PVar and all other measures except those from implicit gaps."""
    labelling: tuple[str, ...]
    """Their rewards determine the pairs; empty for pair rule `original`."""
    implicit: tuple[str, ...]
    """They measure implicit gaps (used for nothing else); empty for strategies without such."""

    @property
    def used(self) -> frozenset[str]:
        """Names of all models that have a role."""
        return frozenset({*self.selecting, *self.labelling, *self.implicit})


def model_roles(
    reward_models: Sequence[RewardModelConfig], select: SelectConfig, pair: PairConfig
) -> ModelRoles:
    """The roles in a configuration that `refuse_unfit_models` accepts."""
    implicit: tuple[str, ...] = ()
    if STRATEGIES[select.strategy].measure.implicit_models:
        implicit = tuple(model.name for model in reward_models if model.kind == "implicit")
    names = [model.name for model in reward_models if model.name not in implicit]

    def among(wanted: Sequence[str] | None) -> tuple[str, ...]:
        return tuple(name for name in names if wanted is None or name in wanted)

    return ModelRoles(
        selecting=among(select.models),
        labelling=() if pair.rule == ORIGINAL else among(pair.models),
        implicit=implicit,
    )


def refuse_unfit_models(
    reward_models: Sequence[RewardModelConfig], select: SelectConfig, pair: PairConfig
) -> None:
    """Raise ValueError if the reward models do not fit the strategy and their roles."""
    _refuse_unfit_implicit(reward_models, select, pair)
    names = [model.name for model in reward_models]
    roles = model_roles(reward_models, select, pair)
    for key, wanted in (("select.models", select.models), ("pair.models", pair.models)):
        if unknown := [name for name in wanted or () if name not in names]:
            raise ValueError(
                f"{key}: there is no reward model {unknown[0]!r}; score.reward_models has "
                f"{', '.join(names)}"
            )
        if measuring := [name for name in wanted or () if name in roles.implicit]:
            raise ValueError(
                f"{key} names {measuring[0]!r}, a reward model of kind implicit, which "
                f"select.strategy {select.strategy} uses to measure the pairs and for nothing "
                "else; name only others"
            )
    if pair.models is not None and pair.rule == ORIGINAL:
        raise ValueError(
            f"pair.models is {', '.join(pair.models)}, but pair.rule is original, whose pairs are "
            "annotated in the data; leave pair.models out, or use another rule"
        )
    _refuse_too_few(names, roles, select)
    if unused := [name for name in names if name not in roles.used]:
        raise ValueError(
            f"reward model {unused[0]!r} neither selects (select.models) nor labels (pair.models), "
            "so its scores would not be used; add it to one of the two, or remove it from "
            "score.reward_models"
        )


def _refuse_too_few(names: Sequence[str], roles: ModelRoles, select: SelectConfig) -> None:
    needed = STRATEGIES[select.strategy].measure.min_models
    if len(roles.selecting) >= needed:
        return
    has = f"score.reward_models has {len(names)}"
    if select.models is not None:
        has = f"select.models names {len(select.models)}"
    raise ValueError(
        f"select.strategy is {select.strategy}, which needs at least {needed} reward models, but "
        f"{has}; add another"
    )


def _refuse_unfit_implicit(
    reward_models: Sequence[RewardModelConfig], select: SelectConfig, pair: PairConfig
) -> None:
    strategy, kinds = select.strategy, [model.kind for model in reward_models]
    measuring = STRATEGIES[strategy].measure.implicit_models
    if not measuring:
        return
    if kinds.count("implicit") != len(measuring) or len(kinds) == len(measuring):
        raise ValueError(
            f"select.strategy is {strategy} and score.reward_models are {', '.join(kinds)}; "
            f"give exactly {len(measuring)} of kind implicit ({', then '.join(measuring)}), which "
            "measures the pairs, and at least one of another kind, which decides what is chosen "
            "and rejected"
        )
    _refuse_incomparable_policies(reward_models, strategy)
    if pair.rule == ORIGINAL:
        raise ValueError(
            f"select.strategy is {strategy} and pair.rule is original, but annotated answers "
            "are not scored and have no implicit gap; set pair.rule to a rule for sampled "
            "responses (best_worst)"
        )


def _refuse_incomparable_policies(
    reward_models: Sequence[RewardModelConfig], strategy: str
) -> None:
    models = [model for model in reward_models if isinstance(model, ImplicitReward)]
    if len({(model.reference, model.beta) for model in models}) > 1:
        given = "; ".join(f"{model.name}: {model.reference}, {model.beta:g}" for model in models)
        raise ValueError(
            f"select.strategy is {strategy}, which compares the losses of two policies, but "
            f"reference and beta of their reward models differ ({given}); give both the same"
        )
    if len({model.policy for model in models}) < len(models):
        raise ValueError(
            f"select.strategy is {strategy}, but its reward models of kind implicit have the same "
            f"policy {models[0].policy}, so that their losses do not differ; give the second the "
            "tuned one"
        )
