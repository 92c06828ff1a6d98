"""Which back end felix writes its rules with, opened; and the other one, where an earlier felix may have left some."""

import threading
from collections.abc import Callable, Sequence

import structlog

from kernel.xtables import BackEnd, TableChange, TableKernel, TableKey
from kernel.xtables_detect import Choice, decide
from kernel.xtables_legacy import LegacyTables, SmallWriter
from kernel.xtables_nft import NftTables
from kernel.xtables_present import open_present


def open_tables(setting: str) -> tuple[Choice, TableKernel]:
    """Choose by the setting IptablesBackend and by what is on this host, log which and why, and open it.

    Raises:
        NotSupported: nft is chosen and the kernel has no nftables.
    """
    logger = structlog.get_logger()
    choice = decide(setting)
    logger.info("backend.chosen", back_end=str(choice.back_end), setting=setting, reason=choice.reason)
    if choice.trouble:
        effect = "no rule can be written, so no container gets traffic"
        logger.error(
            "backend.unusable", back_end=str(choice.back_end), error=choice.trouble, hint=choice.hint, effect=effect
        )
    return choice, _open_legacy() if choice.back_end is BackEnd.LEGACY else NftTables()


def other_tables(chosen: BackEnd) -> tuple[TableKernel, Sequence[TableKey]] | None:
    """Return the back end that is not the chosen one and its tables that exist, or None if there are none."""
    return open_present(BackEnd.LEGACY if chosen is BackEnd.NFT else BackEnd.NFT)


def _open_legacy() -> LegacyTables:
    logger = structlog.get_logger()
    tables = LegacyTables(small=LoadedLater(_small_writer))
    if tables.deaf is not None:
        effect = "a rule that others replace by one of the same size is found at the refresh interval"
        logger.warning("rules.lock_unwatched", error=str(tables.deaf), hint=tables.deaf.hint, effect=effect)
    return tables


class LoadedLater:
    """A SmallWriter that is loaded in a thread of its own, while the store's rules are rendered and written whole.

    python-iptables takes 0.2 s for that, as it starts programs to find its libraries. What is small is left to the
    restore program until then.
    """

    def __init__(self, load: Callable[[], SmallWriter | None]) -> None:
        self._writer: SmallWriter | None = None
        self._load = load
        self._thread = threading.Thread(target=self._run, name="small-writer", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until it is loaded, or cannot be."""
        self._thread.join()

    def write(self, key: TableKey, change: TableChange) -> bool:
        return self._writer is not None and self._writer.write(key, change)

    def remove(self, key: TableKey, chains: Sequence[str]) -> bool:
        return self._writer is not None and self._writer.remove(key, chains)

    def _run(self) -> None:
        self._writer = self._load()


def _small_writer() -> SmallWriter | None:
    try:
        from kernel.xtables_iptc import IptcWriter
    except ImportError as error:
        effect = "each change is a run of iptables-legacy-restore"
        hint = "pip install 'calico-docker[legacy]' (needs gcc and libc6-dev) makes small changes quicker"
        structlog.get_logger().info("backend.without_iptc", error=str(error), effect=effect, hint=hint)
        return None
    return IptcWriter()
