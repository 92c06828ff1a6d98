"""The settings of calico-bgpd, declared once. They come from the environment; calc.sessions has those of the store."""

import ipaddress
from collections.abc import Mapping
from pathlib import Path

from bgpd import speaker
from bgpd.calc.sessions import DEFAULT_HOLD_SECONDS
from bgpd.rib import MAX_PREFIXES
from resources.runtime import paths, process_names
from resources.runtime.log import LEVELS
from resources.runtime.options import Option, Settings, Source, boolean, choice, folder, integer, resolve, seconds


def _router_id(text: str) -> str:
    if text == "hash":
        return text
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise ValueError("it must be an IPv4 address or the word hash") from None


LOG_LEVEL: Option[str] = Option(
    name="log_level",
    keys=("BGP_LOGSEVERITYSCREEN", "CALICO_BGP_LOGSEVERITYSCREEN"),
    parse=choice(*(level.capitalize() for level in LEVELS)),
    default="",
    help="Which events are logged. Empty: what BGPConfiguration logSeverityScreen says, else Info.",
    example="Debug",
)
ROUTER_ID: Option[str] = Option(
    name="router_id",
    keys=("CALICO_ROUTER_ID",),
    parse=_router_id,
    default="",
    help="The BGP identifier: an IPv4 address, or hash for one made from the node's name. "
    "Empty: the node's IPv4 address, or the hash where it has none.",
    example="10.0.0.1",
)
HOLD_SECONDS: Option[int] = Option(
    name="hold_seconds",
    keys=("BGPD_HOLD_SECONDS",),
    parse=integer(3, 65535),
    default=DEFAULT_HOLD_SECONDS,
    unit="s",
    help="After how long without a word a peer is taken for dead. It is told every third of this.",
)
MAX_PREFIX: Option[int] = Option(
    name="max_prefixes",
    keys=("BGPD_MAX_PREFIXES",),
    parse=integer(1, 10_000_000),
    default=MAX_PREFIXES,
    help="How many routes of one peer are accepted. The rest is refused.",
)
STRICT_OWNERS: Option[bool] = Option(
    name="strict_owners",
    keys=("BGPD_STRICT_OWNERS",),
    parse=boolean,
    default=False,
    help="Refuse a block that comes from another node than the datastore says. Off: it is logged only.",
)
ROUTE_REFRESH_SECONDS: Option[float] = Option(
    name="route_refresh_seconds",
    keys=("BGPD_ROUTE_REFRESH_SECONDS",),
    parse=seconds(1.0),
    default=90.0,
    unit="s",
    help="How often all routes of the kernel are read back and compared, and ExaBGP is asked whether it announces what "
    "it was told.",
)
PATIENCE_SECONDS: Option[float] = Option(
    name="patience_seconds",
    keys=("BGPD_PATIENCE_SECONDS",),
    parse=seconds(1.0),
    default=speaker.PATIENCE_SECONDS,
    unit="s",
    help="ExaBGP is ended and started again if it owes an answer for so long and says nothing else either.",
)
RUN_DIR: Option[Path] = Option(
    name="run_dir",
    keys=("CALICO_RUN_DIR",),
    parse=folder,
    default=paths.RUN,
    help="Folder of the sockets and run-time files.",
)
SECRETS_DIR: Option[Path] = Option(
    name="secrets_dir",
    keys=("BGPD_SECRETS_DIR",),
    parse=folder,
    default=paths.SECRETS,
    help="Folder of passwords: secretKeyRef {name: bgp, key: rack1} of a resource is the file bgp/rack1 in it. "
    "It and what is in it belong to root; others may not read the files. They are read again with the routes.",
)
LOG_DIR: Option[Path] = Option(
    name="log_dir",
    keys=("CALICO_LOG_DIR",),
    parse=folder,
    default=paths.LOG,
    help="Folder of the log files; ExaBGP's is bgpd/exabgp.log in it.",
)

METRICS_PORT: Option[int] = Option(
    name="metrics_port",
    keys=("BGPD_METRICS_PORT",),
    parse=integer(0, 65535),
    default=0,
    help="TCP port where Prometheus finds /metrics. 0: none; /run/calico/bgpd.sock has the same page.",
    example="9900",
)
METRICS_HOST: Option[str] = Option(
    name="metrics_host",
    keys=("BGPD_METRICS_HOST",),
    parse=str.strip,
    default="",
    help="Address for the port of the metrics. Empty: all addresses.",
    example="127.0.0.1",
)

OPTIONS: tuple[Option[object], ...] = (
    LOG_LEVEL, ROUTER_ID, HOLD_SECONDS, MAX_PREFIX, STRICT_OWNERS, ROUTE_REFRESH_SECONDS, PATIENCE_SECONDS,
    SECRETS_DIR, RUN_DIR, LOG_DIR, METRICS_PORT, METRICS_HOST, process_names.ORIGINAL_NAMES,
)


def from_environment(environ: Mapping[str, str]) -> Settings:
    """Return the effective settings.

    Raises:
        ConfigurationError: a variable cannot be used.
    """
    return resolve(OPTIONS, [Source("environment", environ)])
