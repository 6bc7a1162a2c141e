"""What becomes of pods: created, relabelled, finished, deleted, their address used again."""

from __future__ import annotations

import select
import time

import pytest

from harness.labs.base import LabError, ShellLostError
from harness.labs.netns import client, topology
from harness.labs.netns.addresses import at
from harness.labs.netns.lab import NetnsLab
from harness.labs.netns.topology import node_box
from harness.labs.server import NODE_SERVER_PORT, WELCOME
from harness.model.actions import Action, Apply, Delete, Finish
from harness.model.flow import Cell, Endpoint
from harness.model.policy import Protocol
from harness.model.transition import ActionError
from harness.model.world import (
    ContainerPort,
    External,
    Namespace,
    Node,
    Phase,
    Pod,
    Service,
    ServicePort,
    Workload,
)
from tests.netns.asking import address, ask, ask_udp


@pytest.fixture(autouse=True)
def _namespace(lab: NetnsLab) -> object:
    lab.apply([Apply(Namespace("w")), Apply(Pod("w", "client", node="worker"))])
    yield
    lab.apply([Delete("Namespace", "", "w")])


def _apply(lab: NetnsLab, *things: object) -> None:
    lab.apply([thing if isinstance(thing, Action) else Apply(thing) for thing in things])  # type: ignore[arg-type]


@pytest.mark.parametrize("phase", [Phase.SUCCEEDED, Phase.FAILED])
def test_a_finished_pod_is_silent_and_its_address_free(lab: NetnsLab, phase: Phase) -> None:
    _apply(lab, Pod("w", "job", node="worker2"))
    old = lab.world.pods["w", "job"]
    assert ask(lab, "w/client", old.ips[0]).name == "w/job"
    shell = lab.shell(Endpoint.parse("w/job"))
    _apply(lab, Finish("w", "job", phase))
    assert not ask(lab, "w/client", old.ips[0], seconds=0.5).ok
    assert lab.world.pods["w", "job"].phase == phase
    assert lab.world.pods["w", "job"].ips == ()
    links = lab.topology.run(node_box("worker2"), ["ip", "-o", "link"]).out
    assert lab.fabric.link("w", "job") not in links
    with pytest.raises(ShellLostError):
        _until_lost(shell)
    shell.close()
    _apply(lab, Pod("w", "next", node="worker2", ips=old.ips))
    assert ask(lab, "w/client", old.ips[0]).name == "w/next"


def _until_lost(shell: object) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        select.select([shell], [], [], 1)
        shell.receive()  # type: ignore[attr-defined]


def test_nothing_of_a_deleted_pod_runs_on(lab: NetnsLab) -> None:
    _apply(lab, Pod("w", "busy"))
    lab.exec(
        Endpoint.parse("w/busy"),
        [
            *("sh", "-c"),
            "(setsid busybox sleep 4242 &) >&- 2>&-; setsid -f busybox sleep 4242 >&- 2>&-",
        ],
    )
    running = [
        "sh",
        "-c",
        "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -o 'sleep 424[2]'",
    ]
    assert lab.holder.run("", running).out.count("4242") == 2
    _apply(lab, Delete("Pod", "w", "busy"))
    assert lab.holder.run("", running).out == ""


def test_an_address_is_used_again_in_the_same_breath(lab: NetnsLab) -> None:
    _apply(lab, Pod("w", "old", node="worker2"))
    ips = lab.world.pods["w", "old"].ips
    for n in range(5):
        _apply(
            lab,
            Delete("Pod", "w", "old" if n == 0 else f"new{n - 1}"),
            Pod("w", f"new{n}", node="worker2" if n % 2 else None, ips=ips),
        )
        for family in (4, 6):
            assert ask(lab, "w/client", address(lab, f"w/new{n}", family)).name == f"w/new{n}"
        assert lab.world.pods["w", f"new{n}"].ips == ips


def test_a_freed_address_is_given_out_last(lab: NetnsLab) -> None:
    _apply(lab, Pod("w", "first", node="worker2"))
    ips = lab.world.pods["w", "first"].ips
    _apply(lab, Delete("Pod", "w", "first"), Pod("w", "second", node="worker2"))
    assert not set(ips) & set(lab.world.pods["w", "second"].ips)


