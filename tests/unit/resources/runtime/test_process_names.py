"""The original's process names: only where they are asked for."""

import subprocess
import sys

import pytest

from resources.errors import ConfigurationError
from resources.runtime import process_names


def test_they_are_off_unless_asked_for() -> None:
    assert not process_names.are_wanted({})
    assert process_names.are_wanted({"CALICO_ORIGINAL_PROCESS_NAMES": "true"})
    with pytest.raises(ConfigurationError):
        process_names.are_wanted({"CALICO_ORIGINAL_PROCESS_NAMES": "bird"})


def test_a_process_shows_the_name_that_it_took() -> None:
    program = (
        "from resources.runtime import process_names; process_names.take('calico-felix');"
        "print(open('/proc/self/cmdline').read().split(chr(0))[0], open('/proc/self/comm').read().strip())"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert shown.split() == ["calico-felix", "calico-felix"]
