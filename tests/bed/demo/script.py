"""A demonstration as a script: commands with what they answered, checks, and one line per step at the end."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from bed.command import Done
from bed.host import Host

_BOLD, _RED, _GREEN, _PLAIN = "\033[1m", "\033[31m", "\033[32m", "\033[0m"


class StepFailed(Exception):
    """The rest of a step makes no sense any more; the script goes on with the next one."""


@dataclass(slots=True, kw_only=True)
class Step:
    """One step and how it went."""

    title: str
    seconds: float = 0.0
    checks: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.faults and self.checks > 0


class Script:
    """Prints what it does while it does it, and remembers what held."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.notes: list[str] = []
        """Lines for the end, such as times."""
        self._began = time.monotonic()
        self._colour = sys.stdout.isatty()

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Do one step; an error in it is a fault of the step and does not end the script."""
        step = Step(title=title)
        self.steps.append(step)
        self.say(f"\n{self._paint(_BOLD, f'== {len(self.steps)}. {title} ')}")
        began = time.monotonic()
        try:
            yield
        except StepFailed as failure:
            self.check(str(failure), False)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other steps are still worth showing
            self.check(f"{type(error).__name__}: {error}", False)
        finally:
            step.seconds = time.monotonic() - began

    def say(self, text: str) -> None:
        print(text, flush=True)

    def note(self, text: str) -> None:
        """Say it now, and again at the end."""
        self.say(f"   {text}")
        self.notes.append(text)

    def run(self, host: Host, command: str, *, timeout: float = 60.0, expect: int | None = 0) -> Done:
        """Run a command, show it and its answer; another exit code than `expect` is a fault (None: any will do)."""
        return self._shown(host, command, host.run(command, timeout=timeout, check=False), expect)

    def run_on(
        self, hosts: Sequence[Host], command: str, *, timeout: float = 60.0, expect: int | None = 0
    ) -> list[Done]:
        """Run one command on several hosts at once; the answers are shown in the order of the hosts."""
        return self.run_each([(host, command) for host in hosts], timeout=timeout, expect=expect)

    def run_each(
        self, commands: Sequence[tuple[Host, str]], *, timeout: float = 60.0, expect: int | None = 0
    ) -> list[Done]:
        """Run commands on their hosts at once; the answers are shown in the order given."""
        with ThreadPoolExecutor(max(1, len(commands))) as pool:
            started = [pool.submit(host.run, command, timeout=timeout, check=False) for host, command in commands]
            done = []
            for (host, command), future in zip(commands, started, strict=True):
                done.append(self._shown(host, command, future.result(), expect))
        return done

    def _shown(self, host: Host, command: str, done: Done, expect: int | None) -> Done:
        self.say(self._paint(_BOLD, f"{host.node}# {command}"))
        if done.text:
            self.say("\n".join(f"    {line}" for line in done.text.splitlines()))
        if expect is not None and done.exit != expect:
            self.check(f"{host.node}: `{command}` ends with {expect}", False, f"it ended with {done.exit}")
        return done

    def check(self, what: str, holds: bool, instead: str = "") -> bool:
        """Note that something must hold, show whether it does, and `instead` what was found if it does not."""
        step = self.steps[-1]
        step.checks += 1
        if holds:
            self.say(f"   {self._paint(_GREEN, 'ok')}    {what}")
        else:
            step.faults.append(what.splitlines()[0] if what else "?")
            self.say(f"   {self._paint(_RED, 'FAIL')}  {what}" + (f": {instead}" if instead else ""))
        return holds

    def need(self, what: str, holds: bool, instead: str = "") -> None:
        """As `check`, and the step ends here if it does not hold."""
        if not holds:
            raise StepFailed(what + (f": {instead}" if instead else ""))
        self.check(what, True)

    @property
    def passed(self) -> bool:
        return bool(self.steps) and all(step.passed for step in self.steps)

    def summary(self) -> str:
        """One line per step, its faults below it, the notes, and the whole."""
        width = max((len(step.title) for step in self.steps), default=0)
        lines = [""]
        for number, step in enumerate(self.steps, 1):
            word = self._paint(_GREEN, "pass") if step.passed else self._paint(_RED, "FAIL")
            lines.append(f"{number:2}. {step.title:{width}}  {word}  {step.seconds:6.1f} s  {step.checks:3} checks")
            lines += [f"      {fault}" for fault in step.faults]
        good = sum(step.passed for step in self.steps)
        lines += ["", *self.notes, f"{good} of {len(self.steps)} steps pass, {time.monotonic() - self._began:.1f} s"]
        return "\n".join(lines)

    def _paint(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._colour else text


def within(seconds: float, holds: Callable[[], bool]) -> tuple[bool, float]:
    """Return whether `holds()` becomes true in time, and after how many seconds."""
    began = time.monotonic()
    while True:
        answer = holds()
        took = time.monotonic() - began
        if answer or took > seconds:
            return answer, took
        time.sleep(0.05)
