"""Resources from files, folders and standard input; what is wrong in any of them is told together."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import click

from resources.documents import Document, Finding, InvalidFile, load
from resources.errors import Rejected

SUFFIXES = (".yaml", ".yml", ".json")


class FileUnreadable(Rejected):
    """A file that cannot be read."""

    reference = "file-unreadable"


class NothingInFile(Rejected):
    """A file or folder without a resource."""

    reference = "nothing-in-file"


def read(
    names: Sequence[str], *, recursive: bool = False, namespace: str | None = None, warn: bool = True
) -> list[Document]:
    """Return the resources of files, of folders' files in name order, and of standard input (``-``).

    Warnings are printed on stderr, if `warn`.

    Raises:
        InvalidFile: everything that is wrong, in all files; nothing may be used then.
        FileUnreadable, NothingInFile.
    """
    documents: list[Document] = []
    findings: list[Finding] = []
    places: dict[str, str] = {}
    for shown, data in (content for name in names for content in _contents(name, recursive)):
        try:
            loaded = load(data, shown, namespace=namespace)
        except InvalidFile as invalid:
            findings.extend(invalid.findings)
            continue
        documents.extend(loaded.documents)
        for warning in (*loaded.warnings, *_again(loaded.documents, shown, places)) if warn else ():
            click.echo(f"Warning: {warning}", err=True)
    if findings:
        raise InvalidFile(findings)
    if not documents:
        where = [f"directory {name}" if Path(name).is_dir() else f"file {name}" for name in names]
        raise NothingInFile(f"no resources specified in {', '.join(where)}")
    return documents


def _again(documents: Iterable[Document], file: str, places: dict[str, str]) -> Iterator[str]:
    """Yield a line for each resource that was there before; `places` has where, and gets what is new."""
    for document in documents:
        metadata = document.resource.metadata
        label = document.kind.label(metadata.name, metadata.namespace)
        at = f"{file}:{document.at.line}"
        if (before := places.setdefault(label, at)) != at:
            yield f"{at}: {label} is at {before} already: create refuses the second, apply and replace let it win"


def _contents(name: str, recursive: bool) -> Iterable[tuple[str, bytes]]:
    if name == "-":
        yield "<stdin>", sys.stdin.buffer.read()
        return
    path = Path(name)
    if path.is_dir():
        found = sorted(path.rglob("*") if recursive else path.glob("*"))
        for file in found:
            if file.suffix in SUFFIXES and file.is_file():
                yield str(file), _bytes(file)
        return
    yield name, _bytes(path)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileUnreadable(f"{path}: {error.strerror}") from error