@pytest.mark.parametrize(
    ("pod", "words"),
    [
        (Pod("w", "x", node="worker", ips=("192.0.2.1",)), "not one of node worker's"),
        (Pod("w", "x", ips=("192.0.2.1",)), "in no node's pod CIDR"),
        (Pod("w", "x", node="nowhere"), "there is: control-plane, worker, worker2"),
        (Pod("w", "x", phase=Phase.SUCCEEDED), "apply it, then finish it"),
        (
            Pod(
                "w", "x", node="worker", host_network=True, ports=(ContainerPort(NODE_SERVER_PORT),)
            ),
            "the node's own",
        ),
    ],
)
def test_what_cannot_be_is_said_in_words(lab: NetnsLab, pod: Pod, words: str) -> None:
    before = lab.world
    with pytest.raises(LabError, match=words):
        _apply(lab, pod)
    assert lab.world == before


def test_an_address_that_somebody_has_is_refused(lab: NetnsLab) -> None:
    ips = lab.world.pods["w", "client"].ips
    with pytest.raises(LabError, match="w/client has it"):
        _apply(lab, Pod("w", "thief", node="worker", ips=ips))
    assert ask(lab, "node:worker2", ips[0]).name == "w/client"


def test_impossible_actions_are_the_models_errors(lab: NetnsLab) -> None:
    with pytest.raises(ActionError, match="there is no Pod w/nobody"):
        _apply(lab, Delete("Pod", "w", "nobody"))


def test_a_page_is_served_as_written(lab: NetnsLab) -> None:
    page = WELCOME + 'price: $5 "quoted" \\ {braces};\n'
    _apply(lab, Pod("w", "page", ports=(ContainerPort(80), ContainerPort(81)), page=page))
    ip = lab.world.pods["w", "page"].ips[0]
    client = Endpoint.parse("w/client")
    assert lab.exec(client, ["busybox", "wget", "-qO-", f"http://{ip}/"]).out == page
    other = lab.exec(client, ["busybox", "wget", "-qO-", f"http://{ip}:81/"]).out
    assert other.startswith("- w/page ")


def test_client_pods_listen_nowhere(lab: NetnsLab) -> None:
    _apply(lab, Pod("w", "quiet", workload=Workload.CLIENT))
    assert "refused" in ask(lab, "w/client", address(lab, "w/quiet")).error
    assert ask(lab, "w/quiet", address(lab, "w/client")).name == "w/client"


def test_pods_of_the_nodes_network(lab: NetnsLab) -> None:
    taken = Pod(
        "w",
        "host",
        node="worker2",
        host_network=True,
        ports=(ContainerPort(7000), ContainerPort(7000, Protocol.UDP)),
    )
    _apply(lab, taken)
    for family in (4, 6):
        node = address(lab, "node:worker2", family)
        assert address(lab, "w/host", family) == node
        assert ask(lab, "w/client", node, 7000).name == "w/host"
        assert ask_udp(lab, "w/client", node, 7000).name == "w/host"
        assert ask(lab, "w/host", address(lab, "w/client", family)).client == node
    clash = Pod("w", "second", node="worker2", host_network=True, ports=(ContainerPort(7000),))
    with pytest.raises(LabError, match="port 7000/TCP of worker2 is taken by w/host"):
        _apply(lab, clash)
    _apply(lab, Pod("w", "else", host_network=True, ports=(ContainerPort(7000),)))
    assert lab.world.pods["w", "else"].node == "worker"
    _apply(lab, Delete("Pod", "w", "host"))
    assert "refused" in ask(lab, "w/client", address(lab, "node:worker2"), 7000).error
    assert ask(lab, "w/client", address(lab, "node:worker2"), NODE_SERVER_PORT).ok


def test_a_pod_applied_again_is_changed_or_made_anew(lab: NetnsLab) -> None:
    _apply(lab, Pod("w", "web", {"v": "1"}, node="worker2"))
    first = lab.world.pods["w", "web"]
    _apply(lab, Pod("w", "web", {"v": "2"}))
    second = lab.world.pods["w", "web"]
    assert (second.uid, second.ips, second.node) == (first.uid, first.ips, first.node)
    _apply(lab, Pod("w", "web", {"v": "3"}, ports=(ContainerPort(8080),)))
    third = lab.world.pods["w", "web"]
    assert third.uid != first.uid
    assert ask(lab, "w/client", third.ips[0], 8080).name == "w/web"


def test_a_namespace_takes_its_pods_and_services_with_it(lab: NetnsLab) -> None:
    _apply(
        lab,
        Namespace("brief"),
        Pod("brief", "web", {"a": "b"}),
        Service("brief", "web", {"a": "b"}, (ServicePort(80, 80),)),
    )
    pod = lab.world.pods["brief", "web"].ips[0]
    assert ask(lab, "w/client", "web.brief").ok
    _apply(lab, Delete("Namespace", "", "brief"))
    assert not ask(lab, "w/client", pod, seconds=0.5).ok
    assert "bad address" in ask(lab, "w/client", "web.brief").error


