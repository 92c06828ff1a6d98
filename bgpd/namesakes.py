"""The children of bgpd that serve BIRD's control sockets under BIRD's process names (bgpd.namesake)."""

import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import structlog

from resources.runtime.process_names import BIRD

AGAIN_SECONDS = 1.0


def behind(path: Path) -> Path:
    """Return where bgpd itself listens when a child has its socket."""
    return path.with_name(f"{path.name}.bgpd")


class Namesakes:
    """One child a socket, by address family; one that ends is started again."""

    def __init__(self, sockets: Mapping[int, Path]) -> None:
        self._sockets = dict(sockets)
        self._ending = threading.Event()
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        for version in self._sockets:
            thread = threading.Thread(target=self._keep, args=(version,), name=BIRD[version], daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """End the children."""
        self._ending.set()
        for child in list(self._children.values()):
            if child.stdin is not None:
                child.stdin.close()
        for thread in self._threads:
            thread.join()

    def _keep(self, version: int) -> None:
        path = self._sockets[version]
        while not self._ending.is_set():
            child = self._children[version] = subprocess.Popen(
                [sys.executable, "-I", "-m", "bgpd.namesake", BIRD[version], str(path), str(behind(path))],
                stdin=subprocess.PIPE,
            )
            if self._ending.is_set() and child.stdin is not None:
                child.stdin.close()
            status = child.wait()
            if not self._ending.is_set():
                structlog.get_logger().warning(
                    "namesake.ended", name=BIRD[version], status=status, retry_seconds=AGAIN_SECONDS
                )
                self._ending.wait(AGAIN_SECONDS)
