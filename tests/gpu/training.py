"""Training: each trainer, LoRA and all weights, one process and several, with figures of each.

The policy is its own reference, so the first loss of DPO is ln 2 but for the rounding between the
reference's log-probabilities and the trainer's. The first gradient norm says whether two ways
compute the same: it depends on every layer, in both directions. Later losses are shown and not
judged: the curves of models with random weights part after a few steps, by rounding alone.
"""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pvar.number_format import NumberFormat
from pvar.train_config import LoraAdapter, TrainConfig
from tests.gpu.bench import LIMITS, Bench, timed, worst
from tests.gpu.rows import Found, LeftOut

if TYPE_CHECKING:
    from tasks.engine.tables import TokenPair, TrainStep

LORA = LoraAdapter(rank=16, alpha=32)

ROUNDING = {"float32": 1e-3, "bfloat16": 5e-2}
"""Of a loss, and of a gradient norm as a share, that is taken for rounding."""

FULL_BYTES = 20
"""Memory of training all weights for one of them: weight, gradient, AdamW's two, and the rest."""


class Way(NamedTuple):
    """How a training is run."""

    method: str = "dpo"
    is_full: bool = False
    precision: NumberFormat | None = None
    """None: the machine's."""
    num_processes: int = 1
    sharding: str | None = None
    is_reward_model: bool = False


class Curve(NamedTuple):
    """What a training left."""

    losses: list[float]
    grad_norms: list[float]
    tokens: int
    """Of all steps but the first, which is slower."""
    seconds: float


def reference(bench: Bench) -> Found:
    """Log-probabilities as stage train computes them, beside float32's."""
    from tasks.training.logps import answer_logps
    from tasks.training.model import load_frozen

    rows = _answers(bench)
    tokens = sum(len(row.prompt) + len(row.answer) for row in rows)
    flops = bench.flops_per_token + bench.output_flops_per_token
    figures: list[str] = []
    problems: list[str] = []
    found = {}
    for precision in dict.fromkeys((bench.trained, "float32")):
        settings = TrainConfig(precision=precision, lora=LORA)
        model, autocast = load_frozen(bench.policy(), settings), precision == "bfloat16"
        answer_logps(model, rows[:2], autocast=autocast)
        logps, seconds = timed(lambda m=model, a=autocast: answer_logps(m, rows, autocast=a))
        change = worst(
            [
                (logps[row] - answer_logps(model, [row], autocast=autocast)[row]) / len(row.answer)
                for row in rows[:8]
            ]
        )
        del model
        found[precision] = logps
        figures.append(
            f"{precision}: {bench.speed(tokens, seconds, flops)}, alone and together within "
            f"{change:.1g} nats a token"
        )
        if not change <= LIMITS[precision]:
            problems.append(f"{precision}: a batch changes a token by {change:.2g} nats")
    if len(found) == 2:
        one, other = found.values()
        difference = worst([(one[row] - other[row]) / len(row.answer) for row in rows])
        figures.append(f"both within {difference:.1g} nats a token")
        if not difference <= LIMITS[bench.trained]:
            problems.append(f"{bench.trained} is {difference:.2g} nats a token from float32")
    return Found(figures, problems)


def gradients(bench: Bench) -> Found:
    """`pvar gradients`: forward and backward of all weights in float32, without TRL."""
    from tasks.training.model import load_in_float32
    from tasks.training.prompt_gradients import ScoredAnswers, measure_gradients

    bench.require_memory(8 * 4 + 4)
    rows = _answers(bench)[:4]
    prompts = [
        ScoredAnswers(str(n), one.prompt, (one.answer, other.answer), (1.0, -1.0))
        for n, (one, other) in enumerate(zip(rows[::2], rows[1::2], strict=True))
    ]
    model = load_in_float32(bench.policy())
    ratios = {row: 0.0 for prompt in prompts for row in prompt.rows}
    (group,), seconds = timed(lambda: measure_gradients(model, [prompts], ratios, beta=0.1))
    norms = [each.soft_norm for each in group.prompts]
    tokens = sum(len(row.prompt) + len(row.answer) for row in ratios)
    flops = 3 * (bench.flops_per_token + bench.output_flops_per_token)
    figures = [
        f"float32: {bench.speed(tokens, seconds, flops)}, norms {norms[0]:.3g} and {norms[-1]:.3g}"
    ]
    problems = []
    if not all(each.is_within_bound and each.soft_norm > 0 for each in group.prompts):
        problems.append("a gradient is 0, or above the bound of its PVar")
    return Found(figures, problems)


