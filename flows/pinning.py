"""Pinning: resolve every reference of a configuration to a digest before anything runs."""

import re

from flows.wiring import Wiring
from flows.withdrawn_prompts import with_withdrawals
from infra.models import pin_model
from infra.pinned_folder import pin_folder
from infra.sources import pin_file, pin_source
from pvar.artifacts import Recipe
from pvar.benchmark_config import BenchmarkConfig, JudgedBenchmark
from pvar.circular_judge import refuse_circular_judge
from pvar.config import PipelineConfig
from pvar.errors import ConfigError, IncompleteError
from pvar.judge_config import JudgeConfig
from pvar.ports import RegisteredVersion
from pvar.references import CHAMPION, Pinned, Reference, replace_references
from pvar.reward_config import ImplicitReward
from pvar.reward_training import RewardTrainingConfig, scores_by_champion
from pvar.unique_name import unique_name
from tasks.engine.artifact import ArtifactKeys, open_artifact, read_document
from tasks.engine.lineage import list_artifacts
from tasks.graph import reward_keys, train_keys
from tasks.stages.ingest import INGEST
from tasks.stages.judge_epoch import current_epoch
from tasks.stages.reward import REWARD
from tasks.stages.train import TRAIN

_ARTIFACT = "artifact:"
_TRAINED = (TRAIN.name, REWARD.name)
"""Stages whose artifacts are models."""
_PART = re.compile(rf"(?:(?:{'|'.join(_TRAINED)})/)?[0-9a-f]{{1,15}}")


def pin(config: PipelineConfig, wiring: Wiring, *, goes_on: bool = True) -> PipelineConfig:
    """The configuration with every reference pinned to its current digest (`location#digest`), and
    the prompts of its data that are withdrawn now.

    If the champion is the model that a run of this configuration has made, that run goes on: from
    the same start. Without `goes_on`, a policy `champion` is the champion in any case.
    """

    def pin_one(reference: Reference) -> str:
        if reference.path == "evaluate.opponent" or reference.text == CHAMPION:
            return reference.text  # pinned below
        return _pin_content(reference, wiring)

    pinned = with_withdrawals(replace_references(config, pin_one), wiring)
    pinned = _with_reward_model(pinned, wiring)
    pinned = pinned.model_copy(update={"policy": _pin_start(pinned, wiring, goes_on=goes_on)})
    # Check again: now the digests show whether two references are the same model.
    for model in pinned.score.reward_models:
        if model.kind == "implicit":
            _refuse_equal_models(model)
    judged = [each.judge for each in pinned.benchmarks if isinstance(each, JudgedBenchmark)]
    for judge in (pinned.evaluate.judge, *judged):
        refuse_circular_judge(
            judge, pinned.score.reward_models, allowed=config.evaluate.allow_circular_judge
        )
    # Last: this compares the champion with the model that the rest of the configuration makes.
    evaluate = pinned.evaluate.model_copy(update={"opponent": _pin_opponent(pinned, wiring)})
    models = tuple(
        each.model_copy(update={"model": _pin_champion(pinned, wiring)})
        if each.model == CHAMPION
        else each
        for each in pinned.benchmark_models
    )
    benchmarks = tuple(_in_epoch(each, wiring) for each in pinned.benchmarks)
    update = {"evaluate": evaluate, "benchmark_models": models, "benchmarks": benchmarks}
    return pinned.model_copy(update=update)


def _in_epoch(benchmark: BenchmarkConfig, wiring: Wiring) -> BenchmarkConfig:
    """The benchmark with the current epoch of its judge, if it has one and names none."""
    if not isinstance(benchmark, JudgedBenchmark) or benchmark.judge_epoch is not None:
        return benchmark
    epoch = current_epoch(wiring.store, benchmark.judge)
    return benchmark.model_copy(update={"judge_epoch": epoch})


def pin_judge(judge: JudgeConfig, wiring: Wiring) -> JudgeConfig:
    """A judge with its own references pinned, without the rest of a configuration."""
    return replace_references(judge, lambda reference: _pin_content(reference, wiring))


def _pin_content(reference: Reference, wiring: Wiring) -> str:
    sources = wiring.settings.home / "sources"
    match reference.kind:
        case "data":
            return pin_source(reference.text, sources)
        case "file":
            return pin_file(reference.text, sources)
        case "folder":
            return pin_folder(reference.text)
        case "model":
            return pin_reference(reference.text, wiring)


def _refuse_equal_models(reward: ImplicitReward) -> None:
    policy, reference = Pinned.parse(reward.policy), Pinned.parse(reward.reference)
    if policy.digest == reference.digest:
        raise ConfigError(
            f"policy ({policy.location}) and reference ({reference.location}) of the implicit "
            "reward are the same model, so all rewards would be 0; set policy to the tuned model"
        )


def pin_reference(reference: str, wiring: Wiring) -> str:
    """A reference to a model, pinned; `artifact:…` if this store has it.

    A model of this store may be named by the first characters of its artifact, or of its digest.
    """
    part = reference.removeprefix(_ARTIFACT)
    if reference != part and _PART.fullmatch(part):
        trained = sorted(list_artifacts(wiring.store, _TRAINED, with_shards=False))
        reference = _ARTIFACT + unique_name(part, trained, wiring.store.uri, "see pvar show")
    location, _, digest = pin_model(reference, wiring.registry.resolve).rpartition("#")
    return f"{_here_or(location, digest, wiring)}#{digest}"


