"""The size of a model, from what is on disk; unknown is unknown."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from infra.bundled_model import BUNDLED, bundled_digest
from infra.model_size import ModelSize, count_parameters, find_size
from pvar.errors import ModelError

HUB = "org/name@abc#org/name@abc"


def write_model(folder: Path, **config: Any) -> Path:
    """2 × 3 + 5 = 11 parameters, in two files."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({"a": np.zeros((2, 3), np.float16)}, folder / "model-1.safetensors")
    save_file({"b": np.zeros(5, np.float16)}, folder / "model-2.safetensors")
    return folder


def size(reference: str, models: Path) -> ModelSize | None:
    return find_size(reference, models, "sqlite://")


def test_parameters_are_counted_from_the_headers(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    assert size(f"{folder}#sha256-0", tmp_path) == ModelSize(11)
    assert size(f"file://{folder}#sha256-0", tmp_path) == ModelSize(11)


def test_weights_that_a_folder_has_twice_are_counted_once(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    save_file({"all": np.zeros(11, np.float16)}, folder / "consolidated.safetensors")
    index = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    assert count_parameters(folder) == 11
    (folder / "model.safetensors.index.json").unlink()
    save_file({"all": np.zeros(11, np.float16)}, folder / "model.safetensors")
    assert count_parameters(folder) == 11


def test_the_number_of_packed_weights_says_nothing_of_memory(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", quantization_config={"bits": 4})
    assert count_parameters(folder) is None


@pytest.mark.parametrize("content", [b"", b"\xff" * 20, b"\x02\0\0\0\0\0\0\0{}", b"PK"])
def test_files_that_are_no_weights_have_no_size(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(content)
    assert count_parameters(tmp_path) is None


def test_a_folder_of_another_machine_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="/no/model: no such folder on this machine"):
        size("/no/model#sha256-0", tmp_path)


def test_the_bundled_model_is_converted_once(tmp_path: Path) -> None:
    name, model = next(iter(BUNDLED.items()))
    reference = f"bundled:{name}#{bundled_digest(name)}"
    num = model.num_parameters
    assert size(reference, tmp_path) == ModelSize(num, download_bytes=2 * num)
    write_model(tmp_path / f"{name}-{bundled_digest(name)}")
    assert size(reference, tmp_path) == ModelSize(11)


def test_registered_models_and_s3_are_unknown_until_they_are_copied(tmp_path: Path) -> None:
    assert size("models:/m/3#mlflow-0", tmp_path) is None
    assert size("s3://bucket/model#s3-0", tmp_path) is None


class Hub:
    """What the Hub says of a model; `answer` None is no answer."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def model_info(self, repository: str, *, revision: str, **_: Any) -> Any:
        assert (repository, revision) == ("org/name", "abc")
        if self.answer is None:
            raise OSError("no network")
        return self.answer


def info(**config: Any) -> SimpleNamespace:
    sizes = {"model.safetensors": 16_000, "config.json": 10, "pytorch_model.bin": 99, "a.md": None}
    files = [SimpleNamespace(rfilename=name, size=num) for name, num in sizes.items()]
    return SimpleNamespace(siblings=files, config=config, safetensors=SimpleNamespace(total=8_000))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (info(), ModelSize(8_000, download_bytes=16_010)),
        (info(quantization_config={}), ModelSize(None, download_bytes=16_010)),
        (None, None),
    ],
)
def test_the_hub_is_asked_about_what_is_not_in_its_cache(
    answer: Any, expected: ModelSize | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: Hub(answer))
    assert size(HUB, tmp_path) == expected


def test_a_download_that_was_interrupted_is_no_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_model(tmp_path / "snapshot")

    def cached(_: str, name: str, **__: object) -> str | None:
        return str(folder / name) if (folder / name).exists() else None

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", cached)
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: Hub(info()))
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "c": "model-3"}}))
    assert size(HUB, tmp_path) == ModelSize(8_000, download_bytes=16_000)  # config.json is there
    blobs = tmp_path / "models--org--name" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "0a.incomplete").write_bytes(bytes(9_000))
    assert size(HUB, tmp_path) == ModelSize(8_000, download_bytes=7_000)
    index.write_text(
        json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}})
    )
    assert size(HUB, tmp_path) == ModelSize(11)
