"""Stage divergence: the exact divergence of tiny models, within its standard error; and the plan.

The tiny models know three letters and an end, so that all answers can be enumerated.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaForCausalLM, PreTrainedTokenizerFast

from pvar.evaluation.divergence_estimate import AnswerLogps
from pvar.records import Message, Prompt, Response
from pvar.row_counts import RowCounts
from pvar.sampler_config import SamplerSettings
from tasks.engine.artifact import Artifact
from tasks.engine.tables import RejectedRow
from tasks.graph import plan_nodes
from tasks.stages.divergence import ANSWER_LOGPS, DIVERGENCE, REJECTED, DivergenceSpec
from tasks.stages.ingest import PROMPTS
from tasks.stages.sample import RESPONSES, SAMPLE, SampleSpec
from tests.artifacts import StageBench
from tests.unit.infra.tiny_models import change_weights, tiny_config
from tests.workflow import open_wiring, start_workflow

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of libraries
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

END, LETTERS = "<|end|>", "abc"
TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}<|end|>{% endif %}{% endfor %}"
)
MAX_NEW_TOKENS = 2
PROMPT_IDS = [1, 3]  # "ac"
NUM_PROMPTS = 400


def save_letters(folder: Path, seed: int) -> Path:
    """A language model of three letters; the ids are 0 for the end and 1 to 3."""
    torch.manual_seed(seed)
    LlamaForCausalLM(
        tiny_config(vocab_size=4, bos_token_id=None, eos_token_id=0, pad_token_id=0)
    ).save_pretrained(folder)
    vocabulary = {token: number for number, token in enumerate([END, *LETTERS])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=END, pad_token=END)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("models")
    return {name: save_letters(home / name, seed) for seed, name in enumerate("xy")}


@pytest.fixture
def bench(tmp_path: Path) -> StageBench:
    return StageBench(open_wiring(tmp_path), tmp_path)


def prompts(count: int) -> list[Prompt]:
    return [Prompt(f"p{n:03}", (Message("user", "ac"),), "eval", "s") for n in range(count)]


def spec(policy: str, reference: str) -> DivergenceSpec:
    return DivergenceSpec(
        policy=f"here#{policy}", reference=f"here#{reference}", dtype="float32", confidence=0.95
    )


def divergence(
    bench: StageBench,
    folders: dict[str, Path],
    settings: DivergenceSpec,
    answers: Sequence[Response],
) -> Artifact:
    inputs = {
        "prompts": bench.put("ingest", PROMPTS, prompts(NUM_PROMPTS), Prompt),
        "answers": bench.put("sample", RESPONSES, answers, Response),
    }
    at = lambda reference: folders[reference.rpartition("#")[2]]  # noqa: E731
    return bench.run(DIVERGENCE, settings, inputs, model_folder=at)


def sampled(bench: StageBench, folder: Path) -> list[Response]:
    """An answer to every prompt at temperature 1, as stage sample gives it."""
    settings = SamplerSettings(max_new_tokens=MAX_NEW_TOKENS, dtype="float32")
    sample = SampleSpec(policy="here#x", settings=settings, num_responses=1, seed=1, split="eval")
    inputs = {"prompts": bench.put("ingest", PROMPTS, prompts(NUM_PROMPTS), Prompt)}
    artifact = bench.run(SAMPLE, sample, inputs, model_folder=lambda _: folder)
    return artifact.rows(RESPONSES, Response)


def logps_of_all_answers(folder: Path) -> dict[tuple[str, bool], float]:
    """(text, is truncated) → log-probability, of every answer that the model can give."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    found: dict[tuple[str, bool], float] = {}

    def extend(ids: list[int], text: str, logp: float) -> None:
        if len(ids) == len(PROMPT_IDS) + MAX_NEW_TOKENS:
            found[text, True] = logp
            return
        with torch.inference_mode():
            following = model(torch.tensor([ids])).logits[0, -1].log_softmax(dim=0).tolist()
        found[text, False] = logp + following[0]
        for id_, letter in enumerate(LETTERS, start=1):
            extend([*ids, id_], text + letter, logp + following[id_])

    extend(PROMPT_IDS, "", 0.0)
    assert math.fsum(map(math.exp, found.values())) == pytest.approx(1, abs=1e-5)
    return found


def test_the_estimate_agrees_with_the_exact_divergence(
    bench: StageBench, folders: dict[str, Path]
) -> None:
    answers = sampled(bench, folders["x"])
    artifact = divergence(bench, folders, spec("x", "y"), answers)
    policy, reference = (logps_of_all_answers(folders[name]) for name in "xy")
    exact = math.fsum(math.exp(logp) * (logp - reference[each]) for each, logp in policy.items())

    rows = artifact.rows(ANSWER_LOGPS, AnswerLogps)
    assert len(rows) == NUM_PROMPTS
    assert {answer.finish_reason for answer in answers} == {"stop", "length"}
    for row, answer in zip(rows, answers, strict=True):
        each = answer.text, answer.finish_reason == "length"
        assert row.logp_policy == pytest.approx(policy[each], abs=1e-4)
        assert row.logp_reference == pytest.approx(reference[each], abs=1e-4)
        assert row.num_tokens == answer.num_tokens
    ratios = [row.logp_policy - row.logp_reference for row in rows]
    stderr = stdev(ratios) / math.sqrt(NUM_PROMPTS)
    summary: Any = artifact.manifest.summary
    assert exact > 8 * stderr  # so that 0 would be noticed
    assert summary["kl"] == pytest.approx(exact, abs=4 * stderr)
    assert summary["kl"] == pytest.approx(fmean(ratios))
    # Student's t of 399 degrees of freedom is 1.966.
    assert summary["kl_upper"] - summary["kl"] == pytest.approx(1.966 * stderr, rel=1e-3)
    assert summary["kl_per_token"] == pytest.approx(
        sum(ratios) / sum(answer.num_tokens for answer in answers)
    )
    assert (summary["num_answers"], summary["reencoded_share"]) == (NUM_PROMPTS, 0)
    assert summary["number_format"] == "float32"


