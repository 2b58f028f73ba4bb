"""Near-duplicates among made-up prompts: time per prompt, and how many planted copies are found.

    python tests/benchmarks/near_duplicates.py [--prompts 20000] [--words 40] [--libraries]

Of 5 % of the prompts there is a copy in which 2 to 8 % of the words are replaced; counted are those
whose similarity is 0.8 or more. With --libraries, the candidates also come from those of datasketch
and rensa that are installed; they are checked by the same exact similarity.
"""

import argparse
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from pvar.dedup import NGRAM_CHARACTERS, deduplicate
from pvar.minhash import jaccard
from pvar.normalised_text import normalise
from pvar.records import Message, Prompt
from tests.benchmarks.machine import describe_machine

SIMILARITY = 0.8
Proposals = Iterator[tuple[Sequence[int], Callable[[], None]]]
"""For each text the earlier ones that may be similar, and what keeps it."""


def made_up(num_prompts: int, num_words: int) -> tuple[list[str], list[int]]:
    """Texts, and the places of the planted copies that are similar enough."""
    rng = random.Random(0)
    letters = "etaoinshrdlucmfwypvbgk"
    words = ["".join(rng.choices(letters, k=rng.randint(2, 9))) for _ in range(20_000)]
    texts = []
    for _ in range(num_prompts):
        length = max(5, round(rng.gauss(num_words, num_words / 4)))
        texts.append(" ".join(words[int(20_000 * rng.random() ** 2)] for _ in range(length)))
    planted = []
    for original in texts[: num_prompts // 20]:
        changed = original.split()
        for _ in range(max(1, int(len(changed) * rng.choice((0.02, 0.05, 0.08))))):
            changed[rng.randrange(len(changed))] = rng.choice(words)
        copy = " ".join(changed)
        if jaccard(grams(original), grams(copy)) >= SIMILARITY:
            planted.append(len(texts))
            texts.append(copy)
    return texts, planted


def grams(text: str) -> frozenset[str]:
    """The set that is compared."""
    text = normalise(text)
    last = max(len(text) - NGRAM_CHARACTERS, 0)
    return frozenset(text[start : start + NGRAM_CHARACTERS] for start in range(last + 1))


def by_datasketch(texts: Sequence[str]) -> Proposals:
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=SIMILARITY, num_perm=128, weights=(0.1, 0.9))
    for row, text in enumerate(texts):
        sketch = MinHash(num_perm=128, seed=1)
        sketch.update_batch([gram.encode() for gram in grams(text)])
        yield index.query(sketch), lambda row=row, sketch=sketch: index.insert(row, sketch)


def by_rensa(texts: Sequence[str]) -> Proposals:
    from rensa import RMinHash, RMinHashLSH

    index = RMinHashLSH(threshold=SIMILARITY, num_perm=128, num_bands=32)
    for row, text in enumerate(texts):
        (sketch,) = RMinHash.from_token_sets([list(grams(text))], 128, 42)
        yield index.query(sketch), lambda row=row, sketch=sketch: index.insert(row, sketch)


def found_by(proposals: Proposals, texts: Sequence[str]) -> set[int]:
    """The rows that are near-duplicates of those kept before."""
    found = set()
    for row, (others, keep) in enumerate(proposals):
        own = grams(texts[row]) if others else frozenset()
        if any(jaccard(own, grams(texts[other])) >= SIMILARITY for other in others):
            found.add(row)
        else:
            keep()
    return found


def found_here(texts: Sequence[str]) -> set[int]:
    """By `deduplicate`, which keeps the first of each set."""
    prompts = [
        Prompt(f"{row:08d}", (Message("user", text),), "train", "made up")
        for row, text in enumerate(texts)
    ]
    removed = deduplicate(prompts, min_similarity=SIMILARITY).removed
    return {int(each.prompt_id) for each in removed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=20_000)
    parser.add_argument("--words", type=int, default=40)
    parser.add_argument("--libraries", action="store_true")
    options = parser.parse_args()
    texts, planted = made_up(options.prompts, options.words)
    length = sum(map(len, texts)) / len(texts)
    print(describe_machine())
    print(f"{len(texts)} prompts of {length:.0f} characters, {len(planted)} planted copies")
    ways: dict[str, Callable[[], set[int]]] = {"pvar": lambda: found_here(texts)}
    if options.libraries:
        ways["datasketch"] = lambda: found_by(by_datasketch(texts), texts)
        ways["rensa"] = lambda: found_by(by_rensa(texts), texts)
    for name, find in ways.items():
        with suppress(ModuleNotFoundError):
            began = time.process_time()
            found = find()
            milliseconds = 1e3 * (time.process_time() - began) / len(texts)
            num_found = len(found.intersection(planted))
            print(f"{name}: {milliseconds:.3f} ms a prompt, {num_found} of {len(planted)} found")


if __name__ == "__main__":
    main()
