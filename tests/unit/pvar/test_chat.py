"""The chat template of the model itself, applied once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from infra.engines.chat_format import ChatFormat
from infra.rewards.score_rows import Unscorable, encode_requests
from pvar.chat import (
    answer_token_ids,
    conversation_token_ids,
    end_token_ids,
    is_surely_longer,
    prompt_token_ids,
)
from pvar.digest import prompt_id
from pvar.errors import ChatTemplateError, ModelError
from pvar.ports import Rejection, SampleRequest, ScoreRequest
from pvar.records import Message
from tests.unit.infra.tiny_models import BOS, END, TEMPLATE, save_tokenizer

ASKED = (Message("system", "Be brief."), Message("user", "Why?"))


def tokenizer(folder: Path, template: str | None = TEMPLATE) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(save_tokenizer(folder, template))


def test_there_is_one_beginning_of_sequence_token(tmp_path: Path) -> None:
    # This tokenizer adds one to plain text, and its template writes one too: rendering to text and
    # tokenising that would give two.
    model = tokenizer(tmp_path)
    rendered = model.apply_chat_template(
        [message._asdict() for message in ASKED], tokenize=False, add_generation_prompt=True
    )
    assert model(rendered)["input_ids"][:2] == [BOS, BOS]
    ids = prompt_token_ids(model, ASKED)
    assert ids.count(BOS) == 1
    assert ids[0] == BOS
    assert model.decode(ids) == rendered


def test_the_prompt_is_the_beginning_of_the_conversation(tmp_path: Path) -> None:
    # Sampling reads the first, scoring and training the second.
    model = tokenizer(tmp_path)
    prompt = prompt_token_ids(model, ASKED)
    whole = conversation_token_ids(model, ASKED, "Because.")
    assert whole[: len(prompt)] == prompt
    assert whole.count(BOS) == 1
    assert model.decode(whole[len(prompt) :]) == "Because.<|eot_id|>"


def test_an_answer_ends_once(tmp_path: Path) -> None:
    whole = conversation_token_ids(tokenizer(tmp_path), ASKED, "Because.")
    assert whole[-1] == END
    assert whole[-2] != END


def test_what_is_surely_longer_is_longer(tmp_path: Path) -> None:
    model = tokenizer(tmp_path)
    longest = max(map(len, model.get_vocab()))
    for num_characters in (0, 10, 200, 2_000):
        text = "x" * num_characters
        least = -(-num_characters // longest)
        assert is_surely_longer(model, [text], max(least - 1, 0)) == (least > 0)
        assert not is_surely_longer(model, [text], least)
        assert len(model.encode(text, add_special_tokens=False)) >= least


@dataclass
class NeverTokenises:
    """A tokenizer that must not be asked."""

    def get_vocab(self) -> dict[str, int]:
        return {"longest": 0}

    def apply_chat_template(self, conversation: object, **options: object) -> None:
        raise AssertionError("asked for the tokens of a huge prompt")


def test_a_huge_prompt_is_rejected_before_it_is_tokenised() -> None:
    """Its tokens would take a hundred times its memory."""
    huge = (Message("user", "data:image/png;base64," + "iVBORw0K" * 250_000),)
    never = cast(Any, NeverTokenises())
    chat = ChatFormat(never, frozenset(), 2048)
    assert chat.encode([SampleRequest("p", huge)]) == ([], [Rejection("p", "prompt_too_long")])
    request = ScoreRequest("p", "r", huge, "A picture.")
    rows = encode_requests(never, [request], lambda ids, prompt: 0, 4096)
    assert rows == [Unscorable("too_long")]


def test_the_models_own_template_is_used(tmp_path: Path) -> None:
    model = tokenizer(tmp_path, "{% for m in messages %}[{{ m['content'] }}]{% endfor %}>")
    assert model.decode(prompt_token_ids(model, ASKED)) == "[Be brief.][Why?]>"


def test_no_template_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no chat template.*add chat_template\.jinja"):
        prompt_token_ids(tokenizer(tmp_path, None), ASKED)


def test_a_template_that_begins_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"writes the beginning-of-sequence token \(id 0\) twice"):
        prompt_token_ids(tokenizer(tmp_path, "{{ bos_token }}" + TEMPLATE), ASKED)


NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system') }}{% endif %}"


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (NO_SYSTEM + TEMPLATE, "TemplateError: No system"),
        ("{{ messages[0].tools.names }}", "UndefinedError: "),
        ("{% for m in messages %}", "TemplateSyntaxError: "),
    ],
)
def test_what_a_template_refuses_is_one_line_that_names_the_prompt(
    tmp_path: Path, template: str, words: str
) -> None:
    model = tokenizer(tmp_path, template)
    refusal = rf"^prompt {prompt_id(ASKED)}: .*template refuses .*roles system, user.*{words}"
    with pytest.raises(ChatTemplateError, match=refusal):
        prompt_token_ids(model, ASKED)
    with pytest.raises(ChatTemplateError, match=rf"^prompt {prompt_id(ASKED)}: .*assistant; "):
        conversation_token_ids(model, ASKED, "Because.")


def test_what_the_template_writes_after_the_end_of_a_turn_is_not_part_of_an_answer(
    tmp_path: Path,
) -> None:
    # SmolLM2, Qwen and others write a newline there, which the model never generates.
    model = tokenizer(tmp_path, TEMPLATE.replace("<|eot_id|>{%", "<|eot_id|>\n{%"))
    whole = conversation_token_ids(model, ASKED, "Because.")
    assert model.decode(whole).endswith("<|eot_id|>\n")
    assert end_token_ids(model) == [END]
    assert model.decode(answer_token_ids(model, "Because.", [END])) == "Because.<|eot_id|>"


def test_a_template_without_an_end_is_completed(tmp_path: Path) -> None:
    model = tokenizer(tmp_path, "{% for m in messages %}[{{ m['content'] }}]{% endfor %}>")
    end = end_token_ids(model)
    assert model.decode(answer_token_ids(model, "Because.", end)) == "Because.]><|eot_id|>"


def test_an_answer_that_brings_its_end_gets_no_second(tmp_path: Path) -> None:
    model = tokenizer(tmp_path)
    ids = answer_token_ids(model, "Because.<|eot_id|><|eot_id|>", [END])
    assert ids.count(END) == 1
    assert ids[-1] == END


def test_an_answer_that_was_cut_off_has_no_end(tmp_path: Path) -> None:
    model = tokenizer(tmp_path)
    assert model.decode(answer_token_ids(model, "Because", ())) == "Because"


def test_prompt_and_answer_are_the_conversation(tmp_path: Path) -> None:
    # What is trained on is what the template makes of the conversation, up to its last token.
    model = tokenizer(tmp_path)
    answer = answer_token_ids(model, " So, 7 × ½ it is!", end_token_ids(model))
    whole = conversation_token_ids(model, ASKED, " So, 7 × ½ it is!")
    assert prompt_token_ids(model, ASKED) + answer == whole


def test_a_template_without_an_end_that_fails_names_no_prompt_of_a_user(tmp_path: Path) -> None:
    model = tokenizer(tmp_path, "{{ raise_exception('never') }}")
    with pytest.raises(ModelError, match=r"one question with its answer \(never\); use another"):
        end_token_ids(model)


def test_a_template_that_asks_for_the_date_is_given_a_fixed_one(tmp_path: Path) -> None:
    dated = "{{ strftime_now('%d %b %Y') }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    model = tokenizer(tmp_path, dated)
    assert model.decode(prompt_token_ids(model, ASKED)) == "26 Jul 2024Be brief.Why?"
    model.chat_template = {"default": dated, "tool_use": "another"}
    assert model.decode(prompt_token_ids(model, ASKED)) == "26 Jul 2024Be brief.Why?"
    # Nothing else of the template changes, and other forms of the date work, too.
    other = "\n  {{ strftime_now('%Y-%m-%d, %A %-d %B') }}"
    model = tokenizer(tmp_path, other)
    expected = "\n  2024-07-26, Friday 26 July"
    assert model.decode(prompt_token_ids(model, ASKED)) == expected
    today = model.apply_chat_template([{"role": "user", "content": ""}], tokenize=False)
    assert today != expected, "this test says nothing today"
