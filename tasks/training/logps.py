"""Log-probabilities of answers under a model: log π(y|x) = Σ_t log π(y_t | x, y_<t).

The computation is the same as in training (`model.py`), so that rounding cancels between policy and
reference; sums are float32. Rows are sorted by length and padded on the right, and logits are
computed only from the start of the first answer of a batch.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

TOKENS_PER_BATCH = {"cuda": 8192, "cpu": 1024}
"""As in scoring: large batches for a GPU, and batches that fit the caches for a CPU."""


class PromptAnswer(NamedTuple):
    """Token ids of a prompt and of an answer to it."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


def answer_logps(
    model: Any, rows: Sequence[PromptAnswer], *, autocast: bool
) -> dict[PromptAnswer, float]:
    """The log-probability of each distinct row's answer, in nats, without gradients."""
    import torch

    distinct = sorted(set(rows), key=lambda row: len(row.prompt) + len(row.answer), reverse=True)
    found: dict[PromptAnswer, float] = {}
    with (
        torch.no_grad(),  # not inference_mode, whose tensors a sharded model that trains would keep
        torch.autocast(model.device.type, torch.bfloat16, enabled=autocast),
    ):
        for batch in padded_batches(distinct, TOKENS_PER_BATCH[model.device.type]):
            logps = batch_logps(model, batch)
            found.update(zip(batch, logps.tolist(), strict=True))
    return found


def batch_logps(model: Any, batch: Sequence[PromptAnswer]) -> "torch.Tensor":
    """Log-probabilities of a batch's answers, (num_rows,), float32, with gradients if enabled."""
    import torch

    lengths = [len(row.prompt) + len(row.answer) for row in batch]
    width = max(lengths)
    start = min(len(row.prompt) for row in batch) - 1  # its state predicts the first answer token
    ids = torch.tensor([[*row.prompt, *row.answer, *[0] * (width - n)] for row, n in _sized(batch)])
    attended = torch.tensor([[1] * n + [0] * (width - n) for n in lengths])
    answered = torch.tensor(
        [
            [len(row.prompt) <= place < n for place in range(start + 1, width)]
            for row, n in _sized(batch)
        ]
    )
    ids, attended, answered = (tensor.to(model.device) for tensor in (ids, attended, answered))
    logits = model(
        input_ids=ids, attention_mask=attended, use_cache=False, logits_to_keep=width - start
    ).logits[:, :-1]
    chosen = logits.gather(2, ids[:, start + 1 :, None])[..., 0].float()
    logps: torch.Tensor = chosen - logits.float().logsumexp(dim=2)
    return (logps * answered).sum(dim=1)


def _sized(batch: Sequence[PromptAnswer]) -> Iterator[tuple[PromptAnswer, int]]:
    for row in batch:
        yield row, len(row.prompt) + len(row.answer)


def padded_batches(
    rows: Sequence[PromptAnswer], max_tokens: int
) -> Iterator[Sequence[PromptAnswer]]:
    """Batches of rows, longest first, with at most `max_tokens` padded tokens each."""
    begin = 0
    while begin < len(rows):
        width = len(rows[begin].prompt) + len(rows[begin].answer)
        size = max(1, max_tokens // width)
        yield rows[begin : begin + size]
        begin += size
