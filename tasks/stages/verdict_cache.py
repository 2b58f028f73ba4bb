"""Verdicts that were paid for, by what they are about: nobody pays for the same question twice.

    verdicts/{digest of the judge's identity}/{digest of prompt, first and second text}.json

The key is made of content alone: a retrained model's answers are other texts, and
another template, sampling parameter or judge is another identity, so neither meets an old verdict.
The order of the two texts counts. Only verdicts are kept, never failures.
"""

import logging
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pvar.digest import digest
from pvar.errors import NotFoundError
from pvar.judging import Identity
from pvar.ports import Store
from pvar.records import Comparison

_log = logging.getLogger(__name__)


class KeptVerdict(BaseModel):
    """What is stored of one comparison."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    judge: dict[str, str | int | float | bool | None]
    """The judge's identity, for people who look."""
    preference: float = Field(ge=0, le=1)
    """Probability that the second answer is better."""
    evidence: str | None
    """What the preference was read from."""


@dataclass(frozen=True)
class VerdictCache:
    """Verdicts in a store; any number of processes may share it."""

    store: Store

    def find(self, judge: Identity, comparison: Comparison) -> KeptVerdict | None:
        """What that judge said of that comparison; None if it was not asked or gave no verdict."""
        key = verdict_key(judge, comparison)
        try:
            return KeptVerdict.model_validate_json(self.store.read(key))
        except NotFoundError:
            return None
        except ValidationError:
            _log.warning("%s/%s is damaged: judging anew", self.store.uri, key)
            self.store.delete(key)
            return None

    def keep(
        self, judge: Identity, comparison: Comparison, preference: float, evidence: str | None
    ) -> None:
        """Store a verdict. If somebody else was first, theirs stays."""
        kept = KeptVerdict(judge=dict(judge), preference=preference, evidence=evidence)
        self.store.create(verdict_key(judge, comparison), kept.model_dump_json(indent=1).encode())


def verdict_key(judge: Identity, comparison: Comparison) -> str:
    """Where the verdict is kept."""
    shown = [comparison.messages, comparison.first, comparison.second]
    return f"verdicts/{digest(judge)}/{digest(shown, length=32)}.json"
