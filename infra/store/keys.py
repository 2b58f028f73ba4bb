"""Validation of store keys, with the same rules for every store.

A key is relative, `/`-separated, and names one object below the store's root. Parts of a key often
come from the user (a file name, a run name), so every store checks every key: after
`check_key(f"{prefix}/{text}")` the object is under `prefix`, whatever `text` is.

One difference between file systems and S3 remains: in S3 `a` and `a/b` can both be objects. In a
folder they cannot, and `file://` rejects the second one.
"""

from pvar.errors import StoreError

TEMPORARY = ".tmp"
"""First part of a store's internal temporary objects. It is reserved and not listed."""

MAX_KEY_BYTES = 1024
"""S3's limit on the length of a key in UTF-8."""

MAX_PART_BYTES = 255
"""Limit on the length of a file name on Linux file systems."""


def check_key(key: str) -> str:
    """Return `key` if it names an object below a store's root; else raise StoreError."""
    _refuse(key, _fault(key.split("/")) or _too_long(key))
    return key


def check_prefix(prefix: str) -> str:
    """Return `prefix` if a key can begin with it (`""`, `"a/"`, `"a/b"`); else raise StoreError."""
    folders = prefix.split("/")[:-1]
    last = prefix.split("/")[-1]
    # The last part may be any beginning of a name: nothing, a dot, two dots ("..b" is a name).
    name = f"{last}_" if last in (".", "..", TEMPORARY) else last
    whole = [*folders, name] if last else folders
    _refuse(prefix, (_fault(whole) if whole else None) or _too_long(prefix))
    return prefix


def _refuse(key: str, fault: str | None) -> None:
    if fault:
        raise StoreError(f"store key {key!r:.200}: {fault}; use relative names separated by '/'")


def _fault(parts: list[str]) -> str | None:
    """What is wrong with the key's parts, or None."""
    if parts[0] == TEMPORARY:
        return f"{TEMPORARY!r} is reserved"
    for part in parts:
        if part in ("", ".", ".."):
            return f"{part!r} is not a name"
        if not part.isprintable() or "\\" in part:
            return "it has a control character or a backslash"
        if len(part.encode()) > MAX_PART_BYTES:
            return f"a part has {len(part.encode())} bytes, more than {MAX_PART_BYTES}"
    return None


def _too_long(key: str) -> str | None:
    num_bytes = len(key.encode())
    return f"{num_bytes} bytes, more than {MAX_KEY_BYTES}" if num_bytes > MAX_KEY_BYTES else None
