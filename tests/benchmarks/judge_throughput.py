"""Whether judging keeps a server as busy as a bare asyncio client of the same concurrency does.

PYTHONPATH=. python tests/benchmarks/judge_throughput.py [--verdicts 400] [--latency-ms 500]

A server in a process of its own answers every request after a fixed time. The same questions are
asked by `judge_pairs` (an Arena-Hard judge, with the cache of verdicts in a store in a folder) and
by httpx.AsyncClient, which reads the reply and keeps nothing, in turns. Printed are verdicts per
second, the share of what the latency allows, and the client's processor time per verdict.
"""

import argparse
import asyncio
import json
import multiprocessing
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from tempfile import TemporaryDirectory
from typing import NamedTuple

import httpx
from machine import describe_machine
from pydantic import SecretStr

from infra.judges.access import JudgeAccess
from infra.judges.openai_judge import OpenAIJudge
from infra.judges.questions import ArenaHard
from infra.judges.retry_policy import RetryPolicy
from infra.store import open_store
from pvar.judging import JudgeBudget
from pvar.records import Comparison, Message
from tasks.stages.judge_pairs import judge_pairs
from tasks.stages.verdict_cache import VerdictCache

QUESTIONS = ArenaHard("v2.0", max_tokens=4096, temperature=0.0)
REPLY = {
    "model": "judge-model-2026-01-01",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "Both are fine. " * 200 + "[[B>A]]"},
        }
    ],
    "usage": {"prompt_tokens": 900, "completion_tokens": 800},
}


class Turn(NamedTuple):
    """One way to ask all questions."""

    seconds: float
    cpu_seconds: float


def serve(latency_seconds: float, ready: Connection) -> None:
    """Answer every request after the same time, until the process is ended."""
    body = json.dumps(REPLY).encode()
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                request = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(request.split(b"content-length:")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                await asyncio.sleep(latency_seconds)
                writer.write(head.encode() + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def run() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


def comparisons(num: int, turn: str) -> list[Comparison]:
    """Different in each turn, so that no verdict is in the cache."""
    answers = "word " * 300, "other " * 300
    return [
        Comparison(f"p{n}", (Message("user", f"{turn}: question {n}?"),), *answers)
        for n in range(num)
    ]


def by_judge(address: str, rows: Sequence[Comparison], concurrency: int) -> None:
    """As the stages do."""
    judge = OpenAIJudge(
        "judge-model",
        QUESTIONS,
        JudgeAccess(base_url=SecretStr(address), api_key=SecretStr("none")),
        concurrency,
        RetryPolicy(timeout_seconds=600, max_attempts=1, back_off_seconds=1.0),
    )
    with TemporaryDirectory() as folder:
        result = judge_pairs(
            judge,
            rows,
            cache=VerdictCache(open_store(folder)),
            budget=JudgeBudget(),
            min_coverage=1.0,
            orders="seeded",
        )
    assert result.is_final


def by_bare_client(address: str, rows: Sequence[Comparison], concurrency: int) -> None:
    """Send the same requests and read the verdict, nothing else."""
    waiting = iter(rows)

    async def work(client: httpx.AsyncClient) -> None:
        for row in waiting:
            messages = [each._asdict() for each in QUESTIONS.request(row).messages]
            body = {"model": "judge-model", "messages": messages, "max_completion_tokens": 4096}
            reply = await client.post("/chat/completions", json=body)
            assert "[[B>A]]" in reply.json()["choices"][0]["message"]["content"]

    async def run() -> None:
        async with httpx.AsyncClient(base_url=address, timeout=600) as client:
            await asyncio.gather(*(work(client) for _ in range(concurrency)))

    asyncio.run(run())


def timed(ask: Callable[[], None]) -> Turn:
    """Seconds of one turn, on the wall and of this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    ask()
    return Turn(time.perf_counter() - wall, time.process_time() - cpu)


def row(address: str, num: int, concurrency: int, latency_seconds: float, turns: int) -> str:
    """The table's row of one concurrency; both ways take turns, and the fastest counts."""
    ours, bare = [], []
    for turn in range(turns):
        rows = comparisons(num, f"{concurrency} {turn}")
        ours.append(timed(lambda rows=rows: by_judge(address, rows, concurrency)))  # type: ignore[misc]
        bare.append(timed(lambda rows=rows: by_bare_client(address, rows, concurrency)))  # type: ignore[misc]
    cells = []
    for best in (min(ours), min(bare)):
        share = num / best.seconds / (concurrency / latency_seconds)
        milliseconds = 1000 * best.cpu_seconds / num
        cells.append(f"{num / best.seconds:.1f}/s ({share:.0%}; {milliseconds:.1f} ms)")
    ratio = min(bare).seconds / min(ours).seconds
    return f"| {concurrency} | {cells[0]} | {cells[1]} | {ratio:.3f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--verdicts", type=int, default=400)
    parser.add_argument("--latency-ms", type=float, default=500)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--turns", type=int, default=2)
    given = parser.parse_args()
    latency_seconds = given.latency_ms / 1000
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=serve, args=(latency_seconds, there), daemon=True
    )
    server.start()
    try:
        address = f"http://127.0.0.1:{here.recv()}/v1"
        by_judge(address, comparisons(1, "warm-up"), 1)  # imports
        print(f"{datetime.now(UTC):%Y-%m-%d}, {describe_machine()}")
        print(f"{given.verdicts} verdicts, {given.latency_ms:g} ms each")
        print("| at once | this project | bare httpx | ratio |\n|---|---|---|---|")
        for concurrency in given.concurrency:
            print(
                row(address, given.verdicts, concurrency, latency_seconds, given.turns), flush=True
            )
    finally:
        server.kill()
        server.join()


if __name__ == "__main__":
    main()
