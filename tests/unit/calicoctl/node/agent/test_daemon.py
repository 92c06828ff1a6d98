"""The agent as it runs: it follows a store in threads of its own, answers on its socket, and ends when told."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from calicoctl.node.agent import options
from calicoctl.node.agent.daemon import Daemon, main
from fakes.ipam_world import World
from resources.datastore.client import ResourceClient
from resources.datastore.memory import MemoryStore
from resources.kinds.node import KIND as NODE
from resources.names import NodeName
from resources.runtime import health


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20.0
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_follows_the_store_and_leaves_everything_when_it_ends(tmp_path: Path) -> None:
    world = World(MemoryStore())
    world.node("node1")
    daemon = Daemon(NodeName("node1"), options.from_environment({"CALICO_RUN_DIR": str(tmp_path)}), world.store)
    thread = threading.Thread(target=daemon.run, daemon=True)
    thread.start()
    socket = tmp_path / "agent.sock"
    until(lambda: health.ask(socket, "/readiness")[0] == 204)

    def recorded() -> str:
        bgp = ResourceClient(world.store).get(NODE, "node1").spec.bgp
        return bgp.ipv4_ipip_tunnel_addr if bgp else ""

    assert recorded() == ""
    world.pool("10.1.0.0/24", ipipMode="Always")
    until(lambda: bool(recorded()))
    until(lambda: recorded() in health.ask(socket, "/state")[1])
    daemon.stop()
    thread.join(10.0)
    assert not thread.is_alive()
    assert [str(address) for address in world.held()] == [recorded()]


def test_a_setting_that_cannot_be_used_ends_the_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert main({"CALICO_AGENT_AUDIT_SECONDS": "often", "NODENAME": "node1"}) == 1
    assert "CALICO_AGENT_AUDIT_SECONDS = 'often' cannot be used" in capsys.readouterr().err
