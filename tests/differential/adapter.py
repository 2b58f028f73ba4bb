"""All that the harness knows of the product's code: the one file to change when that code moves.

It plans the nodes of a configuration, runs one of them, and reads what it made. The rest of this
folder sees names, numbers, rows and local files. What is renamed here must not rename anything
there: a difference in names or figures belongs into `mapping.py`, where it is read.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, cast
from uuid import uuid4

from pydantic import JsonValue

import pvar
from flows.gradient_prompts import gradients_of
from flows.pinning import pin
from flows.run_record import NodeRecord, RunRecord
from flows.run_report import _collect
from flows.wiring import Wiring, connect
from infra.engines.fake_sampler import FakeSampler
from infra.rewards.fake_scorer import FakeScorer
from infra.row_files import read_rows, write_rows
from infra.settings import Settings as MachineSettings
from pvar.config import PipelineConfig
from pvar.errors import PvarError
from pvar.ports import Ports, Sampler, Scorer, Store
from pvar.retrain_decision import RetrainConfig, decide_retraining
from pvar.reward_config import RewardModelConfig
from pvar.row_counts import RowCounts
from pvar.runtime_config import RuntimeConfig
from pvar.sampler_config import SamplerSettings
from tasks.engine.artifact import Artifact, open_artifact
from tasks.engine.node import Node
from tasks.engine.stage import Job, Stage, Work, run_stage
from tasks.engine.tables import TrainStep, write_table
from tasks.graph import CACHES, plan_nodes
from tasks.report.data import Evaluation, Gate, PromptExample, PvarDistribution, ReportData
from tasks.retraining.batches import RowFiles, add_batch, read_batches, split_duplicates
from tasks.retraining.incoming_files import look
from tasks.stages.train import STEPS
from tests.differential.faults import DeadlyStore, Reseeded
from tests.differential.vocabulary import Faults, Goal, Settings, nested

SOURCE = Path(pvar.__file__).parents[1]
"""The tree that is run: an installed one would hide this one."""

Failure = PvarError
"""What a stage raises for a reason that it names."""

KEYS: Mapping[str, str | None] = {
    "select.pairs": "pair.rule",
    "select.pairs_per_prompt": "pair.pairs_per_prompt",
    "select.min_margin": "pair.min_margin",
}
"""Setting, or beginning of its dotted key, as the harness calls it → as the product does; None
where the product has no such setting."""

GOALS: Mapping[Goal, str] = {"pairs": "pair", "model": "train", "promotion": "promote"}
"""Last node of a run."""

STAGES: Mapping[str, str] = {}
"""First part of an object's key in the store, as the harness calls it → as it is today."""

CHALLENGER = "answers-challenger"
"""Answers of the trained model: fakes know no models, so the seed sets theirs apart."""

ROW_KEYS: Mapping[str, tuple[str, ...]] = {
    "prompts": ("prompt_id",),
    "responses": ("prompt_id", "sample_index"),
    "scores": ("response_id",),
    "variance": ("prompt_id",),
    "measures": ("prompt_id", "measure"),
    "pairs": ("prompt_id",),
    "steps": ("step",),
    "logps": ("pair_id",),
    "verdicts": ("prompt_id",),
    "showings": ("prompt_id", "is_swapped"),
    "rejected": ("row_id",),
}
"""Table → columns that say which row it is. Rows of other tables are numbered."""

TIMES = frozenset({"tokens_per_second", "seconds"})
"""Columns that no two runs have alike."""

MODEL_NAME = "pvar"
"""Name of the registered model, by default."""

_NEVER = datetime(2026, 1, 1, tzinfo=UTC)


class Content(NamedTuple):
    """What a complete artifact holds."""

    row_counts: Mapping[str, JsonValue]
    summary: Mapping[str, JsonValue]
    files: Mapping[str, Sequence[Path]]
    """Name → local copies, one per shard."""


