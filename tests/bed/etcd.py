"""A real etcd on the fabric, each member on a host of its own."""

import base64
import functools
import http.client
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from bed.command import Done, Process, wait_until
from bed.fabric import Fabric
from bed.host import Host

CLIENT, PEER = 2379, 2380
_DATA = "/run/etcd"  # in memory: etcd syncs each write, and nobody reads it after the bed


class Etcd:
    """An etcd cluster of one member or three; Docker's v2 store is served beside our v3 keys.

    `etcd.endpoints` is what ETCD_ENDPOINTS takes. Elections are quick, so that a bed is up soon.
    """

    def __init__(self, fabric: Fabric, *, members: int = 1, ipv6: bool = False) -> None:
        """`ipv6`: serve clients at the member's IPv6 address as well."""
        self.fabric, self.ipv6 = fabric, ipv6
        names = ["etcd"] if members == 1 else [f"etcd{number}" for number in range(1, members + 1)]
        addresses = [fabric.next_address(service=True) for _ in names]
        with ThreadPoolExecutor(members) as pool:
            made = [
                pool.submit(Host, fabric, name, address=address, ipv6=ipv6)
                for name, address in zip(names, addresses, strict=True)
            ]
        self.hosts: list[Host] = [future.result() for future in made]
        self._running: dict[str, Process] = {}
        self.start()

    @property
    def endpoint_list(self) -> list[str]:
        return [f"http://{host.address}:{CLIENT}" for host in self.hosts]

    @property
    def endpoints(self) -> str:
        return ",".join(self.endpoint_list)

    @property
    def endpoints6(self) -> str:
        """The same by IPv6, where that is served."""
        return ",".join(_url6(host) for host in self.hosts)

    @property
    def cluster_store(self) -> str:
        """The value of dockerd's ``--cluster-store``."""
        return "etcd://" + ",".join(f"{host.address}:{CLIENT}" for host in self.hosts)

    def member(self, name: str) -> Host:
        return next(host for host in self.hosts if host.name == name)

    def start(self, *names: str) -> None:
        """Start the members named, or all that do not run, and wait until each answers with a leader."""
        started = [host for host in self._chosen(names) if not self.is_running(host.name)]
        for host in started:
            self._running[host.name] = host.popen(self._command(host), name="etcd")
        for host in started:
            wait_until(f"etcd on {host.name} (see {host.folder}/etcd.out)", functools.partial(self._settled, host))

    def _command(self, host: Host) -> list[str]:
        cluster = ",".join(f"{each.name}=http://{each.address}:{PEER}" for each in self.hosts)
        heartbeat, election = (20, 200) if len(self.hosts) == 1 else (50, 500)
        client, peer = f"http://{host.address}:{CLIENT}", f"http://{host.address}:{PEER}"
        listen = [client, f"http://127.0.0.1:{CLIENT}", *([_url6(host)] if self.ipv6 else [])]
        return [
            *("etcd", "--name", host.name, "--data-dir", _DATA, "--enable-v2"),
            *("--listen-client-urls", ",".join(listen), "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", cluster),
            *("--initial-cluster-token", self.fabric.id, "--initial-cluster-state", "new"),
            *("--heartbeat-interval", str(heartbeat), "--election-timeout", str(election)),
        ]

    def _settled(self, host: Host) -> bool:
        process = self._running[host.name]
        if not process.alive:
            raise RuntimeError(f"etcd on {host.name} ended with {process.exit}:\n{process.text[-2000:]}")
        return self.is_healthy(host.name)

    def is_running(self, name: str) -> bool:
        process = self._running.get(name)
        return process is not None and process.alive

    def is_healthy(self, name: str) -> bool:
        """Whether the member answers and knows a leader."""
        host = self.member(name)
        with host.entered():
            connection = http.client.HTTPConnection(str(host.address), CLIENT, timeout=1.0)
            try:
                connection.request("GET", "/health")
                return bool(json.loads(connection.getresponse().read()).get("health") == "true")
            except (OSError, ValueError, http.client.HTTPException):
                return False
            finally:
                connection.close()

    def stop(self, *names: str, kill: bool = False) -> None:
        """End the members named, or all; `kill` as ``kill -9`` does. Their data stays for `start()`."""
        for host in self._chosen(names):
            if process := self._running.pop(host.name, None):
                process.kill() if kill else process.terminate()

    def compact(self) -> int:
        """Compact the history up to now and return the revision: watches from before it are told so."""
        status = json.loads(self.etcdctl("endpoint", "status", "--write-out=json").stdout)
        revision = int(status[0]["Status"]["header"]["revision"])
        self.etcdctl("compact", str(revision), "--physical")
        return revision

    def etcdctl(self, *arguments: str, stdin: str = "", check: bool = True) -> Done:
        """Run ``etcdctl`` (v3 API) on the first member that runs."""
        running = [host for host in self.hosts if self.is_running(host.name)]
        host = (running or self.hosts)[0]
        return host.run(["etcdctl", *arguments], env={"ETCDCTL_API": "3"}, stdin=stdin, check=check)

    def contents(self, prefix: str = "/") -> dict[str, str]:
        """Return the v3 keys below `prefix` with their values, in order of the keys."""
        answer = json.loads(self.etcdctl("get", prefix, "--prefix", "--write-out=json").stdout)
        return {_text(pair["key"]): _text(pair.get("value", "")) for pair in answer.get("kvs", ())}

    def _chosen(self, names: Sequence[str]) -> list[Host]:
        return [host for host in self.hosts if not names or host.name in names]

    def close(self) -> None:
        for host in self.hosts:
            host.close()

    def __enter__(self) -> "Etcd":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _url6(host: Host) -> str:
    return f"http://[{host.address6}]:{CLIENT}"


def _text(encoded: str) -> str:
    return base64.b64decode(encoded).decode()