def answer(prompt: int, text: str, num_tokens: int, finish: str = "stop") -> Response:
    return Response(f"p{prompt:03}", f"r{prompt}", 0, text, num_tokens, finish)  # type: ignore[arg-type]


def test_a_model_does_not_diverge_from_itself(bench: StageBench, folders: dict[str, Path]) -> None:
    answers = [answer(0, "ab", 3), answer(1, "c", 1, "length"), answer(2, "", 1)]
    summary = divergence(bench, folders, spec("x", "x"), answers).manifest.summary
    assert [summary[name] for name in ("kl", "kl_lower", "kl_upper", "kl_per_token")] == [0] * 4


def test_answers_that_are_encoded_otherwise_than_generated_are_counted(
    bench: StageBench, folders: dict[str, Path]
) -> None:
    answers = [answer(0, "ab", 3), answer(1, "c", 4)]  # two tokens with its end, not four
    artifact = divergence(bench, folders, spec("x", "y"), answers)
    assert artifact.manifest.summary["reencoded_share"] == 0.5


def test_answers_without_log_probabilities_are_left_out_and_counted(
    bench: StageBench, folders: dict[str, Path], tmp_path: Path
) -> None:
    damaged = save_letters(tmp_path / "damaged", 0)
    change_weights(damaged, model__norm__weight=torch.full((32,), float("nan")))
    answers = [answer(0, "ab", 3), answer(1, "", 0, "error")]
    artifact = divergence(bench, folders | {"z": damaged}, spec("x", "z"), answers)
    assert artifact.manifest.row_counts == RowCounts(
        rows_in=2, rows_out=0, rejected={"no_answer": 1, "not_finite": 1}
    )
    assert [row.row_id for row in artifact.rows(REJECTED, RejectedRow)] == ["p001", "p000"]
    summary = artifact.manifest.summary
    assert (summary["kl"], summary["kl_per_token"], summary["reencoded_share"]) == (None,) * 3


def test_the_plan_has_a_divergence_only_on_request(tmp_path: Path) -> None:
    evaluate = {"answers": {"temperature": 0.7, "top_p": 0.9, "max_new_tokens": 12}}
    plain = start_workflow(tmp_path, evaluate=evaluate).config
    before = plan_nodes(plain)
    wanted = plain.evaluate.model_copy(update={"divergence": True, "num_answers": 1})
    after = plan_nodes(plain.model_copy(update={"evaluate": wanted}))
    assert [name for name in after if name not in before] == ["answers-divergence", "divergence"]
    assert {name: node.keys for name, node in before.items()} == {
        name: after[name].keys for name in before
    }
    settings = after["answers-divergence"].spec.model_dump()["settings"]
    assert (settings["temperature"], settings["top_p"], settings["max_new_tokens"]) == (1, 1, 12)
    node = after["divergence"]
    assert node.inputs == {
        "prompts": after["ingest"].keys,
        "policy": after["train"].keys,
        "answers": after["answers-divergence"].keys,
    }
    assert node.spec.model_dump()["reference"] == plain.policy


def test_answers_at_temperature_1_serve_evaluation_and_divergence(tmp_path: Path) -> None:
    evaluate = {"answers": {"temperature": 1.0}, "divergence": True}
    nodes = plan_nodes(start_workflow(tmp_path, evaluate=evaluate).config)
    assert nodes["answers-divergence"].keys == nodes["answers-challenger"].keys


def test_a_bound_on_the_divergence_from_the_first_model_adds_one_node(tmp_path: Path) -> None:
    evaluate = {"divergence": True, "answers": {"max_new_tokens": 12}}
    plain = start_workflow(tmp_path, evaluate=evaluate).config
    gate = plain.promote.model_copy(update={"max_total_divergence": 5.0})
    bounded = plain.model_copy(update={"promote": gate})
    before, after = plan_nodes(plain), plan_nodes(bounded)
    assert [name for name in after if name not in before] == ["divergence-first"]
    assert [name for name in before if after[name].keys != before[name].keys] == ["promote"]
    # The training started from the first model: nothing is computed twice.
    assert after["divergence-first"].keys == after["divergence"].keys

    champion = f"train/{0:016x}"
    started = {"policy": f"artifact:{champion}#{champion}", "policy_if_none": plain.policy}
    later = plan_nodes(bounded.model_copy(update=started))
    assert later["divergence"].inputs["reference"].root == champion
    assert "reference" not in later["divergence-first"].inputs
    assert later["divergence-first"].spec.model_dump()["reference"] == plain.policy
    assert later["promote"].inputs["first-divergence"] == later["divergence-first"].keys
