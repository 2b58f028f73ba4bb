"""A small workflow for tests: prompts, a configuration of fakes, and stages run without a server.

`Workflow` runs nodes as `flows/execution.py` does, but without Prefect and MLflow, so that a test
of a stage takes milliseconds. Everything below is real: the store, the plan, the stages.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from flows.pinning import pin
from flows.wiring import Wiring, connect
from infra.settings import Settings
from pvar.config import PipelineConfig
from pvar.ports import Store
from tasks.engine.artifact import Artifact, open_artifact
from tasks.engine.node import Node
from tasks.engine.stage import Job, run_stage
from tasks.engine.stage_outcome import StageOutcome
from tasks.graph import plan_nodes

TOPICS = (
    "a quiet hotel by the sea", "the last train home", "my grandmother's kitchen", "a broken phone",
    "an evening in the opera", "the dentist on Maple Street", "our first camping trip",
    "a film about chess players", "the new bakery downtown", "a marathon in the rain",
    "the museum of clocks", "a flight with three delays", "learning to swim at forty",
    "the noisy upstairs neighbours", "a book of winter poems", "the company picnic",
    "a haircut gone strange", "the village brass band", "moving into a tiny flat",
    "a puppy in the office", "the self-checkout machine", "an old bicycle repaired",
    "the school play rehearsal", "a garden full of slugs", "the ferry to the islands",
    "a job interview by video", "the lost suitcase", "a birthday without cake",
    "the night market", "a concert in a cave", "the library's reading room", "a leaking roof",
)  # fmt: skip
"""Different enough that no two prompts are near-duplicates."""


def write_prompts(path: Path, texts: Iterable[str] = TOPICS) -> Path:
    """A JSON-lines file of prompts."""
    path.write_text("".join(json.dumps({"prompt": f"Describe {text}."}) + "\n" for text in texts))
    return path


def fake_settings(source: Path, **changes: Any) -> dict[str, Any]:
    """A configuration without models, as a preset file holds it; dotted keys change it."""
    tree: dict[str, Any] = {
        # Never loaded by fakes, but pinned: no network is asked for a bundled model.
        "policy": "bundled:smollm2-135m-instruct",
        "ingest": {"source": str(source), "eval_fraction": 0.4},
        "sample": {"engine": "fake", "num_responses": 4, "max_new_tokens": 12},
        "score": {"reward_models": [{"kind": "vader"}]},
        "select": {"budget": {"fraction": 0.5}},
        "evaluate": {
            "judge": {"kind": "afinn"},
            "opponent": "bundled:smollm2-135m-instruct",
            "answers": {"engine": "fake", "max_new_tokens": 12},
        },
        "runtime": {
            "sampled_responses_per_shard": 16,
            "responses_per_shard": 16,
            "lease_seconds": 60,
        },
    }
    for key, value in changes.items():
        *parents, last = key.split(".")
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[last] = value
    return tree


def open_wiring(home: Path, store_uri: str | None = None) -> Wiring:
    """Adapters over a home folder of the test's own."""
    return connect(
        Settings(
            home=home,
            store_uri=store_uri or (home / "store").absolute().as_uri(),
            mlflow_tracking_uri=f"sqlite:///{home.absolute()}/mlflow.db",
        )
    )


@dataclass(frozen=True)
class Workflow:
    """A pinned configuration and where it is run."""

    config: PipelineConfig
    wiring: Wiring

    @property
    def store(self) -> Store:
        return self.wiring.store

    @property
    def nodes(self) -> dict[str, Node]:
        return plan_nodes(self.config)

    def job(self, name: str) -> Job[Any]:
        """The job of a node whose inputs are complete, with a scratch folder of its own."""
        node = self.nodes[name]
        scratch = self.wiring.settings.home / "scratch" / uuid4().hex
        scratch.mkdir(parents=True)
        return Job(
            spec=node.spec,
            runtime=self.config.runtime,
            inputs={
                input_name: open_artifact(self.store, keys.stage, keys.digest, scratch / "inputs")
                for input_name, keys in node.inputs.items()
            },
            ports=self.wiring,
            keys=node.keys,
            scratch=scratch,
            log_step=_ignore,
        )

    def make(self, *names: str) -> StageOutcome:
        """Run nodes in this order; the outcome of the last."""
        return [self._make(name) for name in names][-1]

    def _make(self, name: str) -> StageOutcome:
        node = self.nodes[name]
        return run_stage(node.stage, node.recipe, self.job(name))

    def artifact(self, name: str) -> Artifact:
        """The complete artifact of a node."""
        keys = self.nodes[name].keys
        cache = self.wiring.settings.home / "scratch" / uuid4().hex
        return open_artifact(self.store, keys.stage, keys.digest, cache)

    def objects(self, name: str) -> dict[str, bytes]:
        """What the store holds of a node, but for its leases: key below the artifact → bytes."""
        root = f"{self.nodes[name].keys.root}/"
        keys = [info.key for info in self.store.list(root)]
        return {
            key.removeprefix(root): self.store.read(key)
            for key in keys
            if not key.startswith(f"{root}leases/")
        }


def _ignore(step: int, figures: Mapping[str, float]) -> None:
    """Nobody watches."""


def start_workflow(home: Path, *, store_uri: str | None = None, **changes: Any) -> Workflow:
    """A workflow of fakes over the prompts of this file, in an empty home."""
    home.mkdir(parents=True, exist_ok=True)
    source = write_prompts(home / "prompts.jsonl")
    wiring = open_wiring(home, store_uri)
    settings = PipelineConfig.model_validate(fake_settings(source, **changes))
    return Workflow(pin(settings, wiring), wiring)
