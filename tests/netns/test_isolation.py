"""The machine is left as it was: while a lab runs, after it, and whatever kills it."""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.labs.base import LabError
from harness.labs.netns import client, detect
from harness.labs.netns.lab import NetnsLab
from harness.model.actions import Apply
from harness.model.flow import Endpoint
from harness.model.world import Namespace, Pod
from tests.ordinary import NOBODY

ROOT = Path(__file__).parents[2]
MARK = "NETPOL_TEST_MARK"

# A lab with everything in it, told on standard output how far it is.
PROGRAM = """
import sys, time
from pathlib import Path
from harness.labs.netns.lab import NetnsLab
from harness.model.actions import Apply
from harness.model.flow import Endpoint
from harness.model.world import Namespace, Pod, Service, ServicePort
print("begin", flush=True)
lab = NetnsLab(Path(sys.argv[1]), fabric=sys.argv[2], families=(4, 6),
               engine=["sh", "-c", "setsid sleep 1000 & exec sleep 1000"], protocol=False)
lab.up()
print("up", flush=True)
lab.apply([Apply(Namespace("x")),
           *(Apply(Pod("x", f"p{n}", {"a": "b"})) for n in range(6)),
           Apply(Service("x", "s", {"a": "b"}, (ServicePort(80, 80),)))])
shell = lab.shell(Endpoint.parse("x/p0"))
shell.send(b"setsid sleep 1000 & sleep 1000\\n")
done = lab.exec(Endpoint.parse("x/p0"),
                "busybox timeout 5 busybox wget -qO- http://s.x/t/hello".split())
print("answer", done.out.strip(), done.err.strip(), flush=True)
time.sleep(1000)
"""


def marked(mark: str) -> list[int]:
    """All processes of this machine that descend from one with that mark."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                pass
    return found


def gone(mark: str, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while marked(mark):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def machine() -> dict[str, str]:
    """What a lab must not touch, as far as this user may look at it."""
    commands = (
        "ip -o link",
        "ip -o addr",
        "ip route show table all",
        "ip -6 route show table all",
        "ip netns list",
        "nft list ruleset",
        "iptables-save",
        "ipset list -n",
    )
    state = {}
    for command in commands:
        done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
        lines = [line for line in done.stdout.splitlines() if not line.startswith("#")]
        state[command] = "\n".join(lines)
    state["mounts"] = Path("/proc/self/mounts").read_text()
    for name in ("ipv4/ip_forward", "ipv4/conf/all/rp_filter", "ipv4/conf/default/proxy_arp"):
        state[name] = Path("/proc/sys/net", name).read_text()
    for directory in ("/run", "/etc", "/var/run", "/var/lib/nginx", "/run/netns"):
        if Path(directory).is_dir():
            state[directory] = " ".join(sorted(os.listdir(directory)))
    return state


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Any]:
    started: list[subprocess.Popen[str]] = []

    def start(fabric: str = "routed", **options: Any) -> tuple[subprocess.Popen[str], str]:
        mark = f"{MARK}={uuid.uuid4()}"
        name, value = mark.split("=")
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path / "lab"), fabric],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, name: value, "PYTHONPATH": str(ROOT)},
            **options,
        )
        started.append(process)
        return process, mark

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_machine_is_untouched_while_a_lab_runs_and_after(tmp_path: Path) -> None:
    before = machine()
    lab = NetnsLab(tmp_path / "lab", fabric="bridged", families=(4, 6))
    lab.up()
    try:
        lab.apply([Apply(Namespace("x")), Apply(Pod("x", "p"))])
        assert lab.exec(Endpoint.parse("x/p"), ["hostname"]).out == "p\n"
        assert machine() == before
    finally:
        lab.down()
    assert machine() == before
    assert sorted(p.name for p in (tmp_path / "lab").iterdir()) == ["lab.log"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_nothing_outlives_the_process_that_made_the_lab(
    program: Any, tmp_path: Path, number: int
) -> None:
    process, mark = program("overlay")
    for line in process.stdout:
        if line.startswith("answer"):
            break
    assert line.split()[1] == "hello", line
    assert len(marked(mark)) > 20
    process.send_signal(number)
    process.wait(10)
    assert gone(mark), marked(mark)
    logs = {path.name for path in (tmp_path / "lab").iterdir()}
    assert logs == {"lab.log", *(f"engine-{n}.log" for n in ("control-plane", "worker", "worker2"))}


def test_killed_at_any_moment_it_leaves_nothing(program: Any) -> None:
    """The moments are drawn from the whole of a start; the seed is in the failure."""
    before = machine()
    seed = random.randrange(1 << 30)
    dice = random.Random(seed)
    for _ in range(6):
        process, mark = program("bridged")
        assert process.stdout.readline() == "begin\n"
        time.sleep(dice.uniform(0, 0.6))
        process.kill()
        process.wait(10)
        assert gone(mark), f"left behind (seed {seed}): {marked(mark)}"
    assert machine() == before


def test_killing_the_holder_ends_the_lab_and_is_told(tmp_path: Path) -> None:
    for victim in ("outer", "inner"):
        lab = NetnsLab(tmp_path / victim)
        lab.up()
        try:
            lab.apply([Apply(Namespace("x")), Apply(Pod("x", "p"))])
            shell = lab.shell(Endpoint.parse("x/p"))
            outer = lab.holder.pid
            inner = int(Path(f"/proc/{outer}/task/{outer}/children").read_text())
            os.kill(outer if victim == "outer" else inner, signal.SIGKILL)
            with pytest.raises(LabError, match="the embedded lab is gone"):
                _again(lambda lab=lab: lab.exec(Endpoint.parse("x/p"), ["true"]))
            with pytest.raises(LabError, match="the shell in x/p is gone"):
                _again(shell.receive)
            shell.close()
            assert _dead(inner)
        finally:
            lab.down()


def _again(do: Callable[[], object]) -> None:
    """Until it raises, for ten seconds at most."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        do()
        time.sleep(0.01)


