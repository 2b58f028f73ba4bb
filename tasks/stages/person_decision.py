"""What a person decided on a version, kept in the store where stage promote finds it.

    approvals/{model}/000003/{digest of the results}.json

A decision is about a version and about the results that the person was shown: a version that was
compared anew, with another champion, is asked about anew. The record is put only if absent, so of
two people who decide at once the first counts, and a form that is answered late changes nothing.
"""

from pydantic import AwareDatetime, BaseModel, ConfigDict

from pvar.errors import NotFoundError
from pvar.ports import RegisteredVersion, Store


class PersonDecision(BaseModel):
    """Yes or no, by whom, and why."""

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


def keep_decision(
    store: Store, version: RegisteredVersion, results: str, decision: PersonDecision
) -> PersonDecision:
    """Keep a decision unless there is one; returns the one that counts, which is the first."""
    data = decision.model_dump_json(indent=1).encode() + b"\n"
    if store.create(_key(version, results), data):
        return decision
    return decision_on(store, version, results) or decision


def _key(version: RegisteredVersion, results: str) -> str:
    digest = results.rpartition("/")[2]
    return f"approvals/{version.model_name}/{version.version:06d}/{digest}.json"