def lora_step(bench: Bench) -> Found:
    """Steps of DPO with the model and log-probabilities of training, which need peft, not TRL."""
    import torch
    from peft import get_peft_model

    from tasks.training.logps import batch_logps
    from tasks.training.model import load_policy, lora_config

    rows = _answers(bench)[: 2 * bench.shape.pairs_per_device]
    tokens = sum(len(row.prompt) + len(row.answer) for row in rows)
    settings = TrainConfig(precision=bench.trained, lora=LORA)
    torch.manual_seed(0)
    model = get_peft_model(load_policy(bench.policy(), settings), lora_config(LORA))
    model.to(bench.device).train()
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(trainable, lr=3e-5)
    losses = []
    reference_logps: torch.Tensor | None = None

    def step() -> None:
        nonlocal reference_logps
        with torch.autocast(bench.device, torch.bfloat16, enabled=settings.precision == "bfloat16"):
            logps = batch_logps(model, rows)
        if reference_logps is None:
            reference_logps = logps.detach()
        ratios = logps - reference_logps
        loss = -torch.nn.functional.logsigmoid(0.1 * (ratios[::2] - ratios[1::2])).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())

    step()
    num_steps = bench.shape.steps
    _, seconds = timed(lambda: [step() for _ in range(num_steps)])
    flops = 2 * (bench.flops_per_token + bench.output_flops_per_token)
    formats = {str(weight.dtype).removeprefix("torch.") for weight in trainable}
    figures = [
        f"{settings.precision}: {bench.speed(num_steps * tokens, seconds, flops)}, loss "
        f"{losses[0]:.4f} → {losses[-1]:.4f}, trained weights {', '.join(sorted(formats))}"
    ]
    problems = []
    if not losses[-1] < losses[0]:
        problems.append("the loss does not fall")
    if formats != {"float32"}:
        problems.append("the trained weights are not float32")
    return Found(figures, problems)


def lora_dpo(bench: Bench) -> Found:
    """DPO with adapters, in the machine's format and in float32."""
    return _both_formats(bench, Way())


def full_dpo(bench: Bench) -> Found:
    """DPO of all weights, in the machine's format and in float32."""
    bench.require_memory(FULL_BYTES)
    return _both_formats(bench, Way(is_full=True))


def method(name: str) -> Callable[[Bench], Found]:
    """Another method of the policy, with adapters."""

    def run(bench: Bench) -> Found:
        return _alone(bench, Way(method=name))

    return run


def reward_model(bench: Bench) -> Found:
    """The reward model of `reward_training`, all weights."""
    bench.require_memory(FULL_BYTES)
    return _alone(bench, Way(is_full=True, is_reward_model=True))


def data_parallel(bench: Bench) -> Found:
    """DPO with adapters over all GPUs (on a CPU: two processes), beside one process."""
    if bench.device == "cuda" and bench.num_gpus < 2:
        raise LeftOut("needs two GPUs")
    return _beside_one_process(bench, Way(num_processes=max(2, bench.num_gpus)))


def sharded(sharding: str, *, is_full: bool) -> Callable[[Bench], Found]:
    """DPO with the weights sharded over all GPUs, beside one process."""

    def run(bench: Bench) -> Found:
        if bench.device == "cpu":
            raise LeftOut("needs a GPU: on a CPU accelerate does not shard")
        if is_full:
            bench.require_memory(FULL_BYTES, bench.num_gpus)
        way = Way(is_full=is_full, num_processes=bench.num_gpus, sharding=sharding)
        return _beside_one_process(bench, way)

    return run


def _both_formats(bench: Bench, way: Way) -> Found:
    found = _alone(bench, way)
    if bench.trained == "float32":
        return found
    low, single = (_curve(bench, each) for each in (way, way._replace(precision="float32")))
    figures, problems = _compare(low, single, "float32", ROUNDING[bench.trained])
    return Found([*found.figures, *figures], [*found.problems, *problems])


