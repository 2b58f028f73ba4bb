"""`pvar schema`: the presets by name, with what each is for."""

import pytest

from flows.commands.schema import schema
from infra.presets import preset_names


def test_the_presets_are_listed_with_what_each_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    schema(presets=True)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == preset_names()
    by_name = dict(line.split(maxsplit=1) for line in lines)
    assert by_name["demo"].endswith("with a 135M model on two CPU cores.")
    assert all(text[0].isupper() and text.endswith(".") for text in by_name.values())
