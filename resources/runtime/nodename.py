"""What this host is called. The same rule in every daemon and in calicoctl."""

import os
import socket
from collections.abc import Mapping
from pathlib import Path

from resources.errors import ConfigurationError
from resources.names import NodeName, name_fault
from resources.runtime import paths


def node_name(environ: Mapping[str, str] = os.environ, *, file: Path = paths.NODENAME) -> tuple[NodeName, str]:
    """Return the node's name and where it comes from (``environment``, ``file`` or ``default``).

    ``NODENAME``, else the file that calico-node wrote, else the kernel's host name, lower-cased.

    Raises:
        ConfigurationError: the name is no resource name (docs/architecture.md says why it must be one).
    """
    if text := environ.get("NODENAME", "").strip():
        name, origin = text, "environment"
    elif text := _first_line(file):
        name, origin = text, "file"
    else:
        name, origin = socket.gethostname().strip().lower(), "default"
    if fault := name_fault(name):
        raise ConfigurationError(
            f"the node name {name!r} (from {origin}) cannot be used: {fault}",
            hint="set NODENAME to a lower-case name such as node1",
        )
    return NodeName(name), origin


def _first_line(file: Path) -> str:
    try:
        return file.read_text().strip().partition("\n")[0]
    except (FileNotFoundError, NotADirectoryError):
        return ""
