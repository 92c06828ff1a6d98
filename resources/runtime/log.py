"""structlog, set up once per process: one line per event on stderr, ``noun.verb`` in the past, facts as keys.

Only entry points of daemons call `configure`; importing configures nothing. calicoctl does not import this module.
"""

import logging
import sys
from collections.abc import Iterable, Sequence

import structlog
from structlog.typing import EventDict

from resources.runtime.options import Setting

LEVELS = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
}


def configure(component: str, level: str = "info") -> None:
    """Send events of `level` (a Calico level name, any case) and above to stderr, as key=value lines.

    Every line names `component`, whichever thread it comes from, unless its logger was bound to a closer one.
    """

    def add_component(_: object, __: str, event: EventDict) -> EventDict:
        event.setdefault("component", component)
        return event

    structlog.configure(
        processors=[
            add_component,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "component", "event"]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS.get(level.lower(), logging.INFO)),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )


def tell_settings(
    node: tuple[str, str], endpoints: tuple[Sequence[str], str], settings: Iterable[Setting[object]] = ()
) -> None:
    """Log what a daemon starts with, a line a setting; the node's name and etcd's endpoints come with their origins."""
    logger = structlog.get_logger()
    logger.info("setting.effective", name="node", value=node[0], origin=node[1])
    logger.info("setting.effective", name="etcd_endpoints", value=",".join(endpoints[0]), origin=endpoints[1])
    for setting in settings:
        logger.info("setting.effective", name=setting.option.name, value=str(setting.value), origin=setting.origin)
