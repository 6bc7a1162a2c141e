"""Looks at all cells until they agree with what is expected, and stay so. No fixed sleeps.

One step is settled like this:

1. *First look*: every cell at once, and a control for every listener that nobody is expected to
   reach (:mod:`.controls`).
2. *Beat*: cells that disagree are asked again, a few on each beat, whatever has become of the
   probes before, until they agree or the deadline passes. So the latency of a cell is known to a
   few beats, and no timeout enters it.
3. *Hold*: when nothing disagrees any more, one more whole look, at the earliest ``hold`` seconds
   after the last cell came to agree (``slack`` times the slowest answer, where that is more). A
   cell that has agreed and now does not goes back to the beat: if it comes to agree again it is
   ``flaky``; if it stays away it is a leak or an outage that the first look was too early for.
   Two have agreed too early to be judged so, and begin anew, once: a cell whose step changes
   several things, which reach an engine one by one, and one whose name was not resolved in time.

How long a silence has to be: a SYN that was dropped is sent again after one second, so until then
waiting longer shows nothing new about a drop; it only tells a drop from a slow machine. A silence
therefore has to be ``slack`` times as long as the slowest answer in the same step, and at least
``silence``; and answers that are expected are waited for, for almost the whole second. Where that
was too short (a client was ended before its first word, or answers come late and one does not come
at all) the step goes on with twice the time, and twice again: ending clients that are only slow,
and starting others for them, would make a busy machine busier.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from harness.model.diff import Control, KnownDeviation, denies_lookup, judge
from harness.model.flow import (
    Cell,
    CellResult,
    Decision,
    Finding,
    Observation,
    Outcome,
    Verdict,
)
from harness.probes.controls import Controls, Listener
from harness.probes.prober import Probe, Prober

_SILENT = frozenset({Outcome.TIMEOUT, Outcome.REFUSED, Outcome.RESET, Outcome.UNREACHABLE})
_IDLE = 0.25
# Seconds after which a SYN that was dropped is sent again: who answers it was not slow.
_SENT_AGAIN = 1.0
# How many times longer a step may come to wait than it began with.
_LONGEST = 4.0
# Probes of one cell that are out at once where an answer is late; tries to hear a listener, and to
# hear again what is late.
_OUT_AT_ONCE = 3
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds, but for ``slack`` (a factor) and ``at_a_beat`` (cells asked again on one beat).

    The defaults are the embedded lab's. ``deadline`` counts from the first look: pods that the
    change has made are up by then.
    """

    silence: float = 0.06
    slack: float = 2.0
    patience: float = 0.9
    beat: float = 0.025
    at_a_beat: int = 16
    hold: float = 0.06
    deadline: float = 5.0


@dataclass(frozen=True, slots=True)
class Settled:
    """What came of it. ``times``: ``first_look``, ``agreed`` (the first probe of the last cell's
    lasting run), ``held``; on the prober's clock, what was not reached is absent. ``probes``
    counts them all, controls included."""

    results: tuple[CellResult, ...]
    times: Mapping[str, float]
    probes: int


@dataclass(eq=False, slots=True)
class _Track:
    """One cell on its way: its probes in the order of launching."""

    cell: Cell
    decision: Decision
    probes: list[Probe] = field(default_factory=list)
    left: str = ""
    flaky: str = ""
    doubts: int = 0
    in_parts: bool = False

    def agrees(self, seen: Observation) -> bool:
        match self.decision.verdict:
            case Verdict.ALLOW:
                return seen.outcome is Outcome.ALLOWED
            case Verdict.DENY:
                return seen.outcome in _SILENT or (
                    seen.outcome is Outcome.NAME_FAILURE and denies_lookup(self.decision)
                )
            case Verdict.UNDEFINED:
                return seen.outcome is not Outcome.HARNESS_ERROR

    @property
    def last(self) -> Observation | None:
        """The youngest probe that has ended, as far as one has."""
        return next((p.seen for p in reversed(self.probes) if p.seen is not None), None)

    @property
    def seen(self) -> tuple[Observation, ...]:
        return tuple(p.seen for p in self.probes if p.seen is not None)

    @property
    def telling(self) -> Observation | None:
        """What to judge by: the last, but that a client which has just failed by itself, and then
        hears nothing once, tells of itself and not of its target."""
        seen = self.seen
        if [one.outcome for one in seen[-2:]] == [Outcome.HARNESS_ERROR, Outcome.TIMEOUT]:
            return seen[-2]
        return seen[-1] if seen else None

    @property
    def waits(self) -> bool:
        """Whether the youngest probe is still out."""
        return bool(self.probes) and self.probes[-1].seen is None

    @property
    def good(self) -> bool:
        """Nothing speaks against it: it was answered as expected; or, where silence is expected,
        the youngest probe is still met with silence."""
        if self.decision.verdict is not Verdict.ALLOW and self.waits:
            return True
        last = self.last
        return last is not None and self.agrees(last)

    def out_before(self, probe: Probe | None) -> list[Probe]:
        """Its probes that are out and were launched before this one (None: all)."""
        found = []
        for other in self.probes:
            if other is probe:
                break
            if other.seen is None:
                found.append(other)
        return found

    def since(self) -> float | None:
        """When the first probe of the lasting run of agreeing ones was sent."""
        start = None
        for probe in reversed(self.probes):
            if probe.seen is None:
                if self.decision.verdict is Verdict.ALLOW:
                    continue  # neither here nor there
            elif not self.agrees(probe.seen):
                break
            start = probe.sent if probe.sent is not None else start
        return start


