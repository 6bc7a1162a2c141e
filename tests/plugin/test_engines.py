"""Policy engines of others on the command line: what is refused, and what a run says of one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plugin.conftest import RunSuite

pytestmark = pytest.mark.timeout(300)
SMALL = Path(__file__).parents[2] / "examples" / "small-engine"
ENTRY = SMALL / "small.toml"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--cni", "calico", "--lab", "netns"], "there is no policy engine of Calico here"),
        (["--cni", "calico", "--lab-engine", "nowhere"], "nowhere: there is no such file"),
        (["--cni", "calico", "--lab", "kind", "--lab-engine", "."], "is for --lab netns"),
        (["--cni", "flannel", "--lab-engine", "."], "has no engine that could be brought"),
        (["--cni", "calico", "--lab-engine", str(SMALL)], "needs its CustomResourceDefinitions"),
    ],
    ids=["none", "nowhere", "kind", "flannel", "crds"],
)
def test_what_cannot_be_run(run_clean: RunSuite, arguments: list[str], says: str) -> None:
    ended = run_clean(*arguments)
    assert ended.code == pytest.ExitCode.USAGE_ERROR
    assert says in ended.out
    assert not (ended.reports / "latest").exists()


def test_a_run_says_what_it_judges(run_clean: RunSuite) -> None:
    ended = run_clean(
        *("--lab-engine-file", str(ENTRY), "--lab-engine", str(SMALL), "--lab-nodes", "1")
    )
    assert ended.code == pytest.ExitCode.OK, ended.out
    assert "netpol: engine: policy engine only, on the lab's network: Small engine" in ended.out
    engine = ended.record.run["engine"]
    assert engine["argv"][0].endswith("bin/small-engine")
    assert engine["digest"].startswith("sha256:")
    assert "acted on every node" in ended.record.run["environment"]["engine_acts"]
    page = (ended.reports / "latest" / "report.html").read_text()
    assert "policy engine only, on the lab&#39;s network" in page
    assert engine["digest"] in page
