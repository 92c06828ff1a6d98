"""The store on an etcd with TLS, and on one with users."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fakes.certificates import Authority, authority
from fakes.etcdserver import EtcdServer
from fakes.store_contract import put, reading
from resources.datastore.etcd import EtcdStore
from resources.datastore.etcdconfig import EtcdConfig
from resources.datastore.store import Event
from resources.errors import ConfigurationError, StoreRefused, StoreUnavailable


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def tls_server(certificates: Authority) -> Iterator[EtcdServer]:
    with EtcdServer(
        *("--cert-file", str(certificates.cert), "--key-file", str(certificates.key)),
        *("--client-cert-auth", "--trusted-ca-file", str(certificates.ca)),
        scheme="https",
    ) as server:
        yield server


def files(certificates: Authority, *endpoints: str) -> EtcdConfig:
    return EtcdConfig(
        endpoints=endpoints, ca_file=certificates.ca, cert_file=certificates.cert, key_file=certificates.key
    )


def use(store: EtcdStore) -> None:
    """Write, read, list, watch."""
    with closing(store):
        revision = put(store, "/a", b"secret")
        assert [item.value for item in store.list("/a").items] == [b"secret"]
        with reading(store, {"/a": revision}) as reader:
            assert reader.events(1) == [Event("/a", b"secret", revision)]
            after = put(store, "/a", b"2")
            assert reader.events(1) == [Event("/a", b"2", after)]
            reader.close()
            assert reader.ended(seconds=2) is None


def test_tls_with_files_whatever_the_environment_trusts(
    tls_server: EtcdServer, certificates: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere.pem")
    monkeypatch.setenv("CURL_CA_BUNDLE", "/nowhere.pem")
    use(EtcdStore(files(certificates, *tls_server.endpoints)))


def test_tls_with_certificates_as_text(tls_server: EtcdServer, certificates: Authority) -> None:
    texts = [path.read_text() for path in (certificates.ca, certificates.cert, certificates.key)]
    use(EtcdStore(EtcdConfig(endpoints=tls_server.endpoints, ca_pem=texts[0], cert_pem=texts[1], key_pem=texts[2])))


def test_a_server_of_another_authority_is_not_trusted(tls_server: EtcdServer, tmp_path: Path) -> None:
    store = EtcdStore(files(authority(tmp_path), *tls_server.endpoints))
    with closing(store), pytest.raises(StoreUnavailable, match="certificate verify failed"):
        put(store, "/a")


def test_without_a_certificate_the_server_does_not_answer(tls_server: EtcdServer, certificates: Authority) -> None:
    config = EtcdConfig(endpoints=tls_server.endpoints, ca_file=certificates.ca)
    with closing(EtcdStore(config)) as store, pytest.raises(StoreUnavailable, match=tls_server.endpoint):
        store.get("/a")


def test_plain_http_to_a_tls_server_gets_nowhere(tls_server: EtcdServer) -> None:
    store = EtcdStore(EtcdConfig(endpoints=(tls_server.endpoint.replace("https", "http"),)))
    with closing(store), pytest.raises(StoreUnavailable, match="no answer from etcd at http://127"):
        store.get("/a")


def test_a_certificate_that_cannot_be_read_is_named(certificates: Authority, tmp_path: Path) -> None:
    config = EtcdConfig(
        endpoints=("https://127.0.0.1:1",), ca_file=tmp_path / "gone.pem", cert_file=certificates.cert
    )
    with pytest.raises(ConfigurationError, match=r"gone\.pem"):
        EtcdStore(config)


@pytest.fixture(scope="module")
def server_with_users() -> Iterator[EtcdServer]:
    with EtcdServer() as server:
        for name in ("root", "felix"):
            server.ask("auth/user/add", {"name": name, "password": f"{name}'s word"})
        server.ask("auth/role/add", {"name": "calico"})
        # /calico/ up to /calico0
        permission = {"permType": "READWRITE", "key": "L2NhbGljby8=", "range_end": "L2NhbGljbzA="}
        server.ask("auth/role/grant", {"name": "calico", "perm": permission})
        server.ask("auth/user/grant", {"user": "felix", "role": "calico"})
        server.ask("auth/role/add", {"name": "root"})
        server.ask("auth/user/grant", {"user": "root", "role": "root"})
        assert "error" not in server.ask("auth/enable", {})
        yield server


def user(server: EtcdServer, name: str = "felix", password: str = "felix's word") -> EtcdStore:
    return EtcdStore(EtcdConfig(endpoints=server.endpoints, username=name, password=password), pulse_seconds=0.1)


def test_a_user_works_within_its_role(server_with_users: EtcdServer) -> None:
    with closing(user(server_with_users)) as store:
        revision = put(store, "/calico/a")
        assert "/calico/a" in [item.key for item in store.list("/calico/").items]
        with reading(store, {"/calico/": revision + 1}) as reader:
            after = put(store, "/calico/b")
            assert reader.events(1) == [Event("/calico/b", b"v", after)]


def test_a_user_is_refused_outside_of_its_role(server_with_users: EtcdServer) -> None:
    with closing(user(server_with_users)) as store:
        with pytest.raises(StoreRefused, match="permission denied"):
            put(store, "/other/a")
        with pytest.raises(StoreRefused, match="permission denied"):
            store.list("/")
        with pytest.raises(StoreRefused, match="refused a watch"), store.watch({"/other/": 1}):
            pass


def test_a_token_that_the_server_forgot_is_renewed(server_with_users: EtcdServer) -> None:
    with closing(user(server_with_users)) as store:
        put(store, "/calico/a")
        server_with_users.kill()
        server_with_users.start()
        put(store, "/calico/b")
        server_with_users.kill()
        server_with_users.start()
        with store.watch({"/calico/": 1}):
            pass


def test_a_wrong_password_is_refused(server_with_users: EtcdServer) -> None:
    with closing(user(server_with_users, password="wrong")) as store:
        with pytest.raises(StoreRefused, match="invalid user ID or password"):
            put(store, "/calico/a")
        with pytest.raises(StoreRefused, match="invalid user ID or password"), store.watch({"/calico/": 1}):
            pass


def test_no_user_where_one_is_wanted_is_refused_with_the_way_out(server_with_users: EtcdServer) -> None:
    with closing(EtcdStore(EtcdConfig(endpoints=server_with_users.endpoints))) as store:
        with pytest.raises(StoreRefused, match="wants a user") as caught:
            store.get("/calico/a")
        assert "ETCD_USERNAME" in str(caught.value.hint)
        with pytest.raises(StoreRefused), store.watch({"/calico/": 1}):
            pass


def test_a_user_where_none_is_wanted_does_no_harm() -> None:
    with EtcdServer() as server:
        use(user(server))
