"""Log lines of a daemon."""

import threading
from collections.abc import Iterator

import pytest
import structlog

from resources.runtime import log


@pytest.fixture(autouse=True)
def _defaults() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def test_every_line_names_the_component_whichever_thread_it_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("felix")
    logger = structlog.get_logger()
    thread = threading.Thread(target=lambda: logger.info("routes.applied", added=3))
    thread.start()
    thread.join()
    logger.bind(component="felix.routes").warning("route.rejected", dst="10.0.0.0/26")
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("level=info component=felix event=routes.applied added=3")
    assert second.endswith("level=warning component=felix.routes event=route.rejected dst=10.0.0.0/26")


def test_events_below_the_level_are_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("felix", "Warning")
    structlog.get_logger().info("routes.applied")
    assert capsys.readouterr().err == ""
