"""A resource that may not be written, with everything that is wrong with it (reference resources.md 5.5)."""

from collections.abc import Iterable
from typing import ClassVar

from resources.errors import Rejected
from resources.kinds.base import Problem, dotted


class InvalidResource(Rejected):
    """The message is ``error with field NAME = 'VALUE' (REASON)``, or a list of such lines."""

    reference: ClassVar[str] = "invalid-resource"

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        lines = [_field_line(problem) for problem in self.problems]
        if len(lines) == 1:
            message = f"error with field {lines[0]}"
        else:
            message = "\n".join(["error with the following fields:", *(f"-  {line}" for line in lines)])
        super().__init__(message)


def _field_line(problem: Problem) -> str:
    value = f" = '{problem.value}'" if problem.value else ""
    hint = f"; {problem.hint}" if problem.hint else ""
    return f"{dotted(problem.path)}{value} ({problem.reason}{hint})"
