"""Who owns which bed, on disk, so that what a killed run left behind can be found and removed.

Everything of a bed carries its id: network namespaces ``bed-<id>-...``, cgroups ``bed-<id>-...``, one folder below
/var/tmp/calico-bed. Every process of a bed is in one of its network namespaces, or below the first process of a PID
namespace that is. So the folder and the namespaces are all that must be known.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from bed import namespaces

FOLDER = Path("/var/tmp/calico-bed")
"""On the disk, because Docker's overlay driver refuses a tmpfs or an overlay below its data."""
CGROUPS = Path("/sys/fs/cgroup")
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """A process, told apart from a later one with the same pid."""

    pid: int
    started: int
    boot: str
    kept: bool
    """The bed outlives its owner on purpose."""

    @classmethod
    def this(cls, *, kept: bool = False) -> "Owner":
        return cls(pid=os.getpid(), started=_started(os.getpid()) or 0, boot=_boot(), kept=kept)

    @property
    def alive(self) -> bool:
        return self.boot == _boot() and _started(self.pid) == self.started


class Claim:
    """The right to an id, and the folder that belongs to it."""

    def __init__(self, id: str) -> None:
        self.id = id
        self.folder = FOLDER / id
        self.prefix = f"bed-{id}-"

    @classmethod
    def new(cls, id: str | None = None) -> "Claim":
        """Claim an id for this process; without one a free one is drawn.

        Raises:
            FileExistsError: the id is taken; `down(id)` frees it.
        """
        if id is not None and not (id.isascii() and id.isalnum()):
            raise ValueError(f"the id of a bed has letters and digits only: {id!r}")
        while True:
            claim = cls(id or "".join(secrets.choice(_ALPHABET) for _ in range(5)))
            staged = FOLDER / f".{claim.id}.{os.getpid()}.{secrets.token_hex(4)}"
            staged.mkdir(parents=True)
            _write_owner(staged, Owner.this())
            try:
                staged.rename(claim.folder)  # whole at once, owner included: a folder without an owner would be a leak
                return claim
            except OSError:
                shutil.rmtree(staged)
                if id is not None:
                    raise FileExistsError(f"the bed {id!r} is up already; `down` removes it") from None

    @property
    def owner(self) -> Owner | None:
        try:
            return Owner(**json.loads((self.folder / "owner").read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def keep(self) -> None:
        """Let the bed outlive this process, until `down(id)`."""
        _write_owner(self.folder, Owner.this(kept=True))

    def sweep(self) -> None:
        """Remove processes, namespaces, cgroups and files, whatever of them there is."""
        while doomed := namespaces.names(self.prefix):
            namespaces.delete(*doomed)
        sweep_cgroups(self.prefix)
        deadline = time.monotonic() + 5.0
        while self.folder.exists():  # something may just be dying in it, or somebody else be sweeping it too
            shutil.rmtree(self.folder, ignore_errors=time.monotonic() < deadline)


def down(id: str | None = None) -> list[str]:
    """Remove beds and return their ids: the one named, or all whose owner has ended and that were not to be kept.

    The owner of a named bed that still runs is asked to end first, and killed after 20 s.
    """
    removed = []
    for claim in claims():
        owner = claim.owner
        if id is None and (owner is not None and (owner.kept or owner.alive)):
            continue
        if id is not None and claim.id != id:
            continue
        if owner is not None and owner.pid != os.getpid():
            _end(owner)
        claim.sweep()
        removed.append(claim.id)
    for staged in FOLDER.glob(".*"):  # killed between two lines of Claim.new
        if (owner := Claim(staged.name).owner) is not None and not owner.alive:
            shutil.rmtree(staged, ignore_errors=True)
    with contextlib.suppress(OSError):
        FOLDER.rmdir()  # only when it is empty
    return removed


def claims() -> list[Claim]:
    """Return every bed on this machine."""
    try:
        return [Claim(entry.name) for entry in sorted(FOLDER.iterdir()) if not entry.name.startswith(".")]
    except FileNotFoundError:
        return []


def sweep_cgroups(prefix: str, *, timeout: float = 5.0) -> None:
    """Remove the empty cgroups that begin with `prefix`, in every hierarchy."""
    deadline = time.monotonic() + timeout
    while roots := [*CGROUPS.glob(f"{prefix}*/"), *CGROUPS.glob(f"*/{prefix}*/")]:
        for root in roots:
            for folder, _, _ in os.walk(root, topdown=False):
                with contextlib.suppress(OSError):  # busy while its last process is dying
                    os.rmdir(folder)
        if time.monotonic() > deadline:
            raise TimeoutError(f"cgroups do not go away: {', '.join(map(str, roots))}")
        time.sleep(0.005)


def _write_owner(folder: Path, owner: Owner) -> None:
    staged = folder / ".owner"
    facts = {"pid": owner.pid, "started": owner.started, "boot": owner.boot, "kept": owner.kept}
    staged.write_text(json.dumps(facts))
    staged.rename(folder / "owner")


def _end(owner: Owner) -> None:
    deadline = time.monotonic() + 20.0
    number = signal.SIGTERM
    while owner.alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(owner.pid, number)
        number = signal.SIGKILL
        while owner.alive and time.monotonic() < deadline:
            time.sleep(0.05)
        deadline = time.monotonic() + 5.0


def _started(pid: int) -> int | None:
    """Return the start time of a live process in ticks since boot; a zombie has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[19])


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
