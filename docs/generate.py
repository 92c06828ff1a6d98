"""Writes docs/reference/options.md and errors.md from the code; `--check` only compares. Run in the project's root."""

import importlib
import pkgutil
import re
import sys
from collections.abc import Iterable
from pathlib import Path

REFERENCE = Path(__file__).parent / "reference"
PACKAGES = ("resources", "kernel", "ipam", "felix", "bgpd", "libnetwork", "calicoctl")
OPTIONS = (
    ("calico-node and `calicoctl node run`", "calicoctl.node.options", "Read from the environment."),
    (
        "calico-felix",
        "felix.calc.parameters",
        "Strongest first: environment `FELIX_<NAME>` in any case, `/etc/calico/felix.cfg`, the FelixConfiguration "
        "`node.<name>`, the FelixConfiguration `default`, the default here.",
    ),
    ("calico-bgpd", "bgpd.options", "Read from the environment; what the cluster shares is in BGPConfiguration."),
    ("calico-libnetwork", "libnetwork.options", "Read from the environment."),
    ("calico-node agent", "calicoctl.node.agent.options", "Read from the environment."),
)


def options_page() -> str:
    """Return the page of all settings."""
    lines = [
        "# Settings",
        "",
        "Generated from the code by `make docs`. A daemon logs its settings with their origin when it starts.",
        "",
        "All daemons and calicoctl find the datastore by `ETCD_ENDPOINTS`, `ETCD_CA_CERT_FILE`, `ETCD_CERT_FILE`,",
        "`ETCD_KEY_FILE`, `ETCD_USERNAME` and `ETCD_PASSWORD`; calicoctl reads `/etc/calico/calicoctl.cfg` first. The",
        "node's name is `NODENAME`, else `/var/lib/calico/nodename`, else the host name in lower case.",
    ]
    for title, module, sources in OPTIONS:
        lines += ["", f"## {title}", "", sources, "", "| setting | default | meaning |", "|---|---|---|"]
        for option in importlib.import_module(module).OPTIONS:
            names = ", ".join(f"`{key}`" for key in option.keys or (option.name,))
            unit = f" ({option.unit})" if option.unit else ""
            example = f" Example: `{option.example}`." if option.example else ""
            lines.append(f"| {names} | {_shown(option.default)} | {option.help}{unit}{example} |")
    return "\n".join(lines) + "\n"


def _shown(value: object) -> str:
    if value is None or value == "" or value == ():
        return "(unset)"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, re.Pattern):
        value = value.pattern.replace("|", "\\|")
    if isinstance(value, tuple):
        return f"`{','.join(map(str, value))}`"
    return f"`{getattr(value, 'value', value)}`"


def errors_page() -> str:
    """Return the page of all named errors."""
    from resources.errors import CalicoError, Rejected, Transient

    for package in PACKAGES:
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
            importlib.import_module(module.name)
    lines = [
        "# Errors",
        "",
        "Generated from the code by `make docs`. *rejected*: asking again in the same way does not help; *transient*:",
        "it may work later without anybody changing anything.",
        "",
        "| name | family | meaning |",
        "|---|---|---|",
    ]
    rows = set()
    for error in _below(CalicoError):
        if "reference" not in vars(error):
            continue
        family = "transient" if issubclass(error, Transient) else "rejected" if issubclass(error, Rejected) else ""
        meaning = " ".join((error.__doc__ or "").split("\n\n")[0].split())
        rows.add(f"| {error.reference} | {family} | {meaning} |")
    return "\n".join([*lines, *sorted(rows)]) + "\n"


def _below(base: type) -> Iterable[type]:
    for child in base.__subclasses__():
        yield child
        yield from _below(child)


def main() -> int:
    """Write the pages, or tell which are out of date."""
    stale = []
    for name, text in (("options.md", options_page()), ("errors.md", errors_page())):
        path = REFERENCE / name
        if path.exists() and path.read_text() == text:
            continue
        if "--check" in sys.argv:
            stale.append(name)
            continue
        REFERENCE.mkdir(exist_ok=True)
        path.write_text(text)
        print(f"wrote docs/reference/{name}")
    if stale:
        print(f"out of date: {', '.join(stale)}; run 'make docs'")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    sys.exit(main())
