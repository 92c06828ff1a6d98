"""A real Docker daemon on a host of the bed, and containers that can be probed (reference libnetwork.md 10)."""

import contextlib
import http.client
import socket
import threading
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from bed import image
from bed.command import Command, Done, Process, Timeout, wait_until
from bed.etcd import Etcd
from bed.host import Host
from bed.namespaces import entered
from bed.probes import Prober

DOCKER = "/usr/bin/docker"
"""By its path: a newer client may come first in PATH and refuse flags of this daemon."""
_CLIENT_ENV = {"DOCKER_CONFIG": "/run/docker-client", "DOCKER_HOST": "unix:///run/docker.sock"}
_image_lock = threading.Lock()


class Dockerd:
    """Debian's dockerd, with a cluster store when an etcd is given; it has the image ``bb:1``.

    Its first process is the host's: killing the host kills it with all its containers. It asks no name server but the
    fabric's address, where none answers. Starting several: ``cluster.on_each(lambda h: Dockerd(h, cluster.store))``.
    """

    def __init__(self, host: Host, etcd: Etcd | None = None, *, flags: tuple[str, ...] = ()) -> None:
        self.host, self._etcd, self._flags = host, etcd, flags
        self._process: Process | None = None
        self.start()
        self.load_image()

    def start(self) -> None:
        """Start the daemon and wait until it answers; starting a running one does nothing.

        Raises:
            RuntimeError: it ended; the message has its last lines.
        """
        if self.running:
            return
        self._process = self.host.popen(self._command(), name="dockerd")
        wait_until(
            f"dockerd on {self.host.name} (see {self._process.log})",
            lambda: self.answers() or not self.running,
            timeout=40.0,
        )
        if not self.running:
            raise RuntimeError(f"dockerd on {self.host.name} ended:\n{self._process.text[-3000:]}")

    def _command(self) -> list[str]:
        store = ["--cluster-store", self._etcd.cluster_store, "--cluster-advertise", "eth0:2375"] if self._etcd else []
        return [
            *("/usr/sbin/dockerd", "--host", "unix:///run/docker.sock", "--pidfile", "/run/docker.pid"),
            *("--data-root", "/var/lib/docker", "--exec-root", "/run/docker", "--dns", str(self.host.fabric.address)),
            *("--cgroup-parent", f"/{self.host.cgroup}", "--exec-opt", "native.cgroupdriver=cgroupfs"),
            *store,
            *self._flags,
        ]

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.alive

    @property
    def log(self) -> str:
        return self._process.text if self._process else ""

    def answers(self) -> bool:
        """Whether the Engine API answers."""
        connection = _UnixConnection(self.host.path("/run/docker.sock"))
        try:
            connection.request("GET", "/_ping")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def load_image(self) -> None:
        """Import ``bb:1`` unless it is there."""
        if self.docker("image", "inspect", image.NAME, check=False).ok:
            return
        tar = self.host.fabric.folder / "busybox.tar"
        with _image_lock:
            if not tar.exists():
                image.write_tar(tar)
        self.docker("import", "--change", 'CMD ["sh"]', str(tar), image.NAME)

    def docker(self, *words: str, timeout: float = 60.0, check: bool = True) -> Done:
        """Run ``docker`` on the host: ``dockerd.docker("network", "ls")``."""
        return self.host.run([DOCKER, *words], env=_CLIENT_ENV, timeout=timeout, check=check)

    def run(
        self, name: str, *options: str, command: Command = ("sleep", "100000"), timeout: float = 60.0
    ) -> "Container":
        """Start a container in the background: ``dockerd.run("c1", "--net", "calico-net1")``.

        It is stopped by SIGKILL: the first process of a container ignores SIGTERM, and Docker waits 10 s for it.
        """
        words = ["sh", "-c", command] if isinstance(command, str) else list(command)
        self.docker("run", "-d", "--stop-signal", "KILL", "--name", name, *options, image.NAME, *words, timeout=timeout)
        return Container(self, name)

    def stop(self) -> None:
        """End the daemon as ``systemctl stop`` does; it stops its containers (10 s for one that ignores its signal)."""
        if self._process:
            self._process.terminate(grace=60.0)

    def kill(self) -> None:
        """End the daemon as ``kill -9`` does; containers and their shims go on."""
        if self._process:
            self._process.kill()


class Container(Prober):
    """A running container, by name; it can ping, connect, listen and be a source or target of a grid."""

    def __init__(self, dockerd: Dockerd, name: str) -> None:
        self.dockerd, self.host, self.name = dockerd, dockerd.host, name

    @property
    def pid(self) -> int:
        """The pid of its first process, as its host counts.

        Raises:
            Timeout: it does not run.
        """
        pid = int(self.inspect("{{.State.Pid}}"))
        if pid == 0:
            raise Timeout(f"container {self.name} on {self.host.name} does not run")
        return pid

    @property
    def address(self) -> IPv4Address:
        """Its first IPv4 address."""
        return IPv4Address(self.inspect("{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}").split()[0])

    @property
    def address6(self) -> IPv6Address:
        """Its first IPv6 address."""
        return IPv6Address(
            self.inspect("{{range .NetworkSettings.Networks}}{{.GlobalIPv6Address}} {{end}}").split()[0]
        )

    def inspect(self, template: str) -> str:
        return self.dockerd.docker("inspect", "--format", template, self.name).stdout.strip()

    def entered(self) -> contextlib.AbstractContextManager[None]:
        """Put the calling thread into the container's network namespace."""
        return entered(self.host.path(f"/proc/{self.pid}/ns/net"))

    def run(self, command: Command, *, timeout: float = 30.0, check: bool = True) -> Done:
        """Run a command in the container by ``docker exec``."""
        words = ["sh", "-c", command] if isinstance(command, str) else list(command)
        return self.dockerd.docker("exec", self.name, *words, timeout=timeout, check=check)

    def remove(self) -> None:
        self.dockerd.docker("rm", "-f", self.name)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=2.0)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
