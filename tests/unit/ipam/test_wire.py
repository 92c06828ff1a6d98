"""Handles, tickets and settings as stored."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipam import affinity, config, handle
from ipam.affinity import AffinityState
from ipam.config import IPAMConfig
from ipam.errors import IPAMConfigInvalid
from ipam.handle import Handle, new_handle

BLOCK = ipaddress.ip_network("17.16.10.8/29")
OTHER = ipaddress.ip_network("fd00:1::d0/125")


# --- tickets


@pytest.mark.parametrize(("value", "state"), [
    (b'{"state":"pending","deleted":false}', AffinityState.PENDING),
    (b'{"state":"confirmed","deleted":false}', AffinityState.CONFIRMED),
    (b'{"state":"pendingDeletion","deleted":false}', AffinityState.PENDING_DELETION),
    (b'{"state":"confirmed"}', AffinityState.CONFIRMED),
    (b"", AffinityState.CONFIRMED),
    (b"{}", AffinityState.CONFIRMED),
    (b'{"state":""}', AffinityState.CONFIRMED),
    (b'{"state":"confirmed","deleted":true}', None),
    (b'{"state":"claimed"}', AffinityState.PENDING),
    (b"confirmed", AffinityState.PENDING),
    (b"\xff", AffinityState.PENDING),
])
def test_tickets_of_every_age_and_condition(value: bytes, state: AffinityState | None) -> None:
    assert affinity.decode(value) is state


# --- handles


def test_a_handle_is_written_as_the_original_does() -> None:
    value = b'{"block":{"17.16.10.8/29":2,"fd00:1::d0/125":1},"deleted":false}'
    assert handle.encode(Handle({OTHER: 1, BLOCK: 2})) == value
    assert handle.decode(value) == Handle({BLOCK: 2, OTHER: 1})


def test_members_of_a_handle_that_nobody_knows_survive() -> None:
    value = b'{"block":{"17.16.10.8/29":2},"deleted":false,"owner":"x"}'
    known = handle.decode(value)
    assert known is not None
    assert handle.encode(known) == value


@pytest.mark.parametrize("value", [b"", b"{}", b"x", b'{"block":null}', b'{"block":{"nowhere":1}}', b'{"block":[]}'])
def test_a_handle_that_makes_no_sense_names_no_block(value: bytes) -> None:
    assert handle.decode(value) == Handle()


def test_a_handle_marked_deleted_is_absent() -> None:
    assert handle.decode(b'{"block":{"17.16.10.8/29":2},"deleted":true}') is None


def test_counts_go_up_and_down_and_a_block_without_addresses_goes() -> None:
    two = Handle().plus(BLOCK, 2).plus(OTHER, 1)
    assert two.minus(BLOCK, 1, left=1).counts == {BLOCK: 1, OTHER: 1}
    assert two.minus(OTHER, 1, left=0).counts == {BLOCK: 2}


def test_an_overstated_count_ends_with_the_blocks_last_address() -> None:
    overstated = Handle({BLOCK: 12})
    assert overstated.minus(BLOCK, 3, left=4).counts == {BLOCK: 9}
    assert overstated.minus(BLOCK, 7, left=0).counts == {}


def test_an_understated_count_is_put_right_as_far_as_known() -> None:
    assert Handle({BLOCK: 1}).minus(BLOCK, 1, left=2).counts == {BLOCK: 2}


def test_fresh_handles_differ_and_can_stand_in_a_key() -> None:
    handles = {new_handle() for _ in range(100)}
    assert len(handles) == 100
    assert all(name.startswith("docker-") and len(name) == 39 and "/" not in name for name in handles)


# --- settings


@pytest.mark.parametrize(("value", "settings"), [
    (b"{}", IPAMConfig(auto_allocate_blocks=False)),
    (b'{"auto_allocate_blocks":true}', IPAMConfig()),
    (b'{"strict_affinity":true,"auto_allocate_blocks":true,"maxBlocksPerHost":4,"ipCooldownSeconds":30}',
     IPAMConfig(strict_affinity=True, max_blocks_per_host=4, cooldown_seconds=30)),
    (b'{"auto_allocate_blocks":true,"kubeVirtVMAddressPersistence":"Enabled"}',
     IPAMConfig(vm_address_persistence="Enabled")),
    (b'{"auto_allocate_blocks":true,"newer":{"a":1}}', IPAMConfig(others={"newer": {"a": 1}})),
])
def test_settings_are_read_and_written_the_same(value: bytes, settings: IPAMConfig) -> None:
    assert config.decode(value) == settings
    assert config.encode(settings) == value


@pytest.mark.parametrize("value", [b"", b"[]", b"\xff", b'{"strict_affinity":"yes"}', b'{"maxBlocksPerHost":1.5}'])
def test_settings_that_cannot_be_read_are_an_error_not_the_defaults(value: bytes) -> None:
    with pytest.raises(IPAMConfigInvalid, match="cannot be read"):
        config.decode(value)


def test_the_rules_of_the_settings() -> None:
    with pytest.raises(IPAMConfigInvalid, match="Cannot disable 'StrictAffinity' and 'AutoAllocateBlocks'"):
        config.changed(IPAMConfig(), auto_allocate_blocks=False)
    with pytest.raises(IPAMConfigInvalid, match="MaxBlocksPerHost requires StrictAffinity to be enabled"):
        config.changed(IPAMConfig(), max_blocks_per_host=4)
    with pytest.raises(IPAMConfigInvalid, match="MaxBlocksPerHost requires StrictAffinity to be enabled"):
        config.changed(IPAMConfig(strict_affinity=True, max_blocks_per_host=4), strict_affinity=False)
    with pytest.raises(IPAMConfigInvalid, match="from 0 to 1000000"):
        config.changed(IPAMConfig(strict_affinity=True), max_blocks_per_host=-1)
    with pytest.raises(IPAMConfigInvalid, match="from 0 to 1200"):
        config.changed(IPAMConfig(), cooldown_seconds=1201)
    strict = config.changed(IPAMConfig(), strict_affinity=True, max_blocks_per_host=4)
    assert (strict.block_limit, IPAMConfig().block_limit) == (4, 20)
    assert config.changed(strict, max_blocks_per_host=0, strict_affinity=False) == IPAMConfig()


@given(st.builds(
    IPAMConfig, strict_affinity=st.booleans(), auto_allocate_blocks=st.booleans(),
    max_blocks_per_host=st.integers(0, 10**6), cooldown_seconds=st.integers(0, 1200),
    vm_address_persistence=st.sampled_from([None, "Enabled", "Disabled"]),
    others=st.dictionaries(st.sampled_from(["x", "y"]), st.integers()),
))
def test_any_settings_survive_the_store(settings: IPAMConfig) -> None:
    assert config.decode(config.encode(settings)) == settings
