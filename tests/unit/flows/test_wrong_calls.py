"""Calls as people mistype them: each ends with one message, its remedy, and an exit code.

In one process, before anything is made: no server is started and no model is loaded.
"""

import json
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from flows.cli import main
from flows.exit_codes import DONE, ERROR, WRONG_CALL
from flows.run_record import RunRecord, save_run
from tests.artifacts import put_artifact
from tests.workflow import fake_settings, open_wiring, write_prompts


class Wrong(NamedTuple):
    """A call, and what must be said about it."""

    call: str
    """Words, separated by blanks; `_` in a value stands for one. Before them, NAME=value."""
    what: str
    remedy: str
    code: int = WRONG_CALL


CALLS = (
    # The command line itself.
    Wrong("rnu my.yaml", "unknown command 'rnu'", "nearest: run"),
    Wrong("batches rejct 3", "'rejct 3' are arguments too many", "nearest: reject"),
    Wrong("run a.yaml b.yaml", "'b.yaml' is one argument too many", "pvar run --help"),
    Wrong("run my.yaml --preset demo", "'my.yaml' is one argument too many", "give one of the two"),
    Wrong("run --prest demo", "Unknown option: --prest", "Did you mean --preset?"),
    Wrong("export --to trl", "--out is missing", "pvar export --help"),
    Wrong("diff latest", "SECOND is missing", "pvar diff --help"),
    Wrong("run --set", "--set requires an argument", "pvar run --help"),
    Wrong("export --to trll --out x.jsonl", 'Invalid value "trll"', 'Did you mean "trl"?'),
    Wrong("stage smaple my.yaml", 'Invalid value "smaple"', 'Did you mean "sample"?'),
    Wrong("approve pvar one --note x", 'unable to convert "one" into int', "approve --help"),
    Wrong("serve my.yaml --port 70000", 'Invalid value "70000" for --port', "<= 65535"),
    Wrong("gc --keep-runs -1", 'Invalid value "-1" for --keep-runs', ">= 0"),
    # Presets.
    Wrong("run dmeo", "'dmeo' is neither a preset nor an existing file", "or a preset: demo"),
    Wrong("doctor missing.yaml", "'missing.yaml' is neither a preset", "give a YAML file"),
    Wrong("run folder", "'folder' is a folder", "give a YAML file"),
    Wrong("run empty.yaml", "empty.yaml has no keys", "give no preset to run the defaults"),
    Wrong("run list.yaml", "list.yaml has a list", "such as `policy: org/name`"),
    Wrong("run broken.yaml", "broken.yaml is invalid YAML: line 2", "expected ',' or ']'"),
    Wrong("run tab.yaml", "line 2, column 1: found character '\\t'", "indent with spaces"),
    Wrong("run binary.yaml", "binary.yaml is no UTF-8 text", "save it as UTF-8"),
    Wrong("run typo.yaml", "smaple: there is no such key", "did you mean sample?"),
    # Keys, strategies and types.
    Wrong("show my.yaml --set sample", "--set 'sample' is not key=value", "write, for example"),
    Wrong("show my.yaml --set policy.x=1", "'policy' is a value", "no keys below it"),
    Wrong("show my.yaml --set select.budget=[1", "invalid YAML: line 1", "quote the whole"),
    Wrong(
        "show my.yaml --set sample.num_reponses=4",
        "sample.num_reponses: there is no such key (given: 4)",
        "did you mean sample.num_responses?",
    ),
    Wrong(
        "show my.yaml --set sample.num_responses=many",
        "sample.num_responses: Input should be a valid integer",
        "`pvar schema` lists every key",
    ),
    Wrong(
        "show my.yaml --set sample.num_responses=1",
        "sample.num_responses: Input should be greater than or equal to 2 (given: 1)",
        "`pvar schema` lists every key",
    ),
    Wrong("show my.yaml --set select.strategy=topp", "(given: 'topp')", "did you mean top?"),
    Wrong("show my.yaml --set sample.engine=vlm", "(given: 'vlm')", "did you mean vllm?"),
    Wrong(
        "show my.yaml --set score.reward_models=[{kind:_vadr}]",
        "score.reward_models.0: there is no kind 'vadr'",
        "did you mean vader?",
    ),
    Wrong(
        "show my.yaml --set score.reward_models=[{name:_x}]",
        "score.reward_models.0: the `kind` is missing",
        "write {kind: …}",
    ),
    Wrong(
        "run my.yaml --set benchmarks=[{kind:_alpaca_eval}]",
        "benchmarks.0.questions: is required",
        "set it",
    ),
    Wrong(
        "retrain my.yaml --rule min_new_pair=3",
        "--rule min_new_pair: there is no such key",
        "did you mean min_new_pairs?",
    ),
    Wrong("compare mixed-pol", "'mixed-pol' is neither a study", "mixed-pool"),
    # Files, keys and models.
    Wrong(
        "run my.yaml --set ingest.source=missing.jsonl",
        "missing.jsonl: no such file",
        "check the path",
    ),
    Wrong(
        "run my.yaml --set evaluate.judge={kind:_alpaca_eval,_model:_gpt-4}",
        "evaluate.judge: OpenAI's server needs a key",
        "set PVAR_JUDGE_API_KEY",
    ),
    Wrong(
        "run my.yaml --set policy=./nowhere --set sample.engine=transformers",
        "/nowhere: no such folder",
        "the folder of a Hugging Face model",
    ),
    Wrong(
        "show my.yaml --set policy=bundled:smollm3",
        "unknown bundled model 'smollm3'",
        "available: smollm2-135m-instruct",
    ),
    Wrong("variance not.jsonl", "row 1: not JSON", "correct them"),
    Wrong("variance folder", "folder: not a file", "give one .jsonl"),
    Wrong("select rewards.jsonl", "needs a budget", "give --fraction, --count or --tokens"),
    Wrong("ingest-check rewards.jsonl", "none of its 8 rows can be used", "name your columns"),
    # Folders and addresses.
    Wrong(
        "variance rewards.jsonl --out /proc/x.jsonl", "/proc/x.jsonl: writing", "fix perm", ERROR
    ),
    Wrong("report --out /proc/x.html", "/proc/x.html is not writable", "another path with --out"),
    Wrong(
        "PVAR_STORE_URI=s4://bucket show my.yaml", "s4:// is not supported", "set PVAR_STORE_URI to"
    ),
    Wrong("PVAR_STORE_URI=s3:// show my.yaml", "is not an address", "write s3://bucket/prefix"),
    # Runs and artifacts.
    Wrong(
        "report 2027", "'2027' is not in", "there are 20260102-120000-bbbb, 20260101-120000-aaaa"
    ),
    Wrong("diff latest 2026010", "'2026010' begins 2 of them", "give more characters"),
    Wrong("export pair/0 --to trl --out x.jsonl", "'pair/0' is not in", "there are pair/"),
    Wrong("show latest --set sample.seed=1", "latest is a run", "leave --set out"),
    Wrong("queue fetch ab --out q", "'ab' is not in", "there are 20260102"),
    Wrong("batches show 9", "has no batch 9", "see pvar batches"),
    Wrong("forget --yes", "--yes is for --erase", "nothing was withdrawn"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a preset, files that are none, and a store with two runs."""
    folder = tmp_path_factory.mktemp("wrong")
    tree = fake_settings(write_prompts(folder / "prompts.jsonl"))
    files = {
        "my.yaml": yaml.safe_dump(tree),
        "empty.yaml": "# nothing yet\n",
        "list.yaml": "- policy\n",
        "broken.yaml": "select: [1\n",
        "tab.yaml": "select:\n\tstrategy: top\n",
        "typo.yaml": "smaple: {seed: 1}\n",
        "not.jsonl": "hello\n",
        "rewards.jsonl": "".join(
            json.dumps({"prompt_id": f"p{row // 4}", "reward": row}) + "\n" for row in range(8)
        ),
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    (folder / "binary.yaml").write_bytes(b"\xff\xfe")
    (folder / "folder").mkdir()
    wiring = open_wiring(folder / "home")
    put_artifact(wiring.store, "pair", config={"number": 1})
    for run in ("20260101-120000-aaaa", "20260102-120000-bbbb"):
        record = RunRecord.model_validate(
            {
                "run": run,
                "started_at": "2026-01-01T12:00:00Z",
                "preset": None,
                "config": tree,
                "mlflow_run": "m",
                "mlflow_experiment": "1",
                "nodes": [],
            }
        )
        save_run(wiring.store, record)
    return folder


@pytest.mark.parametrize("wrong", CALLS, ids=[each.call for each in CALLS])
def test_a_wrong_call_is_one_message_with_its_remedy(
    wrong: Wrong,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("PVAR_STORE_URI", "PVAR_JUDGE_API_KEY", "PVAR_JUDGE_BASE_URL", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PVAR_HOME", str(folder / "home"))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(folder)
    words = [word.replace(":_", ": ").replace(",_", ", ") for word in wrong.call.split()]
    while words[0].startswith("PVAR_"):
        name, _, value = words.pop(0).partition("=")
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as end:
        main(words)
    out, err = capsys.readouterr()
    assert end.value.code == wrong.code
    assert err.startswith("error: ")
    assert "Traceback" not in err
    assert wrong.what in err
    assert wrong.remedy in err
    if words[0] != "ingest-check":  # which shows the rows, too
        assert out == ""


def test_the_right_call_works(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that the calls above are wrong in what they are to be wrong in."""
    monkeypatch.setenv("PVAR_HOME", str(folder / "home"))
    monkeypatch.chdir(folder)
    for call in ("show my.yaml", "show latest", "variance rewards.jsonl", "diff latest 20260101"):
        with pytest.raises(SystemExit) as end:
            main(call.split())
        assert end.value.code == DONE, capsys.readouterr().err