class Plan(NamedTuple):
    """A configuration, ready to be run."""

    config: PipelineConfig
    nodes: Mapping[str, Node]

    def until(self, goal: Goal) -> list[str]:
        """Names of the nodes, in order, up to the goal."""
        names = list(self.nodes)
        return names[: names.index(GOALS[goal]) + 1]

    def aliases(self, run: str) -> dict[str, str]:
        """Texts that name an artifact or a model by its digest → what they stand for."""
        pinned = (self.config.policy, self.config.evaluate.opponent)
        return {
            **{node.keys.root: f"{{{run}/{name}}}" for name, node in self.nodes.items()},
            **{f"#{reference.rpartition('#')[2]}": "" for reference in pinned},
        }


@dataclass(frozen=True)
class Bench:
    """A home folder, and the adapters over it."""

    home: Path
    wiring: Wiring

    def cache(self) -> Path:
        """A folder that nobody else uses."""
        folder = self.home / "scratch" / uuid4().hex
        folder.mkdir(parents=True)
        return folder


def open_bench(home: Path) -> Bench:
    """An empty home: store in a folder, MLflow in SQLite."""
    home.mkdir(parents=True)
    return Bench(
        home,
        connect(
            MachineSettings(
                home=home,
                store_uri=(home / "store").as_uri(),
                mlflow_tracking_uri=f"sqlite:///{home}/mlflow.db",
            )
        ),
    )


def save_models(folder: Path) -> dict[str, str]:
    """The tiny models: name → reference."""
    from tests.unit.infra.tiny_models import save_classifier, save_language_model  # loads torch

    language = {"policy": 1, "tuned": 2}
    classifier = {"reward": 3, "judge": 4}
    made = {name: save_language_model(folder / name, seed=n) for name, n in language.items()}
    made |= {name: save_classifier(folder / name, seed=n) for name, n in classifier.items()}
    return {name: str(path) for name, path in made.items()}


def plan(bench: Bench, settings: Settings) -> Plan:
    """Read, pin and plan; raises what the product raises for settings that it refuses."""
    config = pin(_config(settings), bench.wiring)
    return Plan(config, plan_nodes(config))


def _config(settings: Settings) -> PipelineConfig:
    """What selects had one seed with what pairs, when the settings were written."""
    seeds = {"pair.seed": settings["select.seed"]} if "select.seed" in settings else {}
    return PipelineConfig.model_validate(nested({**settings, **seeds}, KEYS))


def run_node(
    bench: Bench,
    planned: Plan,
    name: str,
    *,
    faults: Faults,
    trains: bool = True,
    death: str | None = None,
) -> str:
    """Bring a node to completion; made, reused, or waiting. Killed where `death` says."""
    node, scratch = planned.nodes[name], bench.cache()
    if death is not None:
        first, _, rest = death.partition("/")
        death = f"{STAGES.get(first, first)}/{rest}"
    job = Job(
        spec=node.spec,
        runtime=_runtime(planned.config, node),
        inputs={
            input_name: open_artifact(bench.wiring.store, keys.stage, keys.digest, scratch)
            for input_name, keys in node.inputs.items()
        },
        ports=cast(Ports, _Ports(bench.wiring, faults, name == CHALLENGER, death)),
        keys=node.keys,
        scratch=scratch,
        log_step=lambda step, figures: None,
    )
    is_stand_in = node.stage.name == "train" and not trains
    stage = _stand_in(node.stage) if is_stand_in else node.stage
    return run_stage(stage, node.recipe, job).state


def _runtime(config: PipelineConfig, node: Node) -> RuntimeConfig:
    """How the node is cut into shards, which decides the seeds of sampling."""
    return config.runtime


def _stand_in(train: Stage[Any]) -> Stage[Any]:
    """In place of training: a model without weights, after no steps."""

    @contextmanager
    def open_worker(job: Job[Any]) -> Iterator[Work]:
        def work(_: object, folder: Path) -> RowCounts:
            (folder / "model").mkdir()
            (folder / "model" / "config.json").write_text("{}")
            write_table(folder / STEPS, [], TrainStep)
            num_pairs = job.inputs["pairs"].manifest.row_counts.rows_out
            return RowCounts(rows_in=num_pairs, rows_out=num_pairs)

        yield work

    return replace(
        train, open_worker=open_worker, summarise=lambda *_: {}, number_format=lambda _: None
    )


