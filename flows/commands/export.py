"""`pvar export`: write the pairs of a run for another trainer."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from flows.commands.options import JsonOption
from pvar.pair_forms import Trainer

if TYPE_CHECKING:
    from flows.exported_pairs import ExportedPairs


def export(
    reference: str = "latest",
    /,
    *,
    to: Trainer,
    out: Path,
    push: str | None = None,
    public: Annotated[bool, Parameter(negative=())] = False,
    as_json: JsonOption = False,
) -> None:
    """Write the pairs that a run trains on in the form of another trainer.

    Every row also has the rewards, the PVar of its prompt, its source and its id. Pairs of
    withdrawn prompts are left out.

    ```console
    pvar export --to trl --out pairs.parquet
    pvar export pair/ab12 --to llama_factory --out data/pairs.jsonl
    ```

    Parameters
    ----------
    reference
        Id of a run, `latest` for the newest, or an artifact or its first characters: `pair/ab12…`.
    to
        Whose form: trl and openrlhf have `prompt`, `chosen` and `rejected` as lists of messages;
        axolotl and llama_factory have `messages`, and one message each for the answers; plain has
        `messages`, and texts for the answers.
    out
        Output file: .jsonl, .jsonl.gz or .parquet. For llama_factory its folder also gets
        dataset_info.json, with an entry `pvar_pairs`.
    push
        Also upload the file, with a card, to the Hugging Face Hub: `hub:org/name`, a new data set,
        or `hub:org/name@branch`, a new branch. Nothing is replaced. The token is that of HF_TOKEN.
    public
        Let everybody read the data set; otherwise it is private. One that exists must be as this
        says.
    as_json
        Print one JSON object: artifact, run, path, number of pairs, remarks and address.
    """
    from flows.console import print_json
    from flows.exported_pairs import read_exported_pairs
    from flows.wiring import connect
    from infra.hub_push import hub_target, push_dataset, require_token
    from infra.row_files import refuse_target, write_rows
    from pvar.errors import ConfigError
    from pvar.pair_forms import UNKNOWN, pair_row, unreadable_pairs

    if public and push is None:
        raise ConfigError("--public is of a data set on the Hub: give --push hub:org/name, too")
    target = None if push is None else hub_target(push)
    token = "" if target is None else require_token()
    refuse_target(out)
    entries = _entries(out.parent) if to == "llama_factory" else {}
    found = read_exported_pairs(reference, connect())
    count = write_rows(
        out, (pair_row(p, found.origins.get(p.prompt_id, UNKNOWN), to) for p in found.pairs)
    )
    if to == "llama_factory":
        _add_entry(entries, out)
    remarks, address = _remarks(found, unreadable_pairs(found.pairs, to)), None
    if not as_json:
        _say(f"{count} pairs of {found.artifact}: {out}", *remarks, _use(to, out))
    if target is not None:
        files: dict[str, Path | bytes] = {out.name: out, "README.md": _card(found, to, out)}
        address = push_dataset(target, files, token, public=public)
        if not as_json:
            _say(f"pushed: {address}")
    if as_json:
        print_json(
            {
                "artifact": found.artifact,
                "run": found.run,
                "path": str(out.absolute()),
                "pairs": count,
                "remarks": remarks,
                "pushed": address,
            }
        )


def _say(*lines: str) -> None:
    from flows.console import console

    for line in lines:
        console().print(line, highlight=False, markup=False, soft_wrap=True)


def _card(found: "ExportedPairs", to: Trainer, out: Path) -> bytes:
    from infra.machine_facts import installed
    from pvar.dataset_card import ExportFacts, dataset_card

    version = installed(["pvar"]).get("pvar", "(version unknown)")
    facts = ExportFacts(found.artifact, found.run, to, out.name, len(found.pairs), version)
    return dataset_card(facts).encode()


def _remarks(found: "ExportedPairs", num_unreadable: int) -> list[str]:
    lines = []
    if found.num_withdrawn:
        lines.append(f"{found.num_withdrawn} pairs of withdrawn prompts are left out")
    if not found.origins:
        lines.append("source and pvar are empty: the artifacts that tell them are gone")
    if num_unreadable:
        lines.append(
            f"{num_unreadable} pairs will be skipped by LLaMA-Factory: in their prompts user and "
            "assistant do not take turns"
        )
    return lines


def _use(to: Trainer, out: Path) -> str:
    """How the trainer is told to read the file."""
    match to:
        case "trl":
            kind = "parquet" if out.name.endswith(".parquet") else "json"
            data = f'load_dataset("{kind}", data_files="{out}", split="train")'
            return f"TRL: DPOTrainer(…, train_dataset={data})"
        case "openrlhf":
            return (
                f"OpenRLHF: --data.dataset {out} --data.apply_chat_template "
                "--data.prompt_key prompt --data.chosen_key chosen --data.rejected_key rejected"
            )
        case "axolotl":
            return (
                "Axolotl: rl: dpo; datasets: [{path: "
                f"{out}, ds_type: {'parquet' if out.suffix == '.parquet' else 'json'}, "
                "split: train, type: chat_template.default}]"
            )
        case "llama_factory":
            return f"LLaMA-Factory: stage: dpo; dataset: pvar_pairs; dataset_dir: {out.parent}"
        case "plain":
            return "columns messages, chosen, rejected; both rewards, pvar, source, prompt_id"


def _entries(folder: Path) -> dict[str, Any]:
    """What LLaMA-Factory's dataset_info.json has in this folder. InputError if it is invalid."""
    from pvar.errors import InputError

    path = folder / "dataset_info.json"
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); correct it or write elsewhere"
        ) from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: not a JSON object; correct it or write elsewhere")
    return found


def _add_entry(entries: dict[str, Any], out: Path) -> None:
    from pvar.pair_forms import DATASET, dataset_entry

    text = json.dumps({**entries, DATASET: dataset_entry(out.name)}, indent=2, ensure_ascii=False)
    path = out.parent / "dataset_info.json"
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(f"{text}\n", encoding="utf-8")
    partial.replace(path)
