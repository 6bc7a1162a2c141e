"""What the expected model costs: whole matrices with ports, one change, explanations, loading.

Seconds are of the processor, so that other work on the machine is not counted; the bounds leave
room for a slow one. ``pytest tests/benchmarks/test_model.py -s`` shows the figures.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.model.explain import Explainer
from harness.model.fast import Reach
from harness.model.flow import Cell, Endpoint, EndpointKind
from harness.model.manifest import load_text, to_yaml
from harness.model.oracle import Oracle
from harness.model.policy import EVERYTHING, Direction, NetworkPolicy, PolicyPort, Protocol, Rule
from harness.model.world import World
from tests.benchmarks.model_worlds import cluster

SIZES = ((100, 10, 50), (400, 20, 100), (1000, 50, 250), (2000, 80, 500))
#: Seconds that network-config-analyzer 2.1.0 needs for pod by pod with ports on 2 cores.
ANALYZER = {100: 1.15, 400: 5.04, 1000: 34.5, 2000: 194.0}
#: A published shape of a large cluster.
LARGE = (5413, 604, 13678)
#: How much slower than the machine that the bounds were made for another may be.
SLACK = 3


def seconds(work: Callable[[], object], times: int = 3) -> float:
    """Processor seconds, the best of some."""
    found = []
    for _ in range(times):
        begun = time.process_time()
        work()
        found.append(time.process_time() - begun)
    return min(found)


def whole(world: World) -> object:
    return Reach(world).table()


def test_whole_matrices_over_sizes() -> None:
    whole(cluster(10, 2, 5))  # numpy is loaded
    costs = {}
    for size in SIZES:
        world = cluster(*size)
        costs[size[0]] = seconds(lambda world=world: whole(world))  # type: ignore[misc]
        pairs = size[0] ** 2
        print(
            f"{size[0]:>5} pods {size[2]:>4} policies: {costs[size[0]]:.3f} s, "
            f"{costs[size[0]] / pairs * 1e6:.2f} us a pair, "
            f"{ANALYZER[size[0]] / costs[size[0]]:,.0f} times as fast as the analyzer's figure"
        )
    assert costs[1000] < 0.35 * SLACK
    # The pairs grow by 25 from 400 to 2,000 pods; the cost must not grow faster than they do.
    assert costs[2000] < costs[400] * 25 * SLACK


def test_a_large_cluster() -> None:
    """In a process of its own: its memory is what is measured."""
    done = subprocess.run(
        [sys.executable, __file__], capture_output=True, text=True, timeout=600, check=False
    )
    print(done.stdout, end="")
    assert done.returncode == 0, done.stderr
    took, mebibytes, change = map(float, done.stdout.split("\n")[-2].split())
    assert took < 10 * SLACK
    assert mebibytes < 1024
    assert change < 0.05 * SLACK


def test_the_plain_oracle_beside_it() -> None:
    world = cluster(100, 10, 50)
    ends = [Endpoint(EndpointKind.POD, *key) for key in world.pods]
    cells = [Cell(a, b, 8080) for a in ends for b in ends if a != b]

    def one_by_one() -> None:
        oracle = Oracle(world)
        for cell in cells:
            oracle.decide(cell)

    plain, fast = seconds(one_by_one), seconds(lambda: whole(world))
    print(
        f"100 pods: {plain:.3f} s for {len(cells):,} cells of one port one by one, {fast:.4f} s "
        f"for all ports at once"
    )
    assert fast < plain


def test_explaining_one_cell_of_a_large_cluster() -> None:
    world = cluster(*LARGE)
    explainer = Explainer(world)
    a, b = list(world.pods)[:2]
    cell = Cell(Endpoint(EndpointKind.POD, *a), Endpoint(EndpointKind.POD, *b), 8080)
    took = seconds(lambda: explainer.explain(cell).text())
    cold = seconds(lambda: Explainer(world).explain(cell).text())
    print(
        f"explaining one cell among {LARGE[2]:,} policies: {took * 1e3:.1f} ms, {cold * 1e3:.1f}"
        f" ms with nothing prepared"
    )
    assert cold < 0.1 * SLACK


@pytest.mark.parametrize("pods", [300, 1200])
def test_loading(pods: int) -> None:
    world = cluster(pods, pods // 9, int(pods * 2.5))
    text = to_yaml([*world.namespaces.values(), *world.pods.values(), *world.policies.values()])
    loading = seconds(lambda: load_text(text), 2)
    megabytes = len(text) / 1e6
    print(f"{megabytes:.2f} MB of YAML: {loading:.2f} s, {loading / megabytes:.2f} s a MB")
    assert loading / megabytes < 1 * SLACK


def large() -> None:
    """Prints seconds, MiB at most, and seconds for one changed policy, on the last line."""
    import resource

    world = cluster(*LARGE)
    begun = time.process_time()
    reach = Reach(world)
    prepared = time.process_time()
    table = reach.table()
    took = time.process_time() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rules = (Rule(ports=(PolicyPort(Protocol.TCP, 1234),)),)
    new = NetworkPolicy("ns7", "new", EVERYTHING, (Direction.INGRESS,), rules)

    def change() -> None:
        after = reach.with_policy(new)
        for i in range(len(after.points.ends)):
            for direction in Direction:
                after.row(i, direction)

    one = seconds(change)
    print(
        f"{LARGE[0]:,} pods, {LARGE[1]} namespaces, {LARGE[2]:,} policies: {took:.2f} s (of which "
        f"{prepared - begun:.2f} s to read the policies), {peak:.0f} MiB, {len(table.groups):,} "
        f"groups; one changed policy {one * 1e3:.1f} ms"
    )
    print(took, peak, one)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    large()
