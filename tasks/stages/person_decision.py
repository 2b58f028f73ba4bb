"""A person's decision on a version, kept in the store, where stage promote reads it.

    approvals/{model}/000003/{digest of the results}.json

A decision applies to a version and to the results that the person was shown. A version that is
compared again, with another champion, needs a new decision. The record is created only if it is
absent. So if two people decide at the same time, the first decision counts, and a form that is
submitted late has no effect.
"""

from pydantic import AwareDatetime, BaseModel, ConfigDict

from pvar.errors import NotFoundError
from pvar.ports import RegisteredVersion, Store


class PersonDecision(BaseModel):
    """Approval or refusal of a version, by whom and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    approved: bool
    by: str
    note: str
    at: AwareDatetime

    @property
    def sentence(self) -> str:
        """`approved by ana: read fifty answers`."""
        return f"{'approved' if self.approved else 'declined'} by {self.by}: {self.note}"


def decision_on(store: Store, version: RegisteredVersion, results: str) -> PersonDecision | None:
    """The decision on a version with these results (`evaluate/digest`); None if there is none."""
    try:
        return PersonDecision.model_validate_json(store.read(_key(version, results)))
    except NotFoundError:
        return None


def decided_version(store: Store, model_name: str, results: str) -> int | None:
    """The version with these results (a digest) on which a person decided; None if nobody did."""
    folder = f"approvals/{model_name}/"
    decided = [
        info.key.removeprefix(folder).partition("/")[0]
        for info in store.list(folder)
        if info.key.endswith(f"/{results}.json")
    ]
    return int(decided[-1]) if decided else None


def keep_decision(
    store: Store, version: RegisteredVersion, results: str, decision: PersonDecision
) -> PersonDecision:
    """Store a decision unless there is one, and return the decision that counts, the first one."""
    data = decision.model_dump_json(indent=1).encode() + b"\n"
    if store.create(_key(version, results), data):
        return decision
    return decision_on(store, version, results) or decision


def _key(version: RegisteredVersion, results: str) -> str:
    digest = results.rpartition("/")[2]
    return f"approvals/{version.model_name}/{version.version:06d}/{digest}.json"
