"""`pvar reliability` on files of both shapes."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.cli import app
from pvar.errors import InputError
from pvar.reliability import split_half_reliability

REWARDS = np.random.default_rng(5).normal(size=(30, 9)) * np.linspace(0.1, 3, 30)[:, None]


def printed(capsys: pytest.CaptureFixture[str]) -> list[dict[str, float]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def run(*arguments: str) -> None:
    app(["reliability", *arguments], result_action="return_value")


@pytest.mark.parametrize("shape", ["rows", "lists", "parquet"])
def test_every_number_of_responses_that_the_file_has_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shape: str
) -> None:
    path = tmp_path / ("rewards.parquet" if shape == "parquet" else "rewards.jsonl")
    ids = [f"p{row:02}" for row in range(30)]
    if shape == "lists":
        rows = [
            {"prompt_id": each, "rewards": list(values)}
            for each, values in zip(ids, REWARDS, strict=True)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        long = [
            (each, value) for each, values in zip(ids, REWARDS, strict=True) for value in values
        ]
        if shape == "rows":
            path.write_text(
                "".join(
                    json.dumps({"prompt_id": each, "reward": value}) + "\n" for each, value in long
                )
            )
        else:
            columns = {"prompt_id": [a for a, _ in long], "reward": [b for _, b in long]}
            pq.write_table(pa.table(columns), path)
    run(str(path), "--json", "--scale", "2")
    found = printed(capsys)
    assert [row["num_responses"] for row in found] == [2, 3, 4]
    expected = split_half_reliability(REWARDS, 4, scale=2)
    assert found[2]["spearman"] == pytest.approx(expected.spearman)
    assert found[2]["overlap"] == pytest.approx(expected.overlap)


def test_the_table_names_the_share(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rewards.jsonl"
    rows = [{"prompt_id": str(row), "rewards": list(each)} for row, each in enumerate(REWARDS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run(str(path), "--top-share", "0.2")
    assert "in both top 20%" in capsys.readouterr().out


def test_too_few_rewards_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "rewards.jsonl"
    path.write_text('{"prompt_id": "a", "rewards": [1, 2, 3]}\n')
    with pytest.raises(InputError, match="no prompt has the rewards of four responses"):
        run(str(path))
    path.write_text('{"prompt_id": "a", "rewards": [1, 2, 3, 4]}\n')
    with pytest.raises(InputError, match="1 prompts have 4 rewards or more"):
        run(str(path))
