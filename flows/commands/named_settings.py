"""A name and settings in one option: `--arm "NAME key=value …"`, `--policy "NAME key=value …"`."""

import shlex

import yaml

from pvar.errors import ConfigError


def named_settings(option: str, text: str, example: str) -> tuple[str, dict[str, object]]:
    """The name and the settings, which are separated as in a shell; values are parsed as YAML.

    Raises ConfigError, with the example, for any other text.
    """
    try:
        name, *settings = shlex.split(text) or [""]
        if not name or not all("=" in setting for setting in settings):
            raise ValueError("no name, or a setting without =")
        pairs = [setting.partition("=") for setting in settings]
        return name, {key: yaml.safe_load(value) for key, _, value in pairs}
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigError(
            f"{option} {text!r} is not a name and settings ({str(error).splitlines()[0]}); write, "
            f"for example, {example}"
        ) from error
