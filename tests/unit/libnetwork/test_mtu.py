"""Which MTU a container gets: the setting's, else felix's word, else the kernel's default."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from felix.dataplane.sizes import MtuFile
from libnetwork.mtu import ContainerMtu


def test_what_felix_wrote_is_read_for_each_container(tmp_path: Path) -> None:
    path = tmp_path / "calico" / "mtu"
    asked = ContainerMtu(None, path)
    assert asked() is None
    MtuFile(path).tell(1480)
    assert asked() == 1480
    MtuFile(path).tell(8980)
    assert asked() == 8980


def test_a_setting_is_stronger(tmp_path: Path) -> None:
    MtuFile(tmp_path / "mtu").tell(1480)
    assert ContainerMtu(1300, tmp_path / "mtu")() == 1300


@pytest.mark.parametrize("text", ["", "auto", "-1480", "67", "65536", "\u0661\u0664\u0668\u0660"])
def test_nonsense_is_told_once_and_passed_over(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mtu"
    path.write_text(text)
    asked = ContainerMtu(None, path)
    with capture_logs() as logged:
        assert [asked(), asked()] == [None, None]
    assert [entry["event"] for entry in logged] == ["mtu.unusable"]


def test_felix_writes_the_file_only_when_it_says_something_else(tmp_path: Path) -> None:
    path = tmp_path / "mtu"
    MtuFile(path).tell(1480)
    before = path.stat()
    MtuFile(path).tell(1480)  # a felix that was started again
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    told = MtuFile(path)
    told.tell(1480)
    path.unlink()
    told.tell(1480)
    assert path.read_text() == "1480\n"
