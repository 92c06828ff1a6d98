"""What one change costs felix, with little and with much there; and how it starts, what it takes, what it stands.

Times go from just before the write to the store to the first answer to a ping through the rules in question. The
reference is a shell script that makes the same difference with `ip`, `ipset` and `iptables-restore` (IPv4 only: that is
all the ping needs), on a host with the same state, in turn with ours.
"""

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

from felix_world import (
    LARGE,
    SMALL,
    KernelText,
    Pinger,
    Record,
    Size,
    World,
    background_policy,
    endpoint_id,
    grant,
    script,
)
from results import Row

from bed.command import clean_environment
from bed.host import Host
from bed.workload import Workload
from fakes.felix_records import policy, rule, workload
from felix.dataplane.sets import SetEffector
from felix.desired import IPSet, SetChange
from kernel.sets import IpsetSets
from kernel.sets_netlink import NetlinkSets
from resources.datastore.keys import ResourceKey
from resources.kinds.rule import EntityRule, Rule
from resources.kinds.workloadendpoint import WorkloadEndpointSpec

UPS, CHANGES, STARTS, CROWDS, SETS = 15, 15, 3, 7, 5
SIZES = (SMALL, LARGE)
CLIENT, TARGETS = "10.66.0.1", ["10.66.0.11", "10.66.0.12"]
_CLOCK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Place:
    """The client and what it pings, on one host."""

    host: Host
    client: Workload
    targets: Sequence[Workload]
    pinger: Pinger


def record_of(name: str, address: str, *, role: str = "r1", app: str = "a0") -> Record:
    return workload(endpoint_id(name, 0), f"{address}/32", profiles=["net-a"], labels={"app": app, "role": role},
                    mac="")


def place(host: Host) -> Place:
    def attach(name: str, address: str) -> Workload:
        spec = record_of(name, address)[1].spec
        assert isinstance(spec, WorkloadEndpointSpec)
        interface = spec.interface_name
        return Workload(host, name, address, interface=interface)

    client = attach("client", CLIENT)
    targets = [attach(f"target{number}", address) for number, address in enumerate(TARGETS)]
    return Place(host, client, targets, Pinger(client))


