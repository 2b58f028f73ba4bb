"""What a reward server is sent for one response, and where its answer has the reward.

    api             path       request                                       reward
    pvar            /reward    {model, messages, response}                   reward (number or null)
    vllm_classify   /classify  {model, messages with the response}           data[0].probs[0]
    vllm_score      /score     {model, text_1: prompt, text_2: response}     data[0].score
    tei_predict     /predict   {inputs: [[prompt, response]]}                [0][0].score
    tei_rerank      /rerank    {query: prompt, texts: [response]}            [0].score

vLLM applies the model's chat template to messages; the others get the prompt as one text. Logits
are asked for, not their sigmoid or softmax, which would squeeze the differences that PVar measures.
Nothing is truncated: a server refuses what is too long for its model. An empty response is sent to
a server of the user's own only, which can say that it has no reward: a model would give the reward
of something else, such as its chat template without the answer.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, NamedTuple

from pydantic import BaseModel, Field, StrictFloat, StrictInt, TypeAdapter

from pvar.judging import prompt_text
from pvar.ports import ScoreRequest
from pvar.reward_config import HttpReward

_Number = StrictInt | StrictFloat


class _Own(BaseModel):
    reward: _Number | None


class _Class(BaseModel):
    probs: Annotated[list[_Number], Field(min_length=1, max_length=1)]


class _Score(BaseModel):
    score: _Number


class _Classes(BaseModel):
    data: Annotated[list[_Class], Field(min_length=1, max_length=1)]


class _Scores(BaseModel):
    data: Annotated[list[_Score], Field(min_length=1, max_length=1)]


_One = Annotated[list[_Score], Field(min_length=1, max_length=1)]
_RANKED: TypeAdapter[list[_Score]] = TypeAdapter(_One)
_PREDICTED: TypeAdapter[list[list[_Score]]] = TypeAdapter(
    Annotated[list[_One], Field(min_length=1, max_length=1)]
)


class RewardApi(NamedTuple):
    """A kind of server."""

    path: str
    body: Callable[[str, ScoreRequest], Mapping[str, object]]
    """Of the model's name and a request."""
    read: Callable[[bytes], float | int | None]
    """The reward in an answer; ValidationError for an answer of another form."""
    takes_empty: bool = False
    """Whether it is asked about empty responses, too."""


def _messages(request: ScoreRequest) -> Sequence[Mapping[str, str]]:
    return [message._asdict() for message in request.messages]


def _conversation(model: str, request: ScoreRequest) -> Mapping[str, object]:
    answer = {"role": "assistant", "content": request.response}
    return {
        "model": model,
        "messages": [*_messages(request), answer],
        "add_generation_prompt": False,
        "use_activation": False,
    }


APIS: Mapping[str, RewardApi] = {
    "pvar": RewardApi(
        "/reward",
        lambda model, request: {
            "model": model,
            "messages": _messages(request),
            "response": request.response,
        },
        lambda content: _Own.model_validate_json(content).reward,
        takes_empty=True,
    ),
    "vllm_classify": RewardApi(
        "/classify",
        _conversation,
        lambda content: _Classes.model_validate_json(content).data[0].probs[0],
    ),
    "vllm_score": RewardApi(
        "/score",
        lambda model, request: {
            "model": model,
            "text_1": prompt_text(request.messages),
            "text_2": request.response,
            "use_activation": False,
        },
        lambda content: _Scores.model_validate_json(content).data[0].score,
    ),
    "tei_predict": RewardApi(
        "/predict",
        lambda _, request: {
            "inputs": [[prompt_text(request.messages), request.response]],
            "raw_scores": True,
            "truncate": False,
        },
        lambda content: _PREDICTED.validate_json(content)[0][0].score,
    ),
    "tei_rerank": RewardApi(
        "/rerank",
        lambda _, request: {
            "query": prompt_text(request.messages),
            "texts": [request.response],
            "raw_scores": True,
            "truncate": False,
        },
        lambda content: _RANKED.validate_json(content)[0].score,
    ),
}
"""`HttpReward.api` → what is sent and read."""


def api_of(settings: HttpReward) -> RewardApi:
    """The kind of server that the settings name."""
    return APIS[settings.api]
