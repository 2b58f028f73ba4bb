"""Protocols of the external services that stages use. Adapters, including fakes, are in `infra/`.

Nothing here depends on a particular service. An adapter's `identity` holds the settings that
determine its results (kind, model digest, settings that change a number). It enters digests and
cache keys, so it contains no path, address, batch size or secret.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Protocol

from pvar.benchmark_config import LmEvalSettings
from pvar.judge_config import JudgeConfig
from pvar.lm_eval_records import HarnessResult
from pvar.number_format import NumberFormat, NumberFormatChoice
from pvar.records import BadRow, Comparison, Message, Response, Row, Score, Verdict
from pvar.reward_config import ComputedReward
from pvar.runtime_config import RuntimeConfig
from pvar.sampler_config import SamplerSettings


class ObjectInfo(NamedTuple):
    """One object of a store's listing."""

    key: str
    num_bytes: int
    modified: datetime
    """Timezone-aware, UTC, by the store's clock."""
    version: str = ""
    """Differs after another content was written, even with the same size and time; it may also
    differ for the same content. S3: the ETag. A folder: inode and change time, which `rsync -t` and
    `cp -p` cannot set."""


class Store(Protocol):
    """Objects under string keys: `file://` and `s3://` behave alike (one contract test suite).

    Keys are relative, `/`-separated, and cannot leave the store's root. Every write is atomic: a
    reader sees the whole object or none. Errors: `NotFoundError` for a missing key, `StoreError`
    (with the address, the cause and what to do) for everything else that fails.
    """

    @property
    def uri(self) -> str:
        """The root, without credentials."""
        ...

    def read(self, key: str) -> bytes:
        """Return the object's bytes."""
        ...

    def write(self, key: str, data: bytes) -> None:
        """Put the object, replacing what is there."""
        ...

    def create(self, key: str, data: bytes) -> bool:
        """Put the object if it does not exist, else return False. Exactly one writer succeeds."""
        ...

    def download(self, key: str, path: Path) -> None:
        """Copy the object to a local file (its folder is made)."""
        ...

    def upload(self, path: Path, key: str) -> None:
        """Copy a local file into the store, as a multipart upload if it is large."""
        ...

    def list(self, prefix: str, depth: int | None = None) -> Iterator[ObjectInfo]:
        """All objects whose key begins with `prefix`, in key order.

        With `depth`, only those with at most so many slashes after the prefix, which in a folder
        takes less time: `list("train/", 1)` has `train/ab12/recipe.json`, and no shards.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove the object. No error if it does not exist."""
        ...


class SampleRequest(NamedTuple):
    """One prompt to be answered."""

    prompt_id: str
    messages: tuple[Message, ...]


class Rejection(NamedTuple):
    """A rejected row, and the reason."""

    row_id: str
    reason: str


class Sampler(Protocol):
    """A policy that generates responses. Loaded once, used for many shards."""

    def sample(
        self, requests: Sequence[SampleRequest], *, num_responses: int, seed: int
    ) -> tuple[list[Response], list[Rejection]]:
        """Generate `num_responses` per request. An invalid prompt rejects only its own request."""
        ...

    def close(self) -> None:
        """Free the model's memory."""
        ...


class ScoreRequest(NamedTuple):
    """One response to be scored."""

    prompt_id: str
    response_id: str
    messages: tuple[Message, ...]
    response: str
    answers: tuple[str, ...] | None = None
    """What the data holds as answers to the prompt: the accepted ones of an ability question, else
    the preferred one that is annotated. None where the data is not asked (judges)."""

    @property
    def is_empty(self) -> bool:
        """Whether the response is only white space. A model has no reward for it."""
        return not self.response.strip()


class Scorer(Protocol):
    """A reward model. Scores are float32 at least and do not depend on batch neighbours."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """One score per request, in order. A failure is a missing reward."""
        ...

    def close(self) -> None:
        """Free the model's memory."""
        ...


