"""The memory that a process may use: the tightest limit of its control groups counts."""

from pathlib import Path

import pytest

from infra.machine_memory import Memory, read_cgroup_memory, read_memory


def write(folder: Path, **files: object) -> None:
    """Files of a control group; a dot in a name is written as two underscores."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


def limit(tmp_path: Path, line: str, swap_bytes: int = 0) -> Memory | None:
    own = tmp_path / "cgroup"
    own.write_text(f"{line}\n")
    return read_cgroup_memory(swap_bytes=swap_bytes, own=own, cgroups=tmp_path / "fs")


def test_the_tightest_group_around_the_process_limits_it(tmp_path: Path) -> None:
    write(tmp_path / "fs/a", memory__max=1000, memory__current=700)
    write(tmp_path / "fs/a/b", memory__max=4000, memory__current=300)
    # 100 of the 700 used are file pages, which are given up; 1000 - 600 are free.
    (tmp_path / "fs/a/memory.stat").write_text("anon 600\ninactive_file 100\n")
    assert limit(tmp_path, "0::/a/b") == Memory(total=1000, free=400)


def test_a_container_sees_its_own_group_as_the_root(tmp_path: Path) -> None:
    write(tmp_path / "fs", memory__max=2000, memory__current=500)
    assert limit(tmp_path, "0::/") == Memory(2000, 1500)
    write(tmp_path / "fs/memory", memory__limit_in_bytes=3000, memory__usage_in_bytes=1000)
    assert limit(tmp_path, "4:cpu,memory:/docker/ab12") == Memory(3000, 2000)


def test_swap_counts_as_far_as_the_group_may_use_it(tmp_path: Path) -> None:
    write(tmp_path / "fs", memory__max=2000, memory__current=500, memory__swap__max=50)
    assert limit(tmp_path, "0::/", swap_bytes=400) == Memory(2050, 1500)
    write(tmp_path / "fs", memory__swap__max="max")
    assert limit(tmp_path, "0::/", swap_bytes=400) == Memory(2400, 1500)


def test_without_a_limit_there_is_none(tmp_path: Path) -> None:
    write(tmp_path / "fs/a", memory__max="max", memory__current=700)
    assert limit(tmp_path, "0::/a") is None
    assert limit(tmp_path, "3:cpu:/a") is None


def test_this_machine_has_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """On macOS the free space of the disk counts, too, because it is made swap space."""
    found = read_memory()
    assert found is not None
    assert 0 < found.free <= found.total
    monkeypatch.setattr("infra.machine_memory.read_cgroup_memory", lambda **_: None)
    here = read_memory()
    monkeypatch.setattr("sys.platform", "darwin")
    on_macos = read_memory()
    assert here is not None
    assert on_macos is not None
    assert on_macos.total > here.total
