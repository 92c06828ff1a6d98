"""A secret that a resource names and does not hold: a password of BGP (reference resources.md 2.2, 2.3).

The stored form is Kubernetes's reference to a key of a Secret. Without Kubernetes the two names are those of a folder
and of a file on each host (docs/adr/0020), which is why both are checked like parts of a path. Not a kind by itself.
"""

import re
from collections.abc import Iterator

import msgspec

from resources.kinds.base import Path, Problem
from resources.names import name_fault

KEY_MAX = 253
_KEY = re.compile(r"[-._a-zA-Z0-9]+\Z")


class SecretKeyRef(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: str = ""
    key: str = ""
    """Written even when empty."""
    optional: bool | None = None
    """Kubernetes's, and of no meaning for a password: one that is missing is never taken for none."""


class BGPPassword(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    secret_key_ref: SecretKeyRef | None = None


def key_fault(key: str) -> str | None:
    """Return why `key` is not the key of a secret, or None."""
    if len(key) > KEY_MAX:
        return f"key is too long by {len(key) - KEY_MAX} bytes"
    if not _KEY.match(key) or key == "." or key.startswith(".."):
        return "a key has letters, digits and - _ . and does not begin with '..'"
    return None


def password_problems(path: Path, password: BGPPassword | None) -> Iterator[Problem]:
    """Check a password that may be absent."""
    if password is None:
        return
    at: Path = (*path, "secretKeyRef")
    ref = password.secret_key_ref
    if ref is None or not (ref.name or ref.key):
        reason = "names no secret: sessions with this password are withheld"
        hint = "write secretKeyRef: {name: bgp, key: password}, or leave the password out"
        yield Problem(at, "", reason, hint, warning=True)
        return
    if fault := name_fault(ref.name):
        yield Problem((*at, "name"), ref.name, fault)
    if fault := key_fault(ref.key):
        yield Problem((*at, "key"), ref.key, fault)
