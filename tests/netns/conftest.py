"""Labs made of real namespaces. They need nginx, busybox, dnsmasq, iproute2, nftables; not root."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from harness.labs.netns.lab import NetnsLab

MakeLab = Callable[..., NetnsLab]


@pytest.fixture
def make_lab(tmp_path: Path) -> Iterator[MakeLab]:
    """Start labs that go down with the test."""
    with ExitStack() as stack:

        def make(**options: Any) -> NetnsLab:
            lab = NetnsLab(tmp_path / f"lab{len(made)}", **options)
            made.append(lab)
            lab.up()
            stack.callback(lab.down)
            return lab

        made: list[NetnsLab] = []
        yield make


@pytest.fixture(scope="module", params=["routed", "overlay", "bridged"])
def dual_lab(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[NetnsLab]:
    """A lab of both address families on each fabric, shared by the tests of a file."""
    lab = NetnsLab(tmp_path_factory.mktemp("lab"), fabric=request.param, families=(4, 6))
    lab.up()
    yield lab
    lab.down()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: Any) -> Iterator[NetnsLab]:
    """A lab of both address families on the routed fabric, shared by the tests of a file."""
    lab = NetnsLab(tmp_path_factory.mktemp("lab"), families=(4, 6))
    lab.up()
    yield lab
    lab.down()