def settle(
    prober: Prober,
    expected: Mapping[Cell, Decision],
    changed_at: float,
    timing: Timing | None = None,
    *,
    baseline: Collection[Cell] = frozenset(),
    deviation: Callable[[Cell], KnownDeviation | None] | None = None,
    once: bool = False,
    in_parts: bool = False,
    turned: Collection[Cell] = frozenset(),
) -> Settled:
    """Look until it agrees and holds, or the deadline passes, and judge every cell.

    ``changed_at``: just before the change was sent, on the prober's clock. ``baseline``: cells
    that have been seen to connect without policies. ``deviation``: what the catalogue knows of a
    cell. ``once``: no hold look, for positive controls. ``in_parts``: the change is several ones,
    and in between other things may hold. ``turned``: cells that the change is about; they are asked
    first, for theirs is the time that is measured. The prober must be at the world that
    ``expected`` is about (:meth:`Prober.begin`).
    """
    step = _Settling(prober, expected, changed_at, timing or Timing(), in_parts)
    if expected:
        step.run(once, turned)
    return step.settled(baseline, deviation or (lambda _: None))


class _Settling:
    def __init__(
        self,
        prober: Prober,
        expected: Mapping[Cell, Decision],
        changed_at: float,
        timing: Timing,
        in_parts: bool,
    ) -> None:
        self.prober = prober
        self.timing = timing
        self.changed_at = changed_at
        self.controls = Controls(prober.world, expected)
        self.tracks = {cell: _Track(cell, d, in_parts=in_parts) for cell, d in expected.items()}
        self.out: dict[Probe, _Track | None] = {}  # None: a control
        self.unrest: dict[Cell, _Track] = {}
        self.holding = False
        self.held: set[Probe] = set()  # the last look that should hold
        self.begun = prober.now()
        self.deadline = self.begun + timing.deadline
        self.slowest = 0.0
        self.longer = 1.0  # times as long as it began with
        self.longer_since = self.begun
        self.heard = 0.0
        self.launched = 0
        self.times: dict[str, float] = {}

    @property
    def patience(self) -> float:
        """Seconds for which an answer is waited for."""
        return self.timing.patience * self.longer

    @property
    def late(self) -> bool:
        """Whether answers take so long that one which does not come may be on its way."""
        return self.slowest > self.timing.patience / 3

    # -- the way -------------------------------------------------------------------------------

    def run(self, once: bool, turned: Collection[Cell]) -> None:
        start = self.times["first_look"] = self.heard = self.begun
        self._launch(sorted(self.tracks.values(), key=lambda track: track.cell not in turned))
        self._control(self.controls.first)
        beat = start + self.timing.beat
        hold_at: float | None = None
        while not (self.holding and not self.out):
            now = self.prober.now()
            if self.unrest or self.prober.backlog:
                hold_at = None
            elif not self.holding and hold_at is None:
                hold_at = self._agreed() + self._window()
            if self.holding:
                wake = now + _IDLE
            elif hold_at is not None and once:
                if not self.out:
                    break
                wake = now + _IDLE
            elif hold_at is not None:
                wake = hold_at
                if now >= hold_at:
                    self.times["agreed"] = self._agreed()
                    self.holding = True
                    self._launch(self.tracks.values())
                    self.held = {track.probes[-1] for track in self.tracks.values()}
            elif now >= self.deadline and self._looked():
                self._hear_out()
                break
            else:
                if now >= beat:
                    self._drain()  # what waits to be read is not late
                    self._again(self.prober.now())
                    beat = now + self._beat(now)
                wake = beat
            for probe in self.prober.collect(min(wake, self._cut(now))):
                self._take(probe)
        if not once or self.unrest:  # a positive control that went well needs no more
            self._confirm()
        self._prove()
        if self.holding:
            self.times["held"] = self.prober.now()

    def _drain(self) -> None:
        while ended := self.prober.collect(self.prober.now()):
            for probe in ended:
                self._take(probe)

    def _beat(self, now: float) -> float:
        """Seconds to the next beat: slower as time goes on, and still fine for what is measured."""
        return max(self.timing.beat, (now - self.begun) / 20)

    def _looked(self) -> bool:
        """Whether every cell that disagrees has been looked at to the end."""
        return not self.prober.backlog and all(t.last for t in self.unrest.values())

    def _launch(self, tracks: Iterable[_Track]) -> None:
        tracks = list(tracks)
        probes = self.prober.launch(t.cell for t in tracks)
        for track, probe in zip(tracks, probes, strict=True):
            track.probes.append(probe)
            self.out[probe] = track
            self._sort(track)
        self.launched += len(probes)

    def _control(self, listeners: Collection[Listener]) -> None:
        probes = self.prober.launch(self.controls.ask(listeners))
        self.out.update(dict.fromkeys(probes))
        self.launched += len(probes)

    def _sort(self, track: _Track) -> None:
        if track.good or track.flaky or self.holding:
            self.unrest.pop(track.cell, None)
        else:
            self.unrest[track.cell] = track

    def _take(self, probe: Probe) -> None:
        """A probe has ended."""
        track = self.out.pop(probe, None)
        seen = probe.seen
        if seen is None:
            return
        self.controls.heard(seen)
        expects_answer = track is None or track.decision.verdict is Verdict.ALLOW
        if seen.outcome is Outcome.ALLOWED:
            took = seen.answered - seen.sent
            if expects_answer:
                known = self.prober.quickest if self.heard > self.begun else took
                self.prober.quickest = min(took, known)
                self.heard = self.prober.now()
            if expects_answer or took < _SENT_AGAIN:
                self.slowest = max(self.slowest, took)
        if probe.cut is not None and seen.outcome is Outcome.HARNESS_ERROR:
            self.slowest = max(self.slowest, probe.cut - seen.sent)  # it takes longer than that
            self._wait_longer(probe)
        elif seen.outcome is Outcome.TIMEOUT and expects_answer and self.late:
            self._wait_longer(probe)
        if track is None:
            return
        if expects_answer and track.agrees(seen):
            # What was sent before it and is still out has been dropped.
            self.prober.cut(track.out_before(probe))
        if probe in self.held and not track.agrees(seen):
            self._left(track, seen)
        elif track.left and track.agrees(seen):
            if track.in_parts:
                track.left, track.in_parts = "", False
            else:
                track.flaky = track.left
        self._sort(track)

    def _wait_longer(self, probe: Probe) -> None:
        """This one was cut too early: the machine is slower than was thought."""
        known = probe.sent is None or probe.sent < self.longer_since
        if known or self.longer >= _LONGEST:
            return
        self.longer *= 2
        self.longer_since = self.prober.now()
        self._more_time()

    def _more_time(self) -> None:
        """Asking again must not find the time over."""
        self.deadline = max(self.deadline, self.prober.now() + 2 * self.patience)

    def _left(self, track: _Track, seen: Observation) -> None:
        """A cell disagrees in the look that should have held."""
        if track.flaky:
            return
        self.holding = False  # back to the beat, also where its silence was none yet
        before = [p.seen for p in track.probes[:-1] if p.seen is not None]
        # Where answers take long, one that does not come may have been on its way; and what failed
        # by itself says nothing of the target, one way or the other: ask again. So too, but once,
        # where a name was not resolved.
        late = seen.outcome is Outcome.TIMEOUT and self.late
        tries = _TRIES if late or seen.outcome is Outcome.HARNESS_ERROR else 0
        if seen.outcome is Outcome.NAME_FAILURE and not denies_lookup(track.decision):
            tries = 1
        if track.doubts < tries:
            track.doubts += 1
            self._more_time()  # it had agreed in time
        elif seen.outcome is not Outcome.HARNESS_ERROR and before and track.agrees(before[-1]):
            track.left = (
                f"it had come to agree ({before[-1].outcome}), and left again within the hold "
                f"window: {seen.outcome}"
            )

    def _again(self, now: float) -> None:
        """Ask again, on the beat, some of those that disagree: the longest not asked first."""
        late = max(self.timing.beat, self.timing.slack * self.prober.quickest)
        streaming = now - self.heard < late  # answers still come in
        usual = self.timing.slack * self.prober.usual
        due: list[_Track] = []
        for track in self.unrest.values():
            sent = [probe.sent for probe in track.out_before(None)]
            if track.waits and (streaming or None in sent or now - (sent[0] or now) < usual):
                continue  # it is not late, the machine is busy
            due.append(track)
            if len(due) == self.timing.at_a_beat:
                break
        for track in due:
            del self.unrest[track.cell]  # to the end of the queue
            waiting = track.out_before(None)
            if len(waiting) >= _OUT_AT_ONCE:
                self.prober.cut(waiting[:1])
        self._launch(due)

    # -- silence -------------------------------------------------------------------------------

    def _cut(self, now: float) -> float:
        """Cut what has been met with silence for long enough. Returns when to look next."""
        running = [(p, self.out[p]) for p in self.prober.running() if p in self.out]
        expecting = [p for p, t in running if t is None or t.decision.verdict is Verdict.ALLOW]
        patience = self.patience
        silence = min(patience, max(self.timing.silence, self.timing.slack * self.slowest))
        if self.prober.backlog or any(p.cut is None for p in expecting):
            silence = patience  # nobody knows yet how slow an answer can be
        waited_for = set(expecting)
        ends = [
            (p, (p.sent or now) + (patience if p in waited_for else silence))
            for p, _ in running
            if p.cut is None
        ]
        self.prober.cut(p for p, end in ends if now >= end)
        return min((end for _, end in ends if end > now), default=now + _IDLE)

    # -- the end -------------------------------------------------------------------------------

    def _agreed(self) -> float:
        return max((t.since() or 0.0 for t in self.tracks.values()), default=0.0)

    def _window(self) -> float:
        """How long it has to stay so: where answers are slow, so is what enforces."""
        return min(self.patience, max(self.timing.hold, self.timing.slack * self.slowest))

    def _hear_out(self) -> None:
        """Ask nothing more until all that is out has ended."""
        while self.out:
            now = self.prober.now()
            for probe in self.prober.collect(min(now + _IDLE, self._cut(now))):
                self._take(probe)

    def _confirm(self) -> None:
        """Ask once more what has failed by itself; and without a hold look what has been met with
        silence, for one silence is no denial: where nothing is enforced a single answer that is
        lost would be one."""

        def unsaid(track: _Track) -> bool:
            said = track.telling
            if said is None or said.outcome is Outcome.HARNESS_ERROR:
                return True
            silent = track.decision.verdict is Verdict.DENY and said.outcome in _SILENT
            return silent and not self.holding

        self._launch([track for track in self.tracks.values() if unsaid(track)])
        self._hear_out()

    def _prove(self) -> None:
        """Ask the listeners that silence is laid to, and that nobody has heard in this step."""
        silent = [t.cell for t in self.tracks.values() if t.last and t.last.outcome in _SILENT]
        for _ in range(_TRIES):
            missing = self.controls.missing(silent)
            if not missing:
                return
            self._control(missing)
            self._hear_out()

    def settled(
        self,
        baseline: Collection[Cell],
        deviation: Callable[[Cell], KnownDeviation | None],
    ) -> Settled:
        return Settled(
            tuple(
                self._result(track, track.cell in baseline, deviation(track.cell))
                for track in self.tracks.values()
            ),
            self.times,
            self.launched,
        )

    def _result(
        self, track: _Track, baseline: bool, deviation: KnownDeviation | None
    ) -> CellResult:
        control = Control(self.controls.alive(track.cell), baseline or None)
        judgement = judge(track.decision, track.telling, control, deviation)
        finding, note = judgement.finding, judgement.note
        if track.flaky and finding in (Finding.LEAK, Finding.OUTAGE, Finding.AGREES):
            finding, note = Finding.FLAKY, track.flaky
        elif track.left and finding in (Finding.LEAK, Finding.OUTAGE):
            note = f"{track.left}, and it stayed so"
        since = track.since() if finding is Finding.AGREES else None
        return CellResult(
            track.cell,
            track.decision,
            finding,
            track.seen,
            None if since is None else max(0.0, since - self.changed_at),
            note,
        )
