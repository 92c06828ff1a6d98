"""Plays the record and sums up: what `make demo` runs."""

import signal
import sys

from bed.claim import Claim
from bed.cluster import Cluster
from bed.demo.record import ID, NODES, Record, plans
from bed.demo.script import Script


def main(*, keep: bool) -> int:
    """Play the record on a bed of its own; the exit code is 0 only if every step holds."""
    owner = Claim(ID).owner
    if owner is not None and (owner.alive or owner.kept):
        print("a demo is up already; `make demo-down` removes it", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(129))
    script = Script()
    script.say("three hosts and an etcd in namespaces of this machine; nothing leaves it")
    try:
        with Cluster(plans(), id=ID) as cluster:
            if keep:
                cluster.keep()
            record = Record(cluster, script)
            try:
                record.play()
            finally:
                if not script.passed:
                    _show_logs(record, script)
            print(script.summary(), flush=True)
            if keep:
                print(_how_to_go_on(), flush=True)
    except KeyboardInterrupt:
        print("\ninterrupted; the hosts are removed", file=sys.stderr)
        return 130
    return 0 if script.passed else 1


def _show_logs(record: Record, script: Script) -> None:
    for host in record.hosts:
        done = host.run("tail -n 15 /var/log/calico/*/current 2>/dev/null", check=False)
        if done.stdout:
            script.say(f"\nlast lines of the daemons on {host.node}\n{done.stdout}")


def _how_to_go_on() -> str:
    shells = "\n".join(f"  make shell HOST={node}" for node in NODES)
    return (
        "\nthe hosts are up, with Docker, and without our daemons, which the last step stopped; a shell on each:\n"
        f"{shells}\nto go on there:\n  NODENAME=node1 calicoctl node run\nand to remove them:\n  make demo-down"
    )
