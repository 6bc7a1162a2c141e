"""Settling, on a lab whose clock the test owns."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from fake_lab import DROP, REFUSE, Answer, Asked, FakeLab, allowed

from harness.model.actions import Apply
from harness.model.flow import Cell, Endpoint, Finding, Outcome, Via
from harness.model.oracle import expected
from harness.model.policy import LabelSelector, NetworkPolicy, Peer, PolicyPort, Protocol, Rule
from harness.model.world import World
from harness.probes.prober import PER_CLIENT, PER_PROCESSOR, Prober
from harness.probes.settle import Settled, Timing, settle
from harness.scenarios import worlds
from harness.scenarios.cells import cells
from harness.scenarios.scenario import Probes

A, B = Endpoint.parse("x/a"), Endpoint.parse("x/b")
DENY_ALL = NetworkPolicy("x", "deny")
ALLOW_ALL = NetworkPolicy("x", "allow", ingress=(Rule(),))
ONLY_B = NetworkPolicy(
    "x",
    "only-b",
    LabelSelector((("pod", "a"),)),
    ingress=(Rule((Peer(LabelSelector((("pod", "b"),))),), (PolicyPort(Protocol.TCP, 80),)),),
)


def start(lab: FakeLab, world: str | World = "three-by-three") -> Prober:
    begin = worlds.world(world) if isinstance(world, str) else world
    for mapping in (begin.namespaces, begin.pods, begin.services):
        lab.apply([Apply(thing) for thing in mapping.values()])
    lab.time += 10
    return Prober(lab, lab.listening)


def crowd(pods: int) -> World:
    return worlds.grid(["x"], [f"p{i}" for i in range(pods)], services=False)


def look(
    lab: FakeLab,
    prober: Prober,
    policies: list[NetworkPolicy],
    probes: Probes | None = None,
    timing: Timing | None = None,
    **more: object,
) -> Settled:
    changed = lab.apply([Apply(policy) for policy in policies])
    world = lab.resolve(lab.world)
    prober.begin(world)
    wanted = expected(world, cells(world, probes or Probes(), lab.features))
    return settle(prober, wanted, changed, timing, **more)  # type: ignore[arg-type]


def findings(settled: Settled) -> dict[Finding, int]:
    counts: dict[Finding, int] = {}
    for result in settled.results:
        counts[result.finding] = counts.get(result.finding, 0) + 1
    return counts


def test_everything_open_agrees_after_two_looks() -> None:
    lab = FakeLab()
    began = lab.time
    settled = look(lab, start(lab), [])
    assert findings(settled) == {Finding.AGREES: 72}
    assert settled.probes == lab.probes == 144  # no control is needed, nothing was asked again
    assert lab.time - began - 10 < 0.3


def test_a_denial_is_two_silences_and_a_control() -> None:
    lab = FakeLab()
    settled = look(lab, start(lab), [DENY_ALL])
    assert findings(settled) == {Finding.AGREES: 72}
    assert settled.probes == 147  # x's three listeners were asked by themselves
    denied = [r for r in settled.results if r.cell.target.namespace == "x"]
    assert all([o.outcome for o in r.observations] == [Outcome.TIMEOUT] * 2 for r in denied)


@pytest.mark.parametrize("lag", [0.05, 0.4, 2.0])
def test_latency_of_a_denial_is_its_lag_and_a_beat(lag: float) -> None:
    lab = FakeLab(lag=lag)
    settled = look(lab, start(lab, "pair"), [DENY_ALL])
    assert findings(settled) == {Finding.AGREES: 2}
    for result in settled.results:
        assert result.latency is not None
        assert lag <= result.latency <= 1.1 * lag + 0.06
        assert result.observations[0].outcome is Outcome.ALLOWED


@pytest.mark.parametrize("lag", [0.05, 0.4, 2.0])
def test_latency_of_an_allowance_is_not_that_of_a_timeout(lag: float) -> None:
    lab = FakeLab()
    prober = start(lab, "pair")
    look(lab, prober, [DENY_ALL])
    lab.time += 10
    lab.lag = lag
    settled = look(lab, prober, [ONLY_B])
    by_target = {r.cell.target: r for r in settled.results}
    latency = by_target[A].latency
    assert by_target[A].finding is Finding.AGREES
    assert latency is not None
    assert lag <= latency <= 1.1 * lag + 0.06  # a timeout is 0.9 s


def test_a_leak_lasts_until_the_deadline() -> None:
    def leak(asked: Asked, lawful: Answer) -> Answer:
        return allowed("x/a") if asked.source == B and lawful is DROP else lawful

    lab = FakeLab(rule=leak)
    began = lab.time
    settled = look(lab, start(lab, "pair"), [DENY_ALL], timing=Timing(deadline=1.5))
    by_target = {r.cell.target: r for r in settled.results}
    assert by_target[A].finding is Finding.LEAK
    assert by_target[B].finding is Finding.AGREES
    assert 1.5 <= lab.time - began - 10 < 2.5
    assert len(by_target[A].observations) > 10  # observed often, not once
    assert len(by_target[B].observations) < 3
    assert by_target[A].latency is None


def test_the_deadline_counts_from_the_first_look() -> None:
    """On a cluster pods may take longer to start than a policy may take to be enforced."""
    lab = FakeLab(rule=lambda asked, lawful: lawful if asked.number > 20 else DROP)
    prober = start(lab, "pair")
    prober.begin(lab.resolve(lab.world))
    wanted = expected(lab.resolve(lab.world), cells(lab.world, Probes(), lab.features))
    settled = settle(prober, wanted, changed_at=lab.time - 60)
    assert findings(settled) == {Finding.AGREES: 2}


def test_an_answer_that_takes_long_is_heard_when_the_time_is_over() -> None:
    def rule(asked: Asked, lawful: Answer) -> Answer:
        lost = asked.source == B or asked.time < began + 0.6
        return DROP if lost else Answer(0.7, 0, "", lawful.backend)

    lab = FakeLab(rule=rule)
    prober = start(lab, "pair")
    began = lab.time
    settled = look(lab, prober, [], timing=Timing(deadline=0.7))
    assert {r.cell.source: r.finding for r in settled.results} == {
        A: Finding.AGREES,
        B: Finding.OUTAGE,
    }


def test_a_probe_that_fails_by_itself_in_the_hold_look_is_asked_again() -> None:
    def rule(asked: Asked, lawful: Answer) -> Answer:
        fails = asked.source == B and asked.number == 1
        return Answer(0.9, 143, "") if fails else lawful

    lab = FakeLab(rule=rule)
    settled = look(lab, start(lab, "pair"), [], timing=Timing(deadline=0.3))
    assert {r.finding for r in settled.results} == {Finding.AGREES}


@pytest.mark.parametrize("policies", [[], [DENY_ALL]])
def test_a_silence_right_after_a_probe_that_failed_by_itself_proves_nothing(
    policies: list[NetworkPolicy],
) -> None:
    """A client too slow to begin is met with silence of its own making."""

    def rule(asked: Asked, lawful: Answer) -> Answer:
        if asked.source != A:
            return lawful
        return DROP if asked.number % 2 else Answer(0.2, 143, "")

    lab = FakeLab(rule=rule)
    settled = look(lab, start(lab, "pair"), policies, timing=Timing(deadline=0.1))
    result = next(r for r in settled.results if r.cell.source == A)
    assert Outcome.TIMEOUT in {o.outcome for o in result.observations}
    assert result.finding is Finding.UNKNOWN, result


def test_two_silences_after_a_probe_that_failed_by_itself_are_a_denial() -> None:
    def rule(asked: Asked, lawful: Answer) -> Answer:
        fails = asked.source == A and asked.number == 0
        return Answer(0.2, 143, "") if fails else lawful

    lab = FakeLab(rule=rule)
    settled = look(lab, start(lab, "pair"), [DENY_ALL])
    assert findings(settled) == {Finding.AGREES: 2}
    result = next(r for r in settled.results if r.cell.source == A)
    assert [o.outcome for o in result.observations] == [
        Outcome.HARNESS_ERROR,
        Outcome.TIMEOUT,
        Outcome.TIMEOUT,
    ]


def test_what_failed_by_itself_is_asked_again_when_the_time_is_over() -> None:
    """Whatever is sent from b until the deadline fails by itself; what comes after it does not."""

    def rule(asked: Asked, lawful: Answer) -> Answer:
        fails = asked.source == B and asked.time < began + 0.3
        return Answer(0.02, 1, "oh dear") if fails else lawful

    lab = FakeLab(rule=rule)
    prober = start(lab, "pair")
    began = lab.time
    settled = look(lab, prober, [], timing=Timing(deadline=0.3), once=True)
    assert {r.finding for r in settled.results} == {Finding.AGREES}
    outcomes = [o.outcome for r in settled.results if r.cell.source == B for o in r.observations]
    assert outcomes[0] is Outcome.HARNESS_ERROR


def test_one_silence_is_no_denial_where_the_step_never_settles() -> None:
    """Nothing is enforced, and one cell's first answer is lost: the other one's leak goes on to
    the deadline, so there is no hold look that would tell."""

    def open_but_once(asked: Asked, lawful: Answer) -> Answer:
        if asked.source not in (A, B):
            return lawful
        lost = asked.source == A and asked.number == 0
        return DROP if lost else allowed("x/a" if asked.source == B else "x/b")

    lab = FakeLab(rule=open_but_once)
    settled = look(lab, start(lab, "pair"), [DENY_ALL], timing=Timing(deadline=0.5))
    assert findings(settled) == {Finding.LEAK: 2}


def test_an_outage_is_told_from_a_dead_listener() -> None:
    def no_way(asked: Asked, lawful: Answer) -> Answer:
        return DROP if asked.source == B and asked.port == 80 else lawful

    def dead(asked: Asked, lawful: Answer) -> Answer:
        return DROP if asked.host == ip_of_a else lawful

    lab = FakeLab(rule=no_way)
    settled = look(lab, start(lab, "pair"), [], timing=Timing(deadline=1))
    assert {r.cell.source: r.finding for r in settled.results} == {
        A: Finding.AGREES,
        B: Finding.OUTAGE,
    }
    lab = FakeLab(rule=dead)
    prober = start(lab, "pair")
    ip_of_a = lab.resolve(lab.world).pods["x", "a"].ips[0]
    settled = look(lab, prober, [], timing=Timing(deadline=1))
    result = next(r for r in settled.results if r.cell.target == A)
    assert result.finding is Finding.UNKNOWN
    assert "listener" in result.note


def test_a_stopped_server_is_no_denial() -> None:
    def dead(asked: Asked, lawful: Answer) -> Answer:
        return DROP if asked.host == ip_of_a else lawful

    lab = FakeLab(rule=dead)
    prober = start(lab, "pair")
    ip_of_a = lab.resolve(lab.world).pods["x", "a"].ips[0]
    settled = look(lab, prober, [DENY_ALL])
    by_target = {r.cell.target: r for r in settled.results}
    assert by_target[A].finding is Finding.UNKNOWN
    assert "control" in by_target[A].note
    assert by_target[B].finding is Finding.AGREES


def test_a_refusal_is_a_denial_only_after_a_baseline() -> None:
    def reject(asked: Asked, lawful: Answer) -> Answer:
        return REFUSE if lawful is DROP else lawful

    lab = FakeLab(rule=reject)
    prober = start(lab, "pair")
    settled = look(lab, prober, [DENY_ALL])
    assert findings(settled) == {Finding.UNKNOWN: 2}
    known = {r.cell for r in settled.results}
    settled = look(lab, prober, [], baseline=known)
    assert findings(settled) == {Finding.AGREES: 2}
    assert {o.outcome for r in settled.results for o in r.observations} == {Outcome.REFUSED}


@pytest.mark.parametrize(
    ("comes_back", "finding", "note"),
    [(True, Finding.FLAKY, "within the hold window"), (False, Finding.LEAK, "and it stayed so")],
)
def test_one_that_leaves_within_the_hold_window(
    comes_back: bool, finding: Finding, note: str
) -> None:
    """Flaky if it comes back; else the first look was too early for what is a leak."""

    def flap(asked: Asked, lawful: Answer) -> Answer:
        away = asked.number == 1 or (asked.number > 1 and not comes_back)
        return allowed("x/a") if lawful is DROP and away else lawful

    lab = FakeLab(rule=flap)
    settled = look(lab, start(lab, "pair"), [DENY_ALL], timing=Timing(hold=0.5))
    assert findings(settled) == {finding: 2}
    assert note in settled.results[0].note


@pytest.mark.parametrize(("times", "finding"), [(1, Finding.AGREES), (2, Finding.FLAKY)])
def test_what_comes_in_parts_may_be_something_else_in_between(times: int, finding: Finding) -> None:
    """A policy that shuts and one that opens: an engine may act on the first by itself."""
    turns = itertools.count()
    away = (1, 3)[:times]

    def shut(asked: Asked, lawful: Answer) -> Answer:
        return DROP if asked.source == B and next(turns) in away else lawful

    lab = FakeLab(rule=shut)
    prober = start(lab, "pair")
    settled = look(lab, prober, [DENY_ALL, ALLOW_ALL], in_parts=True)
    assert {r.finding for r in settled.results if r.cell.source == B} == {finding}


@pytest.mark.parametrize(("times", "finding"), [(1, Finding.AGREES), (2, Finding.FLAKY)])
def test_a_name_that_is_not_resolved_once_is_asked_again(times: int, finding: Finding) -> None:
    failure = Answer(0.001, 1, "wget: bad address 'x'")

    def rule(asked: Asked, lawful: Answer) -> Answer:
        return failure if asked.source == B and asked.number in (1, 3)[:times] else lawful

    lab = FakeLab(rule=rule)
    probes = Probes(vias=(Via.SERVICE_NAME,))
    settled = look(lab, start(lab, "pair"), [DENY_ALL], probes)
    away = [r for r in settled.results if str(r.cell).startswith("x/b -> svc:x/s-x-a")]
    assert [r.finding for r in away] == [finding]


@pytest.mark.parametrize(
    ("port", "after", "finding"),
    [
        (40000, 0, Finding.AGREES),  # the port of a flow that was let in: still that flow
        (40001, 0, Finding.FLAKY),  # a flow of its own, and it was let in
        (40000, 600, Finding.FLAKY),  # nobody remembers the other any more
    ],
)
def test_a_datagram_of_a_flow_that_was_let_in_before_is_no_leak(
    port: int, after: float, finding: Finding
) -> None:
    """Clients take a source port by chance, and connection tracking knows flows by it."""

    denied = itertools.count()

    def track(asked: Asked, lawful: Answer) -> Answer:
        if asked.source != B:  # a control
            return lawful
        if lawful is not DROP:
            return replace(lawful, client_port=40000 if asked.number == 0 else 50000)
        let_in = replace(allowed("x/a"), client_port=port)
        return let_in if next(denied) == 1 else replace(DROP, text="sent")

    lab = FakeLab(rule=track)
    prober = start(lab, "pair")
    udp = Probes(ports=((80, Protocol.UDP),), sources=(B,), targets=(A,))
    timing = Timing(hold=0.5)
    assert findings(look(lab, prober, [], udp, timing)) == {Finding.AGREES: 1}
    lab.time += after
    settled = look(lab, prober, [DENY_ALL], udp, timing)
    assert findings(settled) == {finding: 1}


def test_silence_that_turns_out_to_be_slowness_is_no_denial() -> None:
    """The first probe of a leaking cell is on its way for longer than the hold look is off."""

    def slow_leak(asked: Asked, lawful: Answer) -> Answer:
        return allowed("x/a", 0.15) if lawful is DROP else allowed("x/a", 0.12)

    lab = FakeLab(rule=slow_leak)
    prober = start(lab, "pair")
    lab.rule = lambda asked, lawful: allowed(
        "x/a" if asked.host == ips["a"] else "x/b", 0.15 if lawful is DROP else 0.12
    )
    ips = {n: lab.resolve(lab.world).pods["x", n].ips[0] for n in "ab"}
    settled = look(lab, prober, [DENY_ALL], timing=Timing(deadline=1, silence=0.05, hold=0))
    assert findings(settled) == {Finding.LEAK: 2}


def test_an_overloaded_machine_is_not_taken_for_a_drop() -> None:
    """Answers take 0.4 s, four times the shortest silence: the allowed ones say so."""

    def slow(asked: Asked, lawful: Answer) -> Answer:
        return lawful if lawful is DROP else Answer(0.4, 0, "", lawful.backend)

    lab = FakeLab(rule=slow)
    prober = start(lab)
    look(lab, prober, [])
    lab.probes = 0
    settled = look(lab, prober, [ONLY_B])
    assert findings(settled) == {Finding.AGREES: 72}
    silent = [
        o.answered - o.sent
        for r in settled.results
        for o in r.observations
        if o.outcome is Outcome.TIMEOUT
    ]
    assert min(silent) >= 0.8
    assert lab.probes < 150  # and it is not made worse by asking again and again


@pytest.mark.parametrize(("takes", "finding"), [(0.4, Finding.AGREES), (0.002, Finding.FLAKY)])
def test_an_answer_that_fails_to_come_is_asked_again_only_where_all_are_slow(
    takes: float, finding: Finding
) -> None:
    def rule(asked: Asked, lawful: Answer) -> Answer:
        lost = asked.source == B and asked.number == 1
        return DROP if lost else Answer(takes, 0, "", lawful.backend)

    lab = FakeLab(rule=rule)
    prober = start(lab, "pair")
    prober.quickest = takes
    settled = look(lab, prober, [])
    assert {r.cell.source: r.finding for r in settled.results} == {A: Finding.AGREES, B: finding}


@pytest.mark.parametrize(("times", "finding"), [(3, Finding.AGREES), (4, Finding.FLAKY)])
def test_where_answers_are_slow_several_may_be_late(times: int, finding: Finding) -> None:
    """Each look that should hold loses another answer; the machine is slow, not the policy."""

    looks: list[float] = []  # B is asked, before A, in whole looks alone

    def rule(asked: Asked, lawful: Answer) -> Answer:
        if asked.source == B:
            looks.append(asked.time)
        lost = asked.source == A and looks[-1] == asked.time and 1 < len(looks) <= times + 1
        return DROP if lost else Answer(0.4, 0, "", lawful.backend)

    lab = FakeLab(rule=rule)
    prober = start(lab, "pair")
    prober.quickest = 0.4
    settled = look(lab, prober, [])
    assert {r.cell.source: r.finding for r in settled.results} == {A: finding, B: Finding.AGREES}


@pytest.mark.parametrize("takes", [1.2, 3.0])
def test_a_client_that_is_slower_than_was_thought_is_given_more_time(takes: float) -> None:
    """Ended before its first word it would be started anew for ever, and never be heard."""
    slow = Answer(takes, 0, "", "")
    lab = FakeLab(rule=lambda asked, lawful: replace(slow, backend=lawful.backend))
    settled = look(lab, start(lab, "pair"), [], timing=Timing(deadline=2.0))
    assert findings(settled) == {Finding.AGREES: 2}


def test_a_client_that_is_slow_to_begin_denies_nothing() -> None:
    """No policy is enforced; the client needs longer than a silence to begin."""

    def leak(asked: Asked, lawful: Answer) -> Answer:
        return Answer(1.0, 0, "", lawful.backend or ("x/a" if asked.source == B else "x/b"))

    lab = FakeLab(rule=leak)
    settled = look(lab, start(lab, "pair"), [DENY_ALL])
    assert findings(settled) == {Finding.LEAK: 2}


def test_what_leaks_tells_how_slow_answers_are() -> None:
    """Else the next one would be cut before its answer, and nothing enforced would look flaky."""

    def leak(asked: Asked, lawful: Answer) -> Answer:
        if asked.source != B or lawful is not DROP:
            return lawful
        takes = 0.05 if asked.number == 0 else 0.09
        return Answer(takes, 0, "Connecting to x (x)", "x/a")  # the words are of one that is cut

    lab = FakeLab(rule=leak)
    settled = look(lab, start(lab, "pair"), [DENY_ALL], timing=Timing(deadline=1.0))
    assert {r.cell.source: r.finding for r in settled.results} == {
        A: Finding.AGREES,
        B: Finding.LEAK,
    }


def test_waiting_longer_has_an_end() -> None:
    lab = FakeLab(rule=lambda asked, lawful: Answer(60.0, 0, "", lawful.backend))
    prober = start(lab, "pair")
    began = lab.time
    assert findings(look(lab, prober, [])) == {Finding.UNKNOWN: 2}
    assert lab.time - began < 30


def test_one_that_is_asked_again_is_heard_though_the_time_is_over() -> None:
    def rule(asked: Asked, lawful: Answer) -> Answer:
        lost = asked.source == B and asked.number == 1
        return DROP if lost else Answer(0.4, 0, "", lawful.backend)

    lab = FakeLab(rule=rule)
    prober = start(lab, "pair")
    prober.quickest = 0.4
    settled = look(lab, prober, [], timing=Timing(deadline=1.0))
    assert {r.finding for r in settled.results} == {Finding.AGREES}


def test_one_that_stays_away_on_a_slow_machine_is_an_outage_all_the_same() -> None:
    def rule(asked: Asked, lawful: Answer) -> Answer:
        lost = asked.source == B and asked.number not in (0, 2)
        return DROP if lost else Answer(0.4, 0, "", lawful.backend)

    lab = FakeLab(rule=rule)
    prober = start(lab, "pair")
    prober.quickest = 0.4
    settled = look(lab, prober, [])
    assert {r.cell.source: r.finding for r in settled.results} == {
        A: Finding.AGREES,
        B: Finding.OUTAGE,
    }


def test_a_lost_shell_is_opened_again_once() -> None:
    lab = FakeLab(rule=lambda asked, lawful: lose(asked, lawful))
    lost: list[object] = []

    def lose(asked: Asked, lawful: Answer) -> Answer:
        if asked.source == A and not lost:
            shell = next(s for s in lab.shells if s.client == A)
            shell.lost = True
            lost.append(shell)
            return DROP
        return lawful

    settled = look(lab, start(lab, "pair"), [])
    assert findings(settled) == {Finding.AGREES: 2}
    outcomes = [o.outcome for r in settled.results for o in r.observations if r.cell.source == A]
    assert outcomes[0] is Outcome.HARNESS_ERROR
    assert sum(s.client == A for s in lab.shells) == 2


def test_a_shell_that_is_always_lost_is_unknown() -> None:
    lab = FakeLab()
    prober = start(lab, "pair")
    lab.refuse_shells.add(A)
    settled = look(lab, prober, [DENY_ALL], timing=Timing(deadline=1))
    by_source = {r.cell.source: r for r in settled.results}
    assert by_source[A].finding is Finding.UNKNOWN
    assert "no shell" in by_source[A].note
    # Nobody but a itself could have proven that a's listener lives.
    assert by_source[B].finding is Finding.UNKNOWN


def test_a_client_that_does_not_answer_is_given_up() -> None:
    lab = FakeLab(rule=lambda a, lawful: Answer(None, text="stuck") if a.source == A else lawful)
    settled = look(lab, start(lab, "pair"), [], timing=Timing(deadline=1))
    result = next(r for r in settled.results if r.cell.source == A)
    assert result.finding is Finding.UNKNOWN
    assert {o.outcome for o in result.observations} == {Outcome.HARNESS_ERROR}
    assert "does not answer" in result.note


def test_a_wrong_backend_is_an_outage() -> None:
    lab = FakeLab(rule=lambda asked, lawful: allowed("z/c") if asked.source == B else lawful)
    settled = look(lab, start(lab, "pair"), [], timing=Timing(deadline=1))
    result = next(r for r in settled.results if r.cell.source == B)
    assert result.finding is Finding.OUTAGE
    assert "z/c" in result.note
    assert result.observations[-1].outcome is Outcome.WRONG_BACKEND


def test_services_are_proven_by_their_backends() -> None:
    lab = FakeLab()
    probes = Probes(vias=(Via.SERVICE_IP, Via.SERVICE_NAME))
    settled = look(lab, start(lab, "pair"), [DENY_ALL], probes)
    judged = {r.cell: r.finding for r in settled.results}
    others = [f for c, f in judged.items() if not c.target.name.endswith(c.source.name)]
    assert others == [Finding.AGREES] * 4
    hairpins = [f for c, f in judged.items() if c.target.name.endswith(c.source.name)]
    assert hairpins == [Finding.UNDEFINED] * 4


def test_more_cells_than_fit_at_once() -> None:
    lab = FakeLab()
    settled = look(lab, start(lab, crowd(40)), [DENY_ALL])
    assert findings(settled) == {Finding.AGREES: 40 * 39}


def test_clients_of_one_machine_begin_by_turns() -> None:
    """More at once than its processors bear would only wait for each other."""
    out: list[float] = []  # when probes that are out will have been answered
    most = 0

    def rule(asked: Asked, lawful: Answer) -> Answer:
        nonlocal most
        out[:] = [end for end in out if end > asked.time]
        out.append(asked.time + 0.02)
        most = max(most, len(out))
        return Answer(0.02, 0, "", lawful.backend)

    lab = FakeLab(rule=rule, processors=1)
    settled = look(lab, start(lab, crowd(10)), [])
    assert findings(settled) == {Finding.AGREES: 90}
    assert most == PER_PROCESSOR


def test_silence_does_not_keep_others_from_their_turn() -> None:
    """Those that are met with silence have begun long ago: they wait, and need no processor."""
    lab = FakeLab(processors=1)
    prober = start(lab, crowd(10))
    prober.begin(lab.resolve(lab.world))
    wanted = cells(lab.world, Probes(), lab.features)
    lab.rule = lambda asked, lawful: DROP
    began = lab.time
    probes = prober.launch(wanted)
    while prober.backlog:
        prober.collect(lab.time + 1.0)
        assert lab.time < began + 2.0
    assert all(probe.sent is not None for probe in probes)
    assert not any(probe.seen for probe in probes)


def test_what_the_change_is_about_is_asked_first() -> None:
    lab = FakeLab(processors=1)
    prober = start(lab, crowd(10))
    policy = NetworkPolicy("x", "p", LabelSelector((("pod", "p9"),)))
    changed = lab.apply([Apply(policy)])
    world = lab.resolve(lab.world)
    prober.begin(world)
    wanted = expected(world, cells(world, Probes(), lab.features))
    turned = {cell for cell in wanted if cell.target.name == "p9"}
    settled = settle(prober, wanted, changed, turned=turned)
    assert findings(settled) == {Finding.AGREES: 90}
    sent = {cell: r.observations[0].sent for r in settled.results for cell in [r.cell]}
    assert {sent[cell] for cell in turned} == {min(sent.values())}
    assert max(sent.values()) > min(sent.values())


def test_a_client_that_is_full_keeps_nobody_waiting() -> None:
    """One client asks more than it can at once; the others' turns come all the same."""
    lab = FakeLab()
    prober = start(lab, crowd(100))
    prober.begin(lab.resolve(lab.world))
    lab.rule = lambda asked, lawful: DROP
    first = [Cell(Endpoint.parse("x/p0"), Endpoint.parse(f"x/p{n}"), 80) for n in range(1, 100)]
    other = Cell(Endpoint.parse("x/p1"), Endpoint.parse("x/p0"), 80)
    probes = prober.launch([*first, other])
    assert sum(probe.sent is not None for probe in probes) == PER_CLIENT + 1
    assert probes[-1].sent is not None
    prober.cut(probes[:10])
    while sum(probe.sent is not None for probe in probes) < PER_CLIENT + 11:
        assert prober.collect(lab.time + 1.0)
    assert [probe.sent is not None for probe in probes[:-1]] == [True] * 74 + [False] * 25


