"""Where things are on a host. One list, so that nobody spells a path twice."""

from pathlib import Path

RUN = Path("/run/calico")
"""Sockets and run-time files of the daemons: <daemon>.sock (health), supervisor.sock, bird.ctl, bird6.ctl."""
LIB = Path("/var/lib/calico")
NODENAME = LIB / "nodename"
NODE_ID = LIB / "node-id"
MTU = LIB / "mtu"
"""How large packets of workloads may be on this host: felix writes it, Docker's driver reads it."""
LOG = Path("/var/log/calico")
"""One folder per daemon with its log file `current`."""
ETC = Path("/etc/calico")
SECRETS = ETC / "secrets"
"""Passwords, put there by the operator: a folder for each secret, a file for each of its keys."""
CALICOCTL_CFG = ETC / "calicoctl.cfg"
FELIX_CFG = ETC / "felix.cfg"
DOCKER_PLUGINS = Path("/run/docker/plugins")


def health_socket(daemon: str) -> Path:
    """Return the health socket of ``felix``, ``bgpd``, ``libnetwork`` or ``agent``."""
    return RUN / f"{daemon}.sock"
