"""The cache of verdicts, so that no comparison is paid for twice.

    verdicts/{digest of the judge's identity}/{digest of prompt, first and second text}.json

The key depends on content only. The answers of a retrained model are other texts, and another
template, sampling parameter or judge has another identity, so neither gets an old verdict. The
order of the two texts matters. Only verdicts are stored, not failures.

A judge that was found to answer differently than before (`judge_epoch.py`) has other keys from then
on, and so have verdicts that are asked again on purpose (`anchors.py`).
"""

import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pvar.digest import digest
from pvar.errors import NotFoundError
from pvar.judging import Identity
from pvar.ports import Store
from pvar.records import Comparison

_log = logging.getLogger(__name__)

_NUM_READERS = 16
"""Verdicts that are read at once; a read from S3 takes tens of milliseconds."""


class KeptVerdict(BaseModel):
    """The stored verdict on one comparison."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    judge: dict[str, str | int | float | bool | None]
    """The judge's identity, for reading."""
    preference: float = Field(ge=0, le=1)
    """Probability that the second answer is better."""
    evidence: str | None
    """The reply from which the preference was parsed."""
    served_model: str | None = None
    """Name of the model that answered, in the server's words."""
    system_fingerprint: str | None = None


@dataclass(frozen=True)
class VerdictCache:
    """Verdicts in a store, which any number of processes may share."""

    store: Store
    epoch: int = 1
    """The judge's epoch. The first one's keys have no epoch."""
    again_for: str | None = None
    """The artifact for which the judge is asked again; None for the verdicts that all share."""

    def _told_apart(self, judge: Identity) -> Identity:
        """The judge's identity, with the epoch and the purpose if they are not the usual ones."""
        usual: Identity = {"epoch": 1, "again_for": None}
        own: Identity = {"epoch": self.epoch, "again_for": self.again_for}
        return {**judge, **{name: each for name, each in own.items() if each != usual[name]}}

    def find(self, judge: Identity, comparison: Comparison) -> KeptVerdict | None:
        """The judge's verdict on the comparison; None if there is none."""
        key = verdict_key(self._told_apart(judge), comparison)
        try:
            return KeptVerdict.model_validate_json(self.store.read(key))
        except NotFoundError:
            return None
        except ValidationError:
            _log.warning("%s/%s is damaged: judging again", self.store.uri, key)
            self.store.delete(key)
            return None

    def find_all(
        self, judge: Identity, comparisons: Iterable[Comparison]
    ) -> dict[Comparison, KeptVerdict]:
        """The judge's verdicts on those comparisons that have one."""
        wanted = list(comparisons)
        with ThreadPoolExecutor(_NUM_READERS, thread_name_prefix="verdicts") as pool:
            found = pool.map(lambda comparison: self.find(judge, comparison), wanted)
            return {
                comparison: kept
                for comparison, kept in zip(wanted, found, strict=True)
                if kept is not None
            }

    def keep(
        self,
        judge: Identity,
        comparison: Comparison,
        preference: float,
        evidence: str | None,
        served_model: str | None = None,
        system_fingerprint: str | None = None,
    ) -> None:
        """Store a verdict, unless another process has stored one first."""
        judge = self._told_apart(judge)
        kept = KeptVerdict(
            judge=dict(judge),
            preference=preference,
            evidence=evidence,
            served_model=served_model,
            system_fingerprint=system_fingerprint,
        )
        content = kept.model_dump_json(indent=1, exclude_defaults=True)
        self.store.create(verdict_key(judge, comparison), content.encode())


def verdict_key(judge: Identity, comparison: Comparison) -> str:
    """The key of the verdict."""
    shown = [comparison.messages, comparison.first, comparison.second]
    return f"verdicts/{digest(judge)}/{digest(shown, length=32)}.json"
