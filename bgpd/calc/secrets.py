"""Which file on this host has a password that the store names, and what may stand in it (docs/adr/0020). Pure.

Whoever writes to the store picks the two names, so they are checked here again: the path never leaves the folder.
"""

import stat
from dataclasses import dataclass, field
from pathlib import PurePath

from resources.kinds.secret import BGPPassword, key_fault
from resources.names import name_fault

PASSWORD_MAX = 80
"""Bytes of a TCP MD5 key (Linux TCP_MD5SIG_MAXKEYLEN)."""


@dataclass(frozen=True, slots=True, order=True)
class SecretName:
    """A password by what the store calls it: a folder and a file in it."""

    name: str
    key: str

    def __str__(self) -> str:
        return f"{self.name}/{self.key}"


@dataclass(frozen=True, slots=True)
class Password:
    """A password as read. Its text is in no representation, so that it gets into no log."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Unread:
    """Why there is no password, with the way out."""

    reason: str


Secret = Password | Unread


def secret_named(password: BGPPassword) -> SecretName:
    """Return which secret is asked for.

    Raises:
        ValueError: it names none, or what could not be a folder and a file.
    """
    ref = password.secret_key_ref
    if ref is None or not (ref.name or ref.key):
        raise ValueError("password: names no secret: write secretKeyRef with name and key")
    if fault := name_fault(ref.name):
        raise ValueError(f"password: secretKeyRef.name {ref.name[:64]!r}: {fault}")
    if fault := key_fault(ref.key):
        raise ValueError(f"password: secretKeyRef.key {ref.key[:64]!r}: {fault}")
    return SecretName(ref.name, ref.key)


def secret_path(folder: PurePath, secret: SecretName) -> PurePath:
    """Return the file of a secret: ``folder/name/key``, always two levels below `folder`.

    Raises:
        ValueError: a part of it could lead elsewhere.
    """
    for fault in (name_fault(secret.name), key_fault(secret.key)):
        if fault:
            raise ValueError(f"{str(secret)[:64]!r} is no secret: {fault}")
    return folder / secret.name / secret.key


def folder_fault(mode: int, owner: int, user: int) -> str | None:
    """Return why a folder on the way to a secret is not to be trusted, or None; `user` is who we run as."""
    if not stat.S_ISDIR(mode):
        return "is no folder"
    if owner not in (0, user):
        return f"belongs to user {owner}: make it root's with chown root"
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"may be written by others (mode {stat.S_IMODE(mode):04o}): chmod go-w"
    return None


def file_fault(mode: int, owner: int, user: int) -> str | None:
    """Return why a file is not to be taken for a secret, or None."""
    if not stat.S_ISREG(mode):
        return "is no regular file"
    if owner not in (0, user):
        return f"belongs to user {owner}: make it root's with chown root"
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        return f"is open to others (mode {stat.S_IMODE(mode):04o}): chmod 0600"
    return None


def password_of(content: bytes) -> Password:
    """Return the password that a file holds, without one line end behind it.

    Raises:
        ValueError: it is empty, too long for TCP, or no text; never with the content in it.
    """
    line = content.removesuffix(b"\n").removesuffix(b"\r")
    if not 0 < len(line) <= PASSWORD_MAX:
        raise ValueError(f"holds {len(line)} bytes: a password has 1 to {PASSWORD_MAX}")
    try:
        text = line.decode()
    except UnicodeDecodeError:
        text = ""
    if not text.isprintable() or not text:
        raise ValueError("holds more than one line of text")
    return Password(text)
