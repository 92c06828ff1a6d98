"""A User Mode Linux guest: another kernel as a plain process, for what this machine's kernel has not.

Debian's user-mode-linux has ipip, dummy, netem and legacy iptables, and no nftables for IP (reference start.md 6). The
guest sees the machine's files, read-only; /run, /tmp and /var/tmp are its own, in memory. One processor, and starting a
process is ten to thirty times slower than outside: give jobs, not many small commands.
"""

import functools
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path

from bed.command import PATH, CommandFailed, Done
from bed.namespaces import Namespace

KERNEL = Path("/usr/bin/linux.uml")
MODULES = Path("/usr/lib/uml/modules")
PROJECT = Path(__file__).resolve().parents[2]
WORK = "/run/guest"
"""Where the guest sees the job's own folder, the only one it can write to on the machine."""

# The console is the kernel's standard output. The kernel loads modules by itself through a helper; that is in a folder
# which hosts of a bed in the guest see too, because iptables calls it as well. What is called iptables in the guest is
# the legacy one: the other has no tables there.
_INIT = """#!/bin/sh
exec >/dev/console 2>&1 </dev/null
export PATH={path} HOME=/root LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
for folder in {hidden}; do mount -t tmpfs -o mode=1777 tmpfs $folder; done
mkdir -m 755 /run/netns {work}
mount -t hostfs -o {folder} none {work}
{kept}
mount -t devtmpfs devtmpfs /dev 2>/dev/null
mkdir -p /dev/shm/lib /dev/pts
ln -s {modules} /dev/shm/lib/modules
printf '#!/bin/sh\nexec /sbin/modprobe -d /dev/shm "$@"\n' >/dev/shm/modprobe
chmod 755 /dev/shm/modprobe
echo /dev/shm/modprobe >/proc/sys/kernel/modprobe
mount --bind /usr/sbin/xtables-legacy-multi /usr/sbin/xtables-nft-multi
ip link set lo up
cd {cwd}
{env}
{command} >{work}/output 2>&1
echo $? >{work}/exit.part
mv {work}/exit.part {work}/exit
sleep 0.3
busybox poweroff -f
"""


HIDDEN = ("/run", "/tmp", "/var/tmp")
"""Folders of the machine that the guest has its own of."""


def run_in_guest(
    command: Sequence[str],
    *,
    timeout: float = 180.0,
    memory: str = "512M",
    env: Mapping[str, str] | None = None,
    files: MutableMapping[str, str] | None = None,
    check: bool = True,
) -> Done:
    """Boot a guest, run `command` as root in it, and power it off. About 3 s besides the command.

    Both output streams come back in `stdout`. `files` (name to text) are put into /run/guest, which the command may
    also write to; when it has ended, the mapping has what is in those files then. For example
    ``run_in_guest([sys.executable, "/run/guest/job.py"], files={"job.py": ...})``.

    Raises:
        CommandFailed: the exit code is not 0 and `check` is set; or the guest ended without one, or not in time.
    """
    folder = Path(tempfile.mkdtemp(prefix="bed-guest-"))
    try:
        return _boot(folder, command, timeout, memory, dict(env or {}), dict(files or {}), check)
    finally:
        for name in files or ():
            if files is not None and (folder / "work" / name).exists():
                files[name] = (folder / "work" / name).read_text(errors="replace")
        shutil.rmtree(folder, ignore_errors=True)


def _boot(
    folder: Path,
    command: Sequence[str],
    timeout: float,
    memory: str,
    env: dict[str, str],
    files: dict[str, str],
    check: bool,
) -> Done:
    _write(folder, command, env, files)
    umid = folder.name
    words = [
        *(str(KERNEL), f"mem={memory}", "root=/dev/root", "rootfstype=hostfs", "ro", "quiet", "loglevel=1"),
        *(f"uml_dir={folder}/uml", f"umid={umid}", f"init={folder}/init", "con=null", "con0=null,fd:1"),
    ]
    began = time.monotonic()
    with (folder / "console").open("wb") as console:
        kernel = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            kernel.wait(timeout)
            late = False
        except subprocess.TimeoutExpired:
            late = True
        finally:
            _end(kernel)
    try:
        exit, trouble = int((folder / "work" / "exit").read_text()), ""
    except (OSError, ValueError):
        exit = 124 if late else 125
        trouble = f"the guest was killed after {timeout:g} s" if late else "the guest ended without an exit code"
        trouble += f"; its console: {(folder / 'console').read_text(errors='replace')[-2000:]}"
    output = folder / "work" / "output"
    text = output.read_text(errors="replace") if output.exists() else ""
    done = Done(command=shlex.join(command), exit=exit, stdout=text, stderr=trouble, seconds=time.monotonic() - began)
    if trouble or (check and not done.ok):
        raise CommandFailed(done, "guest")
    return done


def _write(folder: Path, command: Sequence[str], env: dict[str, str], files: dict[str, str]) -> None:
    work = folder / "work"
    work.mkdir()
    for name, text in files.items():
        (work / name).write_text(text)
    init = _INIT.format(
        path=PATH,
        folder=work,
        work=WORK,
        modules=MODULES,
        hidden=" ".join(HIDDEN),
        kept="\n".join(_keep(path) for path in dict.fromkeys((str(PROJECT), sys.prefix)) if _is_hidden(path)),
        cwd=shlex.quote(os.getcwd()),
        env="\n".join(f"export {name}={shlex.quote(value)}" for name, value in env.items()),
        command=shlex.join(command),
    )
    (folder / "init").write_text(init)
    (folder / "init").chmod(0o755)


def _is_hidden(path: str) -> bool:
    return any(path.startswith(f"{folder}/") for folder in HIDDEN)


def _keep(path: str) -> str:
    """Show a folder below a hidden one, to be read only: a checkout may be anywhere."""
    quoted = shlex.quote(path)
    return f"mkdir -p {quoted}; mount -t hostfs -o {quoted} none {quoted}; mount -o remount,ro {quoted}"


def _end(kernel: subprocess.Popen[bytes]) -> None:
    """Kill the guest with the processes it is made of."""
    try:
        os.killpg(kernel.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    kernel.wait(10)


@functools.cache
def machine_has(kind: str) -> bool:
    """Whether this machine's kernel can make a link of a kind, such as ``ipip``; tried in a throw-away namespace."""
    with Namespace(f"bed-try-{os.getpid()}") as tried:
        done = tried.ip("link", "add", "tried0", "type", kind, check=False)
        # a kernel that has ipip loaded made tunl0 with the namespace, which is what a link without addresses would be
        return done.ok or "File exists" in done.stderr
