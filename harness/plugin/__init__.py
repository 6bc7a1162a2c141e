"""The pytest plugin: ``pytest suites/ --cni NAME``. The only room that imports pytest.

It is registered for every pytest run of the environment, so all that it does by itself is to
declare options and to look whether a run is one of ours: ``--cni`` or ``--lab`` is given, or a
``conftest.py`` says that the files beside it are conformance suites::

    netpol_suite = True

Only then is the rest of the harness imported (:mod:`harness.plugin.session`).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.plugin import options


def pytest_addoption(parser: pytest.Parser) -> None:
    options.add(parser)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("help", False) or config.getoption("version", False):
        return
    suites = Suites(config)
    # Hears of every plugin, those too that were there before: conftests among them.
    config.pluginmanager.register(suites, "netpol-suites")
    if options.given(config):
        suites.activate()


class Suites:
    """Knows the directories that hold suites, and wakes the rest up for them."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.directories: set[Path] = set()
        self.active = False

    def pytest_plugin_registered(self, plugin: object) -> None:
        if getattr(plugin, "netpol_suite", None) is True:
            file = getattr(plugin, "__file__", None)
            if file:
                self.directories.add(Path(file).parent)
            self.activate()

    def activate(self) -> None:
        if not self.active:
            self.active = True
            from harness.plugin import session

            session.begin(self.config, self)

    def holds(self, path: Path) -> bool:
        """Whether a file belongs to a suite."""
        return any(directory in path.parents for directory in self.directories)
