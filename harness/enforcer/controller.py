"""The controller: changes in, the data plane brought after them, and kept as it was made.

One thread, one loop. It waits for changes, for what others do to our rules, and for the time of
the next look at them; whatever waits is taken together, compiled and applied as one change. A
change that the kernel refuses leaves the old rules in force and is tried again, with back-off,
together with what has come in the meantime.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from harness.enforcer.compiler import Compiler
from harness.enforcer.intake import Intake
from harness.enforcer.plane import Plane
from harness.enforcer.tool import ToolError

GLANCE = 0.4  # seconds between looks at what the kernel does not tell of, while they are cheap
GLANCE_LATEST = 0.5
GLANCE_SHARE = 0.005  # of the processor, unless that would be later than the latest
VERIFY = 300.0  # seconds between full comparisons
VERIFY_SOON = 0.5  # seconds without a change before one that is wanted
MEND = 0.1  # seconds between mendings, if somebody changes our rules all the time
RETRY, RETRY_MOST = 0.05, 10.0  # seconds


class Event(NamedTuple):
    """One change; ``type`` is ``ADDED``, ``MODIFIED``, ``DELETED`` or ``SYNCED``."""

    sequence: Any
    type: str
    object: Mapping[str, Any]


class Source(Protocol):
    """Where changes come from. ``read`` gives what waits (it may block if nothing does), None at
    the end; ``done`` hears of a change in force, or of why it is not."""

    def fileno(self) -> int: ...

    def read(self) -> Sequence[Event] | None: ...

    def done(self, sequence: Any, seconds: float, errors: Sequence[str]) -> None: ...


@dataclass(slots=True)
class Tally:
    """What the controller counts of itself. Times are seconds; ``agreed`` on the monotonic clock:
    when rules and objects last agreed for certain, None before the first time."""

    events: int = 0
    applied: int = 0
    failures: int = 0
    mended: int = 0
    compile_seconds: float = 0.0
    apply_seconds: float = 0.0
    agreed: float | None = None
    size: tuple[int, int] = (0, 0)


class Controller:
    """Enforces on one node. ``log`` takes a short name of what happened, and its details.

    ``others`` are data planes that an enforcer of before may have used here. What it left of them
    would go on to drop what is allowed now; it is taken away once, as soon as our rules are in
    force.
    """

    def __init__(
        self,
        node: str,
        plane: Plane,
        source: Source,
        log: Callable[[str, Mapping[str, Any]], None] | None = None,
        others: Iterable[Plane] = (),
    ) -> None:
        self.compiler = Compiler(node)
        self.tally = Tally()
        self._plane = plane
        self._source = source
        self._others = iter(others)  # so that each is met once
        self._intake = Intake(self.compiler)
        self._log = log or (lambda _name, _details: None)
        self._synced = False
        self._ended = False
        self._amiss = False  # did somebody change our rules, and it is not mended yet?
        self._sequence: Any = None
        self._begun = 0.0
        self._errors: list[str] = []
        self._told: set[str] = set()
        self._last_change = 0.0
        self._next_glance = 0.0
        self._next_verify = time.monotonic() + VERIFY

    @property
    def ready(self) -> bool:
        """Are rules in force for all that was listed?"""
        return self.tally.agreed is not None

    def run(self) -> None:
        """Until the source ends. The rules stay in force after it."""
        while not self._ended:
            self._wait(self._patience())
            if not self._synced:
                continue
            self._look_after()
            if self._sequence is not None or self._amiss:
                self._settle()

    # Waiting

    def _patience(self) -> float | None:
        """Seconds until there is something to do even if nothing comes."""
        if not self._synced:
            return None
        if self._amiss:
            return MEND
        return min(self._next_glance, self._next_verify) - time.monotonic()

    def _wait(self, seconds: float | None) -> None:
        """Wait for something to do, and take in what has come."""
        timeout = None if seconds is None else max(0.0, seconds)
        source = self._source.fileno()
        # what others do is of no concern, and not read, before there is something to enforce
        plane = [self._plane.fileno()] if self._synced else []
        ready, _, _ = select.select([source, *plane], [], [], timeout)
        if source not in ready:
            return
        begun = time.monotonic()
        events = self._source.read()
        if events is None:
            self._ended = True
            return
        if self._sequence is None:
            self._begun = begun
        for event in events:
            self._sequence = event.sequence
            if event.type == "SYNCED":
                self._synced = True
                continue
            self.tally.events += 1
            if problem := self._intake.take(event.type, event.object):
                self._errors.append(problem)

    def _wait_for(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._ended and (left := until - time.monotonic()) > 0:
            self._wait(left)
            self._plane.noticed()

    def _look_after(self) -> None:
        """Did somebody change our rules?"""
        problem = self._plane.noticed()
        now = time.monotonic()
        if not problem and now >= self._next_glance:
            begun = time.thread_time()
            problem = self._plane.glance()
            took = time.thread_time() - begun
            self._next_glance = now + min(GLANCE_LATEST, max(GLANCE, took / GLANCE_SHARE))
        if self._plane.unsure:
            self._next_verify = min(self._next_verify, self._last_change + VERIFY_SOON)
        if not problem and now >= self._next_verify:
            problem = self._plane.verify()
            self._next_verify = now + VERIFY
            if not problem:
                self.tally.agreed = time.monotonic()
        if problem:
            self._mend(problem)

    def _mend(self, problem: str) -> None:
        self._amiss = True
        self.tally.mended += 1
        self._log("mending", {"problem": problem})

    # Applying

    def _settle(self) -> None:
        """Bring what is known into force, however often it has to be tried."""
        try:
            self._apply()
        except ToolError as error:
            self._failed(str(error))
            self._retry()
        if self._sequence is not None:
            self._report(self._refused())
            self._sequence = None

    def _apply(self) -> None:
        begun = time.monotonic()
        snapshot = self.compiler.snapshot()
        compiled = time.monotonic()
        self._plane.apply(snapshot)
        self._replace_others()
        if self._amiss:
            self._amiss = False
            self._log("mended", {"seconds": round(time.monotonic() - begun, 3)})
        self._last_change = time.monotonic()
        tally = self.tally
        tally.agreed = time.monotonic()
        tally.applied += 1
        tally.compile_seconds += compiled - begun
        tally.apply_seconds += tally.agreed - compiled
        tally.size = self._plane.size()
        # mostly our own doings; what others did at the same time is mended in the next round
        if problem := self._plane.noticed():
            self._mend(problem)

    def _replace_others(self) -> None:
        for plane in self._others:
            try:
                if plane.live():
                    plane.clean()
                    self._log("replaced", {"dataplane": plane.name})
            except ToolError as error:
                hint = f"`netpol enforcer clean --dataplane {plane.name}` takes its rules away"
                self._log("left", {"dataplane": plane.name, "error": str(error), "hint": hint})

    def _retry(self) -> None:
        """Try again, with back-off, taking in what comes in the meantime."""
        import tenacity

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(ToolError),
            wait=tenacity.wait_exponential(multiplier=RETRY, max=RETRY_MOST)
            + tenacity.wait_random(0, RETRY),
            stop=lambda _: self._ended,
            sleep=self._wait_for,
            before_sleep=lambda state: self._failed(
                str(state.outcome and state.outcome.exception())
            ),
        )
        self._wait_for(RETRY)
        try:
            retrying(self._apply)
        except tenacity.RetryError:
            self._sequence = None  # the source has ended: nobody waits for an answer

    def _failed(self, error: str) -> None:
        self.tally.failures += 1
        self._log("failed", {"error": error})
        if self._sequence is not None:
            self._report([*self._errors, error])

    def _refused(self) -> list[str]:
        """What of the objects could not be read or compiled, and was not said before."""
        now = {f"{who}: {why}" for who, whys in self.compiler.problems.items() for why in whys}
        fresh = sorted(now - self._told)
        self._told = now
        errors, self._errors = [*self._errors, *fresh], []
        for error in errors:
            self._log("refused", {"error": error})
        return errors

    def _report(self, errors: Sequence[str]) -> None:
        self._source.done(self._sequence, time.monotonic() - self._begun, errors)
