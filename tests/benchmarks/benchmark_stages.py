"""How long the stages of AlpacaEval take of their own: 805 questions, a judge that answers at once.

    python -m tests.benchmarks.benchmark_stages

The questions and the answers are made up, of the lengths of real ones (300 and 2,000 characters); a
local server replies to each comparison with the log-probabilities of two tokens. The length control
has made-up tables. Prints the seconds of each stage, of a second run of all of them, and the peak
memory of the process, which also serves.
"""

import json
import os
import random
import resource
import tempfile
import time
from pathlib import Path

from tasks.benchmark_nodes import score_name
from tests.services.chat_server import says_token, serving
from tests.workflow import start_workflow

NUM_QUESTIONS = 805
MODEL = "model"
STAGES = (
    "questions-alpaca_eval", f"answers-alpaca_eval-{MODEL}", f"judge-alpaca_eval-{MODEL}",
    score_name("alpaca_eval", MODEL),
)  # fmt: skip


def _text(number: int, length: int, word: str) -> str:
    return (f"{word} {number} " + "lorem ipsum dolor sit amet " * length)[:length]


def _write(folder: Path) -> dict[str, str]:
    questions = [_text(number, 300, "question") for number in range(NUM_QUESTIONS)]
    files = {
        "questions": [{"instruction": text} for text in questions],
        "baseline": [
            {"instruction": text, "output": _text(n, 2000, "base"), "generator": "base"}
            for n, text in enumerate(questions)
        ],
        "outputs": [
            {"instruction": text, "output": _text(n, 1000 + n, "model"), "generator": "mine"}
            for n, text in enumerate(questions)
        ],
    }
    for name, rows in files.items():
        (folder / f"{name}.json").write_text(json.dumps(rows))
    rng = random.Random(0)
    numbers = range(NUM_QUESTIONS)
    difficulty = [f"{n},{rng.gauss(0, 1)}" for n in numbers]
    gamed = [
        f"{version},{rng.random()},{n},{rng.gauss(0, 1)},{rng.gauss(0, 1)},False"
        for version in ("verbose", "concise")
        for n in numbers
    ]
    columns = "model,preference,index,std_delta_len,instruction_difficulty,not_gamed_baseline"
    _write_lines(
        folder / "instruction_difficulty.csv", ["index,instruction_difficulty", *difficulty]
    )
    _write_lines(folder / "df_gamed.csv", [columns, *gamed])
    return {name: str(folder / f"{name}.json") for name in files}


def _write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n")


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as home,
        serving(lambda asked: says_token({"m": -0.5, "M": -1.0 - len(asked.prompt) % 7})) as server,
    ):
        os.environ["PVAR_JUDGE_BASE_URL"] = server.base_url
        files = _write(Path(home))
        flow = start_workflow(
            Path(home) / "home",
            benchmarks=[
                {
                    "kind": "alpaca_eval",
                    "questions": files["questions"],
                    "baseline_outputs": files["baseline"],
                    "judge": {"kind": "alpaca_eval", "model": "judge"},
                }
            ],
            benchmark_models=[{"name": MODEL, "outputs": files["outputs"]}],
        )
        for title in ("first run", "second run"):
            began = time.monotonic()
            for name in STAGES:
                outcome = flow.make(name)
                print(f"{title}: {name} {outcome.state} in {outcome.seconds:.2f} s")
            print(f"{title}: {time.monotonic() - began:.2f} s, {len(server.asked)} calls so far")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory: {peak:.0f} MiB")


if __name__ == "__main__":
    main()