def _dead(pid: int) -> bool:
    """Gone, or waiting for whoever reaps orphans on this machine; within ten seconds."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


def test_a_lab_made_in_a_thread_outlives_the_thread(tmp_path: Path) -> None:
    """A parent-death signal is sent when a *thread* ends; the lab must not hang on that."""
    import threading

    lab = NetnsLab(tmp_path / "lab")
    thread = threading.Thread(target=lab.up)
    thread.start()
    thread.join()
    try:
        time.sleep(0.1)
        assert lab.exec(Endpoint.parse("node:worker"), ["hostname"]).out == "worker\n"
    finally:
        lab.down()


def test_interrupts_are_the_callers_to_handle(tmp_path: Path) -> None:
    lab = NetnsLab(tmp_path / "lab")
    lab.up()
    try:
        assert os.getpgid(lab.holder.pid) != os.getpgid(0)
        assert os.getsid(lab.holder.pid) != os.getsid(0)
    finally:
        lab.down()


def test_two_labs_are_strangers(tmp_path: Path) -> None:
    labs = [NetnsLab(tmp_path / name) for name in ("one", "two")]
    try:
        for lab in labs:
            lab.up()
            lab.apply([Apply(Namespace("x"))])
        labs[0].apply([Apply(Pod("x", "only-here"))])
        ip = labs[0].world.pods["x", "only-here"].ips[0]
        wget = ["busybox", "timeout", "1", "busybox", "wget", "-qO-", f"http://{ip}/"]
        assert labs[0].exec(Endpoint.parse("node:worker"), wget).code == 0
        assert labs[1].exec(Endpoint.parse("node:worker"), wget).code != 0
    finally:
        for lab in labs:
            lab.down()


def test_down_can_be_said_twice_and_up_again(tmp_path: Path) -> None:
    lab = NetnsLab(tmp_path / "lab")
    lab.down()
    for _ in range(2):
        lab.up()
        assert lab.exec(Endpoint.parse("node:worker"), ["hostname"]).out == "worker\n"
        lab.down()
        lab.down()
    with pytest.raises(LabError, match="is not up"):
        lab.shell(Endpoint.parse("node:worker"))
    with pytest.raises(LabError, match="is not up"):
        lab.apply([Apply(Namespace("x"))])


def test_file_descriptors_are_given_back(tmp_path: Path) -> None:
    def round_() -> int:
        lab = NetnsLab(tmp_path / "lab", engine=["sleep", "1000"], protocol=False)
        lab.up()
        lab.apply([Apply(Namespace("x")), Apply(Pod("x", "p"))])
        shell = lab.shell(Endpoint.parse("x/p"))
        lab.exec(Endpoint.parse("x/p"), ["true"])
        shell.close()
        lab.down()
        gc.collect()  # what earlier tests left to the collector is not this one's
        return len(os.listdir("/proc/self/fd"))

    first = round_()
    # More may be closed meanwhile that earlier tests had open: three rounds tell a leak from it.
    assert [round_() for _ in range(3)][-1] <= first


def _as(
    prefix: Sequence[str], tmp: Path, fabric: str = "routed"
) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.replace("time.sleep(1000)", "lab.down()")
    return subprocess.run(
        [*prefix, "/usr/bin/python3", "-c", program, str(tmp / "lab"), fabric],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp)},
        check=False,
    )


@pytest.fixture
def open_tmp() -> Iterator[Path]:
    """A directory that every user may use, with a copy of the package in it."""
    import shutil

    version = subprocess.run(
        ["/usr/bin/python3", "-c", "import sys; print(sys.version_info >= (3, 11))"],
        capture_output=True,
        text=True,
        check=False,
    )
    if version.stdout != "True\n":
        pytest.skip("no /usr/bin/python3 of 3.11 or later, and another user may not use this one")
    with tempfile.TemporaryDirectory() as name:
        tmp = Path(name)
        shutil.copytree(ROOT / "harness", tmp / "harness")
        tmp.chmod(0o777)
        yield tmp


@pytest.mark.parametrize("fabric", ["routed", "overlay", "bridged"])
def test_an_ordinary_user_can_do_all_of_it(open_tmp: Path, fabric: str) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become another user; the other tests show it for this one")
    done = _as(NOBODY, open_tmp, fabric)
    assert "answer hello x/p" in done.stdout, done.stdout + done.stderr


def test_user_namespaces_switched_off(open_tmp: Path) -> None:
    """One error with the step that mends it (inside a namespace in which no further is allowed)."""
    off = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    done = _as(["unshare", "--user", "--map-root-user", "sh", "-c", off, "sh"], open_tmp)
    assert done.returncode != 0
    assert "the embedded lab cannot make its namespaces" in done.stderr
    assert "sysctl -w user.max_user_namespaces=10000" in done.stderr


def test_a_tool_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = tmp_path / "bin"
    few.mkdir()
    for tool in ("ip", "nginx", "dnsmasq", "nft", "sh"):
        found = detect.which(tool)
        assert found
        (few / tool).symlink_to(found)
    monkeypatch.setenv("PATH", str(few))
    monkeypatch.setattr(detect, "_SBIN", str(few))
    lab = NetnsLab(tmp_path / "lab")
    with pytest.raises(LabError) as caught:
        lab.up()
    assert caught.value.hint == "apt-get install busybox-static", str(caught.value)


def test_abilities_are_found_without_a_lab_and_in_time() -> None:
    begun = time.monotonic()
    before = machine()
    found = detect.abilities()
    assert time.monotonic() - begun < detect.SECONDS
    assert machine() == before
    for name in ("namespaces", "veth", "bridge", "services", "tool:nginx", "tool:busybox"):
        assert found[name].ok, found[name]
    for ability in found.values():
        assert ability.ok != bool(ability.reason)
        assert ability.ok != bool(ability.hint)


def test_abilities_where_nothing_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Path) -> client.Holder:
        raise LabError("no namespaces here", hint="do this")

    monkeypatch.setattr(detect, "Holder", fail)
    found = detect.abilities()
    assert (found["namespaces"].reason, found["vxlan"].hint) == ("no namespaces here", "do this")
    assert found["tool:busybox"].ok


def test_a_signal_reaches_a_process_that_has_just_begun(tmp_path: Path) -> None:
    """It may not even have a process group of its own by then."""
    holder = client.Holder(tmp_path / "lab.log")
    try:
        with open(os.devnull, "r+b") as null:
            fd = null.fileno()
            for _ in range(100):
                begun = holder.spawn("", ["sleep", "100"], stdin=fd, stdout=fd, stderr=fd)
                begun.signal(signal.SIGKILL)
                assert begun.wait(10) == -signal.SIGKILL
                begun.close()
    finally:
        holder.close()
