"""``netpol lab``, ``try`` and ``clean``: a lab that stays, as long as it is told and no longer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import __main__ as cli
from harness.play.home import home
from tests.netns.clusters import eventually
from tests.processes import alive, children

pytestmark = pytest.mark.timeout(180)

DEMO = str(Path(__file__).parents[1] / "golden/desk/demo.yaml")
Netpol = Callable[..., tuple[int, str, str]]


@pytest.fixture
def netpol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Netpol]:
    """The command line, with a state folder of its own: exit code, output, complaints."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def call(*words: str) -> tuple[int, str, str]:
        code = cli.main(words)
        out, err = capfd.readouterr()
        return code, out, err

    yield call
    cli.main(["clean", "--all"])


def test_a_lab_from_up_to_down(netpol: Netpol) -> None:
    code, out, _ = netpol("lab", "up", "--dataplane", "nftables")
    assert code == 0
    assert "In-house enforcer, data plane nftables, 3 nodes" in out
    folder = home("default").directory
    assert folder.stat().st_mode & 0o777 == 0o700
    processes = children(home("default").keeper())
    assert len(processes) > 6

    code, out, _ = netpol("lab", "apply", DEMO)
    assert (code, out.splitlines()[0]) == (0, "apply Namespace np-demo")
    assert netpol("lab", "apply", DEMO)[1].startswith("nothing to change")

    code, out, err = netpol("lab", "probe", "access", "nginx")
    assert code == 0
    assert "np-demo/access -> np-demo/nginx-0:80/TCP: agrees" in out
    assert "answered by np-demo/nginx-0" in out
    assert "nginx stands for np-demo/nginx-0" in err
    code, out, _ = netpol("lab", "probe", "busy", "svc:nginx", "--json")
    told = json.loads(out)
    assert (code, told["expected"], told["observed"]) == (0, "deny", "timeout")

    ask = ["timeout", "1", "wget", "-qO-", "http://nginx.np-demo"]
    code, out, _ = netpol("lab", "shell", "np-demo/access", *ask)
    assert code == 0
    assert out.startswith("- np-demo/nginx-")
    assert netpol("lab", "shell", "busy", *ask)[0] == 143
    assert netpol("lab", "shell", "node:worker", "--", "sh", "-c", "exit 5")[0] == 5

    code, out, _ = netpol("lab", "delete", DEMO)
    assert code == 0
    assert "delete Pod np-demo/busy\n" in out
    told = json.loads(netpol("lab", "status", "--json")[1])
    assert [pod["name"] for pod in told["pods"]] == ["kube-system/coredns-0"]

    assert netpol("lab", "down")[1] == "lab default is down\n"
    assert not any(map(alive, processes))
    assert not folder.exists()


def test_mistakes_are_told(netpol: Netpol, tmp_path: Path) -> None:
    code, _, err = netpol("lab", "status")
    assert (code, err) == (
        2,
        "netpol: there is no lab default\n  hint: `netpol lab up` makes one\n",
    )
    assert "can be no lab's name" in netpol("lab", "up", "--name", "../x")[2]
    assert "flannl" in netpol("lab", "up", "--cni", "flannl")[2]
    assert netpol("lab", "up", "--cni", "none", "--nodes", "1")[0] == 0
    code, _, err = netpol("lab", "up")
    assert code == 2
    assert "lab default is up already" in err
    code, _, err = netpol("lab", "probe", "nobody", "x")
    assert (code, err.partition(";")[0]) == (2, "netpol: there is no pod nobody")
    broken = tmp_path / "broken.yaml"
    broken.write_text("apiVersion: v1\nkind: Pod\nmetadata: {name: UPPER}\n")
    code, _, err = netpol("lab", "apply", str(broken))
    assert code == 2
    assert f"{broken}:3: error: metadata.name" in err
    # A leak is a finding.
    assert netpol("lab", "apply", DEMO)[0] == 0
    code, out, _ = netpol("lab", "probe", "busy", "nginx")
    assert code == 1
    assert "busy -> np-demo/nginx-0:80/TCP: leak" in out


