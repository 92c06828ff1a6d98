"""The driver's settings, each declared once (reference libnetwork.md 6.1).

All come from the environment, as they did for Calico's own plugin; its names are kept.
"""

import re
from collections.abc import Mapping

from resources.names import LABEL_NAME_REGEX, name_fault
from resources.runtime import paths
from resources.runtime.options import Option, Settings, Source, choice, folder, integer, resolve, seconds

INTERFACE_PREFIX_MAX = 12
"""Of the 15 bytes of a name three are left for Docker's counter."""


def _interface_prefix(text: str) -> str:
    if not re.fullmatch(rf"[A-Za-z0-9]{{1,{INTERFACE_PREFIX_MAX}}}", text):
        raise ValueError(f"it must be 1 to {INTERFACE_PREFIX_MAX} letters and digits")
    return text


def _namespace(text: str) -> str:
    if (fault := name_fault(text)) or not LABEL_NAME_REGEX.match(text):
        raise ValueError(fault or "it must have at most 63 characters")
    return text


def _unless_false(text: str) -> bool:
    return text.lower() != "false"


def _only_true(text: str) -> bool:
    return text.lower() == "true"


def _docker_host(text: str) -> str:
    if not re.match(r"(unix|tcp|https?)://.", text):
        raise ValueError("it must be a URL such as unix:///var/run/docker.sock")
    return text


SCOPE = Option(
    name="scope",
    keys=("CALICO_LIBNETWORK_SCOPE",),
    parse=choice("global", "local"),
    default="global",
    help="Where Docker keeps networks of this driver: global, in the cluster store that all hosts' dockerd share "
    "(--cluster-store, up to Docker 20.10), or local, on each host by itself.",
    example="local",
)
INTERFACE_PREFIX = Option(
    name="interface_prefix",
    keys=("CALICO_LIBNETWORK_IFPREFIX",),
    parse=_interface_prefix,
    default="cali",
    help="What interfaces are called inside containers, before a number. The host's side is always cali...",
    example="eth",
)
CREATE_PROFILES = Option(
    name="create_profiles",
    keys=("CALICO_LIBNETWORK_CREATE_PROFILES",),
    parse=_unless_false,
    default=True,
    help="Give each network a profile that lets its containers reach each other. With false nothing is allowed until "
    "a policy says so.",
    example="false",
)
LABEL_ENDPOINTS = Option(
    name="label_endpoints",
    keys=("CALICO_LIBNETWORK_LABEL_ENDPOINTS",),
    parse=_only_true,
    default=False,
    help="Copy container labels org.projectcalico.label.KEY=VALUE to the endpoint as KEY=VALUE, for selectors.",
    example="true",
)
LABEL_TIMEOUT = Option(
    name="label_timeout_seconds",
    keys=("CALICO_LIBNETWORK_LABEL_POLL_TIMEOUT",),
    parse=seconds(minimum=0.1),
    default=5.0,
    help="How long Docker may take to tell a container's labels; its start fails after that.",
    unit="seconds",
    example="5s",
)
VETH_MTU: Option[int | None] = Option(
    name="veth_mtu",
    keys=("CALICO_LIBNETWORK_VETH_MTU",),
    parse=integer(68, 65535),
    default=None,
    help="MTU of containers' interfaces. Not set: what felix finds for the host's links and tunnels, told in "
    "/var/lib/calico/mtu; 1500 where there is no such file.",
    unit="bytes",
    example="1480",
)
NAMESPACE = Option(
    name="namespace",
    keys=("CALICO_LIBNETWORK_NAMESPACE",),
    parse=_namespace,
    default="libnetwork",
    help="Namespace of the workload endpoints of Docker containers.",
    example="default",
)
DOCKER_HOST = Option(
    name="docker_host",
    keys=("DOCKER_HOST",),
    parse=_docker_host,
    default="unix:///var/run/docker.sock",
    help="Where Docker's Engine API answers; asked for names and labels.",
)
DOCKER_TIMEOUT = Option(
    name="docker_timeout_seconds",
    keys=("CALICO_LIBNETWORK_DOCKER_TIMEOUT",),
    parse=seconds(minimum=0.1),
    default=3.0,
    help="How long the Engine API may take for one answer.",
    unit="seconds",
    example="3s",
)
CALL_TIMEOUT = Option(
    name="call_timeout_seconds",
    keys=("CALICO_LIBNETWORK_CALL_TIMEOUT",),
    parse=seconds(minimum=0.1),
    default=8.0,
    help="After what time a call of Docker fails when etcd or Docker do not answer. Docker itself would wait for ever.",
    unit="seconds",
    example="8s",
)
THREADS = Option(
    name="threads",
    keys=("CALICO_LIBNETWORK_THREADS",),
    parse=integer(2, 512),
    default=32,
    help="How many calls of Docker are answered at the same time, for each of the two drivers.",
    example="64",
)
PLUGIN_DIR = Option(
    name="plugin_dir",
    keys=("CALICO_LIBNETWORK_PLUGIN_DIR",),
    parse=folder,
    default=paths.DOCKER_PLUGINS,
    help="Where the sockets calico.sock and calico-ipam.sock are made. Docker looks in /run/docker/plugins only.",
)
LOG_LEVEL = Option(
    name="log_level",
    keys=("CALICO_LIBNETWORK_LOGLEVEL",),
    parse=choice("trace", "debug", "info", "warning", "error", "fatal"),
    default="info",
    help="What is logged.",
    example="debug",
)
DEBUG = Option(
    name="debug",
    keys=("CALICO_DEBUG",),
    parse=bool,
    default=False,
    help="Any value: log at level debug.",
    example="true",
)

OPTIONS: tuple[Option[object], ...] = (
    SCOPE,
    INTERFACE_PREFIX,
    CREATE_PROFILES,
    LABEL_ENDPOINTS,
    LABEL_TIMEOUT,
    VETH_MTU,
    NAMESPACE,
    DOCKER_HOST,
    DOCKER_TIMEOUT,
    CALL_TIMEOUT,
    THREADS,
    PLUGIN_DIR,
    LOG_LEVEL,
    DEBUG,
)

_LENIENT = frozenset(LABEL_TIMEOUT.keys)
"""A bad value here was never an error: it is reported and the default holds."""


def read(environ: Mapping[str, str]) -> Settings:
    """Return the effective settings.

    Raises:
        ConfigurationError: a value cannot be used.
    """
    return resolve(
        OPTIONS,
        (
            Source("environment", {key: value for key, value in environ.items() if key not in _LENIENT}),
            Source("environment", {key: environ[key] for key in _LENIENT & environ.keys()}, strict=False),
        ),
    )
