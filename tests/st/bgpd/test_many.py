"""Many nodes at once, and many changes: real ExaBGP, etcd and kernels. The whole of it is in benchmarks/bgp_mesh.py (50
nodes) and benchmarks/bgp_churn.py (minutes)."""

import pytest

from bed import Cluster, wait_until
from bed.bgp import Mesh
from bed.churn import HOSTS, WITNESS, Churn
from bed.routes import routes

NODES_AT_ONCE = 12


@pytest.mark.bgp_scenario(78)
def test_a_mesh_that_starts_at_once_comes_up_and_nobody_disturbs_the_others() -> None:
    """12 nodes instead of 50, for the time it takes."""
    with Cluster(NODES_AT_ONCE) as cluster:
        # on a busy machine a node may be late with its keepalives
        mesh = Mesh(cluster, BGPD_HOLD_SECONDS="90")
        mesh.start(wait=False)
        for host in cluster.hosts:
            wait_until(
                f"{host.name} to have all blocks",
                lambda: routes(host) == mesh.expected(host.name),  # noqa: B023
                timeout=120,
                every=0.5,
            )
        mesh.await_mesh(timeout=60)
        sessions = [session for host in cluster.hosts for session in mesh.sessions(host.name).values()]
        assert len(sessions) == NODES_AT_ONCE * (NODES_AT_ONCE - 1)
        falls = sum(session["transitions"] - 1 for session in sessions)
        assert falls <= NODES_AT_ONCE, f"{falls} sessions fell while the others came up"


@pytest.mark.bgp_scenario(80)
def test_after_random_changes_every_kernel_has_what_the_records_say() -> None:
    """Seconds instead of hours; the memory and the open files of daemons that live through it stay as they are."""
    with Cluster(HOSTS) as cluster:
        churn = Churn(cluster, seed=5)
        churn.settle()
        churn.walk(4)
        churn.settle()
        before = churn.witness()
        churn.walk(8)
        churn.settle()
        after = churn.witness()
        assert after.keys() == before.keys() == {"bgpd", "exabgp", "relay"}
        for name, was in before.items():
            assert after[name].files <= was.files + 1, name
            assert after[name].memory <= was.memory + 5, name
        # and a fresh start comes to the same
        churn.start_afresh("node2")
        churn.start_afresh(WITNESS)
        churn.settle()
