import random
import tracemalloc

import pytest

from pvar.dedup import MAX_COMPARED_CHARACTERS, deduplicate
from pvar.digest import prompt_id
from pvar.normalised_text import normalise
from pvar.records import Message, Prompt
from pvar.row_counts import RowCounts


def prompt(text, *, system=None, split="train") -> Prompt:
    messages = (Message("user", text),)
    if system is not None:
        messages = (Message("system", system), *messages)
    return Prompt(prompt_id(messages), messages, split, "test")


def contents(result):
    return [each.messages[-1].content for each in result.prompts]


WORDS = [
    "the",
    "a",
    "quick",
    "slow",
    "red",
    "green",
    "fox",
    "dog",
    "runs",
    "walks",
    "over",
    "under",
    "wall",
    "river",
    "and",
    "then",
    "sleeps",
]


def sentence(seed, num_words=40):
    return " ".join(random.Random(seed).choices(WORDS, k=num_words))


def test_normalisation_ignores_case_width_and_white_space_but_not_punctuation():
    # Full-width letters, a non-breaking space and ß are the same text under NFKC and case folding.
    assert normalise("  Ｈello\u00a0Straße\n\n WORLD ") == "hello strasse world"
    assert normalise("2-2") != normalise("2+2")


def test_exact_duplicates_after_normalisation_go_and_say_for_whom():
    first, second, other = prompt("Tell me a joke"), prompt("tell  me a JOKE "), prompt("Hello")
    result = deduplicate([first, second, other], min_similarity=None)
    kept, gone = sorted([first, second], key=lambda each: each.prompt_id)
    assert {each.prompt_id for each in result.prompts} == {kept.prompt_id, other.prompt_id}
    assert result.removed == [(gone.prompt_id, kept.prompt_id, "duplicate", 1.0)]
    assert result.row_counts == RowCounts(rows_in=3, rows_out=2, rejected={"duplicate": 1})


def test_near_duplicates_go_with_their_exact_similarity():
    text = sentence(0)
    near = prompt(f"{text} today")
    result = deduplicate([prompt(text), near], min_similarity=0.8)
    (removed,) = result.removed
    # The longer text has every 5-gram of the shorter one, so the similarity is the ratio of sizes.
    short, long = (
        {each[start : start + 5] for start in range(len(each) - 4)}
        for each in (text, f"{text} today")
    )
    assert removed.reason == "near_duplicate"
    assert removed.similarity == len(short) / len(long)
    assert len(result.prompts) == 1


def test_similar_prompts_below_the_threshold_stay_although_the_hashes_propose_them():
    # 0.69 to 0.77 similar: the bands propose about half of these pairs, and none is removed.
    originals = [sentence(seed) for seed in range(30)]
    similar = [f"{text} {sentence(seed, 22)}" for seed, text in enumerate(originals, start=100)]
    prompts = [prompt(text) for text in originals + similar]
    assert deduplicate(prompts, min_similarity=0.8).removed == []
    assert len(deduplicate(prompts, min_similarity=0.6).removed) >= 28


def test_most_near_duplicates_are_found():
    # One word of forty is replaced: 5-gram similarity about 0.9.
    originals = [sentence(seed) for seed in range(100)]
    changed = [text.replace(" ", " indeed ", 1) for text in originals]
    result = deduplicate([prompt(text) for text in originals + changed], min_similarity=0.8)
    assert len(result.removed) >= 98


def test_what_stays_does_not_depend_on_the_order_of_the_rows():
    prompts = [
        prompt(f"{sentence(seed)}{end}") for seed in range(20) for end in ("", "!", " x", "?")
    ]
    kept = {each.prompt_id for each in deduplicate(prompts).prompts}
    for seed in range(5):
        random.Random(seed).shuffle(prompts)
        assert {each.prompt_id for each in deduplicate(prompts).prompts} == kept


def test_what_stays_keeps_its_order():
    prompts = [prompt(sentence(seed)) for seed in range(10)]
    assert deduplicate(prompts).prompts == prompts


def test_the_evaluation_prompt_stays_and_its_training_copy_goes():
    for text in (sentence(seed) for seed in range(10)):
        evaluation, training = prompt(text, split="eval"), prompt(f"{text}.")
        assert deduplicate([training, evaluation]).prompts == [evaluation]


