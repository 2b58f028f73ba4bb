"""Exclusion: copies of exam prompts are found, and prompts that only look like them are not."""

import json
import random
from importlib.resources import files

import pytest

from pvar.digest import prompt_id
from pvar.exclusion import MIN_SIMILARITY, Exclusion, find_exclusions
from pvar.records import Message, Prompt
from tests.unit.pvar.benchmark_data import ALPACA_EVAL, needs_shared_data, read_jsonl

TWENTY = (
    "harbour lantern copper meadow violin winter ladder pepper island candle saddle marble "
    "thunder garden velvet needle river orchard hammer feather"
)
WORDS = TWENTY.split()


def prompt(*contents: str, system: str | None = None) -> Prompt:
    """A conversation of user and assistant in turn."""
    roles = ("user", "assistant") * len(contents)
    messages = tuple(Message(role, text) for role, text in zip(roles, contents, strict=False))
    if system is not None:
        messages = (Message("system", system), *messages)
    return Prompt(prompt_id(messages), messages, "train", "test")


def excluded(
    prompts: list[Prompt], *exam: Prompt, ngram_words: int = 13, similarity: float = MIN_SIMILARITY
) -> list[Exclusion]:
    return find_exclusions(
        prompts, {"exam": exam}, ngram_words=ngram_words, min_similarity=similarity
    )


def rule(text: str, exam: str) -> str | None:
    """The rule by which one text excludes the other."""
    return next((row.rule for row in excluded([prompt(text)], prompt(exam))), None)


def sentence(num_words: int, seed: int = 0) -> list[str]:
    return random.Random(seed).choices(WORDS, k=num_words)


def test_a_row_names_prompt_exam_rule_and_what_is_shared() -> None:
    copy, other = prompt("tell me  a JOKE!"), prompt("Tell me a story.")
    exam = prompt("Tell me a joke")
    assert excluded([other, copy], prompt("Name a river."), exam) == [
        (copy.prompt_id, "exam", exam.prompt_id, "same_text", "tell me a joke")
    ]


@pytest.mark.parametrize(
    "text",
    [
        "Describe object number 4 of the town called Thorp3.",
        "Describe object number 3 of the town called Thorp4.",
        "Describe object number 3 of the town called Thorp3 in French.",
        "Describe object number 33 of the town called Thorp3.",
        "Town called Thorp3: describe object number 3 of the.",
    ],
)
def test_short_prompts_that_differ_in_a_word_are_different(text: str) -> None:
    assert rule(text, "Describe object number 3 of the town called Thorp3.") is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 2+2?", "What is 2-2?"),
        ("Is -5 larger than 3?", "Is 5 larger than 3?"),
        ("What does f(x) mean?", "What does f[x] mean?"),
        ("Is it in [0, 1)?", "Is it in [0, 1]?"),
        ("What is C?", "What is C++?"),
        ("Round 3.5", "Round 35"),
    ],
)
def test_signs_within_a_short_text_have_a_meaning(one: str, other: str) -> None:
    assert rule(one, other) is None


@pytest.mark.parametrize(
    "text",
    [
        "WHAT IS THE CAPITAL OF PERU",
        "“What is the capital of Peru?”",
        " What is\n\nthe capital of Peru ? ",
        "What, is the capital of Peru...",
    ],
)
def test_case_spaces_and_punctuation_do_not_hide_a_short_copy(text: str) -> None:
    assert rule(text, "What is the capital of Peru?") == "same_text"


def test_texts_of_punctuation_alone_exclude_nothing() -> None:
    assert rule("?!", "...") is None


def test_thirteen_shared_words_exclude_and_twelve_do_not() -> None:
    common = WORDS[:13]
    thirteen = " ".join(["first", *common, "last"])
    exam = " ".join([*WORDS[15:], *common, *WORDS[15:]])
    (row,) = excluded([prompt(thirteen)], prompt(exam))
    assert (row.rule, row.shared) == ("shared_words", " ".join(common))
    assert rule(thirteen.replace(common[6], "other"), exam) is None
    assert excluded([prompt("a b c d")], prompt("x a b c d"), ngram_words=4)[0].shared == "a b c d"


def test_what_follows_from_the_number_of_changed_words() -> None:
    # Of 14 different words the 7th is replaced: of 12 word 3-grams on each side 9 are shared, so
    # the similarity is 9 / 15 = 0.6; of 13 words it is 8 / 14 = 0.57. No 13 words are shared.
    def replaced(num_words: int) -> str | None:
        words = WORDS[:num_words]
        return rule(" ".join([*words[:6], "replaced", *words[7:]]), " ".join(words))

    assert (replaced(13), replaced(14)) == (None, "near_duplicate")
    # Of 13 words and one inserted: 9 of 11 and 12 are shared, 9 / 14 = 0.64.
    inserted = " ".join([*WORDS[:6], "inserted", *WORDS[6:13]])
    (row,) = excluded([prompt(inserted)], prompt(" ".join(WORDS[:13])))
    assert (row.rule, row.shared) == ("near_duplicate", "0.64 similar in 3-grams of words")
    assert excluded([prompt(inserted)], prompt(" ".join(WORDS[:13])), similarity=0.65) == []


