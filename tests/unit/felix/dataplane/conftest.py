import pytest

from fakes.felix_host import FelixHost


@pytest.fixture
def host() -> FelixHost:
    return FelixHost()
