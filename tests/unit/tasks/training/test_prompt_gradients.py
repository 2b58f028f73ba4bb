"""Gradients of a tiny policy: those of the expected loss, within the bound, and as a figure."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from flows.commands.gradients import gradients
from tasks.training.prompt_gradients import (
    PromptGradient,
    ScoredAnswers,
    agreement,
    measure_gradients,
)
from tests.unit.infra.tiny_models import save_language_model
from tests.workflow import start_workflow

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of libraries
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

BETA = 0.3
PROMPT = ScoredAnswers(
    "p", (0, 1, 70, 2), ((80, 81, 3), (90, 3), (100, 101, 102, 103, 3)), (1.5, -0.25, 0.0)
)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_language_model(tmp_path_factory.mktemp("policy"), seed=1)


def sequence_logp(model: Any, answer: tuple[int, ...]) -> torch.Tensor:
    ids = torch.tensor([[*PROMPT.prompt_ids, *answer]])
    logps = model(ids).logits[0, :-1].log_softmax(dim=1).gather(1, ids[0, 1:, None])[:, 0]
    return logps[len(PROMPT.prompt_ids) - 1 :].sum()


def flat_gradient(loss: torch.Tensor, model: Any) -> torch.Tensor:
    return torch.cat(
        [part.flatten() for part in torch.autograd.grad(loss, list(model.parameters()))]
    )


def test_the_gradient_is_that_of_the_expected_dpo_loss(policy: Path) -> None:
    # Over ordered pairs, the label drawn with probability p: the loss of a policy that is its
    # reference is −p log σ(β m) − (1 − p) log σ(−β m), m = difference of log-ratios, which are 0.
    model = AutoModelForCausalLM.from_pretrained(policy).eval()
    logps = [sequence_logp(model, answer) for answer in PROMPT.answers]
    loss = torch.zeros(())
    squares, num_pairs = 0.0, 0
    for i, first in enumerate(logps):
        for j, second in enumerate(logps):
            if i == j:
                continue
            p = torch.sigmoid(torch.tensor(PROMPT.rewards[i] - PROMPT.rewards[j]))
            margin = BETA * ((first - first.detach()) - (second - second.detach()))
            log_sigmoid = torch.nn.functional.logsigmoid
            loss = loss - p * log_sigmoid(margin) - (1 - p) * log_sigmoid(-margin)
            num_pairs += 1
    gradient = flat_gradient(loss / num_pairs, model)

    parts = [flat_gradient(sequence_logp(model, answer), model) for answer in PROMPT.answers]
    for i, one in enumerate(parts):
        for j, other in enumerate(parts):
            squares += float((one - other).square().sum()) if i != j else 0.0
    (found,) = measure_gradients(model, [PROMPT], beta=BETA)
    assert found.gradient_norm == pytest.approx(float(gradient.norm()), rel=1e-3)
    assert found.difference_norm == pytest.approx(BETA * (squares / num_pairs) ** 0.5, rel=1e-3)
    assert found.is_within_bound


def test_a_gradient_beyond_the_bound_is_told() -> None:
    # √0.04 · 5 = 1
    assert PromptGradient("p", 4, 0.04, 1.0, 5.0).is_within_bound
    assert not PromptGradient("p", 4, 0.04, 1.01, 5.0).is_within_bound


def test_agreement_is_the_correlation_of_ranks() -> None:
    # Ranks 1 2 3 4 against 1 2 4 3: ρ = 1 − 6 · 2/(4 · 15) = 0.8
    norms = (0.01, 0.02, 0.9, 0.03)
    rows = [PromptGradient(str(n), 4, 0.01 * (n + 1), norm, 5.0) for n, norm in enumerate(norms)]
    found = agreement(rows)
    assert found.spearman == pytest.approx(0.8)
    assert found.num_within_bound == 3  # 0.9 > √0.03 · 5


def test_the_command_writes_a_table_and_a_figure(
    tmp_path: Path, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    flow = start_workflow(home, policy=str(policy))
    flow.make("ingest", "sample", "score-vader")
    preset = tmp_path / "tiny.yaml"
    preset.write_text(flow.config.model_dump_json())
    monkeypatch.setenv("PVAR_HOME", str(home))

    gradients(preset=str(preset), prompts=5, out=tmp_path / "out")

    lines = (tmp_path / "out" / "gradients.csv").read_text().splitlines()
    assert lines[0].startswith("prompt_id,num_responses,pvar,gradient_norm")
    assert len(lines) == 6
    assert all(line.endswith(",True") for line in lines[1:])
    pvars = [float(line.split(",")[2]) for line in lines[1:]]
    assert pvars == sorted(pvars)
    assert "<svg" in (tmp_path / "out" / "gradients.svg").read_text()
