"""What is trained on: token ids that end once, and pairs that are left out instead of being cut."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from infra.bundled_model import BUNDLED, bundled_weights
from pvar.records import Message, Pair, Response
from tasks.engine.tables import TokenPair
from tasks.training.token_rows import encode_pairs, with_neighbours
from tests.unit.infra.tiny_models import END, TEMPLATE, save_tokenizer

PAIR = Pair("p", (Message("user", "Why?"),), "Because it is.", "No idea", 1.0, 0.0)


def response(text: str, finish_reason: str) -> Response:
    return Response("p", text, 0, text, 3, finish_reason)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def smollm2() -> PreTrainedTokenizerBase:
    weights = bundled_weights(BUNDLED["smollm2-135m-instruct"])
    return AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_answers_of_a_real_model_end_once_with_nothing_behind(
    smollm2: PreTrainedTokenizerBase,
) -> None:
    # Its template writes "<|im_end|>\n" (2, 198) behind an answer; generation stops at <|im_end|>.
    ended = [response(PAIR.chosen, "stop"), response(PAIR.rejected, "stop")]
    ((row,), _) = encode_pairs([PAIR], ended, smollm2, 100)
    for answer, text in ((row.chosen_ids, PAIR.chosen), (row.rejected_ids, PAIR.rejected)):
        assert smollm2.decode(answer) == text + "<|im_end|>"
        assert answer.count(smollm2.eos_token_id) == 1
    assert smollm2.decode(row.prompt_ids).endswith("Why?<|im_end|>\n<|im_start|>assistant\n")
    # <|im_start|> is this model's beginning-of-sequence token; one opens each of three turns.
    assert row.prompt_ids[0] == smollm2.bos_token_id
    assert row.prompt_ids.count(smollm2.bos_token_id) == 3


def test_an_answer_that_was_cut_off_is_not_taught_to_end(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(save_tokenizer(tmp_path))
    ended = [response(PAIR.chosen, "stop"), response(PAIR.rejected, "length")]
    ((row,), _) = encode_pairs([PAIR], ended, tokenizer, 100)
    assert row.chosen_ids[-1] == END
    assert END not in row.rejected_ids
    # The same text sampled for another prompt says nothing about this one.
    elsewhere = [ended[0], ended[1]._replace(prompt_id="q")]
    ((row,), _) = encode_pairs([PAIR], elsewhere, tokenizer, 100)
    assert row.rejected_ids[-1] == END


def test_pairs_that_are_too_long_are_left_out_whole(tmp_path: Path) -> None:
    # One byte is one token, and one more ends the answer.
    tokenizer = AutoTokenizer.from_pretrained(save_tokenizer(tmp_path))
    ((row,), _) = encode_pairs([PAIR], [], tokenizer, 10_000)
    length = len(row.prompt_ids) + len(PAIR.chosen) + 1
    assert encode_pairs([PAIR], [], tokenizer, length).rejected == []
    kept, (rejected,) = encode_pairs([PAIR], [], tokenizer, length - 1)
    assert kept == []
    assert (rejected.row_id, rejected.rule) == ("p", "too_long")
    assert rejected.detail == f"{length} tokens"


def test_pairs_that_the_template_refuses_are_left_out_and_counted(tmp_path: Path) -> None:
    """A policy may know no system message, whoever made the answers."""
    no_system = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}"
    tokenizer = AutoTokenizer.from_pretrained(save_tokenizer(tmp_path, no_system + TEMPLATE))
    refused = PAIR._replace(
        prompt_id="r", messages=(Message("system", "Be brief."), *PAIR.messages)
    )
    encoded = encode_pairs([refused, PAIR, refused], [], tokenizer, 10_000)
    assert [row.prompt_id for row in encoded.pairs] == ["p"]
    assert [(row.row_id, row.rule) for row in encoded.rejected] == [("r", "template_refused")] * 2
    assert "refuses its conversation (roles system, user; " in encoded.rejected[0].detail
    assert encoded.reasons == {"template_refused": 2}


def test_neighbours_have_other_prompts() -> None:
    # Two pairs of each of three prompts, given prompt by prompt.
    pairs = [TokenPair(f"{p}{n}", p, [1], [2], [3]) for p in "abc" for n in (1, 2)]
    neighbours = with_neighbours(pairs)
    assert [each.pair.pair_id for each in neighbours] == ["a1", "b1", "c1", "a2", "b2", "c2"]
    assert [each.other.pair_id for each in neighbours] == ["c2", "a1", "b1", "c1", "a2", "b2"]
    assert with_neighbours(pairs[::-1]) == neighbours
