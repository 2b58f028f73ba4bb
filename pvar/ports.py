"""What stages need from the outside, as protocols. Adapters live in `infra/`, fakes among them.

Nothing here names a service. An adapter's `identity` is what of it decides its results (kind,
model digest, settings that change a number): it enters digests and cache keys, so it holds no
path, address, batch size or secret.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Protocol

from pvar.config import RuntimeConfig, SamplerSettings
from pvar.judge_config import JudgeConfig
from pvar.number_format import NumberFormat, NumberFormatChoice
from pvar.records import BadRow, Comparison, Message, Response, Row, Score, Verdict
from pvar.reward_config import RewardModelConfig


class ObjectInfo(NamedTuple):
    """One object of a store's listing."""

    key: str
    num_bytes: int
    modified: datetime
    """Timezone-aware, UTC; the store's clock."""


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
        """Put the object if there is none; False if there was one. One winner among many."""
        ...

    def download(self, key: str, path: Path) -> None:
        """Copy the object to a local file (its folder is made)."""
        ...

    def upload(self, path: Path, key: str) -> None:
        """Copy a local file into the store, multipart where it is large."""
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects whose key begins with `prefix`, in key order."""
        ...

    def delete(self, key: str) -> None:
        """Remove the object; no error if there is none."""
        ...


class SampleRequest(NamedTuple):
    """One prompt to be answered."""

    prompt_id: str
    messages: tuple[Message, ...]


class Rejection(NamedTuple):
    """A row that was turned away, and why."""

    row_id: str
    reason: str


class Sampler(Protocol):
    """A policy that answers prompts. Loaded once, used for many shards."""

    def sample(
        self, requests: Sequence[SampleRequest], *, num_responses: int, seed: int
    ) -> tuple[list[Response], list[Rejection]]:
        """Answer each request `num_responses` times; one bad prompt rejects only itself."""
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


class Scorer(Protocol):
    """A reward model. Scores are float32 at least and do not depend on batch neighbours."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """One score per request, in the order of the requests; a failure is a missing reward."""
        ...

    def close(self) -> None:
        """Free the model's memory."""
        ...


class Judge(Protocol):
    """Says which of two answers is better."""

    @property
    def identity(self) -> Mapping[str, str | int | float | bool | None]:
        """What decides its verdicts: kind, model, template digest, sampling parameters."""
        ...

    def judge(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        """One verdict per comparison, in order."""
        ...


class RegisteredVersion(NamedTuple):
    """A version of a registered model."""

    model_name: str
    version: int
    artifact: str | None
    """`train/<digest>` of the artifact that it was made from; None if it is not ours."""
    opponent: str | None = None
    """Pinned reference of the model that it was compared with."""
    origin: str | None = None
    """Of a model that is not ours, a digest of where and when it was registered: it tells equal
    names on two servers apart."""

    @property
    def digest(self) -> str:
        """What it is pinned to: the artifact, or of a model that is not ours its origin."""
        return self.artifact or self.origin or f"models:/{self.model_name}/{self.version}"


class Promotion(NamedTuple):
    """A promotion in the history."""

    replaced: int | None
    """The champion before; None if there was none."""
    reason: str


class Registry(Protocol):
    """The model registry. Errors: `TrackingError` (unreachable), `PromotionError` (refused)."""

    def champion(self, model_name: str) -> RegisteredVersion | None:
        """The version that the alias `champion` names; None if there is none yet."""
        ...

    def register(
        self, model_name: str, folder: Path, artifact: str, tags: Mapping[str, str]
    ) -> RegisteredVersion:
        """The version made from `artifact`: registered now, or found from an earlier try."""
        ...

    def promote(
        self,
        version: RegisteredVersion,
        *,
        instead_of: RegisteredVersion | None,
        reason: str,
        by: str | None = None,
    ) -> None:
        """Move the alias `champion` to `version` and keep what it named in the history.

        `by` is who decided (this process's user if not given). PromotionError if `champion` is no
        longer `instead_of` (a promotion came in between).
        """
        ...

    def promotions(self, version: RegisteredVersion) -> Sequence[Promotion]:
        """The promotions that led to `version`, oldest first, whatever came after them."""
        ...


class Ports(Protocol):
    """Everything that a stage may reach, put together by `flows/wiring.py`."""

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

    def number_format(self, choice: NumberFormatChoice, *, learns: bool) -> NumberFormat:
        """The number format of a choice on this machine (`pvar/number_format.py`)."""
        ...

    def model_folder(self, reference: str) -> Path:
        """Local Hugging Face folder of a pinned model reference (safetensors and tokenizer)."""
        ...

    def launch_file(self, sharding: str) -> Path:
        """Accelerate's configuration for training that is spread in this way (FSDP, DeepSpeed)."""
        ...

    def sampler(
        self, settings: SamplerSettings, policy: str, folder: Path | None, runtime: RuntimeConfig
    ) -> Sampler:
        """Load the policy of that digest from its folder (None for engines that need none)."""
        ...

    def scorer(
        self, settings: RewardModelConfig, folders: Mapping[str, Path], runtime: RuntimeConfig
    ) -> Scorer:
        """Load a reward model; `folders` has the model of each of its references, by field."""
        ...

    def judge(
        self, settings: JudgeConfig, folders: Mapping[str, Path], runtime: RuntimeConfig
    ) -> Judge:
        """Set up a judge; `folders` has the model of each of its references, by field."""
        ...