def _beside_one_process(bench: Bench, way: Way) -> Found:
    found = _alone(bench, way)
    one = _curve(bench, way._replace(num_processes=1, sharding=None))
    rounding = ROUNDING[bench.trained]
    figures, problems = _compare(_curve(bench, way), one, "one process", rounding)
    return Found([*found.figures, *figures], [*found.problems, *problems])


def _compare(one: Curve, other: Curve, name: str, rounding: float) -> tuple[list[str], list[str]]:
    losses = worst([a - b for a, b in zip(one.losses, other.losses, strict=True)])
    norm = one.grad_norms[0] / other.grad_norms[0] - 1
    figures = [f"beside {name}: first gradient norm {norm:+.2%}, all losses within {losses:.1g}"]
    problems = []
    if not (abs(one.losses[0] - other.losses[0]) <= 2 * rounding and abs(norm) <= 2 * rounding):
        problems.append(f"the first step differs from {name} by more than rounding")
    return figures, problems


def _alone(bench: Bench, way: Way) -> Found:
    curve = _curve(bench, way)
    precision = way.precision or bench.trained
    per_token = bench.flops_per_token
    if not way.is_reward_model:
        per_token += bench.output_flops_per_token
    devices = way.num_processes if bench.device == "cuda" else 1
    flops = (3 if way.is_full else 2) * per_token
    speed = bench.speed(curve.tokens, curve.seconds, flops, devices)
    over = f" over {way.num_processes} processes" if way.num_processes > 1 else ""
    figures = [
        f"{precision}{over}: {speed}, loss {curve.losses[0]:.4f} → {curve.losses[-1]:.4f}, first "
        f"gradient norm {curve.grad_norms[0]:.3g}"
    ]
    problems = []
    if not all(map(math.isfinite, (*curve.losses, *curve.grad_norms))):
        problems.append(f"not finite: losses {curve.losses}, gradient norms {curve.grad_norms}")
    if not curve.grad_norms[0] > 0:
        problems.append("the first gradient is 0")
    is_plain = way.method == "dpo" and not way.is_reward_model
    if is_plain and not abs(curve.losses[0] - math.log(2)) <= ROUNDING[precision]:
        problems.append(f"the first loss is {curve.losses[0]:.4f}, not ln 2 = 0.6931")
    return Found(figures, problems)


def _curve(bench: Bench, way: Way) -> Curve:
    """The training, or its figures if it was run before."""
    kept = bench.folder / f"curve-{'-'.join(map(str, way))}.json"
    if not kept.exists():
        folder = bench.folder / "training"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            kept.write_text(json.dumps(_train(bench, way, folder)))
        finally:
            shutil.rmtree(folder)
    return Curve(*json.loads(kept.read_text()))


