"""The few requests of the Hugging Face Hub that an upload makes, answered on loopback.

Written after huggingface_hub's client, not after the Hub: it stores small files that are sent in
the commit itself, as the Hub does with text, and knows neither LFS nor Xet.
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.services.loopback_http import Handler, listening, sent_json

TOKEN = "hf_of-the-tests"
ORGANISATION = "mine"
"""Where the token may write."""


class FakeHub:
    """Data sets by name: visibility, and files by branch."""

    def __init__(self) -> None:
        self.private: dict[str, bool] = {}
        self.files: dict[str, dict[str, dict[str, bytes]]] = {}
        self.fails_commits = 0
        """So many commits are answered with an error of the server."""
        self.address = ""

    def answer(self, path: str, token: str, body: bytes) -> tuple[int, Any]:
        """Status and JSON."""
        if token != f"Bearer {TOKEN}":
            return 401, {"error": "Invalid credentials"}
        parts = path.partition("?")[0].strip("/").split("/")
        if parts == ["api", "repos", "create"]:
            return self._create(json.loads(body))
        if parts == ["api", "validate-yaml"]:
            assert json.loads(body)["repoType"] == "dataset"
            return 200, {"errors": [], "warnings": []}
        assert parts[:2] == ["api", "datasets"], path
        repository, rest = "/".join(parts[2:4]), parts[4:]
        files = self.files[repository]
        match rest:
            case []:
                return 200, {"id": repository, "private": self.private[repository]}
            case ["revision", branch]:
                names = [{"rfilename": name} for name in files[branch]]
                return 200, {"id": repository, "sha": "0" * 40, "siblings": names}
            case ["refs"]:
                heads = [
                    {
                        "name": branch,
                        "ref": f"refs/heads/{branch}",
                        "targetCommit": hashlib.sha1(repr(found).encode()).hexdigest(),
                    }
                    for branch, found in files.items()
                ]
                return 200, {"branches": heads, "converts": [], "tags": []}
            case ["tree", branch]:
                return 200, [
                    {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
                    for name, content in files[branch].items()
                ]
            case ["branch", branch]:
                if branch in files:
                    return 409, {"error": "Reference already exists"}
                files[branch] = dict(files["main"])
                return 200, {}
            case ["preupload", _]:
                asked = json.loads(body)["files"]
                return 200, {
                    "files": [
                        {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False}
                        for each in asked
                    ]
                }
            case ["commit", branch]:
                return self._commit(repository, branch, body)
        raise AssertionError(f"a request that the fake does not know: {path}")

    def _create(self, asked: dict[str, Any]) -> tuple[int, Any]:
        repository = f"{asked['organization']}/{asked['name']}"
        assert asked["type"] == "dataset"
        if asked["organization"] != ORGANISATION:
            return 403, {"error": "You don't have the rights to create a dataset there"}
        if repository in self.files:
            return 409, {"error": "You already created this dataset repo"}
        self.files[repository] = {"main": {".gitattributes": b""}}
        self.private[repository] = asked.get("private") or asked.get("visibility") == "private"
        return 200, {"url": f"{self.address}/datasets/{repository}"}

    def _commit(self, repository: str, branch: str, body: bytes) -> tuple[int, Any]:
        if self.fails_commits:
            self.fails_commits -= 1
            return 418, {"error": "not now"}
        for line in filter(None, body.splitlines()):
            entry = json.loads(line)
            if entry["key"] == "file":
                value = entry["value"]
                content = base64.b64decode(value["content"])
                self.files[repository][branch][value["path"]] = content
        commit = f"{self.address}/datasets/{repository}/commit/{'0' * 40}"
        return 200, {"success": True, "commitUrl": commit, "commitOid": "0" * 40}


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """A Hub for the body, at its `address`."""
    hub = FakeHub()

    class Answering(Handler):
        def do_POST(self) -> None:
            token = self.headers.get("Authorization") or ""
            status, answer = hub.answer(self.path, token, self.read_body())
            self.send(sent_json(answer, status))

        def do_GET(self) -> None:
            status, answer = hub.answer(self.path, self.headers.get("Authorization") or "", b"")
            self.send(sent_json(answer, status))

    with listening(Answering) as hub.address:
        yield hub
