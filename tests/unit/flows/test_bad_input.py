"""What the user can mend is one message that names the value and says what to do; no traceback."""

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from flows import cli
from flows.exit_codes import ERROR, WRONG_CALL
from flows.run_record import RunRecord
from infra.presets import load_config
from pvar.config import PipelineConfig
from pvar.errors import ConfigError
from tests.services.processes import free_port
from tests.workflow import fake_settings, write_prompts

# `main` reads the command line, as the installed command does; cyclopts warns of that in tests.
pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")

Pvar = Callable[..., str]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home and working folder."""
    for name in ("PVAR_STORE_URI", "PVAR_MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PVAR_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refused(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Pvar:
    """Runs the command line as `pvar` does and returns the one message that it ends with."""

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["pvar", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code in (ERROR, WRONG_CALL)
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert "Traceback" not in said
        return said

    return run


def preset(home: Path, **changes: object) -> str:
    """A preset file of fakes over a sound file of prompts."""
    source = write_prompts(home / "prompts.jsonl")
    path = home / "preset.yaml"
    path.write_text(yaml.safe_dump(fake_settings(source, **changes)))
    return str(path)


def test_an_unknown_preset_names_those_that_there_are(refused: Pvar) -> None:
    assert "'dmeo' is neither a preset" in (said := refused("show", "--preset", "dmeo"))
    assert "demo" in said


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [", "is invalid YAML"),
        ("- a\n", "has a list"),
        ("sample:\n  num_response: 4\n", "sample.num_response: there is no such key"),
        ("sample: 4\n", "sample: "),
        (b"\xff\xfe\x00", "is no UTF-8 text"),
    ],
)
def test_a_preset_file_that_is_none(
    refused: Pvar, home: Path, content: str | bytes, message: str
) -> None:
    path = home / "mine.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    said = refused("show", "--preset", str(path))
    assert message in said
    assert "mine.yaml" in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "sample.temprature=1",
            "sample.temprature: there is no such key (given: 1); did you mean sample.temperature?",
        ),
        ("zzz=1", "zzz: there is no such key (given: 1)\n"),
        (
            "evaluate.judge={kind: alpaca_eval, modle: x}",  # a key of this kind of judge alone
            "evaluate.judge.modle: there is no such key (given: 'x'); did you mean "
            "evaluate.judge.model?",
        ),
        ("evaluate.judge=alpaca_eval", "write evaluate.judge={kind: alpaca_eval, model: …}"),
        ("evaluate.judge=gpt", "(given: 'gpt'); write evaluate.judge={kind: …}"),
        (
            "score.reward_models=[vader]",
            "score.reward_models.0: must hold keys and values (given: "
            "'vader'); write {kind: vader}",
        ),
        ("select.budget=3", "(given: 3); write select.budget={fraction: …}"),
        ("sample.num_responses=1", "sample.num_responses: Input should be greater than or equal"),
        ("sample.temperature=.nan", "sample.temperature: "),
        ("train.beta=.inf", "train.beta: "),
        ("select.budget={fraction: 2}", "select.budget.fraction: Input should be less than"),
        ("select.budget={fraction: 0.5, count: 3}", "exactly one of fraction, count and tokens"),
        ("select.strategy=best", "select.strategy: Input should be 'top', 'bottom'"),
        ("select.strategy=threshold", "set threshold for strategy threshold"),
        ("select.strategy=disagreement", "add another"),
        ("select.strategy=entropy", "add another"),
        ("select.strategy=selective", "give exactly 1 of kind implicit"),
        ("train.pairs_per_step=6", "not a multiple of runtime.pairs_per_device (4)"),
        ("train.max_length_tokens=8", "pairs with long responses would be dropped"),
        ("evaluate.judge={kind: oracle}", "there is no kind 'oracle'; it is afinn, "),
        ("sample", "--set 'sample' is not key=value"),
        ("sample.num_responses=[", "the value is invalid YAML"),
        ("policy.name=x", "'policy' is a value and has no keys below it"),
    ],
)
def test_a_change_that_cannot_be(refused: Pvar, home: Path, change: str, message: str) -> None:
    said = refused("show", "--preset", preset(home), "--set", change)
    assert message in said
    assert said.count("\n") <= 6


def test_a_reward_model_that_judges_what_it_selected_is_refused() -> None:
    judge = "evaluate.judge={kind: reward_model, reward_model: {kind: vader}}"
    with pytest.raises(ConfigError, match="circular"):
        load_config(None, [judge])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nothing.jsonl", None, "no such file; check the path"),
        ("empty.jsonl", b"", "the file is empty"),
        ("rows.tsv", b"prompt\nx\n", "unknown file type"),
    ],
)
def test_a_file_of_prompts_that_is_none(
    refused: Pvar, home: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (home / name).write_bytes(content)
    said = refused("show", "--preset", preset(home), "--set", f"ingest.source={name}")
    assert f"{home / name}: {message}" in said


@pytest.mark.parametrize("command", [("run",), ("stage", "ingest"), ("compare",)])
def test_a_missing_file_is_told_before_a_server_is_needed(
    refused: Pvar, home: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{free_port()}/api")  # of nobody
    other = home / "benchmark.jsonl"
    change = f"ingest.decontaminate_against=[{other}]"
    said = refused(*command, "--preset", preset(home), "--set", change)
    assert f"{other}: no such file; check the path" in said


@pytest.mark.parametrize("command", [("run",), ("stage", "ingest"), ("benchmark",), ("compare",)])
def test_a_benchmark_without_its_file_is_refused_before_a_server_is_needed(
    refused: Pvar, home: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{free_port()}/api")  # of nobody
    there = home / "answers.jsonl"
    there.write_text("{}\n")
    change = (
        f"benchmarks=[{{kind: arena_hard, questions: none.jsonl, baseline_answers: [{there}], "
        "judge: {kind: fake}}]"
    )
    said = refused(*command, "--preset", preset(home), "--set", change)
    assert f"benchmarks.0.questions: {home / 'none.jsonl'}: no such file; check the path" in said


@pytest.mark.parametrize("command", [("run",), ("stage", "judge"), ("benchmark",)])
def test_a_judge_without_a_key_is_refused_before_a_server_is_needed(
    refused: Pvar, home: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{free_port()}/api")  # of nobody
    monkeypatch.delenv("PVAR_JUDGE_BASE_URL", raising=False)
    monkeypatch.delenv("PVAR_JUDGE_API_KEY", raising=False)
    there = home / "answers.jsonl"
    there.write_text("{}\n")
    change = (
        f"benchmarks=[{{kind: alpaca_eval, questions: {there}, baseline_outputs: {there}, "
        "judge: {kind: alpaca_eval, model: gpt-4-1106-preview}}]"
    )
    said = refused(*command, "--preset", preset(home), "--set", change)
    assert "benchmarks.0.judge: OpenAI's server needs a key; set PVAR_JUDGE_API_KEY" in said


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("./nothing", "nothing: no such folder"),
        ("bundled:gpt-7", "unknown bundled model 'gpt-7'; available: smollm2"),
        (
            "models:/pvar",
            "'models:/pvar' is not a reference to a registered model; write models:/name@alias",
        ),
        ("not a model", "'not a model' is not a model reference"),
        ("s3:/bucket", "s3:/bucket"),
        ("bundled:sentiment", "unknown bundled model"),
    ],
)
def test_a_model_that_is_none(refused: Pvar, home: Path, reference: str, message: str) -> None:
    said = refused("show", "--preset", preset(home, policy=reference))
    assert message in said


def test_a_folder_without_safetensors_is_no_model(refused: Pvar, home: Path) -> None:
    (home / "model").mkdir()
    (home / "model" / "config.json").write_text("{}")
    (home / "model" / "pytorch_model.bin").write_bytes(b"x")
    said = refused("show", "--preset", preset(home, policy="./model"))
    assert "has no *.safetensors" in said
    assert "pickled weights are not loaded" in said


def test_a_folder_given_like_a_hub_name_is_pointed_out(refused: Pvar, home: Path) -> None:
    (home / "org" / "name").mkdir(parents=True)
    assert "write ./org/name to use it" in refused(
        "show", "--preset", preset(home, policy="org/name")
    )


def test_a_hub_model_without_network_is_told_in_bounded_time(
    refused: Pvar, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    # A port that nobody answers stands for a network that is not there.
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{free_port()}")
    said = refused("show", "--preset", preset(home, policy="org/never-downloaded"))
    assert "'org/never-downloaded' is not in the local cache and the Hub cannot be reached" in said
    assert "use a local folder" in said


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("ftp://host/x", "ftp:// is not supported"),
        ("file://host/x", "write file:///absolute/folder"),
        ("s3://key:word@bucket/x", "the s3:// address contains credentials"),
    ],
)
def test_an_address_that_is_no_store(
    refused: Pvar, home: Path, monkeypatch: pytest.MonkeyPatch, uri: str, message: str
) -> None:
    monkeypatch.setenv("PVAR_STORE_URI", uri)
    said = refused("show", "--preset", preset(home))
    assert message in said
    assert "word" not in said


def test_a_store_that_nobody_answers(
    refused: Pvar, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    for name, value in {
        "PVAR_STORE_URI": "s3://bucket/x",
        "AWS_ENDPOINT_URL_S3": endpoint,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "s",
    }.items():
        monkeypatch.setenv(name, value)
    said = refused("show", "--preset", preset(home))
    assert f"no answer from {endpoint}" in said
    assert "check AWS_ENDPOINT_URL_S3" in said


@pytest.mark.parametrize("place", ["/proc/x", "a_file"])
def test_a_home_that_cannot_be_written(
    refused: Pvar, home: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (home / "a_file").write_text("")
    monkeypatch.setenv("PVAR_HOME", place)
    said = refused("history", "x")
    assert f"{home / place} is not writable (" in said
    assert "set PVAR_HOME or PVAR_MLFLOW_TRACKING_URI to a writable location" in said


# Root may write everywhere but there. The second folder exists: MLflow itself fails, after minutes.
@pytest.mark.parametrize("folder", ["/proc/x", "/proc"])
def test_a_database_that_cannot_be_made(
    refused: Pvar, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.setenv("PVAR_MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    assert f"{folder} is not writable (" in refused("history", "x")


@pytest.mark.parametrize(("option", "value"), [("--seeds", "0"), ("--strategy", "topp")])
def test_a_comparison_of_nothing_names_option_and_value(
    capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    with pytest.raises(SystemExit):
        cli.app(["compare", option, value])
    said = capsys.readouterr()
    assert f'Invalid value "{value}" for {option}.' in said.out + said.err


@pytest.mark.parametrize("option", ["--port", "--mlflow-port"])
@pytest.mark.parametrize("port", ["-1", "65536"])
def test_a_port_that_is_none(capsys: pytest.CaptureFixture[str], option: str, port: str) -> None:
    with pytest.raises(SystemExit):
        cli.app(["serve", option, port])
    said = capsys.readouterr()
    assert option in said.out + said.err
    assert "Must be" in said.out + said.err


def test_a_store_without_runs_says_how_to_start_one(refused: Pvar) -> None:
    assert "has no runs yet; start one: pvar run" in refused("report")


def test_a_run_that_never_was(refused: Pvar, home: Path) -> None:
    store = home / "home" / "store" / "runs"
    store.mkdir(parents=True)
    (store / "20260101-000000-aaaa.json").write_text("{}")
    said = refused("report", "20260101-000000-bbbb")
    assert "'20260101-000000-bbbb' is not in " in said
    assert "20260101-000000-aaaa" in said


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nowhere/report.html", "the folder nowhere does not exist; create it first"),
        ("home", "this is a folder; give the path of a file"),
        ("/proc/report.html", "is not writable ("),
    ],
)
def test_a_report_that_has_no_place(refused: Pvar, home: Path, target: str, message: str) -> None:
    record = RunRecord(
        run="20260101-000000-aaaa",
        preset=None,
        started_at=datetime(2026, 1, 1, tzinfo=UTC),
        config=PipelineConfig(),
        mlflow_run="",
        mlflow_experiment="",
        nodes=(),
    )
    (home / "home" / "store" / "runs").mkdir(parents=True)
    (home / "home" / "store" / "runs" / f"{record.run}.json").write_text(record.model_dump_json())
    said = refused("report", "--out", target)
    assert target in said
    assert message in said


def test_help_loads_no_heavy_library() -> None:
    # Which modules, not how many seconds: a second has another meaning on another machine.
    code = (
        "import sys\n"
        "from flows.cli import main\n"
        "try:\n"
        "    main(['--help'])\n"
        "except SystemExit:\n"
        "    pass\n"
        "heavy = {'torch', 'transformers', 'trl', 'peft', 'mlflow', 'prefect', 'boto3', 'pyarrow',"
        " 'scipy', 'sklearn', 'openai', 'datasets', 'matplotlib', 'pandas'}\n"
        "print('loaded:', sorted(heavy & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "loaded: []" in done.stdout
    assert "Run the pipeline. Complete artifacts are reused" in done.stdout


def test_the_list_of_commands_says_what_each_does_and_a_command_says_all(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def shown(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        assert ended.value.code == 0
        return " ".join(capsys.readouterr().out.replace("│", " ").split())

    listed = shown("--help")
    for name in cli.COMMANDS:
        module = name.replace("-", "_")
        command = getattr(import_module(f"flows.commands.{module}"), module)
        description = (inspect.getdoc(command) or "").partition("Parameters")[0]
        summary, *more = (" ".join(each.split()) for each in description.split("\n\n"))
        assert f"{name} {summary}" in listed
        help_text = shown(name, "--help")
        for paragraph in filter(None, (summary, *more)):
            assert paragraph.removeprefix("```console ").replace("`", "").strip() in help_text
    assert "judge-parse Parse the verdicts in a judge's replies." in listed
    assert "winrate Compute the scores of AlpacaEval 2" in listed


def test_the_installed_command_ends_with_one_message_and_2(home: Path) -> None:
    command = [str(Path(sys.executable).with_name("pvar")), "show", "--preset", "dmeo"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == WRONG_CALL
    assert done.stdout == ""
    assert done.stderr.startswith("error: 'dmeo' is neither a preset")
    assert done.stderr.count("\n") == 1


def test_the_schema_lists_every_key(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["pvar", "schema"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 0
    schema = json.loads(capsys.readouterr().out)
    assert set(schema["properties"]) >= {"policy", "ingest", "sample", "train", "runtime"}
    assert schema["$defs"]["SampleConfig"]["properties"]["num_responses"]["minimum"] == 2
