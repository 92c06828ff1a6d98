"""Which file a password is in, and what is refused on the way to it (docs/adr/0020)."""

import os
import stat
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgpd.calc.secrets import (
    Password,
    SecretName,
    Unread,
    file_fault,
    folder_fault,
    password_of,
    secret_named,
    secret_path,
)
from bgpd.secrets import SecretFiles
from resources.kinds.secret import BGPPassword, SecretKeyRef

FOLDER = PurePosixPath("/etc/calico/secrets")
BAD_NAMES = ("", ".", "..", "a/b", "/etc", "../a", "a/..", "A", "a_b", "a\0", "a\n", "x" * 254)
BAD_KEYS = ("", ".", "..", "...", "..data", "a/b", "/etc/shadow", "../a", "a\0b", "a\n", "a b", "ä", "x" * 254)


def test_a_secret_is_a_file_in_a_folder() -> None:
    assert secret_path(FOLDER, SecretName("bgp", "rack1.key")) == FOLDER / "bgp" / "rack1.key"
    asked = BGPPassword(secret_key_ref=SecretKeyRef(name="bgp", key="rack1", optional=True))
    assert secret_named(asked) == SecretName("bgp", "rack1")


@pytest.mark.parametrize(("name", "key"), [*((n, "key") for n in BAD_NAMES), *(("name", k) for k in BAD_KEYS)])
def test_names_that_could_lead_elsewhere_are_refused(name: str, key: str) -> None:
    with pytest.raises(ValueError, match="is no secret"):
        secret_path(FOLDER, SecretName(name, key))
    with pytest.raises(ValueError, match=r"^password: "):
        secret_named(BGPPassword(secret_key_ref=SecretKeyRef(name=name, key=key)))


def test_a_password_that_names_nothing_is_no_password() -> None:
    for nothing in (BGPPassword(), BGPPassword(secret_key_ref=SecretKeyRef())):
        with pytest.raises(ValueError, match="names no secret"):
            secret_named(nothing)


@given(st.text(), st.text())
def test_no_name_leaves_the_folder(name: str, key: str) -> None:
    try:
        path = secret_path(FOLDER, SecretName(name, key))
    except ValueError:
        return
    assert os.path.normpath(path) == str(path)
    assert path.parent.parent == FOLDER


@pytest.mark.parametrize("content", [b"s3cret", b"s3cret\n", b"s3cret\r\n"])
def test_one_line_end_is_no_part_of_a_password(content: bytes) -> None:
    assert password_of(content) == Password("s3cret")


@pytest.mark.parametrize("content", [b"", b"\n", b"x" * 81, b"a\nb", b"a\n\n", b"\xff\xfe", b"a\0b"])
def test_contents_that_are_no_password(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"holds") as caught:
        password_of(content)
    assert "a\\nb" not in str(caught.value)


def test_a_password_is_what_tcp_takes() -> None:
    assert password_of(b" ;{}\"' " * 10 + b"\n").text == " ;{}\"' " * 10
    assert password_of("ä".encode() * 40).text == "ä" * 40
    assert "s3cret" not in repr(password_of(b"s3cret"))


def test_only_what_is_roots_alone_is_a_secret() -> None:
    regular, folder = stat.S_IFREG, stat.S_IFDIR
    assert file_fault(regular | 0o600, 0, 7) is None
    assert file_fault(regular | 0o400, 7, 7) is None
    assert file_fault(regular | 0o640, 0, 0) == "is open to others (mode 0640): chmod 0600"
    assert file_fault(regular | 0o604, 0, 0) is not None
    assert file_fault(regular | 0o600, 8, 7) == "belongs to user 8: make it root's with chown root"
    assert file_fault(stat.S_IFIFO | 0o600, 0, 0) == "is no regular file"
    assert folder_fault(folder | 0o755, 0, 7) is None
    assert folder_fault(folder | 0o775, 0, 0) == "may be written by others (mode 0775): chmod go-w"
    assert folder_fault(folder | 0o700, 8, 7) is not None
    assert folder_fault(regular | 0o600, 0, 0) == "is no folder"


# --- files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bgp").mkdir(mode=0o700)
    tmp_path.chmod(0o700)
    return tmp_path


def put(folder: Path, content: bytes = b"s3cret\n", mode: int = 0o600) -> Path:
    path = folder / "bgp" / "rack1"
    path.write_bytes(content)
    path.chmod(mode)
    return path


RACK1 = SecretName("bgp", "rack1")


def unread(folder: Path, secret: SecretName = RACK1) -> str:
    found = SecretFiles(folder).read([secret])[secret]
    assert isinstance(found, Unread)
    return found.reason


def test_a_password_is_read_anew_each_time(folder: Path) -> None:
    files = SecretFiles(folder)
    put(folder)
    assert files.read([RACK1]) == {RACK1: Password("s3cret")}
    put(folder, b"other")
    assert files.read([RACK1, RACK1]) == {RACK1: Password("other")}
    assert files.read([]) == {}


def test_a_password_may_be_behind_a_link_as_mounted_secrets_are(folder: Path) -> None:
    real = folder / "bgp" / "..data"
    real.mkdir()
    (real / "rack1").write_bytes(b"s3cret")
    (real / "rack1").chmod(0o400)
    (folder / "bgp" / "rack1").symlink_to("..data/rack1")
    assert SecretFiles(folder).read([RACK1]) == {RACK1: Password("s3cret")}


def test_what_is_not_there_is_told_with_the_way_out(folder: Path) -> None:
    path = folder / "bgp" / "rack1"
    assert unread(folder) == f"{path} is not there: put the password into it, readable for root only"
    assert "is not there" in unread(folder, SecretName("other", "rack1"))
    assert "is not there" in unread(folder / "nowhere")


def test_what_is_wrong_with_a_file_is_told(folder: Path) -> None:
    path = put(folder, mode=0o644)
    assert unread(folder) == f"{path} is open to others (mode 0644): chmod 0600"
    put(folder, b"x" * 5000)
    assert "a password has 1 to 80" in unread(folder)
    path.unlink()
    path.mkdir(mode=0o700)
    assert unread(folder) == f"{path} is no regular file"
    path.rmdir()
    os.mkfifo(path, 0o600)
    assert unread(folder) == f"{path} is no regular file"
    path.unlink()
    put(folder)
    (folder / "bgp").chmod(0o777)
    assert unread(folder) == f"the folder {folder / 'bgp'} may be written by others (mode 0777): chmod go-w"


def test_a_name_that_leads_elsewhere_reads_nothing(folder: Path) -> None:
    (folder.parent / "outside").write_bytes(b"s3cret")
    assert "is no secret" in unread(folder / "bgp", SecretName("..", "outside"))
