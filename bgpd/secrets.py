"""Reads the passwords that the operator put on this host (docs/adr/0020); calc.secrets decides what may be read."""

import os
from collections.abc import Iterable
from pathlib import Path

from bgpd.calc.secrets import (
    PASSWORD_MAX,
    Password,
    Secret,
    SecretName,
    Unread,
    file_fault,
    folder_fault,
    password_of,
    secret_path,
)


class SecretFiles:
    """The secrets below one folder. They are read again at each call: the operator may change them at any time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, wanted: Iterable[SecretName]) -> dict[SecretName, Secret]:
        """Return each of the secrets, or why it cannot be had. Never fails."""
        return {secret: self._read(secret) for secret in wanted}

    def _read(self, secret: SecretName) -> Secret:
        try:
            path = Path(secret_path(self._folder, secret))
        except ValueError as error:
            return Unread(str(error))
        try:
            for folder in (self._folder, path.parent):
                found = folder.stat()
                if fault := folder_fault(found.st_mode, found.st_uid, os.geteuid()):
                    return Unread(f"the folder {folder} {fault}")
            return _content(path)
        except FileNotFoundError:
            return Unread(f"{path} is not there: put the password into it, readable for root only")
        except OSError as error:
            return Unread(f"{path} cannot be read: {error.strerror}")


def _content(path: Path) -> Password | Unread:
    # not to be held up by a pipe that somebody put there
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if fault := file_fault(found.st_mode, found.st_uid, os.geteuid()):
            return Unread(f"{path} {fault}")
        return password_of(os.read(descriptor, PASSWORD_MAX + 16))
    except ValueError as error:
        return Unread(f"{path} {error}")
    finally:
        os.close(descriptor)
