"""Digests: the same for ever, different for whatever differs, and untouched by new options."""

from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel, Field

from pvar import baselines
from pvar.artifacts import Recipe
from pvar.config import PipelineConfig
from pvar.config_model import ConfigModel
from pvar.identity import identity, is_tag
from pvar.references import replace_references
from pvar.reward_config import FakeReward, VaderReward
from tasks.engine.node import Node
from tasks.graph import plan_nodes
from tasks.stages.score import ScoreSpec
from tasks.training.reference import reference_spec

CLASSIFIER = {"kind": "classifier", "name": "c", "model": "org/c"}
IMPLICIT = {"kind": "implicit", "policy": "org/p", "reference": "org/r"}

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "short prompts": {"ingest": {"strict_below_words": 40}},
    "many models": {
        "score": {"reward_models": [CLASSIFIER, IMPLICIT, {"kind": "fake"}, {"kind": "vader"}]},
        "select": {"strategy": "implicit_gap_small", "budget": {"count": 10}},
        "train": {"method": "simpo", "simpo_gamma": 0.5, "lora": {}},
        "evaluate": {
            "judge": {"kind": "reward_model", "reward_model": {**CLASSIFIER, "model": "org/j"}}
        },
    },
    "two tuned policies": {
        "score": {
            "reward_models": [
                IMPLICIT,
                {"kind": "vader"},
                {**IMPLICIT, "name": "validation", "policy": "org/v"},
            ]
        },
        "select": {"strategy": "lossdiff_irm"},
    },
    "two rounds": {
        "sample": {"adaptive": {}},
        "ingest": {"decontaminate_against": ["a.jsonl"], "near_duplicate_similarity": None},
        "train": {"method": "kto", "pairs_per_step": 4},
        "evaluate": {"judge": {"kind": "alpaca_eval", "model": "gpt"}},
    },
    "a server": {
        "sample": {"engine": "openai"},
        "select": {"strategy": "threshold", "threshold": 0.1, "keep_truncated": True},
        "evaluate": {"judge": {"kind": "arena_hard", "model": "gpt"}},
        "promote": {"max_ability_loss": 0.1},
    },
    "a fake judge": {
        "evaluate": {"judge": {"kind": "fake"}, "opponent": "org/o"},
    },
    "divergence": {
        "evaluate": {"divergence": True},
        "train": {"num_steps": 100},
    },
    "margins": {
        "score": {"reward_models": [CLASSIFIER, {"kind": "vader"}]},
        "select": {"models": ["vader"], "budget": {"count": 10}, "keep_truncated": True},
        "pair": {"models": ["c"]},
        "evaluate": {"margins": True},
    },
    "split roles": {
        "score": {"reward_models": [CLASSIFIER, IMPLICIT, {"kind": "fake"}]},
        "select": {"strategy": "implicit_gap_large", "models": ["fake"]},
        "pair": {"models": ["c"]},
    },
    "answers of the data": {
        "sample": {"engine": "dataset"},
        "score": {"reward_models": [{"kind": "dataset"}, CLASSIFIER]},
        "select": {"models": ["dataset"]},
        "pair": {"models": ["c"]},
    },
    "an exam of its own": {
        "evaluate": {"prompts": ["exam.jsonl", "questions.jsonl"]},
    },
    "against the first model": {
        "policy_if_none": "org/first",
        "policy": "champion",
        "evaluate": {"against_first": True},
        "promote": {"max_total_ability_loss": 0.2},
    },
    "people are asked": {"annotate": {"budget": 10}},
    "a budget for errors": {"promote": {"alpha_budget": 0.05}},
    "a reward model that learns": {
        "evaluate": {"prompts": ["exam.jsonl"]},
        "reward_training": {"model": "org/r", "opponent": "org/o", "earlier": "earlier.jsonl"},
    },
    "a label audit": {
        "policy_if_none": "org/first",
        "policy": "champion",
        "ingest": {"source_field": "source"},
        "score": {"reward_models": [{"kind": "vader"}, CLASSIFIER]},
        "label_audit": {"annotator_field": "who", "num_rows": 500},
    },
    "a bound on the divergence": {
        "policy_if_none": "org/first",
        "policy": "champion",
        "evaluate": {"divergence": True},
        "promote": {"max_total_divergence": 10.0},
    },
    "a reserve exam": {"evaluate": {"reserve_prompts": ["reserve.jsonl"]}},
    "an audit": {
        "policy_if_none": "org/first",
        "policy": "champion",
        "evaluate": {"reserve_prompts": ["reserve.jsonl"], "audited": "org/champion"},
    },
    "fresh pairs": {
        "policy_if_none": "org/first",
        "policy": "champion",
        "benchmarks": [
            {
                "kind": "label_agreement",
                "name": "fresh",
                "pairs": "fresh.jsonl",
                "against_first": True,
            }
        ],
    },
    "benchmarks": {
        "benchmarks": [
            {
                "kind": "alpaca_eval",
                "questions": "eval.json",
                "baseline_outputs": "gpt4.json",
                "calibration": "tables",
                "judge": {"kind": "alpaca_eval", "model": "gpt"},
            },
            {
                "kind": "arena_hard",
                "questions": "question.jsonl",
                "baseline_answers": ["o3.jsonl", "gemini.jsonl"],
                "judge": {"kind": "arena_hard", "model": "gpt"},
                "style_control": ["length"],
            },
            {"kind": "lm_eval", "tasks": ["gsm8k"]},
            {"kind": "label_agreement"},
        ],
        "benchmark_models": [
            {"name": "base", "model": "org/b", "benchmarks": ["arena_hard"]},
            {"name": "theirs", "outputs": "theirs.json", "benchmarks": ["alpaca_eval"]},
        ],
        "promote": {
            "benchmarks": [
                {"name": "arena_hard", "min_difference_lower": 0},
                {"name": "lm_eval", "max_loss": 2},
            ]
        },
    },
}


