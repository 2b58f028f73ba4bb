"""Select the top 10 % by PVar from a Parquet table of 100 million scores: seconds and peak memory.

    python tests/benchmarks/select_from_parquet.py [--rows 100000000] [--responses 5]

The table is written first, in a temporary folder (about 2.5 GB, plus 3 GB while it is computed;
TMPDIR says where), with the rows of a prompt as far apart as they can be: all first responses, then
all second ones, … The selection runs in a process of its own, whose peak resident memory is shown.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from machine import describe_machine

from infra.columnar import variance_from_file

ROW_GROUP = 1_000_000
HEX_DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)
ODD = np.uint64(0x9E3779B97F4A7C15)  # multiplication by it is a permutation of the 64-bit numbers


def prompt_ids(numbers: np.ndarray) -> pa.Array:
    """16 hex digits for each number, like content hashes."""
    octets = (numbers.astype(np.uint64) * ODD).view(np.uint8).reshape(-1, 8)
    digits = np.stack([octets >> 4, octets & 15], axis=2).reshape(-1)
    offsets = np.arange(len(numbers) + 1, dtype=np.int32) * 16
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(HEX_DIGITS[digits])]
    return pa.Array.from_buffers(pa.string(), len(numbers), buffers)


def write_table(path: Path, *, num_prompts: int, num_responses: int) -> None:
    rng = np.random.default_rng(0)
    schema = pa.schema([("prompt_id", pa.string()), ("reward", pa.float32())])
    with pq.ParquetWriter(path, schema, use_dictionary=False) as writer:
        for _ in range(num_responses):
            for start in range(0, num_prompts, ROW_GROUP):
                numbers = np.arange(start, min(start + ROW_GROUP, num_prompts))
                spread = 0.3 + numbers % 7
                rewards = rng.standard_normal(len(numbers), dtype=np.float32) * spread
                columns = [prompt_ids(numbers), pa.array(rewards.astype(np.float32))]
                writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def select(path: Path) -> None:
    """Write the ids of the top tenth, ties by prompt id, and print what it took."""
    start = time.perf_counter()
    table = variance_from_file(path, scale=1.0)
    count = len(table.pvar) // 10
    cut = np.partition(table.pvar, -count)[-count]
    above = np.flatnonzero(table.pvar > cut)
    tied = np.flatnonzero(table.pvar == cut)
    tied = tied[np.argsort(table.prompt_ids[tied])][: count - len(above)]
    chosen = np.concatenate([above, tied])
    ids = pa.array(table.prompt_ids[chosen].tolist(), pa.string())
    pq.write_table(pa.table({"prompt_id": ids, "pvar": table.pvar[chosen]}), f"{path}.selected")
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        f"{table.num_rows:,} rows, {len(table.pvar):,} prompts, {len(chosen):,} selected: "
        f"{seconds:.0f} s, {table.num_rows / seconds / 1e6:.2f} M rows/s, "
        f"peak resident memory {peak / 2**30:.2f} GiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--responses", type=int, default=5)
    parser.add_argument("--select", type=Path, help="only select, from this file")
    arguments = parser.parse_args()
    if arguments.select:
        select(arguments.select)
        return
    print(f"{datetime.now(UTC):%Y-%m-%d}, {describe_machine()}, pyarrow {pa.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scores.parquet"
        num_prompts = arguments.rows // arguments.responses
        write_table(path, num_prompts=num_prompts, num_responses=arguments.responses)
        print(f"table of {path.stat().st_size / 1e9:.1f} GB written", flush=True)
        subprocess.run([sys.executable, __file__, "--select", str(path)], check=True)


if __name__ == "__main__":
    main()
