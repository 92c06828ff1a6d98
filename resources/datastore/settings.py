"""Where the datastore is and how it is reached: calicoctl's configuration file, else the environment.

Both eras' headers and names are taken (reference resources.md 5.3). A file that exists is the only source: then the
environment is ignored. Daemons have the environment only.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from resources.datastore.etcdconfig import DEFAULT_ENDPOINT, EtcdConfig, endpoint_fault
from resources.datastore.store import Store
from resources.errors import ConfigurationError
from resources.runtime import paths

_V3_HEADER = ("projectcalico.org/v3", "CalicoAPIConfig")
_V1_HEADER = ("v1", "calicoApiConfig")

# field of a configuration file -> names in the environment, the strongest first
_FIELDS = {
    "datastoreType": ("CALICO_DATASTORE_TYPE", "DATASTORE_TYPE"),
    "etcdEndpoints": ("CALICO_ETCD_ENDPOINTS", "ETCD_ENDPOINTS"),
    "etcdDiscoverySrv": ("CALICO_ETCD_DISCOVERY_SRV", "ETCD_DISCOVERY_SRV"),
    "etcdScheme": ("CALICO_ETCD_SCHEME", "ETCD_SCHEME"),
    "etcdAuthority": ("CALICO_ETCD_AUTHORITY", "ETCD_AUTHORITY"),
    "etcdUsername": ("CALICO_ETCD_USERNAME", "ETCD_USERNAME"),
    "etcdPassword": ("CALICO_ETCD_PASSWORD", "ETCD_PASSWORD"),
    "etcdCACertFile": ("CALICO_ETCD_CA_CERT_FILE", "ETCD_CA_CERT_FILE"),
    "etcdCertFile": ("CALICO_ETCD_CERT_FILE", "ETCD_CERT_FILE"),
    "etcdKeyFile": ("CALICO_ETCD_KEY_FILE", "ETCD_KEY_FILE"),
    "etcdCACert": (),
    "etcdCert": (),
    "etcdKey": (),
}
_V1_ONLY = frozenset({"etcdScheme", "etcdAuthority"})
_V3_ONLY = frozenset({"etcdDiscoverySrv", "etcdCACert", "etcdCert", "etcdKey"})

# felix's names, where it runs alone (reference felix.md 5)
_FELIX_NAMES = {
    "etcdEndpoints": "FELIX_ETCDENDPOINTS",
    "etcdScheme": "FELIX_ETCDSCHEME",
    "etcdAuthority": "FELIX_ETCDADDR",
    "etcdCACertFile": "FELIX_ETCDCAFILE",
    "etcdCertFile": "FELIX_ETCDCERTFILE",
    "etcdKeyFile": "FELIX_ETCDKEYFILE",
}
VARIABLES = frozenset(
    name for names in (*_FIELDS.values(), _FELIX_NAMES.values()) for name in names
)
"""Every environment variable that says something about the datastore."""


def connect(config: EtcdConfig) -> Store:
    """Return the store. Nothing is opened before its first call.

    Raises:
        ConfigurationError: a certificate or key cannot be read.
    """
    from resources.datastore.etcd import EtcdStore  # a tenth of a second, which not every command needs

    return EtcdStore(config)


def etcd_config(
    environ: Mapping[str, str] = os.environ, *, file: Path | None = None, default_file: Path = paths.CALICOCTL_CFG
) -> EtcdConfig:
    """Return calicoctl's settings: from `file`, else from the default file, else from the environment.

    Raises:
        ConfigurationError: a setting is unusable, or the file that was named does not exist; the message names the file
            or variable, the field and its value.
    """
    path = file or default_file
    try:
        text = path.read_text()
    except (FileNotFoundError, NotADirectoryError):
        if file is not None:
            raise ConfigurationError(f"the configuration file {file} does not exist") from None
        return etcd_config_of_daemon(environ)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the configuration file {path} cannot be read: {error}") from error
    return _from_file(path, text)


def etcd_config_of_daemon(environ: Mapping[str, str] = os.environ) -> EtcdConfig:
    """Return a daemon's settings: from the environment only. Empty means not set.

    Raises:
        ConfigurationError: as `etcd_config`.
    """
    settings: dict[str, _Setting] = {}
    for name, variables in _FIELDS.items():
        for variable in (*variables, *filter(None, [_FELIX_NAMES.get(name)])):
            if value := environ.get(variable, "").strip():
                settings[name] = _Setting(variable, value)
                break
    return _resolve(settings, "environment" if settings else "default")


@dataclass(frozen=True, slots=True)
class _Setting:
    where: str
    """What an error calls it: a variable, or a file with a field."""
    value: str

    def unusable(self, why: str, hint: str | None = None, *, secret: bool = False) -> ConfigurationError:
        value = "" if secret else f" = {self.value!r}"
        return ConfigurationError(f"{self.where}{value} cannot be used: {why}", hint=hint)


def _from_file(path: Path, text: str) -> EtcdConfig:
    from resources import yamldoc

    try:
        document = yamldoc.load(text)
    except yamldoc.NotYaml as error:
        raise ConfigurationError(f"{path}: {error}") from error
    if not isinstance(document, dict):
        hint = f"it begins with apiVersion: {_V3_HEADER[0]}"
        raise ConfigurationError(f"{path}: it holds no configuration", hint=hint)
    header = (document.get("apiVersion"), document.get("kind"))
    if header not in (_V1_HEADER, _V3_HEADER):
        raise ConfigurationError(
            f"{path}: apiVersion {header[0]!r} with kind {header[1]!r} is no configuration",
            hint=" or ".join(f"apiVersion: {version}, kind: {kind}" for version, kind in (_V3_HEADER, _V1_HEADER)),
        )
    _refuse_unknown(path, "", document, {"apiVersion", "kind", "metadata", "spec"})
    _mapping(path, "metadata", document.get("metadata", ""))
    spec = _mapping(path, "spec", document.get("spec", ""))
    _refuse_unknown(path, "spec.", spec, _FIELDS.keys() - (_V3_ONLY if header == _V1_HEADER else _V1_ONLY))
    settings: dict[str, _Setting] = {}
    for name, value in spec.items():
        if not isinstance(value, str):
            raise ConfigurationError(f"{path}: spec.{name} must be a text")
        if value.strip():
            settings[name] = _Setting(f"{path}: spec.{name}", value.strip())
    return _resolve(settings, str(path))


def _mapping(path: Path, name: str, value: object) -> Mapping[str, object]:
    if value == "":
        return {}
    if not isinstance(value, dict):
        raise ConfigurationError(f"{path}: {name} must be a mapping")
    return value


def _refuse_unknown(path: Path, above: str, fields: Mapping[str, object], known: "set[str]") -> None:
    if unknown := sorted(fields.keys() - known):
        raise ConfigurationError(
            f"{path}: there is no field {above}{unknown[0]}", hint=f"known are {', '.join(sorted(known))}"
        )


def _resolve(settings: Mapping[str, _Setting], origin: str) -> EtcdConfig:
    if (kind := settings.get("datastoreType")) and kind.value not in ("etcdv3", "etcdv2"):
        raise kind.unusable("the datastore is etcd, version 3", "leave it out, or write etcdv3")
    if srv := settings.get("etcdDiscoverySrv"):
        raise srv.unusable("endpoints are not looked up in DNS", "list them in etcdEndpoints (ETCD_ENDPOINTS)")
    texts = {name: setting.value for name, setting in settings.items()}
    _check_certificates(settings)
    user = "etcdUsername" in texts and "etcdPassword" in texts
    return EtcdConfig(
        endpoints=_endpoints(settings),
        ca_file=_path(texts.get("etcdCACertFile")),
        cert_file=_path(texts.get("etcdCertFile")),
        key_file=_path(texts.get("etcdKeyFile")),
        ca_pem=texts.get("etcdCACert"),
        cert_pem=texts.get("etcdCert"),
        key_pem=texts.get("etcdKey"),
        username=texts["etcdUsername"] if user else None,
        password=texts["etcdPassword"] if user else None,
        origin=origin,
    )


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _check_certificates(settings: Mapping[str, _Setting]) -> None:
    """A client's certificate and key come together, and all certificates as files or all in the configuration."""
    files = [settings[name] for name in ("etcdCACertFile", "etcdCertFile", "etcdKeyFile") if name in settings]
    texts = [settings[name] for name in ("etcdCACert", "etcdCert", "etcdKey") if name in settings]
    if files and texts:
        raise texts[0].unusable(f"{files[0].where} is set too", "give all as files, or all as text", secret=True)
    for one, other in (("etcdCertFile", "etcdKeyFile"), ("etcdCert", "etcdKey")):
        for name, missing in ((one, other), (other, one)):
            if name in settings and missing not in settings:
                raise settings[name].unusable(f"{missing} is missing", secret=True)


def _endpoints(settings: Mapping[str, _Setting]) -> tuple[str, ...]:
    """Return the endpoints' URLs; the v1 pair of scheme and authority counts only where no endpoints are set."""
    if setting := settings.get("etcdEndpoints"):
        urls = [url.strip() for url in setting.value.split(",") if url.strip()]
        if not urls:
            raise setting.unusable("it holds no endpoint", f"write it as {DEFAULT_ENDPOINT}")
    elif setting := settings.get("etcdAuthority") or settings.get("etcdScheme"):
        scheme = settings.get("etcdScheme")
        authority = settings.get("etcdAuthority")
        urls = [f"{scheme.value if scheme else 'http'}://{authority.value if authority else '127.0.0.1:2379'}"]
    else:
        return (DEFAULT_ENDPOINT,)
    for url in urls:
        if fault := endpoint_fault(url):
            raise setting.unusable(f"{url} {fault}", f"write endpoints as {DEFAULT_ENDPOINT}, separated by commas")
    return tuple(dict.fromkeys(url.rstrip("/") for url in urls))
