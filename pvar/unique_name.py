"""What a user names by its first characters: a run, an artifact, or the digest of one."""

from collections.abc import Sequence
from difflib import get_close_matches

from pvar.errors import InputError

NUM_CANDIDATES = 4
"""Names that an error lists."""


def unique_name(text: str, known: Sequence[str], where: str, remedy: str) -> str:
    """The name equal to `text`, or else the only one that begins with it.

    `text` may leave out what precedes the slash of a name: `ab12` finds `train/ab12…`. Raises
    InputError, with candidates, unless there is exactly one; `known` begins with the best of them.
    """
    if text in known:
        return text
    found = [name for name in known if name.startswith(text) or _last(name).startswith(text)]
    match found:
        case [name]:
            return name
        case []:
            kind, slash, _ = text.partition("/")
            same = [name for name in known if slash and name.startswith(kind + slash)]
            near = get_close_matches(text, known, NUM_CANDIDATES) or same or known
            there = f"; there are {_listed(near)}" if known else ""
            raise InputError(f"{text!r} is not in {where}{there}; {remedy}")
    raise InputError(
        f"{text!r} begins {len(found)} of them: {_listed(sorted(found))}; give more characters, or "
        f"{remedy}"
    )


def _last(name: str) -> str:
    return name.partition("/")[2] or name


def _listed(names: Sequence[str]) -> str:
    more = len(names) - NUM_CANDIDATES
    return ", ".join(names[:NUM_CANDIDATES]) + (f" and {more} more" if more > 0 else "")