def test_nothing_outlives_a_killed_keeper(netpol: Netpol) -> None:
    assert netpol("lab", "up", "--name", "doomed")[0] == 0
    assert netpol("lab", "up", "--name", "other", "--cni", "none", "--nodes", "1")[0] == 0
    there = home("doomed")
    processes = children(there.keeper())
    os.kill(there.keeper(), signal.SIGKILL)
    eventually(lambda: not any(map(alive, processes)))
    code, _, err = netpol("lab", "status", "--name", "doomed")
    assert code == 2
    assert "it ended without `netpol lab down`" in err
    out = netpol("clean")[1]
    assert "lab doomed: it had ended without `netpol lab down`; cleaned up" in out
    assert "lab other: it is up, and stays" in out
    assert not there.directory.exists()
    # The lab's own holder process is all of the lab: without it the keeper goes, too.
    keeper = home("other").keeper()
    os.kill(children(keeper)[1], signal.SIGKILL)
    eventually(lambda: not alive(keeper))


def test_a_shell_on_a_terminal(netpol: Netpol) -> None:
    """With job control: Ctrl-C ends what runs in the shell, and not the shell."""
    assert netpol("lab", "up", "--cni", "none", "--nodes", "1")[0] == 0
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "harness", "lab", "shell", "node:control-plane"]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        said = b""

        def until(text: bytes) -> None:
            nonlocal said
            while text not in said:
                said += os.read(ours, 65536)
            said = said.partition(text)[2]

        until(b"# ")
        os.write(ours, b"echo $((6*7)); sleep 1000\n")
        until(b"42\r\n")
        time.sleep(0.3)  # until it sleeps; were it not so, Ctrl-C would do no harm either
        os.write(ours, b"\x03")
        until(b"# ")
        os.write(ours, b"exit $(hostname | wc -c)\n")
        assert process.wait(30) == len("control-plane\n")
    os.close(ours)


POLICIES = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: api, namespace: shop}
spec:
  podSelector: {matchLabels: {app: api}}
  ingress:
  - from:
    - namespaceSelector: {matchLabels: {team: front}}
      podSelector: {matchExpressions: [{key: app, operator: In, values: [web, app]}]}
    - ipBlock: {cidr: 198.51.100.0/24}
    ports: [{port: 8080}, {port: metrics}]
"""


def test_try_policies_alone(netpol: Netpol, tmp_path: Path) -> None:
    """Pods for what they speak of, and a host in the range that they name."""
    file = tmp_path / "policy.yaml"
    file.write_text(POLICIES)
    code, out, err = netpol("try", "--all", "--dataplane", "nftables", str(file))
    assert code == 0, out
    assert "these stand for what the policies select: " in err
    lines = {line.partition("  ")[0]: line.split()[-2:] for line in out.splitlines()}
    assert lines["front/web -> shop/api:8080/TCP"] == ["allow", "allowed"]
    assert lines["front/web -> shop/api:8001/TCP"] == ["allow", "allowed"]  # metrics
    assert lines["front/web -> shop/api:80/TCP"] == ["deny", "timeout"]
    assert lines["shop/stranger -> shop/api:8080/TCP"] == ["deny", "timeout"]
    assert lines["external:198.51.100.0 -> shop/api:8080/TCP"] == ["allow", "allowed"]
    assert lines["external:outside -> shop/api:8080/TCP"] == ["deny", "timeout"]


def test_try_tells_bad_input(netpol: Netpol, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(POLICIES.replace("198.51.100.0/24", "198.51.100.0/33"))
    code, out, err = netpol("try", str(file))
    assert (code, out) == (2, "")
    assert f"{file}:11: error: spec.ingress[0].from[1].ipBlock.cidr" in err
