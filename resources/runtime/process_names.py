"""The original Calico's process names, for tools that look for them. The only module that imports setproctitle.

The Go calicoctl shows sessions only where it finds processes called ``calico-felix``, ``bird`` and ``bird6``, by the
first word of their command lines (reference resources.md 5.9). Ours begin with the path of a Python interpreter.
"""

from collections.abc import Mapping

from resources.runtime.options import Option, Source, boolean, resolve

FELIX = "calico-felix"
BIRD = {4: "bird", 6: "bird6"}

ORIGINAL_NAMES: Option[bool] = Option(
    name="original_process_names",
    keys=("CALICO_ORIGINAL_PROCESS_NAMES",),
    parse=boolean,
    default=False,
    help="Have processes of the names that the original calicoctl looks for: felix calls itself calico-felix, and two "
    "children of bgpd, bird and bird6, serve the control sockets. Its node status then shows this host's sessions.",
)


def are_wanted(environ: Mapping[str, str]) -> bool:
    """Return whether the environment asks for the original's names.

    Raises:
        ConfigurationError: the variable cannot be used.
    """
    return resolve((ORIGINAL_NAMES,), [Source("environment", environ)])[ORIGINAL_NAMES]


def take(name: str) -> None:
    """Show this process under `name`: as the first word of its command line, and to ``ps`` and ``top``."""
    from setproctitle import setproctitle

    setproctitle(name)
