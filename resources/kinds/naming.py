"""Names of v1 objects -> names of v3 objects (reference resources.md 4.2).

v1 allows more in a name than v3. A name that had to be changed gets a piece of its hash, so that two names which become
alike stay apart; nodes do not, because their names must stay recognisable: there a clash is an error of the user.
"""

import re

from resources.names import IPAddress

_CIDR_MARKS = str.maketrans(".:/", "---")
_K8S_PREFIX = "k8s_ns."


def norm(name: str) -> str:
    """Return the nearest v3 name: lower case, ``/`` as ``.``, anything else that is not allowed as ``-``."""
    text = re.sub(r"[^-.a-z0-9]+", "-", name.lower().replace("/", "."))
    return re.sub(r"-*\.[-.]*", ".", text).strip(".-")


def q(name: str, new: str) -> str:
    """Return `new`, with 8 hex digits of the SHA-1 of `name` behind it if the two differ."""
    if name == new:
        return new
    from hashlib import sha1  # only for names that need it

    return f"{new}-{sha1(name.encode(), usedforsecurity=False).hexdigest()[:8]}"


def pool_name(cidr: str) -> str:
    """Return the name of a pool that a v1 document makes; `cidr` in its canonical text."""
    return cidr.translate(_CIDR_MARKS)


def node_name(name: str) -> str:
    return norm(name)


def policy_name(name: str) -> str:
    return q(name, norm(name).replace(".", "-"))


def profile_name(name: str) -> str:
    """Return the v3 name of a profile, also for every reference to it."""
    if name.startswith(_K8S_PREFIX):
        name = "kns." + name.removeprefix(_K8S_PREFIX)
    return q(name, norm(name))


def host_endpoint_name(node: str, name: str) -> str:
    """Return the v3 name of a host endpoint, which v1 identifies by node and name."""
    text = f"{norm(node)}.{name}"
    return q(text, norm(text))


def peer_name(node: str, address: IPAddress) -> str:
    """Return the v3 name of a BGP peer, which v1 identifies by its address and its node ("": all nodes)."""
    text = address.exploded.replace(".", "-").replace(":", "-")
    return f"{norm(node)}.{text}" if node else text


def segment_name(text: str) -> str:
    """Return the v3 spelling of a workload endpoint's orchestrator, workload or name."""
    return q(text, norm(text))
