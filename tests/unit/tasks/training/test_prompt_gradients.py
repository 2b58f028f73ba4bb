"""Gradients of small models: those of the losses they are said to be of, and what is known of them.

The unigram model's gradients are known: log π(y|x) = Σ_t log softmax(b)[y_t] has the gradient
counts(y) − |y| · softmax(b) by its only weights b.
"""

import itertools
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tasks.engine.tables import TokenPair
from tasks.training.logps import PromptAnswer, answer_logps
from tasks.training.prompt_gradients import (
    AnswerPair,
    PromptGradient,
    PromptGroup,
    ScoredAnswers,
    measure_gradients,
)
from tests.unit.infra.tiny_models import save_language_model
from tests.unit.tasks.training.trainings import train

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of libraries
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

BETA = 0.3
ANSWERS = ((80, 81, 3), (90, 3), (100, 101, 102, 103, 3))
PROMPT = ScoredAnswers(
    "p",
    (0, 1, 70, 2),
    ANSWERS,
    (1.5, -0.25, 0.0),
    (AnswerPair(ANSWERS[0], ANSWERS[1]),),
)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_language_model(tmp_path_factory.mktemp("policy"), seed=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_language_model(tmp_path_factory.mktemp("trained"), seed=2)


def load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def measure(
    model: Any, *prompts: ScoredAnswers, log_ratios: dict[PromptAnswer, float] | None = None
) -> PromptGroup:
    """One group; without log-ratios, the model is the starting policy."""
    zero = dict.fromkeys((row for prompt in prompts for row in prompt.rows), 0.0)
    (group,) = measure_gradients(
        model, [prompts], zero if log_ratios is None else log_ratios, beta=BETA
    )
    return group


def sequence_logp(model: Any, answer: tuple[int, ...]) -> torch.Tensor:
    ids = torch.tensor([[*PROMPT.prompt_ids, *answer]])
    logps = model(ids).logits[0, :-1].log_softmax(dim=1).gather(1, ids[0, 1:, None])[:, 0]
    return logps[len(PROMPT.prompt_ids) - 1 :].sum()


def flat_gradient(loss: torch.Tensor, model: Any) -> torch.Tensor:
    return torch.cat(
        [part.flatten() for part in torch.autograd.grad(loss, list(model.parameters()))]
    )


def dpo_loss(model: Any, reference: Any, chosen: Any, rejected: Any) -> torch.Tensor:
    """−log σ(β (log-ratio of chosen − log-ratio of rejected)) (arXiv 2305.18290, eq. 7)."""
    ratios = [
        sequence_logp(model, answer) - sequence_logp(reference, answer).detach()
        for answer in (chosen, rejected)
    ]
    return -torch.nn.functional.logsigmoid(BETA * (ratios[0] - ratios[1]))


def log_ratios_of(model: Any, reference: Any, prompt: ScoredAnswers) -> dict[PromptAnswer, float]:
    own, theirs = (answer_logps(each, prompt.rows, autocast=False) for each in (model, reference))
    return {row: own[row] - theirs[row] for row in prompt.rows}


@pytest.mark.parametrize("is_start", [True, False])
def test_soft_labels_are_drawn_labels_in_expectation(
    policy: Path, trained: Path, is_start: bool
) -> None:
    # Every outcome of drawing the labels of the three pairs, with its probability: a drawn label is
    # a hard one, so its gradient is that of the DPO loss of the pair in that order.
    model, reference = load(policy if is_start else trained), load(policy)
    pairs = list(itertools.combinations(range(3), 2))
    expected = torch.zeros(())
    for outcome in itertools.product((True, False), repeat=len(pairs)):
        probability, loss = 1.0, torch.zeros(())
        for (i, j), is_first in zip(pairs, outcome, strict=True):
            p = 1 / (1 + math.exp(PROMPT.rewards[j] - PROMPT.rewards[i]))
            probability *= p if is_first else 1 - p
            chosen, rejected = (i, j) if is_first else (j, i)
            loss = loss + dpo_loss(model, reference, ANSWERS[chosen], ANSWERS[rejected])
        expected = expected + probability * flat_gradient(loss / len(pairs), model)

    log_ratios = None if is_start else log_ratios_of(model, reference, PROMPT)
    (found,) = measure(model, PROMPT, log_ratios=log_ratios).prompts
    assert found.soft_norm == pytest.approx(float(expected.norm()), rel=1e-4)
    assert found.is_within_bound
    assert (found.label_gap == pytest.approx(found.pvar)) == is_start


def test_the_bound_has_the_mean_squared_difference_of_gradients(policy: Path) -> None:
    model = load(policy)
    parts = [flat_gradient(sequence_logp(model, answer), model) for answer in ANSWERS]
    squares = [float((one - other).square().sum()) for one in parts for other in parts]
    (found,) = measure(model, PROMPT).prompts
    assert found.difference_norm == pytest.approx(BETA * (sum(squares) / 6) ** 0.5, rel=1e-4)
    assert found.bound == pytest.approx(found.pvar**0.5 * found.difference_norm, rel=1e-6)
    assert found.tightness == pytest.approx(found.soft_norm / found.bound)


def test_at_the_start_a_trained_pair_has_half_beta_times_the_difference(policy: Path) -> None:
    model = load(policy)
    parts = [flat_gradient(sequence_logp(model, answer), model) for answer in ANSWERS[:2]]
    (found,) = measure(model, PROMPT).prompts
    assert found.trained_norm == pytest.approx(
        BETA / 2 * float((parts[0] - parts[1]).norm()), rel=1e-5
    )
    assert found.margin == 0
    # … whatever the PVar: with nearly equal rewards, PVar and the bound all but vanish.
    nearly_equal = PROMPT._replace(rewards=(1e-3, 0.0, 0.0))
    (same,) = measure(model, nearly_equal).prompts
    assert same.trained_norm == found.trained_norm
    assert same.trained_norm is not None
    assert same.trained_norm > 100 * same.bound


@pytest.mark.slow
def test_the_trained_pairs_gradient_is_that_of_trls_first_step(
    tmp_path: Path, policy: Path
) -> None:
    pair = TokenPair("one", "p", list(PROMPT.prompt_ids), list(ANSWERS[0]), list(ANSWERS[1]))
    # A step of copies of one pair, whose mean is the pair's gradient.
    (step,) = train(tmp_path / "run", policy, [pair], beta=BETA, num_epochs=1)
    (found,) = measure(load(policy), PROMPT).prompts
    assert found.trained_norm == pytest.approx(step.grad_norm, rel=1e-5)


def test_at_a_trained_model_the_pairs_are_weighted_by_their_margins(
    policy: Path, trained: Path
) -> None:
    # Two pairs, one with an answer that is no response: the mean of their losses.
    model, reference = load(trained), load(policy)
    other = (60, 61, 62, 3)
    prompt = PROMPT._replace(pairs=(*PROMPT.pairs, AnswerPair(ANSWERS[2], other)))
    losses = [dpo_loss(model, reference, *pair) for pair in prompt.pairs]
    gradient = flat_gradient((losses[0] + losses[1]) / 2, model)

    log_ratios = log_ratios_of(model, reference, prompt)
    (found,) = measure(model, prompt, log_ratios=log_ratios).prompts
    assert found.trained_norm == pytest.approx(float(gradient.norm()), rel=1e-4)
    # A loss is −log σ(m), so m = −log(e^loss − 1).
    margins = [-math.log(math.expm1(float(loss))) for loss in losses]
    assert found.margin == pytest.approx(sum(margins) / 2, rel=1e-3)
    assert found.num_pairs == 2
    assert len(found.log_ratios) == 3  # the other answer takes no part in the soft gradient
    (alone,) = measure(model, PROMPT, log_ratios=log_ratios).prompts
    assert found.soft_norm == pytest.approx(alone.soft_norm, rel=1e-6)


def test_a_prompt_without_a_pair_has_no_trained_gradient(policy: Path) -> None:
    group = measure(load(policy), PROMPT._replace(pairs=()), PROMPT)
    assert group.prompts[0].trained_norm is None
    assert group.prompts[0].margin is None
    assert group.soft.num_gradients == 2
    assert group.trained.num_gradients == 1


class Unigram(torch.nn.Module):
    """A model whose next token does not depend on what came before."""

    def __init__(self, probabilities: list[float]) -> None:
        super().__init__()
        self.bias = torch.nn.Parameter(torch.tensor(probabilities).log())
        self.device = torch.device("cpu")

    def forward(self, input_ids: torch.Tensor, logits_to_keep: int, **_: Any) -> Any:
        size = (len(input_ids), logits_to_keep, len(self.bias))
        return SimpleNamespace(logits=self.bias.expand(size))


def test_known_log_ratios_give_the_known_pvar_of_the_policy() -> None:
    # The log-ratios of the answers (1) and (2) are ln(0.6/0.2) and ln(0.2/0.6).
    model, reference = Unigram([0.2, 0.6, 0.2]), Unigram([0.2, 0.2, 0.6])
    prompt = ScoredAnswers("p", (0,), ((1,), (2,)), (0.0, 0.0))
    (found,) = measure(model, prompt, log_ratios=log_ratios_of(model, reference, prompt)).prompts
    assert found.log_ratios == pytest.approx((math.log(3), -math.log(3)))
    # q = σ(β · 2 ln 3); with two responses, PVar is (q − ½)².
    q = 1 / (1 + 9**-BETA)
    assert found.policy_pvar == pytest.approx((q - 0.5) ** 2)
    assert found.pvar == 0
    assert found.label_gap == pytest.approx((q - 0.5) ** 2)
    (start,) = measure(model, prompt).prompts
    assert start.policy_pvar == 0


def test_two_planted_groups_have_the_expected_signal_and_noise() -> None:
    # A uniform model over four tokens, answers of one token: G_i − G_j is the difference of two
    # unit vectors, and of a prompt's two responses with p = ¾ the soft gradient is β/4 of it (by
    # hand in test_gradient_bound.py), a trained pair's β/2.
    model = Unigram([0.25] * 4)

    def prompt(best: int, worst: int) -> ScoredAnswers:
        answers = ((best,), (worst,))
        pair = AnswerPair(*answers)
        return ScoredAnswers("p", (0,), answers, (math.log(3), 0.0), (pair,))

    groups = [[prompt(0, 1), prompt(2, 1)], [prompt(0, 1), prompt(1, 0)]]
    rows = [row for group in groups for each in group for row in each.rows]
    common, opposed = measure_gradients(model, groups, dict.fromkeys(rows, 0.0), beta=BETA)

    # e0 − e1 and e2 − e1: mean (e0 + e2)/2 − e1 of length √1.5, deviations ±(e0 − e2)/2 with square
    # ½ each: noise² = 1/(2 · 1).
    assert common.soft.signal == pytest.approx(BETA / 4 * 1.5**0.5)
    assert common.soft.noise == pytest.approx(BETA / 4 * 0.5**0.5)
    assert common.soft.ratio == pytest.approx(3**0.5)
    assert common.trained.signal == pytest.approx(BETA / 2 * 1.5**0.5)
    assert common.trained.ratio == pytest.approx(3**0.5)
    # e0 − e1 and e1 − e0: mean 0, deviations of square 2: noise² = 4/2.
    assert opposed.soft.signal == pytest.approx(0, abs=1e-6)
    assert opposed.soft.noise == pytest.approx(BETA / 4 * 2**0.5)
    assert opposed.trained.noise == pytest.approx(BETA / 2 * 2**0.5)


def test_progress_is_reported_after_each_prompt() -> None:
    prompt = ScoredAnswers("p", (0,), ((1,), (2,)), (0.0, 1.0))
    seen: list[None] = []
    measure_gradients(
        Unigram([0.5, 0.25, 0.25]),
        [[prompt, prompt], [prompt]],
        dict.fromkeys(prompt.rows, 0.0),
        beta=BETA,
        advance=lambda: seen.append(None),
    )
    assert len(seen) == 3


def gradient(**changes: Any) -> PromptGradient:
    """√0.04 · 5 = 1 is the bound."""
    values: dict[str, Any] = {
        "prompt_id": "p", "rewards": (0.0, 1.0), "log_ratios": (0.0, 0.0), "pvar": 0.04,
        "policy_pvar": 0.0, "label_gap": 0.04, "soft_norm": 1.0, "difference_norm": 5.0,
        "num_pairs": 0, "margin": None, "trained_norm": None,
    }  # fmt: skip
    return PromptGradient(**values | changes)


def test_a_gradient_beyond_the_bound_is_told() -> None:
    assert gradient().is_within_bound
    assert not gradient(soft_norm=1.01).is_within_bound
    assert math.isnan(gradient(label_gap=0.0).tightness)
