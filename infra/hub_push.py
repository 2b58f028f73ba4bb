"""Upload a data set to the Hugging Face Hub, by its own client.

A data set is private unless the caller says otherwise. Nothing that is there is replaced: a
data set with files, or a branch that exists, is an error. The token is read from the environment
only, not from a login on this machine, and HF_ENDPOINT names another Hub, as for all of the client.
"""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from pvar.errors import ConfigError, InputError, UnavailableError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

TOKEN = "HF_TOKEN"  # noqa: S105  the name of a variable
PAGE = "https://huggingface.co/settings/tokens"

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_TARGET = re.compile(rf"hub:({_NAME}/{_NAME})(?:@({_NAME}(?:/{_NAME})*))?")
_UNSENT = {".gitattributes", "README.md"}
"""What the Hub puts into a new data set. Others have more."""

_Value = TypeVar("_Value")


class HubTarget(NamedTuple):
    """Where a data set goes."""

    repository: str
    """`org/name`."""
    branch: str | None
    """None is the main branch of a new data set."""

    def __str__(self) -> str:
        return f"hub:{self.repository}{f'@{self.branch}' if self.branch else ''}"


def hub_target(text: str) -> HubTarget:
    """The parts of `hub:org/name[@branch]`. Raises ConfigError for another form."""
    found = _TARGET.fullmatch(text)
    if found is None:
        raise ConfigError(f"--push is {text!r}; write hub:org/name or hub:org/name@branch")
    return HubTarget(found[1], found[2])


def require_token() -> str:
    """The token of the environment. Raises ConfigError if there is none."""
    token = os.environ.get(TOKEN, "").strip()
    if not token:
        raise ConfigError(
            f"--push needs a token of the Hub that may write: set {TOKEN} (made at {PAGE})"
        )
    return token


def push_dataset(
    target: HubTarget, files: Mapping[str, Path | bytes], token: str, *, public: bool = False
) -> str:
    """Make a data set, or a branch of one, with these files in one commit; its address.

    Raises InputError if there is something already, or if the data set exists and is not as public
    or private as asked, ConfigError if the token may not, and UnavailableError if the Hub cannot be
    reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=token)
    is_new = _asked(target, lambda: _create(api, target.repository, public=public))
    if not is_new:
        _asked(target, lambda: _refuse_other_visibility(api, target, public=public))
    if target.branch is not None:
        _asked(target, lambda: _create_branch(api, target))
    elif not is_new:
        _asked(target, lambda: _refuse_filled(api, target))
    operations = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)
        for name, content in files.items()
    ]
    _asked(
        target,
        lambda: api.create_commit(
            target.repository,
            operations,
            commit_message="Pairs of pvar",
            repo_type="dataset",
            revision=target.branch,
        ),
    )
    page = f"{api.endpoint}/datasets/{target.repository}"
    return page if target.branch is None else f"{page}/tree/{target.branch}"


def _create(api: "HfApi", repository: str, *, public: bool) -> bool:
    """Whether the data set is new."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        api.create_repo(repository, repo_type="dataset", private=not public)
    except HfHubHTTPError as error:
        if error.response.status_code != 409:
            raise
        return False
    return True


def _refuse_other_visibility(api: "HfApi", target: HubTarget, *, public: bool) -> None:
    """A data set that exists stays private or public: rows are shown to nobody unasked."""
    is_public = not api.dataset_info(target.repository).private
    if is_public and not public:
        raise InputError(
            f"{target}: everybody can read this data set; add --public if they may read the pairs, "
            "too, or give another name"
        )
    if public and not is_public:
        raise InputError(
            f"{target}: this data set is private, and --public is of a new one; leave --public out "
            "(and change it on its page), or give another name"
        )


def _create_branch(api: "HfApi", target: HubTarget) -> None:
    from huggingface_hub.errors import HfHubHTTPError

    assert target.branch is not None
    try:
        api.create_branch(target.repository, branch=target.branch, repo_type="dataset")
    except HfHubHTTPError as error:
        if error.response.status_code != 409:
            raise
        if _is_unfilled(api, target):
            return
        raise InputError(
            f"{target}: there is such a branch already, and nothing is replaced; name another one"
        ) from error


def _is_unfilled(api: "HfApi", target: HubTarget) -> bool:
    """Whether the branch is where the main branch is, as an upload that failed leaves it."""
    refs = api.list_repo_refs(target.repository, repo_type="dataset")
    commits = {each.name: each.target_commit for each in refs.branches}
    return target.branch in commits and commits[target.branch] == commits.get("main")


def _refuse_filled(api: "HfApi", target: HubTarget) -> None:
    """An upload that failed leaves an empty data set, which can be filled."""
    found = set(api.list_repo_files(target.repository, repo_type="dataset"))
    if found - _UNSENT:
        raise InputError(
            f"{target}: there is such a data set already, and nothing is replaced; give a branch "
            f"of its own (hub:{target.repository}@BRANCH) or another name"
        )


def _asked(target: HubTarget, ask: Callable[[], _Value]) -> _Value:
    """The answer of the Hub, with its errors explained."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        return ask()
    except HFValidationError as error:
        raise ConfigError(f"{target}: the Hub allows no such name: {error}") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status == 401:
            raise ConfigError(
                f"{target}: the Hub does not know the token in {TOKEN} (HTTP 401); make one that "
                f"may write at {PAGE}"
            ) from None
        if status in (403, 404):
            raise ConfigError(
                f"{target}: the token in {TOKEN} has no right to write there (HTTP {status}); make "
                f"one that has at {PAGE}, or push to a name of your own"
            ) from None
        says = f" ({error.server_message})" if error.server_message else ""
        raise UnavailableError(
            f"{target}: the Hub answered HTTP {status}{says}; run the same command again"
        ) from None
    except (InputError, ConfigError):
        raise
    except OfflineModeIsEnabled as error:
        raise ConfigError(f"{target}: HF_HUB_OFFLINE is set; unset it to push") from error
    except Exception as error:  # the client's errors of transport have no common base
        raise UnavailableError(
            f"{target}: the Hub cannot be reached ({type(error).__name__}); check the network, and "
            "run the same command again"
        ) from error
