"""A study: several arms that differ in some settings, each trained with several seeds.

An arm is a name and the settings of the pipeline in which it differs. A sweep repeats every arm for
each value of one more setting (a budget curve, a sweep of the learning rate); the arms of one value
are compared with the control of that value. Each training is a pipeline of its own up to
`evaluate`, and artifacts that trainings have in common are made once.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, JsonValue, model_validator

from pvar.benchmark_config import JudgedBenchmark
from pvar.config import PipelineConfig, ScoreConfig
from pvar.config_model import ConfigModel, Name
from pvar.model_roles import model_roles
from pvar.selection import CONTROL, STRATEGIES
from pvar.selection_config import PairConfig, SelectConfig

HELD_OUT = "evaluate"
"""The endpoint of the pipeline's own held-out prompts."""
Seed = Annotated[int, Field(ge=0, lt=2**31)]
SETTING = r"^[a-z_]+(\.[a-z_]+)*$"


class Arm(ConfigModel):
    """One of the methods that a study compares."""

    name: Name
    """Name of the arm in tables and files."""
    settings: dict[str, JsonValue] = Field(default={})
    """Settings of the pipeline in which the arm differs, by key, for example
    `select.strategy: top`."""


class SettingSweep(ConfigModel):
    """A setting, or several together, that is varied in every arm."""

    key: str | None = Field(default=None, pattern=SETTING)
    """Key of the setting, for example `select.budget` or `train.learning_rate`. `null` if each
    value has several settings."""
    values: tuple[JsonValue, ...] = Field(min_length=1)
    """Its values; without a key, settings by key, of which the first names the value."""

    @model_validator(mode="after")
    def _values_fit(self) -> Self:
        if self.key is None and not all(isinstance(each, dict) and each for each in self.values):
            raise ValueError(
                "sweep has no key, so each of its values must be settings by key, such as "
                "{train.method: kto}; give a key, or write the values so"
            )
        return self

    @property
    def swept_keys(self) -> list[str]:
        """Keys of all settings that it sets. Named so, because Prefect takes an object with `keys`
        for a mapping."""
        return [key for value in self.values for key in self.settings_of(value)]

    def settings_of(self, value: JsonValue) -> dict[str, JsonValue]:
        """The settings that one of the values stands for."""
        if self.key is not None:
            return {self.key: value}
        assert isinstance(value, dict)
        return dict(value)

    def label_of(self, value: JsonValue) -> str:
        """Name of one of the values: `0.1`, or `fraction=0.1` for a mapping."""
        if self.key is None:
            assert isinstance(value, dict)
            value = next(iter(value.values()))
        return _label(value)


