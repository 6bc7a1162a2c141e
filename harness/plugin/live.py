"""Progress that is seen while it happens, also under ``-n``: the controller prints it.

A line that an xdist worker writes is lost, so workers send theirs to the controller as datagrams.
What cannot be sent or shown is dropped: progress is never worth a test.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from harness.plugin.session import told

LONGEST = 2000  # bytes of one line


class Live:
    """Says lines. This one says them to nobody."""

    def say(self, text: str) -> None:
        """Show one line of progress."""

    @staticmethod
    def of(config: pytest.Config) -> Live:
        """The one that suits this process."""
        if not config.getoption("lab_live"):
            return Live()
        if hasattr(config, "workerinput"):
            address = told(config).get("live")
            return _Sender(address, config.workerinput["workerid"]) if address else Live()
        return _Printer(config)


class _Printer(Live):
    """In the process that owns the terminal, between what pytest captures."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._lock = threading.Lock()

    def say(self, text: str) -> None:
        plugins = self._config.pluginmanager
        reporter: Any = plugins.getplugin("terminalreporter")
        capture: Any = plugins.getplugin("capturemanager")
        if reporter is None:
            return
        uncaptured = capture.global_and_fixture_disabled() if capture else contextlib.nullcontext()
        with self._lock, uncaptured:
            reporter.write_line(text)


class _Sender(Live):
    """In a worker."""

    def __init__(self, address: str, worker: str) -> None:
        self._address = address
        self._worker = worker
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def say(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._socket.sendto(f"{self._worker}: {text}".encode()[:LONGEST], self._address)


class Listener:
    """In the controller of a run with workers: prints what they send."""

    def __init__(self, config: pytest.Config) -> None:
        self._printer = _Printer(config)
        self._directory = tempfile.mkdtemp(prefix="netpol-")
        self.address = os.path.join(self._directory, "live")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._thread = threading.Thread(target=self._listen, name="netpol-live", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while data := self._socket.recv(LONGEST):
            self._printer.say(data.decode(errors="replace"))

    def close(self) -> None:
        """Stop. An empty datagram is the end."""
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end,
        ):
            end.sendto(b"", self.address)
        self._thread.join(timeout=2)
        self._socket.close()
        with contextlib.suppress(OSError):
            Path(self.address).unlink()
            Path(self._directory).rmdir()
