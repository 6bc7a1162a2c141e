"""What the status of a pod says."""

from __future__ import annotations

import pytest

from harness.labs.cluster.pods import has_ended


@pytest.mark.parametrize(
    ("status", "ended"),
    [
        ({"phase": "Running", "containerStatuses": [{"state": {"running": {}}}]}, False),
        ({"phase": "Pending", "containerStatuses": [{"state": {"waiting": {}}}]}, False),
        ({"phase": "Running", "containerStatuses": [{"state": {"terminated": {}}}]}, True),
        # refused by the kubelet, as a real one says it: no container was ever made
        ({"phase": "Failed", "reason": "NodePorts", "message": "host port taken"}, True),
        ({}, False),
    ],
)
def test_a_pod_that_will_not_come_has_ended(status: dict[str, object], *, ended: bool) -> None:
    assert has_ended({"status": status}) is ended


def test_a_pod_that_nobody_knows_has_not() -> None:
    assert not has_ended(None)
