"""A queue goes through a real Label Studio and comes back, by its API.

    python tests/benchmarks/label_studio_round_trip.py http://127.0.0.1:8080 TOKEN FOLDER

FOLDER gets the files. TOKEN is the legacy API token of a user. A project is made with the
labelling configuration, the tasks are imported, the user answers them (first, second, tie, skipped,
in turn), and the export in the format JSON is imported. Prints what became of the answers.
"""

import json
import subprocess
import sys
from pathlib import Path

import httpx

NUM_PAIRS = 8
ANSWERS = ("1", "2", "tie", None)
PROMPT = "Which of these two is better?\n  The second line  is indented & <b>marked</b> «ü»."


def main(url: str, token: str, folder: Path) -> None:
    """Make, answer and import a queue."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "prompt": f"{PROMPT} {number}",
            "responses": [f"One, {number}.", f"Two, {number}.", f"Three, {number}."],
            "rewards": [0.0, 1.0, 2.0 + number],
        }
        for number in range(NUM_PAIRS)
    ]
    candidates = folder / "candidates.jsonl"
    candidates.write_text("".join(json.dumps(row) + "\n" for row in rows))
    queue = folder / "queue"
    pvar("export", str(candidates), "--budget", str(NUM_PAIRS), "--out", str(queue))
    exported = folder / "export.json"
    with httpx.Client(
        base_url=url, headers={"Authorization": f"Token {token}"}, timeout=120
    ) as client:
        exported.write_text(json.dumps(answered(client, queue)))
    labels = folder / "labels.jsonl"
    pvar("import", str(exported), "--queue", str(queue), "--out", str(labels))
    print(labels.read_text())


def answered(client: httpx.Client, queue: Path) -> object:
    """The export of a project whose tasks are those of the queue, all answered."""
    configuration = (queue / "labelling.xml").read_text()
    project = post(client, "/api/projects", title="pvar", label_config=configuration)["id"]
    tasks = json.loads((queue / "tasks.json").read_text())
    said = client.post(f"/api/projects/{project}/import", json=tasks)
    said.raise_for_status()
    print(f"imported: {said.json()['task_count']} tasks")
    listed = client.get("/api/tasks", params={"project": project, "page_size": 100})
    listed.raise_for_status()
    for number, task in enumerate(listed.json()["tasks"]):
        choice = ANSWERS[number % len(ANSWERS)]
        result = [
            {
                "from_name": "preference",
                "to_name": "prompt",
                "type": "choices",
                "value": {"choices": [choice]},
            }
        ]
        post(
            client,
            f"/api/tasks/{task['id']}/annotations/",
            result=result if choice else [],
            was_cancelled=choice is None,
        )
    export = client.get(f"/api/projects/{project}/export", params={"exportType": "JSON"})
    export.raise_for_status()
    return export.json()


def post(client: httpx.Client, path: str, **body: object) -> dict[str, int]:
    """Its answer."""
    said = client.post(path, json=body)
    if said.is_error:
        sys.exit(f"{path}: {said.status_code} {said.text[:500]}")
    answer: dict[str, int] = said.json()
    return answer


def pvar(*arguments: str) -> None:
    """Run `pvar queue`."""
    subprocess.run(["pvar", "queue", *arguments], check=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