class HeldEqual(ConfigModel):
    """What all trainings have in common. Give exactly one."""

    steps: int | None = Field(default=None, ge=1)
    """Optimiser steps. Passes over the pairs are repeated, or the last one is left early."""
    pairs: int | None = Field(default=None, ge=1)
    """Pairs that a training sees, repetitions included. Must be a multiple of
    train.pairs_per_step."""
    tokens: int | None = Field(default=None, ge=1)
    """Tokens of the selected prompts' responses (select.budget.tokens). The strategies must select
    by budget."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = self.model_dump(exclude_none=True)
        if len(given) != 1:
            raise ValueError(
                f"held_equal has {given or 'nothing'}; give exactly one of steps, pairs and tokens"
            )
        return self

    @property
    def key(self) -> str:
        """Key of the setting by which it is held equal."""
        return "train.num_steps" if self.tokens is None else "select.budget"


class StudyConfig(ConfigModel):
    """Which methods to compare, on what, and how often each is trained."""

    question: str = "Does selecting prompts by preference variance beat random prompts?"
    """The question that the study answers, shown in its certificate."""
    pipeline: PipelineConfig = PipelineConfig()
    """The pipeline that every arm starts from. The opponent `champion` becomes the starting policy,
    so that a promotion does not change the study."""
    arms: tuple[Arm, ...] = Field(
        default=(
            Arm(name="random", settings={"select.strategy": "random"}),
            Arm(name="top", settings={"select.strategy": "top"}),
        ),
        min_length=2,
    )
    """The methods, each with the settings in which it differs."""
    control: Name = CONTROL
    """Name of the arm with which the others are compared."""
    sweep: SettingSweep | None = None
    """Repeat all arms for each value of a setting. `null` trains each arm once per seed."""
    seeds: tuple[Seed, ...] = Field(default=(0, 1, 2, 3, 4), min_length=1)
    """Seeds of the random choices and of the training order: one training per arm and seed. Below
    five, no claim is made."""
    fresh_responses: bool = False
    """Also sample the responses anew for each seed, so that the intervals contain the luck of the
    pool. By default all trainings share them."""
    held_equal: HeldEqual | None = None
    """What all trainings have in common. `null` leaves it to the settings."""
    endpoints: tuple[str, ...] = Field(default=(HELD_OUT,), min_length=1)
    """What the models are compared by: `evaluate` (the held-out prompts), or names of judged
    benchmarks of the pipeline. The verdicts are by the first; each further one has a table of its
    own."""
    delta: float = Field(default=0.02, gt=0, lt=1)
    """The smallest difference of win rates that matters: below it, methods count as equal."""
    width: float = Field(default=0.02, gt=0, lt=1)
    """The certificate says how many trainings or prompts an interval of this width takes."""
    at_once: int = Field(default=1, ge=1, le=64)
    """Trainings that run side by side, each in a process of its own."""
    expected_cost: str = ""
    """What the study is expected to cost, and by what reckoning: said before it starts where no
    training of its policy was measured."""
    plan: str = ""
    """Where the plan of the study is written down, and since when (a file and a commit), shown in
    the certificate."""

    @model_validator(mode="before")
    @classmethod
    def _from_strategies(cls, given: Any) -> Any:
        """A deployment registered before studies had arms names `strategies` beside the control."""
        if not isinstance(given, dict) or "strategies" not in given:
            return given
        tree = {key: value for key, value in given.items() if key != "strategies"}
        names = [CONTROL, *given["strategies"]]
        arms = [{"name": name, "settings": {"select.strategy": name}} for name in names]
        return {"arms": arms, **tree}

    @model_validator(mode="after")
    def _can_run(self) -> Self:
        names = [arm.name for arm in self.arms]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"arms: the name {twice!r} occurs twice; give each arm its own name")
        if self.control not in names:
            raise ValueError(
                f"control is {self.control!r}, but the arms are {', '.join(names)}; name one of "
                "them, or add it"
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds are {self.seeds}; give each once")
        judged = [
            each.name for each in self.pipeline.benchmarks if isinstance(each, JudgedBenchmark)
        ]
        if unknown := [name for name in self.endpoints if name not in (HELD_OUT, *judged)]:
            raise ValueError(
                f"endpoints has {unknown[0]!r}; name {HELD_OUT}, or a judged benchmark of "
                f"pipeline.benchmarks ({', '.join(judged) or 'there is none'})"
            )
        labels = [cell.name for cell in cells(self)]
        if twice := next((name for name in labels if labels.count(name) > 1), None):
            raise ValueError(f"sweep: {twice!r} would be two arms; give each value once")
        self._refuse_settings_twice()
        self._refuse_other_exams()
        return self

    def _refuse_settings_twice(self) -> None:
        """A setting has one source: the value of another would not be used."""
        sources: dict[str, str] = {}
        if self.held_equal is not None:
            sources[self.held_equal.key] = "held_equal"
        swept = {} if self.sweep is None else dict.fromkeys(self.sweep.swept_keys, "the sweep")
        setting: dict[str, Mapping[str, object]] = {"the sweep": swept}
        setting |= {f"arm {arm.name}": arm.settings for arm in self.arms}
        for who, keys in setting.items():
            others = sources if who == "the sweep" else {**sources, **swept}
            if key := next((key for key in keys if key in others), None):
                raise ValueError(
                    f"{who} sets {key}, and {others[key]} sets it, too; leave it out of one of them"
                )

    def _refuse_other_exams(self) -> None:
        """An arm and its control are compared on the same prompts, by the same judge."""
        variants = {cell.name: variant(self, cell, self.seeds[0]) for cell in cells(self)}
        for cell in cells(self):
            own, control = variants[cell.name], control_of(self, cell)
            if self.fresh_responses and own.sample.engine == "dataset":
                raise ValueError(
                    "fresh_responses is true, but sample.engine is dataset, whose answers are the "
                    "same for every seed; set fresh_responses to false"
                )
            if own.annotate is not None:
                raise ValueError(
                    f"annotate is set in arm {cell.name}: it waits for people, and a study cannot; "
                    "leave it out"
                )
            if control is None:
                continue
            for key in ("ingest", "evaluate"):
                if getattr(own, key) != getattr(variants[control], key):
                    raise ValueError(
                        f"arm {cell.name} differs from its control {control} in {key} (the "
                        "held-out prompts, the opponent, the judge, or how answers are made), so "
                        "their results could not be compared; change it in `pipeline` or in the "
                        "sweep, for both"
                    )


class Cell(ConfigModel):
    """An arm at one value of the sweep; without a sweep, an arm."""

    name: str
    """`ARM`, or `ARM@VALUE`."""
    arm: Name
    value: str | None
    """Label of the sweep's value; None without a sweep."""
    settings: dict[str, JsonValue]


def cells(study: StudyConfig) -> list[Cell]:
    """All arms at all values of the sweep, in the order of the values, then of the arms."""
    if study.sweep is None:
        return [
            Cell(name=arm.name, arm=arm.name, value=None, settings=arm.settings)
            for arm in study.arms
        ]
    sweep = study.sweep
    return [
        Cell(
            name=f"{arm.name}@{sweep.label_of(value)}",
            arm=arm.name,
            value=sweep.label_of(value),
            settings={**arm.settings, **sweep.settings_of(value)},
        )
        for value in sweep.values
        for arm in study.arms
    ]


def control_of(study: StudyConfig, cell: Cell) -> str | None:
    """Name of the cell with which this one is compared; None for a control itself."""
    if cell.arm == study.control:
        return None
    return study.control if cell.value is None else f"{study.control}@{cell.value}"


