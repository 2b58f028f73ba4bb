"""The prompts that were withdrawn: they are not read, replayed or asked again.

    withdrawn/{digest of the ids}.json      written once

All readers take the union. There is no way back but to delete a record by hand.
"""

from collections.abc import Iterable
from datetime import datetime

from pvar.digest import digest
from pvar.ports import Store
from pvar.withdrawal import Withdrawal, new_withdrawal
from tasks.retraining.batches import read_record, to_json

WITHDRAWN = "withdrawn"


def read_withdrawals(store: Store) -> list[Withdrawal]:
    """All withdrawals, oldest first."""
    keys = [info.key for info in store.list(f"{WITHDRAWN}/")]
    lost = "the prompts that it withdraws are used again"
    found = [read_record(store, key, Withdrawal, lost=lost) for key in keys]
    return sorted(found, key=lambda each: each.withdrawn_at)


def withdrawn_ids(store: Store) -> frozenset[str]:
    """Ids of all withdrawn prompts."""
    return frozenset(name for each in read_withdrawals(store) for name in each.prompt_ids)


def withdraw(
    store: Store, prompt_ids: Iterable[str], *, reason: str | None, now: datetime
) -> Withdrawal | None:
    """Record that these prompts are withdrawn; None if all of them were before."""
    withdrawal = new_withdrawal(set(prompt_ids) - withdrawn_ids(store), reason=reason, now=now)
    if withdrawal is not None:
        key = f"{WITHDRAWN}/{digest(list(withdrawal.prompt_ids))}.json"
        store.create(key, to_json(withdrawal))
    return withdrawal
