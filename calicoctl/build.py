"""Which version this is: the release from the package's metadata, the build from what it was built from."""

import hashlib
import subprocess
from importlib import metadata, resources
from pathlib import Path

DISTRIBUTION = "calico-docker"


def version() -> str:
    """Return the release, e.g. ``v0.1.0``."""
    try:
        return f"v{metadata.version(DISTRIBUTION)}"
    except metadata.PackageNotFoundError:
        return "v0.0.0"


def build() -> str:
    """Return seven or more hex digits: the commit of the build, else of the checkout, else a digest of the files."""
    stamped = resources.files("calicoctl").joinpath("BUILD")
    if stamped.is_file():
        return stamped.read_text().strip()
    root = Path(__file__).resolve().parents[1]
    if (root / ".git").exists():
        try:
            answer = subprocess.run(
                ["git", "-C", str(root), "rev-parse", "--short=7", "HEAD"],
                capture_output=True, text=True, timeout=5, check=True,
            )
            return answer.stdout.strip()
        except (OSError, subprocess.SubprocessError):
            pass
    digest = hashlib.sha1(usedforsecurity=False)
    for path in sorted(root.glob("calicoctl/**/*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:7]
