"""Addresses of servers and databases as they may be shown: without credentials."""

import re
from urllib.parse import unquote

_USER = re.compile(r"[^\s\"'/@]*@(?=[\w\[])")
"""What stands before the host of an address, also of one that a driver parsed differently."""


def without_credentials(address: str) -> str:
    """The address without user, password and options, which can also be a password."""
    scheme, separator, rest = address.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2].partition('?')[0]}"


def has_credentials(address: str) -> bool:
    """Whether the address has more than `without_credentials` shows."""
    return without_credentials(address) != address


def without_secrets(message: str, address: str) -> str:
    """A client's message about the address, without the address and its credentials.

    Drivers quote the whole address, or what they take for its host: of `p@ss@host`, `ss@host`.
    """
    if not has_credentials(address):
        return message.replace(address, "…")
    rest = address.partition("://")[2]
    user, _, location = rest.rpartition("@")
    password = user.partition(":")[2]
    options = location.partition("?")[2]
    values = [option.partition("=")[2] for option in options.split("&")]
    secrets = {address, user, password, options, *values}
    secrets |= {unquote(secret) for secret in secrets}
    for secret in sorted(secrets - {""}, key=len, reverse=True):
        message = message.replace(secret, "…")
    return _USER.sub("…@", message)
