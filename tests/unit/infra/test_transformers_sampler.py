"""The default engine on a tiny model: batching changes nothing, and each answer has its prompt.

The oracle reads one prompt at a time, without padding, cache or batch.
"""

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from infra.engines.decoding import Sampling, decode, draw, find
from infra.engines.transformers_sampler import load_transformers_sampler
from pvar.ports import Rejection, SampleRequest
from pvar.records import Message
from pvar.sampler_config import SamplerSettings
from tests.unit.infra.tiny_models import BOS, END, save_language_model

GREEDY = 1e-5
"""A temperature at which only the likeliest token is drawn."""
LIMIT = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_language_model(tmp_path_factory.mktemp("policy"), seed=1)


@pytest.fixture(scope="module")
def model(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def likeliest_alone(model: PreTrainedModel, prompt: list[int], ends: set[int]) -> list[int]:
    answer: list[int] = []
    while len(answer) < LIMIT and not ends & set(answer):
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + answer]), use_cache=False).logits
        answer.append(int(logits[0, -1].argmax()))
    return answer


def test_answers_of_a_batch_are_those_of_each_prompt_alone(model: PreTrainedModel) -> None:
    # Padding is a token that ends answers, and a fifth of all tokens do: rows end one by one.
    generator = torch.Generator().manual_seed(0)
    prompts = [
        torch.randint(4, 260, (length,), generator=generator).tolist()
        for length in (3, 9, 5, 14, 7, 2, 11, 6)
    ]
    ends = {END, *range(5, 260, 5)}
    width = max(map(len, prompts))
    token_ids = torch.tensor([[END] * (width - len(row)) + row for row in prompts])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts])

    answers = decode(model, token_ids, mask, Sampling(2, LIMIT, GREEDY, 1.0, ends))

    alone = [likeliest_alone(model, prompt, ends) for prompt in prompts]
    assert answers == [answer for answer in alone for _ in range(2)]
    assert len({len(answer) for answer in alone}) > 2


@pytest.mark.parametrize(
    ("temperature", "top_p", "expected"),
    [
        (1.0, 1.0, [0.5, 0.3, 0.15, 0.05]),
        (0.5, 1.0, [0.25 / 0.365, 0.09 / 0.365, 0.0225 / 0.365, 0.0025 / 0.365]),  # squared
        (1.0, 0.7, [0.5 / 0.8, 0.3 / 0.8, 0.0, 0.0]),  # 0.5 is below 0.7, 0.8 is not
    ],
)
def test_tokens_are_drawn_as_often_as_they_are_likely(
    temperature: float, top_p: float, expected: list[float]
) -> None:
    torch.manual_seed(0)
    logits = torch.tensor([0.05, 0.5, 0.15, 0.3]).log().repeat(20_000, 1)
    drawn = draw(logits, temperature, top_p).bincount(minlength=4) / 20_000
    # Standard error: at most √(¼ / 20000) = 0.0035.
    assert drawn[[1, 3, 2, 0]].tolist() == pytest.approx(expected, abs=0.015)
    assert (drawn[[1, 3, 2, 0]] == 0).tolist() == [share == 0 for share in expected]


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_a_vocabulary_of_several_blocks_is_drawn_from_as_a_whole(top_p: float) -> None:
    """Three tokens of 700 are possible, each in a block of 256 of its own, none of them a first."""
    torch.manual_seed(0)
    logits = torch.full((700,), -math.inf)
    tokens, shares = [10, 300, 699], [0.2, 0.5, 0.3]
    logits[tokens] = torch.tensor(shares).log()
    drawn = draw(logits.repeat(20_000, 1), 1.0, top_p).bincount(minlength=700)
    assert int(drawn.sum()) == int(drawn[tokens].sum()) == 20_000
    # Standard error: at most √(¼ / 20000) = 0.0035. 0.5 and 0.3 are below 0.9, so all three stay.
    assert (drawn[tokens] / 20_000).tolist() == pytest.approx(shares, abs=0.015)


def test_rounding_at_the_edge_of_a_block_draws_no_impossible_token() -> None:
    """Of two blocks the second begins with impossible tokens. A threshold exactly between the two
    leaves nothing for the second block, or, as float32 rounds, a little less than nothing."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(100_000, 2, generator=generator)
    edge = weights[:, :1]
    rest = edge - (weights.cumsum(dim=1) - weights)[:, 1:]
    assert int((rest < 0).sum()) > 1000  # else nothing is tested
    block, left = find(weights, edge)
    assert block.eq(1).all()
    second = torch.zeros(100_000, 256)
    second[:, 5] = weights[:, 1]
    entry, _ = find(second, left)
    assert entry.eq(5).all()


def test_each_answer_has_its_prompt_and_one_that_is_too_long_costs_no_other(folder: Path) -> None:
    settings = SamplerSettings(
        max_new_tokens=LIMIT, max_prompt_tokens=60, temperature=1.5, dtype="bfloat16"
    )
    sampler = load_transformers_sampler(folder, settings, sequences_per_batch=6)
    requests = [
        SampleRequest(f"p{number}", (Message("user", "?" * length),))
        for number, length in enumerate((4, 20, 1, 100, 9))
    ]

    def answers(seed: int) -> dict[tuple[str, int], str]:
        responses, rejections = sampler.sample(requests, num_responses=3, seed=seed)
        assert rejections == [Rejection("p3", "prompt_too_long")]
        for each in responses:
            # Without an end it was cut off at the limit, and never elsewhere.
            assert (each.finish_reason == "length") <= (each.num_tokens == LIMIT)
            assert each.finish_reason in ("length", "stop")
        return {(each.prompt_id, each.sample_index): each.text for each in responses}

    first = answers(0)
    assert set(first) == {(f"p{number}", index) for number in (0, 1, 2, 4) for index in range(3)}
    assert len(set(first.values())) > 10  # random bytes: copies would be a shared random state
    assert answers(0) == first
    assert answers(1) != first
    encoded, _ = sampler.chat.encode(requests)
    assert [(item.token_ids[0], item.token_ids.count(BOS)) for item in encoded] == [(BOS, 1)] * 4
