import sys
from pathlib import Path

import pytest

from infra import machine_facts
from infra.machine_facts import PACKAGES, installed, processor, this_machine

INFORMATION = "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 36\n"


def test_the_machine_has_its_processor_and_the_versions_that_are_installed() -> None:
    found = this_machine()
    assert processor() in found.hardware
    assert {"Python", "pvar", "numpy"} <= found.versions.keys() <= {"Python", *PACKAGES}
    assert installed(["numpy", "no-such-package"]).keys() == {"numpy"}
    assert found.key == this_machine().key
    assert found.model_copy(update={"versions": {}}).key != found.key


def test_cards_are_counted_without_loading_pytorch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(machine_facts, "_NVIDIA", tmp_path)
    assert "×" not in this_machine().hardware
    for bus in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / bus).mkdir()
        (tmp_path / bus / "information").write_text(INFORMATION)
    (tmp_path / "lost" / "information").mkdir(parents=True)  # one that cannot be read
    assert this_machine().hardware.startswith("2 × NVIDIA H100 80GB HBM3, ")
    assert "torch" not in sys.modules
