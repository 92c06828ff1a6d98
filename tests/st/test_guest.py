"""The guest with another kernel, and what the bed can do in it."""

import sys

import pytest

from bed import CommandFailed, Fabric, Firewall, Host
from bed.guest import run_in_guest
from bed.probes import PingResult


def test_a_guest_returns_what_its_job_said_and_how_it_ended() -> None:
    job = (
        "import sys, pathlib; print('hello', sys.argv[1]); pathlib.Path('/run/guest/left').write_text('x'); sys.exit(7)"
    )
    done = run_in_guest([sys.executable, "/run/guest/job.py", "you there"], files={"job.py": job}, check=False)
    assert (done.exit, done.stdout) == (7, "hello you there\n")
    with pytest.raises(CommandFailed, match="ended with 7"):
        run_in_guest(["sh", "-c", "exit 7"])


def test_a_guest_cannot_write_to_the_machine_or_outlive_its_time() -> None:
    done = run_in_guest(["sh", "-c", "touch /srv/bed-guest-was-here; mkdir /etc/bed-guest-was-here"], check=False)
    assert done.stdout.count("Read-only file system") == 2
    with pytest.raises(CommandFailed, match="killed after 5 s"):
        run_in_guest(["sleep", "1000"], timeout=5)
    with pytest.raises(CommandFailed, match="without an exit code"):
        run_in_guest(["sh", "-c", "busybox poweroff -f; sleep 100"])


@pytest.mark.ipip
def test_hosts_tunnel_ipip_to_each_other(fabric: Fabric) -> None:
    one, two = Host(fabric, "node1", firewall=Firewall()), Host(fabric, "node2", firewall=Firewall())
    for host, inner, other, other_inner in ((one, "10.99.0.1", two, "10.99.0.2"), (two, "10.99.0.2", one, "10.99.0.1")):
        host.ip("link", "add", "ipip1", "type", "ipip", "local", str(host.address), "remote", str(other.address))
        host.ip(batch=f"addr add {inner}/32 dev ipip1\nlink set ipip1 up\nroute add {other_inner} dev ipip1\n")
    assert not one.ping("10.99.0.2").ok
    for host in (one, two):
        host.open_port("-p 4")
    answer: PingResult = one.ping("10.99.0.2", timeout=5)
    assert answer.ok, answer
    assert int(two.read_file("/sys/class/net/ipip1/statistics/rx_packets")) >= 1
