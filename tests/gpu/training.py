"""Training: each trainer, LoRA and all weights, one process and several, with figures of each.

The policy is its own reference, so the first loss of DPO is ln 2 but for the rounding between the
reference's log-probabilities and the trainer's. The first gradient norm says whether two ways
compute the same: it depends on every layer, in both directions. Later losses are shown and not
judged: the curves of models with random weights part after a few steps, by rounding alone.
"""

import math
from collections.abc import Callable
from typing import Any

from pvar.train_config import TrainConfig
from tests.gpu.bench import LIMITS, Bench, timed, worst
from tests.gpu.rows import Found, LeftOut
from tests.gpu.training_curves import LORA, Curve, Way, curve_of

ROUNDING = {"float32": 1e-3, "bfloat16": 5e-2}
"""Of a loss, and of a gradient norm as a share, that is taken for rounding."""

FULL_BYTES = 20
"""Memory of training all weights for one of them: weight, gradient, AdamW's two, and the rest."""


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
    low, single = (curve_of(bench, each) for each in (way, way._replace(precision="float32")))
    figures, problems = _compare(low, single, "float32", ROUNDING[bench.trained])
    return Found([*found.figures, *figures], [*found.problems, *problems])


def _beside_one_process(bench: Bench, way: Way) -> Found:
    found = _alone(bench, way)
    one = curve_of(bench, way._replace(num_processes=1, sharding=None))
    rounding = ROUNDING[bench.trained]
    figures, problems = _compare(curve_of(bench, way), one, "one process", rounding)
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
    curve = curve_of(bench, way)
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
