"""A back end opened for what there is in it: to remove what was left there, not to write rules that are wanted."""

from collections.abc import Sequence

from kernel.xtables import KERNEL_CHAINS, BackEnd, TableKernel, TableKey
from kernel.xtables_detect import legacy_tables, trouble_with
from kernel.xtables_legacy import LegacyTables
from kernel.xtables_nft import NftTables


def open_present(back_end: BackEnd) -> tuple[TableKernel, Sequence[TableKey]] | None:
    """Return a back end and its tables that exist in the namespace of the calling thread, or None if there are none.

    None is made by asking: legacy tables would stay.

    Raises:
        DataplaneError: the kernel cannot be asked.
    """
    if back_end is BackEnd.LEGACY:
        there = legacy_tables()
        return (LegacyTables(), there) if there else None
    if trouble_with(BackEnd.NFT):  # where no rule can be made there is none; some kernels have nftables, but not for IP
        return None
    return NftTables(), [TableKey(version, table) for version in (4, 6) for table in KERNEL_CHAINS]
