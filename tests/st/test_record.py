"""The deployment record end to end, as `make demo` shows it: three hosts, Docker, pools, networks, policy, removal."""

import pytest

from bed import Cluster
from bed.demo.record import Record, plans
from bed.demo.script import Script


def test_every_step_of_the_record_holds(capsys: pytest.CaptureFixture[str]) -> None:
    script = Script()
    with Cluster(plans()) as cluster:
        Record(cluster, script).play()
    assert script.passed, capsys.readouterr().out + script.summary()
