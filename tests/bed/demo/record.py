"""The steps of the deployment record: three hosts, three pools, three networks, nine containers, one policy."""

import json
import re
import time
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import cast

from bed.cluster import Cluster, HostPlan
from bed.command import Done
from bed.daemons import complaints
from bed.demo.script import Script, StepFailed, within
from bed.dockerd import Container, Dockerd
from bed.grid import Grid, Rule, matrix
from bed.guest import machine_has
from bed.host import Firewall, Host
from bed.probes import TalkResult, tcp_connect

ID = "demo"
SUBNET = "10.77.0.0/24"
# The hosts' own names are not their node names, on purpose: this is where the author of the record lost his time.
HOSTNAMES = {"node1": "web-a", "node2": "DB-2.EXAMPLE.ORG", "node3": "node3"}
POOLS = {"calico-net1": "17.16.10.0/24", "calico-net2": "173.20.19.0/24", "calico-net3": "192.10.160.0/24"}
NODES = ("node1", "node2", "node3")
BLOCK_LENGTH = 26
REPLY_SECONDS = 1.0
"""How long a pair that should be closed is waited for."""
QUICK_SECONDS = 0.2
"""The same while a change is timed: a lost SYN is sent again only after a second."""

POOL = """\
apiVersion: v1
kind: ipPool
metadata:
  cidr: {cidr}
spec:
  ipip:
    enabled: {ipip}
  nat-outgoing: true
  disabled: false
"""
POLICY = """\
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata:
  name: net1-to-net2-web
spec:
  order: 100
  selector: has(calico-net2)
  types:
  - Ingress
  ingress:
  - action: Allow
    protocol: TCP
    source:
      selector: has(calico-net1)
    destination:
      ports: [80]
  - action: Pass
"""
_LEFT = """\
ip -o -4 addr show dev tunl0 2>/dev/null; ls /var/lib/calico/mtu 2>/dev/null
ip route show proto 80; ip route show proto 81; ip -o link | grep -o 'cali[0-9a-f]\\{11\\}'
iptables-save | grep -i cali; ipset list -n | grep -i cali; ip -o neigh show proxy; pgrep -a 'calico|exabgp'; true"""


