"""The event `preference-data.arrived`: new data is in the store, and a retraining may start."""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import uuid4

from flows.server import connected_client
from pvar.errors import InputError
from pvar.ports import Store

EVENT = "preference-data.arrived"


def announce(store: Store, keys: Sequence[str]) -> None:
    """Emit the event. Raises InputError for a key that the store does not have."""
    missing = [key for key in keys if all(info.key != key for info in store.list(key))]
    if missing:
        raise InputError(
            f"{store.uri} has no {', '.join(missing)}; upload the file first, and give its key "
            "in the store, such as incoming/monday.jsonl"
        )
    event = {
        "id": str(uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": EVENT,
        "resource": {"prefect.resource.id": "pvar.incoming", "pvar.store": store.uri},
        "payload": {"keys": list(keys)},
    }
    with connected_client() as client:
        client.request("POST", "/events", json=[event])
