"""A certificate authority for one test, made with openssl."""

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Authority:
    """`ca` signs `cert` with its `key`; the name of the certificate is 127.0.0.1, for servers and clients."""

    ca: Path
    cert: Path
    key: Path


def authority(folder: Path) -> Authority:
    """Make a fresh authority and one certificate in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Authority(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    ca_key, request, extensions = folder / "ca-key.pem", folder / "request.pem", folder / "extensions"
    extensions.write_text("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    _openssl("req", "-x509", *new_key, "-keyout", ca_key, "-out", made.ca, "-subj", "/CN=test authority", "-days", "2")
    _openssl("req", *new_key, "-keyout", made.key, "-out", request, "-subj", "/CN=etcd")
    _openssl(
        *("x509", "-req", "-in", request, "-CA", made.ca, "-CAkey", ca_key, "-CAcreateserial", "-days", "2"),
        *("-out", made.cert, "-extfile", extensions),
    )
    return made


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=30)