class Record:
    """The hosts with what runs on them, and the steps one after the other."""

    def __init__(self, cluster: Cluster, script: Script) -> None:
        self.cluster, self.script = cluster, script
        self.docker: dict[str, Dockerd] = {}
        self.containers: dict[str, Container] = {}
        self.network_of: dict[str, str] = {}
        self.address_of: dict[str, IPv4Address] = {}
        self._mesh_began = 0.0
        self.has_ipip = machine_has("ipip")
        """Whether the pools have IPIP, as those of the record; plain where this machine's kernel has none."""

    @property
    def hosts(self) -> list[Host]:
        return self.cluster.hosts

    def play(self) -> None:
        """Do every step; what a step lacks because an earlier one failed is a fault of its own."""
        script = self.script
        with script.step("three hosts, etcd, the daemons by `calicoctl node run`, dockerd"):
            self.start_daemons()
        up = len(self.docker) == len(self.hosts)
        for title, work in (
            ("calicoctl node status: a full mesh", self.status),
            ("three pools from v1 files", self.pools),
            ("three Docker networks, seen by every host", self.networks),
            ("nine containers", self.start_containers),
            ("who reaches whom, names, ttl, no NAT", self.reachability),
            ("routes of each host", self.routes),
            ("one policy, on and off", self.policy),
            ("all of it removed again", self.clean),
        ):
            with script.step(title):
                if not up:
                    raise StepFailed("not tried: the hosts are not up")
                work()

    # -- 1

    def start_daemons(self) -> None:
        for host in self.hosts:
            own = host.run("hostname").stdout.strip()
            self.script.say(f"   {host.node} calls itself {own}, {host.address}; INPUT and FORWARD policy DROP")
            # from here on a command is what an operator types: the host knows its node name by itself
            host.env = {"ETCD_ENDPOINTS": self.cluster.store.endpoints, "DOCKER_CONFIG": "/run/docker-client"}
            host.save_env()
        self._open_firewalls()
        self._mesh_began = time.monotonic()
        commands = [(host, f"NODENAME={host.node} IP={host.address} calicoctl node run") for host in self.hosts]
        for done in self.script.run_each(commands, timeout=90.0):
            self.script.need("node run says that all is ready", done.ok, f"exit code {done.exit}")
        returned = time.monotonic()
        for host in self.hosts:
            meshed, _ = within(40.0, lambda host=host: self._established(host) == 2)  # type: ignore[misc]
            self.script.need(f"{host.node} has two sessions Established", meshed)
        now = time.monotonic()
        self.script.note(
            f"full mesh {now - self._mesh_began:.1f} s after `node run` was typed on the three hosts at once, "
            f"{now - returned:.1f} s after the last returned"
        )
        started = self.cluster.on_each(lambda host: Dockerd(host, self.cluster.store))
        self.docker = {dockerd.host.node: dockerd for dockerd in started}
        for done in self.script.run_on(self.hosts, "docker info --format '{{.ServerVersion}} {{.ClusterStore}}'"):
            self.script.check("dockerd answers and has the cluster store", "etcd://" in done.stdout)
        again = self.script.run(self.hosts[0], "calicoctl node run", expect=None)
        self.script.check("a second node run says that it runs already", "already" in again.text.lower(), again.text)

    def _open_firewalls(self) -> None:
        """Let in what checksystem lists, from the other nodes only. etcd is not on these hosts."""
        listed = self.script.run(self.hosts[0], "calicoctl node checksystem").stdout
        ports = re.findall(r"^\s+(tcp|udp) (\d+)\s+from the other nodes", listed, re.MULTILINE)
        for port in (("tcp", "179"), ("tcp", "7946"), ("udp", "7946")):
            self.script.check(f"checksystem lists {' '.join(port)}", port in ports)
        for protocol, port in ports:
            if port != "2379":
                rule = f"iptables -A INPUT -s {SUBNET} -p {protocol} --dport {port} -j ACCEPT"
                self.script.run_on(self.hosts, rule)

    def _established(self, host: Host) -> int:
        return host.run("calicoctl node status", check=False).stdout.count("Established")

    # -- 2

    def status(self) -> None:
        for host, done in zip(self.hosts, self.script.run_on(self.hosts, "calicoctl node status"), strict=True):
            others = [str(other.address) for other in self.hosts if other is not host]
            rows = [
                [cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if "|" in line
            ]
            self.script.check(f"{host.node} says that Calico is running", "Calico process is running." in done.stdout)
            self.script.check(
                "its headings are those of the record",
                bool(rows) and rows[0] == ["PEER ADDRESS", "PEER TYPE", "STATE", "SINCE", "INFO"],
            )
            self.script.check(
                f"{host.node} has a session up with each other node",
                [(row[0], row[1], row[2], row[4]) for row in rows[1:]]
                == [(other, "node-to-node mesh", "up", "Established") for other in others],
            )
            self.script.check("there are no IPv6 peers", "No IPv6 peers found." in done.stdout)

    # -- 3

    def pools(self) -> None:
        ipip = str(self.has_ipip).lower()
        if not self.has_ipip:
            self.script.note("this kernel has no ipip, so the pools are plain: the record's have `ipip.enabled: true`")
        for host, cidr in zip(self.hosts, POOLS.values(), strict=True):
            host.write_file("/etc/calico/ipPool.yaml", POOL.format(cidr=cidr, ipip=ipip))
            done = self.script.run(host, "calicoctl create -f /etc/calico/ipPool.yaml")
            self.script.check(
                f"the pool {cidr} is created", done.stdout.strip() == "Successfully created 1 'ipPool' resource(s)"
            )
        again = self.script.run(self.hosts[0], "calicoctl create -f /etc/calico/ipPool.yaml", expect=None)
        self.script.check("a second time is refused", again.exit != 0 and "already exists" in again.text)
        narrow = self.script.run(self.hosts[2], "calicoctl get ipPool").stdout.splitlines()
        wide = self.script.run(self.hosts[2], "calicoctl get ipPool -o wide").stdout.splitlines()
        rows = {row[0]: row[1:] for row in map(str.split, wide) if row}
        self.script.check("`get ipPool` has the column CIDR", bool(narrow) and narrow[0].split() == ["CIDR"])
        listed = [line.strip() for line in narrow[1:] if line.strip()]
        self.script.check("the pools are in order of their text", listed == sorted(listed))
        self.script.check("`-o wide` has CIDR, NAT and IPIP", rows.get("CIDR") == ["NAT", "IPIP"])
        for cidr in POOLS.values():
            self.script.check(f"{cidr} has NAT, IPIP {ipip}", rows.get(cidr) == ["true", ipip], str(rows.get(cidr)))
        self._tunnels()

    def _tunnels(self) -> None:
        """Each host has the device up, with an address from a pool."""
        for host in self.hosts:
            ready, _ = within(5.0, lambda host=host: bool(self._tunnel(host)) is self.has_ipip)  # type: ignore[misc]
            address = self._tunnel(host)
            if not self.has_ipip:
                self.script.check(f"{host.node} has no tunnel", ready, address)
                continue
            self.script.need(f"{host.node} has tunl0 with an address", ready)
            shown = self.script.run(host, f"ip -4 addr show tunl0; calicoctl ipam show --ip={address}").stdout
            of = [cidr for cidr in POOLS.values() if IPv4Address(address) in IPv4Network(cidr)]
            self.script.check(f"{address} is of a pool", len(of) == 1)
            self.script.check("IPAM names it as the tunnel's of this node", f"ipip-tunnel-addr-{host.node}" in shown)
            self.script.check("its packets are 20 bytes smaller than the links'", " mtu 1480 " in shown)

    @staticmethod
    def _tunnel(host: Host) -> str:
        """Return the address of tunl0 on a host, or nothing."""
        shown = host.run("ip -o -4 addr show dev tunl0 up", check=False).stdout.split()
        return shown[3].partition("/")[0] if len(shown) > 3 else ""

    # -- 4

    def networks(self) -> None:
        ids = {}
        for host, (network, cidr) in zip(self.hosts, POOLS.items(), strict=True):
            done = self.script.run(
                host, f"docker network create --driver calico --ipam-driver calico-ipam --subnet {cidr} {network}"
            )
            ids[network] = done.stdout.strip()
            self.script.check(f"{network} has an id", bool(re.fullmatch("[0-9a-f]{64}", ids[network])))
        wanted = {(id, name, "calico", "global") for name, id in ids.items()}
        for host in self.hosts:
            seen, _ = within(10.0, lambda host=host: self._listed(host) == wanted)  # type: ignore[misc]
            self.script.check(f"{host.node} sees the three, scope global, with the same ids", seen)
        self.script.run_on(self.hosts, "docker network ls")

    @staticmethod
    def _listed(host: Host) -> set[tuple[str, ...]]:
        form = "{{.ID}} {{.Name}} {{.Driver}} {{.Scope}}"
        text = host.run(f"docker network ls --no-trunc --filter driver=calico --format '{form}'", check=False).stdout
        return {tuple(line.split()) for line in text.splitlines()}

    # -- 5

    def start_containers(self) -> None:
        """docker-test1 to 3 are of calico-net1, on node1 to node3; 4 to 6 of calico-net2; 7 to 9 of calico-net3."""
        by_host: dict[str, list[str]] = {host.node: [] for host in self.hosts}
        for number in range(9):
            host, name, network = self.hosts[number % 3], f"docker-test{number + 1}", list(POOLS)[number // 3]
            self.network_of[name] = network
            by_host[host.node].append(name)
            self.containers[name] = Container(self.docker[host.node], name)
        for turn in range(3):  # one container of each host at a time
            names = [by_host[host.node][turn] for host in self.hosts]
            self.script.run_each(
                [
                    (self.containers[name].host, f"docker run -itd --net {self.network_of[name]} --name={name} bb:1")
                    for name in names
                ]
            )
        for name, container in self.containers.items():
            shown = self.script.run(
                container.host, f"docker exec {name} sh -c 'ip addr show dev cali0; ip route'"
            ).stdout
            found = re.search(r"inet (\S+)/32", shown)
            self.script.need(f"{name} has a /32 on cali0", found is not None)
            address = IPv4Address(found[1] if found else 0)
            self.address_of[name] = address
            pool = IPv4Network(POOLS[self.network_of[name]])
            self.script.check(f"{address} is of {pool}", address in pool)
            self.script.check("its default route is via 169.254.1.1", "default via 169.254.1.1 dev cali0" in shown)
            mtu = 1480 if self.has_ipip else 1500
            self.script.check(f"its packets have {mtu} bytes at most", f" mtu {mtu} " in shown)
        for network in POOLS:
            mine = [name for name, of in self.network_of.items() if of == network]
            self.script.check(
                f"the three of {network} are in blocks of their own", len({self.block(name) for name in mine}) == 3
            )

    def _need_containers(self) -> None:
        if len(self.address_of) < 9:
            raise StepFailed("not tried: the nine containers do not run")

    def block(self, name: str) -> IPv4Network:
        return IPv4Network(f"{self.address_of[name]}/{BLOCK_LENGTH}", strict=False)

    def host_of(self, name: str) -> str:
        return self.containers[name].host.node

    # -- 6

    def reachability(self) -> None:
        script, containers = self.script, list(self.containers.values())
        self._need_containers()
        host_addresses = {host.node: host.address for host in self.hosts}
        script.say("\n   container to container; a number is the ttl of the reply, - is no answer")
        among = self._grid(matrix(containers, self.address_of), self.same_network)
        script.say("\n   container to host")
        self._grid(matrix(containers, host_addresses), lambda source, target: True)
        script.say("\n   host to container")
        self._grid(matrix(self.hosts, self.address_of), lambda source, target: self.host_of(target) == source)
        across = [pair for pair in among.replies if self.same_network(*pair) and pair[0] != pair[1]]
        odd = [
            f"{source} to {target} {among[source, target].mark}"
            for source, target in across
            if among[source, target].mark != "62"
        ]
        script.check(f"ttl 62, two routers, on all {len(across)} ways across hosts", not odd, ", ".join(odd))
        self._names()
        self._seen_as()
        self._outside()

    def _grid(self, grid: Grid, rule: Rule) -> Grid:
        wrong = grid.wrong(rule)
        self.script.say("\n".join(f"   {line}" for line in grid.text(wrong).splitlines()))
        opened = sum(rule(*pair) for pair in grid.replies)
        text = f"{opened} pairs open, {len(grid.replies) - opened} closed, as they should be"
        self.script.check(text, not wrong, f"{len(wrong)} are wrong, in brackets")
        return grid

    def same_network(self, source: str, target: str) -> bool:
        return self.network_of[source] == self.network_of[target]

    def _names(self) -> None:
        for first, second in ((1, 2), (2, 3), (4, 5), (5, 6), (7, 8), (9, 7)):
            source, target = f"docker-test{first}", f"docker-test{second}"
            name = f"{target}.{self.network_of[target]}"
            done = self.script.run(self.containers[source].host, f"docker exec {source} ping -c 2 -W 2 {name}")
            self.script.check(
                f"{name} is {self.address_of[target]}, and no packet is lost",
                f"({self.address_of[target]})" in done.stdout and " 0% packet loss" in done.stdout,
            )
        bare = self.script.run(self.containers["docker-test1"].host, "docker exec docker-test1 ping -c 1 docker-test3")
        self.script.check("the bare name does as well", bare.ok)

    def _seen_as(self) -> None:
        """Every container serves; each client of the same network asks who it is."""
        for name, container in self.containers.items():
            targets = {other: self.address_of[other] for other in self.containers if self.same_network(name, other)}
            seen = {}
            with container.tcp_listen(8080):
                for other in targets:
                    answer = self.containers[other].tcp_connect(self.address_of[name], 8080, timeout=2.0)
                    seen[other] = answer.seen_as
            expected = {other: str(address) for other, address in targets.items()}
            self.script.check(f"{name} sees its clients' own addresses", seen == expected, str(seen))

    def _outside(self) -> None:
        """The fabric stands for the world outside: it has no route to a container, so without NAT no answer comes."""
        fabric = self.cluster.fabric
        with fabric.tcp_listen(8080):
            grid = matrix(list(self.containers.values()), {"fabric": fabric.address}, lambda a: tcp_connect(a, 8080))
        seen = {source: cast(TalkResult, reply).seen_as for (source, _), reply in grid.replies.items()}
        wanted = {name: str(container.host.address) for name, container in self.containers.items()}
        self.script.check("the world outside sees each container as its host", seen == wanted, str(seen))

    # -- 7

    def routes(self) -> None:
        self._need_containers()
        for host, done in zip(self.hosts, self.script.run_on(self.hosts, "ip route"), strict=True):
            shown = json.loads(host.ip("-j", "route").stdout)
            self.script.check(
                f"{host.node}: 3 routes to its containers, 3 blackholes, 6 blocks of the others",
                {self._route(route) for route in shown if self._is_ours(route)} == self._expected_routes(host),
                done.stdout,
            )

    @staticmethod
    def _is_ours(route: Mapping[str, object]) -> bool:
        return any(
            str(route["dst"]) != "default" and IPv4Network(str(route["dst"])).subnet_of(IPv4Network(pool))
            for pool in POOLS.values()
        )

    @staticmethod
    def _route(route: Mapping[str, object]) -> tuple[str, str]:
        if route.get("type") == "blackhole":
            return str(route["dst"]), "blackhole"
        if gateway := route.get("gateway"):
            return str(route["dst"]), f"via {gateway} dev {route.get('dev')}"
        device = str(route.get("dev"))
        return str(route["dst"]), "dev cali" if re.fullmatch("cali[0-9a-f]{11}", device) else f"dev {device}"

    def _expected_routes(self, host: Host) -> set[tuple[str, str]]:
        expected = set()
        for name, container in self.containers.items():
            if container.host is host:
                expected |= {(str(self.address_of[name]), "dev cali"), (str(self.block(name)), "blackhole")}
            else:
                device = "tunl0" if self.has_ipip else "eth0"
                expected.add((str(self.block(name)), f"via {container.host.address} dev {device}"))
        return expected

    # -- 8

    def policy(self) -> None:
        self._need_containers()
        web, other_port = ("docker-test5", 80), ("docker-test5", 81)
        host, server = self.hosts[0], self.containers["docker-test5"]
        for port in (80, 81):
            listen = f"docker exec -d docker-test5 httpd -f -p 0.0.0.0:{port} -h /www"
            self.script.run(server.host, listen)
        self.script.run(
            self.containers["docker-test2"].host, "docker exec -d docker-test2 httpd -f -p 0.0.0.0:80 -h /www"
        )
        self.script.check("before it calico-net1 does not reach calico-net2", not self._asks("docker-test1", *web))
        host.write_file("/etc/calico/policy.yaml", POLICY)
        self.script.run(host, "cat /etc/calico/policy.yaml; calicoctl apply -f /etc/calico/policy.yaml")
        opened, took = within(5.0, lambda: self._asks("docker-test1", *web, patience=QUICK_SECONDS))
        self.script.check(f"it works {took:.2f} s after calicoctl returned", opened, f"{took:.2f} s")
        answer = self._fetch("docker-test1", *web)
        self.script.check(
            "calico-net1 reaches calico-net2 on port 80, with its own address",
            answer.stdout.strip() == str(self.address_of["docker-test1"]),
        )
        self.script.check("not on port 81", not self._asks("docker-test1", *other_port))
        self.script.check("nor by ping", not self.containers["docker-test1"].ping(self.address_of["docker-test5"]).ok)
        self.script.check("nor the other way round", not self._asks("docker-test5", "docker-test2", 80))
        self.script.check("nor does calico-net3 get in", not self._asks("docker-test8", *web))
        self.script.check("calico-net2 still reaches itself on port 81", self._asks("docker-test4", *other_port))
        self.script.check("and by ping", self.containers["docker-test4"].ping(self.address_of["docker-test5"]).ok)
        self.script.run(host, "calicoctl delete -f /etc/calico/policy.yaml")
        closed, took = within(5.0, lambda: not self._asks("docker-test1", *web, patience=QUICK_SECONDS))
        self.script.check(f"without it the way is closed again after {took:.2f} s", closed)

    def _asks(self, source: str, target: str, port: int, *, patience: float = REPLY_SECONDS) -> bool:
        """Whether a TCP connection comes up, tried from inside the container."""
        with self.containers[source].entered():
            answer: TalkResult = tcp_connect(self.address_of[target], port, timeout=patience)
        return answer.ok

    def _fetch(self, source: str, target: str, port: int) -> Done:
        url = f"http://{self.address_of[target]}:{port}/cgi-bin/client"
        return self.script.run(
            self.containers[source].host, f"docker exec {source} timeout 2 wget -qO- {url}", expect=None
        )

    # -- 9

    def clean(self) -> None:
        script, first = self.script, self.hosts[0]
        in_use = script.run(first, "docker network rm calico-net1", expect=None)
        script.check("a network in use is not removed", not in_use.ok and "active endpoints" in in_use.text)
        names_by_host = {
            host.node: [name for name in self.containers if self.host_of(name) == host.node] for host in self.hosts
        }
        script.run_each([(host, f"docker rm -f {' '.join(names_by_host[host.node])}") for host in self.hosts])
        for host, network in zip(self.hosts, POOLS, strict=True):
            script.run(host, f"docker network rm {network}")
        for host in self.hosts:
            gone, _ = within(10.0, lambda host=host: self._listed(host) == set())  # type: ignore[misc]
            script.check(f"{host.node} sees no calico network any more", gone)
        for host in self.hosts:
            done = script.run(host, "calicoctl delete -f /etc/calico/ipPool.yaml")
            script.check("its pool is deleted", done.stdout.strip() == "Successfully deleted 1 'ipPool' resource(s)")
        script.run_on(self.hosts, "calicoctl node clean --yes")
        for host, done in zip(self.hosts, script.run_on(self.hosts, _LEFT), strict=True):
            script.check(f"nothing of ours is left on {host.node}", done.stdout.strip() == "", done.stdout)
        self._clean_store()
        logged = [line for host in self.hosts for line in complaints(host)]
        script.check("no daemon logged an error", not logged, "\n".join(logged[:10]))

    def _clean_store(self) -> None:
        contents = self.cluster.store.contents("/calico/")
        for what, prefix in (
            ("handle", "/calico/ipam/v2/handle/"),
            ("endpoint record", "/calico/resources/v3/projectcalico.org/workloadendpoints/"),
        ):
            left = [key for key in contents if key.startswith(prefix)]
            self.script.check(f"no {what} is left in etcd", not left, ", ".join(left))
        held = [
            key
            for key, value in contents.items()
            if key.startswith("/calico/ipam/v2/assignment/")
            and any(slot is not None for slot in json.loads(value).get("allocations", []))
        ]
        self.script.check("no address is in use in etcd", not held, ", ".join(held))


def plans() -> list[HostPlan]:
    return [HostPlan(name=node, hostname=HOSTNAMES[node], firewall=Firewall()) for node in NODES]
