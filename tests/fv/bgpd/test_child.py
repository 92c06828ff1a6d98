"""ExaBGP as a real process: what an earlier bgpd left running."""

import queue
import subprocess
import sys
from ipaddress import IPv4Address
from pathlib import Path

from bed import Namespace
from bgpd import pidfile
from bgpd.child import ExabgpChild
from bgpd.render import configuration, environment
from bgpd.speaker import ChildEnded, ChildMessage


def test_an_exabgp_whose_pid_was_never_written_is_ended_before_another_is_started(
    netns: Namespace, tmp_path: Path
) -> None:
    # what bgpd leaves if it is killed right after it has started one
    command = [sys.executable, "-c", "import time; print(1, flush=True); time.sleep(60)", "server"]
    left = subprocess.Popen(
        [*command, str(tmp_path / "exabgp.conf")], stdout=subprocess.PIPE, start_new_session=True
    )
    assert left.stdout is not None
    left.stdout.readline()
    messages: queue.SimpleQueue[ChildMessage] = queue.SimpleQueue()
    child = ExabgpChild(run=tmp_path, log=tmp_path / "log", post=messages.put, say=lambda _: None)
    assert child.find() is None
    with netns.entered():
        pid = child.start(configuration([], IPv4Address("10.0.0.1"), child.relay_command), environment([], 1790))
    try:
        assert left.wait(10) < 0
        assert pidfile.read(tmp_path / "exabgp.pid") == pid
    finally:
        left.kill()
        left.communicate()
        child.end(hard=True)
        child.close()
    while not isinstance(found := messages.get(timeout=20), ChildEnded):
        pass
    assert found.pid == pid
