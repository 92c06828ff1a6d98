"""Files that people write -> typed resources, or everything that is wrong with them (reference resources.md 5.4, 9).

v1 and v3 documents, lists and several documents may be mixed in one file. Nothing partial comes out: either every
document is a complete resource that passed its kind's checks, or InvalidFile has all findings, each with its place.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from resources.codec import with_metadata
from resources.errors import Rejected
from resources.kinds import all_kinds, by_name, problems_of
from resources.kinds.base import API_VERSION, API_VERSION_V1, Kind, Path, Problem, Resource
from resources.names import DEFAULT_NAMESPACE
from resources.reader import Reader, closest, shown
from resources.tree import Mapping, Node, Position, Scalar, Sequence, is_there, locate
from resources.yamldoc import Fault, documents

_DROPPED: tuple[Path, ...] = (
    ("kind",),
    ("apiVersion",),
    *(
        ("metadata", name)
        for name in (
            "generateName", "selfLink", "generation", "deletionTimestamp", "deletionGracePeriodSeconds",
            "ownerReferences", "finalizers", "managedFields",
        )
    ),
)
"""What a document may have beside the fields of its type, and what is then ignored."""

_LIST = "List"


@dataclass(frozen=True, slots=True)
class Document:
    """One resource as a file has it. `kind_name` is the kind as spelled in its own era: ``ipPool`` or ``IPPool``."""

    kind: Kind[Any]
    resource: Resource
    v1: bool
    kind_name: str
    at: Position


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem and its place in the file."""

    file: str
    at: Position
    problem: Problem

    def __str__(self) -> str:
        """Return ``file:line:column: field = 'value': reason; hint``."""
        return f"{self.file}:{self.at.line}:{self.at.column}: {self.problem}"


class InvalidFile(Rejected):
    """Files of which nothing may be used. The message has one line for each finding, file by file and in its order."""

    reference: ClassVar[str] = "invalid-file"

    def __init__(self, findings: Iterable[Finding]) -> None:
        found = tuple(findings)
        files = {file: number for number, file in enumerate(dict.fromkeys(finding.file for finding in found))}
        self.findings = tuple(sorted(found, key=lambda one: (files[one.file], one.at.line, one.at.column)))
        super().__init__("\n".join(map(str, self.findings)))


@dataclass(frozen=True, slots=True)
class Loaded:
    documents: tuple[Document, ...]
    warnings: tuple[Finding, ...] = ()


def load(data: bytes, file: str, *, namespace: str | None = None) -> Loaded:
    """Read a file. `namespace` is the one the command line asks for; namespaced documents go there.

    Raises:
        InvalidFile: with everything that is wrong in the whole file.
    """
    loader = _Loader(file, namespace)
    for node in documents(data):
        if isinstance(node, Fault):
            loader.find(node.at, Problem((), "", node.reason, node.hint))
        else:
            loader.take(node)
    if loader.faults:
        raise InvalidFile(loader.faults)
    return Loaded(tuple(loader.documents), tuple(loader.warnings))


