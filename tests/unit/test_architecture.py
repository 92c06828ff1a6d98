"""The import direction of docs/architecture.md, read from the source with ast."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("resources", "ipam", "felix", "bgpd", "libnetwork", "calicoctl", "kernel")

# package -> packages of ours it may import; "runtime" and "datastore" are parts of resources
MAY_IMPORT = {
    "resources": {"resources"},
    "kernel": {"kernel", "resources"},
    "ipam": {"ipam", "resources"},
    "felix": {"felix", "kernel", "resources"},
    "bgpd": {"bgpd", "kernel", "resources"},
    "libnetwork": {"libnetwork", "ipam", "kernel", "resources"},
    "calicoctl": {"calicoctl", "ipam", "kernel", "resources"},
}

# library -> the only modules that may import it
ADAPTERS = {
    "etcd3gw": {"resources.datastore.etcd"},
    "requests": {"resources.datastore.etcd"},
    "yaml": {"resources.yamldoc", "resources.yamltext"},
    "pyroute2": {"kernel"},
    "iptc": {"kernel"},
    "docker": {"libnetwork.engine"},
    "click": {"calicoctl"},
    "supervisor": {"calicoctl.node.supervise"},
    "prettytable": {"calicoctl.output"},
    "prometheus_client": {"resources.runtime.metrics"},
    "setproctitle": {"resources.runtime.process_names"},
    "exabgp": set(),
}

PURE_PARTS = ("felix/calc", "felix/render", "bgpd/calc", "resources/kinds", "ipam/assign.py", "ipam/claim.py",
              "ipam/block.py", "ipam/tidy.py", "bgpd/render.py", "bgpd/messages.py", "resources/selector.py",
              "calicoctl/node/agent/tunnels.py")
IMPURE_MODULES = {"socket", "subprocess", "os", "time", "random", "structlog", "threading", "requests", "shutil"}


def modules() -> list[tuple[str, Path]]:
    found = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found.append((name, path))
    return found


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
    return names


@pytest.mark.parametrize(("name", "path"), modules(), ids=lambda value: value if isinstance(value, str) else "")
def test_imports_follow_the_direction(name: str, path: Path) -> None:
    package = name.split(".")[0]
    for imported in imports(path):
        top = imported.split(".")[0]
        if top in PACKAGES:
            assert top in MAY_IMPORT[package], f"{name} imports {imported}"
        if top in ADAPTERS:
            allowed = ADAPTERS[top]
            assert any(name == a or name.startswith(a + ".") for a in allowed), f"{name} imports {imported}"


@pytest.mark.parametrize("part", PURE_PARTS)
def test_pure_parts_do_no_io(part: str) -> None:
    target = ROOT / part
    for path in [target] if target.suffix else sorted(target.rglob("*.py")):
        if path.exists():
            assert not {i.split(".")[0] for i in imports(path)} & IMPURE_MODULES, path