def test_a_system_message_shared_by_all_does_not_make_them_near_duplicates():
    system = sentence(1, 400)
    prompts = [prompt("What is 2+2?", system=system), prompt("Name a river.", system=system)]
    assert deduplicate(prompts).prompts == prompts


def test_the_same_question_under_another_system_message_is_another_prompt():
    prompts = [prompt(sentence(0), system="Be terse."), prompt(sentence(0), system="Be a pirate.")]
    assert deduplicate(prompts).prompts == prompts


@pytest.mark.parametrize("min_similarity", [0.05, 0.5, 0.99, 1.0])
def test_any_similarity_in_range_is_possible(min_similarity):
    prompts = [prompt("aaaaa bbbbb"), prompt("zzzz"), prompt("y"), prompt("?")]
    assert len(deduplicate(prompts, min_similarity=min_similarity).prompts) == 4


def test_nothing_in_nothing_out():
    assert deduplicate([]).row_counts == RowCounts()


def test_very_long_prompts_are_compared_for_equality_only():
    """In memory in proportion to the text, not thousands of times as much."""
    long = sentence(1, num_words=60_000)
    assert len(long) > MAX_COMPARED_CHARACTERS
    rows = [prompt(long), prompt(long.upper()), prompt(long + " end")]
    tracemalloc.start()
    result = deduplicate(rows)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [each.reason for each in result.removed] == ["duplicate"]
    assert peak < 20 * len(long)


def test_short_prompts_that_differ_in_a_word_or_number_are_two() -> None:
    """Most of their characters are the same: 3 of the first 40 would go."""
    towns = [prompt(f"Describe object number {n} of the town called Thorp{n}.") for n in range(40)]
    pairs = [
        ("What is the history of the old city of {} and of its university?", "Lisbon", "Warsaw"),
        ("Compute the value of the following expression, step by step: {}", "2+2", "2-2"),
        ("請解釋為什麼{}的人口在過去的三十年間不斷增加，並且說明這對社會的影響", "東京", "大阪"),
        ("Is it, in your opinion, {} to sell a house before the winter comes?", "wise", "not wise"),
    ]
    words = [prompt(form.format(word)) for form, *both in pairs for word in both]
    assert len(deduplicate(towns).removed) >= 3
    assert deduplicate(towns + words, strict_below_words=40).removed == []


def test_short_prompts_of_the_same_words_are_near_duplicates() -> None:
    first = prompt("Write a short poem about the sea, the wind and the harbour in winter")
    copies = [
        prompt("Write a short poem about the sea, the wind and the harbour in winter."),
        prompt("WRITE a short poem about the sea, the wind, and the harbour in winter!!"),
        prompt("please write a short poem about the sea, the wind and the harbour in winter"),
    ]
    result = deduplicate([first, *copies], strict_below_words=40)
    assert [each.reason for each in result.removed] == ["near_duplicate"] * 3


def test_long_prompts_are_compared_by_similarity_alone() -> None:
    texts = [sentence(seed, num_words=60) for seed in range(40)]
    changed = [text.replace(" ", " indeed ", 1) for text in texts]
    result = deduplicate([prompt(text) for text in texts + changed], strict_below_words=40)
    assert len(result.removed) == 40


def test_prompts_of_one_template_take_time_in_proportion_to_their_number() -> None:
    """All are alike in part: of what agrees with each, few are compared."""
    template = sentence(3, num_words=60)
    texts = [f"{template} {sentence(seed, num_words=40)}" for seed in range(150)]
    result = deduplicate([prompt(text) for text in [*texts, f"{texts[0]} now"]])
    assert len(result.removed) == 1


@pytest.mark.parametrize("strict_below_words", [0, 200])
def test_a_near_duplicate_is_found_among_many_with_other_system_messages(strict_below_words):
    systems = [f"You are assistant number {number}." for number in range(40)]
    text = sentence(5, num_words=60)
    first = [prompt(text, system=system) for system in systems]
    again = [prompt(f"{text}!", system=system) for system in systems]
    result = deduplicate([*first, *again], strict_below_words=strict_below_words)
    assert len(result.removed) == len(systems)
    systems_of = {each.prompt_id: each.messages[0] for each in [*first, *again]}
    assert all(systems_of[r.prompt_id] == systems_of[r.kept_prompt_id] for r in result.removed)
