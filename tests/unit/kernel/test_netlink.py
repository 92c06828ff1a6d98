"""Framing of netlink attributes, and errors by their numbers."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel import errors
from kernel.netlink import attribute, attributes, error_of, text_of
from resources.errors import Rejected, Transient


def whole(data: bytes | memoryview) -> list[tuple[int, bytes]]:
    return [(kind, bytes(payload)) for kind, payload in attributes(data)]


@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=40))))
def test_attributes_come_back(given_ones: list[tuple[int, bytes]]) -> None:
    data = b"head" + b"".join(attribute(kind, payload) for kind, payload in given_ones)
    assert len(data) % 4 == 0
    assert whole(data[4:]) == given_ones


@given(st.binary(max_size=64))
def test_whatever_bytes_come_the_reader_ends(data: bytes) -> None:
    assert sum(4 + len(payload) for _, payload in attributes(data)) <= len(data)


def test_a_cut_attribute_is_left_out() -> None:
    assert whole(attribute(1, b"whole") + attribute(2, b"cut off")[:-4]) == [(1, b"whole")]


def test_the_flag_bits_of_a_type_are_taken_off() -> None:
    ((kind, payload),) = attributes(attribute(0x8000 | 7, attribute(1, b"nested")))
    assert kind == 7
    assert whole(payload) == [(1, b"nested")]


@pytest.mark.parametrize(("raw", "text"), [(b"cali1\0", "cali1"), (b"cali1", "cali1"), (b"", "")])
def test_text_ends_at_nul(raw: bytes, text: str) -> None:
    assert text_of(memoryview(raw)) == text


@pytest.mark.parametrize(
    ("number", "family", "worth_another_try"),
    [
        (errno.ENODEV, errors.NoSuchDevice, True),
        (errno.ENETDOWN, errors.DeviceDown, True),
        (errno.ENETUNREACH, errors.GatewayUnreachable, True),
        (errno.ESRCH, errors.NoSuchEntry, True),
        (errno.EEXIST, errors.AlreadyThere, False),
        (errno.EBUSY, errors.Busy, True),
        (errno.EPERM, errors.NotPermitted, False),
        (errno.EOPNOTSUPP, errors.NotSupported, False),
        (errno.EINVAL, errors.InvalidArgument, False),
        (errno.EROFS, errors.ReadOnly, False),
        (errno.EIO, errors.KernelFailure, True),
    ],
)
def test_an_errno_has_one_name(number: int, family: type[errors.DataplaneError], worth_another_try: bool) -> None:
    error = errors.from_errno(number, "cannot do it")
    assert type(error) is family
    assert error.errno == number
    assert isinstance(error, Transient) is worth_another_try
    assert isinstance(error, Rejected) is not worth_another_try
    assert str(error).startswith("cannot do it: ")


def test_the_words_of_the_kernel_stand_beside_the_name() -> None:
    error = error_of((errno.EINVAL, "Invalid prefix for given prefix length"), "cannot write route 10.0.0.1/26")
    assert str(error) == ("cannot write route 10.0.0.1/26: Invalid prefix for given prefix length (Invalid argument)")


def test_a_lost_answer_says_nothing_of_the_outcome() -> None:
    assert type(error_of((errno.ENOBUFS, None), "cannot write route 10.0.0.0/26")) is errors.OutcomeUnknown