def test_no_cells_no_probes() -> None:
    lab = FakeLab()
    settled = settle(Prober(lab, lab.listening), {}, lab.time)
    assert settled.results == ()
    assert lab.probes == 0


def test_a_control_that_comes_late_still_counts() -> None:
    """A listener that is expected to be reached by others, but is not, is asked by itself."""

    def no_way(asked: Asked, lawful: Answer) -> Answer:
        return DROP if asked.source == B and asked.host == ip_of_a else lawful

    lab = FakeLab(rule=no_way)
    prober = start(lab)
    ip_of_a = lab.resolve(lab.world).pods["x", "a"].ips[0]
    settled = look(lab, prober, [ONLY_B], timing=Timing(deadline=1))
    counts = findings(settled)
    assert counts == {Finding.AGREES: 71, Finding.OUTAGE: 1}


def test_cells_that_are_left_open_are_recorded_and_not_judged() -> None:
    lab = FakeLab()
    prober = start(lab, "pair")
    cell = Cell(A, Endpoint.parse("svc:x/s-x-a"), 80, via=Via.SERVICE_IP)
    settled = look(lab, prober, [], Probes(vias=(), extra=(cell,)))
    assert [r.finding for r in settled.results] == [Finding.UNDEFINED]
    assert settled.results[0].observations[-1].backend == "x/a"