class _Loader:
    def __init__(self, file: str, namespace: str | None) -> None:
        self.documents: list[Document] = []
        self.faults: list[Finding] = []
        self.warnings: list[Finding] = []
        self._file = file
        self._namespace = namespace

    def find(self, at: Position, problem: Problem) -> None:
        (self.warnings if problem.warning else self.faults).append(Finding(self._file, at, problem))

    def take(self, node: Node, within: tuple[str, str] = ("", "")) -> None:
        """Take a document, or each of a sequence or list. `within` is kind and version of the list around it."""
        if isinstance(node, Sequence) and not node.tag:
            for item in node.items:
                self.take(item)
            return
        if not isinstance(node, Mapping) or node.tag:
            reason = "a document must be a mapping with apiVersion, kind, metadata and spec"
            self.find(node.at, Problem((), shown(node), reason))
            return
        kind_name = _text(node.get("kind")) or within[0]
        version = _text(node.get("apiVersion")) or within[1]
        if version == API_VERSION and (kind := by_name().get(kind_name)):
            self._take_v3(kind, node)
        elif version == API_VERSION_V1 and (kind := v1_kinds().get(kind_name)):
            self._take_v1(kind, node)
        elif kind_name.endswith(_LIST) and _is_known(kind_name.removesuffix(_LIST), version):
            self._take_list(node, (kind_name.removesuffix(_LIST), version))
        else:
            at = locate(node, ("kind",)) if node.get("kind") else locate(node, ("apiVersion",))
            reason = f"unknown resource type ({kind_name}) and/or version ({version})"
            self.find(at, Problem((), "", reason, _kind_hint(kind_name, version)))

    def _take_list(self, node: Mapping, within: tuple[str, str]) -> None:
        for entry in node.entries:
            if entry.key.text not in ("kind", "apiVersion", "metadata", "items"):
                reason = "field in document is not recognized or is in the wrong location"
                self.find(entry.key.at, Problem((entry.key.text,), "", reason, "a list has items"))
        items = node.get("items")
        if not isinstance(items, Sequence):
            self.find(locate(node, ("items",)), Problem(("items",), shown(items), "must be a list of resources"))
            return
        for item in items.items:
            self.take(item, within)

    def _take_v3(self, kind: Kind[Any], node: Mapping) -> None:
        reader = Reader(strict=True, dropped=(*_DROPPED, *kind.dropped), foreign=kind.foreign)
        resource = reader.read(kind.type, node)
        found: list[Problem] = []
        if resource is not None:
            resource, misplaced = self._placed(kind, resource)
            found = [*misplaced, *problems_of(kind, resource)]
        self._settle(node, reader.problems, found, resource and Document(kind, resource, False, kind.name, node.at))

    def _take_v1(self, kind: Kind[Any], node: Mapping) -> None:
        v1 = kind.v1
        assert v1 is not None
        reader = Reader(strict=True, dropped=(("kind",), ("apiVersion",)))
        document = reader.read(v1.type, node)
        found = [] if document is None else list(v1.check(document))
        resource = None
        if document is not None:
            faulty = [problem.path for problem in found if not problem.warning]
            try:
                resource = kind.complete(v1.to_v3(document))
            except (ValueError, LookupError):
                if not faulty:
                    raise
            else:
                also = [_in_v1(problem, v1.paths) for problem in problems_of(kind, resource)]
                found += _beside(also, faulty, node) if faulty else also
        self._settle(node, reader.problems, found, resource and Document(kind, resource, True, v1.name, node.at))

    def _placed(self, kind: Kind[Any], resource: Any) -> tuple[Any, list[Problem]]:
        """Give the resource its namespace, and find what is wrong with the one it has."""
        own, asked = resource.metadata.namespace, self._namespace
        path: Path = ("metadata", "namespace")
        problems = []
        if kind.namespaced:
            if own and asked and own != asked:
                reason = f"resource namespace does not match client namespace. {own} != {asked}"
                problems.append(Problem(path, own, reason))
            resource = with_metadata(resource, namespace=own or asked or DEFAULT_NAMESPACE)
        elif asked:
            problems.append(Problem((), "", f"{kind.name} is not namespaced", "leave --namespace out"))
        elif own:
            reason = (
                "namespace should not be specified for a non-namespaced resource. "
                f"{kind.name} is not a namespaced resource"
            )
            problems.append(Problem(path, own, reason))
        return kind.complete(resource), problems

    def _settle(
        self, node: Mapping, unreadable: Iterable[Problem], found: Iterable[Problem], document: Document | None
    ) -> None:
        """Note the problems at their places; take the document if there is none that matters.

        Where something could not be read a zero value stands now: what the checks say of it is only a consequence.
        """
        paths = [problem.path for problem in unreadable]
        for problem in (*unreadable, *(p for p in found if not any(_overlap(p.path, path) for path in paths))):
            self.find(locate(node, problem.path), problem)
        if document is not None:
            self.documents.append(document)


def v1_kinds() -> dict[str, Kind[Any]]:
    """Return the kinds that v1 knows, by their names in v1 files."""
    return {kind.v1.name: kind for kind in all_kinds() if kind.v1 is not None}


def _is_known(kind_name: str, version: str) -> bool:
    known: Iterable[str] = by_name() if version == API_VERSION else v1_kinds() if version == API_VERSION_V1 else ()
    return kind_name in known


def _text(node: Node | None) -> str:
    return node.text if isinstance(node, Scalar) and not node.tag else ""


def _kind_hint(kind_name: str, version: str) -> str:
    if version not in (API_VERSION, API_VERSION_V1):
        if not kind_name and not version:
            return f"a resource begins with apiVersion: {API_VERSION} and its kind"
        return f"apiVersion is {API_VERSION} or {API_VERSION_V1}"
    known = {**by_name()} if version == API_VERSION else v1_kinds()
    near = closest(kind_name, known) if kind_name else None
    return f"did you mean '{near}'?" if near else f"kinds of {version} are {', '.join(sorted(known))}"


def _overlap(path: Path, unreadable: Path) -> bool:
    """Return whether a path is at, in or around another one."""
    common = min(len(path), len(unreadable))
    return common > 0 and path[:common] == unreadable[:common]


def _beside(found: Iterable[Problem], faulty: Iterable[Path], node: Mapping) -> Iterator[Problem]:
    """Yield what the v3 check of a faulty v1 document adds: what stands in the document, and is no consequence.

    A v3 name may be made of several fields, and v1's own check has looked at each.
    """
    for problem in found:
        told = any(_overlap(problem.path, path) for path in (("metadata", "name"), *faulty))
        if is_there(node, problem.path) and not told:
            yield problem


def _in_v1(problem: Problem, paths: Iterable[tuple[Path, Path]]) -> Problem:
    """Return a problem of the v3 resource at the place in the v1 document that it comes from."""
    for v3, v1 in sorted(paths, key=lambda pair: -len(pair[0])):
        if problem.path[: len(v3)] == v3:
            path = v1 + problem.path[len(v3) :]
            return Problem(path, problem.value, problem.reason, problem.hint, problem.warning)
    return problem


def placed(findings: Iterable[Problem], document: Document, file: str) -> Iterator[Finding]:
    """Put problems that were found later (by the host, by the store) at the place of their document."""
    for problem in findings:
        yield Finding(file, document.at, problem)
