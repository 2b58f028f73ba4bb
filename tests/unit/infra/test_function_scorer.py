"""A reward function of the user's: what it is given, what it may return, and what is isolated."""

import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from infra.pinned_folder import pin_folder
from infra.preconditions import refuse_missing
from infra.rewards import function_scorer
from infra.rewards.function_scorer import FunctionScorer, open_function
from pvar.config import PipelineConfig
from pvar.errors import ConfigError, InputError, ScoringError
from pvar.identity import identity
from pvar.ports import ScoreRequest
from pvar.records import Message
from pvar.reward_config import PythonReward

PROMPT = (Message("system", "Be brief."), Message("user", "6 · 7?"))
REQUESTS = [
    ScoreRequest("p", "r0", PROMPT, "42", ("42",)),
    ScoreRequest("p", "r1", PROMPT, "", ("42",)),
    ScoreRequest("q", "r2", (Message("user", "\ud83d"),), "43", ()),
]


def write(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@contextmanager
def function(folder: Path, text: str, name: str = "own:reward") -> Iterator[FunctionScorer]:
    """The function of `own.py` with this text, beside what is in the folder."""
    write(folder, {"own.py": text})
    pinned = pin_folder(str(folder))
    settings = PythonReward(name="mine", folder=pinned, function=name)
    with closing(open_function(settings)) as scorer:
        yield scorer


def test_the_function_gets_plain_objects_and_its_numbers_are_the_rewards(tmp_path: Path) -> None:
    text = """
import numpy as np

def reward(prompts, responses, answers):
    print("not part of the reply")
    assert prompts[0] == [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "6 · 7?"}
    ]
    assert prompts[2] == [{"role": "user", "content": "\\ud83d"}]
    assert answers == [["42"], ["42"], []], answers
    return [responses[0] == "42", np.float32(0.1), np.int64(-3)]
"""
    with function(tmp_path, text) as scorer:
        scores = scorer.score(REQUESTS)
        assert scorer.score([]) == []
    assert [(each.prompt_id, each.response_id) for each in scores] == [
        ("p", "r0"),
        ("p", "r1"),
        ("q", "r2"),
    ]
    assert [each.reward for each in scores] == [1.0, 0.10000000149011612, -3.0]


def test_none_and_what_is_not_finite_are_missing_with_a_reason(tmp_path: Path) -> None:
    text = "def reward(prompts, responses):\n    return (None, float('nan'), 10**400)\n"
    with function(tmp_path, text) as scorer:
        scores = scorer.score(REQUESTS)
    assert [(each.reward, each.reason) for each in scores] == [
        (None, "no_reward"),
        (None, "not_finite"),
        (None, "not_finite"),
    ]


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        ("[1.0, 2.0]", "own.py, line 1: reward returned 2 values for 3 responses"),
        ("[1.0, 'x', 2.0]", r"returned 'x' \(a str\) for response 1; a value is a number"),
        ("None", "returned a NoneType, not a list"),
        ("(x for x in [1, 2, 3])", "returned a generator, not a list"),
        ("{0: 1, 1: 1, 2: 1}", "returned a dict, not a list"),
        (
            "[1, 2, 1 // 0]",
            "own.py, line 2, in reward: ZeroDivisionError: .*; correct the function",
        ),
        ("exit(3)", "own.py, line 2, in reward: SystemExit: 3"),
        ("__import__('os')._exit(3)", "its process ended with exit code 3"),
        ("__import__('os').kill(__import__('os').getpid(), 9)", "killed by signal 9"),
    ],
)
def test_what_is_wrong_with_the_values_is_one_line_with_its_place(
    tmp_path: Path, returned: str, says: str
) -> None:
    with (
        function(tmp_path, f"def reward(prompts, responses):\n    return {returned}\n") as scorer,
        pytest.raises(ScoringError, match=f"reward model 'mine': .*{says}") as refused,
    ):
        scorer.score(REQUESTS)
    assert len(str(refused.value).splitlines()) == 1


def test_after_an_error_the_function_can_be_called_again(tmp_path: Path) -> None:
    text = "def reward(prompts, responses):\n    return [1 / len(text) for text in responses]\n"
    with function(tmp_path, text) as scorer:
        with pytest.raises(ScoringError, match="ZeroDivisionError"):
            scorer.score(REQUESTS)
        assert [each.reward for each in scorer.score(REQUESTS[:1])] == [0.5]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def other(): pass", "own.py: reward does not exist"),
        ("reward = 3", "own.py: reward is not a function"),
        ("def reward(texts): return texts", r"own.py, line 1: reward\(texts\) cannot be called as"),
        ("async def reward(prompts, responses): return []", "is async"),
        ("def reward(:", "own.py, line 1: SyntaxError"),
        ("import no_such_package", "line 1, in <module>: ModuleNotFoundError: .*no_such_package"),
    ],
)
def test_a_function_that_cannot_be_used_is_said_before_anything_runs(
    tmp_path: Path, text: str, says: str
) -> None:
    write(tmp_path, {"own.py": text})
    with pytest.raises(InputError, match=f"score.reward_models.0.function: .*{says}"):
        refuse_missing(configured(folder=str(tmp_path)), ["score"])


