"""Margins of held-out pairs during training: what the policy learns about pairs it never sees.

    margin_t = β · [(log π_t − log π_0)(y_w|x) − (log π_t − log π_0)(y_l|x)]

is the difference of the implicit rewards (arXiv 2305.18290) after t steps. π_0 is the policy before
the first step, which is the reference, computed here like every π_t. So rounding cancels, and the
first margin is 0. SimPO and ORPO have no reference: there it is the difference of β · log π(y|x) /
|y|, in SimPO's units (arXiv 2405.14734), which is not 0 at the start. As in TRL's log, margins are
in the method's own units.

The pairs are measured at NUM_POINTS steps, before a step and after the last one, so that no step
takes longer by its own clock. Nothing is drawn and no weight changes: a training with and without
these measurements gives the same model. The values are kept in the trainer's log, which is part of
each checkpoint, so that a training that resumes has those from before.

Every process measures all pairs, because sharded models compute only together.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pvar.train_config import TrainConfig
from tasks.engine.tables import HeldOutMargin, TokenPair
from tasks.training.logps import PromptAnswer, answer_logps
from tasks.training.reference import has_reference

if TYPE_CHECKING:
    from transformers import Trainer

NUM_POINTS = 5
"""Steps at which margins are measured: the start, the end, and three between. More would cost most
where few pairs are trained on: in the demo, five passes are already more tokens than the training.
"""

_DIFFERENCES = "held_out_differences"
"""Name in the trainer's log: chosen minus rejected of each pair, in the order of the pairs."""


def measured_steps(num_steps: int) -> list[int]:
    """The numbers of steps after which margins are measured, evenly spaced from 0 to `num_steps`.

    Fewer than NUM_POINTS if there are fewer steps.
    """
    return sorted({point * num_steps // (NUM_POINTS - 1) for point in range(NUM_POINTS)})


def measure_margins(trainer: "Trainer", pairs: Sequence[TokenPair], settings: TrainConfig) -> None:
    """Let the trainer measure the pairs during training; `margin_rows` then has the result."""
    from transformers import TrainerCallback

    def measure(state: Any) -> None:
        differences = _differences(trainer.model_wrapped, pairs, settings)
        state.log_history.append({"step": state.global_step, _DIFFERENCES: differences})

    class Measure(TrainerCallback):  # type: ignore[misc,unused-ignore]
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step in measured_steps(state.max_steps):
                measure(state)

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            measure(state)

    trainer.add_callback(Measure())


def _differences(model: Any, pairs: Sequence[TokenPair], settings: TrainConfig) -> list[float]:
    """Chosen minus rejected log-probability of each pair; means over tokens without reference."""
    rows = [
        [
            PromptAnswer(tuple(pair.prompt_ids), tuple(answer))
            for answer in (pair.chosen_ids, pair.rejected_ids)
        ]
        for pair in pairs
    ]
    is_training = model.training
    model.eval()
    try:
        logps = answer_logps(
            model,
            [row for two in rows for row in two],
            autocast=settings.precision == "bfloat16",
        )
    finally:
        model.train(is_training)
    if has_reference(settings.method):
        return [logps[chosen] - logps[rejected] for chosen, rejected in rows]
    return [
        logps[chosen] / len(chosen.answer) - logps[rejected] / len(rejected.answer)
        for chosen, rejected in rows
    ]


def margin_rows(
    trainer: "Trainer", pairs: Sequence[TokenPair], settings: TrainConfig
) -> list[HeldOutMargin]:
    """The margin of every pair at every measured step, from the log of a training that ended."""
    log: list[dict[str, Any]] = trainer.state.log_history  # typed there as numbers only
    found = {int(entry["step"]): entry[_DIFFERENCES] for entry in log if _DIFFERENCES in entry}
    start = found[0] if has_reference(settings.method) else [0.0] * len(pairs)
    return [
        HeldOutMargin(step, pair.pair_id, pair.prompt_id, settings.beta * (value - before))
        for step in measured_steps(trainer.state.max_steps)
        for pair, value, before in zip(pairs, found[step], start, strict=True)
    ]
