"""Four weekly files and an exam for a backtest with SmolLM2 on two CPU cores, and its command.

    python tests/benchmarks/backtest_history.py FOLDER

The prompts are those of `bundled:mixed` and `bundled:sentiment`. A hundred of them, and the
questions with an answer, are the exam; the others come in four files. The command that is printed
replays them by two policies: each batch alone, and each batch with all earlier rows.
"""

import json
import random
import sys
from datetime import date, timedelta
from pathlib import Path

DATA = Path(__file__).parents[2] / "pvar" / "data"
NUM_FILES, NUM_EXAM = 4, 100
START = date(2026, 1, 5)
SETTINGS = (
    "policy=champion",
    "policy_if_none=bundled:smollm2-135m-instruct",
    "evaluate.against_first=true",
)


def main(folder: Path) -> None:
    """Write the files, and print the command."""
    rows: dict[str, dict[str, object]] = {}
    for name in ("mixed_prompts.jsonl", "sentiment_prompts.jsonl"):
        for line in (DATA / name).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            rows.setdefault(row["prompt"], row)
    questions = [row for row in rows.values() if "answer" in row]
    prompts = [row for row in rows.values() if "answer" not in row]
    random.Random(0).shuffle(prompts)
    exam, weekly = prompts[:NUM_EXAM], prompts[NUM_EXAM:]
    history = folder / "history"
    history.mkdir(parents=True, exist_ok=True)
    write(folder / "exam.jsonl", [*exam, *questions])
    for number in range(NUM_FILES):
        name = f"{START + timedelta(weeks=number)}.jsonl"
        write(history / name, weekly[number::NUM_FILES])
    print(f"{len(weekly)} prompts in {NUM_FILES} files, {len(exam)} and {len(questions)} questions")
    changes = " ".join(f"--set {setting}" for setting in SETTINGS)
    print(
        f"pvar backtest --preset demo {changes} --set 'evaluate.prompts=[{folder}/exam.jsonl]' "
        f"--rule min_new_pairs=1 --batches {history} --every-days 7 "
        "--policy alone --policy \"replayed replay='{}'\""
    )


def write(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