class Judge(Protocol):
    """Decides which of two answers is better."""

    @property
    def identity(self) -> Mapping[str, str | int | float | bool | None]:
        """The settings that determine its verdicts: kind, model, template digest, sampling."""
        ...

    def judge(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        """One verdict per comparison, in order."""
        ...


class Harness(Protocol):
    """A model under lm-evaluation-harness. Loaded once, used for many tasks."""

    def run(self, name: str) -> HarnessResult:
        """Answer and score the questions of a task, or of all tasks of a group or tag."""
        ...

    def close(self) -> None:
        """Free the model's memory."""
        ...


class RegisteredVersion(NamedTuple):
    """A version of a registered model."""

    model_name: str
    version: int
    artifact: str | None
    """`train/<digest>` of its artifact; None if pvar did not register it."""
    opponent: str | None = None
    """Pinned reference of the opponent that it was compared with."""
    origin: str | None = None
    """Digest of where and when the model was registered, if pvar did not register it. It
    distinguishes equal names on two servers."""

    @property
    def digest(self) -> str:
        """The digest of a pinned reference: the artifact, or else the origin."""
        return self.artifact or self.origin or f"models:/{self.model_name}/{self.version}"


class Promotion(NamedTuple):
    """A promotion in the history."""

    replaced: int | None
    """The champion before; None if there was none."""
    reason: str


class Registry(Protocol):
    """The model registry. Errors: `TrackingError` (unreachable), `PromotionError` (refused)."""

    def champion(self, model_name: str) -> RegisteredVersion | None:
        """The version with the alias `champion`; None if there is none yet."""
        ...

    def register(
        self, model_name: str, folder: Path, artifact: str, tags: Mapping[str, str]
    ) -> RegisteredVersion:
        """The version made from `artifact`: registered now, or by an earlier attempt."""
        ...

    def promote(
        self,
        version: RegisteredVersion,
        *,
        instead_of: RegisteredVersion | None,
        reason: str,
        by: str | None = None,
    ) -> None:
        """Move the alias `champion` to `version`, and add the move to the history.

        `by` is who decided (this process's user if not given). LostRaceError if `champion` is no
        longer `instead_of` (another promotion came first).
        """
        ...

    def promotions(self, version: RegisteredVersion) -> Sequence[Promotion]:
        """The promotions that led to `version`, oldest first, whatever came after them."""
        ...


class Ports(Protocol):
    """All external services of a stage, assembled by `flows/wiring.py`."""

    @property
    def store(self) -> Store:
        """The artifact store."""
        ...

    @property
    def registry(self) -> Registry:
        """The model registry."""
        ...

    def source_rows(self, reference: str) -> Iterator[Row | BadRow]:
        """Rows of a pinned data reference."""
        ...

    def source_file(self, reference: str) -> Path:
        """Local copy of a pinned file that is read as a whole."""
        ...

    def number_format(self, choice: NumberFormatChoice, *, learns: bool) -> NumberFormat:
        """Resolve a number format on this machine (`pvar/number_format.py`)."""
        ...

    def model_folder(self, reference: str) -> Path:
        """Local Hugging Face folder of a pinned model reference (safetensors and tokenizer)."""
        ...

    def launch_file(self, sharding: str) -> Path:
        """Accelerate's configuration for this kind of sharding (FSDP, DeepSpeed)."""
        ...

    def sampler(
        self, settings: SamplerSettings, policy: str, folder: Path | None, runtime: RuntimeConfig
    ) -> Sampler:
        """Load the policy with this digest from its folder (None if the engine needs none)."""
        ...

    def scorer(
        self, settings: ComputedReward, folders: Mapping[str, Path], runtime: RuntimeConfig
    ) -> Scorer:
        """Load a reward model; `folders` maps each of its reference fields to a model folder."""
        ...

    def judge(
        self, settings: JudgeConfig, folders: Mapping[str, Path], runtime: RuntimeConfig
    ) -> Judge:
        """Set up a judge; `folders` maps each of its reference fields to a model folder."""
        ...

    def harness(
        self,
        settings: LmEvalSettings,
        policy: str,
        folder: Path | None,
        runtime: RuntimeConfig,
        *,
        allow_code_execution: bool,
        scratch: Path,
    ) -> Harness:
        """Load the policy with this digest from its folder (None if the backend needs none).

        Temporary files of the tasks are kept in `scratch`. ConfigError for an unknown task.
        """
        ...
