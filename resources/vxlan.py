"""What every part, and the original, knows of VXLAN devices by convention: their names, and the MAC of each host's."""

import hashlib
from typing import Final

from resources.names import IfName, NodeName

DEVICES: Final = {4: IfName("vxlan.calico"), 6: IfName("vxlan-v6.calico")}
"""By address family."""


def tunnel_mac(node: NodeName, version: int) -> str:
    """Return the MAC of a host's device: the letter f and five bytes of the SHA-1 of the node's name.

    Each host derives that of all others, so a Node need not name it; one that it names counts.
    """
    seed = node if version == 4 else f"{node}-v6"
    return (b"f" + hashlib.sha1(seed.encode(), usedforsecurity=False).digest()[:5]).hex(":")
