"""What is in the wheel, and that none of its top-level names is anybody else's."""

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"resources", "ipam", "felix", "bgpd", "libnetwork", "calicoctl", "kernel"}
DISTRIBUTION = "calico-docker"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel built from a clean copy: what an earlier build left in the tree would be packed again."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ignored = (".git", ".venv", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis")
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*ignored))
    subprocess.run(
        [sys.executable, "-c", "from setuptools.build_meta import build_wheel; import sys; build_wheel(sys.argv[1])",
         str(folder)],
        cwd=source, check=True, capture_output=True, timeout=120,
    )
    (built,) = folder.glob("*.whl")
    return zipfile.ZipFile(built)


def test_the_wheel_holds_our_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    top = {name.split("/")[0] for name in wheel.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == PACKAGES


def test_every_module_of_the_tree_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    packed = set(wheel.namelist())
    for package in PACKAGES:
        files = {str(path.relative_to(ROOT)) for path in (ROOT / package).rglob("*.py")}
        assert files <= packed
        assert f"{package}/py.typed" in packed


def test_the_wheel_has_all_programs(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    text = wheel.read(name).decode()
    for program in ("calicoctl", "calico-node", "calico-felix", "calico-bgpd", "calico-libnetwork"):
        assert f"{program} = " in text


def test_no_installed_distribution_brings_one_of_our_names() -> None:
    for package, distributions in metadata.packages_distributions().items():
        if package in PACKAGES:
            assert set(distributions) == {DISTRIBUTION}


def test_every_library_that_is_imported_is_declared() -> None:
    declared = {normal(re.split(r"[ <>=;\[]", line)[0]) for line in metadata.requires(DISTRIBUTION) or []}
    providers = metadata.packages_distributions()
    undeclared = {top for top in imported() if not set(map(normal, providers.get(top, []))) & declared}
    assert undeclared == set()


def normal(name: str) -> str:
    """Return the one spelling of a distribution's name: some call themselves prometheus_client."""
    return re.sub(r"[-_.]+", "-", name).lower()


def imported() -> set[str]:
    """Return the top-level names of the libraries that our packages import."""
    found: set[str] = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    found |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                    found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - PACKAGES
