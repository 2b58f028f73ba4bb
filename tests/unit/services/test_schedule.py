"""Which test process gets which files, and when."""

from pathlib import Path

from tests.services.schedule import IMAGES, LONGEST_FIRST, rank, unit

INTEGRATION = Path(__file__).parents[2] / "integration"


def test_files_that_need_the_images_are_one_unit_the_others_one_each() -> None:
    assert {unit(f"tests/integration/{name}::test_it[a::b]") for name in IMAGES} == {"images"}
    assert unit("tests/unit/a/test_b.py::test_c") == "tests/unit/a/test_b.py"


def test_whoever_uses_the_images_is_named() -> None:
    users = {
        path.name for path in INTEGRATION.glob("test_*.py") if "docker_images" in path.read_text()
    }
    assert users == set(IMAGES)


def test_the_long_ones_exist_and_come_first() -> None:
    assert [name for name in LONGEST_FIRST if not (INTEGRATION / name).exists()] == []
    names = ("test_approval.py", *reversed(LONGEST_FIRST))
    assert sorted(names, key=rank) == [*LONGEST_FIRST, "test_approval.py"]
