"""Uploads to a Hub on loopback, by the Hub's own client."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.hub_push import HubTarget, hub_target, push_dataset, require_token
from pvar.errors import ConfigError, InputError, UnavailableError
from tests.services.fake_hub import TOKEN, FakeHub, fake_hub

MINE = HubTarget("mine/pairs", None)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with fake_hub() as served:
        monkeypatch.setenv("HF_ENDPOINT", served.address)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield served


def push(tmp_path: Path, target: HubTarget = MINE, *, text: str = "{}\n", **options: bool) -> str:
    path = tmp_path / "pairs.jsonl"
    path.write_text(text)
    return push_dataset(target, {path.name: path, "README.md": b"# A card"}, TOKEN, **options)


def test_a_new_data_set_is_private_and_has_the_files(hub: FakeHub, tmp_path: Path) -> None:
    assert push(tmp_path) == f"{hub.address}/datasets/mine/pairs"
    assert hub.private == {"mine/pairs": True}
    written = {".gitattributes": b"", "pairs.jsonl": b"{}\n", "README.md": b"# A card"}
    assert hub.files["mine/pairs"] == {"main": written}
    push(tmp_path, HubTarget("mine/open", None), public=True)
    assert hub.private["mine/open"] is False


def test_nothing_is_replaced(hub: FakeHub, tmp_path: Path) -> None:
    push(tmp_path)
    with pytest.raises(InputError, match=r"such a data set already.*hub:mine/pairs@BRANCH"):
        push(tmp_path, text="other")
    second = HubTarget("mine/pairs", "v2")
    assert push(tmp_path, second, text="2").endswith("/datasets/mine/pairs/tree/v2")
    with pytest.raises(InputError, match="hub:mine/pairs@v2: there is such a branch already"):
        push(tmp_path, second, text="3")
    found = {branch: files["pairs.jsonl"] for branch, files in hub.files["mine/pairs"].items()}
    assert found == {"main": b"{}\n", "v2": b"2"}


def test_rows_are_not_shown_to_everybody_unasked(hub: FakeHub, tmp_path: Path) -> None:
    hub.fails_commits = 1
    with pytest.raises(UnavailableError):
        push(tmp_path, public=True)
    assert hub.private == {"mine/pairs": False}
    for target in (MINE, HubTarget("mine/pairs", "v2")):
        with pytest.raises(InputError, match="everybody can read this data set; add --public"):
            push(tmp_path, target)
    assert hub.files["mine/pairs"] == {"main": {".gitattributes": b""}}
    push(tmp_path, public=True)
    push(tmp_path, HubTarget("mine/closed", None))
    with pytest.raises(InputError, match="this data set is private, and --public is of a new one"):
        push(tmp_path, HubTarget("mine/closed", "v2"), public=True)


def test_an_upload_that_failed_is_done_again(hub: FakeHub, tmp_path: Path) -> None:
    hub.fails_commits = 1
    with pytest.raises(UnavailableError, match=r"HTTP 418 \(not now\); run the same command again"):
        push(tmp_path)
    push(tmp_path)
    assert "pairs.jsonl" in hub.files["mine/pairs"]["main"]
    hub.fails_commits, second = 1, HubTarget("mine/pairs", "v2")
    with pytest.raises(UnavailableError, match="run the same command again"):
        push(tmp_path, second, text="2")
    push(tmp_path, second, text="2")
    assert hub.files["mine/pairs"]["v2"]["pairs.jsonl"] == b"2"


def test_what_the_token_may_not_is_said_without_the_token(hub: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"hub:theirs/pairs: .* no right to write") as refused:
        push(tmp_path, HubTarget("theirs/pairs", None))
    with pytest.raises(ConfigError, match=r"does not know the token in HF_TOKEN") as unknown:
        push_dataset(MINE, {}, "hf_secret")
    assert TOKEN not in str(refused.value)
    assert "hf_secret" not in str(unknown.value)
    assert hub.files == {}


def test_a_name_that_the_hub_does_not_allow_is_named(hub: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="hub:mine/a--b: the Hub allows no such name"):
        push(tmp_path, HubTarget("mine/a--b", None))
    assert hub.files == {}


def test_a_hub_that_is_away_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(UnavailableError, match="the Hub cannot be reached"):
        push(tmp_path)


def test_the_token_is_only_that_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("hf_of-a-login")
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(ConfigError, match=r"needs a token .* set HF_TOKEN"):
        require_token()
    monkeypatch.setenv("HF_TOKEN", f" {TOKEN}\n")
    assert require_token() == TOKEN


def test_targets_have_a_name_and_a_branch() -> None:
    assert hub_target("hub:org/name") == HubTarget("org/name", None)
    assert hub_target("hub:org/name@runs/2026") == HubTarget("org/name", "runs/2026")
    for wrong in ("name", "a/b/c", "org/name@", "org/na me", "o/../x", "o/..", "o/a@-"):
        with pytest.raises(ConfigError, match="write hub:org/name or hub:org/name@branch"):
            hub_target(f"hub:{wrong}")
    with pytest.raises(ConfigError):
        hub_target("org/name")
