"""Which test process gets which files, and when: those that share something slow stay together.

As xdist's `--dist loadfile`, with two differences. The files that need the project's images are one
unit: else the second process would wait for minutes while the first builds them. And the longest
units begin first, so that no process ends long after the other.
"""

from pathlib import PurePosixPath

from xdist.scheduler import LoadFileScheduling

IMAGES = ("test_compose.py", "test_images.py", "test_stage_containers.py")
"""They share the images of the stages, which take minutes to build."""

LONGEST_FIRST = (
    *IMAGES,
    "test_vllm.py",
    "test_extending.py",
    "test_backtest_flow.py",
    "test_month.py",
    "test_kill.py",
    "test_openai_engine.py",
)


def unit(nodeid: str) -> str:
    """What is run by one process, in order."""
    path = nodeid.partition("::")[0]
    return "images" if PurePosixPath(path).name in IMAGES else path


def rank(nodeid: str) -> int:
    """The lower, the sooner; files that are not named keep their order."""
    name = PurePosixPath(nodeid.partition("::")[0]).name
    return LONGEST_FIRST.index(name) if name in LONGEST_FIRST else len(LONGEST_FIRST)


class Scheduling(LoadFileScheduling):
    """Files, or several that belong together."""

    def _split_scope(self, nodeid: str) -> str:
        return unit(nodeid)
