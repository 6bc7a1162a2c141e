"""``netpol lab up --api``, and the tools at the desk on a live cluster: that lab's."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import __main__ as cli
from harness.play.home import home
from tests.netns.clusters import SHOP, eventually
from tests.ordinary import nobody
from tests.processes import alive

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parents[2]
MANIFESTS = (
    SHOP
    + """\
---
apiVersion: v1
kind: Pod
metadata: {name: other, namespace: shop}
spec: {containers: [{name: b, image: busybox, command: [sleep, infinity]}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: api, namespace: shop}
spec:
  podSelector: {matchLabels: {app: api}}
  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]
"""
)
OPEN = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: open, namespace: shop}
spec: {podSelector: {}, ingress: [{}]}
"""
Netpol = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A lab that is up, with something in it; the folder is the state's."""
    state = tmp_path_factory.mktemp("state")
    before = os.environ.get("XDG_STATE_HOME")
    os.environ["XDG_STATE_HOME"] = str(state)
    try:
        assert cli.main(["lab", "up", "--api"]) == 0
        file = state / "manifests.yaml"
        file.write_text(MANIFESTS)
        assert cli.main(["lab", "apply", str(file)]) == 0
        yield state
        assert cli.main(["lab", "down"]) == 0
    finally:
        cli.main(["clean", "--all"])
        if before is None:
            del os.environ["XDG_STATE_HOME"]
        else:
            os.environ["XDG_STATE_HOME"] = before


@pytest.fixture
def netpol(lab: Path, capfd: pytest.CaptureFixture[str]) -> Netpol:
    def call(*words: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = cli.main(words)
        out, err = capfd.readouterr()
        return code, out, err

    return call


def test_real_workloads_and_a_probe(netpol: Netpol) -> None:
    code, out, err = netpol("lab", "probe", "web", "api")
    assert code == 0, out
    assert "-> shop/api-" in out
    assert "answered by shop/api-" in out
    assert "api stands for shop/api-" in err
    assert netpol("lab", "probe", "other", "svc:api")[0] == 0
    code, out, _ = netpol("lab", "shell", "web", "wget", "-qO-", "http://api")
    assert (code, "Welcome to nginx" in out) == (0, True)


def test_what_the_server_refuses(netpol: Netpol, tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(MANIFESTS.replace("apiVersion: v1\nkind: Service", "apiVersion: v1\nkind: Ham"))
    assert "Ham is no kind that is known here" in netpol("lab", "apply", str(file))[2]
    file.write_text(OPEN.replace("ingress: [{}]", "ingress: [{from: [{}]}]"))
    code, _, err = netpol("lab", "apply", str(file))
    assert code == 2
    assert "spec.ingress[0].from[0]: Required value" in err
    file.write_text("apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: [}\n")
    assert f"{file}:4: error: not YAML" in netpol("lab", "apply", str(file))[2]
    # Images are programs of this machine, and there are two of them.
    pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: x, namespace: crash}\n"
    file.write_text(pod + "spec: {containers: [{name: b, image: postgres}]}\n")
    code, _, err = netpol("lab", "apply", str(file))
    assert code == 2
    assert "Pod crash/x does not start: container b: " in err
    assert "nginx and busybox" in err
    assert netpol("lab", "delete", str(file))[0] == 0


def test_the_desk_reads_it(netpol: Netpol, tmp_path: Path) -> None:
    kubeconfig = str(home("default").kubeconfig)
    live = ["--kubeconfig", kubeconfig]
    code, out, _ = netpol("explain", "other", "svc:api", *live)
    assert code == 1
    assert "shop/api applies (cluster:netpol-lab)" in out
    code, out, _ = netpol("matrix", "-n", "shop", "--no-outside", *live)
    assert code == 0
    assert "shop/api-* (2)" in out
    assert netpol("lint", "--fail-on", "error", *live)[0] == 0

    opened = tmp_path / "open.yaml"
    opened.write_text(OPEN)
    code, out, _ = netpol("diff", str(opened), *live)
    assert code == 1
    assert "shop/other" in out
    # The same file beside it: as if it were applied.
    assert netpol("explain", "other", "svc:api", str(opened), *live)[0] == 0

    claims = tmp_path / "claims.yaml"
    claims.write_text(
        "- {name: web, from: {pods: {app: web}}, to: {pods: {app: api}}, expect: allow}\n"
        "- {name: all, from: {namespace: shop}, to: {pods: {app: api}}, expect: allow}\n"
    )
    code, out, _ = netpol("check", "-a", str(claims), *live)
    assert code == 1
    assert "shop/other" in out


def test_its_policies_on_a_lab_of_their_own(netpol: Netpol) -> None:
    """What is the cluster's own (addresses, nodes, its DNS server) stays behind."""
    code, out, _ = netpol("try", "--kubeconfig", str(home("default").kubeconfig))
    assert code == 0, out
    assert "shop/other -> svc:shop/api:80/TCP by service-name" in out


def test_clusters_that_do_not_answer(netpol: Netpol, tmp_path: Path) -> None:
    text = home("default").kubeconfig.read_text()
    server = next(w for w in text.split() if w.startswith("https://127.0.0.1:"))
    file = tmp_path / "kubeconfig"
    began = time.monotonic()
    file.write_text(text.replace(server, "https://127.0.0.1:9"))
    code, _, err = netpol("matrix", "--kubeconfig", str(file))
    assert code == 2
    assert "https://127.0.0.1:9 does not answer to GET /api/v1/namespaces" in err
    token = next(line for line in text.splitlines() if "token:" in line)
    file.write_text(text.replace(token, token.partition("token:")[0] + "token: expired"))
    code, _, err = netpol("matrix", "--kubeconfig", str(file))
    assert code == 2
    assert "does not know who asks: its token or certificate has expired" in err
    assert "Traceback" not in err
    code, _, err = netpol("matrix", "--kubeconfig", str(file), "--context", "none")
    assert (code, "cannot be used" in err) == (2, True)
    assert time.monotonic() - began < 60


def test_an_ordinary_user_has_one_too() -> None:
    with nobody() as user:
        (user.home / "manifests.yaml").write_text(MANIFESTS)

        def netpol(*words: str) -> str:
            return user.python("-m", "harness", *words)

        out = netpol("lab", "up", "--api", "--api-binaries", str(user.home / "bin"))
        try:
            kubeconfig = user.home / ".local/state/netpol/labs/default/kubeconfig"
            assert f"export KUBECONFIG={kubeconfig}" in out
            netpol("lab", "apply", "manifests.yaml")
            assert "answered by shop/api-" in netpol("lab", "probe", "web", "api")
            told = json.loads(netpol("lab", "status", "--json"))
            assert os.stat(f"/proc/{told['pid']}").st_uid != 0
        finally:
            netpol("lab", "down")
        eventually(lambda: not alive(told["pid"]))