def test_outside_hosts_come_and_go(lab: NetnsLab) -> None:
    _apply(
        lab,
        External("partner", ("198.51.100.7", "2001:db8:51::7"), (ContainerPort(443),)),
        External("other"),
    )
    for family in (4, 6):
        reply = ask(lab, "w/client", address(lab, "external:partner", family), 443)
        assert (reply.name, reply.client) == ("external:partner", address(lab, "w/client", family))
        back = ask(lab, "external:partner", address(lab, "w/client", family))
        assert back.client == address(lab, "external:partner", family)
        assert ask(lab, "external:partner", address(lab, "external:other", family)).ok
    _apply(lab, Delete("External", "", "partner"), Delete("External", "", "other"))
    assert not ask(lab, "w/client", "198.51.100.7", 443, seconds=0.5).ok


def test_a_resolved_world_knows_all_that_only_the_lab_knows(lab: NetnsLab) -> None:
    from harness.model.world import World

    bare = World(
        namespaces={"w": Namespace("w")},
        pods={("w", "client"): Pod("w", "client", {"l": "x"})},
    )
    world = lab.resolve(bare)
    pod = world.pods["w", "client"]
    assert pod.ips == lab.world.pods["w", "client"].ips
    assert pod.node == "worker"
    assert pod.labels == {"l": "x"}
    assert set(world.nodes) == {"control-plane", "worker", "worker2"}
    assert world.externals["outside"].ips
    assert world.services["kube-system", "kube-dns"].cluster_ips[0] == at("10.96.0.0/16", 10)


def test_shells_keep_talking(lab: NetnsLab) -> None:
    shell = lab.shell(Endpoint.parse("w/client"))
    try:
        shell.send(b"echo one; hostname; wget --help 2>&1 | head -1; cat /etc/resolv.conf\n")
        text = _read_until(shell, b"ndots")
        assert b"one\nclient\nBusyBox" in text
        assert b"search w.svc.cluster.local svc.cluster.local cluster.local" in text
        shell.send(b"echo two >&2\n")
        assert b"two" in _read_until(shell, b"two")
        big = b"x" * 300_000
        shell.send(b"cat > /dev/null <<E\n" + big + b"\nE\necho three\n")
        assert b"three" in _read_until(shell, b"three")
    finally:
        shell.close()


def _read_until(shell: object, mark: bytes) -> bytes:
    text = b""
    deadline = time.monotonic() + 10
    while mark not in text and time.monotonic() < deadline:
        select.select([shell], [], [], 1)
        text += shell.receive()  # type: ignore[attr-defined]
    return text


def test_a_shell_in_nothing_is_refused(lab: NetnsLab) -> None:
    with pytest.raises(LabError, match="there is no w/nobody"):
        lab.shell(Endpoint.parse("w/nobody"))
    with pytest.raises(LabError, match="is a Service"):
        lab.shell(Endpoint.parse("svc:w/web"))


def test_evidence_comes_from_the_nodes_in_question(lab: NetnsLab) -> None:
    _apply(lab, Pod("w", "far", node="worker2"))
    lab.topology.run(
        node_box("worker2"),
        ["iptables", "-A", "FORWARD", "-m", "comment", "--comment", "mark-of-test", "-j", "ACCEPT"],
    )
    assert ask(lab, "w/client", address(lab, "w/far")).ok
    cell = Cell(Endpoint.parse("w/client"), Endpoint.parse("w/far"), 80)
    found = lab.evidence(lab.world, [cell])
    assert {item.node for item in found} == {"worker", "worker2"}
    rules = next(e for e in found if e.command == "iptables-save -c" and e.node == "worker2")
    assert "mark-of-test" in rules.text
    assert "[0:0]" not in next(li for li in rules.text.splitlines() if "mark-of-test" in li)
    assert any("lab-services" in item.text for item in found if "nft" in item.command)
    assert any(address(lab, "w/far") in item.text for item in found if "conntrack" in item.command)


