"""The image of the bed's containers: Debian's static busybox, and a web page that tells its reader apart."""

import io
import subprocess
import tarfile
from pathlib import Path

NAME = "bb:1"
BUSYBOX = Path("/bin/busybox")

_CLIENT = b"""#!/bin/sh
# Served by `httpd -f -h /www`: tells a client the address it was seen with.
echo "Content-Type: text/plain"
echo
echo "$REMOTE_ADDR"
"""


def write_tar(path: Path) -> None:
    """Write the file system that `docker import` makes the image from.

    With ``httpd -f -p 0.0.0.0:80 -h /www`` in one container, ``wget -qO- http://ADDRESS/cgi-bin/client`` in another
    prints the address it was seen with. Limit its time by ``timeout 1 wget``: this busybox crashes on ``wget -T``.
    """
    applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True, timeout=10).stdout.split()
    staged = path.with_suffix(".part")
    with tarfile.open(staged, "w") as tar:
        for folder, mode in (("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777), ("www/cgi-bin", 0o755)):
            _add(tar, folder, tarfile.DIRTYPE, mode)
        _add(tar, "bin/busybox", tarfile.REGTYPE, 0o755, BUSYBOX.read_bytes())
        for applet in applets:
            if applet != "busybox":
                _add(tar, f"bin/{applet}", tarfile.SYMTYPE, 0o777, link="busybox")
        _add(tar, "etc/passwd", tarfile.REGTYPE, 0o644, b"root:x:0:0:root:/root:/bin/sh\n")
        _add(tar, "etc/group", tarfile.REGTYPE, 0o644, b"root:x:0:\n")
        _add(tar, "www/cgi-bin/client", tarfile.REGTYPE, 0o755, _CLIENT)
    staged.rename(path)


def _add(tar: tarfile.TarFile, name: str, kind: bytes, mode: int, data: bytes = b"", *, link: str = "") -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.linkname, entry.size = kind, mode, link, len(data)
    tar.addfile(entry, io.BytesIO(data))
