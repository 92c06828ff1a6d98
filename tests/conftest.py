"""What holds for tests of every level: some run in a guest with another kernel; no property has a time limit."""

import pytest
from hypothesis import HealthCheck, settings

from bed.pytest_guest import pytest_collection_finish, pytest_runtest_logreport, pytest_runtest_protocol

__all__ = ["pytest_collection_finish", "pytest_runtest_logreport", "pytest_runtest_protocol"]

# a busy machine makes an example slow, not wrong
settings.register_profile("ours", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("ours")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "any_back_end: has nothing to do with rules; runs in one back end of them")
