"""What becomes of the cluster when its programs are missing, broken, stopped or killed."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from harness.labs.base import LabError
from harness.labs.cluster.pods import is_ready
from harness.labs.controlplane import binaries
from harness.labs.controlplane.binaries import Binaries
from harness.labs.controlplane.lab import EmbeddedClusterLab
from harness.model.actions import Apply
from harness.model.world import Namespace, Pod
from tests.netns.clusters import cluster_up, eventually, phase, pod_manifest, wget

pytestmark = pytest.mark.timeout(300)


def _with(name: str, path: Path) -> Binaries:
    """The real programs, and one of another kind in the place of ``name``."""
    good = binaries.find()
    return Binaries({**good.found, name: replace(good.found[name], path=path)})


@pytest.mark.parametrize("name", ["etcd", "kube-apiserver", "kube-controller-manager"])
def test_a_program_that_ends_at_once_is_told_with_its_last_words(tmp_path: Path, name: str) -> None:
    broken = tmp_path / name
    broken.write_text("#!/bin/sh\necho cannot find my socks >&2\nexit 3\n")
    broken.chmod(broken.stat().st_mode | stat.S_IXUSR)
    lab = EmbeddedClusterLab(tmp_path / "lab", binaries=_with(name, broken))
    began = time.monotonic()
    with pytest.raises(LabError) as caught:
        lab.up()
    assert time.monotonic() - began < 60
    assert f"{name} on control-plane ended with exit code 3" in caught.value.message
    assert "cannot find my socks" in caught.value.detail
    assert f"{name}.log" in caught.value.hint


def test_a_program_that_is_missing_is_told_with_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(LabError) as caught:
        binaries.find(directory=tmp_path)
    assert "kube-apiserver" in caught.value.message
    lab = EmbeddedClusterLab(
        tmp_path / "lab", binaries=_with("kube-apiserver", tmp_path / "not-there")
    )
    with pytest.raises(LabError, match="kube-apiserver on control-plane ended with exit code 127"):
        lab.up()


def test_the_api_server_is_killed(tmp_path: Path) -> None:
    """Whatever is asked from then on is an error with the server's last lines, at once."""
    with cluster_up(tmp_path / "lab", sound=False) as lab:
        lab.apply([Apply(Namespace("x")), Apply(Pod("x", "a"))])
        lab.plane.process("kube-apiserver").signal(signal.SIGKILL)
        began = time.monotonic()
        with pytest.raises(LabError) as caught:
            _keep_changing(lab)
        assert time.monotonic() - began < 30
        assert "kube-apiserver on control-plane was ended by signal 9" in caught.value.message
        assert "kube-apiserver: " in caught.value.detail
        # Pods live on without it.
        assert lab.holder.run("x/a/client", ["true"]).code == 0


def _keep_changing(lab: EmbeddedClusterLab) -> None:
    while True:
        lab.apply([Apply(Pod("x", "b", {"n": str(time.monotonic_ns())}))])


def test_the_api_server_is_away_for_a_while(tmp_path: Path) -> None:
    """Kubelets, proxies and watches come back by themselves; pods do not notice."""
    with cluster_up(tmp_path / "lab") as lab:
        lab.api.create(pod_manifest("before", "nginx"))
        eventually(lambda: is_ready(lab.api.find("Pod", "default", "before")))
        before = lab.api.get("Pod", "default", "before")
        lab.plane.expect_end("kube-apiserver")
        lab.plane.process("kube-apiserver").signal(signal.SIGKILL)
        eventually(lambda: lab.plane.process("kube-apiserver").poll() is not None)
        url = f"http://{before['status']['podIP']}/t/x"
        assert wget(lab, "node:worker", url).startswith("x default/before")
        time.sleep(2)
        lab.plane.restart("kube-apiserver")
        lab.api.create(pod_manifest("after", "nginx"))
        eventually(lambda: is_ready(lab.api.find("Pod", "default", "after")), seconds=120)
        now = lab.api.get("Pod", "default", "before")
        assert now["metadata"]["uid"] == before["metadata"]["uid"]
        assert now["status"]["podIP"] == before["status"]["podIP"]
        assert phase(lab.api, "before") == "Running"


_LAB = """
import sys, time
from pathlib import Path
from harness.labs.controlplane.lab import EmbeddedClusterLab
from harness.model.actions import Apply
from harness.model.world import Namespace, Pod
lab = EmbeddedClusterLab(Path(sys.argv[1]))
lab.up()
lab.apply([Apply(Namespace("x")), Apply(Pod("x", "a"))])
print(lab.holder.pid, flush=True)
time.sleep(600)
"""


def test_nothing_is_left_after_sigkill(tmp_path: Path) -> None:
    """Two labs at once; one is killed, and the other does not notice."""
    with subprocess.Popen(
        [sys.executable, "-c", _LAB, str(tmp_path / "killed")], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        with cluster_up(tmp_path / "other") as other:
            holder = int(process.stdout.readline())
            namespace = _pid_namespace(holder)
            inside = _processes(namespace)
            names = {Path(f"/proc/{pid}/comm").read_text().strip() for pid in inside}
            assert {"etcd", "kube-apiserver", "kube-scheduler", "kube-proxy", "nginx"} <= names
            process.send_signal(signal.SIGKILL)
            process.wait()
            eventually(lambda: not _processes(namespace))
            other.apply([Apply(Namespace("y")), Apply(Pod("y", "b"))])


def _pid_namespace(holder: int) -> str:
    """The PID namespace that a holder's child is the first process of."""
    return os.readlink(f"/proc/{holder}/ns/pid_for_children")


def _processes(namespace: str) -> list[int]:
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                if os.readlink(f"/proc/{entry}/ns/pid") == namespace:
                    found.append(int(entry))
            except OSError:
                continue
    return found