def test_an_interrupt_does_not_wait_for_the_import(tmp_path: Path) -> None:
    """The import interrupts this process, as a user who finds that it takes too long."""
    text = """
import os, signal, time
from pathlib import Path

os.kill(os.getppid(), signal.SIGINT)
time.sleep(3)
Path(os.environ["PVAR_TEST_MARK"]).touch()
def reward(prompts, responses): return []
"""
    mark = tmp_path / "imported"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PVAR_TEST_MARK", str(mark))
        with pytest.raises(KeyboardInterrupt), function(tmp_path / "own", text):
            pass
    assert not mark.exists()


def test_a_thread_that_never_ends_does_not_keep_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(function_scorer, "EXIT_SECONDS", 0.1)
    text = """
import threading

threading.Thread(target=threading.Event().wait).start()
def reward(prompts, responses): return [0.5] * len(responses)
"""
    with function(tmp_path, text) as scorer:
        assert [each.reward for each in scorer.score(REQUESTS)] == [0.5] * 3
    assert scorer.process.process.returncode == -signal.SIGKILL


def configured(**settings: str) -> PipelineConfig:
    own = {"kind": "python", "name": "mine", "function": "own:reward", **settings}
    return PipelineConfig.model_validate({"score": {"reward_models": [own]}})


def test_folder_and_module_are_checked_where_the_function_is_not_called_too(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^score\.reward_models\.0\.folder: .*no such folder"):
        refuse_missing(configured(folder=str(tmp_path / "none")), [])
    write(tmp_path, {"other.py": "import no_such_package"})
    with pytest.raises(InputError, match=r"has no own\.py; .* \(found: other\)"):
        refuse_missing(configured(folder=str(tmp_path)), [])
    refuse_missing(configured(folder=str(tmp_path), function="other:reward"), [])


def test_a_judge_is_refused_a_function_that_wants_answers(tmp_path: Path) -> None:
    write(tmp_path, {"own.py": "def reward(prompts, responses, answers): return [0]"})
    own = {"kind": "python", "name": "mine", "folder": str(tmp_path), "function": "own:reward"}
    tree = {"evaluate": {"judge": {"kind": "reward_model", "reward_model": own}}}
    with pytest.raises(InputError, match="a judge is not given the answers"):
        refuse_missing(PipelineConfig.model_validate(tree), ["evaluate"])


def test_what_was_pinned_is_what_is_imported(tmp_path: Path) -> None:
    with function(tmp_path, "def reward(prompts, responses): return [1, 1, 1]") as scorer:
        write(tmp_path, {"own.py": "def reward(prompts, responses): return [2, 2, 2]"})
        assert {each.reward for each in scorer.score(REQUESTS)} == {1.0}
        pinned = f"{tmp_path}#{'sha256-' + '0' * 24}"
        with pytest.raises(InputError, match="changed: its digest was sha256-0"):
            open_function(PythonReward(name="mine", folder=pinned, function="own:reward"))


def test_modules_of_the_folder_are_imported_and_not_installed_ones_of_their_name(
    tmp_path: Path,
) -> None:
    """`evaluate`, `numpy` and `pvar` are installed; one is imported only while it is called."""
    before = list(sys.path), set(sys.modules)
    own = "WHO = 'the folder'\n"
    write(tmp_path, {"evaluate.py": own, "pvar/__init__.py": own, "numpy.py": own, "a.txt": "7"})
    text = """
from pathlib import Path

import evaluate, pvar

def reward(prompts, responses):
    import numpy

    assert evaluate.WHO == pvar.WHO == numpy.WHO == "the folder"
    return 3 * [int((Path(__file__).parent / "a.txt").read_text())]
"""
    with function(tmp_path, text) as scorer:
        assert {each.reward for each in scorer.score(REQUESTS)} == {7.0}
    assert (sys.path, set(sys.modules)) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.txt", "evaluate.py", "numpy.py", "own.py", "pvar",
    ]  # fmt: skip


def test_a_name_of_the_standard_library_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"json.py": ""})
    with (
        pytest.raises(ConfigError, match=r"json\.py has the name of a module of Python's standard"),
        function(tmp_path, "def reward(prompts, responses): return [0, 0, 0]"),
    ):
        pass


def test_digests_depend_on_content_and_function_and_on_no_place(tmp_path: Path) -> None:
    text = {"own.py": "def reward(prompts, responses): return []", "sub/answers.jsonl": "{}"}

    def own(name: str, **settings: str) -> object:
        folder = pin_folder(str(tmp_path / name))
        return identity(
            PythonReward(**{"name": "mine", "folder": folder, "function": "own:reward", **settings})
        )

    write(tmp_path / "a", text)
    write(tmp_path / "b", text)
    write(tmp_path / "c", {**text, "sub/answers.jsonl": '{"answer": 1}'})
    assert own("a") == own("b")
    assert own("a") != own("c")
    assert own("a") != own("a", function="own:other")
