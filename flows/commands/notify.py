"""`pvar notify`: send an event to the Prefect server that preference data arrived.

Any HTTP client can send it. The automation in `infra/automations` then starts a retraining:

    curl -X POST "$PREFECT_API_URL/events" -H "Content-Type: application/json" -d '[{
      "event": "preference-data.arrived", "resource": {"prefect.resource.id": "pvar.incoming"},
      "occurred": "2026-11-23T12:00:00Z", "id": "7d9a2a44-6a3b-4e0f-9b0e-0d9a4a3f5c11"}]'

`occurred` is the current time and `id` is any new UUID.
"""

from flows.commands.options import JsonOption


def notify(*keys: str, as_json: JsonOption = False) -> None:
    """Announce new files to the Prefect server of PREFECT_API_URL, which starts a retraining.

    ```console
    pvar notify incoming/monday.jsonl
    ```

    Parameters
    ----------
    keys
        Keys of the files in the store, for example incoming/monday.jsonl. They must exist, and are
        shown with the event. Retraining reads all new files, whether listed here or not.
    as_json
        Print one JSON object with the announced keys.
    """
    from flows.arrival import announce
    from flows.console import console, print_json
    from flows.wiring import connect

    announce(connect().store, keys)
    if as_json:
        print_json({"announced": keys})
        return
    announced = ", ".join(keys) or "new data"
    console().print(f"announced {announced}", highlight=False, markup=False, soft_wrap=True)
