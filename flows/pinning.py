"""Pinning: every reference of a configuration to what it names now, before anything runs."""

from flows.wiring import Wiring
from infra.models import pin_model
from infra.sources import pin_source
from pvar.circular_judge import refuse_circular_judge
from pvar.config import PipelineConfig
from pvar.errors import ConfigError, IncompleteError
from pvar.ports import RegisteredVersion
from pvar.references import Pinned, Reference, replace_references
from pvar.reward_config import ImplicitReward
from tasks.engine.artifact import open_artifact
from tasks.graph import train_keys


def pin(config: PipelineConfig, wiring: Wiring) -> PipelineConfig:
    """The configuration with every reference pinned to what it names now (`location#digest`)."""
    sources = wiring.settings.home / "sources"

    def pin_one(reference: Reference) -> str:
        if reference.path == "evaluate.opponent":
            return reference.text  # below
        match reference.kind:
            case "data":
                return pin_source(reference.text, sources)
            case "model":
                return _pin_model(reference.text, wiring)

    pinned = replace_references(config, pin_one)
    # Once more, now that digests tell whether two references lead to the same model.
    for model in pinned.score.reward_models:
        if model.kind == "implicit":
            _refuse_equal_models(model)
    refuse_circular_judge(
        pinned.evaluate.judge,
        pinned.score.reward_models,
        allowed=config.evaluate.allow_circular_judge,
    )
    # Last: it compares the champion with the model that all of this makes.
    evaluate = pinned.evaluate.model_copy(update={"opponent": _pin_opponent(pinned, wiring)})
    return pinned.model_copy(update={"evaluate": evaluate})


def _refuse_equal_models(reward: ImplicitReward) -> None:
    policy, reference = Pinned.parse(reward.policy), Pinned.parse(reward.reference)
    if policy.digest == reference.digest:
        raise ConfigError(
            f"policy ({policy.location}) and reference ({reference.location}) of the implicit "
            "reward are the same model: all its rewards would be 0; give the tuned model as policy"
        )


def _pin_model(reference: str, wiring: Wiring) -> str:
    location, _, digest = pin_model(reference, wiring.registry.resolve).rpartition("#")
    return f"{_here_or(location, digest, wiring)}#{digest}"


def _here_or(location: str, digest: str, wiring: Wiring) -> str:
    """`artifact:…` where the digest is that of an artifact that this store holds."""
    if digest.startswith("train/"):
        stage, _, artifact = digest.partition("/")
        try:
            open_artifact(wiring.store, stage, artifact, wiring.settings.home)
        except IncompleteError:
            return location
        return f"artifact:{digest}"
    return location


def _pin_opponent(config: PipelineConfig, wiring: Wiring) -> str:
    """The champion; the policy while there is none; and never the very model of this run.

    When this run's model is the champion already, the comparison that made it so is repeated:
    nothing is then computed again.
    """
    opponent = config.evaluate.opponent
    if opponent != "champion":
        return _pin_model(opponent, wiring)
    champion: RegisteredVersion | None = wiring.registry.champion(config.promote.model_name)
    if champion is None:
        return config.policy
    if champion.artifact == train_keys(config).root and champion.opponent is not None:
        return champion.opponent
    return _pin_model(f"models:/{champion.model_name}/{champion.version}", wiring)
