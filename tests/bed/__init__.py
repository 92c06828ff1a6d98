"""The test bed: several hosts, an etcd, Docker and workloads on one machine, made of namespaces.

    from bed import Cluster, Dockerd, Etcd, Fabric, Firewall, Host, Workload, matrix

    with Fabric() as fabric:                            # the bed itself; its end removes everything on it
        etcd = Etcd(fabric)                             # or members=3; .endpoints, .stop("etcd2"), .start(), .compact()
        node1 = Host(fabric, "node1")                   # 10.77.0.1 on eth0; NODENAME=node1 in its commands
        node2 = Host(fabric, "node2", hostname="NODE2.example.org", firewall=Firewall(open=["-p tcp --dport 179"]))

        node1.run("ip route; hostname").stdout          # a text is a shell's; raises CommandFailed unless it ends in 0
        node1.run(["calicoctl", "get", "node"], check=False).exit
        felix = node1.popen(["calico-felix"], env={"FELIX_LOGSEVERITYSCREEN": "info"})
        felix.kill()                                    # kill -9; .terminate(), .alive, .exit, .text (its output)
        node1.write_file("/etc/calico/calicoctl.cfg", "...")
        node1.sysctl("net.ipv4.ip_forward", 1)

        web = Workload(node1, "web", "10.65.0.2", record=lambda w: store_endpoint(w.host.node, w.interface, w.address))
        client = Workload(node2, "client", "10.65.0.66", record=...)
        assert client.ping(web.address).ttl == 62       # .ok, .ttl, .rtt_seconds, .error
        with web.tcp_listen(80) as server:              # likewise udp_listen, udp_exchange
            assert client.tcp_connect(web.address, 80).seen_as == str(client.address)
        grid = matrix([web, client], [web, client])     # all pairs at once; print(grid)
        grid.expect(lambda source, target: True)        # AssertionError shows the grid and what is wrong in it

    with Cluster(3, start=node_run, ipv6=True) as cluster:  # fd00:77::1 ... beside IPv4; .address6 of hosts and etcd
        ...
    with Cluster(3, start=node_run) as cluster:         # node1 to node3 and an etcd, made in parallel; all daemons
        cluster["node1"].run("calicoctl node status")
        cluster.on_each(lambda host: host.run("ip route"))

        daemons = cluster.on_each(lambda host: Dockerd(host, cluster.store))    # with --cluster-store
        daemons[0].docker("network", "create", "--driver", "calico", "--ipam-driver", "calico-ipam", "calico-net1")
        test1 = daemons[0].run("test1", "--net", "calico-net1")                 # a Container; image bb:1 is busybox
        test1.run("ip addr").stdout                     # docker exec; test1.ping(...) and matrix([test1], ...) work too
        daemons[0].kill()                               # kill -9; .start() again, .stop() as systemctl does
        assert complaints(cluster["node1"]) == []       # what its daemons logged as an error

A **host** is a network, mount, UTS and PID namespace: /run, /sys, /proc, /var/log, /etc/calico, /etc/docker,
/etc/hosts, /etc/resolv.conf (empty), /var/lib/calico and /var/lib/docker are its own, all other files are the
machine's.
Killing its first process kills everything on it; `reboot()` does that and boots again with the same disk.
Its default route leads to the fabric, which forwards nothing: no packet of a bed leaves the machine.

**In-process probes.** ping, tcp_* and udp_* of workloads, containers, hosts and the fabric are done by this process,
whose thread enters their network namespace. `with node1.entered():` does the same for any code: sockets, pyroute2,
an etcd client (``with fabric.entered(): Store(etcd.endpoint_list)``) opened inside stay inside.

**The product without Docker.** ``from bed.network import Network`` gives workloads with an address of a pool, a profile
and an endpoint record, all written as the Docker driver writes them:

    network = Network(cluster, "net1", "10.65.0.0/24")
    web, client = network.attach(node1, "web"), network.attach(node2, "client", labels={"role": "client"})
    seconds = client.await_ping(web.address)            # until the first answer

**Another kernel.** A test marked `ipip` runs in a User Mode Linux guest where this machine's kernel has no ipip (its
rules are those of legacy iptables); `bed.guest.run_in_guest` runs any command there.

**Teardown.** The end of a `with`, an exception and Ctrl-C remove everything. After a kill -9 the next bed, or `down()`,
finds the rest: network namespaces ``bed-<id>-*``, cgroups of that name, and a folder below /var/tmp/calico-bed.
`fabric.keep()` leaves a bed up; `down(id)` removes it.

Only the standard library is used here, and Debian's packages: iproute2, util-linux, tini, iptables, etcd, docker.io
20.10, busybox-static, user-mode-linux.
"""

from bed.claim import down
from bed.cluster import Cluster, HostPlan
from bed.command import CommandFailed, Done, Process, Timeout, wait_until
from bed.daemons import complaints, node_run
from bed.dockerd import Container, Dockerd
from bed.etcd import Etcd
from bed.fabric import Fabric
from bed.grid import Grid, matrix
from bed.host import Firewall, Host
from bed.namespaces import Namespace, entered
from bed.probes import Listener, PingResult, TalkResult, ping, tcp_connect, udp_exchange
from bed.workload import Workload

__all__ = [
    "Cluster",
    "CommandFailed",
    "Container",
    "Dockerd",
    "Done",
    "Etcd",
    "Fabric",
    "Firewall",
    "Grid",
    "Host",
    "HostPlan",
    "Listener",
    "Namespace",
    "PingResult",
    "Process",
    "TalkResult",
    "Timeout",
    "Workload",
    "complaints",
    "down",
    "entered",
    "matrix",
    "node_run",
    "ping",
    "tcp_connect",
    "udp_exchange",
    "wait_until",
]
