"""`pvar schema`: print every key of the configuration, with its range and meaning."""

import json
from typing import Annotated

from cyclopts import Parameter


def schema(*, presets: Annotated[bool, Parameter(negative=())] = False) -> None:
    """Print the JSON schema of the configuration.

    Parameters
    ----------
    presets
        List the presets that ship with the project instead.
    """
    from infra.presets import preset_names
    from pvar.config import PipelineConfig

    if presets:
        print("\n".join(preset_names()))  # noqa: T201  data for other programs
        return
    print(json.dumps(PipelineConfig.model_json_schema(), indent=2, ensure_ascii=False))  # noqa: T201
