"""A real etcd on the loopback device, with free ports and a data folder that goes with it."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

START_SECONDS = 30.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Member:
    """One member of a cluster."""

    def __init__(self, name: str, folder: Path, scheme: str, extra: tuple[str, ...]) -> None:
        self.name, self._extra = name, extra
        self.data = folder / name
        self.log = folder / f"{name}.log"
        self.client_port, self.peer_port = free_port(), free_port()
        self.endpoint = f"{scheme}://127.0.0.1:{self.client_port}"
        self.peer_url = f"http://127.0.0.1:{self.peer_port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, cluster: str) -> None:
        command = [
            *("setpriv", "--pdeathsig", "KILL", "etcd", "--name", self.name, "--data-dir", str(self.data)),
            *("--listen-client-urls", self.endpoint, "--advertise-client-urls", self.endpoint),
            *("--listen-peer-urls", self.peer_url, "--initial-advertise-peer-urls", self.peer_url),
            *("--initial-cluster", cluster, "--initial-cluster-state", "new", "--unsafe-no-fsync"),
            *("--heartbeat-interval", "50", "--election-timeout", "500", *self._extra),
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it as kill -9 does; its data stays."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None


class EtcdServer:
    """A cluster of one member or more; ended and removed on leaving the ``with``."""

    def __init__(self, *extra: str, members: int = 1, scheme: str = "http") -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="calico-etcd-"))
        self.members = [Member(f"m{n}", self._folder, scheme, extra) for n in range(members)]
        self._plain = scheme == "http"

    def __enter__(self) -> "EtcdServer":
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def endpoints(self) -> tuple[str, ...]:
        return tuple(member.endpoint for member in self.members)

    @property
    def endpoint(self) -> str:
        return self.members[0].endpoint

    def start(self, *members: Member) -> None:
        """Start the members given, or all that do not run, and wait until each has a leader."""
        cluster = ",".join(f"{member.name}={member.peer_url}" for member in self.members)
        started = [member for member in members or self.members if member.process is None]
        for member in started:
            member.start(cluster)
        for member in started:
            self._wait_for(member)

    def _wait_for(self, member: Member) -> None:
        until = time.monotonic() + START_SECONDS
        while not self._answers(member):
            assert member.process is not None
            if member.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"etcd did not start:\n{member.log.read_text()[-2000:]}")
            time.sleep(0.02)

    def _answers(self, member: Member) -> bool:
        if not self._plain:  # whoever wants TLS asks with certificates; here it is enough that it listens
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", member.client_port)) == 0
        connection = http.client.HTTPConnection("127.0.0.1", member.client_port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200  # it has a leader
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def ask(self, path: str, request: object, *, member: Member | None = None) -> dict[str, object]:
        """POST to the gateway by the standard library."""
        port = (member or self.members[0]).client_port
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("POST", f"/v3/{path}", json.dumps(request))
            answer = connection.getresponse()
            body: dict[str, object] = json.loads(answer.read())
            return body
        finally:
            connection.close()

    def compact(self, revision: int) -> None:
        self.ask("kv/compaction", {"revision": str(revision), "physical": True})

    def pause(self) -> None:
        """Stop every member without a word: connections stay, nothing is answered."""
        for member in self.members:
            member.signal(signal.SIGSTOP)

    def resume(self) -> None:
        for member in self.members:
            member.signal(signal.SIGCONT)

    def kill(self) -> None:
        for member in self.members:
            member.kill()

    def save(self) -> Path:
        """Return a snapshot of a running member, as an operator's nightly job makes it."""
        file = self._folder / "snapshot"
        file.unlink(missing_ok=True)
        self._etcdctl("--endpoints", self.endpoint, "snapshot", "save", str(file))
        return file

    def restore(self, snapshot: Path) -> None:
        """Put a snapshot in the place of the data of the stopped, only member."""
        (member,) = self.members
        shutil.rmtree(member.data)
        self._etcdctl(
            *("snapshot", "restore", str(snapshot), "--name", member.name, "--data-dir", str(member.data)),
            *("--initial-cluster", f"{member.name}={member.peer_url}"),
            *("--initial-advertise-peer-urls", member.peer_url),
        )

    def _etcdctl(self, *arguments: str) -> None:
        environ = os.environ | {"ETCDCTL_API": "3"}
        subprocess.run(["etcdctl", *arguments], env=environ, check=True, capture_output=True, timeout=30)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)
