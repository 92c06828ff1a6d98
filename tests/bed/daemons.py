"""Our own daemons on a host of the bed: started as an operator starts them, and what they complained about."""

import re

from bed.cluster import Cluster
from bed.command import Done
from bed.host import Host

_COMPLAINT = re.compile(r"\blevel=(error|critical|fatal)\b|^Traceback \(most recent call last\)|^\w*Error: ")


def node_run(cluster: Cluster, host: Host) -> Done:
    """Run ``calicoctl node run`` on a host: felix, bgpd, the driver and the agent are ready when it returns.

    For ``Cluster(3, start=node_run)``. NODENAME, IP and ETCD_ENDPOINTS are in the host's environment.
    """
    return host.run(["calicoctl", "node", "run"], timeout=90.0)


def complaints(host: Host) -> list[str]:
    """Return what the daemons of a host logged as an error, each line with its daemon's name in front.

    The logs are read on the machine, so a host that is switched off may be asked too.
    """
    found = []
    for log in sorted((host.folder / "log" / "calico").glob("*/current*")):
        lines = log.read_text(errors="replace").splitlines()
        found += [f"{host.name} {log.parent.name}: {line}" for line in lines if _COMPLAINT.search(line)]
    return found
