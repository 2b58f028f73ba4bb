"""Work folders: gone with their work, found when their process was killed."""

import os
import subprocess
import sys
import time
from pathlib import Path

from tasks.engine.work_folders import LOCK, STALE_SECONDS, abandoned_folders, work_folder
from tests.services.processes import wait_until

_WORK = """
import sys, time
from pathlib import Path
from tasks.engine.work_folders import work_folder
with work_folder(Path(sys.argv[1]), "train") as folder:
    (folder / "checkpoint").write_text("x")
    (folder / "ready").touch()
    time.sleep(3600)
"""


def make_old(folder: Path) -> None:
    then = time.time() - STALE_SECONDS - 1
    os.utime(folder / LOCK, (then, then))


def test_a_folder_lives_as_long_as_its_work(tmp_path: Path) -> None:
    with work_folder(tmp_path, "train") as folder:
        assert folder.parent == tmp_path / "work"
        assert folder.name.startswith("train-")
        make_old(folder)
        assert abandoned_folders(tmp_path) == []
    assert list((tmp_path / "work").iterdir()) == []


def test_the_folder_of_a_killed_process_is_abandoned(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", _WORK, str(tmp_path)])
    try:
        wait_until(lambda: any(tmp_path.glob("work/*/ready")), "the work has begun")
        (folder,) = (tmp_path / "work").iterdir()
        make_old(folder)
        assert abandoned_folders(tmp_path) == []
    finally:
        process.kill()
        process.wait()
    assert abandoned_folders(tmp_path) == [folder]


def test_a_young_folder_and_a_folder_of_others_are_left_alone(tmp_path: Path) -> None:
    young, others = tmp_path / "work/young", tmp_path / "work/others"
    young.mkdir(parents=True)
    (young / LOCK).touch()
    others.mkdir()
    assert abandoned_folders(tmp_path) == []
    make_old(young)
    assert abandoned_folders(tmp_path) == [young]