def _train(bench: Bench, way: Way, folder: Path) -> Curve:
    from infra.accelerate import launch_file
    from tasks.engine.tables import TokenPair, TrainStep, read_table, write_table
    from tasks.training.processes import launch_training
    from tasks.training.training_run import MODEL, STEPS, TrainingPlan, run_training
    from tests.unit.tasks.training.trainings import Silent

    shape = bench.shape
    settings = TrainConfig.model_validate(
        {
            "method": way.method,
            "simpo_gamma": 0.5 if way.method == "simpo" else None,
            "beta": 2.0 if way.method == "simpo" else 0.1,
            "precision": way.precision or bench.trained,
            "learning_rate": 1e-6 if way.is_full else 1e-5,
            "warmup_share": 0.0,
            "pairs_per_step": 2 * shape.pairs_per_device * max(1, bench.num_gpus),
            "num_steps": shape.steps,
            "max_length_tokens": 4096,
            "lora": None if way.is_full else LORA,
        }
    )
    start = bench.classifier() if way.is_reward_model else bench.policy()
    pairs = _token_pairs(bench, start, is_reward_model=way.is_reward_model)
    write_table(folder / "pairs.parquet", pairs, TokenPair)
    has_reference = way.method in ("dpo", "ipo", "kto") and not way.is_reward_model
    if has_reference:
        _write_reference(bench, pairs, settings, folder / "reference.parquet")
    plan = TrainingPlan(
        settings=settings,
        is_reward_model=way.is_reward_model,
        policy=start,
        pairs=folder / "pairs.parquet",
        reference=folder / "reference.parquet" if has_reference else None,
        resume=None,
        scratch=folder / "scratch",
        output=folder,
        num_processes=way.num_processes,
        pairs_per_device=max(1, shape.pairs_per_device // way.num_processes)
        if bench.device == "cpu"
        else shape.pairs_per_device,
        checkpoint_steps=1000,
    )
    if way.num_processes > 1 or way.sharding is not None:
        launch_training(plan, Silent(), launch_file(way.sharding) if way.sharding else None)
    else:
        run_training(plan, Silent())
    _check_saved(folder / MODEL, start, is_reward_model=way.is_reward_model)
    return _figures(read_table(folder / STEPS, TrainStep))


def _figures(steps: Sequence["TrainStep"]) -> Curve:
    later = steps[1:]
    return Curve(
        [step.loss for step in steps],
        [step.grad_norm for step in steps],
        sum(step.num_tokens or 0 for step in later),
        sum(step.seconds or 0.0 for step in later),
    )


def _check_saved(folder: Path, start: Path, *, is_reward_model: bool) -> None:
    """Raise ValueError unless the saved model is whole, finite, and not the one before."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    kind = AutoModelForSequenceClassification if is_reward_model else AutoModelForCausalLM
    (model, found), (before, _) = (
        kind.from_pretrained(path, dtype=torch.bfloat16, output_loading_info=True)
        for path in (folder, start)
    )
    if missing := sorted(found["missing_keys"]):
        raise ValueError(f"the saved model lacks {missing}")
    changed = 0
    for one, other in zip(model.parameters(), before.parameters(), strict=True):
        if not bool(torch.isfinite(one).all()):
            raise ValueError("the saved model has weights that are not finite")
        changed += int((one != other).sum())
    if not changed:
        raise ValueError("the saved model is the one that training began with")


def _token_pairs(bench: Bench, folder: Path, *, is_reward_model: bool) -> "list[TokenPair]":
    from transformers import AutoTokenizer

    from tasks.training.label_rows import encode_labelled_pairs
    from tasks.training.token_rows import encode_pairs

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if is_reward_model:
        return encode_labelled_pairs(bench.pairs, tokenizer, 4096).pairs
    return encode_pairs(bench.pairs, [], tokenizer, 4096).pairs


def _write_reference(
    bench: Bench, pairs: "Sequence[TokenPair]", settings: TrainConfig, path: Path
) -> None:
    """What stage train finds or computes before it trains."""
    from tasks.engine.tables import ReferenceLogps, write_table
    from tasks.training.logps import PromptAnswer, answer_logps
    from tasks.training.model import load_frozen
    from tasks.training.token_rows import with_neighbours

    rows = {
        pair.pair_id: [
            PromptAnswer(tuple(pair.prompt_ids), tuple(answer))
            for answer in (
                *(pair.chosen_ids, pair.rejected_ids),
                *((other.chosen_ids, other.rejected_ids) if settings.method == "kto" else ()),
            )
        ]
        for pair, other in with_neighbours(pairs)
    }
    logps = answer_logps(
        load_frozen(bench.policy(), settings),
        [row for four in rows.values() for row in four],
        autocast=settings.precision == "bfloat16",
    )
    table = [
        ReferenceLogps(pair_id, *[logps[row] for row in four], *[None] * (4 - len(four)))
        for pair_id, four in rows.items()
    ]
    write_table(path, table, ReferenceLogps)


def _answers(bench: Bench) -> list[Any]:
    """Two answers of each pair, as token ids with their prompt."""
    from transformers import AutoTokenizer

    from pvar.chat import answer_token_ids, end_token_ids, prompt_token_ids
    from tasks.training.logps import PromptAnswer

    tokenizer = AutoTokenizer.from_pretrained(bench.policy())
    end = end_token_ids(tokenizer)
    return [
        PromptAnswer(
            tuple(prompt_token_ids(tokenizer, pair.messages)),
            tuple(answer_token_ids(tokenizer, text, end)),
        )
        for pair in bench.pairs
        for text in (pair.chosen, pair.rejected)
    ]