def test_planted_copies_of_long_prompts_are_found() -> None:
    texts = [sentence(num, seed) for seed, num in enumerate([14, 17, 20, 24, 30, 60] * 20)]
    exam = [prompt(" ".join(words)) for words in texts]
    rng = random.Random(1)
    places = [rng.randrange(1, len(words)) for words in texts]
    shouted = [prompt(", ".join(words).upper() + "!") for words in texts]
    inserted = [
        prompt(" ".join([*words[:place], "really", *words[place:]]))
        for words, place in zip(texts, places, strict=True)
    ]
    found = excluded(shouted, *exam)
    assert [row.exam_prompt_id for row in found] == [each.prompt_id for each in exam]
    assert {row.rule for row in found} == {"same_text"}
    # Near-duplicates are proposed by hashing: a few may be missed.
    assert len(excluded(inserted, *exam)) >= 0.95 * len(exam)


def test_the_short_prompts_of_the_demo_do_not_exclude_each_other() -> None:
    text = (files("pvar") / "data" / "sentiment_prompts.jsonl").read_text(encoding="utf-8")
    prompts = [prompt(json.loads(line)["prompt"]) for line in text.splitlines()]
    assert len(prompts) > 200
    assert excluded(prompts[::2], *prompts[1::2]) == []


@needs_shared_data
def test_among_the_prompts_of_alpaca_eval_only_shared_passages_exclude() -> None:
    rows = read_jsonl(ALPACA_EVAL / "baseline_gpt4_1106_preview.jsonl.gz")
    prompts = [prompt(row["instruction"]) for row in rows]
    found = excluded(prompts[::2], *prompts[1::2])
    # The cook who likes to host guests, and the questions that end with the same two sentences.
    assert {(row.rule, row.shared[:16]) for row in found} == {
        ("shared_words", "i like to host g"),
        ("shared_words", "try to explain y"),
    }


def test_every_user_message_counts_and_neither_answers_nor_system_messages_do() -> None:
    long_text = " ".join(WORDS)
    exam = prompt("Tell me a joke"), prompt(long_text)
    in_history = prompt("tell me a joke", "A joke.", "Another one")
    in_answer = prompt("Count", long_text, "Thanks")
    in_system = prompt("Count", system=long_text)
    with_system = prompt("Tell me a joke.", system="Be brief.")
    found = excluded([in_history, in_answer, in_system, with_system], *exam)
    assert [row.prompt_id for row in found] == [in_history.prompt_id, with_system.prompt_id]


def test_a_conversation_of_an_exam_excludes_its_run_of_messages_not_one_of_them() -> None:
    exam = prompt("Name a river.", "The Nile.", "Continue")
    same = prompt("Hello", "Hi", "name a river", "The Amazon.", "Continue!")
    one = prompt("Tell me a story", "Once upon a time", "Continue")
    apart = prompt("Name a river", "The Nile.", "Thanks", "Welcome.", "Continue")
    assert [row.prompt_id for row in excluded([same, one, apart], exam)] == [same.prompt_id]


def test_every_exam_that_excludes_a_prompt_has_a_row_by_its_first_rule() -> None:
    text = " ".join(WORDS)
    exams = {
        "b": [prompt(f"{text} indeed"), prompt(text)],
        "a": [prompt("Name a river."), prompt(f"Consider {text}")],
        "c": [prompt("Tell me a joke")],
    }
    copy = prompt(text.upper())
    rows = find_exclusions([copy], exams, ngram_words=13, min_similarity=MIN_SIMILARITY)
    assert [(row.exam, row.rule, row.exam_prompt_id) for row in rows] == [
        ("b", "same_text", exams["b"][1].prompt_id),
        ("a", "shared_words", exams["a"][1].prompt_id),
    ]


def test_without_exams_nothing_is_excluded() -> None:
    assert find_exclusions([prompt("a")], {}, ngram_words=13, min_similarity=0.6) == []


def test_characters_without_spaces_are_compared_as_words() -> None:
    text = "请用简单的语言解释量子力学的基本原理"  # 18 characters
    assert rule(f"好的，{text[1:14]}吗", text) == "shared_words"
    assert rule(f"好的，{text[1:13]}吗", text) is None
