"""What a daemon pays for the door to Linux: pyroute2 (22 MB, 0.2 s) only when a device is made, never on import."""

import pkgutil
import subprocess
import sys

import kernel


def test_no_module_of_ours_loads_pyroute2_when_imported() -> None:
    names = [f"kernel.{module.name}" for module in pkgutil.iter_modules(kernel.__path__)]
    names.remove("kernel.xtables_iptc")  # is imported when legacy tables are to be written, and by nothing else
    assert "kernel.links" in names
    look = "' '.join(name for name in sys.modules if name in ('pyroute2', 'iptc'))"
    code = f"import sys, {', '.join(names)}; sys.exit({look} or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
