"""Where calicoctl and the daemons find etcd."""

from pathlib import Path

import pytest

from resources.datastore.etcdconfig import EtcdConfig
from resources.datastore.settings import etcd_config, etcd_config_of_daemon
from resources.errors import ConfigurationError

V3 = "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nmetadata:\nspec:\n"
V1 = "apiVersion: v1\nkind: calicoApiConfig\nmetadata:\nspec:\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "calicoctl.cfg"


def test_nothing_set_means_etcd_on_this_host() -> None:
    config = etcd_config_of_daemon({})
    assert (config.endpoints, config.origin) == (("http://127.0.0.1:2379",), "default")


def test_a_v3_file_is_read_whole(file: Path) -> None:
    file.write_text(
        V3 + "  datastoreType: etcdv3\n  etcdEndpoints: https://172.16.60.215:2379, https://172.16.60.216:2379/\n"
        "  etcdKeyFile: /etc/calico/key.pem\n  etcdCertFile: /etc/calico/cert.pem\n"
        "  etcdCACertFile: /etc/calico/ca.pem\n"
        "  etcdUsername: felix\n  etcdPassword: 12345\n"
    )
    config = etcd_config({"ETCD_ENDPOINTS": "http://10.0.0.9:2379"}, file=file)
    assert config == EtcdConfig(
        endpoints=("https://172.16.60.215:2379", "https://172.16.60.216:2379"),
        key_file=Path("/etc/calico/key.pem"),
        cert_file=Path("/etc/calico/cert.pem"),
        ca_file=Path("/etc/calico/ca.pem"),
        username="felix",
        password="12345",
    )
    assert config.origin == str(file)
    assert "12345" not in repr(config)


def test_a_v1_file_and_json_are_read_too(file: Path) -> None:
    file.write_text(V1 + "  datastoreType: etcdv2\n  etcdScheme: https\n  etcdAuthority: etcd.example:4001\n")
    assert etcd_config({}, file=file).endpoints == ("https://etcd.example:4001",)
    file.write_text('{"apiVersion": "v1", "kind": "calicoApiConfig", "spec": {"etcdEndpoints": "http://[fd00::1]:2379"}}')
    assert etcd_config({}, file=file).endpoints == ("http://[fd00::1]:2379",)


def test_certificates_may_stand_in_the_file(file: Path) -> None:
    file.write_text(V3 + "  etcdCACert: |\n    -----BEGIN CERTIFICATE-----\n    AAAA\n    -----END CERTIFICATE-----\n")
    pem = etcd_config({}, file=file).ca_pem
    assert pem is not None
    assert pem.splitlines()[1] == "AAAA"


@pytest.mark.parametrize(
    ("environ", "endpoints"),
    [
        ({"ETCD_ENDPOINTS": "http://a:1,http://b:2,http://a:1,"}, ("http://a:1", "http://b:2")),
        ({"ETCD_ENDPOINTS": "http://a:1", "CALICO_ETCD_ENDPOINTS": "http://b:2"}, ("http://b:2",)),
        ({"ETCD_ENDPOINTS": "http://a:1", "ETCD_AUTHORITY": "b:2"}, ("http://a:1",)),
        ({"ETCD_ENDPOINTS": " ", "ETCD_AUTHORITY": "b:2"}, ("http://b:2",)),
        ({"ETCD_AUTHORITY": "b:2", "ETCD_SCHEME": "https"}, ("https://b:2",)),
        ({"ETCD_SCHEME": "https"}, ("https://127.0.0.1:2379",)),
        ({"FELIX_ETCDENDPOINTS": "http://f:1"}, ("http://f:1",)),
        ({"ETCD_ENDPOINTS": "http://a"}, ("http://a",)),
    ],
)
def test_the_environment_has_the_names_of_both_eras(environ: dict[str, str], endpoints: tuple[str, ...]) -> None:
    config = etcd_config_of_daemon(environ)
    assert (config.endpoints, config.origin) == (endpoints, "environment")