@dataclass(frozen=True)
class _Ports:
    """The product's ports, with fakes that fail as they are told to, and a store that kills."""

    wiring: Wiring
    faults: Faults
    is_challenger: bool
    death: str | None

    @property
    def store(self) -> Store:
        store = self.wiring.store
        return store if self.death is None else cast(Store, DeadlyStore(store, self.death))

    def sampler(self, settings: SamplerSettings, *rest: Any) -> Sampler:
        if settings.engine != "fake":
            return self.wiring.sampler(settings, *rest)
        fake = FakeSampler(
            settings.max_prompt_tokens,
            settings.max_new_tokens,
            self.faults.truncated_share,
            self.faults.empty_share,
        )
        return cast(Sampler, Reseeded(fake, by=1 if self.is_challenger else 0))

    def scorer(self, settings: RewardModelConfig, *rest: Any) -> Scorer:
        if settings.kind != "fake":
            return self.wiring.scorer(settings, *rest)
        return FakeScorer(settings.name, settings.missing_share, self.faults.nan_share)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wiring, name)


def read_node(bench: Bench, planned: Plan, name: str) -> Content:
    """What a complete node holds."""
    keys = planned.nodes[name].keys
    return _content(open_artifact(bench.wiring.store, keys.stage, keys.digest, bench.cache()))


def read_caches(bench: Bench) -> dict[str, Content]:
    """What stages kept beside the nodes, such as the reference's log-probabilities."""
    store, found = bench.wiring.store, {}
    for stage in CACHES:
        manifests = [
            info.key for info in store.list(f"{stage}/") if info.key.endswith("/manifest.json")
        ]
        contents = [
            _content(open_artifact(store, stage, key.split("/")[1], bench.cache()))
            for key in manifests
        ]
        for number, content in enumerate(sorted(contents, key=_bytes_of)):
            found[stage if number == 0 else f"{stage}-{number + 1}"] = content
    return found


def _bytes_of(content: Content) -> list[bytes]:
    """What artifacts of one kind are ordered by, since their digests must not decide."""
    return [path.read_bytes() for paths in content.files.values() for path in paths]


def _content(artifact: Artifact) -> Content:
    manifest = artifact.manifest
    names = dict.fromkeys(file.name for shard in manifest.shards for file in shard.files)
    return Content(
        manifest.row_counts.model_dump(mode="json"),
        manifest.model_dump(mode="json")["summary"],
        {name: list(artifact.paths(name)) for name in names},
    )


def read_promotion(bench: Bench) -> dict[str, JsonValue]:
    """The registry: versions with their tags, the champion, and how it came to be one."""
    registry = bench.wiring.registry
    champion = registry.champion(MODEL_NAME)
    return {
        "champion": None if champion is None else champion.version,
        "versions": {
            str(facts.version.version): dict(facts.tags) for facts in registry.versions(MODEL_NAME)
        },
        "moves": {
            str(move.number): {
                "kind": move.kind,
                "from": move.from_version,
                "to": move.to_version,
                "reason": move.reason,
            }
            for move in (registry.history(MODEL_NAME) if champion else ())
        },
    }


def read_gradients(bench: Bench, settings: Settings, num_prompts: int) -> dict[str, JsonValue]:
    """Prompt → what `pvar gradients` measures of it."""
    config = _config(settings)
    groups = gradients_of(config, bench.wiring, num_prompts)
    return {
        gradient.prompt_id: {
            "num_responses": len(gradient.rewards),
            "pvar": gradient.pvar,
            "gradient_norm": gradient.soft_norm,
            "difference_norm": gradient.difference_norm,
        }
        for group in groups
        for gradient in group.prompts
    }


