"""The MTU for containers' interfaces: what a setting says, else what felix found for this host's links and tunnels."""

from pathlib import Path

import structlog

from resources.runtime import paths

LEAST, MOST = 68, 65535

log = structlog.get_logger()


class ContainerMtu:
    """Asked for each container: a container that is made later may be told another size."""

    def __init__(self, setting: int | None, path: Path = paths.MTU) -> None:
        self._setting, self._path = setting, path
        self._told = ""

    def __call__(self) -> int | None:
        """Return the MTU, or None where nobody says: then it is the kernel's default, 1500."""
        if self._setting is not None:
            return self._setting
        try:
            text = self._path.read_text().strip()
        except FileNotFoundError:
            return None  # felix has never run here
        except (OSError, UnicodeDecodeError) as error:
            self._tell(str(error))
            return None
        if not text.isascii() or not text.isdigit() or not LEAST <= int(text) <= MOST:
            self._tell(f"{text[:20]!r} is no number between {LEAST} and {MOST}")
            return None
        self._told = ""
        return int(text)

    def _tell(self, reason: str) -> None:
        if reason != self._told:
            effect = "containers get the kernel's default; felix writes it anew when it starts"
            log.warning("mtu.unusable", path=str(self._path), reason=reason, effect=effect)
            self._told = reason