def run_script(host: Host, text: str) -> subprocess.Popen[bytes]:
    """Start a shell script in a host's network, by the shortest way."""
    with host.entered():
        process = subprocess.Popen(["sh"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=clean_environment())
    assert process.stdin is not None
    process.stdin.write(text.encode())
    process.stdin.close()
    return process


def timed_script(there: Place, text: str, target: IPv4Address) -> float:
    """Run a script; return milliseconds until the target answers."""
    began = time.monotonic()
    process = run_script(there.host, text)
    took = there.pinger.until_answered(target) - began
    assert process.wait() == 0, text
    return took * 1000


def done_script(there: Place, text: str) -> None:
    assert run_script(there.host, text).wait() == 0, text


class Bench:
    """One world, and the samples of a size."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ours = place(world.host)
        self.theirs = place(world.reference)
        for there in (self.theirs,):
            for each in (there.client, *there.targets):
                there.host.net.run(settings_of(each.interface))
        self.restore = f"iptables-{world.variant}-restore"

    def write(self, *records: Record, remove: Sequence[ResourceKey] = ()) -> None:
        self.world.settle(self.world.put(*records, remove=remove))

    def changed(self, act: Callable[[], object]) -> tuple[KernelText, KernelText]:
        before = self.world.kernel_text()
        act()
        return before, self.world.kernel_text()

    def alternate(
        self, count: int, target: IPv4Address, change: Record, undo: Callable[[], None], there: str, back: str
    ) -> tuple[list[float], list[float]]:
        """Return milliseconds of felix and of the script, in turn."""
        ours, theirs = [], []
        for _ in range(count):
            assert not self.ours.pinger.is_answered(target, 0.02)
            began = time.monotonic()
            revision = self.world.put(change)
            ours.append((self.ours.pinger.until_answered(target) - began) * 1000)
            self.world.settle(revision)
            undo()
            assert not self.theirs.pinger.is_answered(target, 0.02)
            theirs.append(timed_script(self.theirs, there, target))
            done_script(self.theirs, back)
        return ours, theirs

    def size(self, size: Size, wanted: set[str]) -> dict[str, tuple[list[float], list[float]]]:
        """Bring everything to a size and take the samples."""
        world, found = self.world, {}
        client, target = record_of("client", CLIENT, role="client"), record_of("target0", TARGETS[0])
        world.settle(world.grow(size))
        self.write(client)
        world.wipe(world.reference)
        world.mirror()
        address = IPv4Address(TARGETS[0])
        name = self.ours.targets[0].interface
        route = f"ip route add {address} dev {name} proto 80"
        before, after = self.changed(lambda: self.write(target))
        up = script(before, after, restore=self.restore, extra=[settings_of(name), route])
        down = script(after, before, restore=self.restore, first=[route.replace("add", "del")])
        if "up" in wanted:
            self.write(remove=[target[0]])
            found["up"] = self.alternate(UPS, address, target, lambda: self.write(remove=[target[0]]), up, down)
            self.write(target)
        done_script(self.theirs, up)
        closed = policy("grant", "has(app)", [Rule(action="Deny")], [Rule(action="Allow")],
                        types=["Ingress", "Egress"], order=5000)
        if "policy" in wanted:
            before, after = self.changed(lambda: self.write(closed))
            there = script(after, before, restore=self.restore)
            back = script(before, after, restore=self.restore)
            done_script(self.theirs, back)
            found["policy"] = self.alternate(CHANGES, address, grant("client"), lambda: self.write(closed), there, back)
            self.write(grant("client"))
            done_script(self.theirs, there)
        if "label" in wanted:
            other = record_of("client", CLIENT, role="r2")
            before, after = self.changed(lambda: self.write(other))
            there = script(after, before, restore=self.restore)
            back = script(before, after, restore=self.restore)
            done_script(self.theirs, back)
            found["label"] = self.alternate(CHANGES, address, client, lambda: self.write(other), there, back)
        self.write(remove=[target[0]])
        return found


def settings_of(interface: str) -> str:
    """Return commands for the settings that an endpoint's interface needs."""
    values = {"rp_filter": 0, "route_localnet": 1, "forwarding": 1, "proxy_arp": 1}
    lines = [f"echo {value} >/proc/sys/net/ipv4/conf/{interface}/{name}" for name, value in values.items()]
    return "\n".join([*lines, f"echo 0 >/proc/sys/net/ipv4/neigh/{interface}/proxy_delay"])


def memory_mb(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) / 1024


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _CLOCK


TITLES = {
    "up": "endpoint up, write to first ping answered",
    "policy": "one policy changed, write to effect",
    "label": "one label changed, write to effect",
}
FLAT = {"up": 1.3, "policy": 1.3, "label": 1.3}


def change_rows(back_end: str, wanted: set[str]) -> Iterator[Row]:
    """Endpoint up, policy change, label change, at both sizes."""
    with World(back_end) as world:
        bench = Bench(world)
        world.start()
        found: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
        for size in SIZES:
            found[size.name] = bench.size(size, wanted)
        for what, title in TITLES.items():
            if what not in wanted:
                continue
            small, large = found["small"][what], found["large"][what]
            reference = "shell: ip, ipset, iptables-restore"
            yield Row(name=f"{title}, small, {back_end}", samples=small[0], reference_name=reference,
                      reference=small[1], aim=3 if what == "up" else None)
            yield Row(name=f"{title}, large, {back_end}", samples=large[0], reference_name=reference,
                      reference=large[1])
            yield Row(name=f"{title}: large to small, {back_end}", samples=large[0], reference_name="ours, small",
                      reference=small[0], aim=FLAT[what] if back_end == "NFT" else None)


def rest_rows(back_end: str, wanted: set[str]) -> Iterator[Row]:
    """Memory and CPU of a felix that was started at a size and has nothing to do."""
    with World(back_end) as world:
        for size in SIZES:
            revision = world.grow(size)
            felix = world.start()
            world.settle(revision)
            time.sleep(2.0)  # what it read is let go
            if "memory" in wanted:
                yield Row(name=f"memory of felix, {size.name}, {back_end}", samples=[memory_mb(felix.pid)],
                          unit="MB", aim=80, absolute=True)
            if "idle" in wanted:
                yield Row(name=f"CPU of felix when idle, {size.name}, {back_end}", samples=[idle(felix.pid)],
                          unit="%", aim=1, absolute=True)
            world.stop()


def idle(pid: int, seconds: float = 8.0) -> float:
    began, cpu = time.monotonic(), cpu_seconds(pid)
    time.sleep(seconds)
    return (cpu_seconds(pid) - cpu) / (time.monotonic() - began) * 100


def start_rows(back_end: str) -> Iterator[Row]:
    """From the start of the process to a kernel that is right, at the larger size, on a host with nothing there."""
    with World(back_end) as world:
        world.grow(LARGE)
        revision = world.put(record_of("client", CLIENT, role="client"))
        world.start()
        world.settle(revision)
        files = world.state_files()
        ours, again, theirs = [], [], []
        for _ in range(STARTS):
            world.stop()
            world.wipe(world.host)
            ours.append(started(world, revision))
            world.stop()
            again.append(started(world, revision))
            world.wipe(world.reference)
            began = time.monotonic()
            for command, text in files.items():
                world.reference.run(command, stdin=text, timeout=60)
            theirs.append(time.monotonic() - began)
        reference = "ipset restore, iptables-restore, ip -batch from files"
        yield Row(name=f"start, large, {back_end}", samples=ours, unit="s", reference_name=reference,
                  reference=theirs, aim=6)
        yield Row(name=f"start on a kernel that is right, large, {back_end}", samples=again, unit="s",
                  reference_name=reference, reference=theirs)


def started(world: World, revision: int) -> float:
    """Start felix; return the seconds until the kernel is as the store says."""
    began = time.monotonic()
    world.start()
    world.settle(revision)
    return time.monotonic() - began


def crowd_rows(back_end: str) -> Iterator[Row]:
    """A policy with a thousand rules, and a thousand policies on one endpoint."""
    with World(back_end) as world:
        bench = Bench(world)
        world.start()
        world.settle(world.grow(SMALL))
        address = IPv4Address(TARGETS[0])
        client, target = record_of("client", CLIENT, role="client"), record_of("target0", TARGETS[0])
        bench.write(client, target)
        rules = [rule("Deny", "TCP", source=EntityRule(nets=[f"10.{n >> 8}.{n & 255}.0/24"])) for n in range(999)]
        rules.append(rule("Allow", "ICMP", source=EntityRule(selector="role == 'client'")))
        long = policy("grant", "has(app)", rules, [Rule(action="Allow")], types=["Ingress", "Egress"], order=5000)
        short = policy("grant", "has(app)", [Rule(action="Deny")], [Rule(action="Allow")],
                       types=["Ingress", "Egress"], order=5000)
        bench.write(short)
        before, after = bench.changed(lambda: bench.write(long))
        there, back = script(before, after, restore=bench.restore), script(after, before, restore=bench.restore)
        bench.write(short)
        world.wipe(world.reference)
        world.mirror()
        reference = "shell: ip, ipset, iptables-restore"
        ours, theirs = bench.alternate(CROWDS, address, long, lambda: bench.write(short), there, back)
        yield Row(name=f"a policy of 1,000 rules, write to effect, {back_end}", samples=ours, reference_name=reference,
                  reference=theirs)
        world.settle(world.grow(replace(SMALL, name="1,000 policies", policies=1000)))
        bench.write(grant("client"))
        alone = record_of("target0", TARGETS[0], app="b0")
        bench.write(remove=[target[0]])
        many = [background_policy(n, SMALL, app="b0", name="q") for n in range(1000)]
        world.settle(world.put(*many))
        ours = []
        for _ in range(CROWDS):
            began = time.monotonic()
            revision = world.put(alone)
            ours.append((bench.ours.pinger.until_answered(address) - began) * 1000)
            world.settle(revision)
            bench.write(remove=[target[0]])
        yield Row(name=f"endpoint up with 1,000 policies of its own, {back_end}", samples=ours)


def set_rows() -> Iterator[Row]:
    """A set of 50,000 members by felix's effector, beside the ipset program; the kernel's part only."""
    with World("NFT") as world, world.host.entered():
        members = frozenset(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(50_000))
        name, other, text = "cali40bench", "theirs", "\n".join(f"add theirs {member}" for member in members)
        fill, fill_there, one, one_there = [], [], [], []
        for _ in range(SETS):
            effector = SetEffector(NetlinkSets(IpsetSets()), maxelem=1 << 20)
            effector.want({name: IPSet("hash:net", 4, members)})
            fill.append(timed(partial(applied, effector)))
            fill_there.append(timed(partial(ipset, f"create {other} hash:net maxelem 1048576\n{text}\n")))
            for number in range(SETS):
                gone = frozenset({f"10.0.1.{number}"})
                for change in (SetChange(frozenset(), gone), SetChange(gone, frozenset())):
                    effector.want({name: change})
                    one.append(timed(partial(applied, effector)))
                for verb in ("del", "add"):
                    one_there.append(timed(partial(ipset, f"{verb} {other} 10.0.1.{number}\n")))
            ipset(f"destroy {other}\ndestroy {name}\n")
        reference = "ipset restore"
        yield Row(name="set of 50,000 members filled", samples=fill, reference_name=reference, reference=fill_there)
        yield Row(name="one member in or out of it", samples=one, reference_name=reference, reference=one_there)


def applied(effector: SetEffector) -> None:
    assert effector.apply() == {}


def ipset(text: str) -> None:
    subprocess.run(["ipset", "restore"], input=text, text=True, check=True, env=clean_environment())


def timed(act: Callable[[], object]) -> float:
    """Return milliseconds."""
    began = time.monotonic()
    act()
    return (time.monotonic() - began) * 1000
