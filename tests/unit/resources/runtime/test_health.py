"""What a daemon's socket answers beside liveness and readiness."""

from pathlib import Path

from resources.errors import Transient
from resources.runtime.health import Health, ask


class NotYet(Transient):
    reference = "not-yet"


def test_a_further_page_is_json_and_its_trouble_is_told_with_the_way_out(tmp_path: Path) -> None:
    def page() -> object:
        raise NotYet("no answer yet", hint="ask again")

    health = Health()
    health.pages |= {"/numbers": lambda: {"one": 1}, "/late": page}
    socket = tmp_path / "daemon.sock"
    health.serve(socket)
    assert ask(socket, "/numbers") == (200, '{\n  "one": 1\n}\n')
    assert ask(socket, "/late") == (503, "no answer yet\nask again\n")
    assert ask(socket, "/other")[0] == 404
