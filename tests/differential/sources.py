"""Rows of the source files: prompts, preferences, questions, and rows that are rejected."""

from pydantic import JsonValue

from tests.differential.vocabulary import SourceRow

TOPICS = (
    "a quiet hotel by the sea", "the last train home", "my grandmother's kitchen", "a broken phone",
    "an evening in the opera", "the dentist on Maple Street", "our first camping trip",
    "a film about chess players", "the new bakery downtown", "a marathon in the rain",
    "the museum of clocks", "a flight with three delays", "learning to swim at forty",
    "the noisy upstairs neighbours", "a book of winter poems", "the company picnic",
    "a haircut gone strange", "the village brass band", "moving into a tiny flat",
    "a puppy in the office", "the self-checkout machine", "an old bicycle repaired",
    "the school play rehearsal", "a garden full of slugs", "the ferry to the islands",
    "a job interview by video", "the lost suitcase", "a birthday without cake",
    "the night market", "a concert in a cave", "the library's reading room", "a leaking roof",
)  # fmt: skip
"""Different enough that no two prompts are near-duplicates."""


def _prompts(*topics: str) -> tuple[SourceRow, ...]:
    return tuple({"prompt": f"Describe {topic}."} for topic in topics)


PROMPTS = _prompts(*TOPICS)
FEW = _prompts(*TOPICS[:16])


def scored_labels() -> tuple[SourceRow, ...]:
    """Annotated prompts of which every eighth has one of six faults, as UltraFeedback's have."""
    rows: list[SourceRow] = []
    for number, topic in enumerate(TOPICS):
        row: dict[str, JsonValue] = {
            "prompt": f"Describe {topic}.",
            "chosen": f"A good day at {topic}.",
            "rejected": f"Nothing to say about {topic}.",
            "score_chosen": 6.0 + number % 4,
            "score_rejected": 4.0,
        }
        match number % 8:
            case 1:
                row |= {"score_chosen": 10, "chosen_ratings": [5, 4, 5, 5]}  # a true ten
            case 2:
                row |= {"score_chosen": 10, "chosen_ratings": [1, 2, 1, 1]}  # a one, misread
            case 3:
                row |= {"score_chosen": 10}  # nothing to check it by
            case 4:
                row = {"prompt": row["prompt"]}
            case 5:
                row["rejected"] = " "
            case 6:
                row["score_rejected"] = row["score_chosen"]
        rows.append(row)
    return tuple(rows)


def conversations() -> tuple[SourceRow, ...]:
    """Preferences in TRL's conversational formats: one to three messages, one without a prompt."""
    rows: list[SourceRow] = []
    for number, topic in enumerate(TOPICS):
        user: JsonValue = {"role": "user", "content": f"Tell me about {topic}."}
        prompt: list[JsonValue] = [user]
        if number % 3 == 1:
            prompt = [{"role": "system", "content": "Be brief."}, user]
        if number % 3 == 2:
            greeting: JsonValue = {"role": "assistant", "content": "Hello. What shall it be?"}
            prompt = [{"role": "user", "content": f"Hi, number {number}."}, greeting, user]
        chosen: JsonValue = {"role": "assistant", "content": f"I love {topic}."}
        rejected: JsonValue = {"role": "assistant", "content": f"I hate {topic}, all of it."}
        if number % 4 == 3:  # conversations that begin alike
            rows.append({"chosen": [*prompt, chosen], "rejected": [*prompt, rejected]})
        else:
            rows.append({"prompt": prompt, "chosen": [chosen], "rejected": [rejected]})
    return tuple(rows)


QUESTIONS: tuple[SourceRow, ...] = (
    {"prompt": "Which word stands before a noun?", "answer": ["the", "a"]},
    {"prompt": "What has four legs and no face?", "answer": "table"},
    {"prompt": "What does one walk through?", "answer": ["door"]},
    {"prompt": "Which colour has grass?", "answer": "green"},
    {"prompt": "When does the sun rise?", "answer": ["morning", "in the morning"]},
    {"prompt": "What is the capital of Burkina Faso?", "answer": "Ouagadougou"},
)
"""The fake policy says some of these words, so that some of its answers are right."""

BAD_ROWS: tuple[SourceRow, ...] = (
    '{"prompt": "broken o',
    {"text": "no such field is known"},
    {"prompt": " \n"},
    {"prompt": 7},
    {"prompt": "Only one?", "chosen": "yes"},
    {"prompt": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]},
    {"prompt": [{"role": "oracle", "content": "Hi"}]},
    {"prompt": "How many slugs?", "answer": 7},
)

LIKE_OTHERS: tuple[SourceRow, ...] = (
    {"prompt": "DESCRIBE  a quiet hotel by the sea."},  # the same, normalised
    {"prompt": "Describe a quiet hotel by the seaside."},  # nearly the same
    {"prompt": "Describe the noisy upstairs neighbours!"},
    {"prompt": "Describe a film about two chess players."},
    {"prompt": "Describe the museum of clocks.", "answer": "tower"},  # a question goes before
)

LONG = {"prompt": f"Describe {'very ' * 60}long corridors."}
