"""A one-logit classifier in the real vLLM scores as it does in transformers."""

from pathlib import Path

import pytest

from infra.rewards.classifier import load_classifier_scorer
from infra.rewards.vllm_classifier import load_vllm_classifier
from pvar.config import RuntimeConfig
from pvar.ports import ScoreRequest
from pvar.records import Message
from pvar.reward_config import ClassifierReward
from pvar.vllm_config import VllmConfig
from tests.services.packages import NEEDS_VLLM
from tests.unit.infra.tiny_models import save_classifier

pytestmark = [
    pytest.mark.slow,
    NEEDS_VLLM,
    # Of libraries.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ANSWERS = ("yes", "no, and for a reason that takes longer to say", "maybe " * 12, "", "yes")
REQUESTS = [
    ScoreRequest(question, f"{question}/{row}", (Message("user", question),), answer)
    for question in ("Is it?", "Why would anybody ask such a thing at this hour?")
    for row, answer in enumerate(ANSWERS)
]


def test_both_backends_give_the_same_rewards_and_the_same_reasons(tmp_path: Path) -> None:
    # Four heads of width 32, the least that vLLM's attention has.
    folder = save_classifier(tmp_path / "model", seed=3, hidden_size=128, intermediate_size=128)
    settings = ClassifierReward(name="tiny", model=str(folder), max_length_tokens=512)
    wanted = load_classifier_scorer(folder, settings, None).score(REQUESTS)
    runtime = RuntimeConfig(vllm=VllmConfig(enforce_eager=True, kv_cache_gib=0.25))
    scorer = load_vllm_classifier(folder, settings, runtime)
    found = scorer.score(REQUESTS)
    scorer.close()

    assert [(each.response_id, each.reason) for each in found] == [
        (each.response_id, each.reason) for each in wanted
    ]
    assert sum(each.reason == "empty_response" for each in found) == 2
    rewards = [each.reward for each in wanted if each.reward is not None]
    assert max(rewards) - min(rewards) > 0.1  # they say something
    # float32 in both, sums in another order.
    assert [each.reward for each in found if each.reward is not None] == pytest.approx(
        rewards, abs=1e-4 * max(map(abs, rewards))
    )
    assert found[0].reward == found[4].reward  # equal texts
