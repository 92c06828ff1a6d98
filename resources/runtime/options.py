"""An option declared once: parsing, range check, precedence, help and the reference page follow from it.

A program lists its `Option`s; `resolve` asks the sources in order of precedence and returns each effective value with
its origin, so that start-up can log one line per setting. A bad value in the environment or a file is an error of the
operator and ends the start; a bad value in the store is reported and the next source is asked.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from resources.errors import ConfigurationError

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Option(Generic[T_co]):
    """`name` is snake_case; `keys` its spellings in the environment or a file, first match wins.

    `parse` raises ValueError with what is allowed. `unit` and `example` go to the reference page.
    """

    name: str
    parse: Callable[[str], T_co]
    default: T_co
    help: str
    keys: tuple[str, ...] = ()
    unit: str = ""
    example: str = ""
    live: bool = False
    """True: a change takes effect without a restart of the daemon."""


@dataclass(frozen=True, slots=True)
class Source:
    """Texts by key from one place. `strict` sources end the start on a bad value."""

    origin: str
    texts: Mapping[str, str]
    strict: bool = True


@dataclass(frozen=True, slots=True)
class Setting(Generic[T_co]):
    """An option's effective value and where it comes from (``default``, ``file``, ``environment``, ``store`` ...)."""

    option: Option[T_co]
    value: T_co
    origin: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A value of a lenient source that was passed over."""

    option: str
    origin: str
    value: str
    reason: str


class Settings:
    """Effective values by option."""

    def __init__(self, settings: Iterable[Setting[object]], refused: Sequence[Refused]) -> None:
        self._by_name = {setting.option.name: setting for setting in settings}
        self.refused = tuple(refused)

    def __getitem__(self, option: Option[T_co]) -> T_co:
        return self._by_name[option.name].value  # type: ignore[return-value]  # resolve() paired them

    def origin(self, option: Option[T_co]) -> str:
        return self._by_name[option.name].origin

    def __iter__(self) -> Iterator[Setting[object]]:
        return iter(self._by_name.values())

    def differs(self, other: "Settings") -> list[str]:
        """Return the names of options whose values differ."""
        return [name for name, setting in self._by_name.items() if other._by_name[name].value != setting.value]


def resolve(options: Sequence[Option[object]], sources: Sequence[Source]) -> Settings:
    """Return the effective settings; `sources` come strongest first.

    An empty text means "not set".

    Raises:
        ConfigurationError: a strict source has a value that cannot be used; the message names source, key and value.
    """
    settings: list[Setting[object]] = []
    refused: list[Refused] = []
    for option in options:
        settings.append(_resolve_one(option, sources, refused))
    return Settings(settings, refused)


def _resolve_one(option: Option[object], sources: Sequence[Source], refused: list[Refused]) -> Setting[object]:
    for source in sources:
        for key in option.keys or (option.name,):
            text = source.texts.get(key, "").strip()
            if not text:
                continue
            try:
                return Setting(option, option.parse(text), source.origin)
            except ValueError as error:
                if source.strict:
                    raise ConfigurationError(
                        f"{source.origin}: {key} = {text!r} cannot be used: {error}", hint=option.help
                    ) from error
                refused.append(Refused(option.name, source.origin, text, str(error)))
    return Setting(option, option.default, "default")


def boolean(text: str) -> bool:
    """Parse true/false, yes/no, on/off, 1/0, in any case."""
    match text.lower():
        case "true" | "yes" | "on" | "1" | "enabled":
            return True
        case "false" | "no" | "off" | "0" | "disabled":
            return False
    raise ValueError("it must be true or false")


def integer(minimum: int | None = None, maximum: int | None = None) -> Callable[[str], int]:
    """Return a parser of integers within bounds (inclusive)."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ValueError("it must be an integer") from None
        if (minimum is not None and value < minimum) or (maximum is not None and value > maximum):
            raise ValueError(f"it must be between {minimum} and {maximum}")
        return value

    return parse


def choice(*allowed: str) -> Callable[[str], str]:
    """Return a parser of one of `allowed`, any case, that gives the spelling listed."""
    by_lower = {word.lower(): word for word in allowed}

    def parse(text: str) -> str:
        if (word := by_lower.get(text.lower())) is None:
            raise ValueError(f"it must be one of {', '.join(allowed)}")
        return word

    return parse


def folder(text: str) -> Path:
    """Parse the absolute path of a folder."""
    path = Path(text)
    if not path.is_absolute():
        raise ValueError("it must be an absolute path")
    return path


_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(minimum: float = 0.0) -> Callable[[str], float]:
    """Return a parser of a plain number of seconds or a Go duration such as ``1m30s``."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            parts = _DURATION.findall(text)
            if not parts or "".join(number + unit for number, unit in parts) != text:
                raise ValueError("it must be a number of seconds or a duration such as 90s or 1m30s") from None
            value = sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)
        if not minimum <= value < float("inf"):
            raise ValueError(f"it must be at least {minimum:g} seconds")
        return value

    return parse


def text(value: str) -> str:
    """Take a text as it is."""
    return value