def read_report(
    bench: Bench, planned: Plan, states: Mapping[str, str], error: str | None
) -> dict[str, JsonValue]:
    """What the report of the run shows beside the figures of the nodes."""
    nodes = [
        NodeRecord(
            name=name,
            artifact=node.keys.root,
            state=cast(Any, states.get(name, "pending")),
            error=error if states.get(name) == "failed" else None,
        )
        for name, node in planned.nodes.items()
    ]
    record = RunRecord(
        run="a-run",
        started_at=_NEVER,
        preset=None,
        config=planned.config,
        mlflow_run="",
        mlflow_experiment="",
        nodes=tuple(nodes),
    )
    return _shown(_collect(record, bench.wiring, bench.cache()))


def _shown(data: ReportData) -> dict[str, JsonValue]:
    return {
        "distribution": None if data.distribution is None else _distribution(data.distribution),
        "correlations": {measure: list(figures) for measure, *figures in data.correlations},
        "highest": [_example(example) for example in data.highest],
        "lowest": [_example(example) for example in data.lowest],
        "num_steps": len(data.steps),
        "evaluation": None if data.evaluation is None else _evaluation(data.evaluation),
        "samples": [list(sample[1:]) for sample in data.samples],
        "gate": None if data.gate is None else _gate(data.gate),
        "ability": None if data.ability is None else list(data.ability),
        "failed": None if data.failure is None else data.failure.stage,
    }


def _distribution(shown: PvarDistribution) -> dict[str, JsonValue]:
    return {
        "cut": shown.cut,
        "strategy": shown.strategy,
        "num_tied_at_cut": shown.num_tied_at_cut,
        "num_selected": int(shown.selected.sum()),
        "scales": {name: list(figures) for name, *figures in shown.scales},
    }


def _evaluation(shown: Evaluation) -> dict[str, JsonValue]:
    return {
        "win_rate": [shown.win_rate, shown.ci_lower, shown.ci_upper],
        "judged": [shown.num_judged, shown.num_wanted],
        "judge": shown.judge,
        "opponent": shown.opponent,
        "counts": None if shown.counts is None else list(shown.counts),
        "circularity": shown.circularity,
    }


def _gate(shown: Gate) -> dict[str, JsonValue]:
    checks: dict[str, JsonValue] = {
        each.check: [each.value, each.bound, each.passed] for each in shown.checks
    }
    return {"note": shown.note, "checks": checks}


def _example(example: PromptExample) -> list[JsonValue]:
    return [
        example.messages[-1].content,
        example.pvar,
        example.selected,
        [[answer.reward, answer.role] for answer in example.responses],
    ]


class Taken(NamedTuple):
    """What retraining made of the incoming files."""

    facts: dict[str, JsonValue]
    source: str
    """The batch, as a source of prompts."""
    alias: dict[str, str]


def take_up_files(bench: Bench, files: Mapping[str, bytes]) -> Taken:
    """Put the files under the incoming prefix and make their batch, as flows/retraining.py does."""
    store, scratch = bench.wiring.store, bench.cache()
    config = RetrainConfig(min_new_pairs=5, max_days_between_runs=None)
    for name, data in files.items():
        store.write(f"{config.incoming}/{name}", data)
    batches = read_batches(store)
    known = {file.version for batch in batches for file in (*batch.files, *batch.duplicates)}
    found = look(store, config.incoming, read_rows, known=known, scratch=scratch)
    waiting = [fresh.file for fresh in split_duplicates(found.good, batches)[0]]
    now = datetime.now(UTC)
    decision = decide_retraining(config, waiting, batches[-1].created_at if batches else None, now)
    batch = add_batch(
        store,
        found.good,
        batches,
        reasons=decision.reasons,
        now=now,
        row_files=RowFiles(read_rows, write_rows),
        scratch=scratch,
    )
    assert batch is not None
    facts: dict[str, JsonValue] = {
        "start": decision.start,
        "reasons": list(decision.reasons),
        "batch": batch.number,
        "files": {file.key: file.row_counts.model_dump(mode="json") for file in batch.files},
        "duplicates": [file.key for file in batch.duplicates],
        "quarantined": {file.key: file.reason for file in found.quarantined},
    }
    name = batch.data.rpartition("/")[2]
    return Taken(facts, f"{store.uri}/{batch.data}", {name: f"{{batch {batch.number}}}"})
