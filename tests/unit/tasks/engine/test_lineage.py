"""Lineage: every input is followed, in both directions."""

import threading
import time

import pytest

from pvar.errors import DamagedError
from pvar.ports import Store
from tasks.engine.artifact import ArtifactKeys
from tasks.engine.lineage import (
    NUM_TRIED,
    QUICK_SECONDS,
    Step,
    list_artifacts,
    read_lineage,
)
from tests.artifacts import put_artifact

STAGES = ("ingest", "sample", "train")


def paths(step: Step) -> list[str]:
    """The tree as lines: roles from the root, what lies there, its state."""
    lines = []
    for branch in step.branches:
        repeated = " again" if branch.is_repeated else ""
        lines.append(f"{branch.role}={branch.ref} {branch.state}{repeated}")
        lines += [f"{branch.role}>{line}" for line in paths(branch)]
    return lines


def three_stages(store: Store) -> tuple[ArtifactKeys, ArtifactKeys, ArtifactKeys]:
    ingest = put_artifact(store, "ingest", config={"source": "sha256-1", "source_name": "a.jsonl"})
    sample = put_artifact(
        store, "sample", config={"policy": "start-1", "seed": 1}, inputs={"prompts": ingest}
    )
    train = put_artifact(
        store, "train", config={"policy": "start-1"}, inputs={"prompts": ingest, "pairs": sample}
    )
    return ingest, sample, train


def test_back_goes_through_every_input_down_to_the_source(file_store: Store) -> None:
    ingest, sample, train = three_stages(file_store)
    assert paths(read_lineage(file_store, list_artifacts(file_store, STAGES)).back(train.root)) == [
        f"prompts={ingest.root} complete",
        "prompts>source=sha256-1 outside",
        f"pairs={sample.root} complete",
        # What was shown is named again, and not shown again.
        f"pairs>prompts={ingest.root} complete again",
        "pairs>policy=start-1 outside",
        "policy=start-1 outside",
    ]


def test_forward_goes_to_everything_that_was_made_of_it(file_store: Store) -> None:
    ingest, sample, train = three_stages(file_store)
    graph = read_lineage(file_store, list_artifacts(file_store, STAGES))
    assert sorted(paths(graph.forward(ingest.root))) == sorted(
        [
            f"prompts={sample.root} complete",
            f"prompts>pairs={train.root} complete",
            f"prompts={train.root} complete",
        ]
    )
    assert paths(graph.forward(train.root)) == []


def test_a_model_that_was_trained_from_another_leads_back_to_it(file_store: Store) -> None:
    # The starting policy is no input of train: the configuration alone names it.
    first = put_artifact(file_store, "train", config={"policy": "start-1"})
    second = put_artifact(file_store, "train", config={"policy": first.root})
    graph = read_lineage(file_store, list_artifacts(file_store, STAGES))
    assert paths(graph.back(second.root)) == [
        f"policy={first.root} complete",
        "policy>policy=start-1 outside",
    ]
    assert paths(graph.forward(first.root)) == [f"policy={second.root} complete"]


def test_an_input_that_the_configuration_names_too_shows_once(file_store: Store) -> None:
    train = put_artifact(file_store, "train", config={"policy": "start-1"})
    answers = put_artifact(
        file_store, "sample", config={"policy": train.root}, inputs={"policy": train}
    )
    back = read_lineage(file_store, list_artifacts(file_store, STAGES)).back(answers.root)
    assert [branch.ref for branch in back.branches] == [train.root]


def test_what_is_unfinished_or_gone_is_said(file_store: Store) -> None:
    gone = ArtifactKeys("ingest", "00000000000000aa")
    half = put_artifact(file_store, "sample", inputs={"prompts": gone}, is_complete=False)
    train = put_artifact(
        file_store, "train", config={"policy": "train/00000000000000bb"}, inputs={"pairs": half}
    )
    assert paths(read_lineage(file_store, list_artifacts(file_store, STAGES)).back(train.root)) == [
        f"pairs={half.root} incomplete",
        # Recipes name inputs by digest; of what is gone the stage is not known.
        "pairs>prompts=?/00000000000000aa missing",
        "policy=train/00000000000000bb missing",
    ]


def test_lists_of_files_are_followed(file_store: Store) -> None:
    ingest = put_artifact(
        file_store, "ingest", config={"source": "a", "decontaminate_against": ["b", "c"]}
    )
    back = read_lineage(file_store, list_artifacts(file_store, STAGES)).back(ingest.root)
    assert [branch.ref for branch in back.branches] == ["a", "b", "c"]


def test_what_the_store_has_or_had_can_be_named(file_store: Store) -> None:
    ingest, sample, train = three_stages(file_store)
    file_store.delete(sample.recipe)
    names = read_lineage(file_store, list_artifacts(file_store, STAGES)).names
    # What comes from outside is no artifact.
    assert {ingest.root, train.root} <= set(names)
    assert not {"start-1", "models:/m/1"} & set(names)


def test_a_broken_recipe_is_named(file_store: Store) -> None:
    file_store.write("train/00000000000000aa/recipe.json", b"{")
    with pytest.raises(DamagedError, match=r"train/00000000000000aa/recipe\.json"):
        read_lineage(file_store, list_artifacts(file_store, STAGES))


class DistantStore:
    """A store whose reads take as long as a request; which threads read is kept."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.uri = store.uri
        self.readers: list[int] = []

    def read(self, key: str) -> bytes:
        self.readers.append(threading.get_ident())
        time.sleep(2 * QUICK_SECONDS)
        return self._store.read(key)


def test_recipes_of_a_distant_store_are_read_at_once(file_store: Store) -> None:
    made = [
        put_artifact(file_store, "ingest", config={"source": f"sha256-{number}"})
        for number in range(2 * NUM_TRIED)
    ]
    listing = list_artifacts(file_store, STAGES)
    distant = DistantStore(file_store)
    graph = read_lineage(distant, listing)  # type: ignore[arg-type]  only read is asked for
    assert [thread == threading.get_ident() for thread in distant.readers] == (
        [True] * NUM_TRIED + [False] * NUM_TRIED
    )
    assert graph.entries == read_lineage(file_store, listing).entries
    assert {keys.root for keys in made} <= set(graph.names)
