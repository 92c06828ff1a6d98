"""How etcd is reached, as a value; where it comes from is `resources.datastore.settings`' business."""

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

DEFAULT_ENDPOINT = "http://127.0.0.1:2379"


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdConfig:
    """How etcd is reached. `endpoints` are URLs without a path, all of one cluster.

    A certificate comes as a file or as its text (`*_pem`), never both; user and password only together. `origin` is
    where it was read (a file's path, ``environment``, ``default``), for one line in the log.
    """

    endpoints: tuple[str, ...] = (DEFAULT_ENDPOINT,)
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    ca_pem: str | None = None
    cert_pem: str | None = None
    key_pem: str | None = field(default=None, repr=False)
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    origin: str = field(default="default", compare=False)


def endpoint_fault(url: str) -> str | None:
    """Return why `url` is not an endpoint of etcd, or None."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return f"is no URL: {error}"
    if parts.scheme not in ("http", "https"):
        return "does not begin with http:// or https://"
    if not parts.hostname or parts.username is not None:
        return "names no host" if not parts.hostname else "has a user in it: use etcdUsername (ETCD_USERNAME)"
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        return "has more than a host and a port"
    return "has the port 0" if port == 0 else None