def test_a_user_without_a_password_is_not_used() -> None:
    assert etcd_config_of_daemon({"ETCD_USERNAME": "u"}).username is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (V3 + "  etcdEndpoint: http://a:1\n", ["spec.etcdEndpoint", "etcdEndpoints"]),
        (V3 + "  etcdAuthority: a:1\n", ["spec.etcdAuthority"]),
        (V1 + "  etcdCACert: x\n", ["spec.etcdCACert"]),
        (V3 + "  etcdEndpoints: a:2379\n", ["spec.etcdEndpoints", "'a:2379'", "http://"]),
        (V3 + "  etcdEndpoints: http://a:1,http://b:x\n", ["spec.etcdEndpoints", "http://b:x"]),
        (V3 + "  etcdEndpoints: http://a:1/v2\n", ["spec.etcdEndpoints", "http://a:1/v2"]),
        (V3 + "  etcdEndpoints: http://\n", ["spec.etcdEndpoints", "no host"]),
        (V3 + "  etcdEndpoints: ','\n", ["spec.etcdEndpoints", "no endpoint"]),
        (V3 + "  etcdEndpoints: http://u:p@a:1\n", ["spec.etcdEndpoints", "etcdUsername"]),
        (V3 + "  etcdEndpoints: [http://a:1]\n", ["spec.etcdEndpoints", "text"]),
        (V3 + "  datastoreType: kubernetes\n", ["spec.datastoreType", "'kubernetes'", "etcd"]),
        (V3 + "  etcdDiscoverySrv: example.com\n", ["spec.etcdDiscoverySrv", "etcdEndpoints"]),
        (V3 + "  etcdCertFile: /c\n", ["spec.etcdCertFile", "etcdKeyFile is missing"]),
        (V3 + "  etcdCACertFile: /c\n  etcdKey: secret\n", ["spec.etcdKey", "spec.etcdCACertFile"]),
        (V3 + "  etcdUsername: a\n  etcdUsername: b\n", ["line 6", "twice"]),
        (V3 + "  etcdUsername: [\n", ["line "]),
        (V3.replace("spec", "metadata: {}\nspec"), ["twice"]),
        (V3 + "extra: 1\n", ["no field extra"]),
        (V3.replace("spec:", "spec: text"), ["spec must be a mapping"]),
        (V3.replace("v3", "v2"), ["projectcalico.org/v2", "CalicoAPIConfig"]),
        (V1.replace("calicoApiConfig", "CalicoAPIConfig"), ["'v1'"]),
        ("", ["no configuration"]),
        ("- a\n", ["no configuration"]),
        (V3 + "---\n" + V3, ["line "]),
    ],
)
def test_an_unusable_file_is_refused_by_name_field_and_value(file: Path, text: str, said: list[str]) -> None:
    file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        etcd_config({}, file=file)
    message = f"{caught.value} {caught.value.hint}"
    assert str(file) in message
    for part in said:
        assert part in message
    assert "secret" not in message


def test_an_unusable_variable_is_named() -> None:
    with pytest.raises(ConfigurationError, match="CALICO_ETCD_ENDPOINTS = 'ftp://a' cannot be used"):
        etcd_config_of_daemon({"CALICO_ETCD_ENDPOINTS": "ftp://a", "ETCD_ENDPOINTS": "http://a:1"})


def test_a_file_that_was_named_must_exist(file: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        etcd_config({"ETCD_ENDPOINTS": "http://a:1"}, file=file)


def test_a_file_that_is_no_text_is_refused(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        etcd_config({}, file=file)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        etcd_config({}, file=file.parent)


def test_the_default_file_hides_the_environment_only_while_it_exists(file: Path) -> None:
    environ = {"ETCD_ENDPOINTS": "http://a:1"}
    assert etcd_config(environ, default_file=file).endpoints == ("http://a:1",)
    file.write_text(V3)
    assert etcd_config(environ, default_file=file).endpoints == ("http://127.0.0.1:2379",)
