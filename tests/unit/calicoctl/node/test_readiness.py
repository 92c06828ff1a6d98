"""When `node run` goes on waiting for a daemon, and when and how it gives up."""

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from calicoctl.node import supervisor
from calicoctl.node.readiness import LOOK_SECONDS, READY, NotReady, tail, wait_ready
from calicoctl.node.supervisor import Process, Program
from resources.runtime import paths

FELIX, BGPD = Program("felix", ("calico-felix",)), Program("bgpd", ("calico-bgpd",))


@dataclass
class Daemons:
    """Daemons whose answers and ends are functions of the time since the start."""

    answers: Mapping[str, Callable[[float], tuple[int, str]]]
    known: Callable[[float], list[Process]] = lambda _: []
    now: float = 0.0
    said: list[str] = field(default_factory=list)

    def wait(self, seconds: float = 30.0, log_sizes: Mapping[str, int] | None = None) -> None:
        def sleep(seconds: float) -> None:
            self.now += seconds

        wait_ready(
            [FELIX, BGPD], self.said.append, log_sizes=log_sizes or {}, processes=lambda: self.known(self.now),
            ask=lambda program: self.answers[program.name](self.now), seconds=seconds,
            clock=lambda: self.now, sleep=sleep,
        )


def after(seconds: float) -> Callable[[float], tuple[int, str]]:
    return lambda now: (READY, "") if now >= seconds else (503, "waiting for the datastore\nwaiting for the kernel\n")


def never(now: float) -> tuple[int, str]:
    return 0, "/run/calico/felix.sock: no such file"


def ended(name: str, at: int, status: int = 1) -> Process:
    return Process(name=name, running=False, exit_status=status, ended_at=at, trouble="Exited too quickly")


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(paths, "LOG", tmp_path)
    (tmp_path / "felix").mkdir()
    return tmp_path / "felix" / "current"


def test_each_is_said_when_it_is_ready() -> None:
    daemons = Daemons({"felix": after(1.0), "bgpd": after(0.0)})
    daemons.wait()
    assert daemons.said == ["calico-bgpd is ready", "calico-felix is ready"]
    assert daemons.now == pytest.approx(1.0, abs=0.1)


def test_one_that_waits_too_long_is_named_with_what_it_waits_for(logs: Path) -> None:
    logs.write_text("an old line\n")
    size = logs.stat().st_size
    logs.write_text("an old line\na new line\n")
    daemons = Daemons({"felix": after(99), "bgpd": after(0.0)})
    with pytest.raises(NotReady) as caught:
        daemons.wait(5.0, {"felix": size})
    assert str(caught.value) == (
        "calico-felix is not ready after 5 s: waiting for the datastore; waiting for the kernel"
    )
    assert caught.value.lines == ("a new line",)
    assert caught.value.log == logs


def test_one_that_ends_again_is_not_waited_for(logs: Path) -> None:
    logs.write_text("level=critical event=start.failed\n")
    daemons = Daemons({"felix": never, "bgpd": after(0.0)}, known=lambda now: [ended("felix", 10 if now < 2 else 12)])
    with pytest.raises(NotReady, match=r"calico-felix ends as soon as it is started \(exit status 1\)"):
        daemons.wait()
    assert 2 <= daemons.now < 2 + 2 * LOOK_SECONDS


def test_one_that_ended_once_is_waited_for() -> None:
    daemons = Daemons({"felix": after(9), "bgpd": after(0.0)}, known=lambda _: [ended("felix", 10)])
    daemons.wait()
    assert daemons.now == pytest.approx(9, abs=0.1)


def test_one_that_ends_to_be_started_with_new_settings_is_waited_for() -> None:
    """Felix does so when the store holds other settings than those it was built with (exit status 129)."""
    running = Process(name="felix", running=True, exit_status=129, ended_at=11, trouble="")
    daemons = Daemons({"felix": after(3), "bgpd": after(0.0)}, known=lambda now: [running])
    daemons.wait()
    assert "calico-felix is ready" in daemons.said


def test_one_that_cannot_be_started_is_told_at_once(logs: Path) -> None:
    gone = Process(name="felix", running=False, exit_status=0, ended_at=0, trouble="can't find command 'setpriv'")
    daemons = Daemons({"felix": never, "bgpd": after(0.0)}, known=lambda _: [gone])
    with pytest.raises(NotReady, match="calico-felix cannot be started: can't find command 'setpriv'") as caught:
        daemons.wait()
    assert daemons.now < 2 * LOOK_SECONDS
    assert "No such file" in caught.value.lines[0]


def test_the_tail_leaves_out_settings_and_takes_a_log_that_was_begun_anew_whole(tmp_path: Path) -> None:
    log = tmp_path / "current"
    lines = [f"level=info event=setting.effective name=a{n}" for n in range(50)]
    log.write_text("\n".join(["level=error event=first", *lines, "level=warning event=dataplane.failed"]) + "\n")
    assert tail(log, 0) == ["level=error event=first", "level=warning event=dataplane.failed"]
    assert tail(log, 1_000_000) == ["level=error event=first", "level=warning event=dataplane.failed"]
    assert len(tail(log, 0, lines=1)) == 1


def test_who_listens_on_a_socket_is_found_by_it(tmp_path: Path) -> None:
    path = tmp_path / "s"
    assert supervisor.listener(path) is None
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        assert supervisor.listener(path) is None  # bound, but nobody listens: as after a kill -9
        server.listen()
        assert supervisor.listener(path) == os.getpid()
    assert supervisor.listener(path) is None
