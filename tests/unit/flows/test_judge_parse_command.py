"""`pvar judge-parse`: one verdict a row, from real judge texts and awkward ones."""

import io
import json
import sys
from pathlib import Path

import pytest

from flows.commands import judge_parse
from pvar.errors import InputError

SHARED = Path(__file__).parents[4] / "shared" / "data"
JUDGE_OUTPUTS = SHARED / "arena_hard" / "v0.1" / "judge_outputs.jsonl.gz"


def run(*tokens: str | Path) -> None:
    command, arguments, _ = judge_parse.app.parse_args([str(token) for token in tokens])
    command(*arguments.args, **arguments.kwargs)


def scores(capsys: pytest.CaptureFixture[str]) -> list[str | None]:
    return [json.loads(line)["score"] for line in capsys.readouterr().out.split("\n") if line]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real judge texts are not here")
def test_all_real_judge_texts_are_parsed(capsys: pytest.CaptureFixture[str]) -> None:
    run("arena-hard", "--version", "v0.1", JUDGE_OUTPUTS)
    parsed = scores(capsys)

    assert len(parsed) == 556
    assert parsed.count(None) == 2


@pytest.mark.parametrize(
    ("version", "expected"),
    [("v0.1", [None, "A>B", None]), ("v2.0", ["B>A", "A>B", None])],
)
def test_each_version_has_its_own_parser(
    version: str, expected: list[str | None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "judgments.jsonl"
    texts = ["[[A>B]] or rather [[B>A]]", "first\u2028then [[A>B]]", None]
    path.write_text(
        "".join(json.dumps({"judgment": text}, ensure_ascii=False) + "\n" for text in texts)
    )
    run("arena-hard", path, "--version", version)

    assert scores(capsys) == expected


def test_judgments_come_from_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = json.dumps({"judgment": "[[A=B]]"}).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(line + b"\n")))
    run("arena-hard", "--version", "v0.1", "-")

    assert scores(capsys) == ["A=B"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "[[A>B]]"}', "there is no column judgment"),
        ('{"judgment": 3}', "judgment is 3, and not a text"),
        ("[[A>B]]", "JSON array|not JSON"),
    ],
)
def test_a_file_of_another_form_is_refused(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "judgments.jsonl"
    path.write_text(line + "\n")

    with pytest.raises(InputError, match=message):
        run("arena-hard", path, "--version", "v0.1")
