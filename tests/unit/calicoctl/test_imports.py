"""What a command does not need is not imported: a command that only reads is over in a fraction of a second."""

import subprocess
import sys

FOR_FILES_ONLY = ("yaml", "resources.documents", "resources.reader")


def test_get_by_name_does_not_import_what_reads_files() -> None:
    check = f"import sys, calicoctl.commands.get; print([m for m in {FOR_FILES_ONLY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
