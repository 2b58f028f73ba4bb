"""`pvar schema`: print every key of the configuration, with its range and meaning."""

import json
from typing import Annotated

from cyclopts import Parameter


def schema(*, presets: Annotated[bool, Parameter(negative=())] = False) -> None:
    """Print the JSON schema of the configuration.

    ```console
    pvar schema --presets
    ```

    Parameters
    ----------
    presets
        List the presets that ship with the project instead, and what each is for.
    """
    from infra.presets import preset_description, preset_names
    from pvar.config import PipelineConfig

    if presets:
        width = max(map(len, preset_names()))
        for name in preset_names():
            print(f"{name:<{width}}  {preset_description(name)}")  # noqa: T201  it is the output
        return
    print(json.dumps(PipelineConfig.model_json_schema(), indent=2, ensure_ascii=False))  # noqa: T201
