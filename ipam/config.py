"""The settings of IPAM in the store (reference ipam.md 2.4): one key, whose absence means the defaults."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import msgspec

from ipam.block import Document
from ipam.errors import IPAMConfigInvalid
from resources.gotext import escaped

DEFAULT_BLOCKS_PER_HOST = 20
MAX_BLOCKS_PER_HOST = 1_000_000
MAX_COOLDOWN_SECONDS = 1200
_MEMBERS = ("strict_affinity", "auto_allocate_blocks", "maxBlocksPerHost", "kubeVirtVMAddressPersistence",
            "ipCooldownSeconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class IPAMConfig:
    """`max_blocks_per_host` 0 means the default limit of 20."""

    strict_affinity: bool = False
    auto_allocate_blocks: bool = True
    max_blocks_per_host: int = 0
    vm_address_persistence: str | None = None
    """``kubeVirtVMAddressPersistence`` of 3.32, carried."""
    cooldown_seconds: int = 0
    """How long a released address is kept back."""
    others: Document = field(default_factory=lambda: MappingProxyType({}))
    """Members we do not know, carried."""

    @property
    def block_limit(self) -> int:
        return self.max_blocks_per_host or DEFAULT_BLOCKS_PER_HOST

    def check(self) -> None:
        """Raise IPAMConfigInvalid for what may not be written (reference ipam.md 3.8, SetIPAMConfig)."""
        if not self.strict_affinity and not self.auto_allocate_blocks:
            raise IPAMConfigInvalid(
                "Cannot disable 'StrictAffinity' and 'AutoAllocateBlocks' at the same time",
                hint="without blocks of its own a node could only borrow",
            )
        if self.max_blocks_per_host and not self.strict_affinity:
            raise IPAMConfigInvalid(
                "MaxBlocksPerHost requires StrictAffinity to be enabled",
                hint="a node at its limit would borrow from other nodes' blocks; add --strictaffinity=true",
            )
        if not 0 <= self.max_blocks_per_host <= MAX_BLOCKS_PER_HOST:
            raise IPAMConfigInvalid(f"MaxBlocksPerHost must be from 0 to {MAX_BLOCKS_PER_HOST}")
        if not 0 <= self.cooldown_seconds <= MAX_COOLDOWN_SECONDS:
            raise IPAMConfigInvalid(f"IPCooldownSeconds must be from 0 to {MAX_COOLDOWN_SECONDS}")


class _Wire(msgspec.Struct, rename={"max_blocks_per_host": "maxBlocksPerHost",
                                    "vm_address_persistence": "kubeVirtVMAddressPersistence",
                                    "cooldown_seconds": "ipCooldownSeconds"}):
    strict_affinity: bool | None = None
    auto_allocate_blocks: bool | None = None
    max_blocks_per_host: int | None = None
    vm_address_persistence: str | None = None
    cooldown_seconds: int | None = None


DEFAULTS = IPAMConfig()


def decode(value: bytes) -> IPAMConfig:
    """Read the value of the key; a member that is missing is false or 0, `auto_allocate_blocks` too.

    Raises:
        IPAMConfigInvalid: not JSON, or a member of the wrong type.
    """
    try:
        document = msgspec.json.decode(value, type=dict[str, object])
        wire = msgspec.convert(document, _Wire)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise IPAMConfigInvalid(
            f"the IPAM configuration in the store cannot be read: {error}",
            hint="write it anew with 'calicoctl ipam configure'",
        ) from error
    return IPAMConfig(
        strict_affinity=bool(wire.strict_affinity),
        auto_allocate_blocks=bool(wire.auto_allocate_blocks),
        max_blocks_per_host=wire.max_blocks_per_host or 0,
        vm_address_persistence=wire.vm_address_persistence,
        cooldown_seconds=wire.cooldown_seconds or 0,
        others={name: member for name, member in document.items() if name not in _MEMBERS},
    )


def encode(config: IPAMConfig) -> bytes:
    members: Mapping[str, object] = {
        "strict_affinity": config.strict_affinity,
        "auto_allocate_blocks": config.auto_allocate_blocks,
        "maxBlocksPerHost": config.max_blocks_per_host,
        "kubeVirtVMAddressPersistence": config.vm_address_persistence,
        "ipCooldownSeconds": config.cooldown_seconds,
    }
    said = {name: member for name, member in members.items() if member}
    return escaped(msgspec.json.encode({**said, **config.others}))


def changed(
    config: IPAMConfig, *, strict_affinity: bool | None = None, auto_allocate_blocks: bool | None = None,
    max_blocks_per_host: int | None = None, cooldown_seconds: int | None = None,
) -> IPAMConfig:
    """Return the settings with those given replaced. Raises IPAMConfigInvalid."""
    new = replace(
        config,
        strict_affinity=config.strict_affinity if strict_affinity is None else strict_affinity,
        auto_allocate_blocks=config.auto_allocate_blocks if auto_allocate_blocks is None else auto_allocate_blocks,
        max_blocks_per_host=config.max_blocks_per_host if max_blocks_per_host is None else max_blocks_per_host,
        cooldown_seconds=config.cooldown_seconds if cooldown_seconds is None else cooldown_seconds,
    )
    new.check()
    return new
