"""Handles: a caller's name for a group of allocations, kept as an index from handle to blocks (reference ipam.md 2.4).

The index may overstate (more than the blocks hold) and may be missing; blocks are the truth.
"""

import secrets

from resources.names import HandleId


def new_handle() -> HandleId:
    """Return a handle nobody has: ``docker-`` and 32 hex digits.

    A transaction that compares "this handle does not exist" can take effect once, however often it is repeated
    (reference ipam.md 5.5).
    """
    return HandleId(f"docker-{secrets.token_hex(16)}")
