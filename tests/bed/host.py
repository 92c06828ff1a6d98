"""Hosts: machines in all but the kernel, made of namespaces (reference libnetwork.md 10, start.md 4.1)."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from bed import namespaces
from bed.claim import sweep_cgroups
from bed.command import Command, Done, Process, children, clean_environment, run, wait_until
from bed.fabric import Fabric
from bed.probes import Prober

# entry of the machine's folder that a host must not see: it has its own, empty at first
_OWN_ETC = {"hosts", "hostname", "resolv.conf", "calico", "docker", "cni", "iptables", "nftables.conf", "alternatives"}
_OWN_LIB = {"calico", "docker", "docker-engine", "containerd", "cni", "etcd"}

# What the first process of a host does. $1: the host's folder, $2: its own name. The machine's /etc is there below
# /run/machine, read-only, and its entries are linked from the host's own /etc; /var/lib likewise.
# A fresh sysfs shows the links of this network namespace; the cgroups, which hang below it, are carried over: dockerd
# needs them. Loose reverse path filtering is what systemd sets on a Debian host.
_BOOT = """
set -e
echo "$2" >/proc/sys/kernel/hostname
umount -R -l /run/netns 2>/dev/null || true
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/docker/plugins /run/lock /run/machine/etc /run/machine/lib
mount --bind /etc /run/machine/etc
mount -o remount,bind,ro /run/machine/etc
mount --rbind /var/lib /run/machine/lib
mount --bind "$1/etc" /etc
mount --bind "$1/lib" /var/lib
mount --bind "$1/log" /var/log
if [ -d /sys/fs/cgroup ]; then
    mkdir /run/machine/cgroup
    mount --rbind /sys/fs/cgroup /run/machine/cgroup
    mount -t sysfs sysfs /sys
    mount --move /run/machine/cgroup /sys/fs/cgroup
fi
echo 0 >/proc/sys/net/ipv4/ip_forward
for file in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 2 >"$file"; done
echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter
: >"$1/ready"
exec tini -- sleep infinity
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Firewall:
    """INPUT and FORWARD policy DROP; open in INPUT: loopback, established, ICMP echo and what `open` says.

    `open` holds matches as iptables takes them, such as ``-p tcp --dport 179``; the target ACCEPT is added. `open6` is
    the same for ip6tables, without the echo, and None leaves IPv6 open.
    """

    open: Sequence[str] = ()
    open6: Sequence[str] | None = None

    def restore_text(self, version: int = 4) -> str:
        echo = ["-p icmp --icmp-type echo-request"] if version == 4 else []
        opened = self.open if version == 4 else self.open6 or ()
        rules = ["-i lo", "-m conntrack --ctstate RELATED,ESTABLISHED", *echo, *opened]
        lines = [f"-A INPUT {rule} -j ACCEPT" for rule in rules]
        policies = [":INPUT DROP [0:0]", ":FORWARD DROP [0:0]", ":OUTPUT ACCEPT [0:0]"]
        return "\n".join(["*filter", *policies, *lines, "COMMIT", ""])