def _here_or(location: str, digest: str, wiring: Wiring) -> str:
    """`artifact:…` if this store has the artifact of that digest, else `location`."""
    if digest.startswith(("train/", "reward/")):
        stage, _, artifact = digest.partition("/")
        try:
            open_artifact(wiring.store, stage, artifact, wiring.settings.home)
        except IncompleteError:
            return location
        return f"artifact:{digest}"
    return location


def _with_reward_model(config: PipelineConfig, wiring: Wiring) -> PipelineConfig:
    """The configuration with the reward champion pinned, or the starting model if there is none.

    The model that would be replaced is the champion, but for a champion that is the reward model of
    this run: then it is the one which that replaced, so that a run which was killed afterwards
    makes nothing again. What scores is the champion whatever `opponent` is, but for one that was
    trained on the labels of this run.
    """
    training = config.reward_training
    if training is None:
        return config
    opponent, models = training.opponent, config.score.reward_models
    if opponent == CHAMPION:
        champion = wiring.registry.champion(training.model_name)
        if champion is None:
            opponent = training.model
        elif champion.artifact == reward_keys(config).root and champion.opponent is not None:
            opponent = champion.opponent
        else:
            opponent = pin_reference(f"models:/{champion.model_name}/{champion.version}", wiring)
    if any(map(scores_by_champion, models)):
        scoring = _scoring_champion(config, training, wiring)
        models = tuple(
            model.model_copy(update={"model": scoring}) if scores_by_champion(model) else model
            for model in models
        )
    return config.model_copy(
        update={
            "reward_training": training.model_copy(update={"opponent": opponent}),
            "score": config.score.model_copy(update={"reward_models": models}),
        }
    )


def _scoring_champion(
    config: PipelineConfig, training: RewardTrainingConfig, wiring: Wiring
) -> str:
    """The champion; while that was trained on labels of this run's source, the one it replaced.

    A batch that is run again may have other earlier labels, and so another reward model than in the
    run before, which may have adopted one.
    """
    name = training.model_name
    version = wiring.registry.champion(name)
    if version is None:
        return training.model
    found = pin_reference(f"models:/{name}/{version.version}", wiring)
    seen: set[str] = set()
    while version is not None and _has_learned_labels(version, config, wiring):
        seen.add(version.digest)
        found = version.opponent or training.model
        digest = Pinned.parse(found).digest
        if digest in seen:  # each replaced the other once
            return training.model
        version = next(
            (
                facts.version
                for facts in wiring.registry.versions(name)
                if facts.version.digest == digest
            ),
            None,
        )
    return found


def _has_learned_labels(version: RegisteredVersion, config: PipelineConfig, wiring: Wiring) -> bool:
    """Whether a reward model was trained on the labels of this run's source as new ones, as far as
    the store still says."""
    if version.artifact is None or version.artifact == reward_keys(config).root:
        return version.artifact is not None
    stage, _, digest = version.artifact.partition("/")
    recipe = read_document(wiring.store, ArtifactKeys(stage, digest).recipe, Recipe)
    if recipe is None or "prompts" not in recipe.inputs:
        return False
    prompts = ArtifactKeys(INGEST.name, recipe.inputs["prompts"])
    ingested = read_document(wiring.store, prompts.recipe, Recipe)
    source = Pinned.parse(config.ingest.source).digest
    return ingested is not None and any(
        (each.path, each.text) == ("source", source) for each in ingested.references
    )


def _pin_start(config: PipelineConfig, wiring: Wiring, *, goes_on: bool) -> str:
    """The policy; for `champion` the promoted model, or the first model if none is promoted.

    If the model of this run is already the champion and it `goes_on`, it starts from what that was
    trained from, so that a run which was killed after the promotion makes no other model.
    """
    if config.policy != CHAMPION:
        return config.policy
    champion = wiring.registry.champion(config.promote.model_name)
    if champion is None:
        return config.first_model
    earlier = _start_of(champion, config.first_model, wiring) if goes_on else None
    if earlier is not None:
        before = config.model_copy(update={"policy": earlier})
        if train_keys(before).root == champion.artifact:
            return earlier
    return pin_reference(f"models:/{champion.model_name}/{champion.version}", wiring)


def _start_of(champion: RegisteredVersion, first_model: str, wiring: Wiring) -> str | None:
    """The pinned model from which the champion was trained, if it is the first model or another one
    that pvar trained; None for any other, and if this store does not have the champion."""
    if champion.artifact is None:
        return None
    stage, _, digest = champion.artifact.partition("/")
    recipe = read_document(wiring.store, ArtifactKeys(stage, digest).recipe, Recipe)
    trained_from = (
        [each.text for each in recipe.references if each.path == "policy"] if recipe else []
    )
    for policy in trained_from:
        if policy == Pinned.parse(first_model).digest:
            return first_model
        if policy.startswith("train/"):
            return f"artifact:{policy}#{policy}"
    return None


def _pin_opponent(config: PipelineConfig, wiring: Wiring) -> str:
    """The champion, or the policy if there is no champion.

    If the model of this run is already the champion, its opponent at that time is used, so that
    the artifacts of that comparison are reused.
    """
    opponent = config.evaluate.opponent
    if opponent != CHAMPION:
        return pin_reference(opponent, wiring)
    champion: RegisteredVersion | None = wiring.registry.champion(config.promote.model_name)
    if (
        champion is not None
        and champion.artifact == train_keys(config).root
        and champion.opponent is not None
    ):
        return champion.opponent
    return _pin_champion(config, wiring)


def _pin_champion(config: PipelineConfig, wiring: Wiring) -> str:
    """The champion, or the starting policy if there is none."""
    champion = wiring.registry.champion(config.promote.model_name)
    if champion is None:
        return config.policy
    return pin_reference(f"models:/{champion.model_name}/{champion.version}", wiring)
