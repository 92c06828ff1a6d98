"""Where the datastore is and how it is reached."""

from dataclasses import dataclass, field
from pathlib import Path

DEFAULT_ENDPOINT = "http://127.0.0.1:2379"


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdConfig:
    """How etcd is reached. `endpoints` are URLs without a path, all of one cluster.

    A certificate comes as a file or as its text (`*_pem`), never both; user and password only together.
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