class Host(Prober):
    """A host on the fabric: network, mount, UTS and PID namespace of its own, tini as its first process.

    Private to it: /run, /etc/{hosts,resolv.conf,calico,docker}, /var/lib/{calico,docker}, /var/log, /sys, /proc, its
    host name, its addresses. Shared with the machine: every other file, so the virtual environment and the source tree.
    No name server, and a default route that leads to the fabric and no further. IPv4 forwarding is off, as on a host
    that was just installed. IPv6 is on, as everywhere, with an address of the fabric if the host is made so.

    Args:
        name: what the bed calls it, and the default of the two names below (11 bytes at most).
        hostname: the host's own name, as ``hostname`` prints it.
        node: the NODENAME, in the environment of every command run here.
        address: on the fabric; the next free one by default.
        ipv6: give it `address6` beside the other, and a default route.
        iptables: the variant that the programs iptables, iptables-save ... are on this host, for Docker too.
    """

    def __init__(
        self,
        fabric: Fabric,
        name: str,
        *,
        hostname: str | None = None,
        node: str | None = None,
        address: IPv4Address | None = None,
        firewall: Firewall | None = None,
        ipv6: bool = False,
        iptables: str = "nft",
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.fabric, self.name, self.iptables = fabric, name, iptables
        self.hostname, self.node = hostname or name, node or name
        self.address = address or fabric.next_address()
        self.address6, self.ipv6 = fabric.beside(self.address), ipv6
        self.env: dict[str, str] = {"NODENAME": self.node, **(env or {})}
        self.folder = fabric.folder / name
        self.cgroup = fabric.claim.prefix + name
        self.port = f"to-{name}"
        self._firewall = firewall
        self._processes: list[Process] = []
        self._make_folders()
        self.save_env()
        self._boot()
        fabric.add(self)

    def _make_folders(self) -> None:
        for part in ("etc", "lib", "log"):
            (self.folder / part).mkdir(parents=True)
        for part, machine, own in (("etc", Path("/etc"), _OWN_ETC), ("lib", Path("/var/lib"), _OWN_LIB)):
            for entry in os.listdir(machine):
                if entry not in own:
                    (self.folder / part / entry).symlink_to(f"/run/machine/{part}/{entry}")
        self._choose_iptables()
        etc = self.folder / "etc"
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {self.hostname}\n")
        (etc / "hostname").write_text(f"{self.hostname}\n")
        (etc / "resolv.conf").write_text("")
        for folder in (etc / "calico", etc / "docker", self.folder / "lib" / "calico", self.folder / "log" / "calico"):
            folder.mkdir()
        (self.folder / "boot").write_text(_BOOT)

    def _choose_iptables(self) -> None:
        """Do as ``update-alternatives --set iptables`` does, on this host alone."""
        own = self.folder / "etc" / "alternatives"
        own.mkdir()
        for entry in os.listdir("/etc/alternatives"):
            family, _, rest = entry.partition("-")
            ours = family in ("iptables", "ip6tables")
            program = "-".join(filter(None, (family, self.iptables, rest)))
            (own / entry).symlink_to(f"/usr/sbin/{program}" if ours else f"/run/machine/etc/alternatives/{entry}")

    def _boot(self) -> None:
        self.net = self.fabric.namespace(self.name)
        self.fabric.join(self.port, self.net)
        ready = self.folder / "ready"
        ready.unlink(missing_ok=True)
        with (self.folder / "boot.log").open("ab") as log:
            self._unshare = subprocess.Popen(
                [
                    *("nsenter", f"--net={self.net.path}", "unshare", "--mount", "--uts", "--pid", "--fork"),
                    *("--kill-child", "--mount-proc", "--propagation", "private"),
                    *("sh", str(self.folder / "boot"), str(self.folder), self.hostname),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=clean_environment(),
                start_new_session=True,
            )
        self.net.ip(
            batch=f"addr add {self.address}/{self.fabric.subnet.prefixlen} dev eth0\n"
            "link set eth0 up\n"
            f"route add default via {self.fabric.address}\n"
        )
        if self.ipv6:
            self.net.ip("addr", "add", f"{self.address6}/{self.fabric.subnet6.prefixlen}", "dev", "eth0", "nodad")
            self.net.ip("-6", "route", "add", "default", "via", str(self.fabric.address6))
        wait_until(
            f"{self.name} to boot (see {self.folder}/boot.log)",
            lambda: ready.exists() or self._unshare.poll() is not None,
            every=0.005,
        )
        if self._unshare.poll() is not None:
            raise RuntimeError(f"{self.name} did not boot:\n{(self.folder / 'boot.log').read_text()}")
        self.pid = children(self._unshare.pid)[0]
        (self.folder / "pid").write_text(f"{self.pid}\n")
        if self._firewall:
            self.run(["iptables-restore"], stdin=self._firewall.restore_text())
            if self._firewall.open6 is not None:
                self.run(["ip6tables-restore"], stdin=self._firewall.restore_text(6))

    # -- what to do on it

    @property
    def enter_words(self) -> list[str]:
        """The words that put a command into this host; only absolute paths survive them."""
        return enter_words(self.pid)

    def run(
        self,
        command: Command,
        *,
        timeout: float = 30.0,
        stdin: str = "",
        env: Mapping[str, str] | None = None,
        check: bool = True,
        netns: Path | None = None,
    ) -> Done:
        """Run a command on this host and wait for its end; the working directory is ``/``.

        `netns` is another network namespace to run it in, such as a workload's.

        Raises:
            CommandFailed: it did not end with 0 (unless `check` is off), or not in time.
        """
        prefix = enter_words(self.pid, netns)
        merged = {**self.env, **(env or {})}
        return run(command, prefix=prefix, timeout=timeout, stdin=stdin, env=merged, check=check, where=self.name)

    def popen(
        self, command: Command, *, name: str = "", env: Mapping[str, str] | None = None, netns: Path | None = None
    ) -> Process:
        """Leave a command running on this host; its output goes to a file, `Process.text` reads it.

        It dies with the host at the latest.
        """
        name = name or shlex.split(command)[0] if isinstance(command, str) else name or Path(command[0]).name
        log = self.folder / f"{Path(name).name}.out"
        merged = {**self.env, **(env or {})}
        process = Process(f"{self.name}: {name}", command, log=log, prefix=enter_words(self.pid, netns), env=merged)
        self._processes.append(process)
        return process

    def entered(self) -> contextlib.AbstractContextManager[None]:
        """Put the calling thread into this host's network namespace (not its files): ``with host.entered():``."""
        return self.net.entered()

    def ip(self, *arguments: str, batch: str = "", check: bool = True) -> Done:
        """Run ``ip`` on this host's network namespace: ``host.ip("-j", "route")``."""
        return self.net.ip(*arguments, batch=batch, check=check)

    def path(self, inside: str | Path) -> Path:
        """Return where the machine finds this host's file `inside` (absolute, without symbolic links on the way)."""
        return Path(f"/proc/{self.pid}/root") / str(inside).lstrip("/")

    def write_file(self, inside: str | Path, text: str, *, mode: int = 0o644) -> None:
        """Write a file as this host sees it, with the folders it needs."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def read_file(self, inside: str | Path) -> str:
        return self.path(inside).read_text(errors="replace")

    def sysctl(self, name: str, value: object | None = None) -> str:
        """Set, or with no value read, a sysctl of this host: ``host.sysctl("net.ipv4.ip_forward", 1)``."""
        path = f"/proc/sys/{name.replace('.', '/')}"
        if value is not None:
            self.net.run(f"echo {value} >{path}")
        return self.net.run(["cat", path]).stdout.strip()

    def open_port(self, *matches: str) -> None:
        """Let traffic in: ``host.open_port("-p tcp --dport 179")``."""
        for match in matches:
            self.run(["iptables", "-A", "INPUT", *match.split(), "-j", "ACCEPT"])

    def save_env(self) -> None:
        """Note `env`, so that `python -m bed shell` has the same."""
        (self.folder / "env").write_text(json.dumps(self.env))

    # -- its life

    def reboot(self) -> None:
        """Kill everything on the host, as a power cut does, and boot it again; its disk stays."""
        self._power_off()
        self._boot()

    def power_off(self) -> None:
        """Kill everything on the host and pull its cable; `reboot()` brings it back."""
        self._power_off()

    def _power_off(self) -> None:
        for pid in children(self._unshare.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._unshare.wait(20)
        for process in self._processes:
            process.wait(20)
        self._processes.clear()
        namespaces.delete(self.net.netns)
        self.fabric.unplug(self.port)
        sweep_cgroups(self.cgroup)

    def close(self) -> None:
        """Remove the host and its disk; closing twice is fine."""
        if self.folder.exists():
            self._power_off()
            shutil.rmtree(self.folder)

    def __enter__(self) -> "Host":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def enter_words(pid: int, netns: Path | None = None) -> list[str]:
    """Return the words that run a command in the namespaces of the host whose first process is `pid`.

    ``nsenter``, not ``ip netns exec``: that mounts a fresh /sys and hides the cgroups dockerd needs.
    """
    net = f"--net={netns}" if netns else "-n"
    return ["nsenter", "-t", str(pid), "-m", net, "-u", "-p", "--"]
