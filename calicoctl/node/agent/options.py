"""The settings of `calico-node agent`, declared once. They come from the environment."""

from collections.abc import Mapping
from pathlib import Path

from resources.runtime import paths
from resources.runtime.log import LEVELS
from resources.runtime.options import Option, Settings, Source, choice, folder, resolve, seconds

LOG_LEVEL: Option[str] = Option(
    name="log_level",
    keys=("CALICO_AGENT_LOGSEVERITYSCREEN",),
    parse=choice(*(level.capitalize() for level in LEVELS)),
    default="Info",
    help="Which events are logged.",
    example="Debug",
)
AUDIT_SECONDS: Option[float] = Option(
    name="audit_seconds",
    keys=("CALICO_AGENT_AUDIT_SECONDS",),
    parse=seconds(1.0),
    default=90.0,
    unit="s",
    help="How often the recorded tunnel addresses are compared with their allocations although nothing has changed.",
)
TIDY_SECONDS: Option[float] = Option(
    name="tidy_seconds",
    keys=("CALICO_AGENT_TIDY_SECONDS",),
    parse=seconds(1.0),
    default=300.0,
    unit="s",
    help="How often this node's blocks are looked through. An empty one that it does not need, twice in a row, is "
    "given up for others.",
)
RUN_DIR: Option[Path] = Option(
    name="run_dir",
    keys=("CALICO_RUN_DIR",),
    parse=folder,
    default=paths.RUN,
    help="Folder of the health socket.",
)

OPTIONS: tuple[Option[object], ...] = (LOG_LEVEL, AUDIT_SECONDS, TIDY_SECONDS, RUN_DIR)


def from_environment(environ: Mapping[str, str]) -> Settings:
    """Return the effective settings.

    Raises:
        ConfigurationError: a variable cannot be used.
    """
    return resolve(OPTIONS, [Source("environment", environ)])