EARLIER_DEFAULTS = {"strict_below_words": 0}
"""Of `ingest`, as long as the digests below were made with them."""


def nodes_of(name: str) -> dict[str, Node]:
    settings = CONFIGURATIONS[name]
    ingest = {**EARLIER_DEFAULTS, **settings.get("ingest", {})}
    config = PipelineConfig.model_validate({**settings, "ingest": ingest})
    return plan_nodes(
        replace_references(config, lambda each: f"/at/{each.text}#sha256-{each.text}")
    )


GOLDEN: dict[str, dict[str, str]] = {
    "defaults": {
        "ingest": "d25b530c20223172",
        "sample": "cf2af6416252bf76",
        "score-vader": "1be9e5cc4d1f2cd0",
        "select": "326fe9e91b5dcbad",
        "pair": "972aa7955df3df7e",
        "train": "bcb7ee4e69296a08",
        "answers-opponent": "6425496af9fa42da",
        "answers-challenger": "96a94f1e35d42e50",
        "evaluate": "b3360a5c54954c16",
        "promote": "01dcb2073b64a4fd",
    },
    "short prompts": {
        "ingest": "2344be83fcd5c2df",
        "sample": "25581eaa3f40a7fe",
        "score-vader": "4564f9151b4732cb",
        "select": "63796aa94cc8a3e3",
        "pair": "03225e8d6cd81e0d",
        "train": "0c4783ddd664bcfd",
        "answers-opponent": "40e2cf27cd858e4e",
        "answers-challenger": "33c3f04b6dde329a",
        "evaluate": "02257504ef6c4dbc",
        "promote": "ef72b296d027c7eb",
    },
    "many models": {
        "ingest": "d25b530c20223172",
        "sample": "cf2af6416252bf76",
        "score-c": "cb5991efeb1db67f",
        "score-implicit": "da3de200fbd4f457",
        "score-fake": "17754a2d546c337e",
        "score-vader": "1be9e5cc4d1f2cd0",
        "select": "16b5b542be0e711a",
        "pair": "b27523247083cec4",
        "train": "a25ab4567ad8bf97",
        "answers-opponent": "6425496af9fa42da",
        "answers-challenger": "5e395b2933cbe9e0",
        "evaluate": "55766ef468b7a9b6",
        "promote": "8f007bb20063e4a8",
    },
    "two tuned policies": {
        "ingest": "d25b530c20223172",
        "sample": "cf2af6416252bf76",
        "score-implicit": "da3de200fbd4f457",
        "score-vader": "1be9e5cc4d1f2cd0",
        "score-validation": "9ea621464010a816",
        "select": "76d794c185ce98b8",
        "pair": "424961d69ed10e3c",
        "train": "ca74cf621b7e9672",
        "answers-opponent": "6425496af9fa42da",
        "answers-challenger": "d450ef8702905a78",
        "evaluate": "9ecfa747ec94561c",
        "promote": "d1785b0941756129",
    },
    "two rounds": {
        "ingest": "151143cf59fa9cb4",
        "first-sample": "58d74593ac91fa41",
        "first-score-vader": "8d1a8d3856ec8bbd",
        "sample": "fff7a19c441bb4ad",
        "score-vader": "fa092b9d628ac39c",
        "select": "352213dd72cba95a",
        "pair": "9d6821ab2cd9ef20",
        "train": "6dea97f3cbcf61a6",
        "answers-opponent": "271a9fd03e00ce70",
        "answers-challenger": "45846ef33ea88925",
        "evaluate": "ba8313c2b5b13138",
        "promote": "8d69284497c7dc34",
    },
    "a server": {
        "ingest": "d25b530c20223172",
        "sample": "d327ed39b85e9ca7",
        "score-vader": "1ae7f83ffd6b5716",
        "select": "c1ec8a2418ded071",
        "pair": "01ce23f05cbb603f",
        "train": "62df98f42077a116",
        "answers-opponent": "6425496af9fa42da",
        "answers-challenger": "be143eec31da41ec",
        "evaluate": "ee3fa480ebb61069",
        "promote": "d8f90d21f22678fb",
    },
    "a fake judge": {
        "ingest": "d25b530c20223172",
        "sample": "cf2af6416252bf76",
        "score-vader": "1be9e5cc4d1f2cd0",
        "select": "326fe9e91b5dcbad",
        "pair": "972aa7955df3df7e",
        "train": "bcb7ee4e69296a08",
        "answers-opponent": "033c12a102af1553",
        "answers-challenger": "96a94f1e35d42e50",
        "evaluate": "adf413f2992d6b73",
        "promote": "7bc9fc465714851a",
    },
    "divergence": {
        "ingest": "d25b530c20223172",
        "sample": "cf2af6416252bf76",
        "score-vader": "1be9e5cc4d1f2cd0",
        "select": "326fe9e91b5dcbad",
        "pair": "972aa7955df3df7e",
        "train": "da260a69c6198f06",
        "answers-opponent": "6425496af9fa42da",
        "answers-challenger": "72137a99e2e1cf27",
        "answers-divergence": "cfaea14bada4fd69",
        "divergence": "7cbd38f4ac9a427e",
        "evaluate": "521be8030f0af65d",
        "promote": "828315f9f287d38b",
    },
    "margins": {
        "ingest": "d25b530c20223172",
        "sample": "cf2af6416252bf76",
        "score-c": "cb5991efeb1db67f",
        "score-vader": "1be9e5cc4d1f2cd0",
        "select": "d977878bd956d2db",
        "pair": "b497bea54ebafb43",
        "held-out-sample": "80c0d6137dfa0a11",
        "held-out-score-c": "f1fb36141ffb0f75",
        "held-out-select": "a480f207737f3190",
        "held-out-pair": "4de51619a9fc4341",
        "train": "aaba2c72ef9fd11c",
        "answers-opponent": "6425496af9fa42da",
        "answers-challenger": "b707ad0a158c9e9b",
        "evaluate": "a752fcd6342ebf95",
        "promote": "fce385f8f6bbf818",
    },
    "split roles": {
        "ingest": "d25b530c20223172",
        "sample": "cf2af6416252bf76",
        "score-c": "cb5991efeb1db67f",
        "score-implicit": "da3de200fbd4f457",
        "score-fake": "17754a2d546c337e",
        "select": "4addad30ffc55d53",
        "pair": "fd956cac8736427a",
        "train": "4e8096a625f68a09",
        "answers-opponent": "6425496af9fa42da",
        "answers-challenger": "75030bea8fa0de09",
        "evaluate": "84134c682fdbdb3c",
        "promote": "37e474120c2b429a",
    },
    "answers of the data": {
        "ingest": "af6052ef2066fd83",
        "sample": "cdfe321d6a52dd34",
        "score-dataset": "ad4dd75653fe1259",
        "score-c": "ef9684f6ddf880ad",
        "select": "d489744922be998d",
        "pair": "423c83308ba4b1a4",
        "train": "af3b97f4f1eba8b2",
        "answers-opponent": "dcbea4ecba153b68",
        "answers-challenger": "6e89042f71d8b18a",
        "evaluate": "b5ee1be5647e3bed",
        "promote": "acd751ed98046702",
    },
    "an exam of its own": {
        "ingest": "1089aacce2cceb3d",
        "exam": "5d33c399af293b9c",
        "exclude": "2b192951d158b6de",
        "sample": "a78bfaa8014013a5",
        "score-vader": "e5c11ab14451998a",
        "select": "df703a025de8b0b7",
        "pair": "82953546b745573b",
        "train": "fe5eb158242a4ee5",
        "answers-opponent": "c9aa2abab2e3d9e6",
        "answers-challenger": "7e4ce384e22add35",
        "evaluate": "f7a893e9ea8d992f",
        "promote": "655adc74f586882f",
    },
    "against the first model": {
        "ingest": "d25b530c20223172",
        "sample": "8a295d224383fe50",
        "score-vader": "acbc64792a8cf18d",
        "select": "74111e9657253f0c",
        "pair": "e3970359610e7430",
        "train": "4abf6a7dd6d28fcc",
        "answers-opponent": "6425496af9fa42da",
        "answers-challenger": "29383d00704ae6a2",
        "evaluate": "eaf0efadb6c2f2f9",
        "answers-first": "e43feee593f6f288",
        "evaluate-first": "00ccf2cf38dd734f",
        "promote": "c5b886c00f316e09",
    },
    "people are asked": {
        "ingest": "d25b530c20223172",
        "sample": "cf2af6416252bf76",
        "score-vader": "1be9e5cc4d1f2cd0",
        "select": "326fe9e91b5dcbad",
        "annotate": "ce548dab616ff3be",
        "pair": "f1e526f069659ff7",
        "train": "b83f8479fa3187a4",
        "answers-opponent": "6425496af9fa42da",
        "answers-challenger": "976240f981c8fda0",
        "evaluate": "199c32c70806b7e1",
        "promote": "e8e7e7450d4b75c7",
    },
    "a budget for errors": {
        "ingest": "d25b530c20223172",
        "sample": "cf2af6416252bf76",
        "score-vader": "1be9e5cc4d1f2cd0",
        "select": "326fe9e91b5dcbad",
        "pair": "972aa7955df3df7e",
        "train": "bcb7ee4e69296a08",
        "answers-opponent": "6425496af9fa42da",
        "answers-challenger": "96a94f1e35d42e50",
        "evaluate": "b3360a5c54954c16",
        "promote": "0583389edd0f1717",
    },
    "a reward model that learns": {
        "ingest": "1089aacce2cceb3d",
        "exam": "1e91be9cc4632ba8",
        "exclude": "7e6e938b6117adef",
        "sample": "a78bfaa8014013a5",
        "score-vader": "e5c11ab14451998a",
        "select": "564b5116822d1beb",
        "pair": "e9dedaed24bec539",
        "train": "a82ddab4f36075af",
        "answers-opponent": "ee1ceba0bdcb77bd",
        "answers-challenger": "64cf8a180b824420",
        "evaluate": "2f64ee8a6898bb10",
        "earlier-labels": "91dafe3c2f5d1104",
        "earlier-exclude": "a3e458f39b9f590d",
        "reward": "061f3851adb441bf",
        "adopt": "20cead8ba17a478f",
        "promote": "547cdcd1f4d55d16",
    },
    "a label audit": {
        "ingest": "e17a3616d0a78d35",
        "labels": "826fc64c8c3a9c6f",
        "labels-score-vader": "b567a73c606185d9",
        "labels-score-c": "41d68d11c243a965",
        "labels-likelihood-champion": "9f19cc9500874ba4",
        "labels-likelihood-first": "15e2eaad5d6e6bbf",
        "audit": "fffc87cb5e1acb10",
        "sample": "ffde8437612da920",
        "score-vader": "d215d61d2d226ba6",
        "score-c": "adf61b047361b742",
        "select": "afffd968487d4dfb",
        "pair": "40b9d7223771c5f7",
        "train": "bfdc29657733ac06",
        "answers-opponent": "94ce0443a43a42c1",
        "answers-challenger": "2b98792004a1d5b7",
        "evaluate": "b235755611153f36",
        "promote": "6267e5903592c7d0",
    },
    "a bound on the divergence": {
        "ingest": "d25b530c20223172",
        "sample": "8a295d224383fe50",
        "score-vader": "acbc64792a8cf18d",
        "select": "74111e9657253f0c",
        "pair": "e3970359610e7430",
        "train": "4abf6a7dd6d28fcc",
        "answers-opponent": "6425496af9fa42da",
        "answers-challenger": "29383d00704ae6a2",
        "answers-divergence": "64657b074e21618d",
        "divergence": "ac1a6213ad0d7d98",
        "divergence-first": "0a0bf1096cc1cf09",
        "evaluate": "eaf0efadb6c2f2f9",
        "promote": "abcef619a88c7d04",
    },
    "a reserve exam": {
        "ingest": "d25b530c20223172",
        "reserve": "1bc22b7afb51ddec",
        "exclude": "3c786c5dc70184dc",
        "sample": "cf2af6416252bf76",
        "score-vader": "1be9e5cc4d1f2cd0",
        "select": "3362773895deb17c",
        "pair": "59f0a7a31e0551b8",
        "train": "78a4ef79045441d6",
        "answers-opponent": "6425496af9fa42da",
        "answers-challenger": "663fe7a4174cfcf2",
        "evaluate": "20bc7a294430bff8",
        "promote": "aeb5a1f201e9e54c",
    },
    "an audit": {
        "ingest": "d25b530c20223172",
        "reserve": "1bc22b7afb51ddec",
        "exclude": "3c786c5dc70184dc",
        "sample": "8a295d224383fe50",
        "score-vader": "acbc64792a8cf18d",
        "select": "447c40ce5aede96e",
        "pair": "e9860782762bb9a1",
        "train": "b2f5ef662bb01e11",
        "answers-opponent": "6425496af9fa42da",
        "answers-challenger": "5502f848049116bc",
        "evaluate": "4de07e38ffd11aff",
        "promote": "93262f07634b77ce",
        "reserve-answers": "db04c12e4590fa90",
        "reserve-answers-first": "288d9ba45233c99b",
        "reserve-evaluate": "44b02d9e9e632d3c",
    },
    "fresh pairs": {
        "ingest": "d25b530c20223172",
        "questions-fresh": "d3970f115cb922ac",
        "exclude": "ca85ba02f9524bdc",
        "sample": "8a295d224383fe50",
        "score-vader": "acbc64792a8cf18d",
        "select": "b899d5d801caa2f7",
        "pair": "24c15e22388f0178",
        "train": "92e75e4a19801d35",
        "answers-opponent": "6425496af9fa42da",
        "answers-challenger": "2aa5b23d337f0380",
        "evaluate": "4bc26ea1ee0ad634",
        "likelihood-fresh-challenger": "d52a247ce275a9a2",
        "likelihood-fresh-opponent": "2e9ca5a0561c94b2",
        "likelihood-fresh-first": "e0b5e7883342b05a",
        "likelihood-fresh-reference": "2e9ca5a0561c94b2",
        "benchmark-fresh": "a208d7f4639e15d9",
        "promote": "83049803b3b59f7e",
    },
    "benchmarks": {
        "ingest": "d25b530c20223172",
        "questions-alpaca_eval": "a89ee41f4066c2d2",
        "questions-arena_hard": "b3a9c7ad020feb68",
        "exclude": "d10989549edea672",
        "sample": "cf2af6416252bf76",
        "score-vader": "1be9e5cc4d1f2cd0",
        "select": "8799bb9862acb5df",
        "pair": "f52c19104cea1ef8",
        "train": "c754965245cf7f59",
        "answers-opponent": "6425496af9fa42da",
        "answers-challenger": "fa5ce79d68f3fc6e",
        "evaluate": "d24c229ec40366de",
        "answers-alpaca_eval-challenger": "7707c7cfd4631666",
        "judge-alpaca_eval-challenger": "329cafdb9f6a456e",
        "answers-alpaca_eval-opponent": "b785137d06dfa2c9",
        "judge-alpaca_eval-opponent": "ce2526c214bc14a8",
        "benchmark-alpaca_eval": "4aa39af787d1ecbd",
        "answers-alpaca_eval-theirs": "91f2754187d84803",
        "judge-alpaca_eval-theirs": "e2f2fceec484af6f",
        "benchmark-alpaca_eval-theirs": "4964ef82429e3de0",
        "answers-arena_hard-challenger": "859602af1a0a8fb1",
        "judge-arena_hard-challenger": "64d2abd5b0774263",
        "answers-arena_hard-opponent": "c14a945b5dae1d0c",
        "judge-arena_hard-opponent": "cdd74f9bd738efb5",
        "benchmark-arena_hard": "dd79ffa5f8074514",
        "answers-arena_hard-base": "d1384e5a414ae42f",
        "judge-arena_hard-base": "a440da9991ee89c9",
        "benchmark-arena_hard-base": "bde73d760f8efd4d",
        "harness-lm_eval-challenger": "c6cfb3e69e0fe2cd",
        "harness-lm_eval-opponent": "c1cf4cb2a698c2da",
        "benchmark-lm_eval": "73285e8604f8d44b",
        "likelihood-label_agreement-challenger": "624c92a9d217aa88",
        "likelihood-label_agreement-opponent": "a76c481632cdccc9",
        "likelihood-label_agreement-reference": "29b0a0073a198287",
        "benchmark-label_agreement": "428c53b718ffa9ba",
        "promote": "637a2aeaf4e2b3b2",
    },
}
"""Never edited for what is here; a stage's version is raised where its meaning changes."""


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_digests_are_what_they_always_were(name: str) -> None:
    found = {node.name: node.keys.digest for node in nodes_of(name).values()}
    assert found == GOLDEN[name], (
        "give a new node its row; where the digest of an earlier node differs, its settings or "
        "its inputs do: is that meant, and is the stage's version raised?"
    )


