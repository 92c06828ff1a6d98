"""The errors we raise on purpose, in families by what the caller can do about them.

``str(error)`` is what a person reads: what failed, and on what. ``hint`` says what to do next. ``context`` becomes log
keys and is never parsed back. Anything that is not a CalicoError is a bug: it is logged, the process ends and its
supervisor starts it again.
"""

from typing import ClassVar


class CalicoError(Exception):
    """Base of everything raised on purpose."""

    reference: ClassVar[str] = "error"
    """Stable kebab-case name, listed in docs/reference/errors.md."""

    def __init__(self, message: str, *, hint: str | None = None, **context: object) -> None:
        super().__init__(message)
        self.hint = hint
        self.context = context


class Rejected(CalicoError):
    """Bad input or a request that cannot be met as asked: tell the user, do not retry."""

    reference = "rejected"


class Transient(CalicoError):
    """May work later without anybody changing anything: retry, bounded, with backoff and jitter."""

    reference = "transient"


class ConfigurationError(Rejected):
    """A setting from the environment, a file or the command line is unusable."""

    reference = "configuration"


class StoreUnavailable(Transient):
    """No etcd endpoint answered in time. The message names the endpoints tried and the last reason."""

    reference = "store-unavailable"


class StoreRefused(Rejected):
    """etcd answered and said no (authentication, size, quota): trying again does not help."""

    reference = "store-refused"


class AlreadyExists(Rejected):
    """The message is ``resource already exists: Kind(name)``."""

    reference = "already-exists"


class DoesNotExist(Rejected):
    """The message is ``resource does not exist: Kind(name)``."""

    reference = "does-not-exist"


class ReferenceMissing(DoesNotExist):
    """What a resource refers to is not there, such as the tier of a policy; the resource itself may be."""

    reference = "reference-missing"


class UpdateConflict(Rejected):
    """Somebody wrote in between. The message is ``update conflict: Kind(name)``."""

    reference = "update-conflict"


class OperationNotSupported(Rejected):
    """The message is ``operation OP is not supported on ID[: REASON]``."""

    reference = "not-supported"
