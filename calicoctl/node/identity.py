"""Who this host is, kept on its disk: a random id and the node's name (design: two hosts must not share a name)."""

import os
import uuid
from pathlib import Path

from resources.names import NodeName
from resources.runtime import paths


def node_id(file: Path = paths.NODE_ID) -> str:
    """Return this host's id, made at the first call."""
    try:
        if text := file.read_text().strip():
            return text
    except FileNotFoundError:
        pass
    text = uuid.uuid4().hex
    _write(file, text)
    return text


def remember_name(name: NodeName, file: Path = paths.NODENAME) -> None:
    """Write the node's name where every program of this host finds it."""
    try:
        if file.read_text().strip() == name:
            return
    except FileNotFoundError:
        pass
    _write(file, name)


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_text(text + "\n")
    temporary.rename(file)