def test_programs_with_files_of_their_own(lab: NetnsLab, tmp_path: object) -> None:
    """As engines and control planes are started: files anywhere, seen in one node only."""
    import pathlib

    log = pathlib.Path(str(tmp_path)) / "program.log"
    account = "/var/run/secrets/kubernetes.io/serviceaccount/token"
    files = {account: "secret\n", "/etc/cni/net.d/10-lab.conf": "{}\n", "/etc/machine-id": "abc\n"}
    script = f"cat {' '.join(files)} /etc/resolv.conf; ls /etc/passwd; echo $WORD; exit 3"
    process = lab.start(
        Endpoint.parse("node:worker"),
        ["sh", "-c", script],
        log,
        env={"WORD": "said"},
        files=files,
    )
    assert process.wait(10) == 3
    assert (
        log.read_text()
        == "secret\n{}\nabc\n"
        + "nameserver 10.96.0.10\nnameserver fd00:10:96::a\n/etc/passwd\nsaid\n"
    )
    elsewhere = lab.exec(Endpoint.parse("node:worker2"), ["ls", account, "/etc/cni/net.d"])
    assert elsewhere.out == ""
    assert not pathlib.Path(account).exists()


def test_a_program_that_is_not_there(lab: NetnsLab) -> None:
    done = lab.exec(Endpoint.parse("w/client"), ["no-such-program"])
    assert done.code == 127
    assert "No such file" in done.err


def test_a_pending_pod_has_no_place_until_it_runs(lab: NetnsLab) -> None:
    _apply(lab, Pod("w", "later", {"a": "b"}, phase=Phase.PENDING, ready=False))
    waiting = lab.world.pods["w", "later"]
    assert waiting.ips == ()
    with pytest.raises(LabError, match="there is no w/later"):
        lab.shell(Endpoint.parse("w/later"))
    _apply(lab, Pod("w", "later", {"a": "b"}))
    assert lab.world.pods["w", "later"].uid == waiting.uid
    assert ask(lab, "w/client", address(lab, "w/later")).name == "w/later"
    with pytest.raises(LabError, match="cannot become Pending again"):
        _apply(lab, Pod("w", "later", phase=Phase.PENDING))


def test_a_pod_that_cannot_be_made_leaves_nothing_in_the_way(
    lab: NetnsLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topology, "NGINX_READY", "a word that nginx does not say")
    monkeypatch.setattr(client, "_ANSWER_SECONDS", 0.5)
    with pytest.raises(LabError, match="has not answered to 'make'"):
        _apply(lab, Pod("w", "good", node="worker"))
    monkeypatch.undo()
    assert ("w", "good") not in lab.world.pods
    taken = Pod("w", "good", node="worker", host_network=True, ports=(ContainerPort(7100),))
    lab.exec(
        Endpoint.parse("node:worker"),
        ["sh", "-c", "busybox nc -l -p 7100 -e cat >&- 2>&- & sleep 0.2"],
    )
    with pytest.raises(LabError, match=r"w/good: .*Address already in use"):
        _apply(lab, taken, Pod("w", "other", node="worker"))
    assert lab.world.pods.keys() & {("w", "good"), ("w", "other")} == set()
    _apply(lab, Pod("w", "good", node="worker"), Pod("w", "other", node="worker"))
    assert ask(lab, "w/client", address(lab, "w/other")).name == "w/other"


def test_a_service_asks_for_its_address(lab: NetnsLab) -> None:
    ports = (ServicePort(80, 80),)
    _apply(lab, Service("w", "fixed", {}, ports, ("10.96.0.77",)))
    assert address(lab, "svc:w/fixed") == "10.96.0.77"
    with pytest.raises(LabError, match="w/fixed has it"):
        _apply(lab, Service("w", "thief", {}, ports, ("10.96.0.77",)))
    with pytest.raises(LabError, match="is not in 10"):
        _apply(lab, Service("w", "stray", {}, ports, ("192.0.2.7",)))


def test_nodes_stay(lab: NetnsLab) -> None:
    with pytest.raises(LabError, match="nodes stay until it ends"):
        _apply(lab, Delete("Node", "", "worker"))
    with pytest.raises(LabError, match="cannot join"):
        _apply(lab, Node("fourth"))
    _apply(lab, Node("worker", labels={"zone": "a"}))
    assert lab.world.nodes["worker"].labels == {"zone": "a"}
    assert lab.world.nodes["worker"].ips


def test_what_comes_before_an_impossible_action_is_done(lab: NetnsLab) -> None:
    with pytest.raises(ActionError, match="no namespace 'nowhere'"):
        _apply(lab, Pod("w", "before", node="worker"), Pod("nowhere", "x", node="worker"))
    assert ask(lab, "w/client", address(lab, "w/before")).name == "w/before"
    _apply(lab, Pod("w", "after", node="worker"))
    before, after = (lab.world.pods["w", name].ips[0] for name in ("before", "after"))
    # The impossible pod was given no address: these two are neighbours.
    assert int(after.rpartition(".")[2]) == int(before.rpartition(".")[2]) + 1
