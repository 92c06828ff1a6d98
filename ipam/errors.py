"""What IPAM refuses or cannot do, beyond the errors every program shares (resources.errors)."""

from resources.errors import Rejected, Transient


class PoolUnusable(Rejected):
    """No pool to take from: none is enabled, selects this node and allows this use, or a given one is unknown."""

    reference = "pool-unusable"


class PoolExhausted(Rejected):
    """The pools have no free address left that this node may take."""

    reference = "pool-exhausted"


class BlockLimitReached(Rejected):
    """This node's blocks are full and it already owns as many as it may."""

    reference = "block-limit-reached"


class NotInPool(Rejected):
    """An address or range lies in no pool that could be used for it."""

    reference = "not-in-pool"


class AddressInUse(Rejected):
    """The address is allocated, to somebody else."""

    reference = "address-in-use"


class AffinityHeld(Rejected):
    """The block belongs to another node."""

    reference = "affinity-held"


class ReleaseRefused(Rejected):
    """The allocation is not the one that was to be released: another handle or sequence number holds the address."""

    reference = "release-refused"


class BlockUnreadable(Rejected):
    """A block's value in the store makes no sense: nothing is taken from it or written to it."""

    reference = "block-unreadable"

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(
            f"the IPAM block at {key} cannot be read: {reason}",
            hint="'calicoctl ipam check' lists such blocks; restore or delete the key when no address of it is in use",
            key=key,
            reason=reason,
        )
        self.key = key
        self.reason = reason


class IPAMConfigInvalid(Rejected):
    """A combination of IPAM settings that is not allowed."""

    reference = "ipam-config-invalid"


class Contended(Transient):
    """Others kept changing the same keys until the deadline."""

    reference = "ipam-contended"


class OutcomeUnknown(Transient):
    """The store's answer to a write did not come before the deadline: it may or may not have happened."""

    reference = "ipam-outcome-unknown"
