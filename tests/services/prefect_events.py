"""Events of Prefect's server, said once more: so a test decides what an automation sees, and when.

A proactive automation counts from an event, and how soon the next one follows depends on the
machine. A test therefore leaves its patience as shipped until everything is in place, then shortens
it, and repeats the run's last event, from which it counts.
"""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from prefect import get_client

from tests.services.processes import wait_until


def last_event(run: UUID) -> dict[str, Any] | None:
    """The newest event of a flow run, heartbeats included."""
    resource = f"prefect.flow-run.{run}"
    found = _request("/events/filter", {"filter": {"any_resource": {"id": [resource]}}})
    own = [
        event for event in found["events"] if event["resource"]["prefect.resource.id"] == resource
    ]
    return max(own, key=lambda event: str(event["occurred"]), default=None)


def repeat_last_event(run: UUID) -> str:
    """Say the run's newest event again, as of now; its name."""
    wait_until(lambda: last_event(run) is not None, f"an event of run {run}")
    event = last_event(run)
    assert event is not None
    kept = {name: event[name] for name in ("event", "resource", "related", "payload")}
    now = datetime.now(UTC).isoformat()
    _request("/events", [{**kept, "id": str(uuid4()), "occurred": now}])
    return str(event["event"])


def _request(path: str, body: Any) -> Any:
    with get_client(sync_client=True) as client:
        answer = client._client.post(path, json=body)
        answer.raise_for_status()
        return answer.json() if answer.content else None