def test_another_benchmark_samples_and_scores_nothing_again() -> None:
    """Its questions are excluded when prompts are selected, and what follows is made again."""
    before, after = nodes_of("defaults"), nodes_of("benchmarks")
    same = {name for name in before if after[name].keys == before[name].keys}
    assert same == {"ingest", "sample", "score-vader", "answers-opponent"}


def specs() -> Iterator[BaseModel]:
    """The settings of every stage in every configuration."""
    for name in CONFIGURATIONS:
        for node in nodes_of(name).values():
            yield node.spec
            if node.name == "train":
                yield reference_spec(node.spec.policy, node.spec.settings)  # type: ignore[attr-defined]


def hashed(settings: BaseModel) -> str:
    return Recipe.of("stage", 1, settings, {}).digest


def other_values(value: Any, annotation: Any) -> Iterator[Any]:
    """Values of the same type that are not this one, in every member of a union."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from other_values(value, arguments[0])
    elif origin in (Union, UnionType):
        for each in arguments:
            yield from other_values(value, each)
    elif origin is Literal:
        yield from (each for each in arguments if each != value)
    elif annotation is NoneType:
        yield from () if value is None else (None,)
    elif annotation is bool:
        yield not value
    elif annotation in (int, float):
        yield annotation(value + 1) if isinstance(value, int | float) else annotation(7)
    elif annotation is str:
        yield "new#new" if value is None else f"{value}x"
    elif origin is tuple:
        yield (*(value or ()), *other_values("more#more", arguments[0]))
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if type(value) is not annotation:
            required = {
                name: next(other_values(None, field.annotation))
                for name, field in annotation.model_fields.items()
                if field.is_required()
            }
            yield annotation.model_construct(**required)
    else:
        raise AssertionError(f"no other value of {annotation} is known here")


def changed(settings: BaseModel) -> Iterator[tuple[str, BaseModel]]:
    """The settings with one field changed, at any depth."""
    for name, field in type(settings).model_fields.items():
        if field.exclude or is_tag(field):
            continue
        value = getattr(settings, name)
        for other in other_values(value, field.annotation):
            yield name, settings.model_copy(update={name: other})
        parts = value if isinstance(value, tuple) else (value,)
        for position, part in enumerate(parts):
            if isinstance(part, BaseModel):
                for path, inner in changed(part):
                    new = (*parts[:position], inner, *parts[position + 1 :])
                    update = {name: new if isinstance(value, tuple) else inner}
                    yield f"{name}.{path}", settings.model_copy(update=update)


def test_every_identity_setting_changes_the_digest() -> None:
    num_changed = 0
    for settings in specs():
        seen = {hashed(settings): "nothing"}
        for path, other in changed(settings):
            num_changed += 1
            found = hashed(other)
            assert found not in seen, (type(settings), path, seen[found])
            seen[found] = path
    assert num_changed > 400


def test_of_a_reference_only_the_digest_is_identity() -> None:
    for settings in specs():
        moved = replace_references(settings, lambda each: f"elsewhere{each.text}")
        assert hashed(moved) == hashed(settings)


def test_seeds_of_what_draws_nothing_share_one_selection() -> None:
    def selected(
        seed: int, node: str = "select", rule: str = "best_worst", **select: object
    ) -> str:
        seeded = {"seed": seed}
        config = {"select": seeded | select, "pair": seeded | {"rule": rule}, "train": seeded}
        pipeline = replace_references(
            PipelineConfig.model_validate(config), lambda each: f"{each.text}#1"
        )
        return plan_nodes(pipeline)[node].keys.digest

    assert selected(0, "pair") == selected(1, "pair")
    assert selected(0, strategy="random") != selected(1, strategy="random")
    # One selection serves several rules of pairs.
    assert selected(0, rule="best_random") == selected(1, rule="best_random") == selected(0)
    assert selected(0, "pair", "best_random") != selected(1, "pair", "best_random")
    assert selected(0, "pair", "original") == selected(1, "pair", "original")


def test_an_implicit_gap_is_that_of_the_pairs_to_be_trained_on() -> None:
    base = CONFIGURATIONS["many models"]

    def selected(**pair: object) -> str:
        config = PipelineConfig.model_validate({**base, "pair": pair})
        pinned = replace_references(config, lambda each: f"{each.text}#1")
        return plan_nodes(pinned)["select"].keys.digest

    assert selected(seed=1) == selected()
    assert selected(min_margin=1.0) != selected()
    assert selected(rule="max_mu_minus_2sigma") != selected()


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for each in get_args(annotation):
        yield from models_in(each)


def reachable(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        if not field.exclude:
            for each in models_in(field.annotation):
                yield from reachable(each)


def test_every_default_has_a_baseline_and_no_two_classes_share_their_rows() -> None:
    classes = {each for settings in specs() for each in reachable(type(settings))}
    assert len({each.__name__ for each in classes}) == len(classes)
    missing = [
        f"{each.__name__}.{name}"
        for each in classes
        for name, field in each.model_fields.items()
        if not (field.is_required() or field.exclude or is_tag(field))
        and name not in baselines.BASELINES.get(each.__name__, {})
    ]
    assert missing == [], "give them a row in pvar/baselines.py, of the default that they have now"


class Before(ConfigModel):
    kind: Literal["one"] = "one"
    model: str = "x"


class After(Before):
    """The same with an option, and the default of the other one changed."""

    model: str = "y"
    option: float | None = Field(default=None)


def test_options_and_defaults_may_change(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"Before": {"model": "x"}, "After": {"model": "x", "option": None}}
    monkeypatch.setattr("pvar.identity.BASELINES", rows)
    assert identity(Before()) == {"kind": "one"}  # a tag is never left out
    assert identity(After(model="x")) == identity(Before())
    assert identity(After()) == {"kind": "one", "model": "y"}  # who relied on the default
    assert identity(After(model="x", option=0.0)) == {"kind": "one", "option": 0.0}


def test_kinds_are_told_apart_where_all_else_is_default() -> None:
    fake, vader = FakeReward(name="same"), VaderReward(name="same")
    assert hashed(ScoreSpec(reward_model=fake)) != hashed(ScoreSpec(reward_model=vader))
