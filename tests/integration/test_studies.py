"""The studies that ship with the product: each loads, and its CPU version runs to a certificate."""

import json
from pathlib import Path

import pytest

from flows.comparison import compare
from flows.study_record import refuse_other_held_out_pairs
from infra.studies import load_study, study_names
from pvar.references import replace_references
from pvar.study_config import cells, variant
from tests.services.prefect_server import PrefectServer
from tests.study_parts import parts_in_this_process
from tests.unit.infra.tiny_models import save_language_model
from tests.workflow import TOPICS

ON_CPU = [name for name in study_names() if name.endswith("-cpu") or name == "mixed-pool"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # raised inside libraries
@pytest.mark.parametrize("name", ON_CPU)
def test_a_study_for_two_cores_runs_to_its_certificate(
    server: PrefectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Fake answers are trained on; a tiny model is trained, answers, and is judged.

    Of a sweep, two values are run. One study also estimates the divergence, which takes a third of
    the time. Held-out margins are left out: test_compare_flow.py has them.
    """
    monkeypatch.setenv("PVAR_HOME", str(tmp_path))
    monkeypatch.setenv("PVAR_MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setattr("flows.comparison.run_parts", parts_in_this_process)
    changes = [
        f"policy={save_language_model(tmp_path / 'policy', seed=1)}",
        f"ingest.source={labelled_prompts(tmp_path / 'prompts.jsonl')}",
        "sample.engine=fake",
        "train.precision=float32",
        "evaluate.answers.max_new_tokens=6",
        f"evaluate.divergence={name == 'mixed-pool'}",
        "evaluate.margins=False",
    ]
    study = load_study(name, changes=changes, options={"seeds": (0,), "held_equal": {"steps": 2}})
    if study.sweep is not None:
        few = study.sweep.model_copy(update={"values": study.sweep.values[1:3]})
        study = study.model_copy(update={"sweep": few})
    page = compare(study)
    rows = [line.split(" | ")[0] for line in page.splitlines() if line.startswith("| ")]
    assert rows == ["| arm", *(f"| {cell.name}" for cell in cells(study))]
    assert "not enough trainings" in page
    kl = {line.split(" | ")[5] for line in page.splitlines() if line.startswith("| random")}
    assert ("–" in kl) is not study.pipeline.evaluate.divergence


def labelled_prompts(path: Path) -> Path:
    """Prompts with two answers and a label, which one study trains on and the others ignore."""
    rows = [
        {"prompt": f"Describe {text}.", "chosen": f"I love {text}.", "rejected": f"I hate {text}."}
        for text in TOPICS
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_arms_that_measure_margins_share_the_pairs_with_their_control() -> None:
    studies = [load_study(name) for name in study_names()]
    measured = [study for study in studies if study.pipeline.evaluate.margins]
    assert measured
    for study in measured:
        pipelines = {
            cell.name: replace_references(variant(study, cell, 0), lambda each: f"{each.text}#pin")
            for cell in cells(study)
        }
        refuse_other_held_out_pairs(study, pipelines)


def test_each_study_for_gpus_has_the_control_and_the_sweep_of_its_cpu_version() -> None:
    both = [(name, f"{name}-cpu") for name in study_names() if f"{name}-cpu" in study_names()]
    assert len(both) == 5
    for gpu, cpu in ((load_study(gpu), load_study(cpu)) for gpu, cpu in both):
        assert gpu.control == cpu.control
        assert (gpu.sweep is None) == (cpu.sweep is None)
        assert gpu.question.partition(" ")[0] == cpu.question.partition(" ")[0]