def variant(study: StudyConfig, cell: Cell, seed: int) -> PipelineConfig:
    """The pipeline of one training. Raises ValueError, naming the arm, if it cannot run.

    A reward model without a role in this arm is left out. One of kind implicit that measures pairs
    for another arm's strategy has none here unless it is named, so that the same reward models
    decide about PVar and pairs of all arms.
    """
    settings = {**cell.settings, **_held(study, cell.name, cell.settings)}
    return with_seed(study, _changed(study, cell, settings), seed)


def with_seed(study: StudyConfig, pipeline: PipelineConfig, seed: int) -> PipelineConfig:
    """The pipeline of one cell with this seed. Stages that do not depend on it are shared."""
    tree = pipeline.model_dump()
    tree["select"]["seed"] = tree["pair"]["seed"] = tree["train"]["seed"] = seed
    if study.fresh_responses:
        tree["sample"]["seed"] = seed
    if tree["evaluate"]["opponent"] == "champion":
        tree["evaluate"]["opponent"] = tree["policy"]
    return PipelineConfig.model_validate(tree)


def _held(study: StudyConfig, name: str, settings: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    held = study.held_equal
    if held is None:
        return {}
    if held.tokens is not None:
        strategy = _strategy(study, settings)
        if strategy in STRATEGIES and STRATEGIES[strategy].budget != "fills":
            raise ValueError(
                f"held_equal.tokens is {held.tokens}, but the strategy {strategy} of arm "
                f"{name} chooses its own number of prompts; hold steps or pairs equal instead"
            )
        return {"select.budget": {"tokens": held.tokens}}
    if held.steps is not None:
        return {"train.num_steps": held.steps}
    assert held.pairs is not None
    per_step = settings.get("train.pairs_per_step", study.pipeline.train.pairs_per_step)
    if not isinstance(per_step, int) or per_step < 1 or held.pairs % per_step:
        raise ValueError(
            f"held_equal.pairs ({held.pairs}) is not a multiple of train.pairs_per_step "
            f"({per_step}) of arm {name}; change one of the two"
        )
    return {"train.num_steps": held.pairs // per_step}


def _changed(study: StudyConfig, cell: Cell, settings: Mapping[str, JsonValue]) -> PipelineConfig:
    tree = study.pipeline.model_dump()
    for key, value in settings.items():
        set_setting(tree, key, value, f"arm {cell.name}")
    _leave_out_unused(study, tree)
    try:
        return PipelineConfig.model_validate(tree)
    except ValueError as error:
        raise ValueError(f"arm {cell.name}: {first_fault(error)}") from error


def _leave_out_unused(study: StudyConfig, tree: dict[str, Any]) -> None:
    """Leave only reward models that have a role in the arm. What is invalid is left as it is."""
    try:
        models = ScoreConfig.model_validate(tree["score"]).reward_models
        select = SelectConfig.model_validate(tree["select"])
        pair = PairConfig.model_validate(tree["pair"])
    except ValueError:
        return
    named = {*(select.models or ()), *(pair.models or ())}
    if not named <= {model.name for model in models}:
        return
    num_implicit = _num_implicit(select.strategy)
    if num_implicit < max(_num_implicit(_strategy(study, each.settings)) for each in study.arms):
        implicit = [model.name for model in models if model.kind == "implicit"]
        of_others = {*implicit[num_implicit:]} - named
        models = tuple(model for model in models if model.name not in of_others)
    roles = model_roles(models, select, pair)
    tree["score"]["reward_models"] = [model for model in models if model.name in roles.used]


def _strategy(study: StudyConfig, settings: Mapping[str, JsonValue]) -> str:
    return str(settings.get("select.strategy", study.pipeline.select.strategy))


def _num_implicit(strategy: str) -> int:
    """Number of implicit reward models that the strategy measures with."""
    known = STRATEGIES.get(strategy)  # an unknown one is refused with its arm
    return 0 if known is None else len(known.measure.implicit_models)


def set_setting(tree: dict[str, Any], key: str, value: JsonValue, who: str) -> None:
    """Set a dotted key of a configuration. Raises ValueError, beginning with `who`, if there is no
    such key."""
    *parents, last = key.split(".")
    for parent in parents:
        if not isinstance(tree.get(parent), dict):
            raise ValueError(
                f"{who}: the configuration has no setting {key!r} ({parent} has none below "
                "it); docs/reference/configuration.md lists every key"
            )
        tree = tree[parent]
    if last not in tree:
        raise ValueError(
            f"{who}: the configuration has no setting {key!r}; there are {', '.join(sorted(tree))}"
        )
    tree[last] = value


def first_fault(error: ValueError) -> str:
    """The first fault of a configuration: its key, what is wrong, and the value."""
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return str(error)
    fault = error.errors()[0]
    where = ".".join(str(part) for part in fault["loc"])
    message = fault["msg"].removeprefix("Value error, ")
    return f"{where}: {message} (given: {fault['input']!r})" if where else message


def _label(value: JsonValue) -> str:
    if isinstance(value, dict):
        return ",".join(f"{name}={_label(each)}" for name, each in value.items())
    return str(value)
